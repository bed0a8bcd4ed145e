r"""Meshes to voxels: one command from ModelNet10.zip to a voxel file.

    python -m data_prep.voxelize --meshes ModelNet10.zip \
        --size 32,64 --out modelnet10_{size}.npz

Reads OFF, OBJ, PLY, STL and glTF, also as .gz, from a zip file, a folder or a
single file. Class, split and name come from the tree, `class/split/name.off` as
in ModelNet, `class/name/model.obj` or
`class/name/models/model_normalized.obj` as in ShapeNetCore, or any other by a
pattern such as `--tree='{class}/{name}/*.obj'`; without a split folder the
split is `--split`. Files of other endings are ignored and counted.

Surface: a voxel that holds a point of a triangle is occupied, see
`data_prep/surface.py`; walls and legs thinner than a voxel are kept whole.

Inside: voxels that are not outside are occupied, see `data_prep/inside.py`. The
winding, orientation and order of the triangles do not matter, and meshes need
not be watertight: holes are tolerated. A shape with one side open (a box
without a lid) stays a shell. A shape that has holes, or is open with nothing
inside, is reported as doubtful and marked in the file.

Place: a shape is uniformly scaled so that the longest side of its bounding box
fills `size - 2 * margin` voxels (30 of 32, 60 of 64), and centred. Axes are
x, y, z with z up; glTF, whose y is up, is turned, other formats with `--up=y`.

A broken mesh is reported with its name and reason and skipped. The exit status
is 0 when all went well, 2 when some meshes were skipped, 1 after an error, 130
after Ctrl-C. Results are kept in groups beside `--out`, in `<out>.partial/`. If
the process is killed, the same command resumes from there and writes the same
bytes. A mesh file that has changed in between is read again.
"""

from collections.abc import Sequence
import os
import sys
import time

from absl import app
from absl import flags
import numpy as np

from data_prep import command
from data_prep import groups
from data_prep import inside
from data_prep import placement
from data_prep import surface
from data_prep import trees


def voxelize(
  vertices: np.ndarray,
  faces: np.ndarray,
  size: int = 32,
  *,
  margin: int | None = None,
  solid: bool = True,
  up: str = 'z',
) -> np.ndarray:
  """Voxels of a triangle mesh, which need not be watertight.

  Args:
    vertices: `(v, 3)` corners, in any unit.
    faces: `(m, 3)` indices of the corners of triangles, wound either way.
    size: voxels a side.
    margin: voxels left empty on every side; by default
      `placement.default_margin`.
    solid: whether to fill what is inside (see `inside.fill`), or to keep the
      surface only.
    up: the axis of the mesh that becomes z.

  Returns:
    bool `(size, size, size)`, axes x, y, z with z up.

  Raises:
    ValueError: when the mesh is broken (no faces, NaN, a face index out of
      range, zero extent) or an argument is out of range.

  >>> import trimesh
  >>> box = trimesh.creation.box((2.0, 1.0, 0.5))
  >>> int(voxelize(box.vertices, box.faces, size=10).sum())
  64
  """
  triangles = placement.normalise(vertices, faces, size, margin=margin, up=up)
  walls = surface.surface_voxels(triangles, size)
  return inside.fill(triangles, walls)[0] if solid else walls


def parse_sizes(values: Sequence[str]) -> list[int]:
  """Sizes from the text of a flag, such as `32,64`.

  >>> parse_sizes(['32', '64'])
  [32, 64]
  """
  try:
    sizes = [int(value) for value in values]
  except ValueError:
    raise ValueError(
      f'--size must be numbers as in 32,64; got {values}'
    ) from None
  if not sizes or len(set(sizes)) != len(sizes):
    raise ValueError(
      f'--size must be one or more different numbers, got {values}'
    )
  return sizes


def name_outs(out: str, sizes: Sequence[int]) -> dict[int, str]:
  """The file of each size; `{size}` in the name stands for it.

  >>> name_outs('modelnet10_{size}.npz', [32, 64])
  {32: 'modelnet10_32.npz', 64: 'modelnet10_64.npz'}
  """
  if not out.endswith('.npz'):
    raise ValueError(f'--out must be a name that ends in .npz, got {out!r}')
  if len(sizes) > 1 and '{size}' not in out:
    raise ValueError(
      f'with several sizes --out must contain {{size}}, got {out!r}'
    )
  return {size: out.replace('{size}', str(size)) for size in sizes}


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_string(
    'meshes', None, 'Zip file, folder or single mesh to read.'
  )
  flags.DEFINE_string(
    'out', None, 'File to write; with several sizes it must contain {size}.'
  )
  flags.DEFINE_list('size', ['32'], 'Voxels a side, 4 to 128: 32 or 32,64.')
  flags.DEFINE_integer(
    'margin', None, 'Empty voxels on every side; by default size // 32.'
  )
  flags.DEFINE_bool(
    'surface_only', False, 'Keep hollow surfaces instead of solid shapes.'
  )
  flags.DEFINE_enum(
    'up',
    None,
    ['x', 'y', 'z'],
    'Up axis of the meshes; by default y of glTF, z of others.',
  )
  flags.DEFINE_string(
    'tree', '', "Pattern of another tree, such as '{class}/{name}/*.obj'."
  )
  flags.DEFINE_string(
    'split', 'train', 'Split of meshes that are not in a folder named by one.'
  )
  flags.DEFINE_integer(
    'num_workers', 0, 'Processes; 0 means one for each core.'
  )
  flags.DEFINE_bool('strict', False, 'Stop at the first broken mesh.')
  flags.mark_flags_as_required(['meshes', 'out'])


def main(argv: Sequence[str]) -> int:
  """The command; returns its exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  start = time.monotonic()
  try:
    outs = name_outs(flags.FLAGS.out, parse_sizes(flags.FLAGS.size))
    if flags.FLAGS.num_workers < 0:
      raise ValueError(
        f'--num_workers must be >= 0, got {flags.FLAGS.num_workers}'
      )
    found = trees.find(
      flags.FLAGS.meshes, flags.FLAGS.split, tree=flags.FLAGS.tree
    )
    outcome = groups.convert(
      found.shapes,
      outs,
      margin=flags.FLAGS.margin,
      solid=not flags.FLAGS.surface_only,
      up=flags.FLAGS.up,
      num_workers=flags.FLAGS.num_workers or os.cpu_count() or 1,
      strict=flags.FLAGS.strict,
    )
  except KeyboardInterrupt:
    raise KeyboardInterrupt('the same command resumes from here') from None
  seconds = time.monotonic() - start
  count, skipped = len(found.shapes), outcome.skipped
  print(
    f'{", ".join(outs.values())}: {_count(count - len(skipped), "shape")} of '
    f'{_count(count, "mesh", "es")} in {seconds:.1f} s'
  )
  if found.passed_over:
    print(trees.passed_over_line(found))
  for what, entries in (('doubtful', outcome.doubtful), ('skipped', skipped)):
    if entries:
      were = 'was' if len(entries) == 1 else 'were'
      meshes = _count(len(entries), 'mesh', 'es')
      print(f'{meshes} {were} {what}:', file=sys.stderr)
      for name, reason in entries:
        print(f'  {name}: {reason}', file=sys.stderr)
  return 2 if skipped else 0


def _count(number, name, plural='s'):
  """A number of things, in words."""
  return f'{number} {name}{"" if number == 1 else plural}'


if __name__ == '__main__':
  command.run(main, define_flags)
