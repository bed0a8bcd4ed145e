import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dnet_jax
from tests import reference

SIDES = (4, 2, 6)
VISIBLE = np.random.default_rng(1).random((*SIDES, 1)) < 0.4
PROJECTIONS = {
  'free': dnet_jax.free(),
  'fixed_voxels': dnet_jax.fixed_voxels(jnp.asarray(VISIBLE)),
  'fixed_average': dnet_jax.fixed_average(2),
}


def dense(name):
  """The projection as a float64 matrix, from its definition."""
  n = int(np.prod(SIDES))
  if name == 'free':
    return np.eye(n)
  if name == 'fixed_voxels':
    return np.diag(1.0 - VISIBLE.ravel())
  c = reference.block_average(SIDES, 2)
  return np.eye(n) - np.linalg.pinv(c) @ c


@pytest.mark.parametrize('name', PROJECTIONS)
def test_is_the_orthogonal_projector(name):
  project, p = PROJECTIONS[name], dense(name)
  n = len(p)
  matrix = np.asarray(project(jnp.eye(n).reshape(n, *SIDES, 1)))
  np.testing.assert_allclose(matrix.reshape(n, n).T, p, atol=1e-6)
  dy = jax.random.normal(jax.random.key(0), (2, 3, *SIDES, 1))
  once = project(dy)
  assert once.shape == dy.shape
  np.testing.assert_allclose(project(once), once, atol=1e-6)
  np.testing.assert_allclose(project(dy[0, 1]), once[0, 1], atol=1e-6)


def test_held_voxels_are_exactly_zero_even_of_nan():
  project = PROJECTIONS['fixed_voxels']
  dy = project(jnp.full((*SIDES, 1), jnp.nan))
  assert bool((dy[VISIBLE] == 0).all())
  assert bool(jnp.isnan(dy[~VISIBLE]).all())


def test_visible_must_be_boolean():
  with pytest.raises(TypeError, match=r'boolean.*float32'):
    dnet_jax.fixed_voxels(jnp.ones(3))


@pytest.mark.parametrize(
  'shape',
  [
    (4, 4, 4),  # the grid; broadcasting would make four channels of it
    (2, 4, 4, 4),  # one for each chain
    (5, 2, 4, 4, 4),
  ],
)
def test_visible_needs_its_channel_axis(shape):
  visible = jnp.zeros(shape, bool).at[0].set(True)
  dy = jnp.ones((5, 2, 4, 4, 4, 1))[-1 if len(shape) < 5 else slice(None)]
  message = r'no channel axis: use visible\[\.\.\., None\]'
  for project in (
    dnet_jax.fixed_voxels(visible),
    jax.jit(lambda dy: dnet_jax.fixed_voxels(visible)(dy)),
  ):
    with pytest.raises(ValueError, match=message):
      project(dy)
  held = dnet_jax.fixed_voxels(visible[..., None])(dy)
  assert held.shape == dy.shape
  energy = dnet_jax.posterior_energy(lambda z: dy, dy, 1.0, visible)
  with pytest.raises(ValueError, match=message):
    energy(jnp.ones((2, 3)))


@pytest.mark.parametrize(
  'shape', [(3, 2, 4, 4, 1), (2, 3, 4, 1), (2, 4, 4, 2), (7, 3, 2, 4, 4, 1)]
)
def test_visible_must_fit_the_chains(shape):
  visible = jnp.ones(shape, bool)
  message = r'does not fit chains of shape \(2, 2, 4, 4, 1\)'
  with pytest.raises(ValueError, match=message):
    dnet_jax.fixed_voxels(visible)(jnp.ones((2, 2, 4, 4, 1)))


def test_visible_broadcasts_as_arrays_do():
  dy = jnp.ones((3, 2, 4, 4, 2))
  for shape in ((2, 4, 4, 2), (2, 4, 4, 1), (1, 2, 4, 4, 1), (4, 1), (1,), ()):
    held = dnet_jax.fixed_voxels(jnp.ones(shape, bool))(dy)
    np.testing.assert_array_equal(held, 0 * dy)
  # A grid of one voxel looks alike with and without channels.
  one = jnp.ones((1, 1, 1, 1, 1))
  for shape in ((1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1, 1)):
    held = dnet_jax.fixed_voxels(jnp.ones(shape, bool))(one)
    np.testing.assert_array_equal(held, 0 * one)


def test_each_part_of_a_pytree_has_its_own_projection():
  dy = {
    'pair': tuple(jax.random.normal(jax.random.key(0), (2, 3, *SIDES, 1))),
    'z': jnp.ones((3, 5)),
  }
  assert dnet_jax.free()(dy) is dy
  for name, argument, project in (
    ('fixed_voxels', VISIBLE, dnet_jax.fixed_voxels),
    ('fixed_average', 2, dnet_jax.fixed_average),
  ):
    alone = PROJECTIONS[name]
    # One leaf for both grids, and None for what is free.
    held = project({'pair': argument, 'z': None})(dy)
    assert jax.tree.structure(held) == jax.tree.structure(dy)
    for part, before in zip(held['pair'], dy['pair'], strict=True):
      np.testing.assert_array_equal(part, alone(before))
    np.testing.assert_array_equal(held['z'], dy['z'])
    held = project({'pair': (None, argument), 'z': None})(dy)
    np.testing.assert_array_equal(held['pair'][0], dy['pair'][0])
    np.testing.assert_array_equal(held['pair'][1], alone(dy['pair'][1]))
    with pytest.raises(ValueError, match=r'has the structure.*does not fit'):
      project({'pair': argument})(dy)
  with pytest.raises(
    ValueError, match=r'does not fit chains of shape \(3, 5\)'
  ):
    dnet_jax.fixed_voxels(VISIBLE)(dy)


def test_factor_must_divide_the_grid():
  with pytest.raises(ValueError, match='factor 3'):
    dnet_jax.fixed_average(3)(jnp.ones((1, 4, 4, 4, 1)))
