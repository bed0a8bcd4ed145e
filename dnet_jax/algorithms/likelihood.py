"""Algorithm 1: analysis by synthesis with persistent chains, section 2."""

from collections.abc import Callable

import jax

from dnet_jax import chains
from dnet_jax import learning
from dnet_jax import types
from dnet_jax.algorithms import base


def maximum_likelihood(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  sampler: chains.Sampler,
  memory: chains.Memory,
) -> base.Algorithm:
  """Algorithm 1: maximum likelihood, its gradient by persistent chains.

  With a memory that begins at data it is persistent contrastive divergence,
  section 4.1.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`, see `descriptor_energy`.
    learner: with `contrastive_loss(energy_fn)`.
    sampler: moves the chains, see `make_sampler`.
    memory: keeps them, see `persistent`.

  Returns:
    An algorithm with the network 'descriptor'.

  >>> import optax
  >>> energy_fn = lambda theta, y: ((y - theta)**2).sum((1, 2, 3, 4)) / 2
  >>> algorithm = maximum_likelihood(
  ...   energy_fn,
  ...   learning.make_learner(
  ...     learning.contrastive_loss(energy_fn), optax.sgd(0.1)),
  ...   chains.make_sampler(num_steps=5, step_size=0.1),
  ...   chains.persistent(chains.noise_source((1, 1, 1, 1)), num_chains=2))
  >>> state = algorithm.init(
  ...   jax.random.key(0), {'descriptor': jax.numpy.zeros(())})
  >>> batch = jax.numpy.ones((2, 1, 1, 1, 1))
  >>> state, metrics = algorithm.step(
  ...   jax.random.key(1), state, batch, base.Schedule())
  >>> sorted(metrics)[:3]
  ['chain_max', 'chain_move', 'energy_gap']
  """

  def init(key, params):
    return base.begin({'descriptor': learner}, params, memory.init(key))

  def step(key, state, batch, schedule):
    key_read, key_chains = jax.random.split(key)
    start = memory.read(key_read, state.memory, state.iteration, sampler)
    descriptor, y_syn, metrics = base.analysis_by_synthesis(
      key_chains,
      state.learners['descriptor'],
      batch,
      len(start.position),
      base.begin_at(
        lambda position: start._replace(position=position), start.position
      ),
      schedule,
      energy_fn=energy_fn,
      learner=learner,
      sampler=sampler,
    )
    kept = memory.write(state.memory, state.iteration, y_syn)
    state = base.State({'descriptor': descriptor}, kept, state.iteration + 1)
    return state, metrics

  return base.Algorithm(init, step, base.axes(memory.axes))
