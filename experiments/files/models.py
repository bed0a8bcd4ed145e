"""Opening models: a saved folder, or the last checkpoint of a workdir.

A checkpoint holds the spec and the extras of its model, so that a workdir can
be used where its training data is missing.
"""

from collections.abc import Mapping
import datetime
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import dnet_jax
from dnet_jax import algorithms
from dnet_jax import models
from dnet_jax import specs
from experiments.configs import default
from experiments.files import checkpoints
from experiments.files import logs
from experiments.files import outputs
from experiments.files import workdirs

METRICS = ('energy_gap', 'teaching_loss', 'accuracy', 'grad_norm', 'chain_max')
_RECENT = 25  # Iterations whose metrics are averaged.
# Of a checkpoint, what a model is made of.
_PREFIXES = (
  'state/learners/',
  'state/memory/positions',
  'others/',
  'extras/',
)


def of_state(
  spec: dnet_jax.Spec,
  extras: Mapping[str, Any],
  others: Mapping[str, Any],
  state: dnet_jax.State,
) -> dnet_jax.Model:
  """The model that a training has reached.

  Args:
    spec: of the model.
    extras: without its persistent chains.
    others: variables of the networks that this phase does not learn.
    state: of the algorithm.
  """
  positions = None if state.memory is None else state.memory.positions
  return _model(spec, extras, others, algorithms.variables(state), positions)


def _model(spec, extras, others, learned, positions):
  extras = dict(extras)
  # A memory may also hold latent factors, which are not shapes.
  if positions is not None and positions.shape[2:] == (*spec.grid, 1):
    extras['chains'] = positions.reshape(-1, *positions.shape[2:])
  return dnet_jax.Model(spec, {**others, **learned}, extras)


def about(
  spec: dnet_jax.Spec, phase: str, data: Mapping[str, Any]
) -> dict[str, Any]:
  """What a checkpoint says about itself, beside its arrays."""
  return {
    'spec': specs.spec_to_json(spec),
    'phase': phase,
    'data': dict(data),
    'made': {
      'device': outputs.device(),
      'jax': jax.__version__,
      'date': datetime.date.today().isoformat(),
    },
  }


def full_config(content: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """A saved config, with default values for fields that did not exist then."""
  config = default.get_config()
  with config.unlocked():
    config.update(content)
  return config


def open_model(folder: str) -> tuple[dnet_jax.Model, dict[str, Any]]:
  """Opens a model, and returns how it was made.

  Args:
    folder: as for `dnet_jax.load`, or the workdir of a run.

  Returns:
    The model and its card; a card without a name gets that of the folder.

  Raises:
    FileNotFoundError: when there is none.
    ValueError: when its files are damaged, or of an older format.
  """
  if not os.path.isdir(os.path.join(folder, 'checkpoints')):
    name = os.path.basename(os.path.normpath(folder))
    return dnet_jax.load(folder), {'name': name} | models.read_card(folder)
  found = checkpoints.read(folder, _PREFIXES)
  config = workdirs.read_config(folder)
  if found is None or config is None:
    raise FileNotFoundError(
      f'{folder} has no checkpoint yet: train first, with --mode=train'
    )
  step, told, arrays = found
  tree = models.unflatten({name: jnp.asarray(x) for name, x in arrays.items()})
  state = tree['state']
  learned = {
    name: learner['params'] | learner.get('model_state', {})
    for name, learner in state['learners'].items()
  }
  model = _model(
    specs.spec_from_json(told['spec']),
    tree['extras'],
    tree.get('others', {}),
    learned,
    state.get('memory', {}).get('positions'),
  )
  return model, _card(folder, config, step, told)


def _card(workdir, config, step, told):
  """How the model of a checkpoint was made."""
  rows = [row for row in logs.read_metrics(workdir) if row['step'] < step]
  seconds = sum(row.get('seconds_per_step', 0.0) for row in rows)
  recent = {
    name: [row[name] for row in rows[-_RECENT:] if name in row]
    for name in METRICS
    if rows and name in rows[-1]
  }
  return {
    'name': config['name'],
    **told['data'],
    'iterations': step,
    'seconds': round(seconds, 1),
    **told['made'],
    **_began(workdir),
    'numbers': {
      name: round(float(np.mean(values)), 4) for name, values in recent.items()
    },
    'config': config,
  }


def _began(workdir):
  """The models that a run began with, from its events; {} if there are none."""
  for event in logs.read_events(workdir):
    if event.get('began'):
      return {'began': event['began']}
  return {}
