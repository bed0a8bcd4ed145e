"""The shapes of a report, and the training shapes nearest to them."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import dnet_jax
from dnet_jax import metrics
from experiments.evaluation import baselines
from experiments.files import datasets
from experiments.pages import markup
from experiments.tasks import base
from experiments.tasks import recovery
from experiments.tasks import super_resolution
from experiments.tasks import synthesis


class Group(NamedTuple):
  """Shapes side by side under one title.

  Attributes:
    title: of the group.
    text: what they are, in a sentence.
    sets: a kind (see `markup.shape`) and shapes, by name.
  """

  title: str
  text: str
  sets: Mapping[str, tuple[str, Sequence[np.ndarray]]]


def persistent(model: dnet_jax.Model, number: int) -> np.ndarray | None:
  """The first persistent chains `(n, D, H, W)`, or None."""
  there = min(len(model.extras.get('chains', ())), number)
  return synthesis.persistent(model, there) if there else None


def of_chains(
  model: dnet_jax.Model, data: datasets.Dataset | None, number: int
) -> list[Group]:
  """Persistent chains, if the model has any."""
  shapes = persistent(model, number)
  if shapes is None:
    return []
  text = 'The first chains that learning kept.'
  return [_with_nearest('Persistent chains', text, shapes, data)]


def fresh(
  request: base.Request, data: datasets.Dataset | None, number: int
) -> list[Group]:
  """What the model makes now, as its task does.

  Args:
    request: of the mode; `config.sample.seed` counts.
    data: to compare with, or to hide parts of; or None.
    number: of shapes.
  """
  model, config = request.model, request.config
  if config.task in CONDITIONED:
    if data is None or not len(data.test):
      return []
    return CONDITIONED[config.task](request, data.test[:number])
  if not (base.has_descriptor(model.spec) or base.has_generator(model.spec)):
    return []
  use = dict(model.spec.uses).get('synthesize')
  start = 'noise' if use is not None and use.start == 'chains' else None
  shapes = synthesis.synthesize(model, number, config.sample.seed, start=start)
  text = (
    f'The first {number} of seed {config.sample.seed}; none is picked by hand. '
    f'They begin at: {start or getattr(use, "start", "noise")}.'
  )
  return [_with_nearest('Fresh shapes', text, shapes, data)]


def _with_nearest(title, text, shapes, data):
  sets = {'shape': ('sample', shapes)}
  if data is not None and data.train.shape[1:] == shapes.shape[1:]:
    binary = (shapes > 0.5).astype(np.float32)
    nearest = np.asarray(metrics.nearest_neighbours(binary, data.train))
    sets['nearest'] = ('nearest', data.train[nearest].astype(np.float32))
    text += ' Below each is its nearest training shape.'
  return Group(title, text, sets)


def _recovered(request, voxels):
  config, voxels = request.config, voxels.astype(np.float32)
  seed = config.sample.seed
  visible = recovery.corrupted(config, voxels, seed)
  made = recovery.recover_voxels(request.model, voxels, visible, seed)
  kind = config.corruption.kind.replace('_', ' ')
  return [
    Group(
      'Recovered shapes',
      f'Test shapes of which a part is hidden ({kind}).',
      {
        'original': ('nearest', voxels),
        'visible': ('given', np.where(visible, voxels, 0)),
        'recovered': ('sample', made),
      },
    )
  ]


def _sharpened(request, voxels):
  config, voxels = request.config, voxels.astype(np.float32)
  low = baselines.downscale(voxels, config.factor)
  made = super_resolution.super_resolve_voxels(
    request.model, low, config.sample.seed
  )
  return [
    Group(
      'Sharpened shapes',
      f'Averages of {config.factor}^3 blocks of test shapes, and what the '
      'model makes of them.',
      {
        'original': ('nearest', voxels),
        'averages': ('given', low),
        'result': ('sample', made),
      },
    )
  ]


CONDITIONED = {'recovery': _recovered, 'super_resolution': _sharpened}


def section(group: Group) -> list[str]:
  """A group as pieces of HTML."""
  return [
    f'<h2>{markup.escape(group.title)}</h2>',
    f'<p class="faint">{markup.escape(group.text)}</p>',
    markup.columns(group.sets),
  ]
