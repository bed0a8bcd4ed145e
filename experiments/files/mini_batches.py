"""The mini-batch of a step: which shapes, and how they are moved."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


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
    scale_range: shapes are scaled by a factor from 1 - this to 1 + this.

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
    rollbacks: of the run so far. Each rollback changes the orders, so that a
      run without noise takes another path, too.

  Raises:
    ValueError: when there are fewer shapes than a mini-batch needs.

  >>> sorted([*batch_indices(4, 2, 0, 0), *batch_indices(4, 2, 1, 0)])
  [0, 1, 2, 3]
  """
  if not 1 <= batch_size <= num_shapes:
    raise ValueError(
      f'--config.data.batch_size must be from 1 to {num_shapes}, the number '
      f'of training shapes; got {batch_size}'
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
