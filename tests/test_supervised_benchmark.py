"""The supervised network that recovery is compared with."""

import json

import numpy as np
import pytest

from benchmarks import supervised
from experiments.configs import recovery as config_file
from experiments.evaluation import tables
from experiments.tasks import parts
from experiments.tasks import recovery


def _config():
  config = config_file.get_config('chair')
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
  data = parts.data(config)
  y = data.test[:8].astype(np.float32)
  visible = recovery.corrupted(config, y, 0)
  values = []
  for iterations in (1, 100):
    network, params, _ = supervised.learn(
      config, data.train, iterations, features=8
    )
    logits = network.apply(params, y, visible)
    spoilt = np.where(visible, y, np.nan)
    np.testing.assert_array_equal(
      logits, network.apply(params, spoilt, visible)
    )
    values.append(float(supervised.loss(logits, y, visible)))
  assert values[1] < values[0] / 2


def test_its_result_is_a_column_of_table_4():
  result = supervised.evaluate(_config(), 1)
  assert result['table'] == 'supervised' and result['category'] == 'chair'
  found = {'supervised_chair': json.loads(json.dumps(result))}
  table = tables.recovery(found)
  assert '| supervised network |' in table.splitlines()[0]
