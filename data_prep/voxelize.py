r"""Meshes to voxels: one command from ModelNet10.zip to a voxel file.

    python -m data_prep.voxelize --meshes ModelNet10.zip \
        --size 32,64 --out modelnet10_{size}.npz

Reads OFF, OBJ, PLY, STL and glTF, also as .gz, from a zip file, a folder or a
single file. Class, split and name come from the tree, `class/split/name.off` as
ModelNet has it, `class/name/model.obj` or
`class/name/models/model_normalized.obj` as ShapeNetCore has it, or any other by
a pattern such as `--tree='{class}/{name}/*.obj'`; without a split folder the
split is `--split`. Files of other endings are passed over and counted.

What is a voxel of the surface: one whose box, closed below and open above,
holds a point of a triangle. It is found exactly, by clipping the triangles to
the slabs of the grid, so walls and legs thinner than a voxel are kept whole
and a plane in the middle of a voxel is one voxel thick.

What is inside: what is not outside, see `data_prep/inside.py`. Neither the
winding nor the orientation nor the order of the triangles plays a part, and
meshes need not be watertight: holes are borne. A shape with one side open (a
box without a lid) stays the shell it is. Shapes that have holes, or are open
and have nothing inside, are named as doubtful, and marked in the file.

Where the shape lies: uniformly scaled so that the longest side of its bounding
box fills `size - 2 * margin` voxels (30 of 32, 60 of 64), and centred. Axes are
x, y, z with z up; glTF, whose y is up, is turned, other formats with `--up=y`.

A broken mesh is reported with its name and reason and skipped. The exit status
is 0 when all went well, 2 when some meshes were skipped, 1 after an error, 130
after Ctrl-C. Results are kept in groups beside `--out`, in `<out>.partial/`;
after a kill the same command goes on from there, and the file is the same byte
for byte. A mesh that was mended meanwhile is read again.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import concurrent.futures
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import sys
import threading
import time

from absl import app
from absl import flags
import numpy as np
import tqdm

from data_prep import inside
from data_prep import mesh_files
from data_prep import voxel_file

_GROUP = 16  # meshes whose results are kept in one partial file.
# How much is worked on at a time, which bounds the memory.
_TRIANGLES = 1 << 16
_COLUMNS = 1 << 14  # clipped ones.


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
    margin: voxels left empty on every side; by default `default_margin`.
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
  triangles = normalise(vertices, faces, size, margin=margin, up=up)
  surface = surface_voxels(triangles, size)
  return inside.fill(triangles, surface)[0] if solid else surface


def normalise(
  vertices: np.ndarray,
  faces: np.ndarray,
  size: int,
  *,
  margin: int | None = None,
  up: str = 'z',
) -> np.ndarray:
  """Triangles in voxel units, their bounding box centred in the grid.

  The longest side of the bounding box of the triangles fills
  `size - 2 * margin` voxels but for a billionth, so that its two ends lie
  inside the first and the last of them. Arguments and errors as in `voxelize`.

  Returns:
    float64 `(m, 3, 3)`: triangle, corner, coordinate.
  """
  margin = default_margin(size) if margin is None else margin
  check_grid(size, margin)
  vertices = np.asarray(vertices, dtype=np.float64)
  faces = np.asarray(faces)
  if vertices.ndim != 2 or vertices.shape[1] != 3:
    raise ValueError(f'vertices must be (v, 3), got {vertices.shape}')
  if not faces.size:
    raise ValueError('no faces')
  if faces.ndim != 2 or faces.shape[1] != 3:
    raise ValueError(f'faces must be (m, 3), got {faces.shape}')
  if faces.min() < 0 or faces.max() >= len(vertices):
    bad = faces[(faces < 0) | (faces >= len(vertices))][0]
    raise ValueError(
      f'face index {bad} out of range: there are {len(vertices)} vertices'
    )
  used = np.zeros(len(vertices), dtype=bool)
  used[faces] = True
  corners = vertices[used]
  if not np.isfinite(corners).all():
    bad = corners[~np.isfinite(corners)][0]
    raise ValueError(f'a vertex coordinate is {bad}')
  low, high = corners.min(axis=0), corners.max(axis=0)
  extent = (high - low).max()
  if not extent > np.abs(corners).max() * 1e-12:
    raise ValueError(f'zero extent: all corners are at {low.tolist()}')
  scale = (size - 2 * margin) * (1 - 1e-9) / extent
  moved = (vertices - (low + high) / 2) * scale
  return (mesh_files.turned(moved, up) + size / 2)[faces]


def default_margin(size: int) -> int:
  """One voxel for each 32 of the side, at least one: 1 at 32, 2 at 64.

  >>> [default_margin(size) for size in (12, 30, 32, 64, 128)]
  [1, 1, 1, 2, 4]
  """
  return max(1, size // 32)


def check_grid(size: int, margin: int) -> None:
  """Raises ValueError unless shapes of `size` voxels and `margin` exist.

  >>> check_grid(32, 1)
  """
  if not 4 <= size <= 128:
    raise ValueError(f'size must be 4 to 128 voxels a side, got {size}')
  if not 0 <= margin <= (size - 2) // 2:
    raise ValueError(
      f'margin must be 0 to {(size - 2) // 2} voxels at size {size}, '
      f'got {margin}'
    )


def surface_voxels(triangles: np.ndarray, size: int) -> np.ndarray:
  """Voxels that hold a point of a triangle.

  Voxel (i, j, k) is the box from (i, j, k) up to, but without, (i + 1, j + 1,
  k + 1). Each triangle is clipped to the slabs of its shortest axis, the
  polygons to the slabs of the next, and what remains in a column of voxels
  covers a run of them along the longest.

  Args:
    triangles: `(m, 3, 3)` triangle, corner, coordinate, in voxel units.
    size: voxels a side; what lies beyond is left out.

  Returns:
    bool `(size, size, size)`.

  >>> corner = np.array([[[0.5, 0.5, 0.5], [2.4, 0.5, 0.5], [0.5, 2.4, 0.5]]])
  >>> surface_voxels(corner, 4)[:, :, 0].astype(int)
  array([[1, 1, 1, 0],
         [1, 1, 0, 0],
         [1, 0, 0, 0],
         [0, 0, 0, 0]])
  """
  grid = np.zeros((size, size, size), dtype=bool)
  for start in range(0, len(triangles), _TRIANGLES):
    _mark_triangles(grid, triangles[start : start + _TRIANGLES])
  return grid


def _voxel(coordinates: np.ndarray, size: int) -> np.ndarray:
  """Index of the voxel that holds a coordinate, kept inside the grid."""
  index = np.floor(coordinates).astype(np.int64)
  return np.clip(index, 0, size - 1, out=index)


def _boxes(triangles, size) -> tuple[np.ndarray, np.ndarray]:
  """The first and last voxel of each triangle's bounding box, `(m, 3)`."""
  a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
  return (
    _voxel(np.minimum(np.minimum(a, b), c), size),
    _voxel(np.maximum(np.maximum(a, b), c), size),
  )


