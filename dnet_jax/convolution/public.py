"""`correlate`, its adjoint, and how many chains to take through a layer.

`correlate` is what deep learning calls a 3-D convolution; `correlate_transpose`
is its adjoint in the input, the "transposed convolution" of generators.
"""

from collections.abc import Sequence
import functools
import math

from dnet_jax import types
from dnet_jax.convolution import chunks
from dnet_jax.convolution import derivatives
from dnet_jax.convolution import plans
from dnet_jax.convolution.axes import make_axes
from dnet_jax.convolution.axes import triple


def _check(x, kernel, method, channel_axis):
  plans.check_method(method)
  if (
    x.ndim < 4 or kernel.ndim != 5 or x.shape[-1] != kernel.shape[channel_axis]
  ):
    raise ValueError(
      'expected (*chains, D, H, W, channels) and a kernel (kD, kH, kW, in, '
      f'out) of the same channels, got shapes {x.shape} and {kernel.shape}'
    )


def _choose(axes, method, chains, kernel, precision):
  """The functions of a plan, `(correlate, transpose)` of arrays."""
  if method is None and chains:
    later = plans.later(axes, precision)
    return (
      functools.partial(derivatives.correlate, later),
      functools.partial(derivatives.transpose, later),
    )
  # A named method is the same on every platform; without chains it does not
  # matter.
  c, n = kernel.shape[3:]
  plan = plans.choose(axes, method, chains, c, n, 'cpu', precision)
  return (
    functools.partial(plan.method.correlate, plan),
    functools.partial(plan.method.transpose, plan),
  )


def correlate(
  x: types.Array,
  kernel: types.Array,
  strides: int | Sequence[int] = 1,
  padding: str | Sequence[tuple[int, int]] = 'SAME',
  *,
  method: str | None = None,
  precision: str | None = None,
) -> types.Array:
  """Strided 3-D correlation: `y[o] = sum_t x[s o + t - low] w[t]`.

  Differentiable in both modes and to any order.

  Args:
    x: `(*chains, D, H, W, C_in)`.
    kernel: `(kD, kH, kW, C_in, C_out)`.
    strides: one for all axes or three.
    padding: 'SAME', 'VALID' or three pairs (low, high), as in `lax`.
    method: one of `METHODS`; None: the fastest for these sizes on the platform
      that the program is lowered for. 'direct' is XLA's own convolution,
      'phases' the same after exact algebra; both compute in the dtype of x. The
      others compute in float32.
    precision: of the operands of products, 'float32', 'tensorfloat32' (10 bits
      of mantissa) or 'bfloat16' (7 bits); sums are in float32. What transforms
      multiply before and after that product stays in float32. None: float32,
      but in 'direct' and 'phases' what JAX has as its default
      (`jax.default_matmul_precision`): TF32 on a GPU that has it, bfloat16 on a
      TPU.

  Returns:
    `(*chains, D', H', W', C_out)` of the dtype of x. In float32 the relative
    error against float64 is about 1e-6 (fourier) to 5e-6 (winograd); for other
    precisions see docs/speed.md.

  Raises:
    ValueError: for shapes that do not fit each other, or an unknown name.

  >>> import jax.numpy as jnp
  >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2, 1)
  >>> correlate(x, jnp.ones((2, 2, 2, 1, 1)), padding='VALID').round(4).item()
  28.0
  """
  _check(x, kernel, method, 3)
  strides = triple(strides, 'strides')
  axes = make_axes(x.shape[-4:-1], kernel.shape[:3], strides, padding)
  chains = x.reshape(math.prod(x.shape[:-4]), *x.shape[-4:])
  y = _choose(axes, method, len(chains), kernel, precision)[0](chains, kernel)
  return y.reshape(*x.shape[:-4], *y.shape[1:])


def correlate_transpose(
  y: types.Array,
  kernel: types.Array,
  strides: int | Sequence[int] = 1,
  padding: str | Sequence[tuple[int, int]] = 'SAME',
  *,
  method: str | None = None,
  precision: str | None = None,
) -> types.Array:
  """Transposed correlation, which upsamples: the adjoint of `correlate`.

  `sum(y * correlate(x, w)) = sum(x * correlate_transpose(y, w))` for every x
  of the size of the result.

  Args:
    y: `(*chains, D, H, W, C_in)`.
    kernel: `(kD, kH, kW, C_out, C_in)`: the kernel of that correlation.
    strides: the factors by which the grid grows, one or three.
    padding: of the correlation. 'SAME': sides `D * stride`; 'VALID': sides
      `(D - 1) * stride + kD`; or three pairs (low, high).
    method: as for `correlate`.
    precision: as for `correlate`.

  Returns:
    `(*chains, D', H', W', C_out)` of the dtype of y.

  Raises:
    ValueError: for shapes that do not fit each other, or an unknown name.

  >>> import jax.numpy as jnp
  >>> y = jnp.ones((1, 1, 1, 1, 1))
  >>> correlate_transpose(y, jnp.ones((2, 2, 2, 1, 1)), 2).shape
  (1, 2, 2, 2, 1)
  """
  _check(y, kernel, method, 4)
  strides = triple(strides, 'strides')
  taps = kernel.shape[:3]
  sides = y.shape[-4:-1]
  if padding == 'SAME':
    grid = tuple(d * s for d, s in zip(sides, strides, strict=True))
  else:
    pads = ((0, 0),) * 3 if isinstance(padding, str) else tuple(padding)
    grid = tuple(
      (d - 1) * s + k - low - high
      for d, s, k, (low, high) in zip(sides, strides, taps, pads, strict=True)
    )
  axes = make_axes(grid, taps, strides, padding)
  chains = y.reshape(math.prod(y.shape[:-4]), *y.shape[-4:])
  x = _choose(axes, method, len(chains), kernel, precision)[1](chains, kernel)
  return x.reshape(*y.shape[:-4], *x.shape[1:])


def chains_at_once(
  shape: Sequence[int],
  kernel_shape: Sequence[int],
  strides: int | Sequence[int] = 1,
  padding: str | Sequence[tuple[int, int]] = 'SAME',
  *,
  method: str | None = None,
) -> tuple[int, tuple[int, ...]]:
  """How many chains a network should take through this layer, on a CPU.

  'im2col' takes few chains at a time anyway, so a network can compute its next
  layers while their feature maps are in the cache. Transforms would read
  all of `K w` for each group; XLA's own convolution takes all chains.

  Args:
    shape: of its input, `(m, D, H, W, C_in)`.
    kernel_shape: `(kD, kH, kW, C_in, C_out)`.
    strides: as for `correlate`.
    padding: as for `correlate`.
    method: as for `correlate`.

  Returns:
    Chains, at most m, and the shape `(m, D', H', W', C_out)` of the result.

  >>> chains_at_once((3, 8, 8, 8, 1), (3, 3, 3, 1, 4))
  (3, (3, 8, 8, 8, 4))
  """
  m, *grid, _ = shape
  *taps, c, n = kernel_shape
  axes = make_axes(grid, taps, triple(strides, 'strides'), padding)
  plan = plans.choose(axes, method, m, c, n, 'cpu')
  factors = plan.method.factors
  some = m
  if factors is not None and factors.result_is_product:
    some = chunks.chunk_size(plan, m, c, n)
  return some, (m, *(axis.out for axis in axes), n)
