"""The program: python -m experiments.main --mode=... --config=..., or `dnet`.

A mistake is answered by one sentence and an exit status that is not zero;
`--debug` shows the traceback.
"""

from collections.abc import Sequence
import contextlib
import errno
import json
import os
import sys
import traceback

from absl import app
from absl import flags
from absl import logging
import jax
import ml_collections

import dnet_jax
from experiments import command
from experiments import config_files
from experiments import evaluate
from experiments import export
from experiments import processes
from experiments import report
from experiments import signals
from experiments import tasks
from experiments import train
from experiments.files import inputs
from experiments.files import models
from experiments.files import outputs
from experiments.files import shapes
from experiments.files import workdirs
from experiments.tasks import base
from experiments.tasks import checks
from experiments.tasks import contents

# Modes that run without an open model.
_OUTSIDE = {
  'train': base.Mode(
    lambda asked: None,
    'trains a model; continues a run that was stopped',
    takes=('config', 'accept_changes', 'distributed', *command.BY_HAND),
  ),
  'export': base.Mode(
    lambda asked: None,
    'writes a model with its pictures, from a run',
    needs=('out',),
    takes=('weights',),
  ),
  'describe': base.Mode(
    lambda asked: None,
    'prints a config with the meaning of every field',
    takes=('config',),
  ),
}
_ANY = {
  'evaluate': base.Mode(
    evaluate.evaluate,
    'scores a model, beside real shapes and the numbers of the paper',
    takes=('config', 'out'),
  ),
  'report': base.Mode(
    report.report,
    'writes a page for a browser about a run, a model or a results file',
    takes=('config', 'out'),
  ),
}
MODES = _OUTSIDE | tasks.all_modes() | _ANY
# Fields of a saved model that an export may change.
_OF_USES = (
  'sample.',
  'recover.',
  'super_resolve.',
  'latent.',
  'components.neighbours',
  'components.stretched',
)
_EVERYWHERE = ('mode', 'workdir', 'debug', 'help', 'version')


