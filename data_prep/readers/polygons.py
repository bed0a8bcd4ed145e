"""Polygons cut into triangles."""

import numpy as np


def cut(
  vertices: np.ndarray, counts: np.ndarray, corners: np.ndarray
) -> np.ndarray:
  """Triangles of polygons of any size.

  A polygon is cut into a fan from its first corner if the fan covers it, as for
  a convex one, and otherwise by ear clipping. Polygons with fewer than three
  corners, which are points and lines, have no triangles.

  Args:
    vertices: `(v, 3)`.
    counts: `(p,)` how many corners each polygon has.
    corners: `(sum of counts,)` indices of the corners, in order.

  Returns:
    int64 `(m, 3)`, in the order of the polygons.

  >>> square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
  >>> cut(square, np.array([4]), np.array([0, 1, 2, 3])).tolist()
  [[0, 1, 2], [0, 2, 3]]
  """
  counts = np.asarray(counts, np.int64)
  corners = np.asarray(corners, np.int64)
  if (counts == 3).all():
    return corners.reshape(-1, 3)
  first = np.cumsum(counts) - counts
  triangles, owner = [], []
  for n in np.unique(counts[counts >= 3]):
    chosen = np.flatnonzero(counts == n)
    polygon = corners[first[chosen][:, None] + np.arange(n)]
    # A few at a time: as many triangles are looked at as there are corners.
    step = max(1, (1 << 20) // int(n))
    for at in range(0, len(chosen), step):
      found, by = _cut_equal(vertices, polygon[at : at + step])
      triangles.append(found)
      owner.append(chosen[at : at + step][by])
  if not triangles:
    return np.empty((0, 3), np.int64)
  order = np.argsort(np.concatenate(owner), kind='stable')
  return np.concatenate(triangles)[order]


def _cut_equal(vertices, polygons):
  """Triangles of polygons `(p, n)`, and the polygon of each."""
  count, n = polygons.shape
  fans = np.stack(
    [
      np.repeat(polygons[:, :1], n - 2, axis=1),
      polygons[:, 1:-1],
      polygons[:, 2:],
    ],
    axis=2,
  )
  owner = np.repeat(np.arange(count), n - 2)
  if n == 3:
    return fans.reshape(-1, 3), owner
  points = vertices[polygons]
  points = points - points[:, :1]
  with np.errstate(all='ignore'):  # NaN and such are refused later.
    double = np.cross(points[:, 1:-1], points[:, 2:])
    normal = double.sum(axis=1)
    area = (double * normal[:, None]).sum(axis=2)
    bent = (area < -1e-9 * (normal**2).sum(axis=1)[:, None]).any(axis=1)
  bent &= np.isfinite(area).all(axis=1) & normal.any(axis=1)
  for i in np.flatnonzero(bent):
    fans[i] = polygons[i][_ears(_flat(points[i], normal[i]))]
  return fans.reshape(-1, 3), owner


def _flat(points, normal):
  """Coordinates `(n, 2)` in the plane of a polygon, counter-clockwise."""
  drop = int(np.argmax(abs(normal)))
  u, v = ((1, 2), (2, 0), (0, 1))[drop]
  flat = points[:, [u, v]] / (np.abs(points).max() or 1.0)
  return flat if normal[drop] > 0 else flat * (1, -1)


def _ears(flat) -> np.ndarray:
  """Triangles `(n - 2, 3)` of a simple polygon, by its own indices.

  A polygon that crosses itself may run out of ears; then its most convex corner
  is cut off.
  """
  left = list(range(len(flat)))
  found = []
  at = 0
  while len(left) > 3:
    n = len(left)
    rest = flat[left]
    before, after = np.roll(rest, 1, axis=0), np.roll(rest, -1, axis=0)
    turn = _turn(before, rest, after)
    reflex = rest[turn <= 0]
    for i in (*range(at, n), *range(at)):
      if turn[i] <= 0:
        continue
      corners = before[i], rest[i], after[i]
      inside = np.ones(len(reflex), bool)
      for k in range(3):
        inside &= _turn(corners[k], corners[(k + 1) % 3], reflex) >= -1e-15
        # The ear's own corners, and their copies where a hole is joined.
        inside &= (reflex != corners[k]).any(axis=1)
      if not inside.any():
        break
    else:
      # What is left is flat, or crosses itself.
      i = (
        int(np.argmax(turn)) if (turn > 0).any() else int(np.argmin(abs(turn)))
      )
    found.append((left[i - 1], left[i], left[(i + 1) % n]))
    del left[i]
    # The search goes on behind this ear, so that ears do not share one corner.
    at = i % len(left)
  found.append(tuple(left))
  return np.array(found)


def _turn(a, b, c):
  """Twice the area of triangles, positive where they turn to the left."""
  return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (
    b[..., 1] - a[..., 1]
  ) * (c[..., 0] - a[..., 0])
