"""Pictures and meshes: geometry that is known, and files that are kept."""

import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from experiments.files import figures

ROOT = pathlib.Path(__file__).parents[3]


def ball(side=12, radius=4.0):
  """Returns a soft ball: 0.5 at its radius."""
  axis = np.arange(side) - (side - 1) / 2
  distance = np.sqrt(sum(x**2 for x in np.meshgrid(axis, axis, axis)))
  return np.clip(radius - distance + 0.5, 0, 1)


def read(path):
  with Image.open(path) as image:
    return np.asarray(image.convert('RGB')).astype(int)


def ink(path):
  """Returns where a picture is neither white nor in a shadow on the floor."""
  return (read(path) < 200).any(-1)


def draw(tmp_path, rows, **settings):
  path = tmp_path / 'picture.png'
  figures.isosurfaces(path, rows, **settings)
  return ink(path)


def volume(vertices, faces):
  a, b, c = np.moveaxis(vertices[faces], 1, 0)
  return (a * np.cross(b, c)).sum() / 6


def test_surface_is_closed_outward_and_in_place():
  vertices, faces = figures.surface(ball(12, 4.0))
  assert volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * 64, rel=0.03)
  np.testing.assert_allclose(vertices.mean(0), 5.5, atol=1e-6)
  radius = np.linalg.norm(vertices - 5.5, axis=1)
  assert (abs(radius - 4) < 0.15).all()


def test_every_edge_of_any_surface_has_two_faces():
  rng = np.random.default_rng(0)
  for i in range(100):
    voxels = rng.uniform(size=rng.integers(1, 9, 3))
    if i % 2:
      voxels = (voxels < 0.4).astype(float)
    mesh = figures.surface(voxels)
    if mesh is None:
      continue
    vertices, faces = mesh
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, ::2]])
    _, counts = np.unique(np.sort(edges), axis=0, return_counts=True)
    assert (counts == 2).all()
    assert volume(vertices, faces) > 0


def test_surface_of_one_voxel():
  voxels = np.zeros((3, 4, 5))
  voxels[2, 3, 4] = 1
  vertices, faces = figures.surface(voxels)
  # An octahedron around the voxel, although it touches the border.
  expected = [2, 3, 4] + np.concatenate([np.eye(3), -np.eye(3)]) / 2
  assert sorted(map(tuple, vertices)) == sorted(map(tuple, expected))
  assert volume(vertices, faces) == pytest.approx(1 / 6)


def test_surface_refuses():
  for voxels, message in (
    (np.full((2, 2, 2), np.nan), '8 of 8 voxels are not finite'),
    (np.array([[[np.inf]]]), 'not finite'),
    (np.zeros((2, 2)), r'\(2, 2\)'),
    (np.zeros((2, 0, 2)), r'\(2, 0, 2\)'),
  ):
    with pytest.raises(ValueError, match=message):
      figures.surface(voxels)
  for level in (0, -1, np.nan):
    with pytest.raises(ValueError, match='level'):
      figures.surface(np.ones((2, 2, 2)), level)


@pytest.mark.parametrize(
  'voxels',
  [
    np.zeros((4, 4, 4)),
    np.full((4, 4, 4), 0.5),
    np.full((4, 4, 4), -3.0),
    None,
  ],
)
def test_what_has_no_surface_leaves_its_cell_empty(tmp_path, voxels):
  shown = draw(tmp_path, [[voxels, np.ones((4, 4, 4))]])
  middle = shown.shape[1] // 2
  assert not shown[:, :middle].any()
  assert shown[:, middle:].mean() > 0.3


@pytest.mark.parametrize(
  'shape', [(1, 1, 1), (8, 8, 8), (2, 9, 5), (30, 3, 3), (3, 30, 3), (3, 3, 30)]
)
def test_full_grids_fill_their_cell_and_stay_in_it(tmp_path, shape):
  shown = draw(tmp_path, [[np.ones(shape, bool)]])
  across, along = shown.any(0).nonzero()[0], shown.any(1).nonzero()[0]
  side = shown.shape[0]
  assert across.min() > 0
  assert across.max() < side - 1
  assert along.min() > 0
  assert along.max() < side - 1
  assert max(np.ptp(across), np.ptp(along)) > 0.55 * side


