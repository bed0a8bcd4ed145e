"""From a config to library objects: the only reader of configs.

Each string becomes an object here, once, from a literal dict.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import itertools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import dnet_jax
from dnet_jax import corruptions
from experiments import parallel
from experiments.evaluation import negatives
from experiments.files import datasets

KERNELS = {'langevin': dnet_jax.langevin, 'mala': dnet_jax.mala}
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
CORRUPTIONS = {
  'random_voxels': corruptions.random_voxels,
  'random_box': corruptions.random_box,
  'half_space': corruptions.half_space,
}


class Model(NamedTuple):
  """The networks of a config, parameters not bound.

  Attributes:
    descriptor: the one, or that of the finest grid; None for a generator or
      a classifier alone.
    energy_fn: its energy, `(params, y) -> (*chains,)`.
    grid_descriptors: those of all grids, coarse first.
    grid_energies: their energies.
    generator: or None.
    classifier: or None.
  """

  descriptor: dnet_jax.Descriptor | None
  energy_fn: Callable[[Any, Any], Any] | None
  grid_descriptors: Sequence[dnet_jax.Descriptor]
  grid_energies: Sequence[Callable[[Any, Any], Any]]
  generator: dnet_jax.Generator | None
  classifier: dnet_jax.Classifier | dnet_jax.Ensemble | None


class Experiment(NamedTuple):
  """All that the training loop needs.

  model: the networks.
  data: the data.
  init: `(variables=None) -> state`, of the algorithm; `variables` are those of
    a trained model to begin with, by name.
  parallel: the step, on devices.
  batch: `(step, rollbacks=0) -> mini-batch`, as the algorithm's step takes it.
  temperature: `(step) -> float`.
  chains: `(state) -> (n, D, H, W, 1)` or None: shapes to look at and to keep.
  variables: `(state) -> {name: pytree}`: what a trained model is made of;
    names are 'descriptor', 'grids', 'generator', 'classifier', and for
    multi-grid 'histogram', p^(0) of section 4.2.
  """

  model: Model
  data: datasets.Dataset
  init: Callable[..., Any]
  parallel: parallel.Parallel
  batch: Callable[..., Any]
  temperature: Callable[[int], float]
  chains: Callable[[Any], Any]
  variables: Callable[[Any], dict[str, Any]]


class _Parts(NamedTuple):
  """What one algorithm adds to an experiment; see `Experiment`.

  init: `(key, variables) -> state`.
  """

  algorithm: dnet_jax.Algorithm
  init: Callable[..., Any]
  chains: Callable[[Any], Any]
  variables: Callable[[Any], dict[str, Any]]
  shuffle: bool = True
  batch: Callable[[int, Any], Any] | None = None


def _choice(table, name, field):
  if name not in table:
    raise ValueError(f'{field} must be one of {list(table)}, got {name!r}')
  return table[name]


def _descriptor(settings, network) -> dnet_jax.Descriptor:
  if network == 'custom':
    sizes = {
      name: tuple(settings[name])
      for name in ('features', 'kernel_sizes', 'strides')
    }
  else:
    sizes = _choice(dnet_jax.DESCRIPTORS, network, 'model.network')
  return dnet_jax.Descriptor(
    **sizes,
    padding=settings.padding,
    init_std=settings.init_std,
    dtype=_choice(DTYPES, settings.dtype, 'model.dtype'),
  )


def model(
  config: ml_collections.ConfigDict,
  axis_name: str | None = None,
  classes: Sequence[str] | None = None,
) -> Model:
  """Builds the networks of a config, and their energies.

  Args:
    config: its `algorithm` says which networks there are.
    axis_name: device axis over which batch statistics are averaged, in
      learning.
    classes: of a classifier; None: those of the data.
  """
  _choice(ALGORITHMS, config.algorithm, 'algorithm')
  settings = config.model
  std = _choice(
    {'gaussian': settings.reference_std, 'uniform': None},
    settings.reference,
    'model.reference',
  )
  networks = ()
  if config.algorithm == 'multi_grid':
    networks = tuple(settings.grid_networks)
    if not networks or len(networks) != len(settings.grids):
      raise ValueError(
        'multi_grid needs model.grids and as many model.grid_networks, got '
        f'{tuple(settings.grids)} and {networks}'
      )
  elif config.algorithm not in ('alternating_back_propagation', 'classify'):
    networks = (settings.network,)
  descriptors = tuple(_descriptor(settings, name) for name in networks)
  energies = tuple(
    dnet_jax.descriptor_energy(
      descriptor.apply, std, tuple(settings.reference_means)
    )
    for descriptor in descriptors
  )
  generator = classifier = None
  if config.algorithm in ('cooperative', 'alternating_back_propagation'):
    generator = dnet_jax.Generator(
      **_choice(
        dnet_jax.GENERATORS, config.generator.network, 'generator.network'
      ),
      init_std=config.generator.init_std,
      dtype=_choice(DTYPES, settings.dtype, 'model.dtype'),
      axis_name=axis_name,
    )
  if config.algorithm == 'classify':
    names = data(config).classes if classes is None else classes
    if config.classifier.members < 1:
      raise ValueError(
        f'classifier.members must be at least 1, got '
        f'{config.classifier.members}'
      )
    members = [
      dnet_jax.Classifier(
        len(names) + (config.classifier.negative_share > 0),
        **_choice(
          dnet_jax.CLASSIFIERS, config.classifier.network, 'classifier.network'
        ),
        dropout=config.classifier.dropout,
        axis_name=axis_name,
      )
      for _ in range(config.classifier.members)
    ]
    classifier = dnet_jax.Ensemble(members) if members[1:] else members[0]
  return Model(
    descriptors[-1] if descriptors else None,
    energies[-1] if energies else None,
    descriptors,
    energies,
    generator,
    classifier,
  )


def data(config: ml_collections.ConfigDict) -> datasets.Dataset:
  """Loads the data of `config.data`."""
  return datasets.load(
    config.data.path,
    config.data.category,
    furniture_size=config.data.furniture_size,
    furniture_shapes=config.data.furniture_shapes,
    scaling=config.data.scaling,
    hold_out=config.data.hold_out,
  )


def kernel(config: ml_collections.ConfigDict):
  """The kernel of `config.chains`."""
  return _choice(KERNELS, config.chains.kernel, 'chains.kernel')


def corruption(config: ml_collections.ConfigDict) -> corruptions.Corruption:
  """What a recovery hides, from `config.corruption`."""
  settings = config.corruption
  if settings.kind == 'mixture':
    return corruptions.mixture(
      [
        corruptions.random_voxels(settings.fraction),
        corruptions.random_box(),
        corruptions.half_space(),
      ]
    )
  maker = _choice(CORRUPTIONS, settings.kind, 'corruption.kind')
  return maker(settings.fraction)


def fill(config: ml_collections.ConfigDict):
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


def grid_sampler(
  config: ml_collections.ConfigDict,
  built: Model,
  *,
  first: int = 0,
  num_steps: int = 0,
  step_size: float = 0.0,
  temperature: float = 1.0,
) -> Callable[[Sequence[Any], jax.Array, jax.Array], tuple[jax.Array, ...]]:
  """Compiled multi-grid sampling, with the settings of learning or others.

  Args:
    config: of the model.
    built: its networks.
    first: sampling begins at grid `first`, counted from 0, and so starts from
      shapes of the next coarser grid.
    num_steps: of each grid; 0: as in learning.
    step_size: likewise.
    temperature: times that at the end of learning.

  Returns:
    `(params, keys, y) -> samples` of grid `first` and the finer ones, params
    of these grids, as `dnet_jax.sample_grids`.
  """
  last = temperature_at(config, config.train.num_iterations - 1)
  temperatures = temperature * np.broadcast_to(last, len(config.model.grids))

  def sample(params, keys, y):
    return dnet_jax.sample_grids(
      keys,
      [
        functools.partial(energy_fn, p)
        for energy_fn, p in zip(
          built.grid_energies[first:], params, strict=True
        )
      ],
      y,
      grid_factors(config)[first:],
      num_steps=num_steps or config.chains.num_steps,
      step_size=step_size or config.chains.step_size,
      temperature=temperatures[first:],
      kernel=kernel(config),
    )

  return jax.jit(sample)


def optimizer(
  config: ml_collections.ConfigDict,
  *,
  learning_rate: float | None = None,
  b1: float | None = None,
  b2: float | None = None,
  weight_decay: float = 0.0,
) -> optax.GradientTransformation:
  """Adam with clipping, at a rate that is constant and then a cosine.

  Args:
    config: its `optimizer` has clipping, schedule, and what is not given.
    learning_rate: of the constant part.
    b1: of Adam.
    b2: of Adam.
    weight_decay: of AdamW; 0: Adam.
  """
  settings = config.optimizer
  rest = config.train.num_iterations - settings.constant_iterations
  rate = settings.learning_rate if learning_rate is None else learning_rate
  if rest > 0:
    rate = optax.join_schedules(
      [
        optax.constant_schedule(rate),
        optax.cosine_decay_schedule(rate, rest, settings.final_fraction),
      ],
      [settings.constant_iterations],
    )
  moments = (
    settings.b1 if b1 is None else b1,
    settings.b2 if b2 is None else b2,
  )
  if weight_decay:
    adam = optax.adamw(rate, *moments, weight_decay=weight_decay)
  else:
    adam = optax.adam(rate, *moments)
  if not settings.clip_norm:
    return adam
  return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adam)


def _init_descriptor(config, descriptor, shape, grid: int = 0) -> Any:
  """Initial parameters for a grid `(D, H, W, C)`; checks that it fits."""
  key = jax.random.fold_in(jax.random.key(config.seed), 0)
  if grid:
    key = jax.random.fold_in(key, grid)
  # No chain at all: parameters need shapes only, and compile faster so.
  none = jnp.zeros((0, *shape))
  try:
    return jax.jit(descriptor.init)(key, none)
  except ValueError as error:
    raise ValueError(
      f'network {config.model.network!r} does not take a grid of sides '
      f'{shape[:3]}: {error}'
    ) from error


def _begin(variables, name, fresh):
  """The variables of that name to begin with, if any, or fresh ones."""
  if variables is None or name not in variables:
    return fresh

  def shapes(tree):
    return {
      jax.tree_util.keystr(path): jnp.shape(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }

  ours, theirs = shapes(fresh), shapes(variables[name])
  differing = [
    f'{path}: {theirs.get(path)}, here {ours.get(path)}'
    for path in sorted(ours.keys() | theirs.keys())
    if ours.get(path) != theirs.get(path)
  ]
  if differing:
    raise ValueError(
      f'train.init_from holds another {name}:\n  ' + '\n  '.join(differing)
    )
  leaves = [
    jnp.asarray(x, jnp.float32) for x in jax.tree.leaves(variables[name])
  ]
  return jax.tree.unflatten(jax.tree.structure(fresh), leaves)


def _no_chains(state):
  del state


def _memory(state):
  positions = state.memory.positions
  return positions.reshape(-1, *positions.shape[2:])


def _descriptor_variables(state):
  return {'descriptor': state.learner.params}


def _common(config):
  return dict(
    num_steps=config.chains.num_steps,
    step_size=config.chains.step_size,
    kernel=kernel(config),
    axis_name=parallel.AXIS,
  )


def _contrastive(config, energy_fn):
  return dnet_jax.make_learner(
    dnet_jax.contrastive_loss(energy_fn), optimizer(config)
  )


def _single(config, built, voxels, make, chains=_no_chains, **kwargs) -> _Parts:
  """Parts of an algorithm with one descriptor."""
  shape = (*voxels.train.shape[1:], 1)
  algorithm = make(
    built.energy_fn, _contrastive(config, built.energy_fn), **kwargs
  )

  def init(key, variables, *args):
    params = _init_descriptor(config, built.descriptor, shape)
    return algorithm.init(key, _begin(variables, 'descriptor', params), *args)

  return _Parts(algorithm, init, chains, _descriptor_variables)


def _maximum_likelihood(config, built, voxels) -> _Parts:
  chains = config.chains
  if not 0 <= chains.restart_probability <= 1:
    raise ValueError(
      'chains.restart_probability must be in [0, 1], got '
      f'{chains.restart_probability}'
    )
  parallel.check_divisible(**{'chains.num_chains': chains.num_chains})
  return _single(
    config,
    built,
    voxels,
    dnet_jax.maximum_likelihood,
    _memory,
    shape=(*voxels.train.shape[1:], 1),
    num_chains=chains.num_chains,
    num_slots=chains.num_slots,
    restart_probability=chains.restart_probability,
    restart_iterations=(config.train.num_iterations - chains.settle_iterations),
    start_std=chains.start_std,
    **_common(config),
  )


def _persistent_contrastive_divergence(config, built, voxels) -> _Parts:
  # Each mini-batch owns the chains that began at its shapes.
  size = config.data.batch_size
  num_slots = len(voxels.train) // size
  parts = _single(
    config,
    built,
    voxels,
    dnet_jax.maximum_likelihood,
    _memory,
    shape=(*voxels.train.shape[1:], 1),
    num_chains=size,
    num_slots=num_slots,
    **_common(config),
  )

  def init(key, variables):
    positions = [
      _shapes(config, voxels, step, shuffle=False) for step in range(num_slots)
    ]
    return parts.init(key, variables, jnp.asarray(np.stack(positions)))

  return parts._replace(init=init, shuffle=False)


def _contrastive_divergence(config, built, voxels) -> _Parts:
  return _single(
    config, built, voxels, dnet_jax.contrastive_divergence, **_common(config)
  )


def _recovery(config, built, voxels) -> _Parts:
  return _single(
    config,
    built,
    voxels,
    dnet_jax.recovery,
    corrupt=corruption(config),
    hold=config.corruption.hold,
    fill=fill(config),
    **_common(config),
  )


def _super_resolution(config, built, voxels) -> _Parts:
  sides = voxels.train.shape[1:]
  if config.factor < 2 or any(n % config.factor for n in sides):
    raise ValueError(
      f'factor must be at least 2 and divide the sides {sides} of the data, '
      f'got {config.factor}'
    )
  return _single(
    config,
    built,
    voxels,
    dnet_jax.super_resolution,
    factor=config.factor,
    **_common(config),
  )


def _multi_grid(config, built, voxels) -> _Parts:
  sides = voxels.train.shape[1:]
  if {*sides} != {config.model.grids[-1]}:
    raise ValueError(
      f'the last of model.grids must be the side of the data, {sides}, got '
      f'{tuple(config.model.grids)}'
    )
  algorithm = dnet_jax.multi_grid(
    built.grid_energies,
    [_contrastive(config, energy_fn) for energy_fn in built.grid_energies],
    factors=grid_factors(config),
    **_common(config),
  )
  histogram = datasets.histogram(voxels.train)

  def init(key, variables):
    params = [
      _init_descriptor(config, descriptor, (side,) * 3 + (1,), grid)
      for grid, (descriptor, side) in enumerate(
        zip(built.grid_descriptors, config.model.grids, strict=True), 1
      )
    ]
    named = {f'grid{i}': p for i, p in enumerate(params, 1)}
    named = _begin(variables, 'grids', named)
    return algorithm.init(
      key, [named[f'grid{i + 1}'] for i in range(len(params))]
    )

  def variables(state):
    return {
      'grids': {
        f'grid{i}': learner.params
        for i, learner in enumerate(state.learners, 1)
      },
      'histogram': histogram,
    }

  # The same fresh samples of the finest grid after each iteration.
  keys = dnet_jax.chain_keys(
    jax.random.key(config.seed), config.train.picture_shapes
  )
  averages = datasets.to_network(
    datasets.draw_averages(histogram, len(keys), config.seed),
    voxels.mean,
    voxels.scale,
  )

  sample = grid_sampler(config, built)

  def chains(state):
    params = [learner.params for learner in state.learners]
    return sample(params, keys, averages)[-1]

  return _Parts(algorithm, init, chains, variables)


def _generator_learner(config, generator):
  settings = config.generator
  return dnet_jax.make_learner(
    dnet_jax.teaching_loss(dnet_jax.generator_fn(generator, train=True)),
    optimizer(
      config,
      learning_rate=settings.learning_rate,
      b1=settings.b1,
      b2=settings.b2,
    ),
  )


def _init_generator(config, generator, shape, variables):
  """Initial parameters and batch statistics; checks the shape that it makes."""
  key = jax.random.fold_in(jax.random.key(config.seed), 3)
  none = jnp.zeros((0, config.generator.latent_dim))
  made = jax.eval_shape(
    lambda key: generator.init_with_output(key, none, train=False)[0], key
  )
  if made.shape[1:] != shape:
    raise ValueError(
      f'generator {config.generator.network!r} makes shapes {made.shape[1:4]}, '
      f'the data has {shape[:3]}'
    )
  fresh = jax.jit(lambda key: generator.init(key, none, train=False))(key)
  begin = dict(_begin(variables, 'generator', dict(fresh)))
  return begin.pop('params'), begin


def _generator_variables(learner_state):
  return {'params': learner_state.params, **learner_state.model_state}


def _cooperative(config, built, voxels) -> _Parts:
  shape = (*voxels.train.shape[1:], 1)
  parallel.check_divisible(**{'chains.num_chains': config.chains.num_chains})
  algorithm = dnet_jax.cooperative(
    built.energy_fn,
    _contrastive(config, built.energy_fn),
    dnet_jax.generator_fn(built.generator, train=True),
    _generator_learner(config, built.generator),
    latent_dim=config.generator.latent_dim,
    num_chains=config.chains.num_chains,
    noise_std=config.generator.noise_std,
    **_common(config),
  )

  def init(key, variables):
    params = _init_descriptor(config, built.descriptor, shape)
    return algorithm.init(
      key,
      _begin(variables, 'descriptor', params),
      *_init_generator(config, built.generator, shape, variables),
    )

  def variables(state):
    return _descriptor_variables(state) | {
      'generator': _generator_variables(state.generator)
    }

  return _Parts(algorithm, init, _generated(config, built), variables)


def _generated(config, built):
  """Shapes that the generator makes of the same z, to look at."""
  z = jax.random.normal(
    jax.random.key(config.seed),
    (config.train.picture_shapes, config.generator.latent_dim),
  )
  generate = jax.jit(dnet_jax.generator_fn(built.generator, train=False))

  def chains(state):
    student = getattr(state, 'generator', state.learner)
    return generate(student.params, student.model_state, z)[0]

  return chains


def _alternating_back_propagation(config, built, voxels) -> _Parts:
  shape = (*voxels.train.shape[1:], 1)
  size = config.data.batch_size
  algorithm = dnet_jax.alternating_back_propagation(
    dnet_jax.generator_fn(built.generator, train=True),
    dnet_jax.generator_fn(built.generator, train=False),
    _generator_learner(config, built.generator),
    latent_dim=config.generator.latent_dim,
    num_chains=size,
    num_slots=len(voxels.train) // size,
    noise_std=config.generator.noise_std,
    **_common(config),
  )

  def init(key, variables):
    return algorithm.init(
      key, *_init_generator(config, built.generator, shape, variables)
    )

  def variables(state):
    return {'generator': _generator_variables(state.learner)}

  return _Parts(
    algorithm, init, _generated(config, built), variables, shuffle=False
  )


def _classify(config, built, voxels) -> _Parts:
  settings = config.classifier
  for name in ('negative_share', 'label_smoothing'):
    if not 0 <= settings[name] < 1:
      raise ValueError(
        f'classifier.{name} must be in [0, 1), got {settings[name]}'
      )
  learner = dnet_jax.make_learner(
    dnet_jax.classification_loss(
      dnet_jax.classifier_fn(built.classifier),
      settings.label_smoothing,
      len(voxels.classes),
    ),
    optimizer(config, weight_decay=settings.weight_decay),
  )
  algorithm = dnet_jax.classification(learner, axis_name=parallel.AXIS)

  def init(key, variables):
    none = jnp.zeros((0, *voxels.train.shape[1:], 1))
    fresh = jax.jit(lambda key: built.classifier.init(key, none, train=False))(
      key
    )
    begin = dict(_begin(variables, 'classifier', dict(fresh)))
    return algorithm.init(key, begin.pop('params'), begin)

  def variables(state):
    return {'classifier': _generator_variables(state.learner)}

  num_negatives = round(config.data.batch_size * settings.negative_share)

  def batch(step, indices):
    del indices  # Drawn here, each class equally often.
    chosen = datasets.balanced_indices(
      voxels.train_labels, config.data.batch_size, step, config.seed
    )
    rng = np.random.default_rng((config.seed, 4, step))
    shapes = datasets.augment(
      voxels.train[chosen],
      rng,
      mirror=config.data.mirror,
      turn_degrees=config.data.turn_degrees,
      shift_voxels=config.data.shift_voxels,
      scale_range=config.data.scale_range,
    )
    labels = voxels.train_labels[chosen]
    if num_negatives:
      shapes[:num_negatives] = negatives.mixed(shapes[:num_negatives], rng)
      labels = np.concatenate(
        [np.full(num_negatives, len(voxels.classes)), labels[num_negatives:]]
      )
    return {
      'y': datasets.to_network(shapes, voxels.mean, voxels.scale),
      'labels': labels.astype(np.int32),
    }

  return _Parts(algorithm, init, _no_chains, variables, batch=batch)


ALGORITHMS = {
  'maximum_likelihood': _maximum_likelihood,
  'contrastive_divergence': _contrastive_divergence,
  'persistent_contrastive_divergence': _persistent_contrastive_divergence,
  'multi_grid': _multi_grid,
  'cooperative': _cooperative,
  'alternating_back_propagation': _alternating_back_propagation,
  'recovery': _recovery,
  'super_resolution': _super_resolution,
  'classify': _classify,
}


def _shapes(config, voxels, step, shuffle, rollbacks=0, batch=None):
  """The mini-batch of a step, as the algorithm takes it."""
  chosen = np.array(
    datasets.batch_indices(
      len(voxels.train),
      config.data.batch_size,
      step,
      config.seed,
      shuffle,
      rollbacks,
    )
  )
  if batch is not None:
    return batch(step, chosen)
  return datasets.to_network(voxels.train[chosen], voxels.mean, voxels.scale)


def experiment(config: ml_collections.ConfigDict) -> Experiment:
  """Builds a training run.

  Raises:
    ValueError: for a field with a value that is not possible.
    FileNotFoundError: where the data is not there.
  """
  make = _choice(ALGORITHMS, config.algorithm, 'algorithm')
  voxels = data(config)
  parallel.check_divisible(**{'data.batch_size': config.data.batch_size})
  built = model(config, parallel.AXIS)
  parts = make(config, built, voxels)

  def batch(step, rollbacks=0):
    return _shapes(config, voxels, step, parts.shuffle, rollbacks, parts.batch)

  batch(0)  # Raises here for a batch size that the data cannot give.

  def init(variables=None):
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    return parts.init(key, variables)

  return Experiment(
    model=built,
    data=voxels,
    init=init,
    parallel=parallel.make(
      config.parallel, parts.algorithm.step, parts.algorithm.chain_axes
    ),
    batch=batch,
    temperature=functools.partial(temperature_at, config),
    chains=parts.chains,
    variables=parts.variables,
  )
