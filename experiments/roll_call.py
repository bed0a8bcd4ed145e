"""Watches which processes of a run are still there, and names one that dies.

JAX ends all processes when one is lost, but its message is long, comes only
after several heartbeats and does not name the host. So each process here has a
connection with the first one. When a process ends without notice its connection
closes; when its machine is lost the connection falls silent. The first process
then tells all others, and all stop.
"""

from collections.abc import Callable
from collections.abc import Sequence
import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from typing import Any
from typing import NamedTuple

PATIENCE = 30.0  # Seconds of silence after which a process is lost.
_EVERY = 5.0  # Seconds between two signs of life.
_GOING = 3.0  # Seconds that the others have to stop before the first one ends.


class Roll(NamedTuple):
  """The part of a process in the roll call.

  leave: `(reason=None)`: says that this process ends, and that others must stop
    where there is a reason.
  wait: `()`: gives the roll call time to end this process, for one that has
    met an error that the loss of another process may have caused.
  """

  leave: Callable[..., None]
  wait: Callable[[], None]


def alone() -> Roll:
  """The roll call of a run of one process."""
  return Roll(lambda reason=None: None, lambda: None)


def listen() -> socket.socket:
  """The socket of the first process, at any port."""
  return socket.create_server(('', 0))


def invitation(server: socket.socket, hosts: Sequence[str]) -> dict[str, Any]:
  """What the others have to know of the first process.

  Args:
    server: of `listen`.
    hosts: names or addresses of this machine, the likeliest first.
  """
  return {
    'hosts': list(hosts),
    'port': server.getsockname()[1],
    'token': secrets.token_hex(8),
  }


def call(
  server: socket.socket, token: str, number: int, patience: float = PATIENCE
) -> Roll:
  """For the first process: waits for the others, then watches them.

  Args:
    server: of `listen`.
    token: of the invitation.
    number: of all processes.
    patience: seconds.

  Raises:
    OSError: where one does not answer.
  """
  names, lines = {0: _name(0)}, {}
  server.settimeout(patience)
  with server:
    while len(lines) < number - 1:
      try:
        connection, _ = server.accept()
      except TimeoutError as error:
        for line in lines.values():
          line.close()
        missing = sorted({*range(number)} - {*names})
        raise OSError(
          f'process {missing[0]} of {number} does not answer the first one'
        ) from error
      line = _Line(connection)
      told = line.first(patience)
      # Other programs may connect to the port too.
      if told and told.get('token') == token and told['process'] not in names:
        names[told['process']] = told['name']
        lines[told['process']] = line
      else:
        line.close()
  for line in lines.values():
    line.send(names={str(i): name for i, name in names.items()})
  return _watch(lines, names, 0, patience)


def answer(
  told: dict[str, Any], process: int, patience: float = PATIENCE
) -> Roll:
  """For the other processes: connects to the first one, then watches it.

  Args:
    told: the invitation.
    process: number of this one.
    patience: seconds.

  Raises:
    OSError: where the first one cannot be reached.
  """
  line, fault = None, None
  for host in told['hosts']:
    try:
      connection = socket.create_connection((host, told['port']), patience)
      line = _Line(connection)
      break
    except OSError as error:
      fault = error
  if line is None:
    raise OSError(
      f'process {process} cannot reach the first one at '
      f'{" or ".join(told["hosts"])}, port {told["port"]}: {fault}'
    )
  line.send(token=told['token'], process=process, name=_name(process))
  roster = line.first(2 * patience)
  if roster is None:
    line.close()
    raise OSError(f'process 0 does not answer process {process}')
  names = {int(i): name for i, name in roster['names'].items()}
  return _watch({0: line}, names, process, patience)


def _name(process):
  return f'process {process} (host {socket.gethostname()}, pid {os.getpid()})'


class _Line:
  """A connection for JSON objects, one a line."""

  def __init__(self, connection):
    self.connection = connection
    self.heard = time.monotonic()
    self._rest = b''
    self._lock = threading.Lock()

  def send(self, **told):
    """Sends an object; a closed connection is noticed elsewhere."""
    text = json.dumps(told).encode() + b'\n'
    with self._lock:
      try:
        self.connection.settimeout(_EVERY)
        self.connection.sendall(text)
      except OSError:
        pass

  def receive(self):
    """What has come, a list; None where the other end is closed."""
    try:
      data = self.connection.recv(65536)
    except TimeoutError:
      return []
    except OSError:
      return None
    if not data:
      return None
    self.heard = time.monotonic()
    *lines, self._rest = (self._rest + data).split(b'\n')
    try:
      return [json.loads(line) for line in lines]
    except ValueError:
      return None

  def first(self, patience):
    """The first object, or None."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
      self.connection.settimeout(max(end - time.monotonic(), 0.01))
      told = self.receive()
      if told is None:
        return None
      if told:
        return told[0] if isinstance(told[0], dict) else None
    return None

  def close(self):
    self.connection.close()


def _watch(lines, names, own, patience):
  """Starts the thread that listens to some others, by their numbers."""
  left = threading.Event()

  def tell_others(but, text):
    for process, line in lines.items():
      if process != but:
        line.send(stop=text)

  def lost(process, how):
    return (
      f'{names[process]} of {len(names)} {how}; this process stops too. The '
      'same command continues from the last checkpoint.'
    )

  def stop(process, text):
    if left.is_set():
      return
    left.set()
    sys.stderr.write(f'error: {text}\n')
    sys.stderr.flush()
    if own == 0:
      tell_others(process, text)
      _wait_for_end(lines.values())
    os._exit(1)

  def hear(process, line):
    told = line.receive()
    if told is None:
      stop(process, lost(process, 'has ended without notice'))
      return False
    for one in told:
      if 'stop' in one:
        stop(process, one['stop'])
      elif 'bye' in one and one['bye'] is None:
        return False
      elif 'bye' in one:
        stop(process, lost(process, f'has stopped ({one["bye"]})'))
    return True

  def listen_to_all():
    selector = selectors.DefaultSelector()
    for process, line in lines.items():
      selector.register(line.connection, selectors.EVENT_READ, process)
      line.heard = time.monotonic()
    told = 0.0
    while selector.get_map() and not left.is_set():
      for key, _ in selector.select(1.0):
        if not hear(key.data, lines[key.data]):
          selector.unregister(key.fileobj)
      now = time.monotonic()
      if now - told > _EVERY:
        told = now
        for key in selector.get_map().values():
          lines[key.data].send(here=own)
      for key in [*selector.get_map().values()]:
        if now - lines[key.data].heard > patience:
          silent = f'has not answered for {patience:.0f} seconds'
          stop(key.data, lost(key.data, silent))

  def leave(reason=None):
    if left.is_set():
      # The roll call is about to end this process.
      time.sleep(_GOING)
      return
    left.set()
    if own == 0 and reason is not None:
      tell_others(None, lost(0, f'has stopped ({reason})'))
      _wait_for_end(lines.values())
    else:
      for line in lines.values():
        line.send(bye=reason)

  threading.Thread(target=listen_to_all, daemon=True, name='roll call').start()
  return Roll(leave, lambda: time.sleep(patience + _EVERY))


def _wait_for_end(lines):
  """Until the others have closed their ends, or should have."""
  end = time.monotonic() + _GOING
  for line in lines:
    while (left := end - time.monotonic()) > 0:
      line.connection.settimeout(left)
      if line.receive() is None:
        break