def test_seen_from_the_front_left_and_above(tmp_path):
  def box(x, y, z):
    voxels = np.zeros((8, 8, 8))
    voxels[x, y, z] = 1
    return voxels

  def centre(voxels):
    rows, columns = draw(tmp_path, [[voxels]]).nonzero()
    return rows.mean(), columns.mean()

  low, high, every = slice(0, 4), slice(4, 8), slice(None)
  # z is up; x goes to the right; what is at large y is farther, so higher.
  assert centre(box(every, every, high))[0] < centre(box(every, every, low))[0]
  assert centre(box(high, every, every))[1] > centre(box(low, every, every))[1]
  assert centre(box(every, high, every))[0] < centre(box(every, low, every))[0]
  # A wall at small y hides a ball behind it; one at large y does not.
  hidden, seen = np.zeros((2, 8, 8, 8))
  hidden[:, 0], seen[:, 7] = 1, 1
  figures.isosurfaces(tmp_path / 'a.png', [[hidden, seen]], colors='#ff0000')
  plain = read(tmp_path / 'a.png')
  hidden[5:7, 4:6, 1:3] = seen[5:7, 4:6, 1:3] = 1
  figures.isosurfaces(tmp_path / 'b.png', [[hidden, seen]], colors='#ff0000')
  # More than a shadow on the floor changes.
  change = (abs(read(tmp_path / 'b.png') - plain) > 100).any(-1)
  middle = change.shape[1] // 2
  assert not change[:, :middle].any()
  assert change[:, middle:].any()


