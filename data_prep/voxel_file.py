"""The voxel file: the one place that reads, checks and writes the .npz format.

A voxel file holds solid shapes on one grid, split into `train`, `test`, ...:

| key | dtype, shape | meaning |
|---|---|---|
| `classes` | str (c,) | names of the classes |
| `voxels_<split>` | uint8 (n, S, S, ceil(S / 8)) | bits along the last axis |
| `labels_<split>` | integer (n,) | index into `classes` |
| `names_<split>` | str (n,) | one name for each shape |
| `doubtful_<split>` | bool (n,) | mesh open or with holes; optional |

A folder with the same arrays, each in a file `<key>.npy`, can be read, too.
Such arrays stay on disk (memory maps), for sets larger than the memory.

Axes are x, y, z with z up; the bits are `np.packbits(voxels, axis=-1)`. Grids
that are not cubes, and grids of fractions in [0, 1], are stored unpacked, as
bool or float32 `(n, D, H, W)`; reading accepts bool, integer and float grids.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
import shutil
import types
from typing import NamedTuple
import zipfile

import numpy as np

_KINDS = ('voxels', 'labels', 'names')
_ORDER = {'train': 0, 'val': 1, 'test': 2}  # other splits follow, by name.


class VoxelData(NamedTuple):
  """Voxel shapes with their labels and names.

  Attributes:
    classes: names of the classes.
    voxels: for each split, `(n, D, H, W)`: uint8 of 0 and 1, or float32 in
      [0, 1]; axes x, y, z with z up.
    labels: for each split, `(n,)` indices into `classes`.
    names: for each split, `(n,)` names of the shapes.
  """

  classes: tuple[str, ...]
  voxels: Mapping[str, np.ndarray]
  labels: Mapping[str, np.ndarray]
  names: Mapping[str, np.ndarray]


class Stored(NamedTuple):
  """A voxel file as it is stored, eight voxels a byte.

  Attributes:
    classes: names of the classes.
    arrays: for each split, the `voxels_<split>` array as stored.
    labels: for each split, `(n,)` indices into `classes`.
    names: for each split, `(n,)` names of the shapes.
    grid: `(D, H, W)` of the unpacked shapes.
    packed: whether `arrays` holds bits packed along the last axis.
    doubtful: for splits that have it, bool `(n,)`: whether the mesh of a shape
      was open or had holes.
  """

  classes: tuple[str, ...]
  arrays: Mapping[str, np.ndarray]
  labels: Mapping[str, np.ndarray]
  names: Mapping[str, np.ndarray]
  grid: tuple[int, int, int]
  packed: bool
  doubtful: Mapping[str, np.ndarray] = types.MappingProxyType({})


def pack(voxels: np.ndarray) -> np.ndarray:
  """Packs binary grids into bits, eight voxels of the last axis a byte.

  Args:
    voxels: `(..., D, H, W)` of 0 and 1, bool or any number type.

  Returns:
    uint8 `(..., D, H, ceil(W / 8))`.

  Raises:
    ValueError: when a value is neither 0 nor 1.

  >>> pack(np.ones((1, 12, 12, 12), bool)).shape
  (1, 12, 12, 2)
  """
  voxels = np.asarray(voxels)
  if voxels.dtype != bool:
    bad = voxels[(voxels != 0) & (voxels != 1)]
    if bad.size:
      raise ValueError(
        f'only grids of 0 and 1 can be packed into bits, found {bad[0]}'
      )
  return np.packbits(voxels.astype(bool, copy=False), axis=-1)


def unpack(bits: np.ndarray, width: int | None = None) -> np.ndarray:
  """Unpacks bits into grids: the inverse of `pack`.

  Args:
    bits: uint8 `(..., D, H, ceil(W / 8))`.
    width: W; by default H, for cubes.

  Returns:
    uint8 `(..., D, H, W)` of 0 and 1.

  Raises:
    ValueError: when the last axis does not hold `width` bits.

  >>> cube = np.eye(12, dtype=np.uint8)[None]
  >>> bool((unpack(pack(cube)) == cube).all())
  True
  """
  width = bits.shape[-2] if width is None else width
  if bits.dtype != np.uint8 or bits.shape[-1] != -(-width // 8):
    raise ValueError(
      f'{width} voxels are packed into {-(-width // 8)} bytes of uint8, got '
      f'an array of {bits.dtype} {bits.shape}'
    )
  return np.unpackbits(bits, axis=-1, count=width)


def save(path: str | os.PathLike, data: VoxelData) -> None:
  """Writes a voxel file, whole or not at all, and never over another file.

  Args:
    path: where to write; missing folders are made.
    data: the shapes. Binary cubes are packed into bits, other grids stored as
      they are.

  Raises:
    FileExistsError: when `path` exists.
    ValueError: when `data` breaks the format (see `load`).

  >>> import tempfile
  >>> cube = np.zeros((1, 8, 8, 8), np.uint8)
  >>> cube[:, 2:6, 2:6, 2:6] = 1
  >>> data = VoxelData(
  ...   ('box',),
  ...   {'train': cube},
  ...   {'train': np.array([0])},
  ...   {'train': np.array(['a'])},
  ... )
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   save(f'{folder}/boxes.npz', data)
  ...   int(load(f'{folder}/boxes.npz').voxels['train'].sum())
  64
  """
  arrays = {}
  for split, voxels in data.voxels.items():
    voxels = np.asarray(voxels)
    if voxels.ndim != 4:
      raise ValueError(
        f'voxels of split {split!r} must be (n, D, H, W), got {voxels.shape}'
      )
    _check_values(voxels, split, 'cannot save')
    if voxels.dtype.kind == 'f':
      arrays[split] = voxels.astype(np.float32, copy=False)
    elif voxels.shape[1] == voxels.shape[2] == voxels.shape[3] > 1:
      arrays[split] = pack(voxels)
    else:
      arrays[split] = voxels.astype(bool, copy=False)
  save_stored(path, data.classes, arrays, data.labels, data.names)


def save_stored(
  path: str | os.PathLike,
  classes: Sequence[str],
  arrays: Mapping[str, np.ndarray],
  labels: Mapping[str, np.ndarray],
  names: Mapping[str, np.ndarray],
  doubtful: Mapping[str, np.ndarray] | None = None,
) -> None:
  """Writes a voxel file from arrays as they are stored (see `Stored`).

  The arrays may be memory maps: they are written piece by piece. The same
  arrays give the same bytes.

  Args:
    path: where to write; missing folders are made.
    classes: names of the classes.
    arrays: for each split, bits `(n, S, S, ceil(S / 8))` or unpacked grids.
    labels: for each split, `(n,)` indices into `classes`.
    names: for each split, `(n,)` names.
    doubtful: for some splits, or none, bool `(n,)`.

  Raises:
    FileExistsError: when `path` exists.
    ValueError: when the arrays break the format.
  """
  path = pathlib.Path(path)
  refuse_existing(path)
  content = {'classes': np.array(classes, dtype=np.str_)}
  for split in sorted(arrays, key=_split_order):
    for kind, values in zip(_KINDS, (arrays, labels, names), strict=True):
      if split not in values:
        raise ValueError(f'{path}: split {split!r} has no {kind}')
    content[f'voxels_{split}'] = np.ascontiguousarray(arrays[split])
    content[f'labels_{split}'] = np.asarray(labels[split]).astype(
      np.uint8 if len(classes) <= 256 else np.int32
    )
    content[f'names_{split}'] = np.array(names[split], dtype=np.str_)
    if split in (doubtful or {}):
      content[f'doubtful_{split}'] = np.asarray(doubtful[split])
  extra = sorted(set(labels) ^ set(arrays) | set(names) ^ set(arrays))
  if extra:
    raise ValueError(f'{path}: no voxels, labels or names for split {extra}')
  # The original arrays are checked, so that a label of 300 does not become 44.
  _parse(path, {**content, **{f'labels_{k}': v for k, v in labels.items()}})
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    with open(part, 'wb') as file:
      np.savez_compressed(file, **content)
    refuse_existing(path)
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def refuse_existing(path: str | os.PathLike) -> None:
  """Raises FileExistsError when `path` exists: results are never replaced.

  >>> refuse_existing('no_such_file.npz')
  """
  if os.path.lexists(path):
    raise FileExistsError(
      f'{path} exists and is not overwritten: choose another name, or move it'
    )


def load(
  path: str | os.PathLike,
  splits: Sequence[str] | None = None,
  classes: Sequence[str] | None = None,
) -> VoxelData:
  """Reads a voxel file, or some of its splits and classes.

  Args:
    path: the file.
    splits: which splits, by default all that the file has.
    classes: which classes, by default all. Labels are then indices into the
      classes selected, in the order given.

  Returns:
    The shapes: uint8 of 0 and 1, or float32 in [0, 1] where the file has
    fractions.

  Raises:
    FileNotFoundError: when there is no such file.
    ValueError: when the file is not a voxel file (truncated, a key missing, a
      wrong shape or dtype, NaN or values outside [0, 1], a label out of range),
      when a selected split or class is unknown, or when a selected class has no
      shapes in a selected split.
  """
  return select(read(path), splits, classes, path)


def read(path: str | os.PathLike) -> Stored:
  """Reads and checks a voxel file without unpacking its bits.

  For files too large to unpack at once; `unpack(stored.arrays[split][i:j])`
  unpacks some. Errors are those of `load`.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    return _parse(path, _read_folder(path))
  if not path.is_file():
    raise FileNotFoundError(
      f'no voxel file {path}: make one with python -m data_prep.voxelize'
    )
  try:
    with open(path, 'rb') as file:
      zipfile.ZipFile(file).close()  # has better error messages than NumPy.
      file.seek(0)
      with np.load(file, allow_pickle=False) as arrays:
        content = {key: arrays[key] for key in arrays.files}
  except Exception as error:  # a broken file may raise anything.
    raise ValueError(
      f'{path} is not a readable .npz file; it is truncated or another kind: '
      f'{type(error).__name__}: {error}'
    ) from error
  return _parse(path, content)


