"""Shapes from outside: every kind of file, scans, and what is refused."""

import gzip
import zipfile

import numpy as np
import pytest
import trimesh

from data_prep import convert
from data_prep import volumes
from data_prep import voxel_file
from experiments.files import inputs
from experiments.files import masks

GRID = (10, 10, 10)
BOX = trimesh.creation.box(bounds=[(0, 0, 0), (2, 1, 0.5)])
# The bottom of the box and two of its walls: what a camera at (9, 9, -9) sees.
SEEN = [i for i, n in enumerate(BOX.face_normals) if n @ (1, 1, -1) > 0.5]


def read(path, grid=GRID, **fields):
  return inputs.read(inputs.Source(str(path), **fields), grid)


def read_scan(path, grid=GRID, **fields):
  source = inputs.Source(str(path), **fields)
  return inputs.read(source, grid, partial=True)


def place(shapes, index, i=0):
  """Where a voxel of a shape is, in the coordinates of the input."""
  return (shapes.to_input[i] @ (*index, 1))[:3]


def test_inputs_of_every_kind(tmp_path):
  for kind in ('off', 'obj', 'ply', 'stl'):
    path = tmp_path / f'box.{kind}'
    BOX.export(path)
    box = read(path)
    assert box.voxels.shape == (1, *GRID) and box.voxels.sum() == 64
    assert box.names == ('box',) and box.seen == (None,)
    turned = read(path, up='y')
    assert turned.voxels.sum() == box.voxels.sum()
    assert (turned.voxels != box.voxels).any()
  packed = tmp_path / 'box.stl.gz'
  packed.write_bytes(gzip.compress(path.read_bytes()))
  np.testing.assert_array_equal(read(packed).voxels, box.voxels)
  grid = box.voxels[0].astype(np.uint8)
  for kind in convert.OUT_FORMATS:
    path = tmp_path / f'voxels.{kind}'
    path.write_bytes(convert.write_voxels(grid, kind))
    np.testing.assert_array_equal(read(path).voxels, box.voxels)
  np.savez(tmp_path / 'voxels.npz', voxels=box.voxels, other=box.voxels[:, 1:])
  found = read(tmp_path / 'voxels.npz')
  np.testing.assert_array_equal(found.voxels, box.voxels)
  other = read(tmp_path / 'voxels.npz', key='other')
  np.testing.assert_array_equal(other.voxels[0, :9], box.voxels[0, 1:])
  path = tmp_path / 'own.npz'
  voxel_file.save(
    path,
    voxel_file.VoxelData(
      ('box',),
      {'test': grid[None]},
      {'test': np.zeros(1, np.int32)},
      {'test': np.array(['a'])},
    ),
  )
  found = read(path)
  assert found.names == ('a',)
  np.testing.assert_array_equal(found.voxels, box.voxels)


def test_any_range_of_values_and_a_channel_axis(tmp_path):
  full = np.zeros(GRID)
  full[2:5, 3, 4] = 1
  path = tmp_path / 'x.npy'
  for array, fields in (
    (full[None, None] * 255, {}),
    (full[..., None] * 5 + 3, {'threshold': 4}),
    (full * 1.2 - 0.1, {}),
  ):
    np.save(path, array)
    assert ((read(path, **fields).voxels > 0.5) == full).all()


