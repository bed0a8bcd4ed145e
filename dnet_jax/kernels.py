"""Kernels: one step of a Markov chain whose stationary density is exp(-E / T).

A kernel is a value: `state = init(position)`, then
`state, info = step(key, state)`. The state holds what the next step needs and
always has a field `position`; the info what a person wants to see. Chains are
leading axes and are moved independently. The key is one for all chains, or an
array of keys, one for each chain: then a chain's path does not depend on which
other chains run beside it, nor on which device it runs.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnet_jax import projections
from dnet_jax import types

_FREE = projections.free()


class Kernel(NamedTuple):
  """One Markov chain step: `init(position)` and `step(key, state)`."""

  init: Callable[[types.Array], Any]
  step: Callable[[types.Key, Any], tuple[Any, Any]]


class LangevinState(NamedTuple):
  """Where the chains are."""

  position: types.Array


class LangevinInfo(NamedTuple):
  """Energies `(*chains,)` of the positions before the move."""

  energy: types.Array


class MalaState(NamedTuple):
  """Where the chains are, with the energy and the score there."""

  position: types.Array
  energy: types.Array
  score: types.Array


class MalaInfo(NamedTuple):
  """Energies before the move and whether it was accepted, both `(*chains,)`."""

  energy: types.Array
  accepted: types.Array


def as_key(key):
  """TEMPORARY until the branch `kernels` is merged."""
  return key


def _energy_and_score(energy_fn, y):
  """`E(y)` of each chain and `-dE/dY`, from one pass back."""

  def total(y):
    energy = energy_fn(y)
    return -jnp.sum(energy), energy

  score, energy = jax.grad(total, has_aux=True)(y)
  return energy, score


def _per_chain(draw, key, shape, dtype):
  """Draws with one key for all chains, or with one key for each chain."""
  if key.ndim == 0:
    return draw(key, shape, dtype)
  if key.shape != shape[: key.ndim]:
    raise ValueError(
      f'keys of shape {key.shape} do not fit chains of shape {shape}'
    )
  rest = shape[key.ndim :]

  def one(key):
    return draw(key, rest, dtype)

  for _ in range(key.ndim):
    one = jax.vmap(one)
  return one(key)


def fold_in(key: types.Key, data: int | types.Array) -> types.Key:
  """`jax.random.fold_in` of one key, or of each key of an array.

  >>> fold_in(jax.random.split(jax.random.key(0), 3), 1).shape
  (3,)
  """

  def fold(key):
    return jax.random.fold_in(key, data)

  for _ in range(key.ndim):
    fold = jax.vmap(fold)
  return fold(key)


def _check_step_size(step_size):
  # A traced value cannot be looked at; it is the caller's to check.
  if not isinstance(step_size, jax.core.Tracer) and not step_size > 0:
    raise ValueError(f'step_size must be positive, got {step_size}')


def langevin(
  energy_fn: types.EnergyFn,
  step_size: float | types.Array,
  *,
  temperature: float | types.Array = 1.0,
  project: types.Projection = _FREE,
) -> Kernel:
  """Langevin dynamics, eq. (7) of the paper, at temperature T (section 2.5).

  `Y' = Y + P [-dt / 2 dE/dY + sqrt(T dt) eps]`, eps ~ N(0, I).

  Args:
    energy_fn: `y -> (*chains,)`.
    step_size: the paper's delta-tau, dt; may be traced.
    temperature: T >= 0; 0 is gradient descent; may be traced.
    project: the directions P in which chains may move; all by default.

  Returns:
    A kernel with `LangevinState` and `LangevinInfo`.

  Raises:
    ValueError: when `step_size` is not positive.

  >>> kernel = langevin(lambda y: y**2 / 2, step_size=0.5, temperature=0.0)
  >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.ones(1)))
  >>> state.position.tolist(), info.energy.tolist()
  ([0.75], [0.5])
  """
  _check_step_size(step_size)

  def step(key, state):
    y = state.position
    energy, score = _energy_and_score(energy_fn, y)
    noise = _per_chain(jax.random.normal, key, y.shape, y.dtype)
    dy = step_size / 2 * score + jnp.sqrt(temperature * step_size) * noise
    y = y + project(dy.astype(y.dtype))
    return LangevinState(y), LangevinInfo(energy)

  return Kernel(LangevinState, step)


def mala(
  energy_fn: types.EnergyFn,
  step_size: float | types.Array,
  *,
  temperature: float | types.Array = 1.0,
  project: types.Projection = _FREE,
) -> Kernel:
  """Metropolis-adjusted Langevin: eq. (7) with an accept step (section 2.2).

  Samples exp(-E / T) without the bias of a finite step size, within the
  affine space that `project` leaves to the chains.

  Args:
    energy_fn: `y -> (*chains,)`.
    step_size: the paper's delta-tau; may be traced.
    temperature: T > 0; may be traced (a traced 0 never moves).
    project: the directions in which chains may move; all by default.

  Returns:
    A kernel with `MalaState` and `MalaInfo`.

  Raises:
    ValueError: when `step_size` or `temperature` is not positive.

  >>> kernel = mala(lambda y: y**2 / 2, step_size=1e-6)
  >>> _, info = kernel.step(jax.random.key(0), kernel.init(jnp.ones(1)))
  >>> info.accepted.tolist()
  [True]
  """
  _check_step_size(step_size)
  if not isinstance(temperature, jax.core.Tracer) and not temperature > 0:
    raise ValueError(
      f'mala needs temperature > 0, got {temperature}: at 0 the acceptance '
      'ratio is 0 / 0; use langevin for gradient descent'
    )

  def init(y):
    return MalaState(y, *_energy_and_score(energy_fn, y))

  def log_density(dy, score, axes):
    # Of a move dy, up to a constant that both directions share.
    residual = dy - step_size / 2 * project(score)
    return -jnp.sum(residual**2, axis=axes) / (2 * temperature * step_size)

  def step(key, state):
    key_noise, key_accept = fold_in(key, 0), fold_in(key, 1)
    y, energy, score = state
    axes = tuple(range(energy.ndim, y.ndim))
    noise = _per_chain(jax.random.normal, key_noise, y.shape, y.dtype)
    dy = project(
      (
        step_size / 2 * score + jnp.sqrt(temperature * step_size) * noise
      ).astype(y.dtype)
    )
    proposal = init(y + dy)
    log_ratio = (
      (energy - proposal.energy) / temperature
      + log_density(-dy, proposal.score, axes)
      - log_density(dy, score, axes)
    )
    log_uniform = jnp.log(
      _per_chain(jax.random.uniform, key_accept, energy.shape, log_ratio.dtype)
    )
    # A NaN on either side compares as False: such a proposal is rejected.
    accepted = log_uniform < log_ratio

    def choose(new, old):
      axes = tuple(range(energy.ndim, new.ndim))
      return jnp.where(jnp.expand_dims(accepted, axes), new, old)

    state = jax.tree.map(choose, proposal, state)
    return state, MalaInfo(energy, accepted)

  return Kernel(init, step)
