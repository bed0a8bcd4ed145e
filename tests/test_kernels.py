"""Kernels and `sample`, step by step: what does not need statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dnet_jax
from tests import reference

KERNELS = {'langevin': dnet_jax.langevin, 'mala': dnet_jax.mala}
DT = 0.2


def energy_fn(y):
  """Asymmetric and not Gaussian; one energy for each chain `(*chains, 2)`."""
  return jnp.sum(jnp.exp(y) - y + y**2, axis=-1)


def gradient(y):
  return np.exp(y) - 1 + 2 * y


def start(chains=(5,)):
  return jax.random.normal(jax.random.key(9), (*chains, 2))


@pytest.mark.parametrize('temperature', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('projected', [False, True])
def test_langevin_is_eq_7(temperature, projected):
  y, key = start(), jax.random.key(3)
  project = jnp.full((2, 2), 0.5) if projected else jnp.eye(2)
  kernel = dnet_jax.langevin(
    energy_fn, DT, temperature=temperature, project=lambda dy: dy @ project
  )
  state, info = jax.jit(lambda key, y: kernel.step(key, kernel.init(y)))(key, y)
  noise = jax.random.normal(key, y.shape)
  expected = reference.langevin_step(
    np.asarray(y, np.float64),
    gradient(np.asarray(y, np.float64)),
    np.asarray(noise),
    DT,
    temperature,
    np.asarray(project),
  )
  np.testing.assert_allclose(state.position, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(info.energy, energy_fn(y), rtol=1e-6)


def test_temperature_zero_is_gradient_descent_exactly():
  y = start()
  kernel = dnet_jax.langevin(energy_fn, DT, temperature=0.0)
  results = [
    dnet_jax.sample(jax.random.key(seed), kernel, y, 10)[0] for seed in (0, 1)
  ]
  np.testing.assert_array_equal(*results)
  expected, score = y, jax.jit(dnet_jax.score(energy_fn))
  for _ in range(10):
    expected = expected + DT / 2 * score(expected)
  np.testing.assert_allclose(results[0], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('kernel', KERNELS.values(), ids=KERNELS)
def test_a_key_for_each_chain_gives_each_its_own_path(kernel):
  y, keys = start((6,)), jax.random.split(jax.random.key(0), 6)

  @jax.jit
  def run(keys, y):
    return dnet_jax.sample(keys, kernel(energy_fn, DT), y, 7)[0]

  together = run(keys, y)
  np.testing.assert_array_equal(run(keys[2:5], y[2:5]), together[2:5])
  np.testing.assert_array_equal(run(keys[::-1], y[::-1]), together[::-1])
  np.testing.assert_array_equal(run(keys[4], y[4]), together[4])
  np.testing.assert_array_equal(jax.vmap(run)(keys, y), together)
  grid = run(keys.reshape(2, 3), y.reshape(2, 3, 2))
  np.testing.assert_array_equal(grid.reshape(6, 2), together)
  # Other keys, other paths; equal keys and starts, equal paths.
  assert (run(keys[::-1], y) != together).any()
  same = run(jnp.stack([keys[0]] * 2), jnp.stack([y[0]] * 2))
  np.testing.assert_array_equal(same[0], same[1])


@pytest.mark.parametrize('kernel', KERNELS.values(), ids=KERNELS)
def test_one_key_serves_independent_chains(kernel):
  y = jnp.zeros((4, 2))
  moved, _ = dnet_jax.sample(jax.random.key(0), kernel(energy_fn, DT), y, 3)
  assert len(np.unique(np.asarray(moved)[:, 0])) == 4


def test_keys_must_fit_the_chains():
  kernel = dnet_jax.langevin(energy_fn, DT)
  with pytest.raises(ValueError, match=r'keys of shape \(3,\)'):
    dnet_jax.sample(
      jax.random.split(jax.random.key(0), 3), kernel, start((4,)), 1
    )


@pytest.mark.parametrize('kernel', KERNELS.values(), ids=KERNELS)
def test_sample_keeps_what_trace_fn_says(kernel):
  y, key = start(), jax.random.key(0)
  last, trace = dnet_jax.sample(
    key,
    kernel(energy_fn, DT),
    y,
    4,
    trace_fn=lambda state, info: (state.position, info.energy),
  )
  positions, energies = trace
  assert positions.shape == (4, 5, 2)
  np.testing.assert_array_equal(positions[-1], last)
  before = jnp.concatenate([y[None], positions[:-1]])
  np.testing.assert_allclose(energies, energy_fn(before), rtol=1e-5)


@pytest.mark.parametrize('kernel', KERNELS.values(), ids=KERNELS)
def test_no_steps_change_nothing(kernel):
  y = start()
  last, info = dnet_jax.sample(
    jax.random.key(0), kernel(energy_fn, DT), y, num_steps=0
  )
  np.testing.assert_array_equal(last, y)
  assert info.energy.shape == (0, 5)
  with pytest.raises(ValueError, match=r'num_steps.*-1'):
    dnet_jax.sample(jax.random.key(0), kernel(energy_fn, DT), y, -1)


def test_mala_rejects_to_where_it_was_and_caches_the_truth():
  # A step so large that chains both move and stay.
  kernel = dnet_jax.mala(energy_fn, 1.5)
  init, step = jax.jit(kernel.init), jax.jit(kernel.step)
  state = init(start((200,)))
  new, info = step(jax.random.key(0), state)
  moved = (new.position != state.position).all(-1)
  np.testing.assert_array_equal(moved, info.accepted)
  assert 0 < moved.mean() < 1
  np.testing.assert_array_equal(new.position[~moved], state.position[~moved])
  fresh = init(new.position)
  for value, expected in zip(new, fresh, strict=True):
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_mala_rejects_a_proposal_without_an_energy():
  def walled(y):
    return jnp.where(y[..., 0] > 0, jnp.nan, jnp.sum(y**2, -1) / 2)

  kernel = dnet_jax.mala(walled, 0.5)
  y = jnp.full((200, 2), -0.5)
  last, info = dnet_jax.sample(jax.random.key(0), kernel, y, 20)
  assert bool(jnp.isfinite(last).all())
  assert bool((last[:, 0] <= 0).all())
  assert 0 < float(info.accepted.mean()) < 1


def test_bad_arguments_are_refused():
  for kernel in KERNELS.values():
    for step_size in (0.0, -0.1, float('nan')):
      with pytest.raises(ValueError, match='step_size must be positive'):
        kernel(energy_fn, step_size)
  with pytest.raises(ValueError, match=r'temperature > 0, got 0\.0'):
    dnet_jax.mala(energy_fn, 0.1, temperature=0.0)
  # Traced, it cannot be seen: such chains stay where they are.
  run = jax.jit(
    lambda t, y: dnet_jax.sample(
      jax.random.key(0), dnet_jax.mala(energy_fn, 0.1, temperature=t), y, 3
    )[0]
  )
  np.testing.assert_array_equal(run(0.0, start()), start())
