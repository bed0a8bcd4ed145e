import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import dnet_jax
from dnet_jax import convolution
from dnet_jax import networks
from tests import reference

# The grid of each setting, the sides of its feature maps there, and their
# channels: SAME padding, so ceil(side / stride) at every layer.
SETTINGS = {
  'paper_3_layer': [(32, (11, 6), (200, 100))],
  'paper_2_layer': [(32, (11,), (100,))],
  'paper_super_resolution': [(64, (22,), (200,)), (32, (11,), (200,))],
  'paper_coop': [(32, (16, 8, 4), (64, 128, 256))],
  'paper_multigrid': [
    (4, (2,), (100,)),
    (16, (6,), (100,)),
    (32, (11,), (100,)),
    (64, (22,), (100,)),
  ],
  'small': [(32, (11, 6), (32, 32))],
  'medium': [(32, (11, 6), (64, 64))],
  'grid_32': [(32, (16,), (32,))],
  'grid_64': [(64, (16,), (32,))],
  'tiny': [(8, (4, 2), (4, 4)), (32, (16, 8), (4, 4))],
}


def shapes(net, *y_shape):
  """Shapes of parameters and feature maps, computing nothing."""
  y = jax.ShapeDtypeStruct(y_shape, jnp.float32)
  params = jax.eval_shape(net.init, jax.random.key(0), y)
  maps = jax.eval_shape(
    lambda params, y: net.apply(params, y, method='feature_maps'), params, y
  )
  f = jax.eval_shape(net.apply, params, y)
  return params, [m.shape for m in maps], f.shape


def test_every_setting_is_expected():
  assert set(SETTINGS) == set(dnet_jax.DESCRIPTORS)


@pytest.mark.parametrize('name', SETTINGS)
def test_setting_builds_with_the_papers_sizes(name):
  setting = dnet_jax.DESCRIPTORS[name]
  net = dnet_jax.Descriptor(**setting)
  for side, sides, features in SETTINGS[name]:
    params, maps, f = shapes(net, 2, side, side, side, 1)
    assert maps == [
      (2, n, n, n, c) for n, c in zip(sides, features, strict=True)
    ]
    assert f == (2,)
    count = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    channels = (1, *features)
    expected = sum(
      k**3 * c * n + n
      for k, c, n in zip(
        setting['kernel_sizes'], channels, channels[1:], strict=False
      )
    )
    assert count == expected + sides[-1] ** 3 * features[-1] + 1


