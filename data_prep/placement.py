"""Where a shape lies in a grid: from its own coordinates to voxels and back.

Points of a grid are in units of voxels, voxel (i, j, k) being the box from
(i, j, k) to (i + 1, j + 1, k + 1); axes are x, y, z with z up.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

from data_prep import mesh_files

_MANY = 100  # least number of points of which 1 in 100 may be stray at each end
_STRAY = 0.1  # if the others lie within this share of the bounding box.
_SPIKE = 0.03  # The same for a mesh, of which up to _CORNERS may be stray.
_CORNERS = 3
_LOOK = 1000  # points in a first check.
_GAP = 0.8  # of the bounding box, between two parts of a mesh.


class Placement(NamedTuple):
  """How the points of a shape become points of a grid.

  Attributes:
    centre: the point of the shape that is the middle of the grid, `(3,)`.
    scale: voxels for a unit of length.
    up: the axis of the shape that becomes z.
    turn: degrees by which it is turned then, about z, from x to y.
    size: voxels a side.
  """

  centre: np.ndarray
  scale: float
  up: str
  turn: float
  size: int


def place(
  points: np.ndarray,
  size: int,
  margin: int,
  *,
  up: str = 'z',
  turn: float = 0.0,
) -> Placement:
  """The placement in which the bounding box of points fills the grid.

  The longest side of the box fills `size - 2 * margin` voxels, less a
  billionth, so that its two ends lie inside the first and the last of them; the
  box is centred.

  Args:
    points: `(n, 3)` finite numbers, n at least 1.
    size: voxels a side.
    margin: voxels left empty on every side.
    up: the axis of the shape that becomes z.
    turn: degrees, see `Placement`.

  Raises:
    ValueError: when all points coincide.

  >>> box = np.array([[0.0, 0.0, 0.0], [2.0, 1.0, 1.0]])
  >>> placement = place(box, 12, 1)
  >>> to_grid(placement, box).round(6).tolist()
  [[1.0, 3.5, 3.5], [11.0, 8.5, 8.5]]
  """
  low, high = points.min(axis=0), points.max(axis=0)
  centre = (low + high) / 2
  if turn:
    # The box of the turned points, whose middle is turned back.
    turned = _turned(points - centre, up, turn)
    low, high = turned.min(axis=0), turned.max(axis=0)
    centre = centre + _turned_back((low + high)[None] / 2, up, turn)[0]
  extent = (high - low).max()
  if not extent > np.abs(points).max() * 1e-12:
    raise ValueError(f'zero extent: all corners are at {low.tolist()}')
  scale = (size - 2 * margin) * (1 - 1e-9) / extent
  return Placement(centre, scale, up, turn, size)


def normalise(
  vertices: np.ndarray,
  faces: np.ndarray,
  size: int,
  *,
  margin: int | None = None,
  up: str = 'z',
) -> np.ndarray:
  """Triangles in voxel units, their bounding box centred in the grid.

  The longest side of the bounding box of the triangles fills
  `size - 2 * margin` voxels, less a billionth, so that its two ends lie inside
  the first and the last of them. Arguments and errors are those of `voxelize`.

  Returns:
    float64 `(m, 3, 3)`: triangle, corner, coordinate.
  """
  margin = default_margin(size) if margin is None else margin
  check_grid(size, margin)
  vertices, faces, corners = checked(vertices, faces)
  return to_grid(place(corners, size, margin, up=up), vertices)[faces]


def checked(
  vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """A triangle mesh as arrays, and those of its vertices that have faces.

  Raises:
    ValueError: when the mesh is broken.
  """
  vertices = np.asarray(vertices, dtype=np.float64)
  faces = np.asarray(faces)
  if vertices.ndim != 2 or vertices.shape[1] != 3:
    raise ValueError(f'vertices must be (v, 3), got {vertices.shape}')
  if not faces.size:
    raise ValueError('no faces')
  if faces.ndim != 2 or faces.shape[1] != 3:
    raise ValueError(f'faces must be (m, 3), got {faces.shape}')
  if faces.min() < 0 or faces.max() >= len(vertices):
    bad = faces[(faces < 0) | (faces >= len(vertices))][0]
    raise ValueError(
      f'face index {bad} out of range: there are {len(vertices)} vertices'
    )
  used = np.zeros(len(vertices), dtype=bool)
  used[faces] = True
  corners = vertices[used]
  if not np.isfinite(corners).all():
    bad = corners[~np.isfinite(corners)][0]
    raise ValueError(f'a vertex coordinate is {bad}')
  return vertices, faces, corners


def stray(points: np.ndarray, faces: np.ndarray | None = None) -> str:
  """Finds stray points, far from a shape, that make it tiny in its box.

  Args:
    points: `(n, 3)` finite numbers.
    faces: `(m, 3)` into them; None: a cloud of points.

  Returns:
    '', or a part of a sentence that names one of the stray points. A cloud has
    stray points if all but one in a hundred at each end lie within a tenth of
    the bounding box. A mesh has some if a gap of four fifths of the box is
    empty, or if it has a hundred corners or more of which all but three lie
    within 3 % of the box.

  >>> box = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
  >>> far = np.array([[50.0, 0, 0], [51, 0, 0], [50, 1, 0]])
  >>> faces = np.array([[0, 1, 2], [1, 2, 3], [4, 5, 6]])
  >>> stray(np.concatenate([box, far]), faces)
  'most of it is within 1, all within 51; [50.0, 0.0, 0.0] is far from the rest'
  """
  if faces is not None:
    used = np.zeros(len(points), bool)
    used[faces] = True
    corners = points[used]
    first, last = corners.min(axis=0), corners.max(axis=0)
    # Such a wide gap includes the middle, where most meshes have a corner.
    reach = _GAP * (last - first).max()
    middle = (corners < first + reach) & (corners > last - reach)
    axes = np.flatnonzero(~middle.any(axis=0))
    return (_stray_part(points[faces], axes) if axes.size else '') or _few_far(
      corners, _SPIKE, _CORNERS
    )
  return _few_far(points, _STRAY, len(points))


def _few_far(points, share, number) -> str:
  """As `stray`, where up to `number` points are far from the others."""
  if len(points) < _MANY:
    return ''
  whole = (points.max(axis=0) - points.min(axis=0)).max()
  # Some of the points are enough to decide for nearly all shapes.
  for some in (points[:: max(1, len(points) // _LOOK)], points):
    low, high = np.percentile(some, [1, 99], axis=0)
    most = (high - low).max()
    if most >= share * whole:
      return ''
  distances = np.abs(points - (low + high) / 2).max(axis=1)
  # Some formats repeat a corner for each of its faces.
  if len(np.unique(points[distances > most], axis=0)) > number:
    return ''
  far = points[distances.argmax()].tolist()
  return (
    f'most of its points are within {most:.3g}, all within {whole:.3g}; '
    f'{far} is far from the rest'
  )


def _stray_part(triangles, axes) -> str:
  """As `stray`, for a mesh in two parts along one of some axes."""
  low, high = triangles.min(axis=1), triangles.max(axis=1)
  whole = (high.max(axis=0) - low.min(axis=0)).max()
  for axis in axes:
    order = np.argsort(low[:, axis])
    until = np.maximum.accumulate(high[order, axis])
    gaps = low[order[1:], axis] - until[:-1]
    if not gaps.size or gaps.max() <= _GAP * whole:
      continue
    cut = gaps.argmax() + 1
    few, most = sorted(
      (triangles[order[:cut]], triangles[order[cut:]]), key=len
    )
    extent = np.ptp(most.reshape(-1, 3), axis=0).max()
    return (
      f'most of it is within {extent:.3g}, all within {whole:.3g}; '
      f'{few[0, 0].tolist()} is far from the rest'
    )
  return ''


def default_margin(size: int) -> int:
  """One voxel for each 32 of the side, at least one: 1 at 32, 2 at 64.

  >>> [default_margin(size) for size in (12, 30, 32, 64, 128)]
  [1, 1, 1, 2, 4]
  """
  return max(1, size // 32)


def check_grid(size: int, margin: int) -> None:
  """Raises ValueError when `size` or `margin` is out of range.

  >>> check_grid(32, 1)
  """
  if not 4 <= size <= 128:
    raise ValueError(f'size must be 4 to 128 voxels a side, got {size}')
  if not 0 <= margin <= (size - 2) // 2:
    raise ValueError(
      f'margin must be 0 to {(size - 2) // 2} voxels at size {size}, '
      f'got {margin}'
    )


def to_grid(placement: Placement, points: np.ndarray) -> np.ndarray:
  """Points of a shape, `(n, 3)`, in its grid."""
  moved = (points - placement.centre) * placement.scale
  return _turned(moved, placement.up, placement.turn) + placement.size / 2


def from_grid(placement: Placement, points: np.ndarray) -> np.ndarray:
  """The inverse of `to_grid`.

  >>> box = np.array([[5.0, 0.0, 0.0], [7.0, 1.0, 4.0]])
  >>> placement = place(box, 12, 1, up='y', turn=30.0)
  >>> from_grid(placement, to_grid(placement, box)).round(6).tolist()
  [[5.0, 0.0, 0.0], [7.0, 1.0, 4.0]]
  """
  moved = points - placement.size / 2
  moved = _turned_back(moved, placement.up, placement.turn)
  return moved / placement.scale + placement.centre


def matrix(placement: Placement) -> np.ndarray:
  """From the index of a voxel to its middle in the shape's coordinates, (4, 4).

  Of voxel (i, j, k) it is `(matrix @ (i, j, k, 1))[:3]`.

  >>> box = np.array([[0.0, 0.0, 0.0], [2.0, 1.0, 1.0]])
  >>> (matrix(place(box, 12, 1)) @ (1, 1, 1, 1)).round(6).tolist()
  [0.1, -0.4, -0.4, 1.0]
  """
  corners = from_grid(placement, np.eye(4)[:, :3] + 0.5)
  found = np.eye(4)
  found[:3, :3] = (corners[:3] - corners[3]).T
  found[:3, 3] = corners[3]
  return found


def of_matrix(matrix: Sequence) -> np.ndarray:
  """A matrix of a record as an array, checked: `(4, 4)` and invertible."""
  found = np.asarray(matrix, np.float64)
  if found.shape != (4, 4) or not abs(np.linalg.det(found)) > 0:
    raise ValueError(
      f'not an invertible transform (4, 4) of voxels: {found.tolist()}'
    )
  return found


def _turned(points, up, turn):
  points = mesh_files.turned(points, up)
  return points @ _rotation(turn).T if turn else points


def _turned_back(points, up, turn):
  points = points @ _rotation(turn) if turn else points
  # The rows of a rotation of the axes, when turned, give its inverse.
  return points @ mesh_files.turned(np.eye(3), up).T if up != 'z' else points


def _rotation(degrees):
  angle = math.radians(degrees)
  c, s = math.cos(angle), math.sin(angle)
  return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
