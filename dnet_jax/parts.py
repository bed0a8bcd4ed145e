"""Work on many chains part by part, for a device without memory for all.

A function of chains is given `some`, which takes the rows of the current part
from an array. `some(x)` is x itself where all rows are taken at once.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dnet_jax import types

Some = Callable[[types.Array], types.Array]


def number_of_parts(sizes: Sequence[int], at_once: int | None) -> int:
  """The smallest number of equal parts of at most `at_once` rows each.

  Args:
    sizes: rows of what is split together, such as chains and a mini-batch.
    at_once: rows; None: all.

  Raises:
    ValueError: where there are no such equal parts.

  >>> number_of_parts((24, 12), 10)
  3
  """
  if at_once is None or max(sizes) <= at_once:
    return 1
  for number in range(2, min(sizes) + 1):
    even = all(size % number == 0 for size in sizes)
    if even and max(sizes) // number <= at_once:
      return number
  raise ValueError(
    f'{" and ".join(map(str, sizes))} rows cannot be split into equal parts of '
    f'at most {at_once} rows: they need a larger common divisor'
  )


def _all(x: types.Array) -> types.Array:
  return x


def _part(i: types.Array | int, number: int) -> Some:
  def some(x):
    size = len(x) // number
    return jax.lax.dynamic_slice_in_dim(x, i * size, size)

  return some


def in_parts(
  function: Callable[[Some], tuple[types.PyTree, types.PyTree]], number: int
) -> tuple[types.PyTree, types.PyTree]:
  """Rows of all parts, one after the other, and means of other values.

  Args:
    function: `(some) -> (rows, values)`, of a part.
    number: of parts; one: the function is called as it is.

  >>> x = jnp.arange(4.0)
  >>> rows, mean = in_parts(lambda some: (2 * some(x), some(x).mean()), 2)
  >>> rows.tolist(), mean.item()
  ([0.0, 2.0, 4.0, 6.0], 1.5)
  """
  if number == 1:
    return function(_all)
  rows, values = jax.lax.map(
    lambda i: function(_part(i, number)), jnp.arange(number)
  )
  merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
  return merged, jax.tree.map(lambda x: x.mean(axis=0), values)


def mean_of_parts(
  function: Callable[[Some], types.PyTree], number: int
) -> types.PyTree:
  """The mean over parts of a function; memory holds one part at a time.

  Args:
    function: `(some) -> values`, of a part.
    number: of parts.

  >>> x = jnp.arange(4.0)
  >>> mean_of_parts(lambda some: some(x).mean(), 2).item()
  1.5
  """
  if number == 1:
    return function(_all)

  def add(i: types.Array, total: Any) -> Any:
    values = function(_part(i, number))
    return jax.tree.map(jnp.add, total, values)

  shapes = jax.eval_shape(lambda: function(_part(0, number)))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  total = jax.lax.fori_loop(0, number, add, zeros)
  return jax.tree.map(lambda x: x / number, total)
