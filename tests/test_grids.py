import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import dnet_jax
from dnet_jax import grids
from tests import reference

SIDES, FACTOR = (4, 6, 2), 2


def test_downscale_and_upscale_are_c_and_its_pseudo_inverse():
  y = np.random.default_rng(0).normal(size=(3, *SIDES, 2))
  c = reference.block_average(SIDES, FACTOR)
  low = np.asarray(dnet_jax.downscale(jnp.asarray(y, jnp.float32), FACTOR))
  voxels = np.moveaxis(y, -1, 1).reshape(3, 2, -1)
  expected = np.moveaxis((voxels @ c.T).reshape(3, 2, 2, 3, 1), 1, -1)
  np.testing.assert_allclose(low, expected, atol=1e-6)
  high = np.asarray(dnet_jax.upscale(jnp.asarray(low), FACTOR))
  blocks = np.moveaxis(expected, -1, 1).reshape(3, 2, -1)
  upscaled = blocks @ np.linalg.pinv(c).T
  expected = np.moveaxis(upscaled.reshape(3, 2, *SIDES), 1, -1)
  np.testing.assert_allclose(high, expected, atol=1e-6)


@pytest.mark.parametrize('factor', [1, 2, 4])
def test_trilinear_is_that_of_scipy(factor):
  low = np.random.default_rng(0).normal(size=(3, *SIDES, 2)).astype(np.float32)
  expected = ndimage.zoom(
    low,
    (1, factor, factor, factor, 1),
    order=1,
    mode='nearest',
    grid_mode=True,
  )
  got = dnet_jax.trilinear(jnp.asarray(low), factor)
  np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize('factor', [1, 2, 4])
def test_shapes_get_the_block_averages_that_they_are_asked_for(factor):
  y, other = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 8, 2))
  y_low = grids.downscale(jnp.asarray(other, jnp.float32), factor)
  got = grids.with_averages(jnp.asarray(y, jnp.float32), factor, y_low)
  np.testing.assert_allclose(grids.downscale(got, factor), y_low, atol=1e-5)
  # What has them stays as it is.
  again = grids.with_averages(got, factor, y_low)
  np.testing.assert_allclose(again, got, atol=1e-5)


@pytest.mark.parametrize('std', [0.7, 1.0, 1.5])
def test_blur_is_that_of_scipy(std):
  y = np.random.default_rng(0).normal(size=(2, 6, 5, 7, 2)).astype(np.float32)
  expected = ndimage.gaussian_filter(
    y, (0, std, std, std, 0), mode='nearest', radius=(0, 4, 4, 4, 0)
  )
  np.testing.assert_allclose(grids.blur(y, std), expected, atol=1e-5)


def _largest(y, low, factor):
  """`fill_blocks`, block by block."""
  filled = np.zeros_like(y)
  for place in np.ndindex(low.shape[:4]):
    n, *corner = place
    block = (
      n,
      *(slice(factor * i, factor * (i + 1)) for i in corner),
      slice(None),
    )
    for channel in range(y.shape[-1]):
      one = y[block][..., channel]
      count = round(float(low[place][channel]) * factor**3)
      order = np.argsort(-one.ravel(), kind='stable')
      full = np.zeros(one.size)
      full[order[:count]] = 1
      filled[block][..., channel] = full.reshape(one.shape)
  return filled


@pytest.mark.parametrize('factor', [2, 3])
def test_blocks_are_filled_with_their_largest_voxels(factor):
  rng = np.random.default_rng(0)
  shape = (2, 2 * factor, factor, 3 * factor, 2)
  # Some values are equal.
  y = rng.integers(0, 9, shape).astype(np.float32)
  counts = rng.integers(0, factor**3 + 1, (2, 2, 1, 3, 2))
  low = (counts / factor**3).astype(np.float32)
  filled = dnet_jax.fill_blocks(y, low, factor)
  np.testing.assert_array_equal(filled, _largest(y, low, factor))
  np.testing.assert_allclose(dnet_jax.downscale(filled, factor), low, atol=1e-6)


def test_sharpened_shapes_are_nearer_to_the_original():
  """Of a ball, from trilinear interpolation of its averages."""
  places = np.stack(np.meshgrid(*[np.arange(24) - 11.3] * 3, indexing='ij'))
  ball = (((places**2).sum(0)) < 8.2**2).astype(np.float32)[None, ..., None]
  low = dnet_jax.downscale(ball, 4)
  linear = dnet_jax.trilinear(low, 4)

  def wrong(y):
    return int(((np.asarray(y) > 0.5) != (ball > 0.5)).sum())

  filled = dnet_jax.fill_blocks(linear, low, 4)
  sharp = dnet_jax.sharpen(linear, low, 4, num_steps=10)
  assert set(np.unique(sharp)) == {0.0, 1.0}
  np.testing.assert_allclose(dnet_jax.downscale(sharp, 4), low, atol=1e-6)
  assert wrong(sharp) < wrong(filled) < wrong(linear)
  one = dnet_jax.sharpen(linear, low, 4, num_steps=1)
  expected = dnet_jax.fill_blocks(grids.blur(linear, 1.0), low, 4)
  np.testing.assert_array_equal(one, expected)


