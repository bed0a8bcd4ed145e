"""The demo: chairs of the embedded furniture at 16^3, minutes on two cores.

python -m experiments.main --config=experiments/configs/demo.py \
  --workdir=runs/demo --mode=train
"""

from experiments.configs import default


def get_config():
  """Returns the config."""
  config = default.get_config()
  config.name = 'demo'
  config.data.category = 'chair'
  config.data.furniture_size = 16
  config.data.furniture_shapes = 200
  config.model.network = 'custom'
  config.model.features = (64, 64)
  config.model.kernel_sizes = (8, 4)
  config.model.strides = (2, 2)
  # As in synthesis.py.
  config.model.init_std = 0.005
  config.model.reference_means = (0.0, 1.0)
  config.model.reference_std = 0.4
  config.chains.num_steps = 15
  config.chains.step_size = 0.05
  config.chains.noise_iterations = 0
  config.chains.restart_probability = 0.1
  config.chains.settle_iterations = 6
  config.chains.start_std = 0.12
  config.optimizer.constant_iterations = 140
  config.train.num_iterations = 280
  config.train.picture_every = 100
  config.train.checkpoint_every = 50
  config.sample.num_samples = 20
  return config
