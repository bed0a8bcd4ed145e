import functools
import itertools
import re

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

import dnet_jax
from dnet_jax import convolution
from dnet_jax.convolution import axes
from dnet_jax.convolution import chunks
from dnet_jax.convolution import derivatives
from dnet_jax.convolution import matrices
from dnet_jax.convolution import methods
from dnet_jax.convolution import plans
from dnet_jax.convolution import transforms
from tests import reference

METHODS = (*convolution.METHODS, None)
# Of the issue: exact to float32 rounding, worst and typical.
WORST = 1e-4
TYPICAL = 1e-5
# Methods that multiply O [(I x) * (K w)].
WITH_FACTORS = ('fourier', 'fourier_complex', 'winograd', 'im2col', 'shifts')

PADS = ((2, 0), (1, 3), (0, 4))
CROPS = ((-1, 0), (0, -2), (1, -1))
# (chains, grid, taps, strides, padding, channels in, channels out)
CASES = {
  'odd_same': (2, (7, 7, 7), (3, 3, 3), (2, 2, 2), 'SAME', 2, 3),
  'even_same': (3, (8, 8, 8), (4, 4, 4), (2, 2, 2), 'SAME', 1, 4),
  'even_valid': (2, (8, 9, 7), (4, 2, 3), (1, 2, 3), 'VALID', 3, 2),
  'stride_beyond_kernel': (2, (9, 8, 7), (2, 1, 2), (3, 4, 3), 'SAME', 2, 2),
  'kernel_beyond_grid': (2, (4, 5, 3), (9, 6, 7), (2, 3, 2), 'SAME', 1, 2),
  'one_voxel': (1, (1, 1, 1), (5, 5, 5), (3, 3, 3), 'SAME', 1, 3),
  'whole_grid': (2, (4, 3, 5), (4, 3, 5), (1, 1, 1), 'VALID', 2, 1),
  'explicit': (2, (6, 5, 7), (3, 4, 2), (2, 1, 3), PADS, 1, 2),
  'cropping': (2, (8, 7, 6), (3, 2, 3), (2, 1, 1), CROPS, 2, 2),
  'paper_first': (1, (8, 8, 8), (16, 16, 16), (3, 3, 3), 'SAME', 1, 2),
}  # fmt: skip


def random_case(seed):
  """Sizes drawn at random that have an output and suit every method."""
  rng = np.random.default_rng(seed)
  while True:
    grid = tuple(int(n) for n in rng.integers(1, 10, 3))
    taps = tuple(int(n) for n in rng.integers(1, 7, 3))
    strides = tuple(int(n) for n in rng.integers(1, 4, 3))
    padding = ('SAME', 'VALID', None)[rng.integers(3)]
    if padding is None:
      padding = tuple((int(a), int(b)) for a, b in rng.integers(0, 4, (3, 2)))
    pads = pads_of(grid, taps, strides, padding)
    fits = all(
      n + low + high >= k
      for n, k, (low, high) in zip(grid, taps, pads, strict=True)
    )
    if fits:
      chains, c, n = (int(i) for i in rng.integers(1, 4, 3))
      return chains, grid, taps, strides, padding, c, n


def pads_of(grid, taps, strides, padding):
  if padding == 'SAME':
    return reference.same_pads(grid, taps, strides)
  return ((0, 0),) * 3 if padding == 'VALID' else padding


CASES |= {f'random_{seed}': random_case(seed) for seed in range(4)}


def set_limits(monkeypatch, name, *limits):
  """Bytes, least and most, and fewest chains of a chunk."""
  method = plans.BY_NAME[name]
  factors = method.factors._replace(limits=methods.Limits(*limits))
  monkeypatch.setitem(plans.BY_NAME, name, method._replace(factors=factors))


def plan_of(method, grid, taps, strides, chains, c, n):
  layer = axes.make_axes(grid, taps, strides, 'SAME')
  return plans.choose(layer, method, chains, c, n, 'cpu')


def relative_error(value, expected):
  value = np.asarray(value, np.float64)
  assert value.shape == expected.shape
  return np.abs(value - expected).max() / np.abs(expected).max()


def arrays(chains, grid, taps, strides, padding, c, n, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(chains, *grid, c)).astype(np.float32)
  w = rng.normal(size=(*taps, c, n)).astype(np.float32)
  pads = pads_of(grid, taps, strides, padding)
  naive = reference.Correlation(grid, taps, strides, pads)
  y_bar = rng.normal(size=naive.value(x, w).shape).astype(np.float32)
  return x, w, y_bar, naive


