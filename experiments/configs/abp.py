"""Section 5.0.1: a generator learned alone, by alternating back-propagation.

python -m experiments.main \
  --config=experiments/configs/abp.py:toilet \
  --config.data.path=modelnet10_32.npz --workdir=runs/abp_toilet --mode=train

The paper only names the algorithm. Sigma of eq. (20) and delta-tau of the
latent chains belong together: a smaller sigma, or a finer grid, needs smaller
steps, in proportion to sigma^2 and to one over the number of voxels.
"""

from experiments.configs import coop


def get_config(argument: str = 'toilet'):
  """Returns the config of a category, `CATEGORY` or `CATEGORY,paper`."""
  config = coop.get_config(argument)
  config.name = config.name.replace('coop', 'abp')
  config.algorithm = 'alternating_back_propagation'
  config.generator.noise_std = 4.0
  config.generator.learning_rate = 0.001
  config.optimizer.constant_iterations = 600
  config.train.num_iterations = 600
  config.train.init_from = ''
  config.chains.num_steps = 10
  config.chains.step_size = 0.01
  config.chains.noise_iterations = -1
  config.sample.num_steps = 0
  return config
