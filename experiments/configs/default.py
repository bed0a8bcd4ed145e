"""Every field of a config, and what it means; other configs only override.

Algorithm 1 with persistent chains on the embedded furniture, with a network
that two CPU cores can learn.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the default config."""
  config = ml_collections.ConfigDict()
  config.name = 'default'
  config.seed = 0
  # A name in tasks.TASKS, and of synthesis and cooperative learning the
  # algorithm: see there.
  config.task = 'synthesis'
  config.algorithm = 'maximum_likelihood'
  # How the step is mapped over devices: shard_map or pmap.
  config.parallel = 'shard_map'

  config.data = data = ml_collections.ConfigDict()
  # A voxel file (.npz), or 'furniture', which comes with the program. Empty:
  # data/modelnet10_<size>.npz where it is there, or else the furniture.
  data.path = ''
  data.category = 'chair'  # or 'all'
  data.batch_size = 20
  data.scaling = 'mean'  # subtracted; or symmetric: voxels in [-1, 1]
  data.size = 32  # voxels a side, where the path is not a file
  data.furniture_shapes = 100  # training shapes a category
  data.hold_out = 0.0  # share of the training shapes that stand in for test

  # In learning a classifier: mirrors, turns about z, shifts and scales.
  data.mirror = False  # along x and y
  data.turn_degrees = 0.0  # at most, either way
  data.shift_voxels = 0  # at most, along each axis
  data.scale_range = 0.0  # shapes are scaled by 1 - this to 1 + this

  config.model = model = ml_collections.ConfigDict()
  model.network = 'small'  # a name in dnet_jax.DESCRIPTORS, or 'custom' with:
  model.features = ()
  model.kernel_sizes = ()
  model.strides = ()
  model.padding = 'SAME'
  model.init_std = 0.001
  model.dtype = 'float32'  # of the computation; or bfloat16
  model.reference = 'gaussian'  # or uniform: eq. (3) without its first term
  model.reference_std = 0.5
  # Of each voxel, as the network sees it; two: empty and full.
  model.reference_means = (0.0,)

  # Multi-grid: sides of the grids, coarse first, the last that of the data,
  # and the networks, one name for each; empty: one model.
  model.grids = ()
  model.grid_networks = ()

  # Cooperative learning and alternating back-propagation.
  config.generator = generator = ml_collections.ConfigDict()
  generator.network = 'medium'  # a name in dnet_jax.GENERATORS
  generator.latent_dim = 100
  generator.noise_std = 0.0  # of the noise on what starts the chains
  generator.init_std = 0.02
  generator.learning_rate = 0.0003
  generator.b1 = 0.6
  generator.b2 = 0.999

  # Alternating back-propagation, section 5.0.1: alone, for as many iterations
  # as train.num_iterations; or before cooperative learning, for these.
  config.back_propagation = ml_collections.ConfigDict()
  config.back_propagation.iterations = 0
  config.back_propagation.num_steps = 10  # in the latent space
  config.back_propagation.step_size = 0.01
  config.back_propagation.noise_std = 4.0  # sigma of eq. (20)
  config.back_propagation.learning_rate = 0.001

  # The evaluation classifier.
  config.classifier = classifier = ml_collections.ConfigDict()
  classifier.network = 'convnet'  # a name in dnet_jax.CLASSIFIERS
  classifier.members = 1  # networks that are asked together
  classifier.dropout = 0.5
  # Share of a category's probability that is spread over all in learning;
  # the probabilities that it then gives are without it.
  classifier.label_smoothing = 0.0
  classifier.weight_decay = 0.0
  # Share of a mini-batch that is no shape at all, as one more class, 'none';
  # 0: there is no such class.
  classifier.negative_share = 0.0

  # Recovery: what is hidden in learning.
  config.corruption = corruption = ml_collections.ConfigDict()
  corruption.kind = 'random_voxels'  # a name in parts.CORRUPTIONS, or 'mixture'
  corruption.fraction = 0.7  # of the voxels; of 'mixture': of random_voxels
  corruption.hold = True  # visible voxels at every step; False: put back last
  # Hidden voxels begin at the Gaussian average of the visible ones around
  # them, of this standard deviation in voxels; 0: at the mean of all of them.
  corruption.fill_std = 0.0
  config.factor = 4  # super-resolution: d, ratio of the sides

  config.chains = chains = ml_collections.ConfigDict()
  chains.kernel = 'langevin'  # or mala
  chains.num_chains = 25  # moved in an iteration
  chains.num_slots = 2  # of the memory: iteration t moves slot t % num_slots
  chains.num_steps = 20
  chains.step_size = 0.01  # delta-tau of eq. (7)
  chains.temperature = 1.0
  chains.grid_temperatures = ()  # multi-grid: of each grid, times temperature
  chains.noise_iterations = 100  # the temperature is 0 afterwards; -1: never
  # Where chains begin and restart: 'noise', or 'components': draws in the
  # principal components of the data.
  chains.start = 'noise'
  chains.restart_probability = 0.04  # of a chain in an iteration
  chains.settle_iterations = 50  # the last ones, without restarts
  chains.start_std = 0.3  # of the noise where they begin

  # Principal components of the training shapes, which the model keeps; 0: none.
  config.components = ml_collections.ConfigDict()
  config.components.number = 0

  config.optimizer = optimizer = ml_collections.ConfigDict()
  optimizer.learning_rate = 0.001
  optimizer.b1 = 0.5
  optimizer.b2 = 0.999
  optimizer.clip_norm = 50.0  # of the gradient; 0: no clipping
  optimizer.constant_iterations = 150  # then a cosine to final_fraction
  optimizer.final_fraction = 0.05

  config.train = train = ml_collections.ConfigDict()
  train.num_iterations = 500
  # A workdir or exported model to start from; or several, with commas between
  # them, such as one with a descriptor and one with a generator.
  train.init_from = ''
  train.checkpoint_every = 25
  train.keep_checkpoints = 2
  train.picture_every = 50
  train.picture_shapes = 10

  # Beyond any of these the run has diverged and goes back to its last
  # checkpoint with another random key.
  config.limits = limits = ml_collections.ConfigDict()
  limits.energy_gap = 1e6  # |V| of eq. (14)
  limits.grad_norm = 1e6
  limits.chain_max = 100.0  # largest absolute voxel of a chain
  limits.generator_grad_norm = 1e6
  limits.rollbacks = 5  # in a row, then the run stops
  # From the second one in a row on, the learning rate is multiplied by this.
  limits.rate_factor = 0.3

  # How a model makes new shapes.
  config.sample = sample = ml_collections.ConfigDict()
  # 'noise'; 'chains': persistent chains; 'components': draws in the principal
  # components of the data; 'generator': what a generator makes; 'grids':
  # multi-grid, where num_steps are those of each grid and temperature is times
  # that of learning.
  sample.start = 'noise'
  sample.num_samples = 25  # also of the shapes of --input, at most
  sample.num_steps = 200
  sample.noise_steps = 100  # of these, the first ones at `temperature`; the
  sample.temperature = 1.0  # rest at 0
  sample.step_size = 0.0  # 0: that of the chains
  sample.start_std = 0.0  # of the noise at the start; 0: that of the chains
  # After these, steps at T = 0 with a reference of this standard deviation,
  # for values near empty and full.
  sample.refinement_steps = 0
  sample.refinement_std = 0.2
  sample.mesh_format = 'obj'  # obj, ply or stl; '': no meshes
  sample.seed = 0

  # How it fills hidden voxels, and how it adds details; as in `sample`.
  config.recover = recover = ml_collections.ConfigDict()
  config.super_resolve = super_resolve = ml_collections.ConfigDict()
  for settings in (recover, super_resolve):
    settings.num_steps = 60
    settings.noise_steps = 0
    settings.temperature = 1.0
    settings.step_size = 0.1
    settings.refinement_steps = 0
    settings.refinement_std = 0.2

  # The latent space of a generator.
  config.latent = latent = ml_collections.ConfigDict()
  latent.num_rows = 5  # of interpolate and arithmetic
  latent.num_columns = 8  # of interpolate
  latent.search = 200  # shapes among which arithmetic looks for examples
  latent.examples = ()  # or a, b, c, a, b, c, ...: the numbers of such shapes
  # To infer z of a shape: chains of each, their steps, half of them with noise,
  # delta-tau and sigma of eq. (20).
  latent.num_starts = 4
  latent.num_steps = 200
  latent.step_size = 0.01
  latent.noise_std = 4.0
  latent.num_reconstructed = 20  # test shapes, in evaluate

  config.evaluate = evaluate = ml_collections.ConfigDict()
  evaluate.num_shapes = 100  # at most, of each set that is compared
  evaluate.seed = 0
  evaluate.splits = 10  # of the inception score
  evaluate.classifier = ''  # a workdir or exported model; '': none
  # Multi-grid is compared with the fresh chains of this model, from noise at
  # temperature 0; '': of none.
  evaluate.baseline = ''
  evaluate.baseline_steps = 200

  config.probe = probe = ml_collections.ConfigDict()
  probe.windows = (4, 2)  # of the max pooling, one for each layer
  probe.more_windows = ()  # likewise, of a further row; (): none
  probe.mirror = False  # more rows: pooled over mirror images
  probe.fractions = (0.01, 0.05, 0.1, 1.0)  # of the labels
  probe.draws = 5  # of each share below 1

  return config
