"""Converts voxel shapes to and from what others use.

    python -m data_prep.convert --source volumetric_data --out chairs.npz
    python -m data_prep.convert --source chairs.npz --to binvox --out DIR
    python -m data_prep.convert --source chairs.npz --size 64 --out wide.npz

- `.npz`: a voxel file.
- `.binvox`: cubes, run lengths in the order x, z, y as every tool writes them.
- `.mat`: key `instance`, as 3D ShapeNets (30^3) and the release of the paper's
  authors (30^3, 32^3, 64^3) have it; also read are `voxels`, the key of that
  release's results, and the only array of a file.
- `.npy`: a shape `(D, H, W)`; also read are batches `(n, D, H, W)`.

The source is a voxel file, a file of another format, or a folder or zip file of
them: `class/split/name.mat`, also `class/30/train/name.mat` as 3D ShapeNets has
it. Folders are written as `class/split/name.<format>`. `--size` pads with empty
voxels or crops, centred; cropping away occupied voxels must be asked for with
`--lossy`. A broken file is reported with its name and reason and skipped, and
the exit status is then 2; `--strict` stops. Nothing is ever overwritten.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import io
import os
import pathlib
import shutil
import sys
from typing import NamedTuple

from absl import app
from absl import flags
import numpy as np
import scipy.io
import tqdm
from trimesh.exchange import binvox
import trimesh.voxel

from data_prep import mesh_files
from data_prep import voxel_file

FORMATS = ('binvox', 'mat', 'npy')


class Shape(NamedTuple):
  """One shape with its names.

  Attributes:
    class_name: its class.
    split: its split.
    name: its name, unique in class and split.
    voxels: `(D, H, W)` of 0 and 1, or of fractions in [0, 1].
  """

  class_name: str
  split: str
  name: str
  voxels: np.ndarray


def resize(voxels: np.ndarray, size: int, *, lossy: bool = False) -> np.ndarray:
  """Pads with empty voxels or crops to a cube, centred, without scaling.

  Where the difference is odd, the extra voxel is at the end. Padding and then
  cropping gives the shape back.

  Args:
    voxels: `(D, H, W)`.
    size: D, H and W of the result.
    lossy: whether occupied voxels may be cropped away.

  Returns:
    `(size, size, size)`.

  Raises:
    ValueError: when occupied voxels would be lost and `lossy` is not given.

  >>> resize(np.ones((30, 30, 30)), 32).shape
  (32, 32, 32)
  """
  if size < 1:
    raise ValueError(f'size must be positive, got {size}')
  crop = tuple(
    slice(max(0, n - size) // 2, max(0, n - size) // 2 + min(n, size))
    for n in voxels.shape
  )
  inner = voxels[crop]
  lost = np.count_nonzero(voxels) - np.count_nonzero(inner)
  if lost and not lossy:
    raise ValueError(
      f'cropping {voxels.shape} to {size} would cut off {lost} occupied voxels '
      '(--lossy allows it)'
    )
  before = [(size - n) // 2 for n in inner.shape]
  return np.pad(
    inner,
    [(b, size - n - b) for b, n in zip(before, inner.shape, strict=True)],
  )


def turn_up(voxels: np.ndarray, up: str) -> np.ndarray:
  """Turns a grid so that its axis `up` becomes z, as `voxelize` turns meshes.

  >>> turn_up(np.zeros((3, 4, 5)), 'y').shape
  (3, 5, 4)
  """
  if up == 'z':
    return voxels
  if up == 'y':
    return voxels.transpose(0, 2, 1)[:, ::-1, :]
  if up == 'x':
    return voxels.transpose(2, 1, 0)[::-1, :, :]
  raise ValueError(f"up must be 'x', 'y' or 'z', got {up!r}")


def read_voxels(data: bytes, kind: str) -> np.ndarray:
  """Reads the shapes of one file of another format.

  Args:
    data: the content of the file.
    kind: one of `FORMATS`.

  Returns:
    `(n, D, H, W)`, n = 1 where the file holds a single shape.

  Raises:
    ValueError: with the reason, when the file cannot be read or holds values
      outside [0, 1].
  """
  if kind not in FORMATS:
    raise ValueError(f'unknown format {kind!r}, must be one of {list(FORMATS)}')
  try:
    if kind == 'binvox':
      voxels = _read_binvox(data)
    elif kind == 'mat':
      voxels = _read_mat(data)
    else:
      voxels = np.load(io.BytesIO(data), allow_pickle=False)
  except Exception as error:  # whatever a broken file sets off in a reader.
    raise ValueError(
      f'not a readable {kind} file: {type(error).__name__}: {error}'
    ) from error
  return check_voxels(voxels)


def check_voxels(voxels: np.ndarray) -> np.ndarray:
  """Shapes `(n, D, H, W)` of an array of one or more, uint8 or float32.

  Args:
    voxels: `(D, H, W)` or `(n, D, H, W)`, also with a last axis of length 1.

  Raises:
    ValueError: for another shape or dtype, or values outside [0, 1].

  >>> check_voxels(np.ones((4, 4, 4))).shape
  (1, 4, 4, 4)
  """
  if voxels.ndim == 5 and voxels.shape[-1] == 1:
    voxels = voxels[..., 0]
  if voxels.ndim == 3:
    voxels = voxels[None]
  if voxels.ndim != 4 or not voxels.size:
    raise ValueError(
      f'it holds an array of shape {voxels.shape}, not of a shape (D, H, W) or '
      'a batch (n, D, H, W)'
    )
  if voxels.dtype.kind not in 'buif':
    raise ValueError(f'it holds an array of {voxels.dtype}, not of numbers')
  bad = voxels[~((voxels >= 0) & (voxels <= 1))]
  if bad.size:
    raise ValueError(f'it holds the value {bad[0]}, voxels must be in [0, 1]')
  if not ((voxels == 0) | (voxels == 1)).all():
    return voxels.astype(np.float32)
  return voxels.astype(np.uint8)


def write_voxels(voxels: np.ndarray, kind: str) -> bytes:
  """The content of a file of another format with one shape.

  Args:
    voxels: `(D, H, W)`; binvox needs cubes of 0 and 1.
    kind: one of `FORMATS`.

  Returns:
    The same bytes for the same shape.

  >>> cube = np.zeros((4, 4, 4), np.uint8)
  >>> cube[1, 2, 3] = 1
  >>> bool((read_voxels(write_voxels(cube, 'binvox'), 'binvox') == cube).all())
  True
  """
  if kind not in FORMATS:
    raise ValueError(f'unknown format {kind!r}, must be one of {list(FORMATS)}')
  if kind == 'binvox':
    if len(set(voxels.shape)) != 1:
      raise ValueError(f'binvox holds cubes only, not {voxels.shape}')
    if not ((voxels == 0) | (voxels == 1)).all():
      raise ValueError('binvox holds 0 and 1 only, not fractions: --threshold')
    return binvox.export_binvox(
      trimesh.voxel.VoxelGrid(np.ascontiguousarray(voxels, dtype=bool))
    )
  file = io.BytesIO()
  if kind == 'npy':
    np.save(file, voxels)
    return file.getvalue()
  scipy.io.savemat(file, {'instance': voxels}, do_compression=True)
  # Its first 116 bytes are a text with the time of day.
  return b'MATLAB 5.0 MAT-file'.ljust(116) + file.getvalue()[116:]


def read_shapes(
  source: str | os.PathLike, split: str = 'train'
) -> Iterator[Shape | tuple[str, str]]:
  """Yields the shapes of a voxel file, or of files of another format.

  Args:
    source: a voxel file, or a file, folder or zip file of other formats.
    split: for shapes that are not in a folder named by one.

  Yields:
    Shapes; and for a file that is broken its name and the reason.
  """
  if pathlib.Path(source).suffix == '.npz':
    stored = voxel_file.read(source)
    for part, array in stored.arrays.items():
      for row, label, name in zip(
        array, stored.labels[part], stored.names[part], strict=True
      ):
        voxels = voxel_file.unpack(row) if stored.packed else row
        yield Shape(stored.classes[label], part, str(name), voxels)
    return
  files = mesh_files.find_shapes(source, split, FORMATS)
  with mesh_files.open_shapes(files) as read:
    for file in files:
      try:
        batch = read_voxels(read(file), mesh_files.file_type(file))
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
  up: str = 'z',
  split: str = 'train',
  strict: bool = False,
  progress: bool = True,
) -> tuple[int, list[tuple[str, str]]]:
  """Converts the shapes of a source.

  Args:
    source: a voxel file, or a file, folder or zip file of other formats.
    out: the voxel file to write or, with `to`, the folder.
    to: one of `FORMATS` for a folder of such files.
    size: to pad or crop to; by default the shapes stay as they are.
    lossy: whether occupied voxels may be cropped away.
    threshold: when given, voxels above it become 1, the others 0.
    up: the axis of the source that becomes z.
    split: for shapes that are not in a folder named by one.
    strict: whether to stop at the first broken file.
    progress: whether to show a progress bar.

  Returns:
    How many shapes were converted; name and reason of each that was skipped.

  Raises:
    FileExistsError: when `out` exists.
    ValueError: for arguments that do not fit, when there is no sound shape, the
      grids differ, or with `strict` at a broken file.
  """
  voxel_file.refuse_existing(out)
  out = pathlib.Path(out)
  if to is None and out.suffix != '.npz':
    raise ValueError(
      f'the file to write must end in .npz, got {out}; for a folder of another '
      f'format say which with --to {"|".join(FORMATS)}'
    )
  if to is not None and to not in FORMATS:
    raise ValueError(f'--to must be one of {list(FORMATS)}, got {to!r}')
  if threshold is not None and not 0 <= threshold < 1:
    raise ValueError(f'threshold must be in [0, 1), got {threshold}')
  skipped = []

  def sound() -> Iterator[Shape]:
    for entry in tqdm.tqdm(
      read_shapes(source, split),
      'convert',
      unit=' shapes',
      disable=not progress,
    ):
      if isinstance(entry, Shape):
        try:
          voxels = turn_up(entry.voxels, up)
          if threshold is not None:
            voxels = (voxels > threshold).astype(np.uint8)
          if size is not None:
            voxels = resize(voxels, size, lossy=lossy)
          yield entry._replace(voxels=voxels)
          continue
        except ValueError as error:
          entry = ('/'.join(entry[:3]), str(error))
      if strict:
        raise ValueError(f'{entry[0]}: {entry[1]} (stopped, as strict asks)')
      skipped.append(entry)

  shapes = sound()
  count = _save_file(out, shapes) if to is None else _save_tree(out, shapes, to)
  if not count:
    reason = f'; first reason: {": ".join(skipped[0])}' if skipped else ''
    raise ValueError(f'{source} holds no sound shape{reason}')
  return count, skipped


def _read_binvox(data: bytes) -> np.ndarray:
  runs, shape, _, _ = binvox.parse_binvox(io.BytesIO(data))
  if len(set(shape)) != 1:
    raise ValueError(f'its grid is {tuple(shape)}, not a cube')
  if runs.size % 2:
    raise ValueError('truncated in the middle of a run')
  if runs[0::2].max(initial=0) > 1:
    raise ValueError(f'a run has value {runs[0::2].max()}, not 0 or 1')
  covered = int(runs[1::2].sum(dtype=np.int64))
  if covered != np.prod(shape):
    raise ValueError(
      f'truncated: its runs cover {covered} of the {np.prod(shape)} voxels'
    )
  return binvox.voxel_from_binvox(runs, shape).encoding.dense


def _read_mat(data: bytes) -> np.ndarray:
  content = scipy.io.loadmat(io.BytesIO(data))
  arrays = {
    key: value for key, value in content.items() if not key.startswith('__')
  }
  for key in ('instance', 'voxels'):
    if key in arrays:
      return arrays[key]
  if len(arrays) != 1:
    raise ValueError(f'no key instance or voxels, only {sorted(arrays)}')
  return next(iter(arrays.values()))


def _save_file(out, shapes: Iterable[Shape]) -> int:
  """Writes a voxel file; binary cubes are kept as bits while they come."""
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
  grids = {}
  for row in rows:
    grids.setdefault(row.voxels[1], '/'.join(row[:3]))
  if len(grids) > 1:
    raise ValueError(
      f'the shapes have different grids, say which with --size: {grids}'
    )
  grid = next(iter(grids))
  binary = all(row.voxels[2] == np.uint8 for row in rows)
  if binary and len(set(grid)) == 1 and grid[0] > 1:
    unpack = None
  else:
    unpack = bool if binary else np.float32
  classes = sorted({row.class_name for row in rows})
  arrays, labels, names = {}, {}, {}
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
  voxel_file.save_stored(out, classes, arrays, labels, names)
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
  """Defines the flags of the command; not on import, lest they clash."""
  flags.DEFINE_string(
    'source', None, 'Voxel file, or file, folder or zip file of other formats.'
  )
  flags.DEFINE_string('out', None, 'Voxel file, or with --to folder, to write.')
  flags.DEFINE_enum('to', None, FORMATS, 'Write a folder of such files.')
  flags.DEFINE_integer('size', None, 'Pad or crop to this many voxels a side.')
  flags.DEFINE_bool('lossy', False, 'Let cropping cut off occupied voxels.')
  flags.DEFINE_float('threshold', None, 'Voxels above it become 1, others 0.')
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
    count, skipped = convert(
      values.source,
      values.out,
      to=values.to,
      size=values.size,
      lossy=values.lossy,
      threshold=values.threshold,
      up=values.up,
      split=values.split,
      strict=values.strict,
    )
  except mesh_files.READ_ERRORS as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  print(f'{values.out}: {count} shapes')
  for name, reason in skipped:
    print(f'skipped {name}: {reason}', file=sys.stderr)
  return 2 if skipped else 0


if __name__ == '__main__':
  define_flags()
  app.run(main)
