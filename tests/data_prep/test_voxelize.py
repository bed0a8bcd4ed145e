"""Voxels of meshes against closed forms, an independent test, and real data."""

import io
import itertools
import lzma
import os
import pathlib
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from scipy import ndimage
import trimesh

from data_prep import furniture
from data_prep import groups
from data_prep import inside
from data_prep import placement
from data_prep import surface
from data_prep import trees
from data_prep import voxel_file
from data_prep import voxelize

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(
  os.environ.get('DNET_JAX_DATA') or ROOT.parent / 'shared' / 'data'
)


def box(low, high):
  """Corners and triangles of a box."""
  mesh = trimesh.creation.box(bounds=[low, high])
  return np.array(mesh.vertices), np.array(mesh.faces)


def join(*parts):
  """One mesh of several (vertices, faces)."""
  starts = np.cumsum([0] + [len(vertices) for vertices, _ in parts])
  return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(
    [faces + start for (_, faces), start in zip(parts, starts, strict=False)]
  )


def touches(triangle, size):
  """Boxes that a triangle meets, by the separating axis theorem."""
  grid = np.arange(size) + 0.5
  centres = np.stack(np.meshgrid(grid, grid, grid, indexing='ij'), -1)
  edges = np.roll(triangle, -1, axis=0) - triangle
  axes = [*np.eye(3), np.cross(edges[0], edges[1])]
  axes += [np.cross(edge, unit) for edge in edges for unit in np.eye(3)]
  hit = np.ones((size, size, size), bool)
  for axis in axes:
    middle, reach = centres @ axis, np.abs(axis).sum() / 2
    spread = triangle @ axis
    hit &= (middle - reach <= spread.max()) & (middle + reach >= spread.min())
  return hit


# What is a voxel of the surface.


@pytest.mark.parametrize('scale', [1.0, 6.0, 16.0])
def test_a_voxel_is_marked_where_the_triangle_meets_its_box(scale):
  rng = np.random.default_rng(int(scale))
  for _ in range(40):
    triangle = rng.uniform(0, 16 - scale, 3) + rng.uniform(0, scale, (3, 3))
    found = surface.surface_voxels(triangle[None], 16)
    np.testing.assert_array_equal(found, touches(triangle, 16))


def test_needles_and_points_are_marked():
  rng = np.random.default_rng(3)
  for _ in range(40):
    a, b = rng.uniform(0, 16, (2, 3))
    needle = np.stack([a, b, b])
    along = a + np.linspace(0, 1, 200_001)[:, None] * (b - a)
    expected = np.zeros((16, 16, 16), bool)
    expected[tuple(np.floor(along).astype(int).T)] = True
    found = surface.surface_voxels(needle[None], 16)
    np.testing.assert_array_equal(found, expected)
    point = surface.surface_voxels(np.stack([[a, a, a]]), 16)
    assert np.argwhere(point).tolist() == [np.floor(a).astype(int).tolist()]


def test_corners_on_the_grid_are_safe():
  # Whole numbers everywhere: fractions of edges come out as rounded ones.
  rng = np.random.default_rng(4)
  triangles = rng.integers(0, 13, (300, 3, 3)).astype(float)
  found = surface.surface_voxels(triangles, 13)
  # Points whose weights are multiples of 1/32 have exact coordinates here.
  weights = np.array(
    [(i, j, 32 - i - j) for i in range(33) for j in range(33 - i)]
  )
  points = np.floor(np.einsum('wc,tcx->twx', weights / 32, triangles))
  assert found[tuple(points.astype(int).reshape(-1, 3).T)].all()
  closed = np.zeros_like(found)
  for triangle in triangles:
    closed |= touches(triangle, 13)
  assert (found <= closed).all()


def test_chunks_do_not_matter(monkeypatch):
  mesh = trimesh.creation.icosphere(3)
  whole = voxelize.voxelize(mesh.vertices, mesh.faces, 64)
  monkeypatch.setattr(surface, '_COLUMNS', 37)
  monkeypatch.setattr(surface, '_TRIANGLES', 101)
  parts = voxelize.voxelize(mesh.vertices, mesh.faces, 64)
  np.testing.assert_array_equal(whole, parts)


# What is inside, and where shapes lie.


@pytest.mark.parametrize('size', [12, 32, 64, 128])
def test_a_cube_fills_all_but_the_margin(size):
  grid = voxelize.voxelize(*box((-3, 5, 7), (-1, 7, 9)), size)
  expected = np.zeros((size, size, size), bool)
  margin = placement.default_margin(size)
  expected[(slice(margin, size - margin),) * 3] = True
  np.testing.assert_array_equal(grid, expected)


@pytest.mark.parametrize('margin', [0, 1, 5, 15])
def test_the_longest_side_fills_what_the_margin_leaves(margin):
  vertices, faces = box((0, 0, 0), (1, 2, 0.3))
  grid = voxelize.voxelize(vertices * 1e-3, faces, 32, margin=margin)
  hit = np.argwhere(grid)
  assert hit[:, 1].min() == margin
  assert hit[:, 1].max() == 31 - margin
  low, high = hit.min(axis=0), hit.max(axis=0)
  assert (low + high == 31).all()  # centred.


