"""Block averages of voxel grids: `C`, its pseudo-inverse `C^-`, and pyramids.

Sections 4.2 and 6.3 of the paper. Both maps act on the last four axes of
`(*chains, D, H, W, C)` and leave chains and channels alone.
"""

from collections.abc import Sequence

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
