"""Object File Format of Geomview: OFF and its dialects.

`[ST][C][N][4][n]OFF [BINARY]`: texture coordinates, colours, normals, a fourth
coordinate (by which the others are divided), n-space. Colours of faces and
vertices are left out. `#` begins a comment anywhere. Line breaks count as any
white space where that is possible; the colour of a face ends with its line.
"""

import re

import numpy as np

from data_prep.readers import polygons
from data_prep.readers import text

_HEAD = re.compile(rb'(ST)?(C)?(N)?(4)?(n)?OFF|()()()()()off')


def read(data: bytes) -> tuple[np.ndarray, np.ndarray]:
  """Reads OFF; see `data_prep.readers`.

  >>> read(b'OFF3 1 0 0 0 0 1 0 0 0 1 0 3 0 1 2')[1].tolist()
  [[0, 1, 2]]
  """
  data = text.plain(data)
  binary = re.match(rb'\s*(\S*OFF)[ \t]+BINARY[ \t]*\r?\n', data)
  if binary:
    _head(binary[1], binary[1])
    if binary[1] != b'OFF':
      raise ValueError(
        f'binary {binary[1].decode()} is not supported, only binary OFF'
      )
    return _read_binary(data[binary.end() :])
  if b'#' in data:
    data = re.sub(rb'#[^\r\n]*', b'', data)
  if b'\r' in data:
    data = data.replace(b'\r\n', b'\n').replace(b'\r', b'\n')
  words = data.split(None, 1)
  if not words:
    raise ValueError('empty file')
  head, kinds = _head(words[0], data)
  start = data.index(head) + len(head)
  if kinds['n']:
    # Its first number is that of dimensions.
    match = re.match(rb'\s*(\d+)', data[start:])
    if not match or int(match[1]) != 3 or kinds['4']:
      raise ValueError(
        f'{head.decode()} must have 3 dimensions; others are not supported'
      )
    start += match.end()
  mesh = _read_triangles(data[start:]) if head in (b'OFF', b'off') else None
  if mesh is None:
    mesh = _read_lines(data, start, kinds)
  vertices, counts, corners = mesh
  text.check_indices(corners, len(vertices))
  return vertices, polygons.cut(vertices, counts, corners)


def _head(word: bytes, data: bytes):
  """The header that a word is, or begins with, and what it asks for."""
  match = _HEAD.match(word)
  if not match:
    raise ValueError(f'not an OFF file: it begins with {text.shown(data[:60])}')
  names = ('ST', 'C', 'N', '4', 'n')
  return match[0], dict(zip(names, match.groups()[:5], strict=True))


def _read_triangles(data: bytes):
  """Triangles and nothing else, quickly; None where there is anything more."""
  numbers = text.numbers(data)
  if numbers is None or numbers.size < 3 or not np.isfinite(numbers[:3]).all():
    return None
  v, m = int(numbers[0]), int(numbers[1])
  if v < 0 or m <= 0 or numbers.size != 3 + 3 * v + 4 * m:
    return None
  faces = numbers[3 + 3 * v :].reshape(m, 4)
  if (faces[:, 0] != 3).any():
    return None
  corners = faces[:, 1:]
  inside = (corners >= 0) & (corners < v) & (corners == np.floor(corners))
  if not inside.all():
    return None  # the slower reader names the line of an error.
  vertices = numbers[3 : 3 + 3 * v].reshape(v, 3)
  return vertices, np.full(m, 3), corners.astype(np.int64).ravel()


def _read_lines(data: bytes, start: int, kinds):
  """Everything else, slower."""
  values, lines = text.values(data[start:], data[:start].count(b'\n') + 1)
  if values.size < 2:
    raise ValueError('no counts of vertices and faces in its header')
  v = text.whole(values[0], lines[0], 'vertices')
  m = text.whole(values[1], lines[1], 'faces')
  # The number of edges, which is not used, may be missing.
  at = 2
  if values.size > 2 and (
    lines[2] == lines[0] or (lines[3:4] != lines[2]).all()
  ):
    text.whole(values[2], lines[2], 'edges')
    at = 3
  if v + m > values.size:
    raise ValueError(
      f'truncated: {v} vertices and {m} faces promised, but only '
      f'{values.size - at} numbers follow'
    )
  values, lines = values[at:], lines[at:]
  width = 4 if kinds['4'] else 3
  base = width + 3 * bool(kinds['N']) + 2 * bool(kinds['ST'])
  if kinds['C']:
    strides = base + 4, base + 3
  else:  # some plain OFF files have colours that the header does not name.
    strides = (base, base + 3, base + 4) if base == 3 else (base,)
  # If the count of numbers fits exactly, lines need not be told apart.
  for stride in strides:
    faces = _stream(values[stride * v :], v, m)
    if faces is not None:
      break
  else:
    stride = _stride(lines, v, m, strides)
    faces = _faces(values[stride * v :], lines[stride * v :], v, m)
  vertices = values[: stride * v].reshape(v, stride)[:, :width]
  if width == 4:
    if not vertices[:, 3].all():
      i = int(np.argmin(abs(vertices[:, 3])))
      raise ValueError(f'vertex {i} lies at infinity: its fourth number is 0')
    vertices = vertices[:, :3] / vertices[:, 3:]
  return vertices, *faces


