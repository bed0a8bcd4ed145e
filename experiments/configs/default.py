"""Every field of a config and its meaning; other configs only change values.

Algorithm 1 with persistent chains on the embedded furniture, with a network
that two CPU cores can learn.

The comment after a field, or else the one right above it, says what the field
means: `--mode=describe` prints these comments.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the default config."""
  config = ml_collections.ConfigDict()
  # Name of the run: its workdir is runs/<name> unless --workdir names another.
  config.name = 'default'
  # Seed of all random numbers of learning.
  config.seed = 0
  # What is learned: synthesis, recovery, super_resolution, cooperative,
  # multi_grid or evaluation_classifier.
  config.task = 'synthesis'
  # For synthesis: maximum_likelihood, contrastive_divergence or
  # persistent_contrastive_divergence; for cooperative learning: cooperative or
  # alternating_back_propagation. Other tasks do not read it.
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
  # How a network sees voxels: 'mean': with the mean subtracted; 'symmetric': in
  # [-1, 1].
  data.scaling = 'mean'
  data.size = 32  # voxels a side, where data.path does not name a file
  data.furniture_shapes = 100  # training shapes of each furniture category
  # Share of the training shapes that is used in place of the test shapes.
  data.hold_out = 0.0
  data.mirror = False  # classifier: mirror shapes at random along x and y
  data.turn_degrees = 0.0  # classifier: largest random turn about z
  data.shift_voxels = 0  # classifier: largest random shift along each axis
  # Classifier: shapes are scaled by a random factor from 1 - this to 1 + this.
  data.scale_range = 0.0

  config.model = model = ml_collections.ConfigDict()
  # A name in dnet_jax.DESCRIPTORS; or 'custom', with the sizes that follow.
  model.network = 'small'
  model.features = ()  # 'custom': channels of each layer
  model.kernel_sizes = ()  # 'custom': side of the filters of each layer
  model.strides = ()  # 'custom': sub-sampling of each layer
  model.padding = 'SAME'  # or VALID
  model.init_std = 0.001  # standard deviation of the descriptor's first weights
  model.dtype = 'float32'  # dtype of the computation; or bfloat16
  # Precision of the products in convolutions, in learning: float32,
  # tensorfloat32 or bfloat16, the same on every machine. 'default': that of the
  # backend, such as TF32 on a GPU.
  model.precision = 'default'
  model.reference = 'gaussian'  # or uniform: eq. (3) without its first term
  model.reference_std = 0.5  # s of eq. (3)
  # Means of the reference, as the network sees voxels. One mean is the paper's
  # reference; several are an even mixture; () is a mixture of two, the values
  # at which the network sees empty and full voxels.
  model.reference_means = (0.0,)
  # Multi-grid: sides of the grids, coarse first; the last is that of the data.
  model.grids = ()
  model.grid_networks = ()  # multi-grid: a name in DESCRIPTORS for each grid
  # Multi-grid: reference_std of each grid; (): the same for all.
  model.grid_reference_stds = ()
  # Multi-grid: how a shape becomes the start of the next finer grid: 'repeat',
  # whole blocks, or 'linear', interpolation.
  model.enlarge = 'repeat'

  # Cooperative learning and alternating back-propagation.
  config.generator = generator = ml_collections.ConfigDict()
  generator.network = 'medium'  # a name in dnet_jax.GENERATORS
  generator.latent_dim = 100  # length of z
  # Standard deviation of the noise that is added to the shapes that start the
  # chains.
  generator.noise_std = 0.0
  generator.init_std = 0.02  # standard deviation of the first weights
  generator.learning_rate = 0.0003  # in cooperative learning
  generator.b1 = 0.6  # b1 of Adam
  generator.b2 = 0.999  # b2 of Adam

  # Alternating back-propagation, section 5.0.1.
  config.back_propagation = back_propagation = ml_collections.ConfigDict()
  # Iterations of alternating back-propagation with which cooperative learning
  # begins, before its train.num_iterations. Alternating back-propagation alone
  # takes train.num_iterations.
  back_propagation.iterations = 0
  back_propagation.num_steps = 10  # steps of the chains of z in an iteration
  back_propagation.step_size = 0.01  # delta-tau of the chains of z
  back_propagation.noise_std = 4.0  # sigma of eq. (20)
  back_propagation.learning_rate = 0.001  # learning rate of the generator

  # A generator's regression on training shapes, with z around where they lie
  # along principal components. Needs components.number, at most
  # generator.latent_dim.
  config.regression = regression = ml_collections.ConfigDict()
  # Iterations with which cooperative learning begins, before those of
  # alternating back-propagation; 0: none.
  regression.iterations = 0
  regression.correlation = 0.85  # of z with the coordinates of its shape
  # Learning rate of the generator at the beginning; it falls by a cosine.
  regression.learning_rate = 0.001

  # The evaluation classifier.
  config.classifier = classifier = ml_collections.ConfigDict()
  classifier.network = 'convnet'  # a name in dnet_jax.CLASSIFIERS
  classifier.members = 1  # networks of the ensemble
  classifier.dropout = 0.5  # share of hidden units dropped in learning
  # Share of a category's probability that is spread over all categories in
  # learning; the probabilities that the classifier gives are corrected for it.
  classifier.label_smoothing = 0.0
  classifier.weight_decay = 0.0  # weight decay of AdamW; 0: Adam
  # Share of a mini-batch that is replaced by grids that are not shapes, as one
  # more class, 'none'; 0: there is no such class.
  classifier.negative_share = 0.0

  # Recovery: what is hidden in learning.
  config.corruption = corruption = ml_collections.ConfigDict()
  # random_voxels, random_box, half_space, one_view (hides what a camera on one
  # side does not see), or 'mixture': one of these at random.
  corruption.kind = 'random_voxels'
  # Share of the voxels that is hidden; for 'mixture', that of random_voxels.
  corruption.fraction = 0.7
  # True: visible voxels are held at every step; False: they move, and are put
  # back at the end.
  corruption.hold = True
  # Standard deviation, in voxels, of the Gaussian average of visible voxels at
  # which hidden ones begin; 0: they begin at the mean of all visible voxels.
  corruption.fill_std = 0.0
  # Hidden voxels begin at what the principal components of other training
  # shapes predict from the visible ones, plus a local average of what these do
  # not explain. This is the standard deviation of a voxel around the
  # prediction; 0: no components. Needs components.number.
  corruption.components_std = 0.0
  # The density is multiplied by a Gaussian around the values at which hidden
  # voxels begin. This is its standard deviation, as the network sees voxels; 0:
  # no Gaussian.
  corruption.anchor_std = 0.0

  # The chains in learning.
  config.chains = chains = ml_collections.ConfigDict()
  chains.kernel = 'langevin'  # eq. (7); or mala
  chains.num_chains = 25  # chains that are moved in an iteration
  # How many chains, and how many shapes, a device works on at a time. A small
  # number needs less memory and gives the same result; 0: all. Not for a
  # generator.
  chains.at_once = 0
  # Slots of the memory of chains: iteration t moves slot t % num_slots.
  chains.num_slots = 2
  chains.num_steps = 20  # Langevin steps in an iteration
  chains.step_size = 0.01  # delta-tau of eq. (7)
  chains.temperature = 1.0  # T of section 2.5
  # Multi-grid: a factor for each grid, by which `temperature` is multiplied.
  chains.grid_temperatures = ()
  # Iterations with noise; afterwards the temperature is 0. -1: noise in all.
  chains.noise_iterations = 100
  # Where chains begin and restart: 'noise', or 'components': draws in the
  # principal components of the data. Multi-grid: 'components', those of the
  # coarsest grid, or anything else: averages at 1^3.
  chains.start = 'noise'
  # Probability that a chain restarts in an iteration.
  chains.restart_probability = 0.04
  chains.settle_iterations = 50  # iterations without restarts, at the end
  chains.start_std = 0.3  # standard deviation of the noise where they begin
  # Start 'components': standard deviation of a draw around one shape or a blend
  # of two, in standard deviations of the data.
  chains.start_spread = 0.6

  # Principal components of the training shapes.
  config.components = components = ml_collections.ConfigDict()
  # How many the model keeps, at most a third of the number of training shapes
  # (recovery takes fewer where there are fewer shapes); 0: none.
  components.number = 0
  # Chains begin at two shapes, the second one of this many nearest ones of the
  # first; 0: any.
  components.neighbours = 0
  # At the first, stretched towards the bounding box of the second, which is one
  # of the nearest with another box; False: at a blend of both.
  components.stretched = False
  # Super-resolution: side of the blocks whose averages have the components. On
  # a coarser grid they take less memory.
  components.block = 1
  # Recovery and super-resolution learn from this share of the training shapes,
  # and begin at components of the rest: components of the same shapes would
  # know too much about them. The model keeps components of all shapes.
  components.share = 0.5

  # Adam, of the descriptor or the classifier.
  config.optimizer = optimizer = ml_collections.ConfigDict()
  optimizer.learning_rate = 0.001  # at the beginning; it falls later
  optimizer.b1 = 0.5  # b1 of Adam
  optimizer.b2 = 0.999  # b2 of Adam
  optimizer.clip_norm = 50.0  # largest norm of the gradient; 0: no clipping
  # Iterations with a constant rate; then it falls by a cosine until the end of
  # the run.
  optimizer.constant_iterations = 150
  optimizer.final_fraction = 0.05  # share of the rate that is left at the end

  config.train = train = ml_collections.ConfigDict()
  # Iterations of the run; a larger number continues a finished run.
  train.num_iterations = 500
  # A workdir or saved model to start from; or several, with commas between
  # them, such as one with a descriptor and one with a generator.
  train.init_from = ''
  train.checkpoint_every = 25  # iterations between them; 0: only at the end
  train.keep_checkpoints = 2  # how many to keep, the newest ones
  train.picture_every = 50  # iterations between them; 0: only at the end
  train.picture_shapes = 10  # shapes in a picture
  # Iterations between two versions of page.html, a report for a browser of the
  # run so far; 0: no page.
  train.page_every = 0

  # A run beyond one of these limits has diverged: it goes back to its last
  # checkpoint and continues with other random numbers.
  config.limits = limits = ml_collections.ConfigDict()
  limits.energy_gap = 1e6  # |V| of eq. (14), above which a run has diverged
  limits.grad_norm = 1e6  # likewise, the norm of the descriptor's gradient
  limits.chain_max = 100.0  # likewise, the largest absolute voxel of a chain
  limits.generator_grad_norm = 1e6  # likewise, the norm of the generator's
  limits.rollbacks = 5  # how many in a row before the run stops
  # Each rollback from the second one in a row on multiplies the learning rate
  # by this.
  limits.rate_factor = 0.3

  # How a model makes new shapes.
  config.sample = sample = ml_collections.ConfigDict()
  # Where chains begin: 'noise'; 'chains': persistent chains; 'components':
  # draws in the principal components of the data; 'generator': shapes of a
  # generator; 'grids': multi-grid, averages at 1^3. In multi-grid num_steps is
  # the number of steps on each grid, and temperature multiplies that of
  # learning.
  sample.start = 'noise'
  # How many shapes to make; also the most that are read from --input.
  sample.num_samples = 25
  sample.num_steps = 200  # Langevin steps of each chain
  # How many of these steps, from the first one on, are at `temperature`; the
  # others are at 0.
  sample.noise_steps = 100
  sample.temperature = 1.0  # T of the first noise_steps
  sample.step_size = 0.0  # delta-tau; 0: that of the chains in learning
  sample.start_std = 0.0  # noise at the start; 0: chains.start_std
  sample.start_spread = 0.0  # of start 'components'; 0: chains.start_spread
  # Further steps after these, at T = 0 with a reference of refinement_std, to
  # bring voxels near empty or full.
  sample.refinement_steps = 0
  sample.refinement_std = 0.2  # s of eq. (3), in the refinement steps
  # The formats in which all modes write shapes: obj, ply, stl, glb, off;
  # binvox, vox, npy, mat; or several, separated by commas; '': none.
  sample.mesh_format = 'obj'
  sample.seed = 0  # seed of the random numbers

  # How it fills hidden voxels.
  config.recover = recover = ml_collections.ConfigDict()
  recover.num_steps = 60  # Langevin steps of each chain
  recover.noise_steps = 0  # as sample.noise_steps
  recover.temperature = 1.0  # T of the first noise_steps
  recover.step_size = 0.1  # delta-tau; 0: that of the chains in learning
  recover.refinement_steps = 0  # as sample.refinement_steps
  recover.refinement_std = 0.2  # as sample.refinement_std

  # With 1 each seed gives another completion, with 0 the one that is expected.
  recover.completion_spread = 0.0

  # How it adds details.
  config.super_resolve = super_resolve = ml_collections.ConfigDict()
  super_resolve.num_steps = 60  # Langevin steps of each chain
  super_resolve.noise_steps = 0  # as sample.noise_steps
  super_resolve.temperature = 1.0  # T of the first noise_steps
  super_resolve.step_size = 0.1  # delta-tau; 0: that of the chains in learning
  # Chains begin at what the principal components of other training shapes
  # predict from the averages. This is the standard deviation of an average
  # around the prediction; 0: chains begin at blocks of one value. Needs
  # components.number.
  super_resolve.components_std = 0.0
  super_resolve.anchor_std = 0.0  # as corruption.anchor_std
  super_resolve.refinement_steps = 0  # as sample.refinement_steps
  super_resolve.refinement_std = 0.2  # as sample.refinement_std
  # After all of these, voxels become empty or full: steps that blur and fill
  # each block with as many voxels as its average says; 0: none.
  super_resolve.sharpening_steps = 0
  super_resolve.sharpening_std = 1.0  # of the blur, in voxels

  # The latent space of a generator.
  config.latent = latent = ml_collections.ConfigDict()
  latent.num_rows = 5  # rows of the modes interpolate and arithmetic
  latent.num_columns = 8  # columns of the mode interpolate
  latent.search = 200  # shapes among which arithmetic looks for examples
  # The examples of arithmetic, a, b, c, a, b, c, ..., as the numbers of such
  # shapes; (): the best ones that it finds.
  latent.examples = ()
  # r of draws of z near the codes of training shapes; 0: draws of the prior.
  latent.correlation = 0.0
  latent.num_starts = 4  # chains by which z of a shape is inferred
  latent.num_steps = 200  # of these chains, half of them with noise
  latent.step_size = 0.01  # delta-tau of these chains
  latent.noise_std = 4.0  # sigma of eq. (20), for these chains
  latent.num_reconstructed = 20  # test shapes that evaluate reconstructs

  config.evaluate = evaluate = ml_collections.ConfigDict()
  evaluate.num_shapes = 100  # largest size of the sets that are compared
  # How many sets of fresh, generated or training shapes are drawn; scores are
  # means over them.
  evaluate.draws = 5
  # Langevin steps of a further row of fresh shapes; 0: no such row.
  evaluate.more_steps = 0
  evaluate.more_draws = 2  # of `draws`, in that row: it takes longer
  evaluate.seed = 0  # seed of the first draw; the others take the next numbers
  evaluate.splits = 10  # splits of the inception score
  evaluate.classifier = ''  # a workdir or saved model; '': none
  evaluate.kinds = ()  # recovery: kinds of corruption that are scored too
  # How many completions of each shape are compared for each of these kinds,
  # with recover.completion_spread = 1.
  evaluate.completions = 0
  # A workdir or saved model, '' for none. Multi-grid is compared with its fresh
  # chains, from noise at temperature 0; recovery with its generator, of which
  # latent factors are inferred from the visible voxels.
  evaluate.baseline = ''
  evaluate.baseline_steps = 200  # Langevin steps of the baseline's chains

  # The mode `probe`: logistic regression on features, Table 5.
  config.probe = probe = ml_collections.ConfigDict()
  probe.windows = (4, 2)  # windows of the max pooling, one for each layer
  probe.more_windows = ()  # likewise, for a further row; (): no such row
  probe.mirror = False  # True: further rows, pooled over mirror images
  probe.fractions = (0.01, 0.05, 0.1, 1.0)  # shares of the labels that are used
  probe.draws = 5  # draws of each share below 1

  return config
