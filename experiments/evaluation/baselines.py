"""Guesses without a model, which recovery and super-resolution must beat.

Voxels are `(n, D, H, W)` in [0, 1] here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

import dnet_jax
from dnet_jax import corruptions
from dnet_jax import metrics
from experiments import batches

_local_average = jax.jit(corruptions.local_average)
_sharpened = jax.jit(
  functools.partial(dnet_jax.sharpen, num_steps=10), static_argnames='factor'
)
_SIGMAS = (0.5, 0.6, 0.7, 0.8, 1.0, 1.5, 2.0)  # In voxels.


def downscale(voxels: np.ndarray, factor: int) -> np.ndarray:
  """Block averages of `(n, D, H, W)`, C of section 6.3.

  >>> downscale(np.ones((1, 4, 4, 4)), 2).shape
  (1, 2, 2, 2)
  """
  y = jnp.asarray(voxels, jnp.float32)[..., None]
  return np.asarray(dnet_jax.downscale(y, factor))[..., 0]


def smoothed(
  voxels: np.ndarray, visible: np.ndarray, sigma: float, fallback: np.ndarray
) -> np.ndarray:
  """Each voxel as the Gaussian average of the visible ones around it.

  Args:
    voxels: `(n, D, H, W)`.
    visible: boolean, likewise.
    sigma: of the Gaussian, in voxels.
    fallback: `(D, H, W)`, for places where no visible voxel is near.
  """
  y = jnp.asarray(voxels, jnp.float32)[..., None]
  average = _local_average(y, visible[..., None], sigma, fallback[..., None])
  return np.asarray(average)[..., 0]


def nearest_visible(
  voxels: np.ndarray, visible: np.ndarray, train: np.ndarray
) -> np.ndarray:
  """For each shape the training shape that fits its visible voxels best.

  Args:
    voxels: `(n, D, H, W)`.
    visible: boolean, likewise.
    train: `(m, D, H, W)`.
  """
  seen = visible.reshape(len(visible), -1).astype(np.float32)
  y = voxels.reshape(len(voxels), -1).astype(np.float32)
  rows = train.reshape(len(train), -1)
  # Up to a term that is the same for all training shapes.
  distance = np.empty((len(y), len(rows)), np.float32)
  for i in range(0, len(rows), 100):
    x = rows[i : i + 100].astype(np.float32)
    distance[:, i : i + 100] = seen @ (x**2).T - 2 * (seen * y) @ x.T
  return train[distance.argmin(axis=1)].astype(np.float32)


def trilinear(low: np.ndarray, factor: int) -> np.ndarray:
  """Enlarges `(n, D, H, W)` by linear interpolation between block centres.

  >>> trilinear(np.ones((1, 2, 2, 2)), 4).shape
  (1, 8, 8, 8)
  """
  return ndimage.zoom(
    np.asarray(low, np.float32),
    (1, factor, factor, factor),
    order=1,
    mode='grid-constant',
    grid_mode=True,
  )


def sharpened(y: np.ndarray, low: np.ndarray, factor: int) -> np.ndarray:
  """`(n, D, H, W)` as `dnet_jax.sharpen` makes them, some at a time.

  >>> sharpened(np.ones((1, 2, 2, 2)), np.full((1, 1, 1, 1), 0.25), 2).sum()
  np.float32(2.0)
  """
  return batches.map_batches(
    lambda y, low: _sharpened(y[..., None], low[..., None], factor)[..., 0],
    np.asarray(y, np.float32),
    np.asarray(low, np.float32),
  )


def recovery(
  voxels: np.ndarray,
  visible: np.ndarray,
  train: np.ndarray,
  train_visible: np.ndarray,
) -> dict[str, np.ndarray]:
  """Guesses of hidden voxels, by name; visible ones are as they were given.

  Args:
    voxels: `(n, D, H, W)`; only visible ones are read.
    visible: boolean, likewise.
    train: training shapes `(m, D, H, W)`.
    train_visible: boolean `(k, D, H, W)`, the voxels that the same corruption
      leaves visible in the first k of them. They are used to choose the width
      of the local average.
  """
  mean = train.mean(axis=0, dtype=np.float32)
  some = train[: len(train_visible)].astype(np.float32)

  def badness(sigma):
    filled = smoothed(some, train_visible, sigma, mean)
    return ((filled > 0.5) != (some > 0.5))[~train_visible].mean()

  sigma = min(_SIGMAS, key=badness)
  filled = {
    'mean shape': np.broadcast_to(mean, voxels.shape),
    'nearest training shape': nearest_visible(voxels, visible, train),
    'local average': smoothed(voxels, visible, sigma, mean),
  }
  return {
    name: np.where(visible, voxels, guess) for name, guess in filled.items()
  }


def super_resolution(
  low: np.ndarray, factor: int, train: np.ndarray
) -> dict[str, np.ndarray]:
  """Guesses `(n, D, H, W)` of shapes whose block averages are known, by name.

  Args:
    low: averages `(n, D / factor, H / factor, W / factor)`.
    factor: d, ratio of the sides.
    train: training shapes `(m, D, H, W)`.
  """
  nearest = np.asarray(
    metrics.nearest_neighbours(low, downscale(train, factor))
  )
  linear = trilinear(low, factor)
  repeated = np.asarray(dnet_jax.upscale(jnp.asarray(low)[..., None], factor))
  return {
    'block repeat': repeated[..., 0],
    'trilinear': linear,
    'trilinear, sharpened': sharpened(linear, low, factor),
    'nearest training shape': train[nearest].astype(np.float32),
    'mean shape': np.broadcast_to(
      train.mean(axis=0, dtype=np.float32), (len(low), *train.shape[1:])
    ),
  }
