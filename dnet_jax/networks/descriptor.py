"""The descriptor: the scoring function f of eq. (2).

It maps `(*chains, D, H, W, C)` to `(*chains,)`, any grid that its kernels fit.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dnet_jax import convolution
from dnet_jax import types
from dnet_jax.networks import layers


def _in_groups(function: types.NetworkFn, size: int) -> types.NetworkFn:
  """`(params, y) -> (m,)` of independent chains, `size` of them at a time.

  A derivative in y alone, as Langevin dynamics needs it, is computed with the
  values, forward and back for each group. A derivative in the parameters is not
  grouped: it would need all values a second time. Groups are for a CPU, whose
  cache is small; a program that is lowered for another platform has none.
  """

  def in_groups(function, y):
    return jax.lax.platform_dependent(
      y,
      cpu=lambda y: convolution.in_chunks(function, y, size),
      default=function,
    )

  @jax.custom_jvp
  def grouped(params, y):
    return in_groups(functools.partial(function, params), y)

  def is_zero(tangent):
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)

  def jvp(primals, tangents):
    (params, y), (d_params, d_y) = primals, tangents
    if all(map(is_zero, jax.tree.leaves(d_params))):

      def both(y):
        value, pull = jax.vjp(functools.partial(function, params), y)
        return value, pull(jnp.ones_like(value))[0]

      value, slope = in_groups(both, y)
      return value, (slope * d_y).sum((1, 2, 3, 4))
    d_params = jax.tree.map(
      lambda p, d: jnp.zeros_like(p) if is_zero(d) else d, params, d_params
    )
    if is_zero(d_y):
      return jax.jvp(lambda params: function(params, y), (params,), (d_params,))
    return jax.jvp(function, (params, y), (d_params, d_y))

  grouped.defjvp(jvp, symbolic_zeros=True)
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
    method: of the convolution, one of `convolution.METHODS`; None: the fastest
      for these sizes on the platform that it is lowered for.
    precision: of the products of convolutions, one of `convolution.PRECISIONS`;
      None: as `convolution.correlate` says.

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
  method: str | None = None
  precision: str | None = None

  def setup(self):
    """Builds the layers; refuses sizes that are empty or not equally long."""
    layers.check_sizes(
      features=self.features,
      kernel_sizes=self.kernel_sizes,
      strides=self.strides,
    )
    self.layers = [
      layers.Conv(
        n,
        k,
        s,
        self.padding,
        self.init_std,
        self.dtype,
        self.method,
        self.precision,
      )
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

  def _chains_at_once(self, shape: tuple[int, ...]) -> int:
    """How many chains to take at once on a CPU: the largest layer's chunk."""
    some = 1
    for layer in self.layers:
      kernel_shape = (layer.kernel_size,) * 3 + (shape[-1], layer.features)
      chunk, shape = convolution.chains_at_once(
        shape,
        kernel_shape,
        layer.stride,
        layer.padding,
        method=layer.method,
      )
      some = max(some, chunk)
    return min(some, shape[0])
