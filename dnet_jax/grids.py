"""Voxel grids: block averages, pyramids, sharpening, and bounding boxes.

`C`, its pseudo-inverse `C^-` and pyramids are of sections 4.2 and 6.3 of the
paper. All act on the last four axes of `(*chains, D, H, W, C)` and leave chains
and channels alone; `stretch` takes one shape.
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


def with_averages(
  y: types.Array, factor: int, y_low: types.Array
) -> types.Array:
  """Shapes near to `y` whose block averages are `y_low`.

  What `y` misses of them is interpolated, and what is then missing is added to
  whole blocks.

  Args:
    y: shapes `(*chains, D, H, W, C)`.
    factor: side d of a block; must divide D, H and W.
    y_low: `(*chains, D / d, H / d, W / d, C)`.

  >>> y, y_low = jnp.zeros((1, 2, 2, 2, 1)), jnp.ones((1, 1, 1, 1, 1))
  >>> y = with_averages(y, 2, y_low)
  >>> float(y.min()), float(y.max())
  (1.0, 1.0)
  """
  y += trilinear(y_low - downscale(y, factor), factor)
  return y + upscale(y_low - downscale(y, factor), factor)


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


def bounding_boxes(y: types.Array, threshold: float = 0.5) -> types.Array:
  """First voxels above a threshold along D, H and W, and those past the last.

  Args:
    y: shapes `(*chains, D, H, W, C)`.
    threshold: voxels above it are inside.

  Returns:
    `(*chains, 3, 2)` float32; the whole grid for a shape without such a voxel.

  >>> y = jnp.zeros((1, 4, 4, 4, 1)).at[0, 1, 2:, 3].set(1.0)
  >>> bounding_boxes(y).tolist()
  [[[1.0, 2.0], [2.0, 4.0], [3.0, 4.0]]]
  """
  inside = (y > threshold).any(axis=-1)
  inside |= ~inside.any(axis=(-3, -2, -1), keepdims=True)
  ends = []
  for axis in (-3, -2, -1):
    others = tuple(x for x in (-3, -2, -1) if x != axis)
    along = inside.any(axis=others)
    first = along.argmax(axis=-1)
    past = along.shape[-1] - along[..., ::-1].argmax(axis=-1)
    ends.append(jnp.stack([first, past], axis=-1))
  return jnp.stack(ends, axis=-2).astype(jnp.float32)


def stretch(
  y: types.Array,
  box: types.Array,
  new_box: types.Array,
  outside: float | types.Array = 0.0,
) -> types.Array:
  """Moves and stretches a shape, so that one box becomes another.

  Each voxel takes the value of the one in which its centre was, so walls of one
  voxel neither blur nor vanish where a shape grows.

  Args:
    y: one shape, `(D, H, W, C)`.
    box: `(3, 2)`, of `bounding_boxes`.
    new_box: likewise; none of its sides may be 0.
    outside: the value of what comes from outside the grid.

  >>> y = jnp.array([0.0, 1.0, 2.0, 0.0]).reshape(4, 1, 1, 1)
  >>> whole = [[0, 1], [0, 1]]
  >>> stretch(y, jnp.array([[1, 3], *whole]), jnp.array([[0, 4], *whole]))[
  ...   :, 0, 0, 0].tolist()
  [1.0, 1.0, 2.0, 2.0]
  """
  for axis, (old, new) in enumerate(zip(box, new_box, strict=True)):
    side = y.shape[axis]
    ratio = (old[1] - old[0]) / (new[1] - new[0])
    at = jnp.floor(old[0] + (jnp.arange(side) + 0.5 - new[0]) * ratio)
    there = jnp.expand_dims(
      (at >= 0) & (at < side), [x for x in range(y.ndim) if x != axis]
    )
    moved = jnp.take(y, at.astype(jnp.int32), axis=axis, mode='clip')
    y = jnp.where(there, moved, outside)
  return y


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
