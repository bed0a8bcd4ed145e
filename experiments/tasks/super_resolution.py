"""Section 6.3: super-resolution of block averages. Figure 4.

Voxels are `(n, D, H, W)` in [0, 1] here.
"""

import os
from typing import Any

import jax
import ml_collections
import numpy as np

import dnet_jax
from dnet_jax.uses import base as uses
from experiments import batches
from experiments.evaluation import baselines
from experiments.evaluation import scores
from experiments.files import datasets
from experiments.files import figures
from experiments.files import inputs
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import conditioned


def _check_factor(factor, sides):
  if factor < 2 or any(n % factor for n in sides):
    raise ValueError(
      f'factor must be at least 2 and divide the sides {tuple(sides)}, got '
      f'{factor}'
    )


def _experiment(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> base.Experiment:
  _check_factor(config.factor, voxels.train.shape[1:])
  settings = config.super_resolve
  known = conditioned.known(config, voxels, settings.components_std)
  return conditioned.experiment(
    config,
    voxels,
    dnet_jax.super_resolution,
    known,
    factor=config.factor,
    guess=_guess(config.factor, settings.components_std),
    arrays=known.components,
    anchor_std=settings.anchor_std or None,
  )


def _guess(factor, std):
  if not std:
    return None
  return lambda y_low, components: dnet_jax.expected_details(
    y_low, factor, components, std
  )


def super_resolve_voxels(
  model: dnet_jax.Model, low: np.ndarray, seed: int, **arguments: Any
) -> np.ndarray:
  """Adds the details that block averages leave open, some shapes at a time.

  Args:
    model: with a descriptor, of any task.
    low: averages `(n, D / d, H / d, W / d)`.
    seed: of the noise, if there is any.
    **arguments: of `dnet_jax.super_resolve`.

  Returns:
    `(n, D, H, W)`, not clipped; its block averages are `low`, except for a
    multi-grid model.
  """
  keys = dnet_jax.chain_keys(jax.random.key(seed), len(low))
  return batches.map_batches(
    lambda keys, low: dnet_jax.super_resolve(keys, model, low, **arguments),
    keys,
    low,
  )


def _evaluate(
  request: base.Request, data: datasets.Dataset, folder: str
) -> dict[str, Any]:
  """Super-resolves test shapes, beside baselines, and draws Figure 4."""
  config, settings = request.config, request.config.evaluate
  voxels, factor = conditioned.test_shapes(request, data), config.factor
  low = baselines.downscale(voxels, factor)
  made = {'model': super_resolve_voxels(request.model, low, settings.seed)}
  use, _ = uses.settings(request.model, 'super_resolve')
  soft = dict(sharpening_steps=0)
  unmoved = dict(num_steps=0, noise_steps=0, refinement_steps=0)
  fewer: dict[str, dict[str, int]] = {}
  if use.sharpening_steps:
    fewer['model, not sharpened'] = soft
    fewer['start, sharpened'] = unmoved
  if use.refinement_steps:
    fewer['model, not refined'] = soft | dict(refinement_steps=0)
  if use.start != 'repeat':
    fewer['start'] = soft | unmoved
  for name, steps in fewer.items():
    made[name] = super_resolve_voxels(
      request.model, low, settings.seed, **steps
    )
  guesses = baselines.super_resolution(low, factor, data.train)
  table = {
    name: scores.super_resolution_scores(shapes, voxels)
    for name, shapes in (made | guesses).items()
  }
  conditioned.picture(folder, voxels, low, made['model'])
  return conditioned.result(
    request,
    'super_resolution',
    {'factor': factor} | config.super_resolve.to_dict(),
    voxels,
    table,
  )


def super_resolve(request: base.Request) -> str:
  """Super-resolves shapes from outside.

  The input may be voxels of the low resolution; others, and meshes, are brought
  to the model's grid and downscaled first.

  Returns:
    The new folder, `super_resolutions/<name of input>`, `_001`, ...:
    voxels.npz (`voxels`, not thresholded; `low`), picture.png, meshes/,
    record.json.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  config, source = request.config, request.input
  settings, factor = config.sample, config.factor
  grid = request.model.spec.grid
  _check_factor(factor, grid)
  low_grid = tuple(n // factor for n in grid)
  given = inputs.read(
    source, grid, limit=settings.num_samples, others=(low_grid,)
  )
  voxels = given.voxels
  if voxels.shape[1:] == low_grid:
    low, shown = voxels, {}
    given = inputs.finer(given, factor)
  else:
    low, shown = baselines.downscale(voxels, factor), {'input': voxels}
  y = super_resolve_voxels(request.model, low, settings.seed)
  record = outputs.header(request.card['name']) | {
    'input': source._asdict(),
    'factor': factor,
    'settings': config.super_resolve.to_dict() | {'seed': settings.seed},
  }
  if shown:
    record['scores'] = scores.super_resolution_scores(y, voxels)

  def fill(folder):
    figures.stacked(
      os.path.join(folder, 'picture.png'), shown | {'low': low, 'result': y}
    )
    outputs.write_shapes(
      folder,
      {'voxels': y, 'low': low},
      record,
      {'': y},
      base.formats(request),
      given,
    )

  path = outputs.in_new_folder(
    os.path.join(request.folder, 'super_resolutions'),
    inputs.stem(source),
    fill,
  )
  inputs.tell_skipped(given)
  return path


TASK = base.Task(
  _experiment,
  _evaluate,
  {
    'super_resolve': base.Mode(
      super_resolve,
      'adds details to the coarse shapes of --input',
      needs=('input',),
      takes=('config', 'format', *base.INPUT),
      fits=base.has_descriptor,
    )
  },
)
