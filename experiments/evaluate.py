"""What is done with a trained model: sample from it, and score it."""

import datetime
import functools
import json
import os
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import dnet_jax
from dnet_jax import metrics
from experiments import build
from experiments import datasets
from experiments import exported
from experiments import figures

_CHUNK = 50  # Chains that are moved at once: bounds the memory.


def _open(config, workdir) -> tuple[exported.Trained, Any]:
  """The trained model, and the config whose sample settings count."""
  trained = exported.load(workdir)
  if config is None:
    return trained, trained.config
  ours, theirs = config.model.to_dict(), trained.config.model.to_dict()
  # Through JSON, in which tuples are lists.
  ours = json.loads(json.dumps(ours))
  differing = [
    f'model.{name}: {theirs.get(name)} -> {ours.get(name)}'
    for name in sorted(ours.keys() | theirs.keys())
    if ours.get(name) != theirs.get(name)
  ]
  if differing:
    raise ValueError(
      f'{workdir} holds another model than --config asks for (theirs -> '
      'ours):\n  ' + '\n  '.join(differing)
    )
  return trained, config


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
) -> np.ndarray:
  """Moves chains of a trained model.

  Args:
    trained: the model.
    start: 'chains', its persistent chains, or 'noise', fresh ones.
    num_samples: how many.
    num_steps: Langevin steps in all.
    noise_steps: of these, the first ones at `temperature`; the rest at 0.
    temperature: T of section 2.5.
    step_size: delta-tau; 0: that of learning.
    seed: of the chains.

  Returns:
    Voxels `(num_samples, D, H, W)`, mean added back, not thresholded.

  Raises:
    ValueError: for a setting that is not possible.
  """
  chains = trained.config.chains
  if start not in ('chains', 'noise'):
    raise ValueError(f"sample.start must be 'chains' or 'noise', got {start!r}")
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
  keys = dnet_jax.chain_keys(jax.random.key(seed), num_samples)
  if start == 'chains':
    position = trained.chains[:num_samples]
  else:
    position = dnet_jax.from_noise(
      keys, trained.shape, chains.start_std
    ).position

  # With noise the kernel of learning, without it plain descent.
  noisy = build.kernel(trained.config)
  phases = []
  if noise_steps and temperature > 0:
    phases.append((noisy, noise_steps, temperature))
    num_steps -= noise_steps
  phases.append((dnet_jax.langevin, num_steps, 0.0))

  energy_fn = build.model(trained.config).energy_fn

  @functools.partial(jax.jit, static_argnums=(3, 4))
  def move(params, keys, y, kernel, steps, temperature):
    bound = functools.partial(energy_fn, params)
    kernel = kernel(
      bound, step_size or chains.step_size, temperature=temperature
    )
    return dnet_jax.sample(keys, kernel, y, steps, trace_fn=_nothing)[0]

  results = []
  for i in range(0, num_samples, _CHUNK):
    y = position[i : i + _CHUNK]
    for phase, (kernel, steps, t) in enumerate(phases, 1):
      if steps:
        chunk = jax.vmap(jax.random.fold_in, (0, None))(
          keys[i : i + _CHUNK], phase
        )
        y = move(trained.params, chunk, y, kernel, steps, t)
    results.append(datasets.to_voxels(y, trained.mean, trained.scale))
  return np.concatenate(results)


def _nothing(state, info):
  del state, info


def _training_shapes(trained, config):
  """Training and test shapes, or None where the data is not there."""
  for candidate in (config, trained.config):
    try:
      return build.data(candidate)
    except (FileNotFoundError, ValueError) as error:
      logging.warning('No data to compare with: %s', error)
  return None


