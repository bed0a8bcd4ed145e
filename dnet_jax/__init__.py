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
from dnet_jax import models
from dnet_jax import networks
from dnet_jax import parts
from dnet_jax import pca
from dnet_jax import projections
from dnet_jax import sampling
from dnet_jax import specs
from dnet_jax import starts
from dnet_jax import types
from dnet_jax import uses
from dnet_jax.algorithms import Algorithm
from dnet_jax.algorithms import alternating_back_propagation
from dnet_jax.algorithms import analysis_by_synthesis
from dnet_jax.algorithms import begin_at
from dnet_jax.algorithms import classification
from dnet_jax.algorithms import contrastive_divergence
from dnet_jax.algorithms import cooperative
from dnet_jax.algorithms import maximum_likelihood
from dnet_jax.algorithms import multi_grid
from dnet_jax.algorithms import recovery
from dnet_jax.algorithms import regression
from dnet_jax.algorithms import sample_grids
from dnet_jax.algorithms import Schedule
from dnet_jax.algorithms import State
from dnet_jax.algorithms import super_resolution
from dnet_jax.chains import ChainMemory
from dnet_jax.chains import component_source
from dnet_jax.chains import make_sampler
from dnet_jax.chains import Memory
from dnet_jax.chains import noise_source
from dnet_jax.chains import persistent
from dnet_jax.chains import read_chains
from dnet_jax.chains import restart_chains
from dnet_jax.chains import run_chains
from dnet_jax.chains import Sampler
from dnet_jax.chains import Source
from dnet_jax.chains import write_chains
from dnet_jax.convolution import correlate
from dnet_jax.convolution import correlate_transpose
from dnet_jax.corruptions import half_space
from dnet_jax.corruptions import one_view
from dnet_jax.corruptions import random_box
from dnet_jax.corruptions import random_voxels
from dnet_jax.energy import anchored_energy
from dnet_jax.energy import descriptor_energy
from dnet_jax.energy import posterior_energy
from dnet_jax.energy import score
from dnet_jax.grids import downscale
from dnet_jax.grids import fill_blocks
from dnet_jax.grids import pyramid
from dnet_jax.grids import sharpen
from dnet_jax.grids import trilinear
from dnet_jax.grids import upscale
from dnet_jax.kernels import Kernel
from dnet_jax.kernels import langevin
from dnet_jax.kernels import mala
from dnet_jax.learning import classification_loss
from dnet_jax.learning import contrastive_loss
from dnet_jax.learning import Learner
from dnet_jax.learning import LearnerState
from dnet_jax.learning import make_learner
from dnet_jax.learning import teaching_loss
from dnet_jax.learning import unsmoothed
from dnet_jax.models import load
from dnet_jax.models import Model
from dnet_jax.models import save
from dnet_jax.networks import Classifier
from dnet_jax.networks import classifier_fn
from dnet_jax.networks import CLASSIFIERS
from dnet_jax.networks import Descriptor
from dnet_jax.networks import DESCRIPTORS
from dnet_jax.networks import Ensemble
from dnet_jax.networks import Generator
from dnet_jax.networks import generator_fn
from dnet_jax.networks import GENERATORS
from dnet_jax.pca import completed
from dnet_jax.pca import Components
from dnet_jax.pca import expected_details
from dnet_jax.pca import without_repeats
from dnet_jax.projections import fixed_average
from dnet_jax.projections import fixed_voxels
from dnet_jax.projections import free
from dnet_jax.sampling import sample
from dnet_jax.specs import Spec
from dnet_jax.specs import Use
from dnet_jax.starts import chain_keys
from dnet_jax.starts import from_coarse
from dnet_jax.starts import from_components
from dnet_jax.starts import from_corrupted
from dnet_jax.starts import from_data
from dnet_jax.starts import from_low_resolution
from dnet_jax.starts import from_noise
from dnet_jax.starts import recovery_start
from dnet_jax.starts import Start
from dnet_jax.uses import classify_shapes
from dnet_jax.uses import decode
from dnet_jax.uses import draw_latent
from dnet_jax.uses import generate
from dnet_jax.uses import infer_latent
from dnet_jax.uses import interpolate
from dnet_jax.uses import pooled_features
from dnet_jax.uses import reconstruct
from dnet_jax.uses import recover
from dnet_jax.uses import super_resolve
from dnet_jax.uses import synthesize
from dnet_jax.version import __version__

__all__ = [
  'CLASSIFIERS',
  'DESCRIPTORS',
  'GENERATORS',
  'Algorithm',
  'ChainMemory',
  'Classifier',
  'Components',
  'Descriptor',
  'Ensemble',
  'Generator',
  'Kernel',
  'Learner',
  'LearnerState',
  'Memory',
  'Model',
  'Sampler',
  'Schedule',
  'Source',
  'Spec',
  'Start',
  'State',
  'Use',
  '__version__',
  'algorithms',
  'alternating_back_propagation',
  'analysis_by_synthesis',
  'anchored_energy',
  'begin_at',
  'chain_keys',
  'chains',
  'classification',
  'classification_loss',
  'classifier_fn',
  'classify_shapes',
  'completed',
  'component_source',
  'contrastive_divergence',
  'contrastive_loss',
  'convolution',
  'cooperative',
  'correlate',
  'correlate_transpose',
  'corruptions',
  'decode',
  'descriptor_energy',
  'downscale',
  'draw_latent',
  'energy',
  'expected_details',
  'features',
  'fill_blocks',
  'fixed_average',
  'fixed_voxels',
  'free',
  'from_coarse',
  'from_components',
  'from_corrupted',
  'from_data',
  'from_low_resolution',
  'from_noise',
  'generate',
  'generator_fn',
  'grids',
  'half_space',
  'infer_latent',
  'interpolate',
  'kernels',
  'langevin',
  'learning',
  'load',
  'make_learner',
  'make_sampler',
  'mala',
  'maximum_likelihood',
  'metrics',
  'models',
  'multi_grid',
  'networks',
  'noise_source',
  'one_view',
  'parts',
  'pca',
  'persistent',
  'pooled_features',
  'posterior_energy',
  'projections',
  'pyramid',
  'random_box',
  'random_voxels',
  'read_chains',
  'reconstruct',
  'recover',
  'recovery',
  'recovery_start',
  'regression',
  'restart_chains',
  'run_chains',
  'sample',
  'sample_grids',
  'sampling',
  'save',
  'score',
  'sharpen',
  'specs',
  'starts',
  'super_resolution',
  'super_resolve',
  'synthesize',
  'teaching_loss',
  'trilinear',
  'types',
  'unsmoothed',
  'upscale',
  'uses',
  'without_repeats',
  'write_chains',
]
