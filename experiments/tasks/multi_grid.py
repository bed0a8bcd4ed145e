"""Section 6.6: multi-grid learning and sampling, Figure 8.

From scratch, section 4.2, a sample begins at an average that is drawn from the
model's histogram, or at a draw in the principal components of the coarsest
grid. It can also begin at a given coarse shape, which the model then refines: a
grid of 8^3 voxels gives grids of 16^3 and 32^3.
"""

from collections.abc import Sequence
import functools
import itertools
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy import stats

import dnet_jax
from dnet_jax import algorithms
from dnet_jax.uses import base as uses
from dnet_jax.uses import synthesis as library
from experiments import batches
from experiments.evaluation import baselines
from experiments.evaluation import scores
from experiments.files import datasets
from experiments.files import figures
from experiments.files import inputs
from experiments.files import models
from experiments.files import packed
from experiments.files import summaries
from experiments.tasks import base
from experiments.tasks import contents
from experiments.tasks import networks
from experiments.tasks import parts
from experiments.tasks import speed
from experiments.tasks import synthesis

_COLUMNS = 10  # Samples in a picture.
_DRAWS = 10_000  # Averages whose distribution is compared.


def _experiment(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> base.Experiment:
  names, sides = tuple(config.model.grid_networks), tuple(config.model.grids)
  if not names or len(names) != len(sides):
    raise ValueError(
      'multi_grid needs model.grids and as many model.grid_networks, got '
      f'{sides} and {names}'
    )
  if {*voxels.train.shape[1:]} != {sides[-1]}:
    raise ValueError(
      'the last of model.grids must be the side of the data, '
      f'{voxels.train.shape[1:]}, got {sides}'
    )
  factors, source, of_data = parts.grid_factors(config), None, {}
  if config.chains.start == 'components':
    of_data = {'components': _components(config, voxels)}
    source = synthesis.component_source(config, **of_data)
    factors = (1, *factors[1:])
  stds = np.broadcast_to(parts.reference_stds(config), len(sides))
  sizes = tuple(networks.descriptor_sizes(config, name) for name in names)
  nets = [networks.descriptor(config, one) for one in sizes]
  energies = [
    networks.energy_fn(config, network, voxels.mean, voxels.scale, float(std))
    for network, std in zip(nets, stds, strict=True)
  ]
  algorithm = dnet_jax.multi_grid(
    energies,
    [parts.contrastive_learner(config, energy_fn) for energy_fn in energies],
    parts.sampler(config),
    factors=factors,
    source=source,
    enlarge=networks.choice(
      library.ENLARGE, config.model.enlarge, 'model.enlarge'
    ),
  )
  grid_names = tuple(algorithms.grid_name(i) for i in range(len(sides)))

  def params():
    return {
      name: networks.init_descriptor(config, network, (side,) * 3 + (1,), grid)
      for grid, (name, network, side) in enumerate(
        zip(grid_names, nets, sides, strict=True), 1
      )
    }

  spec, extras = contents.spec_and_extras(
    config,
    *datasets.seen(voxels),
    descriptors=sizes,
    grids=sides,
    enlarge=config.model.enlarge,
  )
  extras |= of_data | {'histogram': summaries.histogram(voxels.train)}

  def preview(model):
    # The same fresh samples of the finest grid after each iteration.
    count = config.train.picture_shapes
    return np.asarray(
      dnet_jax.synthesize(parts.fixed_key(config), model, count)
    )

  phase = parts.one_phase(
    config, voxels, grid_names, algorithm, parts.batch_of(config, voxels)
  )
  return base.Experiment(voxels, spec, extras, params, (phase,), preview)


def _components(config, voxels):
  """Principal components of the coarsest grid.

  As many as `components.number` says, and a third of the shapes at most.
  """
  factor = config.model.grids[-1] // config.model.grids[0]
  # Some at a time: they may be packed.
  coarse = [baselines.downscale(y, factor) for y in packed.chunks(voxels.train)]
  config = config.copy_and_resolve_references()
  most = max(len(voxels.train) // 3, 1)
  config.components.number = min(config.components.number, most)
  return contents.components(
    config, voxels._replace(train=np.concatenate(coarse))
  )


def samples(
  model: dnet_jax.Model,
  num_shapes: int,
  seed: int,
  coarse: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
  """Samples of each grid, coarse first, each from the coarser one.

  Args:
    model: a multi-grid model.
    num_shapes: how many.
    seed: of averages and chains.
    coarse: shapes `(num_shapes, d, d, d)` to start from; None: from scratch.

  Returns:
    `(num_shapes, d, d, d)` of each grid that is finer than the start.
  """
  if num_shapes < 1:
    raise ValueError(f'sample.num_samples must be at least 1, got {num_shapes}')
  key = jax.random.key(seed)
  if coarse is None:
    rows = library.rows(key, model, num_shapes)
  else:
    rows = {
      'key': dnet_jax.chain_keys(key, num_shapes),
      'coarse': np.asarray(coarse, np.float32),
    }

  return batches.map_rows(
    functools.partial(library.synthesize_grids, model=model), rows
  )


def sample(request: base.Request) -> str:
  """Writes samples of all grids, Figure 8, from scratch or of given shapes.

  Voxels on a coarse grid of the model are used as they are; other voxels and
  meshes are averaged on its second finest grid.

  Returns:
    The new folder, see `synthesis.write_samples`; and grids.png (Figure 8)
    and grid_<d>.npz.
  """
  model, settings = request.model, request.config.sample
  coarse, count, given = None, settings.num_samples, None
  if request.input is not None:
    *sides, finest = (1, *model.spec.grids)
    given = inputs.read(
      request.input,
      model.spec.grid,
      limit=count,
      others=[(side,) * 3 for side in sides],
    )
    coarse, count = given.voxels, len(given.names)
    factor = finest // coarse.shape[-1]
    if factor > 1:
      given = inputs.finer(given, factor)
    else:
      coarse = baselines.downscale(coarse, finest // sides[-1])
  grids = samples(model, count, settings.seed, coarse)
  shown = grids if coarse is None else (coarse, *grids)

  def more(folder):
    picture(os.path.join(folder, 'grids.png'), shown)
    for shapes in shown:
      path = os.path.join(folder, f'grid_{shapes.shape[-1]}.npz')
      np.savez_compressed(path, voxels=shapes)

  path = synthesis.write_samples(request, grids[-1], given, more)
  if given is not None:
    inputs.tell_skipped(given)
  return path


def picture(path: str, grids: Sequence[np.ndarray]) -> None:
  """Figure 8: a row for each grid, coarse first, a column for each sample.

  A thin shape fills less than half of a coarse block, so shapes coarser than
  the last grid are drawn at half of their largest voxel.

  Args:
    path: of the picture (.png).
    grids: shapes `(n, d, d, d)` of each grid.
  """
  rows = []
  for shapes in grids[:-1]:
    largest = shapes.reshape(len(shapes), -1).max(axis=1)
    largest = np.where(largest > 0, largest, 1)
    rows.append(shapes[:_COLUMNS] / largest[:_COLUMNS, None, None, None])
  rows.append(grids[-1][:_COLUMNS])
  labels = [f'{shapes.shape[-1]}^3' for shapes in grids]
  figures.isosurfaces(path, rows, row_labels=labels)


def _pyramid(model, shapes) -> list[np.ndarray]:
  """Shapes `(n, D, D, D)` on each grid of the model, coarse first."""
  sides = (1, *model.spec.grids)
  factors = [b // a for a, b in itertools.pairwise(sides)]
  y = jnp.asarray(shapes, jnp.float32)[..., None]
  return [np.asarray(g)[..., 0] for g in dnet_jax.pyramid(y, factors)[1:]]


def cost(model: dnet_jax.Model) -> dict[str, Any]:
  """Langevin steps of a fresh sample on each grid, and seconds, compiled."""
  key, count = jax.random.key(0), batches.SIZE
  seconds = speed.seconds(lambda: dnet_jax.synthesize(key, model, count))
  use, _ = uses.settings(model, 'synthesize')
  return {
    'steps': {f'{d}^3': use.num_steps for d in model.spec.grids},
    'seconds_per_sample': round(seconds / count, 4),
    'chains_at_once': count,
  }


def _baseline(folder, num_steps, score, num_shapes, seed) -> dict[str, Any]:
  """Algorithm 1 from noise at T = 0: scores, steps and seconds of a sample."""
  model, card = models.open_model(folder)
  if not model.spec.descriptors or model.spec.grids:
    raise ValueError(
      'evaluate.baseline must be a model with one descriptor, got '
      f'{card["name"]!r}: {model!r}'
    )
  cold = {'start': 'noise', 'temperature': 0.0}
  made = synthesis.synthesize(
    model, num_shapes, seed, num_steps=num_steps, **cold
  )
  # All steps are alike, so the seconds are those of a few, times `num_steps`.
  some, count = min(num_steps, 10), min(num_shapes, batches.SIZE)
  seconds = speed.seconds(
    lambda: dnet_jax.synthesize(
      jax.random.key(seed), model, count, num_steps=some, **cold
    )
  )
  return {
    'name': card['name'],
    'scores': score(made),
    'steps': num_steps,
    'seconds_per_sample': round(seconds * num_steps / some / count, 4),
    'chains_at_once': count,
  }


def _level(grid, occupancy) -> float:
  """The threshold that a share `occupancy` of the voxels exceeds."""
  return float(np.quantile(grid, 1 - occupancy))


def _evaluate(
  request: base.Request, data: datasets.Dataset, folder: str
) -> dict[str, Any]:
  """Scores samples from scratch on every grid, and the 1^3 histogram.

  Block averages are thresholded at the level at which the test shapes of that
  grid are as full as on the finest: at 0.5 half of the sofas have no occupied
  voxel of 4^3.
  """
  del folder
  model, settings = request.model, request.config.evaluate
  num_shapes, seed = settings.num_shapes, settings.seed
  # By voxel IoU, which is also meaningful on coarse grids.
  score = functools.partial(scores.scores, surfaces=False)
  made, *more = (
    samples(model, num_shapes, seed) for seed in synthesis.draws(settings)
  )
  fresh = [made[-1], *(grids[-1] for grids in more)]
  result = synthesis.scored(request, data, {'fresh': fresh})
  rng = np.random.default_rng(0)
  test = data.test[np.sort(rng.permutation(len(data.test))[:num_shapes])]
  some = np.sort(rng.permutation(len(data.train))[:num_shapes])
  grids = {}
  for side, y, y_train, y_test in zip(
    model.spec.grids,
    made,
    _pyramid(model, data.train),
    _pyramid(model, test),
    strict=True,
  ):
    level = _level(y_test, (test > 0.5).mean()) if y is not made[-1] else 0.5
    y, y_train, y_test = (
      (shapes > level).astype(np.float32) for shapes in (y, y_train, y_test)
    )
    grids[f'{side}^3'] = {
      'level': round(level, 4),
      'samples': score(y, y_train, y_test),
      'training shapes': score(y_train[some], y_train, y_test, same=True),
    }
  result |= {
    'grids': grids,
    'averages': averages(model, data, made[-1], seed),
    'cost': cost(model),
  }
  if settings.baseline:
    result['baseline'] = _baseline(
      settings.baseline,
      settings.baseline_steps,
      lambda shapes: score(shapes, data.train, test),
      num_shapes,
      seed,
    )
  return result


def averages(
  model: dnet_jax.Model, data: datasets.Dataset, made: np.ndarray, seed: int
) -> dict[str, Any]:
  """How the 1^3 versions of shapes are distributed, p^(0) of section 4.2.

  Args:
    model: a multi-grid model.
    data: training and test shapes.
    made: samples of the finest grid.
    seed: of the draws.

  Returns:
    For the histogram's draws, training and test shapes and the samples: mean
    and standard deviation of the averages, and the Wasserstein-1 distance
    from those of the training shapes.
  """
  keys = dnet_jax.chain_keys(jax.random.key(seed), _DRAWS)
  sets = {
    'histogram': np.asarray(library.draw_averages(keys, model)),
    'training shapes': data.train,
    'test shapes': data.test,
    'samples': made,
  }
  means = {
    name: shapes.reshape(len(shapes), -1).mean(axis=1, dtype=np.float64)
    for name, shapes in sets.items()
    if len(shapes)
  }
  return {
    name: {
      'mean': round(float(x.mean()), 5),
      'std': round(float(x.std()), 5),
      'wasserstein': round(
        float(stats.wasserstein_distance(x, means['training shapes'])), 5
      ),
    }
    for name, x in means.items()
  }


TASK = base.Task(
  _experiment,
  _evaluate,
  {
    'sample': base.Mode(
      sample,
      'makes new shapes on every grid, or refines those of --input',
      takes=('config', 'input', 'format', *base.INPUT),
      fits=lambda spec: bool(spec.grids),
    )
  },
)
