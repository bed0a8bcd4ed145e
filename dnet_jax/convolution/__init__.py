"""Strided 3-D correlation: one operation, several exact methods.

Here: what a correlation is, how each method computes it, which one is chosen.
Not here: networks, energies, chains; nothing but `types` is imported.
"""

from dnet_jax.convolution.chunks import in_chunks
from dnet_jax.convolution.plans import METHODS
from dnet_jax.convolution.precision import of_lax
from dnet_jax.convolution.precision import PRECISIONS
from dnet_jax.convolution.public import chains_at_once
from dnet_jax.convolution.public import correlate
from dnet_jax.convolution.public import correlate_transpose

__all__ = [
  'METHODS',
  'PRECISIONS',
  'chains_at_once',
  'correlate',
  'correlate_transpose',
  'in_chunks',
  'of_lax',
]
