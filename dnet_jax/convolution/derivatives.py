"""The three bilinear maps, which are each other's derivatives.

A correlation y = C(x, w), its adjoint in the input x = A(y, w) and its adjoint
in the kernel w = K(x, y): each has its matrix product in the layout that is
fastest for it. Where two derivatives need the same transform, it is made once.

A plan that waits for its platform (`Later`) is made when a program is lowered,
so that a program for another platform gets that platform's plan.
"""

import functools

import jax
import jax.numpy as jnp

from dnet_jax import types
from dnet_jax.convolution import bilinear
from dnet_jax.convolution import chunks
from dnet_jax.convolution.methods import factors_of
from dnet_jax.convolution.methods import known_plan
from dnet_jax.convolution.methods import Later
from dnet_jax.convolution.methods import Plan
from dnet_jax.convolution.precision import matmul

# How each map and each pair of derivatives is computed, on arrays (m, D, H, W,
# channels) and (taps..., c, n) of one dtype, by methods that have factors.


def _correlate(plan, x, w):
  """C(x, w), `(m, D', H', W', n)`."""
  factors = factors_of(plan)
  k = factors.kernel_factor(plan, w, False)

  def some(x):
    product = matmul(factors.factor(plan, x), k, plan.precision)
    return factors.result(plan, product, len(x))

  return chunks.in_chunks_of(plan, some, x, *w.shape[3:])


def _adjoint_input(plan, y, w):
  """A(y, w), `(m, D, H, W, c)`."""
  factors = factors_of(plan)
  c, n = w.shape[3:]
  last = chunks.shares_kernel(plan, len(y), c, n)
  k = factors.kernel_factor(plan, w, not last)

  def some(y):
    product = factors.result_transposed(plan, y, last)
    pair = (k, product) if last else (product, k)
    product = matmul(*pair, plan.precision)
    return factors.factor_transposed(plan, product, len(y), c, last)

  return chunks.in_chunks_of(plan, some, y, c, n)


def _adjoint_kernel(plan, x, y):
  """K(x, y), `(taps..., c, n)`."""
  factors = factors_of(plan)
  c, n = x.shape[4], y.shape[4]

  def some(x, y):
    x, y = factors.factor(plan, x), factors.result_transposed(plan, y, False)
    return None, factors.kernel_factor_transposed(plan, x, y, c)

  return chunks.in_chunks_summed(plan, some, (x, y), c, n)[1]


def _both_of_correlate(plan, x, w, y):
  """A(y, w) and K(x, y): y is transformed once."""
  factors = factors_of(plan)
  c, n = w.shape[3:]
  if factors.result_is_product or chunks.shares_kernel(plan, len(y), c, n):
    # Nothing is shared, or y is not transformed to the same order.
    return _adjoint_input(plan, y, w), _adjoint_kernel(plan, x, y)
  k = factors.kernel_factor(plan, w, True)

  def some(x, y):
    y = factors.result_transposed(plan, y, False)
    return (
      factors.factor_transposed(
        plan, matmul(y, k, plan.precision), len(x), c, False
      ),
      factors.kernel_factor_transposed(plan, factors.factor(plan, x), y, c),
    )

  return chunks.in_chunks_summed(plan, some, (x, y), c, n)


def _both_of_adjoint_input(plan, y, w, x):
  """C(x, w) and K(x, y): x is transformed once."""
  factors = factors_of(plan)
  c, n = w.shape[3:]
  k = factors.kernel_factor(plan, w, False)

  def some(x, y):
    m = len(x)
    x, y = factors.factor(plan, x), factors.result_transposed(plan, y, False)
    return (
      factors.result(plan, matmul(x, k, plan.precision), m),
      factors.kernel_factor_transposed(plan, x, y, c),
    )

  return chunks.in_chunks_summed(plan, some, (x, y), c, n)


def _both_of_adjoint_kernel(plan, x, y, w):
  """A(y, w) and C(x, w): they have no transform in common."""
  return _adjoint_input(plan, y, w), _correlate(plan, x, w)


# The same by XLA's own convolution.


def _direct_kernel(plan, x, y):
  """K(x, y)."""
  taps = (axis.taps for axis in plan.axes)
  like = jax.ShapeDtypeStruct((*taps, x.shape[4], y.shape[4]), x.dtype)
  correlate = functools.partial(plan.method.correlate, plan, x)
  return jax.linear_transpose(correlate, like)(y)[0]


