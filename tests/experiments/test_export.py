"""Exports of runs and of models of the old format."""

import concurrent.futures
import copy
import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest

import dnet_jax
from dnet_jax import models
from dnet_jax import uses
from experiments import export
from experiments.files import figures
from experiments.files import logs
from experiments.files import models as files
from tests.experiments import tiny

FILES = {'README.md', 'card.json', 'model.safetensors', 'spec.json'}


def _energies(model, grid=-1):
  y = np.random.default_rng(0).normal(size=(5, *model.spec.grid, 1))
  if model.spec.grids:
    side = model.spec.grids[grid]
    y = y[:, :side, :side, :side]
  y = np.asarray(y, np.float32)
  return np.asarray(jax.jit(lambda m, y: uses.energy_fn(m, grid)(y))(model, y))


@pytest.mark.parametrize(
  'name',
  [
    name if name == 'synthesis' else pytest.param(name, marks=pytest.mark.slow)
    for name in tiny.CONFIGS
  ],
)
def test_an_exported_model_is_the_model_in_half_precision(
  name, workdir_of, folder_of
):
  run, _ = files.open_model(workdir_of(name))
  saved = dnet_jax.load(folder_of(name))
  assert saved.spec == run.spec
  assert jax.tree.structure(saved) == jax.tree.structure(run)
  for x, y in zip(
    jax.tree.leaves(saved.params), jax.tree.leaves(run.params), strict=True
  ):
    np.testing.assert_array_equal(x.astype(np.float16), y.astype(np.float16))
  for x, y in zip(
    jax.tree.leaves(saved.extras), jax.tree.leaves(run.extras), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3)
  assert {*os.listdir(folder_of(name))} >= FILES
  for grid in range(len(run.spec.descriptors)):
    a, b = _energies(run, grid), _energies(saved, grid)
    assert a.std() > 0
    np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
  ('name', 'pictures'),
  [
    ('synthesis', {'picture.png'}),
    ('cooperative', {'picture.png', 'curves.png'}),
    ('multi_grid', {'picture.png'}),
    ('recovery', set()),
    ('evaluation_classifier', set()),
  ],
)
def test_pictures_are_of_what_a_model_makes(name, pictures, folder_of):
  # Other tests evaluate the same model: that makes a folder.
  files = {x.name for x in os.scandir(folder_of(name)) if x.is_file()}
  assert files == FILES | {'metrics.jsonl'} | pictures


def test_curves_go_with_the_model(workdir_of, folder_of):
  rows = logs.read_metrics(workdir_of('synthesis'))
  assert logs.read_metrics(folder_of('synthesis')) == rows


def test_the_card_says_how_it_came_about(workdir_of, folder_of, tmp_path):
  card = tiny.content(folder_of('synthesis'), 'card.json')
  assert card['name'] == 'test' and card['iterations'] == 6
  assert card['shapes'] == 12 and card['classes'] == ['chair']
  assert card['seconds'] > 0 and 'energy_gap' in card['numbers']
  # Folders of the machine are not told.
  folder = str(tmp_path / 'copy')
  model, card = files.open_model(workdir_of('synthesis'))
  config = files.full_config(card['config'])
  config.train.init_from = '/home/me/one,/home/me/two'
  dnet_jax.save(model, folder, card=card | {'config': config.to_dict()})
  export.export(folder, str(tmp_path / 'again'))
  text = (tmp_path / 'again' / 'card.json').read_text()
  assert '/home/me' not in text
  assert json.loads(text)['config']['train']['init_from'] == 'one,two'


def test_a_model_without_a_card_is_exported_and_used(folder_of, tmp_path):
  # As the library saves it.
  folder = str(tmp_path / 'bare')
  dnet_jax.save(dnet_jax.load(folder_of('synthesis')), folder)
  export.export(folder, str(tmp_path / 'copy'), num_chains=2)
  model = dnet_jax.load(tmp_path / 'copy')
  assert len(model.extras['chains']) == 2
  assert tiny.run('--mode=sample', f'--workdir={folder}') == 0
  # Its own settings count: as many steps, not those of a default config.
  record = tiny.content(os.path.join(folder, 'samples', 'noise'))
  assert record['experiment'] == 'bare'
  voxels = tiny.arrays(os.path.join(folder, 'samples', 'noise'))['voxels']
  keys = dnet_jax.chain_keys(jax.random.key(0), len(voxels))
  expected = dnet_jax.synthesize(
    keys, dnet_jax.load(folder), len(voxels), start='noise', num_steps=2
  )
  np.testing.assert_allclose(voxels, expected, atol=1e-5)


