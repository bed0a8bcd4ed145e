"""Files of configs: found by name, loaded, their fields set and explained."""

import ast
from collections.abc import Iterable
from collections.abc import Sequence
import difflib
import importlib.util
import inspect
import itertools
import os
import pathlib
import re
from typing import Any

import ml_collections

from experiments.configs import arguments
from experiments.configs import default

_CONFIGS = pathlib.Path(__file__).parent / 'configs'
# Files of configs/ that are not configs.
_HELPERS = ('__init__', 'arguments', 'default')
# Files that take a category, and what follows a file's name in a config's name.
_KINDS = (
  'abp', 'coop', 'multigrid', 'recovery', 'super_resolution', 'synthesis',
)  # fmt: skip
_ARGUMENTS = (*arguments.CATEGORIES, 'all', *arguments.SIZES, 'paper2', 'fresh')
_TRUE, _FALSE = ('true', 't', '1', 'yes'), ('false', 'f', '0', 'no')


class UsageError(ValueError):
  """A wrong command line; the message says how to correct it."""


def config_names() -> list[str]:
  """The names of all configs that come with the program."""
  names = [path.stem for path in _CONFIGS.glob('*.py')]
  return sorted(name for name in names if name not in _HELPERS)


def load_config(text: str) -> ml_collections.ConfigDict:
  """Loads a config.

  Args:
    text: `FILE.py`; or, from any folder, the name of a file that comes with the
      program, or of its config. After a colon the argument of `get_config`.

  Raises:
    UsageError: when there is none, or it does not take the argument.

  >>> load_config('synthesis:chair').name
  'synthesis_chair'
  >>> load_config('synthesis_chair_paper').name
  'synthesis_chair_paper'
  """
  name, colon, argument = text.partition(':')
  path = pathlib.Path(name)
  if not path.is_file():
    path, own = _ours(name)
    if path is None or (own and colon):
      raise UsageError(_no_config(name, text))
    colon, argument = (':', own) if own else (colon, argument)
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  if spec is None or spec.loader is None:
    raise UsageError(f'{path} is not a config: it must be a Python file, .py')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    get_config = module.get_config
  except Exception as error:
    raise UsageError(f'{path} is not a config: {error}') from error
  if colon and not inspect.signature(get_config).parameters:
    raise UsageError(f'{name} takes no argument, got {argument!r}')
  try:
    config = get_config(argument) if colon else get_config()
  except ValueError as error:
    raise UsageError(str(error)) from error
  except Exception as error:
    raise UsageError(
      f'{path} is not a config: {type(error).__name__}: {error}'
    ) from error
  lacking = [*default.get_config().keys()]
  if isinstance(config, ml_collections.ConfigDict):
    lacking = [*fields(default.get_config()).keys() - fields(config).keys()]
  if lacking:
    raise UsageError(
      f'{path} is not a config: it lacks {", ".join(sorted(lacking))}; begin '
      'with experiments.configs.default.get_config()'
    )
  return config


def _ours(name):
  """The config file that a name means, and the argument in the name."""
  path = pathlib.PurePath(name)
  # The path as it is typed in the repository, but from another folder.
  if path.parent.parts and path.parts[-3:-1] != ('experiments', 'configs'):
    return None, ''
  stem, names = path.name.removesuffix('.py'), config_names()
  if stem in names:
    return _CONFIGS / f'{stem}.py', ''
  # The name of a config: that of its file, a category and a size.
  for own in sorted(names, key=len, reverse=True):
    rest = re.sub(
      r'_(abp|descriptor|two_layers|paper2?|text|fresh|mixture|64)$',
      r',\1',
      stem.removeprefix(f'{own}_'),
    )
    if rest != stem and rest.partition(',')[0] in _ARGUMENTS:
      return _CONFIGS / f'{own}.py', rest
  return None, ''


def all_names() -> list[str]:
  """Names of configs: of their files, and with each category."""
  pairs = itertools.product(_KINDS, arguments.CATEGORIES)
  by_category = [f'{kind}_{category}' for kind, category in pairs]
  return [*dict.fromkeys([*config_names(), *by_category])]


