"""dnet_jax: 3D DescriptorNets, energy-based models of voxel shapes, in JAX."""

from dnet_jax import algorithms
from dnet_jax import chains
from dnet_jax import convolution
from dnet_jax import corruptions
from dnet_jax import energy
from dnet_jax import features
from dnet_jax import grids
from dnet_jax import kernels
from dnet_jax import learning
from dnet_jax import metrics
from dnet_jax import networks
from dnet_jax import projections
from dnet_jax import sampling
from dnet_jax import types
from dnet_jax.algorithms import Algorithm
from dnet_jax.algorithms import alternating_back_propagation
from dnet_jax.algorithms import classification
from dnet_jax.algorithms import contrastive_divergence
from dnet_jax.algorithms import cooperative
from dnet_jax.algorithms import maximum_likelihood
from dnet_jax.algorithms import multi_grid
from dnet_jax.algorithms import recovery
from dnet_jax.algorithms import sample_grids
from dnet_jax.algorithms import super_resolution
from dnet_jax.chains import chain_keys
from dnet_jax.chains import ChainMemory
from dnet_jax.chains import from_coarse
from dnet_jax.chains import from_corrupted
from dnet_jax.chains import from_data
from dnet_jax.chains import from_low_resolution
from dnet_jax.chains import from_noise
from dnet_jax.chains import read_chains
from dnet_jax.chains import recovery_start
from dnet_jax.chains import restart_chains
from dnet_jax.chains import run_chains
from dnet_jax.chains import Start
from dnet_jax.chains import write_chains
from dnet_jax.convolution import correlate
from dnet_jax.convolution import correlate_transpose
from dnet_jax.corruptions import half_space
from dnet_jax.corruptions import random_box
from dnet_jax.corruptions import random_voxels
from dnet_jax.energy import descriptor_energy
from dnet_jax.energy import posterior_energy
from dnet_jax.energy import score
from dnet_jax.features import pooled_features
from dnet_jax.grids import downscale
from dnet_jax.grids import pyramid
from dnet_jax.grids import upscale
from dnet_jax.kernels import Kernel
from dnet_jax.kernels import langevin
from dnet_jax.kernels import mala
from dnet_jax.learning import analysis_by_synthesis
from dnet_jax.learning import classification_loss
from dnet_jax.learning import contrastive_loss
from dnet_jax.learning import Learner
from dnet_jax.learning import LearnerState
from dnet_jax.learning import make_learner
from dnet_jax.learning import teaching_loss
from dnet_jax.learning import unsmoothed
from dnet_jax.networks import Classifier
from dnet_jax.networks import classifier_fn
from dnet_jax.networks import CLASSIFIERS
from dnet_jax.networks import Descriptor
from dnet_jax.networks import DESCRIPTORS
from dnet_jax.networks import Ensemble
from dnet_jax.networks import Generator
from dnet_jax.networks import generator_fn
from dnet_jax.networks import GENERATORS
from dnet_jax.projections import fixed_average
from dnet_jax.projections import fixed_voxels
from dnet_jax.projections import free
from dnet_jax.sampling import sample
from dnet_jax.version import __version__

# The public names, for type checkers too: a test compares the two lists.
__all__ = [
  'CLASSIFIERS',
  'DESCRIPTORS',
  'GENERATORS',
  'Algorithm',
  'ChainMemory',
  'Classifier',
  'Descriptor',
  'Ensemble',
  'Generator',
  'Kernel',
  'Learner',
  'LearnerState',
  'Start',
  '__version__',
  'algorithms',
  'alternating_back_propagation',
  'analysis_by_synthesis',
  'chain_keys',
  'chains',
  'classification',
  'classification_loss',
  'classifier_fn',
  'contrastive_divergence',
  'contrastive_loss',
  'convolution',
  'cooperative',
  'correlate',
  'correlate_transpose',
  'corruptions',
  'descriptor_energy',
  'downscale',
  'energy',
  'features',
  'fixed_average',
  'fixed_voxels',
  'free',
  'from_coarse',
  'from_corrupted',
  'from_data',
  'from_low_resolution',
  'from_noise',
  'generator_fn',
  'grids',
  'half_space',
  'kernels',
  'langevin',
  'learning',
  'make_learner',
  'mala',
  'maximum_likelihood',
  'metrics',
  'multi_grid',
  'networks',
  'pooled_features',
  'posterior_energy',
  'projections',
  'pyramid',
  'random_box',
  'random_voxels',
  'read_chains',
  'recovery',
  'recovery_start',
  'restart_chains',
  'run_chains',
  'sample',
  'sample_grids',
  'sampling',
  'score',
  'super_resolution',
  'teaching_loss',
  'types',
  'unsmoothed',
  'upscale',
  'write_chains',
]
