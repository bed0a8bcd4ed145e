import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk_metrics
from sklearn import neighbors

from dnet_jax import metrics
from tests import reference


@pytest.fixture
def shapes():
  rng = np.random.default_rng(0)
  a = rng.random((7, 3, 3, 3, 1)) < 0.4
  b = rng.random((9, 3, 3, 3, 1)) < 0.6
  return a, b


def test_iou(shapes):
  a, b = shapes
  expected = reference.pairwise(reference.iou, a, b)
  values = metrics.iou(a.astype(np.float32), b.astype(np.float32))
  np.testing.assert_allclose(values, expected, rtol=1e-6)
  # The threshold, an empty shape beside a full one, and two empty ones.
  empty, full = jnp.zeros((1, 4)), jnp.full((1, 4), 0.3)
  assert metrics.iou(full, full, threshold=0.3).item() == 1.0
  assert metrics.iou(empty, full, threshold=0.2).item() == 0.0
  assert metrics.iou(empty, empty).item() == 1.0
  diagonal = np.diag(metrics.iou(a, a))
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
  value = metrics.nearest_neighbour_accuracy(
    jnp.asarray(distance[:20, :20]),
    jnp.asarray(distance[20:, 20:]),
    jnp.asarray(distance[:20, 20:]),
  )
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  label = np.repeat([0, 1], [20, 24])
  index = neighbors.NearestNeighbors(n_neighbors=1).fit(everything)
  nearest = index.kneighbors(return_distance=False)[:, 0]
  np.testing.assert_allclose(value, (label[nearest] == label).mean(), rtol=1e-6)
  far = metrics.nearest_neighbour_accuracy(
    jnp.zeros((3, 3)), jnp.zeros((4, 4)), jnp.ones((3, 4))
  )
  assert far.item() == 1.0


def test_one_shape_has_no_pairs():
  with pytest.raises(ValueError, match='at least 2'):
    metrics.mean_pairwise(jnp.ones((1, 1)))
