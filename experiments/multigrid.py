"""What is done with a multi-grid model: samples of all its grids, and scores.

From scratch, section 4.2, a sample begins at an average that is drawn from the
model's histogram. From a given coarse shape it begins there, so that the model
sharpens: a grid of 8^3 voxels comes back as 16^3 and 32^3.
"""

from collections.abc import Sequence
import functools
import os
import time
from typing import Any

import jax
import ml_collections
import numpy as np
from scipy import stats

import dnet_jax
from experiments import build
from experiments import exported
from experiments import moves
from experiments.evaluation import scores
from experiments.files import datasets
from experiments.files import figures

_CHUNK = 50  # Chains that are moved at once: bounds the memory.
_COLUMNS = 10  # Samples in a picture.


def is_multigrid(trained: exported.Trained) -> bool:
  """Whether a trained model is one of several grids."""
  return 'grids' in trained.variables


def sides(trained: exported.Trained) -> tuple[int, ...]:
  """Sides of the grids of a multi-grid model, that of 1^3 first."""
  return (1, *trained.config.model.grids)


def _start(trained, coarse, num_samples, seed):
  """Shapes to begin with `(n, d, d, d)`, and the first grid to be sampled."""
  if coarse is None:
    return datasets.draw_averages(
      trained.variables['histogram'], num_samples, seed
    ), 0
  coarse, allowed = np.asarray(coarse, np.float32), sides(trained)
  side = coarse.shape[-1]
  if (
    coarse.ndim != 4
    or {*coarse.shape[1:]} != {side}
    or (side not in allowed[:-1])
  ):
    raise ValueError(
      'shapes to sharpen must be (n, d, d, d) with d one of '
      f'{allowed[:-1]}, got {coarse.shape}'
    )
  return coarse[:num_samples], allowed.index(side)


