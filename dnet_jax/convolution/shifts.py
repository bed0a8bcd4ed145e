"""One product for all taps at once, whose parts are then shifted and summed.

After the algebra of 'phases' (stride 1, ceil(k / s)^3 taps, s^3 c channels),
every position is multiplied with the kernel's taps side by side; an output is
the sum of one part of each position that it sees ("kn2row"). Some of these
products belong to no output, but all of them are one large product whose
operands need no copy. This suits layers with many input channels and few taps,
for which XLA's convolution reaches only a fifth of a GPU's rate.
"""

import itertools
import math

import jax
from jax import lax
import jax.numpy as jnp

from dnet_jax.convolution.axes import merge
from dnet_jax.convolution.axes import phase_taps
from dnet_jax.convolution.axes import split
from dnet_jax.convolution.methods import Factors
from dnet_jax.convolution.methods import Limits
from dnet_jax.convolution.precision import matmul

_APART = (0, 2, 4, 1, 3, 5)  # (n, s, n, s, n, s) -> (n, n, n, s, s, s)
_TOGETHER = (0, 3, 1, 4, 2, 5)  # Its inverse.


def _taps(plan):
  return tuple(phase_taps(axis) for axis in plan.axes)


def _positions(plan):
  return tuple(axis.out - 1 + phase_taps(axis) for axis in plan.axes)


def _strides(plan):
  return tuple(axis.stride for axis in plan.axes)


def _factor(plan, x):
  """I: (m, D, H, W, c) -> (m, positions..., phase and c)."""
  lengths, lows = _positions(plan), [axis.low for axis in plan.axes]
  x = jax.vmap(
    lambda x: split(plan.axes, x, lengths, lows).transpose(*_APART, 6)
  )(x)
  return x.reshape(*x.shape[:4], -1)


def _factor_transposed(plan, product, m, c, last):
  """The adjoint of `_factor`."""
  del last
  lengths, lows = _positions(plan), [axis.low for axis in plan.axes]
  sizes = [axis.size for axis in plan.axes]
  x = product.reshape(m, *lengths, *_strides(plan), c)
  return jax.vmap(
    lambda x: merge(plan.axes, x.transpose(*_TOGETHER, 6), lengths, lows, sizes)
  )(x)


def _kernel(plan, w, transposed):
  """K: (taps..., c, n) -> (phase and c, tap and n)."""
  n = w.shape[4]
  w = split(plan.axes, w, _taps(plan), (0, 0, 0))
  w = w.transpose(1, 3, 5, 6, 0, 2, 4, 7)
  w = w.reshape(-1, math.prod(_taps(plan)) * n)
  return w.T if transposed else w


def _kernel_transposed(plan, x, y, c):
  """The adjoint of `_kernel`, of the product of x and y over positions."""
  x, y = x.reshape(-1, x.shape[4]), y.reshape(-1, y.shape[4])
  w = matmul(x.T, y, plan.precision)
  w = w.reshape(*_strides(plan), c, *_taps(plan), -1)
  w = w.transpose(4, 0, 5, 1, 6, 2, 3, 7)
  sizes = [axis.taps for axis in plan.axes]
  return merge(plan.axes, w, _taps(plan), (0, 0, 0), sizes)


def _each_tap(plan):
  return itertools.product(*map(range, _taps(plan)))


def _result(plan, product, m):
  """O: (m, positions..., tap and n) -> (m, D', H', W', n)."""
  del m
  outs = [axis.out for axis in plan.axes]
  n = product.shape[4] // math.prod(_taps(plan))
  total = None
  for i, tap in enumerate(_each_tap(plan)):
    ends = [t + out for t, out in zip(tap, outs, strict=True)]
    part = lax.slice(
      product, (0, *tap, i * n), (len(product), *ends, (i + 1) * n)
    )
    total = part if total is None else total + part
  return total


def _result_transposed(plan, y, last):
  """The adjoint of `_result`."""
  del last
  taps = _taps(plan)

  def shifted(tap):
    pads = [(t, size - 1 - t) for t, size in zip(tap, taps, strict=True)]
    return jnp.pad(y, ((0, 0), *pads, (0, 0)))

  return jnp.concatenate([shifted(tap) for tap in _each_tap(plan)], 4)


def _chain_size(plan, c, n):
  phases = math.prod(_strides(plan)) * c
  each = phases + math.prod(_taps(plan)) * n
  return 4 * math.prod(_positions(plan)) * each


FACTORS = Factors(
  factor=_factor,
  kernel_factor=_kernel,
  result=_result,
  factor_transposed=_factor_transposed,
  kernel_factor_transposed=_kernel_transposed,
  result_transposed=_result_transposed,
  result_is_product=False,
  chain_size=_chain_size,
  # A product reads the transpose of K w without a copy.
  kernel_size=lambda plan, c, n: 0,
  # 2 GiB: few chunks, each with a product that fills a GPU.
  limits=Limits(2**31, 2**31, 8),
)
