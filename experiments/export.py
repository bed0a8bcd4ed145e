"""Exporting: a model with its pictures, from a workdir or an older format."""

import dataclasses
import math
import os
import shutil
import tempfile
from typing import Any

import jax
import numpy as np

import dnet_jax
from experiments.files import datasets
from experiments.files import figures
from experiments.files import logs
from experiments.files import models
from experiments.tasks import old_format

_SHOWN = 20  # Shapes of a picture.
_ROWS = 300  # Of the metrics that a model keeps.
# Metrics that show how a generator learned.
_CURVES = (
  'energy_gap',
  'teaching_loss',
  'distance_generated',
  'distance_observed',
  'latent_norm',
)


def export(
  workdir: str,
  out: str,
  *,
  num_chains: int = 10,
  weights: str = 'float16',
  changed: tuple[dnet_jax.Model, dict[str, Any]] | None = None,
) -> None:
  """Writes a model with its pictures, whole or not at all, never over another.

  Args:
    workdir: of a run that has a checkpoint, or another model.
    out: the folder to make.
    num_chains: how many persistent chains to keep, at most.
    weights: see `dnet_jax.save`.
    changed: the model of `workdir` with other settings of its uses, and its
      card with their config; None: the model as it is.

  Raises:
    FileExistsError: when `out` exists.
    FileNotFoundError: when there is no model.
    ValueError: when a number does not fit into the weights.
  """
  taken = FileExistsError(
    f'{out} exists and is not overwritten: choose another name, or move it'
  )
  if os.path.lexists(os.path.abspath(out)):
    raise taken
  if changed is not None:
    model, card = changed
  elif old_format.is_old(workdir):
    model, card = old_format.open_old(workdir)
  else:
    model, card = models.open_model(workdir)
  model = _fewer_chains(model, num_chains)
  if 'config' in card:
    card = card | {'config': _portable(card['config'])}
  out = os.path.abspath(out)
  os.makedirs(os.path.dirname(out), exist_ok=True)
  partial = tempfile.mkdtemp(prefix='.export.', dir=os.path.dirname(out))
  try:
    folder = os.path.join(partial, os.path.basename(out))
    dnet_jax.save(model, folder, weights=weights, card=card)
    rows = _metrics(workdir)
    _pictures(folder, model, card['name'], rows)
    if rows:
      _keep(folder, rows)
    try:
      os.rename(folder, out)
    except OSError as error:
      if os.path.lexists(out):  # Another export was faster.
        raise taken from error
      raise
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _fewer_chains(model, num_chains):
  chains = model.extras.get('chains')
  if chains is None:
    return model
  extras = dict(model.extras) | {'chains': chains[:num_chains]}
  return dataclasses.replace(model, extras=extras)


def _portable(config: dict[str, Any]) -> dict[str, Any]:
  """The config without the folders of the machine that it ran on."""
  content = {
    name: dict(group) if isinstance(group, dict) else group
    for name, group in config.items()
  }
  for group, field in (('data', 'path'), ('train', 'init_from')):
    content[group][field] = ','.join(
      os.path.basename(path) for path in content[group][field].split(',')
    )
  return content


def _pictures(folder, model, name, rows):
  """picture.png: shapes of the model; curves.png: how a generator learned.

  The shapes are fresh ones if the model makes them from its components, and
  otherwise persistent chains.
  """
  shown = None
  use = dict(model.spec.uses).get('synthesize')
  if use is not None and use.start == 'components':
    shown = dnet_jax.synthesize(jax.random.key(0), model, _SHOWN)
  elif 'chains' in model.extras:
    shown = datasets.to_voxels(
      model.extras['chains'][:_SHOWN],
      float(model.extras['mean']),
      float(model.extras['scale']),
    )
  elif model.spec.generator is not None:
    shown = dnet_jax.generate(jax.random.key(0), model, _SHOWN)
  elif model.spec.grids:
    shown = dnet_jax.synthesize(jax.random.key(0), model, _SHOWN)
  if shown is not None:
    path = os.path.join(folder, 'picture.png')
    figures.isosurfaces(path, figures.rows(np.asarray(shown), 10))
  names = [name for name in _CURVES if rows and name in rows[-1]]
  if model.spec.generator is not None and names:
    path = os.path.join(folder, 'curves.png')
    figures.curves(path, {name: rows}, names=names)


def _metrics(workdir):
  if not os.path.exists(os.path.join(workdir, 'metrics.jsonl')):
    return []
  return logs.read_metrics(workdir)


def _keep(folder, rows):
  """metrics.jsonl, for the curves of a report: at most `_ROWS` of its rows."""
  every = math.ceil(len(rows) / _ROWS)
  logs.write_metrics(os.path.join(folder, 'metrics.jsonl'), rows[::every])
