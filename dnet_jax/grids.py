"""Block averages of voxel grids: `C`, its pseudo-inverse `C^-`, and pyramids.

Sections 4.2 and 6.3 of the paper. Both maps act on the last four axes of
`(*chains, D, H, W, C)` and leave chains and channels alone.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp

from dnet_jax import types


def _blocks(y: types.Array, factor: int) -> types.Array:
  """Splits each side into (blocks, factor); checks that it can be done."""
  if y.ndim < 4:
    raise ValueError(
      f'expected an array (*chains, D, H, W, C), got shape {y.shape}'
    )
  *chains, d, h, w, c = y.shape
  if factor < 1 or d % factor or h % factor or w % factor:
    raise ValueError(
      f'factor {factor} must be positive and divide the sides of the grid '
      f'{(d, h, w)}'
    )
  k = factor
  return y.reshape(*chains, d // k, k, h // k, k, w // k, k, c)


def downscale(y: types.Array, factor: int) -> types.Array:
  """Averages blocks of `factor`^3 voxels: `Y_low = C Y` of section 6.3.

  Args:
    y: shapes `(*chains, D, H, W, C)`.
    factor: side d of a block; must divide D, H and W.

  Returns:
    Shapes `(*chains, D / d, H / d, W / d, C)`.

  Raises:
    ValueError: when a side is not divisible by `factor`.

  >>> downscale(jnp.arange(8.0).reshape(1, 2, 2, 2, 1), 2).item()
  3.5
  """
  return _blocks(y, factor).mean(axis=(-6, -4, -2))


def upscale(y_low: types.Array, factor: int) -> types.Array:
  """Repeats each voxel as a block of `factor`^3: `C^- Y_low` of section 6.3.

  The pseudo-inverse of `downscale`: `downscale(upscale(y, d), d) == y`.

  Args:
    y_low: shapes `(*chains, D, H, W, C)`.
    factor: side d of a block.

  Returns:
    Shapes `(*chains, D * d, H * d, W * d, C)`.

  Raises:
    ValueError: when `factor` is not positive.

  >>> upscale(jnp.ones((1, 2, 2, 2, 1)), 2).shape
  (1, 4, 4, 4, 1)
  """
  if factor < 1:
    raise ValueError(f'factor must be positive, got {factor}')
  for axis in (-4, -3, -2):
    y_low = jnp.repeat(y_low, factor, axis=axis)
  return y_low


def trilinear(y_low: types.Array, factor: int) -> types.Array:
  """Enlarges by linear interpolation between the centres of blocks.

  Beyond the outermost centres it is constant. Block averages are only near to
  those of `y_low`.

  Args:
    y_low: shapes `(*chains, D, H, W, C)`.
    factor: side d of a block.

  Returns:
    Shapes `(*chains, D * d, H * d, W * d, C)`.

  Raises:
    ValueError: when `factor` is not positive.

  >>> y = trilinear(jnp.array([0.0, 1.0]).reshape(1, 2, 1, 1, 1), 2)
  >>> y[0, :, 0, 0, 0].tolist()
  [0.0, 0.25, 0.75, 1.0]
  """
  if factor < 1:
    raise ValueError(f'factor must be positive, got {factor}')
  *chains, d, h, w, c = y_low.shape
  shape = (*chains, d * factor, h * factor, w * factor, c)
  return jax.image.resize(y_low, shape, 'linear')


_REACH = 4  # Voxels on each side that a blur averages over.


def blur(y: types.Array, std: float | types.Array) -> types.Array:
  """Averages with Gaussian weights along D, H and W; outside is as the border.

  Args:
    y: shapes `(*chains, D, H, W, C)`.
    std: of the Gaussian, in voxels, above 0 and at most about 2; it ends after
      4 voxels.

  >>> blur(jnp.ones((1, 2, 2, 2, 1)), 1.0).shape
  (1, 2, 2, 2, 1)
  """
  offsets = jnp.arange(-_REACH, _REACH + 1)
  weights = jnp.exp(-(offsets**2) / (2 * jnp.square(jnp.float32(std))))
  weights = weights / weights.sum()
  for axis in (-4, -3, -2):
    side = y.shape[axis]
    edges = [(0, 0)] * y.ndim
    edges[axis] = (_REACH, _REACH)
    padded = jnp.pad(y, edges, 'edge')
    terms = [
      weights[i] * jax.lax.slice_in_dim(padded, i, i + side, axis=axis % y.ndim)
      for i in range(len(offsets))
    ]
    y = functools.reduce(jnp.add, terms)
  return y


def fill_blocks(
  y: types.Array,
  y_low: types.Array,
  factor: int,
) -> types.Array:
  """Voxels of 0 and 1: in each block as many of 1 as its average says.

  The largest values of a block become 1; of equal ones the first.

  Args:
    y: shapes `(*chains, D, H, W, C)`.
    y_low: block averages `(*chains, D / d, H / d, W / d, C)`, which are rounded
      to whole voxels.
    factor: side d of a block.

  Raises:
    ValueError: when a side is not divisible by `factor`.

  >>> y = jnp.array([0.1, 0.4, 0.3, 0.2] + [0.0] * 4).reshape(1, 2, 2, 2, 1)
  >>> fill_blocks(y, jnp.full((1, 1, 1, 1, 1), 0.25), 2).ravel().tolist()
  [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
  """
  count = jnp.round(y_low * factor**3)
  blocks = jnp.moveaxis(_blocks(y, factor), (-6, -4, -2), (-3, -2, -1))
  flat = blocks.reshape(*blocks.shape[:-3], factor**3)
  ranks = jnp.argsort(jnp.argsort(-flat, axis=-1, stable=True), axis=-1)
  blocks = (ranks < count[..., None]).astype(y.dtype).reshape(blocks.shape)
  return jnp.moveaxis(blocks, (-3, -2, -1), (-6, -4, -2)).reshape(y.shape)


def sharpen(
  y: types.Array,
  y_low: types.Array,
  factor: int,
  *,
  num_steps: int,
  std: float | types.Array = 1.0,
) -> types.Array:
  """Voxels of 0 and 1 that have small surfaces, and block averages `y_low`.

  Each step blurs, and fills each block with as many voxels as its average says.
  Without blocks that is threshold dynamics, which makes surfaces smaller
  (Merriman, Bence and Osher, 1992); a volume can be kept so (Ruuth and Wetton,
  2003), and here that of each block is.

  Args:
    y: where it begins, `(*chains, D, H, W, C)`, in [0, 1].
    y_low: block averages, as for `fill_blocks`.
    factor: side d of a block.
    num_steps: at least 1.
    std: of the blur, see `blur`.

  >>> y_low = jnp.full((1, 1, 1, 1, 1), 0.5)
  >>> sharpen(upscale(y_low, 2), y_low, 2, num_steps=3).sum().item()
  4.0
  """

  def step(_, y):
    return fill_blocks(blur(y, std), y_low, factor)

  return jax.lax.fori_loop(0, num_steps, step, y)


def pyramid(y: types.Array, factors: Sequence[int]) -> tuple[types.Array, ...]:
  """The multi-grid versions `Y^(0), ..., Y^(S)` of section 4.2, coarse first.

  Args:
    y: shapes `(*chains, D, H, W, C)`, the finest grid `Y^(S)`.
    factors: ratios of side between neighbouring grids, coarse first.

  Returns:
    `len(factors) + 1` arrays; the last is `y` itself.

  Raises:
    ValueError: when a side is not divisible by the product of `factors`.

  >>> [g.shape[1] for g in pyramid(jnp.ones((1, 8, 8, 8, 1)), (4, 2))]
  [1, 4, 8]
  """
  grids = [y]
  for factor in reversed(tuple(factors)):
    grids.append(downscale(grids[-1], factor))
  return tuple(reversed(grids))
