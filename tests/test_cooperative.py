"""Algorithm 3 against its definition, where its answer is known, on devices.

The file runs itself in a process of its own: how many devices there are is
settled when JAX starts.
"""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dnet_jax
from dnet_jax import convolution
from tests import reference

DEVICES = 4
DIM = 3
P = jax.sharding.PartitionSpec
ROOT = pathlib.Path(__file__).parents[1]
# Compilation is all the time that this takes.
RUNS = (
  ('cooperative', 'pmap'),
  ('cooperative', 'shard_map'),
  ('alternating', 'shard_map'),
  ('classification', 'pmap'),
)
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
  params = jax.jit(descriptor.init)(
    jax.random.key(2), jnp.zeros((0, 4, 4, 4, 1))
  )
  model_state = dict(
    jax.jit(functools.partial(generator.init, train=False))(
      jax.random.key(3), jnp.zeros((0, DIM))
    )
  )
  return params, model_state.pop('params'), model_state


def cooperative(axis_name=None):
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
    latent_dim=DIM,
    num_chains=8,
    num_steps=NUM_STEPS,
    step_size=STEP_SIZE,
    noise_std=0.3,
    axis_name=axis_name,
  )


def alternating(axis_name=None):
  _, generator = networks(axis_name)
  generator_fn = dnet_jax.generator_fn(generator, train=True)
  return dnet_jax.alternating_back_propagation(
    generator_fn,
    dnet_jax.generator_fn(generator, train=False),
    dnet_jax.make_learner(
      dnet_jax.teaching_loss(generator_fn), optax.sgd(RATE)
    ),
    latent_dim=DIM,
    num_chains=12,
    num_slots=2,
    num_steps=3,
    step_size=0.01,
    noise_std=0.5,
    axis_name=axis_name,
  )


def classifier(axis_name=None):
  return dnet_jax.Classifier(
    2,
    features=(3,),
    kernel_sizes=(3,),
    strides=(2,),
    dropout=0.0,  # The masks of devices differ, by design.
    axis_name=axis_name,
  )


def classification(axis_name=None):
  net = classifier(axis_name)
  return dnet_jax.classification(
    dnet_jax.make_learner(
      dnet_jax.classification_loss(dnet_jax.classifier_fn(net)),
      optax.sgd(RATE),
    ),
    axis_name=axis_name,
  )


def observed(num):
  return jax.random.normal(jax.random.key(1), (num, 4, 4, 4, 1))


def direct(patch):
  """XLA's own convolution: the others compile for long, and have tests."""
  patch.setattr(convolution, '_choose', lambda *args: None)