def winograd_fits(taps, strides):
  return max(-(-k // s) for k, s in zip(taps, strides, strict=True)) <= 6


@functools.cache
def expected_of(name):
  """What `compute` below should give, in float64."""
  x, w, y_bar, naive = arrays(*CASES[name])
  y = naive.value(x, w)
  x_bar = naive.adjoint_input(y_bar, w)
  g = naive.adjoint_input(y, w)  # Of the half square, in x.
  y_g = naive.value(g, w)
  return (
    y,
    x_bar,
    naive.adjoint_kernel(x, y_bar),
    x_bar,
    naive.adjoint_input(y_g, w),
    naive.adjoint_kernel(g, y) + naive.adjoint_kernel(x, y_g),
  )


@pytest.mark.parametrize(
  ('name', 'method'),
  [
    (name, method)
    for name in CASES
    for method in convolution.METHODS
    # XLA's own gradients of so large a kernel take a minute, and so does the
    # compilation of 216 shifts.
    if name != 'paper_first' or method not in ('direct', 'shifts')
  ]
  + [('odd_same', None), ('paper_first', None)],
)
def test_matches_float64_to_second_order(name, method, optimised):
  _, _, taps, strides, padding, _, _ = CASES[name]
  if method == 'winograd':
    assert winograd_fits(taps, strides), 'choose cases that suit every method'
  x, w, y_bar, _ = arrays(*CASES[name])

  def correlate(x, w):
    return dnet_jax.correlate(x, w, strides, padding, method=method)

  def transpose(y, w):
    return dnet_jax.correlate_transpose(y, w, strides, pads, method=method)

  # Pads that give back exactly this grid, where SAME would give a larger one.
  pads = [
    (low, (out - 1) * s + k - size - low)
    for size, k, s, (low, _), out in zip(
      x.shape[1:4],
      taps,
      strides,
      pads_of(x.shape[1:4], taps, strides, padding),
      y_bar.shape[1:4],
      strict=True,
    )
  ]

  @functools.partial(jax.jit, compiler_options=optimised)
  def compute(x, w, y_bar):
    y, pull = jax.vjp(correlate, x, w)

    def squared_gradient(x, w):
      half_square = lambda x: jnp.sum(correlate(x, w) ** 2) / 2  # noqa: E731
      return jnp.sum(jax.grad(half_square)(x) ** 2) / 2

    return (
      y,
      *pull(y_bar),
      transpose(y_bar, w),
      *jax.grad(squared_gradient, (0, 1))(x, w),
    )

  expected = expected_of(name)
  errors = [
    relative_error(*pair)
    for pair in zip(compute(x, w, y_bar), expected, strict=True)
  ]
  assert max(errors) < WORST, errors
  if method not in ('winograd', 'im2col', None):  # None may be winograd.
    assert np.median(errors) < TYPICAL, errors


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_transpose_is_adjoint_and_grows(padding, method):
  strides, taps = (2, 3, 1), (4, 3, 2)
  rng = np.random.default_rng(0)
  y = rng.normal(size=(2, 3, 2, 4, 3)).astype(np.float32)
  w = rng.normal(size=(*taps, 2, 3)).astype(np.float32)
  settings = dict(strides=strides, padding=padding, method=method)
  correlate = jax.jit(functools.partial(dnet_jax.correlate, **settings))
  transpose = jax.jit(
    functools.partial(dnet_jax.correlate_transpose, **settings)
  )
  x = transpose(y, w)
  sides = zip(y.shape[1:4], strides, taps, strict=True)
  grid = tuple(
    d * s if padding == 'SAME' else (d - 1) * s + k for d, s, k in sides
  )
  assert x.shape == (2, *grid, 2)
  v = rng.normal(size=x.shape).astype(np.float32)
  left = np.vdot(y, correlate(v, w))
  scale = np.linalg.norm(v) * np.linalg.norm(x)
  assert abs(left - np.vdot(v, x)) < WORST * scale
  plain = lax.conv_transpose(
    y,
    w,
    strides,
    padding,
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
    transpose_kernel=True,
  )
  if plain.shape == x.shape:
    assert relative_error(x, np.asarray(plain, np.float64)) < WORST


@pytest.mark.parametrize('method', METHODS)
def test_chains_are_any_leading_axes(method):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 5, 4, 6, 2)).astype(np.float32)
  w = rng.normal(size=(3, 3, 3, 2, 2)).astype(np.float32)
  correlate = jax.jit(
    functools.partial(dnet_jax.correlate, strides=2, method=method)
  )
  flat = np.asarray(correlate(x.reshape(6, 5, 4, 6, 2), w), np.float64)
  assert relative_error(correlate(x, w), flat.reshape(2, 3, 3, 2, 3, 2)) < 1e-6
  assert relative_error(correlate(x[1, 2], w), flat[-1]) < WORST
  mapped = jax.vmap(correlate, (1, None), 1)(x, w)
  assert relative_error(mapped, flat.reshape(2, 3, 3, 2, 3, 2)) < WORST
  kernels = jax.vmap(correlate, (None, 0))(x[0], jnp.stack([w, 2 * w]))
  assert relative_error(kernels[1], 2 * flat.reshape(mapped.shape)[0]) < WORST


