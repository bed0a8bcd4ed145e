"""The training loop end to end: resume, divergence, refusal, algorithms."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep import furniture
from data_prep import voxel_file
import dnet_jax
from experiments import parallel
from experiments import signals
from experiments import tasks
from experiments import train
from experiments.files import checkpoints
from experiments.files import logs
from experiments.files import models
from experiments.tasks import base
from experiments.tasks import parts
from tests import runs

_config = runs.config


def _experiment(config):
  return tasks.TASKS[config.task].experiment(config, parts.data(config))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The workdir of a run to its end, which nothing may change."""
  workdir = tmp_path_factory.mktemp('run') / 'whole'
  train.train(_config(), str(workdir))
  return workdir


def test_resume_is_the_run(tmp_path, whole):
  config = _config()
  # Iteration 5 of 6 fails, between two checkpoints.
  stopped = str(tmp_path / 'stopped')
  assert runs.stop(config, stopped, call=6) == 4
  train.train(config, stopped)
  runs.assert_same(whole, stopped)


@pytest.mark.parametrize('mode', parallel.MODES)
def test_a_run_compiles_one_step(tmp_path, monkeypatch, mode):
  # Also where it rolls back, and with other rates.
  traces, make = [], parallel.make

  def counting(mode, step, chain_axes):
    def counted(*args):
      traces.append(1)
      return step(*args)

    return make(mode, counted, chain_axes)

  monkeypatch.setattr(parallel, 'make', counting)
  _poisoned(lambda call: call in (2, 3, 5), monkeypatch)
  config = _config(**{'parallel': mode, 'train.num_iterations': 4})
  train.train(config, str(tmp_path / 'run'))
  assert len(traces) == 1
  kinds = [event['kind'] for event in logs.read_events(tmp_path / 'run')]
  assert kinds.count('rollback') == 3


def test_other_config_is_refused_with_the_fields(whole):
  config = _config(**{'chains.step_size': 0.02})
  with pytest.raises(ValueError, match=r'chains\.step_size: 0\.01 -> 0\.02'):
    train.train(config, str(whole))


def _poisoned(when, patch):
  """Chains are poisoned at some calls of the step."""
  calls = []

  def change(step):
    def poisoned(*args):
      state, metrics = step(*args)
      calls.append(1)
      if when(len(calls)):
        poison = jnp.nan * state.memory.positions
        state = state._replace(memory=state.memory._replace(positions=poison))
        metrics = metrics | {'chain_max': jnp.inf}
      return state, metrics

    return poisoned

  runs.change_step(patch, change)


def test_divergence_rolls_back(tmp_path, monkeypatch):
  config = _config()
  # Without noise and restarts, another key alone would change nothing.
  config.chains.noise_iterations = 0
  config.chains.restart_probability = 0.0
  workdir = str(tmp_path / 'run')
  _poisoned(lambda call: call == 4, monkeypatch)
  model = train.train(config, workdir)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(model))
  events = {e['kind']: e for e in logs.read_events(workdir)}
  # Steps 0 to 3; the checkpoint before the poisoned one is that of step 2.
  assert events['divergence']['step'] == 3
  assert events['rollback']['step'] == 2
  steps = [row['step'] for row in logs.read_metrics(workdir)]
  assert steps == list(range(6))
  # Another order of shapes: the repeated step is not the first one again.
  monkeypatch.undo()
  clean = train.train(config, str(tmp_path / 'clean'))
  assert (clean.extras['chains'] != model.extras['chains']).any()


def test_the_rate_is_lowered_after_the_second_rollback_in_a_row(
  tmp_path, monkeypatch
):
  rates = []

  def change(step):
    def told(key, state, batch, schedule):
      rates.append(float(schedule.rate_factor))
      state, metrics = step(key, state, batch, schedule)
      # Calls 3 to 5 are of step 2, three times in a row; 8 of step 5, once.
      if len(rates) in (3, 4, 5, 8):
        metrics = metrics | {'grad_norm': jnp.nan}
      if len(rates) == 9:
        raise KeyboardInterrupt
      return state, metrics

    return told

  config = _config(**{'limits.rate_factor': 0.5})
  workdir = str(tmp_path / 'run')
  runs.change_step(monkeypatch, change)
  with pytest.raises(KeyboardInterrupt):
    train.train(config, workdir)
  assert rates == [1, 1, 1, 1, 0.5, 0.25, 0.25, 0.25, 0.25]
  rollbacks = [
    (event['step'], event['rollbacks'], event['rate_factor'])
    for event in logs.read_events(workdir)
    if event['kind'] == 'rollback'
  ]
  assert rollbacks == [(2, 1, 1.0), (2, 2, 0.5), (2, 3, 0.25), (4, 4, 0.25)]
  # A run that is taken up again goes on with it.
  train.train(config, workdir)
  assert rates[9:] == [0.25] * 2
  told = checkpoints.read(workdir)[2]
  assert told['rate_factor'] == 0.25 and told['rollbacks'] == 3


