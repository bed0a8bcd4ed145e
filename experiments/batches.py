"""Rows at a time, to bound the memory, and batches ahead of their steps."""

from collections.abc import Callable
from collections.abc import Iterator
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

  The last rows are called together with rows again that were called before, so
  that a compiled function compiles once.

  Args:
    function: of arrays with as many rows each, to arrays with such rows.
    *arrays: `(n, ...)`, keys among them; n at least 1.
    size: rows of a call, at most.
    workers: threads that call it, after the first call, which compiles.

  Returns:
    What `function(*arrays)` is, as NumPy arrays.

  Raises:
    ValueError: when there are no rows.

  >>> map_batches(lambda x: 2 * x, np.arange(5), size=2).tolist()
  [0, 2, 4, 6, 8]
  """
  n = len(arrays[0])
  if not n:
    raise ValueError('there is no shape')

  def call(first):
    rows = np.arange(first, first + min(size, n)) % n
    part = function(*(array[rows] for array in arrays))
    return jax.tree.map(lambda x: np.asarray(x)[: n - first], part)

  parts = [call(0)]
  with futures.ThreadPoolExecutor(workers) as pool:
    parts += pool.map(call, range(size, n, size))
  return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


@contextlib.contextmanager
def ahead(
  make: Callable[[int, int], Any], end: int
) -> Iterator[Callable[[int, int], Any]]:
  """`(step, rollbacks)`: a mini-batch, which was made during the step before.

  Args:
    make: `(step, rollbacks) -> mini-batch`.
    end: no step is this large.
  """
  with futures.ThreadPoolExecutor(1, 'batches') as worker:
    waiting = {}

    def take(step, rollbacks):
      made = waiting.pop((step, rollbacks), None)
      # Others are of before a rollback.
      waiting.clear()
      batch = make(step, rollbacks) if made is None else made.result()
      if step + 1 < end:
        after = step + 1, rollbacks
        waiting[after] = worker.submit(make, *after)
      return batch

    yield take
