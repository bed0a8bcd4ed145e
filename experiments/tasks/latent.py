"""The latent space of a generator, section 6.4: Figures 5 to 7.

Voxels are `(n, D, H, W)` in [0, 1] here, latent factors `(n, d)`.
"""

from collections.abc import Mapping
import os
from typing import Any

import jax
import numpy as np

import dnet_jax
from dnet_jax import metrics
from dnet_jax.uses import base as uses
from dnet_jax.uses import latent as library
from experiments import batches
from experiments.evaluation import scores
from experiments.files import figures
from experiments.files import inputs
from experiments.files import masks
from experiments.files import outputs
from experiments.tasks import arithmetic as examples_of
from experiments.tasks import base
from experiments.tasks import synthesis

_COLUMNS = 10
_DPI = 100  # Of pictures; they are many shapes, in the folders of models.


def draw(
  model: dnet_jax.Model, num: int, seed: int, correlation: float | None = None
) -> np.ndarray:
  """Latent factors of `draw_latent`, `(num, d)`; z_i does not depend on num."""
  key = jax.random.key(seed)
  return np.asarray(
    dnet_jax.draw_latent(key, model, num, correlation=correlation)
  )


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


def refined(request: base.Request, voxels: np.ndarray, seed: int) -> np.ndarray:
  """Descriptor steps on top of generated shapes: Algorithm 3, lines 3 and 4."""
  return synthesis.refine(request.model, voxels, seed)


# Modes.


def _write(request, name, arrays, kinds, picture, given=None, **content):
  """Writes the new folder of a mode; returns it."""
  config = request.config
  record = outputs.header(request.card['name']) | {
    'latent': config.latent.to_dict(),
    'sample': config.sample.to_dict(),
  }
  if request.input is not None:
    record['input'] = request.input._asdict()

  def fill(folder):
    path = os.path.join(folder, 'picture.png')
    figures.isosurfaces(path, **picture, dpi=_DPI)
    outputs.write_shapes(
      folder, arrays, record | content, kinds, base.formats(request), given
    )

  return outputs.in_new_folder(
    os.path.join(request.folder, 'latent'), name, fill
  )


