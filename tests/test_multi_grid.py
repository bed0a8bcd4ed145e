"""Algorithm 2 against the paper's lines written out, and what it must keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dnet_jax

FACTORS = (2, 3)
SIDES = (2, 6)
STEPS, STEP_SIZE, RATE = 3, 0.05, 0.02


def energy_fn(theta, y):
  """A different pull for each voxel; not quadratic."""
  axes = (1, 2, 3, 4)
  return (y**2 + jnp.cos(2 * y - theta)).sum(axes)


def thetas():
  keys = jax.random.split(jax.random.key(9), len(SIDES))
  return [
    jax.random.normal(key, (side,) * 3 + (1,))
    for key, side in zip(keys, SIDES, strict=True)
  ]


def networks():
  return {f'grid_{i}': theta for i, theta in enumerate(thetas(), 1)}


def sampler(num_steps=STEPS, step_size=STEP_SIZE, axis_name=None):
  return dnet_jax.make_sampler(
    num_steps=num_steps, step_size=step_size, axis_name=axis_name
  )


def batch(n=4):
  return jax.random.normal(jax.random.key(1), (n, 6, 6, 6, 1))


def algorithm(axis_name=None, **more):
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(energy_fn), optax.sgd(RATE)
  )
  return dnet_jax.multi_grid(
    [energy_fn] * 2,
    [learner] * 2,
    sampler(axis_name=axis_name),
    factors=FACTORS,
    **more,
  )


def block_means(y, side):
  """`(n, 6, 6, 6, 1)` on a grid of `side`, one block at a time."""
  y = np.asarray(y, np.float64)
  d = y.shape[1] // side
  result = np.zeros((len(y), side, side, side, 1))
  for i in np.ndindex(side, side, side):
    block = tuple(slice(d * j, d * (j + 1)) for j in i)
    result[(slice(None), *i)] = y[(slice(None), *block)].mean((1, 2, 3))
  return result


def repeated(y, d):
  return np.kron(np.asarray(y), np.ones((1, d, d, d, 1)))


def written_out(y_obs, theta):
  """One iteration of Algorithm 2 at T = 0 in NumPy, for `energy_fn`."""
  theta = [np.asarray(t, np.float64) for t in theta]
  y = block_means(y_obs, 1)  # line 3
  samples, new = [], []
  for s, side in enumerate(SIDES):  # line 4
    y = repeated(y, FACTORS[s])
    for _ in range(STEPS):  # eq. (7): -dE/dY = -2 y + 2 sin(2 y - theta)
      y = y + STEP_SIZE / 2 * (-2 * y + 2 * np.sin(2 * y - theta[s]))
    samples.append(y)
    # Line 5, eq. (8): f = -E, and df/dtheta = -sin(2 y - theta).
    gradient = -np.sin(2 * block_means(y_obs, side) - theta[s]).mean(
      0
    ) + np.sin(2 * y - theta[s]).mean(0)
    new.append(theta[s] + RATE * gradient)
  return samples, new


def test_an_iteration_is_the_papers():
  init, step, _ = algorithm()
  state, metrics = jax.jit(step)(
    jax.random.key(0), init(None, networks()), batch(), dnet_jax.Schedule(0.0)
  )
  samples, expected = written_out(batch(), thetas())
  for grid, theta in enumerate(expected, 1):
    np.testing.assert_allclose(
      state.learners[f'grid_{grid}'].params, theta, atol=1e-6
    )
  for grid, y in enumerate(samples, 1):
    start = repeated(
      block_means(batch(), 1) if grid == 1 else samples[grid - 2],
      FACTORS[grid - 1],
    )
    move = np.sqrt(((y - start) ** 2).mean())
    np.testing.assert_allclose(
      metrics[f'chain_move/grid_{grid}'], move, rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics[f'chain_max/grid_{grid}'], abs(y).max(), rtol=1e-5
    )
  first, second = (metrics[f'energy_gap/grid_{grid}'] for grid in (1, 2))
  assert metrics['energy_gap'] == second != first
  # Had each grid begun at the data, as contrastive divergence does, it would
  # be another one.
  cheating = block_means(batch(), 2)
  assert abs(cheating - samples[0]).max() > 0.1


def test_a_source_takes_the_place_of_the_averages():
  key, schedule = jax.random.key(0), dnet_jax.Schedule(0.5)

  def learned(arrays=None):
    source = arrays and dnet_jax.Source(lambda keys, x: x['y'], arrays)
    init, step, _ = algorithm(source=source)
    state = init(None, networks())
    if arrays:
      np.testing.assert_array_equal(state.memory.source['y'], arrays['y'])
    return jax.jit(step)(key, state, batch(), schedule)

  own = block_means(batch(), 1).astype(np.float32)
  state, metrics = learned({'y': jnp.asarray(own)})
  assert (state.memory.source['y'] == own).all()  # It is kept.
  _, expected = learned()
  for name, x in expected.items():
    np.testing.assert_allclose(metrics[name], x, rtol=1e-4, err_msg=name)
  _, other = learned({'y': jnp.asarray(own + 1)})
  assert abs(other['energy_gap'] - expected['energy_gap']) > 0.1


def test_a_source_draws_other_shapes_in_each_iteration():
  seen = []

  def draw(keys, arrays):
    jax.debug.callback(lambda x: seen.append(np.array(x)), arrays)
    uniform = jax.vmap(jax.random.uniform)(keys)
    jax.debug.callback(lambda x: seen.append(np.array(x)), uniform)
    return uniform.reshape(-1, 1, 1, 1, 1) + arrays

  init, step, _ = algorithm(source=dnet_jax.Source(draw, jnp.float32(2)))
  state = init(None, networks())
  for i in range(2):
    state, _ = step(jax.random.key(i), state, batch(), dnet_jax.Schedule())
  jax.effects_barrier()
  draws = np.concatenate([x for x in seen if x.ndim])
  assert len(np.unique(draws)) == 8


def test_chains_may_begin_at_an_interpolation():
  y = jax.random.normal(jax.random.key(2), (3, 2, 2, 2, 1))
  first, second = dnet_jax.sample_grids(
    dnet_jax.chain_keys(jax.random.key(3), 3),
    [functools.partial(energy_fn, theta) for theta in thetas()],
    y,
    (1, 3),
    sampler(0),
    enlarge=dnet_jax.trilinear,
  )
  np.testing.assert_array_equal(first, y)
  np.testing.assert_array_equal(second, dnet_jax.trilinear(y, 3))
  # In learning too: the same samples at T = 0, and so the same changes.
  moves = {
    name: jax.jit(algorithm(**more).step)(
      jax.random.key(0),
      algorithm().init(None, networks()),
      batch(),
      dnet_jax.Schedule(0.0),
    )[1]
    for name, more in (
      ('repeat', {}),
      ('upscale', {'enlarge': dnet_jax.upscale}),
      ('linear', {'enlarge': dnet_jax.trilinear}),
    )
  }
  gap = {name: float(x['energy_gap']) for name, x in moves.items()}
  assert gap['repeat'] == gap['upscale'] != gap['linear']


@functools.partial(jax.jit, static_argnames=('factors', 'num_steps'))
def _sampled(keys, y, thetas, factors, num_steps, step_size, temperature):
  return dnet_jax.sample_grids(
    keys,
    [functools.partial(energy_fn, theta) for theta in thetas],
    y,
    factors,
    [sampler(*pair) for pair in zip(num_steps, step_size, strict=True)],
    temperature,
  )


def sampled(
  y,
  keys=None,
  theta=None,
  *,
  factors=FACTORS,
  num_steps=(STEPS,) * 2,
  step_size=(STEP_SIZE,) * 2,
  temperature=(1.0,) * 2,
):
  if keys is None:
    keys = dnet_jax.chain_keys(jax.random.key(3), len(y))
  theta = thetas() if theta is None else theta
  return _sampled(keys, y, theta, factors, num_steps, step_size, temperature)


def averages(n=3):
  return jnp.arange(1.0, n + 1).reshape(n, 1, 1, 1, 1)


def test_chains_begin_at_the_upscaled_coarser_shape():
  samples = sampled(averages(), num_steps=(0, 0))
  assert [y.shape for y in samples] == [(3, d, d, d, 1) for d in SIDES]
  for y in samples:
    np.testing.assert_array_equal(y, jnp.broadcast_to(averages(), y.shape))
  # Only the first grid moves: the others repeat its voxels.
  first, second = sampled(averages(), num_steps=(STEPS, 0))
  assert float(abs(first - averages()).min()) > 1e-4
  np.testing.assert_array_equal(second, repeated(first, 3).astype(np.float32))


def test_each_grid_is_run_chains_from_the_coarser_sample():
  keys = dnet_jax.chain_keys(jax.random.key(3), 3)
  temperatures, steps, sizes = (0.5, 0.0), (2, STEPS), (0.1, 0.02)
  samples = sampled(
    averages(), num_steps=steps, step_size=sizes, temperature=temperatures
  )
  y = averages()
  for s, theta in enumerate(thetas()):
    y, _ = dnet_jax.run_chains(
      jax.vmap(jax.random.fold_in, (0, None))(keys, s),
      functools.partial(energy_fn, theta),
      dnet_jax.from_coarse(y, FACTORS[s]),
      num_steps=steps[s],
      step_size=sizes[s],
      temperature=temperatures[s],
    )
    np.testing.assert_allclose(samples[s], y, atol=1e-6)


def test_a_coarse_shape_is_sharpened():
  # From grid 1 of a sample comes the other one of the same sample.
  whole = sampled(averages(), temperature=(0.0,) * 2)
  finer = sampled(
    whole[0],
    dnet_jax.chain_keys(jax.random.key(8), 3),
    thetas()[1:],
    factors=FACTORS[1:],
    num_steps=(STEPS,),
    step_size=(STEP_SIZE,),
    temperature=(0.0,),
  )
  for a, b in zip(finer, whole[1:], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_chains_do_not_know_of_each_other():
  keys = dnet_jax.chain_keys(jax.random.key(3), 3)
  together = sampled(averages(), keys)
  for i in range(3):
    alone = sampled(averages()[i : i + 1], keys[i : i + 1])
    for a, b in zip(alone, together, strict=True):
      np.testing.assert_allclose(a[0], b[i], atol=1e-6)
  # Chains with the same average differ by their noise, on every grid.
  same = sampled(jnp.ones((3, 1, 1, 1, 1)), keys)
  assert all(float(abs(y[0] - y[1]).mean()) > 0.01 for y in same)
  # Without noise they are equal.
  same = sampled(jnp.ones((3, 1, 1, 1, 1)), keys, temperature=(0.0,) * 2)
  for y in same:
    np.testing.assert_array_equal(y[0], y[1])


def test_grids_draw_different_noise():
  # Energies without force, so that y is the start and the noise alone.
  keys = dnet_jax.chain_keys(jax.random.key(0), 2)
  flat = [lambda y: 0 * y.sum((1, 2, 3, 4))] * 2
  first, second = jax.jit(
    lambda keys, y: dnet_jax.sample_grids(
      keys, flat, y, (1, 1), sampler(1, 1.0)
    )
  )(keys, jnp.zeros((2, 4, 4, 4, 1)))
  noise = np.stack([np.ravel(first), np.ravel(second - first)])
  assert abs(np.corrcoef(noise)[0, 1]) < 5 / np.sqrt(noise.shape[1])


@pytest.mark.parametrize('number', [1, 3])
@pytest.mark.parametrize('name', ['energy', 'learner', 'sampler'])
def test_one_of_each_for_each_grid(name, number):
  parts = {'energy': 2, 'learner': 2, 'sampler': 2} | {name: number}
  match = rf'one {name} for each of the 2 factors .* got {number}'
  with pytest.raises(ValueError, match=match):
    dnet_jax.multi_grid(
      [energy_fn] * parts['energy'],
      [None] * parts['learner'],
      [sampler()] * parts['sampler'],
      factors=FACTORS,
    )
  if name != 'learner':
    with pytest.raises(ValueError, match=match):
      dnet_jax.sample_grids(
        dnet_jax.chain_keys(jax.random.key(0), 3),
        [functools.partial(energy_fn, 0.0)] * parts['energy'],
        averages(),
        FACTORS,
        [sampler()] * parts['sampler'],
      )


@pytest.mark.parametrize('temperature', [(1.0,), (1.0, 1.0, 1.0, 1.0)])
def test_one_temperature_or_one_for_each_grid(temperature):
  match = f'one temperature for each of the 2 .* got {len(temperature)}'
  with pytest.raises(ValueError, match=match):
    sampled(averages(), temperature=temperature)
  init, step, _ = algorithm()
  schedule = dnet_jax.Schedule(jnp.array(temperature))
  with pytest.raises(ValueError, match=match):
    step(jax.random.key(0), init(None, networks()), batch(), schedule)


def test_a_sampler_of_its_own_for_each_grid():
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(energy_fn), optax.sgd(RATE)
  )
  init, step, _ = dnet_jax.multi_grid(
    [energy_fn] * 2,
    [learner] * 2,
    [sampler(num_steps=0), sampler()],
    factors=FACTORS,
  )
  _, metrics = jax.jit(step)(
    jax.random.key(0), init(None, networks()), batch(), dnet_jax.Schedule()
  )
  assert metrics['chain_move/grid_1'] == 0 < metrics['chain_move/grid_2']


def test_factors_that_do_not_divide_the_data():
  init, step, _ = algorithm()
  with pytest.raises(ValueError, match=r'factor 3 .*7, 6'):
    step(
      jax.random.key(0),
      init(None, networks()),
      jnp.ones((4, 7, 6, 6, 1)),
      dnet_jax.Schedule(),
    )
  # Sides may differ as long as blocks fit: only the networks want cubes.
  wide = jnp.ones((2, 12, 6, 6, 1))
  shapes = [y.shape[1:4] for y in dnet_jax.pyramid(wide, FACTORS)]
  assert shapes == [(2, 1, 1), (4, 2, 2), (12, 6, 6)]


def test_it_learns_what_is_known():
  """For E = |y - theta|^2 / 2, theta must become the data's mean, eq. (8).

  Chains are at E[y~] = theta + a^K (start - theta), a = 1 - dt / 2, so
  eq. (8) vanishes where the chains' mean is the data's; with many steps, where
  theta is.
  """
  y = batch(16) * 0.2 + jnp.linspace(-1, 1, 216).reshape(6, 6, 6, 1)
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(
      quadratic := lambda t, y: ((y - t) ** 2).sum((1, 2, 3, 4)) / 2
    ),
    optax.sgd(0.5),
  )
  init, step, _ = dnet_jax.multi_grid(
    [quadratic] * 2, [learner] * 2, sampler(20, 1.0), factors=FACTORS
  )
  first = {f'grid_{i}': jnp.zeros((d, d, d, 1)) for i, d in enumerate(SIDES, 1)}
  state = init(None, first)
  step = jax.jit(step)
  schedule = dnet_jax.Schedule(jnp.array([0.1, 0.0]))
  for i in range(40):
    state, _ = step(jax.random.key(i), state, y, schedule)
  for s, d in enumerate(SIDES):
    theta = state.learners[f'grid_{s + 1}'].params
    error = abs(theta - block_means(y, d).mean(0)).max()
    # What is left of the noise: 16 chains, a few iterations' worth of them.
    noise = np.sqrt((0.1, 0.0)[s] / 16)
    assert error < 1e-4 + 6 * noise
    assert float(abs(theta).max()) > 0.5
