"""Says what is in a voxel file, and draws some of it.

    python -m data_prep.inspect modelnet10_32.npz

prints counts of shapes for each class and split, occupancy, connected
components, bounding boxes, empty shapes, doubtful ones and duplicates (a test
shape that is also a training shape improves every score), and draws random
shapes of each class to `modelnet10_32.png`. An existing picture is not
overwritten. The command also takes everything that `data_prep.convert` reads.

A shape is doubtful if the file says that its mesh was open or had holes, or if
it looks like a shell with a hole: the number of empty voxels with the shape on
all six sides is more than half the number of its own voxels.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
from typing import NamedTuple

from absl import app
from absl import flags
from matplotlib import collections
from matplotlib import figure
import numpy as np
from scipy import ndimage

from data_prep import command
from data_prep import convert
from data_prep import inside
from data_prep import voxel_file

_VIEW = (-1.0, -1.0, 0.8)  # towards the camera: most furniture faces it.
_COLOUR = np.array([0.45, 0.62, 0.85])
_LIGHT = (0.62, 0.8, 1.0)  # on faces across x, y and z.


class Facts(NamedTuple):
  """What is known of the shapes of one split, an entry for each shape.

  Attributes:
    occupancy: fraction of occupied voxels, `(n,)`.
    low: first occupied index along each axis, `(n, 3)`; -1 when empty.
    high: last occupied index along each axis, `(n, 3)`; -1 when empty.
    components: connected components, through faces, edges and corners, `(n,)`.
    digest: equal for equal shapes, `(n,)`.
    hollow: whether they look like a shell with a hole, `(n,)`.
  """

  occupancy: np.ndarray
  low: np.ndarray
  high: np.ndarray
  components: np.ndarray
  digest: np.ndarray
  hollow: np.ndarray


def read(
  source: str, key: str | None = None, threshold: float | None = None
) -> voxel_file.Stored:
  """Reads a voxel file, or whatever else `convert` reads, as one.

  Raises:
    ValueError: with the reason, when a shape cannot be read, or the grids of
      the shapes differ.
  """
  if convert.is_voxel_file(source) and key is None and threshold is None:
    return voxel_file.read(source)
  shapes = list(convert.read_shapes(source, key=key, threshold=threshold))
  for shape in shapes:
    if not isinstance(shape, convert.Shape):
      raise ValueError(f'{source}: {": ".join(shape)}')
  grids = sorted({shape.voxels.shape for shape in shapes})
  if len(grids) != 1:
    raise ValueError(f'{source}: its shapes have different grids: {grids}')
  classes = sorted({shape.class_name for shape in shapes})
  arrays, labels, names = {}, {}, {}
  for split in sorted({shape.split for shape in shapes}):
    rows = [shape for shape in shapes if shape.split == split]
    arrays[split] = np.stack([row.voxels for row in rows])
    labels[split] = np.array([classes.index(row.class_name) for row in rows])
    names[split] = np.array([row.name for row in rows])
  return voxel_file.Stored(
    tuple(classes), arrays, labels, names, grids[0], False
  )


def facts(stored: voxel_file.Stored, split: str) -> Facts:
  """Looks at every shape of a split; values above 0.5 count as occupied."""
  rows = stored.arrays[split]
  count = len(rows)
  found = Facts(
    np.zeros(count),
    np.full((count, 3), -1),
    np.full((count, 3), -1),
    np.zeros(count, np.int64),
    np.empty(count, object),
    np.zeros(count, bool),
  )
  for i, row in enumerate(rows):
    grid = (voxel_file.unpack(row) if stored.packed else row) > 0.5
    found.occupancy[i] = grid.mean()
    found.digest[i] = np.packbits(grid).tobytes()
    found.components[i] = ndimage.label(grid, np.ones((3, 3, 3)))[1]
    found.hollow[i] = inside.count_between(grid) > 0.5 * grid.sum()
    if grid.any():
      for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
        hit = np.flatnonzero(grid.any(axis=others))
        found.low[i, axis], found.high[i, axis] = hit[0], hit[-1]
  return found


def duplicates(
  stored: voxel_file.Stored, found: Mapping[str, Facts]
) -> list[list[str]]:
  """Groups of two and more shapes that are equal, by their names."""
  groups = {}
  for split, known in found.items():
    for name, label, digest in zip(
      stored.names[split], stored.labels[split], known.digest, strict=True
    ):
      groups.setdefault(digest, []).append(
        f'{stored.classes[label]}/{split}/{name}'
      )
  return [names for names in groups.values() if len(names) > 1]


def report(
  stored: voxel_file.Stored, found: Mapping[str, Facts], limit: int = 20
) -> str:
  """The report on a voxel file, at most `limit` names a list."""
  size = ' x '.join(str(n) for n in stored.grid)
  kind = 'binary' if stored.packed or _binary(stored) else 'fractions'
  lines = [f'grid {size}, {kind}', '']
  lines.append(
    f'{"class":16}{"split":8}{"shapes":>7}  {"occupied (least, mean, most)":30}'
    f'{"components":>10}  {"mean box":16}{"largest box":12}'
  )
  for label, name in enumerate(stored.classes):
    for split, known in found.items():
      rows = stored.labels[split] == label
      if rows.any():
        lines.append(_line(name, split, known, rows))
      else:
        lines.append(f'{name:16}{split:8}{0:7}')
  for split, known in found.items():
    rows = np.ones(len(known.occupancy), bool)
    if rows.any():
      lines.append(_line('all', split, known, rows))
  empty = [
    f'{stored.classes[stored.labels[split][i]]}/{split}/{stored.names[split][i]}'
    for split, known in found.items()
    for i in np.flatnonzero(known.occupancy == 0)
  ]
  border = [
    f'{stored.classes[stored.labels[split][i]]}/{split}/{stored.names[split][i]}'
    for split, known in found.items()
    for i in np.flatnonzero(
      (known.low == 0).any(axis=1)
      | (known.high == np.array(stored.grid) - 1).any(axis=1)
    )
  ]
  doubtful = [
    f'{stored.classes[stored.labels[split][i]]}/{split}/{stored.names[split][i]}'
    for split, known in found.items()
    for i in np.flatnonzero(
      known.hollow | stored.doubtful.get(split, np.zeros(1, bool))
    )
  ]
  groups = duplicates(stored, found)
  across = [
    group for group in groups if len({n.split('/')[1] for n in group}) > 1
  ]
  lines.append('')
  lines += _list('empty shapes', empty, limit)
  lines += _list('doubtful shapes', doubtful, limit)
  lines += _list('shapes that touch the border of the grid', border, limit)
  lines += _list(
    'groups of equal shapes', [' = '.join(group) for group in groups], limit
  )
  lines.append(f'groups of equal shapes in more than one split: {len(across)}')
  return '\n'.join(lines)


def draw(
  rows: Mapping[str, Sequence[np.ndarray]], path: str | os.PathLike
) -> None:
  """Draws shapes as a picture, a row for each title.

  Args:
    rows: for each title, grids `(D, H, W)`; values above 0.5 are drawn.
    path: the picture to write, such as `x.png`.

  Raises:
    FileExistsError: when `path` exists.
  """
  path = pathlib.Path(path)
  voxel_file.refuse_existing(path)
  columns = max((len(shapes) for shapes in rows.values()), default=0)
  if not columns:
    raise ValueError('no shapes to draw')
  canvas = figure.Figure(figsize=(1.6 * columns, 1.6 * len(rows)))
  axes = canvas.subplots(len(rows), columns, squeeze=False)
  for line, (title, shapes) in zip(axes, rows.items(), strict=True):
    line[0].set_title(title, fontsize=9, loc='left')
    for cell in line:
      cell.axis('off')
    for cell, shape in zip(line, shapes, strict=False):
      draw_shape(cell, shape)
  canvas.subplots_adjust(0, 0, 1, 0.97, 0.02, 0.08)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
  try:
    canvas.savefig(part, dpi=90)
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def draw_shape(axes, voxels: np.ndarray) -> None:
  """Draws one shape `(D, H, W)` into matplotlib axes, seen from the front."""
  polygons, shade = visible_faces(np.asarray(voxels) > 0.5, _VIEW)
  colour = shade[:, None] * _COLOUR
  axes.add_collection(
    collections.PolyCollection(
      polygons, facecolors=colour, edgecolors=0.7 * colour, linewidths=0.15
    )
  )
  right, up = _screen(_VIEW)
  centre, reach = np.array(voxels.shape) / 2, 0.75 * max(voxels.shape)
  axes.set_xlim(centre @ right - reach, centre @ right + reach)
  axes.set_ylim(centre @ up - reach, centre @ up + reach)
  axes.set_aspect('equal')


def visible_faces(
  voxels: np.ndarray, view: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
  """Faces between occupied and empty voxels that face the camera.

  Args:
    voxels: bool `(D, H, W)`.
    view: direction from the shape to the camera, no component zero.

  Returns:
    Corners on the screen, `(n, 4, 2)`, the farthest face first; and how bright
    each is, `(n,)`.

  >>> cube = np.ones((2, 2, 2), bool)
  >>> visible_faces(cube, (1, 1, 1))[0].shape
  (12, 4, 2)
  """
  right, up = _screen(view)
  padded = np.pad(voxels, 1)
  corners, depths, shades = [], [], []
  for axis in range(3):
    side = int(view[axis] > 0)
    beyond = np.roll(padded, -1 if side else 1, axis)[1:-1, 1:-1, 1:-1]
    index = np.argwhere(voxels & ~beyond)
    quad = np.repeat(index[:, None, :].astype(np.float64), 4, axis=1)
    first, second = (other for other in range(3) if other != axis)
    quad[:, :, axis] += side
    quad[:, 1:3, first] += 1
    quad[:, 2:, second] += 1
    corners.append(np.stack([quad @ right, quad @ up], axis=2))
    depths.append((index + 0.5) @ np.asarray(view))
    shades.append(np.full(len(index), _LIGHT[axis]))
  order = np.argsort(np.concatenate(depths), kind='stable')
  return np.concatenate(corners)[order], np.concatenate(shades)[order]


def _screen(view) -> tuple[np.ndarray, np.ndarray]:
  """Directions that are right and up on the screen."""
  view = np.asarray(view) / np.linalg.norm(view)
  right = np.cross((0, 0, 1), view)
  right = right / np.linalg.norm(right)
  return right, np.cross(view, right)


def _binary(stored: voxel_file.Stored) -> bool:
  return all(array.dtype == np.uint8 for array in stored.arrays.values())


def _line(name: str, split: str, known: Facts, rows: np.ndarray) -> str:
  occupied = known.occupancy[rows]
  box = (known.high - known.low + 1)[rows & (known.occupancy > 0)]
  mean = ' x '.join(f'{n:.0f}' for n in box.mean(axis=0)) if len(box) else '-'
  most = ' x '.join(f'{n}' for n in box.max(axis=0)) if len(box) else '-'
  spread = f'{occupied.min():.4f} {occupied.mean():.4f} {occupied.max():.4f}'
  return (
    f'{name:16}{split:8}{rows.sum():7}  {spread:30}'
    f'{known.components[rows].mean():10.2f}  {mean:16}{most:12}'
  ).rstrip()


def _list(title: str, entries: Sequence[str], limit: int) -> list[str]:
  lines = [f'{title}: {len(entries)}']
  lines += [f'  {entry}' for entry in entries[:limit]]
  if len(entries) > limit:
    lines.append(f'  and {len(entries) - limit} more')
  return lines


def _choose(stored, shapes: int, seed: int) -> dict[str, list[np.ndarray]]:
  """Random shapes of each class, of all splits together."""
  rng = np.random.default_rng(seed)
  rows = {}
  for label, name in enumerate(stored.classes):
    where = [
      (split, i)
      for split in stored.arrays
      for i in np.flatnonzero(stored.labels[split] == label)
    ]
    chosen = rng.permutation(len(where))[:shapes]
    grids = [stored.arrays[where[k][0]][where[k][1]] for k in chosen]
    rows[name] = [
      voxel_file.unpack(grid) if stored.packed else grid for grid in grids
    ]
  return {name: grids for name, grids in rows.items() if grids}


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_string(
    'picture', None, 'Picture to write; by default FILE with .png for .npz.'
  )
  flags.DEFINE_integer('shapes', 10, 'Shapes of each class to draw.', 0)
  flags.DEFINE_integer('seed', 0, 'Which shapes are drawn.', 0)
  flags.DEFINE_integer('limit', 20, 'Names to print of each list.', 0)
  flags.DEFINE_string('key', None, 'Which array, if a file holds several.')
  flags.DEFINE_float('threshold', None, 'Voxels above it are inside.')


def main(argv: Sequence[str]) -> int:
  """The command; returns its exit status."""
  if len(argv) != 2:
    raise app.UsageError('give one voxel file: FILE.npz')
  values = flags.FLAGS
  stored = read(argv[1], values.key, values.threshold)
  found = {split: facts(stored, split) for split in stored.arrays}
  print(f'{argv[1]}: {report(stored, found, values.limit)}')
  picture = pathlib.Path(
    values.picture or pathlib.Path(argv[1].rstrip('/')).with_suffix('.png')
  )
  if not values.shapes or not any(len(a) for a in stored.arrays.values()):
    return 0
  if picture.exists() and not values.picture:
    print(f'{picture} exists and is not overwritten; --picture names another')
    return 0
  draw(_choose(stored, values.shapes, values.seed), picture)
  print(f'picture: {picture}')
  return 0


if __name__ == '__main__':
  command.run(main, define_flags)
