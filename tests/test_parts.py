"""Some chains at a time: the same step, in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dnet_jax
from dnet_jax import corruptions
from dnet_jax import parts
from tests import test_cooperative

CHAINS, BATCH = 12, 8


def network():
  return dnet_jax.Descriptor(
    features=(3,), kernel_sizes=(3,), strides=(2,), init_std=0.1
  )


def arguments(energy_fn, at_once):
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(energy_fn), optax.sgd(1e-2)
  )
  sampler = dnet_jax.make_sampler(num_steps=3, step_size=0.1, at_once=at_once)
  return energy_fn, learner, sampler


def maximum_likelihood(at_once):
  energy_fn = dnet_jax.descriptor_energy(network().apply)
  memory = dnet_jax.persistent(
    dnet_jax.noise_source((8, 8, 8, 1)),
    num_chains=CHAINS,
    num_slots=2,
    restart_probability=0.5,
  )
  return dnet_jax.maximum_likelihood(*arguments(energy_fn, at_once), memory)


def recovery(at_once):
  # Each part has its own hidden voxels.
  return dnet_jax.recovery(
    *arguments(dnet_jax.descriptor_energy(network().apply), at_once),
    corrupt=corruptions.random_voxels(0.5),
  )


def super_resolution(at_once):
  return dnet_jax.super_resolution(
    *arguments(dnet_jax.descriptor_energy(network().apply), at_once), factor=2
  )


def multi_grid(at_once):
  energy_fn, learner, sampler = arguments(
    dnet_jax.descriptor_energy(network().apply), at_once
  )
  return dnet_jax.multi_grid(
    [energy_fn] * 2, [learner] * 2, sampler, factors=(4, 2)
  )


ALGORITHMS = {
  'maximum_likelihood': maximum_likelihood,
  'recovery': recovery,
  'super_resolution': super_resolution,
  'multi_grid': multi_grid,
}


def begun(make, at_once):
  algorithm = make(at_once)
  keys = jax.random.split(jax.random.key(2), 2)
  init = jax.jit(network().init)
  params = {'descriptor': init(keys[0], jnp.zeros((0, 8, 8, 8, 1)))}
  if make is multi_grid:
    params = {
      'grid_1': init(keys[0], jnp.zeros((0, 4, 4, 4, 1))),
      'grid_2': params['descriptor'],
    }
  state = jax.jit(algorithm.init)(jax.random.key(0), params)
  return jax.jit(algorithm.step), state


@pytest.mark.parametrize('name', ALGORITHMS)
def test_some_chains_at_a_time_give_the_same_step(name):
  batch = jax.random.normal(jax.random.key(1), (BATCH, 8, 8, 8, 1))
  results = []
  for at_once in (None, 3):
    step, state = begun(ALGORITHMS[name], at_once)
    for i in range(2):
      state, metrics = step(
        jax.random.key(i), state, batch, dnet_jax.Schedule()
      )
    results.append((state, metrics))
  whole, split = map(jax.tree.leaves, results)
  for a, b in zip(whole, split, strict=True):
    scale = max(float(jnp.abs(a).max()), 1.0)
    np.testing.assert_allclose(b, a, atol=2e-5 * scale)


def test_it_takes_less_memory():
  def buffers(at_once):
    step, state = begun(maximum_likelihood, at_once)
    batch = jnp.zeros((BATCH, 8, 8, 8, 1))
    lowered = step.lower(jax.random.key(0), state, batch, dnet_jax.Schedule())
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert buffers(3) < 0.5 * buffers(None)


def test_parts_are_equal_and_as_few_as_can_be():
  assert parts.number_of_parts((25, 20), None) == 1
  assert parts.number_of_parts((25, 20), 25) == 1
  assert parts.number_of_parts((25, 20), 24) == 5
  with pytest.raises(ValueError, match=r'25 and 24 rows.*at most 10'):
    parts.number_of_parts((25, 24), 10)


def test_batch_statistics_are_not_of_parts():
  with pytest.raises(ValueError, match='at_once must be None, got 3'):
    test_cooperative.algorithm(None, at_once=3)
  learner = dnet_jax.make_learner(
    lambda params, state, y: (params * y.mean(), (state, {})), optax.sgd(1.0)
  )
  state = learner.init({'params': jnp.ones(()), 'batch_stats': jnp.ones(())})
  with pytest.raises(ValueError, match='batch statistics'):
    functools.partial(learner.update, parts=2)(state, jnp.ones(4))
