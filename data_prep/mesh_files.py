"""Files of shapes: where they are, what they are called, what is in them.

Finds files in folders and zip files, takes class, split and name from the tree
they lie in, and reads meshes in the formats OFF, OBJ, PLY and STL. trimesh does
the reading; what it would let pass (files that end early) is refused before.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import io
import itertools
import os
import pathlib
import re
from typing import NamedTuple
import warnings
import zipfile
import zlib

import numpy as np
import trimesh

FILE_TYPES = ('off', 'obj', 'ply', 'stl')
# What reading a broken file, or a broken member of a zip file, raises;
# RuntimeError where a member is encrypted.
READ_ERRORS = (
  ValueError,
  OSError,
  EOFError,
  RuntimeError,
  zipfile.BadZipFile,
  zlib.error,
)
_SPLITS = ('train', 'test', 'val', 'valid', 'validation')


class ShapeFile(NamedTuple):
  """Where a shape is and what it is called.

  Attributes:
    class_name: its class.
    split: its split, such as `train`.
    name: its name, unique in class and split.
    path: the file, or the zip file that holds it.
    member: its name in the zip file, empty when `path` is the file itself.
    num_bytes: its length.
  """

  class_name: str
  split: str
  name: str
  path: str
  member: str
  num_bytes: int


def find_shapes(
  path: str | os.PathLike,
  split: str = 'train',
  file_types: Sequence[str] = FILE_TYPES,
) -> list[ShapeFile]:
  """Lists the shapes of a zip file, a folder or a single file.

  Class, split and name come from the tree `class/split/name.off`. A shape whose
  folder is not named train, test, val, valid or validation gets the split
  `split` and, as its class, the name of its folder. A folder whose name is a
  number to 999, as in `chair/30/train`, is the size of a grid and no class.

  Args:
    path: the zip file, folder or single file.
    split: for shapes without one.
    file_types: endings of the files to list.

  Returns:
    The shapes, sorted by class, split and name.

  Raises:
    FileNotFoundError: when there is no `path`.
    ValueError: when it holds no shapes, or two of the same name.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    root = path.resolve()
    files = [
      (file, file.relative_to(root), '', file.stat().st_size)
      for file in root.rglob('*')
      if file.is_file()
    ]
  elif not path.is_file():
    raise FileNotFoundError(f'no shapes at {path}: it does not exist')
  elif zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
      files = [
        (
          path.resolve(),
          pathlib.PurePosixPath(info.filename),
          info.filename,
          info.file_size,
        )
        for info in archive.infolist()
        if not info.is_dir()
      ]
  else:
    full = path.resolve()
    files = [(full, pathlib.Path(full.name), '', full.stat().st_size)]
  meshes = []
  for source, below, member, num_bytes in files:
    if below.suffix.lower()[1:] not in file_types or any(
      part.startswith(('.', '__MACOSX')) for part in below.parts
    ):
      continue
    folders = (path.stem, *below.parts[:-1]) if member else source.parts[1:-1]
    folders = folders or ('meshes',)
    part = split
    if folders[-1].lower() in _SPLITS and len(folders) > 1:
      folders, part = folders[:-1], folders[-1].lower()
    if re.fullmatch(r'\d{1,3}', folders[-1]) and len(folders) > 1:
      folders = folders[:-1]
    meshes.append(
      ShapeFile(folders[-1], part, below.stem, str(source), member, num_bytes)
    )
  if not meshes:
    raise ValueError(
      f'no shapes in {path}: looked for .{", .".join(file_types)}'
    )
  meshes.sort()
  for one, other in itertools.pairwise(meshes):
    if one[:3] == other[:3]:
      raise ValueError(
        f'two shapes are called {"/".join(one[:3])}: '
        f'{one.member or one.path} and {other.member or other.path}'
      )
  return meshes


@contextlib.contextmanager
def open_shapes(shapes: Sequence[ShapeFile]) -> Iterator[Callable]:
  """Opens the zip files of shapes; gives `read(shape) -> bytes`."""
  with contextlib.ExitStack() as stack:
    archives = {
      path: stack.enter_context(zipfile.ZipFile(path))
      for path in {shape.path for shape in shapes if shape.member}
    }

    def read(shape: ShapeFile) -> bytes:
      if shape.member:
        return archives[shape.path].read(shape.member)
      return pathlib.Path(shape.path).read_bytes()

    yield read


def file_type(shape: ShapeFile) -> str:
  """The ending of a file that `find_shapes` lists, in small letters."""
  return pathlib.PurePath(shape.member or shape.path).suffix.lower()[1:]


