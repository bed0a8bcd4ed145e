"""Kernels: one step of a Markov chain whose stationary density is exp(-E / T).

A kernel is a value: `state = init(position)`, then
`state, info = step(key, state)`. The state holds what the next step needs and
always has a field `position`; the info is for people to look at.

A position is an array or any pytree of arrays. Chains are leading axes, those
of the energy's result, the same in each array, and are moved independently.
The key is one for all chains, or an array of keys, one for each chain: then a
chain's path depends neither on the chains beside it nor on its device.

For users of blackjax: kernels take energies E = -log p here, not log densities.
`step_size` is the paper's delta-tau of eq. (7), with drift `step_size / 2` and
noise `sqrt(temperature * step_size)`. blackjax's `mala` drifts by its step and
has noise `sqrt(2 * step)`, so its step is half of ours.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math
import operator
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnet_jax import projections
from dnet_jax import types

_FREE = projections.free()


class Kernel(NamedTuple):
  """One Markov chain step: `init(position)` and `step(key, state)`."""

  init: Callable[[types.Position], Any]
  step: Callable[[types.Key, Any], tuple[Any, Any]]


class LangevinState(NamedTuple):
  """Where the chains are."""

  position: types.Position


class LangevinInfo(NamedTuple):
  """Energies `(*chains,)` of the positions before the move."""

  energy: types.Array


class MalaState(NamedTuple):
  """Where the chains are, with the energy and the score there."""

  position: types.Position
  energy: types.Array
  score: types.Position


class MalaInfo(NamedTuple):
  """What a step of MALA did, each `(*chains,)`.

  Fields:
    energy: before the move.
    accepted: whether the proposal was accepted, boolean.
    acceptance_rate: the probability of acceptance (the name is blackjax's): the
      Metropolis-Hastings ratio, at most 1; 0 where the proposal has no finite
      energy. Its mean estimates that of `accepted`, with less noise.
  """

  energy: types.Array
  accepted: types.Array
  acceptance_rate: types.Array


def as_key(key: types.Key) -> types.Key:
  """Turns keys of `jax.random.PRNGKey` into keys of `jax.random.key`.

  Args:
    key: one key or an array of keys: `(*chains,)`, or uint32 `(*chains, 2)` in
      the old style.

  Returns:
    Keys `(*chains,)` that draw the same numbers.

  Raises:
    TypeError: when `key` is not a key or an array of keys.

  >>> as_key(jax.random.split(jax.random.PRNGKey(0), 3)).shape
  (3,)
  """
  dtype = getattr(key, 'dtype', None)
  if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
    return key
  try:
    return jax.random.wrap_key_data(key)
  except (AttributeError, TypeError) as error:
    got = repr(key) if dtype is None else f'{dtype} of shape {key.shape}'
    raise TypeError(
      'key must come from jax.random.key or jax.random.PRNGKey, or be an array '
      f'of such keys; got {got}'
    ) from error


def _energy_and_score(energy_fn, y):
  """`E(y)` of each chain and `-dE/dY`, from one pass back."""

  def total(y):
    energy = energy_fn(y)
    return -jnp.sum(energy), energy

  score, energy = jax.grad(total, has_aux=True)(y)
  for path, leaf in jax.tree_util.tree_leaves_with_path(y):
    if leaf.shape[: energy.ndim] != energy.shape:
      raise ValueError(
        f'energies of shape {energy.shape} do not fit the position'
        f'{jax.tree_util.keystr(path)} of shape {leaf.shape}, which must begin '
        'with the same chain axes'
      )
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


def _noise(key, position):
  """White noise like a position, independent in each of its arrays."""
  leaves, treedef = jax.tree.flatten(position)
  # A single array uses the key itself.
  keys = (
    [key] if len(leaves) == 1 else [fold_in(key, i) for i in range(len(leaves))]
  )
  noise = [
    _per_chain(jax.random.normal, key, leaf.shape, leaf.dtype)
    for key, leaf in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(treedef, noise)


def _move(step_size, temperature, score, noise):
  """`dt / 2 score + sqrt(T dt) noise`, each array in its own precision."""
  return jax.tree.map(
    lambda score, noise: (
      step_size / 2 * score + jnp.sqrt(temperature * step_size) * noise
    ).astype(noise.dtype),
    score,
    noise,
  )


def fold_in(key: types.Key, data: int | types.Array) -> types.Key:
  """`jax.random.fold_in` of one key, or of each key of an array.

  Keys may be of the old style, see `as_key`; the result is of the new one.

  >>> fold_in(jax.random.split(jax.random.key(0), 3), 1).shape
  (3,)
  """

  def fold(key):
    return jax.random.fold_in(key, data)

  key = as_key(key)
  for _ in range(key.ndim):
    fold = jax.vmap(fold)
  return fold(key)


def normal(keys: types.Key, shape: Sequence[int]) -> types.Array:
  """Standard normal numbers, with one key for each chain.

  Args:
    keys: `(chains,)`.
    shape: of one chain.

  Returns:
    `(chains, *shape)`; those of a chain do not depend on the others.

  >>> normal(jax.random.split(jax.random.key(0), 3), (2,)).shape
  (3, 2)
  """
  return jax.vmap(lambda key: jax.random.normal(key, tuple(shape)))(keys)


def _check_step_size(step_size):
  x = types.known(step_size)
  if x is not None and not ((x > 0) & (x < math.inf)).all():
    raise ValueError(f'step_size must be positive and finite, got {step_size}')


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
    energy_fn: `y -> (*chains,)`, of an array or a pytree y.
    step_size: the paper's delta-tau, dt; a number, may be traced.
    temperature: T >= 0; 0 is gradient descent; a number, may be traced.
    project: the directions P in which chains may move; all by default.

  Returns:
    A kernel with `LangevinState` and `LangevinInfo`.

  Raises:
    ValueError: when `step_size` is not positive, `temperature` is negative, or
      one of them is not finite; from the step, when energies, keys and
      positions differ in their chain axes.

  >>> kernel = langevin(lambda y: y**2 / 2, step_size=0.5, temperature=0.0)
  >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.ones(1)))
  >>> state.position.tolist(), info.energy.tolist()
  ([0.75], [0.5])
  """
  _check_step_size(step_size)
  x = types.known(temperature)
  if x is not None and not ((x >= 0) & (x < math.inf)).all():
    raise ValueError(
      f'temperature must be finite and not negative, got {temperature}'
    )

  def step(key, state):
    y = state.position
    energy, score = _energy_and_score(energy_fn, y)
    noise = _noise(as_key(key), y)
    dy = project(_move(step_size, temperature, score, noise))
    y = jax.tree.map(operator.add, y, dy)
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
    energy_fn: `y -> (*chains,)`, of an array or a pytree y.
    step_size: the paper's delta-tau, dt; a number, may be traced.
    temperature: T > 0; a number, may be traced (at a traced 0 no chain moves).
    project: the directions in which chains may move; all by default.

  Returns:
    A kernel with `MalaState` and `MalaInfo`.

  Raises:
    ValueError: when `step_size` or `temperature` is not positive and finite;
      from `init` and the step, when energies, keys and positions differ in
      their chain axes.

  >>> kernel = mala(lambda y: y**2 / 2, step_size=1e-6)
  >>> _, info = kernel.step(jax.random.key(0), kernel.init(jnp.ones(1)))
  >>> info.accepted.tolist()
  [True]
  """
  _check_step_size(step_size)
  x = types.known(temperature)
  if x is not None and not ((x > 0) & (x < math.inf)).all():
    raise ValueError(
      f'mala needs a finite temperature > 0, got {temperature}: at 0 the '
      'acceptance ratio is 0 / 0; use langevin for gradient descent'
    )

  def init(y):
    return MalaState(y, *_energy_and_score(energy_fn, y))

  def log_density(dy, score, num_chain_axes):
    # Of a move dy, up to a constant that both directions share.
    def one(dy, drift):
      axes = tuple(range(num_chain_axes, dy.ndim))
      residual = dy - step_size / 2 * drift
      return -jnp.sum(residual**2, axis=axes) / (2 * temperature * step_size)

    parts = jax.tree.map(one, dy, project(score))
    return functools.reduce(operator.add, jax.tree.leaves(parts))

  def step(key, state):
    key_noise, key_accept = fold_in(key, 0), fold_in(key, 1)
    y, energy, score = state
    noise = _noise(key_noise, y)
    dy = project(_move(step_size, temperature, score, noise))
    proposal = init(jax.tree.map(operator.add, y, dy))
    back = jax.tree.map(operator.neg, dy)
    log_ratio = (
      (energy - proposal.energy) / temperature
      + log_density(back, proposal.score, energy.ndim)
      - log_density(dy, score, energy.ndim)
    )
    # Rejects a proposal without a finite energy, or a move without a density.
    possible = jnp.isfinite(proposal.energy) & ~jnp.isnan(log_ratio)
    log_ratio = jnp.where(possible, log_ratio, -jnp.inf)
    log_uniform = jnp.log(
      _per_chain(jax.random.uniform, key_accept, energy.shape, log_ratio.dtype)
    )
    accepted = log_uniform < log_ratio

    def choose(new, old):
      axes = tuple(range(energy.ndim, new.ndim))
      return jnp.where(jnp.expand_dims(accepted, axes), new, old)

    state = jax.tree.map(choose, proposal, state)
    rate = jnp.exp(jnp.minimum(log_ratio, 0))
    return state, MalaInfo(energy, accepted, rate)

  return Kernel(init, step)
