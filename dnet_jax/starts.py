"""Starts: where chains begin, and the directions in which they may move.

A `Start` is a position and a projection, and perhaps a Gaussian around the
position. The makers below are the starts of the paper's algorithms;
`chains.run_chains` moves one.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnet_jax import energy
from dnet_jax import grids
from dnet_jax import kernels
from dnet_jax import pca
from dnet_jax import projections
from dnet_jax import types


class Start(NamedTuple):
  """Where chains begin, and the directions in which they may move.

  Attributes:
    position: `(*chains, ...)`.
    project: the directions in which they may move.
    anchor_std: standard deviation of a Gaussian around the position; it
      multiplies the density that they sample from. None or infinite: no
      Gaussian.
  """

  position: types.Array
  project: types.Projection
  anchor_std: float | types.Array | None = None


def energy_of(start: Start, energy_fn: types.EnergyFn) -> types.EnergyFn:
  """The energy of chains that begin there: with the Gaussian around the start.

  >>> start = from_data(jnp.zeros((1, 2, 1, 1, 1)))._replace(anchor_std=0.5)
  >>> energy_of(start, lambda y: y.sum((-4, -3, -2, -1)))(
  ...   jnp.ones((1, 2, 1, 1, 1))).tolist()
  [6.0]
  """
  if start.anchor_std is None:
    return energy_fn
  return energy.anchored_energy(energy_fn, start.position, start.anchor_std)


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
  key, index = kernels.as_key(key), jnp.arange(num_chains)
  if axis_name is not None:
    index = index + jax.lax.axis_index(axis_name) * num_chains
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def from_noise(
  keys: types.Key, shape: Sequence[int], std: float | types.Array = 1.0
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
  return Start(std * kernels.normal(keys, shape), projections.free())


def from_components(
  keys: types.Key,
  components: pca.Components,
  std: float | types.Array = 0.05,
  spread: float | types.Array = 0.6,
  first: types.Array | None = None,
) -> Start:
  """Draws of `pca.draw`, free to move, from which chains reach a new shape.

  Args:
    keys: `(chains,)`, of `chain_keys`.
    components: of the data, at least two shapes.
    std: of white noise on top.
    spread: of the Gaussian around a shape, in standard deviations of the data.
    first: the index of the first shape of each draw, `(chains,)`; see
      `pca.without_repeats`.

  >>> components = pca.Components(
  ...   jnp.zeros((4, 4, 4, 1)), jnp.ones((2, 4, 4, 4, 1)),
  ...   jnp.eye(2), neighbours=1)
  >>> keys = chain_keys(jax.random.key(0), 3)
  >>> from_components(keys, components).position.shape
  (3, 4, 4, 4, 1)
  """
  position = pca.draw(keys, components, std, spread, first)
  return Start(position, projections.free())


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
  anchor_std: float | types.Array | None = None,
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
    anchor_std: standard deviation of a Gaussian around the start; see `Start`.

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
  )._replace(anchor_std=anchor_std)
  if hold:
    return start, lambda y_syn: y_syn
  free = start._replace(project=projections.free())
  return free, lambda y_syn: jnp.where(visible, y, y_syn)


def from_low_resolution(
  y_low: types.Array,
  factor: int,
  guess: Callable[[types.Array], types.Array] | None = None,
  anchor_std: float | types.Array | None = None,
) -> Start:
  """`C^- Y_low`, or a guess, whose block averages are held: Algorithm 5.

  Args:
    y_low: shapes `(*chains, D, H, W, C)`.
    factor: ratio d of the sides of the high and the low resolution.
    guess: a function from the low to the high resolution; None: `C^-`. Its
      block averages are corrected to `y_low`: what they miss is interpolated,
      and what is then missing is added to whole blocks.
    anchor_std: standard deviation of a Gaussian around the start; see `Start`.

  >>> from_low_resolution(jnp.ones((1, 2, 2, 2, 1)), 2).position.shape
  (1, 4, 4, 4, 1)
  """
  if guess is None:
    y = grids.upscale(y_low, factor)
  else:
    y = grids.with_averages(guess(y_low), factor, y_low)
  return Start(y, projections.fixed_average(factor), anchor_std)


def from_coarse(
  y_coarse: types.Array,
  factor: int,
  enlarge: Callable[[types.Array, int], types.Array] = grids.upscale,
) -> Start:
  """The upscaled sample of the next coarser grid, free to move: Algorithm 2.

  Args:
    y_coarse: shapes `(*chains, D, H, W, C)`.
    factor: ratio of the sides of the finer and the coarser grid.
    enlarge: `(y_coarse, factor) -> y`: whole blocks, as in section 4.2, or
      `trilinear`.

  >>> from_coarse(jnp.ones((1, 1, 1, 1, 1)), 4).position.shape
  (1, 4, 4, 4, 1)
  """
  return Start(enlarge(y_coarse, factor), projections.free())
