"""Recovery and super-resolution with a trained model, sections 6.2 and 6.3.

Of the test split, scored beside baselines (`report`), and of shapes from
outside (`recover`, `super_resolve`). Voxels are `(n, D, H, W)` in [0, 1] here.
"""

from collections.abc import Callable
from collections.abc import Sequence
import os
import pathlib
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

import dnet_jax
from dnet_jax import metrics
from experiments import build
from experiments import exported
from experiments import moves
from experiments.evaluation import baselines
from experiments.evaluation import paper
from experiments.files import datasets
from experiments.files import figures
from experiments.files import inputs
from experiments.files import outputs

ALGORITHMS = ('recovery', 'super_resolution')
_PICTURE_COLUMNS = 10


def _steps(settings) -> dict[str, Any]:
  """The settings of chains in `config.sample` or `config.evaluate`."""
  names = ('num_steps', 'noise_steps', 'temperature')
  chosen = {name: settings[name] for name in names}
  # Not in the configs of models that were exported before there were these.
  more = {'step_size': 0.0, 'refinement_steps': 0, 'refinement_std': 0.2}
  return chosen | {name: settings.get(name, v) for name, v in more.items()}


def corrupted(
  config: ml_collections.ConfigDict, shape: Sequence[int], n: int, seed: int
) -> np.ndarray:
  """What `config.corruption` leaves visible of n shapes: `(n, D, H, W)`.

  Args:
    config: its `corruption` is read.
    shape: `(D, H, W)`.
    n: how many.
    seed: of the corruption.
  """
  keys = dnet_jax.chain_keys(jax.random.key(seed), n)
  corrupt = build.corruption(config)
  visible = jax.jit(lambda keys: corrupt(keys, (*shape, 1)))(keys)
  return np.asarray(visible)[..., 0]


def recover_voxels(
  trained: exported.Trained,
  voxels: np.ndarray,
  visible: np.ndarray,
  *,
  hold: bool = True,
  fill: Callable[..., Any] | None = None,
  seed: int = 0,
  **steps,
) -> np.ndarray:
  """Fills the hidden voxels by Langevin dynamics, the rest being given.

  Args:
    trained: a model with a descriptor, of any algorithm.
    voxels: `(n, D, H, W)`; only visible ones are read.
    visible: boolean, likewise.
    hold: see `dnet_jax.recovery_start`.
    fill: likewise.
    seed: of the noise, if there is any.
    **steps: see `moves.move`.

  Returns:
    `(n, D, H, W)` in [0, 1], the visible ones as they were given.

  Raises:
    ValueError: as `inputs.check_visible`.
  """
  inputs.check_visible(visible, trained.shape[:3])
  recovered = moves.move(
    trained,
    dnet_jax.chain_keys(jax.random.key(seed), len(voxels)),
    lambda y, visible: dnet_jax.recovery_start(y, visible, hold, fill),
    datasets.to_network(voxels, trained.mean, trained.scale),
    visible[..., None],
    **steps,
  )
  return np.where(visible, voxels, np.clip(recovered, 0, 1))


def super_resolve_voxels(
  trained: exported.Trained,
  low: np.ndarray,
  factor: int,
  *,
  seed: int = 0,
  **steps,
) -> np.ndarray:
  """Adds the details that block averages leave open.

  Args:
    trained: a model with a descriptor, of any algorithm.
    low: averages `(n, D / factor, H / factor, W / factor)`.
    factor: d, ratio of the sides.
    seed: of the noise, if there is any.
    **steps: see `moves.move`.

  Returns:
    `(n, D, H, W)`; its block averages are `low`. Not clipped.

  Raises:
    ValueError: when the grid of the model is not `factor` times that of `low`.
  """
  sides = tuple(n * factor for n in low.shape[1:])
  if sides != trained.shape[:3]:
    raise ValueError(
      f'low resolutions of {low.shape[1:]} are {sides} at factor {factor}, '
      f'the grid of the model is {trained.shape[:3]}'
    )
  return moves.move(
    trained,
    dnet_jax.chain_keys(jax.random.key(seed), len(low)),
    lambda y: (dnet_jax.from_low_resolution(y, factor), lambda y: y),
    datasets.to_network(low, trained.mean, trained.scale),
    **steps,
  )


