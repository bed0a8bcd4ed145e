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
from tests import reference

METHODS = (*convolution.METHODS, None)
# Of the issue: exact to float32 rounding, worst and typical.
WORST = 1e-4
TYPICAL = 1e-5

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


def toom_fits(taps, strides):
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
    # XLA's own gradients of so large a kernel take a minute.
    if (name, method) != ('paper_first', 'direct')
  ]
  + [('odd_same', None), ('paper_first', None)],
)
def test_matches_float64_to_second_order(name, method, optimised):
  _, _, taps, strides, padding, _, _ = CASES[name]
  if method == 'toom':
    assert toom_fits(taps, strides), 'choose cases that suit every method'
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
  if method in ('direct', 'fourier'):  # None may be toom.
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


def test_choice_of_method_is_invisible(monkeypatch):
  net = dnet_jax.Descriptor(**dnet_jax.DESCRIPTORS['tiny'], init_std=0.2)
  y = jax.random.normal(jax.random.key(0), (3, 8, 8, 8, 1))
  params = jax.jit(net.init)(jax.random.key(1), y[:0])
  energy_fn = dnet_jax.descriptor_energy(net.apply)
  correlate = convolution.correlate
  results = []
  for method in METHODS:
    monkeypatch.setattr(
      convolution, 'correlate', functools.partial(correlate, method=method)
    )

    @jax.jit
    def both(params, y):
      bound = functools.partial(energy_fn, params)
      loss = lambda params: energy_fn(params, y).sum()  # noqa: E731
      return bound(y), dnet_jax.score(bound)(y), jax.grad(loss)(params)

    results.append(jax.tree.leaves(both(params, y)))
  for result in results[1:]:
    for value, expected in zip(result, results[0], strict=True):
      assert relative_error(value, np.asarray(expected, np.float64)) < WORST


@pytest.mark.parametrize('shares', [True, False])
@pytest.mark.parametrize('method', ['fourier', 'toom', 'patches'])
def test_chunks_and_shared_kernels_are_invisible(method, shares, monkeypatch):
  monkeypatch.setattr(convolution, '_ROOM', (0, 0))
  monkeypatch.setattr(convolution, '_PATCHES_ROOM', 0)
  monkeypatch.setattr(convolution, '_FEWEST', 2)  # 2, 2 and 1, which is made 2
  monkeypatch.setattr(convolution, '_shares', lambda *_: shares)
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


