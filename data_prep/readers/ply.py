"""Stanford PLY: text and binary of both byte orders, in any order of elements.

Read are the elements `vertex` (properties x, y, z), `face` (a list named
vertex_indices or vertex_index) and `tristrips` (likewise; -1 ends a strip).
All other elements and properties are ignored.
"""

from collections.abc import Sequence
import re
from typing import NamedTuple

import numpy as np

from data_prep.readers import polygons
from data_prep.readers import text

_TYPES = {
  'char': 'i1', 'uchar': 'u1', 'short': 'i2', 'ushort': 'u2', 'int': 'i4',
  'uint': 'u4', 'float': 'f4', 'double': 'f8', 'int8': 'i1', 'uint8': 'u1',
  'int16': 'i2', 'uint16': 'u2', 'int32': 'i4', 'uint32': 'u4',
  'float32': 'f4', 'float64': 'f8', 'int64': 'i8', 'uint64': 'u8',
}  # fmt: skip
_ORDERS = {'ascii': '', 'binary_little_endian': '<', 'binary_big_endian': '>'}
_LISTS = ('vertex_indices', 'vertex_index')


class _Property(NamedTuple):
  """A property: its name, its type, and of a list the type of its length."""

  name: str
  kind: str
  length: str


class _Element(NamedTuple):
  """An element: its name, how many there are, and their properties."""

  name: str
  count: int
  properties: Sequence[_Property]


def read(data: bytes) -> tuple[np.ndarray, np.ndarray]:
  """Reads PLY; see `data_prep.readers`."""
  order, elements, first, body = _header(data)
  if order:
    found = _binary(body, order, elements)
  else:
    found = _text(body, first, elements)
  if not {'x', 'y', 'z'} <= found.get('vertex', {}).keys():
    raise ValueError('it has no element vertex with properties x, y and z')
  points = np.stack([found['vertex'][c] for c in 'xyz'], axis=1)
  points = points.astype(np.float64)
  triangles = np.empty((0, 3), np.int64)
  for name, to_triangles in (('face', polygons.cut), ('tristrips', _strips)):
    if not len(found.get(name, {}).get('', ())):
      continue
    key = next((key for key in _LISTS if key in found[name]), None)
    if key is None:
      raise ValueError(f'element {name} has no list vertex_indices')
    counts, corners = found[name][key]
    if name == 'tristrips':
      ends = corners == -1
      text.check_indices(corners[~ends], len(points), 'a strip')
    else:
      text.check_indices(corners, len(points))
    triangles = np.concatenate(
      [triangles, to_triangles(points, counts, corners.astype(np.int64))]
    )
  return points, triangles


def _strips(points, counts, corners) -> np.ndarray:
  """Triangles of strips, each winding the same way."""
  ends = np.cumsum(counts)
  start = np.flatnonzero(corners == -1)
  cuts = np.unique(np.concatenate([ends, start, start + 1]))
  triangles = []
  for strip in np.split(corners, cuts):
    if len(strip) >= 3 and strip[0] != -1:
      rows = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
      rows[1::2] = rows[1::2, [1, 0, 2]]
      triangles.append(rows)
  return np.concatenate(triangles) if triangles else np.empty((0, 3), np.int64)


def _header(data: bytes):
  """Byte order, elements, number of the line after the header, and the rest."""
  data = data.removeprefix(b'\xef\xbb\xbf')
  if not re.match(rb'ply\s', data):
    raise ValueError(f'not a PLY file: it begins with {text.shown(data[:40])}')
  end = re.search(rb'[\r\n]end_header[ \t]*(\r\n|\n|\r)', data)
  if not end:
    raise ValueError('truncated: its header has no end')
  order, elements = None, []
  lines = data[: end.start()].replace(b'\r\n', b'\n').replace(b'\r', b'\n')
  rows = lines.decode('latin-1').split('\n')
  for number, line in enumerate(rows, 1):
    words = line.split()
    if not words or words[0] in ('ply', 'comment', 'obj_info'):
      continue
    try:
      if words[0] == 'format':
        order = _ORDERS[words[1]]
      elif words[0] == 'element':
        if not words[2].isascii() or not words[2].isdigit():
          raise ValueError
        elements.append(_Element(words[1], int(words[2]), []))
      elif words[0] == 'property' and words[1] == 'list':
        elements[-1].properties.append(
          _Property(words[4], _TYPES[words[3]], _TYPES[words[2]])
        )
      elif words[0] == 'property':
        elements[-1].properties.append(
          _Property(words[2], _TYPES[words[1]], '')
        )
      else:
        raise ValueError
    except (KeyError, IndexError, ValueError):
      raise ValueError(
        f'line {number}: {text.shown(line.encode())} is not valid in the '
        'header of a PLY file'
      ) from None
  if order is None:
    raise ValueError('its header names no format')
  # Every element takes at least a byte, so a larger count must be wrong.
  body = data[end.end() :]
  for element in elements:
    if element.properties and element.count > len(body):
      raise ValueError(
        f'truncated: {element.count} of element {element.name} promised in '
        f'{len(body)} bytes'
      )
  return order, elements, len(rows) + 2, body


