"""Sampling, scoring and exporting trained models."""

import functools
import json
import os
import tempfile

import jax
import numpy as np
import pytest
from scipy import special
import trimesh

from data_prep import furniture
from data_prep import voxel_file
import dnet_jax
from experiments import build
from experiments import evaluate
from experiments import exported
from experiments import train
from experiments.configs import test as test_config
from experiments.evaluation import classifier as classifiers
from experiments.evaluation import negatives
from experiments.evaluation import scores
from experiments.files import datasets


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = str(tmp_path_factory.mktemp('run') / 'run')
  train.train(test_config.get_config(), path)
  return path


@pytest.fixture(scope='module')
def folder(workdir, tmp_path_factory):
  path = str(tmp_path_factory.mktemp('out') / 'model')
  exported.export(workdir, path)
  return path


def test_pictures_of_the_chains(workdir):
  names = os.listdir(os.path.join(workdir, 'pictures'))
  assert sorted(names) == ['chains_000003.png', 'chains_000006.png']


@pytest.mark.parametrize('start', ['chains', 'noise'])
@pytest.mark.parametrize('kind', ['workdir', 'folder'])
def test_sample_writes_everything_and_overwrites_nothing(start, kind, request):
  where = request.getfixturevalue(kind)
  config = test_config.get_config()
  config.sample.start = start
  config.sample.noise_steps = 1
  first = evaluate.sample(config, where)
  second = evaluate.sample(config, where)
  assert first != second
  with np.load(os.path.join(first, 'voxels.npz')) as file:
    voxels = file['voxels']
  assert voxels.shape == (3, 8, 8, 8) and voxels.dtype == np.float32
  for name in ('samples.png', 'neighbours.png', 'sample.json'):
    assert os.path.getsize(os.path.join(first, name))
  if (voxels > 0.5).any():
    meshes = os.listdir(os.path.join(first, 'meshes'))
    mesh = trimesh.load_mesh(os.path.join(first, 'meshes', meshes[0]))
    assert len(mesh.faces)
  with np.load(os.path.join(second, 'voxels.npz')) as file:
    np.testing.assert_array_equal(file['voxels'], voxels)


def test_no_steps_give_the_chains_themselves(workdir):
  trained = exported.load(workdir)
  voxels = evaluate.run(
    trained,
    start='chains',
    num_samples=2,
    num_steps=0,
    noise_steps=0,
    temperature=0.0,
    step_size=0.0,
    seed=0,
  )
  expected = np.asarray(trained.chains[:2, ..., 0]) + np.float32(trained.mean)
  np.testing.assert_array_equal(voxels, expected)


@pytest.mark.parametrize('start_std', [0.0, 0.7])
def test_samples_are_the_librarys(workdir, start_std):
  # Fresh chains are `dnet_jax.sample` and nothing else.
  trained = exported.load(workdir)
  voxels = evaluate.run(
    trained,
    start='noise',
    num_samples=2,
    num_steps=3,
    noise_steps=0,
    temperature=1.0,
    step_size=0.02,
    seed=5,
    start_std=start_std,
  )
  keys = dnet_jax.chain_keys(jax.random.key(5), 2)
  std = start_std or trained.config.chains.start_std
  y = dnet_jax.from_noise(keys, trained.shape, std).position
  score = jax.jit(dnet_jax.score(trained.energy_fn))
  for _ in range(3):
    y = y + 0.01 * score(y)
  np.testing.assert_allclose(voxels, y[..., 0] + trained.mean, atol=1e-5)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('start', 'data', "'data'"),
    ('num_samples', 1000, '1000'),
    ('num_samples', 0, '0'),
    ('noise_steps', 9, '9'),
    ('temperature', -1.0, '-1'),
    ('start_std', -0.1, '-0.1'),
  ],
)
def test_impossible_settings(workdir, field, value, message):
  config = test_config.get_config()
  config.sample[field] = value
  with pytest.raises(ValueError, match=message):
    evaluate.sample(config, workdir)