def samples(
  trained: exported.Trained,
  *,
  num_samples: int,
  seed: int,
  num_steps: int = 0,
  step_size: float = 0.0,
  temperature: float = 1.0,
  coarse: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
  """Samples of each grid, coarse first, each from the coarser one.

  Args:
    trained: a multi-grid model.
    num_samples: how many; at most as many as there are in `coarse`.
    seed: of the averages and the chains.
    num_steps: Langevin steps of each grid; 0: as in learning.
    step_size: delta-tau; 0: that of learning.
    temperature: times that of each grid in learning.
    coarse: shapes `(n, d, d, d)` in [0, 1] to start from, d a side of the
      model's coarser grids, or 1; None: from scratch.

  Returns:
    Voxels `(num_samples, d, d, d)` of each grid that is finer than the start,
    mean added back, not thresholded.

  Raises:
    ValueError: for a model, shapes or a setting that are not possible.
  """
  if not is_multigrid(trained):
    raise ValueError(
      "sample.start='grids' needs a multi-grid model, this is "
      f'{trained.config.name!r} ({trained.config.algorithm})'
    )
  if num_samples < 1 or num_steps < 0 or temperature < 0:
    raise ValueError(
      'sample.num_samples must be at least 1, sample.num_steps and '
      f'sample.temperature not negative; got {num_samples}, {num_steps}, '
      f'{temperature}'
    )
  y, first = _start(trained, coarse, num_samples, seed)
  sample = build.grid_sampler(
    trained.config,
    trained.model,
    first=first,
    num_steps=num_steps,
    step_size=step_size,
    temperature=temperature,
  )
  y = datasets.to_network(y, trained.mean, trained.scale)
  keys = dnet_jax.chain_keys(jax.random.key(seed), len(y))
  chunks = [
    sample(_params(trained)[first:], keys[i : i + _CHUNK], y[i : i + _CHUNK])
    for i in range(0, len(y), _CHUNK)
  ]
  return tuple(
    datasets.to_voxels(np.concatenate(grid), trained.mean, trained.scale)
    for grid in zip(*chunks, strict=True)
  )


def _params(trained):
  grids = trained.variables['grids']
  return [grids[f'grid{i}'] for i in range(1, len(grids) + 1)]


def picture(path: str, grids: Sequence[np.ndarray]) -> None:
  """Figure 8: a row for each grid, coarse first, a column for each sample.

  A block of a coarse grid that is half full of a thin shape is no 0.5, so
  shapes coarser than the last grid are drawn at half of their largest voxel.

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


def write(folder: str, grids: Sequence[np.ndarray]) -> None:
  """Writes Figure 8, grids.png, and each grid's voxels, grid_<d>.npz.

  Args:
    folder: that exists.
    grids: shapes `(n, d, d, d)` of each grid, coarse first.
  """
  picture(os.path.join(folder, 'grids.png'), grids)
  for shapes in grids:
    path = os.path.join(folder, f'grid_{shapes.shape[-1]}.npz')
    np.savez_compressed(path, voxels=shapes)


def _pyramid(trained, shapes) -> list[np.ndarray]:
  """Shapes `(n, D, D, D)` on each grid of the model, coarse first."""
  y = np.asarray(shapes, np.float32)[..., None]
  grids = dnet_jax.pyramid(y, build.grid_factors(trained.config))[1:]
  return [np.asarray(grid)[..., 0] for grid in grids]


def _seconds(function, *args, repetitions: int = 3) -> float:
  """Seconds of a compiled function: the least of a few calls."""
  jax.block_until_ready(function(*args))
  times = []
  for _ in range(repetitions):
    begin = time.perf_counter()
    jax.block_until_ready(function(*args))
    times.append(time.perf_counter() - begin)
  return min(times)


def cost(trained: exported.Trained) -> dict[str, Any]:
  """Langevin steps of a fresh sample on each grid, and seconds, compiled.

  Args:
    trained: a multi-grid model.
  """
  keys = dnet_jax.chain_keys(jax.random.key(0), _CHUNK)
  y, _ = _start(trained, None, _CHUNK, 0)
  y = datasets.to_network(y, trained.mean, trained.scale)
  sample = build.grid_sampler(trained.config, trained.model)
  seconds = _seconds(sample, _params(trained), keys, y)
  steps = trained.config.chains.num_steps
  return {
    'steps': {f'{d}^3': steps for d in sides(trained)[1:]},
    'seconds_per_sample': round(seconds / _CHUNK, 4),
    'chains_at_once': _CHUNK,
  }


def _baseline(trained, num_steps, score, num_samples, seed) -> dict[str, Any]:
  """Algorithm 1 from noise at T = 0: scores, steps and seconds of a sample."""
  if is_multigrid(trained) or trained.energy_fn is None:
    raise ValueError(
      'evaluate.baseline must be a model with one descriptor, got '
      f'{trained.config.name!r} ({trained.config.algorithm})'
    )
  keys = dnet_jax.chain_keys(jax.random.key(seed), num_samples)
  std = trained.config.chains.start_std
  y = dnet_jax.from_noise(keys, trained.shape, std).position
  made = moves.move(
    trained,
    keys,
    moves.free,
    y,
    num_steps=num_steps,
    noise_steps=0,
    temperature=0.0,
    step_size=0.0,
  )
  # All steps are alike, so the seconds are those of a few, times `num_steps`.
  some = min(num_steps, 10)

  @jax.jit
  def sample(params, key, y):
    return dnet_jax.run_chains(
      key,
      functools.partial(trained.model.energy_fn, params),
      dnet_jax.from_data(y),
      num_steps=some,
      step_size=trained.config.chains.step_size,
      temperature=0.0,
    )[0]

  y = y[:_CHUNK]
  seconds = _seconds(sample, trained.params, keys[0], y)
  return {
    'name': trained.config.name,
    'scores': score(made),
    'steps': num_steps,
    'seconds_per_sample': round(seconds * num_steps / some / len(y), 4),
    'chains_at_once': len(y),
  }


def _level(grid, occupancy) -> float:
  """The number that a share `occupancy` of the voxels is above."""
  return float(np.quantile(grid, 1 - occupancy))


def evaluation(
  trained: exported.Trained,
  data: datasets.Dataset,
  settings: ml_collections.ConfigDict,
) -> dict[str, Any]:
  """Scores samples from scratch on every grid, and the 1^3 histogram.

  Block averages are thresholded at the level at which the test shapes of that
  grid are as full as on the finest: at 0.5 half of the sofas have no occupied
  voxel of 4^3.

  Args:
    trained: a multi-grid model.
    data: training and test shapes.
    settings: `config.evaluate`.

  Returns:
    'grids': for each its level and the scores of samples and of training
    shapes; 'averages', see `averages`; 'cost', see `cost`; and 'baseline':
    scores and cost of the fresh chains of another model, where `settings`
    name one.
  """
  num_samples, seed = settings.num_shapes, settings.seed
  # By voxel IoU, which means something on coarse grids too.
  score = functools.partial(scores.scores, surfaces=False)
  made = samples(
    trained,
    num_samples=num_samples,
    seed=seed,
    num_steps=settings.num_steps,
    temperature=settings.temperature,
  )
  rng = np.random.default_rng(0)
  test = data.test[np.sort(rng.permutation(len(data.test))[:num_samples])]
  some = np.sort(rng.permutation(len(data.train))[:num_samples])
  grids = {}
  for side, y, y_train, y_test in zip(
    trained.config.model.grids,
    made,
    _pyramid(trained, data.train),
    _pyramid(trained, test),
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
  result = {
    'grids': grids,
    'averages': averages(trained, data, made[-1], seed),
    'cost': cost(trained),
  }
  if settings.baseline:
    result['baseline'] = _baseline(
      exported.load(settings.baseline),
      settings.baseline_steps,
      lambda shapes: score(shapes, data.train, test),
      num_samples,
      seed,
    )
  return result


def averages(
  trained: exported.Trained,
  data: datasets.Dataset,
  made: np.ndarray,
  seed: int,
) -> dict[str, Any]:
  """How the 1^3 versions of shapes are distributed, p^(0) of section 4.2.

  Args:
    trained: a multi-grid model.
    data: training and test shapes.
    made: samples of the finest grid.
    seed: of the draws.

  Returns:
    For the histogram's draws, training and test shapes and the samples: mean
    and standard deviation of the averages, and the Wasserstein-1 distance
    from those of the training shapes.
  """
  draws = datasets.draw_averages(trained.variables['histogram'], 10_000, seed)
  sets = {
    'histogram': draws,
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
