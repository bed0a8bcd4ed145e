"""Sampling, scoring and exporting trained models."""

import os

import jax
import numpy as np
import pytest
import trimesh

import dnet_jax
from experiments import build
from experiments import evaluate
from experiments import exported
from experiments import train
from experiments.configs import test as test_config


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


def test_samples_are_the_librarys(workdir):
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
  )
  keys = dnet_jax.chain_keys(jax.random.key(5), 2)
  std = trained.config.chains.start_std
  y = dnet_jax.from_noise(keys, trained.shape, std).position
  score = dnet_jax.score(trained.energy_fn)
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
  np.testing.assert_allclose(a.energy_fn(y), b.energy_fn(y), rtol=1e-2)
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
    'mean shape',
    'noise',
  }
  assert table['training shapes']['mmd'] < table['noise']['mmd']
  assert 'training shapes' in capsys.readouterr().out
  assert len(os.listdir(os.path.join(folder, 'evaluations'))) == 1


def test_scores_of_the_test_set_itself():
  data = build.data(test_config.get_config())
  scores = evaluate.scores(data.test, data.train, data.test)
  assert scores['coverage'] == 1.0 and scores['mmd'] == 0.0
  assert 0 < scores['pairwise_iou'] < 1
