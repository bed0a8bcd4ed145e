"""im2col: the direct algorithm as one matrix product.

The voxels that each output sees stand side by side in its row. For few channels
and few taps, where transforms do not pay. I x are these rows, K w is w, and O
does nothing.
"""

import math

import jax
from jax import lax
import jax.numpy as jnp

from dnet_jax.convolution.axes import merge
from dnet_jax.convolution.axes import pads
from dnet_jax.convolution.axes import phase_taps
from dnet_jax.convolution.methods import BYTES
from dnet_jax.convolution.methods import Factors
from dnet_jax.convolution.methods import FLOPS
from dnet_jax.convolution.methods import Limits
from dnet_jax.convolution.methods import Plan
from dnet_jax.convolution.precision import matmul


def _columns(plan, x):
  """(m, D, H, W, c) -> (m, D', H', W', taps and c), of each output's voxels."""
  config = [(0, 0, 0), *((*pads(a), 0) for a in plan.axes), (0, 0, 0)]
  x = lax.pad(x, jnp.zeros((), x.dtype), config)
  for i in (3, 2, 1):
    axis = plan.axes[i - 1]
    length = (axis.out - 1) * axis.stride + 1
    shifted = [
      lax.slice_in_dim(x, t, t + length, axis.stride, i)
      for t in range(axis.taps)
    ]
    x = jnp.stack(shifted, 4)
  return x.reshape(*x.shape[:4], -1)


def _columns_transposed(plan, x, m, c, last):
  """The adjoint of `_columns`."""
  del m, last
  taps = [phase_taps(axis) for axis in plan.axes]
  x = x.reshape(*x.shape[:4], *(axis.taps for axis in plan.axes), c)
  for i, axis in enumerate(plan.axes):
    # Taps become (tap, phase): then shifted outputs need only be summed.
    x = jnp.moveaxis(x, 4 + i, 0)
    x = jnp.pad(x, [(0, taps[i] * axis.stride - axis.taps)] + [(0, 0)] * 7)
    x = x.reshape(taps[i], axis.stride, *x.shape[1:])
    shifts = [
      [(t, taps[i] - 1 - t) if j == 2 + i else (0, 0) for j in range(8)]
      for t in range(taps[i])
    ]
    x = sum(jnp.pad(x[t], shift) for t, shift in enumerate(shifts))
    x = jnp.moveaxis(x, 0, 4 + i)
  lengths = x.shape[1:4]
  x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)
  lows = [axis.low for axis in plan.axes]
  sizes = [axis.size for axis in plan.axes]
  return jax.vmap(lambda x: merge(plan.axes, x, lengths, lows, sizes))(x)


def _kernel(plan, w, transposed):
  """The kernel as a matrix, (taps and c, n)."""
  del plan
  w = w.reshape(-1, w.shape[4])
  return w.T if transposed else w


def _kernel_transposed(plan, x, y, c):
  n = y.shape[4]
  x, y = x.reshape(y.size // n, -1).T, y.reshape(-1, n)
  w = matmul(x, y, plan.precision)
  return w.reshape(*(axis.taps for axis in plan.axes), c, n)


def _chain_size(plan, c, n):
  del n
  return 4 * c * math.prod(axis.taps * axis.out for axis in plan.axes)


FACTORS = Factors(
  factor=_columns,
  kernel_factor=_kernel,
  result=lambda plan, product, m: product,
  factor_transposed=_columns_transposed,
  kernel_factor_transposed=_kernel_transposed,
  result_transposed=lambda plan, y, last: y,
  result_is_product=True,
  chain_size=_chain_size,
  kernel_size=lambda plan, c, n: 0,
  # There is nothing else to read, so the columns of few chains stay in the
  # cache.
  limits=Limits(2**23, 2**23, 1),
)


def cost(plan: Plan, chains: int, c: int, n: int) -> float:
  """Seconds of one correlation: arithmetic, and columns written and read."""
  size = chains * _chain_size(plan, c, n)
  return 2 * (size / 4) * n / FLOPS + 2 * size / BYTES