def test_a_box_has_the_volume_of_the_voxels_it_meets():
  # 30 x 12.5 x 5.25 voxels about 16: from 9.75 to 22.25, 13.375 to 18.625.
  grid = voxelize.voxelize(*box((0, 0, 0), (60, 25, 10.5)), 32)
  assert grid.sum() == 30 * 14 * 6
  hollow = voxelize.voxelize(*box((0, 0, 0), (60, 25, 10.5)), 32, solid=False)
  assert hollow.sum() == 30 * 14 * 6 - 28 * 12 * 4


@pytest.mark.parametrize('size', [16, 32, 64])
def test_a_ball_is_the_voxels_it_meets(size):
  mesh = trimesh.creation.icosphere(5)
  grid = voxelize.voxelize(mesh.vertices, mesh.faces, size, margin=1)
  radius = (size - 2) / mesh.extents.max()
  cells = np.arange(size)
  nearest = np.clip(size / 2, cells, cells + 1) - size / 2
  distance = np.sqrt(
    nearest[:, None, None] ** 2 + nearest[:, None] ** 2 + nearest**2
  )
  inscribed = radius * np.linalg.norm(mesh.triangles_center, axis=1).min()
  assert grid[distance < inscribed].all()
  assert not grid[distance > radius].any()
  volume = 4 / 3 * np.pi * radius**3
  # On average half of a voxel of the surface lies in the ball.
  shell = voxelize.voxelize(
    mesh.vertices, mesh.faces, size, margin=1, solid=False
  )
  assert abs(grid.sum() - shell.sum() / 2 - volume) < 0.4 / size * volume


@pytest.mark.parametrize('size', [16, 32, 128])
def test_a_thin_plate_survives(size):
  plate = voxelize.voxelize(*box((0, 0, 0), (1, 1, 1e-4)), size)
  width = size - 2 * placement.default_margin(size)
  assert plate.sum() == 2 * width**2  # its middle lies between two layers.
  flat = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
  sheet = voxelize.voxelize(flat, np.array([[0, 1, 2], [0, 2, 3]]), size)
  assert sheet.sum() == width**2


def test_a_thin_leg_is_one_piece():
  top = box((0, 0, 1), (1, 1, 1.02))
  leg = box((0.2, 0.3, 0), (0.2001, 0.3001, 1.01))
  for angle in np.linspace(0, 1, 7):
    vertices, faces = join(top, leg)
    vertices = (
      vertices
      @ trimesh.transformations.rotation_matrix(angle, (1, 2, 3))[:3, :3]
    )
    grid = voxelize.voxelize(vertices, faces, 32)
    assert ndimage.label(grid, np.ones((3, 3, 3)))[1] == 1


def test_two_pieces_stay_two():
  grid = voxelize.voxelize(
    *join(box((0, 0, 0), (1, 1, 1)), box((1.3, 0, 0), (2.3, 1, 1))), 32
  )
  assert ndimage.label(grid, np.ones((3, 3, 3)))[1] == 2


def test_a_box_without_lid_stays_a_shell_and_with_lid_is_solid():
  vertices, faces = box((0, 0, 0), (1, 1, 1))
  lid = (vertices[faces][:, :, 2] == 1).all(axis=1)
  assert lid.sum() == 2
  closed = voxelize.voxelize(vertices, faces, 32)
  opened = voxelize.voxelize(vertices, faces[~lid], 32)
  assert closed.sum() == 30**3
  assert opened.sum() == 30**3 - 28 * 28 * 29
  assert not opened[16, 16, 2:].any()


def test_a_gap_narrower_than_a_voxel_is_closed():
  vertices, faces = box((0, 0, 0), (1, 1, 1))
  lid = (vertices[faces][:, :, 2] == 1).all(axis=1)
  loose = box((0.005, 0.005, 0.999), (0.995, 0.995, 1))
  grid = voxelize.voxelize(*join((vertices, faces[~lid]), loose), 32)
  assert grid.sum() == 30**3


def test_windings_order_and_copies_do_not_matter():
  mesh = furniture.make_mesh('chair', np.random.default_rng(1))
  expected = voxelize.voxelize(mesh.vertices, mesh.faces, 32)
  rng = np.random.default_rng(0)
  faces = rng.permutation(np.concatenate([mesh.faces, mesh.faces[::3]]))
  flip = rng.random(len(faces)) < 0.5
  faces[flip] = faces[flip, ::-1]
  np.testing.assert_array_equal(
    voxelize.voxelize(mesh.vertices, faces, 32), expected
  )


def test_closed_cavities_and_inner_parts_are_filled():
  inner = box((0.3, 0.3, 0.3), (0.6, 0.6, 0.6))
  grid = voxelize.voxelize(*join(box((0, 0, 0), (1, 1, 1)), inner), 32)
  assert grid.sum() == 30**3


def test_a_hole_through_a_ring_stays_open():
  ring = trimesh.creation.annulus(0.5, 1.0, 0.5)
  grid = voxelize.voxelize(ring.vertices, ring.faces, 32)
  assert not grid[16, 16].any()
  assert grid.any(axis=(1, 2)).sum() == 30


def test_a_shape_at_the_border_is_flooded_from_outside_it():
  grid = voxelize.voxelize(*box((0, 0, 0), (1, 1, 1)), 8, margin=0)
  assert grid.all()
  corner = np.zeros((3, 3, 3), bool)
  corner[1, :, :] = True  # a wall through the grid: both sides are outside.
  np.testing.assert_array_equal(inside.flood(corner), corner)


