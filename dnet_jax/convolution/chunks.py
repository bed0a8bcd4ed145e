"""A chunk of chains at a time: memory is bounded, and the cache is used.

Where `K w` is about as large as the chains that it is applied to, a correlation
and its adjoint in the input use the same `K w`.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from dnet_jax import types
from dnet_jax.convolution.methods import factors_of
from dnet_jax.convolution.methods import Plan

LARGE = 5 * 2**25  # Bytes. Memory should hold a larger K w only once.


def make_room(
  like: types.PyTree, x: types.Array, m: int, axis: int = 0
) -> types.PyTree:
  """Arrays with m entries along `axis`, to be overwritten; made after `x`.

  XLA would allocate plain zeros at the start of the program, and nothing else
  could use their memory until they are overwritten.
  """

  def room(like):
    shape = (*like.shape[:axis], m, *like.shape[axis + 1 :])
    return jnp.full(shape, x.ravel()[0], like.dtype)

  return jax.tree.map(room, like)


def put(
  y: types.PyTree, part: types.PyTree, first: Any, axis: int = 0
) -> types.PyTree:
  """Each array of `y` with `part` written along `axis`, from `first` on."""
  return jax.tree.map(
    lambda y, part: lax.dynamic_update_slice_in_dim(y, part, first, axis),
    y,
    part,
  )


def in_chunks(
  function: Callable[[types.Array], types.PyTree],
  x: types.Array,
  size: int,
  axis: int = 0,
) -> types.PyTree:
  """Applies a function of chains, `(m, ...)`, to `size` of them at a time.

  Args:
    function: maps `(size, ...)` to arrays with these chains along `axis`, each
      chain independently of the others.
    x: `(m, ...)`, at least `size` chains.
    size: chains of a chunk.
    axis: of the chains in what `function` returns.

  Returns:
    `function(x)`.

  >>> in_chunks(lambda x: 2 * x, jnp.arange(5), 2).tolist()
  [0, 2, 4, 6, 8]
  """
  m = len(x)
  if size == m:
    return function(x)

  def some(i, y):
    # The last chunk begins inside the one before: no copy for padding.
    first = jnp.minimum(i * size, m - size)
    part = function(lax.dynamic_slice_in_dim(x, first, size))
    return put(y, part, first, axis)

  y = make_room(jax.eval_shape(function, x[:size]), x, m, axis)
  return lax.fori_loop(0, -(-m // size), some, y)


def shares_kernel(plan: Plan, chains: int, c: int, n: int) -> bool:
  """Whether a correlation and its adjoint in the input use the same K w.

  The adjoint then has chains on the last axis and takes half as long again.
  This pays only where K w is about as large as what it is applied to, or half
  as large and too large to be held twice.
  """
  factors = factors_of(plan)
  kernel = factors.kernel_size(plan, c, n)
  rest = chains * factors.chain_size(plan, c, n)
  return kernel > rest * (0.5 if kernel > LARGE else 0.75)


def chunk_size(
  plan: Plan, chains: int, c: int, n: int, share: bool = False
) -> int:
  """How many chains to transform at once.

  Args:
    plan: the plan.
    chains: all of them.
    c: channels in.
    n: channels out.
    share: the answer of `shares_kernel`.
  """
  factors = factors_of(plan)
  limits = factors.limits
  room = max(factors.kernel_size(plan, c, n) / 2, limits.least)
  room = min(room, limits.most)
  # Where K w is large, the rest has to be small.
  room = room / 2 if share else room
  most = max(limits.fewest, int(room / factors.chain_size(plan, c, n)))
  count = -(-chains // most)
  # A few chunks more, if that makes them equal: padding is work.
  for more in range(count, 1 + 3 * count // 2):
    if chains % more == 0:
      return chains // more
  return -(-chains // count)


def in_chunks_of(
  plan: Plan,
  function: Callable[[types.Array], types.PyTree],
  x: types.Array,
  c: int,
  n: int,
) -> types.PyTree:
  """Applies a function of `(m, D, H, W, channels)` to a chunk at a time."""
  m = len(x)
  share = shares_kernel(plan, m, c, n)
  return in_chunks(function, x, chunk_size(plan, m, c, n, share))


def in_chunks_summed(
  plan: Plan,
  function: Callable[..., tuple[types.PyTree, types.Array]],
  arrays: Sequence[types.Array],
  c: int,
  n: int,
) -> tuple[types.PyTree, types.Array]:
  """Applies a function of several arrays to a chunk of each at a time.

  Its first result has chains first, the second is summed.
  """
  m = len(arrays[0])
  size = chunk_size(plan, m, c, n)
  if size == m:
    return function(*arrays)
  # The last chunk is padded: every function here is linear in each argument.
  count = -(-m // size)
  arrays = [
    jnp.pad(x, ((0, count * size - m),) + ((0, 0),) * 4) for x in arrays
  ]

  def chunk(i):
    # Sliced here: a reshape first would copy arrays that others read as well.
    return (lax.dynamic_slice_in_dim(x, i * size, size) for x in arrays)

  def some(i, carry):
    y, total = carry
    part, w = function(*chunk(i))
    return put(y, part, i * size), total + w

  y, w = jax.eval_shape(lambda: function(*chunk(0)))
  y = make_room(y, arrays[0], count * size)
  y, total = lax.fori_loop(0, count, some, (y, jnp.zeros(w.shape, w.dtype)))
  return jax.tree.map(lambda y: y[:m], y), total
