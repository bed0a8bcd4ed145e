"""Algorithms: compositions of starts, energies, kernels and learners.

An algorithm is `init(key, params, ...) -> state` and `step(key, state, batch,
temperature) -> (state, metrics)`, both pure; the caller jits, or maps them
over devices. None has a chain loop or an update of its own.

`chain_axes` has the structure of (a prefix of) the state: the axis of each
leaf along which chains are split over devices, or None where every device
holds the same.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnet_jax import chains
from dnet_jax import energy
from dnet_jax import grids
from dnet_jax import kernels
from dnet_jax import learning
from dnet_jax import types


class Algorithm(NamedTuple):
  """A learning algorithm, as two pure functions."""

  init: Callable[..., Any]
  step: Callable[..., tuple[Any, dict[str, types.Array]]]
  chain_axes: Any


class MaximumLikelihoodState(NamedTuple):
  """The learner, its persistent chains, and how many iterations are done."""

  learner: learning.LearnerState
  memory: chains.ChainMemory
  iteration: types.Array


class FromBatchState(NamedTuple):
  """The learner, and how many iterations are done; chains are not kept."""

  learner: learning.LearnerState
  iteration: types.Array


class MultiGridState(NamedTuple):
  """One learner for each grid, coarse first, and how many iterations."""

  learners: tuple[learning.LearnerState, ...]
  iteration: types.Array


class CooperativeState(NamedTuple):
  """The descriptor's learner, the generator's, and how many iterations."""

  learner: learning.LearnerState
  generator: learning.LearnerState
  iteration: types.Array


class ClassificationState(NamedTuple):
  """The classifier's learner, and how many iterations are done."""

  learner: learning.LearnerState
  iteration: types.Array


class AlternatingState(NamedTuple):
  """The generator's learner, the z of all mini-batches, and iterations."""

  learner: learning.LearnerState
  memory: chains.ChainMemory
  iteration: types.Array


def maximum_likelihood(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  *,
  shape: Sequence[int],
  num_chains: int,
  num_steps: int,
  step_size: float,
  num_slots: int = 1,
  restart_probability: float = 0.0,
  restart_iterations: int | None = None,
  start_std: float = 1.0,
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
  axis_name: str | None = None,
) -> Algorithm:
  """Algorithm 1: analysis by synthesis with persistent chains.

  Iteration t moves the chains of slot `t % num_slots`: with as many slots as
  mini-batches, each mini-batch owns its chains, as in the authors' code. With
  `positions` of data at `init` it is persistent contrastive divergence,
  section 4.1.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`, see `descriptor_energy`.
    learner: with `contrastive_loss(energy_fn)`.
    shape: of one chain, `(D, H, W, C)`.
    num_chains: chains of a slot, on all devices together.
    num_steps: Langevin steps of an iteration.
    step_size: the paper's delta-tau.
    num_slots: slots of the memory.
    restart_probability: with which each chain starts anew from noise before
      it is moved.
    restart_iterations: chains are no longer restarted after as many
      iterations, so that the last ones are all old; None: always.
    start_std: standard deviation of that noise, and of the first start.
    kernel: `langevin` or `mala`.
    axis_name: the device axis over which batch and chains are split, if any.

  Returns:
    An algorithm with `init(key, params, positions=None)`.

  >>> import optax
  >>> energy_fn = lambda theta, y: ((y - theta)**2).sum((1, 2, 3, 4)) / 2
  >>> learner = learning.make_learner(
  ...     learning.contrastive_loss(energy_fn), optax.sgd(0.1))
  >>> algorithm = maximum_likelihood(
  ...     energy_fn, learner, shape=(1, 1, 1, 1), num_chains=2, num_steps=5,
  ...     step_size=0.1)
  >>> state = algorithm.init(jax.random.key(0), jnp.zeros(()))
  >>> state, metrics = algorithm.step(
  ...     jax.random.key(1), state, jnp.ones((2, 1, 1, 1, 1)), 1.0)
  >>> sorted(metrics)[:3]
  ['chain_max', 'chain_move', 'energy_observed']
  """

  def init(key, params, positions=None):
    if positions is None:
      keys = chains.chain_keys(key, num_slots * num_chains)
      positions = chains.from_noise(keys, shape, start_std).position
    positions = jnp.reshape(positions, (num_slots, num_chains, *shape))
    return MaximumLikelihoodState(
      learner.init(params),
      chains.ChainMemory(positions),
      jnp.zeros((), jnp.int32),
    )

  def step(key, state, batch, temperature):
    key_restart, key_chains = jax.random.split(key)
    slot = state.iteration % num_slots
    start = chains.read_chains(state.memory, slot)
    if restart_probability:
      probability = restart_probability
      if restart_iterations is not None:
        again = state.iteration < restart_iterations
        probability = jnp.where(again, probability, 0.0)
      start = chains.restart_chains(
        chains.chain_keys(key_restart, len(start.position), axis_name),
        start,
        probability,
        start_std,
      )
    learner_state, y_syn, metrics = learning.analysis_by_synthesis(
      key_chains,
      state.learner,
      batch,
      start,
      energy_fn=energy_fn,
      learner=learner,
      run_chains=functools.partial(
        chains.run_chains,
        num_steps=num_steps,
        step_size=step_size,
        temperature=temperature,
        kernel=kernel,
      ),
      axis_name=axis_name,
    )
    memory = chains.write_chains(state.memory, slot, y_syn)
    state = MaximumLikelihoodState(learner_state, memory, state.iteration + 1)
    return state, metrics

  return Algorithm(init, step, MaximumLikelihoodState(None, 1, None))