def _read_folder(path):
  """The arrays of a folder, as memory maps."""
  content = {}
  for file in sorted(path.glob('*.npy')):
    try:
      content[file.stem] = np.load(file, mmap_mode='r', allow_pickle=False)
    except Exception as error:  # a broken file may raise anything.
      raise ValueError(
        f'{file} is not a readable .npy file: {type(error).__name__}: {error}'
      ) from error
  return content


def save_folder(path: str | os.PathLike, stored: Stored) -> None:
  """Writes the arrays of a voxel file to a folder, whole or not at all.

  Args:
    path: the folder, which must not exist yet.
    stored: of `read`.

  Raises:
    FileExistsError: when `path` exists.
  """
  path = pathlib.Path(path)
  refuse_existing(path)
  content = {'classes': np.array(stored.classes, dtype=np.str_)}
  for split, array in stored.arrays.items():
    content[f'voxels_{split}'] = array
    content[f'labels_{split}'] = stored.labels[split]
    content[f'names_{split}'] = stored.names[split]
    if split in stored.doubtful:
      content[f'doubtful_{split}'] = stored.doubtful[split]
  part = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  part.mkdir(parents=True)
  try:
    for key, array in content.items():
      np.save(part / f'{key}.npy', array)
    os.replace(part, path)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def select(
  stored: Stored,
  splits: Sequence[str] | None = None,
  classes: Sequence[str] | None = None,
  path: str | os.PathLike = 'the voxel data',
) -> VoxelData:
  """Unpacks a selection of a stored file; arguments and errors as in `load`."""
  chosen = stored.classes if classes is None else tuple(classes)
  voxels, labels, names = {}, {}, {}
  for split, (rows, label) in rows_of(stored, splits, classes, path).items():
    array = stored.arrays[split]
    array = array if len(rows) == len(array) else array[rows]
    voxels[split] = unpack(array) if stored.packed else array
    labels[split] = label
    names[split] = stored.names[split][rows]
  return VoxelData(chosen, voxels, labels, names)


