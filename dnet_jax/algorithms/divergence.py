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
  """
  return base.from_batch(
    energy_fn,
    learner,
    sampler,
    lambda keys, batch: (starts.from_data(batch), lambda y_syn: y_syn),
  )