def _from_batch(
  energy_fn, learner, start_fn, *, num_steps, step_size, kernel, axis_name
) -> Algorithm:
  """Chains that start anew from the mini-batch in each iteration.

  `start_fn(keys, batch) -> (start, finish)`, `finish(y_syn) -> y_syn` what is
  done to the chains after their last step.
  """

  def init(key, params):
    del key  # Chains start at the data.
    return FromBatchState(learner.init(params), jnp.zeros((), jnp.int32))

  def step(key, state, batch, temperature):
    key_start, key_chains = jax.random.split(key)
    start, finish = start_fn(
      chains.chain_keys(key_start, len(batch), axis_name), batch
    )

    def run(keys, energy_fn, start):
      y, trace = chains.run_chains(
        keys,
        energy_fn,
        start,
        num_steps=num_steps,
        step_size=step_size,
        temperature=temperature,
        kernel=kernel,
      )
      return finish(y), trace

    learner_state, _, metrics = learning.analysis_by_synthesis(
      key_chains,
      state.learner,
      batch,
      start,
      energy_fn=energy_fn,
      learner=learner,
      run_chains=run,
      axis_name=axis_name,
    )
    return FromBatchState(learner_state, state.iteration + 1), metrics

  return Algorithm(init, step, FromBatchState(None, None))


def _keep(y):
  return y


def contrastive_divergence(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  *,
  num_steps: int,
  step_size: float,
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
  axis_name: str | None = None,
) -> Algorithm:
  """Contrastive divergence, eq. (18): short chains that start at the data.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    num_steps: Langevin steps of an iteration.
    step_size: the paper's delta-tau.
    kernel: `langevin` or `mala`.
    axis_name: the device axis over which the batch is split, if any.

  Returns:
    An algorithm with `init(key, params)`.
  """
  return _from_batch(
    energy_fn,
    learner,
    lambda keys, batch: (chains.from_data(batch), _keep),
    num_steps=num_steps,
    step_size=step_size,
    kernel=kernel,
    axis_name=axis_name,
  )


def recovery(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  *,
  corrupt: Callable[[types.Key, Sequence[int]], types.Array],
  num_steps: int,
  step_size: float,
  hold: bool = True,
  fill: Callable[..., types.Array] | None = None,
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
  axis_name: str | None = None,
) -> Algorithm:
  """Algorithm 4: learns to fill what is hidden from what is visible, eq. (16).

  Each shape of the mini-batch is corrupted anew, and a chain fills its hidden
  voxels.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    corrupt: `(keys, shape) -> visible`, boolean `(chains, *shape)`; see
      corruptions.py.
    num_steps: Langevin steps of an iteration.
    step_size: the paper's delta-tau.
    hold: True: visible voxels are held at every step (the text of 6.2);
      False: all move, and the visible ones are put back at the end (the
      authors' code).
    fill: where hidden voxels begin, see `recovery_start`.
    kernel: `langevin` or `mala`.
    axis_name: the device axis over which the batch is split, if any.

  Returns:
    An algorithm with `init(key, params)`.
  """

  def start_fn(keys, batch):
    visible = corrupt(keys, batch.shape[1:])
    return chains.recovery_start(batch, visible, hold, fill)

  return _from_batch(
    energy_fn,
    learner,
    start_fn,
    num_steps=num_steps,
    step_size=step_size,
    kernel=kernel,
    axis_name=axis_name,
  )


