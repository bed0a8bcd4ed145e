"""Learning: losses, and learners that lower them.

A loss is `loss_fn(params, model_state, *args) -> (loss, (model_state,
metrics))`. A learner is a loss and an optax transformation; its update
averages gradients over a device axis if there is one.

The variables of a network are its parameters and, in a network with batch
normalisation, its running averages: collections by name as in Flax,
`{'params': ..., 'batch_stats': ...}`. Only 'params' is learned by gradients;
the others are the model state.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dnet_jax import parts as splitting
from dnet_jax import types

# generator_fn(params, model_state, z) -> (y, model_state): z `(*chains, d)`, y
# `(*chains, D, H, W, C)`, model_state the batch statistics, old and new.
GeneratorFn = Callable[
  [types.Params, types.PyTree, types.Array],
  tuple[types.Array, types.PyTree],
]


class LearnerState(NamedTuple):
  """Parameters, model state (batch statistics) and optimiser state."""

  params: types.Params
  model_state: types.PyTree
  opt_state: types.PyTree


class Learner(NamedTuple):
  """A loss and its optimiser, as two pure functions.

  Attributes:
    init: `(variables) -> state`.
    update: `(state, *args, rate_factor=1.0, axis_name=None, parts=1) -> (state,
      metrics)`, the arguments those of the loss. `rate_factor` multiplies the
      update, and so the learning rate; it may be traced. With several `parts`
      of equal length the gradient is the mean of theirs.
  """

  init: Callable[[types.PyTree], LearnerState]
  update: Callable[..., tuple[LearnerState, dict[str, types.Array]]]


def split_variables(
  variables: types.PyTree,
) -> tuple[types.Params, types.PyTree]:
  """What is learned by gradients, and the model state.

  Args:
    variables: collections by name, as Flax's `init` returns them; anything
      without a collection 'params' is learned as a whole.

  Returns:
    Parameters and model state, `{}` where there is none.

  >>> split_variables({'params': 1.0, 'batch_stats': 2.0})
  ({'params': 1.0}, {'batch_stats': 2.0})
  >>> split_variables(3.0)
  (3.0, {})
  """
  if not (isinstance(variables, Mapping) and 'params' in variables):
    return variables, {}
  state = {name: x for name, x in variables.items() if name != 'params'}
  return {'params': variables['params']}, state


def join_variables(state: LearnerState) -> types.PyTree:
  """The variables of a network from the state of its learner.

  >>> join_variables(LearnerState({'params': 1.0}, {'batch_stats': 2.0}, ()))
  {'params': 1.0, 'batch_stats': 2.0}
  """
  if not state.model_state:
    return state.params
  return {**state.params, **state.model_state}


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

  def init(variables):
    params, model_state = split_variables(variables)
    return LearnerState(params, model_state, optimizer.init(params))

  def update(state, *args, rate_factor=1.0, axis_name=None, parts=1):
    if parts > 1 and jax.tree.leaves(state.model_state):
      raise ValueError(
        f'batch statistics need all rows at once: parts must be 1, got {parts}'
      )
    grad_fn = jax.grad(loss_fn, has_aux=True)
    grads, (model_state, metrics) = splitting.mean_of_parts(
      lambda some: grad_fn(state.params, state.model_state, *map(some, args)),
      parts,
    )
    grads, model_state, metrics = average(
      (grads, model_state, metrics), axis_name
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    updates = jax.tree.map(lambda u: (rate_factor * u).astype(u.dtype), updates)
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
    gap = synthesised - observed
    metrics = {
      'energy_gap': gap,
      'energy_observed': observed,
      'energy_synthesised': synthesised,
    }
    return -gap, (model_state, metrics)

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
  """Mean softmax cross-entropy of a classifier, such as that of Tables 1 to 3.

  Args:
    classifier_fn: `(params, model_state, y, key) -> (logits, model_state)`,
      logits `(..., n, classes)` for labels `(n,)`, the key for what is random
      in learning, such as dropout.
    label_smoothing: in [0, 1): share of the probability of a label that is
      spread evenly over the categories (Szegedy et al. 2016);
      `unsmoothed` undoes it.
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
  """Removes the effect of label smoothing from a classifier's probabilities.

  Cross-entropy is smallest where a classifier gives the probabilities of the
  labels that it learned from. For smoothed labels these are
  q = (1 - s) p + s / classes; this returns p.

  Args:
    probabilities: q, `(..., classes)`.
    label_smoothing: s, in [0, 1).

  Returns:
    p, with values below 0 set to 0; rows sum to 1.

  >>> p = jnp.array([0.5, 0.5, 0.0])
  >>> print(unsmoothed(0.9 * p + 0.1 / 3, 0.1).round(3))
  [0.5 0.5 0. ]
  """
  share = label_smoothing / probabilities.shape[-1]
  p = jnp.maximum(probabilities - share, 0)
  return p / p.sum(axis=-1, keepdims=True)


def average(tree: types.PyTree, axis_name: str | None) -> types.PyTree:
  """Means over a device axis, if there is one.

  >>> average({'loss': 1.0}, None)
  {'loss': 1.0}
  """
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def largest(x: types.Array, axis_name: str | None = None) -> types.Array:
  """Largest absolute value on all devices; inf where one is not finite.

  Not a plain maximum: on CPU, XLA's may lose a NaN.

  >>> largest(jnp.array([1.0, jnp.nan])).item()
  inf
  """
  value = jnp.where(jnp.isfinite(x).all(), jnp.abs(x).max(), jnp.inf)
  return value if axis_name is None else jax.lax.pmax(value, axis_name)