# Scores.


def _own_iou(a, b):
  """Intersection over union of each shape with its original."""
  a, b = (np.asarray(x).reshape(len(x), -1) > 0.5 for x in (a, b))
  either = (a | b).sum(axis=1)
  return np.where(either, (a & b).sum(axis=1) / np.maximum(either, 1), 1.0)


def _rounded(scores):
  return {name: round(float(np.mean(x)), 5) for name, x in scores.items()}


def recovery_scores(
  recovered: np.ndarray, voxels: np.ndarray, visible: np.ndarray
) -> dict[str, float]:
  """Table 4's error, real-valued and of thresholded voxels, and IoU.

  Args:
    recovered: `(n, D, H, W)`.
    voxels: the originals.
    visible: boolean; errors are over the others, IoU is of whole shapes.
  """
  y = np.clip(recovered, 0, 1)
  return _rounded(
    {
      'error': metrics.recovery_error(y, voxels, visible),
      'error_binary': metrics.recovery_error(y, voxels, visible, threshold=0.5),
      'iou': _own_iou(y, voxels),
    }
  )


def super_resolution_scores(
  y: np.ndarray, voxels: np.ndarray
) -> dict[str, float]:
  """Mean absolute difference, real-valued and thresholded, IoU, Chamfer.

  Args:
    y: `(n, D, H, W)`.
    voxels: the originals.

  Returns:
    Means over shapes; `chamfer` as `metrics.chamfer_distances`, a thousand
    times.
  """
  y = np.clip(y, 0, 1)
  chamfer = jax.jit(metrics.chamfer_distances)
  voxels = np.asarray(voxels, np.float32)
  return _rounded(
    {
      'error': np.abs(y - voxels),
      'error_binary': (y > 0.5) != (voxels > 0.5),
      'iou': _own_iou(y, voxels),
      'chamfer_1000': [
        1000 * chamfer(a[None], b[None]) for a, b in zip(y, voxels, strict=True)
      ],
    }
  )


def report(
  trained: exported.Trained,
  data: datasets.Dataset,
  config: ml_collections.ConfigDict,
  folder: str,
) -> dict[str, Any]:
  """Recovers or super-resolves test shapes: Table 4, Figure 3 or Figure 4.

  Args:
    trained: of algorithm 'recovery' or 'super_resolution'.
    data: its test shapes are used; the training shapes, for baselines.
    config: its `evaluate`, `corruption` and `factor` count.
    folder: a picture is written to `folder/evaluation.png`, `_001`, ...: rows
      of originals, of what was given, and of results.

  Returns:
    What is to be written of it; `scores` has a row for the model, for each
    baseline and, in a recovery like the paper's, for each column of Table 4.

  Raises:
    ValueError: for another grid than that of the model.
  """
  settings = config.evaluate
  if data.test.shape[1:] != trained.shape[:3]:
    raise ValueError(
      f'{data.source} has a grid of {data.test.shape[1:]}, the model one of '
      f'{trained.shape[:3]}'
    )
  voxels = data.test[: settings.num_shapes].astype(np.float32)
  make = {'recovery': _recovery_report}.get(
    trained.config.algorithm, _super_resolution_report
  )
  options, given, y, scores = make(trained, data, config, voxels)
  shown = slice(None, _PICTURE_COLUMNS)
  figures.isosurfaces(
    outputs.unused_path(folder, 'evaluation', '.png'),
    [voxels[shown], given[shown], y[shown]],
    row_labels=['original', 'given', 'result'],
    colors=[figures.NEIGHBOUR_COLOR] * 2 + [figures.SAMPLE_COLOR],
  )
  card = trained.card
  return {
    'table': trained.config.algorithm,
    'category': config.data.category,
    'test_shapes': len(voxels),
    'budget': {
      name: card[name] for name in ('iterations', 'minutes', 'device')
    },
    'settings': options | _steps(settings) | {'seed': settings.seed},
    'scores': scores,
  }


