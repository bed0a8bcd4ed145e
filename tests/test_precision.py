"""Products of fewer bits: what is rounded, by how much, and where it is not."""

import functools
import re

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

import dnet_jax
from dnet_jax import convolution
from dnet_jax.convolution import precision as precisions
from tests import reference

METHODS = convolution.METHODS
# Bits of the mantissa, the leading one not counted.
BITS = {'float32': 23, 'tensorfloat32': 10, 'bfloat16': 7}
GRID, TAPS, STRIDES = (6, 5, 7), (3, 4, 3), (2, 1, 3)


@functools.cache
def arrays():
  rng = np.random.default_rng(0)
  naive = reference.Correlation(
    GRID, TAPS, STRIDES, reference.same_pads(GRID, TAPS, STRIDES)
  )
  x = rng.normal(size=(2, *GRID, 4)).astype(np.float32)
  w = rng.normal(size=(*TAPS, 4, 3)).astype(np.float32)
  y = rng.normal(size=naive.value(x, w).shape).astype(np.float32)
  return x, w, y, naive


def all_three(x, w, y, **settings):
  """The correlation, its gradients, and its adjoint by itself."""
  value, pull = jax.vjp(
    lambda x, w: dnet_jax.correlate(x, w, STRIDES, **settings), x, w
  )
  pads = reference.same_pads(GRID, TAPS, STRIDES)
  transposed = dnet_jax.correlate_transpose(y, w, STRIDES, pads, **settings)
  return value, *pull(y), transposed


@functools.cache
def expected():
  x, w, y, naive = arrays()
  back = naive.adjoint_input(y, w)
  return naive.value(x, w), back, naive.adjoint_kernel(x, y), back


def relative(value, truth):
  truth = np.asarray(truth, np.float64)
  return np.linalg.norm(np.asarray(value, np.float64) - truth) / np.linalg.norm(
    truth
  )


@pytest.mark.parametrize('precision', convolution.PRECISIONS)
@pytest.mark.parametrize('method', METHODS)
def test_errors_are_those_of_so_many_bits(method, precision, optimised):
  x, w, y, _ = arrays()
  compute = jax.jit(
    functools.partial(all_three, method=method, precision=precision),
    compiler_options=optimised,
  )
  # An operand is off by at most half a unit of its last bit, two operands by
  # the square root of two as much; in the mean a half of that.
  unit = 2.0 ** -(BITS[precision] + 1)
  for value, truth in zip(compute(x, w, y), expected(), strict=True):
    assert value.dtype == jnp.float32
    error = relative(value, truth)
    if precision == 'float32':
      assert error < 1e-5
    elif method == 'winograd':
      # Its points amplify what is rounded between the transforms.
      assert unit / 2 < error < 30 * unit
    else:
      assert unit / 3 < error < 1.5 * unit


@pytest.mark.parametrize('method', ['direct', 'phases', 'im2col', 'shifts'])
def test_rounded_operands_are_multiplied_exactly(method):
  # Numbers with few bits lose none, where no transform makes others of them.
  rng = np.random.default_rng(0)
  x = rng.integers(-8, 9, (2, 4, 4, 4, 3)).astype(np.float32)
  w = rng.integers(-8, 9, (3, 3, 3, 3, 2)).astype(np.float32)
  pads = reference.same_pads((4,) * 3, (3,) * 3, (1,) * 3)
  truth = reference.Correlation((4,) * 3, (3,) * 3, (1,) * 3, pads).value(x, w)
  settings = dict(method=method, precision='tensorfloat32')
  assert relative(dnet_jax.correlate(x, w, **settings), truth) == 0


@pytest.mark.parametrize('precision', ['bfloat16'])
@pytest.mark.parametrize('method', METHODS)
def test_forward_mode_and_second_order(method, precision):
  x, w, _, naive = arrays()
  u = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
  one = functools.partial(
    dnet_jax.correlate, strides=STRIDES, method=method, precision=precision
  )

  @jax.jit
  def compute(x, w, u):
    slope = jax.grad(lambda x: (one(x, w) ** 2).sum() / 2)
    return (
      jax.jvp(lambda x: one(x, w), (x,), (u,))[1],
      jax.jvp(slope, (x,), (u,))[1],
      jax.vmap(lambda x: one(x, w), 1, 1)(x[:, None])[:, 0],
    )

  along = naive.value(u, w)
  truths = along, naive.adjoint_input(along, w), expected()[0]
  for value, truth in zip(compute(x, w, u), truths, strict=True):
    assert relative(value, truth) < (
      40 if method == 'winograd' else 3
    ) * 2.0 ** -(BITS[precision] + 1)


@pytest.mark.parametrize('method', METHODS)
def test_no_precision_is_the_program_of_before_on_a_cpu(method):
  """In float32, by the same operations: nothing is rounded or cast."""
  x, w, y, _ = arrays()

  def lowered(precision):
    run = functools.partial(all_three, method=method, precision=precision)
    return jax.jit(run).lower(x, w, y).as_text()

  text = lowered(None)
  for word in ('reduce_precision', 'bf16', 'case'):
    assert word not in text, word
  # What these multiply by default is float32 on a CPU, and nowhere else.
  if method in ('direct', 'phases'):
    assert 'HIGHEST' not in text
    text = text.replace('DEFAULT', 'HIGHEST')
  assert text == lowered('float32')
  assert 'reduce_precision' in lowered('tensorfloat32')
  assert 'bf16' in lowered('bfloat16')


