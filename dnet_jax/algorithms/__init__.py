"""Algorithms: compositions of starts, energies, kernels and learners.

One file for each algorithm of the paper; `base` has what they share. No loop
over chain steps, no optimiser and no network lives here.
"""

from dnet_jax.algorithms.back_propagation import alternating_back_propagation
from dnet_jax.algorithms.base import Algorithm
from dnet_jax.algorithms.base import analysis_by_synthesis
from dnet_jax.algorithms.base import begin_at
from dnet_jax.algorithms.base import Schedule
from dnet_jax.algorithms.base import State
from dnet_jax.algorithms.base import variables
from dnet_jax.algorithms.conditional import recovery
from dnet_jax.algorithms.conditional import super_resolution
from dnet_jax.algorithms.cooperation import cooperative
from dnet_jax.algorithms.divergence import contrastive_divergence
from dnet_jax.algorithms.likelihood import maximum_likelihood
from dnet_jax.algorithms.multigrid import grid_name
from dnet_jax.algorithms.multigrid import multi_grid
from dnet_jax.algorithms.multigrid import sample_grids
from dnet_jax.algorithms.supervised import classification
from dnet_jax.algorithms.supervised import regression

__all__ = [
  'Algorithm',
  'Schedule',
  'State',
  'alternating_back_propagation',
  'analysis_by_synthesis',
  'begin_at',
  'classification',
  'contrastive_divergence',
  'cooperative',
  'grid_name',
  'maximum_likelihood',
  'multi_grid',
  'recovery',
  'regression',
  'sample_grids',
  'super_resolution',
  'variables',
]
