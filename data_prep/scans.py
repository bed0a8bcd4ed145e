"""What a scan says of a grid: which voxels are full, and which are empty.

A scan is a cloud of points or an open mesh: the surface as far as it was seen.
A voxel that holds some of it is full. Where the camera was known, what lies
between it and the surface is empty. Nothing is known of all other voxels.
"""

import numpy as np
import trimesh

from data_prep import surface

_STEP = 0.5  # of a voxel, along a ray.
# So near in front of a point a voxel may hold other parts of the surface.
_NEAR = 1.0
_LOOKED_UP = 1 << 22  # at a time, which bounds the memory.


def full_voxels(points: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
  """The voxels that hold some of a scan.

  Args:
    points: `(n, 3)` in the grid.
    faces: indices `(m, 3)` of the corners of triangles; none of a cloud.
    size: voxels a side; what lies beyond the grid is left out.

  Returns:
    bool `(size, size, size)`.

  >>> cloud = np.array([[0.5, 0.5, 0.5], [3.5, 0.5, 0.5], [9.0, 0.5, 0.5]])
  >>> np.argwhere(full_voxels(cloud, np.empty((0, 3), int), 4)).tolist()
  [[0, 0, 0], [3, 0, 0]]
  """
  if not len(faces):
    grid = np.zeros((size, size, size), bool)
    index = np.floor(points).astype(np.int64)
    grid[tuple(index[((index >= 0) & (index < size)).all(axis=1)].T)] = True
    return grid
  return surface.surface_voxels(points[faces], size)


def cropped(
  points: np.ndarray, faces: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """What of a scan lies in a box; triangles are cut at its sides.

  Args:
    points: `(n, 3)`.
    faces: `(m, 3)`, none of a cloud.
    low: lower corner of the box, `(3,)`.
    high: upper corner.

  Returns:
    Points and faces.
  """
  if not len(faces):
    inside = ((points >= low) & (points <= high)).all(axis=1)
    return points[inside], faces
  for axis in range(3):
    for side, sign in ((low, 1.0), (high, -1.0)):
      if not len(faces):
        return points[:0], faces
      points, faces, *_ = trimesh.intersections.slice_faces_plane(
        points, faces, sign * np.eye(3)[axis], np.eye(3)[axis] * side[axis]
      )
  return points, faces


def free_voxels(
  points: np.ndarray,
  faces: np.ndarray,
  full: np.ndarray,
  camera: np.ndarray,
) -> np.ndarray:
  """The voxels between a camera and what it saw.

  Those that a straight line from the camera to a point of the scan passes
  through, but not next to the point, nor behind a full voxel.

  Args:
    points: `(n, 3)` in the grid.
    faces: `(m, 3)`, none of a cloud.
    full: bool `(size, size, size)`, the voxels of the scan.
    camera: `(3,)` in the grid; it may be outside of it.

  Returns:
    bool, like `full`.

  >>> full = np.zeros((6, 1, 1), bool)
  >>> full[4] = True
  >>> free_voxels(np.array([[4.5, 0.5, 0.5]]), np.empty((0, 3), int), full,
  ...             np.array([-9.0, 0.5, 0.5])).ravel().tolist()
  [True, True, True, True, False, False]
  """
  points = _dense(points, faces)
  rays = camera - points
  length = np.linalg.norm(rays, axis=1)
  points, rays, length = (a[length > _NEAR] for a in (points, rays, length))
  rays = rays / length[:, None]
  sides = np.array(full.shape)
  # No longer than through the grid, from a point in it.
  steps = np.arange(_STEP, np.linalg.norm(sides) + _STEP, _STEP)
  free = np.zeros(full.size, bool)
  count = max(1, _LOOKED_UP // len(steps))
  for start in range(0, len(points), count):
    some = slice(start, start + count)
    at = points[some, None] + rays[some, None] * steps[:, None]
    index = np.floor(at).astype(np.int64)
    there = ((index >= 0) & (index < sides)).all(axis=-1)
    there &= steps < length[some, None]
    index = np.where(there[..., None], index, 0)
    index = np.ravel_multi_index(tuple(np.moveaxis(index, -1, 0)), full.shape)
    hit = full.ravel()[index] & there
    # Whether anything is hit between here and the camera.
    behind = np.logical_or.accumulate(hit[:, ::-1], axis=1)[:, ::-1]
    free[index[there & ~behind & (steps > _NEAR)]] = True
  return free.reshape(full.shape) & ~full


def _dense(points, faces):
  """Points of a scan, none of which is far from the next: two in a voxel."""
  if len(faces):
    points, _ = trimesh.remesh.subdivide_to_size(
      points, faces, max_edge=_STEP, max_iter=20
    )
  _, first = np.unique(
    np.floor(points / _STEP).astype(np.int64), axis=0, return_index=True
  )
  return points[first]