def read_mesh(data: bytes, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """Reads a triangle mesh; polygons are cut into triangles.

  Args:
    data: the content of the file.
    kind: one of `FILE_TYPES`.

  Returns:
    Corners, float64 `(v, 3)`, and triangles, indices `(m, 3)`.

  Raises:
    ValueError: with the reason, when the mesh cannot be read.

  >>> vertices, faces = read_mesh(
  ...   b'OFF3 1 0 0 0 0 1 0 0 0 1 0 3 0 1 2', 'off')
  >>> faces.tolist()
  [[0, 1, 2]]
  """
  if kind not in FILE_TYPES:
    raise ValueError(
      f'unknown mesh type {kind!r}, must be one of {list(FILE_TYPES)}'
    )
  if kind == 'off':
    mesh = _read_plain_off(data)
    if mesh is not None:
      return mesh
    _check_off(data)
  elif kind == 'ply':
    _check_ply(data)
  elif kind == 'stl':
    _check_stl(data)
  if kind in ('off', 'obj'):  # comments and names may be in any encoding.
    data = data.decode('utf-8', 'replace').encode()
  try:
    mesh = trimesh.load(
      io.BytesIO(data),
      file_type=kind,
      process=False,
      **({'skip_materials': True} if kind == 'obj' else {}),
    )
    if isinstance(mesh, trimesh.Scene):
      mesh = mesh.to_mesh()
    faces = np.asarray(getattr(mesh, 'faces', ()))
    vertices = np.asarray(getattr(mesh, 'vertices', ()), dtype=np.float64)
  except Exception as error:  # whatever a broken file sets off in a reader.
    raise ValueError(
      f'not a readable {kind} mesh: {type(error).__name__}: {error}'
    ) from error
  if not faces.size:
    raise ValueError('no faces')
  return vertices, faces


def _read_plain_off(data: bytes) -> tuple[np.ndarray, np.ndarray] | None:
  """Reads OFF of triangles and nothing else, some five times trimesh's speed.

  None where the file is anything more, or broken.
  """
  head = re.match(rb'\s*OFF', data)
  if not head or b'#' in data:
    return None
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('error')  # text that is no number is a warning.
      numbers = np.fromstring(data[head.end() :], sep=' ')
  except (DeprecationWarning, ValueError):
    return None
  if numbers.size < 3 or not np.isfinite(numbers[:3]).all():
    return None
  v, m = int(numbers[0]), int(numbers[1])
  if v < 0 or m <= 0 or numbers.size != 3 + 3 * v + 4 * m:
    return None
  faces = numbers[3 + 3 * v :].reshape(m, 4)
  if (faces[:, 0] != 3).any() or not np.isfinite(faces).all():
    return None
  return numbers[3 : 3 + 3 * v].reshape(v, 3), faces[:, 1:].astype(np.int64)


def _check_off(data: bytes) -> None:
  """Raises ValueError for an OFF file that is not whole.

  trimesh takes a file that ends early for one with fewer faces.
  """
  lines = [line.split(b'#')[0].split() for line in data.splitlines()]
  lines = [line for line in lines if line]
  if not lines:
    raise ValueError('empty file')
  head = re.match(rb'(?:ST)?(?:C)?(?:N)?OFF', lines[0][0])
  if not head:
    raise ValueError(
      f'not an OFF file: it begins with {lines[0][0][:20].decode("latin-1")!r}'
    )
  glued = lines[0][0][head.end() :]
  lines[0] = ([glued] if glued else []) + lines[0][1:]
  lines = lines if lines[0] else lines[1:]
  try:
    v, m = int(lines[0][0]), int(lines[0][1])
  except (IndexError, ValueError):
    raise ValueError('no counts of vertices and faces in its header') from None
  if m <= 0:
    raise ValueError('no faces')
  rows = lines[1:]
  if len(rows) < v + m:
    raise ValueError(
      f'truncated: {v} vertices and {m} faces promised, but only '
      f'{len(rows)} lines follow'
    )
  for i, row in enumerate(rows[:v]):
    if len(row) < 3:
      raise ValueError(f'truncated: vertex {i} has {len(row)} coordinates')
  for i, row in enumerate(rows[v : v + m]):
    if not row[0].isdigit() or len(row) < 1 + int(row[0]):
      raise ValueError(
        f'truncated: face {i} is {b" ".join(row)[:40].decode("latin-1")!r}'
      )


def _check_ply(data: bytes) -> None:
  """Raises ValueError for a PLY text that ends early, like `_check_off`."""
  head, end, body = data.partition(b'end_header')
  if not end:
    raise ValueError('truncated: its header has no end')
  if b'format ascii' not in head:
    return  # trimesh compares the length.
  promised = sum(map(int, re.findall(rb'element\s+\S+\s+(\d+)', head)))
  found = sum(1 for line in body.splitlines() if line.strip())
  if found < promised:
    raise ValueError(
      f'truncated: {promised} lines promised, but only {found} follow'
    )


def _check_stl(data: bytes) -> None:
  """Raises ValueError for an STL file that ends early."""
  count = int.from_bytes(data[80:84], 'little') if len(data) >= 84 else 0
  if len(data) >= 84 and len(data) == 84 + 50 * count:
    return
  if re.match(rb'\s*solid', data):
    if b'endsolid' not in data:
      raise ValueError('truncated: it has no endsolid')
  elif len(data) < 84 + 50 * count or len(data) < 84:
    raise ValueError(
      f'truncated: {84 + 50 * count} bytes promised for {count} triangles, '
      f'but it has {len(data)}'
    )
