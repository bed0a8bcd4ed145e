"""STL, binary and as text."""

from collections.abc import Iterator
import re

import numpy as np

from data_prep.readers import polygons
from data_prep.readers import text

_HEAD, _TRIANGLE = 84, 50  # bytes.
_STARTS = re.compile(
  rb'\s+(?=(?:facet\s+normal|outer\s+loop|vertex|end\s*(?:loop|facet|solid))\b)'
)
_FIRST_FACET = re.compile(rb'\s+(?=facet\s+normal\b)')


def read(data: bytes) -> tuple[np.ndarray, np.ndarray]:
  """Reads STL; see `data_prep.readers`.

  The length tells binary from text: some binary files begin with `solid`, too,
  and some have 0 as their number of triangles.
  """
  size = len(data)
  count = int.from_bytes(data[80:84], 'little') if size >= _HEAD else 0
  promised = _HEAD + _TRIANGLE * count
  if size >= _HEAD and size == promised and count:
    return _binary(data, count)
  body = text.plain(data)
  if re.match(rb'\s*solid\b', body, re.IGNORECASE) and (
    # Text has no such bytes, and nearly every binary file has some.
    b'\0' not in body
  ):
    return _text(body)
  if size < _HEAD:
    raise ValueError(f'truncated: {_HEAD} bytes promised, but it has {size}')
  if not count and size > _HEAD and (size - _HEAD) % _TRIANGLE == 0:
    return _binary(data, (size - _HEAD) // _TRIANGLE)
  if size < promised:
    raise ValueError(
      f'truncated: {promised} bytes promised for {count} triangles, but it has '
      f'{size}'
    )
  if data[promised:].strip(b'\0\r\n\t '):
    raise ValueError(
      f'there are {size - promised} more bytes after the {count} triangles '
      'of the header'
    )
  return _binary(data, count)


def _binary(data: bytes, count: int):
  record = np.dtype(
    [('normal', '<f4', 3), ('corners', '<f4', (3, 3)), ('colour', '<u2')]
  )
  rows = np.frombuffer(data, record, count, _HEAD)
  vertices = rows['corners'].reshape(-1, 3).astype(np.float64)
  return vertices, np.arange(3 * count).reshape(-1, 3)


def _statements(data: bytes) -> Iterator[tuple[int, bytes, list[bytes]]]:
  """Yields the number of a line, one of its statements, and its words."""
  for number, line in enumerate(data.lower().splitlines(), 1):
    words = line.split()
    if len(words) == 4 and words[0] == b'vertex':
      yield number, line, words
      continue
    # The name of a solid may be any words.
    if words[:1] == [b'solid']:
      line, *rest = _FIRST_FACET.split(line, maxsplit=1)
      yield number, line, line.split()
      line = rest[0] if rest else b''
    for part in _STARTS.split(line):
      yield number, part, part.split()


def _text(data: bytes):
  """Facets of a text file; keywords may be in upper or lower case."""
  vertices, counts, closed = [], [], True
  solids = ends = 0
  for number, line, words in _statements(data):
    if words[:1] == [b'end']:  # some write it apart.
      words = [b''.join(words[:2])]
    word = words[0] if words else b''
    if word == b'vertex':
      if closed:
        raise ValueError(f'line {number}: a vertex outside of a facet')
      if len(words) != 4:
        raise ValueError(
          f'line {number}: a vertex has three coordinates, got '
          f'{text.shown(line)}'
        )
      vertices.append((number, b' '.join(words[1:])))
      counts[-1] += 1
    elif word == b'facet':
      if not closed:
        raise ValueError(f'line {number}: the facet before has no end')
      closed = False
      counts.append(0)
    elif word == b'endfacet':
      if counts and counts[-1] < 3:
        raise ValueError(f'line {number}: a facet of {counts[-1]} vertices')
      closed = True
    elif word == b'solid':
      solids += 1
    elif word == b'endsolid':
      ends += 1
  if not closed or ends < solids:
    raise ValueError(
      f'truncated: it has {ends} endsolid for {solids} solid'
      if ends
      else 'truncated: it has no endsolid'
    )
  found = text.numbers(b'\n'.join(rest for _, rest in vertices))
  if found is None or found.size != 3 * len(vertices):
    for number, rest in vertices:
      text.values(rest, number)
  points = found.reshape(-1, 3)
  return points, polygons.cut(points, np.array(counts), np.arange(len(points)))
