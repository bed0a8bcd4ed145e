"""Which voxels hold a point of a triangle.

A voxel is a box that includes its lower faces and not its upper ones. Triangles
are clipped to the slabs of the grid, which is exact: walls and legs thinner
than a voxel are kept whole, and a plane in the middle of a voxel is one voxel
thick.
"""

import numpy as np

# How much is worked on at a time, which bounds the memory.
_TRIANGLES = 1 << 16
_COLUMNS = 1 << 14  # clipped polygons.


def surface_voxels(triangles: np.ndarray, size: int) -> np.ndarray:
  """Voxels that hold a point of a triangle.

  Voxel (i, j, k) is the box from (i, j, k), included, to (i + 1, j + 1, k + 1),
  excluded. Each triangle is clipped to the slabs of its shortest axis, the
  resulting polygons to the slabs of the next axis; the remaining part in a
  column of voxels covers a run of them along the longest axis.

  Args:
    triangles: `(m, 3, 3)` triangle, corner, coordinate, in voxel units.
    size: voxels a side; what lies beyond is left out.

  Returns:
    bool `(size, size, size)`.

  >>> corner = np.array([[[0.5, 0.5, 0.5], [2.4, 0.5, 0.5], [0.5, 2.4, 0.5]]])
  >>> surface_voxels(corner, 4)[:, :, 0].astype(int)
  array([[1, 1, 1, 0],
         [1, 1, 0, 0],
         [1, 0, 0, 0],
         [0, 0, 0, 0]])
  """
  grid = np.zeros((size, size, size), dtype=bool)
  for start in range(0, len(triangles), _TRIANGLES):
    _mark_triangles(grid, triangles[start : start + _TRIANGLES])
  return grid


def _voxel(coordinates: np.ndarray, size: int) -> np.ndarray:
  """Index of the voxel that holds a coordinate, kept inside the grid."""
  index = np.floor(coordinates).astype(np.int64)
  return np.clip(index, 0, size - 1, out=index)


def _boxes(triangles, size) -> tuple[np.ndarray, np.ndarray]:
  """The first and last voxel of each triangle's bounding box, `(m, 3)`."""
  a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
  return (
    _voxel(np.minimum(np.minimum(a, b), c), size),
    _voxel(np.maximum(np.maximum(a, b), c), size),
  )


def _repeat(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Rows and offsets of `counts[r]` copies of each row r."""
  rows = np.repeat(np.arange(counts.size), counts)
  first = np.cumsum(counts) - counts
  return rows, np.arange(rows.size) - first[rows]


def _mark(grid, low, order, shift0, shift1, shift2, length) -> None:
  """Marks runs of `length + 1` voxels along the last axis of `order`.

  A run starts at voxel `low` shifted by `shift0`, `shift1` and `shift2` along
  the three axes of `order`.
  """
  size = grid.shape[0]
  stride = np.array([size * size, size, 1])
  along = stride[order]
  start = (
    low @ stride
    + along[:, 0] * shift0
    + along[:, 1] * shift1
    + along[:, 2] * shift2
  )
  rows, offset = _repeat(length + 1)
  grid.reshape(-1)[start[rows] + along[rows, 2] * offset] = True


def _mark_triangles(grid, triangles) -> None:
  """Marks the voxels of triangles, most of which lie in a single one."""
  size = grid.shape[0]
  low, high = _boxes(triangles, size)
  span = high - low
  order = np.argsort(span, axis=1, kind='stable')
  span = np.take_along_axis(span, order, axis=1)
  # Within a single row of voxels there is nothing to clip.
  row = span[:, 1] == 0
  _mark(grid, low[row], order[row], 0, 0, 0, span[row, 2])
  rest = np.flatnonzero(~row)
  columns = np.cumsum((span[rest, 0] + 1) * (span[rest, 1] + 1))
  cuts = np.searchsorted(
    columns, np.arange(_COLUMNS, columns[-1] if rest.size else 0, _COLUMNS)
  )
  for part in np.split(rest, np.unique(cuts)):
    if part.size:
      _mark_clipped(grid, triangles[part], order[part])


def _mark_clipped(grid, triangles, order) -> None:
  """Marks the voxels of triangles that cross more than a row of voxels."""
  size = grid.shape[0]
  corners = np.take_along_axis(triangles, order[:, None, :], axis=2)
  low, high = _boxes(corners, size)
  # Slabs of the shortest axis.
  rows, offset = _repeat(high[:, 0] - low[:, 0] + 1)
  slab = low[rows, 0] + offset
  polygon, triangle = _polygon(*_clip(corners[rows], slab)), rows
  # Slabs of the next: columns.
  low1 = _voxel(polygon[..., 0].min(axis=1), size)
  high1 = _voxel(polygon[..., 0].max(axis=1), size)
  rows, offset = _repeat(high1 - low1 + 1)
  column = low1[rows] + offset
  edges, inside = _clip(polygon[rows], column)
  edges, outside = edges[..., 0], ~inside[..., None]
  # Runs of the longest.
  start = _voxel(np.where(outside, np.inf, edges).min(axis=(1, 2)), size)
  stop = _voxel(np.where(outside, -np.inf, edges).max(axis=(1, 2)), size)
  _mark(
    grid,
    np.zeros((rows.size, 3), np.int64),
    order[triangle[rows]],
    slab[rows],
    column,
    start,
    stop - start,
  )


def _clip(polygons, slab) -> tuple[np.ndarray, np.ndarray]:
  """Clips the edges of convex polygons to the slabs `slab <= x <= slab + 1`.

  Args:
    polygons: `(n, e, c)` corners in order; corners may repeat; x comes first.
    slab: `(n,)`; each polygon must reach its slab.

  Returns:
    `(n, e, 2, c - 1)`: both ends of what is left of each edge, without their x;
    and bool `(n, e)`, whether anything is.
  """
  a, b = polygons, np.roll(polygons, -1, axis=1)
  x, y, slab = a[..., 0], b[..., 0], slab[:, None]
  # From the ends themselves: fractions are rounded.
  inside = (np.maximum(x, y) >= slab) & (np.minimum(x, y) <= slab + 1)
  level = x == y
  inverse = 1 / np.where(level, 1, y - x)
  s, t = (slab - x) * inverse, (slab + 1 - x) * inverse
  # An edge is in the slab for s <= fraction of its length <= t.
  s, t = np.minimum(s, t), np.maximum(s, t)
  s = np.where(level, 0, np.clip(s, 0, 1))
  t = np.where(level, 1, np.clip(t, 0, 1))
  ends = np.stack([s, t], axis=2)[..., None]
  start, stop = a[:, :, None, 1:], b[:, :, None, 1:]
  points = np.where(ends == 1, stop, start + ends * (stop - start))
  return points, inside


def _polygon(points, inside) -> np.ndarray:
  """The corners, in order, of polygons whose edges `_clip` cut: `(n, 2 e, c)`.

  An edge outside the slab gives way to the end of the last edge inside it.
  """
  edges = inside.shape[1]
  back = (np.arange(edges)[:, None] - np.arange(edges)) % edges
  source = np.where(inside[:, None, :], back, edges).argmin(axis=2)
  last = np.take_along_axis(points, source[..., None, None], axis=1)[:, :, 1:]
  corners = np.where(inside[..., None, None], points, last)
  return corners.reshape(len(points), 2 * edges, -1)
