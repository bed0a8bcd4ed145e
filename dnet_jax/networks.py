"""Networks in Flax Linen: descriptor, generator and classifier, with settings.

The only module that knows of Flax. A descriptor maps `(*chains, D, H, W, C)`
to `(*chains,)`, any grid that its kernels fit.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dnet_jax import convolution
from dnet_jax import types

# Arguments of `Descriptor` by experiment: the paper's section, then smaller
# ones for machines without an accelerator. Sub-sampling factors that the paper
# does not give (grids 3 and 4 of 6.6) are those of its grids 1 and 2.
DESCRIPTORS: Mapping[str, Mapping[str, Any]] = {
  # 6.1 synthesis, 6.2 recovery with 3 layers, 6.5 classification
  'paper_3_layer': dict(
    features=(200, 100), kernel_sizes=(16, 6), strides=(3, 2)
  ),
  # 6.2 recovery with 2 layers
  'paper_2_layer': dict(features=(100,), kernel_sizes=(16,), strides=(3,)),
  # 6.3 super-resolution
  'paper_super_resolution': dict(
    features=(200,), kernel_sizes=(16,), strides=(3,)
  ),
  # 6.4 cooperative learning
  'paper_coop': dict(
    features=(64, 128, 256), kernel_sizes=(9, 7, 4), strides=(2, 2, 2)
  ),
  # 6.6 multi-grid, the same for each of the four grids
  'paper_multigrid': dict(features=(100,), kernel_sizes=(5,), strides=(3,)),
  # The paper's 3-layer network with fewer filters.
  'small': dict(features=(32, 32), kernel_sizes=(16, 6), strides=(3, 2)),
  'medium': dict(features=(64, 64), kernel_sizes=(16, 6), strides=(3, 2)),
  # Multi-grid for machines without an accelerator, by the side of the grid.
  'grid_4': dict(features=(64, 64), kernel_sizes=(3, 3), strides=(1, 1)),
  'grid_8': dict(features=(64, 64), kernel_sizes=(4, 3), strides=(2, 1)),
  'grid_16': dict(features=(32, 64), kernel_sizes=(6, 4), strides=(2, 2)),
  'grid_32': dict(features=(32, 32), kernel_sizes=(8, 6), strides=(3, 2)),
  # For tests: seconds on a CPU, grids from 8^3.
  'tiny': dict(features=(4, 4), kernel_sizes=(5, 3), strides=(2, 2)),
}


# Arguments of `Generator` by name, likewise.
GENERATORS: Mapping[str, Mapping[str, Any]] = {
  # 6.4
  'paper': dict(features=(256, 128, 64, 1), factors=(1, 2, 2, 2)),
  'medium': dict(features=(128, 64, 32, 1), factors=(1, 2, 2, 2)),
  'small': dict(features=(64, 32, 16, 1), factors=(1, 2, 2, 2)),
  # For tests: 8^3.
  'tiny': dict(features=(8, 1), factors=(1, 2)),
}

# Arguments of `Classifier` by name; the paper does not say what 6.1 used.
CLASSIFIERS: Mapping[str, Mapping[str, Any]] = {
  'convnet': dict(
    features=(32, 64, 96, 192),
    kernel_sizes=(5, 3, 3, 3),
    strides=(2, 2, 1, 2),
    hidden=256,
  ),
  'tiny': dict(features=(8,), kernel_sizes=(3,), strides=(2,), hidden=8),
}


class Conv(nn.Module):
  """A strided 3-D correlation with a bias, through `convolution.correlate`.

  Attributes:
    features: output channels.
    kernel_size: side of the cubic kernel.
    stride: sub-sampling factor.
    padding: 'SAME' or 'VALID'.
    init_std: standard deviation of the initial weights.
    dtype: of the computation; parameters are float32.
  """

  features: int
  kernel_size: int
  stride: int = 1
  padding: str = 'SAME'
  init_std: float = 0.001
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps `(*chains, D, H, W, C)` to `(*chains, D', H', W', features)`."""
    kernel = self.param(
      'kernel',
      nn.initializers.normal(self.init_std),
      (self.kernel_size,) * 3 + (x.shape[-1], self.features),
    )
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    y = convolution.correlate(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      self.stride,
      self.padding,
    )
    return y + bias.astype(self.dtype)