def test_the_flood_does_not_pass_between_voxels_that_share_an_edge():
  distance = abs(np.indices((9, 9, 9)) - 4).sum(axis=0)
  octahedron = distance == 3  # its voxels meet in edges only.
  np.testing.assert_array_equal(inside.flood(octahedron), distance <= 3)


def test_unused_corners_do_not_matter():
  vertices, faces = box((0, 0, 0), (1, 1, 1))
  extra = np.concatenate([vertices, [[50.0, 0, 0], [np.nan] * 3]])
  assert voxelize.voxelize(extra, faces, 32).sum() == 30**3


@pytest.mark.parametrize('up', ['x', 'y', 'z'])
def test_up_axis_becomes_z_without_mirroring(up):
  # A tripod of three lengths, right-handed about its foot.
  parts = [
    box((0, 0, 0), (0.2, 0.2, 1.0)),
    box((0, 0, 0), (0.7, 0.2, 0.2)),
    box((0, 0, 0), (0.2, 0.5, 0.2)),
  ]
  vertices, faces = join(*parts)
  expected = voxelize.voxelize(vertices, faces, 32)
  # The same shape in a world where `up` is up.
  if up == 'y':
    turned = vertices[:, [0, 2, 1]] * (1, 1, -1)
  elif up == 'x':
    turned = vertices[:, [2, 1, 0]] * (1, 1, -1)
  else:
    turned = vertices
  assert np.argmax(np.ptp(turned, axis=0)) == 'xyz'.index(up)
  triangles = placement.normalise(turned, faces, 32, up=up)
  plain = placement.normalise(vertices, faces, 32)
  np.testing.assert_allclose(triangles, plain, atol=1e-9)
  grid = voxelize.voxelize(turned, faces, 32, up=up)
  assert (grid ^ expected).sum() <= 0.01 * expected.sum()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'size': 3}, 'size must be 4 to 128 voxels a side, got 3'),
    ({'size': 129}, 'got 129'),
    ({'margin': -1}, 'margin must be 0 to 15 voxels at size 32, got -1'),
    ({'margin': 16}, 'got 16'),
    ({'up': 'w'}, "got 'w'"),
  ],
)
def test_arguments_out_of_range(changes, message):
  with pytest.raises(ValueError, match=message):
    voxelize.voxelize(*box((0, 0, 0), (1, 1, 1)), **{'size': 32, **changes})


# Files of meshes; what is in them is of test_readers.

CUBE = trimesh.creation.box((1.0, 0.72, 0.43))
OFF = trimesh.exchange.off.export_off(CUBE).encode()
FILES = {
  'x.obj': trimesh.exchange.obj.export_obj(CUBE).encode(),
  'x.ply': trimesh.exchange.ply.export_ply(CUBE),
  'x.stl': trimesh.exchange.stl.export_stl(CUBE),
}
BROKEN = {
  'empty.off': (b'', 'empty file'),
  'text.off': (b'<html>404</html>', 'not an OFF file'),
  'truncated.off': (OFF[:-30], 'truncated: face 8 of 12'),
  'nan.off': (
    OFF.replace(b'0.5000000000', b'nan', 1),
    'a vertex coordinate is',
  ),
  'infinite.off': (
    OFF.replace(b'0.5000000000', b'inf', 1),
    'a vertex coordinate is',
  ),
  'zero_extent.off': (
    b'OFF\n3 1 0\n' + b'1 2 3\n' * 3 + b'3 0 1 2\n',
    'zero extent',
  ),
  'points.obj': (b'v 0 0 0\nv 1 0 0\nv 0 1 0\n', 'a cloud of 3 points'),
  'beyond.obj': (b'v 0 0 0\nf 1 1 2\n', 'line 2: index 2 out of range'),
  'truncated.ply': (FILES['x.ply'][:-20], 'truncated'),
  'truncated.stl': (FILES['x.stl'][:-20], 'truncated: 684 bytes promised'),
}


# Finding meshes.


def write_tree(folder, count=2):
  """Furniture as a ModelNet tree; every mesh is another one."""
  for i in range(count):
    for category in ('chair', 'table'):
      for split in ('train', 'test'):
        mesh = furniture.make_mesh(
          category, np.random.default_rng([i, split == 'test'])
        )
        path = folder / category / split / f'{category}_{i:04d}.off'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(trimesh.exchange.off.export_off(mesh))
  return folder


def names(found):
  return [shape[:3] for shape in found]


TREE = [
  (category, split, f'{category}_{i:04d}')
  for category in ('chair', 'table')
  for split in ('test', 'train')
  for i in range(2)
]


def test_tree_zip_and_folder_of_folders(tmp_path):
  tree = write_tree(tmp_path / 'ModelNet10')
  (tree / 'README.txt').write_text('x')
  (tree / '.DS_Store').write_text('x')
  assert names(trees.find_shapes(tree)) == TREE
  assert names(trees.find_shapes(tmp_path)) == TREE
  assert names(trees.find_shapes(tree / 'chair')) == TREE[:4]
  assert names(trees.find_shapes(tree / 'chair' / 'test')) == TREE[:2]
  archive = tmp_path / 'ModelNet10.zip'
  with zipfile.ZipFile(archive, 'w') as file:
    for path in tree.rglob('*'):
      file.write(path, path.relative_to(tmp_path))
    file.writestr('__MACOSX/ModelNet10/chair/train/._chair_0000.off', b'junk')
  assert names(trees.find_shapes(archive)) == TREE