def test_one_step_is_algorithm_3_written_out(monkeypatch):
  direct(monkeypatch)
  params, generator_params, model_state = variables()
  descriptor, generator = networks()
  algorithm = cooperative()
  state = algorithm.init(
    jax.random.key(0), params, generator_params, model_state
  )
  batch, key = observed(5), jax.random.key(4)
  # At temperature 0 the chains' own noise plays no part.
  state, metrics = jax.jit(algorithm.step)(key, state, batch, 0.0)

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
  for found, truth in (
    (state.learner.params, expected),
    (state.generator.params, taught),
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, truth
    )
  for i, (mean, variance) in enumerate(statistics):
    found = state.generator.model_state['batch_stats'][f'BatchNorm_{i}']
    np.testing.assert_allclose(found['mean'], 0.1 * mean, atol=1e-5)
    np.testing.assert_allclose(found['var'], 0.9 + 0.1 * variance, atol=1e-5)
  # Negative control: neither network stood still.
  for found, before in (
    (state.learner.params, params),
    (state.generator.params, generator_params),
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
  algorithm = dnet_jax.cooperative(
    energy_fn,
    dnet_jax.make_learner(
      dnet_jax.contrastive_loss(energy_fn), optax.sgd(rate)
    ),
    generator_fn,
    dnet_jax.make_learner(
      dnet_jax.teaching_loss(generator_fn), optax.sgd(rate)
    ),
    latent_dim=2,
    num_chains=64,
    num_steps=5,
    step_size=0.2,
  )
  batch = s * jax.random.normal(jax.random.key(0), (64, *shape)) + 1.5
  state = algorithm.init(
    jax.random.key(1),
    jnp.zeros(shape),
    {'w': jnp.eye(2), 'b': jnp.zeros(2)},
    None,
  )

  @jax.jit
  def learn(state):
    def step(i, state):
      key = jax.random.fold_in(jax.random.key(2), i)
      return algorithm.step(key, state, batch, 1.0)[0]

    return jax.lax.fori_loop(0, 600, step, state)

  state = learn(state)
  mean = batch.mean(0)
  np.testing.assert_allclose(s**2 * state.learner.params, mean, atol=0.05)
  student = state.generator.params
  np.testing.assert_allclose(student['b'], mean.ravel(), atol=0.05)
  assert float(abs(student['w']).max()) < 0.1


def begin(name):
  params, generator_params, model_state = variables()
  if name == 'cooperative':
    return (params, generator_params, model_state), observed(12)
  if name == 'alternating':
    return (generator_params, model_state), observed(12)
  batch = {'y': observed(12), 'labels': jnp.arange(12) % 2}
  model_state = dict(
    jax.jit(functools.partial(classifier().init, train=False))(
      jax.random.key(2), batch['y']
    )
  )
  return (model_state.pop('params'), model_state), batch


ALGORITHMS = {
  'cooperative': cooperative,
  'alternating': alternating,
  'classification': classification,
}


def run(name, how):
  axis_name = None if how == 'one' else 'devices'
  init, step, chain_axes = ALGORITHMS[name](axis_name)
  arguments, batch = begin(name)
  state = init(jax.random.key(0), *arguments)
  if how == 'one':
    step = jax.jit(step)
  elif how == 'pmap':
    step = jax.pmap(
      step,
      axis_name,
      in_axes=(None, chain_axes, 0, None),
      out_axes=(chain_axes, None),
    )
    batch = jax.tree.map(lambda a: a.reshape(4, 3, *a.shape[1:]), batch)
  else:
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((DEVICES,), ('devices',), axis_types=auto)
    specs = type(chain_axes)(
      *(P() if axis is None else P(None, 'devices') for axis in chain_axes)
    )
    step = jax.jit(
      jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(P(), specs, P('devices'), P()),
        out_specs=(specs, P()),
        check_vma=False,
      )
    )
  for i in range(3):
    state, metrics = step(jax.random.key(i), state, batch, 1.0)
  leaves = jax.tree.leaves((state, metrics))
  return [np.asarray(leaf, np.float64).ravel() for leaf in leaves]


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  folder = tmp_path_factory.mktemp('parallel')
  flag = f'--xla_force_host_platform_device_count={DEVICES}'
  environment = os.environ | {
    'XLA_FLAGS': flag,
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(ROOT),
  }
  subprocess.run(
    [sys.executable, '-W', 'error', __file__, str(folder)],
    env=environment,
    check=True,
  )
  return {path.stem: np.load(path) for path in folder.iterdir()}


@pytest.mark.parametrize(('name', 'how'), RUNS)
def test_four_devices_are_one(results, name, how):
  # Batch statistics too are those of the whole batch.
  one, many = results[f'{name}-one'], results[f'{name}-{how}']
  assert list(one) == list(many)
  for leaf in one:
    scale = max(np.abs(one[leaf]).max(), 1.0)
    np.testing.assert_allclose(many[leaf], one[leaf], atol=5e-5 * scale)


if __name__ == '__main__':
  assert jax.device_count() == DEVICES
  direct(pytest.MonkeyPatch())
  for pair in (*((name, 'one') for name in ALGORITHMS), *RUNS):
    np.savez(pathlib.Path(sys.argv[1]) / '-'.join(pair), *run(*pair))
