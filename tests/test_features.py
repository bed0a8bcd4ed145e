import jax.numpy as jnp
import numpy as np
import pytest

from dnet_jax import features


def max_pool(h, window):
  """By loops; the last block of a side may be short."""
  sides = [range(0, n, window) for n in h.shape[1:4]]
  result = np.empty((len(h), *map(len, sides), h.shape[4]))
  for i, x in enumerate(sides[0]):
    for j, y in enumerate(sides[1]):
      for k, z in enumerate(sides[2]):
        block = h[:, x : x + window, y : y + window, z : z + window]
        result[:, i, j, k] = block.max((1, 2, 3))
  return result


@pytest.mark.parametrize('window', [1, 2, 4, 9])
def test_max_pool_against_loops(window):
  # Negative numbers: what pads a short block is never the maximum.
  h = np.random.default_rng(0).normal(size=(2, 7, 5, 6, 3)) - 5
  pooled = features.max_pool(jnp.asarray(h), window)
  np.testing.assert_allclose(pooled, max_pool(h, window), rtol=1e-6)
  # Any number of leading axes.
  one = features.max_pool(jnp.asarray(h[0]), window)
  np.testing.assert_array_equal(one, pooled[0])


def test_pooled_features_are_the_maps_in_order():
  rng = np.random.default_rng(1)
  maps = [rng.normal(size=(3, 5, 5, 5, 2)), rng.normal(size=(3, 3, 3, 3, 4))]
  vector = features.pool_feature_maps([jnp.asarray(h) for h in maps], (4, 2))
  expected = [
    max_pool(h, n).reshape(3, -1) for h, n in zip(maps, (4, 2), strict=True)
  ]
  np.testing.assert_allclose(vector, np.concatenate(expected, 1), rtol=1e-6)


def test_impossible_windows():
  with pytest.raises(ValueError, match='0'):
    features.max_pool(jnp.ones((1, 2, 2, 2, 1)), 0)
  with pytest.raises(ValueError, match='2 feature maps'):
    features.pool_feature_maps([jnp.ones((1, 2, 2, 2, 1))] * 2, (4,))
  with pytest.raises(ValueError, match='at least one feature map'):
    features.pool_feature_maps([], ())
