"""Every mode through the program, on a tiny model of every task."""

import json
import os

import numpy as np
import pytest

from experiments import main
from experiments import tasks
from experiments.tasks import parts
from tests.experiments import tiny

MODES = ('evaluate', 'report', 'export', *tasks.all_modes())
_TASKS = [name for name in tiny.CONFIGS if name != 'untrained']
_DESCRIPTOR = ('synthesis', 'recovery', 'super_resolution', 'cooperative')
# Which models can do it, by their networks.
CAN = {
  'evaluate': _TASKS,
  'report': _TASKS,
  'export': _TASKS,
  'sample': (*_DESCRIPTOR, 'multi_grid'),
  'recover': _DESCRIPTOR,
  'super_resolve': (*_DESCRIPTOR, 'multi_grid'),
  'probe': ('synthesis', 'cooperative'),
  'generate': ('cooperative',),
  'interpolate': ('cooperative',),
  'arithmetic': ('cooperative',),
  'reconstruct': ('cooperative',),
  'classify': ('evaluation_classifier',),
}
# A file that it writes, below the model.
WRITES = {
  'evaluate': 'evaluations/evaluation.json',
  'report': 'report.html',
  'sample': 'samples/*/voxels.npz',
  'recover': 'recoveries/chair/voxels.npz',
  'super_resolve': 'super_resolutions/chair/voxels.npz',
  'probe': 'evaluations/probe.json',
  'generate': 'latent/generate/voxels.npz',
  'interpolate': 'latent/interpolate/voxels.npz',
  'arithmetic': 'latent/arithmetic/voxels.npz',
  'reconstruct': 'latent/reconstruct_chair/voxels.npz',
  'classify': 'evaluations/classes.json',
}
_NEEDS_INPUT = ('recover', 'super_resolve', 'reconstruct', 'classify')


def _copy(folder, tmp_path):
  """A copy of a model, so that what is written is of one test."""
  copy = tmp_path / 'model'
  copy.mkdir()
  for name in ('spec.json', 'model.safetensors', 'card.json'):
    os.link(os.path.join(folder, name), copy / name)
  return copy


def _command(mode, name, folder, tmp_path):
  arguments = [f'--mode={mode}', f'--workdir={folder}']
  if mode in _NEEDS_INPUT:
    chair = tmp_path / 'chair.npy'
    np.save(chair, parts.data(tiny.synthesis()).test[0])
    arguments.append(f'--input={chair}')
  if WRITES.get(mode, '').endswith('.npz'):
    arguments.append('--format=glb,vox')
  if mode == 'export':
    arguments.append(f'--out={tmp_path / "exported"}')
  else:
    factor = 4 if name == 'multi_grid' else 2
    arguments.append(f'--config.factor={factor}')
  if mode == 'probe':
    arguments += ['--config.data.category=all', '--config.probe.windows=2,1']
    arguments += ['--config.probe.fractions=1.0,']
  return arguments


def test_all_modes_are_tested():
  assert {*MODES} == {*CAN}
  assert {*main.MODES} - {'train', 'describe'} == {*CAN}


def _slow_where_it_is(mode, name):
  slow = mode == 'evaluate' and name in ('cooperative', 'multi_grid')
  return pytest.param(mode, name, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(
  ('mode', 'name'),
  [_slow_where_it_is(mode, name) for mode in CAN for name in CAN[mode]],
)
def test_a_mode_of_a_model_that_can(mode, name, folder_of, tmp_path):
  folder = _copy(folder_of(name), tmp_path)
  assert tiny.run(*_command(mode, name, folder, tmp_path)) == 0
  if mode == 'export':
    assert (tmp_path / 'exported' / 'model.safetensors').exists()
    return
  (path,) = folder.glob(WRITES[mode])
  if path.suffix == '.json':
    assert json.loads(path.read_text())['experiment'] == 'test'
    return
  if path.suffix == '.html':
    assert '<h1>test</h1>' in path.read_text()
    return
  voxels = tiny.arrays(path.parent)
  shapes = voxels.get('voxels', voxels.get('linear'))
  assert shapes.shape[-3:] == (8, 8, 8) and np.isfinite(shapes).all()
  record = tiny.content(path.parent)
  assert record['experiment'] == 'test'
  # One flag for all of them; a shape without a surface has no files.
  there = any(n for row in record['faces'].values() for n in row)
  found = {file.suffix for file in path.parent.rglob('sample_*')}
  assert found == ({'.glb', '.vox'} if there else set())


@pytest.mark.parametrize(
  ('mode', 'name'),
  [
    (mode, name)
    for mode in CAN
    for name in ('synthesis', 'multi_grid', 'evaluation_classifier')
    if name not in CAN[mode]
  ],
)
def test_a_mode_of_a_model_that_cannot(mode, name, folder_of, tmp_path, capsys):
  folder = _copy(folder_of(name), tmp_path)
  assert tiny.run(*_command(mode, name, folder, tmp_path)) != 0
  error = capsys.readouterr().err
  assert f'--mode={mode} does not fit' in error and 'modes that do' in error
  assert len(error.splitlines()) == 1
  # Nothing is written.
  assert len([*folder.iterdir()]) == 3


def test_training_through_the_program(tmp_path):
  workdir = tmp_path / 'run'
  command = [
    '--mode=train',
    '--config=experiments/configs/test.py',
    f'--workdir={workdir}',
    '--config.train.num_iterations=2',
  ]
  assert tiny.run(*command) == 0
  model = tiny.request(str(workdir))
  assert model.card['iterations'] == 2
  assert model.config.train.num_iterations == 2


def test_a_file_is_scored_through_the_program(tmp_path):
  path = tmp_path / 'shapes.npz'
  np.savez(path, voxels=parts.data(tiny.synthesis()).test)
  out = tmp_path / 'result.json'
  command = ['--mode=evaluate', f'--workdir={path}', f'--out={out}']
  assert tiny.run(*command, '--config=experiments/configs/test.py') == 0
  assert json.loads(out.read_text())['scores']['shapes']['mmd'] == 0
