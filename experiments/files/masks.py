"""Which voxels of input shapes are visible: True where one was observed."""

from collections.abc import Sequence
import pathlib

import numpy as np

from data_prep import mesh_files
from data_prep import volumes


def read(path: str, n: int) -> np.ndarray:
  """Reads which voxels of n shapes are visible: boolean `(n, D, H, W)`.

  Args:
    path: a .npy, or another file of voxels with one array.
    n: number of shapes.

  Raises:
    ValueError: when it cannot be read, or is of another number of shapes.
  """
  kind = mesh_files.file_type(path)
  if kind not in ('npz', *volumes.FORMATS):
    raise ValueError(f'--visible={path} must be a .npy, or another voxel file')
  try:
    visible = volumes.read(pathlib.Path(path).read_bytes(), kind)
  except OSError as error:
    raise ValueError(f'--visible={path}: {error.strerror}') from error
  except ValueError as error:
    raise ValueError(f'--visible={path}: {error}') from error
  if visible.dtype != bool and not np.isin(visible, (0, 1)).all():
    raise ValueError(
      f'--visible={path} must hold True or 1 where a voxel was observed, False '
      f'or 0 where not; it holds {visible[~np.isin(visible, (0, 1))][0]}'
    )
  visible = visible.astype(bool)
  if visible.ndim == 3:
    visible = np.repeat(visible[None], n, axis=0)
  if visible.ndim != 4 or len(visible) != n:
    raise ValueError(
      f'--visible={path} must be (D, H, W), or ({n}, D, H, W) for {n} shapes; '
      f'got {visible.shape}'
    )
  return visible


def check(visible: np.ndarray, shape: Sequence[int]) -> None:
  """Checks which voxels of each shape are visible.

  Args:
    visible: boolean `(n, D, H, W)`.
    shape: `(D, H, W)`.

  Raises:
    ValueError: for another shape, where nothing is hidden, or everything.
  """
  if visible.shape[1:] != tuple(shape):
    raise ValueError(
      f'visible has shape {visible.shape[1:]}, the grid of the model is '
      f'{tuple(shape)}'
    )
  counts = visible.reshape(len(visible), -1).sum(axis=1)
  if (counts == visible[0].size).any():
    raise ValueError(
      'nothing is hidden, so there is nothing to recover: visible must be '
      'False where a voxel was not observed'
    )
  if (counts == 0).any():
    raise ValueError(
      'everything is hidden, so there is nothing to recover from: visible must '
      'be True where a voxel was observed; --mode=sample makes new shapes'
    )