def test_inputs_that_cannot_be(tmp_path):
  def write(name, content):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name

  plane = b'OFF 4 2 0 0 0 0 1 0 0 1 1 0 0 1 0 3 0 1 2 3 0 2 3'
  for path, message in (
    (write('plane.off', plane), 'no inside, so it is a scan.*--mode=recover'),
    (write('points.xyz', b'0 0 0\n1 1 1'), 'cloud of 2 points.*--mode=recover'),
    (write('text.off', b'hello'), 'text.off'),
    (write('shape.doc', b''), r'must end in \.off'),
    (write('broken.npz', b'PK'), 'broken.npz'),
    (write('broken.npy', b''), 'broken.npy'),
  ):
    with pytest.raises(ValueError, match=message):
      read(path, (8, 8, 8))
  with pytest.raises(FileNotFoundError, match=r'none\.npy'):
    read(tmp_path / 'none.npy', (8, 8, 8))
  path = tmp_path / 'shape.npy'
  for voxels, message in (
    (np.zeros((8, 8, 8)), 'empty'),
    (np.full((8, 8, 8), 2.0), '2.0'),
    (np.full((8, 8, 8), np.nan), 'nan'),
    (np.ones((8, 8)), r'\(8, 8\)'),
  ):
    np.save(path, voxels)
    with pytest.raises(ValueError, match=message):
      read(path, (8, 8, 8))
  np.save(path, np.ones((8, 8, 8)))
  with pytest.raises(ValueError, match='90, 180 or 270 degrees, not by 45'):
    read(path, (8, 8, 8), turn=45.0)
  np.savez(tmp_path / 'two.npz', a=np.ones((8, 8, 8)), b=np.ones((8, 8, 8)))
  with pytest.raises(ValueError, match='say which with --key'):
    read(tmp_path / 'two.npz', (8, 8, 8))


def test_other_grids_are_brought_into_the_models(tmp_path):
  path = tmp_path / 'a.npy'
  full = np.zeros((24, 16, 20))
  full[3:7, 2:9, 5:18] = 1
  np.save(path, full)
  found = read(path, (8, 8, 8))
  # Blocks of 3, as full as their fullest voxel.
  corners = np.argwhere(found.voxels[0])
  ends = [place(found, corners.min(axis=0)), place(found, corners.max(axis=0))]
  np.testing.assert_allclose(ends[0], [4, 2.5, 5], atol=1.5)
  np.testing.assert_allclose(ends[1], [6, 7.5, 16.5], atol=1.5)
  np.save(path, np.ones((6, 6, 6)))
  small = read(path, (8, 8, 8))
  assert small.voxels.sum() == 216
  np.testing.assert_array_equal(place(small, (1, 1, 1)), [0, 0, 0])
  # Larger, but there is nothing at its border.
  np.save(path, np.pad(np.ones((6, 6, 6)), 2))
  assert read(path, (8, 8, 8)).voxels.sum() == 216
  # A grid that is no cube.
  assert read(path, (12, 10, 8)).voxels.shape == (1, 12, 10, 8)


@pytest.mark.parametrize('up', ['x', 'y', 'z'])
@pytest.mark.parametrize('turn', [0.0, 90.0, 180.0, 270.0])
def test_each_voxel_has_its_place_in_the_input(tmp_path, up, turn):
  rng = np.random.default_rng(0)
  full = np.zeros((4, 5, 6))
  full[rng.random(full.shape) < 0.2] = 1
  np.save(tmp_path / 'a.npy', full)
  found = read(tmp_path / 'a.npy', up=up, turn=turn)
  places = [place(found, index) for index in np.argwhere(found.voxels[0])]
  np.testing.assert_array_equal(sorted(map(tuple, places)), np.argwhere(full))
  # And of a mesh, whose box is drawn by its voxels, also in large numbers.
  mesh = BOX.copy()
  mesh.apply_translation((448262, 5411932, 113))
  mesh.export(tmp_path / 'a.obj', digits=3)
  found = read(tmp_path / 'a.obj', (32, 32, 32), up=up, turn=turn)
  places = [place(found, index) for index in np.argwhere(found.voxels[0])]
  half = 2 / 30 / 2 + 1e-6
  np.testing.assert_allclose(np.min(places, 0), mesh.bounds[0], atol=half)
  np.testing.assert_allclose(np.max(places, 0), mesh.bounds[1], atol=half)


def test_a_mesh_is_turned_by_any_angle(tmp_path):
  mesh = trimesh.creation.box((2.0, 0.9, 0.4))
  mesh.apply_transform(
    trimesh.transformations.rotation_matrix(-0.5, (0, 0, 1), (7, 8, 9))
  )
  mesh.export(tmp_path / 'a.ply')
  found = read(tmp_path / 'a.ply', turn=np.degrees(0.5))
  assert found.voxels.sum() == 64  # As that of the box that is not turned.
  middle = place(found, (4.5, 4.5, 4.5))
  np.testing.assert_allclose(middle, mesh.bounds.mean(axis=0), atol=1e-6)


