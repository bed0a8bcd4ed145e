"""What would run on 16 TPU cores or GPUs, lowered here without any.

The programs have the collectives that docs/clusters.md promises, and no others:
chains stay where they are.
"""

import math
import re

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

import dnet_jax
from dnet_jax import convolution
from experiments import parallel
from experiments import tasks
from experiments.tasks import base
from experiments.tasks import parts
from tests import runs

DEVICES = 16
SIZES = {
  'data.batch_size': DEVICES,
  'data.furniture_shapes': 2 * DEVICES,
  'chains.num_chains': DEVICES,
}
KINDS = (
  'maximum_likelihood',
  'recovery',
  'super_resolution',
  'multi_grid',
  'two_phases',
  'evaluation_classifier',
)
SPLIT, SAME = jax.P(parallel.AXIS), jax.P()


def placed(mesh, spec, tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      np.shape(x),
      jnp.result_type(x),
      sharding=jax.sharding.NamedSharding(mesh, spec),
    ),
    tree,
  )


def lowered(phase, params, platform):
  """The program of a step on `DEVICES` abstract devices, as text."""
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.sharding.AbstractMesh((DEVICES,), (parallel.AXIS,), auto)
  algorithm = phase.algorithm
  step = parallel.map_step(base.step_of(phase), algorithm.chain_axes, mesh)
  key = jax.random.key(0)
  learned = {name: params[name] for name in phase.networks}
  state = jax.eval_shape(algorithm.init, key, learned)
  temperature = np.float32(phase.temperature(0))
  schedule = dnet_jax.Schedule(temperature, np.float32(1))
  arguments = (
    placed(mesh, SAME, jax.random.key_data(key)),
    jax.tree.map(
      lambda axis, part: placed(
        mesh, SAME if axis is None else jax.P(None, parallel.AXIS), part
      ),
      algorithm.chain_axes,
      state,
      is_leaf=lambda axis: axis is None,
    ),
    placed(mesh, SPLIT, phase.batch(0, 0)),
    placed(mesh, SAME, schedule),
  )
  exported = export.export(step, platforms=[platform])(*arguments)
  assert exported.nr_devices == DEVICES and exported.platforms == (platform,)
  return exported.mlir_module(), learned


def moved(text):
  """Elements of all that is reduced over devices, by all-reduce."""
  types = re.findall(
    r'"stablehlo\.all_reduce".*?\}\) : \((.*?)\) ->', text, re.DOTALL
  )
  shapes = [x for found in types for x in re.findall(r'tensor<([^>]*)>', found)]
  return sum(math.prod(map(int, x.split('x')[:-1])) for x in shapes)


@pytest.mark.parametrize('platform', ('tpu', 'cuda'))
@pytest.mark.parametrize('kind', KINDS)
def test_a_step_on_16_devices_reduces_and_gathers_nothing(kind, platform):
  config = runs.config(kind, **SIZES)
  experiment = tasks.TASKS[config.task].experiment(config, parts.data(config))
  for phase in experiment.phases:
    text, learned = lowered(phase, experiment.params(), platform)
    collectives = {
      *re.findall(
        r'stablehlo\.(all_\w+|collective_\w+|reduce_scatter|send|recv)\b', text
      )
    }
    assert collectives == {'all_reduce'}
    # Gradients, once; of cooperative learning the mean of the shapes and of
    # their squares, generated and observed; batch statistics and metrics.
    gradients = sum(x.size for x in jax.tree.leaves(learned))
    shapes = 4 * 8**3 if 'generator' in learned else 0
    assert gradients <= moved(text) <= gradients + shapes + 2000
    if platform == 'tpu':
      assert 'stablehlo.convolution' in text


def programs(platform, **arguments):
  """A correlation with its derivatives, lowered for a platform."""

  def all_of_it(x, w):
    def f(x, w):
      return (convolution.correlate(x, w, 3, **arguments) ** 2).sum()

    return jax.value_and_grad(f, (0, 1))(x, w)

  x = jax.ShapeDtypeStruct((2, 16, 16, 16, 1), jnp.float32)
  w = jax.ShapeDtypeStruct((16, 16, 16, 1, 8), jnp.float32)
  platforms = [platform] if isinstance(platform, str) else platform
  return export.export(jax.jit(all_of_it), platforms=platforms)(
    x, w
  ).mlir_module()


def test_the_method_is_that_of_the_platform_that_is_lowered_for():
  # A CPU, and a GPU with so large a kernel, have transforms, a TPU has not.
  assert jax.default_backend() == 'cpu'
  for platform, direct in (('cpu', False), ('cuda', False), ('tpu', True)):
    text = programs(platform)
    assert ('stablehlo.convolution' in text) == direct, platform
  both = programs(('cpu', 'tpu'))
  assert 'stablehlo.convolution' in both and 'stablehlo.case' in both


def test_products_inside_transforms_are_exact_on_a_tpu():
  text = programs('tpu', method='fourier')
  products = [x for x in text.splitlines() if 'stablehlo.dot_general' in x]
  assert products
  assert all('precision = [HIGHEST, HIGHEST]' in x for x in products)
