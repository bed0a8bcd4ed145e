"""Four devices on one CPU, for tests.

How many devices there are is settled when JAX starts: what needs four runs in
a process of its own.
"""

import os
import pathlib
import subprocess
import sys

NUMBER = 4
ROOT = pathlib.Path(__file__).parents[1]


def run(*arguments):
  """Python with these arguments, on `NUMBER` devices."""
  flags = os.environ.get('XLA_FLAGS', '')
  subprocess.run(
    [sys.executable, '-W', 'error', *map(str, arguments)],
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
