"""What is typed on the command line, taken apart; no mode is run here.

  python -m experiments.main --mode=MODE --workdir=FOLDER --config=FILE.py:ARG
  dnet MODE CONFIG_OR_FOLDER

`--config.field=value` overrides a field, of a config or of a model's own.
"""

import ast
from collections.abc import Mapping
from collections.abc import Sequence
import difflib
import importlib.util
import inspect
import os
import pathlib
import re
from typing import Any
from typing import NamedTuple

from absl import flags
import ml_collections

_OVERRIDE = re.compile(r'--?config\.([^=]+)(?:=(.*))?', re.DOTALL)
_CONFIGS = pathlib.Path(__file__).parent / 'configs'
# Files of configs/ that are no configs.
_HELPERS = ('__init__', 'arguments', 'default')
_TRUE, _FALSE = ('true', 't', '1', 'yes'), ('false', 'f', '0', 'no')
FLAGS = {
  'mode': 'what to do; train if not given',
  'config': 'a file with a config, or the name of one in experiments/configs',
  'workdir': 'where a run lives, or a saved model; runs/<name of the config> '
  'if not given',
  'input': 'shapes from outside: a mesh or voxels',
  'visible': 'a .npy, True where a voxel of the input was observed',
  'up': 'the axis of the input that points up: x, y or z (default)',
  'out': 'folder to export to; or file to write a result to as well',
  'weights': 'of an export: float16 (default) or int8',
  'accept_changes': 'goes on with a run whose config has changed',
  'debug': 'shows the traceback of an error',
  'help': 'shows this',
}
_BOOLEAN = ('accept_changes', 'debug', 'help')
_DEFAULTS = {'mode': 'train', 'up': 'z', 'weights': 'float16'}


class UsageError(ValueError):
  """A command line that cannot be; the message says what would be right."""


class Command(NamedTuple):
  """A command line.

  Attributes:
    mode: what to do.
    given: the flags that were typed, by name.
    overrides: pairs of a field and its text.
  """

  mode: str
  given: Mapping[str, Any]
  overrides: tuple[tuple[str, str], ...]


def value(command: Command, name: str) -> Any:
  """The value of a flag, or its default."""
  return command.given.get(name, _DEFAULTS.get(name))


def parse(argv: Sequence[str], modes: Sequence[str]) -> Command:
  """Takes a command line apart.

  Args:
    argv: without the program's name.
    modes: names of all modes.

  Raises:
    UsageError: for an unknown mode or flag, or a flag without its value.

  >>> parse(['sample', 'demo', '--config.seed=3'], ['sample']).overrides
  (('seed', '3'),)
  """
  overrides, rest = [], []
  arguments = iter(argv)
  for argument in arguments:
    match = _OVERRIDE.fullmatch(argument)
    if match is None:
      rest.append(argument)
      continue
    text = match[2] if match[2] is not None else next(arguments, None)
    if text is None:
      raise UsageError(f'{argument} needs a value: {argument}=VALUE')
    overrides.append((match[1], text))
  values = flags.FlagValues()
  for name, text in FLAGS.items():
    define = flags.DEFINE_bool if name in _BOOLEAN else flags.DEFINE_string
    define(name, None, text, flag_values=values)
  try:
    _, *positional = values(['dnet', *rest])
  except flags.Error as error:
    raise UsageError(_unknown_flag(str(error))) from error
  given = {n: values[n].value for n in FLAGS if values[n].value is not None}
  given = _with_positional(given, positional, modes)
  mode = given.pop('mode', _DEFAULTS['mode'])
  if mode not in modes:
    raise UsageError(
      f'there is no mode {mode!r}{_nearest(mode, modes)}; modes are '
      f'{", ".join(modes)}'
    )
  if given.get('up', 'z') not in ('x', 'y', 'z'):
    raise UsageError(f'--up must be x, y or z, got {given["up"]!r}')
  return Command(mode, given, tuple(overrides))


def _with_positional(given, positional, modes):
  """`MODE WHAT` in place of flags; what is a config to train, else a folder."""
  if len(positional) > 2 or (positional and 'mode' in given):
    raise UsageError(f'unexpected arguments: {" ".join(positional)}')
  if not positional:
    return given
  mode, *what = positional
  if mode not in modes:
    raise UsageError(
      f'there is no mode {mode!r}{_nearest(mode, modes)}; modes are '
      f'{", ".join(modes)}'
    )
  name = 'config' if mode in ('train', 'describe') else 'workdir'
  if what and name in given:
    raise UsageError(f'{what[0]} and --{name}={given[name]}: give one of them')
  return given | {'mode': mode} | ({name: what[0]} if what else {})


def _unknown_flag(text):
  match = re.match(r"Unknown command line flag '([^']*)'", text)
  if match is None:
    return text.rstrip('.')
  return f'there is no flag --{match[1]}{_nearest(match[1], FLAGS)}'


def _nearest(word, words):
  near = difflib.get_close_matches(word, [*words], 3, 0.5)
  return f' (did you mean {" or ".join(near)}?)' if near else ''


