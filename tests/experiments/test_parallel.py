"""The same run on one device and on four, under shard_map and pmap.

The file runs itself on four devices (see `devices`).
"""

import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import parallel
from experiments import train
from experiments.files import checkpoints
from tests import devices
from tests import runs

MODES = ('shard_map', 'pmap')


def run(folder, mode):
  """The leaves of the last checkpoint."""
  workdir = os.path.join(folder, mode)
  train.train(runs.config(parallel=mode), workdir)
  leaves = checkpoints.read(workdir)[2]
  return [leaves[name] for name in sorted(leaves)]


@pytest.fixture(scope='module')
def one_device(tmp_path_factory):
  assert jax.device_count() == 1
  return run(str(tmp_path_factory.mktemp('one')), 'shard_map')


@pytest.fixture(scope='module')
def four_devices(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp('four'))
  devices.run(__file__, folder)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize('mode', MODES)
def test_four_devices_give_the_run_of_one(mode, four_devices, one_device):
  with np.load(os.path.join(four_devices, f'{mode}.npz')) as file:
    four = [file[name] for name in file.files]
  for a, b in zip(four, one_device, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_resume_on_another_number_of_devices(
  tmp_path, four_devices, one_device
):
  # A checkpoint knows nothing of devices: the last iterations on one.
  shutil.copytree(os.path.join(four_devices, 'pmap'), tmp_path / 'pmap')
  shutil.rmtree(tmp_path / 'pmap' / 'checkpoints' / '00000006')
  assert checkpoints.steps(tmp_path / 'pmap')[-1] == 4
  again = run(str(tmp_path), 'pmap')
  for a, b in zip(again, one_device, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize('mode', MODES)
def test_a_step_compiles_once_and_donates_its_state(mode, caplog):
  def step(key, state, batch, temperature):
    del key
    moved = state['chains'] + temperature * batch.mean()
    return {'chains': moved, 'params': state['params'] + 1}, moved.sum()

  one = parallel.make(mode, step, {'chains': 1, 'params': None})
  state = one.put({'chains': jnp.ones((2, 3)), 'params': jnp.ones(3)})
  batch = one.batch(np.ones((4, 2), np.float32))
  first = state
  arguments = jax.random.key(0), batch, jnp.ones(())
  for count in (True, False):
    with jax.log_compiles(), caplog.at_level('WARNING', 'jax'):
      caplog.clear()
      state, _ = one.step(arguments[0], state, *arguments[1:])
    assert any(m.startswith('Compiling') for m in caplog.messages) == count
  assert all(x.is_deleted() for x in jax.tree.leaves(first))
  np.testing.assert_allclose(one.get(state)['chains'], np.full((2, 3), 3))


if __name__ == '__main__':
  assert jax.device_count() == devices.NUMBER
  for kind in MODES:
    np.savez(os.path.join(sys.argv[1], kind), *run(sys.argv[1], kind))
