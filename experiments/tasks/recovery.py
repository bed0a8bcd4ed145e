"""Section 6.2: recovery of hidden voxels. Table 4, Figure 3.

Voxels are `(n, D, H, W)` in [0, 1] here.
"""

import dataclasses
import functools
import os
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

import dnet_jax
from experiments import batches
from experiments.evaluation import baselines
from experiments.evaluation import paper
from experiments.evaluation import scores
from experiments.files import datasets
from experiments.files import figures
from experiments.files import inputs
from experiments.files import masks
from experiments.files import models
from experiments.files import outputs
from experiments.files import summaries
from experiments.tasks import base
from experiments.tasks import completions
from experiments.tasks import conditioned
from experiments.tasks import latent
from experiments.tasks import parts

# For scans: number of principal components at which hidden voxels begin, and
# standard deviations of a voxel around them, with and without known empty ones.
_COMPONENTS = 120
_WITH_CAMERA, _WITHOUT = 0.7, 4.0


def _experiment(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> base.Experiment:
  settings = config.corruption
  known = conditioned.known(config, voxels, settings.components_std)
  return conditioned.experiment(
    config,
    voxels,
    dnet_jax.recovery,
    known,
    corrupt=parts.corruption(
      settings.kind,
      settings.fraction,
      (0.5 - voxels.mean) * voxels.scale,
    ),
    hold=settings.hold,
    fill=parts.fill(config),
    arrays=known.components,
    anchor_std=settings.anchor_std or None,
  )


@functools.partial(jax.jit, static_argnums=(2, 3))
def _corrupted(keys, voxels, kind, fraction):
  # The share of hidden voxels is static: it determines the program.
  return parts.corruption(kind, fraction)(keys, voxels[..., None])


def corrupted(
  config: ml_collections.ConfigDict, voxels: np.ndarray, seed: int
) -> np.ndarray:
  """Which voxels `config.corruption` leaves visible: `(n, D, H, W)`.

  Args:
    config: its `corruption` is read.
    voxels: `(n, D, H, W)` in [0, 1].
    seed: of the corruption.
  """
  keys = dnet_jax.chain_keys(jax.random.key(seed), len(voxels))
  settings = config.corruption
  visible = _corrupted(keys, voxels, settings.kind, settings.fraction)
  return np.asarray(visible)[..., 0]


def recover_voxels(
  model: dnet_jax.Model,
  voxels: np.ndarray,
  visible: np.ndarray,
  seed: int,
  **arguments: Any,
) -> np.ndarray:
  """Fills the hidden voxels, some shapes at a time.

  Args:
    model: with a descriptor, of any task.
    voxels: `(n, D, H, W)`; only visible ones are read.
    visible: boolean, likewise.
    seed: of the noise, if there is any.
    **arguments: of `dnet_jax.recover`.

  Returns:
    `(n, D, H, W)` in [0, 1], the visible ones as they were given.

  Raises:
    ValueError: as `masks.check`.
  """
  masks.check(visible, model.spec.grid)
  keys = dnet_jax.chain_keys(jax.random.key(seed), len(voxels))
  recovered = batches.map_batches(
    lambda keys, voxels, visible: dnet_jax.recover(
      keys, model, voxels, visible, **arguments
    ),
    keys,
    voxels,
    visible,
  )
  return np.where(visible, voxels, np.clip(recovered, 0, 1))


def _evaluate(
  request: base.Request, data: datasets.Dataset, folder: str
) -> dict[str, Any]:
  """Recovers test shapes: a row of Table 4 beside baselines, and Figure 3."""
  config, settings = request.config, request.config.evaluate
  options = config.corruption.to_dict()
  voxels = conditioned.test_shapes(request, data)
  visible = corrupted(config, voxels, settings.seed)
  recovered = recover_voxels(request.model, voxels, visible, settings.seed)
  begun = recover_voxels(
    request.model,
    voxels,
    visible,
    settings.seed,
    num_steps=0,
    noise_steps=0,
    refinement_steps=0,
  )
  made = {'model': recovered, 'start': begun}
  if settings.baseline:
    made['generator'] = _by_generator(
      settings.baseline, voxels, visible, settings.seed
    )
  some = np.asarray(data.train[: len(voxels)], np.float32)
  guesses = baselines.recovery(
    voxels,
    visible,
    data.train,
    corrupted(config, some, settings.seed + 1),
  )
  table = {
    name: scores.recovery_scores(y, voxels, visible)
    for name, y in (made | guesses).items()
  }
  if (options['kind'], options['fraction']) == ('random_voxels', 0.7):
    errors = paper.RECOVERY_ERRORS.get(config.data.category, ())
    for name, error in zip(paper.RECOVERY_METHODS, errors, strict=False):
      table[name] = {'error': error}
  conditioned.picture(folder, voxels, np.where(visible, voxels, 0), recovered)
  found = conditioned.result(
    request, 'recovery', options | config.recover.to_dict(), voxels, table
  )
  if settings.kinds:
    found['kinds'] = {
      kind: _kind(request, voxels, folder, kind) for kind in settings.kinds
    }
  return found


def _by_generator(folder, voxels, visible, seed):
  """What a generator makes of the latent factors of the visible voxels."""
  model, card = models.open_model(folder)
  if model.spec.generator is None:
    raise ValueError(
      'evaluate.baseline must be a model with a generator, got '
      f'{card["name"]!r}: {model!r}'
    )
  z = latent.infer(model, voxels, visible, seed)
  return np.where(visible, voxels, np.clip(latent.shapes(model, z), 0, 1))


def _kind(request, voxels, folder, kind):
  """Scores of one kind of corruption, and of several completions."""
  settings = request.config.evaluate
  config = request.config.copy_and_resolve_references()
  config.corruption.kind = kind
  visible = corrupted(config, voxels, settings.seed)
  expected = recover_voxels(request.model, voxels, visible, settings.seed)
  made = [
    recover_voxels(
      request.model,
      voxels,
      visible,
      settings.seed + 1 + i,
      completion_spread=1.0,
    )
    for i in range(settings.completions)
  ]
  given = np.where(visible, voxels, 0)
  completions.picture(folder, kind, voxels, given, expected, made)
  return completions.scored(voxels, visible, expected, made)


def with_components(
  model: dnet_jax.Model, config: ml_collections.ConfigDict
) -> dnet_jax.Model:
  """The model with principal components of its data: its own, or new ones.

  If the data is missing, the embedded furniture takes its place. Where that
  does not have the category either, the model is returned as it is.
  """
  if 'components' in model.extras:
    return model
  data = parts.data_or_none(config)
  if data is None:
    other = config.copy_and_resolve_references()
    other.data.path, other.data.hold_out = datasets.FURNITURE, 0.0
    other.data.size, other.data.furniture_shapes = model.spec.grid[0], 300
    data = parts.data_or_none(other)
  if data is None or data.train.shape[1:] != model.spec.grid:
    return model
  logging.info(
    'Hidden voxels of scans begin at principal components of %s.',
    data.source,
  )
  found = summaries.principal_components(
    datasets.to_network(
      data.train, float(model.extras['mean']), float(model.extras['scale'])
    ),
    min(_COMPONENTS, len(data.train) // 3),
  )
  return dataclasses.replace(
    model, extras=dict(model.extras) | {'components': found}
  )


def complete_scans(
  request: base.Request, voxels: np.ndarray, seen: np.ndarray
) -> np.ndarray:
  """Fills the hidden voxels of scans, of which large parts are hidden.

  Args:
    request: of the mode.
    voxels: `(n, D, H, W)`; only the seen ones are read.
    seen: boolean, likewise.
  """
  model = with_components(request.model, request.config)
  seed = request.config.sample.seed
  if 'components' not in model.extras:
    logging.warning(
      'The model keeps no principal components of its data, and the data is '
      'missing (--config.data.path): hidden voxels begin at a local average, '
      'and large parts of scans will be wrong.'
    )
    return recover_voxels(model, voxels, seen, seed, start='local_average')
  recovered = np.empty_like(voxels)
  # Full voxels alone say less about the shape than full and empty ones.
  empty = (seen & (voxels < 0.5)).any(axis=(1, 2, 3))
  for rows, std in ((empty, _WITH_CAMERA), (~empty, _WITHOUT)):
    if rows.any():
      recovered[rows] = recover_voxels(
        model,
        voxels[rows],
        seen[rows],
        seed,
        start='components',
        components_std=std,
      )
  return recovered


def picture_scans(path: str, given: np.ndarray, made: np.ndarray) -> None:
  """Draws scans and what they became, from the front and from behind.

  Args:
    path: of the picture (.png).
    given: what is known to be full, `(n, D, H, W)`.
    made: the results, likewise.
  """
  sides = [
    y for both in (given, made) for y in (both, np.rot90(both, 2, axes=(1, 2)))
  ]
  figures.isosurfaces(
    path,
    [list(row) for row in zip(*sides, strict=True)],
    titles=['scan', 'from behind', 'recovered', 'from behind'],
    colors=[
      [figures.NEIGHBOUR_COLOR] * 2 + [figures.SAMPLE_COLOR] * 2 for _ in given
    ],
  )


def recover(request: base.Request) -> str:
  """Recovers input shapes, of which a part is hidden.

  In a scan everything is hidden except its surface and, with a camera, the
  space in front of it. In a whole shape `--visible` says what is hidden, or
  without it the config.

  Returns:
    The new folder, `recoveries/<name of input>`, `_001`, ...: voxels.npz
    (`voxels`, the recovered shapes, in [0, 1] and not thresholded; `input`,
    `visible`, `to_input`), picture.png, meshes/, record.json.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  config, source, model = request.config, request.input, request.model
  settings, grid = config.sample, model.spec.grid
  given = inputs.read(source, grid, limit=settings.num_samples, partial=True)
  voxels, n = given.voxels, len(given.names)
  scans = np.array([one is not None for one in given.seen])
  seen = corrupted(config, voxels, settings.seed).copy()
  if request.visible is not None:
    scans[:] = False
    seen = masks.read(request.visible, n)
  for i in np.flatnonzero(scans):
    seen[i] = given.seen[i]
  recovered = np.empty_like(voxels)
  if scans.any():
    recovered[scans] = complete_scans(request, voxels[scans], seen[scans])
  if not scans.all():
    recovered[~scans] = recover_voxels(
      model, voxels[~scans], seen[~scans], settings.seed
    )
  record = outputs.header(request.card['name']) | {
    'input': source._asdict(),
    'settings': config.recover.to_dict() | {'seed': settings.seed},
  }
  if request.visible is None and not scans.all():
    # The whole shape is known, so the result can be scored.
    record['corruption'] = config.corruption.to_dict()
    record['scores'] = scores.recovery_scores(
      recovered[~scans], voxels[~scans], seen[~scans]
    )

  def fill(folder):
    path = os.path.join(folder, 'picture.png')
    shown = np.where(seen, voxels, 0)
    if scans.all():
      picture_scans(path, shown, recovered)
    else:
      sets = {'input': voxels, 'visible': shown, 'recovered': recovered}
      figures.stacked(path, sets)
    outputs.write_shapes(
      folder,
      {'voxels': recovered, 'input': voxels, 'visible': seen},
      record,
      {'': recovered},
      base.formats(request),
      given,
    )

  path = outputs.in_new_folder(
    os.path.join(request.folder, 'recoveries'), inputs.stem(source), fill
  )
  inputs.tell_skipped(given)
  return path


TASK = base.Task(
  _experiment,
  _evaluate,
  {
    'recover': base.Mode(
      recover,
      'fills the hidden part of the shapes of --input',
      needs=('input',),
      takes=('config', 'format', *base.INPUT, *base.SCAN),
      fits=base.has_one_descriptor,
    )
  },
)
