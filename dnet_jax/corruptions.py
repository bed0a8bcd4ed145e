"""Corruptions: which voxels of a shape are visible, for section 6.2.

A corruption is `(keys, shape) -> visible`, keys `(chains,)`, shape `(D, H, W,
C)`, visible boolean `(chains, D, H, W, 1)`, True = observed. Each chain has a
key of its own, so that what is hidden does not depend on the chains beside it.
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dnet_jax import types

Corruption = Callable[[types.Key, Sequence[int]], types.Array]


def random_voxels(fraction: float = 0.7) -> Corruption:
  """Hides a fraction of all voxels, chosen at random: the paper's 70 %.

  Args:
    fraction: in [0, 1]; rounded to a whole number of voxels.

  Raises:
    ValueError: when `fraction` is outside [0, 1].

  >>> keys = jax.random.split(jax.random.key(0), 2)
  >>> (~random_voxels(0.75)(keys, (4, 4, 4, 1))).sum((1, 2, 3, 4)).tolist()
  [48, 48]
  """
  if not 0 <= fraction <= 1:
    raise ValueError(f'fraction must be in [0, 1], got {fraction}')

  def corrupt(keys, shape):
    sides = tuple(shape[:3])

    def one(key):
      size = sides[0] * sides[1] * sides[2]
      order = jax.random.permutation(key, size)
      return (order >= round(fraction * size)).reshape(*sides, 1)

    return jax.vmap(one)(keys)

  return corrupt


def random_box(fraction: float = 0.2) -> Corruption:
  """Hides an axis-parallel box at a random place: a hole in a scan.

  Its sides are drawn anew for each shape, its volume is about `fraction` of
  the grid's.

  Args:
    fraction: in (0, 1].

  Raises:
    ValueError: when `fraction` is outside (0, 1].

  >>> keys = jax.random.split(jax.random.key(0), 2)
  >>> random_box(0.2)(keys, (8, 8, 8, 1)).shape
  (2, 8, 8, 8, 1)
  """
  if not 0 < fraction <= 1:
    raise ValueError(f'fraction must be in (0, 1], got {fraction}')

  def corrupt(keys, shape):
    def one(key):
      key_sides, key_place = jax.random.split(key)
      # Log-uniform sides of a given product, none longer than the grid.
      log = jnp.log(fraction)
      weights = jax.random.dirichlet(key_sides, jnp.full(3, 4.0))
      sides = jnp.exp(weights * log)
      low = jax.random.uniform(key_place, (3,)) * (1 - sides)
      hidden = jnp.ones(tuple(shape[:3]), bool)
      for axis, size in enumerate(shape[:3]):
        first = jnp.round(low[axis] * size)
        last = jnp.round((low[axis] + sides[axis]) * size)
        last = jnp.maximum(last, first + 1)
        index = jnp.arange(size)
        inside = (index >= first) & (index < last)
        hidden &= jnp.expand_dims(
          inside, tuple(a for a in range(3) if a != axis)
        )
      return ~hidden[..., None]

    return jax.vmap(one)(keys)

  return corrupt


def half_space(fraction: float = 0.5) -> Corruption:
  """Hides what lies behind a plane of random direction: one-sided scans.

  Args:
    fraction: of the voxels that are hidden, in [0, 1].

  Raises:
    ValueError: when `fraction` is outside [0, 1].

  >>> keys = jax.random.split(jax.random.key(0), 2)
  >>> (~half_space(0.5)(keys, (4, 4, 4, 1))).sum((1, 2, 3, 4)).tolist()
  [32, 32]
  """
  if not 0 <= fraction <= 1:
    raise ValueError(f'fraction must be in [0, 1], got {fraction}')

  def corrupt(keys, shape):
    sides = tuple(shape[:3])
    size = sides[0] * sides[1] * sides[2]

    def one(key):
      normal = jax.random.normal(key, (3,))
      place = jnp.stack(
        jnp.meshgrid(
          *(jnp.arange(n) - (n - 1) / 2 for n in sides), indexing='ij'
        )
      )
      depth = jnp.tensordot(normal, place, 1).ravel()
      rank = jnp.argsort(jnp.argsort(depth))
      return (rank >= round(fraction * size)).reshape(*sides, 1)

    return jax.vmap(one)(keys)

  return corrupt


def mixture(corruptions: Sequence[Corruption]) -> Corruption:
  """One of several corruptions for each shape, with equal probabilities.

  Raises:
    ValueError: when there is none.

  >>> keys = jax.random.split(jax.random.key(0), 3)
  >>> mixture([half_space(), random_box()])(keys, (4, 4, 4, 1)).shape
  (3, 4, 4, 4, 1)
  """
  corruptions = tuple(corruptions)
  if not corruptions:
    raise ValueError('a mixture needs at least one corruption')

  def corrupt(keys, shape):
    def one(key):
      key_choice, key_corrupt = jax.random.split(key)
      choice = jax.random.randint(key_choice, (), 0, len(corruptions))
      made = [c(key_corrupt[None], shape)[0] for c in corruptions]
      return jnp.stack(made)[choice]

    return jax.vmap(one)(keys)

  return corrupt


def local_average(
  y: types.Array,
  visible: types.Array,
  std: float | types.Array,
  fallback: types.Array | float,
) -> types.Array:
  """Each voxel as the Gaussian average of the visible ones around it.

  A guess of what is hidden: where chains may begin, and a baseline.

  Args:
    y: shapes `(*chains, D, H, W, C)`; only visible voxels are read.
    visible: boolean, broadcasts against y; True = observed.
    std: of the Gaussian, in voxels; may be traced.
    fallback: the value where nothing is near; broadcasts against y.

  Raises:
    ValueError: when `std` is not positive.

  >>> y, visible = jnp.arange(4.0), jnp.array([False, True, False, True])
  >>> line = jnp.reshape(y, (4, 1, 1, 1)), visible[:, None, None, None]
  >>> local_average(*line, 0.5, 0.0).ravel().round(1).tolist()
  [1.0, 1.0, 2.0, 3.0]
  """
  x = types.known(std)
  if x is not None and not x > 0:
    raise ValueError(f'std must be positive, got {std}')

  def blur(x):
    for axis in (-4, -3, -2):
      place = jnp.arange(x.shape[axis])
      weights = jnp.exp(-((place[:, None] - place) ** 2) / (2 * std**2))
      x = jnp.matmul(jnp.moveaxis(x, axis, -1), weights, precision='highest')
      x = jnp.moveaxis(x, -1, axis)
    return x

  weight = blur(jnp.broadcast_to(visible, y.shape).astype(y.dtype))
  few = 1e-3
  total = blur(jnp.where(visible, y, 0)) + few * fallback
  return total / (weight + few)
