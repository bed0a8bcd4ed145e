import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg
from scipy import ndimage
from scipy import spatial
from sklearn import metrics as sk_metrics
from sklearn import neighbors

from dnet_jax import metrics
from tests import reference

# Compiled as a whole: op by op takes most of the time.
JITTED = types.SimpleNamespace(
  iou=jax.jit(metrics.iou),
  nearest_neighbour_accuracy=jax.jit(metrics.nearest_neighbour_accuracy),
  recovery_error=jax.jit(metrics.recovery_error),
  inception_score=jax.jit(metrics.inception_score, static_argnames='splits'),
  frechet_distance=jax.jit(metrics.frechet_distance),
  surface=jax.jit(metrics.surface),
  squared_distance_transform=jax.jit(metrics.squared_distance_transform),
  chamfer_distances=jax.jit(metrics.chamfer_distances),
  f_scores=jax.jit(metrics.f_scores, static_argnames='distance'),
  jensen_shannon_divergence=jax.jit(metrics.jensen_shannon_divergence),
)


@pytest.fixture
def shapes():
  rng = np.random.default_rng(0)
  a = rng.random((7, 3, 3, 3, 1)) < 0.4
  b = rng.random((9, 3, 3, 3, 1)) < 0.6
  return a, b


def test_iou(shapes):
  a, b = shapes
  expected = reference.pairwise(reference.iou, a, b)
  values = JITTED.iou(a.astype(np.float32), b.astype(np.float32))
  np.testing.assert_allclose(values, expected, rtol=1e-6)
  # The threshold, an empty shape beside a full one, and two empty ones.
  empty, full = jnp.zeros((1, 4)), jnp.full((1, 4), 0.3)
  assert JITTED.iou(full, full, threshold=0.3).item() == 1.0
  assert JITTED.iou(empty, full, threshold=0.2).item() == 0.0
  assert JITTED.iou(empty, empty).item() == 1.0
  diagonal = np.diag(JITTED.iou(a, a))
  np.testing.assert_array_equal(diagonal, np.ones(len(a)))


def test_squared_distances_and_nearest_neighbours():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(5, 2, 3, 4, 1)), rng.normal(size=(6, 2, 3, 4, 1))
  flat = a.reshape(5, -1), b.reshape(6, -1)
  expected = sk_metrics.pairwise_distances(*flat) ** 2
  distance = metrics.squared_distances(a, b)
  np.testing.assert_allclose(distance, expected, rtol=1e-4)
  assert float(metrics.squared_distances(a, a).min()) >= 0
  index = neighbors.NearestNeighbors(n_neighbors=1).fit(flat[1])
  expected = index.kneighbors(flat[0], return_distance=False)[:, 0]
  np.testing.assert_array_equal(metrics.nearest_neighbours(a, b), expected)


def test_sets_of_shapes_against_brute_force(shapes):
  a, b = shapes
  everything = np.concatenate([a, b])
  distance = 1 - reference.pairwise(reference.iou, everything, everything)
  n = len(a)
  within_a, within_b = distance[:n, :n], distance[n:, n:]
  between = distance[:n, n:]
  arrays = [jnp.asarray(d) for d in (within_a, within_b, between)]
  np.testing.assert_allclose(
    metrics.minimum_matching_distance(arrays[2]),
    reference.minimum_matching_distance(between),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    metrics.coverage(arrays[2]), reference.coverage(between), rtol=1e-6
  )
  np.testing.assert_allclose(
    metrics.mean_pairwise(1 - arrays[0]),
    (1 - within_a)[~np.eye(n, dtype=bool)].mean(),
    rtol=1e-6,
  )


