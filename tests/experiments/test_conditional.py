"""Recovery and super-resolution by the command line's functions."""

import json
import os

import jax
import numpy as np
import pytest

import dnet_jax
from experiments import build
from experiments import conditional
from experiments import evaluate
from experiments import exported
from experiments import train
from experiments.configs import recovery
from experiments.configs import super_resolution
from experiments.configs import test as test_config
from experiments.evaluation import baselines
from experiments.evaluation import paper


def config_of(algorithm, **fields):
  config = test_config.get_config()
  config.algorithm = algorithm
  config.train.num_iterations = 0
  config.sample.update(num_steps=2, noise_steps=0)
  config.evaluate.update(num_steps=2, noise_steps=0)
  config.update(fields)
  return config


@pytest.fixture(scope='module')
def synthesis(tmp_path_factory):
  """A workdir of a synthesis model, not trained at all."""
  path = str(tmp_path_factory.mktemp('run') / 'synthesis')
  config = config_of('maximum_likelihood')
  config.model.init_std = 0.05
  train.train(config, path)
  return path


@pytest.fixture(scope='module')
def workdir(synthesis, tmp_path_factory):
  """A recovery that goes on from it, one iteration."""
  path = str(tmp_path_factory.mktemp('run') / 'recovery')
  config = config_of('recovery')
  config.train.init_from = synthesis
  config.train.num_iterations = 1
  train.train(config, path)
  return path


@pytest.fixture
def chair(tmp_path):
  """One shape of 8^3, as a file."""
  path = str(tmp_path / 'chair.npy')
  np.save(path, build.data(test_config.get_config()).test[0])
  return path


def files(folder):
  return {*os.listdir(folder)}


def load(folder):
  with np.load(os.path.join(folder, 'voxels.npz')) as file:
    return {name: file[name] for name in file.files}


