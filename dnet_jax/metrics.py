"""Metrics: how close two sets of shapes are, as the literature defines them.

Shapes are rows of a matrix here, `(n, voxels)`; distances are matrices
`(n, m)`; a classifier gives probabilities `(n, classes)` and features
`(n, d)`. Everything is a few matrix products, so comparing hundreds of shapes
with thousands takes seconds.
"""

import math

import jax
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

  Raises:
    ValueError: for fewer than 2 shapes.

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


def recovery_error(
  y: types.Array,
  y_true: types.Array,
  visible: types.Array,
  threshold: float | None = None,
) -> types.Array:
  """Mean absolute difference over the corrupted voxels of a shape, Table 4.

  Args:
    y: recovered shapes `(n, ...)`.
    y_true: the original ones, likewise.
    visible: boolean, likewise; the error is over the voxels that are hidden.
    threshold: voxels above it are occupied, in both; None: real values are
      compared as they are.

  Returns:
    `(n,)`, one error for each shape; NaN for a shape without hidden voxels.

  Raises:
    ValueError: when the three arrays differ in shape.

  >>> y, visible = jnp.array([[0.25, 9.0]]), jnp.array([[False, True]])
  >>> recovery_error(y, jnp.ones((1, 2)), visible).item()
  0.75
  >>> recovery_error(y, jnp.ones((1, 2)), visible, threshold=0.5).item()
  1.0
  """
  y, y_true, visible = jnp.asarray(y), jnp.asarray(y_true), jnp.asarray(visible)
  if not y.shape == y_true.shape == visible.shape:
    raise ValueError(
      'recovered shapes, original shapes and visible must have one shape, got '
      f'{y.shape}, {y_true.shape} and {visible.shape}'
    )
  if threshold is not None:
    y, y_true = y > threshold, y_true > threshold
  difference = jnp.abs(_rows(y) - _rows(y_true))
  hidden = ~visible.reshape(len(visible), -1).astype(bool)
  return jnp.where(hidden, difference, 0).sum(1) / hidden.sum(1)


def inception_score(
  probabilities: types.Array, splits: int = 1
) -> tuple[types.Array, types.Array]:
  """`exp(E KL(p(c|Y) || p(c)))`, section 6.1, Table 1.

  Salimans et al., Improved Techniques for Training GANs (NeurIPS 2016).

  Args:
    probabilities: p(c|Y), `(n, classes)`; rows in random order, since they
      are split in the order given.
    splits: parts of (nearly) equal size, each of which gets a score.

  Returns:
    Mean and standard deviation over the parts; both `()`. The score is from
    1 (all shapes classified alike) to the number of classes.

  Raises:
    ValueError: when there are fewer shapes than splits.

  >>> [round(x.item(), 4) for x in inception_score(jnp.eye(10))]
  [10.0, 0.0]
  """
  if not 1 <= splits <= len(probabilities):
    raise ValueError(
      f'splits must be from 1 to the number of shapes, {len(probabilities)}; '
      f'got {splits}'
    )
  scores = []
  for p in jnp.array_split(jnp.asarray(probabilities), splits):
    # 0 log 0 = 0; where p(c) = 0, p(c|Y) = 0 as well.
    divergence = jax.scipy.special.rel_entr(p, p.mean(axis=0)).sum(axis=1)
    scores.append(jnp.exp(divergence.mean()))
  stacked = jnp.stack(scores)
  return stacked.mean(), stacked.std()


def class_probability(probabilities: types.Array, label: int) -> types.Array:
  """Mean probability of the class that was meant, Table 2.

  Args:
    probabilities: `(n, classes)`.
    label: index of the class.

  >>> class_probability(jnp.array([[0.5, 0.5], [0.0, 1.0]]), 1).item()
  0.75
  """
  return jnp.asarray(probabilities)[:, label].mean()


def classification_error(probabilities: types.Array, label: int) -> types.Array:
  """Share of shapes whose most probable class is another one, Table 3.

  Args:
    probabilities: `(n, classes)`.
    label: index of the class that was meant.

  >>> classification_error(jnp.array([[0.6, 0.4], [0.0, 1.0]]), 1).item()
  0.5
  """
  return (jnp.asarray(probabilities).argmax(axis=1) != label).mean()