@pytest.mark.parametrize('method', METHODS)
def test_inside_scan(method):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 4, 4, 4, 2)).astype(np.float32)
  w = rng.normal(size=(3, 3, 3, 2, 2)).astype(np.float32) / 8

  @jax.jit
  def repeat(x, w):
    def step(x, _):
      return dnet_jax.correlate(x, w, method=method), None

    return lax.scan(step, x, None, length=3)[0]

  pads = reference.same_pads((4,) * 3, (3,) * 3, (1,) * 3)
  naive = reference.Correlation((4,) * 3, (3,) * 3, (1,) * 3, pads)
  expected = x
  for _ in range(3):
    expected = naive.value(expected, w)
  assert relative_error(repeat(x, w), expected) < WORST


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('transpose', [False, True])
def test_bfloat16_keeps_its_dtype(method, transpose):
  function = dnet_jax.correlate_transpose if transpose else dnet_jax.correlate
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 4, 4, 4, 2)), jnp.bfloat16)
  w = jnp.asarray(rng.normal(size=(3, 3, 3, 2, 2)), jnp.bfloat16)

  @jax.jit
  def compute(x, w):
    y = function(x, w, 2, method=method)
    in_float32 = function(x.astype(jnp.float32), w.astype(jnp.float32), 2)

    def total(x, w):
      return jnp.sum(function(x, w, 2, method=method).astype(jnp.float32))

    return y, in_float32, jax.grad(total, (0, 1))(x, w)

  y, in_float32, gradients = compute(x, w)
  assert y.dtype == jnp.bfloat16
  eps = float(jnp.finfo(jnp.bfloat16).eps)
  assert relative_error(y, np.asarray(in_float32, np.float64)) < 2 * eps
  for gradient in gradients:
    assert gradient.dtype == jnp.bfloat16
    assert jnp.isfinite(gradient.astype(jnp.float32)).all()


def test_choice_of_method_is_invisible():
  y = jax.random.normal(jax.random.key(0), (3, 8, 8, 8, 1))
  results = []
  for method in METHODS:
    net = dnet_jax.Descriptor(
      **dnet_jax.DESCRIPTORS['tiny'], init_std=0.2, method=method
    )
    params = jax.jit(net.init)(jax.random.key(1), y[:0])
    energy_fn = dnet_jax.descriptor_energy(net.apply)

    @jax.jit
    def both(params, y, energy_fn=energy_fn):
      bound = functools.partial(energy_fn, params)
      loss = lambda params: energy_fn(params, y).sum()  # noqa: E731
      return bound(y), dnet_jax.score(bound)(y), jax.grad(loss)(params)

    results.append(jax.tree.leaves(both(params, y)))
  for result in results[1:]:
    for value, expected in zip(result, results[0], strict=True):
      assert relative_error(value, np.asarray(expected, np.float64)) < WORST


@pytest.mark.parametrize(
  ('method', 'shares'),
  # The columns of 'im2col' have nothing to share.
  [('fourier', True), ('winograd', True)] + [(m, False) for m in WITH_FACTORS],
)
def test_chunks_and_shared_kernels_are_invisible(method, shares, monkeypatch):
  set_limits(monkeypatch, method, 0, 0, 2)  # 2, 2 and 1, which is made 2
  monkeypatch.setattr(chunks, 'shares_kernel', lambda *_: shares)
  x, w, y_bar, naive = arrays(5, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3)

  @jax.jit
  def compute(x, w, y_bar):
    y, pull = jax.vjp(
      lambda x, w: dnet_jax.correlate(x, w, (2, 3, 1), method=method), x, w
    )
    return y, *pull(y_bar)

  expected = (
    naive.value(x, w),
    naive.adjoint_input(y_bar, w),
    naive.adjoint_kernel(x, y_bar),
  )
  for pair in zip(compute(x, w, y_bar), expected, strict=True):
    assert relative_error(*pair) < WORST


