"""SIGTERM and Ctrl-C at random moments: saved, told in a line, and gone on."""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from experiments import main
from experiments.files import logs
from experiments.files import workdirs
from tests import runs

ROOT = pathlib.Path(__file__).parents[2]
# Imports the program once; for each line of stdin it then forks and runs it.
SERVER = """
import json, os, sys, warnings
from experiments import main
for line in sys.stdin:
  argv, output = json.loads(line)
  with warnings.catch_warnings():
    # No thread of JAX runs yet.
    warnings.simplefilter('ignore')
    pid = os.fork()
  if not pid:
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    main.main(['dnet', *argv])
  print(pid, flush=True)
  print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
# Steps until a signal comes.
LINE = [
  'train',
  'test',
  '--config.train.num_iterations=100000',
  '--config.train.checkpoint_every=1000',
  '--config.train.picture_every=0',
  '--config.chains.num_steps=1',
]
WAIT = 120  # Seconds, on a busy machine.


class Server:
  """Runs command lines, each in a process of its own."""

  def __init__(self, process, output):
    self._process, self._output = process, output

  def start(self, argv):
    """Starts one; returns its process."""
    self._output.unlink(missing_ok=True)
    self._process.stdin.write(json.dumps([argv, str(self._output)]) + '\n')
    self._process.stdin.flush()
    return int(self._process.stdout.readline())

  def end(self):
    """Waits for it; returns its exit status and what it said."""
    status = int(self._process.stdout.readline())
    return status, self._output.read_text().splitlines()


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  output = tmp_path_factory.mktemp('server') / 'output'
  with subprocess.Popen(
    [sys.executable, '-c', SERVER],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    yield Server(process, output)
    process.stdin.close()


def wait_for(condition):
  deadline = time.monotonic() + WAIT
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.005)


def events(workdir):
  try:
    return logs.read_events(workdir)
  except FileNotFoundError:
    return []


def rows(workdir):
  try:
    return logs.read_metrics(workdir)
  except FileNotFoundError:
    return []


def of_kind(workdir, kind):
  return [event for event in events(workdir) if event['kind'] == kind]


@pytest.mark.parametrize(
  ('number', 'status', 'times'),
  [
    pytest.param(signal.SIGTERM, 143, 4, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, 130, 2, marks=pytest.mark.slow),
  ],
)
def test_at_random_moments(
  tmp_path, server, monkeypatch, number, status, times
):
  """The run that goes on each time is one that nothing disturbed."""
  workdir = tmp_path / 'run'
  argv = [*LINE, f'--workdir={workdir}']
  rng = random.Random(status)
  for count in range(times):
    pid = server.start(argv)
    # It has begun, or goes on; it compiles, learns or writes a checkpoint.
    wait_for(lambda n=count: len(events(workdir)) > 2 * n)
    if rng.random() < 0.7:
      before = len(rows(workdir))
      wait_for(lambda n=before: len(rows(workdir)) > n)
    time.sleep(rng.uniform(0, 0.5))
    os.kill(pid, number)
    found, lines = server.end()
    assert found == status, lines
    stopped = of_kind(workdir, 'stopped')
    assert len(stopped) == count + 1
    name, step = signal.Signals(number).name, stopped[-1]['step']
    assert stopped[-1]['signal'] == name
    told = f'{name}: saved step {step} in {workdir}; the same command resumes '
    assert lines[-1] == f'{told}the run.'
    assert sum(name in line for line in lines) <= 2  # The event, and this.
    assert not any('Traceback' in line or 'Error' in line for line in lines)
    assert (workdir / 'checkpoints' / f'{step:08d}').is_dir()
    assert [r['step'] for r in logs.read_metrics(workdir)] == [*range(step)]
  steps = [event['step'] for event in of_kind(workdir, 'stopped')]
  # Each went on, and saved where it stood, not where it would have.
  assert steps == sorted(set(steps)) and any(step % 1000 for step in steps)
  resumed = [event['step'] for event in of_kind(workdir, 'resume')]
  assert resumed == steps[:-1]

  # A run that was never stopped before, to the same step.
  whole, calls = tmp_path / 'whole', []

  def change(step):
    def counted(*args):
      calls.append(1)
      if len(calls) == steps[-1]:
        os.kill(os.getpid(), number)
      return step(*args)

    return counted

  runs.change_step(monkeypatch, change)
  assert main.run([*LINE, f'--workdir={whole}']) == status
  runs.assert_same(workdir, whole)


def test_a_second_one_stops_at_once(tmp_path, server):
  """Also within a step that would take minutes."""
  workdir = tmp_path / 'run'
  slow = [f'--workdir={workdir}', '--config.chains.num_steps=100000000']
  pid = server.start([*LINE, *slow])
  wait_for(lambda: of_kind(workdir, 'start'))
  time.sleep(1)
  for _ in range(2):
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
  begin = time.monotonic()
  status, lines = server.end()
  assert status == 130
  assert time.monotonic() - begin < 10
  assert lines[-1] == 'Stopped; the last checkpoint is kept.'
  assert not of_kind(workdir, 'stopped')
  # And the lock is free.
  with workdirs.only_writer(workdir):
    pass


@pytest.mark.slow
def test_stderr_has_the_lines_of_the_run_and_no_others(tmp_path, server):
  """A fresh run, one that goes on, and a mode: no noise of libraries."""
  workdir = tmp_path / 'run'
  argv = ['train', 'test', f'--workdir={workdir}']
  server.start(argv)
  status, lines = server.end()
  assert status == 0
  memory = lines[2]
  assert memory.startswith('A step takes ') and memory.endswith('each device.')
  assert [line.partition(':')[0] for line in lines] == [
    'Devices',
    'step 0',
    memory,
    'step 1 of 6',
    'step 3',
    'step 6 of 6',
    'step 6',
    f'Wrote {workdir}',
  ]
  server.start([*argv, '--config.train.num_iterations=8'])
  status, lines = server.end()
  assert status == 0
  assert [line.partition(':')[0] for line in lines] == [
    'Devices',
    'step 6',
    'step 6',
    memory,
    'step 7 of 8',
    'step 8 of 8',
    'step 8',
    f'Wrote {workdir}',
  ]
  server.start(['sample', str(workdir)])
  status, lines = server.end()
  assert status == 0 and lines[1].startswith('3 meshes of ')
  assert [line.partition(':')[0] for line in lines] == [
    'Devices',
    lines[1],
    f'Wrote {workdir}/samples/noise',
  ]
