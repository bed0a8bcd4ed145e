"""Arrays of voxels: what values mean, which axis is up, and grids of a size."""

from collections.abc import Sequence

import numpy as np

# Results of a model have real values, which may be a little beyond 0 and 1.
_REAL = (-0.5, 1.5)
_POINTS = 16  # least number of points in a cloud.
_CHANNELS = 8  # largest number of channels in a one-hot array.
_NO_GRID = 'not a shape (D, H, W) or a batch (n, D, H, W)'


def resize(voxels: np.ndarray, size: int, *, lossy: bool = False) -> np.ndarray:
  """Brings a grid to a cube of another size, centred.

  Where `size` divides the longest side, blocks become voxels, see `blocks`.
  Otherwise empty voxels are added or cropped, without scaling. Where the
  difference is odd, the extra voxel is at the end. Padding and then cropping
  gives the shape back.

  Args:
    voxels: `(D, H, W)`.
    size: D, H and W of the result.
    lossy: whether to crop in any case, occupied voxels too.

  Returns:
    `(size, size, size)`.

  Raises:
    ValueError: when occupied voxels would be lost and `lossy` is not given.

  >>> resize(np.ones((30, 30, 30)), 32).shape
  (32, 32, 32)
  """
  if size < 1:
    raise ValueError(f'size must be positive, got {size}')
  longest = max(voxels.shape)
  if longest > size and longest % size == 0 and not lossy:
    return blocks(resize(voxels, longest), longest // size)
  inner = _centred(voxels, [min(n, size) for n in voxels.shape])
  lost = np.count_nonzero(voxels) - np.count_nonzero(inner)
  if lost and not lossy:
    raise ValueError(
      f'cropping {voxels.shape} to {size} would cut off {lost} occupied voxels '
      f'(--lossy allows it; {longest} is scaled down by blocks to a size that '
      'divides it)'
    )
  return _centred(inner, (size,) * 3)


def fit(
  voxels: np.ndarray, shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, str]:
  """Brings a whole shape into a grid: `resize` for grids that are not cubes.

  A larger shape is cropped where nothing is lost, and otherwise padded to a
  multiple of the grid and scaled down by blocks.

  Args:
    voxels: `(D, H, W)`.
    shape: of the result.

  Returns:
    The shape in its new grid; the matrix `(4, 4)` from the index of a voxel
    there to the index here; and what was done, or ''.

  >>> small, matrix, done = fit(np.ones((8, 8, 8)), (4, 4, 4))
  >>> small.sum().item(), (matrix @ (1, 1, 1, 1)).tolist(), done
  (64.0, [2.5, 2.5, 2.5, 1.0], 'scaled down by blocks of 2^3')
  """
  old, shape = voxels.shape, tuple(shape)
  factor = max(-(-n // side) for n, side in zip(old, shape, strict=True))
  done = ''
  if factor > 1 and any(n % side for n, side in zip(old, shape, strict=True)):
    inner = _centred(voxels, shape)
    if np.count_nonzero(inner) == np.count_nonzero(voxels):
      factor = 1
  if factor > 1:
    wide = tuple(factor * side for side in shape)
    done = f'scaled down by blocks of {factor}^3'
    found = voxels
    # One axis after the other, the longest first: a thin grid stays small.
    for axis in sorted(range(3), key=lambda i: -old[i]):
      padded, factors = list(found.shape), [1, 1, 1]
      padded[axis], factors[axis] = wide[axis], factor
      found = blocks(_centred(found, padded), *factors)
  else:
    wide, found = shape, _centred(voxels, shape)
  matrix = np.diag([factor, factor, factor, 1.0])
  for axis, (n, side) in enumerate(zip(old, wide, strict=True)):
    before = (side - n) // 2 if side >= n else -((n - side) // 2)
    matrix[axis, 3] = (factor - 1) / 2 - before
  return found, matrix, done


def _centred(voxels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """Crops and pads a grid; where the difference is odd, more at the end."""
  crop = tuple(
    slice(max(0, n - side) // 2, max(0, n - side) // 2 + min(n, side))
    for n, side in zip(voxels.shape, shape, strict=True)
  )
  inner = voxels[crop]
  before = [(side - n) // 2 for n, side in zip(inner.shape, shape, strict=True)]
  return np.pad(
    inner,
    [
      (b, side - n - b)
      for b, n, side in zip(before, inner.shape, shape, strict=True)
    ],
  )


def up_matrix(shape: Sequence[int], up: str) -> np.ndarray:
  """The matrix from the index of a voxel after `turn_up` to the one before.

  Args:
    shape: before.
    up: as for `turn_up`.

  >>> before = np.arange(24).reshape(2, 3, 4)
  >>> *index, _ = up_matrix(before.shape, 'y') @ (1, 2, 0, 1)
  >>> before[tuple(map(int, index))] == turn_up(before, 'y')[1, 2, 0]
  np.True_
  """
  last = shape[2] - 1
  if up == 'y':
    rows = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, last], [0, 0, 0, 1]]
  elif up == 'x':
    rows = [[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, last], [0, 0, 0, 1]]
  else:
    return np.eye(4)
  return np.array(rows, np.float64)


def blocks(voxels: np.ndarray, *factors: int) -> np.ndarray:
  """Scales down: each block becomes a voxel, as full as its fullest voxel.

  So thin parts are kept, as in `voxelize`, where a voxel is occupied if any
  part of a mesh lies in it.

  Args:
    voxels: `(D, H, W)`, sides divisible by `factors`.
    *factors: side of the blocks, or their three sides.

  >>> thin = np.zeros((8, 8, 8))
  >>> thin[3] = 1
  >>> blocks(thin, 4).sum(axis=(1, 2)).tolist()
  [4.0, 0.0]
  """
  a, b, c = factors if len(factors) == 3 else factors * 3
  d, h, w = voxels.shape
  parts = voxels.reshape(d // a, a, h // b, b, w // c, c)
  return parts.max(axis=(1, 3, 5))


def turn_up(voxels: np.ndarray, up: str) -> np.ndarray:
  """Turns a grid so that its axis `up` becomes z, as `voxelize` turns meshes.

  >>> turn_up(np.zeros((3, 4, 5)), 'y').shape
  (3, 5, 4)
  """
  if up == 'z':
    return voxels
  if up == 'y':
    return voxels.transpose(0, 2, 1)[:, ::-1, :]
  if up == 'x':
    return voxels.transpose(2, 1, 0)[::-1, :, :]
  raise ValueError(f"up must be 'x', 'y' or 'z', got {up!r}")


def check_voxels(
  voxels: np.ndarray, threshold: float | None = None
) -> np.ndarray:
  """Shapes `(n, D, H, W)` of an array of one or more, uint8 or float32.

  Args:
    voxels: `(D, H, W)` or `(n, D, H, W)`, also with a channel axis of length 1,
      last, or as the second of five.
    threshold: when given, voxels above it become 1, the others 0; None: values
      are in [0, 1], or all 0 or one other, or real ones that are cut to [0, 1].

  Raises:
    ValueError: for another shape or dtype, or other values.

  >>> check_voxels(np.ones((4, 4, 4))).shape
  (1, 4, 4, 4)
  >>> check_voxels(np.full((2, 1, 4, 4, 4), 130), threshold=127).sum().item()
  128
  """
  shape, is_cloud = voxels.shape, _is_cloud(voxels)
  if voxels.ndim == 5 and shape[1] == 1:
    voxels = voxels[:, 0]
  elif shape[-1:] == (1,) and (len(shape) == 5 or min(shape[:3]) > 1):
    voxels = voxels[..., 0]
  if voxels.ndim == 3:
    voxels = voxels[None]
  what = '' if voxels.ndim == 4 and voxels.size else _NO_GRID
  if len(shape) == 2 and shape[1] == 3:
    what = 'which are points, not voxels'
  elif threshold is None and is_cloud:
    what = 'which are clouds of points, not voxels: give one cloud, (n, 3)'
  elif len(shape) == 5 and voxels.ndim == 5:
    what = 'of several channels; give one channel, (n, 1, D, H, W)'
  elif (
    len(shape) == 4 and len({*shape[:3]}) == 1 and 1 < shape[3] <= 4 < shape[0]
  ):
    what = 'of several channels; give one channel, (D, H, W, 1)'
  elif len(shape) == 4 and any(_is_one_hot(voxels, axis) for axis in (0, 3)):
    what = 'which is one-hot; give one of its channels, (D, H, W)'
  if what:
    raise ValueError(f'it holds an array of shape {shape}, {what}')
  if voxels.dtype.kind not in 'buif':
    raise ValueError(f'it holds an array of {voxels.dtype}, not of numbers')
  if voxels.dtype.kind == 'f' and np.isnan(voxels).any():
    raise ValueError('it holds the value nan')
  if threshold is not None:
    return (voxels > threshold).astype(np.uint8)
  low, high = voxels.min(), voxels.max()
  if low == 0 and high > 1 and ((voxels == 0) | (voxels == high)).all():
    return (voxels == high).astype(np.uint8)  # such as 0 and 255.
  real = voxels.dtype.kind == 'f' and _REAL[0] <= low and high <= _REAL[1]
  if (low < 0 or high > 1) and not real:
    raise ValueError(
      f'it holds values from {low} to {high}: say with --threshold which '
      'are inside'
    )
  voxels = np.clip(voxels, 0, 1)
  if not ((voxels == 0) | (voxels == 1)).all():
    return voxels.astype(np.float32)
  return voxels.astype(np.uint8)


def _is_one_hot(voxels: np.ndarray, axis: int) -> bool:
  """Whether along a short axis one value is 1 everywhere and the others 0."""
  return (
    voxels.size > 0
    and voxels.dtype.kind in 'buif'
    and 1 < voxels.shape[axis] <= _CHANNELS
    and bool(((voxels == 0) | (voxels == 1)).all())
    and bool((voxels.sum(axis=axis) == 1).all())
  )


def _is_cloud(voxels: np.ndarray) -> bool:
  """Whether an array looks like clouds of points instead of shapes."""
  sides = voxels.shape[1:]
  return (
    len(sides) == 2
    and min(sides) == 3
    and max(sides) >= _POINTS
    and voxels.dtype.kind == 'f'
    and not ((voxels == 0) | (voxels == 1)).all()
  )
