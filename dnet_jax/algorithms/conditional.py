"""Algorithms 4 and 5: what is hidden or unresolved, given the rest."""

from collections.abc import Callable
from collections.abc import Sequence

from dnet_jax import chains
from dnet_jax import grids
from dnet_jax import learning
from dnet_jax import starts
from dnet_jax import types
from dnet_jax.algorithms import base


def recovery(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  sampler: chains.Sampler,
  *,
  corrupt: Callable[[types.Key, Sequence[int]], types.Array],
  hold: bool = True,
  fill: Callable[..., types.Array] | None = None,
) -> base.Algorithm:
  """Algorithm 4: learns to fill what is hidden from what is visible, eq. (16).

  Each shape of the mini-batch is corrupted anew, and a chain fills its hidden
  voxels.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    sampler: moves the chains, see `make_sampler`.
    corrupt: `(keys, shape) -> visible`, boolean `(chains, *shape)`; see
      corruptions.py.
    hold: True: visible voxels are held at every step (the text of 6.2);
      False: all move, and the visible ones are put back at the end (the
      authors' code).
    fill: where hidden voxels begin, see `recovery_start`.

  Returns:
    An algorithm with the network 'descriptor'.
  """

  def start_fn(keys, batch):
    visible = corrupt(keys, batch.shape[1:])
    return starts.recovery_start(batch, visible, hold, fill)

  return base.from_batch(energy_fn, learner, sampler, start_fn)


def super_resolution(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  sampler: chains.Sampler,
  *,
  factor: int,
) -> base.Algorithm:
  """Algorithm 5: learns the details that block averages leave open, eq. (16).

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    sampler: moves the chains, see `make_sampler`.
    factor: ratio d of the sides of the high and the low resolution.

  Returns:
    An algorithm with the network 'descriptor'.
  """

  def start_fn(keys, batch):
    del keys  # Nothing is random: the low resolution is given.
    low = grids.downscale(batch, factor)
    return starts.from_low_resolution(low, factor), lambda y_syn: y_syn

  return base.from_batch(energy_fn, learner, sampler, start_fn)
