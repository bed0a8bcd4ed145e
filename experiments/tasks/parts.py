"""From a config to library objects: sizes, energies, samplers, optimisers.

Each string becomes an object here, once, from a literal dict.
"""

from collections.abc import Callable
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
from experiments.tasks import base
from experiments.tasks import networks

KERNELS = {'langevin': dnet_jax.langevin, 'mala': dnet_jax.mala}
CORRUPTIONS = {
  'random_voxels': corruptions.random_voxels,
  'random_box': corruptions.random_box,
  'half_space': corruptions.half_space,
}
ONE_VIEW, MIXTURE = 'one_view', 'mixture'


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
  learning_rate: float | optax.Schedule | None = None,
  b1: float | None = None,
  b2: float | None = None,
  weight_decay: float = 0.0,
) -> optax.GradientTransformation:
  """Adam with clipping, at a rate that is constant and then a cosine.

  Args:
    config: its `optimizer` has clipping, the schedule, and the values of
      arguments that are not given.
    learning_rate: of the constant part; or a schedule, which is used as it is.
    b1: of Adam.
    b2: of Adam.
    weight_decay: of AdamW; 0: Adam.
  """
  settings = config.optimizer
  rest = config.train.num_iterations - settings.constant_iterations
  rate = settings.learning_rate if learning_rate is None else learning_rate
  # Even a constant rate is a schedule: its state must exist in the checkpoint
  # when the run is continued with more iterations.
  schedule = rate if callable(rate) else optax.constant_schedule(rate)
  if rest > 0 and not callable(rate):
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


def corruption(
  kind: str, fraction: float, level: float = 0.5
) -> corruptions.Corruption:
  """The corruption of a recovery: which voxels it hides.

  Args:
    kind: `corruption.kind`.
    fraction: `corruption.fraction`.
    level: above it a voxel is full.
  """
  if kind == ONE_VIEW:
    return corruptions.one_view(level)
  if kind == MIXTURE:
    return corruptions.mixture(
      [
        corruptions.random_voxels(fraction),
        corruptions.random_box(),
        corruptions.half_space(),
        corruptions.one_view(level),
      ]
    )
  return networks.choice(CORRUPTIONS, kind, 'corruption.kind')(fraction)


def fill(
  config: ml_collections.ConfigDict,
) -> Callable[..., Any] | None:
  """Where the hidden voxels of a recovery begin; see `recovery_start`.

  With `corruption.components_std` it takes principal components as a fourth
  argument; see `dnet_jax.recovery`.

  Args:
    config: its `corruption` is read.

  Raises:
    ValueError: for a negative standard deviation.
  """
  std, around = config.corruption.fill_std, config.corruption.components_std
  if std < 0:
    raise ValueError(f'corruption.fill_std must be >= 0, got {std}')
  if around:
    return lambda y, visible, mean, components: dnet_jax.completed(
      y, visible, components, around, std or None
    )
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


def reference_stds(
  config: ml_collections.ConfigDict,
) -> float | tuple[float, ...]:
  """The s of eq. (3): one, or in multi-grid perhaps one for each grid.

  Raises:
    ValueError: for `model.grid_reference_stds` that do not fit `model.grids`.
  """
  settings = config.model
  stds = tuple(settings.grid_reference_stds)
  if stds and len(stds) != len(settings.grids):
    raise ValueError(
      'model.grid_reference_stds must be one number for each of the grids '
      f'{tuple(settings.grids)}, got {stds}'
    )
  return stds or settings.reference_std


# Data.


def data(
  config: ml_collections.ConfigDict, *, packed: bool = False
) -> datasets.Dataset:
  """Loads the data of `config.data`; logs which, if `data.path` is empty.

  Args:
    config: its `data` is read.
    packed: whether binary shapes stay bits, see `datasets.load`.

  Raises:
    FileNotFoundError: where there is no such file; the message says what to do.
    ValueError: for a file that does not hold the data of the config.
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
    looked = path if os.path.dirname(path) else f'{path} or data/{path}'
    raise FileNotFoundError(
      f'there is no data at {looked}: point --config.data.path at a voxel file '
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
  """The data of a config; None, with a warning, where it is missing."""
  try:
    return data(config)
  except (FileNotFoundError, ValueError) as error:
    logging.warning('No data to compare with: %s', error)
    return None


def batch_of(
  config: ml_collections.ConfigDict,
  voxels: datasets.Dataset,
  shuffle: bool = True,
  among: np.ndarray | None = None,
) -> Callable[..., np.ndarray]:
  """`(step, rollbacks=0, rows=all) -> (rows, D, H, ...)`, as they are stored.

  `datasets.prepare` makes of them what a network sees.

  Args:
    config: of the run.
    voxels: its data.
    shuffle: whether their order is random.
    among: indices of the training shapes that are taken; None: all.

  Raises:
    ValueError: for a batch size that is larger than the data, or that cannot
      be split evenly over the devices.
  """
  parallel.check_divisible(**{'data.batch_size': config.data.batch_size})

  def batch(step, rollbacks=0, rows=slice(None)):
    chosen = mini_batches.batch_indices(
      len(voxels.train) if among is None else len(among),
      config.data.batch_size,
      step,
      config.seed,
      shuffle,
      rollbacks,
    )
    if among is not None:
      chosen = among[np.array(chosen)]
    return datasets.stored(voxels.train, np.array(chosen[rows]))

  batch(0, 0, slice(1))  # Raises now what the first step would raise.
  return batch


# The training.


def fixed_key(config: ml_collections.ConfigDict) -> jax.Array:
  """The key of the shapes that a run shows, so that they are the same ones."""
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
