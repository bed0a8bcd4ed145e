"""Algorithm 2 and Figure 8: grids from coarse to fine, section 6.6.

python -m experiments.main --config=experiments/configs/multigrid.py:sofa

and then, for Figure 8 (samples/grids/grids.png in the workdir):

python -m experiments.main --workdir=runs/multigrid_sofa --mode=sample

A category alone has grids of 4, 8, 16 and 32 and takes ten minutes of one quiet
CPU core for sofas; docs/results.md has its numbers. `,paper` has the grids,
layers and numbers of section 6.6, up to 64^3, and needs a GPU. As in 6.1, its
step of 0.3 means 0.3^2 in eq. (7), and Adam keeps the rate of 6.1; `,text` has
0.3 for both.
"""

from experiments.configs import arguments
from experiments.configs import default
from experiments.configs import synthesis


def get_config(argument: str = 'sofa'):
  """Returns the config of a category, `CATEGORY` or `CATEGORY,SIZE`."""
  name, category, size = arguments.parse('multigrid', argument)
  config = default.get_config()
  if not size:
    synthesis.small_recipe(config)
  config.name = name
  config.task = 'multi_grid'
  config.algorithm = ''
  config.data.category = category
  config.chains.num_steps = 10
  config.chains.noise_iterations = -1
  config.sample.start = 'grids'
  config.sample.num_steps = 10
  config.sample.noise_steps = 0
  if size:
    config.model.grids = (4, 16, 32, 64)
    config.model.grid_networks = ('paper_multigrid',) * 4
    config.data.size = 64
    config.data.batch_size = 100
    config.chains.step_size = 0.09
    config.optimizer.clip_norm = 0.0
    config.train.num_iterations = 3000
    config.optimizer.constant_iterations = 3000
    if size == 'text':
      config.chains.step_size = 0.3
      config.optimizer.learning_rate = 0.3
    return config
  config.model.grids = (4, 8, 16, 32)
  config.model.grid_networks = ('grid_4', 'grid_8', 'grid_16', 'grid_32')
  config.model.init_std = 0.02
  config.data.batch_size = 25
  config.chains.step_size = 0.05
  # Without noise, equal averages would all become one shape. Coarse chains have
  # only a little: a voxel of 4^3 varies by 0.06 over the sofas. Fine chains
  # sharpen the coarse shapes without noise.
  config.chains.grid_temperatures = (0.02, 0.01, 0.0, 0.0)
  config.train.num_iterations = 200
  config.optimizer.constant_iterations = 100
  return config
