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

from dnet_jax import chains
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


class ContrastiveDivergenceState(NamedTuple):
  """The learner, and how many iterations are done."""

  learner: learning.LearnerState
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
      start = chains.restart_chains(
        chains.chain_keys(key_restart, len(start.position), axis_name),
        start,
        restart_probability,
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

  def init(key, params):
    del key  # Nothing is random: chains start at the data.
    return ContrastiveDivergenceState(
      learner.init(params), jnp.zeros((), jnp.int32)
    )

  def step(key, state, batch, temperature):
    learner_state, _, metrics = learning.analysis_by_synthesis(
      key,
      state.learner,
      batch,
      chains.from_data(batch),
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
    return (
      ContrastiveDivergenceState(learner_state, state.iteration + 1),
      metrics,
    )

  return Algorithm(init, step, ContrastiveDivergenceState(None, None))
