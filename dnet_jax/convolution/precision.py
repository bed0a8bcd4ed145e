"""How many bits the operands of a product keep; sums are always in float32.

A name means the same bits on every platform. Where the hardware does not round
(a CPU, in TF32), operands are rounded before the product, so that the error of
a GPU can be seen, and learned with, without one.
"""

from jax import lax
import jax.numpy as jnp
import numpy as np

from dnet_jax import types

# By the names that JAX has for them.
PRECISIONS = ('float32', 'tensorfloat32', 'bfloat16')
_EXPONENT = 8  # Bits, of all three.
_MANTISSA = {'tensorfloat32': 10, 'bfloat16': 7}


def check_precision(precision: str | None) -> None:
  """Raises ValueError for an unknown name."""
  if precision is not None and precision not in PRECISIONS:
    raise ValueError(
      f'precision must be one of {PRECISIONS} or None, got {precision!r}'
    )


def of_lax(precision: str | None) -> lax.Precision | None:
  """The precision that XLA is given for a product of `operand`s.

  None is JAX's default of the backend: float32 on a CPU, TF32 on a GPU that has
  it, bfloat16 on a TPU.
  """
  return {
    None: None,
    'float32': lax.Precision.HIGHEST,
    # TF32 on a GPU; three products of bfloat16 on a TPU, which have more bits.
    'tensorfloat32': lax.Precision.HIGH,
    'bfloat16': lax.Precision.DEFAULT,
  }[precision]


def operand(x: types.Array, precision: str | None) -> types.Array:
  """A real array as the operand of a product, in bfloat16 where asked for.

  Linear in x for JAX, and its own adjoint: a derivative is then rounded after
  its product and not before, which is the same relative error.
  """
  if precision not in _MANTISSA:
    return x
  bits = _MANTISSA[precision]

  def rounded(x):
    return lax.reduce_precision(x, _EXPONENT, bits)

  if precision == 'bfloat16':
    # XLA may drop a cast to bfloat16 and back, but not this.
    return rounded(x).astype(jnp.bfloat16)
  return lax.platform_dependent(x, cpu=rounded, default=lambda x: x)


def matmul(
  a: types.Array | np.ndarray, b: types.Array, precision: str | None = None
) -> types.Array:
  """A product of stacks of matrices, real or complex; None: in float32."""
  if precision is None or precision == 'float32':
    # HIGHEST, since the backend may round by default.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
  a = jnp.asarray(a)
  if not jnp.iscomplexobj(a):
    return jnp.matmul(
      operand(a, precision),
      operand(b, precision),
      precision=of_lax(precision),
      preferred_element_type=jnp.float32,
    )
  if precision == 'bfloat16':
    # There is no complex bfloat16.
    product = matmul(_real_rows(a), _real_columns(b), precision)
    return lax.complex(*jnp.split(product, 2, -2))
  a, b = (
    lax.complex(operand(x.real, precision), operand(x.imag, precision))
    for x in (a, b)
  )
  return jnp.matmul(a, b, precision=of_lax(precision))


def _real_rows(a):
  """(..., m, k) as (..., 2 m, 2 k): rows of real, then of imaginary parts."""
  real = jnp.concatenate([a.real, a.imag], -1)
  imaginary = jnp.concatenate([a.imag, -a.real], -1)
  return jnp.concatenate([real, imaginary], -2)


def _real_columns(b):
  """(..., k, n) as (..., 2 k, n), for `_real_rows`."""
  return jnp.concatenate([b.real, -b.imag], -2)