def test_flat_folder_and_single_file(tmp_path):
  folder = tmp_path / 'lamps'
  folder.mkdir()
  for name in ('b.STL', 'a.off', 'c.obj', 'd.ply', 'e.txt'):
    (folder / name).write_bytes(FILES.get(f'x.{name[2:].lower()}', OFF))
  found = trees.find_shapes(folder, split='test')
  assert names(found) == [('lamps', 'test', name) for name in 'abcd']
  found = trees.find_shapes(folder / 'a.off')
  assert names(found) == [('lamps', 'train', 'a')]
  assert found[0].num_bytes == len(OFF)


def test_volumes_in_folders_named_by_their_size(tmp_path):
  path = tmp_path / 'volumetric_data' / 'chair' / '30' / 'test' / 'c_1.mat'
  path.parent.mkdir(parents=True)
  path.write_bytes(b'x')
  found = trees.find_shapes(tmp_path, file_types=('mat',))
  assert names(found) == [('chair', 'test', 'c_1')]


@pytest.mark.parametrize(
  'layout',
  [
    '{}/{}/model.obj',  # ShapeNetCore v1
    '{}/{}/models/model_normalized.obj',  # v2
  ],
)
@pytest.mark.parametrize('packed', [False, True])
def test_trees_of_shapenet(tmp_path, layout, packed):
  root = tmp_path / 'ShapeNetCore'
  ids = [('03001627', 'a1'), ('03001627', 'b2'), ('04379243', 'a1')]
  for synset, name in ids:
    path = root / layout.format(synset, name)
    path.parent.mkdir(parents=True)
    path.write_bytes(FILES['x.obj'])
    path.with_suffix('.mtl').write_text('newmtl x')
  expected = [(synset, 'train', name) for synset, name in ids]
  if packed:
    archive = tmp_path / 'x.zip'
    with zipfile.ZipFile(archive, 'w') as file:
      for path in root.rglob('*'):
        file.write(path, path.relative_to(tmp_path))
    root = archive
  found = trees.find(root)
  assert names(found.shapes) == expected
  assert found.passed_over == {'.mtl': 3}
  if not packed:
    for part in (root / '03001627', root / '03001627' / 'a1'):
      below = [e for e in expected if part.name in ('03001627', e[2])]
      below = [e for e in below if e[0] == '03001627']
      assert names(trees.find_shapes(part)) == below


@pytest.mark.parametrize(
  ('tree', 'expected'),
  [
    (
      '{class}/{name}/*.obj',
      [('chair', 'train', 'a'), ('chair', 'train', 'b')],
    ),
    ('{name}/mesh.obj', [('data', 'train', 'a'), ('data', 'train', 'b')]),
    ('{split}_set/{class}-{name}.off', [('sofa', 'test', '1-x')]),
    ('{class}/**/{name}.stl', [('deep', 'train', 'x')]),
  ],
)
def test_a_pattern_for_any_other_tree(tmp_path, tree, expected):
  files = {
    'chair/a/mesh.obj': 'x.obj', 'chair/b/mesh.obj': 'x.obj',
    'test_set/sofa-1-x.off': None, 'deep/er/and/deeper/x.stl': 'x.stl',
    'chair/a/mesh.fbx': None,
  }  # fmt: skip
  for path, kind in files.items():
    path = tmp_path / 'data' / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(FILES[kind] if kind else OFF)
  found = trees.find(tmp_path / 'data', tree=tree)
  if tree[:6] == '{name}':
    assert [shape[1:3] for shape in found.shapes] == [e[1:] for e in expected]
  else:
    assert names(found.shapes) == expected
  others = sum(found.passed_over.values())
  assert others == len(files) - len(expected)
  assert found.passed_over['.fbx'] == 1


@pytest.mark.parametrize(
  'tree', ['{class}/x.obj', '{name}/{name}.off', '{kind}/{name}.off']
)
def test_patterns_that_are_none(tmp_path, tree):
  (tmp_path / 'a.off').write_bytes(OFF)
  with pytest.raises(ValueError, match=r'must have \{name\}, and may have'):
    trees.find(tmp_path, tree=tree)


def test_what_is_passed_over_is_counted(tmp_path):
  for name in ('a.off', 'b.fbx', 'c.FBX', 'd.txt', 'e', 'f.tar.gz', '.g.off'):
    (tmp_path / name).write_bytes(OFF)
  found = trees.find(tmp_path)
  assert names(found.shapes) == [(tmp_path.name, 'train', 'a')]
  assert found.passed_over == {
    '.FBX': 1, '.fbx': 1, '.tar.gz': 1, '.txt': 1, 'no ending': 1
  }  # fmt: skip
  (tmp_path / 'a.off').unlink()
  with pytest.raises(ValueError, match=r'passed over: 1 \.FBX, 1 \.fbx, '):
    trees.find(tmp_path)


