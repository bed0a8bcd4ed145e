"""Data parallelism over devices: the one module that knows of pmap and mesh.

A step is `step(key, state, batch, schedule) -> (state, metrics)` and names
the axis `AXIS`. Every array is either the same on all devices or split over
that one axis: the batch along its first axis, chains along `chain_axes`.

The devices are those of all processes of a run, see processes.py. Each process
holds the arrays of its own devices, and nothing is ever gathered on one device.
Only averages of gradients, statistics and metrics are sent between devices.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

AXIS = 'devices'
MODES = ('shard_map', 'pmap')
_REPLICATED, _SPLIT = PartitionSpec(), PartitionSpec(AXIS)


class Parallel(NamedTuple):
  """How a step runs on devices.

  step: `(key, state, batch, schedule)`, of arrays as `init` or `put` give them;
    donates the state.
  init: `(init, key, params, chains=None)`: the state `init(key, params)`, each
    device with its own chains, as `step` takes it. `chains(some)` gives some
    chains (a slice) of all slots, if they begin elsewhere.
  put: `(state)`: places a state as `step` takes it.
  get: `(state)`: the inverse of `put`: whole chain axes, as they are saved.
  like: `(shapes)`: what `get` returns, as shapes and shardings to restore it.
  local: `(state)`: the part of what `get` returns that this process has, with
    the chains of its own devices.
  batch: `(arrays)`: places a mini-batch, a pytree of arrays, each split along
    its first axis, of which this process has `rows`.
  lower: as `step`, of arrays or their shapes: the step as `jax.stages.Lowered`.
  """

  step: Callable[..., Any]
  init: Callable[..., Any]
  put: Callable[[Any], Any]
  get: Callable[[Any], Any]
  like: Callable[[Any], Any]
  local: Callable[[Any], Any]
  batch: Callable[[Any], Any]
  lower: Callable[..., Any]


def make(mode: str, step: Callable[..., Any], chain_axes: Any) -> Parallel:
  """Maps a step over all devices of all processes.

  Args:
    mode: 'shard_map'; or 'pmap', the older form of the same. JAX now builds it
      on shard_map, and here it works in one process only.
    step: see the module.
    chain_axes: a prefix of the state: the axis of chains, or None.

  Raises:
    ValueError: for another mode, or 'pmap' in several processes.
  """
  if mode not in MODES:
    raise ValueError(f'parallel must be one of {MODES}, got {mode!r}')
  if mode == 'pmap' and jax.process_count() > 1:
    raise ValueError(
      f"parallel='pmap' works in one process only, and this run has "
      f"{jax.process_count()}: use 'shard_map'"
    )
  maker = _shard_map if mode == 'shard_map' else _pmap
  return maker(step, chain_axes, all_devices())


def all_devices() -> list[jax.Device]:
  """The devices of all processes; those of one process are neighbours."""
  return sorted(jax.devices(), key=lambda d: (d.process_index, d.id))


def check_divisible(**sizes: int) -> None:
  """Raises ValueError where a size cannot be split evenly over the devices."""
  devices = jax.device_count()
  for name, size in sizes.items():
    if size % devices:
      raise ValueError(
        f'{name} = {size} cannot be split evenly over {devices} devices: '
        f'it must be a multiple of {devices}, such as '
        f'{-(-size // devices) * devices}'
      )


def rows(size: int) -> slice:
  """Which rows of a mini-batch of `size` this process reads."""
  devices = all_devices()
  own = [i for i, d in enumerate(devices) if d in jax.local_devices()]
  each = size // len(devices)
  return slice(own[0] * each, (own[-1] + 1) * each)


def agree(number: int) -> int:
  """The largest of the processes' numbers, all >= 0; every process calls it."""
  if jax.process_count() == 1:
    return number
  return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def wait_for_all(name: str) -> None:
  """Waits until all processes are here; `name` says where, for people."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def map_step(
  step: Callable[..., Any], chain_axes: Any, mesh: Any
) -> Callable[..., Any]:
  """The step over a mesh, by shard_map and jit.

  Args:
    step: see the module.
    chain_axes: a prefix of the state.
    mesh: with the axis `AXIS`; may be abstract, to lower for devices that are
      not here.

  Returns:
    `(key_data, state, batch, schedule)`, jitted; donates the state.
  """

  def from_data(data, state, batch, schedule):
    return step(jax.random.wrap_key_data(data), state, batch, schedule)

  specs = jax.tree.map(_spec, chain_axes, is_leaf=lambda axis: axis is None)
  inputs = (_REPLICATED, specs, _SPLIT, _REPLICATED)
  mapped = jax.shard_map(
    from_data,
    mesh=mesh,
    in_specs=inputs,
    out_specs=(specs, _REPLICATED),
    # The step averages gradients itself, as under pmap.
    check_vma=False,
  )
  shardings = jax.tree.map(
    lambda spec: NamedSharding(mesh, spec),
    (inputs, (specs, _REPLICATED)),
    is_leaf=lambda spec: isinstance(spec, PartitionSpec),
  )
  return jax.jit(
    mapped,
    in_shardings=shardings[0],
    out_shardings=shardings[1],
    donate_argnums=1,
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


def _placed(x, sharding):
  """An array on all devices, of which each process has the whole or its part.

  Unlike `device_put`, it does not compare the array between processes.
  """
  if isinstance(x, jax.Array) and x.sharding == sharding:
    return x
  if jax.process_count() == 1:
    return jax.device_put(x, sharding)
  return jax.make_array_from_callback(
    np.shape(x), sharding, lambda index: np.asarray(x[index])
  )


def _place(mesh, chain_axes, state):
  return _map_axes(
    lambda axis, leaf: _placed(leaf, NamedSharding(mesh, _spec(axis))),
    chain_axes,
    state,
  )


def _init(mesh, chain_axes):
  """Makes `Parallel.init`: each device draws its own chains."""

  def init(function, key, params, chains=None):
    def strong(data, params):
      state = function(jax.random.wrap_key_data(data), params)
      # Strongly typed, as a restored state is, or the step would be compiled
      # again.
      return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)

    data = np.asarray(jax.random.key_data(key))
    params = jax.tree.map(np.asarray, params)
    shapes = jax.eval_shape(strong, data, params)
    shardings = _map_axes(
      lambda axis, leaf: NamedSharding(mesh, _spec(axis)), chain_axes, shapes
    )
    state = jax.jit(strong, out_shardings=shardings)(data, params)
    if chains is None:
      return state
    positions = state.memory.positions
    memory = state.memory._replace(
      positions=jax.make_array_from_callback(
        positions.shape, positions.sharding, lambda index: chains(index[1])
      )
    )
    return state._replace(memory=memory)

  return init


def _own(axis, leaf):
  """What this process has of an array, on its host."""
  if not isinstance(leaf, jax.Array):
    return leaf
  if axis is None or leaf.is_fully_addressable:
    return leaf.addressable_data(0) if axis is None else np.asarray(leaf)
  parts = {
    shard.index[axis].start or 0: shard for shard in leaf.addressable_shards
  }
  return np.concatenate(
    [np.asarray(parts[first].data) for first in sorted(parts)], axis
  )


def _arguments(key, schedule):
  """A key and a schedule as any process gives them to a step."""
  data = np.asarray(jax.random.key_data(key))
  return data, jax.tree.map(np.asarray, schedule)


def _shard_map(step, chain_axes, devices):
  mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
  mapped = map_step(step, chain_axes, mesh)

  def call(key, state, batch, schedule):
    data, schedule = _arguments(key, schedule)
    return mapped(data, state, batch, schedule)

  def lower(key, state, batch, schedule):
    data, schedule = _arguments(key, schedule)
    return mapped.lower(data, state, batch, schedule)

  def like(shapes):
    return _map_axes(
      lambda axis, x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=NamedSharding(mesh, _spec(axis))
      ),
      chain_axes,
      shapes,
    )

  split = NamedSharding(mesh, _SPLIT)
  return Parallel(
    step=call,
    init=_init(mesh, chain_axes),
    put=lambda state: _place(mesh, chain_axes, state),
    get=lambda state: state,
    like=like,
    local=lambda state: _map_axes(_own, chain_axes, state),
    batch=lambda batch: jax.tree.map(
      lambda x: jax.make_array_from_process_local_data(split, np.asarray(x)),
      batch,
    ),
    lower=lower,
  )


def _pmap(step, chain_axes, devices):
  n = len(devices)
  mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
  begin = _init(mesh, chain_axes)

  def divided(shape, axis):
    return (*shape[:axis], n, shape[axis] // n, *shape[axis + 1 :])

  def put(state):
    def leaf(axis, x):
      return x if axis is None else x.reshape(divided(x.shape, axis))

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
    init=lambda *args: put(begin(*args)),
    put=put,
    get=get,
    like=lambda shapes: jax.tree.map(
      lambda x: np.empty(x.shape, x.dtype), shapes
    ),
    local=lambda state: state,
    batch=lambda batch: jax.tree.map(
      lambda x: x.reshape(divided(x.shape, 0)), batch
    ),
    lower=mapped.lower,
  )