def super_resolution(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  *,
  factor: int,
  num_steps: int,
  step_size: float,
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
  axis_name: str | None = None,
) -> Algorithm:
  """Algorithm 5: learns the details that block averages leave open, eq. (16).

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    factor: ratio d of the sides of the high and the low resolution.
    num_steps: Langevin steps of an iteration.
    step_size: the paper's delta-tau.
    kernel: `langevin` or `mala`.
    axis_name: the device axis over which the batch is split, if any.

  Returns:
    An algorithm with `init(key, params)`.
  """

  def start_fn(keys, batch):
    del keys  # Nothing is random: the low resolution is given.
    low = grids.downscale(batch, factor)
    return chains.from_low_resolution(low, factor), _keep

  return _from_batch(
    energy_fn,
    learner,
    start_fn,
    num_steps=num_steps,
    step_size=step_size,
    kernel=kernel,
    axis_name=axis_name,
  )


def _for_each(num_grids: int, **values) -> list[dict[str, Any]]:
  """Keyword arguments of each grid, of one value for all or of one for each."""
  columns = {}
  for name, value in values.items():
    # A sequence may hold traced values, which NumPy does not look into.
    if not isinstance(value, Sequence) and not np.ndim(value):
      value = (value,) * num_grids
    if len(value) != num_grids:
      raise ValueError(
        f'{name} must be one number or one for each of the {num_grids} grids, '
        f'got {value}'
      )
    columns[name] = value
  return [
    {name: value[grid] for name, value in columns.items()}
    for grid in range(num_grids)
  ]


def sample_grids(
  keys: types.Key,
  energy_fns: Sequence[types.EnergyFn],
  y: types.Array,
  factors: Sequence[int],
  *,
  num_steps: int | Sequence[int],
  step_size: float | Sequence[float],
  temperature: float | Sequence[float] | types.Array = 1.0,
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
) -> tuple[types.Array, ...]:
  """Multi-grid sampling, section 4.2: each grid starts from the coarser one.

  Args:
    keys: `(chains,)`, see `chain_keys`.
    energy_fns: one for each grid, coarse first, parameters bound.
    y: the coarsest shapes `(chains, D, H, W, C)`, for example averages of
      1^3; it is not moved.
    factors: ratios of side between neighbouring grids, the first between y
      and the first energy's.
    num_steps: Langevin steps, one number for all grids or one for each.
    step_size: the paper's delta-tau, likewise.
    temperature: T of section 2.5, likewise; an array may be traced.
    kernel: `langevin` or `mala`.

  Returns:
    The samples of each grid, coarse first, y not among them.

  Raises:
    ValueError: when there are not as many energies, or numbers of those that
      are one for each grid, as factors.

  >>> keys = chains.chain_keys(jax.random.key(0), 2)
  >>> energies = [lambda y: (y**2).sum((1, 2, 3, 4))] * 2
  >>> [y.shape[1] for y in sample_grids(
  ...     keys, energies, jnp.ones((2, 1, 1, 1, 1)), (4, 2), num_steps=1,
  ...     step_size=0.1)]
  [4, 8]
  """
  if len(energy_fns) != len(factors):
    raise ValueError(
      f'one energy for each factor is needed, got {len(energy_fns)} energies '
      f'and factors {tuple(factors)}'
    )
  settings = _for_each(
    len(factors),
    num_steps=num_steps,
    step_size=step_size,
    temperature=temperature,
  )
  samples = []
  for grid, (energy_fn, factor) in enumerate(
    zip(energy_fns, factors, strict=True)
  ):
    y, _ = chains.run_chains(
      kernels.fold_in(keys, grid),
      energy_fn,
      chains.from_coarse(y, factor),
      kernel=kernel,
      **settings[grid],
    )
    samples.append(y)
  return tuple(samples)


