"""Several processes, one run, on JAX's own distributed runtime.

`join` comes before anything that asks JAX for its devices.
"""

from collections.abc import Sequence
import contextlib
import json
import os
import socket
import sys
from typing import NamedTuple

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from experiments import roll_call

# Seconds after which JAX itself ends a run, where the roll call has not.
_HEARTBEAT = 45
_SHUTDOWN = 30
_BYTES = 1024  # Of an invitation.


class Membership(NamedTuple):
  """What this process is in its run.

  several: whether there are other processes, now or not.
  roll: its part in the roll call.
  """

  several: bool
  roll: roll_call.Roll


def alone() -> Membership:
  """A run of one process, which needs no distributed runtime."""
  return Membership(False, roll_call.alone())


def join(
  address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> Membership:
  """Joins the other processes of a run.

  Args:
    address: `HOST:PORT` of the first process; with the other two, or all None:
      JAX finds out by itself, on a TPU, in Slurm and under Open MPI.
    num_processes: of the run.
    process_id: of this one, from 0.

  Raises:
    ValueError: where JAX finds no cluster.
    OSError: where the other processes cannot be reached.
  """
  found = {}
  if address is not None:
    # An address given by hand counts, even in a cluster that JAX would find.
    found = {
      'coordinator_address': address,
      'num_processes': num_processes,
      'process_id': process_id,
      'cluster_detection_method': 'deactivate',
    }
  # We handle SIGTERM ourselves. Until a run can save, it ends the process as
  # usual.
  with contextlib.suppress(AttributeError):
    # Not every version of JAX has it.
    jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
      heartbeat_timeout_seconds=_HEARTBEAT,
      shutdown_timeout_seconds=_SHUTDOWN,
      **found,
    )
  except (ValueError, RuntimeError) as error:
    raise _cannot_join(error, address) from error
  if jax.process_count() == 1:
    return Membership(True, roll_call.alone())
  hosts = [] if address is None else [address.rpartition(':')[0].strip('[]')]
  return Membership(True, _roll(hosts + _own_addresses()))


def leave(membership: Membership, reason: str | None = None) -> None:
  """Ends the part of this process; with a reason, the others stop at once."""
  if not membership.several:
    return
  if reason is None:
    # All processes leave together: the first one to end would look lost.
    multihost_utils.sync_global_devices('end')
    membership.roll.leave()
    jax.distributed.shutdown()
    return
  membership.roll.leave(reason)


def end_at_once(status: int) -> None:
  """Ends this process without waiting for others, as JAX would at its exit."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def _cannot_join(error, address):
  text = ' '.join(str(error).split())
  if isinstance(error, ValueError) and address is None:
    return ValueError(
      'found no TPU slice, Slurm step or Open MPI job here: give '
      '--coordinator_address=HOST:PORT, --num_processes and --process_id'
    )
  if 'before any JAX' in text:
    return error
  where = '' if address is None else f' at {address}'
  return OSError(f'cannot join the other processes{where}: {text[:300]}')


def _own_addresses() -> Sequence[str]:
  """Addresses of this machine that the other processes may reach."""
  found = []
  try:
    # Nothing is sent: this only finds out which address would be used.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
      probe.connect(('192.0.2.1', 9))
      found.append(probe.getsockname()[0])
  except OSError:
    pass
  return [*found, socket.gethostname()]


def _roll(hosts):
  """The part of this process in the roll call of all."""
  first, server, told = jax.process_index() == 0, None, {}
  data = np.zeros(_BYTES, np.uint8)
  if first:
    server = roll_call.listen()
    told = roll_call.invitation(server, hosts)
    text = json.dumps(told).encode()
    data[: len(text)] = np.frombuffer(text, np.uint8)
  data = np.asarray(multihost_utils.broadcast_one_to_all(data))
  told = json.loads(data.tobytes().rstrip(b'\0'))
  try:
    if first:
      return roll_call.call(server, told['token'], jax.process_count())
    return roll_call.answer(told, jax.process_index())
  except OSError as error:
    logging.warning(
      'No roll call, since %s: JAX ends all processes %d seconds after one is '
      'lost.', error, _HEARTBEAT,
    )  # fmt: skip
    return roll_call.alone()
