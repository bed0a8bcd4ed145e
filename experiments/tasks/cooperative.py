"""Section 6.4: a descriptor and a generator, Figures 5 to 7; and 5.0.1.

Voxels are `(n, D, H, W)` in [0, 1] here, latent factors `(n, d)`.
"""

from collections.abc import Mapping
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

import dnet_jax
from dnet_jax import metrics
from dnet_jax.uses import base as uses
from dnet_jax.uses import latent
from experiments import batches
from experiments import parallel
from experiments.evaluation import scores
from experiments.files import datasets
from experiments.files import figures
from experiments.files import inputs
from experiments.files import outputs
from experiments.tasks import arithmetic as examples_of
from experiments.tasks import base
from experiments.tasks import parts
from experiments.tasks import speed
from experiments.tasks import synthesis

_COLUMNS = 10
_PAIRS = 20  # Whose interpolations are scored.
_ARITHMETIC = 10  # Sums that are scored.
ALGORITHMS = ('cooperative', 'alternating_back_propagation')


# Learning.


def _experiment(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> base.Experiment:
  parts.choice(ALGORITHMS, config.algorithm, 'algorithm')
  shape = (*voxels.train.shape[1:], 1)
  sizes = parts.generator_sizes(config)
  generator = parts.generator(config, sizes)
  alone = config.algorithm == 'alternating_back_propagation'
  networks: dict[str, Any] = {'generator': sizes}
  fresh = {'generator': lambda: parts.init_generator(config, generator, shape)}
  phases = []
  iterations = config.back_propagation.iterations
  if alone:
    iterations = config.train.num_iterations
  if iterations:
    phases.append(_back_propagation(config, voxels, generator, iterations))
  if not alone:
    own = parts.descriptor_sizes(config, config.model.network)
    descriptor = parts.descriptor(config, own)
    networks['descriptors'] = (own,)
    fresh['descriptor'] = lambda: parts.init_descriptor(
      config, descriptor, shape
    )
    phases.append(_cooperation(config, voxels, descriptor, generator))
  spec, extras = parts.model_parts(config, *datasets.seen(voxels), **networks)

  def preview(model):
    key, count = parts.fixed_key(config), config.train.picture_shapes
    return np.asarray(dnet_jax.generate(key, model, count))

  return base.Experiment(
    voxels,
    spec,
    extras,
    lambda: {name: make() for name, make in fresh.items()},
    tuple(phases),
    preview,
  )


def _learner(config, generator, learning_rate, constant=False):
  settings = config.generator
  return dnet_jax.make_learner(
    dnet_jax.teaching_loss(dnet_jax.generator_fn(generator, train=True)),
    parts.optimizer(
      config,
      learning_rate=learning_rate,
      b1=settings.b1,
      b2=settings.b2,
      constant=constant,
    ),
  )


def _cooperation(config, voxels, descriptor, generator):
  """Algorithm 3."""
  parallel.check_divisible(**{'chains.num_chains': config.chains.num_chains})
  energy_fn = parts.energy_fn(config, descriptor)
  algorithm = dnet_jax.cooperative(
    energy_fn,
    parts.contrastive_learner(config, energy_fn),
    dnet_jax.generator_fn(generator, train=True),
    _learner(config, generator, config.generator.learning_rate),
    parts.sampler(config),
    latent_dim=config.generator.latent_dim,
    num_chains=config.chains.num_chains,
    noise_std=config.generator.noise_std,
  )
  return parts.one_phase(
    config,
    ('descriptor', 'generator'),
    algorithm,
    parts.batch_of(config, voxels),
  )._replace(name='cooperative')


def _back_propagation(config, voxels, generator, iterations):
  """Alternating back-propagation, section 5.0.1."""
  settings, size = config.back_propagation, config.data.batch_size
  memory = dnet_jax.persistent(
    dnet_jax.noise_source((config.generator.latent_dim,)),
    num_chains=size,
    num_slots=len(voxels.train) // size,
  )
  sampler = dnet_jax.make_sampler(
    num_steps=settings.num_steps,
    step_size=settings.step_size,
    axis_name=parallel.AXIS,
  )
  algorithm = dnet_jax.alternating_back_propagation(
    dnet_jax.generator_fn(generator, train=False),
    _learner(config, generator, settings.learning_rate, constant=True),
    sampler,
    memory,
    noise_std=settings.noise_std,
  )
  return base.Phase(
    'alternating_back_propagation',
    iterations,
    ('generator',),
    algorithm,
    # Each mini-batch owns its z, so it has to come again.
    parts.batch_of(config, voxels, shuffle=False),
    lambda step: 1.0,
  )


# Shapes.


def draw(model: dnet_jax.Model, num: int, seed: int) -> np.ndarray:
  """Latent factors from their prior, `(num, d)`; the first are the same."""
  return np.asarray(dnet_jax.draw_latent(jax.random.key(seed), model, num))


def shapes(model: dnet_jax.Model, z: np.ndarray) -> np.ndarray:
  """What the generator makes of z `(n, d)`, some at a time."""
  return batches.map_batches(lambda z: dnet_jax.decode(model, z), z)


def infer(
  model: dnet_jax.Model, voxels: np.ndarray, visible: np.ndarray, seed: int
) -> np.ndarray:
  """Latent factors of given shapes, some at a time.

  Args:
    model: with a generator.
    voxels: `(n, D, H, W)`.
    visible: boolean, likewise.
    seed: of starts and noise.

  Raises:
    ValueError: where no chain of a shape stays finite.
  """
  use, numbers = uses.settings(model, 'reconstruct')
  keys = dnet_jax.chain_keys(jax.random.key(seed), len(voxels))
  z = batches.map_batches(
    lambda keys, voxels, visible: dnet_jax.infer_latent(
      keys, model, voxels, visible
    ),
    keys,
    voxels,
    visible,
    size=max(batches.SIZE // use.num_starts, 1),
  )
  if not np.isfinite(z).all():
    raise ValueError(
      'the chains in the latent space diverged: latent.step_size = '
      f'{numbers["step_size"]} is too large for latent.noise_std = '
      f'{numbers["noise_std"]}'
    )
  return z


def _refined(request, voxels, seed):
  """Descriptor steps on top of generated shapes: Algorithm 3, lines 3 and 4."""
  return synthesis.refine(request.model, voxels, seed)


# Modes.


def _write(request, name, arrays, meshes, picture, **content):
  """Writes the new folder of a mode; returns it."""
  config = request.config
  folder = outputs.unused_path(os.path.join(request.folder, 'latent'), name)
  figures.isosurfaces(os.path.join(folder, 'picture.png'), **picture)
  record = outputs.header(request.card['name']) | {
    'latent': config.latent.to_dict(),
    'sample': config.sample.to_dict(),
  }
  return outputs.write_shapes(
    folder, arrays, record | content, meshes, config.sample.mesh_format
  )


def _rows(sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Rows of a picture in which shape i of each set is below the other's."""
  split = [figures.rows(voxels, _COLUMNS) for voxels in sets.values()]
  rows = [row for some in zip(*split, strict=True) for row in some]
  return dict(rows=rows, row_labels=[*sets] * (len(rows) // len(sets)))


def generate(request: base.Request) -> str:
  """Makes shapes in one pass, Figure 5, refined by descriptor steps if wanted.

  Returns:
    The new folder; voxels.npz has `voxels`, `z` and maybe `refined`.
  """
  settings = request.config.sample
  z = draw(request.model, settings.num_samples, settings.seed)
  voxels = shapes(request.model, z)
  arrays, sets = {'voxels': voxels, 'z': z}, {'generated': voxels}
  if settings.num_steps and request.model.spec.descriptors:
    refined = _refined(request, voxels, settings.seed)
    sets['refined'] = arrays['refined'] = refined
  return _write(request, 'generate', arrays, sets, _rows(sets))


def interpolate(request: base.Request) -> str:
  """Rows of shapes between random pairs: Figure 6.

  Returns:
    The new folder; voxels.npz has `linear` and `spherical`, `(rows, columns,
    D, H, W)`, and the ends, `z`.
  """
  settings, model = request.config.latent, request.model
  rows, columns = settings.num_rows, settings.num_columns
  if rows < 1 or columns < 2:
    raise ValueError(
      'latent.num_rows must be at least 1 and latent.num_columns at least 2, '
      f'got {rows} and {columns}'
    )
  z = draw(model, 2 * rows, request.config.sample.seed).reshape(rows, 2, -1)
  made = {name: _between(model, z, columns, name) for name in latent.PATHS}
  lines = [list(row) for i in range(rows) for row in (made[n][i] for n in made)]
  flat = {name: y.reshape(-1, *y.shape[2:]) for name, y in made.items()}
  return _write(
    request,
    'interpolate',
    made | {'z': z},
    flat,
    dict(rows=lines, row_labels=[*made] * rows),
    scores={name: _smoothness(y) for name, y in made.items()},
  )


def _between(model, ends, columns, path):
  """Interpolations `(rows, columns, D, H, W)` of ends `(rows, 2, d)`."""
  return np.stack(
    [
      np.asarray(dnet_jax.interpolate(model, *pair, columns, path=path))
      for pair in ends
    ]
  )


def _smoothness(rows):
  """How even the steps of interpolations `(rows, columns, D, H, W)` are."""
  within = [np.asarray(metrics.iou(row, row)) for row in rows]
  steps = [1 - np.diag(iou, 1) for iou in within]
  ends = [1 - iou[0, -1] for iou in within]
  values = {
    'neighbour_iou': 1 - np.mean(steps),
    'least_neighbour_iou': 1 - np.max(steps),
    'ends_iou': 1 - np.mean(ends),
    # 1 / (columns - 1) where all steps are equally long.
    'largest_step_share': np.mean(
      [s.max() / max(s.sum(), 1e-9) for s in steps]
    ),
  }
  return {name: round(float(value), 4) for name, value in values.items()}


def arithmetic(request: base.Request) -> str:
  """Adds a part vector z_a - z_b to another shape: Figure 7.

  `latent.examples` are numbers of shapes as `generate` makes them of the same
  seed; without them, those of `find_examples` among `latent.search` shapes.

  Returns:
    The new folder; voxels.npz has `voxels`, `(rows, 4, D, H, W)`: a, b, c and
    c + a - b; and their `z`.
  """
  settings, model = request.config.latent, request.model
  z = draw(model, settings.search, request.config.sample.seed)
  if settings.examples:
    found = examples_of.given_examples(settings.examples, settings.search)
  else:
    found = examples_of.find_examples(shapes(model, z), settings.num_rows)
  if not found:
    raise ValueError(
      f'among latent.search = {settings.search} shapes no pair differs in one '
      'half of the grid'
    )
  given = np.stack([z[[a, b, c]] for a, b, c, _ in found])
  z = np.concatenate([given, examples_of.sums(z, found)[:, None]], axis=1)
  voxels = shapes(model, z.reshape(-1, z.shape[-1]))
  rows = voxels.reshape(len(z), 4, *voxels.shape[1:])
  colors = [figures.NEIGHBOUR_COLOR] * 3 + [figures.SAMPLE_COLOR]
  return _write(
    request,
    'arithmetic',
    {'voxels': rows, 'z': z},
    {'': voxels},
    dict(
      rows=[list(row) for row in rows],
      titles=['a', 'b', 'c', 'c + a - b'],
      row_labels=[half for *_, half in found],
      colors=[colors for _ in rows],
    ),
    examples=[list(example) for example in found],
  )


def reconstruct(request: base.Request) -> str:
  """Infers z of shapes from outside, maybe partly visible; rebuilds them.

  Returns:
    The new folder; voxels.npz has `voxels`, what was rebuilt, `input`,
    `visible` and `z`.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  config, model, source = request.config, request.model, request.input
  grid = model.spec.grid
  given = inputs.read_input(source, grid[0], request.up)
  given = inputs.some(given, config.sample.num_samples, source)
  given = inputs.fit(given, grid, source)
  seen = np.ones(given.shape, bool)
  if request.visible is not None:
    seen = inputs.read_visible(request.visible, len(given))
    if seen.shape != given.shape or not seen.any((1, 2, 3)).all():
      raise ValueError(
        f'--visible={request.visible} must be {given.shape[1:]} and True '
        f'somewhere, got {seen.shape[1:]} with {seen.sum()} visible voxels'
      )
  z = infer(model, given, seen, config.sample.seed)
  voxels = shapes(model, z)
  sets = {
    'input': given,
    'visible': np.where(seen, given, 0),
    'rebuilt': voxels,
  }
  picture = _rows(sets)
  colors = [figures.NEIGHBOUR_COLOR] * 2 + [figures.SAMPLE_COLOR]
  return _write(
    request,
    f'reconstruct_{pathlib.PurePath(source).stem}',
    {'voxels': voxels, 'input': given, 'visible': seen, 'z': z},
    {'': voxels},
    picture | {'colors': colors * (len(picture['rows']) // 3)},
    iou=[round(float(x), 4) for x in scores.own_iou(voxels, given)],
  )


# Numbers.


def _interpolations(model, train, seed):
  ends = draw(model, 2 * _PAIRS, seed).reshape(_PAIRS, 2, -1)
  table = {}
  for name in latent.PATHS:
    rows = _between(model, ends, 8, name)
    nearest = np.asarray(metrics.iou(rows.reshape(-1, *rows.shape[2:]), train))
    nearest = nearest.max(axis=1).reshape(_PAIRS, 8)
    table[name] = _smoothness(rows) | {
      'nearest_train_iou_ends': round(float(nearest[:, [0, -1]].mean()), 4),
      'nearest_train_iou_middle': round(float(nearest[:, 1:-1].mean()), 4),
    }
  return table | {'pairs': _PAIRS, 'columns': 8}


def _transfer(model, settings, seed):
  """Whether the part of a comes, and the rest of c stays."""
  z = draw(model, settings.search, seed)
  voxels = shapes(model, z)
  found = examples_of.find_examples(voxels, _ARITHMETIC)
  if not found:
    return {'examples': 0}
  added = shapes(model, examples_of.sums(z, found))
  halves = examples_of.halves(voxels.shape[1:])
  values = []
  for (a, b, c, half), y in zip(found, added, strict=True):
    part, rest = halves[half], halves[examples_of.other(half)]
    a, b, c, y = (x[None] for x in (voxels[a], voxels[b], voxels[c], y))
    values.append(
      [
        float(scores.own_iou(p[s], q[s])[0])
        for p, q, s in (
          (y, a, part),
          (c, a, part),
          (y, c, rest),
          (a, c, rest),
        )
      ]
    )
  names = (
    'part_iou_of_sum_with_a',
    'part_iou_of_c_with_a',
    'rest_iou_of_sum_with_c',
    'rest_iou_of_a_with_c',
  )
  means = np.mean(values, axis=0)
  return {'examples': len(found)} | {
    name: round(float(x), 4) for name, x in zip(names, means, strict=True)
  }


def _rebuilt(request, data):
  """Reconstruction of test shapes, beside what needs no model."""
  config, model = request.config, request.model
  test = data.test[: config.latent.num_reconstructed].astype(np.float32)
  seen = np.ones(test.shape, bool)
  z = infer(model, test, seen, config.evaluate.seed)
  voxels = shapes(model, z)
  nearest = np.asarray(metrics.iou(test, data.train))
  mean = data.train.mean(axis=0, dtype=np.float32)
  values = {
    'iou': scores.own_iou(voxels, test).mean(),
    'error_binary': ((voxels > 0.5) != (test > 0.5)).mean(),
    'nearest_train_iou': nearest.max(axis=1).mean(),
    'mean_shape_iou': np.asarray(metrics.iou(mean[None], test)).mean(),
    'latent_norm': np.sqrt((z**2).mean()),
  }
  return {'shapes': len(test)} | {
    name: round(float(value), 4) for name, value in values.items()
  }


def _evaluate(
  request: base.Request, data: datasets.Dataset, folder: str
) -> dict[str, Any]:
  """Scores generated and refined shapes, and the latent space."""
  del folder
  config, model = request.config, request.model
  settings = config.evaluate
  made = shapes(model, draw(model, settings.num_shapes, settings.seed))
  sets = {'generated': made}
  if model.spec.descriptors:
    sets['refined'] = _refined(request, made, settings.seed)
  return synthesis.scored(request, data, sets) | {
    'latent': config.latent.to_dict(),
    'interpolation': _interpolations(model, data.train, settings.seed),
    'arithmetic': _transfer(model, config.latent, settings.seed),
    'reconstruction': _rebuilt(request, data),
    'seconds_per_shape': speed.of_generator(
      model, settings.baseline_steps, min(settings.num_shapes, batches.SIZE)
    ),
  }


TASK = base.Task(
  _experiment,
  _evaluate,
  {
    'sample': synthesis.TASK.modes['sample'],
    'generate': base.Mode(
      generate,
      'shapes in one pass, Figure 5',
      takes=('config',),
      fits=base.has_generator,
    ),
    'interpolate': base.Mode(
      interpolate,
      'shapes between shapes, Figure 6',
      takes=('config',),
      fits=base.has_generator,
    ),
    'arithmetic': base.Mode(
      arithmetic,
      'a part of one shape on another, Figure 7',
      takes=('config',),
      fits=base.has_generator,
    ),
    'reconstruct': base.Mode(
      reconstruct,
      'rebuilds the shapes of --input through the latent space',
      needs=('input',),
      takes=('config', 'visible', 'up'),
      fits=base.has_generator,
    ),
  },
)
