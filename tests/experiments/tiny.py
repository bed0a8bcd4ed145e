"""Tiny models of every task, and the program on them."""

import json
import os

import numpy as np

from experiments import main
from experiments.configs import test as test_config
from experiments.files import inputs
from experiments.files import models
from experiments.tasks import base
from experiments.tasks import contents

LATENT_DIM = 4
GRIDS = (2, 8)  # Of the multi-grid model.


def synthesis(**overrides):
  """Algorithm 1."""
  config = test_config.get_config()
  config.update_from_flattened_dict(overrides)
  return config


def _conditioned(task, **overrides):
  config = test_config.get_config()
  config.task, config.algorithm = task, ''
  config.model.init_std = 0.05
  config.train.num_iterations = 1
  config.recover.num_steps = config.super_resolve.num_steps = 2
  config.update_from_flattened_dict(overrides)
  return config


def recovery(**overrides):
  """Algorithm 4."""
  return _conditioned('recovery', **overrides)


def super_resolution(**overrides):
  """Algorithm 5."""
  return _conditioned('super_resolution', **{'factor': 2} | overrides)


def cooperative(**overrides):
  """Algorithm 3."""
  config = test_config.get_config()
  config.task = config.algorithm = 'cooperative'
  config.data.scaling = 'symmetric'
  config.generator.network = 'tiny'
  config.generator.latent_dim = LATENT_DIM
  config.generator.init_std = 0.3  # Shapes that differ, without learning.
  config.chains.num_steps = 2
  config.train.picture_every = 1000
  config.sample.start = 'generator'
  config.latent.num_rows = 2
  config.latent.num_columns = 4
  config.latent.search = 12
  config.latent.num_starts = 3
  config.latent.num_steps = 60
  config.latent.step_size = 0.03
  config.latent.noise_std = 1.0
  config.latent.num_reconstructed = 2
  config.update_from_flattened_dict(overrides)
  return config


def multi_grid(**overrides):
  """Algorithm 2."""
  config = test_config.get_config()
  config.task, config.algorithm = 'multi_grid', ''
  config.model.grids = GRIDS
  config.model.grid_networks = ('tiny', 'tiny')
  config.chains.grid_temperatures = (0.1, 0.0)
  config.chains.noise_iterations = -1
  config.sample.start = 'grids'
  config.sample.num_steps = 3
  config.sample.noise_steps = 0
  config.sample.mesh_format = ''
  config.train.num_iterations = 4
  config.train.picture_every = 4
  config.update_from_flattened_dict(overrides)
  return config


def evaluation_classifier(**overrides):
  """A classifier that is right more often than not, in seconds."""
  config = test_config.get_config()
  config.task, config.algorithm = 'evaluation_classifier', ''
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
  config.update_from_flattened_dict(overrides)
  return config


def untrained(**overrides):
  """A descriptor of all categories that has learned nothing yet."""
  config = test_config.get_config()
  config.data.category = 'all'
  config.model.init_std = 0.1
  config.train.num_iterations = 0
  config.update_from_flattened_dict(overrides)
  return config


CONFIGS = {
  make.__name__: make
  for make in (
    synthesis,
    recovery,
    super_resolution,
    cooperative,
    multi_grid,
    evaluation_classifier,
    untrained,
  )
}


def request(folder, config=None, **fields):
  """What a mode is asked for, as `main` does it."""
  model, card = models.open_model(folder)
  if isinstance(fields.get('input'), str):
    fields['input'] = inputs.Source(fields['input'])
  if config is None:
    config = models.full_config(card['config'])
  else:
    model = contents.with_settings(model, config)
  return base.Request(model, card, config, folder, **fields)


def run(*arguments):
  """The exit status of the program with these arguments, in this process."""
  return main.run([str(argument) for argument in arguments])


def arrays(folder, name='voxels.npz'):
  """The arrays of a file that a mode wrote."""
  with np.load(os.path.join(folder, name)) as file:
    return {key: file[key] for key in file.files}


def content(folder, name='record.json'):
  """A JSON file that a mode wrote."""
  with open(os.path.join(folder, name), encoding='utf-8') as file:
    return json.load(file)