def multi_grid(
  energy_fns: Sequence[Callable[[types.Params, types.Array], types.Array]],
  learners: Sequence[learning.Learner],
  *,
  factors: Sequence[int],
  num_steps: int | Sequence[int],
  step_size: float | Sequence[float],
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
  axis_name: str | None = None,
) -> Algorithm:
  """Algorithm 2: one model for each grid, each sampling from the coarser one.

  Chains begin at the averages of the mini-batch's shapes over all voxels of
  the coarsest grid's blocks, 1^3 when the product of `factors` is the side of
  the data. The metrics of the finest grid have their plain names; those of
  grid s, counted from 1, the coarsest, have `/grid<s>` behind.

  Args:
    energy_fns: `energy(params, y) -> (*chains,)` for each grid, coarse first.
    learners: one for each grid, with `contrastive_loss(energy_fn)`.
    factors: ratios of side, as for `sample_grids`.
    num_steps: Langevin steps of an iteration, one number for all grids or one
      for each.
    step_size: the paper's delta-tau, likewise.
    kernel: `langevin` or `mala`.
    axis_name: the device axis over which the batch is split, if any.

  Returns:
    An algorithm with `init(key, params)`, params a sequence, coarse first.
    The temperature of its step is one for all grids or `(grids,)`.

  Raises:
    ValueError: when the lengths differ.
  """
  if not len(energy_fns) == len(learners) == len(factors):
    raise ValueError(
      'one energy and one learner for each factor are needed, got '
      f'{len(energy_fns)}, {len(learners)} and factors {tuple(factors)}'
    )

  def init(key, params):
    del key  # Chains start at the data's averages.
    states = tuple(
      learner.init(p) for learner, p in zip(learners, params, strict=True)
    )
    return MultiGridState(states, jnp.zeros((), jnp.int32))

  def step(key, state, batch, temperature):
    settings = _for_each(
      len(factors),
      num_steps=num_steps,
      step_size=step_size,
      temperature=temperature,
    )
    y_syn, *observed = grids.pyramid(batch, factors)
    states, metrics = [], {}
    for grid, (energy_fn, learner, learner_state, factor, y_obs) in enumerate(
      zip(energy_fns, learners, state.learners, factors, observed, strict=True)
    ):
      learner_state, y_syn, own = learning.analysis_by_synthesis(
        jax.random.fold_in(key, grid),
        learner_state,
        y_obs,
        chains.from_coarse(y_syn, factor),
        energy_fn=energy_fn,
        learner=learner,
        run_chains=functools.partial(
          chains.run_chains, kernel=kernel, **settings[grid]
        ),
        axis_name=axis_name,
      )
      states.append(learner_state)
      metrics |= own
      metrics |= {f'{name}/grid{grid + 1}': x for name, x in own.items()}
    return MultiGridState(tuple(states), state.iteration + 1), metrics

  return Algorithm(init, step, MultiGridState(None, None))


def _pairwise(y, axis_name):
  """Mean of ||Y_i - Y_j||^2 over pairs, from the variance of each voxel."""
  count = len(y)
  mean, square = y.mean(0), (y**2).mean(0)
  if axis_name is not None:
    count *= jax.lax.axis_size(axis_name)
    mean, square = jax.lax.pmean((mean, square), axis_name)
  return 2 * count / max(count - 1, 1) * jnp.sum(square - mean**2)


def cooperative(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  generator_fn: learning.GeneratorFn,
  generator_learner: learning.Learner,
  *,
  latent_dim: int,
  num_chains: int,
  num_steps: int,
  step_size: float,
  noise_std: float = 0.0,
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
  axis_name: str | None = None,
) -> Algorithm:
  """Algorithm 3: a generator starts the chains, and learns where they end.

  The generator's metrics are `teaching_loss`, `generator_grad_norm` and, to
  see a collapse, `distance_generated` beside `distance_observed`: the mean
  squared distance between two of the shapes that it makes, or of the batch.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    generator_fn: see `learning.GeneratorFn`.
    generator_learner: with `teaching_loss(generator_fn)`, eq. (22).
    latent_dim: d, length of z.
    num_chains: of an iteration, on all devices together.
    num_steps: Langevin steps of an iteration.
    step_size: the paper's delta-tau.
    noise_std: sigma of eq. (20), of the noise on what is generated.
    kernel: `langevin` or `mala`.
    axis_name: the device axis over which batch and chains are split, if any.

  Returns:
    An algorithm with `init(key, params, generator_params,
    generator_state)`, the last the generator's batch statistics.
  """

  def init(key, params, generator_params, generator_state):
    del key  # Chains start at what is generated.
    return CooperativeState(
      learner.init(params),
      generator_learner.init(generator_params, generator_state),
      jnp.zeros((), jnp.int32),
    )

  def step(key, state, batch, temperature):
    key_z, key_noise, key_chains = jax.random.split(key, 3)
    here = num_chains
    if axis_name is not None:
      here //= jax.lax.axis_size(axis_name)
    teacher, student = state.learner, state.generator

    z = chains.from_noise(
      chains.chain_keys(key_z, here, axis_name), (latent_dim,)
    ).position
    y_hat, _ = generator_fn(student.params, student.model_state, z)
    noise = chains.from_noise(
      chains.chain_keys(key_noise, here, axis_name), y_hat.shape[1:], noise_std
    ).position
    teacher, y_syn, metrics = learning.analysis_by_synthesis(
      key_chains,
      teacher,
      batch,
      chains.from_data(y_hat + noise),
      energy_fn=energy_fn,
      learner=learner,
      run_chains=functools.partial(
        chains.run_chains,
        num_steps=num_steps,
        step_size=step_size,
        temperature=temperature,
        kernel=kernel,
      ),
      axis_name=axis_name,
    )
    student, taught = generator_learner.update(
      student, z, y_syn, axis_name=axis_name
    )
    metrics |= {
      'teaching_loss': taught['teaching_loss'],
      'generator_grad_norm': taught['grad_norm'],
      'distance_generated': _pairwise(y_hat, axis_name),
      'distance_observed': _pairwise(batch, axis_name),
    }
    return CooperativeState(teacher, student, state.iteration + 1), metrics

  return Algorithm(init, step, CooperativeState(None, None, None))


