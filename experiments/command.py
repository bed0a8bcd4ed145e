"""Parses the command line; runs no mode.

  python -m experiments.main --mode=MODE --workdir=FOLDER --config=FILE.py:ARG
  dnet MODE CONFIG_OR_FOLDER

`--config.field=value` overrides a field of a config, or of a model's config.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import difflib
import math
import os
import pathlib
import re
from typing import Any
from typing import NamedTuple

from absl import flags

from experiments import config_files
from experiments.configs import default

_OVERRIDE = re.compile(r'--?config\.([^=]+)(?:=(.*))?', re.DOTALL)
FLAGS = {
  'mode': 'what to do; train if not given',
  'config': 'a config file, or the name of a config of this program',
  'workdir': 'a run or a saved model; runs/<name of the config> if not given',
  'input': 'shapes from outside: a mesh, voxels, a scan, or a folder of them',
  'visible': 'a .npy, True where a voxel of the input was observed',
  'up': 'the axis of the input that points up: x, y or z; z if not given, y of '
  'glTF',
  'turn': 'degrees by which the input is turned about that axis, from x to y',
  'key': 'which array of the input to read, if a file holds several',
  'threshold': 'voxels of the input above this value are inside',
  'scan': 'treats a closed mesh as a scan, too: only its surface is known',
  'camera': 'x,y,z: where a scan was seen from, in its coordinates',
  'box': 'x,y,z,x,y,z: lower and upper corner of the whole shape, of which a '
  'scan is a part',
  'format': 'files to write: obj, ply, stl, glb, off; binvox, vox, npy, mat; '
  'or several, separated by commas',
  'out': 'the folder of an export; or a file for a copy of the result',
  'weights': 'of an export: float16 (default) or int8',
  'accept_changes': 'continues a run although its config or data have changed',
  'distributed': 'trains in several processes; JAX finds the others, on a TPU '
  'slice, in Slurm and under Open MPI',
  'coordinator_address': 'instead of --distributed, with the next two flags: '
  'HOST:PORT of the first process',
  'num_processes': 'how many processes there are',
  'process_id': 'the number of this process, from 0',
  'debug': 'shows the traceback of an error',
  'help': 'shows this',
  'version': 'shows the version',
}
BY_HAND = ('coordinator_address', 'num_processes', 'process_id')
_BOOLEAN = (
  'accept_changes',
  'distributed',
  'scan',
  'debug',
  'help',
  'version',
)
# How many numbers a flag has.
_NUMBERS = {'turn': 1, 'threshold': 1, 'camera': 3, 'box': 6}
_DEFAULTS = {'mode': 'train', 'weights': 'float16'}
_CHOICES = {'up': ('x', 'y', 'z'), 'weights': ('float16', 'int8')}


UsageError = config_files.UsageError


class Processes(NamedTuple):
  """How a process joins the others of its run; see `processes.join`.

  Attributes:
    address: `HOST:PORT`; None: JAX finds the cluster by itself.
    num_processes: of the run.
    process_id: of this one.
  """

  address: str | None = None
  num_processes: int | None = None
  process_id: int | None = None


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
  """Parses a command line.

  Args:
    argv: without the program's name.
    modes: names of all modes.

  Raises:
    UsageError: for an unknown mode or flag, or a flag without its value.

  >>> parse(['sample', 'demo', '--config.seed=3'], ['sample']).overrides
  (('seed', '3'),)
  """
  overrides, rest = _split(argv)
  values = flags.FlagValues()
  for name, text in FLAGS.items():
    define = flags.DEFINE_bool if name in _BOOLEAN else flags.DEFINE_string
    define(name, None, text, flag_values=values)
  try:
    _, *positional = values(['dnet', *rest])
  except flags.Error as error:
    raise UsageError(_unknown_flag(str(error))) from error
  given = {n: values[n].value for n in FLAGS if values[n].value is not None}
  for name, x in given.items():
    if x == '' and name != 'format':
      raise UsageError(f'--{name}= is empty: give a value, or omit the flag')
    if name in _NUMBERS:
      given[name] = _numbers(name, x)
  given = _with_positional(given, positional, modes)
  mode = given.pop('mode', _DEFAULTS['mode'])
  if mode not in modes:
    raise UsageError(_no_mode(mode, modes))
  for name, choices in _CHOICES.items():
    if given.get(name, choices[0]) not in choices:
      raise UsageError(
        f'--{name} must be one of {", ".join(choices)}, got {given[name]!r}'
      )
  return Command(mode, given, tuple(overrides))


def processes(command: Command) -> Processes | None:
  """The flags of a run of several processes; None where there are none.

  Raises:
    UsageError: when one of the three flags is missing or has no valid value.

  >>> processes(Command('train', {'distributed': True}, ()))
  Processes(address=None, num_processes=None, process_id=None)
  """
  given = [name for name in BY_HAND if name in command.given]
  if not given:
    return Processes() if command.given.get('distributed') else None
  missing = [f'--{name}' for name in BY_HAND if name not in given]
  if missing:
    raise UsageError(
      f'--{given[0]} needs {" and ".join(missing)} too: give all three to each '
      'process'
    )
  address, *texts = (command.given[name] for name in BY_HAND)
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit():
    raise UsageError(
      f'--coordinator_address must be HOST:PORT, got {address!r}'
    )
  for name, text in zip(BY_HAND[1:], texts, strict=True):
    if not text.isdigit():
      raise UsageError(f'--{name} must be a whole number, got {text!r}')
  number, own = map(int, texts)
  if own >= number:
    raise UsageError(
      f'--process_id must be below --num_processes={number}, got {own}'
    )
  return Processes(address, number, own)


def _split(argv):
  """Fields of the config with their texts, and all other arguments."""
  overrides, rest = [], []
  left = iter(argv)
  for argument in left:
    match = _OVERRIDE.fullmatch(argument)
    if match is None:
      rest.append('--help' if argument == '-h' else argument)
      continue
    text = match[2]
    if text is None:
      text = next(left, '--')
      if text.startswith('--'):
        raise UsageError(f'{argument} needs a value: {argument}=VALUE')
    overrides.append((match[1], text))
  return overrides, rest


def _numbers(name, text):
  """The number of a flag, or its numbers."""
  count = _NUMBERS[name]
  try:
    found = tuple(float(word) for word in text.split(','))
  except ValueError:
    found = ()
  if len(found) != count or not all(map(math.isfinite, found)):
    what = 'a number' if count == 1 else f'{count} numbers with commas'
    raise UsageError(f'--{name} must be {what}, got {text!r}')
  if name == 'box' and not all(
    a < b for a, b in zip(found[:3], found[3:], strict=True)
  ):
    raise UsageError(
      f'--box must be a lower and an upper corner, x,y,z,x,y,z, got {text!r}'
    )
  return found[0] if count == 1 else found


def _with_positional(given, positional, modes):
  """`MODE WHAT` in place of flags; WHAT is a config to train, else a folder."""
  if not positional:
    return given
  mode, what = given.get('mode'), positional
  if mode is None:
    mode, *what = positional
  if mode == 'help' and not what:
    return given | {'help': True}
  if mode not in modes:
    raise UsageError(_no_mode(mode, modes, *what))
  if len(what) > 1:
    raise UsageError(_unexpected(*what))
  if not what:
    return given | {'mode': mode}
  name = 'workdir'
  # `train FOLDER` continues the run in that folder.
  is_run = os.path.isfile(os.path.join(what[0], 'config.json'))
  if mode in ('train', 'describe') and not is_run:
    name = 'config'
  if name in given:
    raise UsageError(
      f'{what[0]} and --{name}={given[name]} are both given: give only one'
    )
  return given | {'mode': mode, name: what[0]}


def _unexpected(first, second, *others):
  del others
  near = ''
  if '=' in second:
    near = f' (did you mean --{second}?)'
  elif f'{first}_{second}' in config_files.all_names():
    near = f' (did you mean {first}_{second}?)'
  return (
    f'unexpected argument {second!r}{near}: a command is MODE and one config '
    'or folder; everything else is a flag, and a value with spaces needs quotes'
  )


def _no_mode(word, modes, *what):
  if len(what) == 1 and what[0] in modes:
    return f'the mode comes first: {what[0]} {word}'
  if word.partition(':')[0].removesuffix('.py') in config_files.config_names():
    return f'{word} is a config, not a mode: did you mean train {word}?'
  near = config_files.nearest(word, modes)
  listed = '' if near else f'; modes are {", ".join(modes)}'
  return f'there is no mode {word!r}{near}{listed}'


def _unknown_flag(text):
  match = re.match(r"Unknown command line flag '([^']*)'", text)
  if match is None:
    return text.rstrip('.')
  near = config_files.nearest(match[1], FLAGS)
  # Often a field, whole or its last part.
  known = config_files.fields(default.get_config())
  own = [
    f'config.{name}' for name in known if config_files.has_name(name, match[1])
  ]
  if own:
    near = f' (did you mean --{" or --".join(own[:3])}?)'
  return f'there is no flag --{match[1]}{near or "; --help shows all"}'


def help_text(modes: Mapping[str, Any]) -> str:
  """What `--help` shows: modes with their flags, then all flags."""
  lines = [
    'dnet train CONFIG [--config.FIELD=VALUE ...] [flags]',
    'dnet MODE FOLDER [--config.FIELD=VALUE ...] [flags]',
    '',
    'or, in the repository, python -m experiments.main --mode=MODE '
    '[--config=...] [--workdir=...]',
    '',
    'Modes, and the flags that each reads besides --workdir:',
  ]
  for name, mode in modes.items():
    names = [f'--{flag} (needed)' for flag in mode.needs]
    names += [f'--{flag}' for flag in mode.takes]
    lines.append(f'  {name:14} {mode.help}')
    if names:
      lines.append(f'  {"":14} {", ".join(names)}')
  lines += ['', 'Flags:']
  lines += [f'  --{name:14} {text}' for name, text in FLAGS.items()]
  lines += ['', 'Configs: ' + ', '.join(config_files.config_names())]
  lines += ['Models: demo, ' + ', '.join(_saved_models())]
  return '\n'.join(lines)


def no_model(folder: str) -> str:
  """The error for a model that is not there, with the nearest other name."""
  name = os.path.basename(os.path.normpath(folder))
  runs = [
    str(path.parent) for path in pathlib.Path('runs').glob('*/config.json')
  ]
  there = {os.path.basename(path): path for path in (*_saved_models(), *runs)}
  near = difflib.get_close_matches(name, there, 1)
  if near:
    return f'there is no folder {folder}; did you mean {there[near[0]]}?'
  if name in config_files.all_names():
    return f'there is no run {folder} yet; train it first: train {name}'
  return (
    f"there is no folder {folder}; a model is a folder, 'demo' or "
    "'hf://owner/name'"
  )


def _saved_models():
  folder = pathlib.Path('pretrained')
  names = sorted(path.parent.name for path in folder.glob('*/spec.json'))
  return [os.path.join('pretrained', name) for name in names]
