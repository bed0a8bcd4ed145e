"""Networks in Flax Linen: the descriptor of section 2.1 and its settings.

The only module that knows of Flax. A descriptor maps `(*chains, D, H, W, C)`
to `(*chains,)`, any grid that its kernels fit.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

import flax.linen as nn
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
  'paper_superres': dict(features=(200,), kernel_sizes=(16,), strides=(3,)),
  # 6.4 cooperative learning
  'paper_coop': dict(
    features=(64, 128, 256), kernel_sizes=(9, 7, 4), strides=(2, 2, 2)
  ),
  # 6.6 multi-grid, the same for each of the four grids
  'paper_multigrid': dict(features=(100,), kernel_sizes=(5,), strides=(3,)),
  # The paper's 3-layer network with fewer filters.
  'small': dict(features=(32, 32), kernel_sizes=(16, 6), strides=(3, 2)),
  'medium': dict(features=(64, 64), kernel_sizes=(16, 6), strides=(3, 2)),
  # For tests: seconds on a CPU, grids from 8^3.
  'tiny': dict(features=(4, 4), kernel_sizes=(5, 3), strides=(2, 2)),
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

  def __call__(self, y: types.Array) -> types.Array:
    """Scores shapes `(*chains, D, H, W, C)`: f of eq. (2), `(*chains,)`."""
    h = self.feature_maps(y)[-1]
    h = h.reshape(*h.shape[:-4], math.prod(h.shape[-4:]))
    return self.last(h)[..., 0]
