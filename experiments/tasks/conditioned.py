"""What recovery and super-resolution share: chains from a mini-batch."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

import dnet_jax
from experiments.files import datasets
from experiments.files import figures
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import networks
from experiments.tasks import parts

_COLUMNS = 10  # Of a picture.


def experiment(
  config: ml_collections.ConfigDict,
  voxels: datasets.Dataset,
  make: Callable[..., dnet_jax.Algorithm],
  **arguments: Any,
) -> base.Experiment:
  """Learns one descriptor by an algorithm that keeps no chains.

  Args:
    config: of the run.
    voxels: its data.
    make: of the algorithm, from energy, learner, sampler and `arguments`.
    **arguments: further ones.
  """
  shape = (*voxels.train.shape[1:], 1)
  sizes = networks.descriptor_sizes(config, config.model.network)
  network = networks.descriptor(config, sizes)
  energy_fn = networks.energy_fn(config, network)
  algorithm = make(
    energy_fn,
    parts.contrastive_learner(config, energy_fn),
    parts.sampler(config),
    **arguments,
  )
  spec, extras = parts.model_parts(
    config, *datasets.seen(voxels), descriptors=(sizes,)
  )
  batch = parts.batch_of(config, voxels)
  return base.Experiment(
    voxels,
    spec,
    extras,
    lambda: {'descriptor': networks.init_descriptor(config, network, shape)},
    (parts.one_phase(config, voxels, ('descriptor',), algorithm, batch),),
    lambda model: None,
  )


def test_shapes(request: base.Request, data: datasets.Dataset) -> np.ndarray:
  """The test shapes that are scored, `(n, D, H, W)` float32.

  Raises:
    ValueError: for another grid than that of the model.
  """
  if data.test.shape[1:] != request.model.spec.grid:
    raise ValueError(
      f'{data.source} has a grid of {data.test.shape[1:]}, the model one of '
      f'{request.model.spec.grid}'
    )
  return data.test[: request.config.evaluate.num_shapes].astype(np.float32)


def picture(
  folder: str, voxels: np.ndarray, given: np.ndarray, y: np.ndarray
) -> None:
  """Figure 3 or 4 of an evaluation: `folder/evaluation.png`, `_001`, ...

  Args:
    folder: made if it is not there.
    voxels: originals `(n, D, H, W)`.
    given: what was given of them, on this or a coarser grid.
    y: results.
  """
  shown = slice(None, _COLUMNS)
  figures.stacked(
    outputs.unused_path(folder, 'evaluation', '.png'),
    {'original': voxels[shown], 'given': given[shown], 'result': y[shown]},
  )


def result(
  request: base.Request,
  table: str,
  settings: Mapping[str, Any],
  voxels: np.ndarray,
  rows: Mapping[str, Any],
) -> dict[str, Any]:
  """What is written of an evaluation.

  Args:
    request: of the mode.
    table: its name.
    settings: of chains and of what is given.
    voxels: the originals.
    rows: scores by method.
  """
  config, card = request.config, request.card
  budget = {x: card.get(x) for x in ('iterations', 'seconds', 'device')}
  return {
    'table': table,
    'category': config.data.category,
    'test_shapes': len(voxels),
    'budget': budget,
    'settings': dict(settings) | {'seed': config.evaluate.seed},
    'scores': dict(rows),
  }
