"""What all uses share: a model's networks, its settings, and moving chains.

Voxels are `(*chains, D, H, W)` with 0 empty and 1 full; a network sees
`(voxels - mean) * scale` with a channel axis.
"""

from collections.abc import Callable
from collections.abc import Mapping
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnet_jax import energy
from dnet_jax import kernels
from dnet_jax import models
from dnet_jax import networks
from dnet_jax import pca
from dnet_jax import sampling
from dnet_jax import specs
from dnet_jax import starts
from dnet_jax import types

KERNELS = {'langevin': kernels.langevin, 'mala': kernels.mala}
# For a model without settings of its own: plain descent.
_USES = {
  'synthesize': specs.Use('noise', 200),
  'recover': specs.Use('mean', 60),
  'super_resolve': specs.Use('repeat', 60),
  'reconstruct': specs.Use('prior', 200, num_starts=4),
}
_STEP_SIZES = {
  'synthesize': 0.05,
  'recover': 0.1,
  'super_resolve': 0.1,
  'reconstruct': 0.01,
}
_NUMBERS = {
  'temperature': 0.0,
  'start_std': 0.3,
  'start_spread': 0.6,
  'fill_std': 0.7,
  'components_std': 0.7,
  'completion_spread': 0.0,
  'anchor_std': np.inf,
  'noise_std': 4.0,
  'refinement_std': 0.2,
  'sharpening_std': 1.0,
}

_MAY_BE_0 = ('temperature', 'start_std', 'start_spread', 'completion_spread')


def to_network(model: models.Model, voxels: types.Array) -> types.Array:
  """Voxels `(*chains, D, H, W)` as the networks see them, with a channel."""
  y = jnp.asarray(voxels, jnp.float32)[..., None]
  return (y - model.extras['mean']) * model.extras['scale']


def from_network(model: models.Model, y: types.Array) -> types.Array:
  """The inverse of `to_network`; not clipped, not thresholded."""
  return y[..., 0] / model.extras['scale'] + model.extras['mean']


def descriptor(spec: specs.Spec, grid: int = -1) -> networks.Descriptor:
  """The descriptor of a spec, or that of a grid of several.

  Args:
    spec: of a model.
    grid: counted from 0, the coarsest.

  Raises:
    ValueError: for a model without one.
  """
  need(spec, 'descriptor')
  return networks.Descriptor(**spec.descriptors[grid]._asdict())


def need(spec: specs.Spec, network: str) -> None:
  """Raises ValueError for a model without a network of this kind."""
  there = {
    'descriptor': bool(spec.descriptors),
    'generator': spec.generator is not None,
    'classifier': spec.classifier is not None,
  }
  if not there[network]:
    raise ValueError(
      f'this needs a model with a {network}; this one has a '
      f'{specs.describe(spec)}'
    )


