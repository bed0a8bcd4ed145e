"""A workdir belongs to one config; who writes to it is tested in test_train."""

import json
import os

import pytest

from experiments.configs import default
from experiments.files import workdirs

CONFIG = {'train': {'steps': 10, 'rate': 0.1}, 'sizes': (1, 2), 'name': None}


def test_config_is_written_and_compared(tmp_path):
  assert workdirs.check_config(tmp_path / 'run', CONFIG) == []
  assert not (tmp_path / 'run').exists()
  workdirs.write_config(tmp_path / 'run', CONFIG)
  written = (tmp_path / 'run' / 'config.json').read_text()
  assert json.loads(written)['train'] == CONFIG['train']
  assert workdirs.check_config(tmp_path / 'run', CONFIG) == []
  assert os.listdir(tmp_path / 'run') == ['config.json']
  other = {
    'train': {'steps': 20, 'rate': 0.2},
    'sizes': [1, 2],
    'name': None,
    'new': 1,
  }
  with pytest.raises(ValueError, match='another config') as error:
    workdirs.check_config(tmp_path / 'run', other, may_differ=['train.step'])
  assert str(error.value).endswith(
    '(old -> new): new: (absent) -> 1, train.rate: 0.1 -> 0.2, '
    'train.steps: 10 -> 20'
  )
  assert (tmp_path / 'run' / 'config.json').read_text() == written
  assert workdirs.check_config(
    tmp_path / 'run', other, may_differ=['train', 'new']
  ) == ['new: (absent) -> 1', 'train.rate: 0.1 -> 0.2', 'train.steps: 10 -> 20']
  # To compare writes nothing.
  assert (tmp_path / 'run' / 'config.json').read_text() == written
  workdirs.write_config(tmp_path / 'run', other)
  assert workdirs.check_config(tmp_path / 'run', other) == []


def test_a_field_that_is_newer_than_the_run_had_its_default(tmp_path):
  workdirs.write_config(tmp_path / 'run', CONFIG)
  usual = default.get_config()
  newer = CONFIG | {'chains': {'num_slots': usual.chains.num_slots}}
  assert workdirs.check_config(tmp_path / 'run', newer) == []
  newer['chains']['num_slots'] += 1
  with pytest.raises(ValueError, match=r'chains.num_slots: 2 -> 3'):
    workdirs.check_config(tmp_path / 'run', newer)


def test_a_broken_config_is_told(tmp_path):
  for text in ('{"train": ', '[1]'):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(ValueError, match=r'config\.json is not a config'):
      workdirs.check_config(tmp_path, CONFIG)


def test_an_unwritable_workdir_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  workdir = tmp_path / 'file' / 'run'
  with pytest.raises(OSError, match='cannot write to workdir'):
    workdirs.write_config(workdir, {})
  with (
    pytest.raises(OSError, match='cannot write to workdir'),
    workdirs.only_writer(workdir),
  ):
    pass
