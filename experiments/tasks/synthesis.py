"""Section 6.1: shapes from noise, and 4.1, contrastive divergence.

Figure 2, Tables 1 to 3.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import dnet_jax
from dnet_jax import metrics
from dnet_jax.uses import synthesis as library
from experiments import batches
from experiments import parallel
from experiments.evaluation import classifier as classifiers
from experiments.evaluation import scores
from experiments.files import datasets
from experiments.files import figures
from experiments.files import inputs
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import contents
from experiments.tasks import networks
from experiments.tasks import parts

_COLUMNS = 10  # Of a picture.


def _noise(config, shape, components):
  del components
  return dnet_jax.noise_source(shape, config.chains.start_std)


def component_source(
  config: ml_collections.ConfigDict, components: Mapping[str, Any]
) -> dnet_jax.Source:
  """Chains begin at draws in these components, of `contents.components`."""
  return dnet_jax.component_source(
    dnet_jax.Components(**jax.tree.map(jnp.asarray, components)),
    config.chains.start_std,
    config.chains.start_spread,
  )


def _draws(config, shape, components):
  del shape
  return component_source(config, components())


SOURCES = {'noise': _noise, 'components': _draws}


def _maximum_likelihood(config, voxels, energy_fn, learner, components):
  chains = config.chains
  make_source = networks.choice(SOURCES, chains.start, 'chains.start')
  parallel.check_divisible(**{'chains.num_chains': chains.num_chains})
  memory = dnet_jax.persistent(
    make_source(config, (*voxels.train.shape[1:], 1), components),
    num_chains=chains.num_chains,
    num_slots=chains.num_slots,
    restart_probability=chains.restart_probability,
    restart_iterations=config.train.num_iterations - chains.settle_iterations,
  )
  algorithm = dnet_jax.maximum_likelihood(
    energy_fn, learner, parts.sampler(config), memory
  )
  return algorithm, parts.batch_of(config, voxels), None


def _contrastive_divergence(config, voxels, energy_fn, learner, components):
  del components
  algorithm = dnet_jax.contrastive_divergence(
    energy_fn, learner, parts.sampler(config)
  )
  return algorithm, parts.batch_of(config, voxels), None


def _persistent_contrastive_divergence(
  config, voxels, energy_fn, learner, components
):
  del components
  # Each mini-batch owns the chains that began at its shapes.
  batch = parts.batch_of(config, voxels, shuffle=False)
  num_slots = len(voxels.train) // config.data.batch_size
  memory = dnet_jax.persistent(
    dnet_jax.noise_source((*voxels.train.shape[1:], 1)),
    num_chains=config.data.batch_size,
    num_slots=num_slots,
  )
  algorithm = dnet_jax.maximum_likelihood(
    energy_fn, learner, parts.sampler(config), memory
  )
  prepare = jax.jit(datasets.prepare(voxels))

  def first_chains(chains):
    return np.stack(
      [np.asarray(prepare(batch(i, 0, chains))) for i in range(num_slots)]
    )

  return algorithm, batch, first_chains


ALGORITHMS = {
  'maximum_likelihood': _maximum_likelihood,
  'contrastive_divergence': _contrastive_divergence,
  'persistent_contrastive_divergence': _persistent_contrastive_divergence,
}


def _experiment(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> base.Experiment:
  make = networks.choice(ALGORITHMS, config.algorithm, 'algorithm')
  shape = (*voxels.train.shape[1:], 1)
  sizes = networks.descriptor_sizes(config, config.model.network)
  network = networks.descriptor(config, sizes)
  energy_fn = networks.energy_fn(config, network, voxels.mean, voxels.scale)
  learner = parts.contrastive_learner(config, energy_fn)
  # For chains and for the model, but found once, where either needs them.
  components = functools.cache(
    functools.partial(contents.components, config, voxels)
  )
  algorithm, batch, first_chains = make(
    config, voxels, energy_fn, learner, components
  )
  spec, extras = contents.spec_and_extras(
    config, *datasets.seen(voxels), descriptors=(sizes,)
  )
  if config.components.number:
    extras['components'] = components()

  def preview(model):
    chains = model.extras.get('chains')
    if chains is None:
      return None
    return datasets.to_voxels(
      chains[: config.train.picture_shapes], voxels.mean, voxels.scale
    )

  phase = parts.one_phase(config, voxels, ('descriptor',), algorithm, batch)
  return base.Experiment(
    voxels,
    spec,
    extras,
    lambda: {'descriptor': networks.init_descriptor(config, network, shape)},
    (phase._replace(first_chains=first_chains),),
    preview,
  )


def synthesize(
  model: dnet_jax.Model, num_shapes: int, seed: int, **arguments: Any
) -> np.ndarray:
  """New shapes, some at a time.

  Args:
    model: the model.
    num_shapes: how many.
    seed: of the chains; shape i does not depend on `num_shapes`.
    **arguments: of `dnet_jax.synthesize`.

  Returns:
    `(num_shapes, D, H, W)`, not thresholded.
  """
  if num_shapes < 1:
    raise ValueError(f'sample.num_samples must be at least 1, got {num_shapes}')
  rows = library.rows(
    jax.random.key(seed), model, num_shapes, arguments.get('start')
  )

  return batches.map_rows(
    functools.partial(dnet_jax.synthesize, model=model, **arguments), rows
  )


def persistent(model: dnet_jax.Model, num_shapes: int) -> np.ndarray:
  """The first persistent chains of a model: `(num_shapes, D, H, W)`.

  Raises:
    ValueError: when it keeps fewer.
  """
  chains = model.extras.get('chains', ())
  if not 1 <= num_shapes <= len(chains):
    other = f'num_samples={len(chains)}' if len(chains) else 'start=noise'
    raise ValueError(
      f'sample.num_samples = {num_shapes}, but the model keeps {len(chains)} '
      f'persistent chains; use --config.sample.{other}'
    )
  return datasets.to_voxels(
    chains[:num_shapes],
    float(model.extras['mean']),
    float(model.extras['scale']),
  )


def sample(request: base.Request) -> str:
  """Writes new shapes, or persistent ones: voxels, pictures, meshes.

  Returns:
    The new folder, `samples/<start>`, `_001`, ...: see `write_samples`.
  """
  model, settings = request.model, request.config.sample
  num_shapes, seed = settings.num_samples, settings.seed
  if settings.start == 'chains':
    voxels = persistent(model, num_shapes)
    if settings.num_steps or settings.refinement_steps:
      voxels = refine(model, voxels, seed)
  else:
    voxels = synthesize(model, num_shapes, seed)
  return write_samples(request, voxels)


def refine(model: dnet_jax.Model, voxels: np.ndarray, seed: int) -> np.ndarray:
  """Chains that begin at given shapes, some at a time.

  Args:
    model: with a descriptor.
    voxels: `(n, D, H, W)`.
    seed: of the chains.
  """
  keys = dnet_jax.chain_keys(jax.random.key(seed), len(voxels))
  return batches.map_batches(
    lambda keys, start: dnet_jax.synthesize(
      keys, model, len(keys), start=start
    ),
    keys,
    voxels,
  )


def write_samples(
  request: base.Request,
  voxels: np.ndarray,
  given: inputs.Shapes | None = None,
  more: Callable[[str], None] = lambda folder: None,
) -> str:
  """Writes samples below the model.

  Args:
    request: of the mode; its `config.sample` is recorded.
    voxels: `(n, D, H, W)`.
    given: the input that they were made from.
    more: writes further files to the folder.

  Returns:
    The new folder: voxels.npz (key `voxels`, mean added back, not
    thresholded), samples.png, neighbours.png (Figure 2: each sample above its
    nearest training shape in l2 distance, where the data is there), meshes/,
    record.json.
  """
  settings = request.config.sample
  data = parts.data_or_none(request.config)
  record = outputs.header(request.card['name'])
  if request.input is not None:
    record['input'] = request.input._asdict()

  def fill(folder):
    figures.isosurfaces(
      os.path.join(folder, 'samples.png'), figures.rows(voxels, _COLUMNS)
    )
    if data is not None and data.train.shape[1:] == voxels.shape[1:]:
      picture_neighbours(
        os.path.join(folder, 'neighbours.png'), voxels, data.train
      )
    outputs.write_shapes(
      folder,
      {'voxels': voxels},
      record | {'settings': settings.to_dict()},
      {'': voxels},
      base.formats(request),
      given,
    )
    more(folder)

  return outputs.in_new_folder(
    os.path.join(request.folder, 'samples'), settings.start, fill
  )


def picture_neighbours(
  path: str, voxels: np.ndarray, train: np.ndarray
) -> None:
  """Figure 2: shapes above their nearest training shapes.

  Args:
    path: of the picture (.png).
    voxels: `(n, D, H, W)`.
    train: `(m, D, H, W)`.
  """
  binary = (voxels > 0.5).astype(np.float32)
  nearest = np.asarray(metrics.nearest_neighbours(binary, train))
  rows, colors = [], []
  for some in figures.rows(range(len(voxels)), _COLUMNS):
    rows += [[voxels[i] for i in some], [train[nearest[i]] for i in some]]
    colors += [figures.SAMPLE_COLOR, figures.NEIGHBOUR_COLOR]
  figures.isosurfaces(
    path,
    rows,
    colors=colors,
    row_labels=['sample', 'nearest'] * (len(rows) // 2),
  )


def _evaluate(
  request: base.Request, data: datasets.Dataset, folder: str
) -> dict[str, Any]:
  """Scores of persistent and fresh chains beside real shapes and noise."""
  del folder  # Nothing is drawn.
  model, settings = request.model, request.config.evaluate
  sets = {}
  count = min(settings.num_shapes, len(data.test))
  there = min(len(model.extras.get('chains', ())), count)
  if there > 1:
    sets['persistent'] = [persistent(model, there)]
  sets['fresh'] = [synthesize(model, count, seed) for seed in draws(settings)]
  if steps := settings.more_steps:
    sets[f'fresh, {steps} steps'] = [
      synthesize(model, count, seed, num_steps=steps)
      for seed in draws(settings)[: settings.more_draws]
    ]
  return scored(request, data, sets)


def draws(settings: ml_collections.ConfigDict) -> range:
  """The seeds of `config.evaluate`, one a draw."""
  return range(settings.seed, settings.seed + settings.draws)


def scored(
  request: base.Request,
  data: datasets.Dataset,
  sets: dict[str, Sequence[np.ndarray]],
) -> dict[str, Any]:
  """The result for sets of shapes, as it is written: Tables 1 to 3, distances.

  Args:
    request: of the mode.
    data: with test shapes.
    sets: see `scores.compare`.
  """
  settings = request.config.evaluate
  classifier = classifiers.load(settings.classifier)
  return {
    'table': 'synthesis',
    'category': request.config.data.category,
    'settings': settings.to_dict()
    | {'sample': request.config.sample.to_dict()},
    'classifier': None if classifier is None else classifier.card,
    'scores': scores.compare(sets, data, settings, classifier),
  }


TASK = base.Task(
  _experiment,
  _evaluate,
  {
    'sample': base.Mode(
      sample,
      'makes new shapes: voxels, pictures, meshes',
      takes=('config', 'format'),
      fits=lambda spec: base.has_descriptor(spec) or base.has_generator(spec),
    )
  },
)
