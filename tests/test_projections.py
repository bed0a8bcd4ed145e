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


def test_factor_must_divide_the_grid():
  with pytest.raises(ValueError, match='factor 3'):
    dnet_jax.fixed_average(3)(jnp.ones((1, 4, 4, 4, 1)))
