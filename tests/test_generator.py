"""Eqs. (20) to (22): the generator, its learner, and inference of z."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dnet_jax
from tests import reference

K = 5  # standard errors
FACTORS = (1, 2)
DIM = 5


@functools.cache
def network():
  """A small generator with no parameter or statistic at its first value."""
  net = dnet_jax.Generator(
    features=(3, 1), factors=FACTORS, kernel_size=4, base=(2, 2, 2)
  )
  z = jax.random.normal(jax.random.key(0), (6, DIM))
  # No chain at all: parameters need shapes only, and compile faster so.
  variables = jax.jit(functools.partial(net.init, train=False))(
    jax.random.key(1), z[:0]
  )
  rng = np.random.default_rng(0)
  variables = jax.tree_util.tree_map_with_path(
    lambda path, x: (
      x + jnp.asarray(rng.uniform(0.1, 0.5, x.shape), jnp.float32)
      if 'batch_stats' in str(path)
      else x + jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
    ),
    variables,
  )
  return net, dict(variables), z


def learned(variables):
  return {'params': variables['params']}


@pytest.mark.parametrize(
  ('name', 'side', 'channels'),
  [
    ('paper', 32, (256, 128, 64, 1)),
    ('medium', 32, (128, 64, 32, 1)),
    ('small', 32, (64, 32, 16, 1)),
    ('tiny', 8, (8, 1)),
  ],
)
def test_settings_make_grids_of_that_side(name, side, channels):
  net = dnet_jax.Generator(**dnet_jax.GENERATORS[name])
  z = jax.ShapeDtypeStruct((2, 100), jnp.float32)
  y, variables = jax.eval_shape(
    functools.partial(net.init_with_output, train=False), jax.random.key(0), z
  )
  assert y.shape == (2, side, side, side, 1)
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(variables['params']))
  # Fully connected to 4^3, transposed convolutions 4^3 with their biases, and
  # a scale and a shift for each normalised channel.
  inputs = (channels[0], *channels)
  expected = 101 * 64 * channels[0]
  expected += sum(
    64 * a * b + b for a, b in zip(inputs, channels, strict=False)
  )
  expected += 2 * sum(inputs[:-1])
  assert count == expected


def test_every_generator_setting_is_tested():
  assert {*dnet_jax.GENERATORS} == {'paper', 'medium', 'small', 'tiny'}


@pytest.mark.parametrize('train', [False, True])
def test_forward_pass_and_running_averages_are_the_reference(train):
  net, variables, z = network()
  model_state = {'batch_stats': variables['batch_stats']}
  y, new = jax.jit(dnet_jax.generator_fn(net, train=train))(
    learned(variables), model_state, z
  )
  expected, statistics = reference.generator(
    variables, FACTORS, np.asarray(z), train
  )
  assert y.shape == (6, 4, 4, 4, 1) and y.dtype == jnp.float32
  np.testing.assert_allclose(y, expected, atol=1e-5)
  # Negative control: the two modes differ by far more.
  other, _ = reference.generator(variables, FACTORS, np.asarray(z), not train)
  assert np.abs(expected - other).max() > 0.1
  for i, (mean, variance) in enumerate(statistics):
    old = model_state['batch_stats'][f'BatchNorm_{i}']
    if train:
      mean = 0.9 * np.asarray(old['mean']) + 0.1 * mean
      variance = 0.9 * np.asarray(old['var']) + 0.1 * variance
    else:
      mean, variance = old['mean'], old['var']
    found = new['batch_stats'][f'BatchNorm_{i}']
    np.testing.assert_allclose(found['mean'], mean, atol=1e-5)
    np.testing.assert_allclose(found['var'], variance, rtol=1e-4)


def test_with_running_averages_chains_do_not_interact():
  net, variables, z = network()
  apply = jax.jit(functools.partial(net.apply, variables, train=False))
  y = apply(z)
  np.testing.assert_allclose(apply(z[2]), y[2], atol=1e-6)
  np.testing.assert_allclose(
    apply(z.reshape(2, 3, DIM)), y.reshape(2, 3, 4, 4, 4, 1), atol=1e-6
  )


def test_features_and_factors_must_be_equally_many():
  net = dnet_jax.Generator(features=(2, 1), factors=(2,))
  with pytest.raises(ValueError, match=r'equally long.*\(2,\)'):
    jax.eval_shape(
      functools.partial(net.init, train=False), jax.random.key(0), jnp.ones(3)
    )


def test_the_output_range_maps_tanh_linearly():
  net, variables, z = network()
  y = net.apply(variables, z, train=False)
  mapped = net.clone(output_range=(-0.25, 0.75)).apply(
    variables, z, train=False
  )
  np.testing.assert_allclose(mapped, y / 2 + 0.25, atol=1e-6)


def test_running_averages_converge_to_those_of_the_prior():
  # Then both modes make the same shapes.
  net, variables, _ = network()
  # XLA's own convolution: the others compile for long, and have tests.
  net = net.clone(method='direct')
  generate = jax.jit(dnet_jax.generator_fn(net, train=True))
  z = jax.random.normal(jax.random.key(2), (2048, DIM))
  y_batch, _ = generate(learned(variables), {}, z)
  model_state = {'batch_stats': variables['batch_stats']}
  evaluate = jax.jit(functools.partial(net.apply, train=False))
  before = evaluate(variables, z)
  for i in range(200):
    z_i = jax.random.normal(jax.random.key(10 + i), (256, DIM))
    _, model_state = generate(learned(variables), model_state, z_i)
  after = evaluate({**variables, **model_state}, z)
  first, last = (float(jnp.abs(y - y_batch).max()) for y in (before, after))
  assert last < 0.1 < 0.3 < first


def test_teaching_loss_and_its_gradient_are_eq_22():
  """Against central differences of the reference in float64."""
  net, variables, z = network()
  model_state = {'batch_stats': variables['batch_stats']}
  y = np.random.default_rng(1).uniform(-1, 1, (6, 4, 4, 4, 1))
  loss_fn = dnet_jax.teaching_loss(dnet_jax.generator_fn(net, train=True))
  grads, (_, metrics) = jax.jit(jax.grad(loss_fn, has_aux=True))(
    learned(variables), model_state, z, jnp.asarray(y, jnp.float32)
  )
  params = jax.tree.map(lambda p: np.asarray(p, np.float64), learned(variables))

  def loss(params):
    made, _ = reference.generator(params, FACTORS, z, True)
    return ((y - made) ** 2).sum((1, 2, 3, 4)).mean()

  np.testing.assert_allclose(metrics['teaching_loss'], loss(params), rtol=1e-5)
  rng = np.random.default_rng(2)
  for _ in range(4):
    move = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    ends = [
      loss(jax.tree.map(lambda p, m, h=h: p + h * m, params, move))
      for h in (1e-6, -1e-6)
    ]
    slope = sum(
      np.vdot(g, m)
      for g, m in zip(
        jax.tree.leaves(grads), jax.tree.leaves(move), strict=True
      )
    )
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=2e-3)


# A linear generator, g(z) = W z + b: factor analysis, of which all is known.
SIDES = (3, 2, 2, 1)
SIZE = math.prod(SIDES)


def linear_fn(params, model_state, z):
  y = z @ params['w'] + params['b']
  return y.reshape(*z.shape[:-1], *SIDES), model_state


def linear_params(rng, dim, scale):
  return {
    'w': jnp.asarray(scale * rng.normal(size=(dim, SIZE)), jnp.float32),
    'b': jnp.asarray(rng.normal(size=SIZE), jnp.float32),
  }


@pytest.mark.parametrize('partly', [False, True])
def test_latent_langevin_samples_the_posterior_of_a_linear_generator(partly):
  dim, std, step_size, num_chains = 2, 0.5, 0.03, 4000
  rng = np.random.default_rng(3)
  params = linear_params(rng, dim, 0.6)
  y = rng.normal(size=SIDES)
  visible = rng.random(SIDES) < 0.5 if partly else np.ones(SIDES, bool)
  assert visible.all() != partly
  y_given = jnp.asarray(np.where(visible, y, np.nan), jnp.float32)
  energy_fn = dnet_jax.posterior_energy(
    lambda z: linear_fn(params, {}, z)[0], y_given, std, jnp.asarray(visible)
  )
  keys = dnet_jax.chain_keys(jax.random.key(4), num_chains)
  z, _ = jax.jit(
    lambda keys: dnet_jax.run_chains(
      keys,
      energy_fn,
      dnet_jax.from_noise(keys, (dim,)),
      num_steps=300,
      step_size=step_size,
    )
  )(keys)
  z = np.asarray(z, np.float64)

  seen = visible.ravel()
  w = np.asarray(params['w'], np.float64)[:, seen]
  residual = (y.ravel() - np.asarray(params['b']))[seen]
  precision = np.eye(dim) + w @ w.T / std**2
  mean = np.linalg.solve(precision, w @ residual) / std**2
  # Of eq. (7) with its finite step: (P - dt P^2 / 4)^-1.
  covariance = np.linalg.inv(precision - step_size / 4 * precision @ precision)
  assert np.linalg.eigvalsh(precision).max() * step_size < 2
  errors = np.sqrt(np.diag(covariance) / num_chains)
  assert (np.abs(z.mean(0) - mean) < K * errors).all()
  centred = z - mean
  found = centred.T @ centred / num_chains
  diagonal = np.diag(covariance)
  errors = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / num_chains)
  assert (np.abs(found - covariance) < K * errors).all()
  # Negative control: neither the prior nor the posterior of all voxels.
  assert (np.abs(found - np.eye(dim)) > K * errors).any()
  if partly:
    whole = np.asarray(params['w'], np.float64)
    other = np.linalg.inv(np.eye(dim) + whole @ whole.T / std**2)
    assert (np.abs(found - other) > K * errors).any()


def test_alternating_back_propagation_learns_factor_analysis():
  """The maximum likelihood is known: Tipping and Bishop (1999), eq. 15.

  `W W' = U (L - sigma^2) U'` with the leading principal components U, L.
  """
  dim, std, num = 2, 1.0, 600
  rng = np.random.default_rng(5)
  truth = linear_params(rng, dim, 0.8)
  z = rng.normal(size=(num, dim))
  y, _ = linear_fn(truth, {}, z)
  y = np.asarray(y) + std * rng.normal(size=(num, *SIDES))
  mean = y.reshape(num, SIZE).mean(0)
  centred = y.reshape(num, SIZE) - mean
  _, singular, components = np.linalg.svd(centred, full_matrices=False)
  lengths = singular[:dim] ** 2 / num - std**2
  expected = components[:dim].T * lengths @ components[:dim]

  learner = dnet_jax.make_learner(
    dnet_jax.teaching_loss(linear_fn),
    optax.sgd(optax.cosine_decay_schedule(0.1, 1500, 0.1)),
  )
  algorithm = dnet_jax.alternating_back_propagation(
    linear_fn,
    learner,
    # Without the bias of a finite step, which would shrink W by a tenth.
    dnet_jax.make_sampler(num_steps=5, step_size=0.2, kernel=dnet_jax.mala),
    dnet_jax.persistent(
      dnet_jax.noise_source((dim,)), num_chains=num // 2, num_slots=2
    ),
    noise_std=std,
  )
  state = algorithm.init(
    jax.random.key(6), {'generator': linear_params(rng, dim, 0.1)}
  )
  batches = jnp.asarray(y, jnp.float32).reshape(2, num // 2, *SIDES)

  @jax.jit
  def learn(state):
    def step(i, state):
      key = jax.random.fold_in(jax.random.key(7), i)
      return algorithm.step(key, state, batches[i % 2], dnet_jax.Schedule())[0]

    return jax.lax.fori_loop(0, 1500, step, state)

  def error(params):
    w = np.asarray(params['w'], np.float64)
    return np.linalg.norm(w.T @ w - expected) / np.linalg.norm(expected)

  assert error(state.learners['generator'].params) > 0.9
  state = learn(state)
  params = state.learners['generator'].params
  assert error(params) < 0.05
  np.testing.assert_allclose(params['b'], mean, atol=0.05)
  # And z is what the posterior says of each shape: half of it is unknown
  # otherwise.
  w = np.asarray(params['w'], np.float64)
  precision = np.eye(dim) + w @ w.T / std**2
  z_mean = np.linalg.solve(precision, w @ centred.T).T / std**2
  found = np.asarray(state.memory.positions).reshape(num, dim)
  residual = found - z_mean
  expected = np.trace(np.linalg.inv(precision))
  square = (residual**2).sum(1)
  assert abs(square.mean() - expected) < K * square.std() / num**0.5