@pytest.mark.parametrize('in_chunks', [False, True])
@pytest.mark.parametrize('method', WITH_FACTORS)
def test_derivatives_of_both_derivatives(method, in_chunks, monkeypatch):
  if in_chunks:
    set_limits(monkeypatch, method, 0, 0, 2)
  x, w, y, naive = arrays(5, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3)
  u, v, y_u, _ = arrays(
    5, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3, seed=1
  )
  plan = plan_of(method, (7, 6, 5), (3, 4, 2), (2, 3, 1), 5, 2, 3)
  correlate = functools.partial(derivatives.correlate, plan)
  transpose = functools.partial(derivatives.transpose, plan)

  def pulled(function, *directions):
    """Of the two derivatives, their sum along directions."""

    def total(a, b, cotangent):
      both = jax.vjp(function, a, b)[1](cotangent)
      return sum(map(jnp.vdot, both, directions))

    return jax.jit(jax.grad(total, (0, 1, 2)))

  given = (
    *pulled(correlate, u, v)(x, w, y),
    *pulled(transpose, y_u, v)(y, w, x),
  )
  expected = (
    naive.adjoint_input(y, v),
    naive.adjoint_kernel(u, y),
    naive.value(u, w) + naive.value(x, v),
    naive.value(x, v),
    naive.adjoint_kernel(x, y_u),
    naive.adjoint_input(y_u, w) + naive.adjoint_input(y, v),
  )
  for pair in zip(given, expected, strict=True):
    assert relative_error(*pair) < WORST


@pytest.mark.parametrize(
  ('method', 'in_chunks'),
  [(m, False) for m in convolution.METHODS] + [(m, True) for m in WITH_FACTORS],
)
def test_forward_mode_is_the_derivative(method, in_chunks, monkeypatch):
  if in_chunks:
    set_limits(monkeypatch, method, 0, 0, 2)
  x, w, y, naive = arrays(5, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3)
  u, v, y_u, _ = arrays(
    5, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3, seed=1
  )
  pads = pads_of((7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME')
  settings = dict(strides=(2, 3, 1), padding=pads, method=method)
  correlate = functools.partial(dnet_jax.correlate, **settings)
  transpose = functools.partial(dnet_jax.correlate_transpose, **settings)

  def gradient(x, w):
    return jax.grad(lambda x: (correlate(x, w) ** 2).sum() / 2)(x)

  def gradient_of_kernel(x, w):
    return jax.grad(lambda w: (correlate(x, w) ** 2).sum() / 2)(w)

  @jax.jit
  def compute(x, w, y, u, v, y_u):
    of_x, of_w = (lambda x: correlate(x, w)), (lambda w: correlate(x, w))
    return (
      jax.jvp(of_x, (x,), (u,))[1],
      jax.jvp(of_w, (w,), (v,))[1],
      jax.jvp(correlate, (x, w), (u, v))[1],
      jax.jvp(transpose, (y, w), (y_u, v))[1],
      # Forward over reverse: a Hessian times a vector.
      jax.jvp(gradient, (x, w), (u, v))[1],
      jax.jvp(gradient_of_kernel, (x, w), (u, v))[1],
      # Forward over forward.
      jax.jvp(lambda x, w: jax.jvp(correlate, (x, w), (u, v))[1],
              (x, w), (x, w))[1],
    )  # fmt: skip

  value, along = naive.value(x, w), naive.value(u, w) + naive.value(x, v)
  expected = (
    naive.value(u, w),
    naive.value(x, v),
    along,
    naive.adjoint_input(y_u, w) + naive.adjoint_input(y, v),
    naive.adjoint_input(along, w) + naive.adjoint_input(value, v),
    naive.adjoint_kernel(u, value) + naive.adjoint_kernel(x, along),
    along,
  )
  for pair in zip(compute(x, w, y, u, v, y_u), expected, strict=True):
    assert relative_error(*pair) < WORST


@pytest.mark.parametrize(
  'method',
  [
    'phases',
    *(pytest.param(name, marks=pytest.mark.slow) for name in WITH_FACTORS),
  ],
)
def test_derivatives_through_vmap_in_either_argument(method):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, 2, 4, 5, 4, 2)).astype(np.float32)
  w = rng.normal(size=(2, 3, 3, 3, 2, 2)).astype(np.float32)

  def results(method):
    one = functools.partial(dnet_jax.correlate, strides=2, method=method)
    maps = {
      'x': (jax.vmap(one, (0, None)), x, w[0]),
      'w': (jax.vmap(one, (None, 4), 1), x[0], np.moveaxis(w, 0, 4)),
      'both': (jax.vmap(one), x[:2], w),
      'nested': (
        jax.vmap(jax.vmap(one, (None, 0)), (0, None)),
        *(x, w),
      ),
    }
    found = {}
    for name, (function, a, b) in maps.items():

      def loss(a, b, function=function):
        return (jnp.cos(function(a, b)) * (1 + function(a, b) ** 2)).sum()

      def slope(a, b, loss=loss):
        return sum(map(jnp.vdot, jax.grad(loss, (0, 1))(a, b), (a, b)))

      found[name] = [
        jax.grad(loss, (0, 1))(a, b),
        jax.grad(slope, (0, 1))(a, b),
      ]
      if name in 'xw':
        found[name] += [
          jax.grad(loss)(a, b),
          jax.jvp(jax.grad(loss, (0, 1)), (a, b), (a, b))[1],
          jax.jvp(lambda b: jax.grad(loss, (0, 1))(a, b), (b,), (b,))[1],  # noqa: B023
        ]
    # Each example's own gradient.
    found['gradients'] = jax.vmap(
      jax.grad(lambda a, b: (one(a, b) ** 3).sum(), (0, 1)), (0, None)
    )(x, w[0])
    return found

  given = jax.jit(functools.partial(results, method))()
  expected = jax.jit(functools.partial(results, 'direct'))()
  for name, values in expected.items():
    for value, truth in zip(
      jax.tree.leaves(given[name]), jax.tree.leaves(values), strict=True
    ):
      error = relative_error(value, np.asarray(truth, np.float64))
      assert error < WORST, name


