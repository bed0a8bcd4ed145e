"""Kernels and `sample`, step by step: what does not need statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dnet_jax
from dnet_jax import kernels
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


@pytest.mark.parametrize('wall', [jnp.nan, jnp.inf, -jnp.inf])
def test_mala_rejects_a_proposal_without_an_energy(wall):
  def walled(y):
    return jnp.where(y[..., 0] > 0, wall, jnp.sum(y**2, -1) / 2)

  kernel = dnet_jax.mala(walled, 0.5)
  y = jnp.full((200, 2), -0.5)
  last, info = dnet_jax.sample(jax.random.key(0), kernel, y, 20)
  assert bool(jnp.isfinite(last).all())
  assert bool((last[:, 0] <= 0).all())
  assert 0 < float(info.accepted.mean()) < 1
  rate = np.asarray(info.acceptance_rate)
  assert ((rate >= 0) & (rate <= 1)).all()
  # What stays for sure has rate 0: proposals behind the wall.
  assert (rate == 0).mean() > 0.1
  assert not np.asarray(info.accepted)[rate == 0].any()


def test_bad_arguments_are_refused():
  inf, nan = float('inf'), float('nan')
  for kernel in KERNELS.values():
    for step_size in (0.0, -0.1, nan, inf, jnp.float32(inf)):
      message = f'step_size must be positive and finite, got {step_size}'
      with pytest.raises(ValueError, match=message):
        kernel(energy_fn, step_size)
  for temperature in (-0.5, nan, inf, jnp.float32(-0.5)):
    message = f'temperature must be finite and not negative, got {temperature}'
    with pytest.raises(ValueError, match=message):
      dnet_jax.langevin(energy_fn, 0.1, temperature=temperature)
  for temperature in (0.0, -0.5, nan, inf):
    with pytest.raises(ValueError, match=f'temperature > 0, got {temperature}'):
      dnet_jax.mala(energy_fn, 0.1, temperature=temperature)
  # Traced, it cannot be seen: such chains stay where they are.
  run = jax.jit(
    lambda t, y: dnet_jax.sample(
      jax.random.key(0), dnet_jax.mala(energy_fn, 0.1, temperature=t), y, 3
    )[0]
  )
  np.testing.assert_array_equal(run(0.0, start()), start())


def tree_energy(y):
  """`energy_fn` of two arrays of other ranks, which depend on each other."""
  a, b = y['a'], y['b']
  return energy_fn(a).sum(-1) + energy_fn(b) + a[..., 0, 0] * b[..., 1] / 2


def tree_gradient(y):
  a, b = (np.asarray(y[name], np.float64) for name in 'ab')
  da, db = gradient(a), gradient(b)
  da[..., 0, 0] += b[..., 1] / 2
  db[..., 1] += a[..., 0, 0] / 2
  return {'a': da, 'b': db}


def tree_start(chains=(5,)):
  a, b = jax.random.split(jax.random.key(9))
  return {
    'a': jax.random.normal(a, (*chains, 3, 2)),
    'b': jax.random.normal(b, (*chains, 2)),
  }


def tree_noise(key, y):
  return {
    name: np.asarray(
      jax.random.normal(jax.random.fold_in(key, i), y[name].shape)
    )
    for i, name in enumerate('ab')
  }


def test_langevin_is_eq_7_in_each_array_of_a_position():
  y, key = tree_start(), jax.random.key(3)
  kernel = dnet_jax.langevin(tree_energy, DT, temperature=0.5)
  state, info = jax.jit(lambda key, y: kernel.step(key, kernel.init(y)))(key, y)
  slope, noise = tree_gradient(y), tree_noise(key, y)
  for name in 'ab':
    expected = reference.langevin_step(
      np.asarray(y[name], np.float64),
      slope[name],
      noise[name],
      DT,
      0.5,
    )
    np.testing.assert_allclose(
      state.position[name], expected, rtol=1e-5, atol=1e-6
    )
  np.testing.assert_allclose(info.energy, tree_energy(y), rtol=1e-6)


@pytest.mark.parametrize('kernel', KERNELS.values(), ids=KERNELS)
def test_one_array_has_the_noise_of_the_key_itself(kernel):
  """Nothing is folded in: paths are those of earlier versions."""
  flat = lambda y: 0 * jnp.sum(y, -1)  # noqa: E731
  y, key = jnp.zeros((5, 2)), jax.random.key(3)
  step = kernel(flat, 1.0)
  state, _ = step.step(key, step.init(y))
  if kernel is dnet_jax.mala:
    key = jax.random.fold_in(key, 0)
  np.testing.assert_array_equal(state.position, jax.random.normal(key, y.shape))
  # A pytree of one array is that array.
  step = kernel(lambda tree: energy_fn(tree[0]['y']), DT)
  alone, _ = dnet_jax.sample(key, kernel(energy_fn, DT), start(), 3)
  tree, _ = dnet_jax.sample(key, step, [{'y': start()}], 3)
  np.testing.assert_array_equal(tree[0]['y'], alone)


@pytest.mark.parametrize('temperature', [1.0, 0.4])
def test_acceptance_rate_is_the_ratio_over_all_arrays(temperature):
  """The Metropolis-Hastings ratio in float64, from its definition."""
  y, key = tree_start((200,)), jax.random.key(3)
  kernel = dnet_jax.mala(tree_energy, dt := 0.6, temperature=temperature)
  state, info = jax.jit(lambda key, y: kernel.step(key, kernel.init(y)))(key, y)
  noise = tree_noise(jax.random.fold_in(key, 0), y)
  slope = tree_gradient(y)
  new = {
    name: np.asarray(y[name], np.float64)
    - dt / 2 * slope[name]
    + np.sqrt(temperature * dt) * noise[name]
    for name in 'ab'
  }
  slope_new = tree_gradient(new)

  def log_ratio(names):
    total = np.asarray(tree_energy(y), np.float64) - np.asarray(
      tree_energy(jax.tree.map(jnp.asarray, new)), np.float64
    )
    for name in names:
      back = np.asarray(y[name]) - new[name] + dt / 2 * slope_new[name]
      there = new[name] - np.asarray(y[name]) + dt / 2 * slope[name]
      axes = tuple(range(1, back.ndim))
      total += ((there**2).sum(axes) - (back**2).sum(axes)) / (2 * dt)
    return total / temperature

  rate = np.minimum(1, np.exp(log_ratio('ab')))
  assert 0.02 < (rate == 1).mean() < 0.98
  np.testing.assert_allclose(info.acceptance_rate, rate, rtol=1e-4, atol=1e-6)
  assert abs(np.minimum(1, np.exp(log_ratio('a'))) - rate).max() > 0.1
  # Each chain moves in all arrays or in none.
  accepted = np.asarray(info.accepted)
  assert 0 < accepted.mean() < 1
  for name in 'ab':
    moved = np.asarray(state.position[name] != y[name]).reshape(200, -1)
    np.testing.assert_array_equal(moved.all(1), accepted)
    np.testing.assert_array_equal(moved.any(1), accepted)
  # A chain accepts with that probability: where its uniform number is lower.
  uniform = jax.random.uniform(jax.random.fold_in(key, 1), (200,))
  np.testing.assert_array_equal(accepted, np.asarray(uniform) < rate)


@pytest.mark.parametrize('kernel', KERNELS.values(), ids=KERNELS)
def test_a_key_for_each_chain_of_a_pytree(kernel):
  y, keys = tree_start((6,)), jax.random.split(jax.random.key(0), 6)

  @jax.jit
  def run(keys, y):
    return dnet_jax.sample(keys, kernel(tree_energy, DT), y, 5)[0]

  together = run(keys, y)
  part = run(keys[2:5], jax.tree.map(lambda leaf: leaf[2:5], y))
  alone = run(keys[4], jax.tree.map(lambda leaf: leaf[4], y))
  mapped = jax.vmap(run)(keys, y)
  for name in 'ab':
    np.testing.assert_array_equal(part[name], together[name][2:5])
    np.testing.assert_array_equal(alone[name], together[name][4])
    np.testing.assert_array_equal(mapped[name], together[name])


@pytest.mark.parametrize('kernel', KERNELS.values(), ids=KERNELS)
def test_positions_must_have_the_chain_axes_of_the_energy(kernel):
  y = tree_start()
  y['b'] = y['b'][:4]
  step = kernel(lambda y: energy_fn(y['a']).sum(-1), DT)
  message = r"energies of shape \(5,\).*\['b'\] of shape \(4, 2\)"
  with pytest.raises(ValueError, match=message):
    dnet_jax.sample(jax.random.key(0), step, y, 1)


@pytest.mark.slow
@pytest.mark.parametrize('kernel', KERNELS.values(), ids=KERNELS)
def test_keys_of_the_old_style_draw_the_same(kernel):
  step = kernel(energy_fn, DT)
  one = jax.random.PRNGKey(5)
  each = jax.random.split(one, 4)
  for key in (one, each, each.reshape(2, 2, 2)):
    y = start((2, 2) if key.ndim == 3 else (4,))
    assert key.dtype == jnp.uint32
    new = jax.random.wrap_key_data(key)
    results = [dnet_jax.sample(k, step, y, 3)[0] for k in (key, new)]
    np.testing.assert_array_equal(*results)
    steps = [step.step(k, step.init(y))[0].position for k in (key, new)]
    np.testing.assert_array_equal(*steps)
    folded = [kernels.fold_in(k, 7) for k in (key, new)]
    assert folded[0].shape == new.shape
    np.testing.assert_array_equal(*map(jax.random.key_data, folded))
  # One such key and one for each chain are different things.
  assert kernels.as_key(one).shape == ()
  assert kernels.as_key(each).shape == (4,)
  assert kernels.as_key(new) is new


@pytest.mark.parametrize(
  ('key', 'got'),
  [
    (0, 'got 0'),
    (None, 'got None'),
    (jnp.zeros(2), r'got float32 of shape \(2,\)'),
    (jnp.zeros(3, jnp.uint32), r'got uint32 of shape \(3,\)'),
  ],
)
def test_what_is_no_key_is_refused(key, got):
  with pytest.raises(TypeError, match=f'jax.random.PRNGKey.*{got}'):
    dnet_jax.sample(key, dnet_jax.langevin(energy_fn, DT), start(), 1)
