"""Contrastive divergence, section 4.1: short chains that start at the data."""

from collections.abc import Callable

from dnet_jax import chains
from dnet_jax import learning
from dnet_jax import starts
from dnet_jax import types
from dnet_jax.algorithms import base


def contrastive_divergence(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  sampler: chains.Sampler,
) -> base.Algorithm:
  """Contrastive divergence, eq. (18).

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    sampler: moves the chains, see `make_sampler`.

  Returns:
    An algorithm with the network 'descriptor'.

  >>> import dnet_jax, jax, optax
  >>> energy_fn = lambda theta, y: ((y - theta) ** 2).sum((1, 2, 3, 4)) / 2
  >>> loss_fn = dnet_jax.contrastive_loss(energy_fn)
  >>> algorithm = contrastive_divergence(
  ...   energy_fn,
  ...   dnet_jax.make_learner(loss_fn, optax.sgd(0.1)),
  ...   dnet_jax.make_sampler(num_steps=1, step_size=0.1))
  >>> state = algorithm.init(
  ...   jax.random.key(0), {'descriptor': jax.numpy.zeros(())})
  >>> batch = jax.numpy.ones((2, 4, 4, 4, 1))
  >>> state, metrics = algorithm.step(
  ...   jax.random.key(1), state, batch, dnet_jax.Schedule())
  >>> int(state.iteration), state.memory is None
  (1, True)
  """
  return base.from_batch(
    energy_fn,
    learner,
    sampler,
    lambda keys, batch, _: (starts.from_data(batch), lambda y_syn: y_syn),
  )
