"""Checks the values of a config before a run starts, and names the wrong ones.

A field that holds numbers has a rule here unless it may have any value. Values
that depend on the data, such as a category, are checked where it is loaded.
"""

from collections.abc import Callable
import math
import re
from typing import Any
from typing import NamedTuple

import ml_collections

import dnet_jax
from dnet_jax.uses import synthesis as library
from experiments import parallel
from experiments import tasks
from experiments.files import datasets
from experiments.files import shapes
from experiments.tasks import cooperative
from experiments.tasks import networks
from experiments.tasks import parts
from experiments.tasks import synthesis


class Rule(NamedTuple):
  """What a value has to be.

  Attributes:
    text: in words, after 'must be'.
    fits: `(value) -> bool`.
  """

  text: str
  fits: Callable[[Any], bool]


def _whole(x):
  return isinstance(x, int) and not isinstance(x, bool)


def _numbers(x):
  return all(isinstance(one, int | float) for one in x)


_POSITIVE = Rule('positive', lambda x: x > 0)
_NOT_NEGATIVE = Rule('>= 0', lambda x: x >= 0)
_BELOW_ONE = Rule('in [0, 1)', lambda x: 0 <= x < 1)
_SHARE = Rule('in [0, 1]', lambda x: 0 <= x <= 1)
_FACTOR = Rule('in (0, 1]', lambda x: 0 < x <= 1)
_TWO = Rule('at least 2', lambda x: x >= 2)
_SEED = Rule('from 0 to 2^32 - 1', lambda x: 0 <= x < 2**32)
_SIZES = Rule(
  'whole numbers above 0', lambda x: all(_whole(y) and y > 0 for y in x)
)


def _formats(text):
  try:
    shapes.parse(text)
  except ValueError:
    return False
  return True


def _one_of(names):
  return Rule(f'one of {", ".join(map(repr, names))}', lambda x: x in names)


def _each_of(names):
  rule = _one_of(names)
  return Rule(f'each {rule.text}', lambda x: all(map(rule.fits, x)))


