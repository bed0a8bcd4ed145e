"""Clouds of points as text: XYZ, a point a line.

x, y, z and whatever else a scanner writes behind them, which is left out. Words
are apart by white space, commas or semicolons; `#` and `//` begin a comment.
The first line may be the number of points, or the names of the columns.
"""

import re

import numpy as np

from data_prep.readers import text


def read(data: bytes) -> tuple[np.ndarray, np.ndarray]:
  r"""Reads XYZ; there are no triangles. See `data_prep.readers`.

  >>> read(b'x,y,z\n0,0,1\n2,3,4')[0].tolist()
  [[0.0, 0.0, 1.0], [2.0, 3.0, 4.0]]
  """
  data = text.plain(data).replace(b'\r\n', b'\n').replace(b'\r', b'\n')
  data = re.sub(rb'(?:#|//)[^\n]*', b'', data)
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
  points = found.reshape(len(rows), -1)[:, :3]
  return np.ascontiguousarray(points), np.empty((0, 3), np.int64)
