"""Configs only override the default, and each makes its experiment."""

import importlib
import pathlib

import jax
import pytest

import dnet_jax
from experiments import configs
from experiments import tasks
from experiments import train
from experiments.configs import arguments
from experiments.configs import coop
from experiments.configs import default
from experiments.configs import demo
from experiments.configs import synthesis
from experiments.configs import synthesis_all
from experiments.configs import test as test_config
from experiments.files import datasets
from experiments.tasks import checks
from experiments.tasks import networks
from experiments.tasks import parts

NAMES = sorted(
  path.stem
  for path in pathlib.Path(*configs.__path__).glob('*.py')
  if path.stem not in ('__init__', 'arguments')
)
# Those with sizes of the paper, and a category where one has to be named.
SIZED = {
  name: 'sofa,paper'
  for name in (
    'abp',
    'coop',
    'multigrid',
    'recovery',
    'super_resolution',
    'synthesis',
  )
} | {'synthesis_all': 'paper'}
SIZES = [('recovery', 'chair,mixture'), ('super_resolution', 'sofa,64')]
EVERY = [(name, None) for name in NAMES] + [*SIZED.items()] + SIZES


def _config(name, argument):
  module = importlib.import_module(f'experiments.configs.{name}')
  return module.get_config(*() if argument is None else (argument,))


def _fields(config, prefix=''):
  for name, value in config.items():
    if isinstance(value, dict):
      yield from _fields(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', type(value)


def test_all_configs_are_found():
  assert {'default', 'demo', 'synthesis', 'synthesis_all', 'test'} <= {*NAMES}


@pytest.mark.parametrize(('name', 'argument'), EVERY)
def test_every_config_only_overrides_fields_of_default(name, argument):
  config = _config(name, argument).to_dict()
  assert dict(_fields(config)) == dict(_fields(default.get_config().to_dict()))


@pytest.mark.parametrize(('name', 'argument'), EVERY)
def test_every_config_makes_its_experiment(name, argument, monkeypatch):
  # With no more furniture than its mini-batches need, whatever it learns from.
  config = _config(name, argument)
  checks.check(config)
  kinds = 1 if config.data.category != 'all' else 5
  if kinds == 1:
    config.data.category = 'chair'
  config.data.path = datasets.FURNITURE
  needed = config.data.batch_size
  if config.corruption.components_std or config.super_resolve.components_std:
    needed = round(needed / config.components.share)
  config.data.furniture_shapes = max(-(-needed // kinds), 2)
  if config.components.number:
    config.components.number = 1
  # Only what shapes the program: a descriptor of the paper has millions.
  for maker in ('init_descriptor', 'init_generator'):
    make = getattr(networks, maker)
    monkeypatch.setattr(
      networks,
      maker,
      lambda *args, make=make: jax.eval_shape(lambda: make(*args)),
    )
  experiment = tasks.TASKS[config.task].experiment(config, parts.data(config))
  spec = experiment.spec
  assert spec.grid == (config.data.size,) * 3
  if spec.classifier is None:
    learned = [name for phase in experiment.phases for name in phase.networks]
    assert {*experiment.params()} == {*learned}
  assert [phase.iterations for phase in experiment.phases][-1] == (
    config.train.num_iterations
  )
  for phase in experiment.phases:
    assert all(phase.temperature(step) is not None for step in (0, 10**6))
  assert {*experiment.extras} >= {'mean', 'scale', 'settings'}
  assert {use for use, _ in spec.uses} == {*experiment.extras['settings']}


@pytest.mark.slow
def test_the_demo_learns(tmp_path):
  config = demo.get_config()
  config.data.path = datasets.FURNITURE
  config.train.num_iterations = 1
  config.train.picture_shapes = 1
  model = train.train(config, str(tmp_path / 'run'))
  assert model.spec.grid == (config.data.size,) * 3


@pytest.mark.parametrize('category', ['sofa', 'toilet', 'night_stand'])
def test_coop_is_section_6_4(category):
  config = importlib.import_module(f'experiments.configs.coop_{category}')
  assert config.get_config().data.category == category
  paper = coop.get_config(f'{category},paper')
  assert (paper.data.scaling, paper.data.batch_size) == ('symmetric', 50)
  assert paper.chains.num_chains == 50
  optimizer, generator = paper.optimizer, paper.generator
  assert (optimizer.learning_rate, optimizer.b1) == (0.001, 0.4)
  assert (generator.learning_rate, generator.b1) == (0.0003, 0.6)
  sizes = dnet_jax.DESCRIPTORS[paper.model.network]
  assert sizes['features'] == (64, 128, 256)
  assert sizes['kernel_sizes'] == (9, 7, 4)
  sizes = dnet_jax.GENERATORS[generator.network]
  assert sizes == dict(features=(256, 128, 64, 1), factors=(1, 2, 2, 2))
  with pytest.raises(ValueError, match='spoon'):
    coop.get_config('spoon')


@pytest.mark.parametrize('category', arguments.CATEGORIES)
def test_synthesis_takes_the_ten_categories(category):
  config = synthesis.get_config(category)
  assert config.data.category == category
  paper = synthesis.get_config(f'{category},paper')
  sizes = dnet_jax.DESCRIPTORS[paper.model.network]
  assert sizes == dict(
    features=(200, 100), kernel_sizes=(16, 6), strides=(3, 2)
  )


def test_synthesis_all_is_all():
  assert synthesis_all.get_config().data.category == 'all'
  assert synthesis_all.get_config('paper').model.network == 'paper_3_layer'
  with pytest.raises(ValueError, match='spoon'):
    synthesis.get_config('spoon')


def test_unknown_field_is_refused():
  # As the command line locks it.
  config = test_config.get_config().lock()
  with pytest.raises((AttributeError, KeyError), match='num_stepz'):
    config.chains.num_stepz = 3


def test_components_are_at_most_a_third_of_the_shapes():
  # Training shapes of ModelNet10.
  shapes = {
    'bathtub': 105,
    'bed': 499,
    'chair': 875,
    'desk': 200,
    'dresser': 195,
    'monitor': 463,
    'night_stand': 199,
    'sofa': 663,
    'table': 387,
    'toilet': 342,
  }
  shapes['all'] = sum(shapes.values())
  assert synthesis.COMPONENTS.keys() == shapes.keys()
  for category, number in synthesis.COMPONENTS.items():
    assert 3 * number <= shapes[category], category
