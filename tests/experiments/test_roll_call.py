"""Who is missing: without JAX, on this machine."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from experiments import roll_call
from tests import processes

# A process of three that waits for its end.
MEMBER = """
import json, sys, time
from experiments import roll_call
told, process, patience, reason = json.loads(sys.argv[1])
roll = roll_call.answer(told, process, patience)
print('here', flush=True)
sys.stdin.readline()
if reason is not None:
  roll.leave(reason or None)
"""
FIRST = """
import json, sys, time
from experiments import roll_call
server = roll_call.listen()
told = roll_call.invitation(server, ['no.such.host.invalid', '127.0.0.1'])
print(json.dumps(told), flush=True)
roll = roll_call.call(server, told['token'], 3, float(sys.argv[1]))
print('here', flush=True)
sys.stdin.readline()
roll.leave(sys.argv[2] or None)
"""


def start(code, *arguments):
  return subprocess.Popen(
    [sys.executable, '-c', code, *arguments],
    env=os.environ | {'PYTHONPATH': str(processes.ROOT)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.fixture
def run():
  """`(patience, reasons)`: three processes that are all there."""
  started = []

  def begin(patience=20, reasons=('', '', '')):
    first = start(FIRST, str(patience), reasons[0])
    started.append(first)
    told = json.loads(first.stdout.readline())
    for i in (1, 2):
      arguments = json.dumps([told, i, patience, reasons[i]])
      started.append(start(MEMBER, arguments))
    for one in started:
      assert one.stdout.readline() == 'here\n'
    return started

  yield begin
  for one in started:
    one.kill()
    one.communicate()


def ends(some):
  """Their statuses and what they have said."""
  # Before their input is closed, at which they would end by themselves.
  statuses = [one.wait(60) for one in some]
  return statuses, [one.communicate()[1] for one in some]


@pytest.mark.parametrize('victim', [0, 2])
def test_the_others_name_who_was_killed(run, victim):
  some = run()
  some[victim].kill()
  others = [one for i, one in enumerate(some) if i != victim]
  statuses, texts = ends(others)
  assert statuses == [1, 1]
  name = f'process {victim} (host '
  for text in texts:
    (line,) = text.splitlines()
    assert line.startswith(f'error: {name}')
    assert f'pid {some[victim].pid}) of 3 has ended without notice' in line


@pytest.mark.slow
def test_who_is_silent_is_lost(run):
  some = run(patience=3)
  # As a machine is that has lost its network.
  os.kill(some[1].pid, 19)
  statuses, texts = ends([some[0], some[2]])
  assert statuses == [1, 1]
  assert all('process 1 ' in x and 'for 3 seconds' in x for x in texts)


@pytest.mark.parametrize('victim', [0, 1])
def test_an_error_of_one_is_told_by_all(run, victim):
  reasons = ['', '', '']
  reasons[victim] = 'the disk is full'
  some = run(reasons=reasons)
  some[victim].stdin.write('\n')
  some[victim].stdin.flush()
  others = [one for i, one in enumerate(some) if i != victim]
  statuses, texts = ends(others)
  assert statuses == [1, 1]
  for text in texts:
    assert f'process {victim} ' in text and 'the disk is full' in text


def test_who_says_goodbye_is_not_missed(run):
  some = run()
  for one in reversed(some):
    one.stdin.write('\n')
    one.stdin.flush()
    time.sleep(0.5)
  assert ends(some) == ([0, 0, 0], ['', '', ''])


def test_who_does_not_come_is_named():
  server = roll_call.listen()
  told = roll_call.invitation(server, ['127.0.0.1'])

  def stranger():
    # One who knocks without being asked.
    with pytest.raises(OSError, match='does not answer'):
      roll_call.answer(told | {'token': 'none'}, 1, 0.5)

  knocks = threading.Thread(target=stranger)
  knocks.start()
  with pytest.raises(OSError, match='process 1 of 2 does not answer'):
    roll_call.call(server, told['token'], 2, 2.0)
  knocks.join()
  with pytest.raises(OSError, match='cannot reach the first one at'):
    roll_call.answer(told, 1, 0.5)