def rows_of(
  stored: Stored,
  splits: Sequence[str] | None = None,
  classes: Sequence[str] | None = None,
  path: str | os.PathLike = 'the voxel data',
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """The shapes of a selection: for each split their rows and new labels.

  Arguments and errors are those of `load`; nothing is unpacked.
  """
  splits = tuple(stored.arrays) if splits is None else tuple(splits)
  for split in splits:
    if split not in stored.arrays:
      raise ValueError(
        f'{path} has no split {split!r}, only {list(stored.arrays)}'
      )
  chosen = stored.classes if classes is None else tuple(classes)
  for name in chosen:
    if name not in stored.classes:
      raise ValueError(
        f'{path} has no class {name!r}, only {list(stored.classes)}'
      )
  if len(set(chosen)) != len(chosen):
    raise ValueError(f'classes selected twice: {list(chosen)}')
  new_label = np.full(len(stored.classes), -1)
  new_label[[stored.classes.index(name) for name in chosen]] = range(
    len(chosen)
  )
  found = {}
  for split in splits:
    label = new_label[stored.labels[split].astype(np.int64)]
    if classes is not None:
      for i, name in enumerate(chosen):
        if not (label == i).any():
          raise ValueError(
            f'{path}: class {name!r} is selected but has no shapes in split '
            f'{split!r}'
          )
    rows = np.flatnonzero(label >= 0)
    found[split] = rows, label[rows]
  return found


def _split_order(split: str) -> tuple[int, str]:
  return _ORDER.get(split, len(_ORDER)), split


def _is_packed(array: np.ndarray) -> bool:
  _, depth, height, width = array.shape
  return (
    array.dtype == np.uint8
    and depth == height > 1
    and width == -(-height // 8)
    and width != height
  )


def _check_values(grids: np.ndarray, split: str, where) -> None:
  """Raises ValueError unless the unpacked grids hold numbers in [0, 1]."""
  if grids.dtype.kind not in 'buif':
    raise ValueError(
      f'{where}: voxels of split {split!r} must be bits, bool, integers or '
      f'floats, got dtype {grids.dtype}'
    )
  if grids.dtype.kind == 'b':
    return
  for i, grid in enumerate(grids):  # one at a time: little extra memory.
    bad = grid[~((grid >= 0) & (grid <= 1))]
    if bad.size:
      wanted = 'in [0, 1]' if grids.dtype.kind == 'f' else '0 or 1'
      raise ValueError(
        f'{where}: shape {i} of split {split!r} holds {bad[0]}, '
        f'voxels must be {wanted}'
      )


def _parse(path, content: Mapping[str, np.ndarray]) -> Stored:
  """Checks the arrays of a voxel file against the format."""
  if 'classes' not in content:
    raise ValueError(f'{path} has no key classes, only {sorted(content)}')
  classes = np.asarray(content['classes'])
  if classes.dtype.kind != 'U' or classes.ndim != 1 or not classes.size:
    raise ValueError(
      f'{path}: classes must be one or more names, got an array of '
      f'{classes.dtype} {classes.shape}'
    )
  if len(set(classes.tolist())) != classes.size:
    raise ValueError(f'{path}: classes must differ, got {classes.tolist()}')
  splits = {
    key.split('_', 1)[1] for key in content if key.startswith('voxels_')
  }
  if not splits:
    raise ValueError(
      f'{path} has no key voxels_<split> such as voxels_train, only '
      f'{sorted(content)}'
    )
  arrays, labels, names, grids, doubtful = {}, {}, {}, {}, {}
  for split in sorted(splits, key=_split_order):
    for kind in _KINDS:
      if f'{kind}_{split}' not in content:
        raise ValueError(
          f'{path} has no key {kind}_{split}, only {sorted(content)}'
        )
    array, label, name = (
      np.asarray(content[f'{kind}_{split}'])
      if kind != 'voxels'
      else content[f'{kind}_{split}']  # may be a memory map.
      for kind in _KINDS
    )
    if array.ndim != 4 or 0 in array.shape[1:]:
      raise ValueError(
        f'{path}: voxels_{split} must be (n, D, H, W), or bits '
        f'(n, S, S, S / 8), got {array.shape}'
      )
    packed = _is_packed(array)
    if packed:
      size = array.shape[1]
      spare = 8 * array.shape[3] - size
      if spare and (array[..., -1] & ((1 << spare) - 1)).any():
        raise ValueError(
          f'{path}: voxels_{split} has bits set beyond its {size} voxels; '
          f'unpacked grids of {array.shape[1:]} must be stored as bool'
        )
      grids[split] = (size, size, size), True
    else:
      _check_values(array, split, path)
      grids[split] = tuple(array.shape[1:]), False
      array = array.astype(
        np.float32 if array.dtype.kind == 'f' else np.uint8, copy=False
      )
    count = array.shape[0]
    if label.shape != (count,) or label.dtype.kind not in 'ui':
      raise ValueError(
        f'{path}: labels_{split} must be {count} integers, one for each '
        f'shape, got an array of {label.dtype} {label.shape}'
      )
    if count and (label.min() < 0 or label.max() >= classes.size):
      bad = label[(label < 0) | (label >= classes.size)][0]
      raise ValueError(
        f'{path}: labels_{split} holds {bad}, must be 0 to {classes.size - 1} '
        f'for the {classes.size} classes'
      )
    if name.shape != (count,) or name.dtype.kind != 'U':
      raise ValueError(
        f'{path}: names_{split} must be {count} strings, one for each shape, '
        f'got an array of {name.dtype} {name.shape}'
      )
    arrays[split], labels[split], names[split] = array, label, name
    if f'doubtful_{split}' in content:
      doubtful[split] = doubt = np.asarray(content[f'doubtful_{split}'])
      if doubt.shape != (count,) or doubt.dtype != bool:
        raise ValueError(
          f'{path}: doubtful_{split} must be {count} truth values, got an '
          f'array of {doubt.dtype} {doubt.shape}'
        )
  if len(set(grids.values())) > 1:
    shapes = {split: array.shape for split, array in arrays.items()}
    raise ValueError(f'{path}: the splits have different grids: {shapes}')
  (grid, packed) = next(iter(grids.values()))
  return Stored(
    tuple(classes.tolist()), arrays, labels, names, grid, packed, doubtful
  )
