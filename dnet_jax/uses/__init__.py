"""Uses: what a model can do, as pure functions of a key, a model and arrays.

Everything here works inside `jit` with the model as an argument, and from
voxels to voxels. No files, no learning, and no chain loop of its own.
"""

from dnet_jax.uses.base import descriptor
from dnet_jax.uses.base import energy_fn
from dnet_jax.uses.base import from_network
from dnet_jax.uses.base import to_network
from dnet_jax.uses.conditioned import recover
from dnet_jax.uses.conditioned import super_resolve
from dnet_jax.uses.latent import decode
from dnet_jax.uses.latent import draw_latent
from dnet_jax.uses.latent import generate
from dnet_jax.uses.latent import infer_latent
from dnet_jax.uses.latent import interpolate
from dnet_jax.uses.latent import reconstruct
from dnet_jax.uses.perception import Classes
from dnet_jax.uses.perception import classify_shapes
from dnet_jax.uses.perception import feature_maps
from dnet_jax.uses.perception import pooled_features
from dnet_jax.uses.synthesis import synthesize

__all__ = [
  'Classes',
  'classify_shapes',
  'decode',
  'descriptor',
  'draw_latent',
  'energy_fn',
  'feature_maps',
  'from_network',
  'generate',
  'infer_latent',
  'interpolate',
  'pooled_features',
  'reconstruct',
  'recover',
  'super_resolve',
  'synthesize',
  'to_network',
]