def test_nearest_neighbour_accuracy_against_brute_force_and_sklearn():
  rng = np.random.default_rng(3)
  a, b = rng.normal(size=(20, 2)), rng.normal(size=(24, 2)) + 0.5
  everything = np.concatenate([a, b])
  distance = sk_metrics.pairwise_distances(everything)
  expected = reference.nearest_neighbour_accuracy(distance, len(a))
  value = JITTED.nearest_neighbour_accuracy(
    jnp.asarray(distance[:20, :20]),
    jnp.asarray(distance[20:, 20:]),
    jnp.asarray(distance[:20, 20:]),
  )
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  label = np.repeat([0, 1], [20, 24])
  index = neighbors.NearestNeighbors(n_neighbors=1).fit(everything)
  nearest = index.kneighbors(return_distance=False)[:, 0]
  np.testing.assert_allclose(value, (label[nearest] == label).mean(), rtol=1e-6)
  far = JITTED.nearest_neighbour_accuracy(
    jnp.zeros((3, 3)), jnp.zeros((4, 4)), jnp.ones((3, 4))
  )
  assert far.item() == 1.0


def test_one_shape_has_no_pairs():
  with pytest.raises(ValueError, match='at least 2'):
    metrics.mean_pairwise(jnp.ones((1, 1)))


def test_recovery_error_against_brute_force():
  rng = np.random.default_rng(0)
  y, y_true = rng.random((2, 3, 4, 4, 4, 1))
  visible = rng.random(y.shape) < 0.3
  np.testing.assert_allclose(
    JITTED.recovery_error(y, y_true, visible),
    reference.recovery_error(y, y_true, visible),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    JITTED.recovery_error(y, y_true, visible, threshold=0.5),
    reference.recovery_error(y > 0.5, y_true > 0.5, visible),
    rtol=1e-5,
  )
  # What is visible does not count, and what hides nothing has no error.
  other = np.where(visible, y + 7, y)
  assert JITTED.recovery_error(other, y, visible).max() == 0
  assert jnp.isnan(JITTED.recovery_error(y, y_true, visible | True)).all()
  with pytest.raises(ValueError, match=r'\(2, 4, 4, 4, 1\)'):
    JITTED.recovery_error(y[:2], y_true, visible)


def test_inception_score_against_brute_force():
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.full(6, 0.3), 40)
  p[0] = np.eye(6)[2]  # 0 log 0
  mean, std = JITTED.inception_score(p, splits=3)
  parts = [reference.inception_score(q) for q in (p[:14], p[14:27], p[27:])]
  np.testing.assert_allclose(mean, np.mean(parts), rtol=1e-5)
  np.testing.assert_allclose(std, np.std(parts), rtol=1e-4)
  # Its floor and its ceiling.
  alike = np.tile(p[:1], (20, 1))
  np.testing.assert_allclose(JITTED.inception_score(alike)[0], 1, rtol=1e-6)
  certain = np.eye(6)[rng.permutation(np.repeat(np.arange(6), 5))]
  np.testing.assert_allclose(JITTED.inception_score(certain)[0], 6, rtol=1e-6)
  with pytest.raises(ValueError, match='41'):
    JITTED.inception_score(p, splits=41)


def test_class_probability_and_classification_error():
  rng = np.random.default_rng(1)
  p = rng.dirichlet(np.ones(4), 30)
  assert metrics.class_probability(p, 2).item() == pytest.approx(p[:, 2].mean())
  wrong = 1 - sk_metrics.accuracy_score(np.full(30, 2), p.argmax(1))
  assert metrics.classification_error(p, 2).item() == pytest.approx(wrong)


@pytest.mark.parametrize('sizes', [(60, 50), (4, 6)], ids=['full', 'singular'])
def test_frechet_distance_against_scipy(sizes):
  # Fewer shapes than features: covariances without an inverse.
  rng = np.random.default_rng(2)
  n, m = sizes
  a = rng.normal(size=(n, 8)) @ rng.normal(size=(8, 8))
  b = rng.normal(size=(m, 8)) @ rng.normal(size=(8, 8)) + 1
  cov_a, cov_b = np.cov(a.T), np.cov(b.T)
  values = linalg.eigvals(cov_a @ cov_b)
  root = np.sqrt(np.maximum(values.real, 0)).sum()
  expected = ((a.mean(0) - b.mean(0)) ** 2).sum()
  expected += np.trace(cov_a) + np.trace(cov_b) - 2 * root
  distance = JITTED.frechet_distance(a, b)
  np.testing.assert_allclose(distance, expected, rtol=1e-4)
  scale = np.trace(cov_a)
  assert JITTED.frechet_distance(a, a).item() < 1e-5 * scale
  with pytest.raises(ValueError, match=r'\(1, 8\)'):
    JITTED.frechet_distance(a[:1], b)


