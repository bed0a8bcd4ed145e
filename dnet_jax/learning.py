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
    `loss_fn(params, model_state, y_obs, y_syn)` with metrics `value` (V),
    `energy_observed` and `energy_synthesised`.

  >>> loss_fn = contrastive_loss(lambda theta, y: theta * y)
  >>> loss, (_, metrics) = loss_fn(2.0, {}, jnp.ones(3), 3 * jnp.ones(4))
  >>> loss.item(), metrics['value'].item()
  (-4.0, 4.0)
  """

  def loss_fn(params, model_state, y_obs, y_syn):
    # One evaluation for both: work on the kernels is done once.
    energy = energy_fn(params, jnp.concatenate([y_obs, y_syn]))
    observed = energy[: len(y_obs)].mean()
    synthesised = energy[len(y_obs) :].mean()
    value = synthesised - observed
    metrics = {
      'value': value,
      'energy_observed': observed,
      'energy_synthesised': synthesised,
    }
    return -value, (model_state, metrics)

  return loss_fn


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
  # Not a plain maximum: on CPU, XLA's may lose a NaN.
  chain_max = jnp.where(
    jnp.isfinite(y_syn).all(), jnp.abs(y_syn).max(), jnp.inf
  )
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