def frechet_distance(a: types.Array, b: types.Array) -> types.Array:
  """Squared Frechet distance of Gaussians fitted to two sets of features.

  `|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))`; Heusel et al. (NeurIPS 2017).
  The trace of the root is the sum of the singular values of `R R'^T` with
  `S = R^T R` from a QR decomposition: no square root of a rounding error, and
  sets may be smaller than the number of features (but their distances are
  biased upwards: compare sets of equal size).

  Args:
    a: features `(n, d)`, n at least 2.
    b: features `(m, d)`, m at least 2.

  Returns:
    `()`, not negative.

  Raises:
    ValueError: for a set of fewer than 2, or different numbers of features.

  >>> a = jnp.array([[0.0], [2.0]])
  >>> round(frechet_distance(a, a + 3).item(), 4)
  9.0
  """
  a, b = _rows(a), _rows(b)
  if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
    raise ValueError(
      'two sets of at least 2 feature vectors of one length are needed, got '
      f'{a.shape} and {b.shape}'
    )
  mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
  a = (a - mean_a) / math.sqrt(len(a) - 1)
  b = (b - mean_b) / math.sqrt(len(b) - 1)
  product = jnp.matmul(
    jnp.linalg.qr(a, mode='r'),
    jnp.linalg.qr(b, mode='r').T,
    precision='highest',
  )
  root = jnp.linalg.svd(product, compute_uv=False).sum()
  squared = ((mean_a - mean_b) ** 2).sum() + (a**2).sum() + (b**2).sum()
  return jnp.maximum(squared - 2 * root, 0)


def surface(y: types.Array, threshold: float = 0.5) -> types.Array:
  """Surface voxels: occupied ones that share a face with a free one.

  Args:
    y: shapes `(*chains, D, H, W)`; outside the grid is free.
    threshold: voxels above it are occupied.

  Returns:
    Boolean, of the shape of `y`.

  >>> int(surface(jnp.ones((4, 4, 4))).sum())  # all but the inner 2^3
  56
  """
  occupied = jnp.asarray(y) > threshold
  inside = occupied
  for axis in range(occupied.ndim - 3, occupied.ndim):
    n = occupied.shape[axis]
    pads = [(0, 0)] * occupied.ndim
    pads[axis] = (1, 1)
    padded = jnp.pad(occupied, pads)
    for first in (0, 2):
      inside &= jax.lax.slice_in_dim(padded, first, first + n, axis=axis)
  return occupied & ~inside


def squared_distance_transform(points: types.Array) -> types.Array:
  """Squared distance of each voxel to the nearest point, exactly.

  One axis after the other: `d(i) = min_j f(j) + (i - j)^2`, Felzenszwalb and
  Huttenlocher (2012), here over all pairs.

  Args:
    points: boolean `(D, H, W)`.

  Returns:
    `(D, H, W)` float32 in voxels squared; infinite without a point.

  >>> squared_distance_transform(jnp.eye(3)[None] > 0)[0, 0].tolist()
  [0.0, 1.0, 2.0]
  """
  d = jnp.where(points, 0.0, jnp.inf)
  for axis, n in enumerate(points.shape):
    i = jnp.arange(n, dtype=jnp.float32)
    squared = (i[:, None] - i[None]) ** 2
    f = jnp.moveaxis(d, axis, -1)
    d = jnp.moveaxis((f[..., None, :] + squared).min(axis=-1), -1, axis)
  return d


def chamfer_distances(
  a: types.Array, b: types.Array, threshold: float = 0.5
) -> types.Array:
  """Chamfer distances of surfaces: `mean min |p - q|^2`, both ways, summed.

  Achlioptas et al. (ICML 2018). The points are the centres of all surface
  voxels, not a random sample of them; a distance transform of each shape,
  read at the points of all others, is a matrix product, and exact.

  Args:
    a: shapes `(n, D, H, W)`.
    b: shapes `(m, D, H, W)`.
    threshold: voxels above it are occupied.

  Returns:
    `(n, m)`, in units where the longest side of the grid is 1. An empty shape
    is as far from any other as the diagonal of the grid, both ways; two empty
    ones have distance 0.

  Raises:
    ValueError: when the grids differ.

  >>> y = jnp.zeros((2, 4, 4, 4)).at[0, 0, 0, 0].set(1).at[1, 0, 0, 2].set(1)
  >>> chamfer_distances(y, y).tolist()
  [[0.0, 0.5], [0.5, 0.0]]
  """
  a, b = _two_sets(a, b)
  sides = a.shape[1:]
  farthest = float(sum((side - 1) ** 2 for side in sides))
  distance_a, weight_a, empty_a = _surfaces(a, threshold)
  distance_b, weight_b, empty_b = _surfaces(b, threshold)
  distance_a, distance_b = (
    jnp.minimum(x, farthest) for x in (distance_a, distance_b)
  )
  there = jnp.matmul(weight_a, distance_b.T, precision='highest')
  back = jnp.matmul(distance_a, weight_b.T, precision='highest')
  one_empty = empty_a[:, None] | empty_b[None]
  two_empty = empty_a[:, None] & empty_b[None]
  distance = jnp.where(one_empty, 2 * farthest, there + back)
  return jnp.where(two_empty, 0.0, distance) / max(sides) ** 2


