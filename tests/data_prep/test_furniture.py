"""Procedural furniture: the same, all different, and recognisable."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from data_prep import furniture
from data_prep import voxel_file


@pytest.fixture(scope='module')
def data():
  return furniture.make_furniture(
    32, num_train=30, num_test=8, categories=furniture.CATEGORIES
  )


def test_what_is_made(data, tmp_path):
  assert data.classes == furniture.CATEGORIES
  assert data.voxels['train'].shape == (300, 32, 32, 32)
  assert data.voxels['test'].shape == (80, 32, 32, 32)
  assert data.labels['train'].tolist() == sorted(list(range(10)) * 30)
  assert data.names['train'][[0, 299]].tolist() == [
    'bathtub_0001',
    'toilet_0030',
  ]
  assert data.names['test'][0] == 'bathtub_0031'
  voxel_file.save(tmp_path / 'x.npz', data)
  again = voxel_file.load(tmp_path / 'x.npz')
  np.testing.assert_array_equal(again.voxels['test'], data.voxels['test'])


def test_shapes_fill_the_grid_as_the_convention_says(data):
  for voxels in data.voxels.values():
    hit = np.argwhere(voxels)
    for i in range(len(voxels)):
      own = hit[hit[:, 0] == i, 1:]
      low, high = own.min(axis=0), own.max(axis=0)
      assert low.min() == 1
      assert high.max() == 30
      assert (abs(low + high - 31) <= 1).all()
      assert (high - low + 1).max() == 30


def test_no_two_are_equal(data):
  every = np.concatenate(list(data.voxels.values()))
  assert len(np.unique(np.packbits(every.reshape(380, -1), 1), axis=0)) == 380


def test_shapes_are_one_piece(data):
  pieces = [
    ndimage.label(v, np.ones((3, 3, 3)))[1] for v in data.voxels['train']
  ]
  assert np.mean(np.array(pieces) == 1) > 0.99


def test_shapes_of_a_kind_vary(data):
  for label in range(10):
    own = data.voxels['train'][data.labels['train'] == label]
    flat = own.reshape(len(own), -1).astype(np.float64)
    both = flat @ flat.T
    either = flat.sum(1)[:, None] + flat.sum(1) - both
    overlap = (both / either)[np.triu_indices(len(own), 1)]
    assert 0.1 < overlap.mean() < 0.75


def test_a_simple_classifier_tells_the_kinds_apart(data):
  """The nearest training shape by overlap has the right label."""
  train = data.voxels['train'].reshape(300, -1).astype(np.float64)
  test = data.voxels['test'].reshape(80, -1).astype(np.float64)
  both = test @ train.T
  overlap = both / (test.sum(1)[:, None] + train.sum(1) - both)
  found = data.labels['train'][overlap.argmax(1)]
  assert (found == data.labels['test']).mean() > 0.75  # chance: 0.1.


def test_backs_stand_where_those_of_modelnet_stand(data):
  """Towards +y for chairs, toilets and beds, towards +x for sofas."""

  def top_side(category, axis):
    """Where the highest occupied voxels lie, from -1 to 1, on average."""
    label = furniture.CATEGORIES.index(category)
    sides = []
    for voxels in data.voxels['train'][data.labels['train'] == label]:
      hit = np.argwhere(voxels)
      top = hit[hit[:, 2] == hit[:, 2].max()]
      low, high = hit[:, axis].min(), hit[:, axis].max()
      sides.append(2 * (top[:, axis].mean() - low) / (high - low) - 1)
    return np.mean(sides)

  for category in ('chair', 'toilet'):
    assert top_side(category, 1) > 0.4
    assert abs(top_side(category, 0)) < 0.15
  assert top_side('sofa', 0) > 0.4
  assert abs(top_side('sofa', 1)) < 0.15
  assert top_side('bed', 1) > 0.2


def test_the_same_seed_gives_the_same_shapes():
  one = furniture.make_furniture(16, 4, 2, seed=7)
  two = furniture.make_furniture(16, 4, 2, seed=7)
  other = furniture.make_furniture(16, 4, 2, seed=8)
  for split in one.voxels:
    np.testing.assert_array_equal(one.voxels[split], two.voxels[split])
  assert (
    (one.voxels['train'] != other.voxels['train']).any(axis=(1, 2, 3)).all()
  )


def test_more_shapes_leave_the_first_as_they_are():
  few = furniture.make_furniture(24, 2, 1, categories=['sofa', 'chair'])
  many = furniture.make_furniture(24, 5, 3, categories=['chair', 'sofa'])
  np.testing.assert_array_equal(
    few.voxels['train'][2:], many.voxels['train'][:2]
  )
  np.testing.assert_array_equal(few.voxels['test'][1], many.voxels['test'][0])


@pytest.mark.parametrize('size', [12, 20, 64, 128])
def test_sizes(size):
  data = furniture.make_furniture(size, 2, 0)
  assert list(data.voxels) == ['train']
  assert data.voxels['train'].shape == (10, size, size, size)
  assert data.voxels['train'].any(axis=(1, 2, 3)).all()


def test_margin():
  data = furniture.make_furniture(16, 1, 0, categories=['table'], margin=3)
  hit = np.argwhere(data.voxels['train'][0])
  assert hit.min() == 3
  assert hit.max() == 12


@pytest.mark.parametrize('category', furniture.CATEGORIES)
def test_meshes_stand_on_the_ground(category):
  for seed in range(20):
    mesh = furniture.make_mesh(category, np.random.default_rng(seed))
    assert abs(mesh.bounds[0][2]) < 1e-9
    assert (mesh.extents > 0.1).all()
    assert (mesh.extents < 3.5).all()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'categories': ['car']}, "unknown category 'car', must be one of"),
    ({'categories': ['bed', 'bed']}, 'categories must differ'),
    ({'categories': []}, 'categories must differ'),
    ({'num_train': -1}, 'got -1 and 1'),
    ({'num_train': 0, 'num_test': 0}, 'got 0 and 0'),
    ({'size': 3}, 'size must be 4 to 128'),
    ({'margin': 9}, 'margin must be 0 to 7'),
    ({'size': 4, 'num_train': 2000}, 'no new chair in 200 draws at size 4'),
  ],
)
def test_bad_arguments(changes, message):
  arguments = {'size': 16, 'num_train': 1, 'num_test': 1, **changes}
  with pytest.raises(ValueError, match=message):
    furniture.make_furniture(**arguments)


def test_command(tmp_path):
  command = [
    *(sys.executable, '-W', 'error', '-m', 'data_prep.furniture'),
    *(f'--out={tmp_path}/x.npz', '--size=12', '--num_train=3', '--num_test=1'),
    *('--category=bed', '--category=desk', '--seed=5'),
  ]
  options = {
    'cwd': pathlib.Path(__file__).parents[2],
    'capture_output': True,
    'text': True,
    'timeout': 600,
  }
  result = subprocess.run(command, **options)
  assert result.returncode == 0, result.stderr
  assert 'x.npz: 6 train, 2 test shapes' in result.stdout
  expected = furniture.make_furniture(12, 3, 1, 5, ['bed', 'desk'])
  found = voxel_file.load(tmp_path / 'x.npz')
  np.testing.assert_array_equal(found.voxels['train'], expected.voxels['train'])
  result = subprocess.run(command, **options)
  assert result.returncode == 1
  assert 'is not overwritten' in result.stderr
