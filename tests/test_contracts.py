"""What each kernel, projection, start and algorithm must keep: one table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dnet_jax

SHAPE = (2, 4, 2, 1)
VISIBLE = np.random.default_rng(0).random(SHAPE) < 0.5
AXES = (-4, -3, -2, -1)

KERNELS = {'langevin': dnet_jax.langevin, 'mala': dnet_jax.mala}
PROJECTIONS = {
  'free': dnet_jax.free(),
  'fixed_voxels': dnet_jax.fixed_voxels(VISIBLE),
  'fixed_average': dnet_jax.fixed_average(2),
}


class Counted:
  """An energy that counts how often Python runs it: once for each trace."""

  def __init__(self):
    self.traces = 0

  def __call__(self, params, y):
    self.traces += 1
    f = jnp.sum(jnp.tanh(params['w'] * y + params['b']), AXES)
    return jnp.sum(y**2, AXES) / 2 - f


def params(scale=1.0):
  w = jax.random.normal(jax.random.key(0), SHAPE)
  return {'w': scale * w, 'b': jnp.asarray(0.1 * scale, jnp.float32)}


def finite(tree):
  return all(
    bool(jnp.isfinite(leaf).all())
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  )


def aval(tree):
  return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize('projection', PROJECTIONS)
@pytest.mark.parametrize('kernel', KERNELS)
def test_kernel_with_projection(kernel, projection):
  energy_fn = Counted()

  @jax.jit
  def run(key, params, y, step_size, temperature):
    step = KERNELS[kernel](
      functools.partial(energy_fn, params),
      step_size,
      temperature=temperature,
      project=PROJECTIONS[projection],
    )
    return dnet_jax.sample(key, step, y, num_steps=3)

  y = jax.random.normal(jax.random.key(1), (3, *SHAPE))
  # Types are promoted by nobody but who says so.
  with jax.numpy_dtype_promotion('strict'):
    moved, info = run(jax.random.key(0), params(), y, 0.1, 1.0)
    traces = energy_fn.traces
    for i in range(3):
      new = params(i + 2.0)
      run(jax.random.key(i), new, moved, 0.1 + i / 10, 1.0 - i / 4)
    assert energy_fn.traces == traces
  assert aval(moved) == aval(y)
  assert info.energy.shape == (3, 3)
  assert finite((moved, info))
  # Each kernel reads the energy a fixed number of times, whatever the steps.
  assert traces <= 4

  # One chain without a leading axis, and vmap over seeds and chains.
  one, info = run(jax.random.key(0), params(), y[0], 0.1, 1.0)
  assert aval(one) == aval(y[0])
  assert info.energy.shape == (3,)
  keys = jax.random.split(jax.random.key(0), 3)
  mapped, info = jax.vmap(run, (0, None, 0, None, None))(
    keys, params(), y, 0.1, 1.0
  )
  assert aval(mapped) == aval(y)
  assert info.energy.shape == (3, 3)
  single = run(keys[1], params(), y[1], 0.1, 1.0)[0]
  np.testing.assert_allclose(mapped[1], single, atol=1e-5)
  # Every projection holds what it holds for chains of every rank.
  for before, after in ((y, moved), (y[0], one), (y, mapped)):
    change = after - before
    held = change - PROJECTIONS[projection](change)
    assert float(jnp.abs(held).max()) < 1e-5
    assert float(jnp.abs(change).max()) > 0.01


@pytest.mark.parametrize('kernel', KERNELS)
def test_chains_are_any_leading_axes(kernel):
  y = jax.random.normal(jax.random.key(1), (2, 3, *SHAPE))
  step = KERNELS[kernel](functools.partial(Counted(), params()), 0.1)
  moved, info = dnet_jax.sample(jax.random.key(0), step, y, 2)
  assert aval(moved) == aval(y)
  assert info.energy.shape == (2, 2, 3)
  assert finite(moved)


@pytest.mark.parametrize('kernel', KERNELS)
def test_bfloat16_chains_stay_bfloat16(kernel):
  energy_fn = lambda y: jnp.sum(y.astype(jnp.float32) ** 2, AXES)  # noqa: E731
  step = KERNELS[kernel](energy_fn, 0.1)
  y = jnp.ones((2, *SHAPE), jnp.bfloat16)
  moved, info = dnet_jax.sample(jax.random.key(0), step, y, 2)
  assert aval(moved) == aval(y)
  assert info.energy.dtype == jnp.float32
  assert finite(moved)


TREE_PROJECTIONS = {
  'free': dnet_jax.free(),
  'fixed_voxels': dnet_jax.fixed_voxels({'shape': VISIBLE, 'z': None}),
  'fixed_average': dnet_jax.fixed_average({'shape': 2, 'z': None}),
}


@pytest.mark.parametrize('projection', TREE_PROJECTIONS)
@pytest.mark.parametrize(
  'kernel', ['langevin', pytest.param('mala', marks=pytest.mark.slow)]
)
def test_kernel_with_projection_of_pytrees(kernel, projection):
  """Shapes and latent factors that move together."""
  energy_fn = Counted()

  def joint(params, y):
    shift = y['z'].mean(-1)[..., None, None, None, None]
    return energy_fn(params, y['shape'] - shift) + jnp.sum(y['z'] ** 2, -1)

  project = TREE_PROJECTIONS[projection]

  @jax.jit
  def run(key, params, y, step_size, temperature):
    step = KERNELS[kernel](
      functools.partial(joint, params),
      step_size,
      temperature=temperature,
      project=project,
    )
    return dnet_jax.sample(key, step, y, num_steps=3)

  y = {
    'shape': jax.random.normal(jax.random.key(1), (3, *SHAPE)),
    'z': jax.random.normal(jax.random.key(2), (3, 5)),
  }
  with jax.numpy_dtype_promotion('strict'):
    moved, info = run(jax.random.key(0), params(), y, 0.1, 1.0)
    traces = energy_fn.traces
    run(jax.random.key(1), params(2.0), moved, 0.2, 0.5)
  assert energy_fn.traces == traces <= 4
  assert aval(moved) == aval(y)
  assert {leaf.shape for leaf in info} == {(3, 3)}
  assert finite((moved, info))
  change = jax.tree.map(jnp.subtract, moved, y)
  held = jax.tree.map(jnp.subtract, change, project(change))
  for name in y:
    assert float(jnp.abs(held[name]).max()) < 1e-5
    assert float(jnp.abs(change[name]).max()) > 0.01
  # One chain, and vmap over keys and chains.
  one, _ = run(
    jax.random.key(0),
    params(),
    jax.tree.map(lambda leaf: leaf[0], y),
    0.1,
    1.0,
  )
  assert aval(one) == aval(jax.tree.map(lambda leaf: leaf[0], y))
  keys = jax.random.split(jax.random.key(0), 3)
  mapped, _ = jax.vmap(run, (0, None, 0, None, None))(
    keys, params(), y, 0.1, 1.0
  )
  together, _ = run(keys, params(), y, 0.1, 1.0)
  for name in y:
    np.testing.assert_allclose(mapped[name], together[name], atol=1e-5)


def starts(y):
  memory = dnet_jax.ChainMemory(jnp.stack([y, y + 1]))
  keys = dnet_jax.chain_keys(jax.random.key(5), len(y))
  components = dnet_jax.Components(
    y[0],
    y[1:],
    coordinates=jnp.eye(3, len(y) - 1),
    neighbours=1,
  )

  def noise(keys):
    return dnet_jax.from_noise(keys, SHAPE).position

  return {
    'noise': dnet_jax.from_noise(keys, SHAPE),
    'components': dnet_jax.from_components(keys, components),
    'data': dnet_jax.from_data(y),
    'corrupted': dnet_jax.from_corrupted(y, VISIBLE, 0.0),
    'low_resolution': dnet_jax.from_low_resolution(dnet_jax.downscale(y, 2), 2),
    'coarse': dnet_jax.from_coarse(dnet_jax.downscale(y, 2), 2),
    'memory': dnet_jax.read_chains(memory, 1),
    'restarted': dnet_jax.restart_chains(
      keys, dnet_jax.read_chains(memory, 0), 0.5, noise
    ),
  }


@pytest.mark.parametrize('kernel', KERNELS)
def test_every_start_runs(kernel):
  y = jax.random.normal(jax.random.key(1), (3, *SHAPE))

  @jax.jit
  def run(y, params):
    return {
      name: dnet_jax.run_chains(
        jax.random.key(0),
        functools.partial(Counted(), params),
        start,
        num_steps=2,
        step_size=0.1,
        kernel=KERNELS[kernel],
      )[0]
      for name, start in starts(y).items()
    }

  for name, moved in run(y, params()).items():
    assert aval(moved) == aval(y), name
    assert finite(moved), name


def algorithm(name, energy_fn, kernel):
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(energy_fn), optax.adam(1e-2, b1=0.5)
  )
  sampler = dnet_jax.make_sampler(
    num_steps=3, step_size=0.1, kernel=KERNELS[kernel]
  )
  if name == 'contrastive_divergence':
    return dnet_jax.contrastive_divergence(energy_fn, learner, sampler)
  memory = dnet_jax.persistent(
    dnet_jax.noise_source(SHAPE),
    num_chains=4,
    num_slots=3,
    restart_probability=0.5 if name == 'restarting' else 0.0,
  )
  return dnet_jax.maximum_likelihood(energy_fn, learner, sampler, memory)


def networks(scale=1.0):
  return {'descriptor': params(scale)}


@pytest.mark.parametrize('kernel', KERNELS)
@pytest.mark.parametrize(
  'name', ['maximum_likelihood', 'restarting', 'contrastive_divergence']
)
def test_algorithm_with_kernel(name, kernel):
  energy_fn = Counted()
  init, step, chain_axes = algorithm(name, energy_fn, kernel)
  # The step may take over the memory of its state.
  step = jax.jit(step, donate_argnums=1)
  batch = jax.random.normal(jax.random.key(1), (5, *SHAPE))
  state = init(jax.random.key(0), networks())
  kind, traces = aval(state), None
  for i in range(4):
    before = jax.tree.map(np.array, state)
    schedule = dnet_jax.Schedule(1.0 - i / 8, 1.0 + i)
    state, metrics = step(jax.random.key(i), state, (i + 1) * batch, schedule)
    assert aval(state) == kind
    assert finite((state, metrics))
    assert {metric.shape for metric in metrics.values()} == {()}
    assert int(state.iteration) == i + 1
    traces = energy_fn.traces if traces is None else traces
    assert energy_fn.traces == traces
    changed = jax.tree.map(
      lambda a, b: (a != np.asarray(b)).any(),
      before.learners['descriptor'].params,
      state.learners['descriptor'].params,
    )
    assert all(jax.tree.leaves(changed))
    if name != 'contrastive_divergence':
      # Slot i % 3 moved and the two others did not.
      moved = before.memory.positions != np.asarray(state.memory.positions)
      moved = moved.reshape(3, -1).any(1)
      np.testing.assert_array_equal(moved, np.arange(3) == i % 3)
  # `chain_axes` is a prefix of the state.
  jax.tree.map(
    lambda axis, part: None,
    chain_axes,
    state,
    is_leaf=lambda leaf: leaf is None,
  )
  assert {
    'energy_gap', 'energy_observed', 'energy_synthesised', 'grad_norm',
    'chain_max', 'chain_move',
  } <= set(metrics)  # fmt: skip


def test_algorithm_maps_over_seeds():
  init, step, _ = algorithm('maximum_likelihood', Counted(), 'langevin')
  keys = jax.random.split(jax.random.key(0), 2)
  states = jax.vmap(init, (0, None))(keys, networks())
  batch = jnp.ones((5, *SHAPE))
  mapped, _ = jax.jit(jax.vmap(step, (0, 0, None, None)))(
    keys, states, batch, dnet_jax.Schedule()
  )
  alone, _ = jax.jit(step)(
    keys[1],
    jax.tree.map(lambda leaf: leaf[1], states),
    batch,
    dnet_jax.Schedule(),
  )
  for a, b in zip(jax.tree.leaves(mapped), jax.tree.leaves(alone), strict=True):
    np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5)


def test_metrics_are_of_the_chains():
  init, step, _ = algorithm('contrastive_divergence', Counted(), 'langevin')
  y = jax.random.normal(jax.random.key(1), (5, *SHAPE))
  state = init(jax.random.key(0), networks())
  _, metrics = jax.jit(step)(jax.random.key(2), state, y, dnet_jax.Schedule())
  _, key_chains = jax.random.split(jax.random.key(2))
  keys = dnet_jax.chain_keys(key_chains, 5)
  moved, _ = jax.jit(
    lambda keys, y: dnet_jax.run_chains(
      keys,
      functools.partial(Counted(), params()),
      dnet_jax.from_data(y),
      num_steps=3,
      step_size=0.1,
    )
  )(keys, y)
  np.testing.assert_allclose(
    metrics['chain_max'], np.abs(moved).max(), rtol=1e-5
  )
  np.testing.assert_allclose(
    metrics['chain_move'], np.sqrt(((moved - y) ** 2).mean()), rtol=1e-5
  )


@pytest.mark.parametrize(
  ('given', 'named'),
  [
    ({}, r'\[\]'),
    ({'generator': 1.0}, 'generator'),
    ({'descriptor': 1.0, 'generator': 1.0}, "'descriptor', 'generator'"),
    (params(), "'b', 'w'"),
    (1.0, 'float'),
  ],
)
def test_params_of_other_networks_are_an_error(given, named):
  init, _, _ = algorithm('maximum_likelihood', Counted(), 'langevin')
  match = rf"learns the networks \['descriptor'\], got .*{named}"
  with pytest.raises(ValueError, match=match):
    init(jax.random.key(0), given)


def test_what_was_learned_is_what_learning_begins_with():
  init, step, _ = algorithm('contrastive_divergence', Counted(), 'langevin')
  state = init(jax.random.key(0), networks())
  batch = jnp.ones((5, *SHAPE))
  state, _ = step(jax.random.key(1), state, batch, dnet_jax.Schedule())
  learned = dnet_jax.algorithms.variables(state)
  again = init(jax.random.key(0), learned)
  assert {*learned} == {'descriptor'}
  for a, b in zip(
    jax.tree.leaves(again.learners['descriptor'].params),
    jax.tree.leaves(state.learners['descriptor'].params),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


def test_a_rate_factor_of_0_learns_nothing():
  init, step, _ = algorithm('maximum_likelihood', Counted(), 'langevin')
  state = init(jax.random.key(0), networks())
  batch = jnp.ones((5, *SHAPE))
  still, _ = step(jax.random.key(1), state, batch, dnet_jax.Schedule(1.0, 0.0))
  for a, b in zip(
    jax.tree.leaves(still.learners['descriptor'].params),
    jax.tree.leaves(params()),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  moved = still.memory.positions != state.memory.positions
  assert bool(moved[0].any())


def test_numbers_known_inside_jit_are_looked_at():
  """Arrays that a jitted function closes over: they are no arguments of it."""
  y = jnp.ones((3, *SHAPE))
  energy_fn = functools.partial(Counted(), params())

  def run(step_size, temperature, std, slot):
    def call(y):
      energy = dnet_jax.descriptor_energy(lambda p, y: 0 * y.sum(AXES), std)
      for kernel in KERNELS.values():
        step = kernel(energy_fn, step_size, temperature=temperature)
        y, _ = dnet_jax.sample(jax.random.key(0), step, y, 1)
      memory = dnet_jax.ChainMemory(jnp.stack([y, y]))
      keys = dnet_jax.chain_keys(jax.random.key(0), 3)
      start = dnet_jax.read_chains(memory, slot)
      start = dnet_jax.restart_chains(keys, start, std, lambda keys: y)
      dnet_jax.corruptions.local_average(y, y > 0, std, 0.0)
      return start.position + energy(0.0, y)[:, None, None, None, None]

    return jax.jit(call)(y)

  fine = dict(step_size=0.1, temperature=1.0, std=0.5, slot=1)
  arrays = {name: jnp.asarray(x) for name, x in fine.items()}
  assert finite(run(**arrays))
  np.testing.assert_allclose(run(**arrays), run(**fine), rtol=1e-5)
  bad = dict(step_size=0.0, temperature=-1.0, std=0.0, slot=2)
  for name, x in bad.items():
    with pytest.raises(ValueError, match=f'{name} .*got'):
      run(**arrays | {name: jnp.asarray(x)})
