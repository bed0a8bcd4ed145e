"""Chains against distributions that are known exactly.

Many independent chains, their last states only, so standard errors are exact.
Every tolerance is `K` standard errors; each kind of assertion is shown to fail
where it should.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dnet_jax
from tests import reference

K = 5
STD = 0.5  # s of the Gaussian targets
DT = 0.3  # so that a finite step widens Langevin's chains by 1 / 0.7
CHAINS = 20_000
GRID = np.linspace(-20, 5, 1001)


def gaussian(y):
  return jnp.sum(y**2, axis=-1) / (2 * STD**2)


def log_gamma(y):
  """exp(-E) is the density of log X, X ~ Gamma(1): skewed to the left."""
  return jnp.sum(jnp.exp(y) - y, axis=-1)


def banana(y):
  """Two coordinates that depend on each other, neither of them Gaussian."""
  a, b = y[..., 0], y[..., 1]
  return np.e**a - a + a**2 / 2 + (b - a**2 / 2) ** 2


@functools.partial(
  jax.jit, static_argnames=('kernel', 'energy_fn', 'num_steps', 'project')
)
def run(
  seed, y, dt, temperature, *, kernel, energy_fn, num_steps, project=None
):
  """The last states of chains."""
  project = dnet_jax.free() if project is None else project
  step = kernel(energy_fn, dt, temperature=temperature, project=project)
  key = jax.random.key(seed)
  return dnet_jax.sample(key, step, y, num_steps)[0]


def mean_error(samples, expected):
  """Distance of a sample mean from a number, in standard errors."""
  samples = np.asarray(samples, np.float64)
  error = samples.std(ddof=1) / np.sqrt(len(samples))
  return abs(samples.mean() - expected) / error


def variance_error(samples, expected):
  """Of the mean of squares of N(0, expected), in standard errors."""
  squares = np.asarray(samples, np.float64).ravel() ** 2
  error = expected * np.sqrt(2 / len(squares))
  return abs(squares.mean() - expected) / error


def last_states(energy_fn=gaussian, dims=1, dt=DT, num_steps=60, **arguments):
  y = jnp.zeros((CHAINS, dims))
  temperature = arguments.pop('temperature', 1.0)
  return run(
    0, y, dt, temperature, energy_fn=energy_fn, num_steps=num_steps, **arguments
  )


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_langevin_is_the_ar_1_process_of_its_step(temperature):
  y = last_states(kernel=dnet_jax.langevin, temperature=temperature)
  variance = temperature * STD**2 / (1 - DT / (4 * STD**2))
  assert variance_error(y, variance) < K
  assert mean_error(y, 0) < K
  # Not that of a chain without the bias of the step.
  assert variance_error(y, temperature * STD**2) > K


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_mala_is_exact_where_langevin_is_not(temperature):
  variance = temperature * STD**2
  y = last_states(kernel=dnet_jax.mala, temperature=temperature)
  assert variance_error(y, variance) < K
  assert mean_error(y, 0) < K
  unadjusted = last_states(kernel=dnet_jax.langevin, temperature=temperature)
  assert variance_error(unadjusted, variance) > K


@pytest.mark.parametrize('kernel', [dnet_jax.langevin, dnet_jax.mala])
def test_noise_scaled_by_root_two_is_seen(kernel):
  """The negative control of the two tests above."""

  y = last_states(kernel=kernel, temperature=2.0)  # sqrt(2 dt) eps.
  bias = 1 / (1 - DT / (4 * STD**2)) if kernel is dnet_jax.langevin else 1.0
  assert variance_error(y, STD**2 * bias) > K


STDS = {'a': 0.5, 'b': 0.9}


def gaussians(y):
  """Two arrays of other standard deviations, and other ranks."""
  a = jnp.sum(y['a'] ** 2, axis=-1) / (2 * STDS['a'] ** 2)
  return a + jnp.sum(y['b'] ** 2, axis=(-2, -1)) / (2 * STDS['b'] ** 2)


def last_of_pytree(kernel, temperature=1.0):
  y = {'a': jnp.zeros((CHAINS, 2)), 'b': jnp.zeros((CHAINS, 1, 2))}
  y = run(
    0, y, DT, temperature, kernel=kernel, energy_fn=gaussians, num_steps=80
  )
  return {name: np.asarray(leaf).reshape(-1, 2) for name, leaf in y.items()}


def stationary(kernel, std):
  bias = 1 - DT / (4 * std**2) if kernel is dnet_jax.langevin else 1.0
  return std**2 / bias


@pytest.mark.parametrize(
  'kernel',
  [dnet_jax.langevin, pytest.param(dnet_jax.mala, marks=pytest.mark.slow)],
)
def test_each_array_of_a_pytree_has_its_own_law(kernel):
  y = last_of_pytree(kernel)
  for name, other in (('a', 'b'), ('b', 'a')):
    assert variance_error(y[name], stationary(kernel, STDS[name])) < K
    assert mean_error(y[name][:, 0], 0) < K
    # Negative controls: the law of the other array, and that of noise scaled
    # by the root of two.
    assert variance_error(y[name], stationary(kernel, STDS[other])) > K
    wrong = last_of_pytree(kernel, temperature=2.0)[name]
    assert variance_error(wrong, stationary(kernel, STDS[name])) > K


@pytest.mark.parametrize(
  'kernel',
  [dnet_jax.langevin, pytest.param(dnet_jax.mala, marks=pytest.mark.slow)],
)
def test_arrays_of_a_pytree_have_independent_noise(kernel):
  y = last_of_pytree(kernel)

  def errors(a, b):
    # A mean of products of independent numbers is 0.
    return [mean_error(a[:, i] * b[:, j], 0) for i in (0, 1) for j in (0, 1)]

  assert max(errors(y['a'], y['b'])) < K
  # The control: two runs with one key, each of one array, go side by side.
  alone = last_states(kernel=kernel, dims=2)
  wider = last_states(
    lambda y: gaussian(y) * (STD / STDS['b']) ** 2, kernel=kernel, dims=2
  )
  assert max(errors(np.asarray(alone), np.asarray(wider))) > K


def test_acceptance_rate_is_how_often_chains_accept():
  y = jnp.zeros((CHAINS, 1))
  kernel = dnet_jax.mala(gaussian, 0.9)
  _, info = jax.jit(
    lambda key, y: dnet_jax.sample(
      key, kernel, y, 20, trace_fn=lambda state, info: info
    )
  )(jax.random.key(0), y)
  accepted, rate = (
    np.asarray(x[-1], np.float64) for x in (info.accepted, info.acceptance_rate)
  )
  assert 0.3 < rate.mean() < 0.95
  assert mean_error(accepted - rate, 0) < K
  assert mean_error(accepted - rate**2, 0) > K
  # Less noise than counting: its variance is that of the rate alone.
  assert rate.var() < accepted.var()


def test_langevin_converges_at_the_rate_of_its_step():
  """Before it is stationary too: variance v (1 - a^2t), mean y0 a^t."""
  y = run(
    0,
    jnp.full((CHAINS, 1), 3.0),
    DT,
    1.0,
    kernel=dnet_jax.langevin,
    energy_fn=gaussian,
    num_steps=2,
  )
  a = 1 - DT / (2 * STD**2)
  variance = DT * (1 + a**2)
  assert mean_error(y, 3 * a**2) < K
  assert variance_error(y - 3 * a**2, variance) < K


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_mala_on_an_asymmetric_target(temperature):
  y = np.asarray(
    last_states(
      log_gamma,
      kernel=dnet_jax.mala,
      temperature=temperature,
      dt=0.8,
      num_steps=100,
    )
  )[:, 0]
  powers = [lambda y, p=p: (y**p)[..., 0] for p in (1, 2, 3)]
  energy_fn = lambda y: (np.exp(y) - y)[..., 0]  # noqa: E731
  expected = reference.moments(energy_fn, temperature, [GRID], powers)
  errors = [
    mean_error(y**p, e) for p, e in zip((1, 2, 3), expected, strict=True)
  ]
  assert max(errors) < K, errors
  # The mirrored target has the same second moment; a wrong sign is seen.
  assert mean_error(-y, expected[0]) > K
  assert mean_error((-y) ** 3, expected[2]) > K


@pytest.mark.parametrize('temperature', [1.0, 0.5])
@pytest.mark.parametrize('dt', [0.5, 0.1])
def test_langevin_on_an_asymmetric_target(dt, temperature):
  """Against the law of eq. (7) itself, its finite step included."""
  num_steps = int(10 / dt)
  y = np.asarray(
    last_states(
      log_gamma,
      kernel=dnet_jax.langevin,
      temperature=temperature,
      dt=dt,
      num_steps=num_steps,
    )
  )[:, 0]

  def errors(temperature, dt, sign=1):
    p = reference.langevin_law(
      lambda y: np.exp(y) - 1, dt, temperature, GRID, 0.0, num_steps
    )
    return [mean_error((sign * y) ** k, p @ GRID**k) for k in (1, 2, 3)]

  assert max(errors(temperature, dt)) < K
  assert max(errors(temperature, dt, sign=-1)) > K
  assert max(errors(2 * temperature, dt)) > K


@pytest.mark.slow
def test_mala_where_coordinates_depend_on_each_other():
  y = np.asarray(
    last_states(banana, dims=2, kernel=dnet_jax.mala, dt=0.4, num_steps=200)
  )
  functions = [
    lambda y: y[..., 0],
    lambda y: y[..., 1],
    lambda y: y[..., 0] ** 2,
    lambda y: y[..., 0] * y[..., 1],
  ]
  grids = [np.linspace(-6, 4, 501), np.linspace(-5, 20, 1001)]
  expected = reference.moments(banana, 1.0, grids, functions)
  errors = [
    mean_error(f(y), e) for f, e in zip(functions, expected, strict=True)
  ]
  assert max(errors) < K, errors


def test_mala_holds_a_coordinate_and_samples_the_other_given_it():
  held = 1.5
  project = dnet_jax.fixed_voxels(jnp.array([False, True]))
  y = run(
    0,
    jnp.tile(jnp.array([0.0, held]), (CHAINS, 1)),
    0.5,
    1.0,
    kernel=dnet_jax.mala,
    energy_fn=banana,
    num_steps=150,
    project=project,
  )
  y = np.asarray(y)
  np.testing.assert_array_equal(y[:, 1], np.float32(held))
  powers = [lambda y, p=p: (y**p)[..., 0] for p in (1, 2)]

  def given(y):
    return banana(np.stack([y[..., 0], np.full(len(y), held)], -1))

  expected = reference.moments(given, 1.0, [GRID], powers)
  for power, value in zip((1, 2), expected, strict=True):
    assert mean_error(y[:, 0] ** power, value) < K


SIDES = (4, 2, 2)
FACTOR = 2
VISIBLE = np.arange(16).reshape(*SIDES, 1) % 3 == 0


def voxel_gaussian(y):
  return jnp.sum(y**2, axis=(-4, -3, -2, -1)) / (2 * STD**2)


def projection(name):
  n = int(np.prod(SIDES))
  if name == 'fixed_average':
    c = reference.block_average(SIDES, FACTOR)
    matrix = np.eye(n) - np.linalg.pinv(c) @ c
    return dnet_jax.fixed_average(FACTOR), matrix
  if name == 'fixed_voxels':
    return dnet_jax.fixed_voxels(VISIBLE), np.diag(1.0 - VISIBLE.ravel())
  return dnet_jax.free(), np.eye(n)


def covariance_error(samples, expected):
  """Largest distance of an entry, in standard errors of a Gaussian's."""
  samples = np.asarray(samples, np.float64).reshape(len(samples), -1)
  variances = np.diag(expected)
  error = np.sqrt((variances[:, None] * variances + expected**2) / len(samples))
  # Entries that cannot vary are held to the rounding of the chains.
  error = np.maximum(error, 1e-6)
  return (np.abs(samples.T @ samples / len(samples) - expected) / error).max()