def test_a_lower_rate_is_a_smaller_step():
  config = _config()
  experiment = _experiment(config)
  (phase,) = experiment.phases
  state = phase.algorithm.init(jax.random.key(0), experiment.params())
  devices = parallel.make('shard_map', base.step_of(phase), None)
  batch = devices.batch(phase.batch(0, 0))
  moved = []
  for factor in (1.0, 0.25):
    schedule = dnet_jax.Schedule(jnp.float32(0), jnp.float32(factor))
    first = jax.tree.map(jnp.copy, state)
    after, _ = devices.step(
      jax.random.key(1), devices.put(first), batch, schedule
    )
    before = state.learners['descriptor'].params
    moved.append(
      jax.tree.map(
        lambda a, b: np.asarray(a) - np.asarray(b),
        after.learners['descriptor'].params,
        before,
      )
    )
  for whole, part in zip(*map(jax.tree.leaves, moved), strict=True):
    np.testing.assert_allclose(part, whole / 4, atol=1e-8)


def test_a_poisoned_chain_is_seen_by_the_next_step(tmp_path, monkeypatch):
  # Also where the metrics of its own step hide it.
  config = _config()
  config.chains.num_slots = 1
  config.chains.restart_probability = 0.0
  experiment = _experiment(config)
  (phase,) = experiment.phases
  algorithm = phase.algorithm
  state = algorithm.init(jax.random.key(0), experiment.params())
  positions = state.memory.positions.at[0, 1, 2, 3, 4, 0].set(jnp.nan)
  state = state._replace(memory=state.memory._replace(positions=positions))
  step = base.step_of(phase)
  devices = parallel.make('shard_map', step, algorithm.chain_axes)
  _, metrics = devices.step(
    jax.random.key(0),
    devices.put(state),
    devices.batch(phase.batch(0, 0)),
    dnet_jax.Schedule(jnp.float32(1), jnp.float32(1)),
  )
  assert not np.isfinite(float(metrics['chain_max']))
  assert not np.isfinite(float(metrics['energy_gap']))


def test_divergence_again_and_again_stops_and_says_what_to_do(
  tmp_path, monkeypatch
):
  config = _config(**{'limits.rollbacks': 2})
  _poisoned(lambda call: call >= 4, monkeypatch)
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
  workdir = shutil.copytree(whole, str(tmp_path / 'run'))
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
  train.train(_config(), workdir)
  runs.assert_same(workdir, whole)


def test_corrupt_latest_checkpoint_falls_back(tmp_path, whole):
  config = _config()
  workdir = shutil.copytree(whole, str(tmp_path / 'run'))
  newest = os.path.join(workdir, 'checkpoints', '00000006')
  with open(os.path.join(newest, 'manifest.json'), 'w') as file:
    file.write('{')
  train.train(config, workdir)
  runs.assert_same(workdir, whole)
  kinds = [event['kind'] for event in logs.read_events(workdir)]
  assert 'corrupt_checkpoint' in kinds
  names = os.listdir(os.path.join(workdir, 'checkpoints'))
  assert any('corrupt' in name for name in names)


def test_config_on_disk_is_the_config(whole):
  with open(whole / 'config.json') as file:
    saved = json.load(file)['chains']
  # JSON has no tuples.
  assert saved == json.loads(json.dumps(_config().chains.to_dict()))


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('parallel', 'magic'),
    ('train.init_from', 'no_such_model'),
    ('model.network', 'magic'),
    ('task', 'magic'),
  ],
)
def test_an_impossible_config_leaves_the_workdir_free(tmp_path, field, value):
  workdir = tmp_path / 'run'
  with pytest.raises((ValueError, FileNotFoundError), match=str(value)):
    train.train(_config(**{field: value}), str(workdir))
  assert not (workdir / 'config.json').exists()
  assert not checkpoints.steps(workdir)


@pytest.fixture
def stopped(tmp_path):
  """The path of a voxel file, and the workdir of a run with it, stopped."""
  data = furniture.make_furniture(size=8, num_train=13, num_test=3)
  path = str(tmp_path / 'shapes.npz')
  voxel_file.save(path, data)
  workdir = str(tmp_path / 'run')
  assert runs.stop(_config(**{'data.path': path}), workdir, call=3) == 2
  return path, workdir