def _direct_correlate(plan, x, w):
  return plan.method.correlate(plan, x, w)


def _direct_input(plan, y, w):
  return plan.method.transpose(plan, y, w)


def _run(sizes, by_factors, directly):
  """A map or a pair of derivatives, by the plan of the platform.

  Args:
    sizes: `(*shapes) -> (chains, c, n)`.
    by_factors: `(plan, *arrays)`, in float32.
    directly: likewise, in the dtype of the arrays.
  """

  def run(plan, platform, *arrays):
    shapes = (array.shape for array in arrays)
    plan = known_plan(plan, platform, *sizes(*shapes))
    if plan.method.factors is None:
      return directly(plan, *arrays)
    dtype = arrays[0].dtype
    result = by_factors(plan, *(x.astype(jnp.float32) for x in arrays))
    return jax.tree.map(lambda x: x.astype(dtype), result)

  return run


def _of_chains_and_kernel(x, w, *rest):
  """`(chains, c, n)` of `C(x, w)` and `A(y, w)`, from shapes."""
  del rest
  return x[0], *w[3:]


def _of_chains(x, y, *rest):
  """`(chains, c, n)` of `K(x, y)`, from shapes."""
  del rest
  return x[0], x[4], y[4]


_CORRELATE = bilinear.make_map(
  'correlate',
  _run(_of_chains_and_kernel, _correlate, _direct_correlate),
  _run(
    _of_chains_and_kernel,
    _both_of_correlate,
    lambda plan, x, w, y: (
      _direct_input(plan, y, w),
      _direct_kernel(plan, x, y),
    ),
  ),
  lambda plan, x, w: (x[0], *(axis.out for axis in plan.axes), w[4]),
)
_ADJOINT_INPUT = bilinear.make_map(
  'correlate_adjoint_input',
  _run(_of_chains_and_kernel, _adjoint_input, _direct_input),
  _run(
    _of_chains_and_kernel,
    _both_of_adjoint_input,
    lambda plan, y, w, x: (
      _direct_correlate(plan, x, w),
      _direct_kernel(plan, x, y),
    ),
  ),
  lambda plan, y, w: (y[0], *(axis.size for axis in plan.axes), w[3]),
)
_ADJOINT_KERNEL = bilinear.make_map(
  'correlate_adjoint_kernel',
  _run(_of_chains, _adjoint_kernel, _direct_kernel),
  _run(
    _of_chains,
    _both_of_adjoint_kernel,
    lambda plan, x, y, w: (
      _direct_input(plan, y, w),
      _direct_correlate(plan, x, w),
    ),
  ),
  lambda plan, x, y: (*(axis.taps for axis in plan.axes), x[4], y[4]),
)
bilinear.define_derivatives(
  _CORRELATE,  # of (x, w), cotangent y
  bilinear.Adjoint(_ADJOINT_INPUT, cotangent_first=True),
  bilinear.Adjoint(_ADJOINT_KERNEL, cotangent_first=False),
)
bilinear.define_derivatives(
  _ADJOINT_INPUT,  # of (y, w), cotangent x
  bilinear.Adjoint(_CORRELATE, cotangent_first=True),
  bilinear.Adjoint(_ADJOINT_KERNEL, cotangent_first=True),
)
bilinear.define_derivatives(
  _ADJOINT_KERNEL,  # of (x, y), cotangent w
  bilinear.Adjoint(_ADJOINT_INPUT, cotangent_first=False),
  bilinear.Adjoint(_CORRELATE, cotangent_first=False),
)


def _call(of, plan, x, w):
  """Returns the dtype of x; arrays of different dtypes become float32."""
  if x.dtype == w.dtype:
    return bilinear.call(of, plan, x, w)
  x32, w32 = x.astype(jnp.float32), w.astype(jnp.float32)
  return bilinear.call(of, plan, x32, w32).astype(x.dtype)


def correlate(
  plan: Plan | Later, x: types.Array, w: types.Array
) -> types.Array:
  """`(m, D, H, W, c)` and `(kD, kH, kW, c, n)` to `(m, D', H', W', n)`."""
  return _call(_CORRELATE, plan, x, w)


def transpose(
  plan: Plan | Later, y: types.Array, w: types.Array
) -> types.Array:
  """The adjoint of `correlate` in x: `(m, D', H', W', n)` to `(m, D, ...)`."""
  return _call(_ADJOINT_INPUT, plan, y, w)
