"""Transforms: I, K and O as products of one small matrix for each axis.

Layout inside is (D, H, W, chains, channels): each stage is then one batched
product without a transpose. `K w` depends on the kernel alone: inside
`lax.scan`, XLA moves it out of the loop, so that all Langevin steps of a
learning iteration share it. The adjoint in the kernel leaves the spectrum a
slice at a time.
"""

import functools
import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dnet_jax import types
from dnet_jax.convolution import chunks
from dnet_jax.convolution import matrices
from dnet_jax.convolution.axes import Axes
from dnet_jax.convolution.axes import merge
from dnet_jax.convolution.axes import phase_taps
from dnet_jax.convolution.axes import split
from dnet_jax.convolution.methods import BYTES
from dnet_jax.convolution.methods import Factors
from dnet_jax.convolution.methods import factors_of
from dnet_jax.convolution.methods import FLOPS
from dnet_jax.convolution.methods import Limits
from dnet_jax.convolution.methods import Plan
from dnet_jax.convolution.precision import matmul

_TURNS = 2  # Iterations of the loop in `_apart`.
_TILES = (1, 2, 3, 4, 5)  # Of `winograd`.


def _matrices(plan):
  family = factors_of(plan).family
  return matrices.make_matrices(family, plan.tile, plan.axes)


def _apply(matrix: np.ndarray, x: types.Array, before: int) -> types.Array:
  """Multiplies one axis: (before, k, rest) -> (before, n, rest), flat."""
  n, k = matrix.shape
  x = x.reshape(before, k, -1)
  if before == 1:
    return matmul(matrix, x[0])
  # A batch with a copy of the matrix for each is what XLA's CPU product does
  # fastest: a product with one matrix would first transpose x.
  return matmul(jnp.broadcast_to(matrix, (before, n, k)), x)


def _apart(transpose, x, axis):
  """Transposes `x`, whose first axis becomes `axis`, in a loop of its own.

  XLA would merge the transpose with the reshape that a matrix product needs,
  and then find the source of each element by divisions, which takes three to
  seven times as long. It does not merge operations across the edge of a loop.
  """
  return chunks.in_chunks(transpose, x, -(-len(x) // _TURNS), axis)


def _lows(plan):
  """Padding before the first voxel, less positions that are all padding."""
  return [
    axis.low - axis.stride * matrices.positions(axis)[0] for axis in plan.axes
  ]


def _strides(plan):
  return tuple(a.stride for a in plan.axes)


def _inside(x):
  """(m, D, H, W, channels) -> (D, H, W, m, channels), as transforms take it."""
  return jnp.moveaxis(x, 0, 3)


def _outside(x):
  """The inverse of `_inside`."""
  return jnp.moveaxis(x, 3, 0)


def _enter(plan, x):
  """I: (m, D, H, W, c) -> (frequency, part, tile and m, phase and c)."""
  a = _matrices(plan)
  (f0, f1, f2), (t0, t1, t2) = a.frequencies, a.tiles
  m = len(x)

  def phases(x):
    x = split(plan.axes, _inside(x), a.positions, _lows(plan))
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
  return merge(plan.axes, x, a.positions, _lows(plan), sizes)


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

  Transposed: (frequency, n, part phase c), computed in this order and not
  transposed afterwards: XLA would fold a transpose into the product that
  follows, which is then several times slower.
  """
  a = _matrices(plan)
  f0, f1, f2 = a.frequencies
  n = w.shape[4]
  w = split(plan.axes, w, a.taps, (0, 0, 0))
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

  A slice of the first axis at a time, so that the whole is never in memory.

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
    # Other products read these arrays too: reshaped first, they would be in
    # memory twice.
    some = [
      lax.dynamic_slice_in_dim(z, i * f1 * f2, f1 * f2) for z in (left, right)
    ]
    w = matmul(some[0], some[1], plan.precision)
    w = _apply(a.kernel[2].T, w, f1)
    return _apply(a.kernel[1].T, w, 1)[None]

  w = lax.fori_loop(
    0,
    f0,
    lambda i, w: chunks.put(w, leave(i), i),
    chunks.make_room(jax.eval_shape(leave, 0), x, f0),
  )
  w = _apply(a.kernel[0].T, w, 1)
  if swap:
    w = w.reshape(*a.taps, n, *_strides(plan), c)
    w = w.transpose(0, 4, 1, 5, 2, 6, 7, 3)
  else:
    w = w.reshape(*a.taps, *_strides(plan), c, n)
    w = w.transpose(0, 3, 1, 4, 2, 5, 6, 7)
  sizes = [axis.taps for axis in plan.axes]
  return merge(plan.axes, w, a.taps, (0, 0, 0), sizes)


# The functions of `Factors`.


def _factor(plan, x):
  return _double(_enter(plan, x))


def _factor_transposed(plan, product, m, c, last):
  product = _double_transposed(_matrices(plan).parts, product, last)
  return _outside(_enter_transposed(plan, product, m, c, last))


def _result(plan, product, m):
  return _outside(_leave(plan, product, m, product.shape[-1]))


def _result_transposed(plan, y, last):
  return _leave_transposed(plan, _inside(y), last)


def _size(plan, channels):
  """Bytes of that many transformed channels."""
  a = _matrices(plan)
  return 4 * math.prod(a.frequencies) * a.parts * channels


def _kernel_size(plan, c, n):
  return _size(plan, math.prod(_strides(plan)) * c * n)


def _chain_size(plan, c, n):
  """Bytes of one chain's transforms; `_double` holds the input twice."""
  a = _matrices(plan)
  phases = math.prod(_strides(plan)) * c
  return math.prod(a.tiles) * _size(plan, a.parts * phases + n)


def _factors(family):
  return Factors(
    factor=_factor,
    kernel_factor=_spectrum,
    result=_result,
    factor_transposed=_factor_transposed,
    kernel_factor_transposed=_kernel_product,
    result_transposed=_result_transposed,
    result_is_product=False,
    chain_size=_chain_size,
    kernel_size=_kernel_size,
    limits=Limits(5 * 2**24, 5 * 2**25, 8),
    family=family,
  )


FOURIER = _factors(matrices.FOURIER)
WINOGRAD = _factors(matrices.WINOGRAD)


def winograd_tiles(axes: Axes) -> tuple[int, ...]:
  """The tiles of `WINOGRAD`: none where the kernel has too many taps."""
  taps = max(phase_taps(axis) for axis in axes)
  return tuple(
    tile
    for tile in _TILES
    if tile + taps - 1 <= matrices.MAX_POINTS
    and (tile == 1 or tile <= max(axis.out for axis in axes))
  )


def cost(plan: Plan, chains: int, c: int, n: int) -> float:
  """Seconds of one correlation: arithmetic, and memory moved."""
  family = factors_of(plan).family
  points = [family.points(plan.tile, axis) for axis in plan.axes]
  tiles = [-(-axis.out // (plan.tile or axis.out)) for axis in plan.axes]
  frequencies = math.prod(points)
  if family.parts == 2:
    frequencies = frequencies / points[0] * (points[0] // 2 + 1)
  phases = math.prod(_strides(plan))
  m = chains * math.prod(tiles)
  enter = frequencies * family.parts**2 * m * phases * c
  leave = frequencies * family.parts * m * n
  kernel = frequencies * family.parts * phases * c * n
  products = enter * n
  products += (enter * points[2] + leave * points[0]) * family.parts
  # K w is read here and made for each update.
  moved = 5 * enter + 5 * leave + 3 * kernel
  return 2 * products / FLOPS + 4 * moved / BYTES
