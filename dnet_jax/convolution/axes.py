"""The axes of a correlation: `y[o] = sum_t x[s o + t - low] w[t]` for each."""

from collections.abc import Sequence
from typing import NamedTuple

from jax import lax
import jax.numpy as jnp

from dnet_jax import types


class Axis(NamedTuple):
  """One axis of a correlation.

  size: of the input.
  taps: of the kernel.
  stride: the step from one output to the next.
  low: padding before the first voxel.
  out: size of the output.
  """

  size: int
  taps: int
  stride: int
  low: int
  out: int


Axes = tuple[Axis, Axis, Axis]


def triple(value: int | Sequence[int], what: str) -> tuple[int, int, int]:
  """Three positive integers, given three or one for all axes.

  Raises:
    ValueError: for anything else; the message names `what`.

  >>> triple(2, 'strides')
  (2, 2, 2)
  """
  value = (value,) * 3 if isinstance(value, int) else tuple(value)
  if len(value) != 3 or min(value) < 1:
    raise ValueError(f'{what} must be 1 or 3 positive integers, got {value}')
  return value


def make_axes(
  grid: Sequence[int],
  taps: Sequence[int],
  strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
) -> Axes:
  """The axes of a correlation of this grid.

  Args:
    grid: sides of the input.
    taps: sides of the kernel.
    strides: three.
    padding: 'SAME', 'VALID' or three pairs (low, high).

  Raises:
    ValueError: when the kernel does not fit into the padded grid, or for a
      padding of another name.

  >>> make_axes((8, 8, 8), (3, 3, 3), (2, 2, 2), 'SAME')[0]
  Axis(size=8, taps=3, stride=2, low=0, out=4)
  """
  if isinstance(padding, str) and padding not in ('SAME', 'VALID'):
    raise ValueError(
      f"padding must be 'SAME', 'VALID' or three pairs (low, high), got "
      f'{padding!r}'
    )
  both_sides = (
    lax.padtype_to_pads(grid, taps, strides, padding)
    if isinstance(padding, str)
    else tuple(padding)
  )
  axes = []
  for size, tap, stride, (low, high) in zip(
    grid, taps, strides, both_sides, strict=True
  ):
    out = (size + low + high - tap) // stride + 1
    if out < 1:
      raise ValueError(
        f'a kernel of sides {tuple(taps)} at padding {padding} does not fit '
        f'into a grid of sides {tuple(grid)}'
      )
    axes.append(Axis(size, tap, stride, low, out))
  depth, height, width = axes
  return depth, height, width


def pads(axis: Axis) -> tuple[int, int]:
  """Padding (low, high) that gives exactly `axis.out` outputs.

  >>> pads(Axis(size=8, taps=3, stride=2, low=0, out=4))
  (0, 1)
  """
  high = (axis.out - 1) * axis.stride + axis.taps - axis.size - axis.low
  return axis.low, high


def phase_taps(axis: Axis) -> int:
  """Taps of the kernel in one phase: every `stride`-th, rounded up."""
  return -(-axis.taps // axis.stride)


def split(
  axes: Axes, x: types.Array, lengths: Sequence[int], lows: Sequence[int]
) -> types.Array:
  """Pads each axis to `stride * length` and splits it into phases.

  Args:
    axes: only their strides matter.
    x: `(D, H, W, ...)`.
    lengths: of one phase of each axis.
    lows: padding before the first entry; a negative number crops.

  Returns:
    `(length, stride, length, stride, length, stride, ...)`.
  """
  rest = x.ndim - 3
  config = [
    (low, axis.stride * n - low - size, 0)
    for axis, n, low, size in zip(axes, lengths, lows, x.shape[:3], strict=True)
  ] + [(0, 0, 0)] * rest
  x = lax.pad(x, jnp.zeros((), x.dtype), config)
  (s0, s1, s2), (n0, n1, n2) = (axis.stride for axis in axes), lengths
  return x.reshape(n0, s0, n1, s1, n2, s2, *x.shape[3:])


def merge(
  axes: Axes,
  x: types.Array,
  lengths: Sequence[int],
  lows: Sequence[int],
  sizes: Sequence[int],
) -> types.Array:
  """The adjoint of `split`, for an input with these `sizes`."""
  x = x.reshape(
    *(axis.stride * n for axis, n in zip(axes, lengths, strict=True)),
    *x.shape[6:],
  )
  config = [
    (-low, size + low - whole, 0)
    for whole, low, size in zip(x.shape[:3], lows, sizes, strict=True)
  ] + [(0, 0, 0)] * (x.ndim - 3)
  return lax.pad(x, jnp.zeros((), x.dtype), config)
