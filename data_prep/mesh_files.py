"""Files of shapes: where they are, what they are called, what is in them.

Finds files in folders and zip files, takes class, split and name from the tree
they lie in, and reads meshes: OFF, OBJ, PLY, STL and glTF, and the clouds of
points of PLY and XYZ, also compressed by gzip (`x.off.gz`). `data_prep/readers`
has a reader for each.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import itertools
import lzma
import os
import pathlib
import posixpath
import re
from typing import NamedTuple
import zipfile
import zlib

import numpy as np

from data_prep.readers import gltf
from data_prep.readers import obj
from data_prep.readers import off
from data_prep.readers import ply
from data_prep.readers import stl
from data_prep.readers import xyz

_READERS = {
  'off': off.read,
  'obj': obj.read,
  'ply': ply.read,
  'stl': stl.read,
  'glb': gltf.read,
  'gltf': gltf.read,
  'xyz': xyz.read,
}
FILE_TYPES = tuple(_READERS)
# The axis that is up where a format says so.
_UP = {'glb': 'y', 'gltf': 'y'}
# What reading a broken file, or a broken member of a zip file, raises;
# RuntimeError where a member is encrypted, MemoryError where it is too large.
READ_ERRORS = (
  ValueError,
  OSError,
  EOFError,
  RuntimeError,
  MemoryError,
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
)
_SPLITS = ('train', 'test', 'val', 'valid', 'validation')
# Names that every shape of ShapeNet has; the folder says which one it is.
_SAME_NAMES = ('model', 'model_normalized', 'model_normalized.solid')
_MOST_BYTES = 2 << 30  # of an unpacked file.


class ShapeFile(NamedTuple):
  """Where a shape is and what it is called.

  Attributes:
    class_name: its class.
    split: its split, such as `train`.
    name: its name, unique in class and split.
    path: the file, or the zip file that holds it.
    member: its name in the zip file, empty when `path` is the file itself.
    num_bytes: its length.
    stamp: when it was changed, or its checksum in the zip file.
  """

  class_name: str
  split: str
  name: str
  path: str
  member: str
  num_bytes: int
  stamp: int = 0


class Found(NamedTuple):
  """What is in a zip file or a folder.

  Attributes:
    shapes: sorted by class, split and name.
    passed_over: how many other files there are of each ending.
  """

  shapes: list[ShapeFile]
  passed_over: Mapping[str, int]


def find_shapes(
  path: str | os.PathLike,
  split: str = 'train',
  file_types: Sequence[str] = FILE_TYPES,
  tree: str = '',
) -> list[ShapeFile]:
  """The shapes that `find` finds, without what was passed over."""
  return find(path, split, file_types, tree).shapes


def find(
  path: str | os.PathLike,
  split: str = 'train',
  file_types: Sequence[str] = FILE_TYPES,
  tree: str = '',
) -> Found:
  """Lists the shapes of a zip file, a folder or a single file.

  Class, split and name come from the tree: `class/split/name.off` as ModelNet
  has it; `class/name/model.obj`, `class/name/models/model_normalized.obj` and
  `class/name/model.binvox` as ShapeNetCore and ShapeNetVox32 have it. A shape
  whose folder is not named train, test, val, valid or validation gets the split
  `split` and, as its class, the name of its folder. A folder whose name is a
  number to 999, as in `chair/30/train`, is the size of a grid and no class.

  Args:
    path: the zip file, folder or single file.
    split: for shapes without one.
    file_types: endings of the files to list.
    tree: a pattern for another tree, such as `{class}/{name}/*.obj` or
      `{split}/{class}_{name}.ply`, of the ends of paths; what does not fit is
      passed over. `*` is anything in a name, `**` also in several.

  Returns:
    The shapes, and how many files of which ending are none.

  Raises:
    FileNotFoundError: when there is no `path`.
    ValueError: when it holds no shapes, or two of the same name, or the pattern
      is none.
  """
  path = pathlib.Path(path)
  pattern = _pattern(tree) if tree else None
  if path.is_dir():
    root = path.resolve()
    files = [
      (file, file.relative_to(root), '', file.stat())
      for file in sorted(root.rglob('*'))
      if file.is_file()
    ]
  elif not path.is_file():
    raise FileNotFoundError(f'no shapes at {path}: it does not exist')
  elif zipfile.is_zipfile(path) and path.suffix.lower() != '.npz':
    with zipfile.ZipFile(path) as archive:
      files = [
        (
          path.resolve(),
          pathlib.PurePosixPath(info.filename),
          info.filename,
          info,
        )
        for info in archive.infolist()
        if not info.is_dir()
      ]
  else:
    full = path.resolve()
    files = [(full, pathlib.Path(full.name), '', full.stat())]
  shapes, passed_over = [], collections.Counter()
  for source, below, member, facts in files:
    if any(part.startswith(('.', '__MACOSX')) for part in below.parts):
      continue
    folders = (path.stem, *below.parts[:-1]) if member else source.parts[1:-1]
    called = None
    if file_type(below) in file_types:
      if pattern is None:
        called = _called(folders, below, split)
      else:
        called = _called_by(pattern, folders, below, split)
    if called is None:
      ending = ''.join(below.suffixes[-2 if _is_packed(below) else -1 :])
      passed_over[ending or 'no ending'] += 1
      continue
    size, stamp = (
      (facts.file_size, facts.CRC)
      if member
      else (facts.st_size, facts.st_mtime_ns)
    )
    shapes.append(ShapeFile(*called, str(source), member, size, stamp))
  if not shapes:
    others = passed_over_line(Found([], dict(sorted(passed_over.items()))))
    fits = f' that fit {tree!r}' if tree else ''
    raise ValueError(
      f'no shapes in {path}: looked for .{", .".join(file_types)}{fits}'
      + (f'; {others}' if passed_over else '')
    )
  shapes.sort()
  for one, other in itertools.pairwise(shapes):
    if one[:3] == other[:3]:
      raise ValueError(
        f'two shapes are called {"/".join(one[:3])}: '
        f'{one.member or one.path} and {other.member or other.path}; a pattern '
        "such as --tree='{class}/{name}/*.obj' says what is the name"
      )
  return Found(shapes, dict(sorted(passed_over.items())))


def passed_over_line(found: Found) -> str:
  """What was passed over, in words.

  >>> passed_over_line(Found([], {'.fbx': 2, '.txt': 1}))
  'passed over: 2 .fbx, 1 .txt'
  """
  return 'passed over: ' + ', '.join(
    f'{n} {ending}' for ending, n in found.passed_over.items()
  )


def _is_packed(path: pathlib.PurePath) -> bool:
  return path.suffix.lower() == '.gz'


def _stem(path: pathlib.PurePath) -> str:
  """The name without its ending, nor that of gzip."""
  return pathlib.PurePath(path.stem).stem if _is_packed(path) else path.stem


def _called(folders, below, split: str) -> tuple[str, str, str] | None:
  """Class, split and name by the trees that are known; None to pass over."""
  name, inner = _stem(below), len(below.parts) - 1
  if name == 'model_normalized.surface':
    return None  # the solid one of the same shape lies beside it.
  if name in _SAME_NAMES:
    own = folders
    if own[-1:] == ('models',):
      own, inner = own[:-1], inner - 1
    known = inner > 0 or re.fullmatch(r'\d{8}', own[-2] if len(own) > 1 else '')
    if len(own) > 1 and known and own[-1].lower() not in _SPLITS:
      folders, name = own[:-1], own[-1]
  folders = folders or ('meshes',)
  if folders[-1].lower() in _SPLITS and len(folders) > 1:
    folders, split = folders[:-1], folders[-1].lower()
  if re.fullmatch(r'\d{1,3}', folders[-1]) and len(folders) > 1:
    folders = folders[:-1]
  return folders[-1], split, name


def _pattern(tree: str) -> str:
  """The regular expression that a pattern for paths stands for."""
  parts = {
    '{class}': r'(?P<class_name>[^/]+?)',
    '{split}': r'(?P<split>[^/]+?)',
    '{name}': r'(?P<name>[^/]+?)',
    '**': r'.*',
    '*': r'[^/]*',
  }
  words = re.split(r'(\{[^}]*\}|\*\*|\*)', tree.strip('/'))
  if words.count('{name}') != 1 or any(
    word[:1] == '{' and (word not in parts or words.count(word) > 1)
    for word in words
  ):
    raise ValueError(
      f'--tree={tree!r} must have {{name}}, and may have {{class}} and '
      "{split}, each once, as in '{class}/{name}/*.obj'"
    )
  return ''.join(parts.get(word) or re.escape(word) for word in words)


def _called_by(
  pattern: str, folders, below, split: str
) -> tuple[str, str, str] | None:
  """Class, split and name by a pattern; None where it does not fit."""
  # From the folder that was given on, or only the end of a path fits.
  match = re.fullmatch(pattern, below.as_posix()) or re.fullmatch(
    f'(?:.*/)?(?:{pattern})', '/'.join((*folders, below.name))
  )
  if not match:
    return None
  found = match.groupdict()
  class_name = found.get('class_name') or (folders or ('meshes',))[-1]
  return class_name, found.get('split', split), found['name']


@contextlib.contextmanager
def open_shapes(shapes: Sequence[ShapeFile]) -> Iterator[Callable]:
  """Opens the zip files of shapes; gives `read(shape) -> bytes`.

  `read(shape, name)` is the content of another file, by its name relative to
  that of the shape. It may not lie outside of the folder of the shape.
  """
  with contextlib.ExitStack() as stack:
    archives = {
      path: stack.enter_context(zipfile.ZipFile(path))
      for path in {shape.path for shape in shapes if shape.member}
    }

    def read(shape: ShapeFile, name: str = '') -> bytes:
      if name:
        name = posixpath.normpath(name)
        if name.startswith(('/', '..')) or ':' in name:
          raise ValueError(f'it needs {name!r}, which is not beside it')
      if not shape.member:
        path = pathlib.Path(shape.path)
        return (path.parent / name if name else path).read_bytes()
      member = shape.member
      if name:
        member = posixpath.join(posixpath.dirname(member), name)
        if member not in archives[shape.path].namelist():
          raise ValueError(f'it needs {name!r}, which is not beside it')
      size = archives[shape.path].getinfo(member).file_size
      check_size(size)
      return archives[shape.path].read(member)

    yield read


def check_size(size: int) -> None:
  """Raises ValueError for more bytes than are read of a compressed file."""
  if size > _MOST_BYTES:
    raise ValueError(
      f'{size} bytes unpacked, more than the {_MOST_BYTES} that are read'
    )


def sentence(error: BaseException) -> str:
  """What an error says, in one line.

  >>> sentence(MemoryError())
  'out of memory'
  """
  if isinstance(error, MemoryError):
    return 'out of memory'
  return ' '.join(str(error).split()) or type(error).__name__


def file_type(shape: ShapeFile | str | os.PathLike) -> str:
  """The ending of a file in small letters, that of gzip apart.

  Args:
    shape: one that `find_shapes` lists, or a name.

  >>> file_type('CHAIR.OFF.gz')
  'off'
  """
  if isinstance(shape, ShapeFile):
    shape = shape.member or shape.path
  path = pathlib.PurePath(shape)
  if _is_packed(path):
    path = pathlib.PurePath(path.stem)
  return path.suffix.lower()[1:]


def unpacked(data: bytes) -> bytes:
  """The content of a file, decompressed where it is compressed by gzip.

  Raises:
    ValueError: when it is damaged, or larger than `_MOST_BYTES`.

  >>> import gzip
  >>> unpacked(gzip.compress(b'OFF'))
  b'OFF'
  """
  if not data.startswith(b'\x1f\x8b'):
    return data
  parts, size = [], 0
  try:
    while data:
      stream = zlib.decompressobj(wbits=31)
      part = stream.decompress(data, _MOST_BYTES + 1 - size)
      size += len(part)
      check_size(size)
      if not stream.eof:
        raise ValueError('truncated: its gzip stream has no end')
      parts.append(part)
      data = stream.unused_data.lstrip(b'\0')
  except zlib.error as error:
    raise ValueError(f'a damaged gzip file: {error}') from None
  return b''.join(parts)


def read_mesh(
  data: bytes,
  kind: str,
  up: str | None = None,
  resolve: Callable[[str], bytes] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Reads a triangle mesh; polygons are cut into triangles.

  Args:
    data: the content of the file, also as gzip compresses it.
    kind: one of `FILE_TYPES`.
    up: the axis of the file that becomes z; None: as the format has it, y in
      glTF, z in all others.
    resolve: gives the content of another file by its relative name, for glTF.

  Returns:
    Corners, float64 `(v, 3)`, and triangles, indices `(m, 3)`.

  Raises:
    ValueError: with the reason, when the mesh cannot be read or has no faces.

  >>> vertices, faces = read_mesh(
  ...   b'OFF3 1 0 0 0 0 1 0 0 0 1 0 3 0 1 2', 'off')
  >>> faces.tolist()
  [[0, 1, 2]]
  """
  vertices, faces = read_any(data, kind, up, resolve)
  if not len(faces):
    if len(vertices):
      raise ValueError(
        f'no faces: it is a cloud of {len(vertices)} points, which have no '
        'inside'
      )
    raise ValueError('no faces')
  return vertices, faces


