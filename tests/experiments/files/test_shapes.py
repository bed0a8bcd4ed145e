"""Shapes as files: what other readers find in them."""

import os
import pathlib
import struct

import numpy as np
import pytest
import trimesh

from data_prep import mesh_files
from data_prep import volumes
from experiments.files import figures
from experiments.files import inputs
from experiments.files import shapes


def ball(side=12, radius=4.0):
  """Returns a soft ball: 0.5 at its radius."""
  axis = np.arange(side) - (side - 1) / 2
  distance = np.sqrt(sum(x**2 for x in np.meshgrid(axis, axis, axis)))
  return np.clip(radius - distance + 0.5, 0, 1)


def read_back(path):
  """Points and triangles of a file, by our own reader."""
  data = pathlib.Path(path).read_bytes()
  return mesh_files.read_any(data, mesh_files.file_type(path), 'z')


@pytest.mark.parametrize('kind', shapes.MESH_FORMATS)
def test_meshes_read_back_closed(tmp_path, kind):
  voxels = np.stack([ball(), np.zeros((12, 12, 12)), np.ones((12, 12, 12))])
  saved = shapes.save(str(tmp_path / 'm'), voxels, (kind,))
  assert [os.path.basename(path) for path in saved.paths] == [
    f'sample_000.{kind}',
    f'sample_002.{kind}',
  ]
  mesh = trimesh.load(saved.paths[0], force='mesh')
  assert saved.faces == (len(mesh.faces), 0, saved.faces[2])
  assert mesh.is_watertight
  # Real values: a thresholded ball would be 6 % too small or too large.
  assert mesh.volume == pytest.approx(4 / 3 * np.pi * 64, rel=0.03)
  low, high = [1.5] * 3, [9.5] * 3
  if kind == 'glb':  # Whose y is up.
    low, high = [1.5, 1.5, -9.5], [9.5, 9.5, -1.5]
  np.testing.assert_allclose(mesh.bounds, [low, high], atol=0.05)


@pytest.mark.parametrize('seed', range(5))
def test_surfaces_are_watertight_whatever_the_values(seed):
  rng = np.random.default_rng(seed)
  for _ in range(6):
    real = rng.random(rng.integers(1, 9, 3))
    for voxels in (
      real,
      real > 0.5,
      np.round(real * 2) / 2,
      real * 1e-7 + 0.5,
      real * 40 - 20,
    ):
      mesh = figures.surface(voxels)
      if mesh is not None:
        # Also where a reader merges corners that are in one place.
        for process in (False, True):
          found = trimesh.Trimesh(*mesh, process=process)
          assert found.is_watertight and found.is_winding_consistent
          assert found.volume > 0


def test_formats():
  assert shapes.parse('OBJ,glb,obj') == ('obj', 'glb')
  with pytest.raises(ValueError, match="'step'; choose from obj, ply"):
    shapes.parse('obj,step')


@pytest.mark.parametrize('up', ['x', 'y', 'z'])
@pytest.mark.parametrize('kind', shapes.MESH_FORMATS)
def test_meshes_in_coordinates_of_the_input(tmp_path, kind, up, caplog):
  # A bust of no symmetry, as a map has it: east, north and height in metres.
  voxels = np.zeros((16, 16, 16))
  voxels[2:14, 4:12, 5:11] = voxels[2:6, 4:12, 5:14] = 1
  far = np.array([448262.0, 5411932.0, 113.0])
  mesh = trimesh.Trimesh(*figures.surface(voxels), process=False)
  mesh.vertices = mesh.vertices / 8 + far
  mesh.export(tmp_path / 'in.obj', digits=4)
  given = inputs.read(
    inputs.Source(str(tmp_path / 'in.obj'), up=up), (32, 32, 32)
  )
  saved = shapes.save(
    str(tmp_path), given.voxels, (kind,), to_input=given.to_input, ups=given.ups
  )
  points, faces = read_back(saved.paths[0])
  if kind == 'glb':
    # Of the file y is up, whatever it was of the input.
    y_up = mesh_files.turned(mesh.vertices, up) @ mesh_files.turned(
      np.eye(3), 'y'
    ).T  # fmt: skip
    expected = np.stack([y_up.min(axis=0), y_up.max(axis=0)])
  else:
    expected = mesh.bounds
  # Half of a voxel more on each side; in STL half of a metre is nothing.
  voxel = np.abs(given.to_input[0, :3, :3]).max()
  rounded = 0.5 if kind == 'stl' else 1e-3
  assert ('rounded' in caplog.text) == (kind == 'stl')
  np.testing.assert_allclose(
    [points.min(axis=0), points.max(axis=0)], expected, atol=voxel + rounded
  )
  if kind != 'stl':
    volume = trimesh.Trimesh(points - points.mean(axis=0), faces).volume
    assert volume == pytest.approx(mesh.volume, rel=0.2)


