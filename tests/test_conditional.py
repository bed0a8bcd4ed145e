"""Sampling and learning under constraints: Algorithms 4 and 5."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dnet_jax

SHAPE = (8, 8, 8, 1)
NETWORK = dnet_jax.Descriptor((4,), (3,), (2,), init_std=0.3)
ENERGY = dnet_jax.descriptor_energy(NETWORK.apply)


@pytest.fixture(scope='module')
def params():
  return NETWORK.init(jax.random.key(0), jnp.zeros((0, *SHAPE)))


@pytest.fixture(scope='module')
def y():
  return np.asarray(
    (jax.random.uniform(jax.random.key(1), (3, *SHAPE)) > 0.6) - 0.37
  )


@functools.partial(jax.jit, static_argnames=('make', 'steps', 'kernel'))
def run(params, make, arrays, steps, kernel=dnet_jax.langevin):
  start, finish = make(*arrays)
  y, _ = dnet_jax.run_chains(
    dnet_jax.chain_keys(jax.random.key(2), len(start.position)),
    functools.partial(ENERGY, params),
    start,
    num_steps=steps,
    step_size=0.002,
    kernel=kernel,
  )
  return y, finish(y)


def held(y, visible):
  return dnet_jax.recovery_start(y, visible, hold=True)


def put_back(y, visible):
  return dnet_jax.recovery_start(y, visible, hold=False)


@pytest.mark.parametrize('kernel', [dnet_jax.langevin, dnet_jax.mala])
@pytest.mark.parametrize('steps', [1, 25])
def test_held_voxels_are_bit_identical(params, y, steps, kernel):
  visible = np.random.default_rng(0).random(y.shape) < 0.3
  last, finished = run(params, held, (y, visible), steps, kernel)
  np.testing.assert_array_equal(np.asarray(last)[visible], y[visible])
  np.testing.assert_array_equal(last, finished)
  start = held(y, visible)[0].position
  assert (np.asarray(last) != start)[~visible].mean() > 0.6


def test_the_other_reading_moves_all_and_puts_back(params, y):
  visible = np.random.default_rng(0).random(y.shape) < 0.3
  last, finished = run(params, put_back, (y, visible), 5)
  assert (np.asarray(last) != y)[visible].mean() > 0.9
  np.testing.assert_array_equal(np.asarray(finished)[visible], y[visible])
  np.testing.assert_array_equal(
    np.asarray(finished)[~visible], np.asarray(last)[~visible]
  )
  # The two readings are two samplers.
  assert (np.asarray(run(params, held, (y, visible), 5)[0]) != last).any()


def test_recovery_reads_visible_voxels_only(y):
  visible = np.random.default_rng(0).random(y.shape) < 0.3
  a = dnet_jax.recovery_start(y, visible)[0].position
  b = dnet_jax.recovery_start(np.where(visible, y, 7.0), visible)[0].position
  np.testing.assert_array_equal(a, b)
  # Hidden ones begin at the mean of the visible ones of their shape.
  for i in range(len(y)):
    hidden = np.asarray(a)[i][~visible[i]]
    np.testing.assert_allclose(hidden, y[i][visible[i]].mean(), rtol=1e-4)


def test_an_anchored_recovery_settles_between_its_start_and_the_energy(y):
  visible = np.random.default_rng(0).random(y.shape) < 0.3
  start, _ = dnet_jax.recovery_start(y, visible, anchor_std=0.5)
  last, _ = dnet_jax.run_chains(
    jax.random.key(0),
    lambda y: jnp.sum((y - 2) ** 2, (1, 2, 3, 4)) / 2,
    start,
    num_steps=60,
    step_size=0.5,
    temperature=0.0,
  )
  # Precisions 4 of the anchor and 1 of the energy.
  between = (4 * np.asarray(start.position) + 2) / 5
  np.testing.assert_allclose(last, np.where(visible, y, between), rtol=1e-5)


def test_learning_of_a_recovery_is_anchored(params, y):
  corrupt = dnet_jax.random_voxels(0.7)
  tight, free, loose = (
    learn(
      functools.partial(dnet_jax.recovery, corrupt=corrupt, anchor_std=std),
      1,
      y,
      params,
    )
    for std in (0.1, None, 1e6)
  )

  def difference(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(np.abs(a - b).max() for a, b in pairs)

  assert difference(free, loose) < 1e-5
  assert difference(free, tight) > 1e-3


def low_resolution(low):
  return dnet_jax.from_low_resolution(low, 4), lambda y: y


@pytest.mark.parametrize('kernel', [dnet_jax.langevin, dnet_jax.mala])
@pytest.mark.parametrize('steps', [1, 200])
def test_block_averages_do_not_drift(params, y, steps, kernel):
  low = dnet_jax.downscale(y, 4)
  last, _ = run(params, low_resolution, (low,), steps, kernel)
  drift = np.abs(dnet_jax.downscale(last, 4) - low).max()
  assert drift < 1e-5
  moved = np.asarray(last) - dnet_jax.upscale(low, 4)
  assert np.abs(moved).max() > (0.05 if steps == 1 else 0.5)


def learn(make, iterations, batch, params, temperature=0.0):
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(ENERGY), optax.adam(0.02, b1=0.5)
  )
  sampler = dnet_jax.make_sampler(num_steps=10, step_size=0.1)
  algorithm = make(ENERGY, learner, sampler)
  step = jax.jit(algorithm.step)
  state = algorithm.init(jax.random.key(0), {'descriptor': params})
  schedule = dnet_jax.Schedule(temperature)
  for i in range(iterations):
    state, _ = step(jax.random.key(i), state, batch, schedule)
  return state.learners['descriptor'].params


# One solid of two halves, so that what is hidden follows from what is seen.
def solids():
  y = np.full((4, *SHAPE), -0.4, np.float32)
  y[:, 2:6, 2:6, :, :] = 0.6
  return y


def test_learning_to_recover_beats_the_start():
  y = solids()
  corrupt = dnet_jax.random_voxels(0.7)
  small = NETWORK.clone(init_std=0.05)
  first = small.init(jax.random.key(0), jnp.zeros((0, *SHAPE)))
  params = learn(
    functools.partial(dnet_jax.recovery, corrupt=corrupt), 60, y, first
  )
  visible = corrupt(dnet_jax.chain_keys(jax.random.key(9), 4), y)

  @jax.jit
  def error(params):
    start, finish = dnet_jax.recovery_start(y, visible)
    last, _ = dnet_jax.run_chains(
      jax.random.key(0),
      functools.partial(ENERGY, params),
      start,
      num_steps=10,
      step_size=0.1,
      temperature=0.0,
    )
    hidden = ~visible
    return jnp.abs(finish(last) - y).sum(where=hidden) / hidden.sum()

  assert error(params) < 0.3 * error(first)


def test_learning_to_super_resolve_beats_block_repeat():
  # Blocks of 4^3 that are cut in the middle.
  y = solids()
  small = NETWORK.clone(init_std=0.05)
  first = small.init(jax.random.key(0), jnp.zeros((0, *SHAPE)))
  params = learn(
    functools.partial(dnet_jax.super_resolution, factor=4), 60, y, first
  )
  low = dnet_jax.downscale(y, 4)

  @jax.jit
  def last(params):
    return dnet_jax.run_chains(
      jax.random.key(0),
      functools.partial(ENERGY, params),
      dnet_jax.from_low_resolution(low, 4),
      num_steps=10,
      step_size=0.1,
      temperature=0.0,
    )[0]

  repeat = np.abs(dnet_jax.upscale(low, 4) - y).mean()
  assert np.abs(last(params) - y).mean() < 0.3 * repeat


def test_super_resolution_needs_a_factor_that_divides():
  with pytest.raises(ValueError, match='factor 3'):
    dnet_jax.downscale(jnp.zeros((1, *SHAPE)), 3)
