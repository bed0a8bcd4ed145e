"""The command line: python -m experiments.main --config=... --mode=...

Flags only; see README.md for examples.
"""

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from experiments import evaluate
from experiments import exported
from experiments import train

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'File with the config; --config.field=value overrides.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where the run lives: or, to sample, an exported model.'
)
_MODE = flags.DEFINE_enum(
  'mode', 'train', ['train', 'sample', 'evaluate', 'export'], 'What to do.'
)
_OUT = flags.DEFINE_string('out', None, 'Folder to export the model to.')


def main(argv):
  """Runs a mode."""
  logging.set_verbosity(logging.INFO)
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}')
  if _MODE.value == 'train':
    if _CONFIG.value is None:
      raise app.UsageError('--mode=train needs --config')
    train.train(_CONFIG.value, _WORKDIR.value)
  elif _MODE.value == 'sample':
    evaluate.sample(_CONFIG.value, _WORKDIR.value)
  elif _MODE.value == 'evaluate':
    evaluate.evaluate(_CONFIG.value, _WORKDIR.value)
  else:
    if _OUT.value is None:
      raise app.UsageError('--mode=export needs --out')
    exported.export(_WORKDIR.value, _OUT.value)


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  app.run(main)