def test_pooled_features_of_section_6_5_are_8100_long():
  net = dnet_jax.Descriptor(**dnet_jax.DESCRIPTORS['paper_3_layer'])
  _, (first, second), _ = shapes(net, 1, 32, 32, 32, 1)
  pooled = (first[1] // 4) ** 3 * 200, (second[1] // 2) ** 3 * 100
  assert first[1:] == (11, 11, 11, 200)
  assert second[1:] == (6, 6, 6, 100)
  # 2^3 x 200 + 3^3 x 100 = 4,300; the paper's 8,100 = 3^3 x (200 + 100) is
  # of 11 pooled to 3, the part of a block at the border counted as one.
  assert pooled == (1600, 2700)
  padded = -(-first[1] // 4), -(-second[1] // 2)
  assert padded == (3, 3)
  assert padded[0] ** 3 * 200 + padded[1] ** 3 * 100 == 8100


@pytest.mark.parametrize('grid', [(8, 8, 8), (9, 6, 7)])
def test_descriptor_is_the_reference(grid):
  net = dnet_jax.Descriptor(
    features=(3, 2), kernel_sizes=(5, 3), strides=(2, 3), init_std=0.2
  )
  y = jax.random.normal(jax.random.key(0), (4, *grid, 1))
  params = jax.jit(net.init)(jax.random.key(1), y)
  # Biases are zero at first, and would be wrong unseen.
  rng = np.random.default_rng(2)
  params = jax.tree.map(
    lambda p: np.asarray(p + 0.1 * rng.normal(size=p.shape), np.float32), params
  )
  apply = jax.jit(net.apply)
  f = apply(params, y)
  expected = reference.descriptor(params, (2, 3), np.asarray(y))
  assert f.shape == (4,)
  assert f.dtype == jnp.float32
  scale = np.abs(expected).max()
  np.testing.assert_allclose(f, expected, atol=1e-4 * scale)
  maps = jax.jit(lambda p, y: net.apply(p, y, method='feature_maps'))(params, y)
  expected = reference.feature_maps(params, (2, 3), np.asarray(y))
  for value, truth in zip(maps, expected, strict=True):
    scale = np.abs(truth).max()
    np.testing.assert_allclose(value, truth, atol=1e-4 * scale)
    assert float(value.min()) == 0  # After the ReLU.
  np.testing.assert_allclose(apply(params, y[1]), f[1], rtol=1e-3)


@pytest.mark.parametrize(
  'some', [pytest.param(1, marks=pytest.mark.slow), 2, 3]
)
def test_groups_of_chains_change_nothing(monkeypatch, some):
  monkeypatch.setattr(
    dnet_jax.Descriptor,
    '_chains_at_once',
    lambda self, shape: min(some, shape[0]),
  )
  net = dnet_jax.Descriptor(
    features=(3, 2), kernel_sizes=(5, 3), strides=(2, 3), init_std=0.2
  )
  y = jax.random.normal(jax.random.key(0), (5, 8, 7, 6, 1))
  params = jax.tree.map(lambda p: p + 0.1, net.init(jax.random.key(1), y))
  weights = jnp.arange(1.0, 6.0)  # A cotangent that tells chains apart.

  def sum_of_slopes(params, y):
    slope = jax.grad(lambda y: (weights * f(params, y)).sum())(y)
    return (jnp.sin(3 * slope) * y).sum()

  def everything(params, y):
    total = lambda params, y: (weights * f(params, y)).sum()  # noqa: E731
    return (
      f(params, y),
      jax.grad(total, 0)(params, y),
      jax.grad(total, 1)(params, y),
      jax.grad(total, (0, 1))(params, y),
      # Derivatives of derivatives.
      jax.grad(sum_of_slopes, (0, 1))(params, y),
      # Forward mode, in either argument and in both.
      jax.jvp(lambda params: f(params, y), (params,), (params,))[1],
      jax.jvp(lambda y: f(params, y), (y,), (y * y,))[1],
      jax.jvp(f, (params, y), (params, y * y))[1],
      jax.jvp(jax.grad(total, (0, 1)), (params, y), (params, y))[1],
      jax.vmap(jax.grad(total, (0, 1)), (None, 0))(params, y[None]),
      jax.vmap(f, (None, 0))(params, y[:, None])[:, 0],
    )

  f = net.apply
  in_groups = jax.jit(everything)(params, y)
  f = functools.partial(net.apply, method='scores')
  at_once = jax.jit(everything)(params, y)
  for value, expected in zip(
    jax.tree.leaves(in_groups), jax.tree.leaves(at_once), strict=True
  ):
    # Slopes do not depend on biases.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(value, expected, atol=1e-5 * scale)


def _largest(function, *arguments, platform):
  """Elements of the largest array of a program that is lowered for a platform.

  Inside loops too.
  """
  traced = jax.jit(function).trace(*arguments)
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  shapes = {*re.findall(r'tensor<((?:\d+x)+)[a-z]', text)}
  return max(
    math.prod(map(int, shape.rstrip('x').split('x'))) for shape in shapes
  )


@pytest.mark.parametrize(
  'name, chains, side, maps, method, grouped',
  [
    ('paper_multigrid', 20, 64, 22**3 * 100, None, True),
    ('paper_multigrid', 20, 64, 22**3 * 100, 'im2col', True),
    ('paper_multigrid', 20, 64, 22**3 * 100, 'phases', False),
    # Transforms, which groups would make read K w more often.
    ('paper_3_layer', 25, 32, 11**3 * 200, None, False),
  ],
)
def test_scores_hold_the_feature_maps_of_a_group_only(
  name, chains, side, maps, method, grouped
):
  net = dnet_jax.Descriptor(**dnet_jax.DESCRIPTORS[name], method=method)
  y = jax.ShapeDtypeStruct((chains, side, side, side, 1), jnp.float32)
  params = jax.eval_shape(net.init, jax.random.key(0), y)

  def largest(method, platform='cpu'):
    total = lambda p, y: net.apply(p, y, method=method).sum()  # noqa: E731
    return _largest(jax.grad(total, 1), params, y, platform=platform)

  assert largest('scores') >= chains * maps
  if grouped:
    # Not less than those of one chain: the loop was looked into.
    assert maps <= largest('__call__') < chains * maps / 2
    # Other platforms have no groups.
    assert largest('__call__', 'tpu') == largest('scores', 'tpu')
  else:
    assert largest('__call__') == largest('scores')


def test_initial_weights_are_the_authors():
  net = dnet_jax.Descriptor(features=(64,), kernel_sizes=(6,), strides=(2,))
  params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))
  for layer in params['params'].values():
    kernel = np.asarray(layer['kernel'], np.float64)
    assert not layer['bias'].any()
    error = np.sqrt(2 / kernel.size)
    assert abs((kernel**2).mean() / 0.001**2 - 1) < 5 * error