def test_binvox_and_own_results_keep_their_coordinates(tmp_path):
  full = np.zeros((8, 8, 8), np.uint8)
  full[2:6, 2:6, 2:6] = 1
  matrix = np.diag([0.5, 0.5, 0.5, 1])
  matrix[:3, 3] = 10, 20, 30
  data = volumes.write(full, 'binvox', matrix)
  (tmp_path / 'a.binvox').write_bytes(data)
  found = read(tmp_path / 'a.binvox', (8, 8, 8))
  np.testing.assert_allclose(found.to_input[0], matrix)
  np.savez(tmp_path / 'voxels.npz', voxels=full[None], to_input=matrix[None])
  for path in (tmp_path / 'voxels.npz', tmp_path):  # A folder of results.
    found = read(path, (8, 8, 8), up='y')
    np.testing.assert_allclose(place(found, (2, 5, 2)), [11, 21, 31])


def test_one_shape_in_several_formats_has_two_names(tmp_path):
  # As --format=obj,ply writes them.
  BOX.export(tmp_path / 'sample_000.obj')
  BOX.export(tmp_path / 'sample_000.ply')
  BOX.export(tmp_path / 'sample_001.ply')
  found = read(tmp_path)
  assert found.names == ('sample_000.obj', 'sample_000.ply', 'sample_001')
  np.testing.assert_array_equal(found.voxels[0], found.voxels[1])


@pytest.mark.parametrize(
  'fields', [{'scan': True}, {'camera': (9, 9, 9)}, {'box': (0, 0, 0, 1, 1, 1)}]
)
def test_what_is_for_scans_is_not_for_voxels(tmp_path, fields):
  np.save(tmp_path / 'a.npy', np.ones((4, 4, 4)))
  (flag,) = fields
  with pytest.raises(ValueError, match=f'--{flag} is for meshes and clouds'):
    read_scan(tmp_path / 'a.npy', **fields)


def test_stray_points_are_named(tmp_path):
  points = np.random.default_rng(0).random((500, 3))
  np.save(tmp_path / 'a.npy', points)
  assert read_scan(tmp_path / 'a.npy').voxels.sum() > 100
  points[3] = 1e6, 0, 0
  np.save(tmp_path / 'a.npy', points)
  with pytest.raises(ValueError, match=r'\[1000000.0, 0.0, 0.0\] is far from'):
    read_scan(tmp_path / 'a.npy')
  found = read_scan(tmp_path / 'a.npy', box=(0, 0, 0, 1, 1, 1))
  assert found.voxels.sum() > 100


def stray_mesh(kind):
  """A chair's size of box, and a face or a corner of it far away."""
  mesh = BOX.subdivide().subdivide().subdivide()
  if kind == 'corner':
    mesh.vertices[7] = 200, 0, 0
    return mesh
  far = trimesh.Trimesh([(200, 0, 0), (201, 0, 0), (200, 1, 0)], [(0, 1, 2)])
  return trimesh.util.concatenate(mesh, far)


@pytest.mark.parametrize('kind', ['face', 'corner'])
def test_what_is_stray_of_a_mesh_is_named(tmp_path, kind):
  stray_mesh(kind).export(tmp_path / 'a.off')
  far = r'within 2, all within 20[01]; \[200\.0, 0\.0, 0\.0\] is far from'
  for read_one in (read, read_scan):
    with pytest.raises(ValueError, match=far):
      read_one(tmp_path / 'a.off')
  found = read_scan(tmp_path / 'a.off', scan=True, box=BOX.bounds.ravel())
  assert found.voxels.sum() > 50


