"""Seconds on a CPU: a tiny network on 8^3 furniture, for tests.

python -m experiments.main --config=experiments/configs/test.py
"""

from experiments.configs import default


def get_config():
  """Returns the config."""
  config = default.get_config()
  config.name = 'test'
  config.data.path = 'furniture'
  config.data.size = 8
  config.data.furniture_shapes = 12
  config.data.batch_size = 4
  config.model.network = 'tiny'
  config.chains.num_chains = 4
  config.chains.num_steps = 3
  config.chains.noise_iterations = 2
  config.chains.settle_iterations = 2
  config.optimizer.constant_iterations = 2
  config.train.num_iterations = 6
  config.train.checkpoint_every = 2
  config.train.picture_every = 3
  config.train.picture_shapes = 2
  config.sample.num_samples = 3
  config.sample.num_steps = 2
  config.sample.noise_steps = 1
  config.evaluate.num_shapes = 3
  config.evaluate.draws = 2
  return config