def _recovery_report(trained, data, config, voxels):
  settings, options = config.evaluate, config.corruption.to_dict()
  visible = corrupted(config, voxels.shape[1:], len(voxels), settings.seed)
  recovered = recover_voxels(
    trained,
    voxels,
    visible,
    hold=config.corruption.hold,
    fill=build.fill(config),
    seed=settings.seed,
    **_steps(settings),
  )
  # Training shapes, corrupted likewise.
  count = min(len(voxels), len(data.train))
  others = corrupted(config, voxels.shape[1:], count, settings.seed + 1)
  guesses = baselines.recovery(voxels, visible, data.train, others)
  scores = {
    name: recovery_scores(y, voxels, visible)
    for name, y in ({'model': recovered} | guesses).items()
  }
  if (options['kind'], options['fraction']) == ('random_voxels', 0.7):
    errors = paper.RECOVERY_ERRORS.get(config.data.category, ())
    for name, error in zip(paper.RECOVERY_METHODS, errors, strict=False):
      scores[name] = {'error': error}
  return options, np.where(visible, voxels, 0), recovered, scores


def _super_resolution_report(trained, data, config, voxels):
  settings, factor = config.evaluate, config.factor
  low = baselines.downscale(voxels, factor)
  steps = _steps(settings)
  ours = {'model': steps | {'refinement_steps': 0}}
  if steps['refinement_steps']:
    ours['model, sharpened'] = steps
  ours = {
    name: super_resolve_voxels(trained, low, factor, seed=settings.seed, **some)
    for name, some in ours.items()
  }
  y = ours['model']
  guesses = baselines.super_resolution(low, factor, data.train)
  scores = {
    name: super_resolution_scores(shapes, voxels)
    for name, shapes in (ours | guesses).items()
  }
  return {'factor': factor}, low, y, scores


def _record(trained, config, source):
  return outputs.header(trained.config.name) | {
    'input': source,
    'settings': config.sample.to_dict(),
    'corruption': config.corruption.to_dict(),
    'factor': config.factor,
  }


def _write(folder, rows, labels, settings, content, **arrays):
  """Writes voxels, meshes, a picture and a record into a new folder."""
  np.savez_compressed(os.path.join(folder, 'voxels.npz'), **arrays)
  picture = []
  for i in range(0, len(arrays['voxels']), _PICTURE_COLUMNS):
    picture += [row[i : i + _PICTURE_COLUMNS] for row in rows]
  times = len(picture) // len(rows)
  figures.isosurfaces(
    os.path.join(folder, 'picture.png'),
    picture,
    row_labels=labels * times,
    colors=(
      [figures.NEIGHBOUR_COLOR] * (len(rows) - 1) + [figures.SAMPLE_COLOR]
    )
    * times,
  )
  outputs.write(os.path.join(folder, 'record.json'), content)
  if settings.mesh_format:
    saved = outputs.save_meshes(
      os.path.join(folder, 'meshes'),
      arrays['voxels'],
      file_format=settings.mesh_format,
    )
    if saved.empty:
      logging.warning('Shapes without a surface: %s', saved.empty)
  logging.info('Wrote %s', folder)
  return folder


def _open(config, workdir):
  trained, config = exported.open_with(config, workdir)
  if trained.energy_fn is None:
    raise ValueError(f'{workdir} holds no descriptor')
  return trained, config


