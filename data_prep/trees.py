"""Finds shapes in folders and zip files with any folder tree.

Class, split and name of a shape come from its place in the tree. The content of
the files is not read here.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import itertools
import os
import pathlib
import posixpath
import re
from typing import NamedTuple
import zipfile

from data_prep import mesh_files

_SPLITS = ('train', 'test', 'val', 'valid', 'validation')
# Names that all shapes of ShapeNet share; the folder tells them apart.
_SAME_NAMES = ('model', 'model_normalized', 'model_normalized.solid')


class ShapeFile(NamedTuple):
  """Where a shape is and what it is called.

  Attributes:
    class_name: its class.
    split: its split, such as `train`.
    name: its name, unique in class and split.
    path: the file, or the zip file that holds it.
    member: its name in the zip file, empty when `path` is the file itself.
    num_bytes: its length.
    stamp: time of its last change, or its checksum in the zip file.
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
    passed_over: how many files were ignored, by ending.
  """

  shapes: list[ShapeFile]
  passed_over: Mapping[str, int]


def find_shapes(
  path: str | os.PathLike,
  split: str = 'train',
  file_types: Sequence[str] = mesh_files.FILE_TYPES,
  tree: str = '',
) -> list[ShapeFile]:
  """The shapes that `find` finds, without the count of ignored files."""
  return find(path, split, file_types, tree).shapes


def find(
  path: str | os.PathLike,
  split: str = 'train',
  file_types: Sequence[str] = mesh_files.FILE_TYPES,
  tree: str = '',
  same_names: bool = False,
) -> Found:
  """Lists the shapes of a zip file, a folder or a single file.

  Class, split and name come from the tree: `class/split/name.off` as in
  ModelNet; `class/name/model.obj`, `class/name/models/model_normalized.obj` and
  `class/name/model.binvox` as in ShapeNetCore and ShapeNetVox32. A shape whose
  folder is not named train, test, val, valid or validation gets the split
  `split` and, as its class, the name of its folder. A folder named by a number
  up to 999, as in `chair/30/train`, is the size of a grid and not a class.

  Args:
    path: the zip file, folder or single file.
    split: for shapes without one.
    file_types: endings of the files to list.
    tree: a pattern for another tree, such as `{class}/{name}/*.obj` or
      `{split}/{class}_{name}.ply`. It must match the end of a path; other files
      are ignored. `*` stands for anything within one name, `**` for anything
      across several.
    same_names: whether shapes of the same name are accepted; the endings of
      their files then become part of their names.

  Returns:
    The shapes, and how many other files there are of each ending.

  Raises:
    FileNotFoundError: when there is no `path`.
    ValueError: when it holds no shapes, or two of the same name, or the pattern
      is not valid.
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
    if mesh_files.file_type(below) in file_types:
      if pattern is None:
        called = _called(folders, below, split)
      else:
        called = _called_by(pattern, folders, below, split)
    if called is None:
      count = 2 if mesh_files.is_packed(below) else 1
      ending = ''.join(below.suffixes[-count:])
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
  if same_names:
    count = collections.Counter(shape[:3] for shape in shapes)
    for i, shape in enumerate(shapes):
      if count[shape[:3]] > 1:
        full = pathlib.PurePath(shape.member or shape.path)
        shapes[i] = shape._replace(name=full.name)
  shapes.sort()
  for one, other in itertools.pairwise(shapes):
    if one[:3] == other[:3] and not same_names:
      advice = (
        f'--tree={tree!r} does not fit these files'
        if tree
        else "a pattern such as --tree='{class}/{name}/*.obj' says where the "
        'name is'
      )
      raise ValueError(
        f'two shapes are called {"/".join(one[:3])}: '
        f'{one.member or one.path} and {other.member or other.path}; {advice}'
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


def _stem(path: pathlib.PurePath) -> str:
  """The name without its ending and without that of gzip."""
  packed = mesh_files.is_packed(path)
  return pathlib.PurePath(path.stem).stem if packed else path.stem


def _called(folders, below, split: str) -> tuple[str, str, str] | None:
  """Class, split and name by the known trees; None for a file to ignore."""
  name, inner = _stem(below), len(below.parts) - 1
  if name == 'model_normalized.surface':
    return None  # the solid version of the same shape is beside it.
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
  # The pattern may fit the whole path below the folder, or only its end.
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
      mesh_files.check_size(size)
      return archives[shape.path].read(member)

    yield read


def file_type(shape: ShapeFile) -> str:
  """The ending of the file of a shape in lower case, without that of gzip."""
  return mesh_files.file_type(shape.member or shape.path)
