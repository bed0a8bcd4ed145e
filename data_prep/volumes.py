"""Voxel files in other formats: bytes to arrays and back.

| ending | what | read | written |
|---|---|---|---|
| `.binvox` | run lengths in the order x, z, y | yes | cubes |
| `.mat` | MATLAB up to v7.3, key `instance` | yes | v5 |
| `.npy` | one array | yes | yes |
| `.npz` | results of a model, key `voxels` | yes | no |
| `.h5`, `.hdf5` | HDF5 | yes | no |
| `.vox` | MagicaVoxel, one model of up to 256^3 | yes | yes |

Any of them may be compressed by gzip (`x.binvox.gz`).
"""

from collections.abc import Callable
from collections.abc import Mapping
import io
import math
import re
import struct
import zipfile

import numpy as np
import scipy.io

from data_prep import mesh_files

FORMATS = ('binvox', 'mat', 'npy', 'h5', 'hdf5', 'vox')  # that folders hold.
OUT_FORMATS = ('binvox', 'mat', 'npy', 'vox')
# The array to read where a file holds several: the names used by 3D ShapeNets
# and by the authors of the paper.
_KEYS = ('instance', 'voxels')
_MOST_VOXELS = 1 << 31
_MATLAB_73 = b'MATLAB 7.3 MAT-file'
_COLOUR = 79  # of the default palette of MagicaVoxel.


def read(data: bytes, kind: str, key: str | None = None) -> np.ndarray:
  """Reads the array of a file, of any shape and values.

  Args:
    data: the content of the file, also as gzip compresses it.
    kind: one of `FORMATS`, or npz.
    key: which array, if the file holds several.

  Raises:
    ValueError: with the reason, when the file cannot be read.
  """
  if kind not in _READERS:
    raise ValueError(
      f'unknown format {kind!r}, must be one of {list(_READERS)}'
    )
  try:
    return _READERS[kind](mesh_files.unpacked(data), key)
  except ImportError as error:
    raise ValueError(f'reading this file needs a package: {error}') from error
  except Exception as error:  # whatever a broken file sets off in a reader.
    text = ' '.join(str(error).split())
    if isinstance(error, ValueError) and type(error) is ValueError:
      raise ValueError(f'not a readable {kind} file: {text}') from error
    raise ValueError(
      f'not a readable {kind} file: {type(error).__name__}: {text}'
    ) from error


def transforms(data: bytes, kind: str, n: int) -> list[np.ndarray | None]:
  """Where the n shapes of a file lie, if the file says so.

  Args:
    data: the content of a file that `read` has read.
    kind: of the file.
    n: number of shapes in it.

  Returns:
    For each shape the matrix `(4, 4)` from the index of a voxel to the
    coordinates of its middle, or None. It comes from the lines translate and
    scale of binvox, and from the array `to_input` of a model's results.
  """
  data = mesh_files.unpacked(data)
  if kind == 'binvox':
    return [_binvox_matrix(data)] * n
  if kind == 'npz':
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
      if 'to_input' in file.files:
        found = file['to_input']
        if found.shape == (n, 4, 4) and np.isfinite(found).all():
          return list(found.astype(np.float64))
  return [None] * n


def _binvox_matrix(data: bytes) -> np.ndarray | None:
  head = data.partition(b'\ndata')[0]
  lines = dict(line.partition(b' ')[::2] for line in head.splitlines())
  try:
    sides = np.array(lines[b'dim'].split(), np.float64)
    origin = np.array(lines[b'translate'].split(), np.float64)
    step = float(lines[b'scale']) / sides.max()
  except (KeyError, ValueError):
    return None
  matrix = np.diag([step, step, step, 1.0])
  matrix[:3, 3] = origin + step / 2
  return matrix if step > 0 and np.isfinite(matrix).all() else None


def write(
  voxels: np.ndarray, kind: str, matrix: np.ndarray | None = None
) -> bytes:
  """The content of a file of another format with one shape.

  Args:
    voxels: `(D, H, W)`; binvox needs a cube; binvox and vox need 0 and 1.
    kind: one of `OUT_FORMATS`.
    matrix: from the index of a voxel to its coordinates, `(4, 4)`, which binvox
      keeps where the axes are the same ones.

  Returns:
    The same bytes for the same shape.

  >>> cube = np.zeros((4, 4, 4), np.uint8)
  >>> cube[1, 2, 3] = 1
  >>> bool((read(write(cube, 'binvox'), 'binvox') == cube).all())
  True
  """
  if kind not in OUT_FORMATS:
    raise ValueError(
      f'unknown format {kind!r}, must be one of {list(OUT_FORMATS)}'
    )
  if kind in ('binvox', 'vox') and not ((voxels == 0) | (voxels == 1)).all():
    raise ValueError(
      f'{kind} holds 0 and 1 only, not fractions: give --threshold'
    )
  if kind == 'binvox':
    return _write_binvox(voxels, matrix)
  if kind == 'vox':
    return _write_vox(voxels)
  file = io.BytesIO()
  if kind == 'npy':
    np.save(file, voxels)
    return file.getvalue()
  scipy.io.savemat(file, {'instance': voxels}, do_compression=True)
  # Its first 116 bytes are a text with the time of day.
  return b'MATLAB 5.0 MAT-file'.ljust(116) + file.getvalue()[116:]


