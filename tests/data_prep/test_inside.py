"""What is inside, where the flood alone does not know."""

import numpy as np
import pytest
import trimesh

from data_prep import inside
from data_prep import placement
from data_prep import surface


def sheet(corner, u, v, n=1, holes=()):
  """A rectangle of n x n squares, two triangles each, without some squares."""
  corner, u, v = (np.array(x, float) for x in (corner, u, v))
  triangles = []
  for i in range(n):
    for j in range(n):
      if (i, j) not in holes:
        a = corner + u * i / n + v * j / n
        b, c, d = a + u / n, a + u / n + v / n, a + v / n
        triangles += [(a, b, c), (a, c, d)]
  return np.array(triangles).reshape(-1, 3, 3)


X, Y, Z = np.eye(3)
SIDES = ('left', 'right', 'front', 'back', 'bottom', 'top')


def sides(low=(0, 0, 0), size=(1, 1, 1), n=16, without=(), **holes):
  """A box of sheets, without some sides, with holes in others."""
  low, (a, b, c) = np.array(low, float), size
  u, v, w = a * X, b * Y, c * Z
  sheets = {
    'left': (low, v, w), 'right': (low + u, v, w), 'front': (low, u, w),
    'back': (low + v, u, w), 'bottom': (low, u, v), 'top': (low + w, u, v),
  }  # fmt: skip
  return np.concatenate(
    [
      sheet(*sheets[side], n, holes.get(side, ()))
      for side in SIDES
      if side not in without
    ]
  )


def filled(triangles, size):
  """The solid of triangles, its surface, and what is doubtful about it."""
  vertices, faces = triangles.reshape(-1, 3), np.arange(3 * len(triangles))
  placed = placement.normalise(vertices, faces.reshape(-1, 3), size)
  walls = surface.surface_voxels(placed, size)
  solid, doubt = inside.fill(placed, walls)
  return solid, walls, doubt


def turned(triangles, angle=0.4, axis=(1, 2, 3)):
  rotation = trimesh.transformations.rotation_matrix(angle, axis)[:3, :3]
  return triangles @ rotation.T


HOLES = {
  'one hole': {'bottom': [(8, 8)]},
  'holes in all sides': {side: [(3, 4), (9, 12)] for side in SIDES},
  'a wide hole': {'left': [(i, j) for i in range(5, 10) for j in range(5, 10)]},
  'a hole in a corner': {'top': [(0, 0)]},
}


