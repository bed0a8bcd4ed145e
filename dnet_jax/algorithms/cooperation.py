"""Algorithm 3: a descriptor and a generator that teach each other."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dnet_jax import chains
from dnet_jax import learning
from dnet_jax import starts
from dnet_jax import types
from dnet_jax.algorithms import base


def _pairwise(y, axis_name):
  """Mean of ||Y_i - Y_j||^2 over pairs, from the variance of each voxel."""
  count = len(y)
  if axis_name is not None:
    count *= jax.lax.axis_size(axis_name)
  mean, square = learning.average((y.mean(0), (y**2).mean(0)), axis_name)
  return 2 * count / max(count - 1, 1) * jnp.sum(square - mean**2)


def cooperative(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  generator_fn: learning.GeneratorFn,
  generator_learner: learning.Learner,
  sampler: chains.Sampler,
  *,
  latent_dim: int,
  num_chains: int,
  noise_std: float = 0.0,
) -> base.Algorithm:
  """Algorithm 3: a generator starts the chains, and learns where they end.

  The generator's metrics are `teaching_loss`, `generator_grad_norm` and, to
  see a collapse, `distance_generated` beside `distance_observed`: the mean
  squared distance between two generated shapes, and between two of the batch.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    generator_fn: see `learning.GeneratorFn`.
    generator_learner: with `teaching_loss(generator_fn)`, eq. (22).
    sampler: moves the chains, see `make_sampler`.
    latent_dim: d, length of z.
    num_chains: of an iteration, on all devices together.
    noise_std: sigma of eq. (20), of the noise added to generated shapes.

  Returns:
    An algorithm with the networks 'descriptor' and 'generator'.

  Raises:
    ValueError: when the sampler has `at_once`.

  >>> import dnet_jax, optax
  >>> energy_fn = lambda theta, y: ((y - theta) ** 2).sum((1, 2, 3, 4)) / 2
  >>> def generator_fn(params, model_state, z):
  ...   y = (z @ params).reshape(-1, 2, 2, 2, 1)
  ...   return y, model_state
  >>> losses = (
  ...   dnet_jax.contrastive_loss(energy_fn),
  ...   dnet_jax.teaching_loss(generator_fn))
  >>> learners = [dnet_jax.make_learner(x, optax.sgd(0.1)) for x in losses]
  >>> algorithm = cooperative(
  ...   energy_fn,
  ...   learners[0],
  ...   generator_fn,
  ...   learners[1],
  ...   dnet_jax.make_sampler(num_steps=1, step_size=0.1),
  ...   latent_dim=3,
  ...   num_chains=2)
  >>> state = algorithm.init(
  ...   jax.random.key(0),
  ...   {'descriptor': jnp.zeros(()), 'generator': jnp.ones((3, 8))})
  >>> state, metrics = algorithm.step(
  ...   jax.random.key(1), state, jnp.ones((2, 2, 2, 2, 1)), base.Schedule())
  >>> sorted(metrics)[-1]
  'teaching_loss'
  """
  base.not_in_parts(sampler)
  learners = {'descriptor': learner, 'generator': generator_learner}

  def init(key, params):
    del key  # Chains start at generated shapes.
    return base.begin(learners, params)

  def step(key, state, batch, schedule):
    key_z, key_noise, key_chains = jax.random.split(key, 3)
    axis_name = sampler.axis_name
    here = num_chains
    if axis_name is not None:
      here //= jax.lax.axis_size(axis_name)
    student = state.learners['generator']

    z = starts.from_noise(sampler.keys(key_z, here), (latent_dim,)).position
    y_hat, _ = generator_fn(student.params, student.model_state, z)
    noise = starts.from_noise(
      sampler.keys(key_noise, here), y_hat.shape[1:], noise_std
    ).position
    teacher, y_syn, metrics = base.analysis_by_synthesis(
      key_chains,
      state.learners['descriptor'],
      batch,
      here,
      base.begin_at(starts.from_data, y_hat + noise),
      schedule,
      energy_fn=energy_fn,
      learner=learner,
      sampler=sampler,
    )
    student, taught = generator_learner.update(
      student,
      z,
      y_syn,
      rate_factor=schedule.rate_factor,
      axis_name=axis_name,
    )
    metrics |= {
      'teaching_loss': taught['teaching_loss'],
      'generator_grad_norm': taught['grad_norm'],
      'distance_generated': _pairwise(y_hat, axis_name),
      'distance_observed': _pairwise(batch, axis_name),
    }
    states = {'descriptor': teacher, 'generator': student}
    return base.State(states, None, state.iteration + 1), metrics

  return base.Algorithm(init, step, base.axes())
