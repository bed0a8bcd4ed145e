"""Programs of tests are tiny: nearly all of their time is compilation.

So XLA compiles fast code nowhere but where a test asks for it (`optimised`),
and one cache of compiled programs serves the session: its tests, its workers
and their subprocesses, all of which inherit the environment.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from tests import devices

_CACHE = 'JAX_COMPILATION_CACHE_DIR'
# The emitters before these compile a step in a third of the time.
_EMITTERS = 'xla_cpu_use_fusion_emitters'


def _knows(flag):
  """Whether XLA has that flag: it aborts where it meets one that it has not."""
  make = 'from jaxlib import xla_client; xla_client.make_cpu_client()'
  done = subprocess.run(
    [sys.executable, '-c', make],
    env=os.environ | {'XLA_FLAGS': flag},
    capture_output=True,
    check=False,
  )
  return done.returncode == 0


def _settle():
  """Sets what JAX and NumPy read once; returns the folder that was made."""
  # Another session's, or that of the one whose worker this is.
  if _CACHE in os.environ:
    return None
  folder = tempfile.mkdtemp(prefix='dnet_jax_tests_')
  os.environ[_CACHE] = folder
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
  os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
  if _knows(flag := f'--{_EMITTERS}=false'):
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'
  # One worker a core: more threads only wait for each other, and spin.
  os.environ['OPENBLAS_NUM_THREADS'] = os.environ['OMP_NUM_THREADS'] = '1'
  return folder


# Now, since a conftest.py of a folder below may import JAX, which is read
# before any hook is called.
_FOLDER = _settle()


def pytest_addoption(parser):
  parser.addoption(
    '--kills',
    type=int,
    default=3,
    help='how often the runs of tests that kill are killed: %(default)s, '
    'since each takes up to a minute',
  )


def pytest_configure(config):
  # Subprocesses hear Ctrl-C also where the tests are a shell's job in the
  # background, which does not.
  if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  # One that another process is writing just now: it is compiled anew.
  config.addinivalue_line('filterwarnings', f'ignore:{devices.HALF_WRITTEN}')


def pytest_collection_modifyitems(items):
  """Calls slow what is about methods that are chosen on no CPU."""
  for item in items:
    given = getattr(item, 'callspec', None)
    if given and given.params.get('method') in ('fourier_complex', 'shifts'):
      item.add_marker(pytest.mark.slow)


def pytest_unconfigure(config):
  del config
  # Only the process that made it: workers of xdist inherit the variable.
  if _FOLDER is not None:
    shutil.rmtree(_FOLDER, ignore_errors=True)
    os.environ.pop(_CACHE, None)


@pytest.fixture
def kills(request):
  """How often a run is killed."""
  return request.config.getoption('--kills')


@pytest.fixture
def optimised():
  """Options of `jax.jit` that compile a program as outside tests."""
  options = {
    'xla_backend_optimization_level': 3,
    'xla_llvm_disable_expensive_passes': False,
  }
  if _EMITTERS in os.environ.get('XLA_FLAGS', ''):
    options[_EMITTERS] = True
  return options
