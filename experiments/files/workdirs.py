"""A workdir: who may write to it, and which config it belongs to."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import os
from typing import Any

from absl import logging
import jax

from experiments.configs import default

try:
  import fcntl
except ImportError:  # Windows: a workdir is not locked.
  fcntl = None


@contextlib.contextmanager
def only_writer(workdir) -> Iterator[None]:
  """Locks a workdir, so that no second run writes to it at the same time.

  The system releases `workdir/lock` when the process ends, however it ends. In
  a run of several processes the first one holds it.

  Args:
    workdir: made if it is not there.

  Raises:
    OSError: where another process holds it, or it cannot be written.
  """
  if jax.process_index() or fcntl is None:
    yield
    return
  with contextlib.ExitStack() as stack:
    try:
      os.makedirs(workdir, exist_ok=True)
      path = os.path.join(workdir, 'lock')
      lock = stack.enter_context(open(path, 'a'))
    except OSError as error:
      raise _cannot_write(workdir, error) from error
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise OSError(
        f'another process is writing to workdir {workdir}; wait for it, stop '
        'it, or use another workdir'
      ) from error
    except OSError as error:
      # Not every network file system can.
      logging.warning('Cannot lock %s: %s.', workdir, error)
    yield


def check_config(
  workdir,
  config: Mapping[str, Any],
  *,
  may_differ: Sequence[str] = (),
  accept: bool = False,
) -> list[str]:
  """Refuses a workdir of a run with another config; writes nothing.

  Args:
    workdir: of a run, or not there yet.
    config: nested dicts of what JSON can hold; tuples count as lists.
    may_differ: names of fields ('train.num_iterations') or of groups of them
      ('sample').
    accept: whether all fields may differ.

  Returns:
    The differences, each `field: old -> new`.

  Raises:
    ValueError: with a line `field: old -> new` for each field that differs, or
      where config.json cannot be read.
  """
  theirs = read_config(workdir)
  if theirs is None:
    return []
  # Through JSON, in which tuples are lists.
  ours, theirs = _flatten(json.loads(json.dumps(config))), _flatten(theirs)
  # A field that did not exist then had its default value in effect.
  usual = _flatten(json.loads(json.dumps(default.get_config().to_dict())))
  theirs = {name: usual[name] for name in ours & usual.keys()} | theirs
  allowed, refused = [], []
  for field in sorted(ours.keys() | theirs.keys()):
    a, b = theirs.get(field, '(absent)'), ours.get(field, '(absent)')
    # As JSON text, in which nan is itself and 1 is neither 1.0 nor true.
    if a != b:
      free = accept or any(
        f'{field}.'.startswith(f'{name}.') for name in may_differ
      )
      (allowed if free else refused).append(f'{field}: {a} -> {b}')
  if refused:
    raise ValueError(
      f'{workdir} belongs to a run with another config; use another workdir, '
      'set these fields back, or continue with the new values by '
      f'--accept_changes (old -> new): {", ".join(refused)}'
    )
  return allowed


def write_config(workdir, config: Mapping[str, Any]) -> None:
  """Writes `workdir/config.json`, the config of the run from now on.

  Raises:
    OSError: where the workdir cannot be written.
  """
  text = json.dumps(config, indent=2, sort_keys=True) + '\n'
  try:
    os.makedirs(workdir, exist_ok=True)
    write_text(os.path.join(workdir, 'config.json'), text)
  except OSError as error:
    raise _cannot_write(workdir, error) from error


def write_text(path: str, text: str) -> None:
  """Writes a file as a whole or not at all, also when the process is killed."""
  partial = f'{path}.partial'
  with open(partial, 'w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def _cannot_write(workdir, error):
  reason = error.strerror or error
  return OSError(f'cannot write to workdir {workdir}: {reason}')


def read_config(workdir) -> dict[str, Any] | None:
  """Returns the config of a run, None where there is none.

  Raises:
    ValueError: where config.json is not a config.
  """
  path = os.path.join(workdir, 'config.json')
  try:
    with open(path, encoding='utf-8') as file:
      config = json.load(file)
    if not isinstance(config, dict):
      raise ValueError('no JSON object')
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise ValueError(f'{path} is not a config: {error}') from error
  return config


def _flatten(config, prefix=''):
  """Returns `{'a.b': JSON text}` of nested dicts."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, dict) and value:
      flat |= _flatten(value, f'{prefix}{name}.')
    else:
      flat[f'{prefix}{name}'] = json.dumps(value)
  return flat
