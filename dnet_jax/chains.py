"""Chains: how they are moved, and the memory of old ones.

`run_chains` moves the chains of a start, and a `Sampler` does so with steps,
step size and kernel bound. A `ChainMemory` keeps chains between learning
iterations (a "replay buffer"): each slot (one for each mini-batch, in the
authors' code) owns its chains. A `Source` is what fresh chains are drawn from.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnet_jax import kernels
from dnet_jax import pca
from dnet_jax import projections
from dnet_jax import sampling
from dnet_jax import starts
from dnet_jax import types


class Sampler(NamedTuple):
  """How the chains of a learning iteration are moved; see `make_sampler`.

  Attributes:
    run: `(key, energy_fn, start, temperature) -> (positions, traces)`.
    keys: `(key, num_chains) -> keys`, one for each chain on this device.
    axis_name: the device axis over which batch and chains are split, if any.
    at_once: how many chains a device moves, and learns from, at a time; None:
      all of them.
  """

  run: Callable[..., tuple[types.Array, types.PyTree]]
  keys: Callable[[types.Key, int], types.Key]
  axis_name: str | None
  at_once: int | None = None


class Source(NamedTuple):
  """What fresh chains are drawn from.

  The arrays are data and not constants of the program: they belong to the
  state of a memory, so that large ones are not compiled into a step.

  Attributes:
    draw: `(keys, arrays) -> positions`, one for each key.
    arrays: what `draw` needs beside keys.
  """

  draw: Callable[[types.Key, types.PyTree], types.Array]
  arrays: types.PyTree


class ChainMemory(NamedTuple):
  """Persistent chains, and what new chains are drawn from.

  Attributes:
    positions: `(slots, chains, D, H, W, C)`, or `(slots, chains, d)`. None
      where all chains start anew in each iteration.
    source: arrays of the `Source` from which chains start or restart.
  """

  positions: types.Array | None
  source: types.PyTree = ()


_ALONG: types.Axes = 1  # The axis of chains in the positions; 0 is the slots.


class Memory(NamedTuple):
  """How a memory is created, read and written; see `persistent`.

  Attributes:
    init: `(key) -> ChainMemory`.
    read: `(key, memory, iteration, sampler) -> starts.Start`.
    write: `(memory, iteration, positions) -> ChainMemory`.
    axes: a prefix of a `ChainMemory`: the axis of chains, or None.
  """

  init: Callable[[types.Key], ChainMemory]
  read: Callable[..., starts.Start]
  write: Callable[..., ChainMemory]
  axes: types.Axes = ChainMemory(_ALONG, None)


def noise_source(shape: Sequence[int], std: float = 1.0) -> Source:
  """White noise N(0, std^2) as a source of fresh chains.

  >>> source = noise_source((4, 4, 4, 1), 0.3)
  >>> keys = starts.chain_keys(jax.random.key(0), 2)
  >>> source.draw(keys, source.arrays).shape
  (2, 4, 4, 4, 1)
  """

  def draw(keys, arrays):
    return starts.from_noise(keys, shape, arrays['std']).position

  return Source(draw, {'std': jnp.asarray(std, jnp.float32)})


def component_source(
  components: pca.Components, std: float = 0.05, spread: float = 0.6
) -> Source:
  """Draws of `pca.draw` as a source of fresh chains.

  >>> components = pca.Components(
  ...   jnp.zeros((4, 4, 4, 1)), jnp.ones((2, 4, 4, 4, 1)),
  ...   jnp.eye(2), neighbours=1)
  >>> source = component_source(components)
  >>> keys = starts.chain_keys(jax.random.key(0), 2)
  >>> source.draw(keys, source.arrays).shape
  (2, 4, 4, 4, 1)
  """

  def draw(keys, arrays):
    return pca.draw(keys, *arrays)

  numbers = (jnp.asarray(x, jnp.float32) for x in (std, spread))
  return Source(draw, (components, *numbers))


def _check_slot(memory, slot):
  if memory.positions is None:
    raise ValueError('this memory has no chains, only what they start from')
  slots = len(memory.positions)
  x = types.known(slot)
  if x is not None and not 0 <= x < slots:
    raise ValueError(f'slot must be from 0 to {slots - 1}, got {slot}')


def read_chains(memory: ChainMemory, slot: int | types.Array) -> starts.Start:
  """The chains of a slot, free to move.

  Raises:
    ValueError: when there is no such slot.

  >>> memory = ChainMemory(jnp.zeros((3, 2, 4, 4, 4, 1)))
  >>> read_chains(memory, 1).position.shape
  (2, 4, 4, 4, 1)
  """
  _check_slot(memory, slot)
  position = jax.lax.dynamic_index_in_dim(
    memory.positions, slot, axis=0, keepdims=False
  )
  return starts.Start(position, projections.free())


def write_chains(
  memory: ChainMemory, slot: int | types.Array, position: types.Array
) -> ChainMemory:
  """The memory with other positions `(chains, D, H, W, C)` in a slot.

  Raises:
    ValueError: when there is no such slot.

  >>> memory = ChainMemory(jnp.zeros((3, 2, 1, 1, 1, 1)))
  >>> memory = write_chains(memory, 1, jnp.ones((2, 1, 1, 1, 1)))
  >>> memory.positions.sum((1, 2, 3, 4, 5)).tolist()
  [0.0, 2.0, 0.0]
  """
  _check_slot(memory, slot)
  positions = jax.lax.dynamic_update_index_in_dim(
    memory.positions, position, slot, axis=0
  )
  return memory._replace(positions=positions)


def restart_chains(
  keys: types.Key,
  start: starts.Start,
  probability: float | types.Array,
  draw: Callable[[types.Key], types.Array],
) -> starts.Start:
  """Restarts each chain with a probability.

  The model then learns the first steps of a fresh chain too, so that fresh
  chains reach shapes.

  Args:
    keys: `(chains,)`, see `chain_keys`.
    start: positions `(chains, ...)`.
    probability: in [0, 1]; may be traced.
    draw: `(keys) -> positions`, where chains restart.

  Raises:
    ValueError: when `probability` is outside [0, 1].

  >>> keys = starts.chain_keys(jax.random.key(0), 2)
  >>> start = starts.from_data(jnp.ones((2, 4, 4, 4, 1)))
  >>> fresh = restart_chains(keys, start, 1.0, lambda keys: 0 * start.position)
  >>> bool((fresh.position == 0).all())
  True
  """
  x = types.known(probability)
  if x is not None and not 0 <= x <= 1:
    raise ValueError(f'probability must be in [0, 1], got {probability}')
  uniform = jax.vmap(jax.random.uniform)(kernels.fold_in(keys, 0))
  fresh = draw(kernels.fold_in(keys, 1))
  again = uniform < probability
  again = jnp.expand_dims(again, tuple(range(1, fresh.ndim)))
  return start._replace(position=jnp.where(again, fresh, start.position))


def persistent(
  source: Source,
  *,
  num_chains: int,
  num_slots: int = 1,
  restart_probability: float = 0.0,
  restart_iterations: int | None = None,
  positions: types.Array | None = None,
) -> Memory:
  """A memory of persistent chains: iteration t moves slot `t % num_slots`.

  With as many slots as mini-batches, each mini-batch owns its chains, as in
  the authors' code.

  Args:
    source: where chains start and restart.
    num_chains: chains of a slot, on all devices together.
    num_slots: slots of the memory.
    restart_probability: probability that a chain restarts before it is moved.
    restart_iterations: how many iterations have restarts. There are none
      afterwards, so that at the end no chain is young. None: all iterations.
    positions: where they begin, `(num_slots, num_chains, ...)`; None: drawn
      from the source. Data, for persistent contrastive divergence.

  Returns:
    A memory.

  Raises:
    ValueError: when a number is out of range, or the shape of `positions` does
      not fit the numbers of slots and chains.

  >>> memory = persistent(noise_source((4, 4, 4, 1)), num_chains=2)
  >>> memory.init(jax.random.key(0)).positions.shape
  (1, 2, 4, 4, 4, 1)
  """
  if num_chains < 1 or num_slots < 1:
    raise ValueError(
      'num_chains and num_slots must be at least 1, got '
      f'{num_chains} and {num_slots}'
    )
  if not 0 <= restart_probability <= 1:
    raise ValueError(
      f'restart_probability must be in [0, 1], got {restart_probability}'
    )
  if positions is not None:
    positions = jnp.asarray(positions)
    if positions.shape[:2] != (num_slots, num_chains):
      raise ValueError(
        f'positions must be ({num_slots}, {num_chains}, ...), one for each '
        f'chain of each slot, got shape {positions.shape}'
      )

  def init(key):
    if positions is not None:
      return ChainMemory(positions, source.arrays)
    keys = starts.chain_keys(key, num_slots * num_chains)
    # Slot by slot: where chains are split over devices, each draws its own.
    begin = jax.vmap(lambda keys: source.draw(keys, source.arrays))(
      keys.reshape(num_slots, num_chains)
    )
    return ChainMemory(begin, source.arrays)

  def read(key, memory, iteration, sampler):
    start = read_chains(memory, iteration % num_slots)
    if not restart_probability:
      return start
    probability: float | types.Array = restart_probability
    if restart_iterations is not None:
      again = iteration < restart_iterations
      probability = jnp.where(again, probability, 0.0)
    return restart_chains(
      sampler.keys(key, len(start.position)),
      start,
      probability,
      lambda keys: source.draw(keys, memory.source),
    )

  def write(memory, iteration, position):
    return write_chains(memory, iteration % num_slots, position)

  return Memory(init, read, write)


def run_chains(
  key: types.Key,
  energy_fn: types.EnergyFn,
  start: starts.Start,
  *,
  num_steps: int,
  step_size: float | types.Array,
  temperature: float | types.Array = 1.0,
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
) -> tuple[types.Array, types.PyTree]:
  """Moves the chains of a start: `sample` with the kernel and projection.

  Args:
    key: consumed; one for all chains, or one for each.
    energy_fn: `y -> (*chains,)`.
    start: where chains begin, and how they may move.
    num_steps: static.
    step_size: the paper's delta-tau of eq. (7).
    temperature: T of section 2.5.
    kernel: `langevin`, `mala` or another function of that signature.

  Returns:
    Positions and traces, as `sample` does.

  >>> start = starts.from_data(jnp.ones(1))
  >>> y, _ = run_chains(jax.random.key(0), lambda y: y**2 / 2, start,
  ...                   num_steps=1, step_size=1.0, temperature=0.0)
  >>> y.tolist()
  [0.5]
  """
  step = kernel(
    starts.energy_of(start, energy_fn),
    step_size,
    temperature=temperature,
    project=start.project,
  )
  return sampling.sample(key, step, start.position, num_steps)


def make_sampler(
  *,
  num_steps: int,
  step_size: float | types.Array,
  kernel: Callable[..., kernels.Kernel] = kernels.langevin,
  axis_name: str | None = None,
  at_once: int | None = None,
) -> Sampler:
  """Binds what all chains of an algorithm share.

  Args:
    num_steps: Langevin steps of an iteration.
    step_size: the paper's delta-tau of eq. (7).
    kernel: `langevin`, `mala` or another function of that signature.
    axis_name: the device axis over which batch and chains are split, if any.
    at_once: how many chains a device moves, and learns from, at a time, where
      memory has no room for all; the result is the same. None: all.

  Returns:
    A sampler.

  Raises:
    ValueError: when `at_once` is below 1.

  >>> sampler = make_sampler(num_steps=1, step_size=1.0)
  >>> y, _ = sampler.run(jax.random.key(0), lambda y: y**2 / 2,
  ...                    starts.from_data(jnp.ones(1)), 0.0)
  >>> y.tolist()
  [0.5]
  """
  if at_once is not None and at_once < 1:
    raise ValueError(f'at_once must be at least 1, got {at_once}')

  def run(key, energy_fn, start, temperature):
    return run_chains(
      key,
      energy_fn,
      start,
      num_steps=num_steps,
      step_size=step_size,
      temperature=temperature,
      kernel=kernel,
    )

  def keys(key, num_chains):
    return starts.chain_keys(key, num_chains, axis_name)

  return Sampler(run, keys, axis_name, at_once)
