"""Algorithm 3 against its definition, and where its answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import dnet_jax
from tests import reference

DIM = 3
STEP_SIZE, NUM_STEPS, RATE, STD = 0.1, 2, 1e-2, 0.8


def networks(axis_name=None):
  descriptor = dnet_jax.Descriptor(
    features=(3,), kernel_sizes=(3,), strides=(2,), init_std=0.1
  )
  generator = dnet_jax.Generator(
    features=(1,),
    factors=(2,),
    kernel_size=3,
    base=(2, 2, 2),
    init_std=0.3,
    axis_name=axis_name,
  )
  return descriptor, generator


@functools.cache
def variables():
  descriptor, generator = networks()
  return {
    'descriptor': jax.jit(descriptor.init)(
      jax.random.key(2), jnp.zeros((0, 4, 4, 4, 1))
    ),
    'generator': dict(
      jax.jit(functools.partial(generator.init, train=False))(
        jax.random.key(3), jnp.zeros((0, DIM))
      )
    ),
  }


def algorithm(axis_name=None, at_once=None):
  descriptor, generator = networks(axis_name)
  energy_fn = dnet_jax.descriptor_energy(descriptor.apply, STD)
  generator_fn = dnet_jax.generator_fn(generator, train=True)
  return dnet_jax.cooperative(
    energy_fn,
    dnet_jax.make_learner(
      dnet_jax.contrastive_loss(energy_fn), optax.sgd(RATE)
    ),
    generator_fn,
    dnet_jax.make_learner(
      dnet_jax.teaching_loss(generator_fn), optax.sgd(RATE)
    ),
    dnet_jax.make_sampler(
      num_steps=NUM_STEPS,
      step_size=STEP_SIZE,
      axis_name=axis_name,
      at_once=at_once,
    ),
    latent_dim=DIM,
    num_chains=8,
    noise_std=0.3,
  )


def test_one_step_is_algorithm_3_written_out():
  params = variables()['descriptor']
  generator_params = variables()['generator']['params']
  model_state = {'batch_stats': variables()['generator']['batch_stats']}
  descriptor, generator = networks()
  init, step, _ = algorithm()
  state = init(jax.random.key(0), variables())
  batch = jax.random.normal(jax.random.key(1), (5, 4, 4, 4, 1))
  key = jax.random.key(4)
  # At temperature 0 the chains' own noise plays no part.
  schedule = dnet_jax.Schedule(temperature=0.0)
  state, metrics = jax.jit(step)(key, state, batch, schedule)

  # Line 3: Z ~ N(0, I), Y^ = g(Z) + epsilon.
  key_z, key_noise, _ = jax.random.split(key, 3)
  draw = jax.vmap(
    lambda key, i, shape: jax.random.normal(jax.random.fold_in(key, i), shape),
    (None, 0, None),
  )
  z = draw(key_z, jnp.arange(8), (DIM,))
  epsilon = draw(key_noise, jnp.arange(8), (4, 4, 4, 1))
  made, statistics = reference.generator(
    {'params': generator_params}, (2,), np.asarray(z), True
  )
  y = jnp.asarray(made, jnp.float32) + 0.3 * epsilon

  # Line 4: eq. (7).
  def energy(params, y):
    square = (y**2).sum((1, 2, 3, 4))
    return square / (2 * STD**2) - descriptor.apply(params, y)

  gradient = jax.jit(jax.grad(lambda y: energy(params, y).sum()))
  for _ in range(NUM_STEPS):
    y = y - STEP_SIZE / 2 * gradient(y)

  # Line 5: eq. (8), ascent.
  def mean_f(params, y):
    return descriptor.apply(params, y).mean()

  slope = jax.jit(jax.grad(mean_f))
  expected = jax.tree.map(
    lambda p, a, b: p + RATE * (a - b),
    params,
    slope(params, batch),
    slope(params, y),
  )

  # Line 6: eq. (22).
  def loss(generator_params):
    made, _ = generator.apply(
      {'params': generator_params, **model_state},
      z,
      train=True,
      mutable=['batch_stats'],
    )
    return ((y - made) ** 2).sum() / 8

  value, slope = jax.jit(jax.value_and_grad(loss))(generator_params)
  taught = jax.tree.map(lambda p, d: p - RATE * d, generator_params, slope)
  np.testing.assert_allclose(metrics['teaching_loss'], value, rtol=1e-4)
  teacher, student = (state.learners[n] for n in ('descriptor', 'generator'))
  for found, truth in (
    (teacher.params, expected),
    (student.params['params'], taught),
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, truth
    )
  for i, (mean, variance) in enumerate(statistics):
    found = student.model_state['batch_stats'][f'BatchNorm_{i}']
    np.testing.assert_allclose(found['mean'], 0.1 * mean, atol=1e-5)
    np.testing.assert_allclose(found['var'], 0.9 + 0.1 * variance, atol=1e-5)
  # Negative control: neither network stood still.
  for found, before in (
    (teacher.params, params),
    (student.params['params'], generator_params),
  ):
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), found, before)
    assert max(jax.tree.leaves(moved)) > 1e-3

  for name, shapes in (('generated', made), ('observed', np.asarray(batch))):
    flat = shapes.reshape(len(shapes), -1)
    pairs = [
      ((a - b) ** 2).sum()
      for i, a in enumerate(flat)
      for j, b in enumerate(flat)
      if i != j
    ]
    np.testing.assert_allclose(
      metrics[f'distance_{name}'], np.mean(pairs), rtol=1e-4
    )


def test_linear_descriptor_and_generator_find_the_mean():
  """f = <theta, y>: both networks end at the sample mean.

  p(Y) is then N(s^2 theta, s^2 I), and what g absorbs of it is its mean.
  """
  shape, s = (2, 1, 1, 1), 0.7
  energy_fn = dnet_jax.descriptor_energy(
    lambda theta, y: (y * theta).sum((-4, -3, -2, -1)), s
  )

  def generator_fn(params, model_state, z):
    y = z @ params['w'] + params['b']
    return y.reshape(*z.shape[:-1], *shape), model_state

  rate = optax.cosine_decay_schedule(0.1, 600, 0.01)
  init, algorithm_step, _ = dnet_jax.cooperative(
    energy_fn,
    dnet_jax.make_learner(
      dnet_jax.contrastive_loss(energy_fn), optax.sgd(rate)
    ),
    generator_fn,
    dnet_jax.make_learner(
      dnet_jax.teaching_loss(generator_fn), optax.sgd(rate)
    ),
    dnet_jax.make_sampler(num_steps=5, step_size=0.2),
    latent_dim=2,
    num_chains=64,
  )
  batch = s * jax.random.normal(jax.random.key(0), (64, *shape)) + 1.5
  state = init(
    jax.random.key(1),
    {
      'descriptor': jnp.zeros(shape),
      'generator': {'w': jnp.eye(2), 'b': jnp.zeros(2)},
    },
  )

  @jax.jit
  def learn(state):
    def step(i, state):
      key = jax.random.fold_in(jax.random.key(2), i)
      return algorithm_step(key, state, batch, dnet_jax.Schedule())[0]

    return jax.lax.fori_loop(0, 600, step, state)

  state = learn(state)
  mean = batch.mean(0)
  theta = state.learners['descriptor'].params
  np.testing.assert_allclose(s**2 * theta, mean, atol=0.05)
  student = state.learners['generator'].params
  np.testing.assert_allclose(student['b'], mean.ravel(), atol=0.05)
  assert float(abs(student['w']).max()) < 0.1
