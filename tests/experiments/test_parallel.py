"""The same run on one device and on four, under shard_map and pmap."""

import os
import subprocess
import sys

import numpy as np
import pytest

_SCRIPT = """
import sys
import jax
import numpy as np
from experiments import train
from experiments.configs import test

workdir, mode, devices = sys.argv[1:]
assert jax.device_count() == int(devices)
config = test.get_config()
config.parallel = mode
config.train.picture_every = 1000
state = train.train(config, workdir)
np.savez(workdir + '.npz', *map(np.asarray, jax.tree.leaves(state)))
"""


def _run(workdir, mode, devices):
  flag = f'--xla_force_host_platform_device_count={devices}'
  subprocess.run(
    [sys.executable, '-W', 'error', '-c', _SCRIPT, workdir, mode, str(devices)],
    env=os.environ | {'XLA_FLAGS': flag, 'PYTHONPATH': '.'},
    check=True,
    timeout=300,
  )
  with np.load(f'{workdir}.npz') as file:
    return [file[name] for name in file.files]


@pytest.fixture(scope='module')
def one_device(tmp_path_factory):
  return _run(str(tmp_path_factory.mktemp('one') / 'run'), 'shard_map', 1)


@pytest.mark.parametrize('mode', ['shard_map', 'pmap'])
def test_four_devices_give_the_run_of_one(tmp_path, mode, one_device):
  four = _run(str(tmp_path / 'run'), mode, 4)
  assert len(four) == len(one_device)
  for a, b in zip(four, one_device, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_resume_on_another_number_of_devices(tmp_path, one_device):
  # A checkpoint knows nothing of devices.
  workdir = str(tmp_path / 'run')
  _run(workdir, 'pmap', 4)
  again = _run(workdir, 'pmap', 1)
  for a, b in zip(again, one_device, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
