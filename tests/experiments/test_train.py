"""The training loop end to end: resume, divergence, refusal, algorithms."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build
from experiments import train
from experiments.configs import test as test_config
from experiments.files import checkpoints
from experiments.files import logs
from tests import runs


def _config(**overrides):
  config = test_config.get_config()
  config.train.picture_every = 1000
  config.update_from_flattened_dict(overrides)
  return config


@pytest.mark.parametrize(
  'algorithm',
  [
    'maximum_likelihood',
    'contrastive_divergence',
    'persistent_contrastive_divergence',
  ],
)
@pytest.mark.parametrize('mode', ['shard_map', 'pmap'])
def test_each_algorithm_trains(tmp_path, algorithm, mode):
  config = _config(algorithm=algorithm, parallel=mode)
  config.train.num_iterations = 3
  state = train.train(config, str(tmp_path / 'run'))
  assert int(state.iteration) == 3
  rows = logs.read_metrics(tmp_path / 'run')
  assert [row['step'] for row in rows] == [0, 1, 2]
  start = build.experiment(config).init()
  moved = jax.tree.map(
    lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()),
    start.learner.params,
    state.learner.params,
  )
  # The last bias is in both terms of eq. (8), which cancel.
  moved['params']['last'].pop('bias')
  assert all(jax.tree.leaves(moved))


def test_persistent_cd_owns_its_shapes(tmp_path):
  config = _config(algorithm='persistent_contrastive_divergence')
  experiment = build.experiment(config)
  positions = experiment.init().memory.positions
  for slot in range(len(positions)):
    np.testing.assert_array_equal(positions[slot], experiment.batch(slot))
    # The next epoch brings the same mini-batch to the same slot.
    np.testing.assert_array_equal(
      experiment.batch(slot), experiment.batch(slot + len(positions))
    )


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run to its end: the workdir, which nothing may change, and the state."""
  workdir = tmp_path_factory.mktemp('run') / 'whole'
  return workdir, train.train(_config(), str(workdir))


def test_resume_is_the_run(tmp_path, whole):
  config = _config()
  # Iteration 5 of 6 fails, between two checkpoints.
  stopped = str(tmp_path / 'stopped')
  assert runs.stop(config, stopped, call=6) == 4
  runs.assert_equal(train.train(config, stopped), whole[1])
  a, b = (logs.read_metrics(folder) for folder in (whole[0], stopped))
  for x, y in zip(a, b, strict=True):
    x.pop('seconds_per_step', None)
    y.pop('seconds_per_step', None)
    assert x == y


