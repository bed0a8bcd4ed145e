"""Chains: where they begin, what holds them, and the memory of persistent ones.

A `Start` is a position and a projection. The makers below are the starts of
the paper's algorithms; `run_chains` moves one. A `ChainMemory` keeps chains
between learning iterations: each slot (one for each mini-batch, in the
authors' code) owns its chains.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnet_jax import grids
from dnet_jax import kernels
from dnet_jax import projections
from dnet_jax import sampling
from dnet_jax import types


class Start(NamedTuple):
  """Where chains begin, and the directions in which they may move."""

  position: types.Array
  project: types.Projection


class ChainMemory(NamedTuple):
  """Persistent chains: positions `(slots, chains, D, H, W, C)`."""

  positions: types.Array


def chain_keys(
  key: types.Key, num_chains: int, axis_name: str | None = None
) -> types.Key:
  """One key for each chain, the same however chains are split over devices.

  Args:
    key: consumed.
    num_chains: chains on this device.
    axis_name: the device axis over which chains are split, if any.

  Returns:
    Keys `(num_chains,)`; chain i of the whole has `fold_in(key, i)`.

  >>> chain_keys(jax.random.key(0), 3).shape
  (3,)
  """
  index = jnp.arange(num_chains)
  if axis_name is not None:
    index = index + jax.lax.axis_index(axis_name) * num_chains
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def from_noise(
  keys: types.Key, shape: Sequence[int], std: float = 1.0
) -> Start:
  """White noise N(0, std^2), free to move: a fresh chain for each key.

  Args:
    keys: `(chains,)`, see `chain_keys`.
    shape: of one chain, `(D, H, W, C)`.
    std: standard deviation of each voxel.

  >>> keys = chain_keys(jax.random.key(0), 2)
  >>> from_noise(keys, (4, 4, 4, 1)).position.shape
  (2, 4, 4, 4, 1)
  """
  noise = jax.vmap(lambda key: jax.random.normal(key, tuple(shape)))(keys)
  return Start(std * noise, projections.free())


def from_data(y: types.Array) -> Start:
  """The observed data, free to move: contrastive divergence, section 4.1.

  >>> from_data(jnp.ones((2, 4, 4, 4, 1))).position.shape
  (2, 4, 4, 4, 1)
  """
  return Start(y, projections.free())


def from_corrupted(
  y: types.Array, visible: types.Array, fill: types.Array | float
) -> Start:
  """A corrupted shape whose visible voxels are held: Algorithm 4.

  Args:
    y: shapes `(*chains, D, H, W, C)`; only visible voxels are read.
    visible: boolean, broadcasts against y; True = observed.
    fill: where hidden voxels begin; broadcasts against y.

  >>> start = from_corrupted(jnp.ones(2), jnp.array([True, False]), 0.5)
  >>> start.position.tolist(), start.project(jnp.ones(2)).tolist()
  ([1.0, 0.5], [0.0, 1.0])
  """
  return Start(jnp.where(visible, y, fill), projections.fixed_voxels(visible))


def recovery_start(
  y: types.Array,
  visible: types.Array,
  hold: bool = True,
  fill: Callable[..., types.Array] | None = None,
) -> tuple[Start, Callable[[types.Array], types.Array]]:
  """The start of a recovery in both readings of section 6.2, and its end.

  Args:
    y: shapes `(*chains, D, H, W, C)`; only visible voxels are read.
    visible: boolean, broadcasts against y; True = observed.
    hold: True: visible voxels are held at every step (the text); False: all
      move (the authors' code).
    fill: `(y, visible, mean) -> (*chains, D, H, W, C)`, where hidden voxels
      begin, from the mean of the visible ones of each shape; None: at that
      mean, as in the authors' code.

  Returns:
    The start, and a function that puts the visible voxels back.

  >>> y, visible = jnp.ones((1, 1, 1, 2, 1)), jnp.array([[True], [False]])
  >>> start, finish = recovery_start(y, visible, hold=False)
  >>> start.position.ravel().tolist(), finish(0 * y).ravel().tolist()
  ([1.0, 1.0], [1.0, 0.0])
  """
  axes = (-4, -3, -2, -1)
  count = jnp.broadcast_to(visible, y.shape).sum(axes, keepdims=True)
  total = jnp.where(visible, y, 0).sum(axes, keepdims=True)
  mean = total / jnp.maximum(count, 1)
  start = from_corrupted(
    y, visible, mean if fill is None else fill(y, visible, mean)
  )
  if hold:
    return start, lambda y_syn: y_syn
  free = start._replace(project=projections.free())
  return free, lambda y_syn: jnp.where(visible, y, y_syn)


def from_low_resolution(y_low: types.Array, factor: int) -> Start:
  """`C^- Y_low`, its block averages held: Algorithm 5.

  Args:
    y_low: shapes `(*chains, D, H, W, C)`.
    factor: ratio d of the sides of the high and the low resolution.

  >>> from_low_resolution(jnp.ones((1, 2, 2, 2, 1)), 2).position.shape
  (1, 4, 4, 4, 1)
  """
  return Start(grids.upscale(y_low, factor), projections.fixed_average(factor))


def from_coarse(y_coarse: types.Array, factor: int) -> Start:
  """The upscaled sample of the next coarser grid, free to move: Algorithm 2.

  Args:
    y_coarse: shapes `(*chains, D, H, W, C)`.
    factor: ratio of the sides of the finer and the coarser grid.

  >>> from_coarse(jnp.ones((1, 1, 1, 1, 1)), 4).position.shape
  (1, 4, 4, 4, 1)
  """
  return Start(grids.upscale(y_coarse, factor), projections.free())


def read_chains(memory: ChainMemory, slot: int | types.Array) -> Start:
  """The chains of a slot, free to move.

  >>> memory = ChainMemory(jnp.zeros((3, 2, 4, 4, 4, 1)))
  >>> read_chains(memory, 1).position.shape
  (2, 4, 4, 4, 1)
  """
  position = jax.lax.dynamic_index_in_dim(
    memory.positions, slot, axis=0, keepdims=False
  )
  return Start(position, projections.free())


def write_chains(
  memory: ChainMemory, slot: int | types.Array, position: types.Array
) -> ChainMemory:
  """The memory with other positions `(chains, D, H, W, C)` in a slot.

  >>> memory = ChainMemory(jnp.zeros((3, 2, 1, 1, 1, 1)))
  >>> memory = write_chains(memory, 1, jnp.ones((2, 1, 1, 1, 1)))
  >>> memory.positions.sum((1, 2, 3, 4, 5)).tolist()
  [0.0, 2.0, 0.0]
  """
  return ChainMemory(
    jax.lax.dynamic_update_index_in_dim(
      memory.positions, position, slot, axis=0
    )
  )


def restart_chains(
  keys: types.Key,
  start: Start,
  probability: float | types.Array,
  std: float = 1.0,
) -> Start:
  """Restarts each chain from noise with a probability.

  So the burn-in from noise is learned too, and fresh chains reach shapes.

  Args:
    keys: `(chains,)`, see `chain_keys`.
    start: positions `(chains, D, H, W, C)`.
    probability: in [0, 1]; may be traced.
    std: of the noise.

  Raises:
    ValueError: when `probability` is outside [0, 1].

  >>> keys = chain_keys(jax.random.key(0), 2)
  >>> start = from_data(jnp.ones((2, 4, 4, 4, 1)))
  >>> bool((restart_chains(keys, start, 0.0).position == 1).all())
  True
  """
  if not isinstance(probability, jax.core.Tracer) and not (
    0 <= probability <= 1
  ):
    raise ValueError(f'probability must be in [0, 1], got {probability}')
  uniform = jax.vmap(jax.random.uniform)(kernels.fold_in(keys, 0))
  fresh = from_noise(
    kernels.fold_in(keys, 1), start.position.shape[1:], std
  ).position
  again = (uniform < probability)[:, None, None, None, None]
  return start._replace(position=jnp.where(again, fresh, start.position))


def run_chains(
  key: types.Key,
  energy_fn: types.EnergyFn,
  start: Start,
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

  >>> y, _ = run_chains(jax.random.key(0), lambda y: y**2 / 2,
  ...                   from_data(jnp.ones(1)), num_steps=1, step_size=1.0,
  ...                   temperature=0.0)
  >>> y.tolist()
  [0.5]
  """
  step = kernel(
    energy_fn, step_size, temperature=temperature, project=start.project
  )
  return sampling.sample(key, step, start.position, num_steps)
