"""Calls of compiled functions on some rows at a time, to bound the memory."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

SIZE = 50


def map_batches(
  function: Callable[..., Any], *arrays: Any, size: int = SIZE
) -> Any:
  """Calls a function on `size` rows at a time.

  The last rows are called together with rows again that were called before, so
  that a compiled function compiles once.

  Args:
    function: of arrays with as many rows each, to arrays with such rows.
    *arrays: `(n, ...)`, keys among them; n at least 1.
    size: rows of a call, at most.

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
  parts = []
  for first in range(0, n, size):
    rows = np.arange(first, first + min(size, n)) % n
    part = function(*(array[rows] for array in arrays))
    parts.append(jax.tree.map(lambda x: np.asarray(x)[: n - first], part))  # noqa: B023
  return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
