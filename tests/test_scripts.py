"""Scripts that are to be copied: read by shellcheck, and run where they can."""

import os
import pathlib
import signal
import subprocess
import sys
import sysconfig

import pytest

from experiments.files import checkpoints
from experiments.files import logs
from tests import processes

SCRIPTS = sorted((processes.ROOT / 'scripts').iterdir())
CHECKER = pathlib.Path(sysconfig.get_path('scripts'), 'shellcheck')


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
  done = subprocess.run(
    [CHECKER, script], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout
  assert os.access(script, os.X_OK)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_without_arguments_it_says_what_is_missing(script):
  done = subprocess.run(
    [script], capture_output=True, text=True, check=False, cwd=processes.ROOT
  )
  assert done.returncode == 2 and 'synthesis:toilet,paper' in done.stderr


@pytest.mark.slow
def test_one_machine_in_two_processes_stops_and_goes_on(tmp_path):
  workdir = tmp_path / 'run'

  def start(iterations):
    return processes.start_script(
      [
        'scripts/eight_gpus.sh',
        'test',
        f'--config.train.num_iterations={iterations}',
        '--config.train.picture_every=0',
        '--config.limits.energy_gap=1e9',
        '--config.chains.noise_iterations=0',
      ],
      {
        'PROCESSES': '2',
        'WORKDIR': str(workdir),
        'PYTHON': sys.executable,
        'PORT': processes.address().rpartition(':')[2],
      },
    )

  def steps():
    try:
      return len(logs.read_metrics(workdir))
    except FileNotFoundError:
      return 0

  running = start(100_000)
  processes.wait_for(lambda: steps() > 1, [running])
  running.send_signal(signal.SIGTERM)
  statuses, outputs = processes.wait([running])
  assert statuses == [128 + signal.SIGTERM], outputs[0]
  last = checkpoints.steps(workdir)[-1]
  assert steps() == last > 1
  statuses, outputs = processes.wait([start(last + 1)])
  assert statuses == [0], outputs[0]
  assert checkpoints.steps(workdir)[-1] == last + 1
