"""Projections: the directions in which a chain may move.

A projection is an orthogonal projector `P` on positions of chains, such as
`(*chains, D, H, W, C)`: linear, `P P = P` and `P = P^T`. A chain that moves
only by `P dy` keeps what `I - P` sees: nothing (`free`), voxels
(`fixed_voxels`) or block averages (`fixed_average`).

Where a position is a pytree, the argument of a projection may be one too. Each
of its leaves applies to everything below that place in the position; where it
is None, that part is free.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnet_jax import grids
from dnet_jax import types


def free() -> types.Projection:
  """Every direction: the identity, of an array or of any pytree.

  >>> free()(jnp.ones(3)).tolist()
  [1.0, 1.0, 1.0]
  """
  return lambda dy: dy


def check_visible(visible: types.Array, shape: Sequence[int]) -> None:
  """Checks that `visible` broadcasts to the shape of an array.

  Args:
    visible: broadcasts against the array.
    shape: of the array; `(*chains, D, H, W, C)` where it has four axes or
      more.

  Raises:
    ValueError: when `visible` has no channel axis, or when broadcasting would
      change the shape of the array.

  >>> check_visible(jnp.ones((2, 4, 4, 1), bool), (5, 2, 4, 4, 1))
  """
  shape, mask = tuple(shape), np.shape(visible)
  # The check comes first, since on a cubic grid broadcasting may succeed:
  # what was W would then be read as channels. One voxel is the same in both.
  if (
    len(shape) >= 4
    and mask in (shape[:-1], shape[-4:-1])
    and math.prod(mask) != 1
  ):
    raise ValueError(
      f'visible has no channel axis: use visible[..., None]; it has shape '
      f'{mask}, the chains have {shape}'
    )
  try:
    fits = np.broadcast_shapes(mask, shape) == shape
  except ValueError:
    fits = False
  if not fits:
    raise ValueError(
      f'visible of shape {mask} does not fit chains of shape {shape}: each of '
      'its axes, counted from the last, must be as long as theirs or 1'
    )


def fixed_voxels(visible: types.PyTree) -> types.Projection:
  """Holds the observed voxels: `C(Y) = Y_visible` of section 6.2.

  Args:
    visible: boolean, broadcasts against the chains' shape; True = observed,
      may not move. For positions that are pytrees: a pytree of such arrays,
      with None for a part that is free.

  Returns:
    A projection whose results are exactly zero where `visible`.

  Raises:
    TypeError: when `visible` is not boolean.
    ValueError: from the projection, when `visible` does not fit the chains,
      for example because it has no channel axis.

  >>> fixed_voxels(jnp.array([True, False]))(jnp.ones(2)).tolist()
  [0.0, 1.0]
  >>> project = fixed_voxels({'y': jnp.array([True, False]), 'z': None})
  >>> dy = project({'y': jnp.ones(2), 'z': jnp.ones(1)})
  >>> dy['y'].tolist(), dy['z'].tolist()
  ([0.0, 1.0], [1.0])
  """

  def boolean(mask):
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
      raise TypeError(f'visible must be boolean, got {mask.dtype}')
    return mask

  def hold(mask, dy):
    check_visible(mask, dy.shape)
    return jnp.where(mask, jnp.zeros_like(dy), dy)

  return _of_parts('visible', jax.tree.map(boolean, visible), hold)


def fixed_average(factor: types.PyTree) -> types.Projection:
  """Keeps the block averages of a grid: `I - C^- C` of section 6.3.

  Args:
    factor: side d of the d x d x d blocks; must divide D, H and W. For
      positions that are pytrees: a pytree of such integers, with None for a
      part that is free.

  Returns:
    A projection of `(*chains, D, H, W, C)` arrays whose results have zero
    block averages.

  Raises:
    ValueError: from the projection, when a side is not divisible by `factor`.

  >>> dy = fixed_average(2)(jnp.ones((1, 4, 4, 4, 1)))
  >>> float(abs(dy).max())
  0.0
  """

  def hold(d, dy):
    return dy - grids.upscale(grids.downscale(dy, d), d)

  return _of_parts('factor', factor, hold)


def _of_parts(
  name: str, held: types.PyTree, hold: Callable[[Any, types.Array], types.Array]
) -> types.Projection:
  """`hold(part of held, dy)` for each array of a position.

  Args:
    name: of the argument `held`, for errors.
    held: a pytree whose leaves stand for the parts of a position; None: free.
    hold: the projection of one array.
  """

  def each(of_part, dy):
    return jax.tree.map(of_part, held, dy, is_leaf=lambda leaf: leaf is None)

  def of_part(leaf, part):
    if leaf is None:
      return part
    return jax.tree.map(functools.partial(hold, leaf), part)

  def project(dy):
    try:
      each(lambda leaf, part: None, dy)
    except ValueError:
      raise ValueError(
        f'{name} has the structure {jax.tree.structure(held)}, which does not '
        f'fit positions of the structure {jax.tree.structure(dy)}'
      ) from None
    return each(of_part, dy)

  return project
