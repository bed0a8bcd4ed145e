"""Wavefront OBJ: vertices and faces; everything without a surface is left out.

A negative index counts back from its place in the file. A line that ends in a
backslash continues on the next line. Curved surfaces (`surf`) are refused,
since their triangles are not in the file.
"""

import re

import numpy as np

from data_prep.readers import polygons
from data_prep.readers import text

_REFUSED = {
  b'surf': 'a curved surface (surf)',
  b'call': 'another file (call)',
  b'bzp': 'a patch (bzp)',
  b'bsp': 'a patch (bsp)',
  b'cdp': 'a patch (cdp)',
}

# The part of `vertex/texture/normal` that is not read.
_TAIL = re.compile(rb'/-?\d*(?:/-?\d*)?(?!\S)')


def read(data: bytes) -> tuple[np.ndarray, np.ndarray]:
  r"""Reads OBJ; see `data_prep.readers`.

  >>> read(b'v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2/1 3//1')[1].tolist()
  [[0, 1, 2]]
  """
  data = text.plain(data)
  if b'\r' in data:
    data = data.replace(b'\r\n', b'\n').replace(b'\r', b'\n')
  if b'\\' in data:  # joins continued lines, and keeps the line numbers.
    data = re.sub(
      rb'((?:[^\n\\]*\\[ \t]*\n)+)([^\n]*)',
      lambda m: re.sub(rb'\\[ \t]*\n', b' ', m[1]) + m[2]
      + b'\n' * m[1].count(b'\n'),
      data,
    )  # fmt: skip
  vertices, faces, before = [], [], []
  for number, line in enumerate(data.split(b'\n'), 1):
    if b'#' in line:
      line = line[: line.index(b'#')]
    # Most lines begin with their keyword; some are indented.
    head, _, rest = line.lstrip().partition(b' ')
    if b'\t' in head:
      head, _, rest = line.strip().replace(b'\t', b' ').partition(b' ')
    head = head.strip()
    if head == b'v':
      vertices.append((number, rest))
    elif head in (b'f', b'fo'):
      faces.append((number, rest))
      before.append(len(vertices))
    elif head in _REFUSED:
      raise ValueError(f'line {number}: {_REFUSED[head]} is not supported')
    elif not vertices and head[:1] in (b'<', b'{', b'\0'):
      raise ValueError(f'not an OBJ file: it has {text.shown(line)}')
  points = _vertices(vertices)
  counts, corners = _faces(faces, np.array(before, np.int64), len(points))
  return points, polygons.cut(points, counts, corners)


def _vertices(rows) -> np.ndarray:
  """Coordinates; a weight or a colour behind them is left out."""
  if not rows:
    return np.empty((0, 3))
  lengths = np.array([len(rest.split()) for _, rest in rows])
  bad = np.flatnonzero(~np.isin(lengths, (3, 4, 6, 7)))
  if bad.size:
    number, rest = rows[bad[0]]
    raise ValueError(
      f'line {number}: a vertex has three coordinates, got {text.shown(rest)}'
    )
  found = text.numbers(b'\n'.join(rest for _, rest in rows))
  if found is None or found.size != lengths.sum():
    for number, rest in rows:
      text.values(rest, number)
  start = np.cumsum(lengths) - lengths
  return found[start[:, None] + np.arange(3)]


def _faces(rows, before, count: int) -> tuple[np.ndarray, np.ndarray]:
  """How many corners each face has, and their indices from 0."""
  lengths = np.array([len(rest.split()) for _, rest in rows], np.int64)
  every = b'\n'.join(rest for _, rest in rows)
  if b'/' in every:
    if re.search(rb'(?:^|\s)/', every):
      number = next(n for n, r in rows if re.search(rb'(?:^|\s)/', r))
      raise ValueError(f'line {number}: a corner has no vertex')
    every = _TAIL.sub(b'', every)
  found = text.numbers(every)
  if found is None or found.size != lengths.sum():
    for number, rest in rows:
      text.values(_TAIL.sub(b'', rest), number)
  owner = np.repeat(np.arange(len(rows)), lengths)
  with np.errstate(invalid='ignore'):
    whole = found == np.floor(found)
    corners = np.where(found < 0, found + before[owner], found - 1)
    bad = ~(whole & (found != 0) & (corners >= 0) & (corners < count))
  if bad.any():
    at = int(np.argmax(bad))
    line, value = rows[owner[at]][0], found[at]
    if not whole[at]:
      raise ValueError(f'line {line}: index {value:g} is not a whole number')
    if value == 0:
      raise ValueError(f'line {line}: index 0, but the first vertex is 1')
    raise ValueError(
      f'line {line}: index {value:.0f} out of range: there are '
      f'{before[owner[at]] if value < 0 else count} vertices'
    )
  return lengths, corners.astype(np.int64)
