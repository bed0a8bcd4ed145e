"""Section 6.5: features, regression, few labels."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets as sk_datasets

from experiments import build
from experiments import classification
from experiments import exported
from experiments.configs import test as test_config
from experiments.files import checkpoints
from experiments.files import datasets
from experiments.files import logs
from experiments.files import workdirs
from tests import reference


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run that has not learned anything yet: this is not about learning."""
  path = str(tmp_path_factory.mktemp('run') / 'run')
  config = test_config.get_config()
  config.data.category = 'all'
  config.model.init_std = 0.1
  workdirs.check_config(path, config.to_dict())
  state = build.experiment(config).init()
  checkpoints.save(path, 0, {'algorithm': state, 'rollbacks': 0}, keep=1)
  logs.open_writer(path, 1).close()
  return path


def test_features_are_pooled_feature_maps(workdir):
  trained = exported.load(workdir)
  voxels = build.data(trained.config).test
  features = classification.extract(trained, trained.params, voxels, (2, 1))
  y = datasets.to_network(voxels, trained.mean, trained.scale)
  maps = reference.feature_maps(
    jax.tree.map(np.asarray, trained.params), trained.descriptor.strides, y
  )
  # 4^3 by blocks of 2^3, and 2^3 as it is; 4 channels each.
  first = maps[0].reshape(-1, 2, 2, 2, 2, 2, 2, 4).max((2, 4, 6))
  expected = np.concatenate(
    [first.reshape(len(y), -1), maps[1].reshape(len(y), -1)], axis=1
  )
  assert features.shape == (len(voxels), 1, 64)
  np.testing.assert_allclose(features[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_the_paper_has_8100_features():
  config = test_config.get_config()
  config.model.network = 'paper_3_layer'
  descriptor = build.model(config).descriptor
  none = jnp.zeros((0, 32, 32, 32, 1))
  params = jax.eval_shape(descriptor.init, jax.random.key(0), none)
  maps = jax.eval_shape(
    lambda p, y: descriptor.apply(p, y, method='feature_maps'), params, none
  )
  windows = config.probe.windows
  number = sum(
    np.prod([-(-side // n) for side in h.shape[1:4]]) * h.shape[4]
    for h, n in zip(maps, windows, strict=True)
  )
  assert number == 8100


def test_views_are_mirror_images(workdir):
  trained = exported.load(workdir)
  voxels = np.random.default_rng(0).random((3, *trained.shape[:3])) > 0.7

  def features(voxels, mirrors=((),)):
    return classification.extract(
      trained, trained.params, voxels, (2, 1), mirrors
    )

  mirrors = ((), (1,), (2,), (1, 2))
  views = features(voxels, mirrors)
  for i, axes in enumerate(mirrors):
    image = np.flip(voxels, axes)
    np.testing.assert_allclose(
      features(image)[:, 0], views[:, i], rtol=1e-4, atol=1e-5
    )
  assert abs(views[:, 0] - views[:, 1]).max() > 1e-3


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


def test_rotation_keeps_the_solution():
  rng = np.random.default_rng(1)
  x, other = rng.normal(size=(30, 80)), rng.normal(size=(10, 80))
  labels = np.arange(30) % 3
  x += labels[:, None]
  rotate = classification._rotation(x)
  assert rotate(x).shape == (30, 30)
  np.testing.assert_allclose(rotate(x) @ rotate(x).T, x @ x.T, atol=1e-9)
  plain = classification._fit(0.01, x, labels)
  turned = classification._fit(0.01, rotate(x), labels)
  np.testing.assert_allclose(
    turned.decision_function(rotate(other)),
    plain.decision_function(other),
    atol=2e-2,
  )


def test_pooled_views_of_a_shape_and_of_its_mirror_images_are_equal(workdir):
  trained = exported.load(workdir)
  shapes = np.random.default_rng(0).random((3, *trained.shape[:3])) < 0.3

  def features(shapes):
    return classification.extract(
      trained, trained.params, shapes, (2, 1), datasets.MIRRORS
    )

  x = features(shapes)
  for axes in datasets.MIRRORS[1:]:
    flipped = features(np.flip(shapes, axes))
    assert np.abs(flipped[:, 0] - x[:, 0]).max() > 0.01
    np.testing.assert_allclose(
      classification.pool_views(flipped),
      classification.pool_views(x),
      rtol=1e-4,
      atol=1e-6,
    )


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
  config = exported.load(workdir).config
  config.probe.windows = (2, 1)
  config.probe.fractions = (0.2, 1.0)
  config.probe.draws = 2
  config.probe.more_windows = (1, 1)
  config.probe.mirror = True
  out = str(tmp_path / 'classification.json')
  result = classification.probe(config, workdir, out)
  with open(out) as file:
    assert json.load(file) == result
  folder = os.path.join(workdir, 'evaluations')
  assert os.listdir(folder) == ['classification.json']
  assert {*result['scores']} == {
    'ours',
    'ours, finer pooling',
    'ours, finer pooling, pooled over mirror images',
    'ours, pooled over mirror images',
    'the same network, untrained',
    'the same network, untrained, pooled over mirror images',
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
  with pytest.raises(FileExistsError, match='classification'):
    classification.probe(config, workdir, out)
  config.data.category = 'chair'
  with pytest.raises(ValueError, match='chair of the'):
    classification.probe(config, workdir)
