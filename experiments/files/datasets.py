"""Data: voxel shapes of one category or all, and the mini-batch of a step."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
import zlib

import numpy as np
from scipy import ndimage
from sklearn import cluster

from data_prep import furniture
from data_prep import voxel_file
from experiments.files import packed as packing

SCALINGS = ('mean', 'symmetric')
FURNITURE = 'furniture'
# Shapes of a group of `principal_components` that are not its own.
_PRIOR_SHAPES = 5


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
    source: what it is, for people.
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
    path: a voxel file (.npz), or a folder of its arrays (.npy), of which no
      more is read than is asked for; see data_prep/voxel_file.py. 'furniture':
      the embedded furniture.
    category: a class of it, or 'all'.
    furniture_size: voxels a side of the furniture.
    furniture_shapes: training shapes of a category, likewise.
    scaling: 'mean', the mean subtracted (6.1); 'symmetric', [-1, 1] (6.4).
    hold_out: this share of the training shapes takes the place of the test
      shapes, to choose settings by; 0: the test split itself.
    packed: True: binary shapes stay bits, and in their file, where that is a
      folder; for learning. False: arrays.

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
    # Of fractions the order of the sum counts.
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

  A device unpacks bits, so that they are all that it is given.
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


def principal_components(
  y: np.ndarray, number: int, groups: int = 1
) -> dict[str, np.ndarray]:
  """Principal components of shapes, and a mixture of Gaussians among them.

  The shapes are grouped by k-means of their coordinates along the components.
  Each group is a Gaussian with independent coordinates. Its center and its
  variances are means over its shapes and `_PRIOR_SHAPES` that are like all
  shapes, so that a group of few does not draw copies of them.

  Args:
    y: `(n, D, H, W, C)`, as a network sees them.
    number: of components.
    groups: Gaussians of the mixture.

  Returns:
    The fields of `dnet_jax.Components`.

  Raises:
    ValueError: for more than a third as many components or a tenth as many
      groups as shapes: draws would be copies.

  >>> y = np.random.default_rng(0).normal(size=(20, 2, 2, 2, 1))
  >>> found = principal_components(y, 3, groups=2)
  >>> found['directions'].shape, found['centers'].shape
  ((3, 2, 2, 2, 1), (2, 3))
  """
  for name, given, share in (('number', number, 3), ('groups', groups, 10)):
    if not 1 <= given <= max(len(y) // share, 1):
      raise ValueError(
        f'components.{name} must be at least 1 and at most the number of '
        f'training shapes, {len(y)}, divided by {share}; got {given}'
      )
  shape = y.shape[1:]
  rows = y.reshape(len(y), -1).astype(np.float32)
  mean = rows.mean(axis=0)
  rows = rows - mean
  # Of fewer shapes than voxels: through the products of shapes.
  squares, basis = np.linalg.eigh((rows @ rows.T).astype(np.float64))
  order = np.argsort(squares)[::-1][:number]
  scale = np.sqrt(np.maximum(squares[order], 0))
  directions = (basis[:, order] / np.maximum(scale, 1e-12)).T @ rows
  places = basis[:, order] * scale
  own = cluster.KMeans(groups, n_init=10, random_state=0).fit_predict(places)
  counts = np.bincount(own, minlength=groups)
  overall = places.var(axis=0, ddof=1)
  if groups == 1:
    centers, variances = np.zeros((1, number)), overall[None]
  else:
    sums = np.stack([places[own == i].sum(axis=0) for i in range(groups)])
    centers = sums / (counts + _PRIOR_SHAPES)[:, None]
    squares = np.stack(
      [
        np.square(places[own == i] - centers[i]).sum(axis=0)
        for i in range(groups)
      ]
    )
    variances = squares + _PRIOR_SHAPES * overall
    variances /= (counts + _PRIOR_SHAPES)[:, None]
  found = {
    'mean': mean.reshape(shape),
    'directions': directions.reshape(number, *shape),
    'centers': centers,
    'deviations': np.sqrt(variances),
    'weights': counts / len(y),
  }
  return {name: x.astype(np.float32) for name, x in found.items()}


def histogram(voxels: np.ndarray, bins: int = 32) -> dict[str, np.ndarray]:
  """p^(0) of section 4.2: how the averages of shapes are distributed.

  Args:
    voxels: `(n, D, H, W)` in [0, 1].
    bins: of equal width between the least and the largest average.

  Returns:
    `edges` (bins + 1,) and `probabilities` (bins,), float32 as in a model.

  >>> histogram(np.ones((2, 4, 4, 4)), bins=1)['probabilities'].tolist()
  [1.0]
  """
  averages = np.concatenate(
    [
      some.reshape(len(some), -1).mean(axis=1, dtype=np.float64)
      for some in packing.chunks(voxels)
    ]
  )
  counts, edges = np.histogram(averages, bins)
  return {
    'edges': edges.astype(np.float32),
    'probabilities': (counts / counts.sum()).astype(np.float32),
  }


def augment(
  voxels: np.ndarray,
  rng: np.random.Generator,
  *,
  mirror: bool = False,
  turn_degrees: float = 0.0,
  shift_voxels: int = 0,
  scale_range: float = 0.0,
) -> np.ndarray:
  """Mirrors, turns about z, shifts and scales; drawn anew for each shape.

  Args:
    voxels: `(n, D, H, W)` in [0, 1].
    rng: drawn from.
    mirror: along x and along y, each for half of the shapes; upright shapes
      stay upright.
    turn_degrees: at most, either way; about the middle of the grid.
    shift_voxels: at most, along each axis, in whole voxels.
    scale_range: shapes are scaled by 1 - this to 1 + this.

  Returns:
    `(n, D, H, W)` float32. Outside the grid is empty. Moved shapes are
    interpolated linearly and are 0 or 1 again: occupied above 0.35, so that
    a wall of one voxel survives.

  >>> shapes = np.zeros((1, 4, 4, 4)); shapes[0, 1, 2, 3] = 1
  >>> augment(shapes, np.random.default_rng(0), shift_voxels=1).sum().item()
  1.0
  """
  result = np.array(voxels, np.float32)
  if mirror:
    for axis in (1, 2):
      flipped = rng.random(len(result)) < 0.5
      result[flipped] = np.flip(result[flipped], axis)
  if not (turn_degrees or shift_voxels or scale_range):
    return result
  moved = np.empty_like(result)
  middle = (np.array(result.shape[1:]) - 1) / 2
  for i, shape in enumerate(result):
    angle = np.deg2rad(rng.uniform(-turn_degrees, turn_degrees))
    scale = 1 + rng.uniform(-scale_range, scale_range)
    shift = rng.integers(-shift_voxels, shift_voxels + 1, 3)
    turn = np.array(
      [
        [np.cos(angle), -np.sin(angle), 0],
        [np.sin(angle), np.cos(angle), 0],
        [0, 0, 1],
      ]
    )
    matrix = turn / scale
    offset = middle - matrix @ (middle + shift)
    moved[i] = ndimage.affine_transform(shape, matrix, offset, order=1)
  return (moved > 0.35).astype(np.float32)


def balanced_indices(
  labels: np.ndarray, batch_size: int, step: int, seed: int
) -> np.ndarray:
  """Shapes of step `step`, drawn so that each class is equally probable.

  Args:
    labels: `(n,)`.
    batch_size: of a mini-batch.
    step: counts from 0.
    seed: of the draws.

  Returns:
    `(batch_size,)` indices.

  Raises:
    ValueError: when `batch_size` is not positive.

  >>> labels = np.repeat([0, 1], [999, 1])
  >>> bool((balanced_indices(labels, 100, 0, 0) == 999).sum() > 30)
  True
  """
  if batch_size < 1:
    raise ValueError(f'data.batch_size must be positive, got {batch_size}')
  share = 1 / np.bincount(labels)[labels]
  rng = np.random.default_rng((seed, 5, step))
  return rng.choice(len(labels), batch_size, p=share / share.sum())


def batch_indices(
  num_shapes: int,
  batch_size: int,
  step: int,
  seed: int,
  shuffle: bool = True,
  rollbacks: int = 0,
) -> Sequence[int]:
  """Which shapes step `step` sees: a function of the step alone.

  Each epoch is a new order; the last, incomplete mini-batch is left out.

  Args:
    num_shapes: of the training set.
    batch_size: of a mini-batch.
    step: counts from 0.
    seed: of the order.
    shuffle: False: the same order in each epoch, so that mini-batch i and
      slot i of a chain memory belong together.
    rollbacks: of the run so far; each gives other orders, so that also a run
      without noise takes another path.

  Raises:
    ValueError: when there are fewer shapes than a mini-batch needs.

  >>> sorted([*batch_indices(4, 2, 0, 0), *batch_indices(4, 2, 1, 0)])
  [0, 1, 2, 3]
  """
  if not 1 <= batch_size <= num_shapes:
    raise ValueError(
      f'data.batch_size must be from 1 to the number of training shapes, '
      f'{num_shapes}; got {batch_size}'
    )
  num_batches = num_shapes // batch_size
  epoch, position = divmod(step, num_batches)
  # The order of epoch e of a run that was never rolled back: (seed, e).
  entropy = (seed, epoch, rollbacks)[: 3 if rollbacks else 2]
  order = np.random.default_rng(entropy if shuffle else (seed, 0)).permutation(
    num_shapes
  )
  first = position * batch_size
  return order[first : first + batch_size].tolist()
