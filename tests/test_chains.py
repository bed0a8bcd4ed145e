import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dnet_jax

K = 5  # standard errors
SHAPE = (2, 2, 2, 1)


def energy_fn(y):
  return jnp.sum(y**2, axis=(-4, -3, -2, -1)) / 2


def keys(n, seed=0):
  return dnet_jax.chain_keys(jax.random.key(seed), n)


def test_chain_keys_do_not_depend_on_how_many_there_are():
  data = jax.random.key_data
  np.testing.assert_array_equal(data(keys(7))[:3], data(keys(3)))
  assert len(np.unique(data(keys(7)), axis=0)) == 7
  mapped = jax.vmap(
    lambda key: dnet_jax.chain_keys(key, 3, 'devices'),
    in_axes=None,
    axis_name='devices',
    axis_size=2,
  )(jax.random.key(0))
  np.testing.assert_array_equal(data(mapped).reshape(6, -1), data(keys(6)))


def test_noise_has_its_standard_deviation():
  y = dnet_jax.from_noise(keys(5000), SHAPE, std=0.3).position
  n = y.size
  assert abs(float((y**2).mean()) / 0.09 - 1) < K * np.sqrt(2 / n)
  assert abs(float(y.mean())) < K * 0.3 / np.sqrt(n)
  few = dnet_jax.from_noise(keys(3), SHAPE, std=0.3).position
  np.testing.assert_array_equal(few, y[:3])


def test_starts_hold_what_they_were_given():
  rng = np.random.default_rng(0)
  y = jnp.asarray(rng.normal(size=(3, 4, 4, 4, 1)), jnp.float32)
  visible = jnp.asarray(rng.random((3, 4, 4, 4, 1)) < 0.5)
  hidden = jnp.where(visible, y, jnp.nan)
  starts = {
    'data': dnet_jax.from_data(y),
    'corrupted': dnet_jax.from_corrupted(hidden, visible, 0.25),
    'low': dnet_jax.from_low_resolution(dnet_jax.downscale(y, 2), 2),
    'coarse': dnet_jax.from_coarse(dnet_jax.downscale(y, 4), 4),
  }
  np.testing.assert_array_equal(starts['data'].position, y)
  start = starts['corrupted'].position
  np.testing.assert_array_equal(start, jnp.where(visible, y, 0.25))
  run = functools.partial(dnet_jax.run_chains, num_steps=20, step_size=0.1)
  moved = jax.jit(
    lambda key: {
      name: run(key, energy_fn, start)[0] for name, start in starts.items()
    }
  )(jax.random.key(0))
  assert all(bool(jnp.isfinite(y).all()) for y in moved.values())
  np.testing.assert_array_equal(moved['corrupted'][visible], y[visible])
  assert bool((moved['corrupted'][~visible] != 0.25).all())
  np.testing.assert_allclose(
    dnet_jax.downscale(moved['low'], 2), dnet_jax.downscale(y, 2), atol=1e-5
  )
  for name, side in (('data', 2), ('coarse', 4)):
    change = dnet_jax.downscale(moved[name] - starts[name].position, side)
    assert float(jnp.abs(change).min()) > 0  # Free: averages move.


def test_a_slot_owns_its_chains():
  memory = dnet_jax.ChainMemory(
    jax.random.normal(jax.random.key(0), (3, 4, *SHAPE))
  )
  for slot in (1, jnp.asarray(1)):
    start = dnet_jax.read_chains(memory, slot)
    np.testing.assert_array_equal(start.position, memory.positions[1])
    new = dnet_jax.write_chains(memory, slot, start.position + 1)
    np.testing.assert_array_equal(new.positions[0], memory.positions[0])
    np.testing.assert_array_equal(new.positions[2], memory.positions[2])
    np.testing.assert_array_equal(new.positions[1], memory.positions[1] + 1)


@pytest.mark.parametrize('probability', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('traced', [False, True])
def test_restarts_a_share_of_the_chains(probability, traced):
  n, std = 4000, 0.7
  start = dnet_jax.from_data(jnp.full((n, *SHAPE), 9.0))

  def restart(probability):
    return dnet_jax.restart_chains(keys(n), start, probability, std).position

  y = np.asarray((jax.jit(restart) if traced else restart)(probability))
  same = (y == 9.0).all((1, 2, 3, 4))
  some = (y == 9.0).any((1, 2, 3, 4))
  np.testing.assert_array_equal(same, some)  # A chain as a whole, or not.
  error = np.sqrt(probability * (1 - probability) * n)
  assert abs((~same).sum() - n * probability) <= K * error
  if probability:
    fresh = y[~same]
    error = np.sqrt(2 / fresh.size)
    assert abs((fresh**2).mean() / std**2 - 1) < K * error
    assert abs(fresh.mean()) < K * std / np.sqrt(fresh.size)
    # That a chain restarts says nothing about its noise.
    assert len(np.unique(fresh[:, 0, 0, 0, 0])) > 0.99 * len(fresh)


def test_a_restart_is_of_the_chains_own_key():
  start = dnet_jax.from_data(jnp.zeros((6, *SHAPE)))
  y = dnet_jax.restart_chains(keys(6), start, 0.5).position
  part = start._replace(position=start.position[2:5])
  alone = dnet_jax.restart_chains(keys(6)[2:5], part, 0.5).position
  np.testing.assert_array_equal(alone, y[2:5])


def test_share_must_be_a_probability():
  start = dnet_jax.from_data(jnp.zeros((2, *SHAPE)))
  for probability in (-0.1, 1.1, float('nan')):
    with pytest.raises(ValueError, match=r'\[0, 1\]'):
      dnet_jax.restart_chains(keys(2), start, probability)
