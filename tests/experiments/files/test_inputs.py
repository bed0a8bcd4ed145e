"""Shapes from outside: every kind of file, and what is refused."""

import numpy as np
import pytest
import trimesh

from data_prep import convert
from data_prep import voxel_file
from experiments.files import inputs


def test_inputs_of_every_kind(tmp_path):
  mesh = trimesh.creation.box((2.0, 1.0, 0.5))
  for kind in ('off', 'obj', 'ply', 'stl'):
    path = str(tmp_path / f'box.{kind}')
    mesh.export(path)
    box = inputs.read_input(path, 10)
    assert box.shape == (1, 10, 10, 10) and box.sum() == 64
    turned = inputs.read_input(path, 10, 'y')
    assert turned.sum() == box.sum() and (turned != box).any()
  for kind in ('npy', 'binvox', 'mat'):
    path = tmp_path / f'voxels.{kind}'
    path.write_bytes(convert.write_voxels(box[0].astype(np.uint8), kind))
    np.testing.assert_array_equal(inputs.read_input(str(path), 10), box)
  path = str(tmp_path / 'voxels.npz')
  np.savez(path, voxels=box)
  np.testing.assert_array_equal(inputs.read_input(path, 10), box)
  path = str(tmp_path / 'own.npz')
  voxel_file.save(
    path,
    voxel_file.VoxelData(
      ('box',),
      {'test': box.astype(np.uint8)},
      {'test': np.zeros(1, np.int32)},
      {'test': np.array(['box'])},
    ),
  )
  np.testing.assert_array_equal(inputs.read_input(path, 10), box)


def test_inputs_that_cannot_be(tmp_path):
  def write(name, content):
    (tmp_path / name).write_bytes(content)
    return str(tmp_path / name)

  plane = b'OFF 4 2 0 0 0 0 1 0 0 1 1 0 0 1 0 3 0 1 2 3 0 2 3'
  for path, message in (
    (write('plane.off', plane), 'no inside'),
    (write('text.off', b'hello'), 'text.off'),
    (write('shape.doc', b''), r'must end in \.off'),
    (write('broken.npz', b'PK'), 'broken.npz'),
    (write('broken.npy', b''), 'broken.npy'),
  ):
    with pytest.raises(ValueError, match=message):
      inputs.read_input(path, 8)
  with pytest.raises(FileNotFoundError, match=r'none\.npy'):
    inputs.read_input(str(tmp_path / 'none.npy'), 8)
  path = str(tmp_path / 'shape.npy')
  for voxels, message in (
    (np.zeros((8, 8, 8)), 'empty'),
    (np.full((8, 8, 8), 2.0), '2.0'),
    (np.full((8, 8, 8), np.nan), 'nan'),
    (np.ones((8, 8)), r'\(8, 8\)'),
  ):
    np.save(path, voxels)
    with pytest.raises(ValueError, match=message):
      inputs.read_input(path, 8)
  np.savez(str(tmp_path / 'other.npz'), shapes=np.ones((8, 8, 8)))
  with pytest.raises(ValueError, match='no key voxels'):
    inputs.read_input(str(tmp_path / 'other.npz'), 8)


def test_smaller_grids_are_padded_and_larger_ones_refused(tmp_path):
  small = inputs.fit(np.ones((1, 6, 6, 6)), (8, 8, 8), 'a.npy')
  assert small.shape == (1, 8, 8, 8) and small.sum() == 216
  with pytest.raises(ValueError, match=r'a\.npy .*\(9, 9, 9\)'):
    inputs.fit(np.ones((1, 9, 9, 9)), (8, 8, 8), 'a.npy')
