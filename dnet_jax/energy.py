"""Energies: functions `energy_fn(y) -> (*chains,)`, low where y is likely.

`descriptor_energy` is eq. (3); `anchored_energy` adds a Gaussian around a
given shape; `posterior_energy` is that of a generator's latent factors given a
shape. An energy here never sees other chains: its
gradient with respect to one chain depends on that chain only.
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dnet_jax import projections
from dnet_jax import types


def _positive(value):
  x = types.known(value)
  return x is None or bool((x > 0).all())


def descriptor_energy(
  descriptor_fn: types.NetworkFn,
  reference_std: float | types.Array | None = 0.5,
  reference_means: Sequence[float] | types.Array = (0.0,),
) -> Callable[[types.Params, types.Array], types.Array]:
  """The energy of a 3D DescriptorNet, eq. (3).

  `E(Y; theta) = ||Y||^2 / (2 s^2) - f(Y; theta)` with the Gaussian reference
  distribution N(0, s^2 I), or `E = -f` with the uniform one. (With the uniform
  one, the density is proper on a bounded range only.) With several
  `reference_means` the reference of each voxel is the even mixture of
  N(m, s^2) over them. With one mean for empty, one for full and a small s, each
  voxel settles near one of them.

  Args:
    descriptor_fn: `f(params, y) -> (*chains,)`, for example
      `Descriptor(...).apply`.
    reference_std: s of the reference distribution, may be traced; None:
      uniform.
    reference_means: m, one or more; may be a traced array.

  Returns:
    `energy(params, y) -> (*chains,)` for y `(*chains, D, H, W, C)`.

  Raises:
    ValueError: when `reference_std` is not positive, or there is no mean.

  >>> axes = (-4, -3, -2, -1)
  >>> energy = descriptor_energy(lambda theta, y: theta * y.sum(axes))
  >>> energy(1.0, jnp.ones((3, 2, 2, 2, 1))).tolist()
  [8.0, 8.0, 8.0]
  """
  if reference_std is not None and not _positive(reference_std):
    raise ValueError(
      f'reference_std must be positive, or None for the uniform reference '
      f'distribution; got {reference_std}'
    )
  if not len(reference_means):
    raise ValueError('reference_means needs at least one mean')

  def energy(params, y):
    f = descriptor_fn(params, y)
    if reference_std is None:
      return -f
    return jnp.sum(reference(y, reference_std), axis=(-4, -3, -2, -1)) - f

  def reference(y, s):
    # Of each voxel, up to a constant.
    terms = [(y - m) ** 2 / (2 * s**2) for m in reference_means]
    if len(terms) == 1:
      return terms[0]
    return -jax.nn.logsumexp(-jnp.stack(terms), axis=0)

  return energy


def anchored_energy(
  energy_fn: types.EnergyFn, anchor: types.Array, std: float | types.Array
) -> types.EnergyFn:
  """An energy whose density is multiplied by a Gaussian around given shapes.

  `E(Y) + ||Y - anchor||^2 / (2 a^2)`. Chains stay near a first guess and keep
  what is right in it: the network models the errors of the guess rather than
  whole shapes.

  Args:
    energy_fn: `y -> (*chains,)`.
    anchor: `(*chains, D, H, W, C)`, the guesses.
    std: a, may be traced; infinite: no Gaussian.

  Returns:
    `energy(y) -> (*chains,)`.

  Raises:
    ValueError: when `std` is not positive.

  >>> energy = anchored_energy(
  ...   lambda y: y.sum((-4, -3, -2, -1)), jnp.zeros((1, 2, 1, 1, 1)), 0.5)
  >>> energy(jnp.ones((1, 2, 1, 1, 1))).tolist()
  [6.0]
  """
  if not _positive(std):
    raise ValueError(f'the std of an anchor must be positive, got {std}')

  def energy(y):
    distance = jnp.sum(jnp.square(y - anchor), axis=(-4, -3, -2, -1))
    return energy_fn(y) + distance / (2 * jnp.square(std))

  return energy


def posterior_energy(
  generator_fn: types.NetworkFn,
  y: types.Array,
  noise_std: float | types.Array,
  visible: types.Array | None = None,
) -> types.EnergyFn:
  """The energy of latent factors given a shape, from eq. (20).

  `E(z) = ||z||^2 / 2 + ||Y - g(z)||^2 / (2 sigma^2)`, the second norm over
  the visible voxels only: alternating back-propagation's inference step.

  Args:
    generator_fn: `g(z) -> (*chains, D, H, W, C)`, parameters bound.
    y: the given shapes; broadcast against `g(z)`.
    noise_std: sigma of eq. (20); may be traced.
    visible: boolean, broadcasts against the shapes; True = observed; None:
      all are.

  Returns:
    `energy(z) -> (*chains,)` for z `(*chains, d)`.

  Raises:
    ValueError: when `noise_std` is not positive; from the energy, when
      `visible` does not fit the shapes.

  >>> energy = posterior_energy(lambda z: z[..., None, None, None], 1.0, 1.0)
  >>> energy(jnp.array([[2.0]])).tolist()
  [2.5]
  """
  if not _positive(noise_std):
    raise ValueError(f'noise_std must be positive, got {noise_std}')

  def energy(z):
    residual = y - generator_fn(z)
    if visible is not None:
      projections.check_visible(visible, residual.shape)
      residual = jnp.where(visible, residual, 0)
    misfit = jnp.sum(residual**2, axis=(-4, -3, -2, -1))
    return jnp.sum(z**2, axis=-1) / 2 + misfit / (2 * noise_std**2)

  return energy


def score(
  energy_fn: types.EnergyFn,
) -> Callable[[types.Position], types.Position]:
  """The score `-dE/dY`: the direction in which the density grows.

  Args:
    energy_fn: `y -> (*chains,)`; chains must not interact.

  Returns:
    `y -> -dE/dY`, of the shape (or the structure) of y.

  >>> score(lambda y: y**2 / 2)(jnp.array([3.0])).tolist()
  [-3.0]
  """
  return jax.grad(lambda y: -jnp.sum(energy_fn(y)))