def test_a_top_is_brighter_than_a_side(tmp_path):
  path = tmp_path / 'a.png'
  figures.isosurfaces(path, [[np.ones((8, 8, 8))]])
  image = read(path).sum(-1)
  side = image.shape[0]
  assert (
    image[side * 3 // 10, side // 2] > image[side * 7 // 10, side // 3] + 30
  )


def test_a_shape_throws_a_shadow(tmp_path):
  shape = np.zeros((8, 8, 8))
  shape[2:6, 2:6, 6:] = 1  # In the air: its shadow is beside it.
  path = tmp_path / 'a.png'
  figures.isosurfaces(path, [[shape]], colors='#ff0000')
  image = read(path)
  grey = (np.ptp(image, axis=-1) < 6) & (image[..., 0] < 250)
  drawn = (image[..., 0] > image[..., 1] + 60).nonzero()
  assert grey.mean() > 0.01 and image[grey].min() > 200
  # The light comes from the left and above, so it falls to the right and down.
  rows, columns = grey.nonzero()
  assert rows.mean() > drawn[0].mean() and columns.mean() > drawn[1].mean()


def test_what_is_in_shadow_is_darker(tmp_path):
  table = np.zeros((8, 8, 8))
  table[:, :, 0] = 1
  path = tmp_path / 'a.png'
  figures.isosurfaces(path, [[table]])
  plain = read(path).sum(-1)
  table[3:5, 3:5, 5:] = 1
  figures.isosurfaces(path, [[table]])
  darker = plain - read(path).sum(-1)
  # On the table, not on the floor, and not only what stands before it.
  low = np.arange(len(plain))[:, None] > len(plain) * 0.55
  assert ((darker > 60) & low & (plain < 600)).mean() > 0.005


def test_colors_by_row_and_by_cell(tmp_path):
  path = tmp_path / 'a.png'
  shape = np.ones((4, 4, 4))
  figures.isosurfaces(
    path, [[shape, shape], [shape, shape]], colors=['red', ['blue', 'lime']]
  )
  image = read(path)
  height, width = image.shape[0] // 2, image.shape[1] // 2
  dark = [
    image[i * height + height // 2, j * width + width // 2]
    for i in range(2)
    for j in range(2)
  ]
  assert [int(np.argmax(rgb)) for rgb in dark] == [0, 0, 2, 1]
  for colors in (['red'], ['red', ['blue']], ['red', 'no colour']):
    with pytest.raises(ValueError, match=r'colour|row 1'):
      figures.isosurfaces(path, [[shape, shape]] * 2, colors=colors)


def test_labels_take_their_own_room(tmp_path):
  shape = np.ones((4, 4, 4))
  plain = draw(tmp_path, [[shape] * 3] * 2)
  shown = draw(
    tmp_path,
    [[shape] * 3] * 2,
    titles=['a', 'b', 'c'],
    row_labels=['samples', 'nearest'],
    captions=[['0.1', '0.2', '0.3']],
  )
  assert shown.shape[0] > plain.shape[0]
  assert shown.shape[1] > plain.shape[1]
  assert shown[:15].any()
  assert shown[:, :40].any()
  with pytest.raises(ValueError, match='3 titles for 2 places'):
    draw(tmp_path, [[shape] * 2], titles=['a', 'b', 'c'])


def test_pictures_refuse_bad_cells_by_name(tmp_path):
  good = np.ones((2, 2, 2))
  with pytest.raises(ValueError, match='row 1, column 0: 1 of 8'):
    bad = good.copy()
    bad[0, 0, 0] = np.nan
    draw(tmp_path, [[good], [bad]])
  for rows in ([], [[]]):
    with pytest.raises(ValueError, match='no cell'):
      draw(tmp_path, rows)
  assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_fifty_shapes_are_small_and_the_same_each_time(tmp_path):
  rng = np.random.default_rng(0)
  shapes = rng.uniform(size=(5, 10, 16, 16, 16)) < 0.04
  data = []
  for name in ('a.png', 'b.png'):
    figures.isosurfaces(tmp_path / name, shapes)
    data.append((tmp_path / name).read_bytes())
  assert data[0] == data[1]
  assert len(data[0]) < 600_000


def test_needs_no_display(tmp_path):
  code = """
import os, sys
os.environ.pop('DISPLAY', None)
from experiments.files import figures
import numpy as np
figures.isosurfaces(sys.argv[1], [[np.ones((2, 2, 2))]])
assert 'matplotlib.pyplot' not in sys.modules
"""
  subprocess.run(
    [sys.executable, '-W', 'error', '-c', code, tmp_path / 'a.png'],
    cwd=ROOT,
    check=True,
  )


def test_an_unwritable_picture_is_named(tmp_path):
  (tmp_path / 'folder.png').mkdir()
  with pytest.raises(OSError, match=r'cannot write .*folder\.png'):
    figures.isosurfaces(tmp_path / 'folder.png', [[np.ones((2, 2, 2))]])
  assert os.listdir(tmp_path) == ['folder.png']


def test_curves(tmp_path):
  rows = [
    {'step': i, 'energy_gap': i / 2, 'grad_norm': 1.0, 'note': 'x', 'list': [1]}
    for i in range(50)
  ]
  rows[7]['energy_gap'] = float('nan')
  rows[8]['energy_gap'] = float('inf')
  figures.curves(tmp_path / 'one.png', {'run': rows})
  figures.curves(
    tmp_path / 'two.png', {'a': rows, 'b': rows[:1]}, names=['energy_gap']
  )
  one, two = read(tmp_path / 'one.png'), read(tmp_path / 'two.png')
  # Two metrics, two panels; one metric, one.
  assert one.shape[1] == 2 * two.shape[1]
  assert (one < 150).any()
  with pytest.raises(ValueError, match='of V; have energy_gap, grad_norm'):
    figures.curves(tmp_path / 'x.png', {'a': rows}, names=['V'])
  with pytest.raises(ValueError, match='have none'):
    figures.curves(tmp_path / 'x.png', {'a': []})
