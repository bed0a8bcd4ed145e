"""Recovery and super-resolution by supervised networks, to compare with ours.

    python -m benchmarks.supervised --config=recovery:chair --iterations=400
    python -m benchmarks.supervised --config=super_resolution:sofa,64

Both learn by cross-entropy. That of recovery gets a mask of the visible voxels
and their values. Its six convolutions of 3^3 are dilated by 1, 1, 2, 4, 2 and
1. That of super-resolution has four convolutions of 3^3 on the coarse grid,
and then all voxels of a block for each block (sub-pixel convolution, Shi et
al., 2016); its probabilities are scored as they are, and sharpened as the
models' shapes are. Data, what is given, and scores are those of the config.
Prints the scores and writes them to --out, as a result of table 'supervised',
which the tables of docs/results.md show.
"""

from collections.abc import Callable
from collections.abc import Sequence
import datetime
import functools
import json
import os
import sys
import time
from typing import Any
from typing import NamedTuple

from absl import app
from absl import flags
from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from data_prep import command
import dnet_jax
from experiments import batches
from experiments import config_files
from experiments.evaluation import baselines
from experiments.evaluation import scores
from experiments.files import mini_batches
from experiments.files import outputs
from experiments.tasks import parts
from experiments.tasks import recovery

_DILATIONS = (1, 1, 2, 4, 2, 1)
_RATE = 3e-3


class Network(nn.Module):
  """Logits of all voxels, from those that are visible."""

  features: int = 24

  @nn.compact
  def __call__(self, y, visible):
    """Logits `(n, D, H, W)`.

    Args:
      y: voxels `(n, D, H, W)` in [0, 1]; only visible ones are read.
      visible: boolean, likewise.
    """
    x = jnp.stack([jnp.where(visible, y, 0), visible], axis=-1)
    x = x.astype(jnp.float32)
    for dilation in _DILATIONS:
      conv = nn.Conv(self.features, (3, 3, 3), kernel_dilation=dilation)
      x = nn.relu(conv(x))
    return nn.Dense(1)(x)[..., 0]


class Details(nn.Module):
  """Logits of all voxels, from the averages of blocks."""

  factor: int
  features: int = 64

  @nn.compact
  def __call__(self, low):
    """Logits `(n, D, H, W)`.

    Args:
      low: block averages `(n, D / d, H / d, W / d)`.
    """
    x = low.astype(jnp.float32)[..., None]
    for _ in range(4):
      x = nn.relu(nn.Conv(self.features, (3, 3, 3))(x))
    d = self.factor
    x = nn.Dense(d**3)(x).reshape(*low.shape, d, d, d)
    x = x.transpose(0, 1, 4, 2, 5, 3, 6)
    return x.reshape(len(low), *(d * side for side in low.shape[1:]))


class Problem(NamedTuple):
  """What a network is given, and what it is asked for.

  Attributes:
    network: `apply(params, *given) -> (n, D, H, W)` logits.
    given: `(keys, y) -> given`, from voxels `(n, D, H, W)`.
    visible: `(given) -> boolean`, the voxels that are known, which broadcast
      against y.
  """

  network: nn.Module
  given: Callable[..., tuple[jax.Array, ...]]
  visible: Callable[..., Any]


def _recovery(config, features):
  corrupt = parts.corruption(config.corruption.kind, config.corruption.fraction)
  return Problem(
    Network(features or 24),
    lambda keys, y: (y, corrupt(keys, y[..., None])[..., 0]),
    lambda given: given[1],
  )


def _super_resolution(config, features):
  def given(keys, y):
    del keys
    return (dnet_jax.downscale(y[..., None], config.factor)[..., 0],)

  return Problem(
    Details(config.factor, features or 64), given, lambda given: False
  )


PROBLEMS = {'recovery': _recovery, 'super_resolution': _super_resolution}


def problem(config: ml_collections.ConfigDict, features: int = 0) -> Problem:
  """The problem of a config.

  Args:
    config: of recovery or super-resolution.
    features: of the network; 0: 24 and 64.

  Raises:
    ValueError: for a config of another task.
  """
  if config.task not in PROBLEMS:
    raise ValueError(
      f'--config must be one of {" or ".join(PROBLEMS)}, got one of '
      f'{config.task}'
    )
  return PROBLEMS[config.task](config, features)


