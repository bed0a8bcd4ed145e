"""Results, meshes and folders: written once, never over another.

A result is a JSON file that says how it came about.
"""

from collections.abc import Mapping
import datetime
import glob
import itertools
import json
import os
import sys
from typing import Any
from typing import NamedTuple

from absl import logging
import jax
import numpy as np
import trimesh

from experiments.files import figures

MESH_FORMATS = ('obj', 'ply', 'stl')


class SavedMeshes(NamedTuple):
  """What `save_meshes` did.

  paths: the files written, in the order of the shapes.
  empty: indices of the shapes that have no surface, for which none was.
  """

  paths: tuple[str, ...]
  empty: tuple[int, ...]


def header(experiment: str) -> dict[str, Any]:
  """What every result begins with: experiment, command, date, device."""
  return {
    'experiment': experiment,
    'command': describe_command(),
    'date': datetime.date.today().isoformat(),
    'device': device(),
  }


def device() -> str:
  """What computes here, in words."""
  kind, processes = jax.devices()[0], jax.process_count()
  text = f'{jax.device_count()} x {kind.device_kind}'
  if kind.platform == 'cpu' and jax.device_count() == 1:
    text = f'{os.cpu_count()} CPU cores'
  if processes > 1:
    text += f', {jax.local_device_count()} in each of {processes} processes'
  return text


def tell_devices() -> None:
  """Says what computes here; warns of a GPU that jax does not see."""
  logging.info('Devices: %s.', device())
  if jax.default_backend() == 'cpu' and glob.glob('/dev/nvidia[0-9]*'):
    logging.warning(
      'There is an NVIDIA GPU here, but this jax does not see it: pip install '
      '-U "jax[cuda13]".'
    )


def describe_command() -> str:
  """The command line that is running, as a user would type it."""
  return ' '.join(['python -m experiments.main', *sys.argv[1:]])


def write(path: str, result: Mapping[str, Any]) -> None:
  """Writes a result as JSON.

  Raises:
    FileExistsError: when `path` exists.
  """
  folder = os.path.dirname(path)
  if folder:
    os.makedirs(folder, exist_ok=True)
  with open(path, 'x', encoding='utf-8') as file:
    json.dump(result, file, indent=2)
    file.write('\n')


def write_result(
  folder: str, stem: str, result: Mapping[str, Any], out: str | None = None
) -> str:
  """Writes a result to `folder/evaluations/<stem>.json`, `_001`, ...

  Args:
    folder: of a model.
    stem: name of the file.
    result: what JSON can hold.
    out: a file to write it to as well, which must not exist.

  Returns:
    The first file.
  """
  path = unused_path(os.path.join(folder, 'evaluations'), stem, '.json')
  for name in (path, out):
    if name is not None:
      write(name, result)
  logging.info('Wrote %s', path)
  return path


def unused_path(folder, stem: str, suffix: str = '') -> str:
  """Returns the first of stem, stem_001, stem_002, ... that does not exist.

  Without a suffix it is a folder, which is made, so that two processes never
  get the same one. With a suffix ('.png') it is a file, which is not made.

  Args:
    folder: where; made if it is not there.
    stem: name without number and suffix.
    suffix: of a file, with its dot; empty for a folder.

  Raises:
    OSError: where `folder` cannot be written.
  """
  os.makedirs(folder, exist_ok=True)
  for number in itertools.count():
    name = f'{stem}_{number:03d}' if number else stem
    path = os.path.join(folder, name + suffix)
    if os.path.lexists(path):
      continue
    if suffix:
      return path
    try:
      os.mkdir(path)
    except FileExistsError:
      continue
    return path


def save_meshes(
  folder, voxels, *, file_format: str = 'obj', level: float = 0.5
) -> SavedMeshes:
  """Writes `folder/sample_000.obj`, `sample_001.obj`, ...; one for each shape.

  Units are voxels, voxel centres at integers, z up. A shape without a surface
  gets no file, and the numbers of the others stay theirs.

  Args:
    folder: made if it is not there.
    voxels: `(n, D, H, W)` finite numbers.
    file_format: obj, ply or stl.
    level: the isovalue, above 0.

  Returns:
    `SavedMeshes(paths, empty)`.

  Raises:
    ValueError: for another format, or voxels that are not finite `(n, D, H, W)`
      numbers; nothing is written then.
    FileExistsError: where one of the files is there already; nothing is
      overwritten.
    OSError: where `folder` cannot be written.
  """
  if file_format not in MESH_FORMATS:
    raise ValueError(
      f'unknown mesh format {file_format!r}; choose from '
      f'{", ".join(MESH_FORMATS)}'
    )
  voxels = np.asarray(voxels)
  if voxels.ndim != 4:
    raise ValueError(f'voxels must be (n, D, H, W), got shape {voxels.shape}')
  meshes = []
  for i, shape in enumerate(voxels):
    try:
      meshes.append(figures.surface(shape, level))
    except ValueError as error:
      raise ValueError(f'sample {i}: {error}') from error
  paths = [
    os.path.join(folder, f'sample_{i:03d}.{file_format}')
    for i in range(len(meshes))
  ]
  taken = [path for path in paths if os.path.lexists(path)]
  if taken:
    raise FileExistsError(f'will not overwrite {taken[0]}')
  os.makedirs(folder, exist_ok=True)
  written, empty = [], []
  for i, (path, mesh) in enumerate(zip(paths, meshes, strict=True)):
    if mesh is None:
      empty.append(i)
      continue
    data = trimesh.Trimesh(*mesh, process=False).export(file_type=file_format)
    # 'x' and not 'w': another process may have made the file meanwhile.
    with open(path, 'xb') as file:
      file.write(data.encode() if isinstance(data, str) else data)
    written.append(path)
  return SavedMeshes(tuple(written), tuple(empty))


def write_shapes(
  folder: str,
  arrays: Mapping[str, Any],
  record: Mapping[str, Any],
  meshes: Mapping[str, Any],
  mesh_format: str,
) -> str:
  """Fills a new folder: voxels.npz, record.json and meshes/.

  Args:
    folder: that exists.
    arrays: of voxels.npz.
    record: how they came about, of record.json.
    meshes: `(n, D, H, W)` by the name of a folder below meshes/; '': in it.
    mesh_format: one of `MESH_FORMATS`; '': no meshes.

  Returns:
    The folder.
  """
  np.savez_compressed(os.path.join(folder, 'voxels.npz'), **arrays)
  write(os.path.join(folder, 'record.json'), record)
  for kind, voxels in meshes.items() if mesh_format else ():
    saved = save_meshes(
      os.path.join(folder, 'meshes', kind), voxels, file_format=mesh_format
    )
    if saved.empty:
      logging.warning('Shapes without a surface: %s %s', kind, saved.empty)
  logging.info('Wrote %s', folder)
  return folder
