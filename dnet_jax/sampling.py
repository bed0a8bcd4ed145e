"""Sampling: the library's only `lax.scan` over the steps of chains."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dnet_jax import kernels
from dnet_jax import types


def sample(
  key: types.Key,
  kernel: kernels.Kernel,
  position: types.Position,
  num_steps: int,
  *,
  trace_fn: Callable[[Any, Any], types.PyTree] = lambda state, info: info,
) -> tuple[types.Position, types.PyTree]:
  """Runs chains for some steps of a kernel.

  Positions go in and come out, not kernel states: parameters change between
  calls, so an energy kept in a state would be stale. The caller jits.

  Args:
    key: consumed; step i uses `fold_in(key, i)`. One key for all chains, or
      an array of keys, one for each chain; of `jax.random.key` or of
      `jax.random.PRNGKey`.
    kernel: `langevin(...)`, `mala(...)` or one of your own.
    position: where the chains are, an array `(*chains, ...)` or any pytree of
      such arrays.
    num_steps: static; 0 returns `position`.
    trace_fn: `(state, info) -> pytree`, what is kept of each step; the info
      by default.

  Returns:
    The last positions, and the traces stacked along a leading axis of length
    `num_steps`.

  Raises:
    ValueError: when `num_steps` is negative.

  >>> kernel = kernels.langevin(lambda y: y**2 / 2, 0.5, temperature=0.0)
  >>> y, info = sample(jax.random.key(0), kernel, jnp.ones(1), num_steps=2)
  >>> y.tolist(), info.energy.shape
  ([0.5625], (2, 1))
  """
  if num_steps < 0:
    raise ValueError(f'num_steps must not be negative, got {num_steps}')

  def step(state, i):
    state, info = kernel.step(kernels.fold_in(key, i), state)
    return state, trace_fn(state, info)

  state, trace = jax.lax.scan(
    step, kernel.init(position), jnp.arange(num_steps)
  )
  return state.position, trace
