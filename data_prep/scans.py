"""What a scan says about a grid: which voxels are full, and which are empty.

A scan is a cloud of points or an open mesh: the part of the surface that was
seen. A voxel that holds some of it is full. If the camera is known, the voxels
between it and the surface are empty. Nothing is known about all other voxels.

    python -m data_prep.scans --furniture=chair --camera=-2,-3,2 --out=scan.ply

makes a scan to experiment with, of a mesh or of a piece of furniture: the part
that a camera sees, as an open mesh, or with `--cloud` as points.
"""

from collections.abc import Sequence
import pathlib

from absl import app
from absl import flags
import numpy as np
import trimesh

from data_prep import command
from data_prep import furniture
from data_prep import mesh_files
from data_prep import surface
from data_prep import voxel_file

_STEP = 0.5  # of a voxel, along a ray.
# This close in front of a point a voxel may hold other parts of the surface.
_NEAR = 1.0
_LOOKED_UP = 1 << 20  # points looked up at a time, which bounds the memory.
_TORN = 6.0  # pixels: corners farther apart have no triangle between them.


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
  """The part of a scan that lies in a box; triangles are cut at its sides.

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
  """The voxels between a camera and the surface that it saw.

  These are the voxels on a straight line from the camera to a point of the
  scan, except those next to the point and those behind a full voxel.

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
  # A ray from a point in the grid is no longer than the grid's diagonal.
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
  """Points spread densely over a scan: about two for each voxel side."""
  if len(faces):
    points, _ = trimesh.remesh.subdivide_to_size(
      points, faces, max_edge=_STEP, max_iter=20
    )
  _, first = np.unique(
    np.floor(points / _STEP).astype(np.int64), axis=0, return_index=True
  )
  return points[first]


def seen_by(
  points: np.ndarray, faces: np.ndarray, camera: np.ndarray, pixels: int = 64
) -> tuple[np.ndarray, np.ndarray]:
  """What a depth camera sees of a mesh.

  Args:
    points: `(n, 3)`, z up.
    faces: `(m, 3)`.
    camera: `(3,)`.
    pixels: a side of its picture, which the mesh fills.

  Returns:
    The points that it sees, and triangles between points of neighbouring
    pixels that lie near each other.

  Raises:
    ValueError: when the camera is within the bounding box.

  >>> box = trimesh.creation.box((1, 1, 1))
  >>> seen, _ = seen_by(box.vertices, box.faces, np.array([3.0, 0, 0]))
  >>> bool(np.allclose(seen[:, 0], 0.5))
  True
  """
  low, high = points.min(axis=0), points.max(axis=0)
  if ((camera >= low) & (camera <= high)).all():
    raise ValueError(
      f'the camera is at {camera.tolist()}, within the bounding box of the '
      f'mesh, {low.tolist()} to {high.tolist()}'
    )
  forward = (low + high) / 2 - camera
  forward /= np.linalg.norm(forward)
  right = np.cross(forward, [0, 0, 1])
  if np.linalg.norm(right) < 1e-6:
    right = np.array([1.0, 0, 0])
  right /= np.linalg.norm(right)
  above = np.cross(right, forward)
  # Wide enough that all corners are seen, except those beside the camera.
  depth = np.maximum((points - camera) @ forward, 1e-9)
  aside = np.abs((points - camera) @ np.stack([right, above]).T)
  half = min(2.0, (aside / depth[:, None]).max() * 1.02)
  steps = np.linspace(-half, half, pixels)
  rays = (
    forward + steps[:, None, None] * above + steps[None, :, None] * right
  ).reshape(-1, 3)
  found = camera + _depths(points[faces], camera, rays)[:, None] * rays
  there = np.isfinite(found).all(axis=1)
  grid = np.arange(pixels**2).reshape(pixels, pixels)
  a, b, c, d = (
    x.ravel()
    for x in (grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1])
  )
  triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
  triangles = triangles[there[triangles].all(axis=1)]
  edges = found[triangles] - found[np.roll(triangles, 1, axis=1)]
  apart = np.linalg.norm(edges, axis=2).max(axis=1)
  wide = np.linalg.norm(found[triangles[:, 0]] - camera, axis=1)
  triangles = triangles[apart < _TORN * wide * 2 * half / pixels]
  return found[there], (np.cumsum(there) - 1)[triangles]


def _depths(triangles, camera, rays):
  """The distance along each ray to a triangle, in lengths of the ray."""
  corner = triangles[:, 0]
  one, two = triangles[:, 1] - corner, triangles[:, 2] - corner
  away = camera - corner
  q = np.cross(away, one)
  found = np.full(len(rays), np.inf)
  count = max(1, _LOOKED_UP // (4 * len(triangles)))
  for start in range(0, len(rays), count):
    ray = rays[start : start + count, None]
    # Moeller and Trumbore: camera + t ray = corner + u one + v two.
    p = np.cross(ray, two)
    scale = (p * one).sum(axis=-1)
    with np.errstate(divide='ignore', invalid='ignore'):
      u = (p * away).sum(axis=-1) / scale
      v = (ray * q).sum(axis=-1) / scale
      t = (two * q).sum(axis=-1) / scale
      hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-9)
    found[start : start + count] = np.where(hit, t, np.inf).min(axis=1)
  return found


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_string('mesh', None, 'Mesh to scan.')
  flags.DEFINE_enum(
    'furniture', None, furniture.CATEGORIES, 'Or a piece of furniture to scan.'
  )
  flags.DEFINE_integer('seed', 0, 'Which piece of furniture.', lower_bound=0)
  flags.DEFINE_list('camera', None, 'Where the camera is: x,y,z.')
  flags.DEFINE_integer('pixels', 64, 'Pixels a side.', lower_bound=2)
  flags.DEFINE_bool('cloud', False, 'Points only, without triangles.')
  flags.DEFINE_string('out', None, 'File to write, .ply, .obj or .off.')
  flags.mark_flags_as_required(['camera', 'out'])


def main(argv: Sequence[str]) -> int:
  """The command; returns its exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  if (values.mesh is None) == (values.furniture is None):
    raise ValueError('give either --mesh or --furniture')
  try:
    camera = np.array([float(word) for word in values.camera])
  except ValueError:
    camera = np.empty(0)
  if camera.shape != (3,) or not np.isfinite(camera).all():
    raise ValueError(f'--camera must be x,y,z, got {",".join(values.camera)}')
  kind = mesh_files.file_type(values.out)
  if kind not in ('ply', 'obj', 'off') or (values.cloud and kind != 'ply'):
    raise ValueError(
      f'--out must end in .ply, or for a mesh in .obj or .off, got {values.out}'
    )
  voxel_file.refuse_existing(values.out)
  if values.furniture:
    rng = np.random.default_rng(values.seed)
    mesh = furniture.make_mesh(values.furniture, rng)
    points, faces = mesh.vertices, mesh.faces
  else:
    data = pathlib.Path(values.mesh).read_bytes()
    points, faces = mesh_files.read_mesh(
      data, mesh_files.file_type(values.mesh), 'z'
    )
  points, faces = seen_by(points, faces, camera, values.pixels)
  if not len(points):
    raise ValueError(f'nothing is seen from {camera.tolist()}')
  scan = trimesh.Trimesh(points, faces, process=False)
  if values.cloud:
    scan = trimesh.PointCloud(points)
  content = scan.export(file_type=kind)
  content = content.encode() if isinstance(content, str) else content
  with open(values.out, 'xb') as file:
    file.write(content)
  print(f'{values.out}: {len(points)} points')
  return 0


if __name__ == '__main__':
  command.run(main, define_flags)
