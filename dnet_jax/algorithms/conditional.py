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

  >>> import dnet_jax, jax, optax
  >>> energy_fn = lambda theta, y: ((y - theta) ** 2).sum((1, 2, 3, 4)) / 2
  >>> loss_fn = dnet_jax.contrastive_loss(energy_fn)
  >>> algorithm = recovery(
  ...   energy_fn,
  ...   dnet_jax.make_learner(loss_fn, optax.sgd(0.1)),
  ...   dnet_jax.make_sampler(num_steps=1, step_size=0.1),
  ...   corrupt=dnet_jax.random_voxels(0.7))
  >>> state = algorithm.init(
  ...   jax.random.key(0), {'descriptor': jax.numpy.zeros(())})
  >>> batch = jax.numpy.ones((2, 4, 4, 4, 1))
  >>> state, metrics = algorithm.step(
  ...   jax.random.key(1), state, batch, dnet_jax.Schedule())
  >>> int(state.iteration), state.memory is None
  (1, True)
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

  >>> import dnet_jax, jax, optax
  >>> energy_fn = lambda theta, y: ((y - theta) ** 2).sum((1, 2, 3, 4)) / 2
  >>> loss_fn = dnet_jax.contrastive_loss(energy_fn)
  >>> algorithm = super_resolution(
  ...   energy_fn,
  ...   dnet_jax.make_learner(loss_fn, optax.sgd(0.1)),
  ...   dnet_jax.make_sampler(num_steps=1, step_size=0.1),
  ...   factor=2)
  >>> state = algorithm.init(
  ...   jax.random.key(0), {'descriptor': jax.numpy.zeros(())})
  >>> batch = jax.numpy.ones((2, 4, 4, 4, 1))
  >>> state, metrics = algorithm.step(
  ...   jax.random.key(1), state, batch, dnet_jax.Schedule())
  >>> int(state.iteration), state.memory is None
  (1, True)
  """

  def start_fn(keys, batch):
    del keys  # Nothing is random: the low resolution is given.
    low = grids.downscale(batch, factor)
    return starts.from_low_resolution(low, factor), lambda y_syn: y_syn

  return base.from_batch(energy_fn, learner, sampler, start_fn)
