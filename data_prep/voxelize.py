r"""Meshes to voxels: one command from ModelNet10.zip to a voxel file.

    python -m data_prep.voxelize --meshes ModelNet10.zip \
        --size 32,64 --out modelnet10_{size}.npz

Reads OFF, OBJ, PLY, STL and glTF, also as .gz, from a zip file, a folder or a
single file. Class, split and name come from the tree, `class/split/name.off` as
ModelNet has it, `class/name/model.obj` or
`class/name/models/model_normalized.obj` as ShapeNetCore has it, or any other by
a pattern such as `--tree='{class}/{name}/*.obj'`; without a split folder the
split is `--split`. Files of other endings are passed over and counted.

What is a voxel of the surface: one that holds a point of a triangle, see
`data_prep/surface.py`; walls and legs thinner than a voxel are kept whole.

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
import contextlib
import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
from typing import NamedTuple

from absl import app
from absl import flags
import numpy as np
import tqdm

from data_prep import command
from data_prep import inside
from data_prep import mesh_files
from data_prep import surface
from data_prep import voxel_file

_GROUP = 16  # meshes whose results are kept in one partial file.


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
  walls = surface.surface_voxels(triangles, size)
  return inside.fill(triangles, walls)[0] if solid else walls


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


class Outcome(NamedTuple):
  """What became of some meshes.

  Attributes:
    skipped: name and reason of each that is broken.
    doubtful: name of each that was open or had holes, and what was made of it.
  """

  skipped: list[tuple[str, str]]
  doubtful: list[tuple[str, str]]


def convert(
  meshes: Sequence[mesh_files.ShapeFile],
  outs: Mapping[int, str | os.PathLike],
  *,
  margin: int | None = None,
  solid: bool = True,
  up: str | None = None,
  num_workers: int = 1,
  strict: bool = False,
  progress: bool = True,
) -> Outcome:
  """Writes the voxel files of many meshes, one for each size.

  Each mesh is read once. The result does not depend on the number of workers,
  nor on whether the work was cut off and taken up again.

  Args:
    meshes: as `mesh_files.find_shapes` lists them.
    outs: the file to write for each size. None may exist, but for what this
      very command wrote before it was cut off.
    margin: voxels left empty on every side; by default `default_margin`.
    solid: whether to fill the shapes or keep their surface only, which a cloud
      of points has, too.
    up: the axis of the meshes that becomes z; None: as their formats have it.
    num_workers: processes; 1 works in this one.
    strict: whether to stop at the first broken mesh.
    progress: whether to show a progress bar.

  Raises:
    FileExistsError: when a file to write exists, or partial results of a
      command with other meshes or settings do.
    BlockingIOError: when another process is writing the same files.
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
    'sha256 of their names': hashlib.sha256(
      json.dumps([m[:3] for m in meshes]).encode()
    ).hexdigest(),
  }
  first = pathlib.Path(outs[min(outs)])
  partial = first.with_name(f'{first.name}.partial')
  with _locked(partial, outs):
    _open_partial(partial, settings, outs)
    work = [
      (meshes[i : i + _GROUP], partial / f'group_{i // _GROUP:05d}.npz')
      for i in range(0, len(meshes), _GROUP)
    ]
    _drop_changed(work, partial, outs)
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
            _stop_at_skipped(_read_outcome(file).skipped)
      task = functools.partial(
        _voxelize_group, sizes=sorted(outs), margin=margin, solid=solid, up=up
      )
      for count, outcome in _run(task, todo, num_workers):
        for name, reason in outcome.skipped:
          bar.write(f'skipped {name}: {reason}', file=sys.stderr)
        for name, reason in outcome.doubtful:
          bar.write(f'doubtful {name}: {reason}', file=sys.stderr)
        if strict:
          _stop_at_skipped(outcome.skipped)
        bar.update(count)
    _assemble(meshes, [file for _, file in work], outs, partial)
    outcomes = [_read_outcome(file) for _, file in work]
    shutil.rmtree(partial)
  return Outcome(
    [entry for outcome in outcomes for entry in outcome.skipped],
    [entry for outcome in outcomes for entry in outcome.doubtful],
  )


