"""Values of a config that make no sense: refused by name, before a start."""

from collections.abc import Callable
import math
from typing import Any

import ml_collections

from experiments import parallel
from experiments.files import outputs

_POSITIVE = [
  'data.batch_size',
  'data.size',
  'data.furniture_shapes',
  'generator.latent_dim',
  'classifier.members',
  'chains.num_chains',
  'chains.num_slots',
  'train.keep_checkpoints',
  'train.picture_shapes',
  'sample.num_samples',
  'sample.refinement_std',
  'recover.refinement_std',
  'super_resolve.refinement_std',
  'latent.num_rows',
  'latent.num_starts',
  'latent.step_size',
  'latent.noise_std',
  'evaluate.splits',
  'probe.draws',
  'chains.step_size',
  'model.reference_std',
  'optimizer.learning_rate',
  'generator.learning_rate',
  'back_propagation.learning_rate',
  'back_propagation.step_size',
  'back_propagation.noise_std',
  'limits.rate_factor',
]
_NOT_NEGATIVE = [
  'seed',
  'components.number',
  'model.init_std',
  'generator.init_std',
  'generator.noise_std',
  'classifier.weight_decay',
  'corruption.fill_std',
  'chains.num_steps',
  'chains.temperature',
  'chains.settle_iterations',
  'chains.start_std',
  'optimizer.clip_norm',
  'optimizer.constant_iterations',
  'train.num_iterations',
  'train.checkpoint_every',
  'train.picture_every',
  'limits.rollbacks',
  'sample.num_steps',
  'sample.noise_steps',
  'sample.temperature',
  'sample.step_size',
  'sample.start_std',
  'sample.refinement_steps',
  'sample.seed',
  'recover.num_steps',
  'recover.noise_steps',
  'recover.temperature',
  'recover.step_size',
  'recover.refinement_steps',
  'super_resolve.num_steps',
  'super_resolve.noise_steps',
  'super_resolve.temperature',
  'super_resolve.step_size',
  'super_resolve.refinement_steps',
  'latent.num_steps',
  'evaluate.seed',
  'evaluate.baseline_steps',
  'back_propagation.iterations',
  'back_propagation.num_steps',
  'data.turn_degrees',
  'data.shift_voxels',
  'limits.energy_gap',
  'limits.grad_norm',
  'limits.chain_max',
  'limits.generator_grad_norm',
]
_BELOW_ONE = [
  'optimizer.b1',
  'optimizer.b2',
  'generator.b1',
  'generator.b2',
  'classifier.dropout',
  'classifier.label_smoothing',
  'classifier.negative_share',
  'data.hold_out',
  'data.scale_range',
]
_UP_TO_ONE = [
  'chains.restart_probability',
  'optimizer.final_fraction',
  'corruption.fraction',
  'limits.rate_factor',
]
_AT_LEAST = {
  'latent.num_columns': 2,
  'latent.search': 3,
  'evaluate.num_shapes': 2,
  'chains.noise_iterations': -1,
}
_CHOICES = {
  'parallel': parallel.MODES,
  'data.scaling': ('mean', 'symmetric'),
  'model.padding': ('SAME', 'VALID'),
  'sample.start': ('noise', 'chains', 'components', 'generator', 'grids'),
  'sample.mesh_format': ('', *outputs.MESH_FORMATS),
}
_RULES: tuple[tuple[Any, str, Callable[[Any], bool]], ...] = (
  (_POSITIVE, 'must be positive', lambda x: x > 0),
  (_NOT_NEGATIVE, 'must be >= 0', lambda x: x >= 0),
  (_BELOW_ONE, 'must be in [0, 1)', lambda x: 0 <= x < 1),
  (_UP_TO_ONE, 'must be in [0, 1]', lambda x: 0 <= x <= 1),
)


def _fields(config, prefix=''):
  for name, x in config.items():
    if isinstance(x, ml_collections.ConfigDict):
      yield from _fields(x, f'{prefix}{name}.')
    else:
      yield prefix + name, x


def check(config: ml_collections.ConfigDict) -> None:
  """Refuses values that make no sense.

  Raises:
    ValueError: names the field, its value and what would be right.
  """
  fields = dict(_fields(config))
  for name, x in fields.items():
    for one in x if isinstance(x, tuple | list) else (x,):
      if isinstance(one, float) and not math.isfinite(one):
        raise ValueError(f'{name} must be finite, got {one}')
  for names, text, fits in _RULES:
    for name in names:
      if not fits(fields[name]):
        raise ValueError(f'{name} {text}, got {fields[name]}')
  for name, least in _AT_LEAST.items():
    if fields[name] < least:
      raise ValueError(f'{name} must be at least {least}, got {fields[name]}')
  for name, choices in _CHOICES.items():
    if fields[name] not in choices:
      raise ValueError(
        f'{name} must be one of {", ".join(map(repr, choices))}, got '
        f'{fields[name]!r}'
      )
  for group in ('sample', 'recover', 'super_resolve'):
    steps, noisy = fields[f'{group}.num_steps'], fields[f'{group}.noise_steps']
    # Of a shorter run, as many as there are.
    if noisy > steps and steps:
      raise ValueError(
        f'{group}.noise_steps must be at most {group}.num_steps = {steps}, got '
        f'{noisy}'
      )
  _check_mala(fields)


def _check_mala(fields):
  """MALA's acceptance ratio is 0 / 0 at a temperature of 0."""
  if fields['chains.kernel'] != 'mala':
    return
  noisy = fields['chains.noise_iterations']
  ends = 0 <= noisy < fields['train.num_iterations']
  cold = not all(fields['chains.grid_temperatures'])
  if ends or cold or not fields['chains.temperature']:
    raise ValueError(
      "chains.kernel='mala' needs a temperature above 0 in every iteration, "
      f'got chains.temperature = {fields["chains.temperature"]}, '
      f'chains.noise_iterations = {noisy} and chains.grid_temperatures = '
      f'{fields["chains.grid_temperatures"]}: use -1 for noise_iterations, or '
      'langevin'
    )
