"""What a model keeps of its data."""

import numpy as np
import pytest

from experiments.files import summaries


def test_principal_components_are_those_of_the_covariance():
  rng = np.random.default_rng(0)
  y = rng.normal(size=(30, 2, 3, 2, 1)) * np.arange(1, 3)[:, None, None, None]
  found = summaries.principal_components(y, 4)
  rows = y.reshape(30, -1)
  mean = rows.mean(0)
  values, vectors = np.linalg.eigh(np.cov(rows.T, ddof=0))
  expected = vectors[:, ::-1][:, :4]
  directions = found['directions'].reshape(4, -1)
  np.testing.assert_allclose(found['mean'].ravel(), mean, atol=1e-5)
  # Up to signs.
  np.testing.assert_allclose(
    np.abs(directions @ expected), np.eye(4), atol=1e-4
  )
  coordinates = found['coordinates']
  np.testing.assert_allclose(
    coordinates, (rows - mean) @ directions.T, atol=1e-4
  )
  np.testing.assert_allclose(
    coordinates.T @ coordinates / 30, np.diag(values[::-1][:4]), atol=1e-4
  )
  assert all(x.dtype == np.float32 for x in found.values())


def test_neighbours_are_all_others_or_as_many_as_are_asked_for():
  y = np.random.default_rng(0).normal(size=(9, 2, 2, 2, 1))
  assert summaries.principal_components(y, 2)['neighbours'] == 8
  assert summaries.principal_components(y, 2, 5)['neighbours'] == 5
  # One shape alone has no other.
  alone = summaries.principal_components(y[:1], 1)
  assert np.isfinite(alone['coordinates']).all()


def test_boxes_are_those_of_the_shapes_that_come_back():
  rng = np.random.default_rng(0)
  y = np.zeros((9, 6, 6, 6, 1), np.float32)
  # Three shapes, three times each: their components are two.
  for i, shape in enumerate(y):
    corner = np.random.default_rng(i % 3).integers(0, 3, size=3)
    shape[tuple(slice(k, k + 3) for k in corner)] = 1
  y += 0.01 * rng.normal(size=y.shape)
  found = summaries.principal_components(y, 3)
  boxes = summaries.bounding_boxes(found, 0.5)
  assert boxes.shape == (9, 3, 2)
  np.testing.assert_array_equal(boxes[:, :, 1] - boxes[:, :, 0], 3)
  for i, box in enumerate(boxes):
    corner = np.random.default_rng(i % 3).integers(0, 3, size=3)
    np.testing.assert_array_equal(box[:, 0], corner)


@pytest.mark.parametrize('number', [0, 4])
def test_no_more_components_than_a_third_of_the_shapes(number):
  y = np.random.default_rng(0).normal(size=(9, 2, 2, 2, 1))
  with pytest.raises(ValueError, match=f'9, divided by 3; got {number}'):
    summaries.principal_components(y, number)


def test_latent_codes_are_like_draws_of_the_prior():
  rng = np.random.default_rng(0)
  # Two kinds of shapes, not a Gaussian.
  kinds = rng.integers(0, 2, 200)[:, None] * rng.normal(size=(1, 24)) * 5
  y = (kinds + rng.normal(size=(200, 24))).reshape(200, 2, 3, 4, 1)
  codes = summaries.latent_codes(y, 6, 10)
  assert codes.shape == (200, 10) and codes.dtype == np.float32
  assert not codes[:, 6:].any()
  own = codes[:, :6]
  np.testing.assert_allclose(np.linalg.norm(own, axis=1), 6**0.5, rtol=1e-5)
  np.testing.assert_allclose(own.mean(0), 0, atol=0.1)
  np.testing.assert_allclose(own.std(0), 1, atol=0.15)
  # In the order of the principal components, before lengths are made equal.
  coordinates = summaries.principal_components(y, 6)['coordinates']
  assert ((own > 0) == (coordinates > np.median(coordinates, axis=0))).all()


def test_more_components_than_latent_factors_is_an_error():
  y = np.random.default_rng(0).normal(size=(20, 2, 2, 2, 1))
  with pytest.raises(ValueError, match=r'number = 5.*latent_dim = 4'):
    summaries.latent_codes(y, 5, 4)
