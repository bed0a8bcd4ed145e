"""What benchmarks/scaling.py reads and projects; it is not run here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import scaling
import dnet_jax


def test_collectives_are_read_from_a_program():
  text = """
  %a = f32[3,2]{1,0} all-reduce(%b), replica_groups={{0,1}}
  %c = (bf16[4]{0}, f32[]) all-reduce-start(%d, %e), channel_id=1
  %f = f32[8]{0} all-gather(%g)
  ROOT %h = f32[] add(%i, %j)
  """
  assert scaling.collectives(text) == [
    {'kind': 'all-reduce', 'arrays': 1, 'bytes': 24},
    {'kind': 'all-reduce', 'arrays': 2, 'bytes': 12},
    {'kind': 'all-gather', 'arrays': 1, 'bytes': 32},
  ]


def test_parameters_are_those_of_the_network():
  name = 'paper_3_layer'
  net = dnet_jax.Descriptor(**dnet_jax.DESCRIPTORS[name])
  y = jax.ShapeDtypeStruct((1, 32, 32, 32, 1), jnp.float32)
  params = jax.eval_shape(net.init, jax.random.key(0), y)
  count = sum(x.size for x in jax.tree.leaves(params))
  assert scaling.flops(name, 32, 20)[1] == count
  # Twice the steps, nearly twice the work.
  ratio = scaling.flops(name, 32, 40)[0] / scaling.flops(name, 32, 20)[0]
  assert ratio == pytest.approx(86 / 46)


def test_a_projection_follows_its_assumptions():
  rows = scaling.project('paper_3_layer', 32, 20)
  assert {row['machine'] for row in rows} == {*scaling.MACHINES}
  for row in rows:
    machine = scaling.MACHINES[row['machine']]
    n, sent = machine.devices, row['bytes_reduced']
    fast, slow = row['compute_seconds']
    np.testing.assert_allclose(slow / fast, 4)
    ring = row['reduce_seconds'] - machine.hops * machine.latency
    np.testing.assert_allclose(ring, 2 * (n - 1) / n * sent / machine.link)
    assert 0 < row['efficiency'][0] < row['efficiency'][1] < 1