@pytest.mark.parametrize('method', [*convolution.METHODS, None])
def test_hessian_of_a_network_in_every_mode(method):
  net = dnet_jax.Descriptor(
    features=(3, 2),
    kernel_sizes=(3, 3),
    strides=(2, 1),
    init_std=0.3,
    method=method,
  )
  y = jax.random.normal(jax.random.key(0), (2, 4, 3, 3, 1))
  params = jax.jit(net.init)(jax.random.key(1), y)

  @jax.jit
  def compute(params, y):
    energy = lambda y: (net.apply(params, y) ** 2).sum()  # noqa: E731
    slope = lambda params, y: jax.grad(  # noqa: E731
      lambda y: net.apply(params, y).sum()
    )(y)
    return (
      (jax.hessian(energy)(y), jax.jacrev(jax.jacrev(energy))(y)),
      (
        jax.jvp(slope, (params, y), (params, y))[1],
        # Linear in the direction, and so the transpose of reverse mode.
        jax.linearize(slope, params, y)[1](params, y),
      ),
      (
        jax.jacfwd(slope)(params, y),
        jax.jacrev(slope)(params, y),
      ),
    )

  for forward, back in compute(params, y):
    for value, truth in zip(
      jax.tree.leaves(forward), jax.tree.leaves(back), strict=True
    ):
      scale = np.abs(truth).max() + 1e-6
      np.testing.assert_allclose(value, truth, atol=1e-5 * scale)


@pytest.mark.parametrize('method', ['phases', *WITH_FACTORS])
def test_linear_transpose_is_the_adjoint(method):
  x, w, y, naive = arrays(2, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3)
  settings = dict(strides=(2, 3, 1), method=method)
  in_x = jax.linear_transpose(
    lambda x: dnet_jax.correlate(x, w, **settings), jnp.asarray(x)
  )
  in_w = jax.linear_transpose(
    lambda w: dnet_jax.correlate(x, w, **settings), jnp.asarray(w)
  )
  assert relative_error(in_x(y)[0], naive.adjoint_input(y, w)) < WORST
  assert relative_error(in_w(y)[0], naive.adjoint_kernel(x, y)) < WORST


@pytest.mark.parametrize('method', WITH_FACTORS)
def test_two_derivatives_share_a_transform_and_one_costs_no_more(method):
  x, w, y, _ = arrays(5, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3)
  plan = plan_of(method, (7, 6, 5), (3, 4, 2), (2, 3, 1), 5, 2, 3)
  called = []

  def counted(function):
    def call(*arguments):
      called.append(function)
      return function(*arguments)

    return call

  factors = plan.method.factors
  factors = factors._replace(
    **{
      name: counted(getattr(factors, name))
      for name in (
        *('factor', 'kernel_factor', 'result', 'factor_transposed'),
        *('kernel_factor_transposed', 'result_transposed'),
      )
    }
  )
  plan = plan._replace(method=plan.method._replace(factors=factors))

  def count(function, *arguments):
    called.clear()
    jax.jit(function).lower(*arguments)
    return len(called)

  def count_derivatives(function, a, b, cotangent, wanted):
    def pull(*ab):
      values = list((a, b))
      for i, value in zip(wanted, ab, strict=True):
        values[i] = value
      return function(plan, *values)

    def value_and_derivatives(*ab):
      value, back = jax.vjp(pull, *ab)
      return value, back(cotangent)

    return count(value_and_derivatives, *((a, b)[i] for i in wanted))

  correlate, transpose = derivatives.correlate, derivatives.transpose
  every = 9  # Three maps, each of three factors.
  assert count(functools.partial(correlate, plan), x, w) == 3
  assert count(functools.partial(transpose, plan), y, w) == 3
  assert count_derivatives(correlate, x, w, y, (0,)) == 6
  assert count_derivatives(correlate, x, w, y, (1,)) == 6
  assert count_derivatives(transpose, y, w, x, (0,)) == 6
  assert count_derivatives(transpose, y, w, x, (1,)) == 6
  # That of y is nothing for 'im2col': see `result_is_product`.
  saved = 0 if method == 'im2col' else 1
  assert count_derivatives(correlate, x, w, y, (0, 1)) == every - saved
  assert count_derivatives(transpose, y, w, x, (0, 1)) == every - 1


