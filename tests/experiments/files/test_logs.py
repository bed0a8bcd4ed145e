"""The files of a run, whole after kills, rollbacks and full disks."""

import json
import math
import os
import pathlib
import struct
import subprocess
import sys

from absl import logging
from jax import numpy as jnp
import numpy as np
from PIL import Image
import pytest
from tensorboardX.proto import event_pb2

from experiments.files import logs

ROOT = pathlib.Path(__file__).parents[3]


def run(workdir, steps, **settings):
  w = logs.open_writer(workdir, 10, first_step=steps[0], **settings)
  for step in steps:
    w.metrics(step, {'energy_gap': step / 2})
  w.close()


def steps_of(workdir):
  return [row['step'] for row in logs.read_metrics(workdir)]


def board_events(workdir):
  """Reads the event files of TensorBoard: length, checksum, event, checksum."""
  events = []
  paths = (workdir / 'tensorboard').iterdir()
  for path in sorted(paths, key=lambda path: int(path.suffix[1:])):
    data = path.read_bytes()
    while data:
      (size,) = struct.unpack('<Q', data[:8])
      events.append(event_pb2.Event.FromString(data[12 : 12 + size]))
      data = data[16 + size :]
  return events


def test_writes_rows_that_read_back(tmp_path):
  w = logs.open_writer(tmp_path, 3)
  values = {
    'energy_gap': jnp.float32(0.1),
    'half': jnp.bfloat16(1.5),
    'count': np.int64(3),
    'flag': np.bool_(True),
    'list': np.array([1.0, np.inf]),
    'bad': jnp.float32(np.nan),
    'up': math.inf,
    'down': -math.inf,
    'text': 'free',
  }
  w.metrics(0, values)
  w.metrics(1, {'energy_gap': 2.0})
  w.close()

  def refuse(name):
    raise AssertionError(f'{name} is no JSON')

  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  for line in lines:
    json.loads(line, parse_constant=refuse)
  first, second = logs.read_metrics(tmp_path)
  assert math.isnan(first.pop('bad'))
  assert first == {
    'step': 0,
    'energy_gap': float(np.float32(0.1)),
    'half': 1.5,
    'count': 3,
    'flag': True,
    'list': [1.0, math.inf],
    'up': math.inf,
    'down': -math.inf,
    'text': 'free',
  }
  assert second.pop('seconds_per_step') > 0
  assert second == {'step': 1, 'energy_gap': 2.0}


def test_resumed_without_doubles_or_half_lines(tmp_path):
  run(tmp_path, range(6))
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "val')
  with (tmp_path / 'events.jsonl').open('a') as file:
    file.write('{"step": 6, "kind": "x"}\n{"st')
  # A reader of a run that goes on sees whole rows only.
  assert steps_of(tmp_path) == [0, 1, 2, 3, 4, 5]
  run(tmp_path, range(4, 8))
  assert steps_of(tmp_path) == [0, 1, 2, 3, 4, 5, 6, 7]
  assert [row['kind'] for row in logs.read_events(tmp_path)] == ['x']
  assert sorted(os.listdir(tmp_path)) == [
    'events.jsonl',
    'metrics.jsonl',
    'tensorboard',
  ]


def test_killed_while_old_rows_are_dropped_keeps_them(tmp_path, monkeypatch):
  run(tmp_path, range(6))
  before = (tmp_path / 'metrics.jsonl').read_bytes()

  def killed(*args):
    raise KeyboardInterrupt

  with monkeypatch.context() as context:
    context.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
      logs.open_writer(tmp_path, 10, first_step=2)
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_a_line_amid_the_file_that_is_no_row_is_told(tmp_path):
  for line in ('nonsense', '[1]', '{"energy_gap": 1}'):
    (tmp_path / 'metrics.jsonl').write_text(f'{{"step": 0}}\n{line}\n')
    with pytest.raises(ValueError, match=r'metrics\.jsonl, line 2'):
      logs.read_metrics(tmp_path)
    with pytest.raises(ValueError, match=r'metrics\.jsonl, line 2'):
      logs.open_writer(tmp_path, 10)
  with pytest.raises(FileNotFoundError):
    logs.read_metrics(tmp_path / 'nowhere')


def test_a_rollback_writes_its_steps_once(tmp_path):
  w = logs.open_writer(tmp_path, 10)
  for step in range(5):
    w.metrics(step, {'energy_gap': 0.0})
  w.event(4, 'divergence', energy_gap=math.nan)
  w.rewind(2)
  for step in range(2, 6):
    w.metrics(step, {'energy_gap': 1.0})
  w.close()
  rows = logs.read_metrics(tmp_path)
  assert [(row['step'], row['energy_gap']) for row in rows] == [
    (0, 0.0),
    (1, 0.0),
    (2, 1.0),
    (3, 1.0),
    (4, 1.0),
    (5, 1.0),
  ]
  (event,) = logs.read_events(tmp_path)
  assert (event['step'], event['kind']) == (4, 'divergence')
  assert math.isnan(event['energy_gap'])
  # TensorBoard is told to forget the steps from 2 on.
  starts = [e for e in board_events(tmp_path) if e.HasField('session_log')]
  assert [e.step for e in starts] == [2]


