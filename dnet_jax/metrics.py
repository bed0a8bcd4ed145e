"""Metrics: how close two sets of shapes are, as the literature defines them.

Shapes are rows of a matrix here, `(n, voxels)`; distances are matrices
`(n, m)`. Everything is a few matrix products, so that hundreds of shapes
against thousands take seconds.
"""

import jax.numpy as jnp

from dnet_jax import types


def _rows(x: types.Array) -> types.Array:
  x = jnp.asarray(x, jnp.float32)
  return x.reshape(len(x), -1)


def squared_distances(a: types.Array, b: types.Array) -> types.Array:
  """Squared l2 distances in voxel space, as for Figure 2.

  Args:
    a: shapes `(n, ...)`.
    b: shapes `(m, ...)`.

  Returns:
    `(n, m)`, not negative.

  >>> squared_distances(jnp.zeros((1, 3)), jnp.ones((2, 3))).tolist()
  [[3.0, 3.0]]
  """
  a, b = _rows(a), _rows(b)
  product = jnp.matmul(a, b.T, precision='highest')
  squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * product
  return jnp.maximum(squared, 0)


def nearest_neighbours(
  queries: types.Array, shapes: types.Array
) -> types.Array:
  """Indices of the nearest shapes in l2 distance, as in Figure 2.

  Args:
    queries: `(n, ...)`.
    shapes: `(m, ...)`.

  Returns:
    `(n,)` indices into `shapes`.

  >>> nearest_neighbours(jnp.array([[0.9]]), jnp.array([[0.0], [1.0]])).item()
  1
  """
  return squared_distances(queries, shapes).argmin(axis=1)


def iou(a: types.Array, b: types.Array, threshold: float = 0.5) -> types.Array:
  """Intersection over union of thresholded voxels.

  Args:
    a: shapes `(n, ...)`.
    b: shapes `(m, ...)`.
    threshold: voxels above it are occupied.

  Returns:
    `(n, m)` in [0, 1]; two empty shapes have 1.

  >>> iou(jnp.array([[1.0, 1.0]]), jnp.array([[0.0, 1.0]])).item()
  0.5
  """
  a = (_rows(a) > threshold).astype(jnp.float32)
  b = (_rows(b) > threshold).astype(jnp.float32)
  both = jnp.matmul(a, b.T, precision='highest')
  either = a.sum(1)[:, None] + b.sum(1)[None] - both
  return jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0)


def mean_pairwise(similarity: types.Array) -> types.Array:
  """Mean of a square matrix without its diagonal: how alike a set is.

  >>> mean_pairwise(jnp.array([[1.0, 0.5], [0.25, 1.0]])).item()
  0.375
  """
  n = len(similarity)
  if n < 2:
    raise ValueError(f'a mean over pairs needs at least 2 shapes, got {n}')
  return (similarity.sum() - jnp.trace(similarity)) / (n * (n - 1))


def minimum_matching_distance(distance: types.Array) -> types.Array:
  """Mean over references of the distance to the nearest sample.

  Achlioptas et al., Learning Representations and Generative Models for 3D
  Point Clouds (ICML 2018).

  Args:
    distance: `(samples, references)`.

  >>> minimum_matching_distance(jnp.array([[1.0, 2.0], [3.0, 0.0]])).item()
  0.5
  """
  return distance.min(axis=0).mean()


def coverage(distance: types.Array) -> types.Array:
  """Share of references that are the nearest one of some sample.

  Achlioptas et al. (ICML 2018).

  Args:
    distance: `(samples, references)`.

  >>> coverage(jnp.array([[1.0, 2.0], [0.0, 3.0]])).item()
  0.5
  """
  matched = jnp.zeros(distance.shape[1]).at[distance.argmin(axis=1)].set(1.0)
  return matched.mean()


def nearest_neighbour_accuracy(
  within_samples: types.Array,
  within_references: types.Array,
  between: types.Array,
) -> types.Array:
  """Leave-one-out accuracy of telling samples from references by 1-NN.

  Lopez-Paz and Oquab (ICLR 2017); Yang et al., PointFlow (ICCV 2019). 0.5 is
  the best: the two sets cannot be told apart.

  Args:
    within_samples: distances `(n, n)`.
    within_references: distances `(m, m)`.
    between: distances `(n, m)`, samples by references.

  >>> near, far = jnp.full((2, 2), 0.1), jnp.ones((2, 2))
  >>> nearest_neighbour_accuracy(near, near, far).item()
  1.0
  """
  n, m = between.shape
  samples = within_samples + jnp.diag(jnp.full(n, jnp.inf))
  references = within_references + jnp.diag(jnp.full(m, jnp.inf))
  right_samples = samples.min(axis=1) < between.min(axis=1)
  right_references = references.min(axis=1) < between.min(axis=0)
  return (right_samples.sum() + right_references.sum()) / (n + m)