def _stream(values, v: int, m: int):
  """Faces that are all of the numbers; None where they are not."""
  counts, corners, at, end = [], [], 0, len(values)
  for _ in range(m):
    if at >= end:
      return None
    n = values[at]
    if not 0 <= n <= end - at - 1 or n != int(n):
      return None
    counts.append(int(n))
    corners.append(values[at + 1 : at + 1 + int(n)])
    at += 1 + int(n)
  if at != end:
    return None
  corners = np.concatenate(corners) if corners else np.empty(0)
  inside = (corners >= 0) & (corners < v) & (corners == np.floor(corners))
  return (np.array(counts), corners) if inside.all() else None


def _stride(lines, v: int, m: int, strides) -> int:
  """How many numbers each of the v vertices has, one a line."""
  first = np.flatnonzero(np.diff(lines, prepend=-1))
  length = np.diff(first, append=len(lines))[:v]
  if len(length) < v:
    raise ValueError(
      f'truncated: {v} vertices and {m} faces promised, but only '
      f'{len(first)} lines follow'
    )
  if not v:
    return strides[0]
  bad = np.flatnonzero((length != length[0]) | ~np.isin(length, strides))
  if bad.size:
    wanted = length[0] if length[0] in strides else strides[0]
    raise ValueError(
      f'line {lines[first[bad[0]]]}: vertex {bad[0]} has {length[bad[0]]} '
      f'numbers, not {wanted}'
    )
  return int(length[0])


def _faces(values, lines, v: int, m: int):
  """How many corners each face has, and their indices; colours left out."""
  counts, corners, at, end = np.empty(m, np.int64), [], 0, len(values)
  for i in range(m):
    if at >= end:
      raise ValueError(f'truncated: {m} faces promised, but it has only {i}')
    n = text.whole(values[at], lines[at], f'corners of face {i}')
    if at + 1 + n > end:
      raise ValueError(
        f'truncated: face {i} of {m} has {end - at - 1} of its {n} corners'
      )
    for k in range(at + 1, at + 1 + n):
      corners.append(text.index(values[k], v, f'line {lines[k]}'))
    counts[i] = n
    at += 1 + n
    # The rest of the line is a colour: an index, or three or four numbers.
    rest = int(np.searchsorted(lines[at:], lines[at - 1], 'right'))
    if rest not in (0, 1, 3, 4):
      raise ValueError(
        f'line {lines[at]}: {rest} numbers follow the {n} corners of face {i}; '
        'a colour has 1, 3 or 4'
      )
    at += rest
  if at < end:
    raise ValueError(
      f'line {lines[at]}: there is more after the {v} vertices and {m} faces '
      'of the header'
    )
  return counts, np.array(corners, np.int64)


def _read_binary(data: bytes):
  """What follows `OFF BINARY`: big-endian integers and floats of 4 bytes."""
  if len(data) < 12:
    raise ValueError('truncated: no counts')
  v, m, _ = (int(n) for n in np.frombuffer(data, '>i4', 3))
  if v < 0 or m < 0 or 12 + 12 * v + 8 * m > len(data):
    raise ValueError(
      f'truncated: {v} vertices and {m} faces promised in {len(data)} bytes'
    )
  vertices = np.frombuffer(data, '>f4', 3 * v, 12).reshape(v, 3)
  words = np.frombuffer(data[12 + 12 * v : len(data) // 4 * 4], '>i4')
  counts, corners, at = np.empty(m, np.int64), [], 0
  for i in range(m):
    n = int(words[at]) if at < len(words) else 0
    colour = at + 1 + n
    if at >= len(words) or n < 0 or colour >= len(words):
      raise ValueError(f'truncated: face {i} is not whole')
    counts[i] = n
    corners.append(words[at + 1 : colour])
    if not 0 <= words[colour] <= 4:
      raise ValueError(f'face {i} has a colour of {words[colour]} numbers')
    at = colour + 1 + int(words[colour])
  if at > len(words):
    raise ValueError(f'truncated: face {m - 1} is not whole')
  if 12 + 12 * v + 4 * at < len(data.rstrip(b'\r\n')):
    raise ValueError(f'there is more after the {m} faces of the header')
  corners = np.concatenate(corners) if corners else np.empty(0, np.int64)
  text.check_indices(corners, v)
  mesh = vertices.astype(np.float64)
  return mesh, polygons.cut(mesh, counts, corners)
