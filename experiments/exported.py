"""Exported models: a folder that holds all that sampling needs, and a card.

  model.npz    the networks' variables and some shapes to start from, float16
  config.json  the config of the run
  card.json    data, mean, budget, device, date, metrics
  README.md    the same for people
  picture.png  the chains
  curves.png   of a generator: energy gap, teaching loss, diversity

Two lines load one:

  from experiments import exported
  model = exported.load('pretrained/synthesis_toilet')

after which `model.energy_fn` is an energy for `dnet_jax.langevin`, and
`model.chains` are shapes to start from, as the network sees them (see
`datasets.to_voxels`).
"""

from collections.abc import Callable
from collections.abc import Mapping
import datetime
import json
import os
import shutil
from typing import Any
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import dnet_jax
from experiments import build
from experiments.configs import default
from experiments.files import checkpoints
from experiments.files import datasets
from experiments.files import figures
from experiments.files import logs

_FILE = 'model.npz'
_METRICS = (
  'energy_gap',
  'teaching_loss',
  'accuracy',
  'grad_norm',
  'chain_max',
)
# Of a generator, over its learning.
_CURVES = (
  'energy_gap',
  'teaching_loss',
  'distance_generated',
  'distance_observed',
  'latent_norm',
)


class Trained(NamedTuple):
  """A trained model, from a workdir or an exported folder.

  Attributes:
    model: its networks, see `build.Model`.
    variables: of the networks: 'descriptor', 'grids', 'generator',
      'classifier', as many as there are; see `build.Experiment`.
    descriptor: the descriptor, or that of the finest grid; None if there is
      none.
    params: its parameters.
    energy_fn: `y -> (*chains,)`, parameters bound.
    chains: persistent chains, as the network sees them: `(n, D, H, W, 1)`; of
      a generator, shapes that it made; n may be 0.
    mean: what was subtracted from the voxels.
    scale: by which they were multiplied then.
    shape: `(D, H, W, 1)`.
    config: of the run.
    card: data, budget, device, date.
  """

  model: build.Model
  variables: Mapping[str, Any]
  descriptor: dnet_jax.Descriptor | None
  params: Any
  energy_fn: Callable[[jax.Array], jax.Array] | None
  chains: jax.Array
  mean: float
  scale: float
  shape: tuple[int, ...]
  config: ml_collections.ConfigDict
  card: Mapping[str, Any]


def _trained(config, variables, chains, shape, card) -> Trained:
  model = build.model(config, classes=card.get('classes'))
  params = variables.get('descriptor')
  if 'grids' in variables:
    params = variables['grids'][f'grid{len(model.grid_descriptors)}']
  return Trained(
    model,
    variables,
    model.descriptor,
    params,
    None if params is None else lambda y: model.energy_fn(params, y),
    chains,
    card['mean'],
    card['scale'],
    tuple(shape),
    config,
    card,
  )


def full_config(content: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """A saved config; fields that are newer than it have their defaults."""
  config = default.get_config()
  with config.unlocked():
    config.update(content)
  return config


def _read_json(path):
  try:
    with open(path, encoding='utf-8') as file:
      return json.load(file)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{os.path.dirname(path) or "."} is neither a workdir nor an exported '
      f'model: it has no {os.path.basename(path)}'
    ) from error


def load(folder: str) -> Trained:
  """Loads an exported model, or the last checkpoint of a workdir.

  Raises:
    FileNotFoundError: when `folder` is neither.
    ValueError: when its file is damaged.
  """
  config = full_config(_read_json(os.path.join(folder, 'config.json')))
  path = os.path.join(folder, _FILE)
  if not os.path.exists(path):
    return _from_workdir(config, folder)
  card = _read_json(os.path.join(folder, 'card.json'))
  try:
    with np.load(path) as file:
      arrays = {name: file[name] for name in file.files}
    chains = jnp.asarray(arrays.pop('chains'), jnp.float32)
  except Exception as error:
    raise ValueError(
      f'{path} is damaged ({error}); get the folder again'
    ) from error
  variables = flax.traverse_util.unflatten_dict(
    {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}, sep='/'
  )
  return _trained(config, variables, chains, card['shape'], card)


def open_with(
  config: ml_collections.ConfigDict | None, folder: str
) -> tuple[Trained, ml_collections.ConfigDict]:
  """A trained model, and the config whose settings of sampling count.

  Args:
    config: for the same networks; None: that of the model.
    folder: a workdir or an exported model.

  Raises:
    ValueError: when `config` has other networks.
  """
  trained = load(folder)
  if config is None:
    return trained, trained.config
  # Through JSON, in which tuples are lists.
  ours, theirs = (
    json.loads(json.dumps(c.model.to_dict())) for c in (config, trained.config)
  )
  differing = [
    f'model.{name}: {theirs.get(name)} -> {ours.get(name)}'
    for name in sorted(ours.keys() | theirs.keys())
    if ours.get(name) != theirs.get(name)
  ]
  if differing:
    raise ValueError(
      f'{folder} holds another model than --config asks for (theirs -> '
      'ours):\n  ' + '\n  '.join(differing)
    )
  return trained, config