@pytest.mark.parametrize(
  ('kernel', 'name'),
  [
    *(
      (dnet_jax.langevin, x) for x in ('free', 'fixed_voxels', 'fixed_average')
    ),
    *(
      pytest.param(dnet_jax.mala, x, marks=pytest.mark.slow)
      for x in ('free', 'fixed_voxels', 'fixed_average')
    ),
  ],
)
def test_projected_chains_fill_their_subspace(name, kernel):
  project, matrix = projection(name)
  n, chains, num_steps = len(matrix), 4000, 150
  start = jax.random.normal(jax.random.key(1), (chains, *SIDES, 1))
  y = run(
    0,
    start,
    DT,
    1.0,
    kernel=kernel,
    energy_fn=voxel_gaussian,
    num_steps=num_steps,
    project=project,
  )
  if name == 'fixed_voxels':
    np.testing.assert_array_equal(
      np.asarray(y)[:, VISIBLE], np.asarray(start)[:, VISIBLE]
    )
  if name == 'fixed_average':
    drift = dnet_jax.downscale(y, FACTOR) - dnet_jax.downscale(start, FACTOR)
    assert float(jnp.abs(drift).max()) < 1e-5
  free_part = np.asarray(y, np.float64).reshape(chains, n) @ matrix
  bias = 1 / (1 - DT / (4 * STD**2)) if kernel is dnet_jax.langevin else 1.0
  assert covariance_error(free_part, STD**2 * bias * matrix) < K
  assert covariance_error(np.sqrt(2) * free_part, STD**2 * bias * matrix) > K


def test_average_is_held_over_many_steps():
  project, _ = projection('fixed_average')
  start = jax.random.normal(jax.random.key(1), (20, *SIDES, 1))
  y = run(
    0,
    start,
    DT,
    1.0,
    kernel=dnet_jax.langevin,
    energy_fn=voxel_gaussian,
    num_steps=2000,
    project=project,
  )
  drift = dnet_jax.downscale(y, FACTOR) - dnet_jax.downscale(start, FACTOR)
  assert float(jnp.abs(drift).max()) < 1e-5
