"""Shapes as files that others read: meshes and voxels.

Meshes are the closed surfaces of real values at 0.5, by marching cubes: between
two voxels they lie where the values say. They are in the coordinates of the
input, if there was one, or else in units of voxels, voxel centres at integers,
z up.
"""

from collections.abc import Sequence
import io
import math
import os
from typing import NamedTuple

from absl import logging
import numpy as np
import trimesh

from data_prep import mesh_files
from data_prep import volumes
from experiments.files import figures

MESH_FORMATS = ('obj', 'ply', 'stl', 'glb', 'off')
FORMATS = (*MESH_FORMATS, *volumes.OUT_FORMATS)
_BINARY = ('binvox', 'vox')  # Voxels that are in or out.
# The largest error of a coordinate, as a share of a voxel.
_ROUNDED = 1e-4


class Saved(NamedTuple):
  """What `save` did.

  Attributes:
    paths: the files, shape by shape.
    faces: of the mesh of each shape; 0: it has no surface, and no files.
  """

  paths: tuple[str, ...]
  faces: tuple[int, ...]


def parse(text: str) -> tuple[str, ...]:
  """Formats from their names, with commas between them.

  Raises:
    ValueError: for an unknown format.

  >>> parse('glb, vox'), parse('')
  (('glb', 'vox'), ())
  """
  found = tuple(word.strip().lower() for word in text.split(',') if text)
  for word in found:
    if word not in FORMATS:
      raise ValueError(
        f'unknown format {word!r}; choose from {", ".join(FORMATS)}, or '
        'several with commas'
      )
  return tuple(dict.fromkeys(found))


def save(
  folder: str,
  voxels: np.ndarray,
  formats: Sequence[str] = ('obj',),
  *,
  to_input: np.ndarray | None = None,
  ups: Sequence[str] = (),
  level: float = 0.5,
) -> Saved:
  """Writes `folder/sample_000.obj`, `sample_001.obj`, ...; one for each shape.

  A shape without a surface gets no file; the others keep their numbers.

  Args:
    folder: made if it is not there.
    voxels: `(n, D, H, W)` finite numbers.
    formats: some of `FORMATS`.
    to_input: `(n, 4, 4)`, from the index of a voxel to the coordinates that
      are wanted; None: indices. Of the voxel formats only binvox keeps it.
    ups: the axis of these coordinates that points up, one for each shape; by
      default z. glTF, whose y is up, is turned accordingly.
    level: the isovalue, above 0.

  Raises:
    ValueError: for voxels that are not finite `(n, D, H, W)` numbers; nothing
      is written then.
    FileExistsError: where one of the files is there already; nothing is
      overwritten.
    OSError: where `folder` cannot be written.
  """
  voxels = np.asarray(voxels)
  if voxels.ndim != 4:
    raise ValueError(f'voxels must be (n, D, H, W), got shape {voxels.shape}')
  meshes = []
  for i, shape in enumerate(voxels):
    try:
      meshes.append(figures.surface(shape, level))
    except ValueError as error:
      raise ValueError(f'sample {i}: {error}') from error
  paths = {
    (i, kind): os.path.join(folder, f'sample_{i:03d}.{kind}')
    for i, mesh in enumerate(meshes)
    for kind in formats
    if mesh is not None
  }
  taken = [path for path in paths.values() if os.path.lexists(path)]
  if taken:
    raise FileExistsError(f'will not overwrite {taken[0]}')
  os.makedirs(folder, exist_ok=True)
  for (i, kind), path in paths.items():
    matrix = np.eye(4) if to_input is None else to_input[i]
    if kind in MESH_FORMATS:
      up = ups[i] if ups else 'z'
      content = encode(*_moved(*meshes[i], matrix), kind, up, _step(matrix))
    else:
      content = _voxels(voxels[i], kind, matrix, level)
    # 'x' and not 'w': another process may have made the file meanwhile.
    with open(path, 'xb') as file:
      file.write(content)
  return Saved(
    tuple(paths.values()),
    tuple(0 if mesh is None else len(mesh[1]) for mesh in meshes),
  )


