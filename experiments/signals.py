"""Signals: the first one makes a run save and stop, a second one ends it."""

from collections.abc import Iterator
import contextlib
import os
import signal
import sys
import threading


class Stopped(Exception):
  """A signal stopped the run, and it was saved.

  Attributes:
    signal: its number.
  """

  def __init__(self, number: int, step: int, workdir: str):
    name = signal.Signals(number).name
    super().__init__(
      f'{name}: saved step {step} in {workdir}; the same command resumes the '
      'run.'
    )
    self.signal = number


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
  """Catches the first SIGTERM or SIGINT, and adds its number to a list.

  A second signal that is SIGINT ends the process at once.
  """
  caught: list[int] = []

  def catch(number, frame):
    del frame
    caught.append(number)

  try:
    before = {
      number: signal.signal(number, catch)
      for number in (signal.SIGTERM, signal.SIGINT)
    }
  except ValueError:  # Not in the main thread.
    yield caught
    return
  # Python calls `catch` only when the step is done; the pipe hears at once.
  end, told = os.pipe()
  os.set_blocking(told, False)
  other = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
  threading.Thread(target=_watch, args=(end,), daemon=True).start()
  try:
    yield caught
  finally:
    signal.set_wakeup_fd(other)
    os.close(told)
    for number, handler in before.items():
      signal.signal(number, handler)


def _watch(end):
  """Ends the process at the second signal, where that is SIGINT."""
  with open(end, 'rb', buffering=0) as pipe:
    pipe.read(1)
    while number := pipe.read(1):
      if number[0] == signal.SIGINT:
        sys.stderr.write('Stopped; the last checkpoint is kept.\n')
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)