@contextlib.contextmanager
def _locked(partial, outs):
  """Holds the folder of partial results against other processes.

  The system lets go of the lock when the process ends, however it does. A
  folder that is left with nothing in it is removed.
  """
  for size, out in outs.items():
    if not (partial / f'written_{size}').exists():
      voxel_file.refuse_existing(out)
  partial.mkdir(parents=True, exist_ok=True)
  path = partial / 'lock'
  with open(path, 'a') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # Another process may just have finished, and removed the folder.
      same = os.path.exists(path) and os.path.samestat(
        os.fstat(file.fileno()), os.stat(path)
      )
    except BlockingIOError:
      same = False
    if not same:
      raise BlockingIOError(
        f'another process is at work in {partial}: wait until it ends'
      )
    try:
      yield
    finally:
      if partial.exists() and not (partial / 'settings.json').exists():
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not ours, and not empty.
          partial.rmdir()


def _drop_changed(work, partial, outs) -> None:
  """Forgets groups of which a mesh was changed since it was read."""
  changed = False
  for group, file in work:
    if file.exists():
      with np.load(file) as content:
        if content['stamps'].tolist() != _stamps(group):
          changed = True
          file.unlink()
  if changed:
    for size, out in outs.items():
      if (partial / f'written_{size}').exists():
        voxel_file.refuse_existing(out)  # of the meshes as they were.


def _stamps(group) -> list[list[int]]:
  return [[mesh.num_bytes, mesh.stamp] for mesh in group]


def _stop_at_skipped(skipped) -> None:
  if skipped:
    name, reason = skipped[0]
    raise ValueError(f'{name}: {reason} (stopped, as strict asks)')


def _open_partial(partial, settings, outs) -> None:
  """Makes the record of partial results, or finds its own and goes on."""
  record = partial / 'settings.json'
  if record.exists():
    try:
      found = json.loads(record.read_text())
    except ValueError:
      found = {}
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
    return
  if any(path.name != 'lock' for path in partial.iterdir()):
    raise FileExistsError(
      f'{partial} holds other files, and is left alone: choose another name, '
      'or move it'
    )
  part = record.with_suffix('.tmp')
  part.write_text(json.dumps(settings, indent=1))
  os.replace(part, record)


def _run(task, work, num_workers):
  """Yields `task(*arguments)` of all the work, in any order."""
  if num_workers == 1 or len(work) < 2:
    for arguments in work:
      yield task(*arguments)
    return
  before = set(multiprocessing.active_children())
  pool = concurrent.futures.ProcessPoolExecutor(
    min(num_workers, len(work)),
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_end_with_parent,
  )
  try:
    with _deaf_children():
      futures = [pool.submit(task, *arguments) for arguments in work]
    for future in concurrent.futures.as_completed(futures):
      yield future.result()
  except BaseException:
    # What they are at is done again; nobody waits for it.
    for child in set(multiprocessing.active_children()) - before:
      child.terminate()
    raise
  finally:
    pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _deaf_children():
  """Processes that are started meanwhile do not hear Ctrl-C.

  It reaches all processes of a terminal, but one is to say so.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, handler)


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
    How many meshes it was, and their `Outcome`.
  """
  kept, skipped, doubtful = [], [], []
  bits = {size: [] for size in sizes}
  marks = {size: [] for size in sizes}
  with mesh_files.open_shapes(group) as read:
    for i, mesh in enumerate(group):
      name = '/'.join(mesh[:3])
      try:
        vertices, faces = mesh_files.read_any(
          read(mesh),
          mesh_files.file_type(mesh),
          up,
          functools.partial(read, mesh),
        )
        if not len(faces) and solid and len(vertices):
          raise ValueError(
            f'no faces: it is a cloud of {len(vertices)} points, which have no '
            'inside (--surface_only takes the voxels that hold them)'
          )
        grids = {
          size: _grid(vertices, faces, size, margin, solid) for size in sizes
        }
      except mesh_files.READ_ERRORS as error:
        skipped.append((name, mesh_files.sentence(error)))
        continue
      kept.append(i)
      for size, (grid, doubt) in grids.items():
        bits[size].append(voxel_file.pack(grid))
        marks[size].append(bool(doubt))
      doubts = [f'at {size}^3 {grids[size][1]}' for size in sizes
                if grids[size][1]]  # fmt: skip
      if doubts:
        doubtful.append((name, '; '.join(doubts)))
  part = file.with_name(f'{file.name}.{os.getpid()}.tmp')
  with open(part, 'wb') as out:
    np.savez(
      out,
      kept=np.array(kept, dtype=np.int64),
      stamps=np.array(_stamps(group), dtype=np.int64),
      skipped=np.array(skipped, dtype=np.str_).reshape(-1, 2),
      doubtful=np.array(doubtful, dtype=np.str_).reshape(-1, 2),
      **{f'bits_{size}': np.array(bits[size], np.uint8) for size in sizes},
      **{f'marks_{size}': np.array(marks[size], bool) for size in sizes},
    )
  os.replace(part, file)
  return len(group), Outcome(skipped, doubtful)


