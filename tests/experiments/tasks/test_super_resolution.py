"""Section 6.3: super-resolution of shapes of a file, and of the test split."""

import os

import numpy as np
import pytest

import dnet_jax
from experiments import evaluate
from experiments import train
from experiments.evaluation import baselines
from experiments.evaluation import scores
from experiments.files import datasets
from experiments.tasks import conditioned
from experiments.tasks import contents
from experiments.tasks import parts
from experiments.tasks import super_resolution
from tests.experiments import tiny


def super_resolve(workdir, source, config=None):
  request = tiny.request(workdir, config, input=source)
  return super_resolution.super_resolve(request)


def test_super_resolve_of_high_and_of_low_resolution(folder_of, tmp_path):
  # Any model with a descriptor does it, whatever it was learned for.
  folder = folder_of('recovery')
  config = tiny.recovery(factor=2)
  chair = str(tmp_path / 'chair.npy')
  np.save(chair, parts.data(config).test[0])
  high = super_resolve(folder, chair, config)
  got = tiny.arrays(high)
  np.testing.assert_allclose(
    baselines.downscale(got['voxels'], 2), got['low'], atol=1e-5
  )
  y = np.load(chair).reshape(4, 2, 4, 2, 4, 2).mean((1, 3, 5))
  np.testing.assert_array_equal(got['low'][0], y)
  assert {*tiny.content(high)['scores']} >= {'error', 'iou'}
  low = str(tmp_path / 'low.npy')
  np.save(low, y.astype(np.float32))
  again = super_resolve(folder, low, config)
  np.testing.assert_array_equal(got['voxels'], tiny.arrays(again)['voxels'])
  # Without the whole shape there is nothing to score by.
  assert 'scores' not in tiny.content(again)
  # Of any other grid it is a whole shape, which is padded.
  np.save(low, np.ones((5, 5, 5)))
  padded = tiny.arrays(super_resolve(folder, low, config))
  assert padded['low'].sum() * 8 == 5**3
  with pytest.raises(ValueError, match='got 3'):
    super_resolve(folder, low, tiny.recovery(factor=3))


@pytest.fixture(scope='module')
def refining(tmp_path_factory):
  """A model with a reference of empty and full, which refines."""
  workdir = str(tmp_path_factory.mktemp('run') / 'refining')
  config = tiny.super_resolution(
    **{
      'model.reference_means': (0.0, 1.0),
      'model.reference_std': 0.4,
      'super_resolve.refinement_steps': 40,
      'super_resolve.refinement_std': 0.1,
      'train.num_iterations': 0,
    }
  )
  train.train(config, workdir)
  return workdir


def test_refinement_goes_to_the_wells_and_keeps_averages(refining):
  model = tiny.request(refining).model
  # Of whole voxels, so that they can be sharp.
  low = np.random.default_rng(0).integers(0, 9, (2, 4, 4, 4)) / np.float32(8)

  def refined(**arguments):
    return super_resolution.super_resolve_voxels(
      model,
      low,
      seed=0,
      **dict(num_steps=2, noise_steps=2, temperature=1.0, step_size=0.05),
      **arguments,
    )

  # The model's own is to refine.
  plain, sharp = refined(refinement_steps=0), refined()
  for voxels in (plain, sharp):
    np.testing.assert_allclose(baselines.downscale(voxels, 2), low, atol=1e-5)

  def softness(voxels):
    return np.minimum(abs(voxels), abs(voxels - 1)).mean()

  assert softness(sharp) < 0.6 * softness(plain)
  with pytest.raises(ValueError, match='-1'):
    refined(refinement_steps=-1)


def test_scores_by_hand():
  y = np.zeros((2, 4, 4, 4), np.float32)
  y[:, :2] = 1
  assert scores.super_resolution_scores(y, y) == {
    'error': 0.0,
    'error_binary': 0.0,
    'iou': 1.0,
    'chamfer_1000': 0.0,
    'f_score': 1.0,
  }
  shifted = scores.super_resolution_scores(np.roll(y, 1, axis=1), y)
  assert shifted['error'] == 0.5 and shifted['iou'] == 0.33333
  assert shifted['chamfer_1000'] > 0


def test_evaluation_compares_with_baselines(refining, tmp_path):
  out = str(tmp_path / 'result.json')
  result = evaluate.evaluate(tiny.request(refining, out=out))
  assert result['table'] == 'super_resolution' and result['test_shapes'] == 3
  table = result['scores']
  assert {*table} == {
    'model',
    'model, not refined',
    'block repeat',
    'trilinear',
    'trilinear, sharpened',
    'nearest training shape',
    'mean shape',
  }
  assert table['block repeat']['error'] > 0
  assert table['model'] != table['model, not refined']
  assert tiny.content(tmp_path, 'result.json')['scores'] == table
  assert 'evaluation.png' in os.listdir(os.path.join(refining, 'evaluations'))


@pytest.mark.slow
def test_evaluation_has_rows_without_sharpening(refining, tmp_path):
  request = tiny.request(refining, out=str(tmp_path / 'result.json'))
  request.config.super_resolve.sharpening_steps = 2
  model = contents.with_settings(request.model, request.config)
  table = evaluate.evaluate(request._replace(model=model))['scores']
  assert {'model, not sharpened', 'start, sharpened'} < {*table}
  # All are empty or full.
  assert table['model']['error'] == table['model']['error_binary']
  soft = table['model, not sharpened']
  assert soft['error'] != soft['error_binary']


@pytest.mark.slow
def test_it_begins_at_components_of_other_shapes(tmp_path):
  config = tiny.super_resolution(
    **{
      'components.number': 3,
      'components.share': 0.4,
      'super_resolve.components_std': 0.2,
      'super_resolve.anchor_std': 0.5,
    }
  )
  workdir = str(tmp_path / 'run')
  train.train(config, workdir)
  request = tiny.request(workdir)
  model = request.model
  assert dict(model.spec.uses)['super_resolve'].start == 'components'
  numbers = model.extras['settings']['super_resolve']
  np.testing.assert_allclose(
    [numbers['components_std'], numbers['anchor_std']], [0.2, 0.5]
  )
  data = parts.data(config)
  low = baselines.downscale(data.test[:3].astype(np.float32), config.factor)
  begun = super_resolution.super_resolve_voxels(model, low, 0, num_steps=0)
  components = dnet_jax.Components(**model.extras['components'])
  y_low = datasets.to_network(low, data.mean, data.scale)
  expected = dnet_jax.from_low_resolution(
    y_low,
    config.factor,
    lambda y: dnet_jax.expected_details(y, config.factor, components, 0.2),
  )
  np.testing.assert_allclose(
    datasets.to_network(begun, data.mean, data.scale),
    expected.position,
    atol=1e-5,
  )
  # Nearer to the truth than blocks are.
  table = evaluate.evaluate(request)['scores']
  assert table['start']['error'] < table['block repeat']['error']
  assert table['model'] != table['start']
  # Learning begins at those of the shapes that it does not learn from.
  (phase,) = super_resolution.TASK.experiment(config, data).phases
  learned, _ = conditioned.parted(config, len(data.train))
  known = {x.tobytes() for x in datasets.stored(data.train, learned)}
  assert {x.tobytes() for x in phase.batch(0, 0)} <= known
