"""Meshes, results and new folders: written once, never over another."""

import concurrent.futures
import os

import numpy as np
import pytest
import trimesh

from experiments.files import outputs


def ball(side=12, radius=4.0):
  """Returns a soft ball: 0.5 at its radius."""
  axis = np.arange(side) - (side - 1) / 2
  distance = np.sqrt(sum(x**2 for x in np.meshgrid(axis, axis, axis)))
  return np.clip(radius - distance + 0.5, 0, 1)


@pytest.mark.parametrize('file_format', outputs.MESH_FORMATS)
def test_meshes_read_back_closed(tmp_path, file_format):
  voxels = np.stack([ball(), np.zeros((12, 12, 12)), np.ones((12, 12, 12))])
  saved = outputs.save_meshes(tmp_path / 'm', voxels, file_format=file_format)
  assert saved.empty == (1,)
  assert [os.path.basename(path) for path in saved.paths] == [
    f'sample_000.{file_format}',
    f'sample_002.{file_format}',
  ]
  mesh = trimesh.load_mesh(saved.paths[0])
  assert mesh.is_watertight
  assert mesh.volume == pytest.approx(4 / 3 * np.pi * 64, rel=0.03)
  np.testing.assert_allclose(mesh.bounds, [[1.5] * 3, [9.5] * 3], atol=0.05)


def test_meshes_overwrite_nothing(tmp_path):
  (tmp_path / 'sample_001.obj').write_text('mine')
  with pytest.raises(FileExistsError, match='will not overwrite'):
    outputs.save_meshes(tmp_path, np.ones((2, 3, 3, 3)))
  assert os.listdir(tmp_path) == ['sample_001.obj']
  assert (tmp_path / 'sample_001.obj').read_text() == 'mine'


def test_meshes_refuse(tmp_path):
  with pytest.raises(ValueError, match="'off'; choose from obj, ply, stl"):
    outputs.save_meshes(tmp_path, np.ones((1, 2, 2, 2)), file_format='off')
  with pytest.raises(ValueError, match=r'\(n, D, H, W\)'):
    outputs.save_meshes(tmp_path, np.ones((2, 2, 2)))
  with pytest.raises(ValueError, match='sample 1: 8 of 8'):
    voxels = np.ones((2, 2, 2, 2))
    voxels[1] = np.nan
    outputs.save_meshes(tmp_path, voxels)
  assert os.listdir(tmp_path) == []


def test_unused_paths(tmp_path):
  folder = tmp_path / 'new'
  assert outputs.unused_path(folder, 'a', '.png') == str(folder / 'a.png')
  assert os.listdir(folder) == []
  (folder / 'a.png').write_text('')
  os.symlink('nowhere', folder / 'a_001.png')
  assert outputs.unused_path(folder, 'a', '.png') == str(folder / 'a_002.png')
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    paths = list(
      pool.map(lambda _: outputs.unused_path(folder, 'samples'), range(40))
    )
  assert len(set(paths)) == 40
  assert sorted(paths)[:2] == [str(folder / 'samples'), f'{folder}/samples_001']
  assert all(os.path.isdir(path) for path in paths)
