"""Data: voxel shapes of one category or all, and the mini-batch of a step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_prep import furniture
from data_prep import voxel_file


class Dataset(NamedTuple):
  """Voxel shapes in [0, 1], and what is subtracted from them.

  Attributes:
    train: `(n, D, H, W)`.
    test: `(m, D, H, W)`; may be empty.
    mean: one number, the mean of all training voxels: the paper's centering.
    source: what it is, for people.
  """

  train: np.ndarray
  test: np.ndarray
  mean: float
  source: str


def load(
  path: str,
  category: str,
  *,
  furniture_size: int = 32,
  furniture_shapes: int = 100,
) -> Dataset:
  """Loads one category, or 'all', of a voxel file or of the furniture.

  Args:
    path: a voxel file (.npz, see data_prep/voxel_file.py); empty: the
      embedded furniture.
    category: a class of it, or 'all'.
    furniture_size: voxels a side, where path is empty.
    furniture_shapes: training shapes of a category, likewise.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for an unknown category, a category without training shapes, a
      file that breaks the format.
  """
  classes = None if category == 'all' else (category,)
  if path:
    data = voxel_file.load(path, classes=classes)
    source = f'{category} of {path.rpartition("/")[2]}'
  else:
    data = furniture.make_furniture(
      size=furniture_size,
      num_train=furniture_shapes,
      num_test=max(furniture_shapes // 4, 1),
      categories=classes,
    )
    source = f'{category} of the embedded furniture'
  train = data.voxels.get('train')
  if train is None or not len(train):
    raise ValueError(f'{path or "the furniture"} has no training shapes')
  test = data.voxels.get('test', train[:0])
  return Dataset(train, test, float(train.mean(dtype=np.float64)), source)


def centred(voxels: np.ndarray, mean: float) -> np.ndarray:
  """Voxels less the mean, as a network takes them: `(n, D, H, W, 1)` float32.

  >>> centred(np.ones((2, 4, 4, 4)), 0.25).max().item()
  0.75
  """
  return voxels[..., None].astype(np.float32) - np.float32(mean)


def batch_indices(
  num_shapes: int, batch_size: int, step: int, seed: int, shuffle: bool = True
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
  order = np.random.default_rng((seed, epoch if shuffle else 0)).permutation(
    num_shapes
  )
  first = position * batch_size
  return order[first : first + batch_size].tolist()
