"""Supervised networks, to compare recovery and super-resolution with."""

import json

import jax
import numpy as np
import pytest

from benchmarks import supervised
from experiments.configs import recovery as recovery_config
from experiments.configs import super_resolution as super_resolution_config
from experiments.evaluation import tables
from experiments.tasks import parts
from experiments.tasks import recovery


def _config(name='recovery'):
  module = recovery_config if name == 'recovery' else super_resolution_config
  config = module.get_config('chair')
  config.data.path, config.data.size = 'furniture', 8
  config.data.furniture_shapes, config.data.batch_size = 40, 8
  return config


def test_loss_is_of_the_hidden_voxels_alone():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 3, 3, 3)).astype(np.float32)
  y, visible = rng.random((2, 2, 3, 3, 3)) < 0.5
  p = 1 / (1 + np.exp(-logits))
  expected = -np.log(np.where(y, p, 1 - p))[~visible].mean()
  found = supervised.loss(logits, y.astype(np.float32), visible)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_it_learns_and_reads_no_hidden_voxel():
  config = _config()
  asked = supervised.problem(config, features=8)
  data = parts.data(config)
  y = data.test[:8].astype(np.float32)
  visible = recovery.corrupted(config, y, 0)
  values = []
  for iterations in (1, 100):
    params, _ = supervised.learn(config, asked, data.train, iterations)
    logits = asked.network.apply(params, y, visible)
    spoilt = np.where(visible, y, np.nan)
    np.testing.assert_array_equal(
      logits, asked.network.apply(params, spoilt, visible)
    )
    values.append(float(supervised.loss(logits, y, visible)))
  assert values[1] < values[0] / 2


@pytest.mark.slow
def test_super_resolution_learns():
  config = _config('super_resolution')
  asked = supervised.problem(config, features=16)
  data = parts.data(config)
  y = data.test[:8].astype(np.float32)
  given = asked.given(None, y)
  assert [x.shape for x in given] == [(8, 2, 2, 2)]
  values = []
  for iterations in (1, 100):
    params, _ = supervised.learn(config, asked, data.train, iterations)
    values.append(
      float(supervised.loss(asked.network.apply(params, *given), y, False))
    )
  assert values[1] < values[0] / 2


def test_voxels_of_a_block_are_where_they_belong():
  network = supervised.Details(factor=2, features=1)
  low = np.zeros((1, 2, 2, 2), np.float32)
  params = jax.tree.map(np.zeros_like, network.init(jax.random.key(0), low))
  last = params['params']['Dense_0']
  last['bias'] = np.arange(8.0)
  found = network.apply(params, low)[0]
  block = np.arange(8.0).reshape(2, 2, 2)
  np.testing.assert_array_equal(found, np.tile(block, (2, 2, 2)))


@pytest.mark.parametrize('task', [*supervised.PROBLEMS])
def test_its_result_stands_beside_the_model_of_its_config(task):
  config = _config(task)
  result = supervised.evaluate(config, 1)
  assert result['table'] == 'supervised' and result['category'] == 'chair'
  scores = {'error': 0.1, 'error_binary': 0.1, 'error_surface': 0.1}
  found = {
    f'{task}_chair': {
      'table': task,
      'category': 'chair',
      'scores': {'model': scores},
    },
    'supervised_chair': json.loads(json.dumps(result)),
  }
  table = getattr(tables, task)(found)
  assert table.count('| supervised network |') == 1
  sharp = 'supervised network, sharpened' in result['scores']
  assert sharp == (task == 'super_resolution')
  number = result['scores']['supervised network']['error']
  assert f'{number:.4f}' in table