def _from_workdir(config, workdir) -> Trained:
  experiment = build.experiment(config)
  like = {'algorithm': experiment.init(), 'rollbacks': 0}
  restored = checkpoints.restore(workdir, like)
  if restored is None:
    raise FileNotFoundError(
      f'{workdir} has no checkpoint yet: train first, with --mode=train'
    )
  step, state = restored
  state = state['algorithm']
  shape = (*experiment.data.train.shape[1:], 1)
  chains = experiment.chains(state)
  rows = logs.read_metrics(workdir)
  seconds = [
    row['seconds_per_step']
    for row in rows
    if len(row) > 2 and 'seconds_per_step' in row
  ]
  kind = jax.devices()[0]
  device = (
    f'{os.cpu_count()} CPU cores'
    if kind.platform == 'cpu'
    else f'{jax.device_count()} x {kind.device_kind}'
  )
  card = {
    'name': config.name,
    'data': experiment.data.source,
    'shapes': len(experiment.data.train),
    'mean': experiment.data.mean,
    'scale': experiment.data.scale,
    'classes': list(experiment.data.classes),
    'shape': list(shape),
    'iterations': step,
    'minutes': round(sum(seconds) / 60, 1),
    'device': device,
    'jax': jax.__version__,
    'date': datetime.date.today().isoformat(),
    'metrics': {
      name: round(float(np.mean([row[name] for row in rows[-25:]])), 4)
      for name in _METRICS
      if rows and name in rows[-1]
    },
  }
  if chains is None:
    chains = jnp.zeros((0, *shape))
  return _trained(config, experiment.variables(state), chains, shape, card)


def export(workdir: str, out: str, *, num_chains: int = 50) -> None:
  """Writes an exported model, whole or not at all, never over another.

  Args:
    workdir: of a run that has a checkpoint.
    out: the folder to make.
    num_chains: how many persistent chains to keep, at most.

  Raises:
    FileExistsError: when `out` exists.
    FileNotFoundError: when the workdir has no checkpoint.
    ValueError: when a number does not fit into float16.
  """
  if os.path.lexists(out):
    raise FileExistsError(
      f'{out} exists and is not overwritten: choose another name, or move it'
    )
  trained = load(workdir)
  chains = trained.chains[:num_chains]
  arrays = dict(
    flax.traverse_util.flatten_dict(dict(trained.variables), sep='/'),
    chains=chains,
  )
  small = {}
  for name, x in arrays.items():
    with np.errstate(over='ignore'):
      small[name] = np.asarray(x, np.float16)
    if not np.isfinite(small[name]).all():
      raise ValueError(f'{name} has values that float16 cannot hold')
  partial = f'{out}.partial'
  shutil.rmtree(partial, ignore_errors=True)
  os.makedirs(partial)
  np.savez_compressed(os.path.join(partial, _FILE), **small)
  for name, content in (
    ('config.json', _portable(trained.config)),
    ('card.json', trained.card),
  ):
    with open(os.path.join(partial, name), 'w', encoding='utf-8') as file:
      json.dump(content, file, indent=2)
      file.write('\n')
  if len(chains):
    shown = datasets.to_voxels(chains[:20], trained.mean, trained.scale)
    figures.isosurfaces(
      os.path.join(partial, 'picture.png'), figures.rows(shown, 10)
    )
  rows = logs.read_metrics(workdir)
  names = [name for name in _CURVES if rows and name in rows[-1]]
  if 'generator' in trained.variables and names:
    figures.curves(
      os.path.join(partial, 'curves.png'),
      {trained.config.name: rows},
      names=names,
    )
  with open(os.path.join(partial, 'README.md'), 'w', encoding='utf-8') as file:
    file.write(_card_text(trained, small))
  os.rename(partial, out)


def _portable(config) -> dict[str, Any]:
  """The config without the folders of the machine that it ran on."""
  content = config.to_dict()
  for group, field in (('data', 'path'), ('train', 'init_from')):
    content[group][field] = ','.join(
      os.path.basename(path) for path in content[group][field].split(',')
    )
  return content


def _card_text(trained, arrays) -> str:
  card = trained.card
  parameters = sum(x.size for name, x in arrays.items() if name != 'chains')
  network = ' and '.join(
    {
      'descriptor': trained.config.model.network,
      'grids': ', '.join(trained.config.model.grid_networks),
      'generator': trained.config.generator.network,
      'classifier': trained.config.classifier.network,
    }[name]
    for name in trained.variables
    if name != 'histogram'
  )
  mode = {
    'classify': 'evaluate',
    'recovery': 'recover --input=FILE',
    'super_resolution': 'super_resolve --input=FILE',
  }.get(trained.config.algorithm, 'sample')
  metrics = ', '.join(f'{k} {v}' for k, v in card['metrics'].items())
  return f"""# {card['name']}

| | |
|---|---|
| data | {card['data']}, {card['shapes']} shapes, mean {card['mean']:.4f} |
| network | {network}, {parameters:,} parameters (float16) |
| budget | {card['iterations']} iterations, {card['minutes']} minutes |
| device | {card['device']}, jax {card['jax']} |
| date | {card['date']} |
| last 25 iterations | {metrics} |
| shapes to start from | {len(arrays['chains'])} |

    python -m experiments.main --workdir=FOLDER --mode={mode}

Exported by `python -m experiments.main --mode=export`; the picture shows its
shapes to start from: persistent chains, or what a generator or a multi-grid
model makes.
"""
