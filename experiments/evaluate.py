"""What is done with a trained model: sample from it, and score it."""

import datetime
import json
import os
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from data_prep import voxel_file
import dnet_jax
from dnet_jax import metrics
from experiments import build
from experiments import conditional
from experiments import exported
from experiments import latent
from experiments import moves
from experiments import multigrid
from experiments.evaluation import classifier as classifiers
from experiments.evaluation import scores
from experiments.files import datasets
from experiments.files import figures
from experiments.files import inputs
from experiments.files import outputs


def run(
  trained: exported.Trained,
  *,
  start: str,
  num_samples: int,
  num_steps: int,
  noise_steps: int,
  temperature: float,
  step_size: float,
  seed: int,
  start_std: float = 0.0,
) -> np.ndarray:
  """Moves chains of a trained model.

  Args:
    trained: the model.
    start: 'chains', its persistent chains; 'noise', fresh ones; 'generator',
      from what its generator makes; 'grids', of a multi-grid model, from
      scratch (see `multigrid.samples`).
    num_samples: how many.
    num_steps: Langevin steps in all.
    noise_steps: of these, the first ones at `temperature`; the rest at 0.
    temperature: T of section 2.5.
    step_size: delta-tau; 0: that of learning.
    seed: of the chains.
    start_std: standard deviation of the noise where fresh chains begin; 0:
      that of learning.

  Returns:
    Voxels `(num_samples, D, H, W)`, mean added back, not thresholded.

  Raises:
    ValueError: for a setting that is not possible.
  """
  chains = trained.config.chains
  if start == 'grids':
    return multigrid.samples(
      trained,
      num_samples=num_samples,
      num_steps=num_steps,
      temperature=temperature,
      step_size=step_size,
      seed=seed,
    )[-1]
  if start not in ('chains', 'noise', 'generator'):
    raise ValueError(
      "sample.start must be 'chains', 'noise', 'generator' or 'grids', got "
      f'{start!r}'
    )
  if start == 'chains' and num_samples > len(trained.chains):
    raise ValueError(
      f'sample.num_samples = {num_samples}, but the model has '
      f"{len(trained.chains)} persistent chains; use sample.start='noise'"
    )
  if num_samples < 1 or not 0 <= noise_steps <= num_steps:
    raise ValueError(
      'sample.num_samples must be at least 1 and sample.noise_steps from 0 to '
      f'sample.num_steps; got {num_samples}, {noise_steps}, {num_steps}'
    )
  if temperature < 0:
    raise ValueError(f'sample.temperature must be >= 0, got {temperature}')
  if start_std < 0:
    raise ValueError(f'sample.start_std must be >= 0, got {start_std}')
  keys = dnet_jax.chain_keys(jax.random.key(seed), num_samples)
  if start == 'generator':
    voxels = latent.shapes(trained, latent.draw(trained, num_samples, seed))
    if not num_steps:
      return voxels
    position = datasets.to_network(voxels, trained.mean, trained.scale)
  elif start == 'chains':
    position = trained.chains[:num_samples]
  else:
    position = dnet_jax.from_noise(
      keys, trained.shape, start_std or chains.start_std
    ).position

  return moves.move(
    trained,
    keys,
    moves.free,
    position,
    num_steps=num_steps,
    noise_steps=noise_steps,
    temperature=temperature,
    step_size=step_size,
  )


def _training_shapes(trained, config):
  """Training and test shapes, or None where the data is not there."""
  for candidate in (config, trained.config):
    try:
      return build.data(candidate)
    except (FileNotFoundError, ValueError) as error:
      logging.warning('No data to compare with: %s', error)
  return None


