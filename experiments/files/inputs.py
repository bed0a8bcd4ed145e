"""Shapes from outside: meshes, voxels, coarse grids, and what of them is known.

Voxels are `(n, D, H, W)` in [0, 1] here.
"""

from collections.abc import Sequence
import os
import pathlib

from absl import logging
import numpy as np

from data_prep import convert
from data_prep import mesh_files
from data_prep import voxelize

VOXEL_TYPES = ('npz', *convert.FORMATS)


def read_input(path: str, size: int, up: str | None = None) -> np.ndarray:
  """Reads voxels, or makes them of a mesh.

  Args:
    path: a mesh, one of `mesh_files.FILE_TYPES`, also as .gz; or voxels in
      [0, 1]: a voxel file, another .npz with the key `voxels`, or one of
      `convert.FORMATS`.
    size: voxels a side, of a mesh.
    up: the axis of the shape that becomes z; None: as the format has it, y in
      glTF, z in all others.

  Returns:
    `(n, D, H, W)` float32, of any grid where the file holds voxels.

  Raises:
    FileNotFoundError: when there is no such file.
    ValueError: when it cannot be read, is empty, or is a mesh with no inside.

  >>> read_input('chair.doc', 32)
  Traceback (most recent call last):
  ...
  ValueError: chair.doc: must end in ...
  """
  kind = mesh_files.file_type(path)
  types = (*mesh_files.FILE_TYPES, *VOXEL_TYPES)
  if kind not in types:
    raise ValueError(f'{path}: must end in .{", .".join(types)}')
  if not os.path.isfile(path):
    raise FileNotFoundError(f'--input={path} does not exist')
  try:
    voxels = _read(path, kind, size, up)
    if not (voxels > 0.5).any(axis=(1, 2, 3)).all():
      raise ValueError('a shape is empty: it has no voxel above 0.5')
  except mesh_files.READ_ERRORS as error:
    raise ValueError(f'{path}: {error}') from error
  return np.asarray(voxels, np.float32)


def _read(path, kind, size, up):
  if kind in mesh_files.FILE_TYPES:
    mesh = mesh_files.read_mesh(pathlib.Path(path).read_bytes(), kind, up)
    _check_inside(*mesh, size)
    return voxelize.voxelize(*mesh, size)[None]
  if kind != 'npz':
    voxels = convert.read_voxels(pathlib.Path(path).read_bytes(), kind)
  else:
    with np.load(path, allow_pickle=False) as file:
      own = 'classes' in file.files
      if not own and 'voxels' not in file.files:
        raise ValueError(f'has no key voxels, only {file.files}')
      voxels = None if own else file['voxels']
    if own:
      voxels = np.stack([shape.voxels for shape in convert.read_shapes(path)])
    else:
      voxels = convert.check_voxels(voxels)
  return np.stack([convert.turn_up(shape, up or 'z') for shape in voxels])


def _check_inside(vertices, faces, size):
  """Raises ValueError for a mesh that encloses nothing."""
  # What is thin on a coarse grid may have an inside on a fine one.
  for side in (size, 128):
    solid = voxelize.voxelize(vertices, faces, side)
    if (
      solid.sum() > voxelize.voxelize(vertices, faces, side, solid=False).sum()
    ):
      return
  raise ValueError(
    'the mesh has no inside: no voxel is enclosed by its faces, on 128^3 '
    'neither. Close it, or give voxels'
  )


def read_coarse(
  path: str, sides: Sequence[int], up: str | None = None
) -> np.ndarray:
  """Reads coarse shapes to start from: `(n, d, d, d)` float32.

  Args:
    path: an .npz file with an array `voxels`, as `--mode=sample` writes them
      of each grid; or else see `read_input`.
    sides: of the grids of the model, coarse first. A mesh comes on the next to
      finest.
    up: the axis of a mesh or of other voxels that becomes z.

  Raises:
    FileNotFoundError: when there is no such file.
    ValueError: when it cannot be read, or holds no finite shapes.
  """
  if path.endswith('.npz') and os.path.isfile(path):
    with np.load(path, allow_pickle=False) as file:
      if 'voxels' in file.files:
        # Averages of thin shapes may all be below 0.5, so nothing says that a
        # coarse shape is empty.
        voxels = file['voxels'].astype(np.float32)
        if not np.isfinite(voxels).all():
          raise ValueError(f'{path} has voxels that are not finite')
        return voxels
  return read_input(path, sides[-2], up)


def fit(voxels: np.ndarray, shape: Sequence[int], path: str) -> np.ndarray:
  """Pads shapes to the grid of the model with empty voxels, centred."""
  if voxels.shape[1:] == tuple(shape):
    return voxels
  try:
    if len({*shape}) > 1:
      raise ValueError('only cubes are padded')
    return np.stack([convert.resize(one, shape[0]) for one in voxels])
  except ValueError as error:
    raise ValueError(
      f'{path} has a grid of {voxels.shape[1:]}, the model one of '
      f'{tuple(shape)}: {error}'
    ) from error


def some(voxels: np.ndarray, num_samples: int, path: str) -> np.ndarray:
  """The first `num_samples` shapes of a file; warns where there are more."""
  if len(voxels) > num_samples:
    logging.warning(
      '%s holds %d shapes; the first sample.num_samples = %d are taken',
      path,
      len(voxels),
      num_samples,
    )
  return voxels[:num_samples]


def read_visible(path: str, n: int) -> np.ndarray:
  """Reads what is visible of n shapes: boolean `(n, D, H, W)` of a .npy.

  Raises:
    ValueError: when it cannot be read, or is of another number of shapes.
  """
  try:
    visible = np.load(path, allow_pickle=False)
  except (ValueError, OSError, EOFError) as error:
    raise ValueError(f'--visible={path}: {error}') from error
  if visible.dtype != bool and not np.isin(visible, (0, 1)).all():
    raise ValueError(
      f'--visible={path} must hold True or 1 where a voxel was observed, False '
      f'or 0 where not; it holds {visible[~np.isin(visible, (0, 1))][0]}'
    )
  visible = visible.astype(bool)
  if visible.ndim == 3:
    visible = np.repeat(visible[None], n, axis=0)
  if visible.ndim != 4 or len(visible) != n:
    raise ValueError(
      f'--visible={path} must be (D, H, W), or ({n}, D, H, W) for {n} shapes; '
      f'got {visible.shape}'
    )
  return visible


def check_visible(visible: np.ndarray, shape: Sequence[int]) -> None:
  """Checks what is visible of each shape.

  Args:
    visible: boolean `(n, D, H, W)`.
    shape: `(D, H, W)`.

  Raises:
    ValueError: for another shape, where nothing is hidden, or everything.
  """
  if visible.shape[1:] != tuple(shape):
    raise ValueError(
      f'visible has shape {visible.shape[1:]}, the grid of the model is '
      f'{tuple(shape)}'
    )
  counts = visible.reshape(len(visible), -1).sum(axis=1)
  if (counts == visible[0].size).any():
    raise ValueError(
      'nothing is hidden, so there is nothing to recover: visible must be '
      'False where a voxel was not observed'
    )
  if (counts == 0).any():
    raise ValueError(
      'everything is hidden, so there is nothing to recover from: use '
      '--mode=sample, or a visible that is True where a voxel was observed'
    )