def test_settings_of_uses_that_are_typed_are_exported(workdir_of, tmp_path):
  asked = ['--mode=export', f'--workdir={workdir_of("synthesis")}']
  out = tmp_path / 'model'
  assert tiny.run(*asked, f'--out={out}', '--config.sample.num_steps=7') == 0
  assert dict(dnet_jax.load(out).spec.uses)['synthesize'].num_steps == 7
  config = json.loads((out / 'card.json').read_text())['config']
  assert config['sample']['num_steps'] == 7
  # What later uses would refuse is not saved.
  other = f'--out={tmp_path / "other"}'
  for wrong in ('sample.num_steps=-3', 'latent.num_starts=0'):
    assert tiny.run(*asked, other, f'--config.{wrong}') != 0
    assert not (tmp_path / 'other').exists()
  # Of training the card says what was so.
  assert tiny.run(*asked, other, '--config.model.network=medium') == 2
  assert not (tmp_path / 'other').exists()


def test_nothing_is_overwritten(workdir_of, folder_of, tmp_path):
  folder = folder_of('synthesis')
  before = {name: os.stat(f'{folder}/{name}') for name in os.listdir(folder)}
  with pytest.raises(FileExistsError, match='not overwritten'):
    export.export(workdir_of('synthesis'), folder)
  after = {name: os.stat(f'{folder}/{name}') for name in os.listdir(folder)}
  assert before == after
  link = tmp_path / 'link'
  link.symlink_to('nowhere')
  with pytest.raises(FileExistsError, match='link'):
    export.export(workdir_of('synthesis'), str(link))
  assert os.listdir(tmp_path) == ['link'] and not link.exists()


def test_nothing_is_left_of_a_failed_export(workdir_of, tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise OSError('no space left')

  # After the model itself is written.
  monkeypatch.setattr(figures, 'isosurfaces', fail)
  with pytest.raises(OSError, match='no space'):
    export.export(workdir_of('synthesis'), str(tmp_path / 'model'))
  assert os.listdir(tmp_path) == []


def test_where_there_is_no_model(tmp_path, folder_of):
  for folder, message in (
    (tmp_path / 'none', 'no folder'),
    (tmp_path, 'holds no model'),
  ):
    with pytest.raises(FileNotFoundError, match=message):
      export.export(str(folder), str(tmp_path / 'out'))
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(FileNotFoundError, match='no checkpoint'):
    export.export(str(tmp_path), str(tmp_path / 'out'))
  assert os.listdir(tmp_path) == ['checkpoints']


# The old format.

_ALGORITHMS = {
  'synthesis': 'maximum_likelihood',
  'recovery': 'recovery',
  'super_resolution': 'super_resolution',
  'cooperative': 'cooperative',
  'multi_grid': 'multi_grid',
  'evaluation_classifier': 'classify',
}


def _old_config(config):
  """A config with the names of before version 1."""
  old = json.loads(json.dumps(config.to_dict()))
  task = old.pop('task')
  old['algorithm'] = _ALGORITHMS[task]
  old['data'].update(path='', furniture_size=old['data'].pop('size'))
  old['limits']['value'] = old['limits'].pop('energy_gap')
  classifier = old['classifier']
  classifier['junk_share'] = classifier.pop('negative_share')
  old['evaluate']['judge'] = old['evaluate'].pop('classifier')
  old['classify'] = old.pop('probe')
  # One group for all kinds of steps, and another one of an evaluation.
  conditioned = {
    'recovery': old.pop('recover'),
    'super_resolution': old.pop('super_resolve'),
  }
  old['sample'].update(conditioned.get(task, {}))
  for group in ('sample', 'evaluate'):
    old[group].update(
      {
        name: old['sample'][name]
        for name in ('num_steps', 'noise_steps', 'temperature')
      }
    )
  for name in ('steps', 'std'):
    old['sample'][f'sharp_{name}'] = old['sample'].pop(f'refinement_{name}')
  if task == 'synthesis':
    old['sample'].update(start='chains', num_steps=0)
  return old


def _write_old(folder, name, saved):
  """Writes a saved model in the format of before version 1."""
  model, card = files.open_model(saved)
  arrays = dict(models.flatten(dict(model.params)))
  for i in range(len(model.spec.grids), 0, -1):
    for old in [a for a in arrays if a.startswith(f'grid_{i}/')]:
      arrays[f'grids/grid{i}/{old.partition("/")[2]}'] = arrays.pop(old)
  arrays |= models.flatten(
    {x: v for x, v in model.extras.items() if x == 'histogram'}
  )
  none = np.zeros((0, *model.spec.grid, 1))
  arrays['chains'] = model.extras.get('chains', none)
  os.mkdir(folder)
  np.savez(
    os.path.join(folder, 'model.npz'),
    **{x: np.asarray(v, np.float16) for x, v in arrays.items()},
  )
  names = ('data', 'shapes', 'classes', 'iterations', 'device', 'jax', 'date')
  old_card = {x: card[x] for x in names} | {
    'name': card['name'],
    'mean': float(model.extras['mean']),
    'scale': float(model.extras['scale']),
    'shape': [*model.spec.grid, 1],
    'minutes': 1.5,
    'metrics': {'value': 2.0},
  }
  for file, value in (
    ('config.json', _old_config(tiny.CONFIGS[name]())),
    ('card.json', old_card),
  ):
    with open(os.path.join(folder, file), 'w', encoding='utf-8') as out:
      json.dump(value, out)


def _halved(params):
  return jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), params)