def test_exported_model_is_the_model_in_half_precision(workdir, folder):
  a, b = exported.load(workdir), exported.load(folder)
  for x, y in zip(
    jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(x, np.float16), y)
  assert b.mean == a.mean and b.shape == a.shape
  y = np.asarray(a.chains)
  np.testing.assert_allclose(
    jax.jit(a.energy_fn)(y), jax.jit(b.energy_fn)(y), rtol=1e-2
  )
  assert {
    'README.md',
    'card.json',
    'config.json',
    'model.npz',
    'picture.png',
  } <= {*os.listdir(folder)}


def test_export_overwrites_nothing(workdir, folder):
  with pytest.raises(FileExistsError, match='model'):
    exported.export(workdir, folder)


def test_damaged_or_missing_models(tmp_path, folder):
  with pytest.raises(FileNotFoundError, match='neither a workdir'):
    exported.load(str(tmp_path))
  for name in ('config.json', 'card.json'):
    with open(os.path.join(folder, name)) as file:
      (tmp_path / name).write_text(file.read())
  (tmp_path / 'model.npz').write_bytes(b'PK')
  with pytest.raises(ValueError, match='damaged'):
    exported.load(str(tmp_path))


def test_another_model_is_refused(workdir):
  config = test_config.get_config()
  config.model.network = 'small'
  with pytest.raises(ValueError, match=r'model\.network: tiny -> small'):
    evaluate.sample(config, workdir)


def test_evaluate_tells_real_from_noise(folder, capsys):
  result = evaluate.evaluate(test_config.get_config(), folder)
  table = result['scores']
  assert {*table} == {
    'persistent',
    'fresh',
    'training shapes',
    'test shapes',
    'mean shape',
    'noise',
  }
  for metric in ('mmd', 'mmd_chamfer', 'jensen_shannon'):
    assert table['training shapes'][metric] < table['noise'][metric]
    assert metric not in table['test shapes']
  assert 'training shapes' in capsys.readouterr().out
  assert len(os.listdir(os.path.join(folder, 'evaluations'))) == 1


def test_scores_of_the_test_set_itself():
  data = build.data(test_config.get_config())
  values = scores.scores(data.test, data.train, data.test)
  assert values['coverage'] == values['coverage_chamfer'] == 1.0
  assert values['mmd'] == values['mmd_chamfer'] == 0.0
  assert values['jensen_shannon'] == 0.0
  assert 0 < values['pairwise_iou'] < 1


@pytest.fixture(scope='module')
def classifier_folder(tmp_path_factory):
  """An exported classifier of the furniture, tiny."""
  path = tmp_path_factory.mktemp('classifier')
  config = test_config.get_config()
  config.algorithm = 'classify'
  config.data.category = 'all'
  config.data.furniture_shapes = 40
  config.data.batch_size = 32
  config.data.hold_out = 0.2
  config.data.mirror = True
  config.classifier.network = 'tiny'
  config.classifier.members = 2
  config.classifier.dropout = 0.0
  config.classifier.label_smoothing = 0.1
  config.classifier.negative_share = 0.25
  config.optimizer.learning_rate = 0.003
  config.optimizer.b1 = 0.9
  config.optimizer.constant_iterations = 150
  config.train.num_iterations = 150
  config.train.checkpoint_every = 150
  train.train(config, str(path / 'run'))
  exported.export(str(path / 'run'), str(path / 'model'))
  return str(path / 'model')


def test_classifier_knows_the_furniture_and_rejects_negatives(
  classifier_folder, tmp_path
):
  out = str(tmp_path / 'classifier.json')
  result = evaluate.evaluate(None, classifier_folder, out)
  with open(out) as file:
    assert json.load(file) == result
  classes = len(result['card']['classes'])
  confusion = np.array(result['confusion'])
  assert confusion.shape == (classes, classes)
  accuracy = np.trace(confusion) / confusion.sum()
  assert result['accuracy'] == pytest.approx(accuracy)
  # Far above chance, after seconds of learning.
  assert result['accuracy'] > 2 / classes
  rejection = result['rejection']
  assert rejection['noise']['rejected'] > rejection['real shapes']['rejected']
  assert {*negatives.UNSEEN} <= {
    k for k, v in rejection.items() if not v.get('seen')
  }
  assert result['held_out']['shapes'] > 0
  # Never over an existing file, and that before anything is computed.
  with pytest.raises(FileExistsError, match=r'classifier\.json'):
    evaluate.evaluate(None, 'nowhere', out)


