"""Losses against eqs. (8) and (14); learners whose answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import dnet_jax
from dnet_jax import learning
from tests import reference

K = 5  # standard errors
STD = 0.5  # s
STRIDES = (2, 2)


@functools.cache
def network():
  net = dnet_jax.Descriptor(
    features=(3, 2), kernel_sizes=(3, 2), strides=STRIDES, init_std=0.3
  )
  y = jax.random.normal(jax.random.key(0), (5, 6, 6, 6, 1))
  params = jax.jit(net.init)(jax.random.key(1), y)
  # Biases of zero leave voxels exactly on the kink of the ReLU.
  rng = np.random.default_rng(2)
  params = jax.tree.map(
    lambda p: np.asarray(p + 0.1 * rng.normal(size=p.shape), np.float32), params
  )
  return net, params, y[:2], y[2:]


def test_energy_gap_is_eq_14_and_its_gradient_eq_13():
  """Against central differences of the reference in float64."""
  net, params, y_obs, y_syn = network()
  energy_fn = dnet_jax.descriptor_energy(net.apply, STD)
  loss_fn = dnet_jax.contrastive_loss(energy_fn)

  def value(params):
    energy = functools.partial(reference.energy, params, STRIDES)
    return energy(y_syn, STD).mean() - energy(y_obs, STD).mean()

  grads, (model_state, metrics) = jax.jit(jax.grad(loss_fn, has_aux=True))(
    params, {'kept': 1.0}, y_obs, y_syn
  )
  assert model_state == {'kept': 1.0}
  params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
  np.testing.assert_allclose(metrics['energy_gap'], value(params), rtol=1e-4)
  np.testing.assert_allclose(
    metrics['energy_synthesised'] - metrics['energy_observed'],
    metrics['energy_gap'],
    rtol=1e-4,
  )
  rng = np.random.default_rng(0)
  for _ in range(4):
    move = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    ends = [
      value(jax.tree.map(lambda p, m, h=h: p + h * m, params, move))
      for h in (1e-6, -1e-6)
    ]
    slope = sum(
      np.vdot(g, m)
      for g, m in zip(
        jax.tree.leaves(grads), jax.tree.leaves(move), strict=True
      )
    )
    # The loss is -V.
    np.testing.assert_allclose(-slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-3)


def test_gradient_is_eq_8_by_hand():
  rng = np.random.default_rng(0)
  w, theta = rng.normal(size=(4, 8)), rng.normal(size=4)
  y_obs, y_syn = (
    rng.normal(size=(3, 2, 2, 2, 1)),
    rng.normal(size=(5, 2, 2, 2, 1)),
  )

  def h(y):
    return np.tanh(y.reshape(len(y), -1) @ w.T)

  def f(theta, y):
    return jnp.tanh(y.reshape(len(y), -1) @ w.T) @ theta

  loss_fn = dnet_jax.contrastive_loss(dnet_jax.descriptor_energy(f, STD))
  arrays = [jnp.asarray(a, jnp.float32) for a in (theta, y_obs, y_syn)]
  grads, _ = jax.grad(loss_fn, has_aux=True)(arrays[0], {}, *arrays[1:])
  # The learner descends the loss: -loss' is L', the ascent of eq. (8).
  expected = h(y_obs).mean(0) - h(y_syn).mean(0)
  np.testing.assert_allclose(-grads, expected, atol=1e-5)


def test_smoothed_labels_by_hand():
  logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
  fn = lambda params, state, y, key: (y, state)  # noqa: E731
  # Three categories, and a class that is none of them.
  loss_fn = dnet_jax.classification_loss(fn, 0.3, categories=3)
  targets = np.array(
    [[0.1, 0.8, 0.1, 0.0], [0.0, 0.0, 0.0, 1.0], [0.8, 0.1, 0.1, 0.0]]
  )
  loss, _ = loss_fn({}, {}, logits, jnp.array([1, 3, 0]), None)
  log_p = np.log(special.softmax(logits.astype(float), axis=-1))
  expected = -(targets * log_p).sum(-1).mean()  # Over both members, too.
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  plain, _ = dnet_jax.classification_loss(fn)(
    {}, {}, logits, jnp.array([1, 3, 0]), None
  )
  expected = -log_p[:, [0, 1, 2], [1, 3, 0]].mean()
  np.testing.assert_allclose(plain, expected, rtol=1e-6)


def test_unsmoothed_is_what_smoothed_labels_came_from():
  p = np.random.default_rng(0).dirichlet(np.ones(5), 20)
  # The probabilities at which the cross-entropy of smoothed labels is least.
  q = p @ (0.8 * np.eye(5) + 0.2 / 5)
  np.testing.assert_allclose(dnet_jax.unsmoothed(q, 0.2), p, atol=1e-6)
  # Below what smoothing gives there is nothing, and it is a distribution.
  q = np.array([[0.97, 0.02, 0.01]])
  p = dnet_jax.unsmoothed(q, 0.1)
  np.testing.assert_allclose(p, [[1, 0, 0]], atol=1e-6)
  np.testing.assert_array_equal(
    dnet_jax.unsmoothed(q, 0.0), q.astype(np.float32)
  )


def test_learner_reports_and_applies_its_gradient():
  loss_fn = lambda theta, state, y: (  # noqa: E731
    ((theta['params'] - y) ** 2).sum() / 2,
    ({'seen': state['seen'] + 1}, {'mean': y.mean()}),
  )
  learner = dnet_jax.make_learner(
    loss_fn, optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5))
  )
  variables = {'params': jnp.zeros(2), 'seen': jnp.zeros(())}
  state = learner.init(variables)
  update = jax.jit(learner.update)
  state, metrics = update(state, jnp.array([3.0, 4.0]))
  np.testing.assert_allclose(state.params['params'], [0.3, 0.4], rtol=1e-6)
  np.testing.assert_allclose(metrics['grad_norm'], 5.0, rtol=1e-6)
  np.testing.assert_allclose(metrics['mean'], 3.5)
  assert float(state.model_state['seen']) == 1
  joined = learning.join_variables(state)
  assert {*joined} == {*variables}
  # A rate factor scales the step, and is traced.
  for factor in (0.5, 0.0, 3.0):
    moved, metrics = update(
      learner.init(variables), jnp.array([3.0, 4.0]), rate_factor=factor
    )
    np.testing.assert_allclose(
      moved.params['params'], [0.3 * factor, 0.4 * factor], rtol=1e-6
    )
    np.testing.assert_allclose(metrics['grad_norm'], 5.0, rtol=1e-6)
  assert update._cache_size() <= 2  # Without and with a factor.


def test_variables_are_split_and_joined():
  for variables in (
    {'params': {'w': 1.0}},
    {'params': {'w': 1.0}, 'batch_stats': {'mean': 2.0}},
    {'theta': 3.0},  # No collection of that name: all is learned.
    4.0,
  ):
    params, model_state = learning.split_variables(variables)
    state = dnet_jax.LearnerState(params, model_state, ())
    assert learning.join_variables(state) == variables
    learned = 'batch_stats' not in str(params)
    assert learned and ('w' not in str(model_state))


def test_nothing_flows_back_through_the_chains():
  """A loss that sees how y_syn came about would have another gradient."""
  energy_fn = lambda theta, y: theta * jnp.sum(y**2, (1, 2, 3, 4))  # noqa: E731
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(energy_fn), optax.sgd(1.0)
  )
  y = jnp.ones((2, 1, 1, 1, 1))

  def updated(theta):
    state, y_syn, _ = dnet_jax.analysis_by_synthesis(
      jax.random.key(0),
      learner.init(theta),
      y,
      len(y),
      dnet_jax.begin_at(dnet_jax.from_data, y),
      dnet_jax.Schedule(),
      energy_fn=energy_fn,
      learner=learner,
      sampler=dnet_jax.make_sampler(num_steps=3, step_size=0.1),
    )
    return y_syn.sum(), state

  assert jax.jit(jax.grad(updated, has_aux=True))(0.5)[0] == 0
  y_syn, state = jax.jit(updated)(0.5)
  del y_syn
  assert np.isfinite(state.params)


# f = <theta, y>: the model is N(s^2 theta, s^2 I), and maximum likelihood finds
# theta = mean / s^2. Everything is linear and Gaussian, so that the spread of
# the learned parameter about it is known as well.

SHAPE = (2, 1, 1, 1)
CHAINS = 400
RATE, STEPS, DT = 0.3, 5, 0.1


def linear_energy(theta, y):
  f = lambda theta, y: jnp.sum(theta * y, (-4, -3, -2, -1))  # noqa: E731
  return dnet_jax.descriptor_energy(f, STD)(theta, y)


def spread(persistent):
  """Standard deviation of theta when stationary, for a voxel.

  The state (theta, mean of chains m): the chains' mean goes to
  a^K m + (1 - a^K) s^2 theta + noise, then theta to theta + rate (mean - m).
  """
  a = 1 - DT / (2 * STD**2)
  keep = a**STEPS
  noise = DT / CHAINS * sum(a ** (2 * i) for i in range(STEPS))
  pull = (1 - keep) * STD**2
  row = np.array([pull, keep if persistent else 0.0])
  matrix = np.array([[1 - RATE * row[0], -RATE * row[1]], row])
  enter = np.array([-RATE, 1.0])
  covariance = np.zeros((2, 2))
  for _ in range(5000):
    covariance = matrix @ covariance @ matrix.T + noise * np.outer(enter, enter)
  return np.sqrt(covariance[0, 0])


@pytest.mark.parametrize(
  'name', ['maximum_likelihood', 'two_slots', 'restarts', 'persistent', 'cd']
)
def test_analysis_by_synthesis_finds_the_sample_mean(name):
  rng = np.random.default_rng(0)
  batch = rng.normal(size=(CHAINS, *SHAPE)) + np.array([0.7, -0.4]).reshape(
    SHAPE
  )
  batch = jnp.asarray(batch, jnp.float32)
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(linear_energy), optax.sgd(RATE)
  )
  sampler = dnet_jax.make_sampler(num_steps=STEPS, step_size=DT)
  if name == 'cd':
    algorithm = dnet_jax.contrastive_divergence(linear_energy, learner, sampler)
  else:
    memory = dnet_jax.persistent(
      dnet_jax.noise_source(SHAPE),
      num_chains=CHAINS,
      num_slots=2 if name == 'two_slots' else 1,
      restart_probability=0.1 if name == 'restarts' else 0.0,
      positions=batch[None] if name == 'persistent' else None,
    )
    algorithm = dnet_jax.maximum_likelihood(
      linear_energy, learner, sampler, memory
    )
  state = algorithm.init(jax.random.key(0), {'descriptor': jnp.zeros(SHAPE)})
  if name == 'persistent':
    np.testing.assert_array_equal(state.memory.positions[0], batch)

  @jax.jit
  def learn(state):
    def step(state, key):
      state, metrics = algorithm.step(key, state, batch, dnet_jax.Schedule())
      return state, (state.learners['descriptor'].params, metrics)

    keys = jax.random.split(jax.random.key(1), 1000)
    return jax.lax.scan(step, state, keys)

  state, (thetas, metrics) = learn(state)
  assert int(state.iteration) == 1000
  known = np.asarray(batch.mean(0), np.float64) / STD**2
  if name in ('persistent', 'maximum_likelihood', 'cd'):
    error = np.abs(np.asarray(thetas[-1]) - known)
    assert (error < K * spread(name != 'cd')).all()
    # A model of another temperature or reference would be elsewhere.
    assert (np.abs(known) > 3 * K * spread(name != 'cd')).all()
  if name == 'restarts':
    # Young chains are pulled short, so theta overshoots; by how much is known
    # too: chains lose p of their memory before each iteration.
    a = (1 - DT / (2 * STD**2)) ** STEPS
    reach = (1 - a) / (1 - 0.9 * a)
    known = known / reach
  late = np.asarray(thetas[500:])
  blocks = late.reshape(10, 50, -1).mean(1)
  error = blocks.std(0, ddof=1) / np.sqrt(10)
  assert (np.abs(blocks.mean(0) - known.ravel()) < K * error).all()
  for name, values in metrics.items():
    assert np.isfinite(values).all(), name


def test_restarts_end_so_that_the_last_chains_are_old():
  def energy_fn(theta, y):
    return ((y - theta) ** 2).sum((1, 2, 3, 4)) / 2

  algorithm = dnet_jax.maximum_likelihood(
    energy_fn,
    dnet_jax.make_learner(dnet_jax.contrastive_loss(energy_fn), optax.sgd(0.0)),
    dnet_jax.make_sampler(num_steps=0, step_size=0.1),
    dnet_jax.persistent(
      dnet_jax.noise_source((1, 1, 1, 1)),
      num_chains=4,
      restart_probability=1.0,
      restart_iterations=2,
    ),
  )
  state = algorithm.init(jax.random.key(0), {'descriptor': jnp.zeros(())})
  step = jax.jit(algorithm.step)
  moved = []
  for i in range(4):
    before = state.memory.positions
    state, _ = step(
      jax.random.key(i),
      state,
      jnp.ones((2, 1, 1, 1, 1)),
      dnet_jax.Schedule(temperature=0.0),
    )
    moved.append(bool((before != state.memory.positions).all()))
  assert moved == [True, True, False, False]