@pytest.mark.parametrize('size', [16, 32, 64, 128])
@pytest.mark.parametrize('name', HOLES)
def test_a_box_with_holes_is_solid_at_every_size(name, size):
  solid, _, doubt = filled(sides(**HOLES[name]), size)
  side = size - 2 * placement.default_margin(size)
  # But for the voxels of the surface that the holes themselves are.
  assert solid.sum() >= side**3 - 6 * (side // 2) ** 2
  inner = slice((size - side) // 2 + 1, (size + side) // 2 - 1)
  assert solid[inner, inner, inner].all()
  if size == 128:
    assert 'it has holes; ' in doubt


@pytest.mark.parametrize('size', [32, 64])
@pytest.mark.parametrize('name', HOLES)
def test_holes_of_a_turned_box_are_borne(name, size):
  whole, _, doubt = filled(turned(sides()), size)
  assert not doubt
  solid, _, _ = filled(turned(sides(**HOLES[name])), size)
  assert (solid & whole).sum() / (solid | whole).sum() > 0.9


@pytest.mark.parametrize('size', [32, 64])
def test_faces_that_are_there_twice_do_not_matter(size):
  once = sides(bottom=[(8, 8)])
  solid, _, _ = filled(once, size)
  twice, _, _ = filled(np.concatenate([once, once[:, ::-1]]), size)
  np.testing.assert_array_equal(twice, solid)


def thick(low, size, wall, without):
  """A box without a side, of walls that have two sides themselves."""
  inner_low = np.array(low, float) + wall
  inner = np.array(size, float) - 2 * wall
  axis = {'front': 1, 'top': 2}[without]
  inner[axis] += wall
  if without == 'front':
    inner_low[1] -= wall
  outer = sides(low, size, 8, (without,))
  hollow = sides(inner_low, inner, 8, (without,))
  start = {'front': (0, 0, 0), 'top': (0, 0, size[2])}[without]
  u, v = (X, Z) if without == 'front' else (X, Y)
  corner = np.array(low) + start
  a, b = size[0], size[2 if without == 'front' else 1]
  rim = [
    sheet(corner, u * a, v * wall), sheet(corner + v * (b - wall), u * a,
                                          v * wall),
    sheet(corner, u * wall, v * b), sheet(corner + u * (a - wall), u * wall,
                                          v * b),
  ]  # fmt: skip
  return np.concatenate([outer, hollow, *rim])


OPEN = {
  'a box without a lid': sides(without=('top',)),
  'a shelf': np.concatenate(
    [
      sides(without=('front',)),
      *(sheet((0, 0, z), X, Y, 8) for z in (0.25, 0.5, 0.75)),
    ]
  ),
  'an apron with a panel': np.concatenate(
    [
      sides(without=('bottom',)),
      sheet((0.06, 0.06, 0.6), 0.88 * X, 0.88 * Y, 8),
    ]
  ),
  'a tube': sides(without=('front', 'back')),
  'a basin of thick walls': thick((0, 0, 0), (2, 1, 0.6), 0.1, 'top'),
  'a drawer': thick((0, 0, 0), (1, 1, 0.5), 0.08, 'top'),
  'a shelf of thick walls': thick((0, 0, 0), (1, 0.5, 1), 0.1, 'front'),
  'a table': np.concatenate(
    [
      sides((0, 0, 0.9), (1, 1, 0.1), 4),
      *(
        sides((x, y, 0), (0.1, 0.1, 0.9), 4)
        for x in (0, 0.9)
        for y in (0, 0.9)
      ),
    ]
  ),
  'two sheets': np.concatenate([sheet((0, 0, 0), X, Y, 8),
                                sheet((0, 0, 1), X, Y, 8)]),
}  # fmt: skip


@pytest.mark.parametrize('turn', [False, True])
@pytest.mark.parametrize('size', [32, 64])
@pytest.mark.parametrize('name', OPEN)
def test_what_is_open_stays_empty(name, size, turn):
  triangles = turned(OPEN[name], 0.5, (0, 0, 1)) if turn else OPEN[name]
  solid, shell, _ = filled(triangles, size)
  middle = (slice(size // 2 - 2, size // 2 + 2),) * 2
  rows = np.flatnonzero(shell.any(axis=(0, 1)))
  height = (rows[0] + rows[-1]) // 2
  if name[2:] == 'shelf':
    height = rows[0] + (rows[-1] - rows[0]) * 3 // 8  # between two boards.
  assert not solid[middle][:, :, height].any()
  np.testing.assert_array_equal(solid, inside.flood(shell))


def test_the_leaks_of_a_room_keep_it_open(monkeypatch):
  apron = OPEN['an apron with a panel']
  solid, _, doubt = filled(apron, 64)
  assert 'it is open, and' in doubt
  # Lines alone would fill it.
  monkeypatch.setattr(inside, '_LEAK', 1.0)
  assert filled(apron, 64)[0].sum() > 2 * solid.sum()


def test_a_view_from_one_side_is_doubtful():
  front = sides(without=('back', 'bottom', 'right'))
  solid, shell, doubt = filled(turned(front), 32)
  np.testing.assert_array_equal(solid, shell)
  assert doubt == 'it is open, and nothing is inside'


@pytest.mark.parametrize('name', ['a table', 'a basin of thick walls'])
def test_what_is_whole_is_not_doubtful(name):
  assert not filled(OPEN[name], 32)[2]


def test_a_box_with_much_missing_is_doubtful():
  # A third of all lines through the box go through a hole.
  gone = [(i, j) for i in range(16) for j in range(14)]
  _, _, doubt = filled(sides(top=gone), 64)
  assert 'voxels are left empty' in doubt


def test_lines_find_what_is_inside_of_a_ball():
  mesh = trimesh.creation.icosphere(4)
  triangles = placement.normalise(mesh.vertices, mesh.faces, 32)
  votes = inside._votes(triangles, (32,) * 3)
  centres = np.stack(np.indices((32, 32, 32)), -1) + 0.5 - 16
  # Lines are a little off the middle, the ball is a little within a sphere.
  radius = np.linalg.norm(centres, axis=-1)
  assert (votes[radius < 14.9] == 3).all()
  assert (votes[radius > 15.01] == 0).all()


def test_edges_and_corners_count_once():
  # Of a box that lies just so that all lines at its border are on its edges.
  box = trimesh.creation.box((8, 8, 8)).triangles
  shift = 0.5 + inside._SHIFT
  for _, lines, depths in inside._lines(np.round(box) + 8 + shift, (16,) * 3):
    assert inside._odd(lines, depths, (16,) * 3).sum() == 8**3


def testcount_between_is_what_it_says():
  rng = np.random.default_rng(0)
  for size in (5, 32, 64, 70, 128):
    walls = rng.random((size,) * 3) < 0.01
    solid = inside.flood(walls)
    expected = ~solid
    for axis in range(3):
      for grid in (walls, np.flip(walls, axis)):
        expected &= np.logical_or.accumulate(grid, axis)
        expected = np.flip(expected, axis)
    assert inside.count_between(walls, solid) == expected.sum()


def test_pieces_do_not_matter(monkeypatch):
  triangles = placement.normalise(
    np.array(turned(sides())).reshape(-1, 3),
    np.arange(3 * len(sides())).reshape(-1, 3),
    32,
  )
  whole = inside._votes(triangles, (32,) * 3)
  monkeypatch.setattr(inside, '_PAIRS', 37)
  np.testing.assert_array_equal(inside._votes(triangles, (32,) * 3), whole)


@pytest.mark.parametrize('turn', [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize('start', [11, 12, 13])
def test_a_room_one_voxel_high_is_seen_wherever_it_is(start, turn):
  low, size = (2.3, 2.3, start + 0.3), (27.4, 27.4, 2.4)
  triangles = sides(low, size, n=8, top=[(3, 3)])[..., turn]
  walls = surface.surface_voxels(triangles, 32)
  solid, doubt = inside.fill(triangles, walls)
  assert 'holes' in doubt
  whole = sides(low, size)[..., turn]
  expected, _ = inside.fill(whole, surface.surface_voxels(whole, 32))
  # The hole itself is none of the surface.
  assert not (solid & ~expected).any()
  assert (solid ^ expected).sum() < 30