def _choose(names: Mapping[str, tuple[int, ...]], key: str | None) -> str:
  """The array to read, of those that are there with their shapes."""
  if key is not None:
    if key not in names:
      raise ValueError(f'no key {key!r}, only {sorted(names)}')
    return key
  for known in _KEYS:
    if known in names:
      return known
  if len(names) == 1:
    return next(iter(names))
  solid = [name for name, shape in names.items() if len(shape) >= 3]
  if len(solid) == 1:
    return solid[0]
  raise ValueError(
    f'no key instance or voxels, only {sorted(names)}: say which with --key'
  )


def _check_count(shape) -> None:
  count = math.prod(int(n) for n in shape)
  if count > _MOST_VOXELS:
    raise ValueError(f'an array of shape {tuple(shape)} is too large')


def _read_binvox(data: bytes, key: str | None) -> np.ndarray:
  head, mark, runs = data.partition(b'\ndata')
  runs = runs.removeprefix(b'\r').removeprefix(b'\n')
  if not head.startswith(b'#binvox'):
    raise ValueError("it does not begin with '#binvox'")
  if not mark:
    raise ValueError('truncated: it has no data')
  sizes = re.search(rb'^dim\s+(\d+)\s+(\d+)\s+(\d+)\s*$', head, re.MULTILINE)
  if not sizes:
    raise ValueError('its header has no line dim with three numbers')
  depth, height, width = (int(n) for n in sizes.groups())
  if len(runs) % 2:
    raise ValueError('truncated in the middle of a run')
  values = np.frombuffer(runs, np.uint8)[0::2]
  counts = np.frombuffer(runs, np.uint8)[1::2]
  covered, whole = int(counts.sum(dtype=np.int64)), depth * height * width
  if covered != whole:
    raise ValueError(
      f'truncated: its runs cover {covered} of the {whole} voxels'
      if covered < whole
      else f'its runs cover {covered} voxels, but it has only {whole}'
    )
  # The last axis of the file is y.
  flat = np.repeat(values, counts)
  return flat.reshape(depth, height, width).transpose(0, 2, 1)


def _write_binvox(voxels: np.ndarray, matrix) -> bytes:
  if len(set(voxels.shape)) != 1:
    raise ValueError(f'binvox holds cubes only, not {voxels.shape}')
  size = voxels.shape[0]
  flat = np.asarray(voxels, np.uint8).transpose(0, 2, 1).ravel()
  ends = np.append(np.flatnonzero(np.diff(flat)) + 1, flat.size)
  lengths = np.diff(ends, prepend=0)
  # A run has at most 255 voxels.
  pieces = -(-lengths // 255)
  counts = np.full(pieces.sum(), 255)
  counts[np.cumsum(pieces) - 1] = lengths - 255 * (pieces - 1)
  runs = np.stack([np.repeat(flat[ends - 1], pieces), counts], axis=1)
  translate, scale = '0 0 0', '1'
  if matrix is not None and _is_straight(matrix):
    step = matrix[0, 0]
    origin = matrix[:3, 3] - step / 2
    translate = ' '.join(f'{x:.12g}' for x in origin)
    scale = f'{step * size:.12g}'
  # Other programs cannot read anything more here, not even a comment.
  head = (
    f'#binvox 1\ndim {size} {size} {size}\ntranslate {translate}\n'
    f'scale {scale}\ndata\n'
  )
  return head.encode() + runs.astype(np.uint8).tobytes()


def _is_straight(matrix: np.ndarray) -> bool:
  """Whether a matrix only scales and translates."""
  step = matrix[0, 0]
  # Rounding, by a turn or far from the origin, is small beside a voxel.
  return step > 0 and np.allclose(
    matrix[:3, :3], step * np.eye(3), 0, 1e-5 * step
  )


def _read_mat(data: bytes, key: str | None) -> np.ndarray:
  if data.startswith(_MATLAB_73):
    # Its axes are those of MATLAB in reverse order.
    return np.ascontiguousarray(_read_hdf5(data, key).T)
  names = {name: shape for name, shape, _ in scipy.io.whosmat(io.BytesIO(data))}
  chosen = _choose(names, key)
  _check_count(names[chosen])
  return scipy.io.loadmat(io.BytesIO(data), variable_names=[chosen])[chosen]


def _read_hdf5(data: bytes, key: str | None) -> np.ndarray:
  import h5py  # needed for these files only.

  with h5py.File(io.BytesIO(data), 'r') as file:
    arrays = {}

    def note(name, entry):
      # MATLAB keeps what cells refer to in a group of this name.
      if isinstance(entry, h5py.Dataset) and not name.startswith('#'):
        arrays[name] = entry.shape

    file.visititems(note)
    if not arrays:
      raise ValueError('it holds no array')
    chosen = _choose(arrays, key)
    _check_count(arrays[chosen])
    return np.asarray(file[chosen][()])


def _check_npy(data: bytes) -> None:
  """Raises ValueError where an array is incomplete, before it is allocated."""
  file = io.BytesIO(data)
  version = np.lib.format.read_magic(file)
  header = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }.get(version)
  if header is None:
    return
  shape, _, dtype = header(file)
  promised = math.prod(shape) * dtype.itemsize
  if not dtype.hasobject and promised > len(data) - file.tell():
    raise ValueError(
      f'truncated: {promised} bytes promised for {shape}, but only '
      f'{len(data) - file.tell()} follow'
    )