def alternating_back_propagation(
  generator_fn: learning.GeneratorFn,
  inference_fn: learning.GeneratorFn,
  learner: learning.Learner,
  *,
  latent_dim: int,
  num_chains: int,
  num_slots: int,
  num_steps: int,
  step_size: float,
  noise_std: float,
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
  axis_name: str | None = None,
) -> Algorithm:
  """Learns a generator alone, section 5.0.1: infers z of data, then regresses.

  Mini-batch i owns slot i of a memory of latent factors, so shapes have to
  come in the same order in each epoch.

  Args:
    generator_fn: see `learning.GeneratorFn`.
    inference_fn: likewise, for the posterior: with running averages in place
      of batch statistics, since chains must not interact.
    learner: with `teaching_loss(generator_fn)`.
    latent_dim: d, length of z.
    num_chains: the size of a mini-batch, on all devices together.
    num_slots: mini-batches of an epoch.
    num_steps: Langevin steps in the latent space of an iteration.
    step_size: of these.
    noise_std: sigma of eq. (20).
    kernel: `langevin` or `mala`.
    axis_name: the device axis over which the batch is split, if any.

  Returns:
    An algorithm with `init(key, generator_params, generator_state)`. Its
    metrics are `teaching_loss`, `grad_norm`, `latent_norm` (root mean square
    of z, 1 under the prior) and `chain_max` (of z).
  """

  def init(key, params, model_state):
    keys = chains.chain_keys(key, num_slots * num_chains)
    z = chains.from_noise(keys, (latent_dim,)).position
    return AlternatingState(
      learner.init(params, model_state),
      chains.ChainMemory(z.reshape(num_slots, num_chains, latent_dim)),
      jnp.zeros((), jnp.int32),
    )

  def step(key, state, batch, temperature):
    slot = state.iteration % num_slots
    student = state.learner

    def generate(z):
      return inference_fn(student.params, student.model_state, z)[0]

    start = chains.read_chains(state.memory, slot)
    z, _ = chains.run_chains(
      chains.chain_keys(key, len(start.position), axis_name),
      energy.posterior_energy(generate, batch, noise_std),
      start,
      num_steps=num_steps,
      step_size=step_size,
      temperature=temperature,
      kernel=kernel,
    )
    student, metrics = learner.update(student, z, batch, axis_name=axis_name)
    chain_max, square = learning.largest(z), jnp.mean(z**2)
    if axis_name is not None:
      chain_max = jax.lax.pmax(chain_max, axis_name)
      square = jax.lax.pmean(square, axis_name)
    state = AlternatingState(
      student,
      chains.write_chains(state.memory, slot, z),
      state.iteration + 1,
    )
    return state, metrics | {
      'chain_max': chain_max,
      'latent_norm': jnp.sqrt(square),
    }

  return Algorithm(init, step, AlternatingState(None, 1, None))


def classification(
  learner: learning.Learner, *, axis_name: str | None = None
) -> Algorithm:
  """Learns a classifier, such as that of section 6.1; no chains.

  A mini-batch is `{'y': (batch, D, H, W, C), 'labels': (batch,)}`.

  Args:
    learner: with `classification_loss`.
    axis_name: the device axis over which the batch is split, if any.

  Returns:
    An algorithm with `init(key, params, model_state)`.
  """

  def init(key, params, model_state):
    del key  # Nothing is random beyond the parameters.
    return ClassificationState(
      learner.init(params, model_state), jnp.zeros((), jnp.int32)
    )

  def step(key, state, batch, temperature):
    del temperature
    if axis_name is not None:
      key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    learner_state, metrics = learner.update(
      state.learner, batch['y'], batch['labels'], key, axis_name=axis_name
    )
    return ClassificationState(learner_state, state.iteration + 1), metrics

  return Algorithm(init, step, ClassificationState(None, None))
