"""Networks in Flax Linen: descriptor, generator and classifier, with settings.

Only this package imports Flax. Not here: energies, losses, chains, and how a
convolution is computed.
"""

from dnet_jax.networks.classifier import Classifier
from dnet_jax.networks.classifier import classifier_fn
from dnet_jax.networks.classifier import Ensemble
from dnet_jax.networks.descriptor import Descriptor
from dnet_jax.networks.generator import Generator
from dnet_jax.networks.generator import generator_fn
from dnet_jax.networks.layers import Conv
from dnet_jax.networks.layers import ConvTranspose
from dnet_jax.networks.sizes import CLASSIFIERS
from dnet_jax.networks.sizes import DESCRIPTORS
from dnet_jax.networks.sizes import GENERATORS

__all__ = [
  'CLASSIFIERS',
  'DESCRIPTORS',
  'GENERATORS',
  'Classifier',
  'Conv',
  'ConvTranspose',
  'Descriptor',
  'Ensemble',
  'Generator',
  'classifier_fn',
  'generator_fn',
]