def test_a_run_goes_on_with_the_shapes_that_it_has_learned_from(
  tmp_path, stopped
):
  path, workdir = stopped
  with open(os.path.join(workdir, 'config.json')) as file:
    before = file.read()
  # They were moved.
  moved = str(tmp_path / 'moved.npz')
  os.rename(path, moved)
  for name in (path, 'furniture'):
    with pytest.raises((FileNotFoundError, ValueError), match='shapes'):
      train.train(_config(**{'data.path': name}), workdir)
  with open(os.path.join(workdir, 'config.json')) as file:
    assert file.read() == before
  # Others are at the old place now.
  voxel_file.save(path, furniture.make_furniture(size=8, num_train=11))
  with pytest.raises(ValueError, match='checksum'):
    train.train(_config(**{'data.path': path}), workdir)
  assert runs.stop(_config(**{'data.path': moved}), workdir, call=3) == 4
  # The config may name other shapes: those of the run are found again.
  train.train(_config(**{'data.path': path}), workdir)
  assert checkpoints.steps(workdir)[-1] == 6
  events = {event['kind']: event for event in logs.read_events(workdir)}
  assert 'changed_data' not in events
  assert events['changed_config']['fields'] == [
    f'data.path: "{path}" -> "{moved}"'
  ]


def test_changes_that_are_accepted_are_told(stopped):
  _, workdir = stopped
  config = _config(**{'data.path': 'furniture', 'chains.step_size': 0.02})
  config.data.furniture_shapes = 8
  with pytest.raises(ValueError, match=r'chains\.step_size'):
    train.train(config, workdir)
  train.train(config, workdir, accept_changes=True)
  events = {event['kind']: event for event in logs.read_events(workdir)}
  assert events['changed_data']['data'] == 'chair of the embedded furniture'
  assert 'chains.step_size: 0.01 -> 0.02' in events['changed_config']['fields']
  assert models.open_model(workdir)[1]['shapes'] == 8
  config = _config('recovery', **{'data.path': 'furniture'})
  with pytest.raises(ValueError, match=r"\['recovery'\].*maximum_likelihood"):
    train.train(config, workdir, accept_changes=True)


def test_a_run_at_its_end_goes_on_where_there_are_more_iterations(
  tmp_path, whole
):
  workdir = shutil.copytree(whole, tmp_path / 'run')
  config = _config(**{'train.num_iterations': 5})
  with pytest.raises(ValueError, match=r'6 iterations already.* 5'):
    train.train(config, str(workdir))
  train.train(_config(**{'train.num_iterations': 7}), str(workdir))
  assert [row['step'] for row in logs.read_metrics(workdir)] == [*range(7)]


@pytest.mark.parametrize(
  'number',
  [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_stops(tmp_path, whole, number):
  calls = []

  def change(step):
    def killed(*args):
      calls.append(1)
      if len(calls) == 3:
        os.kill(os.getpid(), number)
      return step(*args)

    return killed

  workdir = str(tmp_path / 'run')
  with pytest.MonkeyPatch.context() as patch:
    runs.change_step(patch, change)
    with pytest.raises(signals.Stopped, match='saved step 3') as info:
      train.train(_config(), workdir)
  assert info.value.signal == number
  assert checkpoints.steps(workdir)[-1] == 3
  assert logs.read_events(workdir)[-1]['kind'] == 'stopped'
  train.train(_config(), workdir)
  runs.assert_same(workdir, whole)


def test_a_run_that_is_taken_up_has_the_settings_of_use_of_now(tmp_path, whole):
  workdir = shutil.copytree(whole, tmp_path / 'run')
  shutil.rmtree(workdir / 'checkpoints' / '00000006')
  config = _config(**{'sample.num_steps': 7, 'sample.step_size': 0.25})
  learned = train.train(config, str(workdir))
  opened, card = models.open_model(str(workdir))
  for model in (learned, opened):
    assert dict(model.spec.uses)['synthesize'].num_steps == 7
    assert model.extras['settings']['synthesize']['step_size'] == 0.25
  assert card['config']['sample']['num_steps'] == 7
  # Learning is what it was.
  runs.assert_equal(learned.params, models.open_model(str(whole))[0].params)


@pytest.mark.slow
def test_a_run_that_is_taken_up_needs_no_model_to_begin_with(tmp_path, whole):
  first = shutil.copytree(whole, tmp_path / 'first')
  config = _config(**{'train.init_from': str(first)})
  workdir = str(tmp_path / 'run')
  assert runs.stop(config, workdir, call=4) == 2
  shutil.rmtree(first)
  train.train(config, workdir)
  assert checkpoints.steps(workdir)[-1] == 6


def test_pictures(tmp_path):
  config = _config(**{'train.num_iterations': 5, 'train.picture_every': 2})
  train.train(config, str(tmp_path / 'run'))
  assert sorted(os.listdir(tmp_path / 'run' / 'pictures')) == [
    f'chains_{step:06d}.png' for step in (2, 4, 5)
  ]