def test_prediction_is_a_softmax_with_and_without_none(classifier_folder):
  trained = exported.load(classifier_folder)
  voxels = build.data(trained.config).test[:3]
  prediction = classifiers.make(trained).predict(voxels)
  y = datasets.to_network(voxels, trained.mean, trained.scale)
  # Means over mirror images and members.
  logits, features = [], []
  for image in (y, y[:, ::-1], y[:, :, ::-1], y[:, ::-1, ::-1]):
    for i, member in enumerate(trained.model.classifier.members):
      variables = {
        kind: tree[f'members_{i}']
        for kind, tree in trained.variables['classifier'].items()
      }
      logits.append(
        jax.jit(functools.partial(member.apply, train=False))(variables, image)
      )
      h = member.apply(variables, image, method='hidden_features')
      features.append(h)
  p = special.softmax(np.array(logits, float), axis=-1).mean(axis=0)
  np.testing.assert_allclose(prediction.none, p[:, -1], atol=1e-5)
  among = p[:, :-1] / p[:, :-1].sum(axis=1, keepdims=True)
  # Labels were smoothed by 0.1.
  among = np.maximum(among - 0.1 / among.shape[1], 0)
  np.testing.assert_allclose(
    prediction.probabilities,
    among / among.sum(axis=1, keepdims=True),
    atol=1e-5,
  )
  for i in (0, 1):
    np.testing.assert_allclose(
      np.split(prediction.features, 2, axis=1)[i],
      np.mean(features[i::2], axis=0),
      atol=1e-5,
    )
  with pytest.raises(ValueError, match=r'\(4, 4, 4\)'):
    classifiers.make(trained).predict(np.ones((1, 4, 4, 4)))


def test_not_every_model_is_a_classifier(folder):
  with pytest.raises(ValueError, match='maximum_likelihood'):
    classifiers.make(exported.load(folder))


def test_evaluate_shapes_of_a_file_with_a_classifier(
  classifier_folder, tmp_path
):
  config = test_config.get_config()
  config.evaluate.classifier = classifier_folder
  data = build.data(config)
  path = str(tmp_path / 'voxels.npz')
  np.savez(path, voxels=data.test)
  table = evaluate.evaluate(config, path)['scores']
  assert table['shapes']['mmd'] == 0.0
  for row in table.values():
    assert 0 <= row['class_probability'] <= 1
    assert 0 <= row['classification_error'] <= 1
  assert table['shapes']['frechet'] < table['noise']['frechet']
  assert os.listdir(tmp_path / 'evaluations') == ['evaluation.json']
  # Of several categories: the inception score.
  config.data.category = 'all'
  table = evaluate.evaluate(config, path)['scores']
  assert 1 <= table['test shapes']['inception_score'] <= 10
  assert 'class_probability' not in table['shapes']


def test_files_that_hold_no_shapes(tmp_path):
  config = test_config.get_config()
  path = str(tmp_path / 'voxels.npz')
  with pytest.raises(FileNotFoundError, match='voxels'):
    evaluate.evaluate(config, path)
  np.savez(path, voxels=np.full((3, 8, 8, 8), np.nan))
  with pytest.raises(ValueError, match='finite'):
    evaluate.evaluate(config, path)
  with pytest.raises(ValueError, match='--config'):
    evaluate.evaluate(None, path)
  np.savez(tmp_path / 'one.npz', voxels=np.ones((8, 8, 8)))
  with pytest.raises(ValueError, match=r'\(8, 8, 8\)'):
    evaluate.evaluate(config, str(tmp_path / 'one.npz'))
  np.savez(tmp_path / 'other.npz', voxels=np.ones((3, 4, 4, 4)))
  with pytest.raises(ValueError, match=r'\(4, 4, 4\)'):
    evaluate.evaluate(config, str(tmp_path / 'other.npz'))


def test_voxel_files_are_scored_by_their_test_split():
  data = furniture.make_furniture(size=8, num_train=3, num_test=2)
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'furniture.npz')
    voxel_file.save(path, data)
    np.testing.assert_array_equal(
      scores.read_shapes(path, 'all'), data.voxels['test']
    )
    assert len(scores.read_shapes(path, 'chair')) == 2