def loss(
  logits: jax.Array, y: jax.Array, visible: jax.Array | bool
) -> jax.Array:
  """The mean cross-entropy of the hidden voxels."""
  terms = optax.sigmoid_binary_cross_entropy(logits, y)
  hidden = ~jnp.broadcast_to(visible, y.shape)
  return jnp.sum(jnp.where(hidden, terms, 0)) / jnp.sum(hidden)


def learn(
  config: ml_collections.ConfigDict,
  asked: Problem,
  train: Any,
  iterations: int,
) -> tuple[Any, float]:
  """Parameters of the network that has learned, and the seconds it took."""
  key = jax.random.key(config.seed)

  def given(key, y):
    return asked.given(dnet_jax.chain_keys(key, len(y)), y)

  first = given(key, jnp.zeros((1, *train.shape[1:])))
  params = asked.network.init(key, *first)
  optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, iterations))
  state = optimizer.init(params)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, key, y):
    known = given(key, y)
    value, gradient = jax.value_and_grad(
      lambda params: loss(
        asked.network.apply(params, *known), y, asked.visible(known)
      )
    )(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value

  begun = time.monotonic()
  for i in range(iterations):
    chosen = mini_batches.batch_indices(
      len(train), config.data.batch_size, i, config.seed, True, 0
    )
    y = jnp.asarray(train[np.array(chosen)], jnp.float32)
    params, state, value = step(params, state, jax.random.fold_in(key, i), y)
    if (i + 1) % 50 == 0 or i + 1 == iterations:
      print(
        f'iteration {i + 1} of {iterations}: {float(value):.4f}', flush=True
      )
  return params, time.monotonic() - begun


def evaluate(
  config: ml_collections.ConfigDict, iterations: int
) -> dict[str, Any]:
  """Learns, asks for the test shapes, and returns a result.

  Args:
    config: of recovery or super-resolution.
    iterations: of learning.
  """
  data, asked = parts.data(config), problem(config)
  params, seconds = learn(config, asked, data.train, iterations)
  voxels = np.asarray(data.test[: config.evaluate.num_shapes], np.float32)
  # What is given is that of the evaluation of a model.
  if config.task == 'recovery':
    visible = recovery.corrupted(config, voxels, config.evaluate.seed)
    given = voxels, visible
    score = functools.partial(scores.recovery_scores, visible=visible)
  else:
    visible = np.False_
    given = (baselines.downscale(voxels, config.factor),)
    score = scores.super_resolution_scores
  apply = jax.jit(
    lambda *given: nn.sigmoid(asked.network.apply(params, *given))
  )
  made = np.where(visible, voxels, batches.map_batches(apply, *given))
  found = {'supervised network': score(made, voxels)}
  if config.task == 'super_resolution':
    sharp = baselines.sharpened(made, *given, config.factor)
    found['supervised network, sharpened'] = score(sharp, voxels)
  return {
    'experiment': f'supervised_{config.name}',
    'command': ' '.join(['python -m benchmarks.supervised', *sys.argv[1:]]),
    'date': datetime.date.today().isoformat(),
    'device': outputs.device(),
    'table': 'supervised',
    'task': config.task,
    'model': config.name,
    'category': config.data.category,
    'data': data.source,
    'test_shapes': len(voxels),
    'budget': {'iterations': iterations, 'seconds': round(seconds, 1)},
    'scores': found,
  }


def main(argv: Sequence[str]) -> int:
  """The command; returns its exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  outputs.plain_log()
  if values.out and os.path.lexists(values.out):
    # Checked before minutes of learning, not after.
    raise FileExistsError(f'{values.out} exists and is not overwritten')
  config = config_files.load_config(values.config)
  if values.data:
    config.data.path = values.data
  result = evaluate(config, values.iterations)
  for what, row in result['scores'].items():
    print(f'{what}:')
    for name, x in row.items():
      print(f'  {name:14}{x:8.4f}')
  if values.out:
    outputs.write(values.out, result)
  print(json.dumps(result))
  return 0


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_string(
    'config', 'recovery:chair', 'Config of recovery or super-resolution.'
  )
  flags.DEFINE_string('data', '', 'Voxel file; by default that of the config.')
  flags.DEFINE_integer('iterations', 400, 'Iterations of learning.', 1)
  flags.DEFINE_string('out', '', 'A JSON file for the scores.')


if __name__ == '__main__':
  command.run(main, define_flags)
