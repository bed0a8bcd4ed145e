"""What a model keeps of its data for chains to start from."""

import numpy as np
from scipy import stats

import dnet_jax
from experiments.files import packed as packing


def principal_components(
  y: np.ndarray, number: int, neighbours: int = 0
) -> dict[str, np.ndarray]:
  """Principal components of shapes, and where the shapes lie along them.

  Args:
    y: `(n, D, H, W, C)`, as a network sees them.
    number: of components.
    neighbours: how many of the nearest shapes a draw may combine one with;
      0: all.

  Returns:
    The fields of `dnet_jax.Components`.

  Raises:
    ValueError: for more components than a third of the number of shapes, with
      which draws would be copies.

  >>> y = np.random.default_rng(0).normal(size=(20, 2, 2, 2, 1))
  >>> found = principal_components(y, 3)
  >>> found['directions'].shape, found['coordinates'].shape
  ((3, 2, 2, 2, 1), (20, 3))
  """
  if not 1 <= number <= max(len(y) // 3, 1):
    raise ValueError(
      'components.number must be at least 1 and at most the number of '
      f'training shapes, {len(y)}, divided by 3; got {number}'
    )
  shape = y.shape[1:]
  rows = y.reshape(len(y), -1).astype(np.float32)
  mean = rows.mean(axis=0)
  rows = rows - mean
  # From the matrix of products of shapes: there are fewer shapes than voxels.
  squares, basis = np.linalg.eigh((rows @ rows.T).astype(np.float64))
  order = np.argsort(squares)[::-1][:number]
  scale = np.sqrt(np.maximum(squares[order], 0))
  directions = (basis[:, order] / np.maximum(scale, 1e-12)).T @ rows
  found = {
    'mean': mean.reshape(shape),
    'directions': directions.reshape(number, *shape),
    'coordinates': basis[:, order] * scale,
    'neighbours': np.array(neighbours or max(len(y) - 1, 1)),
  }
  return {name: x.astype(np.float32) for name, x in found.items()}


def bounding_boxes(
  found: dict[str, np.ndarray], threshold: float
) -> np.ndarray:
  """The boxes of the shapes as their components give them back.

  Args:
    found: of `principal_components`.
    threshold: voxels above it are inside, as a network sees them.

  Returns:
    `(n, 3, 2)` float32, see `dnet_jax.grids.bounding_boxes`.

  >>> y = np.random.default_rng(0).normal(size=(20, 2, 2, 2, 1))
  >>> bounding_boxes(principal_components(y, 3), 0.0).shape
  (20, 3, 2)
  """
  mean = np.asarray(found['mean'])
  rows = np.asarray(found['directions']).reshape(-1, mean.size)
  # Some at a time: all shapes are many gigabytes as numbers.
  return np.concatenate(
    [
      dnet_jax.grids.bounding_boxes(
        mean + (some @ rows).reshape(-1, *mean.shape), threshold
      )
      for some in packing.chunks(np.asarray(found['coordinates']))
    ]
  )


def latent_codes(y: np.ndarray, number: int, width: int) -> np.ndarray:
  """Latent factors of shapes: where these lie along principal components.

  Along each component the coordinates become normal by their ranks. Each code
  then gets the length that draws of N(0, I) have, sqrt(number): without that
  a code near the origin is the nearest of most draws.

  Args:
    y: `(n, D, H, W, C)`, as a network sees them.
    number: of components.
    width: d, length of z. Factors beyond `number` are 0.

  Returns:
    `(n, width)` float32.

  Raises:
    ValueError: as `principal_components`; or for more components than factors.

  >>> y = np.random.default_rng(0).normal(size=(20, 2, 2, 2, 1))
  >>> codes = latent_codes(y, 4, 5)
  >>> codes.shape, round(float(np.linalg.norm(codes[0])), 3)
  ((20, 5), 2.0)
  """
  if number > width:
    raise ValueError(
      f'components.number = {number} must be at most generator.latent_dim = '
      f'{width}'
    )
  coordinates = principal_components(y, number)['coordinates']
  quantiles = (stats.rankdata(coordinates, axis=0) - 0.5) / len(y)
  codes = np.zeros((len(y), width), np.float32)
  codes[:, :number] = stats.norm.ppf(quantiles)
  lengths = np.linalg.norm(codes, axis=1, keepdims=True)
  # The median shape along a single component is at 0, and stays there.
  lengths = np.maximum(lengths, np.finfo(np.float32).tiny)
  return codes * (np.float32(np.sqrt(number)) / lengths)


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