@pytest.mark.parametrize('transposed', [False, True])
@pytest.mark.parametrize('method', ['fourier', 'winograd'])
def test_kernels_of_few_taps_are_transformed_in_one_product(
  method, transposed, monkeypatch
):
  plan = plan_of(method, (7, 6, 5), (4, 3, 4), (2, 1, 2), 5, 2, 3)
  made = transforms._matrices(plan)
  assert made.whole_kernel is not None
  w = np.random.default_rng(0).standard_normal((4, 3, 4, 2, 3), np.float32)
  # In float64, in which an axis at a time is exact enough to compare with.
  with jax.enable_x64(True):
    w = jnp.asarray(w, float)
    whole = np.asarray(transforms._spectrum(plan, w, transposed))
    monkeypatch.setattr(
      transforms, '_matrices', lambda _: made._replace(whole_kernel=None)
    )
    by_axis = np.asarray(transforms._spectrum(plan, w, transposed))
  assert whole.shape == by_axis.shape
  # All matrices are rounded to float32.
  assert relative_error(whole, by_axis) < 1e-6


def test_kernels_of_many_taps_are_transformed_an_axis_at_a_time():
  plan = plan_of('fourier', (32,) * 3, (16,) * 3, (3,) * 3, 25, 1, 200)
  assert transforms._matrices(plan).whole_kernel is None


@pytest.mark.parametrize('axis', [0, 1])
def test_chunks_are_put_together_along_an_axis(axis):
  x = jnp.arange(15.0).reshape(5, 3)
  # What is there before is taken from x, and must not be left anywhere.
  x = x.at[0, 0].set(jnp.nan)

  def function(x):
    return 2 * (x.T if axis else x), x.sum(1) if axis == 0 else x.T

  for size in (1, 2, 5):
    given = convolution.in_chunks(function, x, size, axis)
    jax.tree.map(np.testing.assert_array_equal, given, function(x))


@pytest.mark.parametrize('method', ['fourier', 'fourier_complex', 'im2col'])
def test_chunks_bound_the_memory(method, monkeypatch):
  x, w = jnp.zeros((64, 12, 12, 12, 8)), jnp.zeros((4, 4, 4, 8, 8))

  def room():
    # A new function: jit remembers what it has traced.
    run = jax.jit(lambda x, w: dnet_jax.correlate(x, w, method=method))
    analysis = run.lower(x, w).compile().memory_analysis()
    return analysis.temp_size_in_bytes

  set_limits(monkeypatch, method, 2**40, 2**40, 1)
  whole = room()
  set_limits(monkeypatch, method, 0, 0, 2)
  assert room() < whole / 2


def test_a_last_chunk_that_is_not_full_costs_no_copy(monkeypatch):
  set_limits(monkeypatch, 'fourier', 0, 0, 2)
  w = jnp.zeros((4, 4, 4, 8, 1))

  def room(chains):
    x = jnp.zeros((chains, 12, 12, 12, 8))
    run = jax.jit(lambda x, w: dnet_jax.correlate(x, w, method='fourier'))
    analysis = run.lower(x, w).compile().memory_analysis()
    return analysis.temp_size_in_bytes, x.nbytes

  (even, _), (odd, size) = room(64), room(65)
  assert odd - even < size / 4


def test_the_gradient_in_the_kernel_never_holds_its_spectrum():
  x, w = jnp.zeros((4, 8, 8, 8, 64)), jnp.zeros((4, 4, 4, 64, 64))
  plan = plan_of('fourier', (8,) * 3, (4,) * 3, (1,) * 3, 4, 64, 64)

  @jax.jit
  def gradient(x, y):
    return jax.vjp(lambda w: derivatives.correlate(plan, x, w), w)[1](y)

  analysis = gradient.lower(x, x).compile().memory_analysis()
  spectrum = plan.method.factors.kernel_size(plan, 64, 64)
  assert spectrum > 10 * w.nbytes
  assert analysis.temp_size_in_bytes < 0.8 * spectrum


def named(method):
  """The name of a plan's method."""
  (name,) = (k for k, m in plans.BY_NAME.items() if m == method)
  return name