def _repeat(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Rows and offsets of `counts[r]` copies of each row r."""
  rows = np.repeat(np.arange(counts.size), counts)
  first = np.cumsum(counts) - counts
  return rows, np.arange(rows.size) - first[rows]


def _mark(grid, low, order, shift0, shift1, shift2, length) -> None:
  """Marks runs of `length + 1` voxels along the last axis of `order`.

  A run starts at voxel `low` shifted by `shift0`, `shift1` and `shift2` along
  the three axes of `order`.
  """
  size = grid.shape[0]
  stride = np.array([size * size, size, 1])
  along = stride[order]
  start = (
    low @ stride
    + along[:, 0] * shift0
    + along[:, 1] * shift1
    + along[:, 2] * shift2
  )
  rows, offset = _repeat(length + 1)
  grid.reshape(-1)[start[rows] + along[rows, 2] * offset] = True


def _mark_triangles(grid, triangles) -> None:
  """Marks the voxels of triangles, most of which lie in a single one."""
  size = grid.shape[0]
  low, high = _boxes(triangles, size)
  span = high - low
  order = np.argsort(span, axis=1, kind='stable')
  span = np.take_along_axis(span, order, axis=1)
  # Within a single row of voxels there is nothing to clip.
  row = span[:, 1] == 0
  _mark(grid, low[row], order[row], 0, 0, 0, span[row, 2])
  rest = np.flatnonzero(~row)
  columns = np.cumsum((span[rest, 0] + 1) * (span[rest, 1] + 1))
  cuts = np.searchsorted(
    columns, np.arange(_COLUMNS, columns[-1] if rest.size else 0, _COLUMNS)
  )
  for part in np.split(rest, np.unique(cuts)):
    if part.size:
      _mark_clipped(grid, triangles[part], order[part])


def _mark_clipped(grid, triangles, order) -> None:
  """Marks the voxels of triangles that cross more than a row of voxels."""
  size = grid.shape[0]
  corners = np.take_along_axis(triangles, order[:, None, :], axis=2)
  low, high = _boxes(corners, size)
  # Slabs of the shortest axis.
  rows, offset = _repeat(high[:, 0] - low[:, 0] + 1)
  slab = low[rows, 0] + offset
  polygon, triangle = _polygon(*_clip(corners[rows], slab)), rows
  # Slabs of the next: columns.
  low1 = _voxel(polygon[..., 0].min(axis=1), size)
  high1 = _voxel(polygon[..., 0].max(axis=1), size)
  rows, offset = _repeat(high1 - low1 + 1)
  column = low1[rows] + offset
  edges, inside = _clip(polygon[rows], column)
  edges, outside = edges[..., 0], ~inside[..., None]
  # Runs of the longest.
  start = _voxel(np.where(outside, np.inf, edges).min(axis=(1, 2)), size)
  stop = _voxel(np.where(outside, -np.inf, edges).max(axis=(1, 2)), size)
  _mark(
    grid,
    np.zeros((rows.size, 3), np.int64),
    order[triangle[rows]],
    slab[rows],
    column,
    start,
    stop - start,
  )


def _clip(polygons, slab) -> tuple[np.ndarray, np.ndarray]:
  """Clips the edges of convex polygons to the slabs `slab <= x <= slab + 1`.

  Args:
    polygons: `(n, e, c)` corners in order; corners may repeat; x comes first.
    slab: `(n,)`; each polygon must reach its slab.

  Returns:
    `(n, e, 2, c - 1)`: both ends of what is left of each edge, without their x;
    and bool `(n, e)`, whether anything is.
  """
  a, b = polygons, np.roll(polygons, -1, axis=1)
  x, y, slab = a[..., 0], b[..., 0], slab[:, None]
  # By the ends themselves, not by fractions, which are rounded.
  inside = (np.maximum(x, y) >= slab) & (np.minimum(x, y) <= slab + 1)
  level = x == y
  inverse = 1 / np.where(level, 1, y - x)
  s, t = (slab - x) * inverse, (slab + 1 - x) * inverse
  # An edge is in the slab for s <= fraction of its length <= t.
  s, t = np.minimum(s, t), np.maximum(s, t)
  s = np.where(level, 0, np.clip(s, 0, 1))
  t = np.where(level, 1, np.clip(t, 0, 1))
  ends = np.stack([s, t], axis=2)[..., None]
  start, stop = a[:, :, None, 1:], b[:, :, None, 1:]
  points = np.where(ends == 1, stop, start + ends * (stop - start))
  return points, inside


def _polygon(points, inside) -> np.ndarray:
  """The corners, in order, of polygons whose edges `_clip` cut: `(n, 2 e, c)`.

  An edge outside the slab gives way to the end of the last edge inside it.
  """
  edges = inside.shape[1]
  back = (np.arange(edges)[:, None] - np.arange(edges)) % edges
  source = np.where(inside[:, None, :], back, edges).argmin(axis=2)
  last = np.take_along_axis(points, source[..., None, None], axis=1)[:, :, 1:]
  corners = np.where(inside[..., None, None], points, last)
  return corners.reshape(len(points), 2 * edges, -1)


def convert(
  meshes: Sequence[mesh_files.ShapeFile],
  outs: Mapping[int, str | os.PathLike],
  *,
  margin: int | None = None,
  solid: bool = True,
  up: str = 'z',
  num_workers: int = 1,
  strict: bool = False,
  progress: bool = True,
) -> list[tuple[str, str]]:
  """Writes the voxel files of many meshes, one for each size.

  Each mesh is read once. The result does not depend on the number of workers,
  nor on whether the work was cut off and taken up again.

  Args:
    meshes: as `mesh_files.find_shapes` lists them.
    outs: the file to write for each size. None may exist, but for what this
      very command wrote before it was cut off.
    margin: voxels left empty on every side; by default `default_margin`.
    solid: whether to fill the shapes or keep their surface only.
    up: the axis of the meshes that becomes z.
    num_workers: processes; 1 works in this one.
    strict: whether to stop at the first broken mesh.
    progress: whether to show a progress bar.

  Returns:
    Name and reason of each mesh that was skipped.

  Raises:
    FileExistsError: when a file to write exists, or partial results of a
      command with other meshes or settings do.
    ValueError: for arguments out of range, when no mesh was sound, or, with
      `strict`, at a broken mesh.
  """
  for size in outs:
    check_grid(size, default_margin(size) if margin is None else margin)
  if len({os.path.abspath(out) for out in outs.values()}) != len(outs):
    raise ValueError(f'each size needs its own file, got {dict(outs)}')
  if num_workers < 1:
    raise ValueError(f'num_workers must be positive, got {num_workers}')
  settings = {
    'sizes': sorted(outs),
    'outs': [os.path.basename(outs[size]) for size in sorted(outs)],
    'margin': margin,
    'solid': solid,
    'up': up,
    'meshes': len(meshes),
    'sha256 of their names and lengths': hashlib.sha256(
      json.dumps([(*m[:3], m.num_bytes) for m in meshes]).encode()
    ).hexdigest(),
  }
  first = pathlib.Path(outs[min(outs)])
  partial = first.with_name(f'{first.name}.partial')
  _open_partial(partial, settings, outs)
  work = [
    (meshes[i : i + _GROUP], partial / f'group_{i // _GROUP:05d}.npz')
    for i in range(0, len(meshes), _GROUP)
  ]
  todo = [task for task in work if not task[1].exists()]
  done = len(meshes) - sum(len(group) for group, _ in todo)
  if done:
    print(f'{partial}: {done} of {len(meshes)} meshes are done, going on')
  with tqdm.tqdm(
    total=len(meshes),
    initial=done,
    desc='voxelize',
    unit=' meshes',
    disable=not progress,
  ) as bar:
    if strict:
      for _, file in work:
        if file.exists():
          _stop_at_skipped(_read_skipped(file))
    task = functools.partial(
      _voxelize_group, sizes=sorted(outs), margin=margin, solid=solid, up=up
    )
    for count, skipped in _run(task, todo, num_workers):
      for name, reason in skipped:
        bar.write(f'skipped {name}: {reason}', file=sys.stderr)
      if strict:
        _stop_at_skipped(skipped)
      bar.update(count)
  _assemble(meshes, [file for _, file in work], outs, partial)
  skipped = [entry for _, file in work for entry in _read_skipped(file)]
  shutil.rmtree(partial)
  return skipped


def _stop_at_skipped(skipped) -> None:
  if skipped:
    name, reason = skipped[0]
    raise ValueError(f'{name}: {reason} (stopped, as strict asks)')


def _open_partial(partial, settings, outs) -> None:
  """Makes the folder of partial results, or finds its own and goes on."""
  record = partial / 'settings.json'
  if record.exists():
    found = json.loads(record.read_text())
    if found != settings:
      changed = ', '.join(
        f'{key} {found.get(key)!r}, now {settings[key]!r}'
        for key in settings
        if found.get(key) != settings[key]
      )
      raise FileExistsError(
        f'{partial} is left from a command with other meshes or settings '
        f'({changed}): finish that one, choose another name, or remove it'
      )
  for size, out in outs.items():
    if not (partial / f'written_{size}').exists():
      voxel_file.refuse_existing(out)
  if not record.exists():
    partial.mkdir(parents=True, exist_ok=True)
    part = record.with_suffix('.tmp')
    part.write_text(json.dumps(settings, indent=1))
    os.replace(part, record)


def _run(task, work, num_workers):
  """Yields `task(*arguments)` of all the work, in any order."""
  if num_workers == 1 or len(work) < 2:
    for arguments in work:
      yield task(*arguments)
    return
  pool = concurrent.futures.ProcessPoolExecutor(
    min(num_workers, len(work)),
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_end_with_parent,
  )
  try:
    for future in concurrent.futures.as_completed(
      [pool.submit(task, *arguments) for arguments in work]
    ):
      yield future.result()
  finally:
    pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
  """Ends a worker when its parent is killed, rather than wait for ever."""
  parent = multiprocessing.parent_process()

  def watch():
    parent.join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _voxelize_group(group, file, *, sizes, margin, solid, up):
  """Voxelizes some meshes and writes their bits to a partial file.

  Returns:
    How many meshes it was, and name and reason of those that are broken.
  """
  kept, skipped = [], []
  bits = {size: [] for size in sizes}
  with mesh_files.open_shapes(group) as read:
    for i, mesh in enumerate(group):
      try:
        vertices, faces = mesh_files.read_mesh(
          read(mesh), mesh_files.file_type(mesh)
        )
        grids = [
          voxelize(vertices, faces, size, margin=margin, solid=solid, up=up)
          for size in sizes
        ]
      except mesh_files.READ_ERRORS as error:
        skipped.append(('/'.join(mesh[:3]), str(error)))
        continue
      kept.append(i)
      for size, grid in zip(sizes, grids, strict=True):
        bits[size].append(voxel_file.pack(grid))
  part = file.with_name(f'{file.name}.{os.getpid()}.tmp')
  with open(part, 'wb') as out:
    np.savez(
      out,
      kept=np.array(kept, dtype=np.int64),
      skipped=np.array(skipped, dtype=np.str_).reshape(-1, 2),
      **{f'bits_{size}': np.array(bits[size], np.uint8) for size in sizes},
    )
  os.replace(part, file)
  return len(group), skipped


def _read_skipped(file) -> list[tuple[str, str]]:
  with np.load(file) as group:
    return [(str(name), str(reason)) for name, reason in group['skipped']]


def _assemble(meshes, files, outs, partial) -> None:
  """Writes the voxel files from the partial ones, a size at a time."""
  kept = []
  for i, file in enumerate(files):
    with np.load(file) as group:
      kept += [meshes[i * _GROUP + at] for at in group['kept']]
  if not kept:
    raise ValueError(
      f'none of the {len(meshes)} meshes could be voxelized, nothing is '
      f'written; first reason: {": ".join(_read_skipped(files[0])[0])}'
    )
  classes = sorted({mesh.class_name for mesh in meshes})
  splits = sorted({mesh.split for mesh in kept})
  rows = {s: [mesh for mesh in kept if mesh.split == s] for s in splits}
  labels = {
    s: np.array([classes.index(m.class_name) for m in rows[s]]) for s in splits
  }
  names = {s: [mesh.name for mesh in rows[s]] for s in splits}
  for size, out in outs.items():
    if (partial / f'written_{size}').exists() and os.path.lexists(out):
      continue
    # On disk rather than in memory: 128^3 shapes by the thousand are large.
    arrays = {
      s: np.lib.format.open_memmap(
        partial / f'voxels_{size}_{s}.npy',
        mode='w+',
        dtype=np.uint8,
        shape=(len(rows[s]), size, size, -(-size // 8)),
      )
      for s in splits
    }
    at = dict.fromkeys(splits, 0)
    for i, file in enumerate(files):
      with np.load(file) as group:
        for row, bits in zip(group['kept'], group[f'bits_{size}'], strict=True):
          s = meshes[i * _GROUP + row].split
          arrays[s][at[s]] = bits
          at[s] += 1
    voxel_file.refuse_existing(out)
    (partial / f'written_{size}').touch()
    voxel_file.save_stored(out, classes, arrays, labels, names)


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
    raise ValueError(f'--size must be different numbers, got {values}')
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
  """Defines the flags of the command; not on import, lest they clash."""
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
  flags.DEFINE_enum('up', 'z', ['x', 'y', 'z'], 'Up axis of the meshes.')
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
        f'--num_workers must not be negative: {flags.FLAGS.num_workers}'
      )
    meshes = mesh_files.find_shapes(flags.FLAGS.meshes, flags.FLAGS.split)
    skipped = convert(
      meshes,
      outs,
      margin=flags.FLAGS.margin,
      solid=not flags.FLAGS.surface_only,
      up=flags.FLAGS.up,
      num_workers=flags.FLAGS.num_workers or os.cpu_count() or 1,
      strict=flags.FLAGS.strict,
    )
  except mesh_files.READ_ERRORS as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  seconds = time.monotonic() - start
  print(
    f'{", ".join(outs.values())}: {len(meshes) - len(skipped)} shapes of '
    f'{len(meshes)} meshes in {seconds:.1f} s'
  )
  if skipped:
    print(f'{len(skipped)} meshes were skipped:', file=sys.stderr)
    for name, reason in skipped:
      print(f'  {name}: {reason}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  define_flags()
  app.run(main)
