"""Every field of a config, and what it means; other configs only override.

Algorithm 1 with persistent chains on the embedded furniture, with a network
that two CPU cores can learn.

What a field means is the comment behind it, or else the one right above it:
`--mode=describe` prints these.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the default config."""
  config = ml_collections.ConfigDict()
  # Of the run: its workdir is runs/<name> where no other is named.
  config.name = 'default'
  # Of all random numbers of learning.
  config.seed = 0
  # What is learned: synthesis, recovery, super_resolution, cooperative,
  # multi_grid or evaluation_classifier.
  config.task = 'synthesis'
  # Of synthesis: maximum_likelihood, contrastive_divergence or
  # persistent_contrastive_divergence; of cooperative learning: cooperative or
  # alternating_back_propagation; of other tasks it is not read.
  config.algorithm = 'maximum_likelihood'
  # How the step is mapped over devices: shard_map or pmap.
  config.parallel = 'shard_map'
  config.factor = 4  # super-resolution: d, ratio of the sides

  config.data = data = ml_collections.ConfigDict()
  # A voxel file (.npz), or 'furniture', which comes with the program. '':
  # data/modelnet10_<size>.npz where it is there, or else the furniture.
  data.path = ''
  data.category = 'chair'  # a class of the data, or 'all'
  data.batch_size = 20  # shapes of a mini-batch
  # How a network sees voxels: 'mean': the mean subtracted; 'symmetric': in
  # [-1, 1].
  data.scaling = 'mean'
  data.size = 32  # voxels a side, where data.path is no file
  data.furniture_shapes = 100  # training shapes a category, of the furniture
  data.hold_out = 0.0  # share of the training shapes that stand in for test
  data.mirror = False  # classifier: shapes are mirrored along x and y
  data.turn_degrees = 0.0  # classifier: shapes are turned about z, at most
  data.shift_voxels = 0  # classifier: shapes are shifted, at most
  data.scale_range = 0.0  # classifier: they are scaled by 1 - this to 1 + this

  config.model = model = ml_collections.ConfigDict()
  # A name in dnet_jax.DESCRIPTORS; or 'custom': of the sizes that follow.
  model.network = 'small'
  model.features = ()  # 'custom': channels of each layer
  model.kernel_sizes = ()  # 'custom': side of the filters of each layer
  model.strides = ()  # 'custom': sub-sampling of each layer
  model.padding = 'SAME'  # or VALID
  model.init_std = 0.001  # of the weights of the descriptor at the start
  model.dtype = 'float32'  # of the computation; or bfloat16
  # Of what convolutions multiply, in learning: float32, tensorfloat32 or
  # bfloat16, on every machine. 'default': of the backend, TF32 on a GPU.
  model.precision = 'default'
  model.reference = 'gaussian'  # or uniform: eq. (3) without its first term
  model.reference_std = 0.5  # s of eq. (3)
  # Means of the reference, as the network sees voxels. One: the paper's; two:
  # an even mixture, of empty and of full voxels.
  model.reference_means = (0.0,)
  # Multi-grid: sides of the grids, coarse first, the last that of the data.
  model.grids = ()
  model.grid_networks = ()  # multi-grid: a name in DESCRIPTORS for each grid

  # Cooperative learning and alternating back-propagation.
  config.generator = generator = ml_collections.ConfigDict()
  generator.network = 'medium'  # a name in dnet_jax.GENERATORS
  generator.latent_dim = 100  # numbers of z
  generator.noise_std = 0.0  # of the noise on what starts the chains
  generator.init_std = 0.02  # of the weights at the start
  generator.learning_rate = 0.0003  # in cooperative learning
  generator.b1 = 0.6  # of Adam
  generator.b2 = 0.999  # of Adam

  # Alternating back-propagation, section 5.0.1.
  config.back_propagation = back_propagation = ml_collections.ConfigDict()
  # With which cooperative learning begins, beside train.num_iterations. The
  # algorithm alone takes train.num_iterations.
  back_propagation.iterations = 0
  back_propagation.num_steps = 10  # of the chains of z, in an iteration
  back_propagation.step_size = 0.01  # delta-tau of the chains of z
  back_propagation.noise_std = 4.0  # sigma of eq. (20)
  back_propagation.learning_rate = 0.001  # of the generator

  # The evaluation classifier.
  config.classifier = classifier = ml_collections.ConfigDict()
  classifier.network = 'convnet'  # a name in dnet_jax.CLASSIFIERS
  classifier.members = 1  # networks that are asked together
  classifier.dropout = 0.5  # share of the hidden units, in learning
  # Share of a category's probability that is spread over all in learning;
  # the probabilities that it then gives are without it.
  classifier.label_smoothing = 0.0
  classifier.weight_decay = 0.0  # of AdamW; 0: Adam
  # Share of a mini-batch that is no shape at all, as one more class, 'none';
  # 0: there is no such class.
  classifier.negative_share = 0.0

  # Recovery: what is hidden in learning.
  config.corruption = corruption = ml_collections.ConfigDict()
  # random_voxels, random_box, half_space, or 'mixture': one of these at random.
  corruption.kind = 'random_voxels'
  corruption.fraction = 0.7  # of the voxels; of 'mixture': of random_voxels
  corruption.hold = True  # visible voxels at every step; False: put back last
  # Hidden voxels begin at the Gaussian average of the visible ones around
  # them, of this standard deviation in voxels; 0: at the mean of all of them.
  corruption.fill_std = 0.0

  # Of learning.
  config.chains = chains = ml_collections.ConfigDict()
  chains.kernel = 'langevin'  # eq. (7); or mala
  chains.num_chains = 25  # moved in an iteration
  # At most so many chains of a device, and shapes with them, are worked on at a
  # time, with the same result in less memory; 0: all. Not for a generator.
  chains.at_once = 0
  chains.num_slots = 2  # of the memory: iteration t moves slot t % num_slots
  chains.num_steps = 20  # in an iteration
  chains.step_size = 0.01  # delta-tau of eq. (7)
  chains.temperature = 1.0  # T of section 2.5
  chains.grid_temperatures = ()  # multi-grid: of each grid, times temperature
  chains.noise_iterations = 100  # the temperature is 0 afterwards; -1: never
  # Where chains begin and restart: 'noise', or 'components': draws in the
  # principal components of the data.
  chains.start = 'noise'
  chains.restart_probability = 0.04  # of a chain in an iteration
  chains.settle_iterations = 50  # the last ones, without restarts
  chains.start_std = 0.3  # of the noise where they begin

  # Principal components of the training shapes.
  config.components = components = ml_collections.ConfigDict()
  components.number = 0  # that the model keeps; 0: none
  components.groups = 1  # Gaussians of the mixture that is drawn from

  # Adam, of the descriptor or the classifier.
  config.optimizer = optimizer = ml_collections.ConfigDict()
  optimizer.learning_rate = 0.001  # until it falls
  optimizer.b1 = 0.5  # of Adam
  optimizer.b2 = 0.999  # of Adam
  optimizer.clip_norm = 50.0  # of the gradient; 0: no clipping
  # The first ones; then the rate falls, by a cosine that ends with the run.
  optimizer.constant_iterations = 150
  optimizer.final_fraction = 0.05  # of the rate, at the end

  config.train = train = ml_collections.ConfigDict()
  train.num_iterations = 500  # a larger number goes on with a finished run
  # A workdir or saved model to start from; or several, with commas between
  # them, such as one with a descriptor and one with a generator.
  train.init_from = ''
  train.checkpoint_every = 25  # iterations; 0: only at the end
  train.keep_checkpoints = 2  # the newest ones
  train.picture_every = 50  # iterations; 0: only at the end
  train.picture_shapes = 10  # of a picture
  # Iterations after which page.html is written anew, the report of the run as
  # it goes, for a browser; 0: never.
  train.page_every = 0

  # Beyond any of these the run has diverged and goes back to its last
  # checkpoint with other random numbers.
  config.limits = limits = ml_collections.ConfigDict()
  limits.energy_gap = 1e6  # |V| of eq. (14), above which a run has diverged
  limits.grad_norm = 1e6  # likewise, the norm of the descriptor's gradient
  limits.chain_max = 100.0  # likewise, the largest absolute voxel of a chain
  limits.generator_grad_norm = 1e6  # likewise, that of the generator
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
  sample.num_steps = 200  # of each chain
  # Of these steps, the first ones, at `temperature`; the others are at 0.
  sample.noise_steps = 100
  sample.temperature = 1.0  # T of the first noise_steps
  sample.step_size = 0.0  # delta-tau; 0: that of the chains in learning
  sample.start_std = 0.0  # of the noise at the start; 0: that of the chains
  # After these, steps at T = 0 with a reference of refinement_std, for values
  # near empty and full.
  sample.refinement_steps = 0
  sample.refinement_std = 0.2  # s of eq. (3), in the refinement steps
  # What shapes are written as, of all modes: obj, ply, stl, glb, off; binvox,
  # vox, npy, mat; or several with commas; '': none.
  sample.mesh_format = 'obj'
  sample.seed = 0  # of the random numbers

  # How it fills hidden voxels.
  config.recover = recover = ml_collections.ConfigDict()
  recover.num_steps = 60  # of each chain
  recover.noise_steps = 0  # the first ones, at `temperature`; others are at 0
  recover.temperature = 1.0  # T of the first noise_steps
  recover.step_size = 0.1  # delta-tau; 0: that of the chains in learning
  recover.refinement_steps = 0  # as sample.refinement_steps
  recover.refinement_std = 0.2  # as sample.refinement_std

  # How it adds details.
  config.super_resolve = super_resolve = ml_collections.ConfigDict()
  super_resolve.num_steps = 60  # of each chain
  super_resolve.noise_steps = 0  # the first ones, at `temperature`
  super_resolve.temperature = 1.0  # T of the first noise_steps
  super_resolve.step_size = 0.1  # delta-tau; 0: that of the chains in learning
  super_resolve.refinement_steps = 0  # as sample.refinement_steps
  super_resolve.refinement_std = 0.2  # as sample.refinement_std

  # The latent space of a generator.
  config.latent = latent = ml_collections.ConfigDict()
  latent.num_rows = 5  # of interpolate and arithmetic
  latent.num_columns = 8  # of interpolate
  latent.search = 200  # shapes among which arithmetic looks for examples
  # Of arithmetic: a, b, c, a, b, c, ...: the numbers of such shapes; (): those
  # that are found.
  latent.examples = ()
  latent.num_starts = 4  # chains by which z of a shape is inferred
  latent.num_steps = 200  # of these chains, half of them with noise
  latent.step_size = 0.01  # delta-tau of these chains
  latent.noise_std = 4.0  # sigma of eq. (20), for these chains
  latent.num_reconstructed = 20  # test shapes, in evaluate

  config.evaluate = evaluate = ml_collections.ConfigDict()
  evaluate.num_shapes = 100  # at most, of each set that is compared
  evaluate.draws = 5  # sets of fresh or generated shapes: scores are means
  evaluate.seed = 0  # of the first draw; the others have the next numbers
  evaluate.splits = 10  # of the inception score
  evaluate.classifier = ''  # a workdir or saved model; '': none
  # Multi-grid is compared with the fresh chains of this model, from noise at
  # temperature 0; '': of none.
  evaluate.baseline = ''
  evaluate.baseline_steps = 200  # of the chains of the baseline

  # The mode `probe`: logistic regression on features, Table 5.
  config.probe = probe = ml_collections.ConfigDict()
  probe.windows = (4, 2)  # of the max pooling, one for each layer
  probe.more_windows = ()  # likewise, of a further row; (): none
  probe.mirror = False  # more rows: pooled over mirror images
  probe.fractions = (0.01, 0.05, 0.1, 1.0)  # of the labels
  probe.draws = 5  # of each share below 1

  return config