def sample(config: ml_collections.ConfigDict | None, workdir: str) -> str:
  """Writes samples under the workdir: voxels, pictures, meshes.

  Args:
    config: whose `sample` settings count; None: those of the workdir.
    workdir: of a run, or an exported model.

  Returns:
    The new folder, `workdir/samples/<start>`, `_001`, ...: voxels.npz (key
    `voxels`, (n, D, H, W) float32, mean added back, not thresholded),
    samples.png, neighbours.png (Figure 2: each sample above its nearest
    training shape in l2 distance, where the data is there), meshes/.
  """
  trained, config = _open(config, workdir)
  settings = config.sample
  voxels = run(
    trained,
    **{
      name: settings[name]
      for name in (
        'start',
        'num_samples',
        'num_steps',
        'noise_steps',
        'temperature',
        'step_size',
        'seed',
      )
    },
  )
  folder = figures.unused_path(os.path.join(workdir, 'samples'), settings.start)
  np.savez_compressed(os.path.join(folder, 'voxels.npz'), voxels=voxels)
  with open(os.path.join(folder, 'sample.json'), 'w') as file:
    json.dump(
      {
        'command': exported.describe_command(),
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
    saved = figures.save_meshes(
      os.path.join(folder, 'meshes'), voxels, file_format=settings.mesh_format
    )
    if saved.empty:
      logging.warning('Samples without a surface: %s', saved.empty)
  logging.info('Wrote %s', folder)
  return folder


def scores(shapes, train_shapes, test_shapes, *, same: bool = False):
  """Scores a set of shapes by voxel IoU against training and test shapes.

  Args:
    shapes: `(n, D, H, W)`.
    train_shapes: `(m, D, H, W)`.
    test_shapes: `(k, D, H, W)`, the references.
    same: whether `shapes` are training shapes themselves: then the nearest
      training shape is another one.

  Returns:
    A dict of floats: 1-NN accuracy (0.5 is best), coverage and minimum
    matching distance (of 1 - IoU), mean pairwise IoU, mean IoU with the
    nearest training shape, occupancy.
  """
  within = metrics.iou(shapes, shapes)
  between = metrics.iou(shapes, test_shapes)
  reference = metrics.iou(test_shapes, test_shapes)
  nearest = jnp.sort(metrics.iou(shapes, train_shapes), axis=1)
  result = {
    'one_nn_accuracy': metrics.nearest_neighbour_accuracy(
      1 - within, 1 - reference, 1 - between
    ),
    'coverage': metrics.coverage(1 - between),
    'mmd': metrics.minimum_matching_distance(1 - between),
    'pairwise_iou': metrics.mean_pairwise(within),
    'nearest_train_iou': nearest[:, -2 if same else -1].mean(),
    'occupancy': (np.asarray(shapes) > 0.5).mean(),
  }
  return {name: round(float(value), 4) for name, value in result.items()}


def evaluate(
  config: ml_collections.ConfigDict | None, workdir: str
) -> dict[str, Any]:
  """Scores persistent and fresh chains beside real shapes and noise.

  Args:
    config: whose `evaluate` settings count; None: those of the workdir.
    workdir: of a run, or an exported model.

  Returns:
    What is written to `workdir/evaluations/evaluation.json`, `_001`, ...
  """
  trained, config = _open(config, workdir)
  settings = config.evaluate
  data = _training_shapes(trained, config)
  if data is None or len(data.test) < 2:
    raise FileNotFoundError(
      'evaluate compares with training and test shapes: give '
      '--config=... --config.data.path=FILE.npz'
    )
  rng = np.random.default_rng(0)

  def some(shapes):
    count = min(len(shapes), settings.num_shapes)
    return shapes[np.sort(rng.permutation(len(shapes))[:count])]

  test, training = some(data.test), some(data.train)
  sets = {}
  count = min(len(trained.chains), settings.num_shapes)
  common = dict(step_size=0.0, seed=settings.seed)
  if count >= 2:
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
    start='noise',
    num_samples=settings.num_shapes,
    num_steps=settings.num_steps,
    noise_steps=settings.noise_steps,
    temperature=settings.temperature,
    **common,
  )
  sets['training shapes'] = training
  sets['mean shape'] = np.repeat(
    data.train.mean(axis=0, dtype=np.float32)[None], len(test), axis=0
  )
  sets['noise'] = rng.random(test.shape).astype(np.float32)
  table = {
    name: scores(shapes, data.train, test, same=name == 'training shapes')
    for name, shapes in sets.items()
  }
  result = {
    'experiment': trained.config.name,
    'command': exported.describe_command(),
    'date': datetime.date.today().isoformat(),
    'data': data.source,
    'card': dict(trained.card),
    'settings': settings.to_dict(),
    'scores': table,
  }
  folder = os.path.join(workdir, 'evaluations')
  path = figures.unused_path(folder, 'evaluation', '.json')
  with open(path, 'x', encoding='utf-8') as file:
    json.dump(result, file, indent=2)
  names = list(table['fresh'])
  print(f'{"":16}' + ''.join(f'{name:>18}' for name in names))
  for kind, row in table.items():
    print(f'{kind:16}' + ''.join(f'{row[name]:18.4f}' for name in names))
  logging.info('Wrote %s', path)
  return result
