"""Furniture made by procedure: a data set that needs no download.

Chairs, sofas, toilets and more, the ten kinds of ModelNet10, are put together
from boxes, cylinders, cones and rings with random dimensions and parts. They
become voxels as real meshes do (`voxelize.voxelize`), and stand as
ModelNet10's do: z is up; chairs, toilets and beds have their back, tank and
headboard at +y, the other kinds have their back at +x and are wide along y.
Lengths are in metres.

    python -m data_prep.furniture --size 32 --out furniture_32.npz
"""

from collections.abc import Sequence

from absl import app
from absl import flags
import numpy as np
import trimesh

from data_prep import command
from data_prep import voxel_file
from data_prep import voxelize
from data_prep.pieces import beds
from data_prep.pieces import cabinets
from data_prep.pieces import seats

DEFAULT_CATEGORIES = ('chair', 'night_stand', 'sofa', 'table', 'toilet')
_ATTEMPTS = 200  # draws of one shape before giving up on a new one.


def make_furniture(
  size: int = 32,
  num_train: int = 100,
  num_test: int = 20,
  seed: int = 0,
  categories: Sequence[str] | None = None,
  margin: int | None = None,
) -> voxel_file.VoxelData:
  """A data set of procedural furniture.

  Every shape is drawn from its own random stream, given by seed, category,
  split and number, so the first shapes do not depend on how many there are. No
  two shapes are equal.

  Args:
    size: voxels a side, 4 to 128; below about 12, kinds are hard to recognise.
    num_train: shapes of each category in split `train`.
    num_test: shapes of each category in split `test`.
    seed: a number; the same one gives the same shapes.
    categories: some of `CATEGORIES`, by default `DEFAULT_CATEGORIES`.
    margin: voxels left empty on every side; by default
      `placement.default_margin(size)`.

  Returns:
    The shapes, uint8 `(n, size, size, size)`, sorted by category.

  Raises:
    ValueError: for an unknown category, a number of shapes that is negative, a
      size or margin out of range, or a grid too coarse for that many shapes.

  >>> data = make_furniture(size=16, num_train=2, num_test=1)
  >>> data.classes
  ('chair', 'night_stand', 'sofa', 'table', 'toilet')
  >>> data.voxels['train'].shape
  (10, 16, 16, 16)
  """
  categories = DEFAULT_CATEGORIES if categories is None else tuple(categories)
  for category in categories:
    _check_category(category)
  if len(set(categories)) != len(categories) or not categories:
    raise ValueError(f'categories must differ, got {list(categories)}')
  counts = {'train': num_train, 'test': num_test}
  if min(counts.values()) < 0 or max(counts.values()) < 1:
    raise ValueError(
      f'num_train and num_test must be >= 0, and at least one of them above 0; '
      f'got {num_train} and {num_test}'
    )
  voxels, labels, names, seen = {}, {}, {}, set()
  first = 1
  for part, (split, count) in enumerate(counts.items()):
    if not count:
      continue
    voxels[split] = np.empty(
      (len(categories) * count, size, size, size), np.uint8
    )
    for label, category in enumerate(categories):
      for i in range(count):
        voxels[split][label * count + i] = _draw(
          category,
          (seed, CATEGORIES.index(category), part, i),
          size,
          margin,
          seen,
        )
    labels[split] = np.repeat(np.arange(len(categories)), count)
    names[split] = np.array(
      [f'{c}_{first + i:04d}' for c in categories for i in range(count)]
    )
    first += count
  return voxel_file.VoxelData(categories, voxels, labels, names)


def make_mesh(category: str, rng: np.random.Generator) -> trimesh.Trimesh:
  """A random piece of furniture as a mesh, its parts overlapping freely.

  Args:
    category: one of `CATEGORIES`.
    rng: NumPy's random generator; it is advanced.

  Returns:
    A mesh in metres, z up.

  Raises:
    ValueError: for an unknown category.

  >>> mesh = make_mesh('chair', np.random.default_rng(0))
  >>> bool(mesh.extents[2] > 0.5)
  True
  """
  _check_category(category)
  parts = _MAKERS[category](rng)
  offsets = np.cumsum([0] + [len(vertices) for vertices, _ in parts[:-1]])
  return trimesh.Trimesh(
    np.concatenate([vertices for vertices, _ in parts]),
    np.concatenate(
      [faces + at for (_, faces), at in zip(parts, offsets, strict=True)]
    ),
    process=False,
  )


def _check_category(category: str) -> None:
  if category not in _MAKERS:
    raise ValueError(
      f'unknown category {category!r}, must be one of {list(CATEGORIES)}'
    )


def _draw(category, stream, size, margin, seen) -> np.ndarray:
  for attempt in range(_ATTEMPTS):
    rng = np.random.default_rng((*stream, attempt))
    mesh = make_mesh(category, rng)
    grid = voxelize.voxelize(mesh.vertices, mesh.faces, size, margin=margin)
    bits = np.packbits(grid).tobytes()
    if bits not in seen:
      seen.add(bits)
      return grid
  raise ValueError(
    f'no new {category} in {_ATTEMPTS} draws at size {size}: '
    'use a larger size or fewer shapes'
  )


_MAKERS = {
  'bathtub': beds.bathtub,
  'bed': beds.bed,
  'chair': seats.chair,
  'desk': cabinets.desk,
  'dresser': cabinets.dresser,
  'monitor': cabinets.monitor,
  'night_stand': cabinets.night_stand,
  'sofa': seats.sofa,
  'table': cabinets.table,
  'toilet': seats.toilet,
}
CATEGORIES = tuple(_MAKERS)


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_string('out', None, 'File to write.')
  flags.DEFINE_integer('size', 32, 'Voxels a side, 4 to 128.')
  flags.DEFINE_integer('num_train', 100, 'Training shapes of each category.')
  flags.DEFINE_integer('num_test', 20, 'Test shapes of each category.')
  flags.DEFINE_integer('seed', 0, 'The same seed gives the same shapes.', 0)
  flags.DEFINE_multi_enum(
    'category', list(DEFAULT_CATEGORIES), CATEGORIES, 'Kinds, in their order.'
  )
  flags.DEFINE_integer(
    'margin', None, 'Empty voxels on every side; by default size // 32.'
  )
  flags.mark_flags_as_required(['out'])


def main(argv: Sequence[str]) -> int:
  """The command; returns its exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  voxel_file.refuse_existing(values.out)
  data = make_furniture(
    values.size,
    values.num_train,
    values.num_test,
    values.seed,
    values.category,
    values.margin,
  )
  voxel_file.save(values.out, data)
  counts = ', '.join(f'{len(v)} {split}' for split, v in data.voxels.items())
  print(f'{values.out}: {counts} shapes')
  return 0


if __name__ == '__main__':
  command.run(main, define_flags)
