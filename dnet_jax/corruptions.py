"""Corruptions: which voxels of a shape are visible, for section 6.2.

A corruption is `(keys, y) -> visible`, keys `(chains,)`, shapes y `(chains, D,
H, W, C)`, visible boolean `(chains, D, H, W, 1)`, True = observed. Each chain
has a key of its own, so that what is hidden does not depend on the others.
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dnet_jax import types

Corruption = Callable[[types.Key, types.Array], types.Array]


def random_voxels(fraction: float = 0.7) -> Corruption:
  """Hides a fraction of all voxels, chosen at random: the paper's 70 %.

  Args:
    fraction: in [0, 1]; rounded to a whole number of voxels.

  Raises:
    ValueError: when `fraction` is outside [0, 1].

  >>> keys = jax.random.split(jax.random.key(0), 2)
  >>> y = jnp.zeros((2, 4, 4, 4, 1))
  >>> (~random_voxels(0.75)(keys, y)).sum((1, 2, 3, 4)).tolist()
  [48, 48]
  """
  if not 0 <= fraction <= 1:
    raise ValueError(f'fraction must be in [0, 1], got {fraction}')

  def corrupt(keys, y):
    sides = y.shape[1:4]

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
  >>> random_box(0.2)(keys, jnp.zeros((2, 8, 8, 8, 1))).shape
  (2, 8, 8, 8, 1)
  """
  if not 0 < fraction <= 1:
    raise ValueError(f'fraction must be in (0, 1], got {fraction}')

  def corrupt(keys, y):
    sides_of_grid = y.shape[1:4]

    def one(key):
      key_sides, key_place = jax.random.split(key)
      # Log-uniform sides of a given product, none longer than the grid.
      log = jnp.log(fraction)
      weights = jax.random.dirichlet(key_sides, jnp.full(3, 4.0))
      sides = jnp.exp(weights * log)
      low = jax.random.uniform(key_place, (3,)) * (1 - sides)
      hidden = jnp.ones(sides_of_grid, bool)
      for axis, size in enumerate(sides_of_grid):
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
  >>> y = jnp.zeros((2, 4, 4, 4, 1))
  >>> (~half_space(0.5)(keys, y)).sum((1, 2, 3, 4)).tolist()
  [32, 32]
  """
  if not 0 <= fraction <= 1:
    raise ValueError(f'fraction must be in [0, 1], got {fraction}')

  def corrupt(keys, y):
    sides = y.shape[1:4]
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


def one_view(level: float = 0.5, axes: Sequence[int] = (0, 1)) -> Corruption:
  """Hides the voxels that a distant camera cannot see.

  Along each line of sight these are all voxels behind the first full one. The
  empty space in front of it is visible.

  Args:
    level: a voxel above it is full, in the units of the shapes.
    axes: of the grid, along which the camera may look, in either direction; by
      default the two horizontal axes of ModelNet.

  Raises:
    ValueError: when `axes` is empty, or has one that is not 0, 1 or 2.

  >>> y = jnp.reshape(jnp.array([0.0, 1, 1, 0]), (1, 4, 1, 1, 1))
  >>> keys = jax.random.split(jax.random.key(0), 1)
  >>> one_view(axes=(0,))(keys, y).ravel().tolist() in (
  ...   [True, True, False, False], [False, False, True, True])
  True
  """
  axes = tuple(axes)
  if not axes or not {*axes} <= {0, 1, 2}:
    raise ValueError(f'axes must be some of 0, 1, 2, got {axes}')

  def along(axis, full):
    before = jnp.cumsum(full, axis=axis) - full
    return before == 0

  def corrupt(keys, y):
    def one(key, y):
      full = (y > level).any(axis=-1, keepdims=True).astype(jnp.int32)
      seen = [along(axis, full) for axis in axes]
      seen += [jnp.flip(along(a, jnp.flip(full, a)), a) for a in axes]
      return jnp.stack(seen)[jax.random.randint(key, (), 0, len(seen))]

    return jax.vmap(one)(keys, y)

  return corrupt


def mixture(corruptions: Sequence[Corruption]) -> Corruption:
  """One of several corruptions for each shape, with equal probabilities.

  Raises:
    ValueError: when `corruptions` is empty.

  >>> keys = jax.random.split(jax.random.key(0), 3)
  >>> y = jnp.zeros((3, 4, 4, 4, 1))
  >>> mixture([half_space(), random_box()])(keys, y).shape
  (3, 4, 4, 4, 1)
  """
  corruptions = tuple(corruptions)
  if not corruptions:
    raise ValueError('a mixture needs at least one corruption')

  def corrupt(keys, y):
    def one(key, y):
      key_choice, key_corrupt = jax.random.split(key)
      choice = jax.random.randint(key_choice, (), 0, len(corruptions))
      made = [c(key_corrupt[None], y[None])[0] for c in corruptions]
      return jnp.stack(made)[choice]

    return jax.vmap(one)(keys, y)

  return corrupt


def local_average(
  y: types.Array,
  visible: types.Array,
  std: float | types.Array,
  fallback: types.Array | float,
) -> types.Array:
  """Each voxel as the Gaussian average of the visible ones around it.

  A guess of the hidden voxels. Chains may begin there, and it is a baseline.

  Args:
    y: shapes `(*chains, D, H, W, C)`; only visible voxels are read.
    visible: boolean, broadcasts against y; True = observed.
    std: of the Gaussian, in voxels; may be traced.
    fallback: the value where no visible voxel is near; broadcasts against y.

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
