"""Alternating back-propagation, section 5.0.1: a generator learned alone."""

import jax
import jax.numpy as jnp

from dnet_jax import chains
from dnet_jax import energy
from dnet_jax import learning
from dnet_jax.algorithms import base


def alternating_back_propagation(
  inference_fn: learning.GeneratorFn,
  learner: learning.Learner,
  sampler: chains.Sampler,
  memory: chains.Memory,
  *,
  noise_std: float,
) -> base.Algorithm:
  """Learns a generator alone: infers z from data, then regresses data on z.

  Mini-batch i owns slot i of a memory of latent factors, so shapes have to
  come in the same order in each epoch.

  Args:
    inference_fn: the generator for the posterior of z, see
      `learning.GeneratorFn`. It must use running averages and not batch
      statistics, since chains must not interact.
    learner: with the `teaching_loss` of the generator that uses batch
      statistics.
    sampler: moves the chains in the latent space, see `make_sampler`.
    memory: keeps z of all mini-batches, `(slots, batch, d)`, from the prior
      N(0, I); see `persistent`.
    noise_std: sigma of eq. (20).

  Returns:
    An algorithm with the network 'generator'. Its metrics are `teaching_loss`,
    `grad_norm`, `latent_norm` (root mean square of z, 1 under the prior) and
    `chain_max` (largest absolute z).

  Raises:
    ValueError: when the sampler has `at_once`.

  >>> import dnet_jax, optax
  >>> def generator_fn(params, model_state, z):
  ...   y = (z @ params).reshape(-1, 2, 2, 2, 1)
  ...   return y, model_state
  >>> loss_fn = dnet_jax.teaching_loss(generator_fn)
  >>> algorithm = alternating_back_propagation(
  ...   generator_fn,
  ...   dnet_jax.make_learner(loss_fn, optax.sgd(0.1)),
  ...   dnet_jax.make_sampler(num_steps=1, step_size=0.1),
  ...   dnet_jax.persistent(dnet_jax.noise_source((3,)), num_chains=2),
  ...   noise_std=1.0)
  >>> state = algorithm.init(
  ...   jax.random.key(0), {'generator': jnp.ones((3, 8))})
  >>> state, metrics = algorithm.step(
  ...   jax.random.key(1), state, jnp.ones((2, 2, 2, 2, 1)), base.Schedule())
  >>> state.memory.positions.shape
  (1, 2, 3)
  """
  base.not_in_parts(sampler)

  def init(key, params):
    return base.begin({'generator': learner}, params, memory.init(key))

  def step(key, state, batch, schedule):
    student, axis_name = state.learners['generator'], sampler.axis_name

    def generate(z):
      return inference_fn(student.params, student.model_state, z)[0]

    # Each chain folds in its own number; no chain has this one.
    key_read = jax.random.fold_in(key, 2**32 - 1)
    start = memory.read(key_read, state.memory, state.iteration, sampler)
    z, _ = sampler.run(
      sampler.keys(key, len(start.position)),
      energy.posterior_energy(generate, batch, noise_std),
      start,
      schedule.temperature,
    )
    student, metrics = learner.update(
      student,
      z,
      batch,
      rate_factor=schedule.rate_factor,
      axis_name=axis_name,
    )
    square = learning.average(jnp.mean(z**2), axis_name)
    kept = memory.write(state.memory, state.iteration, z)
    state = base.State({'generator': student}, kept, state.iteration + 1)
    return state, metrics | {
      'chain_max': learning.largest(z, axis_name),
      'latent_norm': jnp.sqrt(square),
    }

  return base.Algorithm(init, step, base.axes(memory.axes))
