"""The benchmark runs, and all that it compares computes the same."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import langevin

ROOT = pathlib.Path(__file__).parents[1]
TINY = ('tiny', 'tiny_generator')


@pytest.mark.parametrize('name', TINY)
def test_flops_are_those_of_the_layers(name):
  score, learn = langevin.giga_flops(langevin.CASES[name])
  if name == 'tiny':
    # 8^3 -> 4^3 x 4 (5^3), -> 2^3 x 4 (3^3); 2 chains and batch 2, K = 2.
    first, second = 4**3 * 5**3 * 4, 2**3 * 3**3 * 4 * 4
    expected = 2 * 2 * (first + second) * 2
    update = 2 * (2 * first + 3 * second) * 4
    assert learn == pytest.approx(1e-9 * (2 * expected + update))
  else:
    # 2^3 x 4 -> 2^3 x 4 -> 4^3, both 4^3 kernels, 2 chains.
    expected = 2 * 2 * (2**3 * 4**3 * 4 * 4 + 2**3 * 4**3 * 4) * 2
    assert learn == pytest.approx(1.5e-9 * expected)
  assert score == pytest.approx(1e-9 * expected)


@pytest.mark.parametrize('name', TINY)
def test_ours_is_near_float64(name):
  case = langevin.CASES[name]
  arrays = langevin.make_arrays(case)
  exact = langevin.reference_score(case, arrays, case.chains)
  assert exact.dtype == np.float64
  for label in ('ours', 'direct'):
    objective = langevin._objective(case, label, arrays[2])
    score = jax.jit(jax.grad(objective, 1))
    error = np.linalg.norm(score(*arrays[:2]) - exact) / np.linalg.norm(exact)
    assert error < 1e-4, label


@pytest.mark.parametrize('variant', ['contiguous', 'channels_last_3d'])
@pytest.mark.parametrize('name', TINY)
def test_torch_is_the_same_network(name, variant):
  pytest.importorskip('torch')
  case = langevin.CASES[name]
  arrays = langevin.make_arrays(case)
  calls = langevin._torch_calls(case, arrays, variant)
  score = langevin.as_numpy('torch', calls['score']())
  exact = langevin.reference_score(case, arrays, case.chains)
  error = np.linalg.norm(score - exact) / np.linalg.norm(exact)
  assert error < 1e-5


@pytest.mark.parametrize('name', TINY)
def test_learning_goes_on_from_call_to_call(name):
  case = langevin.CASES[name]
  arrays = langevin.make_arrays(case)
  contender = langevin.jax_contender(
    case, 'ours', arrays, ['score', 'learn'], 1
  )
  before = np.array(contender.calls['score_many']())
  first, second = (contender.calls['learn']() for _ in range(2))
  assert first['grad_norm'] != second['grad_norm']
  # Its state is its own: the score's parameters are as they were.
  np.testing.assert_array_equal(contender.calls['score_many'](), before)


@pytest.mark.slow
def test_command(tmp_path):
  out = tmp_path / 'results.json'
  result = subprocess.run(
    [
      *(sys.executable, '-m', 'benchmarks.langevin', '--networks=tiny'),
      *('--repeats=2', '--nomemory', f'--out={out}', '--contenders=ours'),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert result.returncode == 0, result.stderr
  numbers = json.loads(out.read_text())
  (row,) = numbers['networks']
  assert row['error']['ours'] < 1e-4
  assert set(row['seconds']['ours']) == {'score', 'setup', 'learn'}
  assert row['seconds']['ours']['learn'] > 0
  assert numbers['floors']['matmul_gflops'] > 0
  assert 'tiny' in result.stdout