def test_nothing_to_find(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    trees.find_shapes(tmp_path / 'none')
  with pytest.raises(ValueError, match=r'no shapes in .* looked for \.off'):
    trees.find_shapes(tmp_path)


def test_two_meshes_of_one_name(tmp_path):
  (tmp_path / 'a.off').write_bytes(OFF)
  (tmp_path / 'a.obj').write_bytes(FILES['x.obj'])
  with pytest.raises(ValueError, match=r'two shapes are called .*/train/a'):
    trees.find_shapes(tmp_path)
  # A pattern that was given is not advised.
  for name in ('b.off', 'c.off'):
    path = tmp_path / 'tree' / 'chair' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(OFF)
  with pytest.raises(ValueError, match='does not fit these files'):
    trees.find(tmp_path / 'tree', tree='{class}/{name}/*.off')


# The whole command.


def command(*arguments, **options):
  return subprocess.run(
    [sys.executable, '-W', 'error', '-m', 'data_prep.voxelize', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    **options,
  )


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
  return write_tree(tmp_path_factory.mktemp('meshes'), count=10)


@pytest.fixture(scope='module')
def expected(tree, tmp_path_factory):
  """What one process makes of the tree."""
  outs = {
    size: tmp_path_factory.mktemp('expected') / f'{size}.npz'
    for size in (16, 32)
  }
  outcome = groups.convert(trees.find_shapes(tree), outs, progress=False)
  assert outcome == ([], [])
  return {size: out.read_bytes() for size, out in outs.items()}, outs


def test_the_file_holds_the_shapes(tree, expected):
  data = voxel_file.load(expected[1][32])
  assert data.classes == ('chair', 'table')
  assert list(data.voxels) == ['train', 'test']
  assert data.labels['test'].tolist() == [0] * 10 + [1] * 10
  assert data.names['train'][10] == 'table_0000'
  mesh = trimesh.load_mesh(tree / 'table' / 'train' / 'table_0000.off')
  np.testing.assert_array_equal(
    data.voxels['train'][10],
    voxelize.voxelize(mesh.vertices, mesh.faces, 32),
  )


def test_command_with_workers_gives_the_same_bytes(tree, expected, tmp_path):
  result = command(
    f'--meshes={tree}',
    '--size=16,32',
    f'--out={tmp_path}/x_{{size}}.npz',
    '--num_workers=2',
  )
  assert result.returncode == 0, result.stderr
  assert '40 shapes of 40 meshes' in result.stdout
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'x_16.npz',
    'x_32.npz',
  ]
  for size, content in expected[0].items():
    assert (tmp_path / f'x_{size}.npz').read_bytes() == content
  again = command(
    f'--meshes={tree}', '--size=16,32', f'--out={tmp_path}/x_{{size}}.npz'
  )
  assert again.returncode == 1
  assert 'x_16.npz exists and is not overwritten' in again.stderr


def test_zip_gives_the_same_bytes(tree, expected, tmp_path):
  archive = tmp_path / f'{tree.name}.zip'
  with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
    for path in tree.rglob('*'):
      file.write(path, path.relative_to(tree))
  out = tmp_path / 'x.npz'
  groups.convert(trees.find_shapes(archive), {32: out}, progress=False)
  assert out.read_bytes() == expected[0][32]


def test_surface_margin_and_up_reach_the_voxels(tree, tmp_path):
  meshes = trees.find_shapes(tree)[:1]
  groups.convert(
    meshes,
    {16: tmp_path / 'x.npz'},
    margin=3,
    solid=False,
    up='y',
    progress=False,
  )
  mesh = trimesh.load_mesh(meshes[0].path)
  np.testing.assert_array_equal(
    voxel_file.load(tmp_path / 'x.npz').voxels['test'][0],
    voxelize.voxelize(
      mesh.vertices, mesh.faces, 16, margin=3, solid=False, up='y'
    ),
  )


def children(pid):
  path = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
  return [int(child) for child in path.read_text().split()]


def alive(pid):
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')')[1]
  except (FileNotFoundError, ProcessLookupError):
    return False
  return state.split()[0] not in 'ZX'


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='no SIGKILL here')
def test_kill_and_resume_gives_the_same_bytes(tree, tmp_path):
  # 128^3 and 40 meshes in 3 groups: long enough to be caught in the middle.
  whole, out = tmp_path / 'whole.npz', tmp_path / 'x.npz'
  meshes = trees.find_shapes(tree)
  groups.convert(meshes, {128: whole}, progress=False)
  arguments = [f'--meshes={tree}', '--size=128', f'--out={out}']
  partial = tmp_path / 'x.npz.partial'
  process = subprocess.Popen(
    [
      *(sys.executable, '-m', 'data_prep.voxelize', *arguments),
      '--num_workers=2',
    ],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  deadline = time.monotonic() + 600
  while not list(partial.glob('group_*.npz')):
    assert process.poll() is None, 'ended before it could be killed'
    assert time.monotonic() < deadline
    time.sleep(0.002)
  workers = (
    children(process.pid) if pathlib.Path('/proc/self/stat').exists() else []
  )
  process.kill()
  process.wait()
  assert not out.exists()
  done = {path: path.read_bytes() for path in partial.glob('group_*.npz')}
  assert 0 < len(done) < 3
  while any(alive(worker) for worker in workers):  # none is left behind.
    assert time.monotonic() < deadline
    time.sleep(0.01)
  # What is done is not done again, and other settings are refused.
  with pytest.raises(FileExistsError, match='margin None, now 3'):
    groups.convert(meshes, {128: out}, margin=3, progress=False)
  stamps = {path: path.stat().st_mtime_ns for path in done}
  result = command(*arguments, '--num_workers=1', '--size=128')
  assert result.returncode == 0, result.stderr
  assert 'of 40 meshes are done, resuming' in result.stdout
  assert stamps
  assert out.read_bytes() == whole.read_bytes()
  assert not partial.exists()


def test_killed_between_two_files_it_still_ends_well(
  tree, expected, tmp_path, monkeypatch
):
  meshes = trees.find_shapes(tree)
  outs = {size: tmp_path / f'{size}.npz' for size in (16, 32)}
  save, calls = voxel_file.save_stored, []

  def save_once(path, *arguments):
    calls.append(path)
    if len(calls) == 2:
      raise KeyboardInterrupt
    save(path, *arguments)

  monkeypatch.setattr(voxel_file, 'save_stored', save_once)
  with pytest.raises(KeyboardInterrupt):
    groups.convert(meshes, outs, progress=False)
  assert outs[16].exists()
  assert not outs[32].exists()
  monkeypatch.setattr(voxel_file, 'save_stored', save)
  groups.convert(meshes, outs, progress=False)
  for size, content in expected[0].items():
    assert outs[size].read_bytes() == content
  assert sorted(os.listdir(tmp_path)) == ['16.npz', '32.npz']


def test_an_earlier_file_is_not_overwritten(tree, tmp_path):
  out = tmp_path / 'x.npz'
  out.write_text('mine')
  with pytest.raises(FileExistsError, match='not overwritten'):
    groups.convert(trees.find_shapes(tree), {32: out}, progress=False)
  assert out.read_text() == 'mine'
  assert list(tmp_path.iterdir()) == [out]


@pytest.fixture(scope='module')
def broken_tree(tmp_path_factory):
  """One sound mesh among all the broken ones."""
  folder = tmp_path_factory.mktemp('broken') / 'box' / 'train'
  folder.mkdir(parents=True)
  for name, (data, _) in BROKEN.items():
    (folder / name.replace('.', '_', 1).replace('.', '_')).with_suffix(
      f'.{name.split(".")[-1]}'
    ).write_bytes(data)
  (folder / 'sound.off').write_bytes(OFF)
  return folder.parents[1]


def test_broken_meshes_are_reported_and_skipped(broken_tree, tmp_path):
  out = tmp_path / 'x.npz'
  result = command(f'--meshes={broken_tree}', f'--out={out}')
  assert result.returncode == 2, result.stderr
  assert f'1 shape of {len(BROKEN) + 1} meshes' in result.stdout
  report = result.stderr.split('meshes were skipped:')[1]
  for name, (_, message) in BROKEN.items():
    line = next(
      line
      for line in report.splitlines()
      if line.startswith(f'  box/train/{name.replace(".", "_")}: ')
    )
    assert message in line
  assert voxel_file.load(out).names['train'].tolist() == ['sound']


def test_strict_stops_and_keeps_what_is_done(broken_tree, tmp_path):
  out = tmp_path / 'x.npz'
  result = command(f'--meshes={broken_tree}', f'--out={out}', '--strict')
  assert result.returncode == 1
  assert 'stopped by --strict' in result.stderr
  assert 'box/train/' in result.stderr
  assert not out.exists()
  meshes = trees.find_shapes(broken_tree)
  # Still strict, the resumed command stops at once; else it ends well.
  with pytest.raises(ValueError, match='stopped by --strict'):
    groups.convert(meshes, {32: out}, strict=True, progress=False)
  skipped = groups.convert(meshes, {32: out}, progress=False).skipped
  assert len(skipped) == len(BROKEN)


def test_nothing_is_written_when_all_are_broken(tmp_path):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in' / 'a.off').write_bytes(b'OFF\n')
  with pytest.raises(ValueError, match=r'none of the 1 meshes .* no counts'):
    groups.convert(
      trees.find_shapes(tmp_path / 'in'),
      {32: tmp_path / 'x.npz'},
      progress=False,
    )
  assert os.listdir(tmp_path) == ['in']


def test_a_damaged_member_of_a_zip_file_is_skipped(tmp_path):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as file:
    file.writestr('box/train/a.off', OFF)
    file.writestr('box/train/b.off', OFF)
  data = bytearray(buffer.getvalue())
  at = data.index(b'0.360000')
  data[at] = ord('9')
  (tmp_path / 'x.zip').write_bytes(data)
  skipped = groups.convert(
    trees.find_shapes(tmp_path / 'x.zip'),
    {32: tmp_path / 'x.npz'},
    progress=False,
  ).skipped
  assert len(skipped) == 1
  assert 'Bad CRC-32' in skipped[0][1]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--size=200'], 'size must be 4 to 128'),
    (['--meshes=no_such_folder'], 'does not exist'),
  ],
)
def test_bad_flags(tmp_path, arguments, message):
  (tmp_path / 'a.off').write_bytes(OFF)
  defaults = [f'--meshes={tmp_path}', f'--out={tmp_path}/x.npz']
  result = command(*defaults, *arguments)
  assert result.returncode == 1
  assert message in result.stderr
  assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('values', [['big'], ['32', '32'], []])