def _in_groups(function, size: int):
  """`(params, y) -> (m,)` of each chain alone, of `size` chains at a time.

  A derivative in y alone, of which Langevin dynamics is made, is computed with
  the values, forth and back for each group. One in the parameters is not
  grouped: it would need all values a second time.
  """

  @jax.custom_vjp
  def grouped(params, y):
    return convolution.in_chunks(functools.partial(function, params), y, size)

  def forward(params, y):
    learns = any(p.perturbed for p in jax.tree.leaves(params))
    params = jax.tree.map(lambda p: p.value, params)
    if learns and y.perturbed:
      value, pull = jax.vjp(function, params, y.value)
      return value, (pull, None)
    if learns:
      value, pull = jax.vjp(lambda params: function(params, y.value), params)
      return value, (pull, None)

    def both(y):
      value, pull = jax.vjp(functools.partial(function, params), y)
      return value, pull(jnp.ones_like(value))[0]

    value, slope = convolution.in_chunks(both, y.value, size)
    return value, (None, slope)

  def backward(kept, cotangent):
    pull, slope = kept
    if pull is None:
      return None, cotangent[:, None, None, None, None] * slope
    return (*pull(cotangent), None)[:2]

  grouped.defvjp(forward, backward, symbolic_zeros=True)
  return grouped


class Descriptor(nn.Module):
  """The scoring function f of eq. (2): ConvNet layers, ReLU, one last filter.

  Each layer is a correlation, a bias and a ReLU; the last one, always there,
  is fully connected: a single filter that covers the whole grid.

  Attributes:
    features: channels of each convolutional layer.
    kernel_sizes: sides of their cubic kernels.
    strides: their sub-sampling factors.
    padding: 'SAME' (as in the authors' code) or 'VALID'.
    init_std: standard deviation of the initial weights, 0.001 in the authors'
      code; biases begin at zero.
    dtype: of the computation, float32 or bfloat16; parameters and f are
      float32.

  >>> import jax
  >>> net = Descriptor(features=(4,), kernel_sizes=(3,), strides=(2,))
  >>> y = jnp.zeros((5, 8, 8, 8, 1))
  >>> params = net.init(jax.random.key(0), y)
  >>> net.apply(params, y).shape
  (5,)
  """

  features: Sequence[int]
  kernel_sizes: Sequence[int]
  strides: Sequence[int]
  padding: str = 'SAME'
  init_std: float = 0.001
  dtype: Any = jnp.float32

  def setup(self):
    """Builds the layers; checks that they are as many of each."""
    lengths = {len(self.features), len(self.kernel_sizes), len(self.strides)}
    if len(lengths) != 1:
      raise ValueError(
        'features, kernel_sizes and strides must be equally long, got '
        f'{self.features}, {self.kernel_sizes} and {self.strides}'
      )
    self.layers = [
      Conv(n, k, s, self.padding, self.init_std, self.dtype)
      for n, k, s in zip(
        self.features, self.kernel_sizes, self.strides, strict=True
      )
    ]
    self.last = nn.Dense(
      1,
      kernel_init=nn.initializers.normal(self.init_std),
      dtype=jnp.float32,
      precision='highest',
    )

  def feature_maps(self, y: types.Array) -> tuple[types.Array, ...]:
    """The hidden outputs h^(1), h^(2), ... of eq. (2), after the ReLU.

    Args:
      y: shapes `(*chains, D, H, W, C)`.

    Returns:
      One array `(*chains, D_l, H_l, W_l, features[l])` for each layer. Call
      it as `net.apply(params, y, method='feature_maps')`.
    """
    maps = []
    for layer in self.layers:
      y = nn.relu(layer(y))
      maps.append(y)
    return tuple(maps)

  def scores(self, y: types.Array) -> types.Array:
    """`__call__`, of all chains at once."""
    h = self.feature_maps(y)[-1]
    h = h.reshape(*h.shape[:-4], math.prod(h.shape[-4:]))
    return self.last(h)[..., 0]

  def __call__(self, y: types.Array) -> types.Array:
    """Scores shapes `(*chains, D, H, W, C)`: f of eq. (2), `(*chains,)`."""
    if self.is_initializing() or y.ndim < 5:
      return self.scores(y)
    every = y.reshape(-1, *y.shape[-4:])
    some = self._chains_at_once(every.shape)
    if some == len(every):
      return self.scores(y)
    net = self.clone(parent=None)
    f = _in_groups(
      lambda params, y: net.apply({'params': params}, y, method='scores'), some
    )
    return f(self.variables['params'], every).reshape(y.shape[:-4])

  def _chains_at_once(self, shape) -> int:
    """As many as every layer can do with."""
    some = 1
    for layer in self.layers:
      kernel_shape = (layer.kernel_size,) * 3 + (shape[-1], layer.features)
      chunk, shape = convolution.chains_at_once(
        shape, kernel_shape, layer.stride, layer.padding
      )
      some = max(some, chunk)
    return min(some, shape[0])


