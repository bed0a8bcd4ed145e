"""Table 4 and Figure 3: recovery of hidden voxels, Algorithm 4, section 6.2.

python -m experiments.main --config=experiments/configs/recovery.py:toilet

The same with --mode=evaluate gives the category's row of Table 4, beside
baselines, and Figure 3. After the category, `,paper` takes the paper's network
of 3 layers and `,paper2` that of 2 layers; `,text` has the step size of the
text. All three need a GPU. `,mixture` learns every kind of corruption: voxels
at random, a box, a half space, and what a camera on one side does not see.
`,two_layers` is as without a size, but with the paper's network of 2 layers.

Three to four minutes of 2 CPU cores. Thresholded errors of all ten categories
are in docs/results.md: 0.0070 in the mean, where Table 4 has 0.0092, and lower
than there in eight. Real-valued ones are 0.0093 (2026-11-27).
"""

from experiments.configs import arguments
from experiments.configs import default

# All kinds of corruption, so that each is seen in evaluation.
_KINDS = ('random_voxels', 'random_box', 'half_space', 'one_view')
_NETWORKS = {
  'paper': 'paper_3_layer',
  'paper2': 'paper_2_layer',
  'text': 'paper_3_layer',
}


def get_config(argument: str = 'toilet'):
  """Returns the config of a category, `CATEGORY` or `CATEGORY,SIZE`."""
  name, category, size = arguments.parse(
    'recovery', argument, (*_NETWORKS, 'mixture', 'two_layers')
  )
  config = default.get_config()
  config.name = name
  config.task = 'recovery'
  config.algorithm = ''
  config.data.category = category
  config.chains.noise_iterations = 0
  config.chains.temperature = 0.0
  if size in _NETWORKS:
    # 6.2, but for delta-tau and the noise: the text says 0.07, the authors'
    # code moves by 0.07^2 / 2 and without noise.
    config.model.network = _NETWORKS[size]
    config.data.batch_size = 50
    config.chains.num_steps = 90
    config.chains.step_size = 0.07 if size == 'text' else 0.0049
    config.optimizer.clip_norm = 0.0
    config.optimizer.constant_iterations = 1000
    config.train.num_iterations = 1000
  else:
    # Voxels that are hidden at random depend on their neighbours, so small
    # filters are enough. Two means of the reference, one for empty and one for
    # full, bring each voxel near one of them.
    config.model.network = 'custom'
    config.model.features = (32,)
    config.model.kernel_sizes = (6,)
    config.model.strides = (2,)
    config.model.init_std = 0.01
    config.model.reference_std = 0.4
    config.model.reference_means = ()
    config.data.batch_size = 8
    # From an average, a small network does not come as near to the truth as
    # the components already are. The Gaussian around this start keeps it near;
    # see docs/results.md, "What was tried".
    config.components.number = 240
    config.corruption.components_std = 0.3
    config.corruption.fill_std = 0.7
    config.corruption.anchor_std = 0.4
    config.recover.refinement_steps = 5
    config.recover.refinement_std = 0.2
    config.chains.num_steps = 10
    config.chains.step_size = 0.08
    config.optimizer.learning_rate = 0.01
    config.optimizer.constant_iterations = 100
    config.train.num_iterations = 200
  if size == 'two_layers':
    config.model = default.get_config().model
    config.model.network = 'paper_2_layer'
    config.model.reference_std = 0.4
    config.model.reference_means = ()
    config.optimizer.learning_rate = 0.001
  if size == 'mixture':
    config.corruption.kind = 'mixture'
    config.evaluate.kinds = _KINDS
    config.evaluate.completions = 8
  # As many steps as in learning, all without noise.
  config.recover.num_steps = config.chains.num_steps
  config.recover.step_size = config.chains.step_size
  return config
