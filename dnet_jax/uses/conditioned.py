"""Shapes given a part of them: recovery (6.2) and super-resolution (6.3)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dnet_jax import corruptions
from dnet_jax import grids
from dnet_jax import kernels
from dnet_jax import models
from dnet_jax import pca
from dnet_jax import starts
from dnet_jax import types
from dnet_jax.uses import base
from dnet_jax.uses import synthesis

# Folded into the keys of chains, for where they begin.
_COMPLETION = 1000


def recover(
  key: types.Key,
  model: models.Model,
  voxels: types.Array,
  visible: types.Array,
  *,
  start: str | None = None,
  num_steps: int | None = None,
  noise_steps: int | None = None,
  step_size: float | types.Array | None = None,
  temperature: float | types.Array | None = None,
  fill_std: float | types.Array | None = None,
  components_std: float | types.Array | None = None,
  completion_spread: float | types.Array | None = None,
  anchor_std: float | types.Array | None = None,
  refinement_steps: int | None = None,
  refinement_std: float | types.Array | None = None,
  hold: bool | None = None,
) -> types.Array:
  """Fills the hidden voxels of shapes by Langevin dynamics: Algorithm 4.

  None always stands for the model's own setting.

  Args:
    key: consumed; one, or one for each shape.
    model: with one descriptor, of any algorithm.
    voxels: `(*chains, D, H, W)`; only the visible ones are read.
    visible: boolean, broadcasts against voxels; True = observed.
    start: where hidden voxels begin: at the 'mean' of the visible ones, or at
      their 'local_average'; at 'components', the values that the principal
      components of the data predict from the visible voxels, for large hidden
      parts; or at 'components_and_average', which adds a local average of what
      these do not explain, for visible voxels that are scattered.
    num_steps: Langevin steps.
    noise_steps: how many of these, from the first one on, are at
      `temperature`; the others are at 0.
    step_size: the paper's delta-tau.
    temperature: T of section 2.5.
    fill_std: of the Gaussian of a local average, in voxels.
    components_std: standard deviation of a voxel around what the principal
      components explain.
    completion_spread: how far from their prediction hidden voxels begin, in
      standard deviations of what the components leave open. With 1 each key
      gives another completion; with 0 all are the same.
    anchor_std: standard deviation, as the network sees voxels, of a Gaussian
      around the values at which hidden voxels begin; it multiplies the density.
      Infinite: no Gaussian.
    refinement_steps: further steps after these, with a narrow reference.
    refinement_std: standard deviation of this reference.
    hold: True: visible voxels are held at every step (the text of 6.2); False:
      they are put back at the end (the authors' code).

  Returns:
    `(*chains, D, H, W)` real values, the visible ones as they were given.

  Raises:
    TypeError: when `visible` is not boolean.
    ValueError: for a model without exactly one descriptor, shapes that do not
      fit its grid, or settings out of range.

  >>> model = models.load('demo')
  >>> voxels = jnp.zeros((32, 32, 32))
  >>> recover(jax.random.key(0), model, voxels, voxels == 0, num_steps=1).shape
  (32, 32, 32)
  """
  base.need_one_descriptor(model.spec)
  use, numbers = base.settings(
    model,
    'recover',
    start=start,
    num_steps=num_steps,
    noise_steps=noise_steps,
    step_size=step_size,
    temperature=temperature,
    fill_std=fill_std,
    components_std=components_std,
    completion_spread=completion_spread,
    anchor_std=anchor_std,
    refinement_steps=refinement_steps,
    refinement_std=refinement_std,
    hold=hold,
  )
  if use.start not in _FILLS:
    raise ValueError(f'start must be one of {[*_FILLS]}, got {use.start!r}')
  if 'components' in use.start:
    base.need_components(model, use.start, 'local_average')
  shapes, leading = base.chains_of(model, voxels, 'voxels')
  seen = base.seen(model, visible, leading)
  keys = base.chain_keys(key, len(shapes))
  y = _recover(keys, model, shapes, seen, use, numbers)
  return y.reshape(*leading, *model.spec.grid)


def _local_average(keys, model, numbers):
  del keys, model
  return lambda y, visible, mean: corruptions.local_average(
    y, visible, numbers['fill_std'], mean
  )


def _components(keys, model, numbers, local_std=None):
  found = pca.Components(**model.extras['components'])
  # Chains fold in the numbers of their phases, from 0 on.
  noise = starts.from_noise(
    kernels.fold_in(keys, _COMPLETION), (len(found.directions),)
  )
  return lambda y, visible, mean: pca.completed(
    y,
    visible,
    found,
    numbers['components_std'],
    local_std,
    numbers['completion_spread'] * noise.position,
  )


def _components_and_average(keys, model, numbers):
  return _components(keys, model, numbers, numbers['fill_std'])


_FILLS: dict[str, Callable[..., Any]] = {
  'mean': lambda keys, model, numbers: None,
  'local_average': _local_average,
  'components': _components,
  'components_and_average': _components_and_average,
}
_GUESSES: dict[str, Callable[..., Any]] = {
  'repeat': lambda model, numbers, factor: None,
  'components': lambda model, numbers, factor: (
    lambda y_low: pca.expected_details(
      y_low,
      factor,
      pca.Components(**model.extras['components']),
      numbers['components_std'],
    )
  ),
}


@jax.jit(static_argnames='use')
def _recover(keys, model, voxels, visible, use, numbers):
  start, finish = starts.recovery_start(
    base.to_network(model, voxels),
    visible[..., None],
    use.hold,
    _FILLS[use.start](keys, model, numbers),
    numbers['anchor_std'],
  )
  y = finish(base.move(keys, model, start, use, numbers))
  # The visible voxels are returned exactly as they were given.
  return jnp.where(visible, voxels, base.from_network(model, y))


def super_resolve(
  key: types.Key,
  model: models.Model,
  coarse: types.Array,
  *,
  start: str | None = None,
  num_steps: int | None = None,
  noise_steps: int | None = None,
  step_size: float | types.Array | None = None,
  temperature: float | types.Array | None = None,
  components_std: float | types.Array | None = None,
  anchor_std: float | types.Array | None = None,
  refinement_steps: int | None = None,
  refinement_std: float | types.Array | None = None,
  sharpening_steps: int | None = None,
  sharpening_std: float | types.Array | None = None,
) -> types.Array:
  """Adds the details that block averages leave open: Algorithm 5.

  A multi-grid model goes from the grid of `coarse` to its finest one as in
  synthesis, and does not hold the averages; it takes no `start`,
  `noise_steps`, `refinement_steps`, `sharpening_steps` or standard deviations.
  None always stands for the model's own setting.

  Args:
    key: consumed; one, or one for each shape.
    model: with a descriptor, of any algorithm.
    coarse: block averages `(*chains, D / d, H / d, W / d)`.
    start: where chains begin: 'repeat', blocks of one value; or 'components',
      what the principal components of the data predict from the averages.
    num_steps: Langevin steps; for a multi-grid model, those of each grid.
    noise_steps: how many of these, from the first one on, are at
      `temperature`; the others are at 0.
    step_size: the paper's delta-tau.
    temperature: T of section 2.5.
    components_std: standard deviation of an average around what the principal
      components explain.
    anchor_std: standard deviation, as the network sees shapes, of a Gaussian
      around the start of the chains; it multiplies the density. Infinite: no
      Gaussian.
    refinement_steps: further steps after these, with a narrow reference.
    refinement_std: standard deviation of this reference.
    sharpening_steps: of `sharpen`, after the chains; 0: none.
    sharpening_std: standard deviation of its blur, in voxels.

  Returns:
    `(*chains, D, H, W)` real values, not clipped; their block averages are
    `coarse`, except for a multi-grid model. With sharpening steps each voxel is
    0 or 1, and averages are those of the nearest number of voxels.

  Raises:
    ValueError: for a model without a descriptor, a grid that does not divide
      the model's, or settings out of range.

  >>> model = models.load('demo')
  >>> coarse = jnp.ones((2, 8, 8, 8))
  >>> super_resolve(jax.random.key(0), model, coarse, num_steps=1).shape
  (2, 32, 32, 32)
  """
  base.need(model.spec, 'descriptor')
  coarse, grid = jnp.asarray(coarse, jnp.float32), model.spec.grid
  leading, sides = coarse.shape[:-3], coarse.shape[-3:]
  factor = grid[0] // max(sides[0], 1) if sides else 0
  if tuple(factor * side for side in sides) != grid:
    raise ValueError(
      f'coarse must be (*chains, D / d, H / d, W / d) with one factor d that '
      f'gives the grid {grid} of the model, got shape {coarse.shape}'
    )
  shapes = coarse.reshape(-1, *sides)
  keys = base.chain_keys(key, len(shapes))
  if model.spec.grids:
    synthesis.only_for_one_grid(
      model.spec,
      start=start,
      noise_steps=noise_steps,
      components_std=components_std,
      anchor_std=anchor_std,
      refinement_steps=refinement_steps,
      refinement_std=refinement_std,
      sharpening_steps=sharpening_steps,
      sharpening_std=sharpening_std,
    )
    y = synthesis.synthesize_grids(
      keys,
      model,
      len(shapes),
      coarse=shapes,
      num_steps=num_steps,
      step_size=step_size,
      temperature=temperature,
    )[-1]
    return y.reshape(*leading, *grid)
  use, numbers = base.settings(
    model,
    'super_resolve',
    start=start,
    num_steps=num_steps,
    noise_steps=noise_steps,
    step_size=step_size,
    temperature=temperature,
    components_std=components_std,
    anchor_std=anchor_std,
    refinement_steps=refinement_steps,
    refinement_std=refinement_std,
    sharpening_steps=sharpening_steps,
    sharpening_std=sharpening_std,
  )
  if use.start not in _GUESSES:
    raise ValueError(f'start must be one of {[*_GUESSES]}, got {use.start!r}')
  if use.start == 'components':
    base.need_components(model, use.start, 'repeat', factor=factor)
  y = _super_resolve(keys, model, shapes, factor, use, numbers)
  return y.reshape(*leading, *grid)


@jax.jit(static_argnames=('factor', 'use'))
def _super_resolve(keys, model, coarse, factor, use, numbers):
  start = starts.from_low_resolution(
    base.to_network(model, coarse),
    factor,
    _GUESSES[use.start](model, numbers, factor),
    numbers['anchor_std'],
  )
  y = base.from_network(model, base.move(keys, model, start, use, numbers))
  if not use.sharpening_steps:
    return y
  return grids.sharpen(
    y[..., None],
    coarse[..., None],
    factor,
    num_steps=use.sharpening_steps,
    std=numbers['sharpening_std'],
  )[..., 0]
