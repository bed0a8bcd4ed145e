"""Section 6.2: recovery of what is hidden. Table 4, Figure 3.

Voxels are `(n, D, H, W)` in [0, 1] here.
"""

from collections.abc import Sequence
import functools
import os
import pathlib
from typing import Any

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
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import conditioned
from experiments.tasks import parts


def _experiment(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> base.Experiment:
  return conditioned.experiment(
    config,
    voxels,
    dnet_jax.recovery,
    corrupt=parts.corruption(
      config.corruption.kind, config.corruption.fraction
    ),
    hold=config.corruption.hold,
    fill=parts.fill(config),
  )


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _corrupted(keys, kind, fraction, grid):
  # The hidden share of the voxels shapes the program.
  return parts.corruption(kind, fraction)(keys, (*grid, 1))


def corrupted(
  config: ml_collections.ConfigDict, grid: Sequence[int], n: int, seed: int
) -> np.ndarray:
  """What `config.corruption` leaves visible of n shapes: `(n, D, H, W)`.

  Args:
    config: its `corruption` is read.
    grid: `(D, H, W)`.
    n: how many.
    seed: of the corruption.
  """
  keys = dnet_jax.chain_keys(jax.random.key(seed), n)
  settings = config.corruption
  visible = _corrupted(keys, settings.kind, settings.fraction, tuple(grid))
  return np.asarray(visible)[..., 0]


def recover_voxels(
  model: dnet_jax.Model,
  voxels: np.ndarray,
  visible: np.ndarray,
  seed: int,
) -> np.ndarray:
  """Fills the hidden voxels, some shapes at a time.

  Args:
    model: with a descriptor, of any task.
    voxels: `(n, D, H, W)`; only visible ones are read.
    visible: boolean, likewise.
    seed: of the noise, if there is any.

  Returns:
    `(n, D, H, W)` in [0, 1], the visible ones as they were given.

  Raises:
    ValueError: as `inputs.check_visible`.
  """
  inputs.check_visible(visible, model.spec.grid)
  keys = dnet_jax.chain_keys(jax.random.key(seed), len(voxels))
  recovered = batches.map_batches(
    lambda keys, voxels, visible: dnet_jax.recover(
      keys, model, voxels, visible
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
  grid = voxels.shape[1:]
  visible = corrupted(config, grid, len(voxels), settings.seed)
  recovered = recover_voxels(request.model, voxels, visible, settings.seed)
  some = min(len(voxels), len(data.train))
  guesses = baselines.recovery(
    voxels,
    visible,
    data.train,
    corrupted(config, grid, some, settings.seed + 1),
  )
  table = {
    name: scores.recovery_scores(y, voxels, visible)
    for name, y in ({'model': recovered} | guesses).items()
  }
  if (options['kind'], options['fraction']) == ('random_voxels', 0.7):
    errors = paper.RECOVERY_ERRORS.get(config.data.category, ())
    for name, error in zip(paper.RECOVERY_METHODS, errors, strict=False):
      table[name] = {'error': error}
  conditioned.picture(folder, voxels, np.where(visible, voxels, 0), recovered)
  return conditioned.result(
    request, 'recovery', options | config.recover.to_dict(), voxels, table
  )


def recover(request: base.Request) -> str:
  """Recovers shapes from outside, of which a part is hidden.

  Returns:
    The new folder, `recoveries/<name of input>`, `_001`, ...: voxels.npz
    (`voxels`, the recovered shapes, in [0, 1] and not thresholded; `input`,
    `visible`), picture.png, meshes/, record.json.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  config, source = request.config, request.input
  settings, grid = config.sample, request.model.spec.grid
  voxels = inputs.fit(
    inputs.read_input(source, grid[0], request.up), grid, source
  )
  voxels = inputs.some(voxels, settings.num_samples, source)
  if request.visible is None:
    seen = corrupted(config, grid, len(voxels), settings.seed)
  else:
    seen = inputs.read_visible(request.visible, len(voxels))
  recovered = recover_voxels(request.model, voxels, seen, settings.seed)
  record = outputs.header(request.card['name']) | {
    'input': source,
    'settings': config.recover.to_dict() | {'seed': settings.seed},
    'corruption': config.corruption.to_dict(),
  }
  if request.visible is None:
    # The whole shape is known, and what was hidden of it is the truth.
    record['scores'] = scores.recovery_scores(recovered, voxels, seen)
  folder = outputs.unused_path(
    os.path.join(request.folder, 'recoveries'), pathlib.PurePath(source).stem
  )
  figures.stacked(
    os.path.join(folder, 'picture.png'),
    {
      'input': voxels,
      'visible': np.where(seen, voxels, 0),
      'recovered': recovered,
    },
  )
  return outputs.write_shapes(
    folder,
    {'voxels': recovered, 'input': voxels, 'visible': seen},
    record,
    {'': recovered},
    settings.mesh_format,
  )


TASK = base.Task(
  _experiment,
  _evaluate,
  {
    'recover': base.Mode(
      recover,
      'fills the hidden part of the shapes of --input',
      needs=('input',),
      takes=('config', 'visible', 'up'),
      fits=base.has_one_descriptor,
    )
  },
)