def _no_config(name, text):
  if os.path.isdir(name):
    return f'{name} is a folder, not a config'
  stem = pathlib.PurePath(name).name.removesuffix('.py')
  near = nearest(stem, all_names())
  listed = '' if near else f'; there are {", ".join(config_names())}'
  return f'there is no config {text}{near}{listed}'


def override(
  config: ml_collections.ConfigDict, overrides: Sequence[tuple[str, str]]
) -> None:
  """Sets fields of a config from their texts.

  Raises:
    UsageError: for an unknown field (the message names the nearest ones), or a
      text that is not a valid value of its field.

  >>> config = load_config('test')
  >>> override(config, [('chains.num_steps', '7')])
  >>> config.chains.num_steps
  7
  """
  known = fields(config)
  for field, text in overrides:
    if field not in known:
      raise UsageError(_no_field(field, known))
    *groups, last = field.split('.')
    group = config
    for name in groups:
      group = group[name]
    group[last] = _converted(field, known[field], text)


def _no_field(field, known):
  inside = [name for name in known if name.startswith(f'{field}.')]
  if inside:
    return f'{field} is a group of fields: {", ".join(inside)}'
  # Often only the group is missing, or another one is meant.
  last = field.rpartition('.')[2]
  same = [name for name in known if has_name(name, last)]
  near = f' (did you mean {" or ".join(same[:3])}?)' if same else ''
  return (
    f'there is no field {field}{near or nearest(field, known)}; '
    '--mode=describe prints them all'
  )


def fields(
  config: ml_collections.ConfigDict, prefix: str = ''
) -> dict[str, Any]:
  """All values of a config by their names, such as 'chains.num_steps'."""
  found = {}
  for name, x in config.items():
    if isinstance(x, ml_collections.ConfigDict):
      found |= fields(x, f'{prefix}{name}.')
    else:
      found[prefix + name] = x
  return found


def _converted(field, old, text):
  """A text as a value of the type of the old one."""
  if isinstance(old, str):
    return text
  if isinstance(old, bool):
    if text.lower() not in _TRUE + _FALSE:
      raise UsageError(f'{field} must be true or false, got {text!r}')
    return text.lower() in _TRUE
  kind = 'a tuple such as (1, 2)'
  try:
    if isinstance(old, int):
      kind = 'a whole number'
      return int(text)
    if isinstance(old, float):
      kind = 'a number'
      return float(text)
    found = ast.literal_eval(text)
  except (ValueError, SyntaxError) as error:
    raise UsageError(f'{field} must be {kind}, got {text!r}') from error
  return tuple(found) if isinstance(found, list | tuple) else (found,)


def describe(config: ml_collections.ConfigDict) -> str:
  """All fields of a config, their values and what they mean, as text.

  Meanings and order are those of experiments/configs/default.py.
  """
  known, told = fields(config), meanings()
  lines = []
  for field in [*told, *(known.keys() - told.keys())]:
    lines.append(f'{field} = {known[field]!r}')
    lines += [f'    {line}' for line in told.get(field, '').splitlines()]
  return '\n'.join(lines)


def meanings() -> dict[str, str]:
  """What each field means: its comments in default.py, by field."""
  groups, found, above = {'config': ''}, {}, []
  for line in (_CONFIGS / 'default.py').read_text('utf-8').splitlines():
    comment = re.fullmatch(r'\s*# (.*)', line)
    if comment:
      above.append(comment[1])
      continue
    assigned = re.fullmatch(r'\s+(\w+)\.(\w+) = (.*)', line)
    if assigned:
      owner, name, right = assigned.groups()
      alias, _, made = right.rpartition(' = ')
      if made.endswith('ConfigDict()'):
        groups[alias] = f'{name}.'
      else:
        behind = right.partition('  # ')[2]
        found[groups[owner] + name] = behind or '\n'.join(above)
    above = []
  return found


def has_name(name: str, word: str) -> bool:
  """Whether a field is meant by its name or by the last parts of it.

  >>> has_name('chains.num_steps', 'num_steps')
  True
  """
  return name == word or name.endswith(f'.{word}')


def nearest(word: str, words: Iterable[str]) -> str:
  """A question that offers the words most like `word`, or ''.

  >>> nearest('trian', ['train', 'sample'])
  ' (did you mean train?)'
  """
  near = difflib.get_close_matches(word, [*words], 2)
  return f' (did you mean {" or ".join(near)}?)' if near else ''
