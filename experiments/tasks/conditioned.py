"""What recovery and super-resolution share: chains from a mini-batch."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import dnet_jax
from experiments.files import datasets
from experiments.files import figures
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import contents
from experiments.tasks import networks
from experiments.tasks import parts

_COLUMNS = 10  # Of a picture.


class Known(NamedTuple):
  """The principal components at which chains begin in learning.

  Attributes:
    among: indices of the training shapes to learn from; None: all.
    components: those of the other training shapes; None: chains do not begin
      at components.
    extras: those of the model, with the components of all training shapes.
  """

  among: np.ndarray | None = None
  components: dnet_jax.Components | None = None
  extras: Mapping[str, Any] = {}


def known(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset, std: float
) -> Known:
  """The principal components at which chains begin, if the config says so.

  Chains begin at components of other shapes than those that are learned from:
  components of the same shapes would know too much about them.

  Args:
    config: its `components` is read.
    voxels: the data.
    std: standard deviation around what the components explain; 0: chains do not
      begin at components.
  """
  if not std:
    return Known()
  among, others = parted(config, len(voxels.train))
  components = _components(config, voxels, others)
  return Known(
    among,
    dnet_jax.Components(**jax.tree.map(jnp.asarray, components)),
    {'components': _components(config, voxels)},
  )


def _components(config, voxels, among=None):
  """As many as `components.number` says, and a third of the shapes at most."""
  config = config.copy_and_resolve_references()
  count = len(voxels.train if among is None else among)
  number = min(config.components.number, max(count // 3, 1))
  config.components.number = number
  return contents.components(config, voxels, among)


def parted(
  config: ml_collections.ConfigDict, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Shapes to learn from, and others, at whose components chains begin.

  Args:
    config: its `components` and its seed are read.
    count: of the training shapes.

  Returns:
    Indices of the shapes to learn from and of the others, each in order.

  Raises:
    ValueError: where `components.number` is 0, or a mini-batch is larger than
      the number of shapes to learn from.
  """
  if not config.components.number:
    raise ValueError(
      'components_std needs principal components: set '
      '--config.components.number'
    )
  order = np.random.default_rng(config.seed).permutation(count)
  learned = min(max(round(config.components.share * count), 1), count - 1)
  if learned < config.data.batch_size:
    raise ValueError(
      f'data.batch_size must be at most {learned}, the share '
      f'{config.components.share} (components.share) of {count} training '
      f'shapes; got {config.data.batch_size}'
    )
  return np.sort(order[:learned]), np.sort(order[learned:])


def experiment(
  config: ml_collections.ConfigDict,
  voxels: datasets.Dataset,
  make: Callable[..., dnet_jax.Algorithm],
  of_data: Known,
  **arguments: Any,
) -> base.Experiment:
  """Learns one descriptor by an algorithm that keeps no chains.

  Args:
    config: of the run.
    voxels: its data.
    make: makes the algorithm from energy, learner, sampler and `arguments`.
    of_data: the result of `known`.
    **arguments: further arguments of `make`.
  """
  shape = (*voxels.train.shape[1:], 1)
  sizes = networks.descriptor_sizes(config, config.model.network)
  network = networks.descriptor(config, sizes)
  energy_fn = networks.energy_fn(config, network, voxels.mean, voxels.scale)
  algorithm = make(
    energy_fn,
    parts.contrastive_learner(config, energy_fn),
    parts.sampler(config),
    **arguments,
  )
  spec, extras = contents.spec_and_extras(
    config, *datasets.seen(voxels), descriptors=(sizes,)
  )
  batch = parts.batch_of(config, voxels, among=of_data.among)
  return base.Experiment(
    voxels,
    spec,
    extras | dict(of_data.extras),
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
    given: the parts or averages that were given, on this or a coarser grid.
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
  """The result of an evaluation, as it is written.

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