def run(argv: Sequence[str]) -> int:
  """Executes a command line.

  Args:
    argv: without the program's name.

  Returns:
    The exit status: 0; 1 for what cannot be done; 2 for a wrong command line,
    and where some shapes of a folder were skipped; 128 plus the signal's number
    for a run that was stopped.
  """
  outputs.plain_log()
  try:
    _run(argv)
  except signals.Stopped as stopped:
    print(stopped, file=sys.stderr)
    return 128 + stopped.signal
  except KeyboardInterrupt:
    print('Stopped.', file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader has closed the pipe: nothing may be flushed at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except Exception as error:
    if '--debug' in argv:
      raise
    print(f'error: {sentence(error)}', file=sys.stderr)
    return status(error)
  return 0


def status(error: BaseException) -> int:
  """The exit status of an error."""
  partly = (command.UsageError, inputs.SkippedError)
  return 2 if isinstance(error, partly) else 1


def sentence(error: BaseException) -> str:
  """An error in one line; for an unexpected one, also where to look."""
  text = ' '.join(str(error).split())
  if 'RESOURCE_EXHAUSTED' in text:
    return f'the device is out of memory: {text[:200]}'
  if isinstance(error, OSError) and error.filename and error.strerror:
    return f'{error.filename}: {error.strerror}'
  foreseen = (ValueError, OSError, ImportError, train.DivergedError)
  if isinstance(error, foreseen) and text:
    return text
  return (
    f'{type(error).__name__}: {text}; this is a bug in the program: --debug '
    'shows where'
  )


def _run(argv):
  typed = command.parse(argv, [*MODES])
  if command.value(typed, 'help'):
    print(command.help_text(MODES))
    return
  if command.value(typed, 'version'):
    print(f'dnet_jax {dnet_jax.__version__}')
    return
  mode = MODES[typed.mode]
  _check_flags(typed, mode)
  if typed.mode == 'describe':
    _describe(typed)
  elif typed.mode == 'train':
    _train(typed)
  elif typed.mode == 'export':
    folder, out = _workdir(typed), command.value(typed, 'out')
    _check_there(folder)
    with _naming(out):
      export.export(
        folder,
        out,
        weights=command.value(typed, 'weights'),
        changed=_changed(typed, folder),
      )
    logging.info('Wrote %s', out)
  else:
    _use(typed)


def _changed(typed, folder):
  """The model and card of `folder` with the settings that are typed, if any."""
  if not typed.overrides:
    return None
  made = request(typed, None, folder)
  checks.check(made.config)
  return made.model, made.card | {'config': made.config.to_dict()}


def _check_flags(typed, mode):
  """Raises UsageError for a missing flag, or one that the mode ignores."""
  for name in mode.needs:
    if name not in typed.given:
      raise command.UsageError(
        f'--mode={typed.mode} needs --{name}: {command.FLAGS[name]}'
      )
  for name in typed.given:
    if name not in (*_EVERYWHERE, *mode.needs, *mode.takes):
      reads = ', '.join(f'--{x}' for x in (*mode.needs, *mode.takes))
      raise command.UsageError(
        f'--mode={typed.mode} does not read --{name}; it reads --workdir'
        + (f', {reads}' if reads else '')
      )
  if 'config' not in (*mode.needs, *mode.takes):
    for name, _ in typed.overrides:
      # The card would say of other fields what was not so in training.
      if not name.startswith(_OF_USES):
        raise command.UsageError(
          f'--mode={typed.mode} changes only how a model is used '
          f'({", ".join(_OF_USES)}), so no --config.{name}'
        )


def _config(typed):
  """The config that was named, with what was overridden."""
  text = command.value(typed, 'config')
  if text is None:
    names = ', '.join(config_files.config_names())
    raise command.UsageError(
      f'--mode={typed.mode} needs --config: a file, or one of {names}; --help '
      'shows more'
    )
  config = config_files.load_config(text)
  config_files.override(config, typed.overrides)
  return config


def _describe(typed):
  folder = command.value(typed, 'workdir')
  if command.value(typed, 'config') is not None:
    if folder is not None:
      raise command.UsageError(
        '--mode=describe reads --config or --workdir, not both'
      )
    config = _config(typed)
  else:
    content = {}
    if folder is not None:
      content = workdirs.read_config(folder)
      if content is None:
        _check_there(folder)
        content = models.open_model(folder)[1].get('config', {})
    config = models.full_config(content)
    config_files.override(config, typed.overrides)
  checks.check(config)
  print(config_files.describe(config))


def _workdir(typed, config=None):
  folder = command.value(typed, 'workdir')
  if folder is not None:
    return folder
  if config is None:
    raise command.UsageError(
      f"--mode={typed.mode} needs --workdir: a run, a saved model or 'demo'"
    )
  return os.path.join('runs', config.name)


def _train(typed):
  asked = command.processes(typed)
  if asked is None:
    _learn(typed)
    return
  membership = processes.join(*asked)
  if jax.process_index():
    # Only the first process reports.
    logging.set_verbosity(logging.WARNING)
  try:
    _learn(typed)
  except (signals.Stopped, train.DivergedError) as error:
    # All processes have raised the same error.
    processes.leave(membership)
    raise error
  except BaseException as error:
    if isinstance(error, jax.errors.JaxRuntimeError):
      # Another process may be lost: the roll call knows.
      membership.roll.wait()
    if '--debug' in sys.argv:
      traceback.print_exc()
    told, code = sentence(error), status(error)
    if isinstance(error, KeyboardInterrupt):
      told, code = 'Ctrl-C', 130
    print(f'error: {told}', file=sys.stderr)
    processes.leave(membership, told)
    processes.end_at_once(code)
  processes.leave(membership)


def _learn(typed):
  folder = command.value(typed, 'workdir')
  if command.value(typed, 'config') is None and folder is not None:
    # Goes on with the config of the run.
    content = workdirs.read_config(folder)
    if content is None:
      raise command.UsageError(f'{folder} is not a run yet: give a --config')
    config = models.full_config(content)
    config_files.override(config, typed.overrides)
  else:
    config = _config(typed)
  checks.check(config)
  folder = _workdir(typed, config)
  with _naming(folder):
    train.train(
      config,
      folder,
      accept_changes=bool(command.value(typed, 'accept_changes')),
    )
  logging.info('Wrote %s', folder)


@contextlib.contextmanager
def _naming(folder):
  """Adds the folder to the error of a full disk, which does not name one."""
  try:
    yield
  except Exception as error:
    nameless = isinstance(error, OSError) and not error.filename
    if nameless and error.strerror:
      reason = error.strerror
    elif os.strerror(errno.ENOSPC) in str(error) and not nameless:
      # Libraries often hide the error of the system inside their own.
      reason = os.strerror(errno.ENOSPC)
    else:
      raise
    raise OSError(f'cannot write to {folder}: {reason}') from error


def _use(typed):
  """A mode that does something with a model."""
  config, folder = None, command.value(typed, 'workdir')
  if command.value(typed, 'config') is not None:
    config = _config(typed)
    folder = _workdir(typed, config)
  if typed.mode == 'evaluate' and (folder or '').endswith('.npz'):
    config = _config(typed)
    evaluate.evaluate_file(config, folder, command.value(typed, 'out'))
    return
  if typed.mode == 'report' and (folder or '').endswith('.json'):
    report.report_result(folder, command.value(typed, 'out'))
    return
  folder = _workdir(typed, config)
  _check_there(folder)
  asked = request(typed, config, folder)
  mode = _ANY.get(typed.mode)
  if mode is None:
    mode = tasks.find_mode(typed.mode, asked.config.task)
    _check_flags(typed, mode)
  if not mode.fits(asked.model.spec):
    can = [name for name, m in MODES.items() if m.fits(asked.model.spec)]
    raise command.UsageError(
      f'--mode={typed.mode} does not fit {folder}, {asked.model!r}; modes that '
      f'do: {", ".join(name for name in can if name not in _OUTSIDE)}'
    )
  checks.check(asked.config)
  outputs.tell_devices()
  with _naming(asked.folder):
    mode.run(asked)


def _check_there(folder):
  """Raises UsageError for a missing folder, with the nearest other one."""
  if os.path.isdir(folder) or folder == 'demo' or folder.startswith('hf://'):
    return
  raise command.UsageError(command.no_model(folder))


def request(
  typed: command.Command,
  config: ml_collections.ConfigDict | None,
  folder: str,
) -> base.Request:
  """Opens a model, with the config that says how it is used.

  Args:
    typed: the command line.
    config: for the same networks; None: that of the model, overridden.
    folder: a workdir or a saved model.

  Raises:
    ValueError: when `config` has other networks.
  """
  model, card = models.open_model(folder)
  own = models.full_config(card.get('config', {}))
  changed = config is not None or bool(typed.overrides)
  if config is None:
    config = own.copy_and_resolve_references()
    config_files.override(config, typed.overrides)
  _check_same_networks(folder, config, own)
  if changed:
    # Otherwise the model's own settings, also where its card has no config.
    model = contents.with_settings(model, config)
  given = {name: command.value(typed, name) for name in ('visible', 'out')}
  formats = command.value(typed, 'format')
  if formats is not None:
    shapes.parse(formats)
  return base.Request(
    model,
    card,
    config,
    _writable(folder),
    input=_source(typed),
    formats=formats,
    **given,
  )


def _source(typed):
  """Where shapes from outside are, or None."""
  path = command.value(typed, 'input')
  if path is None:
    return None
  names = [name for name in inputs.Source._fields if name != 'path']
  given = {name: command.value(typed, name) for name in names}
  return inputs.Source(
    path, **{name: x for name, x in given.items() if x is not None}
  )


def _writable(folder):
  """Where a model's results go: its folder; for one that has none, runs/."""
  if os.path.isdir(folder):
    return folder
  name = folder.removeprefix('hf://').replace('/', '_')
  return os.path.join('runs', 'models', name)


def _check_same_networks(folder, config, own):
  """Raises ValueError for a config of other networks than the model's."""
  ours, theirs = (
    {
      name: x
      for name, x in config_files.fields(c).items()
      if _of_networks(name)
    }
    for c in (config, own)
  )
  # As JSON, in which tuples are lists.
  differing = [
    f'{name}: {theirs.get(name)} -> {ours.get(name)}'
    for name in sorted(ours.keys() | theirs.keys())
    if json.dumps(ours.get(name)) != json.dumps(theirs.get(name))
  ]
  if differing:
    raise ValueError(
      f'{folder} holds other networks than the config asks for (saved -> '
      f'config): {", ".join(differing)}'
    )


def _of_networks(name):
  group, _, field = name.partition('.')
  of_generator = group == 'generator' and field in ('network', 'latent_dim')
  return group == 'model' or of_generator


def main(argv: Sequence[str] | None = None) -> None:
  """The entry point of absl, and of the command `dnet`."""

  def parse(argv):
    # Ours are parsed by `run`, which says what is wrong in one sentence.
    flags.FLAGS.mark_as_parsed()
    return argv

  app.run(lambda argv: run(argv[1:]), argv=argv, flags_parser=parse)


if __name__ == '__main__':
  main()
