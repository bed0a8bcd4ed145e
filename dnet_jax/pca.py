"""Principal components of data, and the Gaussian fitted to the data.

Shapes lie near few directions of the space of voxels. Draws along these are
where chains begin (`draw`), and the Gaussian says what to expect where voxels
are hidden (`completed`) or averaged (`expected_details`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnet_jax import corruptions
from dnet_jax import grids
from dnet_jax import kernels
from dnet_jax import types


class Components(NamedTuple):
  """Principal components of data, and where the data lies along them.

  Attributes:
    mean: of the data, `(D, H, W, C)`.
    directions: orthonormal, `(k, D, H, W, C)`.
    coordinates: of n shapes along the directions, `(n, k)`; their mean is 0,
      and they are uncorrelated.
    neighbours: how many of the nearest shapes a draw may combine one with; of
      those with another box, where there are boxes.
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


def _deviations(components):
  """Standard deviations of the data along the directions, `(k,)`."""
  return jnp.sqrt(jnp.square(components.coordinates).mean(axis=0))


def draw(
  keys: types.Key,
  components: Components,
  std: float | types.Array = 0.05,
  spread: float | types.Array = 0.6,
  first: types.Array | None = None,
) -> types.Array:
  """Draws from two shapes of the data, near which there is a new one.

  `mean + sum_k (c_k + spread * s_k z_k) v_k`, plus white noise, with the
  standard deviations s of the data along the directions v. The second shape is
  one of the nearest neighbours of the first. Without boxes, the coordinates c
  are of a point between the two: a blend. With boxes they are of the first
  shape, which is then stretched along D, H and W towards the bounding box of
  the second one: a blend has parts of both, a stretched shape is whole. The
  second shape has another box then, and at least one face of the box moves: in
  its own box, the first shape would be a copy. Where all shapes have one box,
  nothing is stretched. A Gaussian alone combines parts that do not go together.

  Args:
    keys: `(n,)`, one for each draw.
    components: of the data, at least two shapes.
    std: of white noise on top.
    spread: of the Gaussian around the point, in standard deviations of the
      data. A smaller one gives shapes closer to copies, a larger one gives more
      broken shapes.
    first: the index of the first shape of each draw, `(n,)`, see
      `without_repeats`; None: each is drawn by itself, so that some are alike.

  Returns:
    `(n, D, H, W, C)`.

  >>> components = Components(
  ...   jnp.zeros((4, 4, 4, 1)), jnp.ones((2, 4, 4, 4, 1)),
  ...   jnp.eye(2), neighbours=1)
  >>> keys = jax.random.split(jax.random.key(0), 3)
  >>> draw(keys, components).shape
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
    # The nearest first; shapes that are not to be drawn last.
    apart = jnp.arange(count) != one
    if boxes is not None:
      apart &= (boxes != boxes[one]).any(axis=(1, 2))
    nearest = jnp.argsort(jnp.where(apart, distances, jnp.inf))
    most = jnp.maximum(apart.sum(), 1)
    limit = jnp.clip(components.neighbours, 1, most).astype(jnp.int32)
    other = nearest[jax.random.randint(key_other, (), 0, limit)]
    return one, other, jax.random.uniform(key_share, minval=near, maxval=far)

  one, other, share = jax.vmap(pair)(kernels.fold_in(keys, 2), first)
  place = coordinates[one]
  if boxes is None:
    place += share[:, None] * (coordinates[other] - place)
  z = kernels.normal(kernels.fold_in(keys, 0), (width,))
  offsets = jnp.einsum(
    'nk,k...->n...',
    place + spread * _deviations(components) * z,
    components.directions,
    precision='highest',
  )
  y = components.mean + offsets
  if boxes is not None:
    box = boxes[one]
    # Whole voxels, so that faces stay flat.
    new = jnp.floor(box + share[:, None, None] * (boxes[other] - box) + 0.5)
    same = (new == box).all(axis=(1, 2), keepdims=True)
    new = jnp.where(same, boxes[other], new)
    # Where the mean is least is outside.
    y = jax.vmap(grids.stretch, (0, 0, 0, None))(
      y, box, new, components.mean.min()
    )
  noise = kernels.normal(kernels.fold_in(keys, 1), components.mean.shape)
  return y + std * noise


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
  rows = components.directions.reshape(-1, mean.size)
  return mean, _deviations(components)[:, None] * rows


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
    found = grids.with_averages(
      expected_details(y_low, coarser, components, std), coarser, y_low
    )
    nothing = jnp.zeros_like(grids.upscale(found, finer))
    return grids.with_averages(nothing, finer, found)
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