def test_valid_padding():
  net = dnet_jax.Descriptor(
    features=(3, 2), kernel_sizes=(5, 2), strides=(2, 1), padding='VALID'
  )
  _, maps, _ = shapes(net, 2, 9, 8, 7, 1)
  assert maps == [(2, 3, 2, 2, 3), (2, 2, 1, 1, 2)]


def test_bfloat16_computes_low_and_keeps_float32_at_its_border():
  arguments = dict(
    features=(8, 4), kernel_sizes=(3, 3), strides=(2, 2), init_std=0.2
  )
  net = dnet_jax.Descriptor(**arguments)
  low = dnet_jax.Descriptor(**arguments, dtype=jnp.bfloat16)
  y = jax.random.normal(jax.random.key(0), (4, 8, 8, 8, 1))
  params = jax.jit(low.init)(jax.random.key(1), y)
  assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype('float32')}

  @jax.jit
  def compute(params, y):
    return (
      low.apply(params, y, method='feature_maps'),
      net.apply(params, y),
      low.apply(params, y),
      dnet_jax.score(lambda y: low.apply(params, y))(y),
    )

  maps, f, f_low, score = compute(params, y)
  assert {m.dtype for m in maps} == {jnp.dtype('bfloat16')}
  assert f_low.dtype == jnp.float32
  eps = float(jnp.finfo(jnp.bfloat16).eps)
  difference = float(jnp.abs(f - f_low).max())
  assert 0 < difference < 8 * eps * float(jnp.abs(f).max())
  assert score.dtype == jnp.float32
  assert bool(jnp.isfinite(score).all())


def test_sizes_must_be_equally_many():
  net = dnet_jax.Descriptor(features=(4, 4), kernel_sizes=(3,), strides=(2, 2))
  with pytest.raises(ValueError, match=r'equally long.*\(3,\)'):
    shapes(net, 1, 8, 8, 8, 1)


def test_a_kernel_that_does_not_fit_is_refused():
  net = dnet_jax.Descriptor(
    features=(4,), kernel_sizes=(9,), strides=(2,), padding='VALID'
  )
  with pytest.raises(ValueError, match='does not fit'):
    shapes(net, 1, 8, 8, 8, 1)


def test_every_layer_goes_through_correlate(monkeypatch):
  calls = []
  correlate = convolution.correlate

  def counted(x, kernel, *args, **kwargs):
    calls.append(kernel.shape)
    return correlate(x, kernel, *args, **kwargs)

  monkeypatch.setattr(convolution, 'correlate', counted)
  net = dnet_jax.Descriptor(**dnet_jax.DESCRIPTORS['tiny'])
  y = jax.ShapeDtypeStruct((1, 8, 8, 8, 1), jnp.float32)
  jax.eval_shape(net.init, jax.random.key(0), y)
  assert calls == [(5, 5, 5, 1, 4), (3, 3, 3, 4, 4)]


# Of each network with a method: an input, and more arguments.
WITH_METHOD = {
  'Conv': ((2, 8, 8, 8, 1), dict(features=2, kernel_size=3), {}),
  'ConvTranspose': ((2, 4, 4, 4, 1), dict(features=2, kernel_size=3), {}),
  'Descriptor': ((2, 8, 8, 8, 1), dnet_jax.DESCRIPTORS['tiny'], {}),
  'Generator': ((2, 5), dnet_jax.GENERATORS['tiny'], dict(train=False)),
  'Classifier': (
    (2, 8, 8, 8, 1),
    dict(num_classes=3, **dnet_jax.CLASSIFIERS['tiny']),
    dict(train=False),
  ),
}


@pytest.mark.parametrize(
  ('method', 'precision'),
  [(None, None), ('direct', 'float32'), ('phases', 'bfloat16')],
)
@pytest.mark.parametrize('name', WITH_METHOD)
def test_networks_hand_on_what_they_are_given(
  name, method, precision, monkeypatch
):
  given, precisions = [], []
  for function in ('correlate', 'correlate_transpose', 'chains_at_once'):
    original = getattr(convolution, function)

    def recorded(*args, original=original, **kwargs):
      given.append(kwargs['method'])
      if 'precision' in kwargs:
        precisions.append(kwargs['precision'])
      return original(*args, **kwargs)

    monkeypatch.setattr(convolution, function, recorded)
  shape, sizes, more = WITH_METHOD[name]
  net = getattr(networks, name)(**sizes, method=method, precision=precision)
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  variables = jax.eval_shape(
    functools.partial(net.init, **more), jax.random.key(0), x
  )
  jax.eval_shape(functools.partial(net.apply, **more), variables, x)
  assert len(given) > 1
  assert set(given) == {method}
  assert set(precisions) == {precision}