def _moved(vertices, faces, matrix):
  """A mesh in other coordinates, its faces still seen from outside."""
  if np.linalg.det(matrix[:3, :3]) < 0:
    faces = faces[:, ::-1]
  return vertices @ matrix[:3, :3].T + matrix[:3, 3], faces


def _step(matrix):
  """The side of a voxel."""
  return float(abs(np.linalg.det(matrix[:3, :3])) ** (1 / 3))


def _voxels(shape, kind, matrix, level):
  if kind in _BINARY:
    shape = (shape > level).astype(np.uint8)
  turn = matrix[:3, :3] / _step(matrix)
  axes = np.rint(turn).astype(int)
  if kind == 'binvox' and not np.allclose(axes, turn, 0, 1e-5):
    logging.warning(
      'binvox can only keep turns by 90 degrees: its coordinates are indices '
      'of voxels.'
    )
  elif kind == 'binvox':
    # In the axes of the coordinates, so that it can keep them.
    order = abs(axes).argmax(axis=1)
    turned = np.eye(4)
    turned[:3, :3] = axes.T
    for axis in range(3):
      if axes[axis, order[axis]] < 0:
        turned[order[axis], 3] = shape.shape[order[axis]] - 1
    shape = shape.transpose(order)
    flips = [axis for axis in range(3) if axes[axis, order[axis]] < 0]
    shape, matrix = np.flip(shape, flips), matrix @ turned
  return volumes.write(np.ascontiguousarray(shape), kind, matrix)


def encode(
  vertices: np.ndarray, faces: np.ndarray, kind: str, up: str, step: float
) -> bytes:
  """The content of a file with a mesh.

  Args:
    vertices: `(n, 3)`.
    faces: `(m, 3)`.
    kind: one of `MESH_FORMATS`.
    up: the axis of the vertices that points up.
    step: side of a voxel; coordinates are rounded to a small part of it.
  """
  if kind in ('obj', 'off'):
    return _text(vertices, faces, kind, step)
  if kind == 'ply':
    return _ply(vertices, faces)
  middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
  if kind == 'glb':
    # Numbers of the mesh are short, those of its place are not.
    turn = np.eye(4)
    turn[:3, :3] = (
      mesh_files.turned(np.eye(3), 'y') @ mesh_files.turned(np.eye(3), up).T
    )
    place = np.eye(4)
    place[:3, 3] = middle
    mesh = trimesh.Trimesh(vertices - middle, faces, process=False)
    scene = trimesh.Scene()
    scene.add_geometry(mesh, transform=turn @ place)
    return scene.export(file_type='glb')
  lost = float(np.spacing(np.float32(abs(vertices).max())))
  if lost > 100 * _ROUNDED * step:
    logging.warning(
      'Coordinates up to %.0f are rounded to %.2g in %s; obj, ply and glb keep '
      'them.',
      abs(vertices).max(),
      lost,
      kind,
    )
  return trimesh.Trimesh(vertices, faces, process=False).export(file_type=kind)


def _text(vertices, faces, kind, step):
  largest = max(abs(vertices).max(), step)
  digits = max(7, math.ceil(math.log10(largest / (_ROUNDED * step))))
  file = io.BytesIO()
  if kind == 'off':
    file.write(f'OFF\n{len(vertices)} {len(faces)} 0\n'.encode())
  before = {'obj': ('v ', 'f '), 'off': ('', '3 ')}[kind]
  numbers = ' '.join([f'%.{min(digits, 17)}g'] * 3)
  np.savetxt(file, vertices, before[0] + numbers)
  np.savetxt(file, faces + (kind == 'obj'), before[1] + '%d %d %d')
  return file.getvalue()


def _ply(vertices, faces):
  head = (
    'ply\nformat binary_little_endian 1.0\n'
    f'element vertex {len(vertices)}\n'
    'property double x\nproperty double y\nproperty double z\n'
    f'element face {len(faces)}\nproperty list uchar int vertex_indices\n'
    'end_header\n'
  )
  rows = np.empty(len(faces), [('count', 'u1'), ('corners', '<i4', 3)])
  rows['count'], rows['corners'] = 3, faces
  return head.encode() + vertices.astype('<f8').tobytes() + rows.tobytes()