# Tasks whose networks have batch statistics, which need all chains together.
WITH_STATISTICS = ('cooperative', 'evaluation_classifier')
# Rules by group and field; a number without a rule may have any value.
_KINDS = (*parts.CORRUPTIONS, parts.ONE_VIEW, parts.MIXTURE)
_RULES = {
  '': {
    'name': Rule(
      'a name of a folder', lambda x: re.fullmatch(r'\w[\w.+-]*', x)
    ),
    'seed': _SEED,
    'task': _one_of((*tasks.TASKS,)),
    'parallel': _one_of(parallel.MODES),
    'factor': _TWO,
  },
  'data': {
    'batch_size': _POSITIVE,
    'scaling': _one_of(datasets.SCALINGS),
    'size': _POSITIVE,
    'furniture_shapes': _POSITIVE,
    'hold_out': _BELOW_ONE,
    'turn_degrees': Rule('from 0 to 180', lambda x: 0 <= x <= 180),
    'shift_voxels': _NOT_NEGATIVE,
    'scale_range': _BELOW_ONE,
  },
  'model': {
    'network': _one_of((*dnet_jax.DESCRIPTORS, 'custom')),
    'features': _SIZES,
    'kernel_sizes': _SIZES,
    'strides': _SIZES,
    'padding': _one_of(('SAME', 'VALID')),
    'init_std': _NOT_NEGATIVE,
    'dtype': _one_of((*networks.DTYPES,)),
    'precision': _one_of(networks.PRECISIONS),
    'reference': _one_of(networks.REFERENCES),
    'reference_std': _POSITIVE,
    'reference_means': Rule('numbers, or ()', _numbers),
    'grids': _SIZES,
    'grid_networks': _each_of((*dnet_jax.DESCRIPTORS, 'custom')),
    'grid_reference_stds': Rule(
      'numbers > 0, or ()', lambda x: _numbers(x) and all(y > 0 for y in x)
    ),
    'enlarge': _one_of((*library.ENLARGE,)),
  },
  'generator': {
    'network': _one_of((*dnet_jax.GENERATORS,)),
    'latent_dim': _POSITIVE,
    'noise_std': _NOT_NEGATIVE,
    'init_std': _NOT_NEGATIVE,
    'learning_rate': _POSITIVE,
    'b1': _BELOW_ONE,
    'b2': _BELOW_ONE,
  },
  'back_propagation': {
    'iterations': _NOT_NEGATIVE,
    'num_steps': _NOT_NEGATIVE,
    'step_size': _POSITIVE,
    'noise_std': _POSITIVE,
    'learning_rate': _POSITIVE,
  },
  'regression': {
    'iterations': _NOT_NEGATIVE,
    'correlation': Rule('in (0, 1)', lambda x: 0 < x < 1),
    'learning_rate': _POSITIVE,
  },
  'components': {
    'number': _NOT_NEGATIVE,
    'neighbours': _NOT_NEGATIVE,
    'block': _POSITIVE,
    'share': Rule('in (0, 1)', lambda x: 0 < x < 1),
  },
  'classifier': {
    'network': _one_of((*dnet_jax.CLASSIFIERS,)),
    'members': _POSITIVE,
    'dropout': _BELOW_ONE,
    'label_smoothing': _BELOW_ONE,
    'weight_decay': _NOT_NEGATIVE,
    'negative_share': _BELOW_ONE,
  },
  'corruption': {
    'kind': _one_of(_KINDS),
    'fraction': _SHARE,
    'fill_std': _NOT_NEGATIVE,
    'components_std': _NOT_NEGATIVE,
    'anchor_std': _NOT_NEGATIVE,
  },
  'chains': {
    'start': _one_of((*synthesis.SOURCES,)),
    'kernel': _one_of((*parts.KERNELS,)),
    'num_chains': _POSITIVE,
    'at_once': _NOT_NEGATIVE,
    'num_slots': _POSITIVE,
    'num_steps': _NOT_NEGATIVE,
    'step_size': _POSITIVE,
    'temperature': _NOT_NEGATIVE,
    'grid_temperatures': Rule(
      'numbers >= 0', lambda x: _numbers(x) and all(y >= 0 for y in x)
    ),
    'noise_iterations': Rule('at least -1', lambda x: x >= -1),
    'restart_probability': _SHARE,
    'settle_iterations': _NOT_NEGATIVE,
    'start_std': _NOT_NEGATIVE,
    'start_spread': _NOT_NEGATIVE,
  },
  'optimizer': {
    'learning_rate': _POSITIVE,
    'b1': _BELOW_ONE,
    'b2': _BELOW_ONE,
    'clip_norm': _NOT_NEGATIVE,
    'constant_iterations': _NOT_NEGATIVE,
    'final_fraction': _SHARE,
  },
  'train': {
    'num_iterations': _NOT_NEGATIVE,
    'checkpoint_every': _NOT_NEGATIVE,
    'keep_checkpoints': _POSITIVE,
    'picture_every': _NOT_NEGATIVE,
    'picture_shapes': _POSITIVE,
    'page_every': _NOT_NEGATIVE,
  },
  'limits': {
    'energy_gap': _POSITIVE,
    'grad_norm': _POSITIVE,
    'chain_max': _POSITIVE,
    'generator_grad_norm': _POSITIVE,
    'rollbacks': _NOT_NEGATIVE,
    'rate_factor': _FACTOR,
  },
  'sample': {
    'start': _one_of(('noise', 'chains', 'components', 'generator', 'grids')),
    'num_samples': _POSITIVE,
    'start_std': _NOT_NEGATIVE,
    'start_spread': _NOT_NEGATIVE,
    'mesh_format': Rule(
      f'some of {", ".join(shapes.FORMATS)}, with commas', _formats
    ),
    'seed': _SEED,
  },
  'recover': {'completion_spread': _NOT_NEGATIVE},
  'super_resolve': {
    'components_std': _NOT_NEGATIVE,
    'anchor_std': _NOT_NEGATIVE,
    'sharpening_steps': _NOT_NEGATIVE,
    'sharpening_std': _POSITIVE,
  },
  'latent': {
    'num_rows': _POSITIVE,
    'num_columns': _TWO,
    'search': Rule('at least 3', lambda x: x >= 3),
    'examples': Rule(
      'whole numbers >= 0, three for each row',
      lambda x: all(_whole(y) and y >= 0 for y in x) and len(x) % 3 == 0,
    ),
    'correlation': _BELOW_ONE,
    'num_starts': _POSITIVE,
    'num_steps': _NOT_NEGATIVE,
    'step_size': _POSITIVE,
    'noise_std': _POSITIVE,
    'num_reconstructed': _POSITIVE,
  },
  'evaluate': {
    'num_shapes': _TWO,
    'draws': _POSITIVE,
    'seed': _SEED,
    'splits': _POSITIVE,
    'more_steps': _NOT_NEGATIVE,
    'more_draws': _POSITIVE,
    'kinds': Rule(
      f'some of {", ".join(_KINDS)}',
      lambda kinds: all(kind in _KINDS for kind in kinds),
    ),
    'completions': _NOT_NEGATIVE,
    'baseline_steps': _NOT_NEGATIVE,
  },
  'probe': {
    'windows': _SIZES,
    'more_windows': _SIZES,
    'fractions': Rule(
      'shares in (0, 1]', lambda x: _numbers(x) and all(0 < y <= 1 for y in x)
    ),
    'draws': _POSITIVE,
  },
}
_MOVES = {
  'num_steps': _NOT_NEGATIVE,
  'noise_steps': _NOT_NEGATIVE,
  'temperature': _NOT_NEGATIVE,
  'step_size': _NOT_NEGATIVE,
  'refinement_steps': _NOT_NEGATIVE,
  'refinement_std': _POSITIVE,
}
_ALGORITHMS = {
  'synthesis': _one_of((*synthesis.ALGORITHMS,)),
  'cooperative': _one_of(cooperative.ALGORITHMS),
}
_USES = ('sample', 'recover', 'super_resolve')