@pytest.mark.parametrize('algorithm', ['recovery', 'super_resolution'])
def test_begins_with_the_parameters_of_a_synthesis(synthesis, algorithm):
  theirs = exported.load(synthesis).params
  config = config_of(algorithm)
  state = build.experiment(config).init({'descriptor': theirs})
  for a, b in zip(
    jax.tree.leaves(theirs), jax.tree.leaves(state.learner.params), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  fresh = build.experiment(config).init().learner.params
  assert any(
    (np.asarray(a) != b).any()
    for a, b in zip(
      jax.tree.leaves(theirs), jax.tree.leaves(fresh), strict=True
    )
  )


def test_training_goes_on_from_a_synthesis(synthesis, workdir):
  # Adam's first step is the learning rate long, whatever the gradient.
  rate = test_config.get_config().optimizer.learning_rate
  before, after = exported.load(synthesis).params, exported.load(workdir).params
  moved = [
    np.abs(np.asarray(a) - b).max()
    for a, b in zip(
      jax.tree.leaves(before), jax.tree.leaves(after), strict=True
    )
  ]
  assert 0.9 * rate < max(moved) < 1.1 * rate


def test_recover_a_file(workdir, chair):
  first = conditional.recover(None, workdir, chair)
  second = conditional.recover(None, workdir, chair)
  assert first != second
  assert {'voxels.npz', 'picture.png', 'record.json'} <= files(first)
  got = load(first)
  seen = got['visible']
  assert seen.shape == (1, 8, 8, 8) and (~seen).sum() == round(0.7 * 512)
  np.testing.assert_array_equal(got['voxels'][seen], got['input'][seen])
  assert (got['voxels'][~seen] != got['input'][~seen]).mean() > 0.9
  np.testing.assert_array_equal(got['voxels'], load(second)['voxels'])
  with open(os.path.join(first, 'record.json')) as file:
    record = json.load(file)
  error = np.abs(got['voxels'] - got['input'])[~seen].mean()
  assert record['scores']['error'] == pytest.approx(error, abs=1e-4)


def test_recover_with_ones_own_mask(workdir, chair, tmp_path):
  seen = np.ones((8, 8, 8), bool)
  seen[:, 4:] = False
  mask = str(tmp_path / 'mask.npy')
  np.save(mask, seen.astype(np.uint8))
  got = load(conditional.recover(None, workdir, chair, mask))
  np.testing.assert_array_equal(got['visible'][0], seen)
  np.testing.assert_array_equal(got['voxels'][0][seen], got['input'][0][seen])
  # What is hidden in the file is not looked at.
  other = np.load(chair)
  other[:, 4:] = 1 - other[:, 4:]
  np.save(chair, other)
  again = load(conditional.recover(None, workdir, chair, mask))
  np.testing.assert_array_equal(got['voxels'], again['voxels'])


@pytest.mark.parametrize(
  ('mask', 'message'),
  [
    (np.ones((8, 8, 8), bool), 'nothing is hidden'),
    (np.zeros((8, 8, 8), bool), 'everything is hidden'),
    (np.ones((4, 8, 8), bool), r'\(4, 8, 8\)'),
    (np.ones((8, 8), bool), r'\(8, 8\)'),
    (np.full((8, 8, 8), 0.5), '0.5'),
    (np.array([{}]), 'visible='),
  ],
)
def test_masks_that_cannot_be(workdir, chair, tmp_path, mask, message):
  path = str(tmp_path / 'mask.npy')
  np.save(path, mask, allow_pickle=True)
  with pytest.raises(ValueError, match=message):
    conditional.recover(None, workdir, chair, path)


@pytest.mark.parametrize(
  ('fraction', 'message'), [(0.0, 'nothing'), (1.0, 'everything'), (1.5, '1.5')]
)
def test_corruptions_that_cannot_be(workdir, chair, fraction, message):
  config = config_of('recovery')
  config.corruption.fraction = fraction
  with pytest.raises(ValueError, match=message):
    conditional.recover(config, workdir, chair)


def test_super_resolve_of_high_and_of_low_resolution(workdir, chair, tmp_path):
  # Any model with a descriptor does it, whatever it was learned for.
  config = config_of('recovery', factor=2)
  high = conditional.super_resolve(config, workdir, chair)
  got = load(high)
  np.testing.assert_allclose(
    baselines.downscale(got['voxels'], 2), got['low'], atol=1e-5
  )
  y = np.load(chair).reshape(4, 2, 4, 2, 4, 2).mean((1, 3, 5))
  np.testing.assert_array_equal(got['low'][0], y)
  low = str(tmp_path / 'low.npy')
  np.save(low, y.astype(np.float32))
  again = load(conditional.super_resolve(config, workdir, low))
  np.testing.assert_array_equal(got['voxels'], again['voxels'])
  np.save(low, np.ones((5, 5, 5)))
  with pytest.raises(ValueError, match=r'\(5, 5, 5\)'):
    conditional.super_resolve(config, workdir, low)
  config.factor = 3
  with pytest.raises(ValueError, match='got 3'):
    conditional.super_resolve(config, workdir, low)


def test_refinement_goes_to_the_wells_and_keeps_averages(tmp_path):
  workdir = str(tmp_path / 'super_resolution')
  config = config_of('super_resolution', factor=2)
  config.model.reference_means = (0.0, 1.0)
  config.model.reference_std = 0.4
  train.train(config, workdir)
  trained = exported.load(workdir)
  # Of whole voxels, so that they can be sharp.
  low = np.random.default_rng(0).integers(0, 9, (2, 4, 4, 4)) / np.float32(8)

  def sharpened(**sharp):
    return conditional.super_resolve_voxels(
      trained,
      low,
      2,
      seed=0,
      **dict(num_steps=2, noise_steps=2, temperature=1.0, step_size=0.05),
      **sharp,
    )

  plain, sharp = sharpened(), sharpened(refinement_steps=40, refinement_std=0.1)
  for voxels in (plain, sharp):
    blocks = voxels.reshape(2, 4, 2, 4, 2, 4, 2).mean((2, 4, 6))
    np.testing.assert_allclose(blocks, low, atol=1e-5)

  def softness(voxels):
    return np.minimum(abs(voxels), abs(voxels - 1)).mean()

  assert softness(sharp) < 0.6 * softness(plain)
  with pytest.raises(ValueError, match='-1'):
    sharpened(refinement_steps=-1)


def test_scores_by_hand():
  y = np.zeros((2, 4, 4, 4), np.float32)
  y[:, :2] = 1
  visible = np.zeros(y.shape, bool)
  visible[:, :, :2] = True
  guess = np.where(visible, y, 0.6).astype(np.float32)
  scores = conditional.recovery_scores(guess, y, visible)
  assert scores == {'error': 0.5, 'error_binary': 0.5, 'iou': 0.66667}
  assert conditional.recovery_scores(y, y, visible) == {
    'error': 0.0,
    'error_binary': 0.0,
    'iou': 1.0,
  }
  same = conditional.super_resolution_scores(y, y)
  assert same == {
    'error': 0.0,
    'error_binary': 0.0,
    'iou': 1.0,
    'chamfer_1000': 0.0,
  }
  shifted = conditional.super_resolution_scores(np.roll(y, 1, axis=1), y)
  assert shifted['error'] == 0.5 and shifted['iou'] == 0.33333
  assert shifted['chamfer_1000'] > 0


def test_exported_model_names_no_folder_of_its_machine(
  workdir, synthesis, tmp_path
):
  exported.export(workdir, str(tmp_path / 'model'))
  with open(tmp_path / 'model' / 'config.json', encoding='utf-8') as file:
    text = file.read()
  assert os.path.dirname(synthesis) not in text
  assert json.loads(text)['train']['init_from'] == 'synthesis'


def test_begins_with_several_models(synthesis, workdir, tmp_path):
  """Of what two models have, the later one counts."""
  config = config_of('recovery')
  config.train.num_iterations = 0
  for folders, theirs in (
    ((workdir, synthesis), synthesis),
    ((synthesis, workdir), workdir),
  ):
    config.train.init_from = ','.join(folders)
    path = str(tmp_path / os.path.basename(theirs))
    train.train(config, path)
    jax.tree.map(
      np.testing.assert_array_equal,
      exported.load(path).params,
      exported.load(theirs).params,
    )


@pytest.mark.parametrize('algorithm', ['recovery', 'super_resolution'])
def test_evaluate_dispatches(workdir, synthesis, algorithm, tmp_path):
  where = workdir
  if algorithm == 'super_resolution':
    where = str(tmp_path / 'super_resolution')
    config = config_of(algorithm, factor=2)
    config.train.init_from = synthesis
    train.train(config, where)
  out = str(tmp_path / 'result.json')
  result = evaluate.evaluate(None, where, out)
  assert result['table'] == algorithm and result['test_shapes'] == 3
  methods = {*result['scores']}
  assert {'model', 'mean shape', 'nearest training shape'} <= methods
  with open(out) as file:
    assert json.load(file)['scores'] == result['scores']
  assert 'evaluation.png' in files(os.path.join(where, 'evaluations'))
  if algorithm == 'recovery':
    assert {'local average', *paper.RECOVERY_METHODS} <= methods
  else:
    assert {'block repeat', 'trilinear'} <= methods
    assert result['scores']['block repeat']['error'] > 0


@pytest.mark.parametrize('module', [recovery, super_resolution])
@pytest.mark.parametrize('size', ['', ',paper'])
def test_configs_build(module, size):
  config = module.get_config(f'chair{size}')
  config.data.furniture_shapes = config.data.batch_size
  if size:
    assert config.data.batch_size == (50 if module is recovery else 20)
  experiment = build.experiment(config)
  side = 64 if module is super_resolution and size else 32
  assert experiment.data.train.shape[1:] == (side,) * 3
  assert experiment.temperature(0) == 0
  if module is super_resolution:
    assert side // config.factor == (16 if size else 8)


def test_config_arguments():
  config = recovery.get_config('sofa,paper2')
  net = build.model(config).descriptor
  assert net.features == (100,) and config.chains.num_steps == 90
  for module in (recovery, super_resolution):
    for argument in ('lamp', 'chair,huge', ''):
      with pytest.raises(ValueError, match='CATEGORY'):
        module.get_config(argument)


def test_fill_begins_near_the_truth():
  y = np.zeros((1, 8, 8, 8, 1), np.float32)
  y[:, :4] = 1
  visible = dnet_jax.random_voxels(0.7)(
    dnet_jax.chain_keys(jax.random.key(0), 1), y.shape[1:]
  )
  config = config_of('recovery')
  assert build.fill(config) is None
  config.corruption.fill_std = 1.0
  start, _ = dnet_jax.recovery_start(y, visible, True, build.fill(config))
  error = np.abs(np.asarray(start.position) - y)[~np.asarray(visible)].mean()
  assert error < 0.2
  config.corruption.fill_std = -1.0
  with pytest.raises(ValueError, match='-1'):
    build.fill(config)