def test_bad_sizes(values):
  with pytest.raises(ValueError, match='--size must be'):
    voxelize.parse_sizes(values)


def test_bad_names_of_files():
  with pytest.raises(ValueError, match=r'must contain \{size\}'):
    voxelize.name_outs('x.npz', [32, 64])
  with pytest.raises(ValueError, match=r'ends in \.npz'):
    voxelize.name_outs('x.mat', [32])
  with pytest.raises(ValueError, match='each size needs its own file'):
    groups.convert([], {32: 'x.npz', 64: './x.npz'})
  with pytest.raises(ValueError, match='num_workers must be positive'):
    groups.convert([], {32: 'x.npz'}, num_workers=0)


# Scans, doubts, and what goes on at the same time.


def test_shapes_with_holes_are_named_and_marked(tmp_path):
  folder = tmp_path / 'box'
  folder.mkdir()
  whole = trimesh.creation.box((1, 1, 1)).subdivide().subdivide().subdivide()
  holed = whole.copy()
  holed.update_faces(np.arange(len(holed.faces)) % 97 != 5)
  whole.export(folder / 'a.off')
  holed.export(folder / 'b.off')
  (folder / 'notes.txt').write_text('x')
  result = command(
    f'--meshes={folder}', '--size=16,64', f'--out={tmp_path}/{{size}}.npz'
  )
  assert result.returncode == 0, result.stderr
  assert 'passed over: 1 .txt' in result.stdout
  assert '1 mesh was doubtful:' in result.stderr
  assert 'box/train/b: at 64^3 it has holes; ' in result.stderr
  small, large = (voxel_file.read(tmp_path / f'{n}.npz') for n in (16, 64))
  assert small.doubtful['train'].tolist() == [False, False]
  assert large.doubtful['train'].tolist() == [False, True]
  grids = voxel_file.unpack(large.arrays['train'])
  # But for a few voxels of the surface, where the holes are.
  assert grids[1].sum() > 0.97 * grids[0].sum()


