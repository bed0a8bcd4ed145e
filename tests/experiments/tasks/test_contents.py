"""What a model of a config contains."""

import dataclasses
import types

import numpy as np
import pytest

import dnet_jax
from experiments.files import datasets
from experiments.tasks import contents
from experiments.tasks import networks
from experiments.tasks import parts
from tests import runs


def test_settings_of_use_are_those_of_the_config():
  config = runs.config(
    **{
      'sample.step_size': 0.0,
      'sample.start_std': 0.0,
      'chains.step_size': 0.125,
      'chains.start_std': 0.25,
      'chains.start_spread': 1.25,
      'sample.refinement_steps': 3,
      'recover.step_size': 0.5,
      'corruption.hold': False,
      'latent.num_starts': 7,
    }
  )
  programs, numbers = contents.uses(config)
  programs = dict(programs)
  assert programs.keys() == numbers.keys()
  assert programs['synthesize'].refinement_steps == 3
  # 0 is as in learning.
  assert numbers['synthesize']['step_size'] == np.float32(0.125)
  assert numbers['synthesize']['start_std'] == np.float32(0.25)
  assert numbers['synthesize']['start_spread'] == np.float32(1.25)
  assert numbers['recover']['step_size'] == np.float32(0.5)
  assert not programs['recover'].hold
  assert programs['reconstruct'].num_starts == 7


def test_no_reference_means_are_empty_and_full_voxels():
  config = runs.config(**{'model.reference_means': ()})
  _, extras = contents.spec_and_extras(config, (8, 8, 8), 0.25, 2.0)
  y = datasets.to_network(np.array([0.0, 1.0]), 0.25, 2.0)
  np.testing.assert_allclose(extras['reference_means'], np.ravel(y))
  # Those of learning: where there is no network, the energy is least there.
  energy_fn = networks.energy_fn(
    config, types.SimpleNamespace(apply=lambda params, y: 0.0), 0.25, 2.0
  )
  near = [
    energy_fn({}, np.full((1, 1, 1, 1, 1), x)).item()
    for x in (-0.7, -0.5, -0.3, 1.3, 1.5, 1.7)
  ]
  assert near[1] < min(near[0], near[2]) and near[4] < min(near[3], near[5])


@pytest.mark.parametrize(('given', 'near'), [(2, 2), (0, 7)])
def test_neighbours_of_a_saved_model_follow_the_config(given, near):
  model = dnet_jax.load('demo')
  components = {'coordinates': np.zeros((7, 3)), 'neighbours': np.float32(5)}
  model = dataclasses.replace(
    model, extras=dict(model.extras) | {'components': components}
  )
  config = runs.config(**{'components.neighbours': given})
  extras = contents.with_settings(model, config).extras
  assert extras['components']['neighbours'] == near
  assert components['neighbours'] == 5


def test_draws_of_a_saved_model_are_stretched_where_the_config_says_so():
  settings = {
    'components.number': 6,
    'components.stretched': True,
    'data.furniture_shapes': 20,
  }
  config = runs.config(**settings)
  voxels = parts.data(config)
  own = contents.components(config, voxels)
  boxes = own.pop('boxes')
  # Those of the data, nearly: six components give back what is large.
  true = dnet_jax.grids.bounding_boxes(voxels.train[..., None])
  assert np.abs(boxes - true).mean() < 1
  model = dnet_jax.load('demo')
  extras = dict(model.extras) | {
    'components': own,
    'mean': np.float32(voxels.mean),
    'scale': np.float32(voxels.scale),
  }
  model = dataclasses.replace(model, extras=extras)
  changed = contents.with_settings(model, config)
  np.testing.assert_array_equal(changed.extras['components']['boxes'], boxes)
  config.components.stretched = False
  back = contents.with_settings(changed, config)
  assert 'boxes' not in back.extras['components']
