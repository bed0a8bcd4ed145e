"""Many meshes to voxel files: in groups, by several processes, under a lock.

Results are kept in groups beside the file to write, in `<out>.partial/`. If the
process is killed, the same call resumes from there and writes the same bytes. A
mesh file that has changed in between is read again.
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
from typing import NamedTuple

import numpy as np
import tqdm

from data_prep import inside
from data_prep import mesh_files
from data_prep import placement
from data_prep import surface
from data_prep import trees
from data_prep import voxel_file

_GROUP = 16  # meshes whose results are kept in one partial file.


class Outcome(NamedTuple):
  """What happened to some meshes.

  Attributes:
    skipped: name and reason of each mesh that is broken.
    doubtful: name of each mesh that was open or had holes, and what was done.
  """

  skipped: list[tuple[str, str]]
  doubtful: list[tuple[str, str]]


def convert(
  meshes: Sequence[trees.ShapeFile],
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
  or on whether the work was interrupted and resumed.

  Args:
    meshes: as `trees.find_shapes` lists them.
    outs: the file to write for each size. None may exist, except those that the
      same command wrote before it was interrupted.
    margin: voxels left empty on every side; by default
      `placement.default_margin`.
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
    ValueError: for arguments out of range, when no mesh could be used, or, with
      `strict`, at a broken mesh.
  """
  for size in outs:
    own = placement.default_margin(size) if margin is None else margin
    placement.check_grid(size, own)
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
      print(f'{partial}: {done} of {len(meshes)} meshes are done, resuming')
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
  """Locks the folder of partial results against other processes.

  The system releases the lock when the process ends, however it ends. A folder
  that is left empty is removed.
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
        f'another process is writing to {partial}: wait until it ends'
      )
    try:
      yield
    finally:
      if partial.exists() and not (partial / 'settings.json').exists():
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not ours, and not empty.
          partial.rmdir()


def _drop_changed(work, partial, outs) -> None:
  """Deletes groups with a mesh that has changed since it was read."""
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
    raise ValueError(f'{name}: {reason} (stopped by --strict)')


def _open_partial(partial, settings, outs) -> None:
  """Writes the record of partial results, or checks one that exists."""
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
        f'({changed}): finish that command, choose another name, or remove it'
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
    # Unfinished groups are done again later, so nothing waits for them.
    for child in set(multiprocessing.active_children()) - before:
      child.terminate()
    raise
  finally:
    pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _deaf_children():
  """Processes that are started in this context do not receive Ctrl-C.

  Ctrl-C reaches all processes of a terminal, but only one should report it. It
  is blocked while they start, not ignored, so that it is not lost.
  """
  if not hasattr(signal, 'pthread_sigmask'):  # Windows.
    yield
    return
  # A new process inherits the blocked signals.
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
  """Ends a worker when its parent is killed; it would wait forever."""
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
  with trees.open_shapes(group) as read:
    for i, mesh in enumerate(group):
      name = '/'.join(mesh[:3])
      try:
        vertices, faces = mesh_files.read_any(
          read(mesh),
          trees.file_type(mesh),
          up,
          functools.partial(read, mesh),
        )
        if not len(faces) and solid and len(vertices):
          raise ValueError(
            f'no faces: it is a cloud of {len(vertices)} points, which have no '
            'inside (--surface_only keeps the voxels that hold them)'
          )
        grids = {
          size: _grid(vertices, faces, size, margin, solid) for size in sizes
        }
      except mesh_files.READ_ERRORS as error:
        skipped.append((name, mesh_files.sentence(error)))
        continue
      wrong = _stray(vertices, faces)
      kept.append(i)
      for size, (grid, doubt) in grids.items():
        bits[size].append(voxel_file.pack(grid))
        marks[size].append(bool(doubt or wrong))
      doubts = [wrong] if wrong else []
      doubts += [f'at {size}^3 {grids[size][1]}' for size in sizes
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


def _stray(vertices, faces) -> str:
  """See `placement.stray`."""
  if len(faces):
    return placement.stray(vertices, faces)
  return placement.stray(vertices[np.isfinite(vertices).all(axis=1)])


def _grid(vertices, faces, size, margin, solid) -> tuple[np.ndarray, str]:
  """Voxels of a mesh, and what is doubtful about it."""
  if not len(faces):
    faces = np.repeat(np.arange(len(vertices))[:, None], 3, axis=1)
    # A scanner writes NaN where nothing came back.
    faces = faces[np.isfinite(vertices).all(axis=1)]
  triangles = placement.normalise(vertices, faces, size, margin=margin)
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
