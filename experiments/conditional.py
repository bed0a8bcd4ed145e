"""Recovery and super-resolution with a trained model, sections 6.2 and 6.3.

Of the test split, scored beside baselines (`report`), and of shapes from
outside (`recover`, `superres`). Voxels are `(n, D, H, W)` in [0, 1] here.
"""

from collections.abc import Callable
from collections.abc import Sequence
import os
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy import ndimage

from data_prep import convert
from data_prep import mesh_files
from data_prep import voxelize
import dnet_jax
from dnet_jax import corruptions
from dnet_jax import metrics
from experiments import build
from experiments import datasets
from experiments import exported
from experiments import figures
from experiments import moves
from experiments import paper
from experiments import results

ALGORITHMS = ('recovery', 'super_resolution')
VOXEL_TYPES = ('npz', *convert.FORMATS)

_SIGMAS = (0.5, 0.6, 0.7, 0.8, 1.0, 1.5, 2.0)  # In voxels.
_PICTURE_COLUMNS = 10


def _steps(settings) -> dict[str, Any]:
  """The settings of chains in `config.sample` or `config.evaluate`."""
  names = ('num_steps', 'noise_steps', 'temperature')
  chosen = {name: settings[name] for name in names}
  # Not in the configs of models that were exported before there were these.
  more = {'step_size': 0.0, 'sharp_steps': 0, 'sharp_std': 0.2}
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


