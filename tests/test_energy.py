import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import dnet_jax

THETA = np.random.default_rng(0).normal(size=(2, 3, 1, 1))


def linear(theta, y):
  return jnp.sum(theta * y, (-4, -3, -2, -1))


@pytest.mark.parametrize('chains', [(), (4,), (2, 3)])
@pytest.mark.parametrize('reference_std', [0.5, 2.0, None])
def test_descriptor_energy_is_eq_3(chains, reference_std):
  y = np.random.default_rng(1).normal(size=(*chains, 2, 3, 1, 1))
  energy_fn = dnet_jax.descriptor_energy(linear, reference_std)
  f = (THETA * y).sum((-4, -3, -2, -1))
  square = (y**2).sum((-4, -3, -2, -1))
  quadratic = 0 if reference_std is None else square / (2 * reference_std**2)
  energy = energy_fn(jnp.asarray(THETA), jnp.asarray(y))
  assert energy.shape == chains
  np.testing.assert_allclose(energy, quadratic - f, rtol=1e-4, atol=1e-5)
  score = dnet_jax.score(functools.partial(energy_fn, THETA))(jnp.asarray(y))
  pull = 0 * y if reference_std is None else y / reference_std**2
  np.testing.assert_allclose(score, THETA - pull, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('means', [(0.0,), (0.0, 1.0), (-1.0, 0.3, 1.0)])
def test_reference_is_a_mixture_of_normals(means):
  y = np.random.default_rng(1).normal(size=(4, 2, 3, 1, 1))
  energy_fn = functools.partial(
    dnet_jax.descriptor_energy(linear, 0.3, means), 0 * THETA
  )
  density = np.mean([stats.norm.pdf(y, m, 0.3) for m in means], axis=0)
  expected = -np.log(density).sum((1, 2, 3, 4))
  energy = np.asarray(energy_fn(jnp.asarray(y)))
  # Up to a constant.
  np.testing.assert_allclose(
    energy - energy[0], expected - expected[0], rtol=1e-4, atol=1e-4
  )
  # Far away too, where densities are 0 in float32.
  far = jnp.full((1, 2, 3, 1, 1), 50.0)
  score = dnet_jax.score(energy_fn)(far)
  np.testing.assert_allclose(score, -(50.0 - means[-1]) / 0.3**2, rtol=1e-5)


def test_standard_deviations_and_means_may_be_traced():
  y = jax.random.normal(jax.random.key(0), (3, 2, 3, 1, 1))

  def energies(std, means):
    energy_fn = dnet_jax.descriptor_energy(linear, std, means)
    generated = dnet_jax.posterior_energy(lambda z: 0 * y, y, std)
    return energy_fn(THETA, y), generated(jnp.ones((3, 4)))

  traced = jax.jit(energies)(jnp.float32(0.3), jnp.array([0.0, 1.0]))
  for energy, expected in zip(traced, energies(0.3, (0, 1)), strict=True):
    np.testing.assert_allclose(energy, expected, rtol=1e-5)


def test_reference_needs_a_mean():
  with pytest.raises(ValueError, match='at least one mean'):
    dnet_jax.descriptor_energy(linear, 0.5, ())


def test_reference_std_must_be_positive():
  for std in (0, -1.0, float('nan')):
    with pytest.raises(ValueError, match='reference_std must be positive'):
      dnet_jax.descriptor_energy(linear, std)


def test_an_anchor_is_a_gaussian_around_given_shapes():
  rng = np.random.default_rng(0)
  y, anchor = rng.normal(size=(2, 3, 2, 3, 1, 1)).astype(np.float32)
  own = functools.partial(dnet_jax.descriptor_energy(linear), THETA)
  held = dnet_jax.anchored_energy(own, jnp.asarray(anchor), 0.3)
  log_density = stats.norm.logpdf(y, anchor, 0.3).sum((1, 2, 3, 4))
  difference = np.asarray(held(y)) - np.asarray(own(y)) + log_density
  # Up to a constant.
  np.testing.assert_allclose(difference, difference[0], rtol=1e-5)
  np.testing.assert_allclose(
    dnet_jax.score(held)(y),
    np.asarray(dnet_jax.score(own)(y)) - (y - anchor) / 0.3**2,
    rtol=1e-5,
  )
  free = dnet_jax.anchored_energy(own, jnp.asarray(anchor), jnp.inf)
  np.testing.assert_array_equal(free(y), own(y))
  for std in (0, -1.0):
    with pytest.raises(ValueError, match=f'must be positive, got {std}'):
      dnet_jax.anchored_energy(own, anchor, std)


@pytest.mark.parametrize('masked', [False, True])
def test_posterior_energy_is_that_of_eq_20(masked):
  rng = np.random.default_rng(0)
  w, y = rng.normal(size=(3, 8)), rng.normal(size=(5, 2, 2, 2, 1))
  z = rng.normal(size=(5, 3))
  visible = rng.random((5, 2, 2, 2, 1)) < 0.5 if masked else None
  std = 0.3

  def generator_fn(z):
    return (z @ w).reshape(*z.shape[:-1], 2, 2, 2, 1)

  energy_fn = dnet_jax.posterior_energy(
    generator_fn, jnp.asarray(y), std, visible
  )
  residual = y - generator_fn(z)
  if masked:
    residual = residual * visible
  expected = (z**2).sum(1) / 2 + (residual**2).sum((1, 2, 3, 4)) / 2 / std**2
  np.testing.assert_allclose(energy_fn(jnp.asarray(z)), expected, rtol=1e-5)
  if masked:
    # What hides behind a hidden voxel does not matter, not even a NaN.
    spoilt = dnet_jax.posterior_energy(
      generator_fn, jnp.where(visible, y, jnp.nan), std, visible
    )
    score = dnet_jax.score(spoilt)(jnp.asarray(z))
    np.testing.assert_allclose(
      score, dnet_jax.score(energy_fn)(jnp.asarray(z)), rtol=1e-5
    )
  assert dnet_jax.score(energy_fn)(jnp.asarray(z)).shape == z.shape
  with pytest.raises(ValueError, match='noise_std'):
    dnet_jax.posterior_energy(generator_fn, jnp.asarray(y), 0.0)


def test_score_of_a_pytree_is_one():
  energy_fn = lambda y: jnp.sum(y['a'] ** 2, -1) * y['b']  # noqa: E731
  y = {'a': jnp.array([[1.0, 2.0]]), 'b': jnp.array([3.0])}
  score = dnet_jax.score(energy_fn)(y)
  np.testing.assert_allclose(score['a'], [[-6.0, -12.0]])
  np.testing.assert_allclose(score['b'], [-5.0])


def test_chains_do_not_interact():
  energy_fn = functools.partial(dnet_jax.descriptor_energy(linear), THETA)
  y = jax.random.normal(jax.random.key(0), (3, 2, 3, 1, 1))
  score = dnet_jax.score(energy_fn)
  np.testing.assert_array_equal(score(y)[1], score(y.at[0].set(7.0))[1])
