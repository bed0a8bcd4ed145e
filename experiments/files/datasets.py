"""Data: voxel shapes of one category or of all."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple
import zlib

import numpy as np

from data_prep import furniture
from data_prep import voxel_file
from experiments.files import packed as packing

SCALINGS = ('mean', 'symmetric')
FURNITURE = 'furniture'


class Dataset(NamedTuple):
  """Voxel shapes in [0, 1], and how a network sees them.

  A network sees `(voxels - mean) * scale`, a chain is shown as
  `y / scale + mean`.

  Attributes:
    train: `(n, D, H, W)`; an array, or `packed.Packed`, which is read as one.
    test: `(m, D, H, W)`, likewise; may be empty.
    mean: one number: the mean of all training voxels, the paper's centering;
      or 0.5.
    scale: 1; or 2, for voxels in [-1, 1] as in section 6.4.
    source: a description of the data, for people.
    train_labels: `(n,)` indices into `classes`.
    test_labels: `(m,)`.
    classes: names.
    checksum: of the training shapes and their labels.
  """

  train: Any
  test: Any
  mean: float
  scale: float
  source: str
  train_labels: np.ndarray
  test_labels: np.ndarray
  classes: tuple[str, ...]
  checksum: str = ''


def load(
  path: str,
  category: str,
  *,
  furniture_size: int = 32,
  furniture_shapes: int = 100,
  scaling: str = 'mean',
  hold_out: float = 0.0,
  packed: bool = False,
) -> Dataset:
  """Loads one category, or 'all', of a voxel file or of the furniture.

  Args:
    path: a voxel file (.npz), or a folder of its arrays (.npy), of which only
      the shapes that are used are read; see data_prep/voxel_file.py.
      'furniture': the embedded furniture.
    category: a class of it, or 'all'.
    furniture_size: voxels a side of the furniture.
    furniture_shapes: training shapes of a category, likewise.
    scaling: 'mean', the mean subtracted (6.1); 'symmetric', [-1, 1] (6.4).
    hold_out: share of the training shapes that is used in place of the test
      shapes, to choose settings with; 0: the test split itself.
    packed: True: binary shapes stay bits, and on disk where `path` is a folder;
      for learning. False: arrays.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for another scaling, an unknown category, a category without
      training shapes, a file that breaks the format.
  """
  if scaling not in SCALINGS:
    raise ValueError(f'data.scaling must be one of {SCALINGS}, got {scaling!r}')
  classes = None if category == 'all' else (category,)
  if path != FURNITURE:
    voxels, all_labels, names = _of_file(path, classes, packed)
    source = f'{category} of {path.rstrip("/").rpartition("/")[2]}'
  else:
    data = furniture.make_furniture(
      size=furniture_size,
      num_train=furniture_shapes,
      num_test=max(furniture_shapes // 4, 1),
      categories=classes,
    )
    voxels, all_labels, names = data.voxels, data.labels, data.classes
    if packed:
      voxels = {split: _pack(x) for split, x in voxels.items()}
    source = f'{category} of the embedded furniture'
  train = voxels.get('train')
  if train is None or not len(train):
    raise ValueError(f'{path} has no training shapes')
  labels = all_labels['train']
  test = voxels.get('test')
  if test is None:
    test = _chosen(train, slice(0))
  test_labels = all_labels.get('test', labels[:0])
  if hold_out:
    if not 0 < hold_out < 1:
      raise ValueError(f'data.hold_out must be in [0, 1), got {hold_out}')
    held = np.zeros(len(train), bool)
    order = np.random.default_rng(0).permutation(len(train))
    held[order[: round(hold_out * len(train))]] = True
    test, test_labels = _chosen(train, held), labels[held]
    train, labels = _chosen(train, ~held), labels[~held]
    source += f', {held.sum()} training shapes held out'
  symmetric = scaling == 'symmetric'
  mean, checksum = _mean_and_checksum(train, labels)
  return Dataset(
    train,
    test,
    mean=0.5 if symmetric else mean,
    scale=2.0 if symmetric else 1.0,
    source=source,
    train_labels=labels,
    test_labels=test_labels,
    classes=tuple(names),
    checksum=checksum,
  )


def _of_file(path, classes, packed):
  """Shapes and labels of a file by split, and the names of the classes."""
  if not packed:
    data = voxel_file.load(path, classes=classes)
    return data.voxels, data.labels, data.classes
  stored = voxel_file.read(path)
  if not stored.packed:
    data = voxel_file.select(stored, classes=classes, path=path)
    return data.voxels, data.labels, data.classes
  chosen = voxel_file.rows_of(stored, classes=classes, path=path)
  voxels = {
    split: packing.Packed(stored.arrays[split], rows, stored.grid[2])
    for split, (rows, _) in chosen.items()
  }
  labels = {split: label for split, (_, label) in chosen.items()}
  return voxels, labels, stored.classes if classes is None else classes


def _pack(voxels):
  """Binary shapes as bits, all others as they are."""
  if voxels.dtype.kind == 'f':
    return voxels
  order = np.arange(len(voxels))
  return packing.Packed(voxel_file.pack(voxels), order, voxels.shape[-1])


def _chosen(voxels, rows):
  if isinstance(voxels, packing.Packed):
    return packing.Packed(voxels.bits, voxels.order[rows], voxels.width)
  return voxels[rows]


def _mean_and_checksum(voxels, labels):
  """The mean of all voxels, and the checksum of them and their labels."""
  if not isinstance(voxels, packing.Packed):
    # For fractions the sum depends on its order.
    mean, total = float(voxels.mean(dtype=np.float64)), 0
    for some in packing.chunks(voxels):
      total = zlib.crc32(np.ascontiguousarray(some), total)
  else:
    full, total = 0, 0
    for some in packing.chunks(voxels):
      full += int(np.count_nonzero(some))
      total = zlib.crc32(some, total)
    mean = full / np.prod(voxels.shape, dtype=np.int64).item()
  return mean, f'{zlib.crc32(np.ascontiguousarray(labels), total):08x}'


def stored(voxels: Any, rows: np.ndarray) -> np.ndarray:
  """Some shapes as they are stored, bits or voxels; see `prepare`."""
  if isinstance(voxels, packing.Packed):
    return voxels.stored(rows)
  return voxels[rows]


def prepare(data: Dataset) -> Callable[[Any], Any]:
  """`(shapes) -> (n, D, H, W, 1)`: of `stored`, as a network sees them; traced.

  The device unpacks bits, so that only these are sent to it.
  """
  width = data.train.width if isinstance(data.train, packing.Packed) else None

  def prepared(shapes):
    if width is not None:
      shapes = packing.unpack_on_device(shapes, width)
    return to_network(shapes, data.mean, data.scale)

  return prepared


def to_network(
  voxels: np.ndarray, mean: float, scale: float = 1.0
) -> np.ndarray:
  """Voxels `(n, D, H, W)` as a network takes them: `(n, D, H, W, 1)` float32.

  >>> to_network(np.ones((2, 4, 4, 4)), 0.5, 2.0).max().item()
  1.0
  """
  y = voxels[..., None].astype(np.float32) - np.float32(mean)
  return y * np.float32(scale)


def to_voxels(y: np.ndarray, mean: float, scale: float = 1.0) -> np.ndarray:
  """The inverse of `to_network`: `(n, D, H, W)` float32, not thresholded.

  >>> to_voxels(np.ones((2, 4, 4, 4, 1)), 0.5, 2.0).max().item()
  1.0
  """
  return np.asarray(y)[..., 0] / np.float32(scale) + np.float32(mean)


def seen(data: Dataset) -> tuple[tuple[int, ...], float, float]:
  """The grid `(D, H, W)`, the mean and the scale that a network sees."""
  return data.train.shape[1:], data.mean, data.scale
