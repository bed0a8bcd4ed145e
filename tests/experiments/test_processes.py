"""One run in several processes is the run of one, for all algorithms.

The file runs itself in two processes of two devices and in four of one: each
time once, for what takes the time is to start JAX and to compile.
"""

import os
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import command
from experiments import processes
from experiments import train
from experiments.files import checkpoints
from experiments.files import logs
from tests import processes as several
from tests import runs

pytestmark = pytest.mark.slow
# Number of processes, devices of each.
LAYOUTS = {'four': (4, 1), 'two': (2, 2)}
# Restarts and a memory of two slots are in `maximum_likelihood`; batch
# statistics, of a generator and of a classifier, in the last two.
KINDS = {
  'maximum_likelihood': {'chains.restart_probability': 0.5},
  'persistent_contrastive_divergence': {},
  'super_resolution': {},
  'recovery': {},
  'multi_grid': {},
  'two_phases': {},
  # The masks of devices differ, by design.
  'evaluation_classifier': {'classifier.dropout': 0.0},
}
# Adam makes a whole step of a gradient that is nothing but rounding, as those
# of a bias before batch normalisation and of the last one are. So steps are
# small, and above all gradients are compared, whose means Adam keeps.
RULES = {
  'train.num_iterations': 4,
  'optimizer.learning_rate': 1e-6,
  'optimizer.constant_iterations': 10,
  'generator.learning_rate': 1e-6,
  'back_propagation.learning_rate': 1e-6,
}


def config(kind, **overrides):
  return runs.config(kind, **RULES | KINDS[kind] | overrides)


def poisoned(patch):
  """The third step of a run diverges, in all processes."""
  calls = []

  def change(step):
    def diverging(*args):
      state, metrics = step(*args)
      calls.append(1)
      if len(calls) == 3:
        metrics = metrics | {'grad_norm': jnp.inf}
      return state, metrics

    return diverging

  runs.change_step(patch, change)


def learn_all(folder):
  """All that is compared, in this process or with others."""
  for kind in KINDS:
    train.train(config(kind), str(folder / kind))
  with pytest.MonkeyPatch.context() as patch:
    poisoned(patch)
    train.train(config('recovery'), str(folder / 'rolled_back'))
  # Stopped between two checkpoints, and taken up again.
  kind = 'maximum_likelihood'
  assert runs.stop(config(kind), str(folder / 'stopped'), call=4) == 2
  train.train(config(kind), str(folder / 'stopped'))
  # From where another layout has left it.
  for left in sorted(folder.glob('left_*')):
    train.train(config(kind), str(left))


def leave_half(folder, target):
  """A run of another layout, without its last checkpoint."""
  workdir = target / f'left_{folder.name}'
  shutil.copytree(folder / 'maximum_likelihood', workdir)
  shutil.rmtree(workdir / 'checkpoints' / '00000004')
  assert checkpoints.steps(workdir)[-1] == 2


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  folder = tmp_path_factory.mktemp('processes')
  for name in ('one', 'two', 'four'):
    (folder / name).mkdir()
  several.run(4, __file__, str(folder / 'four'))
  leave_half(folder / 'four', folder / 'two')
  leave_half(folder / 'four', folder / 'one')
  several.run(2, __file__, str(folder / 'two'), devices_each=2)
  leave_half(folder / 'two', folder / 'one')
  assert jax.device_count() == 1
  learn_all(folder / 'one')
  return folder


def assert_close(one, other):
  """Two last checkpoints, to float32 rounding."""
  a, b = (checkpoints.read(folder)[2] for folder in (one, other))
  assert a.keys() == b.keys()
  means = [name for name in a if '/opt_state/' in name and '/mu/' in name]
  assert means
  for name, x in a.items():
    y, x = np.asarray(b[name], np.float64), np.asarray(x, np.float64)
    scale = max(np.abs(x).max(initial=0.0), 1.0)
    if name in means:
      # Of all gradients of the network; none is 1.
      network = name.partition('/opt_state/')[0]
      scale = max(
        np.abs(a[other]).max() for other in means if other.startswith(network)
      )
      assert scale > 0, name
    np.testing.assert_allclose(y, x, atol=5e-5 * scale, err_msg=name)


def assert_run_of_one(results, layout, kind):
  one, other = (results / name / kind for name in ('one', layout))
  assert_close(one, other)
  one, other = runs.metrics(one), runs.metrics(other)
  assert [row['step'] for row in other] == [row['step'] for row in one]


def assert_resumed(results, left, resumed):
  workdir = results / resumed / f'left_{left}'
  assert checkpoints.steps(workdir)[-1] == 4
  assert_close(results / 'one' / 'maximum_likelihood', workdir)


def assert_one_writes(results, layout):
  workdir = results / layout / 'rolled_back'
  kinds = [event['kind'] for event in logs.read_events(workdir)]
  assert kinds == ['start', 'divergence', 'rollback']
  assert len(os.listdir(workdir / 'tensorboard')) == 2


def test_several_processes_give_the_run_of_one(results):
  """One test, since each worker would make `results`, which takes minutes."""
  for layout in LAYOUTS:
    for kind in (*KINDS, 'rolled_back'):
      assert_run_of_one(results, layout, kind)
    assert_one_writes(results, layout)
  # A run that is resumed is the run, to the bit.
  for layout in ('one', *LAYOUTS):
    folder = results / layout
    runs.assert_same(folder / 'maximum_likelihood', folder / 'stopped')
  # Any number of processes resumes any other.
  for left, resumed in (('four', 'two'), ('four', 'one'), ('two', 'one')):
    assert_resumed(results, left, resumed)
  assert_own_chains_only(results)


def assert_own_chains_only(results):
  """A process holds its own chains."""
  # What each has seen of the model at the end.
  for layout, (number, _) in LAYOUTS.items():
    for process in range(number):
      seen = np.load(results / layout / f'chains_{process}.npy')
      leaves = checkpoints.read(results / layout / 'maximum_likelihood')[2]
      whole = leaves['state/memory/positions']
      slots, chains = whole.shape[:2]
      each = chains // number
      own = whole[:, process * each : (process + 1) * each]
      np.testing.assert_array_equal(seen, own.reshape(-1, *whole.shape[2:]))
      assert len(seen) == slots * each


def _main(arguments):
  typed = command.parse(['train', *arguments[1:]], ['train'])
  membership = processes.join(*command.processes(typed))
  folder = pathlib.Path(arguments[0])
  learn_all(folder)
  model = train.train(
    config('maximum_likelihood'), str(folder / 'maximum_likelihood')
  )
  np.save(folder / f'chains_{jax.process_index()}', model.extras['chains'])
  processes.leave(membership)


if __name__ == '__main__':
  _main(sys.argv[1:])
