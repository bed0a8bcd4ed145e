"""The small matrices of the transforms, one for each axis.

I and K include the stride: they split the axis into `stride` phases. The
strided correlation is the sum, over phases, of ordinary correlations with
ceil(k / stride) taps. Two families:

* `FOURIER`: the discrete Fourier transform at the smallest size at which only
  padding wraps around, for any number of taps. Complex numbers are pairs of
  reals; the first axis keeps half of its spectrum.
* `WINOGRAD`: Winograd's minimal filtering F(m, r), or Toom-Cook, on tiles of m
  outputs; real, fewer products, and for few taps only: its rounding error
  grows with m + r.
"""

from collections.abc import Callable
from fractions import Fraction
import functools
import math
from typing import NamedTuple

import numpy as np

from dnet_jax.convolution.axes import Axes
from dnet_jax.convolution.axes import Axis
from dnet_jax.convolution.axes import phase_taps
from dnet_jax.convolution.methods import BYTES
from dnet_jax.convolution.methods import FLOPS

# Interpolation points, in the order in which they are taken; small numerators
# and denominators of both signs keep the rounding error low.
_POINTS = {
  n: tuple(map(Fraction, points.split()))
  for n, points in {
    0: '',
    1: '0',
    2: '0 1',
    3: '0 1 -1',
    4: '0 1 -1 1/2',
    5: '0 1 -1 1/2 -2',
  }.items()
}
# Points of a tile: at m + r - 1 of them the relative error of a 3-D product is
# 3e-6 (5), 2e-6 (6), 2e-5 (8). At 8 points it is no slower to split into
# smaller tiles, and errors of 2e-5 flip ReLUs that are near zero: the score of
# the network of 6.1 was then off by 2e-3.
MAX_POINTS = max(_POINTS) + 1


class Family(NamedTuple):
  """A family of transforms of one axis.

  points: `(tile, axis)`: how many frequencies, or points, a tile has.
  matrices: `(tile, axis)`: the three matrices of a tile, A (m, points),
    G (points, taps) and B (points, m + taps - 1), so that
    `y = A [(G w) * (B x)]` is an ordinary correlation of m outputs.
  parts: real numbers for each: 2 where they are complex.
  """

  points: Callable[[int, Axis], int]
  matrices: Callable[[int, Axis], tuple[np.ndarray, np.ndarray, np.ndarray]]
  parts: int


