"""What inspect says of a file whose shapes are known."""

import pathlib
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from data_prep import inspect
from data_prep import voxel_file

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
  """Two bars, one of them twice; an empty shape; two pieces at the border."""
  bar = np.zeros((10, 10, 10), np.uint8)
  bar[2:4, 3:8, 5] = 1
  low = np.zeros((10, 10, 10), np.uint8)
  low[4, 4, 1:9] = 1
  pieces = np.zeros((10, 10, 10), np.uint8)
  pieces[0, 0, 0] = pieces[5:7, 5:7, 5:7] = 1
  data = voxel_file.VoxelData(
    ('bar', 'odd', 'none'),
    {'train': np.stack([bar, low, pieces]), 'test': np.stack([bar, bar * 0])},
    {'train': np.array([0, 0, 1]), 'test': np.array([0, 1])},
    {'train': np.array(['a', 'b', 'c']), 'test': np.array(['d', 'e'])},
  )
  voxel_file.save(tmp_path / 'x.npz', data)
  return tmp_path / 'x.npz'


def test_facts(path):
  known = inspect.facts(voxel_file.read(path), 'train')
  np.testing.assert_allclose(known.occupancy, [0.01, 0.008, 0.009])
  assert known.low.tolist() == [[2, 3, 5], [4, 4, 1], [0, 0, 0]]
  assert known.high.tolist() == [[3, 7, 5], [4, 4, 8], [6, 6, 6]]
  assert known.components.tolist() == [1, 1, 2]
  known = inspect.facts(voxel_file.read(path), 'test')
  assert known.low[1].tolist() == known.high[1].tolist() == [-1, -1, -1]


def test_report(path):
  stored = voxel_file.read(path)
  found = {split: inspect.facts(stored, split) for split in stored.arrays}
  text = inspect.report(stored, found)
  lines = [' '.join(line.split()) for line in text.splitlines()]
  assert 'grid 10 x 10 x 10, binary' in lines
  # Class, split, shapes, occupancy, components, mean and largest box.
  assert 'bar train 2 0.0080 0.0090 0.0100 1.00 2 x 3 x 4 2 x 5 x 8' in lines
  assert 'odd train 1 0.0090 0.0090 0.0090 2.00 7 x 7 x 7 7 x 7 x 7' in lines
  assert 'odd test 1 0.0000 0.0000 0.0000 0.00 - -' in lines
  assert 'none train 0' in lines
  assert lines[lines.index('empty shapes: 1') + 1] == 'odd/test/e'
  at = lines.index('shapes that touch the border of the grid: 1')
  assert lines[at + 1] == 'odd/train/c'
  at = lines.index('groups of equal shapes: 1')
  assert lines[at + 1] == 'bar/train/a = bar/test/d'
  assert lines[-1] == 'groups of equal shapes in more than one split: 1'


def test_lists_are_cut(path):
  stored = voxel_file.read(path)
  found = {split: inspect.facts(stored, split) for split in stored.arrays}
  assert '  and 1 more' in inspect.report(stored, found, limit=0)


def test_fractions_count_above_one_half(tmp_path):
  grid = np.full((1, 4, 4, 4), 0.5, np.float32)
  grid[0, 1, 2, 3] = 0.6
  voxel_file.save(
    tmp_path / 'x.npz',
    voxel_file.VoxelData(
      ('a',), {'train': grid}, {'train': np.array([0])}, {'train': ['n']}
    ),
  )
  stored = voxel_file.read(tmp_path / 'x.npz')
  known = inspect.facts(stored, 'train')
  assert known.occupancy[0] == 1 / 64
  assert 'fractions' in inspect.report(stored, {'train': known})


