"""Shapes that stay as they are stored, eight voxels a byte, also on disk.

A training set of 50,000 shapes of 64^3 voxels is 1.6 GB of bits, 13 GB unpacked
and 52 GB as a network sees it. Only the shapes of a mini-batch are read, and
the device unpacks them.
"""

from collections.abc import Iterator
import mmap
from typing import Any

import jax.numpy as jnp
import numpy as np

from data_prep import voxel_file

_SOME = 256  # Shapes that are unpacked at a time, where all of them are read.


class Packed:
  """Some shapes of an array of bits, which are read like an array.

  It is a class because it is used in place of arrays `(n, D, H, W)`.

  Attributes:
    bits: uint8 `(m, D, H, ceil(W / 8))`, of memory or of a file (a memory map).
    order: `(n,)` which of them.
    width: W.
  """

  dtype = np.dtype(np.uint8)
  ndim = 4

  def __init__(self, bits: np.ndarray, order: np.ndarray, width: int):
    self.bits, self.order, self.width = bits, np.asarray(order), width

  @property
  def shape(self) -> tuple[int, ...]:
    """`(n, D, H, W)`."""
    return (len(self.order), *self.bits.shape[1:3], self.width)

  def __len__(self) -> int:
    return len(self.order)

  def __getitem__(self, chosen: Any) -> np.ndarray:
    """Unpacks some shapes, uint8 of 0 and 1; `chosen` is of the first axis."""
    return voxel_file.unpack(self.stored(chosen), self.width)

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    """Unpacks all: eight times the memory."""
    del copy
    return np.asarray(self[:], dtype)

  def mean(self, axis=None, dtype=np.float64):
    """As of an array."""
    return np.asarray(self).mean(axis=axis, dtype=dtype)

  def stored(self, chosen: Any) -> np.ndarray:
    """A copy of the bits of some shapes."""
    some = np.array(self.bits[self.order[chosen]])
    _let_go(self.bits)
    return some


def chunks(voxels: Any) -> Iterator[np.ndarray]:
  """Shapes, packed or not, some at a time."""
  for first in range(0, len(voxels), _SOME):
    yield voxels[first : first + _SOME]


def unpack_on_device(bits: Any, width: int) -> Any:
  """Bits `(n, D, H, ceil(W / 8))` as voxels `(n, D, H, W)`, traced.

  >>> cube = np.eye(12, dtype=np.uint8)[None]
  >>> bool((unpack_on_device(voxel_file.pack(cube), 12) == cube).all())
  True
  """
  shifts = jnp.arange(7, -1, -1, dtype=jnp.uint8)
  voxels = jnp.asarray(bits)[..., None] >> shifts & 1
  return voxels.reshape(*bits.shape[:-1], -1)[..., :width]


def _let_go(array):
  """Takes the pages of a file that were read out of the process's memory.

  The system keeps them for the next reader, where it has room.
  """
  while array is not None and not isinstance(array, mmap.mmap):
    array = getattr(array, 'base', None)
  if array is not None and hasattr(mmap, 'MADV_DONTNEED'):
    array.madvise(mmap.MADV_DONTNEED)
