"""Logistic regression: scaled features, rotation, scikit-learn's answer."""

import numpy as np
from sklearn import datasets as sk_datasets
from sklearn import linear_model
from sklearn import multiclass

from experiments.evaluation import logistic


def test_features_are_scaled_by_training_shapes_alone():
  rng = np.random.default_rng(0)
  x, other = rng.normal(size=(9, 4)), rng.normal(size=(3, 4))
  x[:, 3] = other[:, 3] = 2.0  # A feature that says nothing.
  # This one is the average shape.
  other[0] = [np.sign(m) * m**2 for m in np.mean(_roots(x), axis=0)]
  found = logistic.scaled(x, other)
  mean, deviation = np.mean(_roots(x), axis=0), np.std(_roots(x), axis=0)
  for rows, given in zip(found, (x, other), strict=True):
    for row, shape in zip(rows, _roots(given), strict=True):
      standard = [
        (a - m) / s if s > 1e-9 else 0.0
        for a, m, s in zip(shape, mean, deviation, strict=True)
      ]
      length = np.sqrt(np.mean(np.square(standard)))
      expected = standard / length if length > 1e-9 else np.zeros(4)
      np.testing.assert_allclose(row, expected, atol=1e-6)
  assert not np.isnan(found[1]).any()
  # The scale of the features does not matter.
  more, _ = logistic.scaled(2 * x, other)
  np.testing.assert_allclose(more, found[0], atol=1e-6)


def _roots(x):
  return [[np.copysign(abs(v) ** 0.5, v) for v in row] for row in x.tolist()]


def test_regression_on_digits_and_on_noise(two_strengths):
  x, labels = sk_datasets.load_digits(return_X_y=True, n_class=5)
  rng = np.random.default_rng(0)
  order = rng.permutation(len(x))
  x, labels = x[order].astype(np.float32), labels[order]
  x, x_test, labels, test_labels = (
    x[:500],
    x[500:],
    labels[:500],
    labels[500:],
  )
  split = (x, labels, x_test, test_labels)
  value, strength = logistic.accuracy(*split)
  assert value > 0.9 and strength in logistic._STRENGTHS
  # Few shapes with many features: rotated, and nothing is lost.
  few = slice(25)
  value, _ = logistic.accuracy(x[few], labels[few], x_test, test_labels)
  assert value > 0.6
  # Labels that say nothing are not learned.
  shuffled = rng.permutation(labels)
  value, _ = logistic.accuracy(x, shuffled, x_test, test_labels)
  assert value < 0.35


def test_rotation_keeps_the_solution(monkeypatch):
  # The last features are fewer than are multiplied at once.
  monkeypatch.setattr(logistic, '_COLUMNS', 32)
  rng = np.random.default_rng(1)
  x, other = rng.normal(size=(30, 80)), rng.normal(size=(10, 80))
  labels = np.arange(30) % 3
  x += labels[:, None]
  x, other = x - x.mean(axis=0), other - x.mean(axis=0)
  products = logistic._products(x), logistic._products(x, other)
  np.testing.assert_allclose(products[0], x @ x.T, atol=1e-9)
  turned_x, turned_other = logistic._rotated(*products)
  assert turned_x.shape == (30, 30) and turned_other.shape == (10, 30)
  np.testing.assert_allclose(turned_x @ turned_x.T, x @ x.T, atol=1e-6)
  np.testing.assert_allclose(turned_other @ turned_x.T, other @ x.T, atol=1e-6)
  is_class = labels[:, None] == np.arange(3)
  plain, turned = (
    logistic._margins(a, is_class, b, (0.001, 0.01), 1e-6)
    for a, b in ((x, other), (turned_x, turned_other))
  )
  np.testing.assert_allclose(turned, plain, atol=1e-3)


def test_regression_is_scikit_learns_one_versus_all():
  x, labels = sk_datasets.load_digits(return_X_y=True, n_class=4)
  x, other, labels = x[:100] / 16, x[100:200] / 16, labels[:100]
  strengths = (0.01, 1)
  margins = logistic._margins(
    x, labels[:, None] == np.arange(4), other, strengths, 1e-7
  )
  guesses = logistic._predict(x, labels, other, strengths, 1e-7)
  for i, strength in enumerate(strengths):
    expected = multiclass.OneVsRestClassifier(
      linear_model.LogisticRegression(C=strength, tol=1e-7)
    ).fit(x, labels)
    np.testing.assert_allclose(
      margins[i], expected.decision_function(other), atol=1e-3
    )
    np.testing.assert_array_equal(guesses[i], expected.predict(other))
  # In single precision the same but for rounding.
  single = logistic._margins(
    x.astype(np.float32), labels[:, None] == np.arange(4), other, (1,), 1e-6
  )
  np.testing.assert_allclose(single[0], margins[1], atol=0.02)
  # A class that none of them has is never predicted.
  inside = labels != 2
  found = logistic._predict(x[inside], labels[inside], x, (1,), 1e-6)
  assert set(found[0]) == {0, 1, 3}
  # Where only one class is known, that is the answer.
  only = labels == 3
  found = logistic._predict(x[only], labels[only], x, (1,), 1e-6)
  assert set(found[0]) == {3}
