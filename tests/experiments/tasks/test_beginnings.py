"""Training that begins with a model: which one it may be."""

import shutil

import pytest

from experiments import export
from experiments import tasks
from experiments import train
from experiments.files import models
from experiments.tasks import beginnings
from experiments.tasks import parts
from tests import runs

_SHORT = {'train.num_iterations': 1, 'data.scaling': 'symmetric'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Workdirs of a descriptor and of a generator, and the former exported."""
  folder = tmp_path_factory.mktemp('models')
  for name, kind in (
    ('descriptor', 'maximum_likelihood'),
    ('generator', 'alternating_back_propagation'),
  ):
    train.train(runs.config(kind, **_SHORT), str(folder / name))
  export.export(str(folder / 'descriptor'), str(folder / 'exported'))
  return folder


def _begin(kind, *folders, **overrides):
  init_from = ','.join(map(str, folders))
  config = runs.config(
    kind, **_SHORT | overrides, **{'train.init_from': init_from}
  )
  experiment = tasks.TASKS[config.task].experiment(config, parts.data(config))
  begun, began = beginnings.params(config, experiment)
  assert len(began) == len(folders)
  return experiment.params(), begun


@pytest.mark.parametrize('name', ['descriptor', 'exported'])
def test_a_descriptor_to_begin_with(folder, name):
  fresh, begun = _begin('maximum_likelihood', folder / name)
  model, _ = models.open_model(str(folder / name))
  runs.assert_equal(begun['descriptor'], dict(model.params['descriptor']))
  kernels = [
    x['descriptor']['params']['last']['kernel'] for x in (fresh, begun)
  ]
  assert (kernels[0] != kernels[1]).any()


def test_two_models_to_begin_with(folder):
  names = 'descriptor', 'generator'
  _, begun = _begin('cooperative', *(folder / name for name in names))
  for name in names:
    model, _ = models.open_model(str(folder / name))
    runs.assert_equal(begun[name], dict(model.params[name]))


def test_only_what_a_model_has_is_not_fresh(folder):
  fresh, begun = _begin('cooperative', folder / 'generator')
  runs.assert_equal(fresh['descriptor'], begun['descriptor'])
  kernels = [x['generator']['params'] for x in (fresh, begun)]
  with pytest.raises(AssertionError):
    runs.assert_equal(*kernels)


def test_a_generator_has_no_reference(folder):
  _, begun = _begin(
    'cooperative',
    folder / 'generator',
    **{'model.reference_std': 0.3, 'model.reference_means': (-1.0, 1.0)},
  )
  assert {*begun} == {'descriptor', 'generator'}


def test_training_begins_there(folder, tmp_path):
  config = runs.config(
    **_SHORT | {'train.num_iterations': 0},
    **{'train.init_from': str(folder / 'exported')},
  )
  model = train.train(config, str(tmp_path / 'run'))
  whole, theirs = models.open_model(str(folder / 'exported'))
  runs.assert_equal(
    dict(model.params['descriptor']), dict(whole.params['descriptor'])
  )
  # The card says so, also that of a model which began with this one.
  _, card = models.open_model(str(tmp_path / 'run'))
  (words,) = card['began']
  assert words.startswith(f'{theirs["name"]}: 1 iterations, ')
  assert words.endswith(f' s, on {theirs["device"]}, {theirs["date"]}')
  config.train.init_from = str(tmp_path / 'run')
  train.train(config, str(tmp_path / 'next'))
  _, card = models.open_model(str(tmp_path / 'next'))
  (later,) = card['began']
  assert later.endswith(f'(began with {words})')
  export.export(str(tmp_path / 'next'), str(tmp_path / 'out'))
  assert words in (tmp_path / 'out' / 'README.md').read_text('utf-8')


@pytest.mark.parametrize(
  ('overrides', 'messages'),
  [
    ({'data.scaling': 'mean'}, ['mean = 0.5', 'data.scaling']),
    ({'model.reference_std': 0.25}, ['= 0.5', '0.25', 'model.reference_std']),
    (
      {'model.reference_means': (0.0, 1.0)},
      [r'= \[0.0\]', r'\[0.0, 1.0\]', 'model.reference_means'],
    ),
    ({'model.reference': 'uniform'}, ["'gaussian'", "'uniform'"]),
    ({'data.size': 16}, [r'\(8, 8, 8\)', r'\(16, 16, 16\)']),
    (
      {
        'model.network': 'custom',
        'model.features': (4, 5),
        'model.kernel_sizes': (5, 3),
        'model.strides': (2, 2),
      },
      [r'\(3, 3, 3, 4, 4\)', r'\(3, 3, 3, 4, 5\)'],
    ),
    # Another network, though its parameters are of the same shapes.
    (
      {
        'model.network': 'custom',
        'model.features': (4, 4),
        'model.kernel_sizes': (5, 3),
        'model.strides': (1, 4),
      },
      [r'strides=\(2, 2\)', r'strides=\(1, 4\)'],
    ),
  ],
)
def test_a_model_that_does_not_fit_is_refused(folder, overrides, messages):
  for name in ('descriptor', 'exported'):
    with pytest.raises(ValueError, match=r'init_from=.*' + name) as info:
      _begin('maximum_likelihood', folder / name, **overrides)
    for message in messages:
      info.match(message)


def test_another_scale_is_refused(folder, tmp_path):
  workdir = str(tmp_path / 'run')
  shutil.copytree(folder / 'descriptor', workdir)
  with pytest.MonkeyPatch.context() as patch:
    data = parts.data(runs.config(**_SHORT))
    patch.setattr(parts, 'data', lambda config: data._replace(scale=3.0))
    with pytest.raises(ValueError, match=r'scale = 2\.0.* 3\.0.*data\.scaling'):
      _begin('maximum_likelihood', workdir)


def test_networks_that_a_task_does_not_learn_are_refused(folder):
  with pytest.raises(ValueError, match=r"\['generator'\].*\['descriptor'\]"):
    _begin('maximum_likelihood', folder / 'generator')
  with pytest.raises(ValueError, match=r"\['descriptor'\].*\['grid_1'"):
    _begin('multi_grid', folder / 'descriptor')


def test_no_model(folder):
  with pytest.raises(FileNotFoundError, match='no_such_model'):
    _begin('maximum_likelihood', folder / 'no_such_model')
