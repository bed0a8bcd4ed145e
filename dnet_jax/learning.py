"""Learning: losses, learners, and one iteration of analysis by synthesis.

A loss is `loss_fn(params, model_state, *args) -> (loss, (model_state,
metrics))`. A learner is a loss and an optax transformation; its update
averages gradients over a device axis if there is one.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dnet_jax import chains
from dnet_jax import types

# generator_fn(params, model_state, z) -> (y, model_state): z `(*chains, d)`, y
# `(*chains, D, H, W, C)`, model_state the batch statistics, old and new.
GeneratorFn = Callable[
  [types.Params, types.PyTree, types.Array],
  tuple[types.Array, types.PyTree],
]


class LearnerState(NamedTuple):
  """Parameters, other model variables (batch statistics), optimiser state."""

  params: types.Params
  model_state: types.PyTree
  opt_state: types.PyTree


class Learner(NamedTuple):
  """`init(params, model_state)` and `update(state, *args, axis_name=None)`."""

  init: Callable[..., LearnerState]
  update: Callable[..., tuple[LearnerState, dict[str, types.Array]]]


def make_learner(
  loss_fn: types.LossFn, optimizer: optax.GradientTransformation
) -> Learner:
  """A learner: gradient steps of a loss through an optax transformation.

  Args:
    loss_fn: for example `contrastive_loss(energy_fn)`.
    optimizer: for example `optax.adam(1e-3, b1=0.5)`.

  Returns:
    A learner. Its metrics are the loss function's and `grad_norm`, the norm
    of the (averaged) gradient before the transformation.

  >>> loss_fn = lambda theta, s, y: (((theta - y)**2).mean(), (s, {}))
  >>> learner = make_learner(loss_fn, optax.sgd(0.5))
  >>> state, metrics = learner.update(learner.init(0.0), jnp.ones(3))
  >>> state.params.item(), metrics['grad_norm'].item()
  (1.0, 2.0)
  """

  def init(params, model_state=None):
    model_state = {} if model_state is None else model_state
    return LearnerState(params, model_state, optimizer.init(params))

  def update(state, *args, axis_name=None):
    grad_fn = jax.grad(loss_fn, has_aux=True)
    grads, (model_state, metrics) = grad_fn(
      state.params, state.model_state, *args
    )
    if axis_name is not None:
      grads, model_state, metrics = jax.lax.pmean(
        (grads, model_state, metrics), axis_name
      )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = metrics | {'grad_norm': optax.tree.norm(grads)}
    return LearnerState(params, model_state, opt_state), metrics

  return Learner(init, update)


def contrastive_loss(
  energy_fn: Callable[[types.Params, types.Array], types.Array],
) -> types.LossFn:
  """`-V`, V of eq. (14), whose gradient is that of eq. (8) and (13).

  `V = mean E(synthesised) - mean E(observed)`. Ascending V is maximum
  likelihood when the synthesised shapes are samples of the model.

  Args:
    energy_fn: `energy(params, y) -> (*chains,)`.

  Returns:
    `loss_fn(params, model_state, y_obs, y_syn)` with metrics `energy_gap` (V),
    `energy_observed` and `energy_synthesised`.

  >>> loss_fn = contrastive_loss(lambda theta, y: theta * y)
  >>> loss, (_, metrics) = loss_fn(2.0, {}, jnp.ones(3), 3 * jnp.ones(4))
  >>> loss.item(), metrics['energy_gap'].item()
  (-4.0, 4.0)
  """

  def loss_fn(params, model_state, y_obs, y_syn):
    # One evaluation for both: work on the kernels is done once.
    energy = energy_fn(params, jnp.concatenate([y_obs, y_syn]))
    observed = energy[: len(y_obs)].mean()
    synthesised = energy[len(y_obs) :].mean()
    energy_gap = synthesised - observed
    metrics = {
      'energy_gap': energy_gap,
      'energy_observed': observed,
      'energy_synthesised': synthesised,
    }
    return -energy_gap, (model_state, metrics)

  return loss_fn


def teaching_loss(generator_fn: GeneratorFn) -> types.LossFn:
  """`mean ||Y - g(Z)||^2`, eq. (22): MCMC teaching, and ABP's regression.

  Args:
    generator_fn: see `GeneratorFn`.

  Returns:
    `loss_fn(params, model_state, z, y)` with metric `teaching_loss`.

  >>> g = lambda alpha, s, z: (alpha * z[..., None, None, None], s)
  >>> loss_fn = teaching_loss(g)
  >>> loss_fn(2.0, {}, jnp.ones((3, 1)), jnp.zeros((3, 1, 1, 1, 1)))[0].item()
  4.0
  """

  def loss_fn(params, model_state, z, y):
    generated, model_state = generator_fn(params, model_state, z)
    loss = jnp.mean(jnp.sum((y - generated) ** 2, axis=(-4, -3, -2, -1)))
    return loss, (model_state, {'teaching_loss': loss})

  return loss_fn


def classification_loss(
  classifier_fn: Callable[..., tuple[types.Array, types.PyTree]],
  label_smoothing: float = 0.0,
  categories: int | None = None,
) -> types.LossFn:
  """Mean softmax cross-entropy of a classifier, as for that of 6.1.

  Args:
    classifier_fn: `(params, model_state, y, key) -> (logits, model_state)`,
      logits `(..., n, classes)` for labels `(n,)`, the key for what is random
      in learning, such as dropout.
    label_smoothing: in [0, 1): share of the probability of a label that is
      spread evenly over the categories (Szegedy et al. 2016);
      `unsmoothed` takes it back.
    categories: how many classes, the first ones, are smoothed; None is all. A
      label beyond them keeps its probability, and none is spread to it.

  Returns:
    `loss_fn(params, model_state, y, labels, key)` with metrics
    `cross_entropy` and `accuracy`.

  >>> fn = classification_loss(lambda p, s, y, key: (y, s))
  >>> y = jnp.array([[0.0, 9.0]])
  >>> fn({}, {}, y, jnp.array([1]), None)[1][1]['accuracy'].item()
  1.0
  """

  def loss_fn(params, model_state, y, labels, key):
    logits, model_state = classifier_fn(params, model_state, y, key)
    among = jnp.arange(logits.shape[-1]) < (categories or logits.shape[-1])
    smoothing = label_smoothing * among[labels][:, None]
    targets = (1 - smoothing) * jax.nn.one_hot(labels, logits.shape[-1])
    targets += smoothing * among / among.sum()
    loss = optax.softmax_cross_entropy(logits, targets).mean()
    accuracy = (logits.argmax(-1) == labels).mean()
    metrics = {'cross_entropy': loss, 'accuracy': accuracy}
    return loss, (model_state, metrics)

  return loss_fn


def unsmoothed(
  probabilities: types.Array, label_smoothing: float
) -> types.Array:
  """Probabilities of labels, from those of a classifier of smoothed labels.

  Cross-entropy is least where a classifier gives the probabilities of what it
  has learned from: q = (1 - s) p + s / classes of smoothed labels. This is p.

  Args:
    probabilities: q, `(..., classes)`.
    label_smoothing: s, in [0, 1).

  Returns:
    p, those below 0 as 0; rows sum to 1.

  >>> p = jnp.array([0.5, 0.5, 0.0])
  >>> print(unsmoothed(0.9 * p + 0.1 / 3, 0.1).round(3))
  [0.5 0.5 0. ]
  """
  share = label_smoothing / probabilities.shape[-1]
  p = jnp.maximum(probabilities - share, 0)
  return p / p.sum(axis=-1, keepdims=True)


def largest(x: types.Array) -> types.Array:
  """Largest absolute value; inf where one is not finite.

  Not a plain maximum: on CPU, XLA's may lose a NaN.

  >>> largest(jnp.array([1.0, jnp.nan])).item()
  inf
  """
  return jnp.where(jnp.isfinite(x).all(), jnp.abs(x).max(), jnp.inf)


def analysis_by_synthesis(
  key: types.Key,
  state: LearnerState,
  y_obs: types.Array,
  start: chains.Start,
  *,
  energy_fn: Callable[[types.Params, types.Array], types.Array],
  learner: Learner,
  run_chains: Callable[..., tuple[types.Array, types.PyTree]],
  axis_name: str | None = None,
) -> tuple[LearnerState, types.Array, dict[str, types.Array]]:
  """One iteration: mode seeking, eq. (7), then mode shifting, eq. (8).

  Args:
    key: consumed.
    state: of the learner.
    y_obs: observed shapes `(batch, D, H, W, C)`.
    start: where the chains begin, `(chains, D, H, W, C)`.
    energy_fn: `energy(params, y) -> (*chains,)`.
    learner: with a contrastive loss.
    run_chains: `dnet_jax.run_chains` with steps and step size bound.
    axis_name: the device axis over which batch and chains are split, if any.

  Returns:
    The new state, the synthesised shapes and the metrics: the learner's,
    `chain_max` (largest absolute voxel, inf where one is not finite) and
    `chain_move` (root mean square change of a voxel).
  """
  keys = chains.chain_keys(key, len(start.position), axis_name)
  y_syn, _ = run_chains(keys, lambda y: energy_fn(state.params, y), start)
  # Synthesised shapes are data to the learner: nothing flows back through
  # the chains.
  y_syn = jax.lax.stop_gradient(y_syn)
  state, metrics = learner.update(state, y_obs, y_syn, axis_name=axis_name)
  chain_max = largest(y_syn)
  chain_move = jnp.mean((y_syn - start.position) ** 2)
  if axis_name is not None:
    chain_max = jax.lax.pmax(chain_max, axis_name)
    chain_move = jax.lax.pmean(chain_move, axis_name)
  return (
    state,
    y_syn,
    metrics
    | {
      'chain_max': chain_max,
      'chain_move': jnp.sqrt(chain_move),
    },
  )
