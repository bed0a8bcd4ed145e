"""Recovery by a supervised network, to compare with Table 4.

    python -m benchmarks.supervised --category=chair --iterations=400

Six convolutions of 3^3, dilated by 1, 1, 2, 4, 2 and 1, get a mask of the
visible voxels and their values, and learn by cross-entropy on the hidden ones.
Data, corruption and scores are those of `recovery:CATEGORY`. Prints the scores
and writes them to --out as a result of table 'supervised', which Table 4 shows.
"""

from collections.abc import Sequence
import datetime
import functools
import json
import os
import sys
import time
from typing import Any

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
from experiments.configs import recovery as config_file
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


def loss(logits: jax.Array, y: jax.Array, visible: jax.Array) -> jax.Array:
  """The mean cross-entropy of the hidden voxels."""
  terms = optax.sigmoid_binary_cross_entropy(logits, y)
  return jnp.sum(jnp.where(visible, 0, terms)) / jnp.sum(~visible)


def learn(config, train, iterations, features=24):
  """Parameters and the network that has learned."""
  network = Network(features)
  corrupt = parts.corruption(config.corruption.kind, config.corruption.fraction)
  key = jax.random.key(config.seed)
  first = jnp.zeros((1, *train.shape[1:]))
  params = network.init(key, first, first > 0)
  optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, iterations))
  state = optimizer.init(params)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, key, y):
    keys = dnet_jax.chain_keys(key, len(y))
    visible = corrupt(keys, y[..., None])[..., 0]
    value, gradient = jax.value_and_grad(
      lambda params: loss(network.apply(params, y, visible), y, visible)
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
  return network, params, time.monotonic() - begun


def evaluate(
  config: ml_collections.ConfigDict, iterations: int
) -> dict[str, Any]:
  """Learns, recovers the test shapes, and returns a result of Table 4.

  Args:
    config: of `recovery:CATEGORY`.
    iterations: of learning.
  """
  data = parts.data(config)
  network, params, seconds = learn(config, data.train, iterations)
  voxels = np.asarray(data.test[: config.evaluate.num_shapes], np.float32)
  visible = recovery.corrupted(config, voxels, config.evaluate.seed)
  apply = jax.jit(lambda y, seen: nn.sigmoid(network.apply(params, y, seen)))
  made = np.where(visible, voxels, batches.map_batches(apply, voxels, visible))
  category = config.data.category
  return {
    'experiment': f'supervised_{category}',
    'command': ' '.join(['python -m benchmarks.supervised', *sys.argv[1:]]),
    'date': datetime.date.today().isoformat(),
    'device': outputs.device(),
    'table': 'supervised',
    'category': category,
    'data': data.source,
    'test_shapes': len(voxels),
    'budget': {'iterations': iterations, 'seconds': round(seconds, 1)},
    'scores': {
      'supervised network': scores.recovery_scores(made, voxels, visible)
    },
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
  config = config_file.get_config(values.category)
  if values.data:
    config.data.path = values.data
  result = evaluate(config, values.iterations)
  for name, x in result['scores']['supervised network'].items():
    print(f'{name:14}{x:8.4f}')
  if values.out:
    outputs.write(values.out, result)
  print(json.dumps(result))
  return 0


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_string('category', 'chair', 'Category of the data.')
  flags.DEFINE_string('data', '', 'Voxel file; by default that of the config.')
  flags.DEFINE_integer('iterations', 400, 'Iterations of learning.', 1)
  flags.DEFINE_string('out', '', 'A JSON file for the scores.')


if __name__ == '__main__':
  command.run(main, define_flags)
