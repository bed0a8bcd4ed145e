"""Draws fresh shapes of several models, a row a model: README's first picture.

python -m experiments.gallery --out=docs/images/fresh.png

The shapes are the first ones of a seed, with each model's own settings; none is
picked by hand.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os

from absl import app
from absl import flags
import numpy as np

from data_prep import voxel_file
import dnet_jax
from experiments.configs import arguments
from experiments.files import figures
from experiments.files import models
from experiments.files import outputs
from experiments.tasks import synthesis


def draw(
  path: str,
  rows: Mapping[str, dnet_jax.Model],
  num_shapes: int,
  seed: int = 0,
  *,
  labels: bool = True,
) -> dict[str, np.ndarray]:
  """Writes a picture of fresh shapes, a row for each model.

  Args:
    path: of the picture (.png).
    rows: the models by the name of their row.
    num_shapes: of a row.
    seed: of the shapes.
    labels: whether rows are named.

  Returns:
    The shapes by name, `(num_shapes, D, H, W)`.

  Raises:
    FileExistsError: when `path` exists.
  """
  voxel_file.refuse_existing(path)
  made = {
    name: synthesis.synthesize(model, num_shapes, seed)
    for name, model in rows.items()
  }
  figures.isosurfaces(
    path,
    list(made.values()),
    row_labels=[name.replace('_', ' ') for name in made] if labels else (),
  )
  return made


def _define_flags():
  """Not at import: other commands have flags of the same names."""
  flags.DEFINE_string('out', None, 'The picture (.png) to write.')
  flags.DEFINE_list(
    'models',
    [f'pretrained/synthesis_{name}' for name in arguments.CATEGORIES],
    'Saved models or workdirs, a row for each.',
  )
  flags.DEFINE_integer('shapes', 8, 'Shapes in a row.', lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Seed of the shapes.', lower_bound=0)
  flags.DEFINE_bool('labels', True, 'Whether rows are named.')
  flags.mark_flag_as_required('out')


def main(argv: Sequence[str]) -> None:
  """Draws what the flags ask for."""
  if argv[1:]:
    raise app.UsageError(f'no arguments but flags are taken, got {argv[1:]}')
  outputs.plain_log()
  given, rows = flags.FLAGS, {}
  try:
    for folder in given.models:
      name = os.path.basename(os.path.normpath(folder))
      rows[name.removeprefix('synthesis_')], _ = models.open_model(folder)
    draw(given.out, rows, given.shapes, given.seed, labels=given.labels)
  except (OSError, ValueError) as error:
    raise SystemExit(f'error: {error}') from error
  print(f'Wrote {given.out}')


if __name__ == '__main__':
  _define_flags()
  app.run(main)
