"""One step on four devices is the step on one, to float32 rounding.

The file runs itself in a process of its own: how many devices there are is
settled when JAX starts.
"""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

import dnet_jax

DEVICES = 4
P = jax.sharding.PartitionSpec
ROOT = pathlib.Path(__file__).parents[1]


def algorithm(axis_name):
  net = dnet_jax.Descriptor(
    features=(3,), kernel_sizes=(3,), strides=(2,), init_std=0.1
  )
  energy_fn = dnet_jax.descriptor_energy(net.apply)
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(energy_fn), optax.sgd(1e-2)
  )
  return net, dnet_jax.maximum_likelihood(
    energy_fn,
    learner,
    shape=(4, 4, 4, 1),
    num_chains=8,
    num_steps=3,
    step_size=0.1,
    num_slots=2,
    restart_probability=0.5,
    axis_name=axis_name,
  )


def run(how):
  axis_name = None if how == 'one' else 'devices'
  net, (init, step, chain_axes) = algorithm(axis_name)
  batch = jax.random.normal(jax.random.key(1), (12, 4, 4, 4, 1))
  state = init(jax.random.key(0), net.init(jax.random.key(2), batch))
  if how == 'one':
    step = jax.jit(step)
  elif how == 'pmap':
    # pmap wants an axis of devices: chains (2, 8) are (2, 4, 2) there.
    step = jax.pmap(
      step,
      axis_name,
      in_axes=(None, chain_axes, 0, None),
      out_axes=(chain_axes, None),
    )
    split = jax.tree.map(lambda a: a.reshape(2, 4, 2, *a.shape[2:]), state[1])
    state = state._replace(memory=split)
    batch = batch.reshape(4, 3, *batch.shape[1:])
  else:
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((DEVICES,), ('devices',), axis_types=auto)
    specs = type(chain_axes)(P(), P(None, 'devices'), P())
    step = jax.jit(
      jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(P(), specs, P('devices'), P()),
        out_specs=(specs, P()),
        check_vma=False,
      )
    )
  for i in range(3):
    state, metrics = step(jax.random.key(i), state, batch, 1.0)
  leaves = jax.tree.leaves((state, metrics))
  return [np.asarray(leaf, np.float64).ravel() for leaf in leaves]


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  folder = tmp_path_factory.mktemp('parallel')
  flag = f'--xla_force_host_platform_device_count={DEVICES}'
  environment = os.environ | {
    'XLA_FLAGS': flag,
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(ROOT),
  }
  subprocess.run(
    [sys.executable, '-W', 'error', __file__, str(folder)],
    env=environment,
    check=True,
  )
  return {path.stem: np.load(path) for path in folder.iterdir()}


@pytest.mark.parametrize('how', ['pmap', 'shard_map'])
def test_same_parameters_chains_and_metrics(results, how):
  one, many = results['one'], results[how]
  assert list(one) == list(many)
  for name in one:
    scale = max(np.abs(one[name]).max(), 1.0)
    np.testing.assert_allclose(many[name], one[name], atol=2e-5 * scale)


if __name__ == '__main__':
  assert jax.device_count() == DEVICES
  for kind in ('one', 'pmap', 'shard_map'):
    np.savez(pathlib.Path(sys.argv[1]) / kind, *run(kind))
