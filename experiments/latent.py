"""Life in the latent space of a generator, section 6.4: Figures 5 to 7.

Each mode writes a fresh folder under `workdir/latent/`: voxels.npz,
picture.png, meshes/, record.json. Voxels are `(n, D, H, W)` in [0, 1] here,
latent factors `(n, d)`.
"""

from collections.abc import Mapping
import functools
import os
import pathlib
import time
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import dnet_jax
from dnet_jax import metrics
from experiments import exported
from experiments import moves
from experiments.files import datasets
from experiments.files import figures
from experiments.files import inputs
from experiments.files import outputs

_CHUNK = 50  # Shapes that are made at once: bounds the memory.
_COLUMNS = 10
_TIMED_STEPS = 10
_PAIRS = 20  # Whose interpolations are scored.
_ARITHMETIC = 10  # Sums that are scored.


def _check(trained: exported.Trained) -> None:
  if trained.model.generator is None:
    raise ValueError(
      f'{trained.config.name} has no generator: use a model of algorithm '
      'cooperative or alternating_back_propagation'
    )


def draw(trained: exported.Trained, num: int, seed: int) -> np.ndarray:
  """Latent factors from their prior N(0, I), eq. (20).

  Args:
    trained: a model with a generator.
    num: how many.
    seed: of the draws; factors i do not depend on `num`.

  Returns:
    `(num, d)`.

  Raises:
    ValueError: for a model without a generator.
  """
  _check(trained)
  keys = dnet_jax.chain_keys(jax.random.key(seed), num)
  shape = (trained.config.generator.latent_dim,)
  return np.asarray(dnet_jax.from_noise(keys, shape).position)


def _generate(trained):
  """`(variables, z) -> y`, as the network sees it, with running averages.

  The variables are an argument: as constants, XLA would fold them, slowly.
  """
  generator_fn = dnet_jax.generator_fn(trained.model.generator, train=False)

  def generate(variables, z):
    model_state = dict(variables)
    params = model_state.pop('params')
    return generator_fn(params, model_state, z)[0]

  return generate


def shapes(trained: exported.Trained, z: np.ndarray) -> np.ndarray:
  """What the generator makes: g(z) of eq. (21), voxels in [0, 1].

  Args:
    trained: a model with a generator.
    z: `(n, d)`.

  Returns:
    `(n, D, H, W)`, not thresholded.
  """
  _check(trained)
  generate = jax.jit(_generate(trained))
  variables = trained.variables['generator']
  y = [
    np.asarray(generate(variables, z[i : i + _CHUNK]))
    for i in range(0, len(z), _CHUNK)
  ]
  return datasets.to_voxels(np.concatenate(y), trained.mean, trained.scale)


def refine(
  trained: exported.Trained, voxels: np.ndarray, seed: int = 0, **steps
) -> np.ndarray:
  """Descriptor steps on top of generated shapes: lines 3 and 4 of Algorithm 3.

  Args:
    trained: a model with a descriptor.
    voxels: `(n, D, H, W)`, where the chains begin.
    seed: of the noise, if there is any.
    **steps: see `moves.move`.
  """
  if trained.energy_fn is None:
    raise ValueError(
      f'{trained.config.name} has no descriptor to refine with: use '
      '--config.sample.num_steps=0'
    )
  return moves.move(
    trained,
    dnet_jax.chain_keys(jax.random.key(seed), len(voxels)),
    moves.free,
    datasets.to_network(voxels, trained.mean, trained.scale),
    **steps,
  )


def linear(z_0: np.ndarray, z_1: np.ndarray, num: int) -> np.ndarray:
  """`(1 - rho) Z_0 + rho Z_1`, rho from 0 to 1 in `num` values: Figure 6.

  >>> linear(np.zeros(1), np.ones(1), 3).ravel().tolist()
  [0.0, 0.5, 1.0]
  """
  rho = np.linspace(0, 1, num)[:, None]
  return (1 - rho) * z_0 + rho * z_1


