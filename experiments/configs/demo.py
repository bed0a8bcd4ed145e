"""The demo: chairs of the embedded furniture at 16^3, minutes on two cores.

python -m experiments.main --config=experiments/configs/demo.py
"""

from experiments.configs import default
from experiments.configs import synthesis


def get_config():
  """Returns the config."""
  config = default.get_config()
  config.name = 'demo'
  config.data.category = 'chair'
  config.data.path = 'furniture'
  config.data.size = 16
  config.data.furniture_shapes = 200
  config.model.network = 'custom'
  config.model.features = (64, 64)
  config.model.kernel_sizes = (8, 4)
  config.model.strides = (2, 2)
  synthesis.small_recipe(config)
  # Chains begin at one shape in the proportions of a similar one, so that few
  # come out broken.
  config.components.number = 60
  config.components.stretched = True
  config.components.neighbours = 20
  config.chains.start = 'components'
  config.chains.start_std = 0.05
  config.chains.start_spread = 0.3
  config.chains.restart_probability = 0.5
  config.chains.settle_iterations = 0
  config.optimizer.constant_iterations = 140
  config.train.num_iterations = 280
  config.train.picture_every = 100
  config.train.checkpoint_every = 50
  config.sample.start = 'components'
  config.sample.num_steps = 15
  config.sample.num_samples = 20
  return config