class ConvTranspose(nn.Module):
  """A transposed 3-D correlation with a bias, by `correlate_transpose`.

  Attributes:
    features: output channels.
    kernel_size: side of the cubic kernel.
    factor: by which the grid grows.
    init_std: standard deviation of the initial weights.
    dtype: of the computation; parameters are float32.
  """

  features: int
  kernel_size: int
  factor: int = 1
  init_std: float = 0.02
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps `(*chains, D, H, W, C)` to sides `D * factor` and `features`."""
    kernel = self.param(
      'kernel',
      nn.initializers.normal(self.init_std),
      (self.kernel_size,) * 3 + (self.features, x.shape[-1]),
    )
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    y = convolution.correlate_transpose(
      x.astype(self.dtype), kernel.astype(self.dtype), self.factor
    )
    return y + bias.astype(self.dtype)


class Generator(nn.Module):
  """The generator g of eq. (21), with the layers of section 6.4.

  A fully connected layer under the latent factors makes a small grid;
  transposed convolutions let it grow, with batch normalisation and ReLU
  between them and tanh at the end.

  Attributes:
    features: channels of each transposed convolution; the last is 1.
    factors: by which each lets the grid grow.
    kernel_size: side of their kernels.
    base: sides of the grid that the fully connected layer makes; the output
      has sides `base * prod(factors)`.
    init_std: standard deviation of the initial weights.
    momentum: of the running averages of batch normalisation.
    dtype: of the computation; parameters and y are float32.
    axis_name: device axis over which batch statistics are averaged, if any.

  >>> import jax
  >>> net = Generator(features=(4, 1), factors=(1, 2))
  >>> variables = net.init(jax.random.key(0), jnp.zeros((2, 10)), train=False)
  >>> net.apply(variables, jnp.zeros((2, 10)), train=False).shape
  (2, 8, 8, 8, 1)
  """

  features: Sequence[int]
  factors: Sequence[int]
  kernel_size: int = 4
  base: tuple[int, int, int] = (4, 4, 4)
  init_std: float = 0.02
  momentum: float = 0.9
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, z: types.Array, train: bool) -> types.Array:
    """Maps latent factors `(*chains, d)` to shapes `(*chains, D, H, W, C)`.

    Args:
      z: latent factors.
      train: True: batch statistics, and their running averages are updated
        (`mutable=['batch_stats']`); False: the running averages.

    Returns:
      Shapes in (-1, 1).

    Raises:
      ValueError: when `features` and `factors` are not equally long.
    """
    if len(self.features) != len(self.factors):
      raise ValueError(
        f'features and factors must be equally long, got {self.features} and '
        f'{self.factors}'
      )

    def normalise(h):
      return nn.relu(
        nn.BatchNorm(
          use_running_average=not train,
          momentum=self.momentum,
          axis_name=self.axis_name if train else None,
          dtype=self.dtype,
        )(h)
      )

    h = nn.Dense(
      math.prod(self.base) * self.features[0],
      kernel_init=nn.initializers.normal(self.init_std),
      dtype=self.dtype,
    )(z)
    h = normalise(h.reshape(*z.shape[:-1], *self.base, self.features[0]))
    last = len(self.features) - 1
    for i, (n, factor) in enumerate(
      zip(self.features, self.factors, strict=True)
    ):
      h = ConvTranspose(n, self.kernel_size, factor, self.init_std, self.dtype)(
        h
      )
      if i < last:
        h = normalise(h)
    return jnp.tanh(h.astype(jnp.float32))


def generator_fn(
  generator: nn.Module, *, train: bool
) -> Callable[..., tuple[types.Array, types.PyTree]]:
  """A generator as `learning.GeneratorFn`: parameters, statistics, z.

  Args:
    generator: a `Generator`.
    train: whether it uses, and updates, batch statistics.

  Returns:
    `(params, model_state, z) -> (y, model_state)`.

  >>> import jax
  >>> net = Generator(features=(1,), factors=(1,))
  >>> z = jnp.zeros((2, 3))
  >>> model_state = net.init(jax.random.key(0), z, train=False)
  >>> params = {'params': model_state.pop('params')}
  >>> generator_fn(net, train=True)(params, model_state, z)[0].shape
  (2, 4, 4, 4, 1)
  """

  def generate(params, model_state, z):
    variables = {**params, **model_state}
    if not train:
      return generator.apply(variables, z, train=False), model_state
    return generator.apply(variables, z, train=True, mutable=['batch_stats'])

  return generate


class Classifier(nn.Module):
  """A classifier of shapes, as that of section 6.1, with a net of our own.

  Correlations, batch normalisation and ReLU; then the maximum in each octant
  of the grid (shapes stand upright, so where a part is tells something), a
  hidden layer, dropout and a linear layer.

  Attributes:
    num_classes: logits.
    features: channels of each convolutional layer.
    kernel_sizes: sides of their cubic kernels.
    strides: their sub-sampling factors.
    hidden: units of the hidden layer.
    dropout: share of inputs and outputs of the hidden layer that are dropped
      in learning.
    axis_name: device axis over which batch statistics are averaged, if any.

  >>> import jax
  >>> net = Classifier(10, (4,), kernel_sizes=(3,), strides=(2,), hidden=6)
  >>> y = jnp.zeros((2, 8, 8, 8, 1))
  >>> variables = net.init(jax.random.key(0), y, train=False)
  >>> net.apply(variables, y, train=False).shape
  (2, 10)
  >>> net.apply(variables, y, method='hidden_features').shape
  (2, 6)
  """

  num_classes: int
  features: Sequence[int]
  kernel_sizes: Sequence[int]
  strides: Sequence[int]
  hidden: int = 128
  dropout: float = 0.5
  axis_name: str | None = None

  def setup(self):
    """Builds the layers."""
    self.layers = [
      Conv(n, k, s, init_std=(2 / (k**3 * c)) ** 0.5)
      for n, k, s, c in zip(
        self.features,
        self.kernel_sizes,
        self.strides,
        (1, *self.features[:-1]),
        strict=True,
      )
    ]
    self.norms = [
      nn.BatchNorm(momentum=0.9, axis_name=self.axis_name)
      for _ in self.features
    ]
    self.drop = nn.Dropout(self.dropout)
    self.middle = nn.Dense(self.hidden)
    self.last = nn.Dense(self.num_classes)

  def hidden_features(self, y: types.Array, train: bool = False) -> types.Array:
    """Features `(*chains, hidden)` under the last layer, as `__call__`."""
    for layer, norm in zip(self.layers, self.norms, strict=True):
      y = nn.relu(norm(layer(y), use_running_average=not train))
    windows = tuple(-(-side // 2) for side in y.shape[-4:-1])
    y = nn.max_pool(y, windows, windows, 'SAME')
    y = y.reshape(*y.shape[:-4], math.prod(y.shape[-4:]))
    return nn.relu(self.middle(self.drop(y, deterministic=not train)))

  def __call__(self, y: types.Array, train: bool) -> types.Array:
    """Logits `(*chains, num_classes)` of shapes `(*chains, D, H, W, C)`.

    Args:
      y: shapes.
      train: True: batch statistics and dropout (needs
        `rngs={'dropout': key}` and `mutable=['batch_stats']`).
    """
    h = self.hidden_features(y, train)
    return self.last(self.drop(h, deterministic=not train))


class Ensemble(nn.Module):
  """Classifiers that begin differently and are asked together.

  Their mean probabilities are more often right than those of one, better
  calibrated and less sure of what is no shape at all (Lakshminarayanan et al.,
  Simple and scalable predictive uncertainty estimation using deep ensembles,
  2017).

  Attributes:
    members: classifiers of the same classes.

  >>> import jax
  >>> one = Classifier(10, (4,), kernel_sizes=(3,), strides=(2,), hidden=6)
  >>> net = Ensemble((one.clone(), one.clone()))
  >>> y = jnp.zeros((2, 8, 8, 8, 1))
  >>> net.init_with_output(jax.random.key(0), y, train=False)[0].shape
  (2, 10)
  """

  members: Sequence[nn.Module]

  def hidden_features(self, y: types.Array, train: bool = False) -> types.Array:
    """Features of all members, `(*chains, members * hidden)`."""
    return jnp.concatenate(
      [member.hidden_features(y, train) for member in self.members], axis=-1
    )

  def __call__(self, y: types.Array, train: bool) -> types.Array:
    """Logits of shapes, as `Classifier`.

    Args:
      y: shapes `(*chains, D, H, W, C)`.
      train: as there.

    Returns:
      Logarithms of the mean probabilities, `(*chains, num_classes)`. With
      `train`, logits of each member, `(members, *chains, num_classes)`: they
      learn side by side, not as one.
    """
    logits = jnp.stack([member(y, train) for member in self.members])
    if train:
      return logits
    return nn.logsumexp(nn.log_softmax(logits), axis=0) - math.log(
      len(self.members)
    )


def classifier_fn(
  classifier: nn.Module,
) -> Callable[..., tuple[types.Array, types.PyTree]]:
  """A classifier in learning, as `learning.classification_loss` takes it.

  Args:
    classifier: a `Classifier` or `Ensemble`.

  Returns:
    `(params, model_state, y, key) -> (logits, model_state)`.
  """

  def classify(params, model_state, y, key):
    return classifier.apply(
      {**params, **model_state},
      y,
      train=True,
      rngs={'dropout': key},
      mutable=['batch_stats'],
    )

  return classify