def check_visible(visible: np.ndarray, shape: Sequence[int]) -> None:
  """Checks what is visible of each shape.

  Args:
    visible: boolean `(n, D, H, W)`.
    shape: `(D, H, W)`.

  Raises:
    ValueError: for another shape, where nothing is hidden, or everything.
  """
  if visible.shape[1:] != tuple(shape):
    raise ValueError(
      f'visible has shape {visible.shape[1:]}, the grid of the model is '
      f'{tuple(shape)}'
    )
  counts = visible.reshape(len(visible), -1).sum(axis=1)
  if (counts == visible[0].size).any():
    raise ValueError(
      'nothing is hidden, so there is nothing to recover: visible must be '
      'False where a voxel was not observed'
    )
  if (counts == 0).any():
    raise ValueError(
      'everything is hidden, so there is nothing to recover from: use '
      '--mode=sample, or a visible that is True where a voxel was observed'
    )


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
    ValueError: as `check_visible`.
  """
  check_visible(visible, trained.shape[:3])
  recovered = moves.move(
    trained,
    dnet_jax.chain_keys(jax.random.key(seed), len(voxels)),
    lambda y, visible: dnet_jax.recovery_start(y, visible, hold, fill),
    datasets.to_network(voxels, trained.mean, trained.scale),
    visible[..., None],
    **steps,
  )
  return np.where(visible, voxels, np.clip(recovered, 0, 1))


def super_resolve(
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


def downscale(voxels: np.ndarray, factor: int) -> np.ndarray:
  """Block averages of `(n, D, H, W)`, C of section 6.3.

  >>> downscale(np.ones((1, 4, 4, 4)), 2).shape
  (1, 2, 2, 2)
  """
  y = jnp.asarray(voxels, jnp.float32)[..., None]
  return np.asarray(dnet_jax.downscale(y, factor))[..., 0]


# Baselines.


def smoothed(
  voxels: np.ndarray, visible: np.ndarray, sigma: float, fallback: np.ndarray
) -> np.ndarray:
  """Each voxel as the Gaussian average of the visible ones around it.

  Args:
    voxels: `(n, D, H, W)`.
    visible: boolean, likewise.
    sigma: of the Gaussian, in voxels.
    fallback: `(D, H, W)`, for places where nothing is near.
  """
  y = jnp.asarray(voxels, jnp.float32)[..., None]
  average = jax.jit(corruptions.local_average, static_argnums=2)(
    y, visible[..., None], sigma, fallback[..., None]
  )
  return np.asarray(average)[..., 0]


def nearest_visible(
  voxels: np.ndarray, visible: np.ndarray, train: np.ndarray
) -> np.ndarray:
  """For each shape the training shape that fits its visible voxels best.

  Args:
    voxels: `(n, D, H, W)`.
    visible: boolean, likewise.
    train: `(m, D, H, W)`.
  """
  seen = visible.reshape(len(visible), -1).astype(np.float32)
  y = voxels.reshape(len(voxels), -1).astype(np.float32)
  rows = train.reshape(len(train), -1)
  # Up to a term that is the same for all training shapes.
  distance = np.empty((len(y), len(rows)), np.float32)
  for i in range(0, len(rows), 100):
    x = rows[i : i + 100].astype(np.float32)
    distance[:, i : i + 100] = seen @ (x**2).T - 2 * (seen * y) @ x.T
  return train[distance.argmin(axis=1)].astype(np.float32)


def _recovery_baselines(config, data, voxels, visible, seed):
  train = data.train
  mean = train.mean(axis=0, dtype=np.float32)
  # The best Gaussian for some training shapes, corrupted likewise.
  some = train[: len(voxels)].astype(np.float32)
  seen = corrupted(config, some.shape[1:], len(some), seed + 1)

  def badness(sigma):
    filled = smoothed(some, seen, sigma, mean)
    return ((filled > 0.5) != (some > 0.5))[~seen].mean()

  sigma = min(_SIGMAS, key=badness)
  filled = {
    'mean shape': np.broadcast_to(mean, voxels.shape),
    'nearest training shape': nearest_visible(voxels, visible, train),
    'local average': smoothed(voxels, visible, sigma, mean),
  }
  return {
    name: np.where(visible, voxels, guess) for name, guess in filled.items()
  }


def trilinear(low: np.ndarray, factor: int) -> np.ndarray:
  """Enlarges `(n, D, H, W)` by linear interpolation between block centres.

  >>> trilinear(np.ones((1, 2, 2, 2)), 4).shape
  (1, 8, 8, 8)
  """
  return ndimage.zoom(
    np.asarray(low, np.float32),
    (1, factor, factor, factor),
    order=1,
    mode='grid-constant',
    grid_mode=True,
  )


def _super_resolution_baselines(data, low, factor):
  train_low = downscale(data.train, factor)
  nearest = np.asarray(metrics.nearest_neighbours(low, train_low))
  repeated = np.asarray(dnet_jax.upscale(jnp.asarray(low)[..., None], factor))
  return {
    'block repeat': repeated[..., 0],
    'trilinear': trilinear(low, factor),
    'nearest training shape': data.train[nearest].astype(np.float32),
    'mean shape': np.broadcast_to(
      data.train.mean(axis=0, dtype=np.float32),
      (len(low), *data.test.shape[1:]),
    ),
  }


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
    figures.unused_path(folder, 'evaluation', '.png'),
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
  baselines = _recovery_baselines(config, data, voxels, visible, settings.seed)
  scores = {
    name: recovery_scores(y, voxels, visible)
    for name, y in ({'model': recovered} | baselines).items()
  }
  if (options['kind'], options['fraction']) == ('random_voxels', 0.7):
    errors = paper.RECOVERY_ERRORS.get(config.data.category, ())
    for name, error in zip(paper.RECOVERY_METHODS, errors, strict=False):
      scores[name] = {'error': error}
  return options, np.where(visible, voxels, 0), recovered, scores


def _super_resolution_report(trained, data, config, voxels):
  settings, factor = config.evaluate, config.factor
  low = downscale(voxels, factor)
  steps = _steps(settings)
  ours = {'model': steps | {'sharp_steps': 0}}
  if steps['sharp_steps']:
    ours['model, sharpened'] = steps
  ours = {
    name: super_resolve(trained, low, factor, seed=settings.seed, **some)
    for name, some in ours.items()
  }
  y = ours['model']
  baselines = _super_resolution_baselines(data, low, factor)
  scores = {
    name: super_resolution_scores(shapes, voxels)
    for name, shapes in (ours | baselines).items()
  }
  return {'factor': factor}, low, y, scores


# Shapes from outside.


def read_input(path: str, size: int, up: str = 'z') -> np.ndarray:
  """Reads voxels, or makes them of a mesh.

  Args:
    path: a mesh (.off, .obj, .ply, .stl), or voxels in [0, 1]: .npy, .mat,
      .binvox, a voxel file, or another .npz with the key `voxels`.
    size: voxels a side, of a mesh.
    up: the axis of the shape that becomes z.

  Returns:
    `(n, D, H, W)` float32, of any grid where the file holds voxels.

  Raises:
    FileNotFoundError: when there is no such file.
    ValueError: when it cannot be read, is empty, or is a mesh with no inside.

  >>> read_input('chair.doc', 32)
  Traceback (most recent call last):
  ...
  ValueError: chair.doc: must end in .off, .obj, .ply, .stl, .npz, .binvox, \