@pytest.mark.parametrize('name', _ALGORITHMS)
def test_the_old_format_is_refused_and_converted(name, folder_of, tmp_path):
  old, new = str(tmp_path / 'old'), str(tmp_path / 'new')
  _write_old(old, name, folder_of(name))
  command = f'--mode=export --workdir={old} --out=NEW'
  with pytest.raises(ValueError, match=f'older format.*{command}'):
    dnet_jax.load(old)
  with pytest.raises(ValueError, match='older format'):
    files.open_model(old)
  assert tiny.run(*command.replace('NEW', new).split()) == 0
  theirs, ours = dnet_jax.load(folder_of(name)), dnet_jax.load(new)
  theirs = dataclasses.replace(theirs, params=_halved(theirs.params))
  assert jax.tree.structure(ours.params) == jax.tree.structure(theirs.params)
  jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
  for grid in range(len(ours.spec.descriptors)):
    np.testing.assert_allclose(
      _energies(ours, grid), _energies(theirs, grid), rtol=1e-5
    )
  # And it is used in the same way.
  assert {*ours.extras} == {*theirs.extras}
  used, as_before = dict(ours.spec.uses), dict(theirs.spec.uses)
  assert used['reconstruct'] == as_before['reconstruct']
  use = {'recovery': 'recover', 'super_resolution': 'super_resolve'}.get(
    name, 'synthesize'
  )
  assert used[use] == as_before[use]
  jax.tree.map(
    np.testing.assert_array_equal,
    ours.extras['settings'][use],
    theirs.extras['settings'][use],
  )
  card = tiny.content(new, 'card.json')
  assert card['seconds'] == 90.0 and card['numbers'] == {'energy_gap': 2.0}
  assert card['config']['task'] == name


def test_a_damaged_old_model_is_told(folder_of, tmp_path):
  old = tmp_path / 'old'
  _write_old(str(old), 'synthesis', folder_of('synthesis'))
  (old / 'model.npz').write_bytes(b'PK')
  with pytest.raises(ValueError, match='damaged'):
    export.export(str(old), str(tmp_path / 'new'))
  assert os.listdir(tmp_path) == ['old']


def test_out_with_a_slash_beside_ones_own_partial(workdir_of, tmp_path):
  own = tmp_path / 'a.partial'
  own.mkdir()
  (own / 'mine').write_text('mine')
  arguments = ['--mode=export', f'--workdir={workdir_of("recovery")}']
  assert tiny.run(*arguments, f'--out={tmp_path}/a/') == 0
  assert {*os.listdir(tmp_path)} == {'a', 'a.partial'}
  assert {*os.listdir(tmp_path / 'a')} == FILES | {'metrics.jsonl'}
  assert (own / 'mine').read_text() == 'mine'


def test_of_two_exports_at_once_one_is_refused(workdir_of, tmp_path):
  out = str(tmp_path / 'a')

  def one(_):
    try:
      export.export(workdir_of('recovery'), out)
    except FileExistsError as error:
      return str(error)
    return None

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    found = [*pool.map(one, range(2))]
  assert None in found and any('exists' in (text or '') for text in found)
  assert os.listdir(tmp_path) == ['a'] and {*os.listdir(out)} == FILES | {
    'metrics.jsonl'
  }


@pytest.mark.parametrize('of', ['model', 'run'])
def test_no_name_of_a_config_leaves_the_folder(
  of, folder_of, workdir_of, tmp_path, capsys
):
  source = folder_of('synthesis') if of == 'model' else workdir_of('synthesis')
  folder = tmp_path / 'in' / 'model'
  shutil.copytree(source, folder)
  name = 'card.json' if of == 'model' else 'config.json'
  content = json.loads((folder / name).read_text())
  config = content['config'] if of == 'model' else content
  for group, field in (('sample', 'start'), ('', 'name')):
    wrong = copy.deepcopy(config)
    (wrong[group] if group else wrong)[field] = '../../x'
    told = content | {'config': wrong} if of == 'model' else wrong
    (folder / name).write_text(json.dumps(told))
    before = sorted(tmp_path.rglob('*'))
    capsys.readouterr()
    assert tiny.run('--mode=sample', f'--workdir={folder}') == 1
    assert "'../../x'" in capsys.readouterr().err
    assert sorted(tmp_path.rglob('*')) == before
