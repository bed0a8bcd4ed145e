"""Programs of tests are tiny: nearly all of their time is compilation.

So XLA optimises nothing but where a test asks for it (`optimised`), and one
cache of compiled programs serves the session: its tests, its workers and their
subprocesses, all of which inherit the environment.
"""

import os
import shutil
import tempfile

import pytest

_CACHE = 'JAX_COMPILATION_CACHE_DIR'


def pytest_configure(config):
  # Before anything imports JAX or NumPy, which read these once.
  if _CACHE not in os.environ:
    config.stash_dir = tempfile.mkdtemp(prefix='dnet_jax_tests_')
    os.environ[_CACHE] = config.stash_dir
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
    # One worker a core: more threads only wait for each other, and spin.
    os.environ['OPENBLAS_NUM_THREADS'] = os.environ['OMP_NUM_THREADS'] = '1'


def pytest_unconfigure(config):
  # Only the process that made it: workers of xdist inherit the variable.
  folder = getattr(config, 'stash_dir', None)
  if folder is not None:
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.pop(_CACHE, None)


@pytest.fixture
def optimised():
  """Programs as they are outside tests: long chains, and what XLA hoists."""
  import jax

  name = 'jax_disable_most_optimizations'
  before = jax.config.read(name)
  jax.config.update(name, False)
  yield
  jax.config.update(name, before)
