"""The benchmark of a GPU runs to its end on a CPU, with tiny networks."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

from benchmarks import gpu
from benchmarks import langevin
import dnet_jax

ROOT = pathlib.Path(__file__).parents[1]
LAYER = ('correlate', 2, 6, 1, 3, 3, 2)


def run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'benchmarks.gpu', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.mark.slow
def test_command(tmp_path):
  out = tmp_path / 'gpu.json'
  done = run(
    *('--networks=tiny', '--repeats=1', '--score_steps=1', f'--out={out}'),
    *('--contenders=float32,bfloat16,torch', '--methods=phases,fourier'),
  )
  assert done.returncode == 0, done.stderr
  result = json.loads(out.read_text())
  (network,) = result['networks']
  assert {'score', 'setup', 'learn'} <= set(network['ms']['bfloat16'])
  assert network['ms']['float32']['learn'] > 0
  assert 1e-4 < network['error']['bfloat16'] < 0.1
  if langevin.torch is None:
    assert 'torch is not installed' in network['notes']
    assert network['torch_by_ours'] == {}
  # Two layers; 'phases' in TF32 and bfloat16, 'fourier' in float32 as well.
  assert len(result['layers']) == 2 * 5
  for row in result['layers']:
    assert min(row['ms'].values()) > 0
    few = {'float32': 0, 'tensorfloat32': 1e-5, 'bfloat16': 1e-4}
    for error in row['error'].values():
      assert few[row['precision']] <= error < 30 * few[row['precision']] + 1e-5
  assert result['left_out'] == []
  assert set(result['tflops']) == {'float32', 'tensorfloat32', 'bfloat16'}
  assert 'fourier bf16' in done.stdout
  # Nothing is written over.
  again = run('--networks=tiny', f'--out={out}')
  assert again.returncode != 0
  assert 'is not overwritten' in again.stderr + again.stdout
  assert json.loads(out.read_text()) == result


def test_nothing_is_begun_after_the_time(tmp_path):
  out = tmp_path / 'gpu.json'
  done = run('--networks=tiny', '--minutes=0', f'--out={out}')
  assert done.returncode == 0, done.stderr
  result = json.loads(out.read_text())
  assert result['networks'] == result['layers'] == []
  assert result['left_out'] == ['tiny']
  assert 'left out, out of time: tiny' in done.stdout


def test_what_fails_is_a_row_with_the_reason():
  # Nine taps at stride 1 are too many for 'winograd'.
  layer = ('correlate', 1, 4, 1, 2, 9, 1)
  rows = gpu.measure_layer(layer, ['winograd'], 1, time.monotonic() + 60)
  assert len(rows) == 3
  for row in rows:
    assert 'ValueError' in row['failed']
    assert 'ms' not in row
  gpu.print_layers(rows)
  # Nothing is tried that would take gigabytes.
  assert gpu.measure_layer(layer, ['shifts'], 1, time.monotonic() + 60) == []
  assert gpu.measure_layer(LAYER, ['phases'], 1, 0.0) == []


def test_a_contender_that_fails_leaves_the_rest(monkeypatch):
  original = langevin.jax_contender

  def contender(case, *args):
    if case.precision == 'tensorfloat32':
      raise MemoryError('no room')
    return original(case, *args)

  monkeypatch.setattr(langevin, 'jax_contender', contender)
  row = gpu.measure_network('tiny', ['tensorfloat32', 'bfloat16'], 1, 1)
  assert set(row['ms']) == {'bfloat16'}
  assert row['notes'] == ['tensorfloat32 failed: MemoryError: no room']
  gpu.print_networks([row])


def test_layers_and_choices_are_those_of_the_networks():
  assert gpu.layers_of('paper_3_layer') == [
    ('correlate', 25, 32, 1, 200, 16, 3),
    ('correlate', 25, 11, 200, 100, 6, 2),
  ]
  first, *_, last = gpu.layers_of('paper_generator')
  assert first == ('transpose', 50, 4, 256, 256, 4, 1)
  assert last == ('transpose', 50, 16, 64, 1, 4, 2)
  layer = gpu.layers_of('paper_coop')[0]
  assert gpu.chosen(layer, 'tensorfloat32', 'gpu') == 'fourier_complex'
  assert gpu.chosen(layer, 'bfloat16', 'gpu') == 'phases'
  # Of all in all networks there is something to measure.
  for name in gpu.NETWORKS:
    for layer in gpu.layers_of(name):
      for precision in ('tensorfloat32', 'bfloat16'):
        assert (
          gpu.chosen(layer, precision, 'gpu') in dnet_jax.convolution.METHODS
        )


@pytest.mark.parametrize('kind', ['correlate', 'transpose'])
def test_passes_have_the_shapes_of_a_layer(kind):
  layer = (kind, *LAYER[1:])
  arrays = gpu._layer_arrays(layer)
  passes = gpu._passes(layer, 'phases', 'float32')
  shapes = [
    passes[name](*arrays).shape for name in ('forward', 'input', 'kernel')
  ]
  x, w, y = (a.shape for a in arrays)
  assert shapes == [y, x, w]
