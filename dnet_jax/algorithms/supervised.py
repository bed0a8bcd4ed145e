"""Learning without chains: a classifier of labels, a generator of pairs."""

import jax

from dnet_jax import learning
from dnet_jax.algorithms import base


def classification(
  learner: learning.Learner, *, axis_name: str | None = None
) -> base.Algorithm:
  """Learns a classifier; no chains.

  A mini-batch is `{'y': (batch, D, H, W, C), 'labels': (batch,)}`.

  Args:
    learner: with `classification_loss`.
    axis_name: the device axis over which the batch is split, if any.

  Returns:
    An algorithm with the network 'classifier'.

  >>> import dnet_jax, optax
  >>> classify = lambda w, state, y, key: (y.reshape(len(y), -1) @ w, state)
  >>> loss_fn = dnet_jax.classification_loss(classify)
  >>> algorithm = classification(
  ...   dnet_jax.make_learner(loss_fn, optax.sgd(0.1)))
  >>> state = algorithm.init(
  ...   jax.random.key(0), {'classifier': jax.numpy.zeros((8, 2))})
  >>> batch = {
  ...   'y': jax.numpy.ones((3, 2, 2, 2, 1)),
  ...   'labels': jax.numpy.array([1, 1, 0])}
  >>> state, metrics = algorithm.step(
  ...   jax.random.key(1), state, batch, base.Schedule())
  >>> sorted(metrics)
  ['accuracy', 'cross_entropy', 'grad_norm']
  """

  def init(key, params):
    del key  # Nothing is random beyond the parameters.
    return base.begin({'classifier': learner}, params)

  def step(key, state, batch, schedule):
    if axis_name is not None:
      key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    classifier, metrics = learner.update(
      state.learners['classifier'],
      batch['y'],
      batch['labels'],
      key,
      rate_factor=schedule.rate_factor,
      axis_name=axis_name,
    )
    state = base.State({'classifier': classifier}, None, state.iteration + 1)
    return state, metrics

  return base.Algorithm(init, step, base.axes())


def regression(
  learner: learning.Learner, *, axis_name: str | None = None
) -> base.Algorithm:
  """Learns a generator from pairs of latent factors and shapes; no chains.

  The regression of eq. (22) on pairs that are given. A mini-batch is
  `{'y': (batch, D, H, W, C), 'z': (batch, d)}`.

  Args:
    learner: with `teaching_loss`.
    axis_name: the device axis over which the batch is split, if any.

  Returns:
    An algorithm with the network 'generator'.

  >>> import dnet_jax, optax
  >>> jnp = jax.numpy
  >>> generate = lambda w, state, z: (
  ...   (z @ w).reshape(-1, 2, 2, 2, 1), state)
  >>> learner = dnet_jax.make_learner(
  ...   dnet_jax.teaching_loss(generate), optax.sgd(0.1))
  >>> algorithm = regression(learner)
  >>> state = algorithm.init(
  ...   jax.random.key(0), {'generator': jnp.zeros((3, 8))})
  >>> batch = {'y': jnp.ones((2, 2, 2, 2, 1)), 'z': jnp.eye(3)[:2]}
  >>> state, metrics = algorithm.step(
  ...   jax.random.key(1), state, batch, base.Schedule())
  >>> metrics['teaching_loss'].item()
  8.0
  """

  def init(key, params):
    del key  # Nothing is random beyond the parameters.
    return base.begin({'generator': learner}, params)

  def step(key, state, batch, schedule):
    del key  # Nothing is random beyond the pairs.
    generator, metrics = learner.update(
      state.learners['generator'],
      batch['z'],
      batch['y'],
      rate_factor=schedule.rate_factor,
      axis_name=axis_name,
    )
    state = base.State({'generator': generator}, None, state.iteration + 1)
    return state, metrics

  return base.Algorithm(init, step, base.axes())