def test_surface_and_distance_transform_against_scipy(shapes):
  rng = np.random.default_rng(3)
  grids = rng.random((4, 5, 6, 7)) < 0.5
  for grid, surface in zip(grids, JITTED.surface(grids), strict=True):
    points = np.argwhere(surface)
    np.testing.assert_array_equal(points, reference.surface(grid))
    expected = ndimage.distance_transform_edt(~np.asarray(surface)) ** 2
    np.testing.assert_allclose(
      JITTED.squared_distance_transform(surface), expected, rtol=1e-6
    )


def test_chamfer_distances_against_brute_force():
  rng = np.random.default_rng(4)
  a = rng.random((3, 5, 6, 4)) < 0.05
  b = rng.random((4, 5, 6, 4)) < 0.4
  b[0] = True
  assert a.any((1, 2, 3)).all()
  expected = reference.pairwise(reference.chamfer, a, b)
  np.testing.assert_allclose(JITTED.chamfer_distances(a, b), expected, 1e-5)
  # Empty shapes: far from all others, and equal to each other.
  empty = np.zeros((1, 5, 6, 4))
  both = JITTED.chamfer_distances(empty, np.concatenate([empty, b]))
  assert both[0, 0] == 0 and (both[0, 1:] > expected.max()).all()
  with pytest.raises(ValueError, match=r'\(4, 5, 6, 4\)'):
    JITTED.chamfer_distances(a[:, :4], b)


@pytest.mark.parametrize('distance', [0.0, 1.0, 1.5])
def test_f_scores_against_brute_force(distance):
  rng = np.random.default_rng(4)
  a = rng.random((3, 5, 6, 4)) < 0.05
  b = rng.random((4, 5, 6, 4)) < 0.4
  b[0], b[1] = a[1], False
  b[1, 4, 5, 3] = True
  assert a.any((1, 2, 3)).all()
  expected = reference.pairwise(
    lambda x, y: reference.f_score(x, y, distance), a, b
  )
  found = JITTED.f_scores(a, b, distance=distance)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert found[1, 0] == 1 and (expected < 1).any()
  empty = np.zeros((1, 5, 6, 4))
  both = JITTED.f_scores(empty, np.concatenate([empty, b]), distance=distance)
  np.testing.assert_array_equal(both, [[1, 0, 0, 0, 0]])
  with pytest.raises(ValueError, match=r'\(4, 5, 6, 4\)'):
    JITTED.f_scores(a[:, :4], b)


def test_jensen_shannon_divergence_against_scipy():
  rng = np.random.default_rng(5)
  a = rng.random((3, 4, 4, 4)) < 0.3
  b = rng.random((5, 4, 4, 4)) < 0.6

  def distribution(shapes):
    p = np.zeros((4, 4, 4))
    for shape in shapes:
      points = reference.surface(shape).astype(int)
      for point in points:
        p[tuple(point)] += 1 / len(points)
    return p.ravel() / len(shapes)

  expected = spatial.distance.jensenshannon(
    distribution(a), distribution(b), base=2
  )
  value = JITTED.jensen_shannon_divergence(a, b)
  np.testing.assert_allclose(value, expected**2, rtol=1e-4)
  assert JITTED.jensen_shannon_divergence(a, a).item() < 1e-6
  # An empty shape beside others does not count; a set of them is as far as
  # can be.
  more = np.concatenate([a, np.zeros((1, 4, 4, 4))])
  np.testing.assert_allclose(
    JITTED.jensen_shannon_divergence(more, b), value, rtol=1e-5
  )
  assert JITTED.jensen_shannon_divergence(more[-1:], b).item() == 1


def test_duplicates(shapes):
  a, _ = shapes
  repeated = np.concatenate([a, a[:3], a[:2]])
  value = metrics.duplicates(JITTED.iou(repeated, repeated))
  assert value.item() == pytest.approx(5 / 12)
  assert metrics.duplicates(JITTED.iou(a, a)).item() == 0