def test_a_face_far_from_the_rest_is_doubtful(tmp_path):
  far = trimesh.Trimesh([(200, 0, 0), (201, 0, 0), (200, 1, 0)], [(0, 1, 2)])
  box = trimesh.creation.box((1, 1, 1))
  trimesh.util.concatenate(box, far).export(tmp_path / 'a.off')
  out = tmp_path / 'x.npz'
  outcome = groups.convert(
    trees.find_shapes(tmp_path), {16: out}, progress=False
  )
  ((name, reason),) = outcome.doubtful
  assert name.endswith('/a')
  assert '[200.0, 0.0, 0.0] is far from the rest' in reason
  assert voxel_file.read(out).doubtful['train'].tolist() == [True]


def test_clouds_of_points_are_surfaces(tmp_path):
  points = trimesh.creation.icosphere(3).vertices.copy()
  points[5] = np.nan  # nothing came back.
  trimesh.PointCloud(points).export(tmp_path / 'a.ply')
  (tmp_path / 'b.off').write_bytes(OFF)
  shapes = trees.find_shapes(tmp_path)
  outcome = groups.convert(shapes, {16: tmp_path / 'x.npz'}, progress=False)
  assert [reason for _, reason in outcome.skipped] == [
    'no faces: it is a cloud of 642 points, which have no inside '
    '(--surface_only keeps the voxels that hold them)'
  ]
  outcome = groups.convert(
    shapes, {16: tmp_path / 'y.npz'}, solid=False, progress=False
  )
  assert not outcome.skipped
  grid = voxel_file.load(tmp_path / 'y.npz').voxels['train'][0]
  radius = np.linalg.norm(np.argwhere(grid) + 0.5 - 8, axis=1)
  assert (abs(radius - 7) < 1).all()
  assert len(radius) > 300


def test_up_is_as_the_format_has_it(tmp_path):
  tall = trimesh.creation.box((1, 2, 4))
  tall.export(tmp_path / 'a.off')
  tall.apply_transform(trimesh.transformations.rotation_matrix(
    -np.pi / 2, (1, 0, 0)))  # fmt: skip
  tall.export(tmp_path / 'b.glb')
  shapes = trees.find_shapes(tmp_path)
  for up, equal in ((None, True), ('y', False)):
    out = tmp_path / f'{up}.npz'
    groups.convert(shapes, {16: out}, up=up, progress=False)
    first, second = voxel_file.load(out).voxels['train']
    assert second.any(axis=(0, 1)).sum() == 14  # tall, both ways.
    assert (first == second).all() == equal


def test_a_second_run_is_kept_away(tree, tmp_path):
  out = tmp_path / 'x.npz'
  meshes = trees.find_shapes(tree)
  partial = tmp_path / 'x.npz.partial'
  with (
    groups._locked(partial, {16: out}),
    pytest.raises(BlockingIOError, match='another process is writing to'),
  ):
    groups.convert(meshes, {16: out}, progress=False)
  assert not partial.exists()
  groups.convert(meshes, {16: out}, progress=False)
  assert os.listdir(tmp_path) == ['x.npz']


def test_a_partial_folder_of_someone_else_is_left_alone(tree, tmp_path):
  partial = tmp_path / 'x.npz.partial'
  partial.mkdir()
  (partial / 'mine.txt').write_text('mine')
  with pytest.raises(FileExistsError, match='holds other files'):
    groups.convert(
      trees.find_shapes(tree), {16: tmp_path / 'x.npz'}, progress=False
    )
  assert os.listdir(partial) == ['mine.txt']


