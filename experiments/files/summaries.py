"""What a model keeps of its data for chains to start from."""

import numpy as np
from sklearn import cluster

from experiments.files import packed as packing

# Shapes of a group of `principal_components` that are not its own.
_PRIOR_SHAPES = 5


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
