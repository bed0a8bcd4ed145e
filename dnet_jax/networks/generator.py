"""The generator: the top-down network g of eq. (21)."""

from collections.abc import Callable
from collections.abc import Sequence
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dnet_jax import convolution
from dnet_jax import types
from dnet_jax.networks import layers


class Generator(nn.Module):
  """The generator g of eq. (21), with the layers of section 6.4.

  A fully connected layer turns the latent factors into a small grid;
  transposed convolutions enlarge it, with batch normalisation and ReLU
  between them and tanh at the end.

  Attributes:
    features: channels of each transposed convolution; the last is 1.
    factors: by which each enlarges the grid.
    kernel_size: side of their kernels.
    base: sides of the grid that the fully connected layer makes; the output
      has sides `base * prod(factors)`.
    output_range: of tanh, mapped linearly: empty and full voxels as a
      descriptor sees them; (-1, 1) in section 6.4.
    init_std: standard deviation of the initial weights.
    momentum: of the running averages of batch normalisation.
    dtype: of the computation; parameters and y are float32.
    axis_name: device axis over which batch statistics are averaged, if any.
    method: of the convolution, one of `convolution.METHODS`; None: the fastest
      for these sizes on the platform that it is lowered for.
    precision: of the products of convolutions, one of `convolution.PRECISIONS`;
      None: as `convolution.correlate` says. Dense layers have at least this
      precision; None: JAX's default.

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
  output_range: tuple[float, float] = (-1.0, 1.0)
  init_std: float = 0.02
  momentum: float = 0.9
  dtype: Any = jnp.float32
  axis_name: str | None = None
  method: str | None = None
  precision: str | None = None

  @nn.compact
  def __call__(self, z: types.Array, train: bool) -> types.Array:
    """Maps latent factors `(*chains, d)` to shapes `(*chains, D, H, W, C)`.

    Args:
      z: latent factors.
      train: True: batch statistics, and their running averages are updated
        (`mutable=['batch_stats']`); False: the running averages.

    Returns:
      Shapes within `output_range`.

    Raises:
      ValueError: when `features` and `factors` are empty or not equally long.
    """
    layers.check_sizes(features=self.features, factors=self.factors)

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
      precision=convolution.of_lax(self.precision),
    )(z)
    h = normalise(h.reshape(*z.shape[:-1], *self.base, self.features[0]))
    last = len(self.features) - 1
    for i, (n, factor) in enumerate(
      zip(self.features, self.factors, strict=True)
    ):
      h = layers.ConvTranspose(
        n,
        self.kernel_size,
        factor,
        self.init_std,
        self.dtype,
        self.method,
        self.precision,
      )(h)
      if i < last:
        h = normalise(h)
    low, high = self.output_range
    y = jnp.tanh(h.astype(jnp.float32))
    return (low + high) / 2 + (high - low) / 2 * y


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
