"""Moves chains of a trained model: the one loop over chunks and phases."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import numpy as np

import dnet_jax
from experiments import build
from experiments import exported
from experiments.files import datasets

_CHUNK = 50  # Chains that are moved at once: bounds the memory.


def move(
  trained: exported.Trained,
  keys: jax.Array,
  start_fn: Callable[..., tuple[dnet_jax.Start, Callable[[Any], Any]]],
  *arrays: np.ndarray,
  num_steps: int,
  noise_steps: int,
  temperature: float,
  step_size: float,
  refinement_steps: int = 0,
  refinement_std: float = 0.2,
) -> np.ndarray:
  """Moves chains, first with noise and then without, and refines them.

  Args:
    trained: the model.
    keys: `(n,)`, one for each chain, see `dnet_jax.chain_keys`.
    start_fn: `(*arrays) -> (start, finish)`, as `dnet_jax.recovery_start`.
    *arrays: `(n, ...)` each, what chains begin at; as the network sees it.
    num_steps: Langevin steps in all.
    noise_steps: of these, the first ones at `temperature`, by the kernel of
      learning; the rest at 0, plain descent.
    temperature: T of section 2.5.
    step_size: delta-tau; 0: that of learning.
    refinement_steps: after these, steps at T = 0 with narrow wells, for values
      near empty and full; in the directions in which chains may move, as all
      steps.
    refinement_std: the reference's standard deviation there, which also bounds
      the step, by its square.

  Returns:
    Voxels `(n, D, H, W)`, mean added back, not thresholded.

  Raises:
    ValueError: for numbers that are not possible.
  """
  if not 0 <= noise_steps <= num_steps:
    raise ValueError(
      'noise_steps must be from 0 to num_steps, got '
      f'{noise_steps} and {num_steps}'
    )
  if temperature < 0:
    raise ValueError(f'temperature must be >= 0, got {temperature}')
  if temperature == 0:
    noise_steps = 0
  if refinement_steps < 0 or refinement_std <= 0:
    raise ValueError(
      'refinement_steps must be >= 0 and refinement_std > 0, got '
      f'{refinement_steps} and {refinement_std}'
    )
  energy_fn = build.model(trained.config).energy_fn
  step_size = step_size or trained.config.chains.step_size
  phases = [
    (build.kernel(trained.config), energy_fn, step_size, noise_steps),
    (dnet_jax.langevin, energy_fn, step_size, num_steps - noise_steps),
  ]
  if refinement_steps:
    narrow = trained.config.copy_and_resolve_references()
    narrow.model.reference_std = refinement_std
    narrow_fn = build.model(narrow).energy_fn
    small = min(step_size, refinement_std**2)
    phases.append((dnet_jax.langevin, narrow_fn, small, refinement_steps))

  @jax.jit
  def run(params, keys, *arrays):
    start, finish = start_fn(*arrays)
    for phase, (kernel, energy, size, steps) in enumerate(phases, 1):
      if steps:
        step = kernel(
          functools.partial(energy, params),
          size,
          temperature=temperature if phase == 1 else 0.0,
          project=start.project,
        )
        keys_phase = jax.vmap(jax.random.fold_in, (0, None))(keys, phase)
        y, _ = dnet_jax.sample(
          keys_phase, step, start.position, steps, trace_fn=_nothing
        )
        start = start._replace(position=y)
    return finish(start.position)

  voxels = []
  for i in range(0, len(keys), _CHUNK):
    chunk = slice(i, i + _CHUNK)
    y = run(trained.params, keys[chunk], *(array[chunk] for array in arrays))
    voxels.append(datasets.to_voxels(y, trained.mean, trained.scale))
  return np.concatenate(voxels)


def free(y: jax.Array) -> tuple[dnet_jax.Start, Callable[[Any], Any]]:
  """Chains that begin at `y` and are free to move."""
  return dnet_jax.from_data(y), lambda y: y


def _nothing(state, info):
  del state, info
