"""What all uses share: a model's networks, its settings, and moving chains.

Voxels are `(*chains, D, H, W)` with 0 empty and 1 full; a network sees
`(voxels - mean) * scale` with a channel axis.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dnet_jax import energy
from dnet_jax import kernels
from dnet_jax import models
from dnet_jax import networks
from dnet_jax import sampling
from dnet_jax import specs
from dnet_jax import starts
from dnet_jax import types

KERNELS = {'langevin': kernels.langevin, 'mala': kernels.mala}
# What a model does that was not told: plain descent.
_DEFAULTS = {
  'synthesize': (specs.Use('noise', 200), {'step_size': 0.05}),
  'recover': (specs.Use('mean', 60), {'step_size': 0.1}),
  'super_resolve': (specs.Use('repeat', 60), {'step_size': 0.1}),
  'reconstruct': (specs.Use('prior', 200, num_starts=4), {'step_size': 0.01}),
}
_NUMBERS = {
  'temperature': 0.0,
  'start_std': 0.3,
  'fill_std': 0.7,
  'noise_std': 4.0,
  'refinement_std': 0.2,
}


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
  """Raises ValueError for a model without a network of that kind."""
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


def network_name(spec: specs.Spec, grid: int = -1) -> str:
  """The name of a descriptor among the parameters of a model."""
  if not spec.grids:
    return 'descriptor'
  return f'grid_{grid % len(spec.grids) + 1}'


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
    std = std if reference_std is None else reference_std
  function = energy.descriptor_energy(
    descriptor(spec, grid).apply, std, model.extras['reference_means']
  )
  params = model.params[network_name(spec, grid)]
  return lambda y: function(params, y)


def settings(
  model: models.Model, name: str, **given: Any
) -> tuple[specs.Use, dict[str, types.Array]]:
  """How a model is used: its own settings, and what is given in their place.

  Args:
    model: the model.
    name: of the use.
    **given: fields of `specs.Use`, and numbers; None is the model's own.

  Returns:
    What shapes the program, and the numbers.

  Raises:
    ValueError: for values that are not possible.
  """
  default, default_numbers = _DEFAULTS[name]
  use = dict(model.spec.uses).get(name, default)
  own = model.extras.get('settings', {}).get(name, default_numbers)
  numbers = _NUMBERS | dict(own)
  given = {field: x for field, x in given.items() if x is not None}
  numbers |= {f: x for f, x in given.items() if f not in use._fields}
  use = use._replace(**{f: x for f, x in given.items() if f in use._fields})
  if 'noise_steps' not in given:
    noise_steps = min(use.noise_steps, use.num_steps)
    heat = given.get('temperature')
    if heat is not None:
      cold = is_number(heat) and not jnp.any(jnp.asarray(heat))
      noise_steps = 0 if cold else noise_steps or use.num_steps
    use = use._replace(noise_steps=noise_steps)
  _check(use, numbers)
  return use, {k: jnp.asarray(x, jnp.float32) for k, x in numbers.items()}


def is_number(x: Any) -> bool:
  """Whether it can be looked at: a traced value cannot."""
  return not isinstance(x, jax.core.Tracer)


def _check(use, numbers):
  for field in ('num_steps', 'noise_steps', 'refinement_steps'):
    if getattr(use, field) < 0:
      raise ValueError(f'{field} must be >= 0, got {getattr(use, field)}')
  if use.noise_steps > use.num_steps:
    raise ValueError(
      'noise_steps must be from 0 to num_steps, got '
      f'{use.noise_steps} and {use.num_steps}'
    )
  if use.num_starts < 1:
    raise ValueError(f'num_starts must be at least 1, got {use.num_starts}')
  if use.kernel not in KERNELS:
    raise ValueError(f'kernel must be one of {[*KERNELS]}, got {use.kernel!r}')
  for field, x in numbers.items():
    if not is_number(x):
      continue
    lowest = field in ('temperature', 'start_std', 'fill_std')
    fine = jnp.all(jnp.isfinite(x) & ((x >= 0) if lowest else (x > 0)))
    if not fine:
      bound = '>= 0' if lowest else 'positive'
      raise ValueError(f'{field} must be finite and {bound}, got {x}')


def chain_keys(key: types.Key, num_chains: int) -> types.Key:
  """One key for each chain, of one for all or of one for each.

  Raises:
    ValueError: for another number of keys.
  """
  key = kernels.as_key(key)
  if key.ndim == 0:
    return starts.chain_keys(key, num_chains)
  if key.shape != (num_chains,):
    raise ValueError(
      f'one key, or {num_chains} for as many shapes, are needed, got keys of '
      f'shape {key.shape}'
    )
  return key


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


def move(
  keys: types.Key,
  model: models.Model,
  start: starts.Start,
  use: specs.Use,
  numbers: Mapping[str, types.Array],
) -> types.Array:
  """Moves chains, first with noise and then without, and refines them.

  Refinement steps have a reference of the standard deviation
  `refinement_std`, whose square also bounds the step: with two means, for empty
  and for full, voxels then choose.

  Args:
    keys: `(chains,)`.
    model: with one descriptor.
    start: `(chains, D, H, W, C)`, as the network sees shapes.
    use: steps and kernel.
    numbers: step size and temperature.

  Returns:
    `(chains, D, H, W, C)`.
  """
  step_size, temperature = numbers['step_size'], numbers['temperature']
  own = energy_fn(model)
  phases: list[tuple[Callable[..., Any], Any, Any, Any, int]] = [
    (KERNELS[use.kernel], own, step_size, temperature, use.noise_steps),
    (kernels.langevin, own, step_size, 0.0, use.num_steps - use.noise_steps),
  ]
  if use.refinement_steps:
    std = numbers['refinement_std']
    narrow = energy_fn(model, reference_std=std)
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