@pytest.mark.slow
def test_what_is_asked_of_a_gpu():
  x, w, y, _ = arrays()

  def words(method, precision):
    run = functools.partial(all_three, method=method, precision=precision)
    exported = export.export(jax.jit(run), platforms=['cuda'])(x, w, y)
    wanted = r'\b(HIGHEST|HIGH|reduce_precision|\w*xbf16)\b'
    found = re.findall(wanted, exported.mlir_module())
    return {'bf16' if word.endswith('bf16') else word for word in found}

  assert words('phases', None) == set()  # JAX's default: TF32.
  assert words('phases', 'float32') == {'HIGHEST'}
  assert words('phases', 'tensorfloat32') == {'HIGH'}
  assert words('phases', 'bfloat16') == {'reduce_precision', 'bf16'}
  for method in ('fourier', 'fourier_complex', 'winograd'):
    # The small matrices of transforms are multiplied in float32 always.
    assert words(method, None) == {'HIGHEST'}
    assert words(method, 'float32') == {'HIGHEST'}
    assert words(method, 'tensorfloat32') == {'HIGHEST', 'HIGH'}
    assert words(method, 'bfloat16') == {
      'HIGHEST',
      'reduce_precision',
      'bf16',
    }


@pytest.mark.parametrize('precision', [None, *convolution.PRECISIONS])
def test_complex_products(precision):
  rng = np.random.default_rng(0)
  a, b = (
    (rng.normal(size=s) + 1j * rng.normal(size=s)).astype(np.complex64)
    for s in ((4, 7, 9), (4, 9, 5))
  )
  given = precisions.matmul(a, b, precision)
  bits = BITS[precision or 'float32']
  assert relative_complex(given, a, b) < max(2.0**-bits, 1e-6)
  if bits < 20:
    assert relative_complex(given, a, b) > 2.0 ** -(bits + 3)


def relative_complex(value, a, b):
  truth = a.astype(np.complex128) @ b.astype(np.complex128)
  return np.abs(np.asarray(value) - truth).max() / np.abs(truth).max()


def test_rounding_is_to_the_nearest():
  x = jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)
  for name in ('tensorfloat32', 'bfloat16'):
    rounded = precisions.operand(x, name).astype(jnp.float32)
    steps = jnp.abs(rounded / x - 1) * 2 ** (BITS[name] + 1)
    assert 0.9 < steps.max() <= 1
  assert precisions.operand(x, 'float32') is x
  assert precisions.operand(x, None) is x


def test_a_network_of_fewer_bits():
  y = jax.random.normal(jax.random.key(0), (2, 8, 8, 8, 1))
  nets = {
    name: dnet_jax.Descriptor(
      **dnet_jax.DESCRIPTORS['tiny'], init_std=0.2, precision=name
    )
    for name in (None, *convolution.PRECISIONS)
  }
  params = jax.jit(nets[None].init)(jax.random.key(1), y[:0])
  scores = {
    name: jax.jit(jax.grad(lambda y, net=net: net.apply(params, y).sum()))(y)
    for name, net in nets.items()
  }
  np.testing.assert_array_equal(scores[None], scores['float32'])
  errors = [
    relative(scores[name], scores[None])
    for name in ('tensorfloat32', 'bfloat16')
  ]
  # A ReLU near zero may turn.
  assert 1e-5 < errors[0] < 1e-2
  assert 2 * errors[0] < errors[1] < 1e-1


def test_unknown_names_are_refused():
  x, w = jnp.ones((1, 4, 4, 4, 2)), jnp.ones((3, 3, 3, 2, 2))
  for function in (dnet_jax.correlate, dnet_jax.correlate_transpose):
    with pytest.raises(ValueError, match=r"one of .*'bfloat16'.*got 'half'"):
      function(x, w, precision='half')


# The form of the Fourier transform for a GPU, as XLA is given it.


def program(method, derivative):
  x = jax.ShapeDtypeStruct((25, 32, 32, 32, 1), jnp.float32)
  w = jax.ShapeDtypeStruct((16, 16, 16, 1, 200), jnp.float32)
  y = jax.ShapeDtypeStruct((25, 11, 11, 11, 200), jnp.float32)
  one = functools.partial(dnet_jax.correlate, strides=3, method=method)

  def back(i, x, w, y):
    return jax.vjp(one, x, w)[1](y)[i]

  functions = {
    'value': lambda x, w, y: one(x, w),
    'input': functools.partial(back, 0),
    'kernel': functools.partial(back, 1),
  }
  exported = export.export(jax.jit(functions[derivative]), platforms=['cuda'])(
    x, w, y
  )
  return exported.mlir_module().splitlines()


@pytest.mark.parametrize('derivative', ['value', 'input', 'kernel'])
def test_one_large_product_for_each_axis(derivative):
  """Of 6.1's first layer, 25 chains."""
  lines = program('fourier_complex', derivative)

  def count(word, lines=lines):
    return sum(word in line for line in lines)

  # Three bilinear factors of three axes, and the product over channels, of
  # which alone has batches.
  products = [line for line in lines if 'stablehlo.dot_general' in line]
  assert len(products) == 10
  assert sum('batching_dims' in line for line in products) == 1
  # One for each array that comes or goes, and one that is an operand's.
  assert count('stablehlo.transpose') <= 4
  # No copies of the small matrices, no chunks, no concatenation of parts.
  for line in lines:
    assert 'broadcast_in_dim' not in line or 'dims = []' in line
  assert count('stablehlo.while') == count('stablehlo.concatenate') == 0
  # The search is not in vain: the form for a CPU has them all.
  cpu = program('fourier', derivative)
  assert count('stablehlo.while', cpu) > 0
  assert any(
    'broadcast_in_dim' in line and 'dims = []' not in line for line in cpu
  )