def need_components(
  model: models.Model,
  start: str,
  other: str,
  *,
  side: int | None = None,
  factor: int = 1,
) -> None:
  """Refuses a start for which the model has not the principal components.

  Args:
    model: the model.
    start: name of the start.
    other: name of one that needs no components.
    side: of the grid where chains begin; None: the finest of the model.
    factor: the components' grid may be coarser by a divisor of this.

  Raises:
    ValueError: for a model without components, or with those of a coarser grid.
  """
  if 'components' not in model.extras:
    raise ValueError(
      f"start '{start}' needs a model that keeps principal components of its "
      f"data, and this one has none: use start='{other}'"
    )
  side = side or model.spec.grid[0]
  own = model.extras['components']['mean'].shape[0]
  if side % own or factor % (side // own):
    raise ValueError(
      f"start '{start}' needs principal components of {side}^3, and this model "
      f"has those of {own}^3: use start='{other}'"
    )


def need_one_descriptor(spec: specs.Spec) -> None:
  """Raises ValueError for a model without a descriptor, or with several."""
  need(spec, 'descriptor')
  if spec.grids:
    raise ValueError(
      'this needs a model with one descriptor; this one has one for each of '
      f'the grids {spec.grids}'
    )


def network_name(spec: specs.Spec, grid: int = -1) -> str:
  """The name of a descriptor among the parameters of a model."""
  return specs.network_names(spec)[: len(spec.descriptors)][grid]


def energy_fn(
  model: models.Model,
  grid: int = -1,
  *,
  reference_std: float | types.Array | None = None,
) -> types.EnergyFn:
  """The energy of a model, eq. (3), with its parameters bound.

  Args:
    model: with a descriptor.
    grid: of a multi-grid model, counted from 0, the coarsest.
    reference_std: in place of the model's own s.

  Returns:
    `(*chains, D, H, W, C) -> (*chains,)`, of shapes as the network sees them.
  """
  spec, std = model.spec, None
  if spec.reference != 'uniform':
    std = model.extras['reference_std']
    # Of several grids: one for all, or one for each.
    std = std[grid] if jnp.ndim(std) else std
    std = std if reference_std is None else reference_std
  function = energy.descriptor_energy(
    descriptor(spec, grid).apply, std, model.extras['reference_means']
  )
  params = model.params[network_name(spec, grid)]
  return lambda y: function(params, y)


def settings(
  model: models.Model, name: str, **given: Any
) -> tuple[specs.Use, dict[str, types.Array]]:
  """How a model is used: its own settings, or those given in their place.

  Args:
    model: the model.
    name: of the use.
    **given: fields of `specs.Use`, and numbers; None is the model's own.

  Returns:
    The `Use`, which determines the program, and the numbers.

  Raises:
    TypeError: for steps that are not whole numbers.
    ValueError: for a value out of range, or an unknown kernel.
  """
  use = dict(model.spec.uses).get(name) or _default_use(model.spec, name)
  own = model.extras.get('settings', {}).get(name, {})
  numbers = _NUMBERS | {'step_size': _STEP_SIZES[name]} | dict(own)
  given = {field: x for field, x in given.items() if x is not None}
  numbers |= {f: x for f, x in given.items() if f not in use._fields}
  use = use._replace(**{f: x for f, x in given.items() if f in use._fields})
  use = use._replace(**{f: _count(f, getattr(use, f)) for f in _COUNTS})
  if 'noise_steps' not in given:
    noise_steps = min(use.noise_steps, use.num_steps)
    if 'temperature' in given:
      heat = types.known(given['temperature'])
      cold = heat is not None and not heat.any()
      noise_steps = 0 if cold else noise_steps or use.num_steps
    use = use._replace(noise_steps=noise_steps)
  _check(model.spec, use, numbers)
  return use, {k: jnp.asarray(x, jnp.float32) for k, x in numbers.items()}


def _default_use(spec, name):
  if name == 'synthesize' and spec.grids:
    return _USES[name]._replace(start='grids')
  if name == 'synthesize' and not spec.descriptors:
    return specs.Use('generator', 0)
  return _USES[name]


# Fields of `Use` that are numbers, and the least value of each.
_COUNTS = {
  'num_steps': 0,
  'noise_steps': 0,
  'refinement_steps': 0,
  'sharpening_steps': 0,
  'num_starts': 1,
}


def _count(field, x):
  """A Python integer, since it determines the program."""
  try:
    count = operator.index(x)
  except TypeError as error:
    raise TypeError(
      f'{field} must be a whole number, and not traced; got {x}'
    ) from error
  if count < _COUNTS[field]:
    raise ValueError(f'{field} must be >= {_COUNTS[field]}, got {count}')
  return count


def _check(spec, use, numbers):
  if use.noise_steps > use.num_steps:
    raise ValueError(
      'noise_steps must be from 0 to num_steps, got '
      f'{use.noise_steps} and {use.num_steps}'
    )
  if use.kernel not in KERNELS:
    raise ValueError(f'kernel must be one of {[*KERNELS]}, got {use.kernel!r}')
  for field, given in numbers.items():
    x, shape = types.known(given), jnp.asarray(given).shape
    for_each = (len(spec.grids),)
    several = field == 'temperature' and spec.grids and shape == for_each
    if shape and not several:
      also = f', or {for_each} for each grid' if spec.grids else ''
      raise ValueError(
        f'{field} must be one number{also}; got an array of shape {shape}'
      )
    if x is None:
      continue
    may_be_0 = field in _MAY_BE_0
    finite = np.isfinite(x) | (field == 'anchor_std')
    if not (finite & ((x >= 0) if may_be_0 else (x > 0))).all():
      bound = '>= 0' if may_be_0 else 'positive'
      raise ValueError(f'{field} must be finite and {bound}, got {given}')
  heat = types.known(numbers['temperature'])
  hot = use.num_steps if spec.grids else use.noise_steps
  if use.kernel == 'mala' and hot and heat is not None and not heat.all():
    raise ValueError(
      f'the kernel mala needs temperature > 0 in the {hot} steps with noise; '
      f'got {numbers["temperature"]}'
    )


def chain_keys(key: types.Key, num_chains: int) -> types.Key:
  """One key for each chain, given one key for all or one for each.

  Raises:
    ValueError: for another number of keys.
  """
  key = kernels.as_key(key)
  if key.ndim == 0:
    return starts.chain_keys(key, num_chains)
  if key.shape != (num_chains,):
    raise ValueError(
      f'key must be one key, or {num_chains} keys for {num_chains} shapes; got '
      f'keys of shape {key.shape}'
    )
  return key


# Chain i has fold_in(key, i). No chain has this one.
_LAST = np.uint32(2**32 - 1)


def without_repeats(key: types.Key, count: int, num_draws: int) -> types.Array:
  """`pca.without_repeats`, by the key of all chains that no chain uses."""
  key = jax.random.fold_in(kernels.as_key(key), _LAST)
  return pca.without_repeats(key, count, num_draws)


def chains_of(
  model: models.Model, voxels: types.Array, what: str
) -> tuple[types.Array, tuple[int, ...]]:
  """Voxels as `(n, D, H, W)`, and their chain axes.

  Raises:
    ValueError: for another grid than that of the model.
  """
  voxels = jnp.asarray(voxels)
  if voxels.shape[-3:] != model.spec.grid:
    raise ValueError(
      f'{what} must be (*chains, D, H, W) with the grid {model.spec.grid} of '
      f'the model, got shape {voxels.shape}'
    )
  return voxels.reshape(-1, *voxels.shape[-3:]), voxels.shape[:-3]


def seen(
  model: models.Model, visible: types.Array | bool, leading: tuple[int, ...]
) -> types.Array:
  """A mask as `(n, D, H, W)`, one for each shape.

  Args:
    model: the model.
    visible: boolean, broadcasts against the voxels.
    leading: chain axes of the voxels.

  Raises:
    TypeError: when it is not boolean.
    ValueError: when it does not fit.
  """
  visible = jnp.asarray(visible)
  if visible.dtype != jnp.bool_:
    raise TypeError(f'visible must be boolean, got {visible.dtype}')
  shape = (*leading, *model.spec.grid)
  try:
    visible = jnp.broadcast_to(visible, shape)
  except ValueError as error:
    raise ValueError(
      f'visible of shape {visible.shape} does not fit voxels of shape {shape}'
    ) from error
  return visible.reshape(-1, *model.spec.grid)


def move(
  keys: types.Key,
  model: models.Model,
  start: starts.Start,
  use: specs.Use,
  numbers: Mapping[str, types.Array],
) -> types.Array:
  """Moves chains, first with noise and then without, and refines them.

  Refinement steps have a reference of the standard deviation
  `refinement_std`, whose square also bounds the step size. With two reference
  means, one for empty and one for full, each voxel then settles near one.

  Args:
    keys: `(chains,)`.
    model: with one descriptor.
    start: `(chains, D, H, W, C)`, as the network sees shapes.
    use: steps and kernel.
    numbers: step size, temperature and `refinement_std`.

  Returns:
    `(chains, D, H, W, C)`.
  """
  step_size, temperature = numbers['step_size'], numbers['temperature']
  own = starts.energy_of(start, energy_fn(model))
  phases: list[tuple[Callable[..., Any], Any, Any, Any, int]] = [
    (KERNELS[use.kernel], own, step_size, temperature, use.noise_steps),
    (kernels.langevin, own, step_size, 0.0, use.num_steps - use.noise_steps),
  ]
  if use.refinement_steps:
    std = numbers['refinement_std']
    narrow = starts.energy_of(start, energy_fn(model, reference_std=std))
    small = jnp.minimum(step_size, std**2)
    phases.append((kernels.langevin, narrow, small, 0.0, use.refinement_steps))
  # Phase 0 is the start.
  for phase, (kernel, function, size, heat, steps) in enumerate(phases, 1):
    if steps:
      step = kernel(function, size, temperature=heat, project=start.project)
      y, _ = sampling.sample(
        kernels.fold_in(keys, phase),
        step,
        start.position,
        steps,
        trace_fn=lambda state, info: None,
      )
      start = start._replace(position=y)
  return start.position