@pytest.mark.parametrize('turn', [0, 90])
@pytest.mark.parametrize('up', ['x', 'y', 'z'])
def test_binvox_has_the_coordinates_and_axes_of_the_input(tmp_path, up, turn):
  rng = np.random.default_rng(0)
  matrix = np.diag([0.25, 0.25, 0.25, 1])
  matrix[:3, 3] = 10, -20, 30
  full = (rng.random((8, 8, 8)) < 0.3).astype(np.uint8)
  np.savez(tmp_path / 'in.npz', voxels=full[None], to_input=matrix[None])
  given = inputs.read(
    inputs.Source(str(tmp_path / 'in.npz'), up=up, turn=turn), (8, 8, 8)
  )
  (path,) = shapes.save(
    str(tmp_path), given.voxels, ('binvox',), to_input=given.to_input
  ).paths
  data = pathlib.Path(path).read_bytes()
  # Five lines that every reader of binvox knows.
  names = [line.split()[0] for line in data.split(b'\n', 5)[:5]]
  assert names == [b'#binvox', b'dim', b'translate', b'scale', b'data']
  np.testing.assert_array_equal(volumes.read(data, 'binvox'), full)
  np.testing.assert_allclose(volumes.transforms(data, 'binvox', 1)[0], matrix)


@pytest.mark.parametrize(('turn', 'x'), [(90, 0), (30, 0), (0, 5411932.12)])
def test_binvox_of_a_turned_mesh_and_of_one_far_away(tmp_path, caplog, turn, x):
  box = trimesh.creation.box(bounds=[(-0.1, -0.05, 0), (0.1, 0.05, 0.05)])
  box.apply_translation([0, x, 0])
  data = f'OFF\n{len(box.vertices)} {len(box.faces)} 0\n'
  data += '\n'.join(' '.join(map(repr, p)) for p in box.vertices.tolist())
  data += ''.join(f'\n3 {a} {b} {c}' for a, b, c in box.faces)
  (tmp_path / 'a.off').write_text(data)
  source = inputs.Source(str(tmp_path / 'a.off'), turn=turn)
  given = inputs.read(source, (32, 32, 32))
  (path,) = shapes.save(
    str(tmp_path), given.voxels, ('binvox',), to_input=given.to_input
  ).paths
  # A turn by 30 degrees is none of axes.
  assert ('turns by 90 degrees' in caplog.text) == (turn == 30)
  found = inputs.read(inputs.Source(path), (32, 32, 32))
  centre = np.argwhere(found.voxels[0]).mean(axis=0)
  middle = (found.to_input[0] @ (*centre, 1))[:3]
  near = np.allclose(middle, box.bounds.mean(axis=0), 0, 0.01)
  assert near == (turn != 30)


def test_magica_voxel_and_arrays(tmp_path):
  voxels = ball()[None]
  paths = shapes.save(str(tmp_path), voxels, ('vox', 'npy', 'mat')).paths
  vox, npy, mat = (pathlib.Path(path).read_bytes() for path in paths)
  # As the specification has it: id, version, MAIN, SIZE, XYZI.
  assert struct.unpack('<4si4s', vox[:12]) == (b'VOX ', 150, b'MAIN')
  size = struct.unpack_from('<4siiiii', vox, 20)
  assert size == (b'SIZE', 12, 0, 12, 12, 12)
  solid = voxels[0] > 0.5
  assert struct.unpack_from('<i', vox, 56) == (solid.sum(),)
  np.testing.assert_array_equal(volumes.read(vox, 'vox'), solid)
  # Real values where they can be kept.
  for data, kind in ((npy, 'npy'), (mat, 'mat')):
    np.testing.assert_array_equal(volumes.read(data, kind), voxels[0])


def test_nothing_is_overwritten(tmp_path):
  (tmp_path / 'sample_001.obj').write_text('mine')
  with pytest.raises(FileExistsError, match='will not overwrite'):
    shapes.save(str(tmp_path), np.ones((2, 3, 3, 3)))
  assert os.listdir(tmp_path) == ['sample_001.obj']
  assert (tmp_path / 'sample_001.obj').read_text() == 'mine'


def test_shapes_that_cannot_be(tmp_path):
  with pytest.raises(ValueError, match=r'\(n, D, H, W\)'):
    shapes.save(str(tmp_path), np.ones((2, 2, 2)))
  with pytest.raises(ValueError, match='sample 1: 8 of 8'):
    voxels = np.ones((2, 2, 2, 2))
    voxels[1] = np.nan
    shapes.save(str(tmp_path), voxels)
  assert os.listdir(tmp_path) == []
