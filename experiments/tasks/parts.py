"""From a config to library objects: sizes, energies, samplers, optimisers.

Each string becomes an object here, once, from a literal dict.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import itertools
import os
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np
import optax

import dnet_jax
from dnet_jax import corruptions
from experiments import parallel
from experiments.files import datasets
from experiments.files import mini_batches
from experiments.files import summaries
from experiments.tasks import base
from experiments.tasks import networks

KERNELS = {'langevin': dnet_jax.langevin, 'mala': dnet_jax.mala}
CORRUPTIONS = {
  'random_voxels': corruptions.random_voxels,
  'random_box': corruptions.random_box,
  'half_space': corruptions.half_space,
}


# Chains and learning.


def sampler(config: ml_collections.ConfigDict) -> dnet_jax.Sampler:
  """What moves the chains of learning."""
  chains = config.chains
  return dnet_jax.make_sampler(
    num_steps=chains.num_steps,
    step_size=chains.step_size,
    kernel=networks.choice(KERNELS, chains.kernel, 'chains.kernel'),
    axis_name=parallel.AXIS,
    at_once=chains.at_once or None,
  )


def contrastive_learner(
  config: ml_collections.ConfigDict, energy: Callable[[Any, Any], Any]
) -> dnet_jax.Learner:
  """The learner of a descriptor, eq. (8)."""
  return dnet_jax.make_learner(
    dnet_jax.contrastive_loss(energy), optimizer(config)
  )


def optimizer(
  config: ml_collections.ConfigDict,
  *,
  learning_rate: float | None = None,
  b1: float | None = None,
  b2: float | None = None,
  weight_decay: float = 0.0,
  constant: bool = False,
) -> optax.GradientTransformation:
  """Adam with clipping, at a rate that is constant and then a cosine.

  Args:
    config: its `optimizer` has clipping, schedule, and what is not given.
    learning_rate: of the constant part.
    b1: of Adam.
    b2: of Adam.
    weight_decay: of AdamW; 0: Adam.
    constant: True: the rate never falls.
  """
  settings = config.optimizer
  rest = config.train.num_iterations - settings.constant_iterations
  rate = settings.learning_rate if learning_rate is None else learning_rate
  # Also where it never falls: a schedule has a state, which has to be there
  # when the run goes on with more iterations.
  schedule = optax.constant_schedule(rate)
  if rest > 0 and not constant:
    falling = optax.cosine_decay_schedule(rate, rest, settings.final_fraction)
    schedule = optax.join_schedules(
      [schedule, falling], [settings.constant_iterations]
    )
  moments = (
    settings.b1 if b1 is None else b1,
    settings.b2 if b2 is None else b2,
  )
  if weight_decay:
    adam = optax.adamw(schedule, *moments, weight_decay=weight_decay)
  else:
    adam = optax.adam(schedule, *moments)
  if not settings.clip_norm:
    return adam
  return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adam)


def temperature_at(
  config: ml_collections.ConfigDict, step: int
) -> float | np.ndarray:
  """T of section 2.5 in learning iteration `step`: one, or one for each grid.

  Raises:
    ValueError: for `chains.grid_temperatures` that do not fit `model.grids`.
  """
  chains = config.chains
  noisy = chains.noise_iterations < 0 or step < chains.noise_iterations
  temperature = chains.temperature if noisy else 0.0
  factors = np.array(chains.grid_temperatures, np.float32)
  if not factors.size:
    return temperature
  if factors.shape != (len(config.model.grids),) or (factors < 0).any():
    raise ValueError(
      'chains.grid_temperatures must be one number >= 0 for each of the '
      f'grids {tuple(config.model.grids)}, got '
      f'{tuple(config.chains.grid_temperatures)}'
    )
  return temperature * factors


def corruption(kind: str, fraction: float) -> corruptions.Corruption:
  """What a recovery hides: `corruption.kind` and `corruption.fraction`."""
  if kind == 'mixture':
    return corruptions.mixture(
      [
        corruptions.random_voxels(fraction),
        corruptions.random_box(),
        corruptions.half_space(),
      ]
    )
  return networks.choice(CORRUPTIONS, kind, 'corruption.kind')(fraction)


def fill(config: ml_collections.ConfigDict) -> Callable[..., Any] | None:
  """Where the hidden voxels of a recovery begin; see `recovery_start`."""
  std = config.corruption.fill_std
  if std < 0:
    raise ValueError(f'corruption.fill_std must be >= 0, got {std}')
  if not std:
    return None
  return lambda y, visible, mean: corruptions.local_average(
    y, visible, std, mean
  )


def grid_factors(config: ml_collections.ConfigDict) -> tuple[int, ...]:
  """Ratios of side between 1^3 and the grids of `model.grids`.

  Raises:
    ValueError: where one is not whole.
  """
  sides = (1, *config.model.grids)
  for coarse, fine in itertools.pairwise(sides):
    if fine % coarse or fine <= coarse:
      raise ValueError(
        'model.grids must grow by whole factors, got '
        f'{tuple(config.model.grids)}'
      )
  return tuple(b // a for a, b in itertools.pairwise(sides))


# Data.


def data(
  config: ml_collections.ConfigDict, *, packed: bool = False
) -> datasets.Dataset:
  """Loads the data of `config.data`; says which where it is not named.

  Args:
    config: its `data` is read.
    packed: whether binary shapes stay bits, see `datasets.load`.

  Raises:
    FileNotFoundError: where there is no such file; says what to do.
    ValueError: for a file that does not hold what is asked for.
  """
  settings = config.data
  path = settings.path
  if not path:
    path = f'data/modelnet10_{settings.size}.npz'
    if not os.path.exists(path):
      path = datasets.FURNITURE
    logging.info('Data: %s.', path)
  elif not os.path.exists(path) and os.path.exists(f'data/{path}'):
    # A saved model names the file without its folder.
    path = f'data/{path}'
  if path != datasets.FURNITURE and not os.path.exists(path):
    raise FileNotFoundError(
      f'there is no data at {path}: point --config.data.path at a voxel file '
      "(docs/data.md says how to make one of ModelNet10), or at 'furniture', "
      'which needs no file'
    )
  return datasets.load(
    path,
    settings.category,
    furniture_size=settings.size,
    furniture_shapes=settings.furniture_shapes,
    scaling=settings.scaling,
    hold_out=settings.hold_out,
    packed=packed,
  )


def data_or_none(
  config: ml_collections.ConfigDict,
) -> datasets.Dataset | None:
  """The data of a config, or None where it is not there; says so."""
  try:
    return data(config)
  except (FileNotFoundError, ValueError) as error:
    logging.warning('No data to compare with: %s', error)
    return None


def batch_of(
  config: ml_collections.ConfigDict,
  voxels: datasets.Dataset,
  shuffle: bool = True,
) -> Callable[..., np.ndarray]:
  """`(step, rollbacks=0, rows=all) -> (rows, D, H, ...)`, as they are stored.

  `datasets.prepare` makes of them what a network sees.

  Raises:
    ValueError: for a batch size that data or devices cannot give.
  """
  parallel.check_divisible(**{'data.batch_size': config.data.batch_size})

  def batch(step, rollbacks=0, rows=slice(None)):
    chosen = mini_batches.batch_indices(
      len(voxels.train),
      config.data.batch_size,
      step,
      config.seed,
      shuffle,
      rollbacks,
    )
    return datasets.stored(voxels.train, np.array(chosen[rows]))

  batch(0, 0, slice(1))  # Raises here.
  return batch


# The model.


def uses(
  config: ml_collections.ConfigDict,
) -> tuple[tuple[tuple[str, dnet_jax.Use], ...], dict[str, Any]]:
  """How a model of this config is used: the program's part, and the numbers."""
  chains, sample = config.chains, config.sample
  last = temperature_at(config, config.train.num_iterations - 1)
  grid_heat = sample.temperature * np.asarray(last, np.float32)
  networks.choice(KERNELS, chains.kernel, 'chains.kernel')

  def use(settings, start, **more):
    return dnet_jax.Use(
      start=start,
      num_steps=settings.num_steps,
      noise_steps=settings.noise_steps,
      refinement_steps=settings.refinement_steps,
      kernel=chains.kernel,
      **more,
    )

  def numbers(settings, **more):
    own = {
      'step_size': settings.step_size or chains.step_size,
      'temperature': settings.temperature,
      'refinement_std': settings.refinement_std,
    }
    return {name: np.float32(x) for name, x in (own | more).items()}

  found = {
    'synthesize': (
      use(sample, sample.start),
      numbers(sample, start_std=sample.start_std or chains.start_std),
    ),
    'recover': (
      use(
        config.recover,
        'local_average' if config.corruption.fill_std else 'mean',
        hold=config.corruption.hold,
      ),
      numbers(config.recover, fill_std=config.corruption.fill_std or 1.0),
    ),
    'super_resolve': (
      use(config.super_resolve, 'repeat'),
      numbers(config.super_resolve),
    ),
    'reconstruct': (
      dnet_jax.Use(
        'prior', config.latent.num_steps, num_starts=config.latent.num_starts
      ),
      {
        'step_size': np.float32(config.latent.step_size),
        'noise_std': np.float32(config.latent.noise_std),
      },
    ),
  }
  if config.model.grids:
    found['synthesize'][1]['temperature'] = grid_heat
  return (
    tuple((name, use) for name, (use, _) in found.items()),
    {name: numbers for name, (_, numbers) in found.items()},
  )