def test_an_unknown_method_is_refused():
  net = dnet_jax.Descriptor(**dnet_jax.DESCRIPTORS['tiny'], method='fft')
  with pytest.raises(ValueError, match=r"method must be one of.*got 'fft'"):
    shapes(net, 1, 8, 8, 8, 1)


@pytest.mark.parametrize(
  ('net', 'arguments'),
  [
    (dnet_jax.Descriptor((), (), ()), {}),
    (dnet_jax.Generator((), ()), dict(train=False)),
    (dnet_jax.Classifier(3, (), (), ()), dict(train=False)),
    (dnet_jax.Descriptor([], [], []), {}),
  ],
)
def test_a_network_without_layers_is_refused(net, arguments):
  x = jnp.zeros((2, 8, 8, 8, 1))
  with pytest.raises(
    ValueError, match=r'features must.*at least one.*got (\(\)|\[\])'
  ):
    net.init(jax.random.key(0), x, **arguments)


def test_a_classifier_needs_equally_many_sizes():
  net = dnet_jax.Classifier(3, (4, 4), kernel_sizes=(3, 3), strides=(2,))
  with pytest.raises(ValueError, match=r'equally long.*\(2,\)'):
    net.init(jax.random.key(0), jnp.zeros((2, 8, 8, 8, 1)), train=False)


def ensemble(dropout):
  """Two classifiers of two classes, their variables, and shapes."""
  one = dnet_jax.Classifier(
    2, (3,), kernel_sizes=(3,), strides=(2,), hidden=5, dropout=dropout
  )
  net = dnet_jax.Ensemble((one.clone(), one.clone()))
  y = np.random.default_rng(0).random((6, 8, 8, 8, 1), np.float32)
  variables = jax.jit(functools.partial(net.init, train=False))(
    jax.random.key(0), y
  )
  parts = [
    {kind: tree[f'members_{i}'] for kind, tree in variables.items()}
    for i in (0, 1)
  ]
  return net, one, variables, parts, y


def test_ensemble_gives_the_mean_of_its_members_probabilities():
  net, one, variables, parts, y = ensemble(0.0)
  p = [special.softmax(one.apply(v, y, train=False), axis=-1) for v in parts]
  assert np.abs(p[0] - p[1]).max() > 1e-3  # They begin differently.
  np.testing.assert_allclose(
    np.exp(net.apply(variables, y, train=False)), (p[0] + p[1]) / 2, rtol=1e-5
  )
  features = net.apply(variables, y, method='hidden_features')
  for part, mine in zip(parts, np.split(features, 2, axis=-1), strict=True):
    np.testing.assert_allclose(
      mine, one.apply(part, y, method='hidden_features'), atol=1e-6
    )


def test_members_of_an_ensemble_learn_each_for_itself():
  net, one, variables, parts, y = ensemble(0.0)
  labels = jnp.arange(6) % 2

  def gradient(net, variables):
    loss_fn = dnet_jax.classification_loss(dnet_jax.classifier_fn(net), 0.1)
    params, state = dnet_jax.learning.split_variables(variables)
    grads, rest = jax.jit(jax.grad(loss_fn, has_aux=True))(
      params, state, y, labels, jax.random.key(1)
    )
    return grads['params'], rest

  grads, (state, _) = gradient(net, variables)
  for i, part in enumerate(parts):
    mine, (own_state, _) = gradient(one, part)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
      jax.tree.map(lambda g: 2 * g, grads[f'members_{i}']),  # A mean of two.
      mine,
    )
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5),
      state['batch_stats'][f'members_{i}'],
      own_state['batch_stats'],
    )


def test_members_of_an_ensemble_drop_different_units():
  net, _, variables, _, y = ensemble(0.5)
  same = jax.tree.map(lambda p: p, variables)
  for kind in same:
    same[kind]['members_1'] = same[kind]['members_0']
  logits, _ = dnet_jax.classifier_fn(net)(
    *dnet_jax.learning.split_variables(same), y, jax.random.key(1)
  )
  assert logits.shape == (2, 6, 2)
  assert np.abs(logits[0] - logits[1]).max() > 1e-3
