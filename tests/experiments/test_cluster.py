"""The real program in several processes: signals, deaths, Slurm's variables."""

import functools
import itertools
import os
import random
import shlex
import signal
import sys
import time

import pytest

from experiments import main
from experiments.files import checkpoints
from experiments.files import logs
from tests import processes
from tests import runs

LONG = 100_000
SETTINGS = (
  '--config.train.picture_every=0 --config.sample.mesh_format= '
  '--config.chains.num_steps=1 --config.chains.noise_iterations=0 '
  '--config.chains.settle_iterations=0 --config.optimizer.constant_iterations='
  f'{LONG} --config.limits.grad_norm=1e9 --config.limits.energy_gap=1e9'
)


# What stands for the programs of Slurm: two tasks, and a job that runs.
SLURM = {
  'srun': """
while [[ $1 == --* ]]; do shift; done
tasks=()
trap 'kill -TERM "${tasks[@]}"' TERM
for i in 0 1; do
  SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_PROCID=$i \\
    SLURM_LOCALID=$i "$@" &
  tasks+=($!)
done
status=0
for task in "${tasks[@]}"; do
  wait "$task"; own=$?
  while kill -0 "$task" 2>/dev/null; do wait "$task"; own=$?; done
  ((own > status)) && status=$own
done
exit "$status"
""",
  'scontrol': 'echo "$@" >>"$REQUEUED"\n',
  'squeue': 'echo RUNNING\n',
}


def command(workdir, iterations, every=LONG):
  return [
    *processes.PROGRAM,
    *shlex.split(
      f'train test --workdir={workdir} {SETTINGS} '
      f'--config.train.num_iterations={iterations} '
      f'--config.train.checkpoint_every={every}'
    ),
  ]


def rows(workdir):
  try:
    return logs.read_metrics(workdir)
  except FileNotFoundError:
    return []


# Several processes on two cores.
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
  """A run of four processes, one of which got SIGTERM, and what they said."""
  workdir = tmp_path_factory.mktemp('cluster') / 'run'
  running = processes.start(4, command(workdir, LONG))
  processes.wait_for(lambda: len(rows(workdir)) > 3, running)
  second = main.run(command(workdir, LONG)[2:])
  running[2].send_signal(signal.SIGTERM)
  statuses, outputs = processes.wait(running)
  return workdir, second, statuses, outputs


def test_a_second_run_in_the_workdir_is_refused(stopped):
  assert stopped[1] == 1


def test_sigterm_to_one_process_stops_all_with_one_checkpoint(stopped):
  workdir, _, statuses, outputs = stopped
  assert statuses == [128 + signal.SIGTERM] * 4, '\n'.join(outputs)
  first, last = checkpoints.steps(workdir)
  assert first == 0 and len(rows(workdir)) == last
  assert all(f'SIGTERM: saved step {last}' in text for text in outputs)
  # One line of the devices, by one process.
  told = [text.count('Devices: 4 x cpu, 1 in each of 4') for text in outputs]
  assert told == [1, 0, 0, 0]
  assert logs.read_events(workdir)[-1]['signal'] == 'SIGTERM'


def test_slurm_is_found_and_the_job_goes_back_into_the_queue(stopped, tmp_path):
  """The script for Slurm, with what stands for Slurm's own programs."""
  workdir, *_ = stopped
  last = checkpoints.steps(workdir)[-1]
  for name, text in SLURM.items():
    (tmp_path / name).write_text(f'#!/usr/bin/env bash\n{text}')
    (tmp_path / name).chmod(0o755)
  port = processes.address().rpartition(':')[2]
  environment = {
    'PATH': f'{tmp_path}:{os.environ["PATH"]}',
    'SLURM_JOB_ID': '17',
    'WORKDIR': str(workdir),
    'PYTHON': sys.executable,
    'JAX_COORDINATOR_PORT': port,
    'REQUEUED': str(tmp_path / 'requeued'),
  }

  def script(iterations):
    flags = [x for x in command(workdir, iterations) if '--config.' in x]
    return processes.start_script(
      ['scripts/slurm.sbatch', 'test', *flags], environment
    )

  running = script(LONG)
  processes.wait_for(lambda: len(rows(workdir)) > last + 2, [running])
  running.send_signal(signal.SIGTERM)
  statuses, outputs = processes.wait([running])
  assert statuses == [0], outputs[0]
  assert (tmp_path / 'requeued').read_text() == 'requeue 17\n'
  then = checkpoints.steps(workdir)[-1]
  assert len(rows(workdir)) == then > last
  # As Slurm starts it again; and it comes to its end.
  statuses, outputs = processes.wait([script(then + 2)])
  assert statuses == [0], outputs[0]
  assert 'Devices: 2 x cpu, 1 in each of 2 processes.' in outputs[0]
  assert (tmp_path / 'requeued').read_text() == 'requeue 17\n'
  assert [row['step'] for row in rows(workdir)] == [*range(then + 2)]