def read_any(
  data: bytes,
  kind: str,
  up: str | None = None,
  resolve: Callable[[str], bytes] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """As `read_mesh`, but a cloud of points may have no triangles.

  >>> read_any(b'v 1 2 3', 'obj')[0].tolist()
  [[1.0, 2.0, 3.0]]
  """
  if kind not in FILE_TYPES:
    raise ValueError(
      f'unknown mesh type {kind!r}, must be one of {list(FILE_TYPES)}'
    )
  data = unpacked(data)
  if not data.strip():
    raise ValueError('empty file')
  try:
    if _READERS[kind] is gltf.read:
      vertices, faces = gltf.read(data, resolve)
    else:
      vertices, faces = _READERS[kind](data)
  except READ_ERRORS as error:
    if str(error) and not isinstance(error, MemoryError):
      raise ValueError(str(error)) from error
    raise ValueError(
      f'not a readable {kind} mesh: {type(error).__name__}'
    ) from error
  except Exception as error:  # whatever else a broken file sets off.
    raise ValueError(
      f'not a readable {kind} mesh: {type(error).__name__}: {error}'
    ) from error
  return turned(vertices, up or up_axis(kind)), faces


def up_axis(kind: str) -> str:
  """The axis that is up in the files of a kind: y in glTF, z in all others.

  >>> up_axis('glb')
  'y'
  """
  return _UP.get(kind, 'z')


def turned(vertices: np.ndarray, up: str) -> np.ndarray:
  """Points whose axis `up` becomes z, by a rotation: `(v, 3)`.

  >>> turned(np.array([[1, 2, 3]]), 'y').tolist()
  [[1, -3, 2]]
  """
  if up not in ('x', 'y', 'z'):
    raise ValueError(f"up must be 'x', 'y' or 'z', got {up!r}")
  # Rotations, so that no shape becomes its mirror image.
  if up == 'y':
    return vertices[:, [0, 2, 1]] * (1, -1, 1)
  if up == 'x':
    return vertices[:, [2, 1, 0]] * (-1, 1, 1)
  return vertices