def rules() -> dict[str, Rule]:
  """What the value of each field has to be, by the name of the field."""
  found = dict(_RULES)
  for name in _USES:
    found[name] = _MOVES | found.get(name, {})
  return {
    f'{group}.{name}'.lstrip('.'): rule
    for group, fields in found.items()
    for name, rule in fields.items()
  }


def _fields(config, prefix=''):
  for name, x in config.items():
    if isinstance(x, ml_collections.ConfigDict):
      yield from _fields(x, f'{prefix}{name}.')
    else:
      yield prefix + name, x


def check(config: ml_collections.ConfigDict) -> None:
  """Refuses values that are not allowed.

  Raises:
    ValueError: the message names the field, its value and what is allowed.
  """
  fields = dict(_fields(config))
  for name, x in fields.items():
    for one in x if isinstance(x, tuple | list) else (x,):
      if isinstance(one, float) and not math.isfinite(one):
        raise ValueError(f'{name} must be finite, got {one}')
  wanted = rules()
  if fields['task'] in _ALGORITHMS:
    wanted['algorithm'] = _ALGORITHMS[fields['task']]
  for name, rule in wanted.items():
    if not rule.fits(fields[name]):
      got = fields[name]
      shown = repr(got) if isinstance(got, str) else got
      raise ValueError(f'{name} must be {rule.text}, got {shown}')
  for group in _USES:
    steps, noisy = fields[f'{group}.num_steps'], fields[f'{group}.noise_steps']
    # With num_steps=0 there are no noise steps either, whatever the field says.
    if noisy > steps and steps:
      raise ValueError(
        f'{group}.noise_steps must be at most {group}.num_steps = {steps}, got '
        f'{noisy}'
      )
  _check_network(fields)
  _check_mala(fields)
  if fields['chains.at_once'] and fields['task'] in WITH_STATISTICS:
    raise ValueError(
      f'task {fields["task"]!r} learns with batch statistics, which need all '
      'chains and shapes together: chains.at_once must be 0, got '
      f'{fields["chains.at_once"]}'
    )


def _check_network(fields):
  """Checks the lengths of the sizes of a custom network, and of the grids."""
  names = 'model.features', 'model.kernel_sizes', 'model.strides'
  used = (fields['model.network'], *fields['model.grid_networks'])
  lengths = {len(fields[name]) for name in names}
  if 'custom' in used and (len(lengths) > 1 or 0 in lengths):
    raise ValueError(
      "model.network='custom' needs one number for each layer, got "
      + ', '.join(f'{name} = {fields[name]}' for name in names)
    )
  grids, names = fields['model.grids'], fields['model.grid_networks']
  if len(grids) != len(names):
    raise ValueError(
      'model.grid_networks must be one name for each of model.grids = '
      f'{grids}, got {names}'
    )


def _check_mala(fields):
  """Refuses MALA at a temperature of 0: its acceptance ratio is then 0 / 0."""
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
