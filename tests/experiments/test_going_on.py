"""The same command again: after a divergence, a full disk, a move, an end."""

import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess

import pytest

from data_prep import furniture
from data_prep import voxel_file
from experiments import main
from experiments.files import checkpoints
from experiments.files import logs
from tests import runs

ROOT = pathlib.Path(__file__).parents[2]
NO_PICTURES = '--config.train.picture_every=0 --config.sample.mesh_format='


def run(line):
  return main.run(shlex.split(line))


def error(capfd):
  """The one line that a command line which failed has said."""
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith('error: ')
  return line


def events(workdir, kind):
  return [e for e in logs.read_events(workdir) if e['kind'] == kind]


# Divergence.

# So high a rate that gradients explode, within a few iterations of the start,
# which is the last checkpoint then.
POISONED = (
  f'train test {NO_PICTURES} --config.train.num_iterations=12 '
  '--config.train.checkpoint_every=20 '
  '--config.optimizer.learning_rate=1 --config.limits.grad_norm=300'
)


@pytest.mark.slow
def test_a_lower_rate_saves_a_run_that_diverges(tmp_path, capfd):
  # Other random numbers alone do not.
  line = f'{POISONED} --config.limits.rate_factor='
  assert run(f'{line}1 --workdir={tmp_path}/lost') == 1
  assert 'after 5 rollbacks in a row' in error(capfd)
  workdir = tmp_path / 'saved'
  assert run(f'{line}0.1 --workdir={workdir}') == 0
  factors = [e['rate_factor'] for e in events(workdir, 'rollback')]
  # One rollback with the rate as it was, then lower ones.
  assert factors[:2] == [1.0, pytest.approx(0.1)]
  assert [row['step'] for row in logs.read_metrics(workdir)] == [*range(12)]


def test_the_lower_rate_is_remembered(tmp_path, monkeypatch):
  line = f'{POISONED} --config.limits.rate_factor=0.1 --workdir={tmp_path}/run'
  rates = []

  def change(step):
    def told(key, state, batch, schedule):
      rates.append(float(schedule.rate_factor))
      if rates[-1] < 1 and not stopped:
        stopped.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
      return step(key, state, batch, schedule)

    return told

  stopped = []
  runs.change_step(monkeypatch, change)
  assert run(line) == 143
  assert rates[-1] == pytest.approx(0.1)
  before = len(rates)
  assert run(line) == 0
  assert rates[before] == rates[before - 1]
  assert max(rates[before:]) == rates[before]