def positions(axis: Axis) -> tuple[int, int]:
  """The positions of the padded phases that hold voxels: first, past last."""
  count = axis.out - 1 + phase_taps(axis)
  first = min(max(axis.low // axis.stride, 0), count - 1)
  past = min(-(-(axis.low + axis.size) // axis.stride), count)
  return first, max(past, first + 1)


def _fourier_points(tile, axis):
  del tile
  # In each phase the outputs sum positions up to `span`, and first ... last
  # hold voxels. On a circle of n, no other position may fall on a voxel.
  n = 1
  past = positions(axis)[1]
  for phase in range(min(axis.stride, axis.taps)):
    span = axis.out - 1 + -(-(axis.taps - phase) // axis.stride)
    first = max(-(-(axis.low - phase) // axis.stride), 0)
    last = min((axis.low + axis.size - 1 - phase) // axis.stride, past - 1)
    if first <= last:
      n = max(n, last + 1, span - first)
  return n


def _fourier(tile, axis):
  n, m, taps = _fourier_points(tile, axis), axis.out, phase_taps(axis)
  omega = np.exp(2j * np.pi / n) ** np.arange(n)
  return (
    omega ** np.arange(m)[:, None] / n,
    omega[:, None] ** np.arange(taps),
    omega[:, None] ** -np.arange(m + taps - 1),
  )


def _winograd_points(tile, axis):
  return tile + phase_taps(axis) - 1


def _winograd(tile, axis):
  """The transpose (in x) of a product of polynomials (Winograd, 1980).

  Evaluates at n - 1 points and at infinity, and interpolates.
  """
  n = _winograd_points(tile, axis)
  points = _POINTS[n - 1]

  def vandermonde(degree):
    rows = [[point**j for j in range(degree)] for point in points]
    rows.append([Fraction(0)] * (degree - 1) + [Fraction(1)])
    return np.array(rows, float)

  a = vandermonde(tile).T
  g = vandermonde(phase_taps(axis))
  b = np.linalg.inv(vandermonde(n)).T
  # Each point may be scaled at will; equal norms lose the fewest bits.
  norms = [np.linalg.norm(x, axis=i) for x, i in ((a, 0), (g, 1), (b, 1))]
  mean = np.prod(norms, axis=0) ** (1 / 3)
  return (
    a * (mean / norms[0]),
    g * (mean / norms[1])[:, None],
    b * (mean / norms[2])[:, None],
  )


FOURIER = Family(_fourier_points, _fourier, 2)
WINOGRAD = Family(_winograd_points, _winograd, 1)


def axis_matrices(
  family: Family, tile: int, axis: Axis
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """I (f, t, position), K (f, tap), O (o, t, f) of one axis, maybe complex."""
  a, g, b = family.matrices(tile, axis)
  m, n = a.shape
  tiles = -(-axis.out // m)
  first, past = positions(axis)
  width = b.shape[1]
  enter = np.zeros((n, tiles, (tiles - 1) * m + width), a.dtype)
  leave = np.zeros((axis.out, tiles, n), a.dtype)
  for t in range(tiles):
    enter[:, t, t * m : t * m + width] = b
  for o in range(axis.out):
    leave[o, o // m] = a[o % m]
  return enter[:, :, first:past], g, leave


class Matrices(NamedTuple):
  """The factors of I, K and O for the three axes, and the sizes inside.

  A complex number is a pair of reals. The pair is the last index of a factor's
  result and the first index of the next factor's argument, so that the parts
  are never moved.

  enter: for each axis `(frequency tile part', part position)`.
  kernel: for each axis `(frequency part', part tap)`.
  leave: for each axis `(part' out, frequency tile part)`.
  whole_kernel: `(frequencies part, taps)` of all axes in one; None where an
    axis at a time is faster.
  frequencies: of each axis.
  tiles: of each axis.
  positions: of one phase that hold voxels, of each axis.
  taps: of one phase of the padded kernel, of each axis.
  parts: 2 for complex numbers.
  """

  enter: tuple[np.ndarray, ...]
  kernel: tuple[np.ndarray, ...]
  leave: tuple[np.ndarray, ...]
  whole_kernel: np.ndarray | None
  frequencies: tuple[int, int, int]
  tiles: tuple[int, int, int]
  positions: tuple[int, int, int]
  taps: tuple[int, int, int]
  parts: int


def _pairs(a: np.ndarray) -> np.ndarray:
  """Complex (...) as real (..., part', part): multiplication of pairs."""
  return np.stack(
    [np.stack([a.real, -a.imag], -1), np.stack([a.imag, a.real], -1)], -2
  )


def _half_spectrum(enter, kernel, leave):
  """Keeps half of the frequencies of an axis: the input is real.

  The other half are their conjugates; `leave` counts these by its weights.
  """
  n = len(enter)
  half = n // 2 + 1
  weight = np.where((2 * np.arange(half)) % n == 0, 1.0, 2.0)
  return enter[:half], kernel[:half], leave[:, :, :half] * weight


class ComplexMatrices(NamedTuple):
  """The factors of I, K and O for the three axes, of `FOURIER`, complex.

  The first axis has half of its spectrum. An adjoint is the plain transpose,
  not conjugated, followed by the real part.

  enter: for each axis `(frequency, position)`.
  kernel: for each axis `(frequency, tap)`.
  leave: for each axis `(frequency, out)`, to be transposed.
  frequencies: of each axis.
  positions: of one phase that hold voxels, of each axis.
  lows: padding before the first of these, of each axis.
  taps: of one phase of the padded kernel, of each axis.
  """

  enter: tuple[np.ndarray, ...]
  kernel: tuple[np.ndarray, ...]
  leave: tuple[np.ndarray, ...]
  frequencies: tuple[int, ...]
  positions: tuple[int, ...]
  lows: tuple[int, ...]
  taps: tuple[int, ...]


@functools.lru_cache(maxsize=256)
def complex_matrices(axes: Axes) -> ComplexMatrices:
  """Builds the matrices in complex128 and rounds them once."""
  first, *rest = (axis_matrices(FOURIER, 0, axis) for axis in axes)
  each = [_half_spectrum(*first), *rest]
  enter = [enter[:, 0] for enter, _, _ in each]
  kernel = [kernel for _, kernel, _ in each]
  leave = [leave[:, 0].T for _, _, leave in each]

  def rounded(arrays):
    return tuple(np.ascontiguousarray(a, dtype=np.complex64) for a in arrays)

  return ComplexMatrices(
    enter=rounded(enter),
    kernel=rounded(kernel),
    leave=rounded(leave),
    frequencies=tuple(len(a) for a in enter),
    positions=tuple(a.shape[1] for a in enter),
    lows=tuple(axis.low - axis.stride * positions(axis)[0] for axis in axes),
    taps=tuple(a.shape[1] for a in kernel),
  )


@functools.lru_cache(maxsize=256)
def make_matrices(family: Family, tile: int, axes: Axes) -> Matrices:
  """Builds the matrices in float64 and rounds them once."""
  each = [axis_matrices(family, tile, axis) for axis in axes]
  enter, kernel, leave = map(list, zip(*each, strict=True))
  is_complex = family.parts == 2
  if is_complex:
    enter[0], kernel[0], leave[0] = _half_spectrum(
      enter[0], kernel[0], leave[0]
    )
    pairs = _pairs
  else:
    pairs = lambda a: a[..., None, None]  # noqa: E731
  # To (f, t, part', part, position), (f, part', part, tap) and
  # (part', o, f, t, part).
  enter = [np.moveaxis(pairs(a), (-2, -1), (2, 3)) for a in enter]
  kernel = [np.moveaxis(pairs(a), (-2, -1), (1, 2)) for a in kernel]
  leave = [pairs(a).transpose(3, 0, 2, 1, 4) for a in leave]
  # Real in, real out.
  enter[0], kernel[0] = enter[0][:, :, :, :1], kernel[0][:, :, :1]
  leave[0] = leave[0][:1]
  if is_complex:
    # The kernel as (re, -im): see `transforms`, which doubles the input.
    kernel[2] = kernel[2] * np.array([1, -1])[:, None, None]

  def flat(arrays, split):
    return tuple(
      np.ascontiguousarray(
        a.reshape(math.prod(a.shape[:split]), -1), dtype=np.float32
      )
      for a in arrays
    )

  frequencies = tuple(a.shape[0] for a in enter)
  taps = tuple(a.shape[3] for a in kernel)
  # For each phase and pair of channels: products, and floats that one axis at a
  # time would write and read in between.
  (f0, f1, f2), (t0, t1, t2) = frequencies, taps
  products = family.parts * f0 * f1 * f2 * t0 * t1 * t2
  moved = 2 * family.parts * f0 * (t1 + f1) * t2
  whole = None
  if 2 * products / FLOPS < 4 * moved / BYTES:
    whole = np.einsum('fat,gbau,hcbv->fghctuv', kernel[0][:, :, 0], *kernel[1:])
    whole = whole.reshape(-1, t0 * t1 * t2).astype(np.float32)

  return Matrices(
    enter=flat(enter, 3),
    kernel=flat(kernel, 2),
    leave=flat(leave, 2),
    whole_kernel=whole,
    frequencies=frequencies,
    tiles=tuple(a.shape[1] for a in enter),
    positions=tuple(a.shape[4] for a in enter),
    taps=taps,
    parts=family.parts,
  )