def _rows(sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Rows of a picture: shape i of each set is below that of the one before."""
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
    arrays['refined'] = refined(request, voxels, settings.seed)
    sets['refined'] = arrays['refined']
  return _write(request, 'generate', arrays, sets, _rows(sets))


def interpolate(request: base.Request) -> str:
  """Rows of shapes between random pairs, Figure 6; or between two given ones.

  Of shapes from outside, `--input`, z is inferred; there must be two, whose
  order is that of their names.

  Returns:
    The new folder; voxels.npz has `linear` and `spherical`, `(rows * columns,
    D, H, W)`, row by row, and the ends, `z`; and `input`, if it was given.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  settings, model = request.config.latent, request.model
  rows, columns = settings.num_rows, settings.num_columns
  if rows < 1 or columns < 2:
    raise ValueError(
      'latent.num_rows must be at least 1 and latent.num_columns at least 2, '
      f'got {rows} and {columns}'
    )
  seed = request.config.sample.seed
  content, arrays = {}, {}
  if request.input is not None:
    given = inputs.read(request.input, model.spec.grid, limit=3)
    for name, reason in given.skipped:
      raise ValueError(f'{name}: {reason}; nothing is written')
    if len(given.names) != 2:
      raise ValueError(
        f'--input={request.input.path} must hold two shapes to interpolate '
        f'between, a folder of two files or a file of two shapes; it holds '
        f'{"more" if given.names[2:] else "one"}'
      )
    everywhere = np.ones(given.voxels.shape, bool)
    rows, z = 1, infer(model, given.voxels, everywhere, seed)[None]
    arrays['input'], content['names'] = given.voxels, list(given.names)
    rebuilt = scores.own_iou(shapes(model, z[0]), given.voxels)
    content['iou'] = [round(float(x), 4) for x in rebuilt]
  else:
    z = draw(model, 2 * rows, seed).reshape(rows, 2, -1)
  made = {name: between(model, z, columns, name) for name in library.PATHS}
  lines = [list(row) for i in range(rows) for row in (made[n][i] for n in made)]
  labels = [*made] * rows
  if request.input is not None:
    first, last = given.voxels
    lines.insert(0, [first, *[None] * (columns - 2), last])
    labels.insert(0, 'input')
  flat = {name: y.reshape(-1, *y.shape[2:]) for name, y in made.items()}
  return _write(
    request,
    'interpolate',
    flat | arrays | {'z': z},
    flat,
    dict(rows=lines, row_labels=labels),
    scores={name: smoothness(y) for name, y in made.items()},
    **content,
  )


def between(
  model: dnet_jax.Model, ends: np.ndarray, columns: int, path: str
) -> np.ndarray:
  """Interpolations `(rows, columns, D, H, W)` of ends `(rows, 2, d)`."""
  return np.stack(
    [
      np.asarray(dnet_jax.interpolate(model, *pair, columns, path=path))
      for pair in ends
    ]
  )


def smoothness(rows: np.ndarray) -> dict[str, float]:
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

  `latent.examples` are numbers of the shapes that `generate` makes from the
  same seed. Without them, `find_examples` looks among those of `latent.search`
  shapes that are in one piece.

  Returns:
    The new folder; voxels.npz has `voxels`, `(rows * 4, D, H, W)`: a, b, c and
    c + a - b, row by row; and their `z`, `(rows, 4, d)`.
  """
  settings, model = request.config.latent, request.model
  z = draw(model, settings.search, request.config.sample.seed)
  if settings.examples:
    found = examples_of.given_examples(settings.examples, settings.search)
  else:
    some = shapes(model, z)
    rows = examples_of.in_one_piece(some)
    rows = rows if len(rows) >= 3 else np.arange(len(some))
    found = [
      (int(rows[a]), int(rows[b]), int(rows[c]), half)
      for a, b, c, half in examples_of.find_examples(
        some[rows], settings.num_rows
      )
    ]
  if not found:
    raise ValueError(
      f'among latent.search = {settings.search} shapes no pair differs in one '
      'half of the grid: raise latent.search'
    )
  given = np.stack([z[[a, b, c]] for a, b, c, _ in found])
  z = np.concatenate([given, examples_of.sums(z, found)[:, None]], axis=1)
  voxels = shapes(model, z.reshape(-1, z.shape[-1]))
  shown = voxels.reshape(len(z), 4, *voxels.shape[1:])
  colors = [figures.NEIGHBOUR_COLOR] * 3 + [figures.SAMPLE_COLOR]
  return _write(
    request,
    'arithmetic',
    {'voxels': voxels, 'z': z},
    {'': voxels},
    dict(
      rows=[list(row) for row in shown],
      titles=['a', 'b', 'c', 'c + a - b'],
      row_labels=[half for *_, half in found],
      colors=[colors for _ in shown],
    ),
    examples=[list(example) for example in found],
  )


def reconstruct(request: base.Request) -> str:
  """Infers z of input shapes, which may be partly visible, and rebuilds them.

  Returns:
    The new folder; voxels.npz has `voxels`, what was rebuilt, `input`,
    `visible` and `z`.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  config, model, source = request.config, request.model, request.input
  given = inputs.read(
    source, model.spec.grid, limit=config.sample.num_samples, partial=True
  )
  y, n = given.voxels, len(given.names)
  seen = np.ones(y.shape, bool)
  if request.visible is not None:
    seen = masks.read(request.visible, n)
    if seen.shape != y.shape or not seen.any((1, 2, 3)).all():
      raise ValueError(
        f'--visible={request.visible} must be {y.shape[1:]} and True '
        f'somewhere, got {seen.shape[1:]} with {seen.sum()} visible voxels'
      )
  else:
    for i, known in enumerate(given.seen):
      if known is not None:
        seen[i] = known
  z = infer(model, y, seen, config.sample.seed)
  voxels = shapes(model, z)
  sets = {'input': y, 'visible': np.where(seen, y, 0), 'rebuilt': voxels}
  picture = _rows(sets)
  colors = [figures.NEIGHBOUR_COLOR] * 2 + [figures.SAMPLE_COLOR]
  path = _write(
    request,
    f'reconstruct_{inputs.stem(source)}',
    {'voxels': voxels, 'input': y, 'visible': seen, 'z': z},
    {'': voxels},
    picture | {'colors': colors * (len(picture['rows']) // 3)},
    given,
    iou=[round(float(x), 4) for x in scores.own_iou(voxels, y)],
  )
  inputs.tell_skipped(given)
  return path


MODES = {
  'generate': base.Mode(
    generate,
    'makes shapes by the generator, in one pass, Figure 5',
    takes=('config', 'format'),
    fits=base.has_generator,
  ),
  'interpolate': base.Mode(
    interpolate,
    'makes shapes between pairs, Figure 6, or between the two of --input',
    takes=('config', 'input', 'format', *base.INPUT),
    fits=base.has_generator,
  ),
  'arithmetic': base.Mode(
    arithmetic,
    'adds a part of one shape to another, Figure 7',
    takes=('config', 'format'),
    fits=base.has_generator,
  ),
  'reconstruct': base.Mode(
    reconstruct,
    'rebuilds the shapes of --input through the latent space',
    needs=('input',),
    takes=('config', 'format', *base.INPUT, *base.SCAN),
    fits=base.has_generator,
  ),
}
