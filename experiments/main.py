"""The command line: python -m experiments.main --config=... --mode=...

Flags only; see README.md for examples.
"""

import json

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from experiments import evaluate
from experiments import export
from experiments import tasks
from experiments import train
from experiments.files import models
from experiments.tasks import base

# Done with any model.
_OWN = {
  'evaluate': base.Mode(
    evaluate.evaluate, 'scores beside real shapes', takes=('config', 'out')
  ),
}
_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'File with the config; --config.field=value overrides.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where the run lives, or (but to train) a saved model.'
)
_MODE = flags.DEFINE_enum(
  'mode',
  'train',
  ['train', 'export', *_OWN, *tasks.mode_names()],
  'What to do.',
)
_OUT = flags.DEFINE_string(
  'out', None, 'Folder to export to; or file to write a result to as well.'
)
_INPUT = flags.DEFINE_string(
  'input', None, 'Shapes from outside: a mesh or voxels.'
)
_VISIBLE = flags.DEFINE_string(
  'visible',
  None,
  'To recover or reconstruct: a .npy, True where a voxel was observed.',
)
_UP = flags.DEFINE_enum(
  'up', 'z', ['x', 'y', 'z'], 'The axis of --input that points up.'
)


def request(config, folder) -> base.Request:
  """A model, and the config whose settings of its use count.

  Args:
    config: for the same networks; None: that of the model.
    folder: a workdir or a saved model.

  Raises:
    ValueError: when `config` has other networks.
  """
  model, card = models.open_model(folder)
  own = models.full_config(card.get('config', {}))
  if config is None:
    config = own
  else:
    _check_same_networks(folder, config, own)
  return base.Request(
    model,
    card,
    config,
    folder,
    input=_INPUT.value,
    visible=_VISIBLE.value,
    up=_UP.value,
    out=_OUT.value,
  )


def _check_same_networks(folder, config, own):
  # Through JSON, in which tuples are lists.
  ours, theirs = (
    json.loads(json.dumps(c.model.to_dict())) for c in (config, own)
  )
  differing = [
    f'model.{name}: {theirs.get(name)} -> {ours.get(name)}'
    for name in sorted(ours.keys() | theirs.keys())
    if ours.get(name) != theirs.get(name)
  ]
  if differing:
    raise ValueError(
      f'{folder} holds another model than --config asks for (theirs -> '
      'ours):\n  ' + '\n  '.join(differing)
    )


def _need(mode, *names):
  for name in names:
    if flags.FLAGS[name].value is None:
      raise app.UsageError(f'--mode={mode} needs --{name}')


def main(argv):
  """Runs a mode."""
  logging.set_verbosity(logging.INFO)
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}')
  name, config, workdir = _MODE.value, _CONFIG.value, _WORKDIR.value
  if name == 'train':
    _need(name, 'config')
    train.train(config, workdir)
    return
  if name == 'export':
    _need(name, 'out')
    export.export(workdir, _OUT.value)
    return
  if name == 'evaluate' and workdir.endswith('.npz'):
    _need(f'{name} of a file', 'config')
    evaluate.evaluate_file(config, workdir, _OUT.value)
    return
  asked = request(config, workdir)
  mode = _OWN.get(name) or tasks.find_mode(name, asked.config.task)
  _need(name, *mode.needs)
  mode.run(asked)


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  app.run(main)
