"""Algorithm 2 and Figure 8: grids from coarse to fine, section 6.6.

python -m experiments.main --config=experiments/configs/multigrid.py:sofa

and then, for Figure 8 (samples/components/grids.png in the workdir):

python -m experiments.main --workdir=runs/multigrid_sofa --mode=sample

A category alone learns shapes of 64^3 in some minutes of one CPU core.
Its chains begin at draws in the principal components of 32^3, where the paper
begins at an average, and a grid begins at the linear interpolation of the
coarser one. pretrained/multigrid_sofa is such a model. docs/results.md has its
numbers, and those of the paper's networks.

`,paper` has the grids, layers and numbers of section 6.6, from 1^3 to 64^3.
With batches of 20 it takes 24 minutes of two CPU cores. Its noise and its
schedule are not the paper's: with noise of 0.3 a step on voxels of 0 and 1,
chains stay noise, and then 16^3 diverges. As in 6.1, its step of 0.3
means 0.3^2 in eq. (7), and Adam keeps the rate of 6.1. `,text` has 0.3 for
both, noise on all grids and 3,000 iterations at one rate.
"""

from experiments.configs import arguments
from experiments.configs import default
from experiments.configs import synthesis


def small_recipe(config):
  """Two grids that begin at components; see docs/results.md.

  Averages of blocks are neither empty nor full, so the coarse grid has a wide
  reference. The fine one has a narrow reference: with a wide one chains stay
  softer than shapes, and the network learns nothing else.
  """
  synthesis.small_recipe(config)
  config.model.grids = (32, 64)
  config.model.grid_networks = ('grid_32', 'grid_64')
  config.model.grid_reference_stds = (0.45, 0.25)
  config.model.enlarge = 'linear'
  config.data.batch_size = 16
  # 4 bits of each component are most of a saved model.
  config.components.number = 60
  config.components.neighbours, config.sample.start_spread = _STARTS.get(
    config.data.category, (20, 0.4)
  )
  config.chains.start = 'components'
  config.chains.start_std = 0.02
  config.chains.start_spread = 0.75
  config.chains.num_steps = 10
  config.chains.step_size = 0.05
  config.optimizer.learning_rate = 0.002
  config.optimizer.constant_iterations = 20
  config.train.num_iterations = 30
  config.sample.start = 'components'
  config.sample.num_steps = 10


def paper_recipe(config):
  """The grids, layers and numbers of section 6.6, with less noise.

  T = 0 on the two fine grids (section 2.5); at T = 0 everywhere all shapes of
  one average are the same. On 4^3 training shapes differ by .06 a voxel, and
  ten steps at T = 0.01 add .09. With 1,500 iterations 16^3 diverges: its energy
  gap rises from iteration 1,000 on.
  """
  config.model.grids = (4, 16, 32, 64)
  config.model.grid_networks = ('paper_multigrid',) * 4
  config.data.batch_size = 100
  config.chains.num_steps = 10
  config.chains.noise_iterations = -1
  config.chains.step_size = 0.09
  config.chains.grid_temperatures = (0.01, 0.001, 0.0, 0.0)
  config.optimizer.clip_norm = 0.0
  config.train.num_iterations = 1000
  config.optimizer.constant_iterations = 500
  config.sample.start = 'grids'
  config.sample.num_steps = 10


def text_recipe(config):
  """All numbers of the text of section 6.6."""
  paper_recipe(config)
  config.chains.grid_temperatures = ()
  config.chains.step_size = 0.3
  config.train.num_iterations = 3000
  config.optimizer.constant_iterations = 3000
  config.optimizer.learning_rate = 0.3


# Neighbours and spread of the draws, which are blends. Smaller than in
# learning: chains of two small networks do not mend what a large spread tears.
# Only sofas were scored; of toilets with (50, 0.3) a fifth were fragments.
_STARTS = {
  'chair': (20, 0.3),
  'desk': (20, 0.3),
  'table': (20, 0.3),
  'toilet': (50, 0.3),
}
RECIPES = {'': small_recipe, 'paper': paper_recipe, 'text': text_recipe}


def get_config(argument: str = 'sofa'):
  """Returns the config of a category, `CATEGORY` or `CATEGORY,SIZE`."""
  name, category, size = arguments.parse('multigrid', argument)
  config = default.get_config()
  config.name = name
  config.task = 'multi_grid'
  config.algorithm = ''
  config.data.category = category
  config.data.size = 64
  config.sample.noise_steps = 0
  RECIPES[size](config)
  return config