def test_a_long_mesh_has_nothing_stray(tmp_path):
  # A ball on a stick of few corners, and a needle.
  ball = trimesh.creation.icosphere(3, 0.5)
  stick = trimesh.creation.box(bounds=[(-0.05, -0.05, 0), (0.05, 0.05, 20)])
  trimesh.util.concatenate(ball, stick).export(tmp_path / 'a.off')
  trimesh.creation.cone(0.5, 20, sections=200).export(tmp_path / 'b.off')
  assert len(read(tmp_path).names) == 2


def test_flags_of_voxels_are_not_for_meshes(tmp_path):
  BOX.export(tmp_path / 'a.off')
  for flag, value in (('key', 'voxels'), ('threshold', 0.5)):
    with pytest.raises(ValueError, match=f'--{flag} is for arrays of voxels'):
      read(tmp_path / 'a.off', **{flag: value})


def test_a_comma_too_many(tmp_path):
  BOX.export(tmp_path / 'a.off')
  with pytest.raises(ValueError, match='a name is missing beside a comma'):
    read(f'{tmp_path}/a.off,')


def test_a_thin_grid_takes_no_memory_of_a_cube(tmp_path):
  thin = np.zeros((1, 4000, 3), np.uint8)
  thin[0, 1000:1500] = 1
  np.save(tmp_path / 'a.npy', thin)
  found = read(tmp_path / 'a.npy')
  y = np.argwhere(found.voxels[0])
  ends = [place(found, y[0])[1] - 200, place(found, y[-1])[1] + 200]
  assert abs(ends[0] - 1000) < 401 and abs(ends[1] - 1500) < 401


def test_folders_zip_files_and_several_paths(tmp_path, caplog):
  caplog.set_level('INFO', 'absl')
  folder = tmp_path / 'shapes'
  folder.mkdir()
  BOX.export(folder / 'a.off')
  np.save(folder / 'b.npy', np.ones((4, 4, 4)))
  (folder / 'c.stl').write_bytes(b'solid')
  (folder / 'notes.txt').write_text('x')
  found = read(folder)
  assert found.names == ('a', 'b') and found.voxels.shape == (2, *GRID)
  assert 'passed over: 1 .txt' in caplog.text
  ((name, reason),) = found.skipped
  assert name.endswith('shapes: c') and reason
  with pytest.raises(inputs.SkippedError, match='1 of 3 shapes were skipped'):
    inputs.tell_skipped(found)
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
    archive.write(folder / 'a.off', 'x/a.off')
  pair = f'{folder / "b.npy"},{tmp_path / "a.zip"}'
  assert read(pair).names == ('b', 'a')
  inputs.tell_skipped(read(pair))
  limited = inputs.read(inputs.Source(pair), GRID, limit=1)
  assert limited.names == ('b',) and 'holds more shapes' in caplog.text
  (folder / 'a.off').write_bytes(b'OFF')
  (folder / 'b.npy').write_bytes(b'')
  with pytest.raises(ValueError, match=r'shapes: a: .*; so are 2 others'):
    read(folder)
  (tmp_path / 'none').mkdir()
  with pytest.raises(ValueError, match='no shapes in'):
    read(tmp_path / 'none')


# Scans.


def scan_mesh(path):
  mesh = trimesh.Trimesh(BOX.vertices, BOX.faces[SEEN], process=False)
  mesh.export(path)
  return mesh


def test_of_a_scan_its_surface_is_known(tmp_path):
  scan_mesh(tmp_path / 'a.off')
  found = read_scan(tmp_path / 'a.off')
  (seen,), voxels = found.seen, found.voxels[0] > 0.5
  np.testing.assert_array_equal(seen, voxels)
  whole = np.zeros(GRID, bool)
  whole[1:9, 3:7, 4:6] = True
  # The bottom, and the walls at large x and y.
  expected = whole.copy()
  expected[1:8, 3:6, 5:] = False
  np.testing.assert_array_equal(voxels, expected)


