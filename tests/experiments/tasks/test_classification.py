"""Section 6.5: features, regression, few labels."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from sklearn import datasets as sk_datasets
from sklearn import linear_model
from sklearn import multiclass

from dnet_jax import uses
from dnet_jax.uses import perception
from experiments.tasks import classification
from experiments.tasks import networks
from experiments.tasks import parts
from tests import reference
from tests.experiments import tiny


@pytest.fixture(scope='module')
def workdir(workdir_of):
  """Of a run that has not learned anything yet: this is not about learning."""
  return workdir_of('untrained')


@pytest.fixture(scope='module')
def model(workdir):
  return tiny.request(workdir).model


def test_features_are_pooled_feature_maps(model):
  voxels = parts.data(tiny.untrained()).test
  poolings = {'ours': (2, 1), 'coarse': (4, 2)}
  found = classification.extract(model, voxels, poolings)
  (sizes,) = model.spec.descriptors
  maps = reference.feature_maps(
    jax.tree.map(np.asarray, model.params['descriptor']),
    sizes.strides,
    np.asarray(uses.to_network(model, voxels)),
  )
  # 4^3 by blocks of 2^3, and 2^3 as it is; 4 channels each.
  n = len(voxels)
  first = maps[0].reshape(-1, 2, 2, 2, 2, 2, 2, 4).max((2, 4, 6))
  expected = np.concatenate(
    [first.reshape(n, -1), maps[1].reshape(n, -1)], axis=1
  )
  assert {name: x.shape for name, x in found.items()} == {
    'ours': (n, 64),
    'coarse': (n, 8),
  }
  np.testing.assert_allclose(found['ours'], expected, rtol=1e-4, atol=1e-5)


def test_the_paper_has_8100_features():
  config = tiny.synthesis(**{'model.network': 'paper_3_layer'})
  sizes = networks.descriptor_sizes(config, config.model.network)
  descriptor = networks.descriptor(config, sizes)
  none = jnp.zeros((0, 32, 32, 32, 1))
  params = jax.eval_shape(descriptor.init, jax.random.key(0), none)
  maps = jax.eval_shape(
    lambda p, y: descriptor.apply(p, y, method='feature_maps'), params, none
  )
  number = sum(
    np.prod([-(-side // n) for side in h.shape[1:4]]) * h.shape[4]
    for h, n in zip(maps, config.probe.windows, strict=True)
  )
  assert number == 8100


def test_views_are_mirror_images(model):
  voxels = np.random.default_rng(0).random((3, 8, 8, 8)) > 0.7
  poolings = {'x': (2, 1)}
  mirrors = perception.MIRRORS
  found = classification.extract(model, voxels, poolings, mirrors)
  views = np.stack(
    [
      classification.extract(model, np.flip(voxels, axes), poolings)['x']
      for axes in mirrors
    ],
    axis=1,
  )
  np.testing.assert_allclose(found['x'], views[:, 0], rtol=1e-4, atol=1e-5)
  pooled = np.concatenate([views.mean(axis=1), views.max(axis=1)], axis=1)
  name = 'x, pooled over mirror images'
  np.testing.assert_allclose(found[name], pooled, rtol=1e-4, atol=1e-5)
  assert abs(views[:, 0] - views[:, 1]).max() > 1e-3


def test_pooled_views_of_a_shape_and_of_its_mirror_images_are_equal(model):
  shapes = np.random.default_rng(0).random((3, 8, 8, 8)) < 0.3

  def look(shapes):
    poolings = {'x': (2, 1)}
    found = classification.extract(model, shapes, poolings, perception.MIRRORS)
    return found['x'], found['x, pooled over mirror images']

  x, pooled = look(shapes)
  for axes in perception.MIRRORS[1:]:
    flipped, same = look(np.flip(shapes, axes))
    assert np.abs(flipped - x).max() > 0.01
    np.testing.assert_allclose(same, pooled, rtol=1e-4, atol=1e-6)


def test_features_are_scaled_by_training_shapes_alone():
  rng = np.random.default_rng(0)
  x, other = rng.normal(size=(9, 4)), rng.normal(size=(3, 4))
  x[:, 3] = other[:, 3] = 2.0  # A feature that says nothing.
  # This one is the average shape.
  other[0] = [np.sign(m) * m**2 for m in np.mean(_roots(x), axis=0)]
  found = classification.scaled(x, other)
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
  more, _ = classification.scaled(2 * x, other)
  np.testing.assert_allclose(more, found[0], atol=1e-6)


def _roots(x):
  return [[np.copysign(abs(v) ** 0.5, v) for v in row] for row in x.tolist()]


@pytest.fixture
def two_strengths(monkeypatch):
  """Fewer fits: most of the time of these tests."""
  monkeypatch.setattr(classification, '_STRENGTHS', (1e-4, 1e-1))


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
  value, strength = classification.accuracy(*split)
  assert value > 0.9 and strength in classification._STRENGTHS
  # Few shapes with many features: rotated, and nothing is lost.
  few = classification.few(labels, 0.05, seed=0)
  value, _ = classification.accuracy(x[few], labels[few], x_test, test_labels)
  assert value > 0.6
  # Labels that say nothing are not learned.
  shuffled = rng.permutation(labels)
  value, _ = classification.accuracy(x, shuffled, x_test, test_labels)
  assert value < 0.35


def test_rotation_keeps_the_solution(monkeypatch):
  # The last features are fewer than are multiplied at once.
  monkeypatch.setattr(classification, '_COLUMNS', 32)
  rng = np.random.default_rng(1)
  x, other = rng.normal(size=(30, 80)), rng.normal(size=(10, 80))
  labels = np.arange(30) % 3
  x += labels[:, None]
  x, other = x - x.mean(axis=0), other - x.mean(axis=0)
  products = classification._products(x), classification._products(x, other)
  np.testing.assert_allclose(products[0], x @ x.T, atol=1e-9)
  turned_x, turned_other = classification._rotated(*products)
  assert turned_x.shape == (30, 30) and turned_other.shape == (10, 30)
  np.testing.assert_allclose(turned_x @ turned_x.T, x @ x.T, atol=1e-6)
  np.testing.assert_allclose(turned_other @ turned_x.T, other @ x.T, atol=1e-6)
  is_class = labels[:, None] == np.arange(3)
  plain, turned = (
    classification._margins(a, is_class, b, (0.001, 0.01), 1e-6)
    for a, b in ((x, other), (turned_x, turned_other))
  )
  np.testing.assert_allclose(turned, plain, atol=1e-3)


def test_regression_is_scikit_learns_one_versus_all(two_strengths):
  x, labels = sk_datasets.load_digits(return_X_y=True, n_class=4)
  x, other, labels = x[:100] / 16, x[100:200] / 16, labels[:100]
  strengths = (0.01, 1)
  margins = classification._margins(
    x, labels[:, None] == np.arange(4), other, strengths, 1e-7
  )
  guesses = classification._predict(x, labels, other, strengths, 1e-7)
  for i, strength in enumerate(strengths):
    expected = multiclass.OneVsRestClassifier(
      linear_model.LogisticRegression(C=strength, tol=1e-7)
    ).fit(x, labels)
    np.testing.assert_allclose(
      margins[i], expected.decision_function(other), atol=1e-3
    )
    np.testing.assert_array_equal(guesses[i], expected.predict(other))
  # In single precision the same but for rounding.
  single = classification._margins(
    x.astype(np.float32), labels[:, None] == np.arange(4), other, (1,), 1e-6
  )
  np.testing.assert_allclose(single[0], margins[1], atol=0.02)
  # A class that none of them has is never predicted.
  inside = labels != 2
  found = classification._predict(x[inside], labels[inside], x, (1,), 1e-6)
  assert set(found[0]) == {0, 1, 3}
  # Where only one class is known, that is the answer.
  only = labels == 3
  found = classification._predict(x[only], labels[only], x, (1,), 1e-6)
  assert set(found[0]) == {3}


def test_few_labels_are_stratified():
  labels = np.repeat([0, 1, 2], [100, 50, 3])
  chosen = classification.few(labels, 0.1, seed=0)
  assert np.bincount(labels[chosen]).tolist() == [10, 5, 1]
  assert len(np.unique(chosen)) == len(chosen)
  other = classification.few(labels, 0.1, seed=1)
  assert chosen.tolist() != other.tolist()
  with pytest.raises(ValueError, match=r'1\.5'):
    classification.few(labels, 1.5, seed=0)


def test_probe_writes_a_result(workdir, tmp_path, capsys, two_strengths):
  config = tiny.untrained(
    **{
      'probe.windows': (2, 1),
      'probe.fractions': (0.2, 1.0),
      'probe.draws': 2,
      'probe.more_windows': (1, 1),
      'probe.mirror': True,
    }
  )
  out = str(tmp_path / 'classification.json')
  result = classification.probe(tiny.request(workdir, config, out=out))
  assert tiny.content(tmp_path, 'classification.json') == result
  written = os.listdir(os.path.join(workdir, 'evaluations'))
  assert {'probe.json', 'probe.png'} <= {*written}
  with Image.open(tmp_path / 'classification.png') as image:
    # Lines of six colours on white, not an empty frame.
    assert len(image.convert('RGB').getcolors(1 << 20)) > 6
  assert {*result['scores']} == {
    'ours',
    'ours, finer pooling',
    'ours, pooled over mirror images',
    'the same network, untrained',
    'principal components',
    'raw voxels',
  }
  cell = result['scores']['raw voxels']['accuracy']['0.2']
  assert cell['draws'] == len(cell['C']) == 2
  # Furniture is easy.
  assert result['scores']['raw voxels']['accuracy']['1']['mean'] > 0.5
  assert 'raw voxels' in capsys.readouterr().out
  sizes = {name: row['features'] for name, row in result['scores'].items()}
  assert sizes['ours'] == sizes['the same network, untrained']
  assert sizes['ours'] < sizes['ours, finer pooling']
  assert sizes['ours, pooled over mirror images'] == 2 * sizes['ours']
  with pytest.raises(FileExistsError, match=r'classification\.json'):
    classification.probe(tiny.request(workdir, config, out=out))
  os.remove(out)
  with pytest.raises(FileExistsError, match=r'classification\.png'):
    classification.probe(tiny.request(workdir, config, out=out))
  config.data.category = 'chair'
  with pytest.raises(ValueError, match='chair of the'):
    classification.probe(tiny.request(workdir, config))
