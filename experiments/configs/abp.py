"""Section 5.0.1: a generator learned alone, by alternating back-propagation.

python -m experiments.main --config=experiments/configs/abp.py:toilet

Ten minutes of one CPU core. The paper only names the algorithm. Sigma of eq.
(20) and delta-tau of the latent chains must fit each other: delta-tau has to be
in proportion to sigma^2 and to one over the number of voxels. `,paper` and
`,text` take the generator of 6.4.
"""

from experiments.configs import arguments
from experiments.configs import coop
from experiments.configs import default


def get_config(argument: str = 'toilet'):
  """Returns the config of a category, `CATEGORY` or `CATEGORY,SIZE`."""
  name, _, _ = arguments.parse('abp', argument)
  config = coop.get_config(argument)
  config.name = name
  config.algorithm = 'alternating_back_propagation'
  config.back_propagation.iterations = 0
  config.regression.iterations = 0
  config.components = default.get_config().components
  config.train.num_iterations = 600
  config.sample.num_steps = 0
  return config
