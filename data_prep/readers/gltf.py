"""glTF 2.0, as one file (`.glb`) and as JSON (`.gltf`).

Reads all meshes of the scene with the transforms of their nodes: triangles,
strips and fans. Points and lines have no surface and are left out. Positions
are those of the file, with y up. Compressed meshes and skins are refused, with
an error that names them.
"""

import base64
from collections.abc import Callable
from collections.abc import Mapping
import json
from typing import Any
from typing import NamedTuple
import urllib.parse

import numpy as np

from data_prep.readers import text

_MAGIC = b'glTF'
_TYPES = {5120: 'i1', 5121: 'u1', 5122: 'i2', 5123: 'u2', 5125: 'u4',
          5126: 'f4'}  # fmt: skip
_WIDTHS = {'SCALAR': 1, 'VEC2': 2, 'VEC3': 3, 'VEC4': 4}
_DEPTH = 1000  # of nodes in nodes.
_REFUSED = ('KHR_draco_mesh_compression', 'EXT_meshopt_compression')


class _File(NamedTuple):
  """What is known of a file: its JSON, its binary chunk, and its buffers."""

  scene: Mapping[str, Any]
  binary: bytes | None
  resolve: Callable[[str], bytes] | None
  buffers: dict[int, bytes]


def read(
  data: bytes, resolve: Callable[[str], bytes] | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Reads glTF; see `data_prep.readers`.

  Args:
    data: the content of the file.
    resolve: gives the content of another file by its relative name; None: a
      file that needs others is refused.
  """
  binary = None
  if data.startswith(_MAGIC):
    data, binary = _chunks(data)
  try:
    scene = json.loads(text.plain(data))
  except ValueError as error:
    raise ValueError(f'its JSON cannot be read: {error}') from None
  version = str(_get(_get(scene, 'asset', {}), 'version', ''))
  if not version.startswith('2'):
    raise ValueError(f'its glTF version is {version!r}; only 2.0 is supported')
  for name in _get(scene, 'extensionsRequired', []):
    if name in _REFUSED:
      raise ValueError(f'it is compressed ({name}): save it uncompressed')
  try:
    return _scene(_File(scene, binary, resolve, {}))
  except (KeyError, IndexError, TypeError, AttributeError) as error:
    raise ValueError(
      f'not a glTF scene: {type(error).__name__} {error}'
    ) from None


def _get(where: Any, key: str, default: Any) -> Any:
  if not isinstance(where, Mapping):
    raise ValueError('not a glTF scene: its JSON is not an object')
  return where.get(key, default)


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
  """The JSON and the binary chunk of a GLB file."""
  version = int.from_bytes(data[4:8], 'little')
  length = int.from_bytes(data[8:12], 'little')
  if version != 2:
    raise ValueError(f'its GLB version is {version}; only 2 is supported')
  if length > len(data) or length < 20:
    raise ValueError(
      f'truncated: {length} bytes promised, but it has {len(data)}'
    )
  found, at = {}, 12
  while at + 8 <= length:
    size = int.from_bytes(data[at : at + 4], 'little')
    if at + 8 + size > length:
      raise ValueError(
        f'truncated: a chunk of {size} bytes where {length - at - 8} are left'
      )
    found.setdefault(data[at + 4 : at + 8], data[at + 8 : at + 8 + size])
    at += 8 + size
  if b'JSON' not in found:
    raise ValueError('it has no JSON chunk')
  return found[b'JSON'], found.get(b'BIN\0')


def _scene(file: _File) -> tuple[np.ndarray, np.ndarray]:
  """Corners and triangles of all nodes of the scene."""
  scene = file.scene
  nodes, meshes = scene.get('nodes', []), scene.get('meshes', [])
  if scene.get('scenes'):
    roots = scene['scenes'][scene.get('scene', 0)].get('nodes', [])
  else:
    inner = {child for node in nodes for child in node.get('children', [])}
    roots = [i for i in range(len(nodes)) if i not in inner]
  placed = []  # mesh, transform, and weights of its morphs.
  if not nodes:
    placed = [(mesh, np.eye(4), []) for mesh in range(len(meshes))]
  todo = [(root, np.eye(4), 0) for root in reversed(roots)]
  while todo:
    i, outer, depth = todo.pop()
    if depth > min(_DEPTH, len(nodes)):
      raise ValueError(f'node {i} is part of itself')
    node = nodes[_index(i, nodes, 'node')]
    matrix = outer @ _matrix(node, i)
    todo += [(c, matrix, depth + 1) for c in reversed(node.get('children', []))]
    if 'mesh' not in node:
      continue
    if 'skin' in node:
      raise ValueError(f'node {i} has a skin, which is not supported')
    if 'EXT_mesh_gpu_instancing' in node.get('extensions', {}):
      raise ValueError(
        f'node {i} has instances (EXT_mesh_gpu_instancing), which are not '
        'supported'
      )
    placed.append((node['mesh'], matrix, node.get('weights', [])))
  vertices, faces, start = [np.empty((0, 3))], [np.empty((0, 3), np.int64)], 0
  for number, matrix, weights in placed:
    mesh = meshes[_index(number, meshes, 'mesh')]
    if any(weights or mesh.get('weights', [])):
      raise ValueError(f'mesh {number} is morphed, which is not supported')
    for primitive in mesh['primitives']:
      points, triangles = _primitive(file, primitive)
      points = points @ matrix[:3, :3].T + matrix[:3, 3]
      vertices.append(points)
      faces.append(triangles + start)
      start += len(points)
  return np.concatenate(vertices), np.concatenate(faces)


def _index(i: Any, entries, what: str) -> int:
  if not isinstance(i, int) or not 0 <= i < len(entries):
    raise ValueError(f'{what} {i} out of range: there are {len(entries)}')
  return i


def _matrix(node, number: int) -> np.ndarray:
  """The transform of a node: a matrix, or scale, rotation and translation."""
  if 'matrix' in node:
    return np.array(node['matrix'], np.float64).reshape(4, 4).T
  x, y, z, w = node.get('rotation', (0, 0, 0, 1))
  if not abs(x * x + y * y + z * z + w * w - 1) < 0.01:
    raise ValueError(
      f'node {number} has the rotation {[x, y, z, w]}, whose length is not 1'
    )
  matrix = np.eye(4)
  matrix[:3, :3] = [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ]
  matrix[:3, :3] *= np.array(node.get('scale', (1, 1, 1)), np.float64)
  matrix[:3, 3] = node.get('translation', (0, 0, 0))
  return matrix


def _primitive(file: _File, primitive) -> tuple[np.ndarray, np.ndarray]:
  """Corners and triangles of a part of a mesh."""
  for name in _REFUSED:
    if name in primitive.get('extensions', {}):
      raise ValueError(f'it is compressed ({name}): save it uncompressed')
  points = _accessor(file, primitive['attributes']['POSITION']).astype(float)
  if points.shape[1:] != (3,):
    raise ValueError('positions must have three coordinates')
  if 'indices' in primitive:
    corners = _accessor(file, primitive['indices']).reshape(-1)
    text.check_indices(corners, len(points))
    corners = corners.astype(np.int64)
  else:
    corners = np.arange(len(points))
  mode = primitive.get('mode', 4)
  if mode in (0, 1, 2, 3):  # points and lines.
    corners = corners[:0]
  if mode == 5:
    rows = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    rows[1::2] = rows[1::2, ::-1]
  elif mode == 6:
    first = np.repeat(corners[:1], max(0, len(corners) - 2))
    rows = np.stack([first, corners[1:-1], corners[2:]], axis=1)
  elif mode in (0, 1, 2, 3, 4):
    if len(corners) % 3:
      raise ValueError(
        f'triangles need a multiple of 3 corners, got {len(corners)}'
      )
    rows = corners.reshape(-1, 3)
  else:
    raise ValueError(f'mode {mode} of a primitive is unknown')
  return points, rows


def _accessor(file: _File, number: int) -> np.ndarray:
  """The numbers that an accessor describes, `(n, width)`."""
  accessors = file.scene['accessors']
  accessor = accessors[_index(number, accessors, 'accessor')]
  count, width = accessor['count'], _WIDTHS[accessor['type']]
  kind = _kind(accessor['componentType'])
  if 'bufferView' in accessor:
    values = _view(
      file, accessor['bufferView'], accessor.get('byteOffset', 0), kind, count,
      width,
    )  # fmt: skip
  else:  # zeros, which take no bytes; a very large number is an error.
    if count > 1 << 24:
      raise ValueError(f'accessor {number} promises {count} zeros')
    values = np.zeros((count, width), kind)
  if 'sparse' in accessor:
    sparse, values = accessor['sparse'], values.copy()
    where, new = sparse['indices'], sparse['values']
    rows = _view(
      file, where['bufferView'], where.get('byteOffset', 0),
      _kind(where['componentType']), sparse['count'], 1,
    )[:, 0]  # fmt: skip
    text.check_indices(rows, count, f'accessor {number}')
    values[rows] = _view(
      file, new['bufferView'], new.get('byteOffset', 0), kind,
      sparse['count'], width,
    )  # fmt: skip
  if accessor.get('normalized') and kind.kind != 'f':
    values = np.maximum(values / np.iinfo(kind).max, -1.0)
  return values


def _kind(number: int) -> np.dtype:
  if number not in _TYPES:
    raise ValueError(f'numbers of type {number} are unknown')
  return np.dtype('<' + _TYPES[number])


def _view(file: _File, number, offset, kind, count, width) -> np.ndarray:
  """Numbers `(count, width)` of a part of a buffer."""
  views = file.scene['bufferViews']
  view = views[_index(number, views, 'bufferView')]
  for name in _REFUSED:
    if name in view.get('extensions', {}):
      raise ValueError(f'it is compressed ({name}): save it uncompressed')
  buffer = _buffer(file, view['buffer'])
  size = width * kind.itemsize
  stride = view.get('byteStride', 0) or size
  start = view.get('byteOffset', 0) + offset
  if min(count, offset, start) < 0 or stride < size:
    raise ValueError(f'bufferView {number} has the invalid stride {stride}')
  end = start + stride * (count - 1) + size if count else start
  if end > len(buffer):
    raise ValueError(
      f'truncated: {end} bytes of a buffer needed, but it has {len(buffer)}'
    )
  if not count:
    return np.empty((0, width), kind)
  return np.ndarray(
    (count, width), kind, buffer, start, (stride, kind.itemsize)
  )


def _buffer(file: _File, number: int) -> bytes:
  if number not in file.buffers:
    buffers = file.scene['buffers']
    uri = buffers[_index(number, buffers, 'buffer')].get('uri')
    if uri is None:
      if number or file.binary is None:
        raise ValueError(f'buffer {number} has no content')
      content = file.binary
    elif uri.startswith('data:'):
      head, _, coded = uri.partition(',')
      if not head.endswith(';base64'):
        raise ValueError(f'buffer {number} is not encoded in base64')
      content = base64.b64decode(coded)
    elif file.resolve is None:
      raise ValueError(f'buffer {number} is in another file, {uri!r}')
    else:
      content = file.resolve(urllib.parse.unquote(uri))
    file.buffers[number] = content
  return file.buffers[number]
