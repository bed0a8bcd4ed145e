"""One compilation cache for the session: its tests, workers and subprocesses.

Most of the time of these tests would go into compiling the same tiny programs
again and again.
"""

import os
import shutil
import tempfile

_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'


def pytest_configure(config):
  if _VARIABLE not in os.environ:
    config.stash_dir = tempfile.mkdtemp(prefix='dnet_jax_tests_')
    os.environ[_VARIABLE] = config.stash_dir
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'
    os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'


def pytest_unconfigure(config):
  # Only the process that made it: workers of xdist inherit the variable.
  folder = getattr(config, 'stash_dir', None)
  if folder is not None:
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.pop(_VARIABLE, None)