def _grid(vertices, faces, size, margin, solid) -> tuple[np.ndarray, str]:
  """Voxels of a mesh, and what is doubtful about it."""
  if not len(faces):
    faces = np.repeat(np.arange(len(vertices))[:, None], 3, axis=1)
    # A scan has no number where nothing came back.
    faces = faces[np.isfinite(vertices).all(axis=1)]
  triangles = normalise(vertices, faces, size, margin=margin)
  walls = surface.surface_voxels(triangles, size)
  return inside.fill(triangles, walls) if solid else (walls, '')


def _read_outcome(file) -> Outcome:
  with np.load(file) as group:
    return Outcome(
      *(
        [(str(name), str(reason)) for name, reason in group[key]]
        for key in ('skipped', 'doubtful')
      )
    )


def _assemble(meshes, files, outs, partial) -> None:
  """Writes the voxel files from the partial ones, a size at a time."""
  kept = []
  for i, file in enumerate(files):
    with np.load(file) as group:
      kept += [meshes[i * _GROUP + at] for at in group['kept']]
  if not kept:
    reason = ': '.join(_read_outcome(files[0]).skipped[0])
    shutil.rmtree(partial)
    raise ValueError(
      f'none of the {len(meshes)} meshes could be voxelized, nothing is '
      f'written; first reason: {reason}'
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
    doubtful = {s: [] for s in splits}
    for i, file in enumerate(files):
      with np.load(file) as group:
        for row, bits, mark in zip(
          group['kept'],
          group[f'bits_{size}'],
          group[f'marks_{size}'],
          strict=True,
        ):
          s = meshes[i * _GROUP + row].split
          arrays[s][at[s]] = bits
          doubtful[s].append(mark)
          at[s] += 1
    voxel_file.refuse_existing(out)
    (partial / f'written_{size}').touch()
    voxel_file.save_stored(out, classes, arrays, labels, names, doubtful)


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
        f'--num_workers must not be negative: {flags.FLAGS.num_workers}'
      )
    found = mesh_files.find(
      flags.FLAGS.meshes, flags.FLAGS.split, tree=flags.FLAGS.tree
    )
    outcome = convert(
      found.shapes,
      outs,
      margin=flags.FLAGS.margin,
      solid=not flags.FLAGS.surface_only,
      up=flags.FLAGS.up,
      num_workers=flags.FLAGS.num_workers or os.cpu_count() or 1,
      strict=flags.FLAGS.strict,
    )
  except KeyboardInterrupt:
    raise KeyboardInterrupt('the same command goes on from here') from None
  seconds = time.monotonic() - start
  count, skipped = len(found.shapes), outcome.skipped
  print(
    f'{", ".join(outs.values())}: {count - len(skipped)} shapes of '
    f'{count} meshes in {seconds:.1f} s'
  )
  if found.passed_over:
    print(mesh_files.passed_over_line(found))
  for what, entries in (('doubtful', outcome.doubtful), ('skipped', skipped)):
    if entries:
      print(f'{len(entries)} meshes were {what}:', file=sys.stderr)
      for name, reason in entries:
        print(f'  {name}: {reason}', file=sys.stderr)
  return 2 if skipped else 0


if __name__ == '__main__':
  command.run(main, define_flags)