# Another place, other data, other settings, more iterations.


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The voxel file and the workdir of a run that has come to its end."""
  folder = tmp_path_factory.mktemp('finished')
  data = furniture.make_furniture(size=8, num_train=13, num_test=3)
  voxel_file.save(str(folder / 'shapes.npz'), data)
  line = f'train test {NO_PICTURES} --config.data.path={folder}/shapes.npz'
  assert run(f'{line} --workdir={folder}/run') == 0
  return folder


@pytest.fixture
def elsewhere(finished, tmp_path):
  """A copy of it at another place, as on another machine."""
  shutil.copytree(finished, tmp_path / 'there')
  return tmp_path / 'there'


def test_moved_data_and_a_moved_workdir(finished, elsewhere, capfd):
  moved = elsewhere / 'moved.npz'
  os.rename(elsewhere / 'shapes.npz', moved)
  away = finished / 'away.npz'
  os.rename(finished / 'shapes.npz', away)
  try:
    line = f'train {elsewhere}/run --config.train.num_iterations=8'
    assert run(line) == 1
    assert 'point --config.data.path at' in error(capfd)
    # Its uses need no data at all.
    assert run(f'sample {elsewhere}/run') == 0
    assert run(f'{line} --config.data.path={moved}') == 0
  finally:
    os.rename(away, finished / 'shapes.npz')
  workdir = elsewhere / 'run'
  assert [row['step'] for row in logs.read_metrics(workdir)] == [*range(8)]
  (resumed,) = events(workdir, 'resume')
  assert resumed['step'] == 6
  (changed,) = events(workdir, 'changed_config')
  fields = [text.partition(':')[0] for text in changed['fields']]
  assert fields == ['data.path', 'train.num_iterations']
  assert not events(workdir, 'changed_data')


def test_changed_data_is_noticed_and_may_be_accepted(elsewhere, capfd):
  other = elsewhere / 'other.npz'
  voxel_file.save(
    str(other), furniture.make_furniture(size=8, num_train=9, num_test=3)
  )
  os.remove(elsewhere / 'shapes.npz')
  # The recorded path leads to the shapes of the fixture, which are the same.
  line = f'train {elsewhere}/run --config.train.num_iterations=7'
  step = '--config.chains.step_size=0.02'
  assert run(f'{line} --config.data.path={other} {step}') == 1
  said = error(capfd)
  assert 'chains.step_size: 0.01 -> 0.02' in said and 'accept_changes' in said
  assert run(f'{line} --config.data.path={other} {step} --accept_changes') == 0
  workdir = elsewhere / 'run'
  (changed,) = events(workdir, 'changed_config')
  assert 'chains.step_size: 0.01 -> 0.02' in changed['fields']
  (data,) = events(workdir, 'changed_data')
  assert data['data'] == 'chair of other.npz'
  # And it belongs to them from then on.
  capfd.readouterr()
  assert run(f'train {workdir}') == 0


@pytest.mark.slow
def test_a_rate_that_never_fell_falls_when_there_are_more_iterations(tmp_path):
  line = f'train test {NO_PICTURES} --workdir={tmp_path}/run'
  # Both constant to the end, and then not.
  assert run(f'{line} --config.train.num_iterations=2') == 0
  assert run(f'{line} --config.train.num_iterations=5') == 0
  assert len(logs.read_metrics(tmp_path / 'run')) == 5


def test_what_changes_no_result_may_differ(elsewhere):
  settings = {
    'parallel': 'pmap',
    'train.checkpoint_every': 1,
    'train.keep_checkpoints': 5,
    'train.picture_every': 2,
    'limits.rollbacks': 1,
    'limits.grad_norm': 1e5,
    'train.num_iterations': 7,
  }
  given = ' '.join(f'--config.{name}={x}' for name, x in settings.items())
  assert run(f'train {elsewhere}/run {given}') == 0
  (changed,) = events(elsewhere / 'run', 'changed_config')
  fields = {text.partition(':')[0] for text in changed['fields']}
  assert fields == {*settings}


@pytest.mark.slow
def test_what_divergence_advises_can_be_done_in_the_same_workdir(
  tmp_path, capfd
):
  line = (
    f'{POISONED} --config.limits.rate_factor=1 --workdir={tmp_path}/run '
    '--config.limits.rollbacks=1'
  )
  assert run(line) == 1
  assert 'Lower optimizer.learning_rate' in error(capfd)
  line += ' --config.optimizer.learning_rate=0.001'
  assert run(line) == 1
  assert 'optimizer.learning_rate: 1.0 -> 0.001' in error(capfd)
  assert run(f'{line} --accept_changes') == 0


# A start that failed.


def test_a_start_that_failed_blocks_nothing(tmp_path, monkeypatch, capfd):
  monkeypatch.chdir(tmp_path)
  line = f'train test {NO_PICTURES} --config.train.num_iterations=2'
  for wrong in (
    '--config.train.init_from=nowhere',
    '--config.data.path=nowhere.npz',
    '--config.data.batch_size=4000',
    '--config.chains.step_size=0.5 --config.model.padding=VALID',
  ):
    assert run(f'{line} {wrong}') == 1
    assert error(capfd)
  assert run(line) == 0
  assert len(logs.read_metrics(tmp_path / 'runs' / 'test')) == 2


@contextlib.contextmanager
def small_disk(folder):
  """`(bytes)`: sets the size of the disk that the folder is."""
  folder.mkdir()

  def mount(*options):
    subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', ','.join(options), 'none', str(folder)],
      check=True,
      capture_output=True,
    )

  try:
    mount('size=4k')
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('only root may mount a small disk')
  try:
    yield lambda size: mount('remount', f'size={size}')
  finally:
    subprocess.run(['umount', str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_with_the_path(tmp_path, capfd):
  disk = tmp_path / 'disk'
  with small_disk(disk) as resize:
    # The lock alone; the config; the first checkpoint; a later one; a picture.
    line = (
      f'train test --workdir={disk}/run --config.train.picture_every=0 '
      '--config.train.keep_checkpoints=9'
    )
    for size in ('8k', '24k', '100k', '180k', '260k'):
      resize(size)
      assert run(line) == 1, size
      assert f'{disk}/run' in error(capfd), size
    resize('20m')
    assert run(line) == 0
    assert [r['step'] for r in logs.read_metrics(disk / 'run')] == [*range(6)]
    # Full again: of all but what is a few bytes.
    with contextlib.suppress(OSError), open(disk / 'filler', 'wb') as file:
      while file.write(bytes(4096)):
        file.flush()
    for line in (
      f'sample {disk}/run',
      f'evaluate {disk}/run --config.evaluate.num_shapes=2',
      f'export {disk}/run --out={disk}/exported',
    ):
      assert run(line) == 1, line
      assert f'{disk}/' in error(capfd), line
    os.remove(disk / 'filler')
    assert run(f'export {disk}/run --out={disk}/exported') == 0


# Two phases, as typed.


@pytest.mark.slow
def test_coop_sofa_as_typed_in_a_fresh_copy(tmp_path, monkeypatch):
  """From the repository, with no run before it; and it resumes to the bit."""
  shutil.copytree(
    ROOT / 'experiments',
    tmp_path / 'experiments',
    ignore=shutil.ignore_patterns('__pycache__'),
  )
  monkeypatch.chdir(tmp_path)
  line = (
    '--config=experiments/configs/coop_sofa.py '
    '--config.train.num_iterations=2 --config.regression.iterations=2 '
    # Of the same kinds, and small.
    '--config.data.size=8 --config.data.furniture_shapes=50 '
    '--config.generator.network=tiny --config.model.network=tiny '
    '--config.chains.num_steps=2 --config.train.picture_every=0 '
    '--config.train.checkpoint_every=1'
  )
  assert run(line) == 0
  whole = tmp_path / 'runs' / 'coop_sofa'
  assert [e['name'] for e in events(whole, 'phase')] == ['cooperative']
  for call in (2, 3):
    calls = []

    def change(step, calls=calls, call=call):
      def counted(*args):
        calls.append(1)
        if len(calls) == call:
          os.kill(os.getpid(), signal.SIGTERM)
        return step(*args)

      return counted

    workdir = tmp_path / f'stopped_{call}'
    with pytest.MonkeyPatch.context() as patch:
      runs.change_step(patch, change)
      assert run(f'{line} --workdir={workdir}') == 143
    assert checkpoints.steps(workdir)[-1] == call
    assert run(f'{line} --workdir={workdir}') == 0
    runs.assert_same(workdir, whole)