def recover(
  config: ml_collections.ConfigDict | None,
  workdir: str,
  source: str,
  visible: str | None = None,
  up: str = 'z',
) -> str:
  """Recovers shapes from outside, of which a part is hidden.

  Args:
    config: whose `sample` and `corruption` settings count; None: those of the
      workdir.
    workdir: of a run, or an exported model.
    source: see `inputs.read_input`; smaller grids are padded.
    visible: a file (.npy) with a boolean `(D, H, W)` or `(n, D, H, W)`, True
      where a voxel was observed, False where it is to be recovered; None:
      `config.corruption` hides.
    up: the axis of the shapes that becomes z; `visible` is not turned.

  Returns:
    The new folder, `workdir/recoveries/<name of source>`, `_001`, ...:
    voxels.npz (`voxels`, the recovered shapes, in [0, 1] and not thresholded;
    `input`, `visible`), picture.png, meshes/, record.json.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  trained, config = _open(config, workdir)
  settings, shape = config.sample, trained.shape[:3]
  voxels = inputs.fit(inputs.read_input(source, shape[0], up), shape, source)
  voxels = inputs.some(voxels, settings.num_samples, source)
  if visible is None:
    seen = corrupted(config, shape, len(voxels), settings.seed)
  else:
    seen = inputs.read_visible(visible, len(voxels))
  inputs.check_visible(seen, shape)
  recovered = recover_voxels(
    trained,
    voxels,
    seen,
    hold=config.corruption.hold,
    fill=build.fill(config),
    seed=settings.seed,
    **_steps(settings),
  )
  content = _record(trained, config, source)
  if visible is None:
    # The whole shape is known, and what was hidden of it is the truth.
    content['scores'] = recovery_scores(recovered, voxels, seen)
  stem = pathlib.PurePath(source).stem
  return _write(
    outputs.unused_path(os.path.join(workdir, 'recoveries'), stem),
    [voxels, np.where(seen, voxels, 0), recovered],
    ['input', 'visible', 'recovered'],
    settings,
    content,
    voxels=recovered,
    input=voxels,
    visible=seen,
  )


def super_resolve(
  config: ml_collections.ConfigDict | None,
  workdir: str,
  source: str,
  up: str = 'z',
) -> str:
  """Super-resolves shapes from outside.

  Args:
    config: whose `sample` settings and `factor` count; None: those of the
      workdir.
    workdir: of a run, or an exported model.
    source: see `inputs.read_input`; voxels of the low resolution, or of the
      model's grid, and meshes, which are downscaled first.
    up: the axis of the shapes that becomes z.

  Returns:
    The new folder, `workdir/super_resolutions/<name of source>`, `_001`, ...:
    voxels.npz (`voxels`, not thresholded; `low`), picture.png, meshes/,
    record.json.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  trained, config = _open(config, workdir)
  settings, shape, factor = config.sample, trained.shape[:3], config.factor
  if factor < 2 or any(n % factor for n in shape):
    raise ValueError(
      f'factor must be at least 2 and divide the sides {shape}, got {factor}'
    )
  voxels = inputs.some(
    inputs.read_input(source, shape[0], up), settings.num_samples, source
  )
  low_shape = tuple(n // factor for n in shape)
  content, rows, labels = _record(trained, config, source), [], []
  if voxels.shape[1:] == low_shape:
    low = voxels
  elif voxels.shape[1:] == shape:
    low = baselines.downscale(voxels, factor)
    rows, labels = [voxels], ['input']
  else:
    raise ValueError(
      f'{source} has a grid of {voxels.shape[1:]}; the model takes '
      f'{low_shape}, or {shape} to downscale first'
    )
  y = super_resolve_voxels(
    trained, low, factor, seed=settings.seed, **_steps(settings)
  )
  if rows:
    content['scores'] = super_resolution_scores(y, voxels)
  stem = pathlib.PurePath(source).stem
  return _write(
    outputs.unused_path(os.path.join(workdir, 'super_resolutions'), stem),
    [*rows, low, y],
    [*labels, 'low', 'result'],
    settings,
    content,
    voxels=y,
    low=low,
  )
