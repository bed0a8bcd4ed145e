"""Several processes on this machine, joined by JAX's collectives on CPU."""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
# Of the program as it is typed.
PROGRAM = '-m', 'experiments.main'


def address():
  """Where the first process may listen."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    return f'127.0.0.1:{server.getsockname()[1]}'


def by_hand(process, number, at):
  """The flags of one of the processes."""
  return (
    f'--coordinator_address={at}',
    f'--num_processes={number}',
    f'--process_id={process}',
  )


def start(
  number: int,
  arguments: Sequence[str],
  *,
  devices_each: int = 1,
) -> list[subprocess.Popen]:
  """Starts Python in several processes, with the flags that join them."""
  at = address()
  flags = os.environ.get('XLA_FLAGS', '')
  count = f'{flags} --xla_force_host_platform_device_count={devices_each}'
  return [
    start_one([*arguments, *by_hand(process, number, at)], {'XLA_FLAGS': count})
    for process in range(number)
  ]


def start_one(
  arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
  """Starts Python on CPU, as it is or with more in its environment."""
  return start_script([sys.executable, *arguments], environment)


def start_script(
  arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
  """Starts a program of the repository, likewise."""
  return subprocess.Popen(
    list(arguments),
    cwd=ROOT,
    env=os.environ
    | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    | dict(environment or {}),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def wait(running: Sequence[subprocess.Popen], timeout: float = 600):
  """Exit statuses and outputs of processes, which are all ended then."""
  end = time.monotonic() + timeout
  try:
    outputs = [
      one.communicate(timeout=max(end - time.monotonic(), 1))[0]
      for one in running
    ]
  finally:
    for one in running:
      # A script and all that it has started.
      with contextlib.suppress(ProcessLookupError):
        os.killpg(one.pid, signal.SIGKILL)
  return [one.returncode for one in running], outputs


def run(number: int, *arguments: str, devices_each: int = 1) -> None:
  """Runs processes that must all succeed."""
  statuses, outputs = wait(start(number, arguments, devices_each=devices_each))
  assert statuses == [0] * number, '\n'.join(outputs)


def wait_for(condition, running=(), timeout: float = 300):
  """Until something is so; fails where a process ends before it."""
  end = time.monotonic() + timeout
  while not condition():
    for one in running:
      assert one.poll() is None, one.communicate()[0]
    assert time.monotonic() < end, 'it takes too long'
    time.sleep(0.05)