@pytest.mark.parametrize('victim', [0, 1])
def test_when_one_dies_the_other_stops_and_names_it(tmp_path, victim):
  workdir = tmp_path / 'run'
  running = processes.start(2, command(workdir, LONG, every=2))
  processes.wait_for(lambda: len(rows(workdir)) > 3, running)
  running[victim].kill()
  begin = time.monotonic()
  statuses, outputs = processes.wait(running)
  assert time.monotonic() - begin < 60
  survivor = 1 - victim
  assert statuses[survivor] == 1, outputs[survivor]
  pid = running[victim].pid
  assert f'error: process {victim} (host ' in outputs[survivor]
  assert f'pid {pid}) of 2 has ended without notice' in outputs[survivor]
  # What it has saved is whole.
  assert checkpoints.about(workdir)[0] >= 2


def test_without_a_cluster_it_says_what_to_give(capfd):
  # In a process of its own: JAX has devices here already.
  status, output = processes.wait(
    [processes.start_one([*command('nowhere', 1), '--distributed'])]
  )
  assert status == [1] and '--coordinator_address' in output[0]
  for flags in ('--num_processes=2', '--process_id=0'):
    assert main.run(['train', 'test', flags]) == 2
    assert 'needs --coordinator_address' in capfd.readouterr().err
  flags = '--coordinator_address=a:1 --num_processes=2 --process_id=2'
  assert main.run(['train', 'test', *flags.split()]) == 2
  assert 'below --num_processes=2' in capfd.readouterr().err


def _moves(workdir, begun, first):
  """Whether a run has come farther, or has ended."""
  return len(rows(workdir)) != begun or first.poll() is not None


def test_killed_at_random_moments_nothing_is_lost(tmp_path, kills):
  """With `--kills=20` it takes ten minutes."""
  iterations, every = 400, 5
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  processes.run(2, *command(whole, iterations, every))
  rng, last, done = random.Random(0), 0, 0
  for attempt in itertools.count():
    assert attempt < 3 * kills
    running = processes.start(2, command(killed, iterations, every))
    if done < kills:
      # Who is killed before all have met is waited for, for five minutes.
      begun, first = len(rows(killed)), running[0]
      processes.wait_for(functools.partial(_moves, killed, begun, first))
      time.sleep(rng.uniform(0, 1.5))
      victim = rng.choice(running)
      done += victim.poll() is None
      victim.kill()
    statuses, outputs = processes.wait(running)
    found = checkpoints.about(killed)
    step = 0 if found is None else found[0]
    assert step >= last, 'a checkpoint is lost'
    last = step
    if statuses == [0, 0]:
      break
    # Dead, or told so in a sentence. Where the first process dies, JAX's own
    # client may end the other by SIGABRT before it can be told.
    aborts = {-signal.SIGABRT} if statuses[0] == -signal.SIGKILL else set()
    ended = {1, -signal.SIGKILL} | aborts
    assert {*statuses} <= ended, '\n'.join(outputs)
  assert done == kills and last == iterations
  folder = os.listdir(killed / 'checkpoints')
  assert not [name for name in folder if 'corrupt' in name]
  runs.assert_same(whole, killed)