def _read_npy(data: bytes, key: str | None) -> np.ndarray:
  _check_npy(data)
  return np.load(io.BytesIO(data), allow_pickle=False)


def _read_npz(data: bytes, key: str | None) -> np.ndarray:
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    members = {
      info.filename.removesuffix('.npy'): info for info in archive.infolist()
    }
    shapes = {}
    for name, info in members.items():
      with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
          shapes[name] = np.lib.format.read_array_header_1_0(file)[0]
        else:
          shapes[name] = np.lib.format.read_array_header_2_0(file)[0]
    if not shapes:
      raise ValueError('it holds no array')
    chosen = _choose(shapes, key)
    mesh_files.check_size(members[chosen].file_size)
    return _read_npy(archive.read(members[chosen]), None)


def _read_vox(data: bytes, key: str | None) -> np.ndarray:
  if data[:4] != b'VOX ':
    raise ValueError("it does not begin with 'VOX '")
  sizes, models, at = [], [], 20  # behind the head of the chunk MAIN.
  while at + 12 <= len(data):
    name = data[at : at + 4]
    length, inner = struct.unpack_from('<ii', data, at + 4)
    if length < 0 or inner < 0 or at + 12 + length > len(data):
      raise ValueError(f'truncated: its chunk {name!r} is not whole')
    content = data[at + 12 : at + 12 + length]
    if name == b'SIZE':
      sizes.append(struct.unpack_from('<iii', content))
    elif name == b'XYZI':
      count = struct.unpack_from('<i', content)[0]
      if count < 0 or 4 + 4 * count > len(content):
        raise ValueError(f'truncated: {count} voxels promised')
      models.append(np.frombuffer(content, np.uint8, 4 * count, 4))
    at += 12 + length
  if len(models) != 1 or len(sizes) != 1:
    raise ValueError(f'it holds {len(models)} models; only one is supported')
  if not all(0 < n <= 256 for n in sizes[0]):
    raise ValueError(f'its grid {sizes[0]} is not valid')
  x, y, z, _ = models[0].reshape(-1, 4).T
  grid = np.zeros(sizes[0], np.uint8)
  grid[x, y, z] = 1
  return grid


def _write_vox(voxels: np.ndarray) -> bytes:
  if max(voxels.shape) > 256:
    raise ValueError(f'vox holds at most 256 voxels a side, not {voxels.shape}')
  rows = np.argwhere(voxels)
  rows = np.column_stack([rows, np.full(len(rows), _COLOUR)]).astype(np.uint8)
  parts = (
    (b'SIZE', struct.pack('<iii', *voxels.shape)),
    (b'XYZI', struct.pack('<i', len(rows)) + rows.tobytes()),
  )
  body = b''.join(
    name + struct.pack('<ii', len(content), 0) + content
    for name, content in parts
  )
  return (
    b'VOX '
    + struct.pack('<i', 150)
    + (b'MAIN' + struct.pack('<ii', 0, len(body)) + body)
  )


_READERS: Mapping[str, Callable[[bytes, str | None], np.ndarray]] = {
  'binvox': _read_binvox,
  'mat': _read_mat,
  'npy': _read_npy,
  'h5': _read_hdf5,
  'hdf5': _read_hdf5,
  'vox': _read_vox,
  'npz': _read_npz,
}
