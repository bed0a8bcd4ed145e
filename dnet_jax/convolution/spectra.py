"""The Fourier transform in complex numbers: one large product for each axis.

The same algebra as `transforms`, in the form that suits a GPU. A product takes
the axis at one end of an array and puts its result at the other:

  (rest, k) -> (n, rest), three times, into the spectrum, and
  (k, rest) -> (rest, n), three times, out of it.

Each is one matrix product whose operands are already in the right order in
memory, with one small matrix instead of a copy for each batch. Only the first
input and the last result are transposed. Complex numbers need no doubling of
the input, adjoints are plain transposes of the matrices, and all chains are
taken at once where memory allows.
"""

import math

import jax
from jax import lax
import numpy as np

from dnet_jax import types
from dnet_jax.convolution import matrices
from dnet_jax.convolution.axes import merge
from dnet_jax.convolution.axes import split
from dnet_jax.convolution.methods import Factors
from dnet_jax.convolution.methods import Limits
from dnet_jax.convolution.precision import matmul

_INTO = (0, 2, 4, 6, 7, 5, 3, 1)  # (m, l, s, l, s, l, s, c) -> (m, sss, c, lll)
_OUT_OF = (0, 7, 1, 6, 2, 5, 3, 4)  # Its inverse.
_REVERSED = (0, 4, 3, 2, 1)  # (m, D, H, W, n) <-> (m, n, W, H, D)
_KERNEL_INTO = (1, 3, 5, 6, 7, 4, 2, 0)  # (tstststs, c, n) -> (sss, c, n, ttt)
_KERNEL_OUT_OF = (7, 0, 6, 1, 5, 2, 3, 4)


def _matrices(plan):
  return matrices.complex_matrices(plan.axes)


def _product(a, b, axis_a, axis_b):
  dims = (((axis_a,), (axis_b,)), ((), ()))
  return lax.dot_general(a, b, dims, precision=lax.Precision.HIGHEST)


def _into(each: tuple[np.ndarray, ...], x: types.Array) -> types.Array:
  """`(rest, k2, k1, k0)` by matrices (n, k) to `(n2, n1, n0, rest)`."""
  x = x.astype(each[0].dtype)
  for matrix in each:
    x = _product(matrix, x, 1, x.ndim - 1)
  return x


def _out_of(each: tuple[np.ndarray, ...], x: types.Array) -> types.Array:
  """The adjoint: `(n2, n1, n0, rest)` to `(rest, k2, k1, k0)`, real."""
  for matrix in reversed(each):
    x = _product(x, matrix, 0, 0)
  return x.real


def _strides(plan):
  return tuple(axis.stride for axis in plan.axes)


def _factor(plan, x):
  """I: (m, D, H, W, c) -> (frequency, m, phase and c)."""
  a = _matrices(plan)
  x = jax.vmap(lambda x: split(plan.axes, x, a.positions, a.lows))(x)
  x = _into(a.enter, x.transpose(_INTO))
  return x.reshape(math.prod(a.frequencies), x.shape[3], -1)


def _factor_transposed(plan, product, m, c, last):
  """The adjoint of `_factor`."""
  del last
  a = _matrices(plan)
  x = product.reshape(*a.frequencies[::-1], m, *_strides(plan), c)
  x = _out_of(a.enter, x).transpose(_OUT_OF)
  sizes = [axis.size for axis in plan.axes]
  return jax.vmap(lambda x: merge(plan.axes, x, a.positions, a.lows, sizes))(x)


def _result(plan, product, m):
  """O: (frequency, m, n) -> (m, D', H', W', n)."""
  a = _matrices(plan)
  y = product.reshape(*a.frequencies[::-1], m, -1)
  return _out_of(a.leave, y).transpose(_REVERSED)


def _result_transposed(plan, y, last):
  """The adjoint of `_result`."""
  del last
  a = _matrices(plan)
  y = _into(a.leave, y.transpose(_REVERSED))
  return y.reshape(math.prod(a.frequencies), *y.shape[3:])


def _spectrum(plan, w, transposed):
  """K: (taps..., c, n) -> (frequency, phase and c, n).

  A product reads its transpose without a copy.
  """
  a = _matrices(plan)
  w = split(plan.axes, w, a.taps, (0, 0, 0))
  w = _into(a.kernel, w.transpose(_KERNEL_INTO))
  w = w.reshape(math.prod(a.frequencies), -1, w.shape[-1])
  return w.swapaxes(1, 2) if transposed else w


def _spectrum_transposed(plan, x, y, c):
  """The adjoint of `_spectrum`, of the product of x and y over chains."""
  a = _matrices(plan)
  w = matmul(x.swapaxes(1, 2), y, plan.precision)
  w = w.reshape(*a.frequencies[::-1], *_strides(plan), c, -1)
  w = _out_of(a.kernel, w).transpose(_KERNEL_OUT_OF)
  sizes = [axis.taps for axis in plan.axes]
  return merge(plan.axes, w, a.taps, (0, 0, 0), sizes)


def _chain_size(plan, c, n):
  phases = math.prod(_strides(plan)) * c
  return 8 * math.prod(_matrices(plan).frequencies) * (phases + n)


FACTORS = Factors(
  factor=_factor,
  kernel_factor=jax.named_call(_spectrum, name='kernel_spectrum'),
  result=_result,
  factor_transposed=_factor_transposed,
  kernel_factor_transposed=_spectrum_transposed,
  result_transposed=_result_transposed,
  result_is_product=False,
  chain_size=_chain_size,
  # Both directions take the same K w anyway.
  kernel_size=lambda plan, c, n: 0,
  # 2 GiB: few chunks, each with products that fill a GPU.
  limits=Limits(2**31, 2**31, 8),
)
