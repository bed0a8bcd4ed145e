"""Four devices on one CPU, for tests.

How many devices there are is settled when JAX starts: what needs four runs in
a process of its own.
"""

import os
import pathlib
import subprocess
import sys

NUMBER = 4
# What JAX says of an entry of its cache that another process is writing.
HALF_WRITTEN = 'Error reading persistent compilation cache entry'
ROOT = pathlib.Path(__file__).parents[1]


def run(*arguments):
  """Python with these arguments, on `NUMBER` devices."""
  flags = os.environ.get('XLA_FLAGS', '')
  warnings = '-W', 'error', '-W', f'ignore:{HALF_WRITTEN}'
  subprocess.run(
    [sys.executable, *warnings, *map(str, arguments)],
    cwd=ROOT,
    env=os.environ
    | {
      'XLA_FLAGS': f'{flags} --xla_force_host_platform_device_count={NUMBER}',
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(ROOT),
    },
    check=True,
    timeout=300,
  )
