"""What a step takes is said before it is run, and what to do about it."""

import jax
import jax.numpy as jnp
import pytest

from experiments import main
from experiments import memory
from experiments.files import checkpoints

GIB = 2**30
FIELDS = {'chains': 24, 'shapes': 12, 'at_once': True}


def test_it_is_what_xla_says():
  def f(x):
    return jnp.sin(x @ x) @ x

  x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  found = memory.estimate(jax.jit(f).lower(x).compile())
  assert found.state == 2 * x.size * 4
  assert x.size * 4 <= found.work <= 8 * x.size * 4


def test_this_machine_has_some_room():
  assert 2**28 < memory.room() < 2**46


@pytest.mark.parametrize(
  ('needs', 'fields', 'advice'),
  [
    # 30 GiB of work in 10: three parts are 8 chains and 4 shapes.
    ((2, 30), {}, r'chains\.at_once=8 \(of 24 chains and 12 shapes'),
    # No three equal parts.
    ((2, 30), {'shapes': 8}, r'chains\.at_once=6 '),
    ((2, 30), {'at_once': False}, r'lower chains\.num_chains'),
    ((2, 3000), {}, r'lower chains\.num_chains'),
    ((13, 1), {}, 'use more devices, or lower'),
  ],
)
def test_a_step_that_does_not_fit_is_refused_with_advice(needs, fields, advice):
  needs = memory.Estimate(*(x * GIB for x in needs))
  with pytest.raises(ValueError, match=advice) as error:
    memory.check(needs, 12 * GIB, FIELDS | fields)
  assert 'on each device, which has 12.0 GiB' in str(error.value)


def test_what_fits_or_is_not_known_passes():
  memory.check(memory.Estimate(GIB, GIB), 2 * GIB, FIELDS)
  memory.check(memory.Estimate(GIB, GIB), None, FIELDS)
  memory.check(None, GIB, FIELDS)


def test_a_run_that_does_not_fit_takes_no_step(tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(memory, 'room', lambda: 2**16)
  workdir = tmp_path / 'run'
  assert main.run(['train', 'test', f'--workdir={workdir}']) == 1
  assert 'a step takes ' in capfd.readouterr().err
  assert checkpoints.steps(workdir) == [0]
