"""Training runs that tests stop, disturb and compare."""

import jax
import numpy as np
import pytest

from experiments import parallel
from experiments import train
from experiments.configs import test as test_config
from experiments.files import checkpoints
from experiments.files import logs

# Of each algorithm, what its smallest run overrides of configs/test.py.
_GENERATOR = {
  'task': 'cooperative',
  'data.scaling': 'symmetric',
  'generator.network': 'tiny',
  'generator.latent_dim': 4,
  'generator.init_std': 0.3,  # Shapes that differ, without learning.
}
KINDS = {
  'maximum_likelihood': {},
  'contrastive_divergence': {'algorithm': 'contrastive_divergence'},
  'persistent_contrastive_divergence': {
    'algorithm': 'persistent_contrastive_divergence'
  },
  'recovery': {'task': 'recovery', 'algorithm': ''},
  'super_resolution': {
    'task': 'super_resolution',
    'algorithm': '',
    'factor': 2,
  },
  'multi_grid': {
    'task': 'multi_grid',
    'algorithm': '',
    'model.grids': (2, 8),
    'model.grid_networks': ('tiny', 'tiny'),
    'chains.grid_temperatures': (0.1, 0.0),
    'chains.noise_iterations': -1,
    'sample.start': 'grids',
  },
  'alternating_back_propagation': _GENERATOR
  | {'algorithm': 'alternating_back_propagation'},
  'cooperative': _GENERATOR | {'algorithm': 'cooperative'},
  'two_phases': _GENERATOR
  | {'algorithm': 'cooperative', 'back_propagation.iterations': 2},
  'evaluation_classifier': {
    'task': 'evaluation_classifier',
    'algorithm': '',
    'data.category': 'all',
    'data.batch_size': 12,
    'classifier.network': 'tiny',
    'classifier.negative_share': 0.2,
  },
}


def config(kind='maximum_likelihood', **overrides):
  """The config of one of `KINDS`, without pictures but at the end."""
  made = test_config.get_config()
  made.train.picture_every = 1000
  made.update_from_flattened_dict(KINDS[kind] | overrides)
  return made


def assert_equal(a, b):
  """Two trees, to the bit."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_same(a, b):
  """Two workdirs whose last checkpoints and metrics are the same to the bit."""
  for first, second in zip(
    checkpoints.read(a), checkpoints.read(b), strict=True
  ):
    if isinstance(first, dict) and 'made' in first:
      # Of when and where.
      first, second = dict(first, made=None), dict(second, made=None)
      assert first == second
    else:
      assert_equal(first, second)
  assert metrics(a) == metrics(b)


def metrics(workdir):
  """What a run has measured, but for the time."""
  rows = logs.read_metrics(workdir)
  return [
    {name: x for name, x in row.items() if name != 'seconds_per_step'}
    for row in rows
  ]


def change_step(patch, change):
  """From here on the compiled step of each phase is `change` of it."""
  make = parallel.make

  def changed(mode, step, chain_axes):
    made = make(mode, step, chain_axes)
    return made._replace(step=change(made.step))

  patch.setattr(parallel, 'make', changed)


def stop(config, workdir, call):
  """Trains until the step is called this often; returns the last checkpoint."""
  calls = []

  def failing(step):
    def fail(*args):
      calls.append(1)
      if len(calls) == call:
        raise KeyboardInterrupt
      return step(*args)

    return fail

  with pytest.MonkeyPatch.context() as patch:
    change_step(patch, failing)
    with pytest.raises(KeyboardInterrupt):
      train.train(config, workdir)
  return checkpoints.steps(workdir)[-1]
