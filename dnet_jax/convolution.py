"""Strided 3-D correlation, exact to float32 rounding and fast on each backend.

`correlate` is what deep learning calls a 3-D convolution; `correlate_transpose`
is its adjoint in the input, the "transposed convolution" of generators.

Both are bilinear, and so is every fast algorithm for them:

  y = O [ (I x) * (K w) ]

with linear maps I, K, O that are products of one small matrix for each of the
three axes, and `*` a matrix product over channels for each "frequency". The
stride is taken into I and K: they split the axis into `stride` phases, of which
the strided correlation is the sum of ordinary ones with ceil(k / stride) taps.
Two families of matrices are built here:

* `fourier`: the discrete Fourier transform at the smallest size at which what
  wraps around is padding, for any number of taps. Complex numbers are pairs of
  reals; the first axis keeps half of its spectrum.
* `toom`: Toom-Cook (Winograd's minimal filtering F(m, r)) on tiles of m
  outputs; real, fewer products, and for few taps only: its rounding error
  grows with m + r.

`patches` is the direct algorithm as one matrix product, of each output's voxels
side by side, for few channels and taps, where transforms do not pay. `direct`
is XLA's own convolution. `method=None` picks by a model of the cost on CPU,
from sizes alone, when traced; elsewhere `direct`. (On an accelerator nothing
else has been measured yet.)

The three operations -- correlation, its adjoint in the input, its adjoint in
the kernel -- are each other's derivatives, so reverse-mode differentiation
works to any order and each pass gets the matrix product in the layout that is
fast. A derivative that is not asked for is not computed; of two, what they have
in common is transformed once. Forward-mode differentiation needs
`method='direct'`. `K w` depends on the kernel alone: inside `lax.scan`, XLA
moves it out of the loop, so that all Langevin steps of a learning iteration
share it.

Memory is bounded in three ways: of many chains, some are transformed at a time;
where `K w` is about as large as what it is applied to, a correlation and its
adjoint in the input use the same one; and the adjoint in the kernel leaves the
spectrum a slice at a time.
"""

from collections.abc import Callable
from collections.abc import Sequence
from fractions import Fraction
import functools
import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dnet_jax import types

METHODS = ('direct', 'fourier', 'toom', 'patches')
# Tiles and taps of Toom-Cook: at m + r - 1 points the relative error of a 3-D
# product is 3e-6 (5), 2e-6 (6), 2e-5 (8). At 8 points it is no slower to split
# into smaller tiles, and errors of 2e-5 flip ReLUs that are near zero: the
# score of the network of 6.1 was then off by 2e-3.
_MAX_POINTS = 6
_TILES = (1, 2, 3, 4, 5)
# Least and most bytes for transformed chains, of which a chunk is transformed
# at a time, but not fewer than _FEWEST: each chunk reads all of K w. So there
# is also more room where K w is larger.
_ROOM = 5 * 2**24, 5 * 2**25
_FEWEST = 8
_LARGE = 5 * 2**25  # Bytes of a K w that should not be there twice.
_TURNS = 2  # Of a loop that is there to keep computations apart.
_PATCHES_ROOM = 2**23  # Of `patches`, which has nothing else to read.
# Rates of two cores of a server CPU, by which methods are compared.
_FLOPS, _BYTES = 1e11, 6e9
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
_DIRECT_DIMENSIONS = ('NDHWC', 'DHWIO', 'NDHWC')


class _Axis(NamedTuple):
  """One axis of a correlation: `y[o] = sum_t x[s o + t - low] w[t]`."""

  size: int  # of the input
  taps: int  # of the kernel
  stride: int
  low: int  # padding before the first voxel
  out: int  # size of the output


class _Plan(NamedTuple):
  """A method, its tile (0: one tile, the whole axis) and the three axes."""

  method: str
  tile: int
  axes: tuple[_Axis, _Axis, _Axis]


class _Matrices(NamedTuple):
  """The factors of I, K and O for the three axes, and the sizes inside.

  A complex number is a pair of reals: the last index of what a factor gives,
  the first of what the next one takes, so that parts are never moved.
  """

  enter: tuple[np.ndarray, ...]  # (frequency tile part', part position)
  kernel: tuple[np.ndarray, ...]  # (frequency part', part tap)
  leave: tuple[np.ndarray, ...]  # (part' out, frequency tile part)
  # (frequencies part, taps) of all axes in one, where that is faster.
  whole_kernel: np.ndarray | None
  frequencies: tuple[int, int, int]
  tiles: tuple[int, int, int]
  positions: tuple[int, int, int]  # of one phase that hold voxels
  taps: tuple[int, int, int]  # of one phase of the padded kernel
  parts: int


def _winograd(m: int, r: int) -> tuple[np.ndarray, ...]:
  """Matrices A (m, n), G (n, r), B (n, n) of F(m, r), n = m + r - 1.

  `y = A [(G w) * (B x)]` is the correlation of n inputs with r taps. It is
  the transpose (in x) of a product of polynomials by evaluation at n - 1
  points and infinity, and interpolation (Winograd, 1980).
  """
  n = m + r - 1
  points = _POINTS[n - 1]

  def vandermonde(degree):
    rows = [[point**j for j in range(degree)] for point in points]
    rows.append([Fraction(0)] * (degree - 1) + [Fraction(1)])
    return np.array(rows, float)

  a = vandermonde(m).T
  g = vandermonde(r)
  b = np.linalg.inv(vandermonde(n)).T
  # Each point may be scaled at will; equal norms lose the fewest bits.
  norms = [np.linalg.norm(x, axis=i) for x, i in ((a, 0), (g, 1), (b, 1))]
  mean = np.prod(norms, axis=0) ** (1 / 3)
  return (
    a * (mean / norms[0]),
    g * (mean / norms[1])[:, None],
    b * (mean / norms[2])[:, None],
  )


