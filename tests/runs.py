"""Training runs that tests stop, disturb and compare."""

import jax
import numpy as np
import pytest

from experiments import build
from experiments import train
from experiments.files import checkpoints


def assert_equal(a, b):
  """Two states, to the bit."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def change_step(patch, config, change):
  """From here on the step of experiments is `change` of that of `config`."""
  experiment = build.experiment(config)
  step = change(experiment.parallel.step)
  changed = experiment._replace(
    parallel=experiment.parallel._replace(step=step)
  )
  patch.setattr(build, 'experiment', lambda config: changed)


def stop(config, workdir, call):
  """Trains until the step is called this often; returns the last checkpoint."""

  def failing(step):
    calls = []

    def fail(*args):
      calls.append(1)
      if len(calls) == call:
        raise KeyboardInterrupt
      return step(*args)

    return fail

  with pytest.MonkeyPatch.context() as patch:
    change_step(patch, config, failing)
    with pytest.raises(KeyboardInterrupt):
      train.train(config, workdir)
  return checkpoints.steps(workdir)[-1]