def test_a_mended_mesh_is_read_again(tmp_path):
  folder = tmp_path / 'box'
  folder.mkdir()
  for i in range(groups._GROUP + 2):
    (folder / f'{i:02d}.off').write_bytes(OFF)
  cut = b''.join(OFF.splitlines(keepends=True)[:18])
  (folder / '17.off').write_bytes(cut)
  out = tmp_path / 'x.npz'
  shapes = trees.find_shapes(folder)
  with pytest.raises(ValueError, match='box/train/17: truncated'):
    groups.convert(shapes, {16: out}, strict=True, progress=False)
  kept = sorted((tmp_path / 'x.npz.partial').glob('group_*.npz'))
  stamp = kept[0].stat().st_mtime_ns
  # Of the same length, so that only its time says that it is another one.
  mended = cut.replace(b' 12 ', b' 08 ')
  assert len(mended) == len(cut)
  (folder / '17.off').write_bytes(mended)
  seen = []
  voxel_group = groups._voxelize_group

  def spy(group, file, **options):
    seen.append((file.name, kept[0].stat().st_mtime_ns))
    return voxel_group(group, file, **options)

  groups._voxelize_group = spy
  try:
    outcome = groups.convert(
      trees.find_shapes(folder), {16: out}, strict=True, progress=False
    )
  finally:
    groups._voxelize_group = voxel_group
  assert not outcome.skipped
  assert seen == [('group_00001.npz', stamp)]
  assert len(voxel_file.load(out).names['train']) == len(shapes)


def test_ctrl_c_ends_in_one_line_and_goes_on(tmp_path):
  # Enough of them to be caught in the middle.
  tree = write_tree(tmp_path / 'meshes', count=30)
  out = tmp_path / 'x.npz'
  arguments = [f'--meshes={tree}', '--size=128', f'--out={out}']
  process = subprocess.Popen(
    [sys.executable, '-m', 'data_prep.voxelize', *arguments,
     '--num_workers=2'],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )  # fmt: skip
  partial = tmp_path / 'x.npz.partial'
  deadline = time.monotonic() + 600
  while not list(partial.glob('group_*.npz')):
    assert process.poll() is None, 'ended before it could be stopped'
    assert time.monotonic() < deadline
    time.sleep(0.002)
  os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them.
  _, errors = process.communicate(timeout=600)
  assert process.returncode == 130
  assert 'Traceback' not in errors
  last = errors.replace('\r', '\n').strip().splitlines()[-1]
  assert last == 'stopped: the same command resumes from here'
  assert not out.exists()
  result = command(*arguments, '--num_workers=1')
  assert result.returncode == 0, result.stderr
  assert 'of 120 meshes are done, resuming' in result.stdout
  assert sorted(os.listdir(tmp_path)) == ['meshes', 'x.npz']


# Real data.


def real_meshes(numbers):
  """Some meshes of the packed ModelNet10, by their place in its index."""
  pack = DATA / 'modelnet10_meshes.xz.d'
  index = np.load(pack / 'index.npz')
  last = max(numbers) + 1

  def first_rows(name, size, count, total):
    """The first `count` columns of three rows of byte planes of deltas."""
    planes = []
    with lzma.open(pack / name) as file:
      for _ in range(3 * size):
        planes.append(np.frombuffer(file.read(count), np.uint8))
        if len(planes) < 3 * size:
          file.seek(total - count, os.SEEK_CUR)
    planes = np.stack(planes).reshape(size, 3, count)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))

  v_end, f_end = np.cumsum(index['num_vertices']), np.cumsum(index['num_faces'])
  vertices = first_rows('vertices.xz', 2, v_end[last - 1], v_end[-1])
  vertices = np.cumsum(vertices.view('<u2')[..., 0], axis=1, dtype=np.uint16).T
  faces = first_rows('faces.xz', 4, f_end[last - 1], f_end[-1]).view('<i4')
  a, b, c = faces[..., 0]
  a = np.cumsum(a, dtype=np.int32)
  faces = np.stack([a, a + b, a + c], axis=1)
  for i in numbers:
    v = vertices[v_end[i] - index['num_vertices'][i] : v_end[i]]
    f = faces[f_end[i] - index['num_faces'][i] : f_end[i]]
    corners = v / 65535 * index['extent'][i] + index['origin'][i]
    yield index['names'][i], corners, f


@pytest.mark.skipif(
  not (DATA / 'modelnet10_meshes.xz.d').exists(),
  reason=f'no real meshes at {DATA}; set DNET_JAX_DATA',
)
def test_real_meshes_agree_with_the_published_voxels():
  names = [
    str(n) for n in np.load(DATA / 'modelnet10_meshes.xz.d/index.npz')['names']
  ]
  numbers = [
    i
    for prefix in ('bathtub/test', 'bed/test')
    for i in itertools.islice(
      (i for i, name in enumerate(names) if name.startswith(prefix)), 5
    )
  ]
  stored = {size: voxel_file.read(DATA / f'modelnet10_{size}.npz')
            for size in (32, 64)}  # fmt: skip
  agreement = []
  for name, vertices, faces in real_meshes(numbers):
    class_name, split, file = name.split('/')
    for size, known in stored.items():
      row = known.names[split].tolist().index(file.removesuffix('.off'))
      assert known.classes[known.labels[split][row]] == class_name
      other = voxel_file.unpack(known.arrays[split][row]).astype(bool)
      grid = voxelize.voxelize(vertices, faces, size)
      agreement.append((grid & other).sum() / (grid | other).sum())
      assert ndimage.label(grid, np.ones((3, 3, 3)))[1] <= 2
  # Theirs are sampled: a few voxels that a triangle just touches are missing.
  assert np.mean(agreement) > 0.98
  assert np.min(agreement) > 0.93