def _positions(axis: _Axis) -> tuple[int, int]:
  """The positions of the padded phases that hold voxels: first, past last."""
  count = axis.out - 1 + -(-axis.taps // axis.stride)
  first = min(max(axis.low // axis.stride, 0), count - 1)
  past = min(-(-(axis.low + axis.size) // axis.stride), count)
  return first, max(past, first + 1)


def _points(method: str, tile: int, axis: _Axis) -> int:
  """How many frequencies, or points, an axis (of a tile) has."""
  if method == 'toom':
    return tile + -(-axis.taps // axis.stride) - 1
  # In each phase the outputs sum positions up to `span`, and first ... last
  # hold voxels. In a circle of n, none of these may be a voxel and another.
  n = 1
  past = _positions(axis)[1]
  for phase in range(min(axis.stride, axis.taps)):
    span = axis.out - 1 + -(-(axis.taps - phase) // axis.stride)
    first = max(-(-(axis.low - phase) // axis.stride), 0)
    last = min((axis.low + axis.size - 1 - phase) // axis.stride, past - 1)
    if first <= last:
      n = max(n, last + 1, span - first)
  return n


def _axis_matrices(method: str, tile: int, axis: _Axis):
  """I (f, t, position), K (f, tap), O (o, t, f) of one axis, maybe complex."""
  taps = -(-axis.taps // axis.stride)
  m = tile or axis.out
  n = _points(method, tile, axis)
  if method == 'fourier':
    omega = np.exp(2j * np.pi / n) ** np.arange(n)
    a = omega ** np.arange(m)[:, None] / n
    g = omega[:, None] ** np.arange(taps)
    b = omega[:, None] ** -np.arange(m + taps - 1)
  else:
    a, g, b = _winograd(m, taps)
  tiles = -(-axis.out // m)
  first, past = _positions(axis)
  enter = np.zeros((n, tiles, tiles * m + taps - 1), a.dtype)
  leave = np.zeros((axis.out, tiles, n), a.dtype)
  for t in range(tiles):
    enter[:, t, t * m : (t + 1) * m + taps - 1] = b
  for o in range(axis.out):
    leave[o, o // m] = a[o % m]
  return enter[:, :, first:past], g, leave


def _pairs(a: np.ndarray) -> np.ndarray:
  """Complex (...) as real (..., part', part): multiplication of pairs."""
  return np.stack(
    [np.stack([a.real, -a.imag], -1), np.stack([a.imag, a.real], -1)], -2
  )


@functools.lru_cache(maxsize=256)
def _matrices(plan: _Plan) -> _Matrices:
  """Builds the matrices of a plan in float64 and rounds them once."""
  axes = [_axis_matrices(plan.method, plan.tile, a) for a in plan.axes]
  enter, kernel, leave = map(list, zip(*axes, strict=True))
  if plan.method == 'fourier':
    # The input is real: half a spectrum of the first axis tells all, and the
    # other half is counted on the way back.
    n = len(enter[0])
    half = n // 2 + 1
    weight = np.where((2 * np.arange(half)) % n == 0, 1.0, 2.0)
    enter[0], kernel[0] = enter[0][:half], kernel[0][:half]
    leave[0] = leave[0][:, :, :half] * weight
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
  if plan.method == 'fourier':
    # The kernel as (re, -im): see `_double`.
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
  parts = enter[1].shape[2]
  # For each phase and pair of channels: products, and floats that one axis at a
  # time would write and read in between.
  (f0, f1, f2), (t0, t1, t2) = frequencies, taps
  products = parts * f0 * f1 * f2 * t0 * t1 * t2
  moved = 2 * parts * f0 * (t1 + f1) * t2
  whole = None
  if 2 * products / _FLOPS < 4 * moved / _BYTES:
    whole = np.einsum('fat,gbau,hcbv->fghctuv', kernel[0][:, :, 0], *kernel[1:])
    whole = whole.reshape(-1, t0 * t1 * t2).astype(np.float32)

  return _Matrices(
    enter=flat(enter, 3),
    kernel=flat(kernel, 2),
    leave=flat(leave, 2),
    whole_kernel=whole,
    frequencies=frequencies,
    tiles=tuple(a.shape[1] for a in enter),
    positions=tuple(a.shape[4] for a in enter),
    taps=taps,
    parts=parts,
  )


# One matrix product in full float32, also where the backend would round.
_matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def _apply(matrix: np.ndarray, x: types.Array, before: int) -> types.Array:
  """Multiplies one axis: (before, k, rest) -> (before, n, rest), flat."""
  n, k = matrix.shape
  x = x.reshape(before, k, -1)
  if before == 1:
    return _matmul(matrix, x[0])
  # A batch with a copy of the matrix for each is what XLA's CPU product does
  # fastest: a product with one matrix would first transpose x.
  return _matmul(jnp.broadcast_to(matrix, (before, n, k)), x)


def _split(plan, x, lengths, lows):
  """Pads each axis and splits it into phases.

  (D, H, W, ...) -> (n0, phase0, n1, phase1, n2, phase2, ...).
  """
  rest = x.ndim - 3
  config = [
    (low, a.stride * n - low - size, 0)
    for a, n, low, size in zip(
      plan.axes, lengths, lows, x.shape[:3], strict=True
    )
  ] + [(0, 0, 0)] * rest
  x = lax.pad(x, jnp.zeros((), x.dtype), config)
  (s0, s1, s2), (n0, n1, n2) = (a.stride for a in plan.axes), lengths
  return x.reshape(n0, s0, n1, s1, n2, s2, *x.shape[3:])


def _merge(plan, x, lengths, lows, sizes):
  """The adjoint of `_split`."""
  x = x.reshape(
    *(a.stride * n for a, n in zip(plan.axes, lengths, strict=True)),
    *x.shape[6:],
  )
  config = [
    (-low, size + low - whole, 0)
    for whole, low, size in zip(x.shape[:3], lows, sizes, strict=True)
  ] + [(0, 0, 0)] * (x.ndim - 3)
  return lax.pad(x, jnp.zeros((), x.dtype), config)


def _apart(transpose, x, axis):
  """Transposes `x`, whose first axis becomes `axis`, in a computation apart.

  XLA would merge it with the reshape that a matrix product needs, and then find
  the source of each element by divisions: three to seven times as long. It
  does not look out of a loop.
  """
  return in_chunks(transpose, x, -(-len(x) // _TURNS), axis)


def _lows(plan):
  """Padding before the first voxel, less positions that are all padding."""
  return [axis.low - axis.stride * _positions(axis)[0] for axis in plan.axes]


def _strides(plan):
  return tuple(a.stride for a in plan.axes)


def _enter(plan, x):
  """I: (m, D, H, W, c) -> (frequency, part, tile and m, phase and c)."""
  a = _matrices(plan)
  (f0, f1, f2), (t0, t1, t2) = a.frequencies, a.tiles
  m = len(x)

  def phases(x):
    x = _split(plan, _inside(x), a.positions, _lows(plan))
    return x.transpose(0, 2, 4, 6, 1, 3, 5, 7)

  x = _apart(phases, x, 3)
  x = _apply(a.enter[0], x, 1)
  x = _apply(a.enter[1], x, f0 * t0)
  x = _apply(a.enter[2], x, f0 * t0 * f1 * t1)
  x = x.reshape(f0, t0, f1, t1, f2, t2, a.parts, m, -1)
  x = x.transpose(0, 2, 4, 6, 1, 3, 5, 7, 8)
  return x.reshape(f0 * f1 * f2, a.parts, t0 * t1 * t2 * m, -1)


def _enter_transposed(plan, x, m, c, chains_last):
  """The adjoint of `_enter`.

  With `chains_last`, of (frequency, phase and c, part and tile and m).
  """
  a = _matrices(plan)
  (f0, f1, f2), (t0, t1, t2) = a.frequencies, a.tiles
  if chains_last:
    x = x.reshape(f0, f1, f2, -1, a.parts, t0, t1, t2, m)
    x = x.transpose(0, 5, 1, 6, 2, 7, 4, 3, 8)
  else:
    x = x.reshape(f0, f1, f2, a.parts, t0, t1, t2, m, -1)
    x = x.transpose(0, 4, 1, 5, 2, 6, 3, 7, 8)
  x = _apply(a.enter[2].T, x, f0 * t0 * f1 * t1)
  x = _apply(a.enter[1].T, x, f0 * t0)
  x = _apply(a.enter[0].T, x, 1)
  if chains_last:
    x = x.reshape(*a.positions, *_strides(plan), c, m)
    x = x.transpose(0, 3, 1, 4, 2, 5, 7, 6)
  else:
    x = x.reshape(*a.positions, m, *_strides(plan), c)
    x = x.transpose(0, 4, 1, 5, 2, 6, 3, 7)
  sizes = [axis.size for axis in plan.axes]
  return _merge(plan, x, a.positions, _lows(plan), sizes)


def _leave(plan, y, m, n):
  """O: (frequency, part and tile and m, n) -> (D', H', W', m, n)."""
  a = _matrices(plan)
  (f0, f1, f2), (t0, t1, t2) = a.frequencies, a.tiles
  y = y.reshape(f0, f1, f2, a.parts, t0, t1, t2, m, n)
  y = y.transpose(0, 4, 1, 5, 2, 6, 3, 7, 8)
  y = _apply(a.leave[2], y, f0 * t0 * f1 * t1)
  y = _apply(a.leave[1], y, f0 * t0)
  y = _apply(a.leave[0], y, 1)
  return y.reshape(*(axis.out for axis in plan.axes), m, n)


def _leave_transposed(plan, y, chains_last=False):
  """The adjoint of `_leave`.

  With `chains_last`, (frequency, n, part and tile and m).
  """
  a = _matrices(plan)
  (f0, f1, f2), (t0, t1, t2) = a.frequencies, a.tiles
  m, n = y.shape[3:]
  y = y.swapaxes(3, 4) if chains_last else y
  y = _apply(a.leave[0].T, y, 1)
  y = _apply(a.leave[1].T, y, f0 * t0)
  y = _apply(a.leave[2].T, y, f0 * t0 * f1 * t1)
  if chains_last:
    y = y.reshape(f0, t0, f1, t1, f2, t2, a.parts, n, m)
    y = y.transpose(0, 2, 4, 7, 6, 1, 3, 5, 8)
    return y.reshape(f0 * f1 * f2, n, -1)
  y = y.reshape(f0, t0, f1, t1, f2, t2, a.parts, m, n)
  y = y.transpose(0, 2, 4, 6, 1, 3, 5, 7, 8)
  return y.reshape(f0 * f1 * f2, -1, n)


def _double(x):
  """Pairs as rows and columns: (f, part, m, k) -> (f, part m, part k).

  A complex product as a real one: with the kernel as (re, -im) along k, the
  row (re, im) gives the real part of the product, (im, -re) the imaginary.
  """
  if x.shape[1] == 1:
    return x[:, 0]
  re, im = x[:, 0], x[:, 1]
  real, imaginary = jnp.concatenate([re, im], 2), jnp.concatenate([im, -re], 2)
  return jnp.concatenate([real, imaginary], 1)


def _double_transposed(parts, x, chains_last):
  """The adjoint of `_double`; with `chains_last`, of the last two swapped."""
  if parts == 1:
    return x if chains_last else x[:, None]
  m, k = x.shape[1] // 2, x.shape[2] // 2
  if chains_last:
    # (f, part k, part m) -> (f, k, part m)
    return jnp.concatenate(
      [
        x[:, :m, :k] - x[:, m:, k:],
        x[:, m:, :k] + x[:, :m, k:],
      ],
      2,
    )
  real, imaginary = x[:, :m], x[:, m:]
  return jnp.stack(
    [
      real[..., :k] - imaginary[..., k:],
      real[..., k:] + imaginary[..., :k],
    ],
    1,
  )


@functools.partial(jax.named_call, name='kernel_spectrum')
def _spectrum(plan, w, transposed=False):
  """K: (taps..., c, n) -> (frequency, part phase c, n).

  Transposed: (frequency, n, part phase c), computed so rather than transposed
  after: XLA would fold a transpose into the product that follows, and that
  product is then several times slower.
  """
  a = _matrices(plan)
  f0, f1, f2 = a.frequencies
  n = w.shape[4]
  w = _split(plan, w, a.taps, (0, 0, 0))
  w = w.transpose(
    0, 2, 4, *((7, 1, 3, 5, 6) if transposed else (1, 3, 5, 6, 7))
  )
  if a.whole_kernel is not None:
    w = _apply(a.whole_kernel, w.reshape(math.prod(a.taps), -1), 1)
  else:
    w = _apply(a.kernel[0], w, 1)
    w = _apply(a.kernel[1], w, f0)
    w = _apply(a.kernel[2], w, f0 * f1)
  if transposed:
    w = w.reshape(f0 * f1 * f2, a.parts, n, -1)
    # Not a transpose, which XLA would leave in the loop of the chain.
    return jnp.concatenate([w[:, i] for i in range(a.parts)], 2)
  return w.reshape(f0 * f1 * f2, -1, n)


def _kernel_product(plan, x, y, c):
  """The adjoint of `_spectrum`, of the product of x and y over chains.

  A slice of the first axis at a time: all of it is never there at once.

  Args:
    plan: the plan.
    x: `(frequency, part and tile and m, part phase c)`.
    y: `(frequency, part and tile and m, n)`.
    c: channels in.
  """
  a = _matrices(plan)
  f0, f1, f2 = a.frequencies
  n = y.shape[2]
  # The smaller one is transposed. Parts of the result have to come first.
  swap = a.parts == 1 and n < x.shape[2]
  left, right = (y, x) if swap else (x, y)
  left = left.swapaxes(1, 2)

  def leave(i):
    # Slices of what other products take too: reshaped first, it would be there
    # twice.
    w = _matmul(
      *(
        lax.dynamic_slice_in_dim(z, i * f1 * f2, f1 * f2) for z in (left, right)
      )
    )
    w = _apply(a.kernel[2].T, w, f1)
    return _apply(a.kernel[1].T, w, 1)[None]

  w = lax.fori_loop(
    0,
    f0,
    lambda i, w: _put(w, leave(i), i),
    _room(jax.eval_shape(leave, 0), x, f0),
  )
  w = _apply(a.kernel[0].T, w, 1)
  if swap:
    w = w.reshape(*a.taps, n, *_strides(plan), c)
    w = w.transpose(0, 4, 1, 5, 2, 6, 7, 3)
  else:
    w = w.reshape(*a.taps, *_strides(plan), c, n)
    w = w.transpose(0, 3, 1, 4, 2, 5, 6, 7)
  sizes = [axis.taps for axis in plan.axes]
  return _merge(plan, w, a.taps, (0, 0, 0), sizes)


def _columns(plan, x):
  """(m, D, H, W, c) -> (m, D', H', W', taps and c), of each output's voxels."""
  pads = [(0, 0, 0), *((*_pads(a), 0) for a in plan.axes), (0, 0, 0)]
  x = lax.pad(x, jnp.zeros((), x.dtype), pads)
  for i in (3, 2, 1):
    axis = plan.axes[i - 1]
    length = (axis.out - 1) * axis.stride + 1
    shifted = [
      lax.slice_in_dim(x, t, t + length, axis.stride, i)
      for t in range(axis.taps)
    ]
    x = jnp.stack(shifted, 4)
  return x.reshape(*x.shape[:4], -1)


def _columns_transposed(plan, x, c):
  """The adjoint of `_columns`."""
  taps = [-(-axis.taps // axis.stride) for axis in plan.axes]
  x = x.reshape(*x.shape[:4], *(axis.taps for axis in plan.axes), c)
  for i, axis in enumerate(plan.axes):
    # Taps to (tap, phase), which wants sums of shifted outputs only.
    x = jnp.moveaxis(x, 4 + i, 0)
    x = jnp.pad(x, [(0, taps[i] * axis.stride - axis.taps)] + [(0, 0)] * 7)
    x = x.reshape(taps[i], axis.stride, *x.shape[1:])
    shifts = [
      [(t, taps[i] - 1 - t) if j == 2 + i else (0, 0) for j in range(8)]
      for t in range(taps[i])
    ]
    x = sum(jnp.pad(x[t], pads) for t, pads in enumerate(shifts))
    x = jnp.moveaxis(x, 0, 4 + i)
  lengths = x.shape[1:4]
  x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)
  return jax.vmap(
    lambda x: _merge(
      plan,
      x,
      lengths,
      [axis.low for axis in plan.axes],
      [axis.size for axis in plan.axes],
    )
  )(x)


def _size(plan, channels):
  """Bytes of that many transformed channels."""
  a = _matrices(plan)
  return 4 * math.prod(a.frequencies) * a.parts * channels


def _kernel_size(plan, c, n):
  """Bytes of K w; `patches` takes w as it is."""
  if plan.method == 'patches':
    return 0
  return _size(plan, math.prod(_strides(plan)) * c * n)


def _chain_size(plan, c, n):
  """Bytes of one chain's transforms; the input is there twice: `_double`.

  Of `patches`: of its columns.
  """
  if plan.method == 'patches':
    return 4 * c * math.prod(axis.taps * axis.out for axis in plan.axes)
  phases = math.prod(_strides(plan)) * c
  tiles = math.prod(_matrices(plan).tiles)
  return tiles * _size(plan, _matrices(plan).parts * phases + n)


def _shares(plan, chains, c, n) -> bool:
  """Whether a correlation and its adjoint in the input use the same K w.

  The adjoint's chains are then the last axis, and it takes half as long again:
  only where K w is about as large as what it is applied to, or half as large
  and too large to be there twice.
  """
  kernel = _kernel_size(plan, c, n)
  rest = chains * _chain_size(plan, c, n)
  return kernel > rest * (0.5 if kernel > _LARGE else 0.75)


def _chunk(plan, chains, c, n, share=False) -> int:
  """How many chains to transform at once."""
  if plan.method == 'patches':
    room, fewest = _PATCHES_ROOM, 1
  else:
    least, most = _ROOM
    room = min(max(_kernel_size(plan, c, n) / 2, least), most)
    # Where K w is large, the rest has to be small.
    room, fewest = room / 2 if share else room, _FEWEST
  most = max(fewest, int(room / _chain_size(plan, c, n)))
  count = -(-chains // most)
  # A few chunks more, if that makes them equal: padding is work.
  for more in range(count, 1 + 3 * count // 2):
    if chains % more == 0:
      return chains // more
  return -(-chains // count)


def _room(like, x, m, axis=0):
  """Arrays with m entries along `axis`, to be overwritten, when `x` is known.

  XLA fills zeros first of all, in memory that nothing else has before.
  """

  def room(like):
    shape = (*like.shape[:axis], m, *like.shape[axis + 1 :])
    return jnp.full(shape, x.ravel()[0], like.dtype)

  return jax.tree.map(room, like)


def _put(y, part, first, axis=0):
  """`y` with `part` from `first` on along `axis`, of each of its arrays."""
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
    function: of `(size, ...)`, to arrays with these chains along `axis`; of
      each chain alone.
    x: `(m, ...)`, at least `size` chains.
    size: chains.
    axis: of what `function` gives.

  Returns:
    What `function(x)` is.

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
    return _put(y, part, first, axis)

  y = _room(jax.eval_shape(function, x[:size]), x, m, axis)
  return lax.fori_loop(0, -(-m // size), some, y)


def _in_chunks(plan, function, x, c, n):
  """Applies a function of (m, D, H, W, channels) to a chunk at a time."""
  m = len(x)
  return in_chunks(function, x, _chunk(plan, m, c, n, _shares(plan, m, c, n)))


def _in_chunks_summed(plan, function, arrays, c, n):
  """Applies a function of several, of which the second result is summed."""
  m = len(arrays[0])
  size = _chunk(plan, m, c, n)
  if size == m:
    return function(*arrays)
  # The last chunk is padded: every function here is linear in each argument.
  count = -(-m // size)
  arrays = [
    jnp.pad(x, ((0, count * size - m),) + ((0, 0),) * 4) for x in arrays
  ]

  def chunk(i):
    # Not reshaped first, which would be a copy of what others read as it is.
    return (lax.dynamic_slice_in_dim(x, i * size, size) for x in arrays)

  def some(i, carry):
    y, total = carry
    part, w = function(*chunk(i))
    return _put(y, part, i * size), total + w

  y, w = jax.eval_shape(lambda: function(*chunk(0)))
  y = _room(y, arrays[0], count * size)
  y, total = lax.fori_loop(0, count, some, (y, jnp.zeros(w.shape, w.dtype)))
  return jax.tree.map(lambda y: y[:m], y), total


def _inside(x):
  """(m, D, H, W, channels) -> (D, H, W, m, channels), as transforms take it."""
  return jnp.moveaxis(x, 0, 3)


def _outside(x):
  """The inverse of `_inside`."""
  return jnp.moveaxis(x, 3, 0)


# I, K and O of a plan, as they are multiplied: `patches` has columns for I and
# nothing for O.


def _factor(plan, x):
  """I x."""
  if plan.method == 'patches':
    return _columns(plan, x)
  return _double(_enter(plan, x))


def _kernel_factor(plan, w):
  """K w, by which I x is multiplied."""
  if plan.method == 'patches':
    return w.reshape(-1, w.shape[4])
  return _spectrum(plan, w)


def _result(plan, product, m):
  """O of a product, for m chains."""
  if plan.method == 'patches':
    return product
  return _outside(_leave(plan, product, m, product.shape[-1]))


def _result_transposed(plan, y):
  """The adjoint of `_result`."""
  if plan.method == 'patches':
    return y
  return _leave_transposed(plan, _inside(y))


def _factor_transposed(plan, spectrum, m, c, chains_last):
  """The adjoint of `_factor`, but for `patches`."""
  spectrum = _double_transposed(_matrices(plan).parts, spectrum, chains_last)
  return _outside(_enter_transposed(plan, spectrum, m, c, chains_last))


def _kernel_factor_transposed(plan, x, y, c):
  """The adjoint of `_kernel_factor`, of the product of I x and O' y."""
  if plan.method == 'patches':
    n = y.shape[4]
    w = _matmul(x.reshape(y.size // n, -1).T, y.reshape(-1, n))
    return w.reshape(*(axis.taps for axis in plan.axes), c, n)
  return _kernel_product(plan, x, y, c)


# The three bilinear maps, on (m, D, H, W, channels). Each one's derivatives
# are the two others; where two are wanted of one array, it is transformed once.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _correlate(plan, x, w):
  """y: (m, D', H', W', n)."""
  k = _kernel_factor(plan, w)

  def some(x):
    return _result(plan, _matmul(_factor(plan, x), k), len(x))

  return _in_chunks(plan, some, x, *w.shape[3:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _adjoint_input(plan, y, w):
  """x: (m, D, H, W, c)."""
  c, n = w.shape[3:]
  if plan.method == 'patches':
    k = w.reshape(-1, n).T
    return _in_chunks(
      plan, lambda y: _columns_transposed(plan, _matmul(y, k), c), y, c, n
    )
  last = _shares(plan, len(y), c, n)
  k = _spectrum(plan, w, transposed=not last)

  def some(y):
    spectrum = _leave_transposed(plan, _inside(y), last)
    spectrum = _matmul(k, spectrum) if last else _matmul(spectrum, k)
    return _factor_transposed(plan, spectrum, len(y), c, last)

  return _in_chunks(plan, some, y, c, n)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _adjoint_kernel(plan, x, y):
  """w: (taps..., c, n)."""
  c, n = x.shape[4], y.shape[4]

  def some(x, y):
    x, y = _factor(plan, x), _result_transposed(plan, y)
    return None, _kernel_factor_transposed(plan, x, y, c)

  return _in_chunks_summed(plan, some, (x, y), c, n)[1]


def _with_derivatives_of(apart):
  """Gives a function of (plan, *arrays) the derivatives of another."""

  def decorate(function):
    both = jax.custom_vjp(function, nondiff_argnums=(0,))
    both.defvjp(
      lambda plan, *arrays: (function(plan, *arrays), arrays),
      lambda plan, arrays, out: jax.vjp(
        functools.partial(apart, plan), *arrays
      )[1](out),
    )
    return both

  return decorate


@_with_derivatives_of(
  lambda plan, x, y, w: (
    _adjoint_input(plan, y, w),
    _adjoint_kernel(plan, x, y),
  )
)
def _adjoint_input_and_kernel(plan, x, y, w):
  """Of a `_correlate`, of which y is the cotangent."""
  c, n = w.shape[3:]
  if plan.method == 'patches' or _shares(plan, len(y), c, n):
    # Nothing is shared, or y is not transformed to the same order.
    return _adjoint_input(plan, y, w), _adjoint_kernel(plan, x, y)
  k = _spectrum(plan, w, transposed=True)

  def some(x, y):
    y = _result_transposed(plan, y)
    return (
      _factor_transposed(plan, _matmul(y, k), len(x), c, False),
      _kernel_factor_transposed(plan, _factor(plan, x), y, c),
    )

  return _in_chunks_summed(plan, some, (x, y), c, n)


@_with_derivatives_of(
  lambda plan, x, y, w: (_correlate(plan, x, w), _adjoint_kernel(plan, x, y))
)
def _correlate_and_adjoint_kernel(plan, x, y, w):
  """Of an `_adjoint_input`, of which x is the cotangent."""
  c, n = w.shape[3:]
  k = _kernel_factor(plan, w)

  def some(x, y):
    m = len(x)
    x, y = _factor(plan, x), _result_transposed(plan, y)
    return (
      _result(plan, _matmul(x, k), m),
      _kernel_factor_transposed(plan, x, y, c),
    )

  return _in_chunks_summed(plan, some, (x, y), c, n)


def _define_derivatives(function, in_first, in_second, in_both):
  """Derivatives of a bilinear map (plan, a, b), of (plan, a, b, cotangent).

  What nobody asked for is not computed: of a score, only one is.
  """

  def forward(plan, a, b):
    # What is not needed is None, and not kept.
    kept = a.value if b.perturbed else None, b.value if a.perturbed else None
    return function(plan, a.value, b.value), kept

  def backward(plan, kept, cotangent):
    a, b = kept
    if a is None:
      return in_first(plan, b, cotangent), None
    if b is None:
      return None, in_second(plan, a, cotangent)
    return in_both(plan, a, b, cotangent)

  function.defvjp(forward, backward, symbolic_zeros=True)


_define_derivatives(
  _correlate,
  lambda plan, w, y: _adjoint_input(plan, y, w),
  lambda plan, x, y: _adjoint_kernel(plan, x, y),
  lambda plan, x, w, y: _adjoint_input_and_kernel(plan, x, y, w),
)
_define_derivatives(
  _adjoint_input,
  lambda plan, w, x: _correlate(plan, x, w),
  lambda plan, y, x: _adjoint_kernel(plan, x, y),
  lambda plan, y, w, x: _correlate_and_adjoint_kernel(plan, x, y, w),
)
_define_derivatives(
  _adjoint_kernel,
  lambda plan, y, w: _adjoint_input(plan, y, w),
  lambda plan, x, w: _correlate(plan, x, w),
  lambda plan, x, y, w: (
    _adjoint_input(plan, y, w),
    _correlate(plan, x, w),
  ),
)


def _cost(plan: _Plan, chains: int, c: int, n: int) -> float:
  """Seconds of one correlation, by a model: arithmetic, and memory moved.

  Only ratios matter.
  """
  if plan.method == 'patches':
    size = chains * _chain_size(plan, c, n)
    return 2 * (size / 4) * n / _FLOPS + 2 * size / _BYTES
  points = [_points(plan.method, plan.tile, a) for a in plan.axes]
  tiles = [-(-a.out // (plan.tile or a.out)) for a in plan.axes]
  frequencies = math.prod(points)
  pair = 1
  if plan.method == 'fourier':
    frequencies = frequencies / points[0] * (points[0] // 2 + 1)
    pair = 2
  phases = math.prod(a.stride for a in plan.axes)
  m = chains * math.prod(tiles)
  enter = frequencies * pair**2 * m * phases * c
  leave = frequencies * pair * m * n
  kernel = frequencies * pair * phases * c * n
  products = enter * n + (enter * points[2] + leave * points[0]) * pair
  # K w is read here and made for each update.
  moved = 5 * enter + 5 * leave + 3 * kernel
  return 2 * products / _FLOPS + 4 * moved / _BYTES


@functools.lru_cache(maxsize=1024)
def _choose(axes, method, chains, c, n, backend) -> _Plan | None:
  """The plan to use; None: `direct`."""
  if chains == 0 or (method is None and backend != 'cpu'):
    method = 'direct'
  if method == 'direct':
    return None
  plans = []
  if method in (None, 'patches'):
    plans.append(_Plan('patches', 0, axes))
  if method in (None, 'fourier'):
    plans.append(_Plan('fourier', 0, axes))
  if method in (None, 'toom'):
    taps = max(-(-a.taps // a.stride) for a in axes)
    plans += [
      _Plan('toom', tile, axes)
      for tile in _TILES
      if tile + taps - 1 <= _MAX_POINTS
      and (tile == 1 or tile <= max(a.out for a in axes))
    ]
  if not plans:
    raise ValueError(
      f"method 'toom' needs at most {_MAX_POINTS} taps for each phase, got "
      f'kernel sides {[a.taps for a in axes]} at strides '
      f"{[a.stride for a in axes]}; use 'fourier'"
    )
  return min(plans, key=lambda plan: _cost(plan, chains, c, n))


def chains_at_once(
  shape: Sequence[int],
  kernel_shape: Sequence[int],
  strides: int | Sequence[int] = 1,
  padding: str | Sequence[tuple[int, int]] = 'SAME',
) -> tuple[int, tuple[int, ...]]:
  """How many chains a network had best take through this layer at a time.

  `patches` goes through few chains at a time anyway, so a network can go on
  with them while their feature maps are in the cache. The other methods read
  all of `K w` for each group.

  Args:
    shape: of its input, `(m, D, H, W, C_in)`.
    kernel_shape: `(kD, kH, kW, C_in, C_out)`.
    strides: as there.
    padding: as there.

  Returns:
    Chains, at most m, and the shape `(m, D', H', W', C_out)` of the result.

  >>> chains_at_once((3, 8, 8, 8, 1), (3, 3, 3, 1, 4))
  (3, (3, 8, 8, 8, 4))
  """
  m, *grid, _ = shape
  *taps, c, n = kernel_shape
  axes = _axes(grid, taps, _sizes(strides, 'strides'), padding)
  plan = _choose(axes, None, m, c, n, jax.default_backend())
  chunk = m
  if plan is not None and plan.method == 'patches':
    chunk = _chunk(plan, m, c, n)
  return chunk, (m, *(axis.out for axis in axes), n)


def _sizes(value, what: str) -> tuple[int, int, int]:
  value = (value,) * 3 if isinstance(value, int) else tuple(value)
  if len(value) != 3 or min(value) < 1:
    raise ValueError(f'{what} must be 1 or 3 positive integers, got {value}')
  return value


def _axes(grid, taps, strides, padding) -> tuple[_Axis, ...]:
  """The axes of a correlation of this grid; checks that it has an output."""
  pads = (
    lax.padtype_to_pads(grid, taps, strides, padding)
    if isinstance(padding, str)
    else tuple(padding)
  )
  axes = []
  for size, tap, stride, (low, high) in zip(
    grid, taps, strides, pads, strict=True
  ):
    out = (size + low + high - tap) // stride + 1
    if out < 1:
      raise ValueError(
        f'a kernel of sides {tuple(taps)} at padding {padding} does not fit '
        f'into a grid of sides {tuple(grid)}'
      )
    axes.append(_Axis(size, tap, stride, low, out))
  return tuple(axes)


def _check(x, kernel, method, channel_axis):
  if method is not None and method not in METHODS:
    raise ValueError(f'method must be one of {METHODS} or None, got {method!r}')
  if (
    x.ndim < 4 or kernel.ndim != 5 or x.shape[-1] != kernel.shape[channel_axis]
  ):
    raise ValueError(
      'expected (*chains, D, H, W, channels) and a kernel (kD, kH, kW, in, '
      f'out) of the same channels, got shapes {x.shape} and {kernel.shape}'
    )


def _on_chains(function, x):
  """Calls `function` on (m, D, H, W, c) and gives back (*chains, ...)."""
  y = function(x.reshape(-1, *x.shape[-4:]).astype(jnp.float32))
  return y.astype(x.dtype).reshape(*x.shape[:-4], *y.shape[1:])


def correlate(
  x: types.Array,
  kernel: types.Array,
  strides: int | Sequence[int] = 1,
  padding: str | Sequence[tuple[int, int]] = 'SAME',
  *,
  method: str | None = None,
) -> types.Array:
  """Strided 3-D correlation: `y[o] = sum_t x[s o + t - low] w[t]`.

  Args:
    x: `(*chains, D, H, W, C_in)`.
    kernel: `(kD, kH, kW, C_in, C_out)`.
    strides: one for all axes or three.
    padding: 'SAME', 'VALID' or three pairs (low, high), as in `lax`.
    method: one of `METHODS`; None: the fastest for these sizes on this
      backend.

  Returns:
    `(*chains, D', H', W', C_out)` of the dtype of x. Relative error against
    float64 of about 1e-6 (fourier) to 5e-6 (toom), whatever the dtype.

  Raises:
    ValueError: for shapes that do not fit each other.

  >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2, 1)
  >>> correlate(x, jnp.ones((2, 2, 2, 1, 1)), padding='VALID').round(4).item()
  28.0
  """
  _check(x, kernel, method, 3)
  strides = _sizes(strides, 'strides')
  axes = _axes(x.shape[-4:-1], kernel.shape[:3], strides, padding)
  num_chains = math.prod(x.shape[:-4])
  plan = _choose(
    axes, method, num_chains, *kernel.shape[3:], jax.default_backend()
  )
  if plan is None:
    pads = [_pads(a) for a in axes]
    y = lax.conv_general_dilated(
      x.reshape(num_chains, *x.shape[-4:]),
      kernel.astype(x.dtype),
      strides,
      pads,
      dimension_numbers=_DIRECT_DIMENSIONS,
    )
    return y.reshape(*x.shape[:-4], *y.shape[1:])
  w = kernel.astype(jnp.float32)
  return _on_chains(lambda x: _correlate(plan, x, w), x)


def _pads(axis: _Axis) -> tuple[int, int]:
  """Padding (low, high) that gives exactly `axis.out` outputs."""
  high = (axis.out - 1) * axis.stride + axis.taps - axis.size - axis.low
  return axis.low, high


def correlate_transpose(
  y: types.Array,
  kernel: types.Array,
  strides: int | Sequence[int] = 1,
  padding: str | Sequence[tuple[int, int]] = 'SAME',
  *,
  method: str | None = None,
) -> types.Array:
  """Transposed correlation, which upsamples: the adjoint of `correlate`.

  `sum(y * correlate(x, w)) = sum(x * correlate_transpose(y, w))` for every x
  of the size of the result.

  Args:
    y: `(*chains, D, H, W, C_in)`.
    kernel: `(kD, kH, kW, C_out, C_in)`: that of the correlation of which this
      is the adjoint.
    strides: the factors by which the grid grows, one or three.
    padding: of the correlation. 'SAME': sides `D * stride`; 'VALID': sides
      `(D - 1) * stride + kD`; or three pairs (low, high).
    method: as for `correlate`.

  Returns:
    `(*chains, D', H', W', C_out)` of the dtype of y.

  Raises:
    ValueError: for shapes that do not fit each other.

  >>> y = jnp.ones((1, 1, 1, 1, 1))
  >>> correlate_transpose(y, jnp.ones((2, 2, 2, 1, 1)), 2).shape
  (1, 2, 2, 2, 1)
  """
  _check(y, kernel, method, 4)
  strides = _sizes(strides, 'strides')
  taps = kernel.shape[:3]
  sides = y.shape[-4:-1]
  if padding == 'SAME':
    grid = tuple(d * s for d, s in zip(sides, strides, strict=True))
  else:
    pads = ((0, 0),) * 3 if padding == 'VALID' else tuple(padding)
    grid = tuple(
      (d - 1) * s + k - low - high
      for d, s, k, (low, high) in zip(sides, strides, taps, pads, strict=True)
    )
  axes = _axes(grid, taps, strides, padding)
  num_chains = math.prod(y.shape[:-4])
  plan = _choose(
    axes, method, num_chains, *kernel.shape[3:], jax.default_backend()
  )
  if plan is None:
    like = jax.ShapeDtypeStruct(
      (*y.shape[:-4], *grid, kernel.shape[3]), y.dtype
    )
    forward = functools.partial(
      correlate,
      kernel=kernel,
      strides=strides,
      padding=[_pads(a) for a in axes],
      method='direct',
    )
    return jax.linear_transpose(forward, like)(y)[0]
  w = kernel.astype(jnp.float32)
  return _on_chains(lambda y: _adjoint_input(plan, y, w), y)