def with_settings(
  model: dnet_jax.Model, config: ml_collections.ConfigDict
) -> dnet_jax.Model:
  """The model, to be used as a config says and not as its own one says."""
  how, numbers = uses(config)
  return dataclasses.replace(
    model,
    spec=model.spec._replace(uses=how),
    extras=dict(model.extras) | {'settings': numbers},
  )


def model_parts(
  config: ml_collections.ConfigDict,
  grid: Sequence[int],
  mean: float,
  scale: float,
  **sizes: Any,
) -> tuple[dnet_jax.Spec, dict[str, Any]]:
  """The spec and the extras of a model of this config.

  Args:
    config: of the run.
    grid: `(D, H, W)`.
    mean: of its data.
    scale: likewise.
    **sizes: `descriptors`, `grids`, `generator`, `classifier` of the spec.
  """
  settings = config.model
  how, numbers = uses(config)
  spec = dnet_jax.Spec(
    grid=tuple(map(int, grid)),
    reference=networks.choice(
      networks.REFERENCES, settings.reference, 'model.reference'
    ),
    uses=how,
    **sizes,
  )
  extras = {
    'mean': np.float32(mean),
    'scale': np.float32(scale),
    'reference_std': np.float32(settings.reference_std),
    'reference_means': np.array(settings.reference_means, np.float32),
    'settings': numbers,
  }
  return spec, extras


def components(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> dict[str, np.ndarray]:
  """Principal components of the training shapes, `config.components`."""
  return summaries.principal_components(
    datasets.to_network(np.asarray(voxels.train), voxels.mean, voxels.scale),
    config.components.number,
    config.components.groups,
  )


def fixed_key(config: ml_collections.ConfigDict) -> jax.Array:
  """The key of the shapes that a run shows: the same ones each time."""
  return jax.random.fold_in(jax.random.key(config.seed), 4)


def one_phase(
  config: ml_collections.ConfigDict,
  voxels: datasets.Dataset,
  names: tuple[str, ...],
  algorithm: dnet_jax.Algorithm,
  batch: Callable[..., Any],
) -> base.Phase:
  """The phase of a training that has but one, named by its algorithm.

  Args:
    config: of the run.
    voxels: its data.
    names: of the networks that are learned.
    algorithm: learns them.
    batch: of `batch_of`.
  """
  return base.Phase(
    config.algorithm or config.task,
    config.train.num_iterations,
    names,
    algorithm,
    batch,
    config.data.batch_size,
    functools.partial(temperature_at, config),
    datasets.prepare(voxels),
  )