def spherical(z_0: np.ndarray, z_1: np.ndarray, num: int) -> np.ndarray:
  """Along the great circle, so that the middle is as probable as the ends.

  Shoemake (1985) for the direction; the length changes linearly.

  >>> spherical(np.array([1.0, 0]), np.array([0, 1.0]), 3)[1].round(3).tolist()
  [0.707, 0.707]
  """
  rho = np.linspace(0, 1, num)[:, None]
  lengths = [np.linalg.norm(z) for z in (z_0, z_1)]
  u_0, u_1 = (
    z / max(r, 1e-12) for z, r in zip((z_0, z_1), lengths, strict=True)
  )
  angle = np.arccos(np.clip(u_0 @ u_1, -1, 1))
  if np.sin(angle) < 1e-6:  # Parallel: there is no plane to turn in.
    return linear(z_0, z_1, num)
  direction = np.sin((1 - rho) * angle) * u_0 + np.sin(rho * angle) * u_1
  length = (1 - rho) * lengths[0] + rho * lengths[1]
  return length * direction / np.sin(angle)


PATHS = {'linear': linear, 'spherical': spherical}


def _halves(sides):
  """Slices of the six halves of a grid, by name."""
  whole = (slice(None),) * 4
  halves = {}
  for axis, name in enumerate('xyz', 1):
    middle = sides[axis - 1] // 2
    for side, part in (
      ('low', slice(None, middle)),
      ('high', slice(middle, None)),
    ):
      halves[f'{side} {name}'] = (*whole[:axis], part, *whole[axis + 1 :])
  return halves


def _other(half):
  side, axis = half.split()
  return f'{"low" if side == "high" else "high"} {axis}'


