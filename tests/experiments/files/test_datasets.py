"""Data: histograms, orders of mini-batches, mirror images."""

import os

import jax
import numpy as np
import pytest

from data_prep import voxel_file
import dnet_jax
from dnet_jax.uses import synthesis
from experiments.files import datasets
from experiments.files import mini_batches
from experiments.files import summaries


def test_draws_are_from_the_histogram():
  voxels = (np.arange(8) < 2).astype(np.uint8).reshape(1, 2, 2, 2)
  voxels = np.concatenate([0 * voxels, voxels, voxels, voxels])
  histogram = summaries.histogram(voxels, bins=4)
  model = dnet_jax.Model(dnet_jax.Spec((2, 2, 2)), {}, {'histogram': histogram})
  keys = dnet_jax.chain_keys(jax.random.key(0), 4000)
  draws = np.asarray(synthesis.draw_averages(keys, model)).ravel()
  low = draws < 0.125
  # A quarter in the first bin, the rest in the last: 5 standard errors.
  assert abs(low.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)
  assert draws[low].max() <= 0.0625 and draws[~low].min() >= 0.1875
  assert len(np.unique(draws)) > 3900


def test_mean_is_one_number_of_the_training_set():
  data = datasets.load(
    'furniture', 'chair', furniture_size=8, furniture_shapes=3
  )
  assert data.mean == pytest.approx(data.train.mean())
  centred = datasets.to_network(data.train, data.mean)
  assert abs(centred.mean()) < 1e-6 and centred.shape == (3, 8, 8, 8, 1)


def test_every_epoch_is_a_permutation():
  for epoch in range(3):
    seen = []
    for step in range(epoch * 5, epoch * 5 + 5):
      seen += mini_batches.batch_indices(10, 2, step, seed=3)
    assert sorted(seen) == list(range(10))
  first = mini_batches.batch_indices(10, 2, 0, seed=3)
  assert first != mini_batches.batch_indices(10, 2, 5, seed=3)
  assert first == mini_batches.batch_indices(
    10, 2, 5, seed=3, shuffle=False
  ) or (
    mini_batches.batch_indices(10, 2, 0, seed=3, shuffle=False)
    == mini_batches.batch_indices(10, 2, 5, seed=3, shuffle=False)
  )


def test_held_out_shapes_stand_in_for_the_test_split():
  options = dict(furniture_size=8, furniture_shapes=20)
  whole = datasets.load('furniture', 'all', **options)
  part = datasets.load('furniture', 'all', hold_out=0.25, **options)
  assert len(part.test) == len(whole.train) / 4
  assert len(part.train) + len(part.test) == len(whole.train)
  together = np.concatenate([part.train, part.test]).reshape(
    len(whole.train), -1
  )
  rows = sorted(map(bytes, together.astype(np.uint8)))
  expected = whole.train.reshape(len(whole.train), -1).astype(np.uint8)
  assert rows == sorted(map(bytes, expected))
  again = datasets.load('furniture', 'all', hold_out=0.25, **options)
  np.testing.assert_array_equal(part.test, again.test)
  with pytest.raises(ValueError, match=r'1\.5'):
    datasets.load('furniture', 'all', hold_out=1.5, **options)


def test_augmented_shapes_are_moved_shapes():
  rng = np.random.default_rng(0)
  shapes = np.zeros((200, 9, 9, 9))
  shapes[:, 3, 5, 2] = 1
  # One voxel, moved by at most two along each axis, by every amount.
  moved = mini_batches.augment(shapes, rng, shift_voxels=2)
  steps = np.argwhere(moved)[:, 1:] - [3, 5, 2]
  assert len(steps) == 200 and {*steps.ravel()} == {-2, -1, 0, 1, 2}
  # Mirrors of x and y, never of z.
  mirrored = np.argwhere(mini_batches.augment(shapes, rng, mirror=True))[:, 1:]
  assert {*map(tuple, mirrored)} == {(3, 5, 2), (5, 5, 2), (3, 3, 2), (5, 3, 2)}
  # Turns keep the middle and the height, scales the middle.
  ball = np.zeros((4, 9, 9, 9))
  ball[:, 3:6, 3:6, 2:5] = 1
  turned = mini_batches.augment(ball, rng, turn_degrees=90)
  assert (turned.any((1, 2)) == ball.any((1, 2))).all()
  assert {*np.unique(turned)} == {0, 1}
  np.testing.assert_array_equal(mini_batches.augment(ball, rng), ball)


def test_balanced_indices_are_balanced_and_a_function_of_the_step():
  labels = np.repeat([0, 1, 2], [5, 50, 500])
  drawn = mini_batches.balanced_indices(labels, 3000, 0, seed=1)
  counts = np.bincount(labels[drawn])
  # Five standard deviations of a binomial.
  assert abs(counts - 1000).max() < 5 * np.sqrt(3000 * 2 / 9)
  np.testing.assert_array_equal(
    drawn, mini_batches.balanced_indices(labels, 3000, 0, seed=1)
  )
  assert (drawn != mini_batches.balanced_indices(labels, 3000, 1, seed=1)).any()


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_another_shape_is_another_checksum(tmp_path, dtype):
  def checksum(voxels, labels):
    path = tmp_path / f'{len(os.listdir(tmp_path))}.npz'
    data = voxel_file.VoxelData(
      ('a', 'b'),
      {'train': voxels},
      {'train': labels},
      {'train': np.array(['one', 'two'])},
    )
    voxel_file.save(path, data)
    return datasets.load(str(path), 'all').checksum

  voxels = np.zeros((2, 4, 4, 4), dtype)
  voxels[:, 0] = 0.5 if dtype == np.float32 else 1
  labels = np.array([0, 1])
  first = checksum(voxels, labels)
  assert first == checksum(voxels, labels)
  assert first != checksum(voxels, labels[::-1].copy())
  voxels[1, 2, 3, 1] = 1
  assert first != checksum(voxels, labels)
