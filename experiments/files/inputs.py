"""Shapes from outside: meshes, voxels and scans, from files and folders.

Voxels are `(D, H, W)` in [0, 1] here. Each shape comes with a matrix from the
indices of its voxels to the coordinates of its file, so that results can be
written in those coordinates.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import itertools
import os
from typing import NamedTuple

from absl import logging
import numpy as np

from data_prep import convert
from data_prep import grids
from data_prep import inside
from data_prep import mesh_files
from data_prep import placement
from data_prep import scans
from data_prep import surface
from data_prep import trees
from data_prep import volumes
from data_prep import voxel_file

TYPES = (*mesh_files.FILE_TYPES, 'npz', *volumes.FORMATS)
RESULT = 'voxels.npz'  # In the folders that this program writes.
_CLOSE = 1e-6  # Of a voxel, in rounding.
_NO_FACES = np.empty((0, 3), np.int64)


class Source(NamedTuple):
  """Where shapes from outside are, and how they are read.

  Attributes:
    path: a file of a kind in `TYPES`, also as .gz; a folder or zip file of
      them; a folder that this program wrote; or several, separated by commas.
    up: the axis of the shapes that becomes z; None: as the format has it, y in
      glTF, z in all others.
    turn: degrees by which shapes are then turned about z, from x to y.
    key: which array, if a file holds several.
    threshold: above which voxels are inside; None: see `grids.check_voxels`.
    scan: whether a mesh is a scan even where it is closed.
    camera: where scans were seen from, in their coordinates.
    box: lower and upper corner of the whole shape, in its coordinates, of which
      a scan may be a part; None: the bounding box of what is there.
  """

  path: str
  up: str | None = None
  turn: float = 0.0
  key: str | None = None
  threshold: float | None = None
  scan: bool = False
  camera: tuple[float, ...] | None = None
  box: tuple[float, ...] | None = None


class Shape(NamedTuple):
  """A shape from outside.

  Attributes:
    name: of its file, or in it.
    voxels: `(D, H, W)` float32.
    seen: where the voxels of a scan are known; None: everywhere.
    to_input: `(4, 4)`, from an index of `voxels` to the shape's coordinates.
    up: the axis of these coordinates that is z of the voxels.
  """

  name: str
  voxels: np.ndarray
  seen: np.ndarray | None
  to_input: np.ndarray
  up: str


class Shapes(NamedTuple):
  """Shapes from outside, on one grid.

  Attributes:
    names: one each.
    voxels: `(n, D, H, W)` float32.
    seen: see `Shape`, one each.
    to_input: `(n, 4, 4)`.
    ups: one each.
    skipped: name and reason of each that cannot be used.
  """

  names: tuple[str, ...]
  voxels: np.ndarray
  seen: tuple[np.ndarray | None, ...]
  to_input: np.ndarray
  ups: tuple[str, ...]
  skipped: tuple[tuple[str, str], ...]


class SkippedError(ValueError):
  """Some shapes were skipped; the results of the others are written."""


def stem(source: Source) -> str:
  """The name for the results of a source.

  >>> stem(Source('scans/chair.ply.gz')), stem(Source('a.off,b.off'))
  ('chair', 'a')
  """
  path = source.path
  if not os.path.lexists(path):
    path = path.partition(',')[0]
  name = os.path.basename(os.path.abspath(path))
  if os.path.isdir(path):
    return name
  return name.removesuffix('.gz').rpartition('.')[0] or name


def read(
  source: Source,
  grid: Sequence[int],
  *,
  limit: int | None = None,
  partial: bool = False,
  others: Sequence[Sequence[int]] = (),
) -> Shapes:
  """Reads shapes, and brings them into a grid.

  Args:
    source: where they are.
    grid: `(D, H, W)`. Smaller voxels are padded, larger ones scaled down by
      blocks.
    limit: how many, at most; a warning says that there are more.
    partial: whether scans are accepted; a part of a scan is hidden.
    others: grids whose voxels stay as they are, even if all are below 0.5.

  Raises:
    FileNotFoundError: when there is no such file.
    ValueError: when no shape of it can be used.

  >>> read(Source('chair.doc'), (32, 32, 32))
  Traceback (most recent call last):
  ...
  ValueError: chair.doc: must end in ...
  """
  others = tuple(map(tuple, others))
  if mesh_files.file_type(source.path) in mesh_files.FILE_TYPES:
    # A folder, or several files, may hold both.
    for flag in ('key', 'threshold'):
      if ',' not in source.path and getattr(source, flag) is not None:
        raise ValueError(
          f'--{flag} is for arrays of voxels, but {source.path} is a mesh'
        )
  shapes, skipped, more = [], [], False
  for entry in _entries(source, tuple(grid), partial, others):
    if isinstance(entry, Shape):
      more = limit is not None and len(shapes) == limit
      if more:
        break
      shapes.append(entry)
    else:
      skipped.append(entry)
  if not shapes:
    name, reason = skipped[0]
    several = f'; so are {len(skipped) - 1} others' if skipped[1:] else ''
    raise ValueError(f'{name}: {reason}{several}')
  if more:
    logging.warning(
      '%s holds more shapes; only the first %d are used (sample.num_samples).',
      source.path,
      limit,
    )
  found = {shape.voxels.shape: shape.name for shape in shapes}
  if len(found) > 1:
    raise ValueError(f'{source.path} has shapes of different grids: {found}')
  for shape in shapes:
    if shape.seen is not None:
      full = int((shape.voxels > 0.5).sum())
      logging.info(
        '%s is a scan: %d voxels full, %d empty, %d hidden.',
        shape.name,
        full,
        int(shape.seen.sum()) - full,
        int((~shape.seen).sum()),
      )
  return Shapes(
    tuple(shape.name for shape in shapes),
    np.stack([shape.voxels for shape in shapes]).astype(np.float32),
    tuple(shape.seen for shape in shapes),
    np.stack([shape.to_input for shape in shapes]),
    tuple(shape.up for shape in shapes),
    tuple(skipped),
  )


def finer(shapes: Shapes, factor: int) -> Shapes:
  """The shapes with `to_input` for voxels that are `factor` times finer."""
  matrix = np.diag([1 / factor, 1 / factor, 1 / factor, 1.0])
  matrix[:3, 3] = (1 / factor - 1) / 2
  return shapes._replace(to_input=shapes.to_input @ matrix)


def tell_skipped(shapes: Shapes) -> None:
  """Raises SkippedError, at the end of a mode, where shapes were skipped."""
  if shapes.skipped:
    name, reason = shapes.skipped[0]
    raise SkippedError(
      f'{len(shapes.skipped)} of {len(shapes.skipped) + len(shapes.names)} '
      f'shapes were skipped, such as {name}: {reason}; the others are written'
    )


def _entries(source, grid, partial, others):
  """Yields shapes; and of each that cannot be used its name and the reason."""
  path = source.path
  if ',' in path and not os.path.lexists(path):
    if '' in path.split(','):
      raise ValueError(f'--input={path}: a name is missing beside a comma')
    for one in path.split(','):
      yield from _entries(source._replace(path=one), grid, partial, others)
    return
  if os.path.isfile(os.path.join(path, RESULT)):
    path = os.path.join(path, RESULT)
  kind = mesh_files.file_type(path)
  if not os.path.isdir(path) and kind not in (*TYPES, 'zip'):
    raise ValueError(
      f'{path}: must end in .{", .".join(TYPES)}, or be a folder'
    )
  if not os.path.exists(path):
    raise FileNotFoundError(f'--input={path} does not exist')
  place = functools.partial(_voxels, source, grid, others)
  if kind == 'npz' and source.key is None and convert.is_voxel_file(path):
    try:
      stored = voxel_file.read(path)
    except ValueError as error:
      raise ValueError(f'{path}: {error}') from error
    for split, rows in stored.arrays.items():
      for row, name in zip(rows, stored.names[split], strict=True):
        voxels = voxel_file.unpack(row) if stored.packed else row
        if source.threshold is not None:
          voxels = (voxels > source.threshold).astype(np.uint8)
        yield from _tried(
          f'{path}: {name}', lambda v=voxels, n=name: [place(v, str(n))]
        )
    return
  found = trees.find(path, file_types=TYPES, same_names=True)
  if found.passed_over:
    logging.info('%s', trees.passed_over_line(found))
  single = len(found.shapes) == 1
  with trees.open_shapes(found.shapes) as content:
    for file in found.shapes:
      reading = functools.partial(
        _of_file, source, file, content, grid, partial, others, place
      )
      yield from _tried(path if single else f'{path}: {file.name}', reading)


def _tried(
  name: str, reading: Callable[[], Sequence[Shape]]
) -> Iterator[Shape | tuple[str, str]]:
  try:
    yield from reading()
  except mesh_files.READ_ERRORS as error:
    yield name, mesh_files.sentence(error)


def _of_file(
  source, file, content, grid, partial, others, place
) -> list[Shape]:
  """The shapes of a file."""
  kind, data = trees.file_type(file), content(file)
  if kind in mesh_files.FILE_TYPES:
    # In its own coordinates, z up or not.
    points, faces = mesh_files.read_any(
      data, kind, 'z', functools.partial(content, file)
    )
    up = source.up or mesh_files.up_axis(kind)
    return [_mesh(source, points, faces, up, grid, partial, file.name)]
  array = volumes.read(data, kind, source.key)
  up = source.up or 'z'
  if array.ndim == 2 and array.shape[1] == 3 and array.dtype.kind in 'iuf':
    points = array.astype(np.float64)
    return [_mesh(source, points, _NO_FACES, up, grid, partial, file.name)]
  batch = grids.check_voxels(array, source.threshold)
  if batch.shape[1:] in others:
    # Real values of our own coarse grids, a little beyond 0 and 1.
    real = array.reshape(batch.shape)
    batch = real if (np.clip(real, 0, 1) == batch).all() else batch
  own = volumes.transforms(data, kind, len(batch))
  names = [file.name]
  if len(batch) > 1:
    names = [f'{file.name}_{i:04d}' for i in range(len(batch))]
  return [place(*entry) for entry in zip(batch, names, own, strict=True)]


def _voxels(source, grid, others, voxels, name, own=None) -> Shape:
  """A shape that is given as voxels; `own` is where these lie."""
  for flag in ('scan', 'camera', 'box'):
    if getattr(source, flag):
      raise ValueError(
        f'--{flag} is for meshes and clouds of points, but this has voxels'
      )
  up, to_input = source.up or 'z', np.eye(4) if own is None else own
  to_input = to_input @ grids.up_matrix(voxels.shape, up)
  voxels = grids.turn_up(voxels, up)
  if source.turn % 90:
    raise ValueError(
      f'voxels can be turned by 90, 180 or 270 degrees, not by {source.turn:g}'
    )
  for _ in range(int(source.turn // 90) % 4):
    last = voxels.shape[1] - 1
    to_input = to_input @ np.array(
      [[0, 1, 0, 0], [-1, 0, 0, last], [0, 0, 1, 0], [0, 0, 0, 1]], np.float64
    )
    voxels = np.rot90(voxels, axes=(0, 1))
  if voxels.shape not in others:
    voxels, matrix, done = grids.fit(voxels, grid)
    to_input = to_input @ matrix
    if done:
      logging.info('%s is %s.', name, done)
    if not (voxels > 0.5).any():
      raise ValueError('it is empty: it has no voxel above 0.5')
  return Shape(name, voxels, None, to_input, up)


def _mesh(source, points, faces, up, grid, partial, name) -> Shape:
  """A shape that is given as a mesh, or as a cloud of points."""
  is_scan = not len(faces) or source.scan or source.camera is not None
  if len(faces):
    points, faces, corners = placement.checked(points, faces)
  else:
    # A scanner writes NaN where nothing came back.
    points = corners = points[np.isfinite(points).all(axis=1)]
  if not len(corners):
    raise ValueError('it has no points')
  wrong = placement.stray(points, faces if len(faces) else None)
  if wrong and source.box is None:
    raise ValueError(
      f'{wrong}: remove the stray points, or say with --box where the shape is'
    )
  size = min(grid)
  margin = placement.default_margin(size)
  placement.check_grid(size, margin)
  if source.box is not None:
    corners = _corners(source.box)
  placed = placement.place(corners, size, margin, up=up, turn=source.turn)
  in_grid = placement.to_grid(placed, points)
  if not is_scan and partial:
    # Whether it is open must not depend on how much of the grid it fills.
    own = placement.normalise(points, faces, size)
    is_scan = inside.is_open(own, (size,) * 3)
  if not is_scan:
    triangles = in_grid[faces]
    if source.box is not None and not _within(triangles, size):
      raise ValueError(
        f'it reaches beyond the box {source.box}; give a larger --box, or '
        '--scan, which takes only the part inside the box'
      )
    walls = surface.surface_voxels(triangles, size)
    solid, doubt = inside.fill(triangles, walls)
    is_scan = solid.sum() == walls.sum() and not _has_inside(triangles, size)
    if doubt and not is_scan:
      logging.warning('%s is doubtful: %s.', name, doubt)
  if is_scan and not partial:
    raise ValueError(
      'it has no inside, so it is a scan, and a part of the shape is hidden: '
      '--mode=recover completes it'
      if len(faces)
      else f'it is a cloud of {len(points)} points, and a part of the shape is '
      'hidden: --mode=recover completes it'
    )
  seen = None
  if is_scan:
    solid, seen = _scan(source, placed, points, in_grid, faces)
  voxels, matrix, _ = grids.fit(solid, grid)
  if seen is not None:
    seen = grids.fit(seen, grid)[0]
  return Shape(name, voxels, seen, placement.matrix(placed) @ matrix, up)


def _scan(source, placed, points, in_grid, faces):
  """Which voxels of a scan are full, and which are known."""
  size = placed.size
  low, high = np.zeros(3), np.full(3, float(size))
  if source.box is not None:
    ends = placement.to_grid(placed, _corners(source.box))
    low, high = ends.min(axis=0), ends.max(axis=0)
  in_grid, faces = scans.cropped(in_grid, faces, low - _CLOSE, high + _CLOSE)
  full = scans.full_voxels(in_grid, faces, size)
  if not full.any():
    raise ValueError(f'no part of it is in the box {source.box}')
  seen = full.copy()
  if source.camera is not None:
    camera = placement.to_grid(placed, np.array([source.camera]))[0]
    seen |= scans.free_voxels(in_grid, faces, full, camera)
  if source.box is not None:
    # Nothing of the shape is beyond its box.
    axis = np.arange(size)
    x, y, z = (
      (axis + 1 > a + _CLOSE) & (axis < b - _CLOSE)
      for a, b in zip(low, high, strict=True)
    )
    seen |= ~(x[:, None, None] & y[:, None] & z)
  return full, seen


def _corners(box: Sequence[float]) -> np.ndarray:
  return np.array([*itertools.product(*zip(box[:3], box[3:], strict=True))])


def _within(triangles, size) -> bool:
  return triangles.min() >= -_CLOSE and triangles.max() <= size + _CLOSE


def _has_inside(triangles, size) -> bool:
  """Whether a mesh that is thin on a coarse grid encloses voxels of 128^3."""
  triangles = triangles * (128 / size)
  walls = surface.surface_voxels(triangles, 128)
  return bool(inside.fill(triangles, walls)[0].sum() > walls.sum())
