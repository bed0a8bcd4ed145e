"""Grids that are not shapes of any class, which a classifier must reject.

A softmax over ten classes must choose one of them, even for noise. The
evaluation classifier has an eleventh class, 'none', that it learns from `SEEN`.
It never sees the kinds in `UNSEEN` in learning, so they test how well it
rejects. Each maker takes real shapes `(n, D, H, W)` and random numbers
and returns as many grids of 0 and 1.
"""

import numpy as np
from scipy import ndimage


def noise(shapes, rng):
  """Independent voxels, each grid with an occupancy of its own."""
  occupancy = rng.random((len(shapes), 1, 1, 1))
  return rng.random(shapes.shape) < occupancy


def constant(shapes, rng):
  """Empty or full grids."""
  return np.broadcast_to(rng.random((len(shapes), 1, 1, 1)) < 0.5, shapes.shape)


def boxes(shapes, rng):
  """One to five boxes anywhere."""
  result = np.zeros(shapes.shape, bool)
  for grid in result:
    for _ in range(rng.integers(1, 6)):
      low, high = np.sort(rng.integers(0, np.array(grid.shape) + 1, (2, 3)), 0)
      grid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
  return result


def shuffled_blocks(shapes, rng):
  """Real shapes, their blocks of a quarter of the side in another order."""
  n, *sides = shapes.shape
  parts = [4 if side % 4 == 0 else 1 for side in sides]
  a, b, c = (side // p for side, p in zip(sides, parts, strict=True))
  x = shapes.reshape(n, parts[0], a, parts[1], b, parts[2], c)
  x = x.transpose(0, 1, 3, 5, 2, 4, 6).reshape(n, np.prod(parts), a * b * c)
  order = rng.random(x.shape[:2]).argsort(axis=1)
  x = np.take_along_axis(x, order[..., None], axis=1)
  x = x.reshape(n, *parts, a, b, c).transpose(0, 1, 4, 2, 5, 3, 6)
  return x.reshape(shapes.shape)


def balls(shapes, rng):
  """One to four balls anywhere."""
  sides = np.array(shapes.shape[1:])
  grid = np.stack(np.indices(sides), -1)
  result = np.zeros(shapes.shape, bool)
  for shape in result:
    for _ in range(rng.integers(1, 5)):
      middle = rng.uniform(0, sides)
      radius = rng.uniform(0.08, 0.4) * sides.min()
      shape |= ((grid - middle) ** 2).sum(-1) < radius**2
  return result


def clouds(shapes, rng):
  """Smooth noise, thresholded at the occupancy of a real shape."""
  result = np.empty(shapes.shape, bool)
  for cloud, shape in zip(result, shapes, strict=True):
    smooth = ndimage.gaussian_filter(
      rng.normal(size=shape.shape), rng.uniform(1, 3), mode='wrap'
    )
    cloud[:] = smooth > np.quantile(smooth, 1 - (shape > 0.5).mean())
  return result


def inverted(shapes, rng):
  """Real shapes as cavities of a full grid."""
  del rng  # Nothing is random.
  return shapes <= 0.5


def shuffled_voxels(shapes, rng):
  """Real shapes, their voxels in another order."""
  rows = shapes.reshape(len(shapes), -1)
  return rng.permuted(rows, axis=1).reshape(shapes.shape)


SEEN = {
  'noise': noise,
  'constant': constant,
  'boxes': boxes,
  'shuffled blocks': shuffled_blocks,
}
UNSEEN = {
  'balls': balls,
  'clouds': clouds,
  'inverted': inverted,
  'shuffled voxels': shuffled_voxels,
}


def mixed(shapes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """As many grids as shapes, float32, of the kinds in `SEEN`.

  >>> mixed(np.ones((5, 8, 8, 8)), np.random.default_rng(0)).shape
  (5, 8, 8, 8)
  """
  kinds = list(SEEN.values())
  first = rng.integers(len(kinds))
  result = np.empty(shapes.shape, np.float32)
  for i in range(len(kinds)):
    some = slice(i, None, len(kinds))
    result[some] = kinds[(first + i) % len(kinds)](shapes[some], rng)
  return result