def test_doubtful_shapes(tmp_path):
  shell = np.zeros((12, 12, 12), np.uint8)
  shell[1:11, 1:11, 1:11] = 1
  shell[2:10, 2:10, 2:10] = 0
  full = np.zeros_like(shell)
  full[1:11, 1:11, 1:11] = 1
  basin = shell.copy()
  basin[2:10, 2:10, 10] = 0
  holed = shell.copy()
  holed[4:6, 4:6, 10] = 0
  voxel_file.save_stored(
    tmp_path / 'x.npz',
    ['b'],
    {'train': voxel_file.pack(np.stack([full, basin, holed, full]))},
    {'train': np.zeros(4, np.int64)},
    {'train': ['full', 'basin', 'holed', 'marked']},
    {'train': np.array([False, False, False, True])},
  )
  result = command(tmp_path / 'x.npz', '--shapes=0')
  assert result.returncode == 0, result.stderr
  assert (
    'doubtful shapes: 2\n  b/train/holed\n  b/train/marked\n' in result.stdout
  )


def test_our_own_results_and_other_formats(tmp_path):
  real = np.zeros((2, 8, 8, 8), np.float32) - 0.03
  real[:, 2:6, 2:6, 2:5] = 1.1
  real[:, 2, 2, 2] = 0.7
  np.savez(tmp_path / 'voxels.npz', voxels=real)
  result = command(tmp_path / 'voxels.npz')
  assert result.returncode == 0, result.stderr
  assert 'grid 8 x 8 x 8, fractions' in result.stdout
  assert 'train         2  0.0938 0.0938 0.0938' in result.stdout
  assert (tmp_path / 'voxels.png').exists()
  np.save(tmp_path / 'a.npy', (real[0] > 0) * 200)
  np.save(tmp_path / 'b.npy', (real[0] > 0) * 200 + 1)
  result = command(tmp_path / 'b.npy', '--shapes=0')
  assert result.returncode == 1
  assert 'say with --threshold' in result.stderr
  result = command(tmp_path / 'b.npy', '--shapes=0', '--threshold=9')
  assert 'binary' in result.stdout
  np.save(tmp_path / 'c.npy', np.ones((4, 4, 4)))
  result = command(tmp_path, '--threshold=9')
  assert result.returncode == 1
  assert 'different grids: [(4, 4, 4), (8, 8, 8)]' in result.stderr


def test_visible_faces():
  cube = np.zeros((5, 5, 5), bool)
  cube[1:4, 1:4, 1:4] = True
  polygons, shade = inspect.visible_faces(cube, (-1, -1, 0.8))
  assert len(polygons) == 3 * 9
  assert [(shade == s).sum() for s in np.unique(shade)] == [9, 9, 9]
  # Two cubes in a row towards the camera: the front face is drawn last.
  row = np.zeros((5, 5, 5), bool)
  row[1, 2, 2] = row[3, 2, 2] = True
  polygons, _ = inspect.visible_faces(row, (-1, -0.1, 0.1))
  right = polygons[:, :, 0].mean(axis=1)
  near = inspect.visible_faces(row & (np.arange(5) < 3)[:, None, None],
                               (-1, -0.1, 0.1))[0]  # fmt: skip
  np.testing.assert_allclose(right[3:], near[:, :, 0].mean(axis=1))


def command(path, *arguments):
  return subprocess.run(
    [
      *(sys.executable, '-W', 'error', '-m', 'data_prep.inspect'),
      *(str(path), *arguments),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )


def test_command_draws_a_picture_once(path):
  result = command(path)
  assert result.returncode == 0, result.stderr
  assert 'empty shapes: 1' in result.stdout
  picture = matplotlib.image.imread(path.with_suffix('.png'))
  assert (picture[..., 2] > picture[..., 0] + 0.1).sum() > 100  # blue shapes.
  stamp = path.with_suffix('.png').stat().st_mtime_ns
  result = command(path)
  assert result.returncode == 0
  assert 'is not overwritten' in result.stdout
  assert path.with_suffix('.png').stat().st_mtime_ns == stamp
  result = command(path, f'--picture={path.with_suffix(".png")}')
  assert result.returncode == 1
  assert 'is not overwritten' in result.stderr


def test_command_without_picture(path):
  result = command(path, '--shapes=0')
  assert result.returncode == 0, result.stderr
  assert sorted(p.name for p in path.parent.iterdir()) == ['x.npz']


def test_command_on_no_file(tmp_path):
  result = command(tmp_path / 'x.npz')
  assert result.returncode == 1
  assert 'no voxel file' in result.stderr
  assert 'Traceback' not in result.stderr
