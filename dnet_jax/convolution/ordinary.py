"""XLA's own convolution: 'direct', and after exact algebra, 'phases'.

A strided correlation is an ordinary one of phases. Input and kernel are padded
and reshaped from (n s)^3 x c to n^3 x (s^3 c); what is left has stride 1 and
ceil(k / s)^3 taps. On a GPU that is several times faster, in derivatives above
all. Both are differentiable by JAX in any mode, and compute in the dtype of x.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math

import jax
from jax import lax

from dnet_jax import types
from dnet_jax.convolution.axes import Axes
from dnet_jax.convolution.axes import pads
from dnet_jax.convolution.axes import phase_taps
from dnet_jax.convolution.axes import split
from dnet_jax.convolution.methods import Plan
from dnet_jax.convolution.precision import of_lax
from dnet_jax.convolution.precision import operand

_DIMENSIONS = ('NDHWC', 'DHWIO', 'NDHWC')


def direct(plan: Plan, x: types.Array, w: types.Array) -> types.Array:
  """`(m, D, H, W, c)` and `(kD, kH, kW, c, n)` to `(m, D', H', W', n)`."""
  strides = [axis.stride for axis in plan.axes]
  return _convolve(plan, x, w, strides, [pads(axis) for axis in plan.axes])


def _convolve(plan, x, w, strides, padding):
  """XLA's own, of operands in the plan's precision."""
  y = lax.conv_general_dilated(
    operand(x, plan.precision),
    operand(w.astype(x.dtype), plan.precision),
    strides,
    padding,
    dimension_numbers=_DIMENSIONS,
    precision=of_lax(plan.precision),
  )
  return y.astype(x.dtype)


def _to_phases(
  axes: Axes, x: types.Array, lengths: Sequence[int], lows: Sequence[int]
) -> types.Array:
  """(D, H, W, c, ...) -> (length, length, length, phases and c, ...)."""
  x = split(axes, x, lengths, lows)
  x = x.transpose(0, 2, 4, 1, 3, 5, *range(6, x.ndim))
  return x.reshape(*lengths, math.prod(x.shape[3:7]), *x.shape[7:])


def phases(plan: Plan, x: types.Array, w: types.Array) -> types.Array:
  """As `direct`, by phases."""
  axes = plan.axes
  taps = [phase_taps(axis) for axis in axes]
  lengths = [axis.out - 1 + t for axis, t in zip(axes, taps, strict=True)]
  lows = [axis.low for axis in axes]
  x = jax.vmap(lambda x: _to_phases(axes, x, lengths, lows))(x)
  w = _to_phases(axes, w.astype(x.dtype), taps, (0, 0, 0))
  return _convolve(plan, x, w, (1, 1, 1), 'VALID')


def transpose(
  forward: Callable[[Plan, types.Array, types.Array], types.Array],
  plan: Plan,
  y: types.Array,
  w: types.Array,
) -> types.Array:
  """The adjoint of `forward`, `direct` or `phases`, in x: `(m, D, H, W, c)`."""
  sides = (axis.size for axis in plan.axes)
  like = jax.ShapeDtypeStruct((len(y), *sides, w.shape[3]), y.dtype)
  return jax.linear_transpose(lambda x: forward(plan, x, w), like)(y)[0]


direct_transpose = functools.partial(transpose, direct)
phases_transpose = functools.partial(transpose, phases)
