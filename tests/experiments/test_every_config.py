"""Each config that comes with the program: it builds, and it trains."""

import json
import pathlib

import jax
import numpy as np
import pytest

from data_prep import furniture
from data_prep import voxel_file
from experiments import config_files
from experiments import main
from experiments import tasks
from experiments.configs import arguments
from experiments.files import datasets
from experiments.files import logs
from experiments.tasks import checks
from experiments.tasks import parts

ROOT = pathlib.Path(__file__).parents[2]
BY_CATEGORY = {
  'abp': ('', 'paper', 'text'),
  'coop': ('', 'paper', 'text', 'abp', 'descriptor'),
  'multigrid': ('', 'paper', 'text'),
  'recovery': ('', 'paper', 'paper2', 'text', 'mixture', 'two_layers'),
  'super_resolution': ('', 'paper', 'text', '64'),
  'synthesis': ('', 'paper', 'text', 'fresh'),
}
# Of one category, or of all: what they take after the colon.
OTHERS = {
  'coop_night_stand': ('', 'paper', 'text', 'abp', 'descriptor'),
  'coop_sofa': ('', 'paper', 'text', 'abp', 'descriptor'),
  'coop_toilet': ('', 'paper', 'text', 'abp', 'descriptor'),
  'demo': ('',),
  'evaluation_classifier': ('',),
  'multigrid_sofa': ('', 'paper', 'text'),
  'synthesis_all': ('', 'paper', 'text', 'fresh'),
  'test': ('',),
}


def every():
  """All that can be typed after --config= without a path."""
  for kind, sizes in BY_CATEGORY.items():
    mixed = () if kind == 'synthesis' else ('all',)
    for category in (*arguments.CATEGORIES, *mixed):
      for size in sizes:
        yield f'{kind}:{category},{size}' if size else f'{kind}:{category}'
  for name, sizes in OTHERS.items():
    for size in sizes:
      yield f'{name}:{size}' if size else name


def test_all_files_are_here():
  assert {*config_files.config_names()} == {*BY_CATEGORY, *OTHERS}


def test_each_is_possible_and_has_a_name_of_its_own():
  """A name is that of a workdir; equal configs may share one."""
  by_name = {}
  for text in every():
    config = config_files.load_config(text)
    checks.check(config)
    content = json.dumps(config.to_dict(), sort_keys=True)
    assert by_name.setdefault(config.name, content) == content, text
    # And it is found by its name.
    named = config_files.load_config(config.name)
    assert json.dumps(named.to_dict(), sort_keys=True) == content, text
    if text.endswith(('paper', 'text')):
      assert config.name.endswith(('_paper', '_text')), text
  assert len(by_name) > 190


def test_larger_sizes_are_larger_and_have_a_small_one():
  for text in every():
    config = config_files.load_config(text)
    small = config.name.removesuffix('_paper').removesuffix('_text')
    if small == config.name or 'paper2' in config.name:
      continue
    other = config_files.load_config(small)
    assert other.data.category == config.data.category
    assert other.task == config.task
    assert other.train.num_iterations <= config.train.num_iterations