.mat, .npy
  """
  kind = pathlib.PurePath(path).suffix.lower()[1:]
  types = (*mesh_files.FILE_TYPES, *VOXEL_TYPES)
  if kind not in types:
    raise ValueError(f'{path}: must end in .{", .".join(types)}')
  if not os.path.isfile(path):
    raise FileNotFoundError(f'--input={path} does not exist')
  try:
    voxels = _read(path, kind, size, up)
    if not (voxels > 0.5).any(axis=(1, 2, 3)).all():
      raise ValueError('a shape is empty: it has no voxel above 0.5')
  except mesh_files.READ_ERRORS as error:
    raise ValueError(f'{path}: {error}') from error
  return np.asarray(voxels, np.float32)


def _read(path, kind, size, up):
  if kind in mesh_files.FILE_TYPES:
    mesh = mesh_files.read_mesh(pathlib.Path(path).read_bytes(), kind)
    _check_inside(*mesh, size)
    return voxelize.voxelize(*mesh, size, up=up)[None]
  if kind != 'npz':
    voxels = convert.read_voxels(pathlib.Path(path).read_bytes(), kind)
  else:
    with np.load(path, allow_pickle=False) as file:
      own = 'classes' in file.files
      if not own and 'voxels' not in file.files:
        raise ValueError(f'has no key voxels, only {file.files}')
      voxels = None if own else file['voxels']
    if own:
      voxels = np.stack([shape.voxels for shape in convert.read_shapes(path)])
    else:
      voxels = convert.check_voxels(voxels)
  return np.stack([convert.turn_up(shape, up) for shape in voxels])


def _check_inside(vertices, faces, size):
  """Raises ValueError for a mesh that encloses nothing."""
  # What is thin on a coarse grid may have an inside on a fine one.
  for side in (size, 128):
    solid = voxelize.voxelize(vertices, faces, side)
    if (
      solid.sum() > voxelize.voxelize(vertices, faces, side, solid=False).sum()
    ):
      return
  raise ValueError(
    'the mesh has no inside: no voxel is enclosed by its faces, on 128^3 '
    'neither. Close it, or give voxels'
  )


def fit(voxels: np.ndarray, shape: Sequence[int], path: str) -> np.ndarray:
  """Pads shapes to the grid of the model with empty voxels, centred."""
  if voxels.shape[1:] == tuple(shape):
    return voxels
  try:
    if len({*shape}) > 1:
      raise ValueError('only cubes are padded')
    return np.stack([convert.resize(one, shape[0]) for one in voxels])
  except ValueError as error:
    raise ValueError(
      f'{path} has a grid of {voxels.shape[1:]}, the model one of '
      f'{tuple(shape)}: {error}'
    ) from error


def some(
  voxels: np.ndarray, settings: ml_collections.ConfigDict, path: str
) -> np.ndarray:
  """The first `num_samples` of `settings`; warns where there are more."""
  if len(voxels) > settings.num_samples:
    logging.warning(
      '%s holds %d shapes; the first sample.num_samples = %d are taken',
      path,
      len(voxels),
      settings.num_samples,
    )
  return voxels[: settings.num_samples]


def read_visible(path: str, n: int) -> np.ndarray:
  """Reads what is visible of n shapes: boolean `(n, D, H, W)` of a .npy.

  Raises:
    ValueError: when it cannot be read, or is of another number of shapes.
  """
  try:
    visible = np.load(path, allow_pickle=False)
  except (ValueError, OSError, EOFError) as error:
    raise ValueError(f'--visible={path}: {error}') from error
  if visible.dtype != bool and not np.isin(visible, (0, 1)).all():
    raise ValueError(
      f'--visible={path} must hold True or 1 where a voxel was observed, False '
      f'or 0 where not; it holds {visible[~np.isin(visible, (0, 1))][0]}'
    )
  visible = visible.astype(bool)
  if visible.ndim == 3:
    visible = np.repeat(visible[None], n, axis=0)
  if visible.ndim != 4 or len(visible) != n:
    raise ValueError(
      f'--visible={path} must be (D, H, W), or ({n}, D, H, W) for {n} shapes; '
      f'got {visible.shape}'
    )
  return visible


def _record(trained, config, source):
  return results.header(trained.config.name) | {
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
  results.write(os.path.join(folder, 'record.json'), content)
  if settings.mesh_format:
    saved = figures.save_meshes(
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
    source: see `read_input`; smaller grids are padded.
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
  voxels = fit(read_input(source, shape[0], up), shape, source)
  voxels = some(voxels, settings, source)
  if visible is None:
    seen = corrupted(config, shape, len(voxels), settings.seed)
  else:
    seen = read_visible(visible, len(voxels))
  check_visible(seen, shape)
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
    figures.unused_path(os.path.join(workdir, 'recoveries'), stem),
    [voxels, np.where(seen, voxels, 0), recovered],
    ['input', 'visible', 'recovered'],
    settings,
    content,
    voxels=recovered,
    input=voxels,
    visible=seen,
  )


def superres(
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
    source: see `read_input`; voxels of the low resolution, or of the model's
      grid, and meshes, which are downscaled first.
    up: the axis of the shapes that becomes z.

  Returns:
    The new folder, `workdir/superres/<name of source>`, `_001`, ...:
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
  voxels = some(read_input(source, shape[0], up), settings, source)
  low_shape = tuple(n // factor for n in shape)
  content, rows, labels = _record(trained, config, source), [], []
  if voxels.shape[1:] == low_shape:
    low = voxels
  elif voxels.shape[1:] == shape:
    low = downscale(voxels, factor)
    rows, labels = [voxels], ['input']
  else:
    raise ValueError(
      f'{source} has a grid of {voxels.shape[1:]}; the model takes '
      f'{low_shape}, or {shape} to downscale first'
    )
  y = super_resolve(
    trained, low, factor, seed=settings.seed, **_steps(settings)
  )
  if rows:
    content['scores'] = super_resolution_scores(y, voxels)
  stem = pathlib.PurePath(source).stem
  return _write(
    figures.unused_path(os.path.join(workdir, 'superres'), stem),
    [*rows, low, y],
    [*labels, 'low', 'result'],
    settings,
    content,
    voxels=y,
    low=low,
  )
