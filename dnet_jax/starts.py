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

from dnet_jax import corruptions
from dnet_jax import energy
from dnet_jax import grids
from dnet_jax import kernels
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


class Components(NamedTuple):
  """Principal components of data, and where the data lies along them.

  Attributes:
    mean: of the data, `(D, H, W, C)`.
    directions: orthonormal, `(k, D, H, W, C)`.
    coordinates: of n shapes along the directions, `(n, k)`; their mean is 0,
      and they are uncorrelated.
    neighbours: how many of the nearest shapes a draw may combine one with.
    boxes: of each shape its bounding box, `(n, 3, 2)`, as of
      `grids.bounding_boxes`: a draw is one shape in the proportions of another.
      None: a draw is a blend of two.
  """

  mean: types.Array
  directions: types.Array
  coordinates: types.Array
  neighbours: float | types.Array
  boxes: types.Array | None = None


# How far a draw is on the way from one shape to another. A blend that is near
# to either is a copy of it; a stretched shape never becomes the other.
_BLENDED = (0.3, 0.7)
_STRETCHED = (0.3, 1.0)


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
  noise = jax.vmap(lambda key: jax.random.normal(key, tuple(shape)))(keys)
  return Start(std * noise, projections.free())


def from_components(
  keys: types.Key,
  components: Components,
  std: float | types.Array = 0.05,
  spread: float | types.Array = 0.6,
  first: types.Array | None = None,
) -> Start:
  """Draws from two shapes of the data, from which chains reach a new one.

  `mean + sum_k (c_k + spread * s_k z_k) v_k`, plus white noise, with the
  standard deviations s of the data along the directions v. The second shape is
  one of the nearest neighbours of the first. Without boxes, the coordinates c
  are of a point between the two: a blend. With boxes they are of the first
  shape, which is then stretched along D, H and W towards the bounding box of
  the second one: a blend has parts of both, a stretched shape is whole. A
  Gaussian alone combines parts that do not go together.

  Args:
    keys: `(chains,)`, of `chain_keys`.
    components: of the data, at least two shapes.
    std: of white noise on top.
    spread: of the Gaussian around the point, in standard deviations of the
      data. A smaller one gives shapes closer to copies, a larger one gives more
      broken shapes.
    first: the index of the first shape of each draw, `(chains,)`, see
      `without_repeats`; None: each is drawn by itself, so that some are alike.

  >>> components = Components(
  ...   jnp.zeros((4, 4, 4, 1)), jnp.ones((2, 4, 4, 4, 1)),
  ...   jnp.eye(2), neighbours=1)
  >>> keys = chain_keys(jax.random.key(0), 3)
  >>> from_components(keys, components).position.shape
  (3, 4, 4, 4, 1)
  """
  coordinates, boxes = components.coordinates, components.boxes
  count, width = coordinates.shape
  near, far = _BLENDED if boxes is None else _STRETCHED

  def pair(key, one):
    key_one, key_other, key_share = jax.random.split(key, 3)
    if one is None:
      one = jax.random.randint(key_one, (), 0, count)
    distances = jnp.square(coordinates - coordinates[one]).sum(axis=1)
    nearest = jnp.argsort(distances.at[one].set(jnp.inf))
    limit = jnp.clip(components.neighbours, 1, count - 1).astype(jnp.int32)
    other = nearest[jax.random.randint(key_other, (), 0, limit)]
    return one, other, jax.random.uniform(key_share, minval=near, maxval=far)

  one, other, share = jax.vmap(pair)(kernels.fold_in(keys, 2), first)
  place = coordinates[one]
  if boxes is None:
    place += share[:, None] * (coordinates[other] - place)
  z = from_noise(kernels.fold_in(keys, 0), (width,)).position
  deviations = jnp.sqrt(jnp.square(coordinates).mean(axis=0))
  offsets = jnp.einsum(
    'nk,k...->n...',
    place + spread * deviations * z,
    components.directions,
    precision='highest',
  )
  y = components.mean + offsets
  if boxes is not None:
    box = boxes[one]
    new = box + share[:, None, None] * (boxes[other] - box)
    # Whole voxels, so that faces stay flat. Where the mean is least is outside.
    y = jax.vmap(grids.stretch, (0, 0, 0, None))(
      y, box, jnp.floor(new + 0.5), components.mean.min()
    )
  noise = from_noise(
    kernels.fold_in(keys, 1), components.mean.shape, std
  ).position
  return Start(y + noise, projections.free())


def without_repeats(key: types.Key, count: int, num_draws: int) -> types.Array:
  """Indices in a random order, none twice before all were drawn once.

  Shapes that are drawn independently repeat: of 100 draws of 200 shapes, four
  in ten have a double. What begins at the same shape ends alike.

  Args:
    key: consumed.
    count: indices are below it.
    num_draws: how many; draw i does not depend on it.

  Returns:
    `(num_draws,)` integers.

  Raises:
    ValueError: when `count` is below 1.

  >>> drawn = without_repeats(jax.random.key(0), 3, 6)
  >>> sorted(drawn[:3].tolist()), drawn[3:].tolist() == drawn[:3].tolist()
  ([0, 1, 2], True)
  """
  if count < 1:
    raise ValueError(f'count must be at least 1, got {count}')
  order = jax.random.permutation(kernels.as_key(key), count)
  return order[jnp.arange(num_draws) % count]


def _gaussian(components):
  """The mean, `(D H W C,)`, and the rows of A', `(k, D H W C)`."""
  mean = components.mean.ravel()
  deviations = jnp.sqrt(jnp.square(components.coordinates).mean(axis=0))
  rows = components.directions.reshape(-1, mean.size)
  return mean, deviations[:, None] * rows