def test_refuses_a_step_twice(tmp_path):
  w = logs.open_writer(tmp_path, 10, first_step=3)
  w.metrics(3, {})
  for step in (2, 3):
    with pytest.raises(ValueError, match=f'step {step} is written already'):
      w.metrics(step, {})
  w.close()
  assert steps_of(tmp_path) == [3]


def test_tensorboard_holds_scalars_and_pictures(tmp_path):
  path = tmp_path / 'chains_000002.png'
  Image.new('RGB', (4, 3), (255, 0, 128)).save(path)
  w = logs.open_writer(tmp_path, 10)
  w.metrics(0, {'energy_gap': 0.25, 'bad': math.nan, 'text': 'x'})
  w.picture(2, path)
  w.close()
  found = {
    (event.step, value.tag): value
    for event in board_events(tmp_path)
    for value in event.summary.value
  }
  assert set(found) == {(0, 'energy_gap'), (2, 'chains')}
  assert found[0, 'energy_gap'].simple_value == 0.25
  image = found[2, 'chains'].image
  assert (image.height, image.width) == (3, 4)
  png = tmp_path / 'decoded.png'
  png.write_bytes(image.encoded_image_string)
  with Image.open(png) as decoded:
    assert decoded.convert('RGB').getpixel((0, 0)) == (255, 0, 128)


def test_plain_lines_where_there_is_no_terminal(tmp_path, monkeypatch):
  lines = []
  monkeypatch.setattr(
    logging, 'info', lambda text, *args: lines.append(text % args)
  )
  clock = [0.0]
  monkeypatch.setattr(logs.time, 'monotonic', lambda: clock[0])
  w = logs.open_writer(tmp_path, 100, progress=False, log_seconds=20)
  # Half a minute of compilation, then 2 s a step: not in the pace.
  for step in range(100):
    clock[0] += 2.0
    w.metrics(step, {'energy_gap': float(step), 'grad_norm': 1.0})
  w.event(99, 'rollback', to_step=50)
  w.close()
  assert lines[0] == 'step 1 of 100: energy gap 0, gradient 1'
  assert (
    lines[1]
    == 'step 11 of 100: energy gap 10, gradient 1, 2 s/step, ETA 0:02:58'
  )
  assert lines[-2].startswith('step 100 of 100: energy gap 99')
  assert lines[-1] == 'step 99: rollback (to_step 50)'
  assert len(lines) == 12


def test_a_bar_on_a_terminal(tmp_path, capsys):
  w = logs.open_writer(tmp_path, 4, first_step=2, progress=True)
  w.metrics(2, {'energy_gap': -12.5})
  w.metrics(3, {'energy_gap': -13.5})
  w.event(3, 'resume')
  w.event(3, 'changed_config', fields=['a: 1 -> 2', 'b: 3 -> 4'])
  w.close()
  shown = capsys.readouterr().err
  assert '2/4' in shown
  assert '4/4' in shown
  assert 'energy gap -13.5' in shown
  assert 'ETA 0:00:00' in shown
  assert 'step 3: resume' in shown
  assert 'changed config (fields a: 1 -> 2; b: 3 -> 4)' in shown


def test_inactive_writes_nothing(tmp_path):
  w = logs.open_writer(tmp_path / 'run', 4, active=False)
  w.metrics(0, {'energy_gap': 0.0})
  w.event(0, 'x')
  w.picture(0, 'nowhere.png')
  w.rewind(0)
  w.close()
  assert os.listdir(tmp_path) == []


def test_an_unwritable_workdir_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match=r'cannot write to workdir .*/file/run'):
    logs.open_writer(tmp_path / 'file' / 'run', 4)
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'tensorboard').write_text('')
  with pytest.raises(OSError, match=r'cannot write to workdir .*/run'):
    logs.open_writer(tmp_path / 'run', 4)


FULL_DISK = """
import resource, sys
from experiments.files import logs
w = logs.open_writer(sys.argv[1], 100_000, progress=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
  for step in range(100_000):
    w.metrics(step, {'energy_gap': 0.0})
except OSError as error:
  print('told:', error)
try:
  w.close()
except OSError as error:
  print('told:', error)
"""


def test_a_full_disk_is_told(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', FULL_DISK, tmp_path],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert f'told: cannot write to workdir {tmp_path}' in done.stdout
  steps = steps_of(tmp_path)
  assert steps == list(range(len(steps)))
  assert len(steps) > 10
