"""The judge: a classifier of ten categories for Tables 1, 2 and 3.

python -m experiments.main --config=experiments/configs/judge.py \
  --config.data.path=modelnet10_32.npz --workdir=runs/judge --mode=train

31 minutes on one busy CPU core. Of the test shapes 91.1 % are right, of the
training shapes that it held out 97.7 % (many of them have near copies among
the others). Most errors are tables taken for desks, and night stands for
dressers.
"""

from experiments.configs import default


def get_config():
  """Returns the config."""
  config = default.get_config()
  config.name = 'judge'
  config.algorithm = 'classify'
  config.data.category = 'all'
  config.data.batch_size = 64
  config.data.hold_out = 0.1  # settings were chosen on these, not on test
  config.data.mirror = True
  config.data.turn_degrees = 15.0
  config.data.shift_voxels = 2
  config.data.scale_range = 0.1
  config.classifier.dropout = 0.4
  config.classifier.weight_decay = 0.01
  config.classifier.junk_share = 0.1
  config.optimizer.learning_rate = 0.002
  config.optimizer.b1 = 0.9
  config.optimizer.clip_norm = 5.0
  config.optimizer.constant_iterations = 200
  config.optimizer.final_fraction = 0.01
  config.train.num_iterations = 1200
  config.train.checkpoint_every = 100
  return config
