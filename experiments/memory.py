"""How much memory a step takes on a device, reported before the step is run.

XLA knows it once the step is compiled. A step that does not fit would stop the
run later, with a less clear message.
"""

from collections.abc import Mapping
import math
import pathlib
from typing import Any
from typing import NamedTuple

from absl import logging
import jax


class Estimate(NamedTuple):
  """Bytes of a step on one device.

  state: arguments and results: chains, networks, optimiser, mini-batch.
  work: what the step needs beside them, about in proportion to the chains.
  """

  state: int
  work: int


def estimate(compiled: jax.stages.Compiled) -> Estimate | None:
  """What XLA says of a compiled step; None where it says nothing.

  >>> double = jax.jit(lambda x: 2 * x).lower(jax.numpy.ones(4)).compile()
  >>> estimate(double).state
  32
  """
  found = compiled.memory_analysis()
  if found is None:
    return None
  outside = found.argument_size_in_bytes + found.output_size_in_bytes
  return Estimate(outside - found.alias_size_in_bytes, found.temp_size_in_bytes)


def room() -> int | None:
  """Bytes that each device of this process has; None where that is unknown."""
  device = jax.local_devices()[0]
  found = device.memory_stats() if device.platform != 'cpu' else None
  if found is not None:
    return found.get('bytes_limit')
  total = _of_machine()
  return None if total is None else total // jax.local_device_count()


def _of_machine():
  """Bytes of this machine, or of the part of it that the process may have."""
  limits = []
  try:
    for line in pathlib.Path('/proc/meminfo').read_text().splitlines():
      name, _, rest = line.partition(':')
      if name == 'MemTotal':
        limits.append(int(rest.split()[0]) * 1024)
    for path in ('memory.max', 'memory/memory.limit_in_bytes'):
      file = pathlib.Path('/sys/fs/cgroup', path)
      text = file.read_text().strip() if file.is_file() else 'max'
      if text.isdigit():
        limits.append(int(text))
  except (OSError, ValueError):
    pass
  return min(limits, default=None)


def check(
  needs: Estimate | None,
  available: int | None,
  fields: Mapping[str, Any],
) -> None:
  """Logs how much memory a step takes, and refuses one that does not fit.

  Args:
    needs: of `estimate`.
    available: of `room`.
    fields: `chains`, `shapes`: of an iteration, on one device; `at_once`:
      whether they may be taken some at a time.

  Raises:
    ValueError: for a step that does not fit; the message says what to set.
  """
  if needs is None:
    return
  total = needs.state + needs.work
  if available is None:
    logging.info('A step takes %s on each device.', _text(total))
    return
  logging.info(
    'A step takes %s of the %s of each device.', _text(total), _text(available)
  )
  if total <= available:
    return
  raise ValueError(
    f'a step takes {_text(total)} on each device, which has '
    f'{_text(available)}: {_advice(needs, available, fields)}'
  )


def _advice(needs, available, fields):
  chains, shapes = fields['chains'], fields['shapes']
  fewer = 'lower chains.num_chains and data.batch_size, or use more devices'
  left = available - needs.state
  if left <= 0:
    # Only the memory of chains is large, and it is split over devices.
    return (
      f'{_text(needs.state)} of it are chains and networks, so use more '
      'devices, or lower chains.num_chains or chains.num_slots'
    )
  if not fields['at_once']:
    return fewer
  wanted = math.ceil(needs.work / left)
  for number in range(wanted, min(chains, shapes) + 1):
    if chains % number == 0 and shapes % number == 0:
      return (
        f'set chains.at_once={max(chains, shapes) // number} (of {chains} '
        f'chains and {shapes} shapes on a device), or use more devices'
      )
  return fewer


def _text(size):
  if size < 2**30:
    return f'{size / 2**20:.1f} MiB'
  return f'{size / 2**30:.1f} GiB'