def find_examples(
  voxels: np.ndarray, num: int
) -> list[tuple[int, int, int, str]]:
  """Shapes for arithmetic: c + (a - b), where a has a part that b lacks.

  For each half of the grid the pair (a, b) that is most alike in the other
  half and differs most in this one, in which a has more voxels; and c, which
  is like b in this half and unlike a and b in the other.

  Args:
    voxels: `(n, D, H, W)`, n at least 3.
    num: how many examples, at most.

  Returns:
    `(a, b, c, half)`, the clearest pair first; indices into `voxels`, and the
    half, such as 'high z'. One of each half at first, then second best ones.

  Raises:
    ValueError: for fewer than 3 shapes.
  """
  if len(voxels) < 3:
    raise ValueError(f'arithmetic needs at least 3 shapes, got {len(voxels)}')
  halves = _halves(voxels.shape[1:])
  similar = {
    name: np.asarray(metrics.iou(voxels[part], voxels[part]))
    for name, part in halves.items()
  }
  found = []
  for name, part in halves.items():
    here, there = similar[name], similar[_other(name)]
    size = (voxels[part] > 0.5).sum((1, 2, 3))
    score = np.where(size[:, None] > size, there - here, -np.inf)
    for rank in range(-(-num // len(halves))):
      a, b = np.unravel_index(np.argmax(score), score.shape)
      if not np.isfinite(score[a, b]):
        break
      fit = here[b] - np.maximum(there[a], there[b])
      fit[[a, b]] = -np.inf
      found.append(
        (rank, -score[a, b], int(a), int(b), int(fit.argmax()), name)
      )
      score[a], score[:, b] = -np.inf, -np.inf
  return [example[2:] for example in sorted(found)[:num]]


def _given_examples(examples, num):
  examples = [int(i) for i in examples]
  if len(examples) % 3 or not all(0 <= i < num for i in examples):
    raise ValueError(
      'latent.examples must be triples a, b, c of numbers below latent.search '
      f'= {num}, got {tuple(examples)}'
    )
  return [(*examples[i : i + 3], '') for i in range(0, len(examples), 3)]


def infer(
  trained: exported.Trained,
  voxels: np.ndarray,
  visible: np.ndarray | None = None,
  *,
  num_starts: int,
  num_steps: int,
  step_size: float,
  noise_std: float,
  seed: int = 0,
) -> np.ndarray:
  """Infers z of given shapes by Langevin dynamics in the latent space.

  Samples the posterior under eq. (20), from several starts of the prior, half
  of the steps with noise and half without; keeps the one of the least energy.

  Args:
    trained: a model with a generator.
    voxels: `(n, D, H, W)` in [0, 1].
    visible: boolean, likewise; hidden voxels are not read. None: all are.
    num_starts: chains of each shape.
    num_steps: Langevin steps.
    step_size: of these.
    noise_std: sigma of eq. (20), as the network sees voxels.
    seed: of starts and noise.

  Returns:
    `(n, d)`.

  Raises:
    ValueError: for another grid, numbers that are not possible, or where no
      chain stays finite.
  """
  _check(trained)
  if voxels.shape[1:] != trained.shape[:3]:
    raise ValueError(
      f'shapes have a grid of {voxels.shape[1:]}, the model one of '
      f'{trained.shape[:3]}'
    )
  if num_starts < 1 or num_steps < 0:
    raise ValueError(
      'latent.num_starts must be at least 1 and latent.num_steps at least 0, '
      f'got {num_starts} and {num_steps}'
    )
  generate = _generate(trained)
  if visible is None:
    visible = np.ones(voxels.shape, bool)
  given = datasets.to_network(voxels, trained.mean, trained.scale)

  @jax.jit
  def run(variables, keys, y, visible):
    energy_fn = dnet_jax.posterior_energy(
      functools.partial(generate, variables), y, noise_std, visible
    )
    start = dnet_jax.from_noise(keys, (trained.config.generator.latent_dim,))
    for phase, temperature in ((1, 1.0), (2, 0.0)):
      z, _ = dnet_jax.run_chains(
        jax.vmap(jax.random.fold_in, (0, None))(keys, phase),
        energy_fn,
        start,
        num_steps=(num_steps + phase - 1) // 2,
        step_size=step_size,
        temperature=temperature,
      )
      start = start._replace(position=z)
    return start.position, energy_fn(start.position)

  found = []
  size = max(_CHUNK // num_starts, 1)
  keys = dnet_jax.chain_keys(jax.random.key(seed), num_starts * len(voxels))
  keys = keys.reshape(len(voxels), num_starts)
  for i in range(0, len(voxels), size):
    some = keys[i : i + size]
    z, energies = run(
      trained.variables['generator'],
      some.reshape(-1),
      jnp.repeat(given[i : i + size], num_starts, axis=0),
      jnp.repeat(visible[i : i + size, ..., None], num_starts, axis=0),
    )
    energies = np.asarray(energies).reshape(some.shape)
    if not np.isfinite(energies).any(axis=1).all():
      raise ValueError(
        f'the chains in the latent space diverged: latent.step_size = '
        f'{step_size} is too large for latent.noise_std = {noise_std}'
      )
    best = np.where(np.isfinite(energies), energies, np.inf).argmin(axis=1)
    z = np.asarray(z).reshape(*some.shape, -1)
    found.append(z[np.arange(len(best)), best])
  return np.concatenate(found)


def _write(workdir, name, trained, config, arrays, meshes, picture, **content):
  """Writes the new folder of a mode; returns it."""
  folder = outputs.unused_path(os.path.join(workdir, 'latent'), name)
  np.savez_compressed(os.path.join(folder, 'voxels.npz'), **arrays)
  figures.isosurfaces(os.path.join(folder, 'picture.png'), **picture)
  record = outputs.header(trained.config.name) | {
    'latent': config.latent.to_dict(),
    'sample': config.sample.to_dict(),
  }
  outputs.write(os.path.join(folder, 'record.json'), record | content)
  if config.sample.mesh_format:
    for kind, voxels in meshes.items():
      saved = outputs.save_meshes(
        os.path.join(folder, 'meshes', kind),
        voxels,
        file_format=config.sample.mesh_format,
      )
      if saved.empty:
        logging.warning('Shapes without a surface: %s %s', kind, saved.empty)
  logging.info('Wrote %s', folder)
  return folder


def _rows(*sets):
  """Rows of a picture in which shape i of each set is below the other's."""
  split = [figures.rows(voxels, _COLUMNS) for voxels in sets]
  return [row for some in zip(*split, strict=True) for row in some]


def generate(config: ml_collections.ConfigDict | None, workdir: str) -> str:
  """Makes shapes in one pass, Figure 5, with descriptor steps if wanted.

  Args:
    config: whose `sample` settings count: as many shapes, of the seed, and
      with num_steps above 0 refined by so many steps; None: those of the
      workdir.
    workdir: of a run, or an exported model.

  Returns:
    The new folder; voxels.npz has `voxels`, `z` and maybe `refined`.
  """
  trained, config = exported.open_with(config, workdir)
  settings = config.sample
  z = draw(trained, settings.num_samples, settings.seed)
  voxels = shapes(trained, z)
  arrays, sets = {'voxels': voxels, 'z': z}, {'generated': voxels}
  if settings.num_steps:
    names = ('num_steps', 'noise_steps', 'temperature', 'step_size', 'seed')
    sets['refined'] = arrays['refined'] = refine(
      trained, voxels, **{name: settings[name] for name in names}
    )
  rows = _rows(*sets.values())
  picture = dict(rows=rows, row_labels=[*sets] * (len(rows) // len(sets)))
  return _write(workdir, 'generate', trained, config, arrays, sets, picture)


def interpolate(config: ml_collections.ConfigDict | None, workdir: str) -> str:
  """Rows of shapes between random pairs: Figure 6.

  Args:
    config: whose `latent` settings count, and `sample.seed`; None: those of
      the workdir.
    workdir: of a run, or an exported model.

  Returns:
    The new folder; voxels.npz has `linear` and `spherical`, `(rows, columns,
    D, H, W)`, and `z_linear`, `z_spherical`.
  """
  trained, config = exported.open_with(config, workdir)
  rows, columns = config.latent.num_rows, config.latent.num_columns
  if rows < 1 or columns < 2:
    raise ValueError(
      'latent.num_rows must be at least 1 and latent.num_columns at least 2, '
      f'got {rows} and {columns}'
    )
  ends = draw(trained, 2 * rows, config.sample.seed).reshape(rows, 2, -1)
  arrays, meshes = {}, {}
  for name, path in PATHS.items():
    z = np.stack([path(*pair, columns) for pair in ends]).astype(np.float32)
    voxels = shapes(trained, z.reshape(rows * columns, -1))
    arrays[f'z_{name}'], meshes[name] = z, voxels
    arrays[name] = voxels.reshape(rows, columns, *voxels.shape[1:])
  picture = dict(
    rows=[
      list(row) for i in range(rows) for row in (arrays[n][i] for n in PATHS)
    ],
    row_labels=[*PATHS] * rows,
  )
  scores = {name: _smoothness(arrays[name]) for name in PATHS}
  return _write(
    workdir,
    'interpolate',
    trained,
    config,
    arrays,
    meshes,
    picture,
    scores=scores,
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


def _sums(z, examples):
  """z_c + z_a - z_b of each example."""
  return np.stack([z[c] + z[a] - z[b] for a, b, c, _ in examples])


def arithmetic(config: ml_collections.ConfigDict | None, workdir: str) -> str:
  """Adds a part vector z_a - z_b to another shape: Figure 7.

  Args:
    config: whose `latent` settings count: `examples`, numbers of shapes as
      `generate` makes them of the same seed, or where there are none those of
      `find_examples` among `search` shapes; None: those of the workdir.
    workdir: of a run, or an exported model.

  Returns:
    The new folder; voxels.npz has `voxels`, `(rows, 4, D, H, W)`: a, b, c and
    c + a - b; and their `z`.
  """
  trained, config = exported.open_with(config, workdir)
  settings = config.latent
  z = draw(trained, settings.search, config.sample.seed)
  if settings.examples:
    examples = _given_examples(settings.examples, settings.search)
  else:
    examples = find_examples(shapes(trained, z), settings.num_rows)
  if not examples:
    raise ValueError(
      f'among latent.search = {settings.search} shapes no pair differs in one '
      'half of the grid'
    )
  rows = np.stack([z[[a, b, c]] for a, b, c, _ in examples])
  z = np.concatenate([rows, _sums(z, examples)[:, None]], axis=1)
  voxels = shapes(trained, z.reshape(-1, z.shape[-1]))
  rows = voxels.reshape(len(z), 4, *voxels.shape[1:])
  picture = dict(
    rows=[list(row) for row in rows],
    titles=['a', 'b', 'c', 'c + a - b'],
    row_labels=[half for *_, half in examples],
    colors=[
      [figures.NEIGHBOUR_COLOR] * 3 + [figures.SAMPLE_COLOR] for _ in rows
    ],
  )
  return _write(
    workdir,
    'arithmetic',
    trained,
    config,
    {'voxels': rows, 'z': z},
    {'': voxels},
    picture,
    examples=[list(example) for example in examples],
  )


def _infer_settings(config):
  names = ('num_starts', 'num_steps', 'step_size', 'noise_std')
  return {name: config.latent[name] for name in names}


def reconstruct(
  config: ml_collections.ConfigDict | None,
  workdir: str,
  source: str,
  visible: str | None = None,
  up: str = 'z',
) -> str:
  """Infers z of shapes from outside, maybe partly visible; rebuilds them.

  Args:
    config: whose `latent` settings count, and `sample.num_samples`; None:
      those of the workdir.
    workdir: of a run, or an exported model.
    source: see `inputs.read_input`; smaller grids are padded.
    visible: a .npy with a boolean `(D, H, W)` or `(n, D, H, W)`, True where a
      voxel was observed; None: everywhere.
    up: the axis of the shapes that becomes z; `visible` is not turned.

  Returns:
    The new folder; voxels.npz has `voxels`, what was rebuilt, `input`,
    `visible` and `z`.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  trained, config = exported.open_with(config, workdir)
  _check(trained)
  given = inputs.read_input(source, trained.shape[0], up)
  given = inputs.some(given, config.sample.num_samples, source)
  given = inputs.fit(given, trained.shape[:3], source)
  seen = np.ones(given.shape, bool)
  if visible is not None:
    seen = inputs.read_visible(visible, len(given))
    if seen.shape != given.shape or not seen.any((1, 2, 3)).all():
      raise ValueError(
        f'--visible={visible} must be {given.shape[1:]} and True somewhere, '
        f'got {seen.shape[1:]} with {seen.sum()} visible voxels'
      )
  z = infer(
    trained, given, seen, seed=config.sample.seed, **_infer_settings(config)
  )
  voxels = shapes(trained, z)
  rows = _rows(given, np.where(seen, given, 0), voxels)
  labels = ['input', 'visible', 'rebuilt']
  colors = [figures.NEIGHBOUR_COLOR] * 2 + [figures.SAMPLE_COLOR]
  times = len(rows) // 3
  stem = pathlib.PurePath(source).stem
  return _write(
    workdir,
    f'reconstruct_{stem}',
    trained,
    config,
    {'voxels': voxels, 'input': given, 'visible': seen, 'z': z},
    {'': voxels},
    dict(rows=rows, row_labels=labels * times, colors=colors * times),
    iou=[round(float(x), 4) for x in _own_iou(voxels, given)],
  )


def _own_iou(a, b):
  return np.array(
    [metrics.iou(x[None], y[None])[0, 0] for x, y in zip(a, b, strict=True)]
  )


# Numbers.


def _seconds(function, *args):
  """Of a call, compiled before."""
  jax.block_until_ready(function(*args))
  start = time.perf_counter()
  jax.block_until_ready(function(*args))
  return time.perf_counter() - start


def seconds_per_shape(
  trained: exported.Trained, num_steps: int, num: int = _CHUNK
) -> dict[str, float]:
  """Time of a shape from the generator, refined, and from noise.

  Args:
    trained: a model with a generator.
    num_steps: of a chain from noise; the time of 10 steps is measured.
    num: shapes that are made at once.
  """
  z = jnp.asarray(draw(trained, num, 0))
  variables = trained.variables['generator']
  generate = jax.jit(_generate(trained))
  seconds = {'generated': _seconds(generate, variables, z) / num}
  if trained.energy_fn is not None:

    @jax.jit
    def move(params, keys, y):
      kernel = dnet_jax.langevin(
        functools.partial(trained.model.energy_fn, params),
        trained.config.chains.step_size,
        temperature=0.0,
      )
      return dnet_jax.sample(keys, kernel, y, _TIMED_STEPS)[0]

    keys = dnet_jax.chain_keys(jax.random.key(0), num)
    step = _seconds(move, trained.params, keys, generate(variables, z))
    step /= _TIMED_STEPS * num
    steps = trained.config.chains.num_steps
    seconds['refined'] = seconds['generated'] + steps * step
    seconds['langevin from noise'] = num_steps * step
  return {name: round(value, 6) for name, value in seconds.items()}


def _interpolations(trained, train, seed):
  ends = draw(trained, 2 * _PAIRS, seed).reshape(_PAIRS, 2, -1)
  scores = {}
  for name, path in PATHS.items():
    z = np.concatenate([path(*pair, 8) for pair in ends]).astype(np.float32)
    voxels = shapes(trained, z)
    rows = voxels.reshape(_PAIRS, 8, *voxels.shape[1:])
    nearest = np.asarray(metrics.iou(voxels, train)).max(axis=1)
    nearest = nearest.reshape(_PAIRS, 8)
    scores[name] = _smoothness(rows) | {
      'nearest_train_iou_ends': round(float(nearest[:, [0, -1]].mean()), 4),
      'nearest_train_iou_middle': round(float(nearest[:, 1:-1].mean()), 4),
    }
  return scores | {'pairs': _PAIRS, 'columns': 8}


def _transfer(trained, settings, seed):
  """Whether the part of a comes, and the rest of c stays."""
  z = draw(trained, settings.search, seed)
  voxels = shapes(trained, z)
  examples = find_examples(voxels, _ARITHMETIC)
  if not examples:
    return {'examples': 0}
  added = shapes(trained, _sums(z, examples))
  halves = _halves(voxels.shape[1:])
  values = []
  for (a, b, c, half), y in zip(examples, added, strict=True):
    part, rest = halves[half], halves[_other(half)]
    a, b, c, y = (x[None] for x in (voxels[a], voxels[b], voxels[c], y))
    values.append(
      [
        float(_own_iou(p[s], q[s])[0])
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
  return {'examples': len(examples)} | {
    name: round(float(x), 4) for name, x in zip(names, means, strict=True)
  }


def _rebuilt(trained, data, config):
  """Reconstruction of test shapes, beside what needs no model."""
  test = data.test[: config.latent.num_reconstructed].astype(np.float32)
  z = infer(trained, test, seed=config.evaluate.seed, **_infer_settings(config))
  voxels = shapes(trained, z)
  nearest = np.asarray(metrics.iou(test, data.train))
  mean = data.train.mean(axis=0, dtype=np.float32)
  values = {
    'iou': _own_iou(voxels, test).mean(),
    'error_binary': ((voxels > 0.5) != (test > 0.5)).mean(),
    'nearest_train_iou': nearest.max(axis=1).mean(),
    'mean_shape_iou': np.asarray(metrics.iou(mean[None], test)).mean(),
    'latent_norm': np.sqrt((z**2).mean()),
  }
  return {'shapes': len(test)} | {
    name: round(float(value), 4) for name, value in values.items()
  }


def sets(
  trained: exported.Trained, num: int, seed: int
) -> Mapping[str, np.ndarray]:
  """Generated shapes and, with a descriptor, refined ones: to be scored."""
  made = shapes(trained, draw(trained, num, seed))
  if trained.energy_fn is None:
    return {'generated': made}
  refined = refine(
    trained,
    made,
    num_steps=trained.config.chains.num_steps,
    noise_steps=0,
    temperature=0.0,
    step_size=0.0,
  )
  return {'generated': made, 'refined': refined}


def report(
  trained: exported.Trained,
  data: datasets.Dataset,
  config: ml_collections.ConfigDict,
) -> dict[str, Any]:
  """Numbers of a generator that other models have not.

  Args:
    trained: a model with a generator.
    data: its training and test shapes.
    config: its `latent` and `evaluate` count.
  """
  settings = config.evaluate
  return {
    'latent': config.latent.to_dict(),
    'interpolation': _interpolations(trained, data.train, settings.seed),
    'arithmetic': _transfer(trained, config.latent, settings.seed),
    'reconstruction': _rebuilt(trained, data, config),
    'seconds_per_shape': seconds_per_shape(trained, settings.num_steps),
  }
