"""Clouds of points as text: XYZ, a point a line.

A line has x, y, z; further columns of a scanner are left out. Words are
separated by white space, commas or semicolons; `#` and `//` begin a comment.
The first line may be the number of points, or the names of the columns. Commas
in numbers (`0,5`) and a first column that counts the points are refused.
"""

import re

import numpy as np

from data_prep.readers import text

_COMMA = re.compile(rb'\d,\d')
# Two words that are separated without a comma.
_APART = re.compile(rb'[^\s,;][ \t]*[ \t;][ \t]*[^\s,;]')


def read(data: bytes) -> tuple[np.ndarray, np.ndarray]:
  r"""Reads XYZ; there are no triangles. See `data_prep.readers`.

  >>> read(b'x,y,z\n0,0,1\n2,3,4')[0].tolist()
  [[0.0, 0.0, 1.0], [2.0, 3.0, 4.0]]
  """
  data = text.plain(data).replace(b'\r\n', b'\n').replace(b'\r', b'\n')
  data = re.sub(rb'(?:#|//)[^\n]*', b'', data)
  _check_commas(data)
  data = data.replace(b',', b' ').replace(b';', b' ')
  rows = [(i, row) for i, row in enumerate(data.split(b'\n'), 1) if row.strip()]
  count = None
  if rows:
    words = rows[0][1].split()
    if len(words) == 1 and words[0].isdigit():
      count, rows = int(words[0]), rows[1:]
    elif [word.strip(b'"').lower() for word in words[:3]] == [b'x', b'y', b'z']:
      rows = rows[1:]
  lengths = np.array([len(row.split()) for _, row in rows], np.int64)
  bad = np.flatnonzero((lengths < 3) | (lengths != lengths[:1]))
  if bad.size:
    number, row = rows[bad[0]]
    raise ValueError(
      f'line {number}: {text.shown(row)} has {lengths[bad[0]]} numbers, not '
      f'{max(3, int(lengths[0]))}'
    )
  if count is not None and count != len(rows):
    raise ValueError(f'{count} points promised, but {len(rows)} lines follow')
  found = text.numbers(b'\n'.join(row for _, row in rows))
  if found is None or found.size != lengths.sum():
    for number, row in rows:
      text.values(row, number)
  if not rows:
    raise ValueError('no points')
  table = found.reshape(len(rows), -1)
  if table.shape[1] > 3 and len(rows) > 3 and (np.diff(table[:, 0]) == 1).all():
    raise ValueError(
      f'its first column counts from {table[0, 0]:g} to {table[-1, 0]:g}: '
      'these number the points and are not x; remove that column'
    )
  return np.ascontiguousarray(table[:, :3]), np.empty((0, 3), np.int64)


def _check_commas(data: bytes) -> None:
  """Raises ValueError where a comma is within a number, as in `0,5 1,25`."""
  if b',' not in data:
    return
  for number, row in enumerate(data.split(b'\n'), 1):
    if _COMMA.search(row) and _APART.search(row):
      raise ValueError(
        f'line {number}: {text.shown(row)} has commas in its numbers, or '
        'between some of them only: write 0.5, not 0,5'
      )
