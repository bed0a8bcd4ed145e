"""Meshes and clouds of points: OFF, OBJ, PLY, STL, glTF and XYZ.

Also compressed by gzip (`x.off.gz`). `data_prep/readers` has a reader for each.
"""

from collections.abc import Callable
import lzma
import os
import pathlib
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
# The axis that is up, for formats that define one.
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
_MOST_BYTES = 2 << 30  # of an unpacked file.


def is_packed(path: pathlib.PurePath) -> bool:
  """Whether the name of a file ends in .gz."""
  return path.suffix.lower() == '.gz'


def check_size(size: int) -> None:
  """Raises ValueError for more bytes than are read of a compressed file."""
  if size > _MOST_BYTES:
    raise ValueError(
      f'{size} bytes unpacked, more than the limit of {_MOST_BYTES}'
    )


def sentence(error: BaseException) -> str:
  """What an error says, in one line.

  >>> sentence(MemoryError())
  'out of memory'
  """
  if isinstance(error, MemoryError):
    return 'out of memory'
  return ' '.join(str(error).split()) or type(error).__name__


def file_type(path: str | os.PathLike) -> str:
  """The ending of a file in lower case, without that of gzip.

  >>> file_type('CHAIR.OFF.gz')
  'off'
  """
  path = pathlib.PurePath(path)
  if is_packed(path):
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
  except Exception as error:  # a broken file may raise anything.
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