@pytest.mark.parametrize('chunks', [False, True])
@pytest.mark.parametrize('method', ['fourier', 'toom', 'patches'])
def test_derivatives_of_both_derivatives(method, chunks, monkeypatch):
  if chunks:
    monkeypatch.setattr(convolution, '_ROOM', (0, 0))
    monkeypatch.setattr(convolution, '_PATCHES_ROOM', 0)
    monkeypatch.setattr(convolution, '_FEWEST', 2)
  x, w, y, naive = arrays(5, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3)
  u, v, y_u, _ = arrays(
    5, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3, seed=1
  )
  axes = convolution._axes((7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME')
  plan = convolution._choose(axes, method, 5, 2, 3, 'cpu')
  correlate = functools.partial(convolution._correlate, plan)
  transpose = functools.partial(convolution._adjoint_input, plan)

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


@pytest.mark.parametrize('method', ['fourier', 'toom', 'patches'])
def test_two_derivatives_share_a_transform_and_one_costs_no_more(method):
  x, w, y, _ = arrays(5, (7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME', 2, 3)
  axes = convolution._axes((7, 6, 5), (3, 4, 2), (2, 3, 1), 'SAME')
  plan = convolution._choose(axes, method, 5, 2, 3, 'cpu')
  # What transforms are made of: a matrix for each axis, or a slice for each
  # tap of it.
  name, size = ('slice', 9) if method == 'patches' else ('dot_general', 3)

  def count(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count(f' {name}[')

  def derivatives(function, a, b, cotangent, wanted):
    def pull(*ab):
      values = list((a, b))
      for i, value in zip(wanted, ab, strict=True):
        values[i] = value
      return function(plan, *values)

    return count(
      lambda *ab: jax.vjp(pull, *ab)[1](cotangent),
      *((a, b)[i] for i in wanted),
    )

  correlate, transpose = convolution._correlate, convolution._adjoint_input
  forward, back, kernel = (
    count(functools.partial(function, plan), *arguments)
    for function, arguments in (
      (correlate, (x, w)),
      (transpose, (y, w)),
      (convolution._adjoint_kernel, (x, y)),
    )
  )
  assert derivatives(correlate, x, w, y, (0,)) == forward + back
  assert derivatives(correlate, x, w, y, (1,)) == forward + kernel
  assert derivatives(transpose, y, w, x, (0,)) == back + forward
  assert derivatives(transpose, y, w, x, (1,)) == back + kernel
  every = forward + back + kernel
  saved = 0 if method == 'patches' else size  # Columns of x only.
  assert derivatives(correlate, x, w, y, (0, 1)) == every - saved
  assert derivatives(transpose, y, w, x, (0, 1)) == every - size


@pytest.mark.parametrize('transposed', [False, True])
@pytest.mark.parametrize('method', ['fourier', 'toom'])
def test_kernels_of_few_taps_are_transformed_in_one_product(
  method, transposed, monkeypatch
):
  axes = convolution._axes((7, 6, 5), (4, 3, 4), (2, 1, 2), 'SAME')
  plan = convolution._choose(axes, method, 5, 2, 3, 'cpu')
  matrices = convolution._matrices(plan)
  assert matrices.whole_kernel is not None
  w = np.random.default_rng(0).standard_normal((4, 3, 4, 2, 3), np.float32)
  # In float64, in which an axis at a time is exact enough to compare with.
  with jax.enable_x64(True):
    w = jnp.asarray(w, float)
    whole = np.asarray(convolution._spectrum(plan, w, transposed))
    monkeypatch.setattr(
      convolution, '_matrices', lambda _: matrices._replace(whole_kernel=None)
    )
    by_axis = np.asarray(convolution._spectrum(plan, w, transposed))
  assert whole.shape == by_axis.shape
  # All matrices are rounded to float32.
  assert relative_error(whole, by_axis) < 1e-6


def test_kernels_of_many_taps_are_transformed_an_axis_at_a_time():
  axes = convolution._axes((32,) * 3, (16,) * 3, (3,) * 3, 'SAME')
  plan = convolution._choose(axes, 'fourier', 25, 1, 200, 'cpu')
  assert convolution._matrices(plan).whole_kernel is None


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


@pytest.mark.parametrize('method', ['fourier', 'patches'])
def test_chunks_bound_the_memory(method, monkeypatch):
  x, w = jnp.zeros((64, 12, 12, 12, 8)), jnp.zeros((4, 4, 4, 8, 8))

  def room():
    # A new function: jit remembers what it has traced.
    run = jax.jit(lambda x, w: dnet_jax.correlate(x, w, method=method))
    analysis = run.lower(x, w).compile().memory_analysis()
    return analysis.temp_size_in_bytes

  monkeypatch.setattr(convolution, '_PATCHES_ROOM', 2**40)
  whole = room()
  monkeypatch.setattr(convolution, '_ROOM', (0, 0))
  monkeypatch.setattr(convolution, '_PATCHES_ROOM', 0)
  monkeypatch.setattr(convolution, '_FEWEST', 2)
  assert room() < whole / 2


def test_a_last_chunk_that_is_not_full_costs_no_copy(monkeypatch):
  monkeypatch.setattr(convolution, '_ROOM', (0, 0))
  monkeypatch.setattr(convolution, '_FEWEST', 2)
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
  axes = convolution._axes((8,) * 3, (4,) * 3, (1,) * 3, 'SAME')
  plan = convolution._choose(axes, 'fourier', 4, 64, 64, 'cpu')
  gradient = jax.jit(lambda x, y: convolution._adjoint_kernel(plan, x, y))
  analysis = gradient.lower(x, x).compile().memory_analysis()
  spectrum = convolution._kernel_size(plan, 64, 64)
  assert spectrum > 10 * w.nbytes
  assert analysis.temp_size_in_bytes < 0.8 * spectrum


def test_direct_is_the_choice_off_the_cpu():
  x, w = jnp.ones((1, 4, 4, 4, 1)), jnp.ones((3, 3, 3, 1, 1))
  axes = convolution._axes((4,) * 3, (3,) * 3, (1,) * 3, 'SAME')
  assert convolution._choose(axes, None, 1, 1, 1, 'gpu') is None
  assert convolution._choose(axes, None, 1, 1, 1, 'cpu') is not None
  assert dnet_jax.correlate(x, w).shape == (1, 4, 4, 4, 1)


def test_bad_input_is_refused():
  x, w = jnp.ones((1, 4, 4, 4, 2)), jnp.ones((3, 3, 3, 2, 1))
  with pytest.raises(ValueError, match='winograd'):
    dnet_jax.correlate(x, w, method='winograd')
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
  with pytest.raises(ValueError, match='taps'):
    dnet_jax.correlate(x, jnp.ones((9, 9, 9, 2, 1)), method='toom')


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
    axis = convolution._Axis(size, taps, stride, low, out)
    enter, kernel, leave = convolution._axis_matrices('fourier', 0, axis)
    first, past = convolution._positions(axis)
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
  axes = convolution._axes((32,) * 3, (16,) * 3, (3,) * 3, 'SAME')
  assert convolution._points('fourier', 0, axes[0]) == 13


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


@pytest.mark.parametrize('chunks', [1, 2])
@pytest.mark.parametrize('method', ['fourier', 'toom'])
def test_kernel_spectrum_is_computed_outside_the_loop(
  method, chunks, monkeypatch, optimised
):
  if chunks > 1:
    monkeypatch.setattr(convolution, '_ROOM', (0, 0))
    monkeypatch.setattr(convolution, '_FEWEST', 1)
  correlate = functools.partial(convolution.correlate, method=method)
  monkeypatch.setattr(convolution, 'correlate', correlate)
  net = dnet_jax.Descriptor(**dnet_jax.DESCRIPTORS['tiny'])
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