@pytest.fixture(scope='module')
def shapes():
  """A few boxes of each category, of a side: no furniture is drawn."""

  def make(size):
    rng = np.random.default_rng(0)
    voxels = np.zeros((110, size, size, size), bool)
    for shape in voxels:
      a, b, c = rng.integers(size // 2, size - 1, 3)
      shape[1:a, 1:b, 1:c] = True
    labels = np.arange(110) % 10
    return voxels, labels

  return make


def _dataset(shapes, config):
  voxels, labels = shapes(config.data.size)
  symmetric = config.data.scaling == 'symmetric'
  return datasets.Dataset(
    voxels,
    voxels[:10],
    0.5 if symmetric else 0.1,
    2.0 if symmetric else 1.0,
    'boxes',
    labels,
    labels[:10],
    tuple(arguments.CATEGORIES),
  )


def _sizes():
  """Each file and size once, of one category: others differ in numbers."""
  texts = [f'{kind}:sofa,{x}' for kind, xs in BY_CATEGORY.items() for x in xs]
  texts += [f'{name}:{x}' for name, xs in OTHERS.items() for x in xs]
  texts = [text.rstrip(',:') for text in texts]
  return [
    *{config_files.load_config(t).name: t for t in reversed(texts)}.values()
  ]


@pytest.mark.parametrize('text', _sizes())
def test_each_size_builds(shapes, text):
  """Its networks take its grid, its schedules its numbers of steps."""
  config = config_files.load_config(text)
  if config.components.number:  # Boxes are fewer than it wants.
    config.components.number = 5
  made = tasks.TASKS[config.task].experiment(config, _dataset(shapes, config))
  assert made.phases[-1].iterations == config.train.num_iterations
  params = jax.eval_shape(made.params)
  for phase in made.phases:
    assert np.all(np.asarray(phase.temperature(0)) >= 0)
    assert {*phase.networks} <= {*params}


# What learns the same on 8^3, in seconds: the smallest networks, few steps.
TINY = {
  'data.size': 8,
  'data.furniture_shapes': 26,
  'data.batch_size': 4,
  'model.network': 'tiny',
  'generator.network': 'tiny',
  'classifier.network': 'tiny',
  'chains.num_chains': 4,
  'chains.num_slots': 1,
  'chains.num_steps': 2,
  'train.num_iterations': 2,
  'train.picture_every': 0,
}
# With the networks of the config itself, on 32^3.
OWN = {
  'data.path': 'furniture',
  'data.furniture_shapes': 8,
  'data.batch_size': 2,
  'chains.num_chains': 2,
  'chains.num_steps': 1,
  'train.num_iterations': 2,
  'train.picture_every': 0,
  'train.picture_shapes': 1,
}


def _learned(folder, name, settings):
  """Trains a config by its name alone; returns its rows of metrics."""
  given = [f'--config.{field}={x}' for field, x in settings.items()]
  assert main.run([f'--config={name}', *given]) == 0
  config = config_files.load_config(name)
  return logs.read_metrics(folder / 'runs' / config.name)


# The other names are tried with their own networks, below.
@pytest.mark.parametrize('name', ['test', 'synthesis'])
def test_each_trains_by_its_name_alone(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  assert len(_learned(tmp_path, name, TINY)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  # These two have the networks of coop_sofa.
  sorted({*config_files.config_names()} - {'coop_toilet', 'coop_night_stand'}),
)
def test_each_trains_with_its_own_networks(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  settings = dict(OWN)
  config = config_files.load_config(name)
  rows = 2
  if config.components.number:
    settings |= {'components.number': 2}
  for phase in ('regression', 'back_propagation'):
    if config[phase].iterations:
      settings[f'{phase}.iterations'] = 1
      rows += 1
  if config.task == 'evaluation_classifier':
    settings['data.batch_size'] = 10
  assert len(_learned(tmp_path, name, settings)) == rows


def test_modelnet_is_taken_where_it_is(tmp_path, monkeypatch, caplog):
  """The first of: what is named, data/modelnet10_<size>.npz, the furniture."""
  monkeypatch.chdir(tmp_path)
  settings = TINY | {'data.batch_size': 2, 'train.num_iterations': 1}
  _learned(tmp_path, 'synthesis:sofa', settings)
  assert 'Data: furniture.' in caplog.messages
  (tmp_path / 'data').mkdir()
  path = tmp_path / 'data' / 'modelnet10_8.npz'
  made = furniture.make_furniture(size=8, num_train=6, num_test=2)
  voxel_file.save(str(path), made)
  caplog.clear()
  _learned(tmp_path, 'synthesis:toilet', settings)
  assert 'Data: data/modelnet10_8.npz.' in caplog.messages
  caplog.clear()
  # So it is of a model that names it without its folder.
  config = config_files.load_config('synthesis:toilet')
  config.data.path = 'modelnet10_8.npz'
  assert parts.data(config).source == 'toilet of modelnet10_8.npz'
  # Demo and test are of the furniture wherever they run.
  for name in ('demo', 'test'):
    assert config_files.load_config(name).data.path == 'furniture'