def test_a_camera_says_what_is_empty(tmp_path):
  scan_mesh(tmp_path / 'a.off')
  found = read_scan(tmp_path / 'a.off', camera=(9.0, 9.0, -9.0))
  full = found.voxels[0] > 0.5
  free = found.seen[0] & ~full
  assert free.sum() > 50
  whole = np.zeros(GRID, bool)
  whole[1:9, 3:7, 4:6] = True
  assert not (free & whole).any()
  # Nothing is known of what is behind, seen from the camera.
  assert not free[:, :, 6:].any() and not free[0].any() and not free[:, 0].any()


def test_a_closed_mesh_can_be_a_scan(tmp_path):
  BOX.export(tmp_path / 'a.off')
  assert read_scan(tmp_path / 'a.off').seen == (None,)
  grid = (20, 20, 20)
  for fields in ({'scan': True}, {'camera': (9.0, 0.0, 0.0)}):
    (seen,) = read_scan(tmp_path / 'a.off', grid, **fields).seen
    assert not seen[8:12, 9:11, 9:11].any()


@pytest.mark.parametrize('kind', ['ply', 'xyz', 'npy', 'npz'])
def test_clouds_of_points(tmp_path, kind):
  points = np.array([(0, 0, 0), (0, 1, 0.5), (2, 0, 0.5), (1, 1, 0), (2, 1, 0)])
  points = points.astype(float)
  path = tmp_path / f'a.{kind}'
  if kind == 'npy':
    np.save(path, np.concatenate([points, np.full((2, 3), np.nan)]))
  elif kind == 'npz':
    np.savez(path, points=points)
  else:
    trimesh.PointCloud(points).export(path)
  found = read_scan(path)
  assert found.names == ('a',) and found.voxels.sum() == len(points)
  np.testing.assert_array_equal(found.seen[0], found.voxels[0] > 0)
  places = [place(found, index) for index in np.argwhere(found.voxels[0])]
  np.testing.assert_allclose(places, sorted(map(tuple, points)), atol=0.13)


def test_a_box_says_of_which_part_a_scan_is(tmp_path):
  mesh = scan_mesh(tmp_path / 'a.off')
  box = (-2.0, 0.0, 0.0, 2.0, 1.0, 0.4)
  found = read_scan(tmp_path / 'a.off', box=box)
  full, (seen,) = found.voxels[0] > 0.5, found.seen
  # 8 voxels for 4 units: half the scale, at the end of the box.
  assert full[5:9, 4:6, 4:6].any() and not full[:5].any()
  # Nothing is beyond the box, and of what is in it, nothing is known.
  assert seen[:, :4].all() and not seen[1:5, 4:6, 5].any()
  # What is beyond it is left out.
  places = np.array([place(found, index) for index in np.argwhere(full)])
  assert places[:, 2].max() < 0.6 and mesh.bounds[1, 2] == 0.5
  with pytest.raises(ValueError, match='no part of it is in the box'):
    read_scan(tmp_path / 'a.off', box=(7.0, 7, 7, 8, 8, 8))
  BOX.export(tmp_path / 'b.off')
  with pytest.raises(ValueError, match='it reaches beyond the box'):
    read_scan(tmp_path / 'b.off', box=(0.0, 0, 0, 1, 1, 1))


def test_what_is_visible_of_every_file(tmp_path):
  seen = np.random.default_rng(0).random((4, 4, 4)) < 0.5
  np.save(tmp_path / 'a.npy', seen)
  np.savez(tmp_path / 'a.npz', visible=seen)
  for name in ('a.npy', 'a.npz'):
    found = masks.read(str(tmp_path / name), 2)
    np.testing.assert_array_equal(found, [seen, seen])
  np.savez(tmp_path / 'b.npz', a=seen, b=seen)
  with pytest.raises(ValueError, match=r'b\.npz: .*only'):
    masks.read(str(tmp_path / 'b.npz'), 1)
  (tmp_path / 'c.txt').write_text('1')
  for name in ('c.txt', 'none.npy'):
    with pytest.raises(ValueError, match=f'--visible=.*{name}'):
      masks.read(str(tmp_path / name), 1)
