"""Projections: the directions in which a chain may move.

A projection is an orthogonal projector `P` on `(*chains, D, H, W, C)`: linear,
`P P = P` and `P = P^T`. A chain that moves only by `P dy` keeps what `I - P`
sees: nothing (`free`), voxels (`fixed_voxels`) or block averages
(`fixed_average`).
"""

import jax.numpy as jnp

from dnet_jax import grids
from dnet_jax import types


def free() -> types.Projection:
  """Every direction: the identity.

  >>> free()(jnp.ones(3)).tolist()
  [1.0, 1.0, 1.0]
  """
  return lambda dy: dy


def fixed_voxels(visible: types.Array) -> types.Projection:
  """Holds the observed voxels: `C(Y) = Y_visible` of section 6.2.

  Args:
    visible: boolean, broadcasts against the chains' shape; True = observed,
      may not move.

  Returns:
    A projection whose results are exactly zero where `visible`.

  Raises:
    TypeError: when `visible` is not boolean.

  >>> fixed_voxels(jnp.array([True, False]))(jnp.ones(2)).tolist()
  [0.0, 1.0]
  """
  visible = jnp.asarray(visible)
  if visible.dtype != jnp.bool_:
    raise TypeError(f'visible must be boolean, got {visible.dtype}')
  return lambda dy: jnp.where(visible, jnp.zeros_like(dy), dy)


def fixed_average(factor: int) -> types.Projection:
  """Keeps the block averages of a grid: `I - C^- C` of section 6.3.

  Args:
    factor: side d of the d x d x d blocks; must divide D, H and W.

  Returns:
    A projection of `(*chains, D, H, W, C)` arrays whose results have zero
    block averages.

  Raises:
    ValueError: from the projection, when a side is not divisible by `factor`.

  >>> dy = fixed_average(2)(jnp.ones((1, 4, 4, 4, 1)))
  >>> float(abs(dy).max())
  0.0
  """
  return lambda dy: dy - grids.upscale(grids.downscale(dy, factor), factor)