# (grid, taps, stride, channels in, channels out) and the choice on a GPU: what
# was measured, and by the rule.
ON_GPU = [
  ((32, 16, 3, 1, 200), 'fourier_complex'),  # 6.1
  ((11, 6, 2, 200, 100), 'phases'),
  ((32, 9, 2, 1, 64), 'fourier_complex'),  # 6.4
  ((16, 7, 2, 64, 128), 'direct'),
  ((64, 5, 3, 1, 100), 'phases'),  # 6.6
  ((64, 16, 3, 1, 200), 'fourier_complex'),  # 6.3
  ((32, 9, 1, 1, 8), 'fourier_complex'),
  ((32, 8, 1, 1, 8), 'direct'),
  ((32, 8, 2, 1, 8), 'phases'),
  ((32, 9, 1, 2, 8), 'direct'),
  ((32, 9, 2, 2, 8), 'phases'),
]


@pytest.mark.parametrize('platform', ['gpu', 'cuda', 'rocm'])
@pytest.mark.parametrize(('sizes', 'expected'), ON_GPU)
def test_choice_on_a_gpu(sizes, expected, platform):
  grid, taps, stride, c, n = sizes
  layer = axes.make_axes((grid,) * 3, (taps,) * 3, (stride,) * 3, 'SAME')
  plan = plans.choose(layer, None, 25, c, n, platform)
  assert named(plan.method) == expected
  assert plan.axes == layer
  # A method that is asked for is taken, wherever.
  assert named(plans.choose(layer, 'im2col', 2, c, n, platform).method) == (
    'im2col'
  )


def test_choice_on_a_gpu_of_sides_that_differ():
  layer = axes.make_axes((32, 32, 16), (16, 16, 9), (3, 1, 1), 'SAME')
  assert plans.name_on_gpu(layer, 1, 200) == 'fourier_complex'
  assert plans.name_on_gpu(layer, 2, 200) == 'phases'
  layer = axes.make_axes((32, 32, 16), (16, 16, 8), (1, 1, 1), 'SAME')
  assert plans.name_on_gpu(layer, 1, 200) == 'direct'


# (chains, grid, taps, stride, channels in, channels out) and the choice on CPU,
# where it is the least of a model.
ON_CPU = [
  ((25, 32, 16, 3, 1, 200), 'fourier', 0),
  ((25, 11, 6, 2, 200, 100), 'winograd', 3),
  ((20, 64, 5, 3, 1, 100), 'im2col', 0),
]


@pytest.mark.parametrize(('sizes', 'expected', 'tile'), ON_CPU)
def test_choice_on_a_cpu_and_elsewhere(sizes, expected, tile):
  m, grid, taps, stride, c, n = sizes
  layer = axes.make_axes((grid,) * 3, (taps,) * 3, (stride,) * 3, 'SAME')
  plan = plans.choose(layer, None, m, c, n, 'cpu')
  assert (named(plan.method), plan.tile) == (expected, tile)
  for platform in ('tpu', 'METAL'):
    plan = plans.choose(layer, None, m, c, n, platform)
    assert named(plan.method) == 'direct'
  for platform in ('cpu', 'gpu', 'tpu'):  # No chains: nothing to transform.
    plan = plans.choose(layer, None, 0, c, n, platform)
    assert named(plan.method) == 'direct'


def test_bad_input_is_refused():
  x, w = jnp.ones((1, 4, 4, 4, 2)), jnp.ones((3, 3, 3, 2, 1))
  with pytest.raises(ValueError, match=r"one of.*'phases'.*got 'toom'"):
    dnet_jax.correlate(x, w, method='toom')
  with pytest.raises(ValueError, match="got 'toom'"):
    convolution.chains_at_once(x.shape, w.shape, method='toom')
  with pytest.raises(ValueError, match=r'same channels.*\(1, 4, 4, 4, 3\)'):
    dnet_jax.correlate(jnp.ones((1, 4, 4, 4, 3)), w)
  with pytest.raises(ValueError, match='same channels'):
    dnet_jax.correlate_transpose(x, w)
  with pytest.raises(ValueError, match='expected'):
    dnet_jax.correlate(x[0, 0], w)
  with pytest.raises(ValueError, match='expected'):
    dnet_jax.correlate(x, w[0])
  for strides in (0, (1, 2), (1, 1, -1)):
    with pytest.raises(ValueError, match='strides must be'):
      dnet_jax.correlate(x, w, strides)
  with pytest.raises(ValueError, match='does not fit'):
    dnet_jax.correlate(x, jnp.ones((5, 3, 3, 2, 1)), padding='VALID')
  for correlate in (dnet_jax.correlate, dnet_jax.correlate_transpose):
    with pytest.raises(ValueError, match=r"padding must be .*got 'same'"):
      correlate(x, jnp.ones((3, 3, 3, 2, 2)), padding='same')
  with pytest.raises(ValueError, match='taps'):
    dnet_jax.correlate(x, jnp.ones((9, 9, 9, 2, 1)), method='winograd')


