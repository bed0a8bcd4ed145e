"""Algorithms 4 and 5: recovery of hidden voxels, and super-resolution."""

from collections.abc import Callable

from dnet_jax import chains
from dnet_jax import corruptions
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
  corrupt: corruptions.Corruption,
  hold: bool = True,
  fill: Callable[..., types.Array] | None = None,
  arrays: types.PyTree = None,
  anchor_std: float | types.Array | None = None,
) -> base.Algorithm:
  """Algorithm 4: learns to fill hidden voxels from the visible ones, eq. (16).

  Each shape of the mini-batch is corrupted anew, and a chain fills its hidden
  voxels.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    sampler: moves the chains, see `make_sampler`.
    corrupt: `(keys, y) -> visible`, boolean; see corruptions.py.
    hold: True: visible voxels are held at every step (the text of 6.2);
      False: all move, and the visible ones are put back at the end (the
      authors' code).
    fill: where hidden voxels begin, see `recovery_start`; with `arrays` it
      takes them as a fourth argument.
    arrays: of `fill`, such as principal components; they belong to the state,
      so that large ones are not compiled into a step.
    anchor_std: standard deviation of a Gaussian around the filled shape, which
      keeps chains near it; None: no Gaussian. See `anchored_energy`.

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

  def start_fn(keys, batch, arrays):
    visible = corrupt(keys, batch)
    begin = _with(fill, arrays)
    return starts.recovery_start(batch, visible, hold, begin, anchor_std)

  return base.from_batch(energy_fn, learner, sampler, start_fn, arrays)


def super_resolution(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: learning.Learner,
  sampler: chains.Sampler,
  *,
  factor: int,
  guess: Callable[..., types.Array] | None = None,
  arrays: types.PyTree = None,
  anchor_std: float | types.Array | None = None,
) -> base.Algorithm:
  """Algorithm 5: learns the details that block averages leave open, eq. (16).

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with `contrastive_loss(energy_fn)`.
    sampler: moves the chains, see `make_sampler`.
    factor: ratio d of the sides of the high and the low resolution.
    guess: where chains begin, see `from_low_resolution`; with `arrays` it takes
      them as a second argument.
    arrays: of `guess`, as for `recovery`.
    anchor_std: standard deviation of a Gaussian around the guess, which keeps
      chains near it; None: no Gaussian. See `anchored_energy`.

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

  def start_fn(keys, batch, arrays):
    del keys  # Nothing is random: the low resolution is given.
    low = grids.downscale(batch, factor)
    begin = _with(guess, arrays)
    start = starts.from_low_resolution(low, factor, begin, anchor_std)
    return start, lambda y_syn: y_syn

  return base.from_batch(energy_fn, learner, sampler, start_fn, arrays)


def _with(function, arrays):
  """The function with its last argument given, if there are arrays."""
  if function is None or arrays is None:
    return function
  return lambda *y: function(*y, arrays)
