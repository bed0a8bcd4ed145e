"""Data parallelism over devices: the one module that knows of pmap and mesh.

A step is `step(key, state, batch, schedule) -> (state, metrics)` and names
the axis `AXIS`. Every array is either the same on all devices or split over
that one axis: the batch along its first axis, chains along `chain_axes`.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

AXIS = 'devices'
MODES = ('shard_map', 'pmap')


class Parallel(NamedTuple):
  """How a step runs on devices.

  step: `(key, state, batch, schedule)`, of arrays as `put` gives them;
    donates the state.
  put: `(state)`: places a state as `step` takes it.
  get: `(state)`: back, with whole chain axes, as it is saved.
  batch: `(arrays)`: places a mini-batch, a pytree of arrays, each split along
    its first axis.
  """

  step: Callable[..., Any]
  put: Callable[[Any], Any]
  get: Callable[[Any], Any]
  batch: Callable[[Any], Any]


def make(mode: str, step: Callable[..., Any], chain_axes: Any) -> Parallel:
  """Maps a step over all devices of this process.

  Args:
    mode: 'shard_map', or 'pmap', which is the older form of the same.
    step: see the module.
    chain_axes: a prefix of the state: the axis of chains, or None.

  Raises:
    ValueError: for another mode.
  """
  if mode not in MODES:
    raise ValueError(f'parallel must be one of {MODES}, got {mode!r}')
  maker = _shard_map if mode == 'shard_map' else _pmap
  return maker(step, chain_axes, jax.local_devices())


def check_divisible(**sizes: int) -> None:
  """Raises ValueError where a size cannot be split evenly over the devices."""
  devices = jax.local_device_count()
  for name, size in sizes.items():
    if size % devices:
      raise ValueError(
        f'{name} = {size} cannot be split evenly over {devices} devices'
      )


def _map_axes(function, chain_axes, state):
  """Calls `function(axis, leaf)` for each leaf, axis None where replicated."""

  def subtree(axis, tree):
    return jax.tree.map(lambda leaf: function(axis, leaf), tree)

  return jax.tree.map(
    subtree, chain_axes, state, is_leaf=lambda axis: axis is None
  )


def _spec(axis):
  if axis is None:
    return PartitionSpec()
  return PartitionSpec(*(None,) * axis, AXIS)


def _place(mesh, chain_axes, state):
  return _map_axes(
    lambda axis, leaf: jax.device_put(leaf, NamedSharding(mesh, _spec(axis))),
    chain_axes,
    state,
  )


def _shard_map(step, chain_axes, devices):
  mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
  specs = jax.tree.map(_spec, chain_axes, is_leaf=lambda axis: axis is None)
  replicated, split = PartitionSpec(), PartitionSpec(AXIS)
  mapped = jax.shard_map(
    step,
    mesh=mesh,
    in_specs=(replicated, specs, split, replicated),
    out_specs=(specs, replicated),
    # The step averages gradients itself, as under pmap.
    check_vma=False,
  )
  return Parallel(
    step=jax.jit(mapped, donate_argnums=1),
    put=lambda state: _place(mesh, chain_axes, state),
    get=lambda state: state,
    batch=lambda x: jax.device_put(x, NamedSharding(mesh, split)),
  )


def _pmap(step, chain_axes, devices):
  n = len(devices)
  mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))

  def put(state):
    def leaf(axis, x):
      if axis is None:
        return x
      shape = (*x.shape[:axis], n, x.shape[axis] // n, *x.shape[axis + 1 :])
      return x.reshape(shape)

    # As the step returns it: else the second step would compile once more.
    return _place(mesh, chain_axes, _map_axes(leaf, chain_axes, state))

  def get(state):
    def leaf(axis, x):
      if axis is None:
        return x
      shape = (*x.shape[:axis], n * x.shape[axis + 1], *x.shape[axis + 2 :])
      return x.reshape(shape)

    return _map_axes(leaf, chain_axes, state)

  mapped = jax.pmap(
    step,
    axis_name=AXIS,
    in_axes=(None, chain_axes, 0, None),
    out_axes=(chain_axes, None),
    devices=devices,
    donate_argnums=1,
  )
  return Parallel(
    step=mapped,
    put=put,
    get=get,
    batch=lambda batch: jax.tree.map(
      lambda x: x.reshape(n, len(x) // n, *x.shape[1:]), batch
    ),
  )