def _binary(body: bytes, order: str, elements: Sequence[_Element]):
  """Properties of each element, by name; lists as lengths and items."""
  found, at = {}, 0
  for element in elements:
    found[element.name], at = _binary_element(body, at, order, element)
  if body[at:].strip(b'\0\r\n\t '):
    raise ValueError(
      f'there are {len(body) - at} more bytes after the last element'
    )
  return found


def _binary_element(body: bytes, at: int, order: str, element: _Element):
  lists = [p for p in element.properties if p.length]
  lengths = ()
  if element.count and lists:
    # In most files all lists have one length, so all rows have one size.
    lengths, _ = _one_row(body, at, order, element)
  fields = []
  sizes = iter(lengths)
  for i, p in enumerate(element.properties):
    if p.length:
      fields.append((f'n{i}', order + p.length))
      fields.append((f'v{i}', order + p.kind, (next(sizes, 0),)))
    else:
      fields.append((f'v{i}', order + p.kind))
  record = np.dtype(fields)
  size = record.itemsize * element.count
  content = {'': range(element.count)}
  if at + size <= len(body):
    rows = np.frombuffer(body, record, element.count, at)
    same = all(
      (rows[f'n{i}'] == n).all()
      for i, n in zip(
        (i for i, p in enumerate(element.properties) if p.length),
        lengths,
        strict=False,
      )
    )
    if same:
      for i, p in enumerate(element.properties):
        value = rows[f'v{i}']
        if p.length:
          value = rows[f'n{i}'].astype(np.int64), value.reshape(-1)
        content[p.name] = value
      return content, at + size
  elif not lists:
    raise _ends(element)
  # Rows of several sizes: one after another.
  columns = {p.name: ([], []) for p in element.properties}
  for _ in range(element.count):
    _, at = _one_row(body, at, order, element, columns)
  for p in element.properties:
    counts, values = columns[p.name]
    value = np.concatenate(values) if values else np.empty(0, order + p.kind)
    content[p.name] = (np.array(counts, np.int64), value) if p.length else value
  return content, at


def _ends(element: _Element) -> ValueError:
  return ValueError(
    f'truncated: it ends within the {element.count} of element {element.name}'
  )


def _one_row(body, at, order, element, columns=None):
  """The lengths of the lists of one row, and where the next one begins."""
  lengths = []
  for p in element.properties:
    n = 1
    if p.length:
      kind = np.dtype(order + p.length)
      if at + kind.itemsize > len(body):
        raise _ends(element)
      n = np.frombuffer(body, kind, 1, at)[0]
      if not 0 <= n <= len(body) or n != int(n):
        raise ValueError(f'a list of element {element.name} has length {n}')
      n = int(n)
      at += kind.itemsize
      lengths.append(n)
    kind = np.dtype(order + p.kind)
    if at + n * kind.itemsize > len(body):
      raise _ends(element)
    if columns is not None:
      columns[p.name][0].append(n)
      columns[p.name][1].append(np.frombuffer(body, kind, n, at))
    at += n * kind.itemsize
  return lengths, at


def _text(body: bytes, first: int, elements: Sequence[_Element]):
  """As `_binary`, of text: white space is white space."""
  body = body.replace(b'\r\n', b'\n').replace(b'\r', b'\n')
  values, lines = text.values(body, first)
  found, at = {}, 0
  for element in elements:
    found[element.name], at = _text_element(values, lines, at, element)
  if at < len(values):
    raise ValueError(f'line {lines[at]}: there is more after the last element')
  return found


def _text_element(values, lines, at: int, element: _Element):
  count, properties = element.count, element.properties
  if not any(p.length for p in properties):
    width = len(properties)
    rows = values[at : at + count * width]
    if len(rows) < count * width:
      raise ValueError(
        f'truncated: {count} of element {element.name} promised, but only '
        f'{len(rows) // width} follow'
      )
    rows = rows.reshape(count, width)
    content = {p.name: rows[:, i] for i, p in enumerate(properties)}
    return content | {'': range(count)}, at + count * width
  columns = {p.name: ([], []) for p in properties}
  for i in range(count):
    for p in properties:
      n = 1
      if p.length:
        if at >= len(values):
          raise ValueError(
            f'truncated: {count} of element {element.name} promised, but only '
            f'{i} follow'
          )
        n = text.whole(values[at], lines[at], f'items of {p.name}')
        at += 1
      if at + n > len(values):
        raise ValueError(
          f'truncated: {element.name} {i} of {count} is not whole'
        )
      columns[p.name][0].append(n)
      columns[p.name][1].append(values[at : at + n])
      if p.name in _LISTS:
        for k in range(at, at + n):
          if values[k] != -1 or element.name != 'tristrips':
            text.index(values[k], 1 << 53, f'line {lines[k]}')
      at += n
  content = {'': range(count)}
  for p in properties:
    counts, found = columns[p.name]
    value = np.concatenate(found) if found else np.empty(0)
    content[p.name] = (np.array(counts, np.int64), value) if p.length else value
  return content, at