def test_bounding_boxes_are_those_of_numpy():
  rng = np.random.default_rng(0)
  y = (rng.uniform(size=(6, 7, 5, 4, 1)) > 0.95).astype(np.float32)
  y[5] = 0
  boxes = np.asarray(grids.bounding_boxes(jnp.asarray(y)))
  assert boxes.dtype == np.float32
  for shape, box in zip(y[:5], boxes[:5], strict=True):
    places = np.argwhere(shape[..., 0] > 0.5)
    np.testing.assert_array_equal(box[:, 0], places.min(0))
    np.testing.assert_array_equal(box[:, 1], places.max(0) + 1)
  # Nothing is inside an empty shape: its box is the grid.
  np.testing.assert_array_equal(boxes[5], [[0, 7], [0, 5], [0, 4]])
  np.testing.assert_array_equal(
    grids.bounding_boxes(jnp.asarray(y[:2, None]))[:, 0], boxes[:2]
  )


def test_a_stretched_shape_fills_its_new_box():
  y = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6, 6, 2)))
  box = jnp.array([[1.0, 4.0], [0.0, 6.0], [2.0, 4.0]])
  np.testing.assert_array_equal(grids.stretch(y, box, box), y)
  # Twice as high from the floor on is each layer twice.
  low = jnp.array([[0.0, 6.0], [0.0, 6.0], [0.0, 3.0]])
  high = jnp.array([[0.0, 6.0]] * 3)
  np.testing.assert_array_equal(
    grids.stretch(y, low, high), np.repeat(y[:, :, :3], 2, axis=2)
  )
  # Moved, what comes from outside has the value that is given.
  moved = grids.stretch(y, box, box + 1, outside=-7.0)
  np.testing.assert_array_equal(moved[1:, 1:, 1:], y[:-1, :-1, :-1])
  assert (moved[0] == -7).all() and (moved[:, 0] == -7).all()
  # A value that is no number is not lost: divergence has to be seen.
  broken = grids.stretch(y.at[2, 2, 2].set(jnp.nan), box, box + 1)
  assert jnp.isnan(broken).sum() == 2


@pytest.mark.parametrize('chains', [(), (2,), (2, 3)])
def test_chains_are_any_leading_axes(chains):
  y = jnp.arange(float(np.prod(chains) * 64)).reshape(*chains, 4, 4, 4, 1)
  low = dnet_jax.downscale(y, 2)
  assert low.shape == (*chains, 2, 2, 2, 1)
  assert dnet_jax.upscale(low, 2).shape == y.shape
  assert dnet_jax.trilinear(low, 2).shape == y.shape
  np.testing.assert_array_equal(
    dnet_jax.downscale(dnet_jax.upscale(low, 2), 2), low
  )


def test_factor_one_is_the_identity():
  y = jnp.arange(27.0).reshape(3, 3, 3, 1)
  np.testing.assert_array_equal(dnet_jax.downscale(y, 1), y)
  np.testing.assert_array_equal(dnet_jax.upscale(y, 1), y)


def test_pyramid_is_coarse_first_and_repeated_downscaling():
  y = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 8, 1)))
  grids = dnet_jax.pyramid(y, (4, 2))
  assert [g.shape[1] for g in grids] == [1, 4, 8]
  np.testing.assert_array_equal(grids[2], y)
  np.testing.assert_allclose(
    grids[0][:, 0, 0, 0, 0], y.mean((1, 2, 3, 4)), atol=1e-6
  )


def test_sides_that_do_not_divide_are_refused():
  y = jnp.ones((1, 4, 4, 6, 1))
  with pytest.raises(ValueError, match=r'factor 4 .* \(4, 4, 6\)'):
    dnet_jax.downscale(y, 4)
  with pytest.raises(ValueError, match='factor 0'):
    dnet_jax.downscale(y, 0)
  with pytest.raises(ValueError, match='factor'):
    dnet_jax.upscale(y, 0)
  with pytest.raises(ValueError, match='positive, got 0'):
    dnet_jax.trilinear(y, 0)
  with pytest.raises(ValueError, match=r'factor 4 .* \(4, 4, 6\)'):
    dnet_jax.sharpen(y, y, 4, num_steps=1)
  with pytest.raises(ValueError, match='factor 3'):
    dnet_jax.pyramid(y, (3, 2))
  with pytest.raises(ValueError, match='D, H, W, C'):
    dnet_jax.downscale(jnp.ones((4, 4, 4)), 2)
