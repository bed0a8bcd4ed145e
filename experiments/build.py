"""From a config to library objects: the only reader of configs.

Each string becomes an object here, once, from a literal dict.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import dnet_jax
from experiments import datasets
from experiments import parallel

KERNELS = {'langevin': dnet_jax.langevin, 'mala': dnet_jax.mala}
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
ALGORITHMS = (
  'maximum_likelihood',
  'contrastive_divergence',
  'persistent_contrastive_divergence',
)


class Model(NamedTuple):
  """A descriptor and its energy, parameters not bound."""

  descriptor: dnet_jax.Descriptor
  energy_fn: Callable[[Any, Any], Any]  # (params, y) -> (*chains,)


class Experiment(NamedTuple):
  """All that the training loop needs.

  model: the model.
  data: the data.
  init: `() -> state`, of the algorithm.
  parallel: the step, on devices.
  batch: `(step) -> (batch, D, H, W, 1)`, centred.
  temperature: `(step) -> float`.
  chains: `(state) -> (n, D, H, W, 1)` or None: chains to look at.
  """

  model: Model
  data: datasets.Dataset
  init: Callable[[], Any]
  parallel: parallel.Parallel
  batch: Callable[[int], Any]
  temperature: Callable[[int], float]
  chains: Callable[[Any], Any]


def _choice(table, name, field):
  if name not in table:
    raise ValueError(f'{field} must be one of {list(table)}, got {name!r}')
  return table[name]


def model(config: ml_collections.ConfigDict) -> Model:
  """Builds the descriptor and its energy from `config.model`."""
  settings = config.model
  if settings.network == 'custom':
    sizes = {
      name: tuple(settings[name])
      for name in ('features', 'kernel_sizes', 'strides')
    }
  else:
    sizes = _choice(dnet_jax.DESCRIPTORS, settings.network, 'model.network')
  descriptor = dnet_jax.Descriptor(
    **sizes,
    padding=settings.padding,
    init_std=settings.init_std,
    dtype=_choice(DTYPES, settings.dtype, 'model.dtype'),
  )
  std = _choice(
    {'gaussian': settings.reference_std, 'uniform': None},
    settings.reference,
    'model.reference',
  )
  return Model(descriptor, dnet_jax.descriptor_energy(descriptor.apply, std))


def data(config: ml_collections.ConfigDict) -> datasets.Dataset:
  """Loads the data of `config.data`."""
  return datasets.load(
    config.data.path,
    config.data.category,
    furniture_size=config.data.furniture_size,
    furniture_shapes=config.data.furniture_shapes,
  )


def kernel(config: ml_collections.ConfigDict):
  """The kernel of `config.chains`."""
  return _choice(KERNELS, config.chains.kernel, 'chains.kernel')


def optimizer(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Adam with clipping, at a rate that is constant and then a cosine."""
  settings = config.optimizer
  rest = config.train.num_iterations - settings.constant_iterations
  rate = settings.learning_rate
  if rest > 0:
    rate = optax.join_schedules(
      [
        optax.constant_schedule(rate),
        optax.cosine_decay_schedule(rate, rest, settings.final_fraction),
      ],
      [settings.constant_iterations],
    )
  adam = optax.adam(rate, settings.b1, settings.b2)
  if not settings.clip_norm:
    return adam
  return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adam)


def init_params(config: ml_collections.ConfigDict, shape) -> Any:
  """Initial parameters for a grid `(D, H, W, C)`; checks that it fits."""
  key = jax.random.fold_in(jax.random.key(config.seed), 0)
  # No chain at all: parameters need shapes only, and compile faster so.
  none = jnp.zeros((0, *shape))
  try:
    return jax.jit(model(config).descriptor.init)(key, none)
  except ValueError as error:
    raise ValueError(
      f'network {config.model.network!r} does not take a grid of sides '
      f'{shape[:3]}: {error}'
    ) from error


def experiment(config: ml_collections.ConfigDict) -> Experiment:
  """Builds a training run.

  Raises:
    ValueError: for a field with a value that is not possible.
    FileNotFoundError: where the data is not there.
  """
  chains = config.chains
  if config.algorithm not in ALGORITHMS:
    raise ValueError(
      f'algorithm must be one of {ALGORITHMS}, got {config.algorithm!r}'
    )
  if not 0 <= chains.restart_probability <= 1:
    raise ValueError(
      'chains.restart_probability must be in [0, 1], got '
      f'{chains.restart_probability}'
    )
  voxels = data(config)
  shape = (*voxels.train.shape[1:], 1)
  built = model(config)
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(built.energy_fn), optimizer(config)
  )
  common = dict(
    num_steps=chains.num_steps,
    step_size=chains.step_size,
    kernel=kernel(config),
    axis_name=parallel.AXIS,
  )
  batch_size = config.data.batch_size
  persistent_data = config.algorithm == 'persistent_contrastive_divergence'
  shuffle = not persistent_data

  def batch(step):
    chosen = datasets.batch_indices(
      len(voxels.train), batch_size, step, config.seed, shuffle
    )
    return datasets.centred(voxels.train[np.array(chosen)], voxels.mean)

  batch(0)  # Raises here for a batch size that the data cannot give.
  parallel.check_divisible(**{'data.batch_size': batch_size})
  positions = None
  if config.algorithm == 'contrastive_divergence':
    algorithm = dnet_jax.contrastive_divergence(
      built.energy_fn, learner, **common
    )
  else:
    num_chains, num_slots = chains.num_chains, chains.num_slots
    if persistent_data:
      # Each mini-batch owns the chains that began at its shapes.
      num_chains, num_slots = batch_size, len(voxels.train) // batch_size
      positions = np.stack([batch(i) for i in range(num_slots)])
    parallel.check_divisible(**{'chains.num_chains': num_chains})
    algorithm = dnet_jax.maximum_likelihood(
      built.energy_fn,
      learner,
      shape=shape,
      num_chains=num_chains,
      num_slots=num_slots,
      restart_probability=(
        0.0 if persistent_data else chains.restart_probability
      ),
      start_std=chains.start_std,
      **common,
    )

  def init():
    params = init_params(config, shape)
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    extra = () if positions is None else (jnp.asarray(positions),)
    return algorithm.init(key, params, *extra)

  def temperature(step):
    noisy = chains.noise_iterations < 0 or step < chains.noise_iterations
    return chains.temperature if noisy else 0.0

  def look(state):
    memory = getattr(state, 'memory', None)
    if memory is None:
      return None
    positions = memory.positions
    return positions.reshape(-1, *positions.shape[2:])

  return Experiment(
    model=built,
    data=voxels,
    init=init,
    parallel=parallel.make(
      config.parallel, algorithm.step, algorithm.chain_axes
    ),
    batch=batch,
    temperature=temperature,
    chains=look,
  )
