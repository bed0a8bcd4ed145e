"""Which voxels are inside a surface, even if the surface has holes.

A flood fill starts outside; the voxels that it does not reach are inside. For a
closed surface that is enough, whatever its windings and inner parts. Through a
hole wider than a voxel the flood gets in. Then lines along x, y and z decide. A
line enters and leaves a shape in turn, so a point is inside if the line crosses
the surface an odd number of times before the point, and again after it. A line
through a hole has an odd number of crossings in all and does not count. Points
that two lines find inside form a room. A room is filled if all three lines
agree at a large enough part of its points, and if nearly all of its border is
surface: so holes here and there do no harm. A box without a lid stays open,
since the lines through its open side do not count.
"""

import math

import numpy as np
from scipy import ndimage

_PAIRS = 1 << 16  # of triangles and rows of lines at a time, for the memory.
# Shift of the lines from the middle of voxels, where edges of meshes often lie.
_SHIFT = np.array([1.3e-4, 0.7e-4, 1.9e-4])
_SAME = 1e-6  # of a voxel: crossings this close are those of a doubled face.
# The least share of a room's points at which all three lines agree, for the
# room to be filled, and for it to be doubtful.
_CLOSED, _DOUBTFUL = 0.3, 0.1
_LEAK = 0.08  # largest share of a room's border that is open. A lid is 1/6.
_SMALL = 0.01  # of a solid: smaller rooms are ignored.
_FEW = 4  # voxels between the lines that tell whether a mesh is a sheet.


def flood(surface: np.ndarray) -> np.ndarray:
  """Solid of a surface: all voxels that a flood from outside does not reach.

  The flood passes from voxel to voxel through faces, not edges or corners.

  Args:
    surface: bool `(D, H, W)`.

  Returns:
    bool `(D, H, W)`.

  >>> shell = np.ones((3, 3, 3), bool)
  >>> shell[1, 1, 1] = False
  >>> int(flood(shell).sum())
  27
  """
  labels, _ = ndimage.label(np.pad(~surface, 1, constant_values=True))
  return labels[1:-1, 1:-1, 1:-1] != labels[0, 0, 0]


def fill(triangles: np.ndarray, surface: np.ndarray) -> tuple[np.ndarray, str]:
  """Solid of a surface, and why it is doubtful.

  Args:
    triangles: `(m, 3, 3)` in voxel units.
    surface: bool `(size, size, size)`, the voxels of the triangles.

  Returns:
    bool `(size, size, size)`; and what is doubtful about it, or ''.
  """
  if not surface.any():
    return surface.copy(), ''
  # Everything beyond the surface is outside: usually most of the grid.
  step = _step(len(surface))
  whole = math.lcm(step, _FEW)
  box = tuple(_range(surface, axis, whole) for axis in range(3))
  start = np.array([some.start for some in box])
  solid = np.zeros_like(surface)
  solid[box], why = _fill(triangles - start, surface[box], step)
  return solid, why


