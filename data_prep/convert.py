"""Converts voxel shapes to and from other formats.

    python -m data_prep.convert --source volumetric_data --out chairs.npz
    python -m data_prep.convert --source chairs.npz --to binvox --out DIR
    python -m data_prep.convert --source scan_128.binvox --size 32 --out x.npz

The source is a voxel file, an .npz with results of this program, a file of
another format (see `data_prep/volumes.py`), or a folder or zip file of them:
`class/split/name.mat`, also `class/30/train/name.mat` as in 3D ShapeNets,
`class/name/model.binvox` as in ShapeNetVox32, or any other tree by a pattern
(`--tree`). If a file holds several arrays, `--key` says which one to read. An
array is a shape `(D, H, W)` or a batch `(n, D, H, W)`, with or without a
channel axis of length 1. Folders are written as `class/split/name.<format>`.

Voxels are in [0, 1]; real values slightly outside are clipped. If there are
only two values, 0 and v, then v counts as 1; for any other values `--threshold`
says which are inside. Grids that are not cubes are padded to one. `--size` pads
with empty voxels, or scales down by blocks where it divides the grid (a block
is as full as its fullest voxel), or otherwise crops, centred. Cropping occupied
voxels needs `--lossy`. The command reports what it did to shapes.

A broken file, or a shape without an occupied voxel, is reported with its name
and reason and skipped, and the exit status is then 2; with `--strict` the
command stops there. Nothing is ever overwritten.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import os
import pathlib
import shutil
import sys
from typing import NamedTuple
import zipfile

from absl import app
from absl import flags
import numpy as np
import tqdm

from data_prep import command
from data_prep import grids
from data_prep import mesh_files
from data_prep import trees
from data_prep import volumes
from data_prep import voxel_file

FORMATS = volumes.FORMATS
OUT_FORMATS = volumes.OUT_FORMATS
_MOST_PADDED = 1 << 28  # voxels of a cube that a thin grid is padded to.


class Shape(NamedTuple):
  """One shape with its names.

  Attributes:
    class_name: its class.
    split: its split.
    name: its name, unique in class and split.
    voxels: `(D, H, W)` of 0 and 1, or of fractions in [0, 1].
    doubtful: whether it is marked as doubtful; None where that is unknown.
  """

  class_name: str
  split: str
  name: str
  voxels: np.ndarray
  doubtful: bool | None = None


class Outcome(NamedTuple):
  """What a conversion did.

  Attributes:
    count: how many shapes were converted.
    skipped: name and reason of each that was not.
    notes: changes to shapes that were not asked for.
  """

  count: int
  skipped: list[tuple[str, str]]
  notes: list[str]


def read_voxels(
  data: bytes,
  kind: str,
  key: str | None = None,
  threshold: float | None = None,
) -> np.ndarray:
  """Reads the shapes of one file of another format.

  Args:
    data: the content of the file.
    kind: one of `FORMATS`, or npz.
    key: which array, if a file holds several.
    threshold: see `grids.check_voxels`.

  Returns:
    `(n, D, H, W)`, n = 1 where the file holds a single shape.

  Raises:
    ValueError: with the reason, when the file cannot be read or holds no
      voxels.
  """
  return grids.check_voxels(volumes.read(data, kind, key), threshold)


def write_voxels(voxels: np.ndarray, kind: str) -> bytes:
  """The content of a file with one shape, see `volumes.write`."""
  return volumes.write(voxels, kind)


def read_shapes(
  source: str | os.PathLike,
  split: str = 'train',
  *,
  key: str | None = None,
  threshold: float | None = None,
  tree: str = '',
) -> Iterator[Shape | tuple[str, str]]:
  """Yields the shapes of a voxel file, or of files of another format.

  Args:
    source: a voxel file, or a file, folder or zip file of other formats.
    split: for shapes that are not in a folder named by one.
    key: which array, if a file holds several.
    threshold: see `grids.check_voxels`.
    tree: see `trees.find`.

  Yields:
    Shapes; and for a file that is broken its name and the reason.
  """
  if is_voxel_file(source) and key is None:
    yield from _stored_shapes(voxel_file.read(source), threshold)
    return
  yield from _shapes_of_files(
    trees.find(source, split, _types(source), tree).shapes, key, threshold
  )


def is_voxel_file(source: str | os.PathLike) -> bool:
  """Whether a path is, or should be, a voxel file; not a result of a model."""
  if pathlib.Path(source).suffix.lower() != '.npz':
    return False
  try:
    with zipfile.ZipFile(source) as archive:
      return 'classes.npy' in archive.namelist()
  except (OSError, zipfile.BadZipFile):
    return True  # Reading it will say what is wrong.


def _types(source) -> tuple[str, ...]:
  # Not in folders, where an .npz may be the result of converting the others.
  return ('npz',) if mesh_files.file_type(source) == 'npz' else FORMATS


def _stored_shapes(stored: voxel_file.Stored, threshold) -> Iterator[Shape]:
  for part, array in stored.arrays.items():
    doubtful = stored.doubtful.get(part, [None] * len(array))
    for row, label, name, doubt in zip(
      array, stored.labels[part], stored.names[part], doubtful, strict=True
    ):
      voxels = voxel_file.unpack(row) if stored.packed else row
      if threshold is not None:
        voxels = (voxels > threshold).astype(np.uint8)
      doubt = None if doubt is None else bool(doubt)
      yield Shape(stored.classes[label], part, str(name), voxels, doubt)


def _shapes_of_files(files, key, threshold):
  with trees.open_shapes(files) as read:
    for file in files:
      try:
        batch = read_voxels(read(file), trees.file_type(file), key, threshold)
      except mesh_files.READ_ERRORS as error:
        yield '/'.join(file[:3]), str(error)
        continue
      for i, voxels in enumerate(batch):
        name = file.name if len(batch) == 1 else f'{file.name}_{i:04d}'
        yield Shape(file.class_name, file.split, name, voxels)


def convert(
  source: str | os.PathLike,
  out: str | os.PathLike,
  *,
  to: str | None = None,
  size: int | None = None,
  lossy: bool = False,
  threshold: float | None = None,
  key: str | None = None,
  tree: str = '',
  up: str = 'z',
  split: str = 'train',
  strict: bool = False,
  progress: bool = True,
) -> Outcome:
  """Converts the shapes of a source.

  Args:
    source: a voxel file, or a file, folder or zip file of other formats.
    out: the voxel file to write or, with `to`, the folder.
    to: one of `OUT_FORMATS` for a folder of such files.
    size: see `grids.resize`; by default the shapes stay as they are.
    lossy: whether occupied voxels may be cropped away.
    threshold: when given, voxels above it become 1, the others 0.
    key: which array, if a file holds several.
    tree: see `trees.find`.
    up: the axis of the source that becomes z.
    split: for shapes that are not in a folder named by one.
    strict: whether to stop at the first broken file.
    progress: whether to show a progress bar.

  Raises:
    FileExistsError: when `out` exists.
    ValueError: for wrong arguments, when there is no usable shape, when the
      grids differ, or with `strict` at a broken file.
  """
  voxel_file.refuse_existing(out)
  out = pathlib.Path(out)
  if to is None and out.suffix != '.npz':
    raise ValueError(
      f'the file to write must end in .npz, got {out}; for a folder of other '
      f'files give their format with --to {"|".join(OUT_FORMATS)}'
    )
  if to is not None and to not in OUT_FORMATS:
    raise ValueError(f'--to must be one of {list(OUT_FORMATS)}, got {to!r}')
  if threshold is not None and not np.isfinite(threshold):
    raise ValueError(f'threshold must be a number, got {threshold}')
  if size is not None and size < 1:
    raise ValueError(f'size must be positive, got {size}')
  grids.turn_up(np.zeros((1, 1, 1)), up)
  if is_voxel_file(source) and key is None:
    found = None
    entries = _stored_shapes(voxel_file.read(source), threshold)
  else:
    found = trees.find(source, split, _types(source), tree)
    entries = _shapes_of_files(found.shapes, key, threshold)
  skipped, notes = [], collections.Counter()

  def sound() -> Iterator[Shape]:
    for entry in tqdm.tqdm(
      entries, 'convert', unit=' shapes', disable=not progress
    ):
      if isinstance(entry, Shape):
        try:
          voxels = grids.turn_up(entry.voxels, up)
          voxels, done = _fitted(voxels, size, lossy, to)
          notes.update(done)
          yield entry._replace(voxels=voxels)
          continue
        except ValueError as error:
          entry = ('/'.join(entry[:3]), str(error))
      if strict:
        raise ValueError(f'{entry[0]}: {entry[1]} (stopped by --strict)')
      skipped.append(entry)

  shapes = sound()
  count = _save_file(out, shapes) if to is None else _save_tree(out, shapes, to)
  if not count:
    reason = f'; first reason: {": ".join(skipped[0])}' if skipped else ''
    raise ValueError(f'{source} holds no usable shape{reason}')
  lines = [f'{n} shapes {what}' for what, n in notes.items()]
  if found and found.passed_over:
    lines.append(trees.passed_over_line(found))
  return Outcome(count, skipped, lines)


def _fitted(voxels, size, lossy, to) -> tuple[np.ndarray, list[str]]:
  """A shape as it is to be written, and what was done to it."""
  done, shape = [], voxels.shape
  if not (voxels > 0).any():
    raise ValueError('it is empty: no voxel is occupied')
  if len(set(shape)) > 1:
    if max(shape) ** 3 > max(_MOST_PADDED, 8 * voxels.size):
      raise ValueError(
        f'its grid {shape} would be too large as a cube of {max(shape)}^3'
      )
    voxels = grids.resize(voxels, max(shape))
    done.append(f'of a grid {shape} were padded to {max(shape)}^3')
  if size is not None and voxels.shape[0] != size:
    if voxels.shape[0] % size == 0 and not lossy:
      done.append(f'of {voxels.shape[0]}^3 were scaled down to {size}^3')
    voxels = grids.resize(voxels, size, lossy=lossy)
    if not (voxels > 0).any():
      raise ValueError(f'it is empty when it is cropped to {size}^3')
  if to in ('binvox', 'vox') and voxels.dtype != np.uint8:
    voxels = (voxels > 0.5).astype(np.uint8)
    done.append(f'of fractions were thresholded at 0.5: {to} holds 0 and 1')
    if not voxels.any():
      raise ValueError(
        'it is empty: no voxel is above 0.5; --threshold says what is inside'
      )
  return voxels, done


def _save_file(out, shapes: Iterable[Shape]) -> int:
  """Writes a voxel file; binary cubes are kept as bits until then."""
  rows = sorted(
    (
      shape._replace(
        voxels=(_packed(shape.voxels), shape.voxels.shape, shape.voxels.dtype)
      )
      for shape in shapes
    ),
    key=lambda shape: shape[:3],
  )
  if not rows:
    return 0
  found = {}
  for row in rows:
    found.setdefault(row.voxels[1], '/'.join(row[:3]))
  if len(found) > 1:
    raise ValueError(
      f'the shapes have different grids, choose one with --size: {found}'
    )
  grid = next(iter(found))
  binary = all(row.voxels[2] == np.uint8 for row in rows)
  if binary and len(set(grid)) == 1 and grid[0] > 1:
    unpack = None
  else:
    unpack = bool if binary else np.float32
  classes = sorted({row.class_name for row in rows})
  arrays, labels, names, doubtful = {}, {}, {}, {}
  for split in sorted({row.split for row in rows}):
    chosen = [row for row in rows if row.split == split]
    arrays[split] = np.stack(
      [
        row.voxels[0] if unpack is None else _unpacked(row.voxels, unpack)
        for row in chosen
      ]
    )
    labels[split] = np.array([classes.index(row.class_name) for row in chosen])
    names[split] = [row.name for row in chosen]
    if all(row.doubtful is not None for row in chosen):
      doubtful[split] = np.array([row.doubtful for row in chosen])
  voxel_file.save_stored(out, classes, arrays, labels, names, doubtful)
  return len(rows)


def _packed(voxels: np.ndarray) -> np.ndarray:
  return voxel_file.pack(voxels) if voxels.dtype == np.uint8 else voxels


def _unpacked(entry, dtype) -> np.ndarray:
  voxels, shape, found = entry
  if found == np.uint8:
    voxels = voxel_file.unpack(voxels, shape[-1])
  return voxels.astype(dtype)


def _save_tree(out: pathlib.Path, shapes: Iterable[Shape], kind: str) -> int:
  """Writes a folder of files, whole or not at all."""
  part = out.with_name(f'.{out.name}.{os.getpid()}.tmp')
  part.mkdir(parents=True)
  count = 0
  try:
    for shape in shapes:
      for name in shape[:3]:
        if not name or name != os.path.basename(name) or name in ('.', '..'):
          raise ValueError(f'{name!r} cannot be the name of a file')
      file = part.joinpath(*shape[:2], f'{shape.name}.{kind}')
      file.parent.mkdir(parents=True, exist_ok=True)
      if file.exists():
        raise ValueError(f'two shapes are called {"/".join(shape[:3])}')
      try:
        file.write_bytes(write_voxels(shape.voxels, kind))
      except ValueError as error:
        raise ValueError(f'{"/".join(shape[:3])}: {error}') from error
      count += 1
    if count:
      voxel_file.refuse_existing(out)
      os.replace(part, out)
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return count


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_string(
    'source', None, 'Voxel file, or file, folder or zip file of other formats.'
  )
  flags.DEFINE_string('out', None, 'Voxel file to write; with --to, a folder.')
  flags.DEFINE_enum('to', None, OUT_FORMATS, 'Write a folder of such files.')
  flags.DEFINE_integer(
    'size',
    None,
    'Pad, scale down or crop to this many voxels a side.',
  )
  flags.DEFINE_bool('lossy', False, 'Let cropping cut off occupied voxels.')
  flags.DEFINE_float('threshold', None, 'Voxels above it become 1, others 0.')
  flags.DEFINE_string('key', None, 'Which array, if a file holds several.')
  flags.DEFINE_string(
    'tree', '', "Pattern of another tree, such as '{class}/{name}/*.mat'."
  )
  flags.DEFINE_enum('up', 'z', ['x', 'y', 'z'], 'Up axis of the source.')
  flags.DEFINE_string(
    'split', 'train', 'Split of shapes that are not in a folder named by one.'
  )
  flags.DEFINE_bool('strict', False, 'Stop at the first broken file.')
  flags.mark_flags_as_required(['source', 'out'])


def main(argv: Sequence[str]) -> int:
  """The command; returns its exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  try:
    outcome = convert(
      values.source,
      values.out,
      to=values.to,
      size=values.size,
      lossy=values.lossy,
      threshold=values.threshold,
      key=values.key,
      tree=values.tree,
      up=values.up,
      split=values.split,
      strict=values.strict,
    )
  except KeyboardInterrupt:
    raise KeyboardInterrupt('nothing was written') from None
  print(f'{values.out}: {outcome.count} shapes')
  for note in outcome.notes:
    print(note)
  for name, reason in outcome.skipped:
    print(f'skipped {name}: {reason}', file=sys.stderr)
  return 2 if outcome.skipped else 0


if __name__ == '__main__':
  command.run(main, define_flags)
