"""A run that is killed again and again ends as one that nothing disturbed."""

import os
import random
import subprocess
import sys
import time

import pytest

from experiments import train
from experiments.files import checkpoints
from experiments.files import logs
from tests import runs

# A run that is killed before it has compiled makes no progress.
_LONGEST = 120.0


def _start(workdir, iterations):
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'experiments.main',
      '--mode=train',
      '--config=experiments/configs/test.py',
      f'--config.train.num_iterations={iterations}',
      '--config.train.checkpoint_every=1',
      '--config.train.picture_every=1000',
      f'--workdir={workdir}',
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )


def _finish(workdir, iterations):
  settings = {
    'train.num_iterations': iterations,
    'train.checkpoint_every': 1,
  }
  train.train(runs.config(**settings), workdir)


def _last(workdir):
  return (checkpoints.steps(workdir) or [-1])[-1]


def _kill_once(workdir, iterations, rng, every_moment):
  """Starts a run and kills it; returns whether it still ran."""
  process = _start(workdir, iterations)
  try:
    if every_moment and rng.random() < 0.3:
      # While it starts, reads its checkpoint, compiles.
      time.sleep(rng.uniform(0, 8))
    else:
      # While it learns and writes checkpoints.
      target = _last(workdir) + rng.randint(1, 4)
      deadline = time.monotonic() + _LONGEST
      while _last(workdir) < target and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
      time.sleep(rng.uniform(0, 0.1))
    if process.poll() is not None:
      assert process.returncode == 0
      return False
    process.kill()
    return True
  finally:
    process.kill()
    process.wait()


@pytest.mark.parametrize(
  ('kills', 'iterations'),
  [(1, 10), pytest.param(4, 20, marks=pytest.mark.slow)],
)
def test_killed_at_random_moments_it_ends_as_undisturbed(
  tmp_path, kills, iterations
):
  rng = random.Random(kills)
  whole = str(tmp_path / 'whole')
  _finish(whole, iterations)
  killed = number = 0
  while killed < kills:
    workdir = str(tmp_path / f'killed_{number}')
    number += 1
    while killed < kills and _last(workdir) < iterations:
      if not _kill_once(workdir, iterations, rng, every_moment=kills > 1):
        break
      killed += 1
      print(f'kill {killed}, at step {_last(workdir)} of run {number}')
    _finish(workdir, iterations)
    runs.assert_same(workdir, whole)
    kinds = [event['kind'] for event in logs.read_events(workdir)]
    assert kinds.count('start') <= 1
    assert 'corrupt_checkpoint' not in kinds and 'divergence' not in kinds
    assert [row['step'] for row in logs.read_metrics(workdir)] == [
      *range(iterations)
    ]
    # Of what the kills left half written, nothing is left.
    names = os.listdir(os.path.join(workdir, 'checkpoints'))
    assert all(name.isdigit() for name in names), names
