"""Grids that a classifier must reject are what their names say."""

import numpy as np
import pytest

from experiments.evaluation import negatives


@pytest.fixture
def shapes():
  rng = np.random.default_rng(0)
  return (rng.random((30, 8, 8, 8)) < 0.2).astype(np.float32)


@pytest.mark.parametrize('kind', [*negatives.SEEN, *negatives.UNSEEN])
def test_kinds_are_binary_grids_that_differ_from_the_shapes(kind, shapes):
  maker = {**negatives.SEEN, **negatives.UNSEEN}[kind]
  grids = np.asarray(maker(shapes, np.random.default_rng(1)), np.float32)
  assert grids.shape == shapes.shape and {*np.unique(grids)} <= {0.0, 1.0}
  assert (grids != shapes).any((1, 2, 3)).all()
  again = maker(shapes, np.random.default_rng(1))
  np.testing.assert_array_equal(grids, again)


def test_shuffles_keep_what_they_shuffle(shapes):
  rng = np.random.default_rng(2)
  # Each voxel with a number of its own, so that blocks can be told apart.
  named = np.arange(8**3, dtype=float).reshape(1, 8, 8, 8)
  blocks = negatives.shuffled_blocks(np.repeat(named, 2, axis=0), rng)
  corners = [{*block[::2, ::2, ::2].ravel()} for block in (named[0], *blocks)]
  assert corners[0] == corners[1] == corners[2]
  inner = blocks.reshape(2, 4, 2, 4, 2, 4, 2)
  difference = inner[:, :, 1] - inner[:, :, 0]
  assert (difference == named[0, 1, 0, 0]).all()
  voxels = negatives.shuffled_voxels(named, rng)
  assert sorted(voxels.ravel()) == sorted(named.ravel())
  np.testing.assert_array_equal(negatives.inverted(shapes, rng), shapes == 0)


def test_a_mixture_has_all_the_kinds_that_are_seen(shapes):
  mixed = negatives.mixed(shapes, np.random.default_rng(3))
  assert mixed.shape == shapes.shape and mixed.dtype == np.float32
  occupancy = mixed.mean((1, 2, 3))
  assert ((occupancy == 0) | (occupancy == 1)).any()
  assert len(np.unique(occupancy)) > 10
