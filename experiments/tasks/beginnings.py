"""The parameters that a run begins with: fresh ones, or those of models."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.files import models
from experiments.tasks import base

# Extras of a model that must equal those of a run that begins with it, and the
# config field that sets each.
_SAME = {
  'mean': 'data.path, data.category or data.scaling',
  'scale': 'data.scaling',
  'reference_std': 'model.reference_std',
  'reference_means': 'model.reference_means',
}
_TOLERANCE = 1e-4  # Float16 in a saved model, and other rounding of a mean.


def params(
  config: ml_collections.ConfigDict, experiment: base.Experiment
) -> tuple[dict[str, Any], list[str]]:
  """Variables of all networks: fresh, or those of `train.init_from`.

  Args:
    config: its `train.init_from` names folders, separated by commas.
    experiment: what will be learned.

  Returns:
    The variables, and how each of these models was made, in words.

  Raises:
    FileNotFoundError: where there is no such model.
    ValueError: for a model that has other networks, or has learned on another
      grid, or with another mean, scale or reference.
  """
  found, began = experiment.params(), []
  for folder in filter(None, config.train.init_from.split(',')):
    model, card = models.open_model(folder)
    began.append(_came_about(card))
    unknown = sorted({*model.params} - {*found})
    if unknown:
      raise ValueError(
        f'train.init_from={folder} holds {unknown}, and task {config.task!r} '
        f'(algorithm {config.algorithm!r}) learns {sorted(found)}'
      )
    _check_grid(folder, model.spec, experiment.spec)
    for name, variables in model.params.items():
      found[name] = _like(found[name], variables, folder, name)
    _check_sizes(folder, model.spec, experiment.spec)
    _check_same(folder, model, experiment)
  return found, began


def _came_about(card):
  """`NAME: N iterations, S s on DEVICE, DATE`, as much of it as is known."""
  parts = []
  if 'iterations' in card:
    parts.append(f'{card["iterations"]:,} iterations')
  if 'seconds' in card:
    parts.append(f'{card["seconds"]:,.0f} s')
  if 'device' in card:
    parts.append(f'on {card["device"]}')
  if 'date' in card:
    parts.append(card['date'])
  words = f'{card["name"]}: {", ".join(parts)}' if parts else card['name']
  earlier = card.get('began')
  return f'{words} (began with {"; ".join(earlier)})' if earlier else words


def _check_grid(folder, theirs, ours):
  for name in ('grid', 'grids'):
    a, b = getattr(theirs, name), getattr(ours, name)
    # Only a multi-grid model has several grids; its networks differ anyway.
    if a and a != b:
      raise ValueError(
        f'train.init_from={folder} has learned on {name} {a}, this run has {b}'
      )


def _check_sizes(folder, theirs, ours):
  # Parameters of the same shapes may be those of other strides or padding.
  for name in ('descriptors', 'generator', 'classifier'):
    a, b = getattr(theirs, name), getattr(ours, name)
    if a and a != b:
      raise ValueError(
        f'train.init_from={folder} has {name} {a}, this run has {b}'
      )


def _check_same(folder, model, experiment):
  names = ['mean', 'scale']
  spec = model.spec
  if spec.descriptors:
    theirs, ours = spec.reference, experiment.spec.reference
    if theirs != ours:
      raise ValueError(
        f'train.init_from={folder} has learned with the reference {theirs!r}, '
        f'this run has {ours!r}: set --config.model.reference'
      )
    if ours == 'gaussian':
      names += ['reference_std', 'reference_means']
  for name in names:
    a, b = (np.asarray(x[name]) for x in (model.extras, experiment.extras))
    if a.shape != b.shape or not np.allclose(a, b, 0, _TOLERANCE):
      raise ValueError(
        f'train.init_from={folder} has learned with {name} = {a.tolist()}, '
        f'this run has {b.tolist()}: set --config.{_SAME[name]}'
      )


def _like(fresh, variables, folder, name):
  """The variables in the structure of fresh ones."""

  def shapes(tree):
    return {
      jax.tree_util.keystr(path): jnp.shape(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }

  ours, theirs = shapes(fresh), shapes(variables)
  differing = [
    f'{path}: {theirs.get(path)}, here {ours.get(path)}'
    for path in sorted(ours.keys() | theirs.keys())
    if ours.get(path) != theirs.get(path)
  ]
  if differing:
    raise ValueError(
      f'train.init_from={folder} holds another {name}:\n  '
      + '\n  '.join(differing)
    )
  leaves = [jnp.asarray(x, jnp.float32) for x in jax.tree.leaves(variables)]
  return jax.tree.unflatten(jax.tree.structure(fresh), leaves)
