"""How well scans from one side are completed: test shapes, seen by a camera.

    python -m benchmarks.scans --workdir=pretrained/recovery_chair --shapes=12

A camera in front of each test shape, 10 to 40 degrees above the ground, sees
some of its voxels, and the free space in front of them. Completions from both,
and from the voxels without the free space, are compared with the shape by voxel
IoU. Prints a table and, last, one line of JSON.
"""

from collections.abc import Sequence
import json

from absl import app
from absl import flags
import numpy as np

from data_prep import command
from data_prep import scans
from experiments.evaluation import scores
from experiments.files import figures
from experiments.files import models
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import contents
from experiments.tasks import parts
from experiments.tasks import recovery

_PIXELS = 96
_INWARDS = 0.3  # voxels from the surface, which lies between two of them.


def seen_by_a_camera(
  shape: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Voxels of a shape that are seen, and voxels that are seen to be empty."""
  side = len(shape)
  around, above = np.radians([rng.uniform(-150, -30), rng.uniform(10, 40)])
  camera = side / 2 + 2 * side * np.array(
    [
      np.cos(above) * np.cos(around),
      np.cos(above) * np.sin(around),
      np.sin(above),
    ]
  )
  corners, faces = figures.surface(shape)
  points, _ = scans.seen_by(corners + 0.5, faces, camera, _PIXELS)
  rays = points - camera
  points += _INWARDS * rays / np.linalg.norm(rays, axis=1, keepdims=True)
  none = np.empty((0, 3), np.int64)
  full = scans.full_voxels(points, none, side) & (shape > 0.5)
  free = scans.free_voxels(points, none, full, camera)
  return full, free & ~(shape > 0.5)


def nearest(full, seen, train):
  """The training shapes that differ least where scans are known."""
  found = [
    train[((train != y) & known).sum(axis=(1, 2, 3)).argmin()]
    for y, known in zip(full, seen, strict=True)
  ]
  return np.where(seen, full, np.stack(found))


def main(argv: Sequence[str]) -> int:
  """The command; returns its exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  outputs.plain_log()
  model, card = models.open_model(values.workdir)
  config = models.full_config(card['config'])
  if values.data:
    config.data.path = values.data
  data = parts.data(config)
  rng = np.random.default_rng(0)
  chosen = rng.permutation(len(data.test))[: values.shapes]
  shapes = (data.test[chosen] > 0.5).astype(np.float32)
  full, free = (
    np.stack(x)
    for x in zip(*(seen_by_a_camera(y, rng) for y in shapes), strict=True)
  )
  given = full.astype(np.float32)
  model = recovery.with_components(model, config)
  request = base.Request(model, card, config, values.workdir)
  if values.num_steps is not None:
    config.recover.num_steps = values.num_steps
    request = request._replace(model=contents.with_settings(model, config))
  start = config.copy_and_resolve_references()
  start.recover.num_steps = start.recover.refinement_steps = 0
  before = request._replace(
    config=start, model=contents.with_settings(request.model, start)
  )
  table = {}
  for name, seen in (('camera', full | free), ('no camera', full)):
    made = {
      'what is known': given,
      'nearest training shape': nearest(full, seen, data.train > 0.5),
      'principal components': recovery.complete_scans(before, given, seen),
      'model': recovery.complete_scans(request, given, seen),
    }
    for method, y in made.items():
      iou = scores.own_iou(y, shapes)
      table[f'{method}, {name}'] = {
        'iou': round(float(np.mean(iou)), 3),
        'least': round(float(np.min(iou)), 3),
      }
  print(f'{len(shapes)} shapes{"IoU":>31}{"least":>8}')
  for name, row in table.items():
    print(f'{name:38}{row["iou"]:6.3f}{row["least"]:8.3f}')
  print(json.dumps({'model': card['name'], 'data': data.source} | table))
  return 0


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_string('workdir', None, 'A run or a saved model.')
  flags.DEFINE_string('data', '', 'Voxel file; by default that of the model.')
  flags.DEFINE_integer('shapes', 12, 'How many test shapes.', 1)
  flags.DEFINE_integer('num_steps', None, "Of chains; by default the model's.")
  flags.mark_flags_as_required(['workdir'])


if __name__ == '__main__':
  command.run(main, define_flags)
