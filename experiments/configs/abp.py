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
  config.train.num_iterations = 600
  config.train.init_from = ''
  config.sample.num_steps = 0
  return config