def f_scores(
  a: types.Array,
  b: types.Array,
  distance: float = 1.0,
  threshold: float = 0.5,
) -> types.Array:
  """F-scores of surfaces: of the shares that lie near to the other surface.

  Tatarchenko et al. (CVPR 2019): the harmonic mean of the share of the points
  of a that are within a distance of b, and of the share of those of b that are
  within that distance of a. Points are the centres of all surface voxels.

  Args:
    a: shapes `(n, D, H, W)`.
    b: shapes `(m, D, H, W)`.
    distance: in voxels.
    threshold: voxels above it are occupied.

  Returns:
    `(n, m)` in [0, 1]. An empty shape has 0 with any other, and 1 with another
    empty one.

  Raises:
    ValueError: when the grids differ.

  >>> y = jnp.zeros((2, 4, 4, 4)).at[0, 0, 0, 0].set(1).at[1, 0, 0, :3].set(1)
  >>> [[round(float(x), 3) for x in row] for row in f_scores(y, y)]
  [[1.0, 0.8], [0.8, 1.0]]
  """
  a, b = _two_sets(a, b)
  distance_a, weight_a, empty_a = _surfaces(a, threshold)
  distance_b, weight_b, empty_b = _surfaces(b, threshold)
  near_a, near_b = (
    (x <= distance**2).astype(jnp.float32) for x in (distance_a, distance_b)
  )
  precision = jnp.matmul(weight_a, near_b.T, precision='highest')
  recall = jnp.matmul(near_a, weight_b.T, precision='highest')
  total = precision + recall
  score = 2 * precision * recall / jnp.where(total > 0, total, 1.0)
  return jnp.where(empty_a[:, None] & empty_b[None], 1.0, score)


def _two_sets(a, b):
  """Two sets of shapes on one grid."""
  if a.ndim != 4 or b.ndim != 4 or a.shape[1:] != b.shape[1:]:
    raise ValueError(
      'distances of surfaces need shapes (n, D, H, W) on one grid, got '
      f'{a.shape} and {b.shape}'
    )
  return jnp.asarray(a), jnp.asarray(b)


def _surfaces(y, threshold):
  """Of each voxel the squared distance to the surface; weights of its points.

  Returns:
    Distances and weights `(n, D H W)`, and which shapes have no surface.
  """
  points = surface(y, threshold)
  # One shape at a time: the transform compares all voxels of a line.
  distance = _rows(jax.lax.map(squared_distance_transform, points))
  number = points.sum(axis=(1, 2, 3))
  weight = _rows(points) / jnp.maximum(number, 1)[:, None]
  return distance, weight, number == 0


def jensen_shannon_divergence(
  a: types.Array, b: types.Array, threshold: float = 0.5
) -> types.Array:
  """Divergence between where the surfaces of two sets of shapes lie, in bits.

  Achlioptas et al. (ICML 2018). It compares the two distributions of surface
  points over the grid, in which each shape has the same weight. Our grid is
  that of the voxels, theirs has 28^3 cells.

  Args:
    a: shapes `(n, D, H, W)`.
    b: shapes `(m, D, H, W)`; empty shapes do not count.
    threshold: voxels above it are occupied.

  Returns:
    `()` in [0, 1]; 1 as well when all shapes of one set are empty.

  >>> y = jnp.zeros((2, 4, 4, 4)).at[0, 0, 0, 0].set(1).at[1, 0, 0, 2].set(1)
  >>> jensen_shannon_divergence(y[:1], y[1:]).item()
  1.0
  """

  def distribution(y):
    points = _rows(surface(y, threshold))
    number = points.sum(axis=1, keepdims=True)
    p = (points / jnp.maximum(number, 1)).sum(axis=0)
    return p / jnp.maximum(p.sum(), 1e-30)

  p, q = distribution(a), distribution(b)
  middle = (p + q) / 2
  entr = jax.scipy.special.rel_entr
  divergence = (entr(p, middle) + entr(q, middle)).sum() / 2 / math.log(2)
  both = (p.sum() > 0) & (q.sum() > 0)
  return jnp.where(both, jnp.clip(divergence, 0, 1), 1.0)


def duplicates(similarity: types.Array, threshold: float = 0.95) -> types.Array:
  """Share of shapes that repeat an earlier one of their set.

  Args:
    similarity: `(n, n)`, of a set with itself, such as its IoU.
    threshold: two shapes at least this similar count as the same.

  >>> round(duplicates(jnp.ones((3, 3))).item(), 4)
  0.6667
  """
  earlier = jnp.tril(jnp.ones(similarity.shape, bool), -1)
  return (earlier & (similarity >= threshold)).any(axis=1).mean()