def test_fourier_wraps_around_nothing_but_padding():
  """All small axes, one at a time, in float64."""
  rng = np.random.default_rng(0)
  smaller = 0
  for size, taps, stride, low, high in itertools.product(
    range(1, 7), range(1, 6), range(1, 4), range(-1, 5), range(-1, 5)
  ):
    if size + low + high < taps:
      continue
    out = (size + low + high - taps) // stride + 1
    axis = axes.Axis(size, taps, stride, low, out)
    enter, kernel, leave = matrices.axis_matrices(matrices.FOURIER, 0, axis)
    first, past = matrices.positions(axis)
    n, _, width = enter.shape
    assert width == past - first
    assert len(kernel) == leave.shape[2] == n
    smaller += n < out + kernel.shape[1] - 1
    x, w = rng.normal(size=size), rng.normal(size=taps)
    padded = np.zeros(100)
    padded[10 + low : 10 + low + size] = x
    padded = padded[10:]
    expected = [padded[o * stride :][:taps] @ w for o in range(out)]
    phases = padded[first * stride : past * stride].reshape(-1, stride)
    w = np.pad(w, (0, kernel.shape[1] * stride - taps)).reshape(-1, stride)
    y = leave[:, 0] @ ((enter[:, 0] @ phases) * (kernel @ w)).sum(1)
    np.testing.assert_allclose(y, expected, atol=1e-9)
  assert smaller > 1000
  # 32^3 with a 16^3 kernel at stride 3: 13 frequencies in place of 16.
  axis = axes.make_axes((32,) * 3, (16,) * 3, (3,) * 3, 'SAME')[0]
  assert matrices.FOURIER.points(0, axis) == 13


def computations(text):
  """{name: lines} of an HLO module's text."""
  found, name = {}, None
  for line in text.splitlines():
    head = re.match(r'(?:ENTRY )?%?([\w.\-]+) .*->.*\{$', line)
    if head:
      name = head[1]
      found[name] = []
    elif line.startswith('}'):
      name = None
    elif name is not None:
      found[name].append(line)
  return found


# What XLA leaves in a loop that is invariant: it moves numbers, and makes none.
# (What a fusion or a call does is in the computation that it calls.)
MOVES = {'bitcast', 'copy', 'transpose', 'reshape', 'fusion', 'call'}


def opcode(line):
  match = re.search(r' = .*?[\]})] ([\w\-]+)\(', line)
  return match[1] if match else ''


def called(line):
  """Names of the computations that an instruction calls."""
  keys = 'body|condition|calls|to_apply|true_computation|false_computation'
  names = re.findall(rf'(?:{keys})=%?([\w.\-]+)', line)
  for group in re.findall(r'(?:branch_computations|calls)=\{([^}]*)\}', line):
    names += [name.strip().lstrip('%') for name in group.split(',')]
  return names


def reachable(found, name):
  names, todo = set(), [name]
  while todo:
    name = todo.pop()
    if name not in names:
      names.add(name)
      todo += [n for line in found[name] for n in called(line)]
  return names


@pytest.mark.parametrize(
  ('method', 'count'),
  [('fourier', 1), ('fourier_complex', 2), ('winograd', 2)],
)
def test_kernel_spectrum_is_computed_outside_the_loop(
  method, count, monkeypatch, optimised
):
  if count > 1:
    set_limits(monkeypatch, method, 0, 0, 1)
  net = dnet_jax.Descriptor(**dnet_jax.DESCRIPTORS['tiny'], method=method)
  y = jnp.zeros((2, 9, 9, 9, 1))
  params = jax.eval_shape(net.init, jax.random.key(0), y)
  energy_fn = dnet_jax.descriptor_energy(net.apply)

  @functools.partial(jax.jit, compiler_options=optimised)
  def run(key, params, y):
    bound = functools.partial(energy_fn, params)
    kernel = dnet_jax.langevin(bound, 0.01)
    return dnet_jax.sample(key, kernel, y, num_steps=5)

  text = run.lower(jax.random.key(0), params, y).compile().as_text()
  found = computations(text)
  bodies = [
    re.search(r'body=%?([\w.\-]+)', line)[1]
    for lines in found.values()
    for line in lines
    if ' while(' in line
  ]
  assert bodies
  inside = set().union(*(reachable(found, body) for body in bodies))
  spectrum = {
    name: [line for line in lines if 'kernel_spectrum' in line]
    for name, lines in found.items()
  }
  arithmetic = {
    name: [line for line in lines if opcode(line) not in MOVES]
    for name, lines in spectrum.items()
  }
  # The loop's own products are seen, so the search is not in vain.
  assert any(opcode(line) == 'dot' for name in inside for line in found[name])
  assert any(arithmetic[name] for name in found if name not in inside)
  assert not [line for name in inside for line in arithmetic[name]]
