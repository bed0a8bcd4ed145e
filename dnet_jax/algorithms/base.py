"""What every algorithm is, and the iteration that most of them share.

An algorithm is `init(key, params) -> state` and `step(key, state, batch,
schedule) -> (state, metrics)`, both pure; the caller jits them, or maps them
over devices. No algorithm has a chain loop or an update of its own. `params`
are the variables of its networks by name, as a `Model` holds them, so that
learning can begin with any model.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnet_jax import chains
from dnet_jax import learning
from dnet_jax import parts
from dnet_jax import starts
from dnet_jax import types

# `begin(some) -> (start, finish)`: where some chains begin (see parts.py), and
# what is done to them after their last step.
Begin = Callable[
  [parts.Some], tuple[starts.Start, Callable[[types.Array], types.Array]]
]


class State(NamedTuple):
  """The state of every algorithm.

  Attributes:
    learners: one for each network, by name: 'descriptor', 'grid_1' ...,
      'generator', 'classifier'.
    memory: chains that are kept between iterations, and arrays of which new
      ones are made; None: neither.
    iteration: how many iterations are done.
  """

  learners: dict[str, learning.LearnerState]
  memory: chains.ChainMemory | None
  iteration: types.Array


class Schedule(NamedTuple):
  """What changes while an algorithm learns; traced.

  Attributes:
    temperature: T of section 2.5; in multi-grid learning one for all grids, or
      one for each.
    rate_factor: multiplies the updates of all learners.
  """

  temperature: float | types.Array = 1.0
  rate_factor: float | types.Array = 1.0


class Algorithm(NamedTuple):
  """A learning algorithm, as two pure functions.

  Attributes:
    init: `(key, params) -> state`.
    step: `(key, state, batch, schedule) -> (state, metrics)`.
    chain_axes: a prefix of the state: the axis of each leaf along which chains
      are split over devices, or None where every device holds the same. See
      `axes`.
  """

  init: Callable[[types.Key, Mapping[str, Any]], State]
  step: Callable[..., tuple[State, dict[str, types.Array]]]
  chain_axes: types.Axes


def begin(
  learners: Mapping[str, learning.Learner],
  params: Mapping[str, Any],
  memory: chains.ChainMemory | None = None,
) -> State:
  """The first state.

  Args:
    learners: by name.
    params: variables of the same networks.
    memory: the chains, if they are kept.

  Raises:
    ValueError: when the names differ.

  >>> learner = learning.Learner(init=learning.LearnerState._make, update=None)
  >>> begin({'descriptor': learner}, {'critic': 0.0})
  Traceback (most recent call last):
  ValueError: this algorithm learns the networks ['descriptor'], got ['critic']
  """
  if not isinstance(params, Mapping) or {*params} != {*learners}:
    names = sorted(params) if isinstance(params, Mapping) else type(params)
    raise ValueError(
      f'this algorithm learns the networks {sorted(learners)}, got {names}'
    )
  return State(
    {name: learner.init(params[name]) for name, learner in learners.items()},
    memory,
    jnp.zeros((), jnp.int32),
  )


def axes(memory: types.Axes = None) -> types.Axes:
  """`Algorithm.chain_axes` where only the memory, if any, holds chains.

  Args:
    memory: the axes of its chains, see `chains.Memory`.

  >>> axes()
  State(learners=None, memory=None, iteration=None)
  """
  shared: types.Axes = None
  return State(learners=shared, memory=memory, iteration=shared)


def variables(state: State) -> dict[str, Any]:
  """The variables of all networks by name, as a `Model` holds them.

  >>> learner = learning.LearnerState({'params': 1.0}, {'batch_stats': 2.0}, ())
  >>> variables(State({'generator': learner}, None, 0))
  {'generator': {'params': 1.0, 'batch_stats': 2.0}}
  """
  return {
    name: learning.join_variables(learner)
    for name, learner in state.learners.items()
  }


def begin_at(
  start: Callable[[types.Array], starts.Start], position: types.Array
) -> Begin:
  """A `Begin` for chains that start at a function of an array.

  Nothing is done to the chains after their last step.

  Args:
    start: `(rows) -> Start`, for some rows of `position`.
    position: `(chains, ...)`.

  >>> begin = begin_at(starts.from_data, jnp.ones((3, 4, 4, 4, 1)))
  >>> start, _ = begin(lambda x: x[:2])
  >>> start.position.shape
  (2, 4, 4, 4, 1)
  """
  return lambda some: (start(some(position)), lambda y: y)


def not_in_parts(sampler: chains.Sampler) -> None:
  """Raises ValueError for a sampler that moves some chains at a time.

  For networks with batch statistics, which need all chains together.
  """
  if sampler.at_once is not None:
    raise ValueError(
      'batch statistics need all chains together: at_once must be None, got '
      f'{sampler.at_once}'
    )


def analysis_by_synthesis(
  key: types.Key,
  state: learning.LearnerState,
  y_obs: types.Array,
  num_chains: int,
  begin: Begin,
  schedule: Schedule,
  *,
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  sampler: chains.Sampler,
) -> tuple[learning.LearnerState, types.Array, dict[str, types.Array]]:
  """One iteration: mode seeking, eq. (7), then mode shifting, eq. (8).

  Args:
    key: consumed.
    state: of the learner.
    y_obs: observed shapes `(batch, D, H, W, C)`.
    num_chains: on this device.
    begin: where the chains begin.
    schedule: temperature and rate.
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with a contrastive loss.
    sampler: moves the chains.

  Returns:
    The new state, the synthesised shapes and the metrics: the learner's,
    `chain_max` (largest absolute voxel, inf where one is not finite) and
    `chain_move` (root mean square change of a voxel).
  """
  keys = sampler.keys(key, num_chains)
  number = parts.number_of_parts((num_chains, len(y_obs)), sampler.at_once)

  def moved(some):
    start, finish = begin(some)
    y, _ = sampler.run(
      some(keys),
      lambda y: energy_fn(state.params, y),
      start,
      schedule.temperature,
    )
    y = finish(y)
    return y, jnp.mean((y - start.position) ** 2)

  y_syn, move = parts.in_parts(moved, number)
  # Synthesised shapes are data to the learner: nothing flows back through
  # the chains.
  y_syn = jax.lax.stop_gradient(y_syn)
  axis_name = sampler.axis_name
  state, metrics = learner.update(
    state,
    y_obs,
    y_syn,
    rate_factor=schedule.rate_factor,
    axis_name=axis_name,
    parts=number,
  )
  move = learning.average(move, axis_name)
  return (
    state,
    y_syn,
    metrics
    | {
      'chain_max': learning.largest(y_syn, axis_name),
      'chain_move': jnp.sqrt(move),
    },
  )


def from_batch(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  sampler: chains.Sampler,
  start_fn: Callable[..., tuple[starts.Start, Callable[[Any], Any]]],
  arrays: types.PyTree = None,
) -> Algorithm:
  """Learns from chains that start anew at the mini-batch in each iteration.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    sampler: moves the chains.
    start_fn: `(keys, batch, arrays) -> (start, finish)`; `finish` is applied
      to the chains after their last step.
    arrays: what `start_fn` needs beside the mini-batch. They belong to the
      state, so that large ones are not compiled into a step.
  """

  def init(key, params):
    del key  # Chains start at the data.
    kept = None if arrays is None else chains.ChainMemory(None, arrays)
    return begin({'descriptor': learner}, params, kept)

  def step(key, state, batch, schedule):
    key_start, key_chains = jax.random.split(key)
    keys = sampler.keys(key_start, len(batch))
    given = None if state.memory is None else state.memory.source
    descriptor, _, metrics = analysis_by_synthesis(
      key_chains,
      state.learners['descriptor'],
      batch,
      len(batch),
      lambda some: start_fn(some(keys), some(batch), given),
      schedule,
      energy_fn=energy_fn,
      learner=learner,
      sampler=sampler,
    )
    learners = {'descriptor': descriptor}
    return State(learners, state.memory, state.iteration + 1), metrics

  return Algorithm(init, step, axes())
