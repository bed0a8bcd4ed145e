"""The command line: python -m experiments.main --config=... --mode=...

Flags only; see README.md for examples.
"""

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from experiments import classification
from experiments import conditional
from experiments import evaluate
from experiments import exported
from experiments import latent
from experiments import train

# Each mode takes the config (or None), the workdir, and the flags it needs.
_MODES = {
  'train': lambda config, workdir: train.train(config, workdir),
  'sample': lambda config, workdir: evaluate.sample(
    config, workdir, _INPUT.value, _UP.value
  ),
  'evaluate': lambda config, workdir: evaluate.evaluate(
    config, workdir, _OUT.value
  ),
  'probe': lambda config, workdir: classification.probe(
    config, workdir, _OUT.value
  ),
  'recover': lambda config, workdir: conditional.recover(
    config, workdir, _INPUT.value, _VISIBLE.value, _UP.value
  ),
  'super_resolve': lambda config, workdir: conditional.super_resolve(
    config, workdir, _INPUT.value, _UP.value
  ),
  'generate': lambda config, workdir: latent.generate(config, workdir),
  'interpolate': lambda config, workdir: latent.interpolate(config, workdir),
  'arithmetic': lambda config, workdir: latent.arithmetic(config, workdir),
  'reconstruct': lambda config, workdir: latent.reconstruct(
    config, workdir, _INPUT.value, _VISIBLE.value, _UP.value
  ),
  'export': lambda config, workdir: exported.export(workdir, _OUT.value),
}
# Flags that a mode cannot do without.
_NEEDS = {
  'train': ('config',),
  'export': ('out',),
  'recover': ('input',),
  'super_resolve': ('input',),
  'reconstruct': ('input',),
}

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'File with the config; --config.field=value overrides.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where the run lives, or (but to train) an exported model.'
)
_MODE = flags.DEFINE_enum('mode', 'train', list(_MODES), 'What to do.')
_OUT = flags.DEFINE_string(
  'out', None, 'Folder to export to; or file to write an evaluation to as well.'
)
_INPUT = flags.DEFINE_string(
  'input',
  None,
  'To recover, super_resolve, sample or reconstruct: a mesh or voxels.',
)
_VISIBLE = flags.DEFINE_string(
  'visible',
  None,
  'To recover or reconstruct: a .npy, True where a voxel was observed.',
)
_UP = flags.DEFINE_enum(
  'up', 'z', ['x', 'y', 'z'], 'The axis of --input that points up.'
)


def main(argv):
  """Runs a mode."""
  logging.set_verbosity(logging.INFO)
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}')
  for name in _NEEDS.get(_MODE.value, ()):
    if flags.FLAGS[name].value is None:
      raise app.UsageError(f'--mode={_MODE.value} needs --{name}')
  _MODES[_MODE.value](_CONFIG.value, _WORKDIR.value)


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  app.run(main)
