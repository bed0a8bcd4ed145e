"""One step on four devices is the step on one, to float32 rounding.

The file runs itself on four devices (see `devices`): once, for what takes the
time is to start JAX and to compile.
"""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dnet_jax
from tests import devices
from tests import test_cooperative
from tests import test_multi_grid

P = jax.sharding.PartitionSpec
# How they are run, and the tolerance; batch norm sums many numbers.
RUNS = {
  'maximum_likelihood': (('pmap', 'shard_map'), 2e-5),
  'multi_grid': (('pmap', 'shard_map'), 2e-5),
  'cooperative': (('pmap', 'shard_map'), 5e-5),
  'alternating': (('shard_map',), 5e-5),
  'classification': (('pmap',), 5e-5),
}


def observed(num):
  return jax.random.normal(jax.random.key(1), (num, 4, 4, 4, 1))


# Each gives the algorithm, first parameters, a batch and a schedule.


def maximum_likelihood(axis_name):
  net = dnet_jax.Descriptor(
    features=(3,), kernel_sizes=(3,), strides=(2,), init_std=0.1
  )
  energy_fn = dnet_jax.descriptor_energy(net.apply)
  learner = dnet_jax.make_learner(
    dnet_jax.contrastive_loss(energy_fn), optax.sgd(1e-2)
  )
  algorithm = dnet_jax.maximum_likelihood(
    energy_fn,
    learner,
    dnet_jax.make_sampler(num_steps=3, step_size=0.1, axis_name=axis_name),
    dnet_jax.persistent(
      dnet_jax.noise_source((4, 4, 4, 1)),
      num_chains=8,
      num_slots=2,
      restart_probability=0.5,
    ),
  )
  params = {'descriptor': jax.jit(net.init)(jax.random.key(2), observed(0))}
  return algorithm, params, observed(12), dnet_jax.Schedule()


def multi_grid(axis_name):
  return (
    test_multi_grid.algorithm(axis_name),
    test_multi_grid.networks(),
    test_multi_grid.batch(8),
    dnet_jax.Schedule(np.array([1.0, 0.0], np.float32)),
  )


def cooperative(axis_name):
  return (
    test_cooperative.algorithm(axis_name),
    test_cooperative.variables(),
    observed(12),
    dnet_jax.Schedule(),
  )


def alternating(axis_name):
  _, generator = test_cooperative.networks(axis_name)
  generator_fn = dnet_jax.generator_fn(generator, train=True)
  algorithm = dnet_jax.alternating_back_propagation(
    dnet_jax.generator_fn(generator, train=False),
    dnet_jax.make_learner(
      dnet_jax.teaching_loss(generator_fn), optax.sgd(1e-2)
    ),
    dnet_jax.make_sampler(num_steps=3, step_size=0.01, axis_name=axis_name),
    dnet_jax.persistent(
      dnet_jax.noise_source((test_cooperative.DIM,)),
      num_chains=12,
      num_slots=2,
      restart_probability=0.5,
    ),
    noise_std=0.5,
  )
  params = {'generator': test_cooperative.variables()['generator']}
  return algorithm, params, observed(12), dnet_jax.Schedule()


def classification(axis_name):
  net = dnet_jax.Classifier(
    2,
    features=(3,),
    kernel_sizes=(3,),
    strides=(2,),
    dropout=0.0,  # The masks of devices differ, by design.
    axis_name=axis_name,
  )
  algorithm = dnet_jax.classification(
    dnet_jax.make_learner(
      dnet_jax.classification_loss(dnet_jax.classifier_fn(net)),
      optax.sgd(1e-2),
    ),
    axis_name=axis_name,
  )
  variables = dict(
    jax.jit(functools.partial(net.clone(axis_name=None).init, train=False))(
      jax.random.key(2), observed(0)
    )
  )
  batch = {'y': observed(12), 'labels': jnp.arange(12) % 2}
  return algorithm, {'classifier': variables}, batch, dnet_jax.Schedule()


ALGORITHMS = {
  'maximum_likelihood': maximum_likelihood,
  'multi_grid': multi_grid,
  'cooperative': cooperative,
  'alternating': alternating,
  'classification': classification,
}


def split(leaf, axis):
  """pmap wants an axis of devices: chains (2, 8) are (2, 4, 2) there."""
  shape = leaf.shape
  return leaf.reshape(*shape[:axis], devices.NUMBER, -1, *shape[axis + 1 :])


def for_each_part(function, chain_axes, *states):
  """Of the parts of a state that `chain_axes` names; its None is one."""
  return jax.tree.map(
    function, chain_axes, *states, is_leaf=lambda axis: axis is None
  )


def run(name, how):
  axis_name = None if how == 'one' else 'devices'
  (init, step, chain_axes), params, batch, schedule = ALGORITHMS[name](
    axis_name
  )
  state = init(jax.random.key(0), params)
  if how == 'one':
    step = jax.jit(step)
  elif how == 'pmap':
    step = jax.pmap(
      step,
      axis_name,
      in_axes=(None, chain_axes, 0, None),
      out_axes=(chain_axes, None),
    )
    batch = jax.tree.map(lambda leaf: split(leaf, 0), batch)

    def divide(axis, part):
      if axis is None:
        return part
      return jax.tree.map(functools.partial(split, axis=axis), part)

    state = for_each_part(divide, chain_axes, state)
  else:
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((devices.NUMBER,), (axis_name,), axis_types=auto)

    def spec(axis):
      return P() if axis is None else P(*[None] * axis, axis_name)

    specs = for_each_part(spec, chain_axes)
    step = jax.jit(
      jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(P(), specs, P(axis_name), P()),
        out_specs=(specs, P()),
        check_vma=False,
      )
    )
  # Compiled once: called as it is, it would be again for where its own results
  # lie, half of the time of this test.
  step = step.lower(jax.random.key(0), state, batch, schedule).compile()
  for i in range(3):
    state, metrics = step(jax.random.key(i), state, batch, schedule)
  leaves = jax.tree.leaves((state, metrics))
  return [np.asarray(leaf, np.float64).ravel() for leaf in leaves]


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  folder = tmp_path_factory.mktemp('parallel')
  devices.run(__file__, folder)
  return {path.stem: np.load(path) for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'how'), [(name, how) for name in RUNS for how in RUNS[name][0]]
)
def test_four_devices_are_one(results, name, how):
  # Parameters, chains and metrics; batch statistics are of the whole batch.
  one, many = results[f'{name}-one'], results[f'{name}-{how}']
  tolerance = RUNS[name][1]
  assert list(one) == list(many)
  for leaf in one:
    scale = max(np.abs(one[leaf]).max(), 1.0)
    np.testing.assert_allclose(many[leaf], one[leaf], atol=tolerance * scale)


if __name__ == '__main__':
  assert jax.device_count() == devices.NUMBER
  for kind, (hows, _) in RUNS.items():
    for way in ('one', *hows):
      np.savez(pathlib.Path(sys.argv[1]) / f'{kind}-{way}', *run(kind, way))