def test_killed_at_any_moment(tmp_path):
  # SIGKILL at several moments, then once to the end: bit-identical.
  config = _config()
  config.train.num_iterations = 20
  config.train.checkpoint_every = 1
  whole = train.train(config, str(tmp_path / 'whole'))
  workdir = str(tmp_path / 'killed')
  command = [
    sys.executable,
    '-m',
    'experiments.main',
    '--config=experiments/configs/test.py',
    '--config.train.num_iterations=20',
    '--config.train.checkpoint_every=1',
    '--config.train.picture_every=1000',
    f'--workdir={workdir}',
  ]
  for wanted in (1, 4):
    process = subprocess.Popen(
      command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while (checkpoints.steps(workdir) or [0])[-1] < wanted:
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
  before = checkpoints.steps(workdir)[-1]
  assert before < 20
  state = train.train(config, workdir)
  runs.assert_equal(state, whole)
  kinds = [event['kind'] for event in logs.read_events(workdir)]
  assert kinds.count('start') == 1 and kinds.count('resume') == 2
  steps = [row['step'] for row in logs.read_metrics(workdir)]
  assert steps == list(range(20))


def test_other_config_is_refused_with_the_fields(whole):
  config = _config(**{'chains.step_size': 0.02})
  with pytest.raises(ValueError, match=r'chains\.step_size: 0\.01 -> 0\.02'):
    train.train(config, str(whole[0]))


def _poisoned(config, when, patch):
  """Chains are poisoned at some calls of the step."""

  def change(step):
    calls = []

    def poisoned(key, state, batch, temperature):
      state, metrics = step(key, state, batch, temperature)
      calls.append(1)
      if when(len(calls)):
        positions = state.memory.positions.at[0, 0, 0, 0, 0, 0].set(jnp.nan)
        memory = state.memory._replace(positions=positions)
        state = state._replace(memory=memory)
        metrics = metrics | {'chain_max': jnp.inf}
      return state, metrics

    return poisoned

  runs.change_step(patch, config, change)


def test_divergence_rolls_back(tmp_path, monkeypatch):
  config = _config()
  # Without noise and restarts, another key alone would change nothing.
  config.chains.noise_iterations = 0
  config.chains.restart_probability = 0.0
  workdir = str(tmp_path / 'run')
  _poisoned(config, lambda call: call == 4, monkeypatch)
  state = train.train(config, workdir)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
  assert int(state.iteration) == config.train.num_iterations
  events = {e['kind']: e for e in logs.read_events(workdir)}
  # Steps 0 to 3; the checkpoint before the poisoned one is that of step 2.
  assert events['divergence']['step'] == 3
  assert events['rollback']['step'] == 2
  steps = [row['step'] for row in logs.read_metrics(workdir)]
  assert steps == list(range(6))
  # Another order of shapes: the repeated step is not the first one again.
  monkeypatch.undo()
  clean = train.train(config, str(tmp_path / 'clean'))
  assert (clean.memory.positions != state.memory.positions).any()


def test_a_poisoned_chain_is_seen_by_the_next_step(tmp_path, monkeypatch):
  # Also where the metrics of its own step hide it.
  config = _config()
  config.chains.num_slots = 1
  config.chains.restart_probability = 0.0
  experiment = build.experiment(config)
  state = experiment.init()
  positions = state.memory.positions.at[0, 1, 2, 3, 4, 0].set(jnp.nan)
  state = state._replace(memory=state.memory._replace(positions=positions))
  _, metrics = experiment.parallel.step(
    jax.random.key(0),
    experiment.parallel.put(state),
    experiment.parallel.batch(experiment.batch(0)),
    np.float32(1.0),
  )
  assert not np.isfinite(float(metrics['chain_max']))
  assert not np.isfinite(float(metrics['energy_gap']))


def test_divergence_again_and_again_stops_and_says_what_to_do(
  tmp_path, monkeypatch
):
  config = _config(**{'limits.rollbacks': 2})
  _poisoned(config, lambda call: call >= 4, monkeypatch)
  with pytest.raises(train.DivergedError, match=r'optimizer\.learning_rate'):
    train.train(config, str(tmp_path / 'run'))
  assert checkpoints.steps(tmp_path / 'run')[-1] == 2


def test_limits_are_divergence(tmp_path):
  config = _config(**{'limits.chain_max': 1e-3, 'limits.rollbacks': 1})
  with pytest.raises(train.DivergedError, match=r'chain_max = .* beyond'):
    train.train(config, str(tmp_path / 'run'))


def test_unwritable_workdir(tmp_path):
  blocked = tmp_path / 'file'
  blocked.write_text('')
  with pytest.raises(OSError, match='file'):
    train.train(_config(), str(blocked / 'run'))


def test_a_second_run_in_the_same_workdir_is_refused(tmp_path, whole):
  workdir = shutil.copytree(whole[0], str(tmp_path / 'run'))
  files = [p for p in pathlib.Path(workdir).rglob('*') if p.is_file()]
  before = {path: path.read_bytes() for path in files}
  # Another process, which says when it holds the workdir.
  holder = subprocess.Popen(
    [
      sys.executable,
      '-c',
      'import sys, time\n'
      'from experiments.files import workdirs\n'
      f'with workdirs.only_writer({workdir!r}):\n'
      '  print("held", flush=True)\n'
      '  time.sleep(600)\n',
    ],
    stdout=subprocess.PIPE,
    text=True,
  )
  with holder:
    assert holder.stdout.readline() == 'held\n'
    with pytest.raises(OSError, match='another process is writing to workdir'):
      train.train(_config(), workdir)
    holder.kill()
  assert {path: path.read_bytes() for path in files} == before
  # However it ended.
  runs.assert_equal(train.train(_config(), workdir), whole[1])


def test_corrupt_latest_checkpoint_falls_back(tmp_path, whole):
  config = _config()
  workdir = shutil.copytree(whole[0], str(tmp_path / 'run'))
  newest = os.path.join(workdir, 'checkpoints', '00000006')
  with open(os.path.join(newest, 'manifest.json'), 'w') as file:
    file.write('{')
  runs.assert_equal(train.train(config, workdir), whole[1])
  kinds = [event['kind'] for event in logs.read_events(workdir)]
  assert 'corrupt_checkpoint' in kinds
  names = os.listdir(os.path.join(workdir, 'checkpoints'))
  assert any('corrupt' in name for name in names)


def test_config_on_disk_is_the_config(whole):
  with open(whole[0] / 'config.json') as file:
    saved = json.load(file)['chains']
  # JSON has no tuples.
  assert saved == json.loads(json.dumps(_config().chains.to_dict()))