def completed(
  y: types.Array,
  visible: types.Array,
  components: Components,
  std: float | types.Array,
  local_std: float | types.Array | None = None,
  noise: types.Array | None = None,
) -> types.Array:
  """What a Gaussian fitted to data expects, given the visible voxels.

  The Gaussian has the mean m of the data, and its covariance `A A'` along the
  directions. The result is `m + A z` with the z of the least `|z|^2 +
  |visible residual|^2 / std^2`: the posterior mean under y ~ N(m + A z, std^2
  I). Where much is hidden, it is nearer to a shape than an average is. What the
  components do not explain is then taken from the visible voxels nearby.

  Args:
    y: shapes `(*chains, D, H, W, C)`; only visible voxels are read.
    visible: boolean, broadcasts against y; True = observed.
    components: of the data.
    std: of a voxel, around what the components explain.
    local_std: standard deviation, in voxels, of the Gaussian of a local average
      of the visible residuals, which is added; None: nothing is added.
    noise: standard normal `(*chains, k)`, for a draw of z from its posterior in
      place of the mean; a multiple of it gives draws nearer to the mean.

  Returns:
    `(*chains, D, H, W, C)`, the visible voxels too.

  >>> components = Components(
  ...   jnp.zeros((1, 1, 2, 1)), jnp.full((1, 1, 1, 2, 1), 0.5**0.5),
  ...   jnp.array([[1.0], [-1.0]]), neighbours=1)
  >>> y, visible = jnp.ones((1, 1, 2, 1)), jnp.array([[True], [False]])
  >>> found = completed(y, visible, components, 0.1)
  >>> [round(float(x), 2) for x in found.ravel()]
  [0.98, 0.98]
  """
  shape = components.mean.shape
  mean, basis = _gaussian(components)
  variance = jnp.square(std)

  def one(chain):
    residual, seen, noise = chain
    rows = basis * seen
    products = jnp.matmul(rows, rows.T, precision='highest')
    products += variance * jnp.eye(len(rows))
    z = jnp.linalg.solve(
      products, jnp.matmul(rows, residual, precision='highest')
    )
    if noise is not None:
      # The posterior covariance of z is std^2 times the inverse of `products`.
      root = jnp.linalg.cholesky(products)
      z += std * jax.scipy.linalg.solve_triangular(root.T, noise)
    return mean + jnp.matmul(z, basis, precision='highest')

  seen = jnp.broadcast_to(visible, y.shape).reshape(-1, mean.size)
  residual = jnp.where(seen, y.reshape(-1, mean.size) - mean, 0)
  # One after the other: each takes as much memory as all components.
  if noise is not None:
    noise = noise.reshape(len(residual), -1)
  found = jax.lax.map(one, (residual, seen.astype(y.dtype), noise))
  found = found.reshape(*y.shape[: y.ndim - len(shape)], *shape)
  if local_std is None:
    return found
  return found + corruptions.local_average(y - found, visible, local_std, 0.0)


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


def expected_details(
  y_low: types.Array,
  factor: int,
  components: Components,
  std: float | types.Array,
) -> types.Array:
  """What a Gaussian fitted to data expects, given block averages.

  As `completed`, with averages in place of visible voxels: the posterior mean
  under `C y ~ N(C (m + A z), std^2 I)`.

  Args:
    y_low: shapes `(*chains, D / d, H / d, W / d, C)`.
    factor: ratio d of the sides of the high and the low resolution.
    components: of the data, or of its block averages on a grid in between. What
      is finer is then interpolated.
    std: of an average, around what the components explain.

  Returns:
    `(*chains, D, H, W, C)`; its block averages are near to `y_low`.

  >>> components = Components(
  ...   jnp.zeros((2, 2, 2, 1)), jnp.full((1, 2, 2, 2, 1), 0.125**0.5),
  ...   jnp.array([[4.0], [-4.0]]), neighbours=1)
  >>> found = expected_details(jnp.ones((1, 1, 1, 1)), 2, components, 0.1)
  >>> [round(float(x), 2) for x in found.ravel()[:2]]
  [1.0, 1.0]
  """
  shape = components.mean.shape
  finer = factor * y_low.shape[-2] // shape[-2]
  if finer > 1:
    coarser = factor // finer
    found = _held(
      y_low, coarser, expected_details(y_low, coarser, components, std)
    )
    return _held(found, finer, jnp.zeros_like(grids.upscale(found, finer)))
  mean, basis = _gaussian(components)
  rows = grids.downscale(basis.reshape(-1, *shape), factor)
  rows = rows.reshape(len(basis), -1)
  low = grids.downscale(components.mean, factor).ravel()
  products = jnp.matmul(rows, rows.T, precision='highest')
  products += jnp.square(std) * jnp.eye(len(rows))
  residual = y_low.reshape(-1, low.size) - low
  z = jnp.linalg.solve(
    products, jnp.matmul(rows, residual.T, precision='highest')
  )
  found = mean + jnp.matmul(z.T, basis, precision='highest')
  return found.reshape(*y_low.shape[: y_low.ndim - len(shape)], *shape)


def _held(y_low, factor, y):
  """Shapes with the block averages `y_low`, near to `y`.

  What `y` misses of them is interpolated, and what is then missing is added to
  whole blocks.
  """
  y += grids.trilinear(y_low - grids.downscale(y, factor), factor)
  return y + grids.upscale(y_low - grids.downscale(y, factor), factor)


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
    y = _held(y_low, factor, guess(y_low))
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
