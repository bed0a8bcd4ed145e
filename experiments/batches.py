"""Calls on some rows at a time, to bound memory, and batches made ahead."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from concurrent import futures
import contextlib
from typing import Any

import jax
import numpy as np

SIZE = 50


def map_batches(
  function: Callable[..., Any],
  *arrays: Any,
  size: int = SIZE,
  workers: int = 1,
) -> Any:
  """Calls a function on `size` rows at a time.

  The last call is padded with rows of the first one, so that a jitted function
  compiles only once.

  Args:
    function: from arrays of equally many rows to arrays of as many rows.
    *arrays: `(n, ...)`, keys among them; n at least 1.
    size: rows of a call, at most.
    workers: threads that call it, after the first call, which compiles.

  Returns:
    `function(*arrays)`, as NumPy arrays.

  Raises:
    ValueError: when there are no rows.

  >>> map_batches(lambda x: 2 * x, np.arange(5), size=2).tolist()
  [0, 2, 4, 6, 8]
  """
  n = len(arrays[0])
  if not n:
    raise ValueError('at least one row is needed, got none')

  def call(first):
    rows = np.arange(first, first + min(size, n)) % n
    part = function(*(array[rows] for array in arrays))
    return jax.tree.map(lambda x: np.asarray(x)[: n - first], part)

  parts = [call(0)]
  with futures.ThreadPoolExecutor(workers) as pool:
    parts += pool.map(call, range(size, n, size))
  return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def map_rows(function: Callable[..., Any], rows: Mapping[str, Any]) -> Any:
  """`map_batches` for arguments by name: `function(num_shapes=n, **rows)`.

  Args:
    function: of arrays of equally many rows, and of their number.
    rows: these arrays by the names of their arguments.

  >>> rows = {'x': np.arange(3)}
  >>> map_rows(lambda num_shapes, x: num_shapes * x, rows).tolist()
  [0, 3, 6]
  """

  def some(*arrays):
    given = dict(zip(rows, arrays, strict=True))
    return function(num_shapes=len(arrays[0]), **given)

  return map_batches(some, *rows.values())


@contextlib.contextmanager
def ahead(
  make: Callable[[int, int], Any], end: int
) -> Iterator[Callable[[int, int], Any]]:
  """Yields `make`, with each mini-batch made during the step before it.

  Args:
    make: `(step, rollbacks) -> mini-batch`.
    end: all steps are below it.
  """
  with futures.ThreadPoolExecutor(1, 'batches') as worker:
    waiting = {}

    def take(step, rollbacks):
      made = waiting.pop((step, rollbacks), None)
      # Any other mini-batch is from before a rollback.
      waiting.clear()
      batch = make(step, rollbacks) if made is None else made.result()
      if step + 1 < end:
        after = step + 1, rollbacks
        waiting[after] = worker.submit(make, *after)
      return batch

    yield take