def sample(
  config: ml_collections.ConfigDict | None,
  workdir: str,
  source: str | None = None,
  up: str = 'z',
) -> str:
  """Writes samples under the workdir: voxels, pictures, meshes.

  Args:
    config: whose `sample` settings count; None: those of the workdir.
    workdir: of a run, or an exported model.
    source: of a multi-grid model, coarse shapes to start from in place of
      `sample.start`, see `inputs.read_coarse`.
    up: the axis of `source` that becomes z.

  Returns:
    The new folder, `workdir/samples/<start>`, `_001`, ...: voxels.npz (key
    `voxels`, (n, D, H, W) float32, mean added back, not thresholded),
    samples.png, neighbours.png (Figure 2: each sample above its nearest
    training shape in l2 distance, where the data is there), meshes/; of a
    multi-grid model grids.png (Figure 8) and grid_<d>.npz, too.
  """
  trained, config = exported.open_with(config, workdir)
  settings, grids = config.sample, ()
  names = ('num_samples', 'num_steps', 'temperature', 'step_size', 'seed')
  options = {name: settings[name] for name in names}
  if source or settings.start == 'grids':
    coarse = None
    if source:
      coarse = inputs.read_coarse(source, multigrid.sides(trained), up)
    grids = multigrid.samples(trained, coarse=coarse, **options)
    voxels = grids[-1]
    if source:
      grids = (coarse[: len(voxels)], *grids)
  else:
    voxels = run(
      trained,
      start=settings.start,
      noise_steps=settings.noise_steps,
      start_std=settings.start_std,
      **options,
    )
  folder = outputs.unused_path(os.path.join(workdir, 'samples'), settings.start)
  np.savez_compressed(os.path.join(folder, 'voxels.npz'), voxels=voxels)
  if grids:
    multigrid.write(folder, grids)
  with open(os.path.join(folder, 'sample.json'), 'w') as file:
    json.dump(
      {
        'command': outputs.describe_command(),
        'date': datetime.date.today().isoformat(),
        'settings': settings.to_dict(),
      },
      file,
      indent=2,
    )
  figures.isosurfaces(
    os.path.join(folder, 'samples.png'), figures.rows(voxels, 10)
  )
  data = _training_shapes(trained, config)
  if data is not None:
    binary = (voxels > 0.5).astype(np.float32)
    nearest = np.asarray(metrics.nearest_neighbours(binary, data.train))
    rows, colors = [], []
    for some in figures.rows(range(len(voxels)), 10):
      rows += [
        [voxels[i] for i in some],
        [data.train[nearest[i]] for i in some],
      ]
      colors += [figures.SAMPLE_COLOR, figures.NEIGHBOUR_COLOR]
    figures.isosurfaces(
      os.path.join(folder, 'neighbours.png'),
      rows,
      colors=colors,
      row_labels=['sample', 'nearest'] * (len(rows) // 2),
    )
  if settings.mesh_format:
    saved = outputs.save_meshes(
      os.path.join(folder, 'meshes'), voxels, file_format=settings.mesh_format
    )
    if saved.empty:
      logging.warning('Samples without a surface: %s', saved.empty)
  logging.info('Wrote %s', folder)
  return folder


def _model_sets(trained, settings):
  """Persistent and fresh chains of a model, by name."""
  sets = {}
  count = min(len(trained.chains), settings.num_shapes)
  common = dict(step_size=0.0, seed=settings.seed)
  is_multigrid = multigrid.is_multigrid(trained)
  if trained.model.generator is not None:
    sets |= latent.sets(trained, settings.num_shapes, settings.seed)
    if trained.energy_fn is None:
      return sets
  elif count >= 2 and not is_multigrid:
    sets['persistent'] = run(
      trained,
      start='chains',
      num_samples=count,
      num_steps=0,
      noise_steps=0,
      temperature=0.0,
      **common,
    )
  sets['fresh'] = run(
    trained,
    start='grids' if is_multigrid else 'noise',
    num_samples=settings.num_shapes,
    num_steps=settings.num_steps,
    noise_steps=settings.noise_steps,
    temperature=settings.temperature,
    start_std=settings.start_std,
    **common,
  )
  return sets


def _classifier_result(trained, data, config):
  """How good a classifier is on test shapes, and on those it held out."""
  classifier = classifiers.make(trained)
  result = classifiers.report(classifier, data.test, data.test_labels)
  if trained.config.data.hold_out:
    held = config.copy_and_resolve_references()
    with held.unlocked():
      held.data.hold_out = trained.config.data.hold_out
    held = build.data(held)
    prediction = classifier.predict(held.test)
    right = prediction.probabilities.argmax(axis=1) == held.test_labels
    result['held_out'] = {
      'shapes': len(right),
      'accuracy': float(right.mean()),
    }
  return result


def _print(table):
  """Prints scores, one set a column."""
  rows = list(dict.fromkeys(name for row in table.values() for name in row))
  print(f'{"":24}' + ''.join(f'{name:>16}' for name in table))
  for row in rows:
    values = (scores.get(row) for scores in table.values())
    print(
      f'{row:24}'
      + ''.join(f'{"" if v is None else format(v, ".4f"):>16}' for v in values)
    )


def evaluate(
  config: ml_collections.ConfigDict | None,
  workdir: str,
  out: str | None = None,
) -> dict[str, Any]:
  """Scores a model, or the shapes of a file, beside real shapes and noise.

  Of a model with a descriptor, persistent and fresh chains; of a classifier,
  how good it is (see `classifier.report`).

  Args:
    config: whose `data` and `evaluate` settings count; None: those of the
      workdir.
    workdir: of a run, or an exported model, or an .npz file of shapes (see
      `read_shapes`), which needs a config.
    out: a file to write the result to as well; must not exist.

  Returns:
    What is written to `workdir/evaluations/evaluation.json`, `_001`, ...
    (for a file: evaluations/ beside it).
  """
  if out is not None:
    voxel_file.refuse_existing(out)
  trained, card = None, {}
  if workdir.endswith('.npz'):
    if config is None:
      raise ValueError(
        'shapes of a file are compared with those of --config=...: give one'
      )
    sets = {'shapes': scores.read_shapes(workdir, config.data.category)}
    folder, card = os.path.dirname(workdir), {'file': os.path.basename(workdir)}
  else:
    trained, config = exported.open_with(config, workdir)
    folder, card = workdir, dict(trained.card)
  settings = config.evaluate
  name = config.name if trained is None else trained.config.name
  result = outputs.header(name) | {'card': card}
  whole = config.copy_and_resolve_references()
  with whole.unlocked():
    whole.data.hold_out = 0.0
  data = build.data(whole)
  if len(data.test) < 2:
    raise ValueError(
      f'evaluate compares with test shapes, and {data.source} has '
      f'{len(data.test)}: give another --config.data.path'
    )
  result |= {'data': data.source}
  if trained is not None and trained.model.classifier is not None:
    result |= {'table': 'evaluation_classifier'}
    result |= _classifier_result(trained, data, config)
  elif (
    trained is not None and trained.config.algorithm in conditional.ALGORITHMS
  ):
    result |= conditional.report(
      trained, data, config, os.path.join(folder, 'evaluations')
    )
    _print(result['scores'])
  else:
    classifier = None
    if settings.classifier:
      classifier = classifiers.make(exported.load(settings.classifier))
    if trained is not None:
      sets = _model_sets(trained, settings)
    result |= {
      'table': 'synthesis',
      'category': config.data.category,
      'settings': settings.to_dict(),
      'classifier': None if classifier is None else classifier.card,
      'scores': scores.compare(sets, data, settings, classifier),
    }
    _print(result['scores'])
    if trained is not None and multigrid.is_multigrid(trained):
      result |= multigrid.evaluation(trained, data, settings)
    if trained is not None and trained.model.generator is not None:
      result |= latent.report(trained, data, config)
  path = outputs.unused_path(
    os.path.join(folder, 'evaluations'), 'evaluation', '.json'
  )
  for name in (path, out):
    if name is not None:
      outputs.write(name, result)
  return result