def _step(size: int) -> int:
  """Voxels between the lines of a first look."""
  return max(2, size // 32)


def _range(surface, axis, step):
  """Where a surface is along an axis, and a voxel around it."""
  others = tuple(other for other in range(3) if other != axis)
  found = np.flatnonzero(surface.any(axis=others))
  size = surface.shape[axis]
  # In whole steps, so that the lines are where they are in the whole grid.
  start = max(found[0] - 1, 0) // step * step
  stop = -(-min(found[-1] + 2, size) // step) * step
  return slice(int(start), int(min(stop, size)))


def _fill(triangles, surface, step):
  """As `fill`, within the box of a surface."""
  solid = flood(surface)
  closed, doubtful = rooms(triangles, surface, solid, step)
  if closed.any():
    # Where several lines go through holes, pockets inside the room are left.
    whole = flood(solid | closed)
    count = np.count_nonzero(whole) - np.count_nonzero(solid)
    return whole, f'it has holes; {count} voxels behind them are filled'
  if doubtful.any():
    return solid, f'it is open, and {doubtful.sum()} voxels are left empty'
  inner = np.count_nonzero(solid) - np.count_nonzero(surface)
  if not inner and is_open(triangles, solid.shape):
    return solid, 'it is open, and nothing is inside'
  return solid, ''


def rooms(
  triangles: np.ndarray, surface: np.ndarray, solid: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray]:
  """Voxels that the flood has reached, but lines find inside.

  Args:
    triangles: `(m, 3, 3)` in voxel units.
    surface: bool `(D, H, W)`.
    solid: likewise, what the flood has not reached.
    step: voxels between the lines of a first look.

  Returns:
    Voxels of rooms that are closed except for holes; and voxels of rooms for
    which this is doubtful, since more than a few lines disagree. Both are bool,
    like `surface`.
  """
  nothing = np.zeros_like(solid)
  # All three lines can only agree between voxels of the surface.
  least = _SMALL * np.count_nonzero(solid)
  if count_between(surface, solid) <= least:
    return nothing, nothing
  # A few lines show whether the rest is worth while; usually it is not.
  if not _worth_while(triangles, solid, step, 0.5 * least):
    return nothing, nothing
  votes = _votes(triangles, solid.shape)
  labels, count = ndimage.label((votes >= 2) & ~solid)
  total = np.bincount(labels.reshape(-1), minlength=count + 1)
  agreed = np.bincount(labels[votes == 3], minlength=count + 1)
  large = agreed > least
  large[0] = False  # no room.
  closed = large & (agreed > _CLOSED * total)
  if closed.any():
    closed &= _leaks(labels, solid, count) < _LEAK
  doubtful = large & ~closed & (agreed > _DOUBTFUL * total)
  return closed[labels], doubtful[labels]


def _worth_while(triangles, solid, step: int, least: float) -> bool:
  """Whether all lines may agree at more than `least` voxels outside a solid.

  Looks at the voxels on a diagonal of each block, so that a room that is one
  voxel high is not missed.
  """
  coarse = tuple(size // step for size in solid.shape)
  agreed = 0
  for start in range(step):
    some = tuple(slice(start, size * step, step) for size in coarse)
    middles = triangles / step + (0.5 - (start + 0.5) / step)
    votes = _votes(middles, coarse)
    agreed += step**2 * np.count_nonzero((votes == 3) & ~solid[some])
    if agreed > least:
      return True
  return False


def _leaks(labels: np.ndarray, solid: np.ndarray, count: int) -> np.ndarray:
  """The share of the faces around each room that have no solid behind them."""
  walls, leaks = np.zeros(count + 1), np.zeros(count + 1)
  outside = (labels == 0) & ~solid
  for axis in range(3):
    size = labels.shape[axis]
    for here, there in (
      (slice(1, size), slice(0, size - 1)),
      (slice(0, size - 1), slice(1, size)),
    ):
      a = (slice(None),) * axis + (here,)
      b = (slice(None),) * axis + (there,)
      for faces, behind in ((walls, solid[b]), (leaks, outside[b])):
        faces += np.bincount(labels[a][behind], minlength=count + 1)
  return leaks / np.maximum(walls + leaks, 1)


def _words(grid: np.ndarray) -> np.ndarray:
  """A grid as uint64 `(size, size, n)`, the first of 64 voxels the highest."""
  spare = -grid.shape[2] % 64
  wide = np.pad(grid, ((0, 0), (0, 0), (0, spare))) if spare else grid
  return np.packbits(wide, axis=2).view('>u8').astype(np.uint64)


def count_between(surface: np.ndarray, solid: np.ndarray | None = None) -> int:
  """How many voxels outside a solid have the surface on all six sides.

  Args:
    surface: bool `(D, H, W)`.
    solid: likewise; by default the surface itself.

  >>> shell = np.ones((5, 5, 5), bool)
  >>> shell[1:4, 1:4, 1:] = False  # a side of it is open.
  >>> count_between(shell)
  0
  >>> shell[2:4, 2:4, 4] = True
  >>> count_between(shell)
  12
  """
  bits = _words(surface)
  found = ~_words(surface if solid is None else solid)
  for axis in (0, 1):
    ahead = np.bitwise_or.accumulate(bits, axis)
    behind = np.bitwise_or.accumulate(np.flip(bits, axis), axis)
    found &= ahead & np.flip(behind, axis)
  ahead, behind = bits.copy(), bits.copy()
  for shift in (1, 2, 4, 8, 16, 32):
    ahead |= ahead >> np.uint64(shift)
    behind |= behind << np.uint64(shift)
  every = ~np.uint64(0)
  for i in range(1, bits.shape[2]):
    ahead[..., i] |= np.where(ahead[..., i - 1] & np.uint64(1), every, 0)
    behind[..., -1 - i] |= np.where(behind[..., -i] >> np.uint64(63), every, 0)
  found &= ahead & behind
  return int(np.bitwise_count(found).sum())


def _lines(triangles: np.ndarray, shape: tuple[int, ...]):
  """Yields an axis, the lines along it, and where each crosses a triangle."""
  points = triangles - (0.5 + _SHIFT)
  a, b, c = points[:, 0], points[:, 1], points[:, 2]
  low = np.minimum(np.minimum(a, b), c)
  high = np.maximum(np.maximum(a, b), c)
  # The numbers of the lines that may meet a triangle.
  first = np.maximum(np.floor(low) + 1, 0).astype(np.int64)
  last = np.minimum(np.floor(high), np.array(shape) - 1).astype(np.int64)
  met = first <= last
  for axis in range(3):
    u, v = (other for other in range(3) if other != axis)
    # Most triangles of a fine mesh lie between the lines.
    some = np.flatnonzero(met[:, u] & met[:, v])
    rows = last[some, u] - first[some, u] + 1
    lines, depths = _crossings(
      points[some][:, :, [u, v, axis]], first[some, u], rows, shape[v]
    )
    yield axis, lines, depths + _SHIFT[axis]


def _votes(triangles: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """How many of the lines along x, y and z find each voxel inside."""
  votes = np.zeros(shape, np.int8)
  for axis, lines, depths in _lines(triangles, shape):
    sides = *(size for i, size in enumerate(shape) if i != axis), shape[axis]
    votes += np.moveaxis(_odd(lines, depths, sides), 2, axis)
  return votes


def is_open(triangles: np.ndarray, shape: tuple[int, ...]) -> bool:
  """Whether most of a few lines enter without leaving, or the other way round.

  This is so for a sheet, and for a scan from one side.

  Args:
    triangles: `(m, 3, 3)` in voxel units.
    shape: of their grid.
  """
  odd = met = 0
  for _, lines, _ in _lines(triangles / _FEW, tuple(x // _FEW for x in shape)):
    counts = np.bincount(lines)
    odd += np.count_nonzero(counts & 1)
    met += np.count_nonzero(counts)
  return odd > 0.5 * met


def _odd(lines, depths, shape: tuple[int, int, int]) -> np.ndarray:
  """Whether the number of crossings is odd before and behind each voxel: bool.

  Some meshes have their faces twice, once for each side. So crossings in the
  same place are also counted as one, and a voxel is inside by either count.
  """
  rows, columns, size = shape
  order = np.lexsort((depths, lines))
  lines, depths = lines[order], depths[order]
  # A crossing is before the voxels whose middle is behind it.
  place = np.clip(np.floor(depths) + 1, 0, size).astype(np.int64)
  place += lines * (size + 1)
  again = np.zeros(len(lines), bool)
  again[1:] = (lines[1:] == lines[:-1]) & (np.diff(depths) < _SAME)
  found = np.zeros(shape, bool)
  for chosen in (place, place[~again]) if again.any() else (place,):
    counts = np.bincount(chosen, minlength=rows * columns * (size + 1))
    odd = np.logical_xor.accumulate(
      (counts & 1).astype(bool).reshape(rows, columns, size + 1), axis=2
    )
    found |= odd[:, :, :-1] & ~odd[:, :, -1:]
  return found


def _crossings(points, first, rows, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Where lines cross triangles.

  Args:
    points: `(m, 3, 3)`, coordinates u, v and along the lines, so that line i, j
      is at u = i, v = j.
    first: `(m,)` the first row i that meets each triangle.
    rows: `(m,)` how many do.
    size: lines a row.

  Returns:
    The lines, `i * size + j`, and where each crosses, both `(n,)`.
  """
  found = [(np.empty(0, np.int64), np.empty(0))]
  total = np.cumsum(rows)
  cuts = np.searchsorted(total, np.arange(_PAIRS, rows.sum(), _PAIRS))
  for part in np.split(np.arange(len(points)), np.unique(cuts)):
    if part.size:
      found.append(_rows(points[part], first[part], rows[part], size))
  lines, depths = zip(*found, strict=True)
  return np.concatenate(lines), np.concatenate(depths)


def _rows(points, first, rows, size: int) -> tuple[np.ndarray, np.ndarray]:
  """As `_crossings`, of triangles that meet `rows` rows of lines each."""
  owner = np.repeat(np.arange(len(points)), rows)
  step = np.arange(len(owner)) - np.repeat(np.cumsum(rows) - rows, rows)
  u = first[owner] + step
  # Each edge from its lower end to its upper one, so that two triangles find
  # the same point on the edge that they share; and half open, so that exactly
  # two edges of a triangle meet a row.
  a, b = points, np.roll(points, -1, axis=1)
  swap = (a[..., 0] > b[..., 0])[..., None]
  a, b = np.where(swap, b, a), np.where(swap, a, b)
  length = b[..., 0] - a[..., 0]
  length = np.where(length == 0, 1, length)
  slope = (b[..., 1:] - a[..., 1:]) / length[..., None]
  a0, b0 = a[..., 0][owner], b[..., 0][owner]
  hit = (a0 < u[:, None]) & (u[:, None] <= b0)
  keep = hit.sum(axis=1) == 2
  owner, u, hit, a0 = owner[keep], u[keep], hit[keep], a0[keep]
  # The one edge that the row does not meet tells which two it meets.
  other = np.argmin(hit, axis=1)
  ends = []
  for k in (1, 2):
    edge = (other + k) % 3
    offset = (u - a0[np.arange(len(u)), edge])[:, None]
    ends.append(a[owner, edge, 1:] + offset * slope[owner, edge])
  one, two = ends
  low, high = np.minimum(one[:, 0], two[:, 0]), np.maximum(one[:, 0], two[:, 0])
  first = np.maximum(np.floor(low) + 1, 0).astype(np.int64)
  count = np.minimum(np.floor(high), size - 1).astype(np.int64) - first + 1
  count = np.maximum(count, 0)
  row = np.repeat(np.arange(len(u)), count)
  v = first[row] + np.arange(len(row)) - (np.cumsum(count) - count)[row]
  span = two[:, 0] - one[:, 0]
  slope = (two[:, 1] - one[:, 1]) / np.where(span == 0, 1, span)
  depth = one[row, 1] + (v - one[row, 0]) * slope[row]
  return u[row] * size + v, depth