def config_names() -> list[str]:
  """The names of all configs that come with the program."""
  names = [path.stem for path in _CONFIGS.glob('*.py')]
  return sorted(name for name in names if name not in _HELPERS)


def load_config(text: str) -> ml_collections.ConfigDict:
  """Loads a config.

  Args:
    text: `FILE.py`, or the name of one that comes with the program; after a
      colon the argument of its `get_config`.

  Raises:
    UsageError: when there is none, or it does not take the argument.

  >>> load_config('synthesis:chair').name
  'synthesis_chair'
  """
  name, colon, argument = text.partition(':')
  path = pathlib.Path(name)
  if not path.is_file():
    # Also from a folder where the program's own are not.
    path = _CONFIGS / f'{path.stem}.py'
  if not path.is_file() or path.stem in _HELPERS:
    names = config_names()
    raise UsageError(
      f'there is no config {name}{_nearest(pathlib.Path(name).stem, names)}; '
      f'those that come with the program are {", ".join(names)}'
    )
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    get_config = module.get_config
  except Exception as error:
    raise UsageError(f'{path} is no config: {error}') from error
  if colon and not inspect.signature(get_config).parameters:
    raise UsageError(f'{name} takes no argument, got {argument!r}')
  try:
    return get_config(argument) if colon else get_config()
  except (ValueError, KeyError) as error:
    raise UsageError(str(error)) from error


def override(
  config: ml_collections.ConfigDict, overrides: Sequence[tuple[str, str]]
) -> None:
  """Sets fields of a config from their texts.

  Raises:
    UsageError: for an unknown field, which names the nearest ones, or a text
      that is no value of it.

  >>> config = load_config('test')
  >>> override(config, [('chains.num_steps', '7')])
  >>> config.chains.num_steps
  7
  """
  fields = _fields(config)
  for field, text in overrides:
    if field not in fields:
      raise UsageError(
        f'there is no field {field}{_nearest(field, fields)}; --mode=describe '
        'prints them all'
      )
    *groups, last = field.split('.')
    group = config
    for name in groups:
      group = group[name]
    group[last] = _converted(field, fields[field], text)


def _fields(config, prefix=''):
  found = {}
  for name, x in config.items():
    if isinstance(x, ml_collections.ConfigDict):
      found |= _fields(x, f'{prefix}{name}.')
    else:
      found[prefix + name] = x
  return found


def _converted(field, old, text):
  """The value that a text is, of the type of the old one."""
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

  The meanings are the comments of experiments/configs/default.py.
  """
  told = meanings()
  lines = []
  for field, x in _fields(config).items():
    lines.append(f'{field} = {x!r}')
    lines += [f'    {line}' for line in told.get(field, '').splitlines()]
  return '\n'.join(lines)


def meanings() -> dict[str, str]:
  """What each field means: its comments in default.py, by field."""
  text = (_CONFIGS / 'default.py').read_text('utf-8')
  groups, found, above = {'config': ''}, {}, []
  last = None
  for line in text.splitlines():
    comment = re.fullmatch(r'\s*# (.*)', line)
    assigned = re.match(r'\s+([\w.]+)\.(\w+) = (\w+ = )?(.*)', line)
    if comment:
      above.append(comment[1])
      continue
    if assigned and not line.lstrip().startswith('for '):
      owner, name, alias, rest = assigned.groups()
      if 'ConfigDict()' in rest:
        owner_path = groups.get(owner, owner.removeprefix('config.'))
        path = f'{owner_path}.{name}'.lstrip('.')
        if alias:
          groups[alias.removesuffix(' = ')] = path
      else:
        path = groups.get(owner, owner.removeprefix('config.'))
        last = f'{path}.{name}'.lstrip('.')
        _, mark, after = rest.partition('  # ')
        found[last] = '\n'.join([*above, *([after] if mark else [])])
    above = []
  return found


def help_text(modes: Mapping[str, Any]) -> str:
  """What `--help` shows: modes with their flags, then all flags."""
  lines = [
    'dnet MODE CONFIG_OR_FOLDER [--config.FIELD=VALUE ...] [flags]',
    'python -m experiments.main --mode=MODE [--config=...] [--workdir=...]',
    '',
    'Modes, and the flags that each reads beside --workdir:',
  ]
  for name, mode in modes.items():
    names = [f'--{flag} (needed)' for flag in mode.needs]
    names += [f'--{flag}' for flag in mode.takes]
    lines.append(f'  {name:14} {mode.help}')
    if names:
      lines.append(f'  {"":14} {", ".join(names)}')
  lines += ['', 'Flags:']
  lines += [f'  --{name:14} {text}' for name, text in FLAGS.items()]
  lines += ['', 'Configs: ' + ', '.join(config_names())]
  lines += ['Models: demo, ' + ', '.join(_saved_models())]
  return '\n'.join(lines)


def _saved_models():
  folder = pathlib.Path('pretrained')
  names = sorted(path.parent.name for path in folder.glob('*/spec.json'))
  return [os.path.join('pretrained', name) for name in names]
