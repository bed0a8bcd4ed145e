"""Functions are compiled once, and not once a call."""

import collections
import dataclasses
import functools
import logging

import jax
import numpy as np
import pytest

from experiments import evaluate
from experiments.tasks import recovery
from experiments.tasks import synthesis
from tests.experiments import tiny


class _Count(logging.Handler):
  """Counts what JAX says that it compiles, by function and shapes."""

  def __init__(self):
    super().__init__()
    self.found = collections.Counter()

  def emit(self, record):
    text = record.getMessage()
    if text.startswith('Compiling '):
      self.found[text] += 1


@pytest.fixture
def compiled():
  """A counter of compilations, from an empty cache on."""
  jax.clear_caches()
  handler, logger = _Count(), logging.getLogger('jax._src.interpreters.pxla')
  before, propagates = logger.level, logger.propagate
  logger.addHandler(handler)
  logger.setLevel(logging.DEBUG)
  logger.propagate = False
  yield handler.found
  logger.removeHandler(handler)
  logger.setLevel(before)
  logger.propagate = propagates


# Beside single operations, which compile once for each of their parameters.
_OURS = (
  '_synthesize',
  '_recover',
  '_corrupted',
  '_decode',
  '_infer',
  'scan',
  'iou',
  'chamfer_distances',
  'jensen_shannon_divergence',
)


def _twice(compiled):
  return {
    text: n
    for text, n in compiled.items()
    if n > 1 and text.startswith(tuple(f'Compiling jit({f})' for f in _OURS))
  }


def _calls_of(compiled, name):
  return [text for text in compiled if f'jit({name})' in text]


@pytest.mark.slow
def test_the_counter_sees_a_function_that_is_made_anew(compiled):
  # Negative control: as many functions as calls.
  def scan(x):
    return x + 1

  for _ in range(2):
    jax.jit(functools.partial(scan))(np.ones(3))
  assert len(_twice(compiled)) == 1


def test_sampling_twice_compiles_once(workdir_of, compiled):
  request = tiny.request(workdir_of('synthesis'))
  synthesis.sample(request)
  assert len(_calls_of(compiled, '_synthesize')) == 1
  count = sum(compiled.values())
  synthesis.sample(request)
  assert sum(compiled.values()) == count
  # Nor for another model of the same networks.
  model = dataclasses.replace(
    request.model, extras=request.model.extras | {'mean': np.float32(0.3)}
  )
  synthesis.sample(request._replace(model=model))
  assert sum(compiled.values()) == count


def test_recovering_120_shapes_in_batches_compiles_once(workdir_of, compiled):
  model = tiny.request(workdir_of('recovery')).model
  rng = np.random.default_rng(0)
  voxels = (rng.random((120, 8, 8, 8)) < 0.5).astype(np.float32)
  for seed in (0, 1):
    visible = recovery.corrupted(
      tiny.recovery(), np.zeros((120, 8, 8, 8)), seed
    )
    recovery.recover_voxels(model, voxels, visible, seed)
  assert len(_calls_of(compiled, '_recover')) == 1
  assert len(_calls_of(compiled, '_corrupted')) == 1
  assert not _twice(compiled)


@pytest.mark.slow
def test_evaluating_a_generator_compiles_nothing_twice(workdir_of, compiled):
  request = tiny.request(workdir_of('cooperative'))
  evaluate.evaluate(request)
  assert _calls_of(compiled, '_decode')
  assert not _twice(compiled)
  count = sum(compiled.values())
  evaluate.evaluate(request)
  assert sum(compiled.values()) == count
