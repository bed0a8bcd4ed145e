"""Models of the format before version 1: config.json and model.npz.

`--mode=export` converts them; nothing else reads them.
"""

from collections.abc import Mapping
import json
import os
from typing import Any

import jax.numpy as jnp
import numpy as np

import dnet_jax
from dnet_jax import algorithms
from dnet_jax import models
from dnet_jax import specs
from experiments.configs import default
from experiments.files import datasets
from experiments.files import models as files
from experiments.tasks import contents
from experiments.tasks import networks

_FILE = 'model.npz'
# The task of each algorithm in an old config.
_TASKS = {
  'maximum_likelihood': 'synthesis',
  'contrastive_divergence': 'synthesis',
  'persistent_contrastive_divergence': 'synthesis',
  'recovery': 'recovery',
  'super_resolution': 'super_resolution',
  'multi_grid': 'multi_grid',
  'cooperative': 'cooperative',
  'alternating_back_propagation': 'cooperative',
  'classify': 'evaluation_classifier',
}
# The group of a config with the steps of each task.
_GROUPS = {'recovery': 'recover', 'super_resolution': 'super_resolve'}
_CHAINS = (
  'num_steps',
  'noise_steps',
  'temperature',
  'step_size',
  'refinement_steps',
  'refinement_std',
)
_NETWORKS = {'judge': 'convnet', 'paper_superres': 'paper_super_resolution'}


def is_old(folder: str) -> bool:
  """Whether a folder holds a model of the old format."""
  return os.path.exists(os.path.join(folder, _FILE))


def _renamed(group, names):
  return {names.get(name, name): x for name, x in group.items()}


def convert_config(old: Mapping[str, Any]) -> dict[str, Any]:
  """An old config with today's names."""
  config: dict[str, Any] = dict(old)
  task = _TASKS[config['algorithm']]
  config['task'] = task
  if task not in ('synthesis', 'cooperative'):
    config['algorithm'] = ''
  refinement = {
    'sharp_steps': 'refinement_steps',
    'sharp_std': 'refinement_std',
  }
  data = _renamed(config['data'], {'furniture_size': 'size'})
  config['data'] = data | {'path': data['path'] or datasets.FURNITURE}
  config['limits'] = _renamed(config['limits'], {'value': 'energy_gap'})
  classifier = _renamed(config['classifier'], {'junk_share': 'negative_share'})
  name = classifier['network']
  classifier['network'] = _NETWORKS.get(name, name)
  config['classifier'] = classifier
  name = config['model']['network']
  network = {'network': _NETWORKS.get(name, name)}
  config['model'] = config['model'] | network
  config['probe'] = config.pop('classify', None) or config.get('probe', {})
  sample = _renamed(config['sample'], refinement)
  evaluate = _renamed(config['evaluate'], refinement | {'judge': 'classifier'})
  fresh = {
    name: evaluate.pop(name)
    for name in (*_CHAINS, 'start_std')
    if name in evaluate
  }
  conditioned = {name: sample[name] for name in _CHAINS if name in sample}
  if task in _GROUPS:
    # For the task that it has learned, chains move as in its evaluation.
    config[_GROUPS[task]] = conditioned | {
      name: fresh[name] for name in _CHAINS if name in fresh
    }
    # It has no settings for new shapes: use those of today's configs.
    sample |= {'start': 'noise', 'num_steps': 200, 'noise_steps': 100}
  if task == 'synthesis':
    sample |= fresh | {'start': 'noise'}
  if task == 'multi_grid':
    sample |= {'start': 'grids', 'noise_steps': 0}
    sample['num_steps'] = sample['num_steps'] or config['chains']['num_steps']
  config |= {'sample': sample, 'evaluate': evaluate}
  return _known(config, default.get_config().to_dict())


def _known(config, known):
  """The fields that still exist."""
  return {
    name: _known(x, known[name]) if isinstance(x, Mapping) else x
    for name, x in config.items()
    if name in known
  }


def open_old(folder: str) -> tuple[dnet_jax.Model, dict[str, Any]]:
  """Opens a model of the old format, as `files.open_model` does a new one.

  Raises:
    FileNotFoundError: when a file is missing.
    ValueError: when one is damaged.
  """

  def content(name):
    with open(os.path.join(folder, name), encoding='utf-8') as file:
      return json.load(file)

  config = files.full_config(convert_config(content('config.json')))
  card = content('card.json')
  try:
    with np.load(os.path.join(folder, _FILE)) as file:
      arrays = {name: file[name].astype(np.float32) for name in file.files}
  except Exception as error:
    raise ValueError(
      f'{os.path.join(folder, _FILE)} is damaged: {error}; get the folder again'
    ) from error
  chains = arrays.pop('chains')
  params = models.unflatten({n: jnp.asarray(x) for n, x in arrays.items()})
  histogram = params.pop('histogram', None)
  for i, (_, grid) in enumerate(sorted(params.pop('grids', {}).items())):
    params[algorithms.grid_name(i)] = grid
  sizes: dict[str, Any] = {}
  if config.task == 'multi_grid':
    sizes['grids'] = tuple(config.model.grids)
    sizes['descriptors'] = tuple(
      networks.descriptor_sizes(config, name)
      for name in config.model.grid_networks
    )
  elif 'descriptor' in params:
    sizes['descriptors'] = (
      networks.descriptor_sizes(config, config.model.network),
    )
  if 'generator' in params:
    sizes['generator'] = networks.generator_sizes(config, 0.5, 2.0)
  if 'classifier' in params:
    sizes['classifier'] = _classifier(config, card)
  spec, extras = contents.spec_and_extras(
    config, card['shape'][:3], card['mean'], card['scale'], **sizes
  )
  if config.task == 'synthesis' and len(chains):
    extras['chains'] = chains
  if histogram is not None:
    extras['histogram'] = histogram
  if 'classifier' in params:
    extras['label_smoothing'] = np.float32(config.classifier.label_smoothing)
  return dnet_jax.Model(spec, params, extras), _card(card, config)


def _classifier(config, card):
  settings = config.classifier
  sizes = dnet_jax.CLASSIFIERS[settings.network]
  return specs.ClassifierSizes(
    classes=tuple(card['classes']),
    **sizes,
    negatives=settings.negative_share > 0,
    mirror=config.data.mirror,
    members=settings.members,
  )


def _card(card, config):
  names = {'value': 'energy_gap'}
  return {
    'name': config.name,
    'data': card['data'],
    'shapes': card['shapes'],
    'classes': card['classes'],
    'iterations': card['iterations'],
    'seconds': round(60 * card['minutes'], 1),
    'device': card['device'],
    'jax': card['jax'],
    'date': card['date'],
    'numbers': _renamed(card['metrics'], names),
    'config': config.to_dict(),
  }
