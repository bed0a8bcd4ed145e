"""From a config to networks and their energies."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

import dnet_jax
from dnet_jax import convolution
from dnet_jax import specs
from experiments import parallel

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
PRECISIONS = ('default', *convolution.PRECISIONS)
REFERENCES = ('gaussian', 'uniform')


def choice(table: Any, name: str, field: str) -> Any:
  """The entry of a mapping; of a sequence, the name itself.

  Raises:
    ValueError: when there is no such name; the message lists the names.
  """
  if name not in table:
    raise ValueError(f'{field} must be one of {[*table]}, got {name!r}')
  return table[name] if isinstance(table, Mapping) else name


def descriptor_sizes(
  config: ml_collections.ConfigDict, network: str
) -> specs.DescriptorSizes:
  """Sizes of a descriptor by its name in `DESCRIPTORS`, or 'custom'."""
  settings = config.model
  if network == 'custom':
    names = 'features', 'kernel_sizes', 'strides'
    sizes = {name: settings[name] for name in names}
  else:
    sizes = choice(dnet_jax.DESCRIPTORS, network, 'model.network')
  return specs.DescriptorSizes(
    **{name: tuple(x) for name, x in sizes.items()}, padding=settings.padding
  )


def generator_sizes(
  config: ml_collections.ConfigDict, mean: float, scale: float
) -> specs.GeneratorSizes:
  """Sizes of the generator of `config.generator`.

  Args:
    config: its `generator` is read.
    mean: of the data. With `scale`, the range of what the generator makes.
    scale: likewise.
  """
  settings = config.generator
  if settings.latent_dim < 1:
    raise ValueError(
      f'generator.latent_dim must be at least 1, got {settings.latent_dim}'
    )
  sizes = choice(dnet_jax.GENERATORS, settings.network, 'generator.network')
  return specs.GeneratorSizes(
    **sizes,
    latent_dim=settings.latent_dim,
    output_range=(float(-mean * scale), float((1 - mean) * scale)),
  )


def dtype(config: ml_collections.ConfigDict) -> Any:
  """The dtype of the computation, `model.dtype`."""
  return choice(DTYPES, config.model.dtype, 'model.dtype')


def precision(config: ml_collections.ConfigDict) -> str | None:
  """The precision of the products of convolutions, `model.precision`."""
  name = choice(PRECISIONS, config.model.precision, 'model.precision')
  return None if name == 'default' else name


def descriptor(
  config: ml_collections.ConfigDict, sizes: specs.DescriptorSizes
) -> dnet_jax.Descriptor:
  """A descriptor in learning."""
  return dnet_jax.Descriptor(
    **sizes._asdict(),
    init_std=config.model.init_std,
    dtype=dtype(config),
    precision=precision(config),
  )


def generator(
  config: ml_collections.ConfigDict, sizes: specs.GeneratorSizes
) -> dnet_jax.Generator:
  """A generator in learning."""
  arguments = sizes._asdict()
  del arguments['latent_dim']
  return dnet_jax.Generator(
    **arguments,
    init_std=config.generator.init_std,
    dtype=dtype(config),
    precision=precision(config),
    axis_name=parallel.AXIS,
  )


def reference_means(
  config: ml_collections.ConfigDict, mean: float, scale: float
) -> tuple[float, ...]:
  """`model.reference_means`, or empty and full voxels as the network sees them.

  Args:
    config: its `model` is read.
    mean: of the data.
    scale: likewise.

  >>> config = ml_collections.ConfigDict({'model': {'reference_means': ()}})
  >>> reference_means(config, 0.25, 2.0)
  (-0.5, 1.5)
  """
  given = tuple(config.model.reference_means)
  return given or (-mean * scale, (1 - mean) * scale)


def energy_fn(
  config: ml_collections.ConfigDict,
  network: dnet_jax.Descriptor,
  mean: float,
  scale: float,
  std: float | None = None,
) -> Callable[[Any, Any], Any]:
  """The energy of a descriptor, eq. (3), with the reference of the config.

  Args:
    config: of the run.
    network: the descriptor.
    mean: of the data.
    scale: likewise.
    std: of the reference; None: `model.reference_std`.
  """
  settings = config.model
  std = settings.reference_std if std is None else std
  if choice(REFERENCES, settings.reference, 'model.reference') == 'uniform':
    std = None
  return dnet_jax.descriptor_energy(
    network.apply, std, reference_means(config, mean, scale)
  )


def init_descriptor(
  config: ml_collections.ConfigDict,
  network: dnet_jax.Descriptor,
  shape: Sequence[int],
  grid: int = 0,
) -> Any:
  """Initial variables for a grid `(D, H, W, C)`; checks that it fits."""
  key = jax.random.fold_in(jax.random.key(config.seed), 0)
  if grid:
    key = jax.random.fold_in(key, grid)
  # An array without chains: only its shape matters, and it compiles faster.
  none = jnp.zeros((0, *shape))
  try:
    return jax.jit(network.init)(key, none)
  except ValueError as error:
    raise ValueError(
      f'network {config.model.network!r} does not take a grid of sides '
      f'{tuple(shape[:3])}: {error}'
    ) from error


def init_generator(
  config: ml_collections.ConfigDict,
  network: dnet_jax.Generator,
  shape: Sequence[int],
) -> Any:
  """Initial variables; checks the shape `(D, H, W, C)` that it makes."""
  key = jax.random.fold_in(jax.random.key(config.seed), 3)
  none = jnp.zeros((0, config.generator.latent_dim))
  made = jax.eval_shape(
    lambda key: network.init_with_output(key, none, train=False)[0], key
  )
  if made.shape[1:] != tuple(shape):
    raise ValueError(
      f'generator {config.generator.network!r} makes shapes {made.shape[1:4]}, '
      f'the data has {tuple(shape[:3])}'
    )
  return jax.jit(lambda key: network.init(key, none, train=False))(key)
