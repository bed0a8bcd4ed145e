"""Layers: convolutions with a bias, by `dnet_jax.convolution`."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dnet_jax import convolution
from dnet_jax import types


def check_sizes(**sizes: Sequence[int]) -> None:
  """Raises ValueError where there are no layers, or not equally many of each.

  >>> check_sizes(features=(4, 8), strides=(2, 2))
  """
  for name, values in sizes.items():
    if not len(values):
      raise ValueError(
        f'{name} must have one entry for each layer, at least one, got '
        f'{values!r}'
      )
  if len({len(values) for values in sizes.values()}) != 1:
    raise ValueError(
      f'{", ".join(sizes)} must be equally long, got '
      + ', '.join(str(values) for values in sizes.values())
    )


class Conv(nn.Module):
  """A strided 3-D correlation with a bias, through `convolution.correlate`.

  Attributes:
    features: output channels.
    kernel_size: side of the cubic kernel.
    stride: sub-sampling factor.
    padding: 'SAME' or 'VALID'.
    init_std: standard deviation of the initial weights.
    dtype: of the computation; parameters are float32.
    method: of the convolution, one of `convolution.METHODS`; None: the fastest
      for these sizes on the platform that it is lowered for.
    precision: of the products of convolutions, one of `convolution.PRECISIONS`;
      None: as `convolution.correlate` says.
  """

  features: int
  kernel_size: int
  stride: int = 1
  padding: str = 'SAME'
  init_std: float = 0.001
  dtype: Any = jnp.float32
  method: str | None = None
  precision: str | None = None

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
      method=self.method,
      precision=self.precision,
    )
    return y + bias.astype(self.dtype)


class ConvTranspose(nn.Module):
  """A transposed 3-D correlation with a bias, by `correlate_transpose`.

  Attributes:
    features: output channels.
    kernel_size: side of the cubic kernel.
    factor: by which it enlarges the grid.
    init_std: standard deviation of the initial weights.
    dtype: of the computation; parameters are float32.
    method: of the convolution, one of `convolution.METHODS`; None: the fastest
      for these sizes on the platform that it is lowered for.
    precision: of the products of convolutions, one of `convolution.PRECISIONS`;
      None: as `convolution.correlate` says.
  """

  features: int
  kernel_size: int
  factor: int = 1
  init_std: float = 0.02
  dtype: Any = jnp.float32
  method: str | None = None
  precision: str | None = None

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
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      self.factor,
      method=self.method,
      precision=self.precision,
    )
    return y + bias.astype(self.dtype)
