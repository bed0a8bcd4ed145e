"""Configs become objects; what is not possible is refused with the value."""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dnet_jax
from experiments import build
from experiments.configs import coop
from experiments.configs import default
from experiments.configs import synthesis
from experiments.configs import synthesis_all
from experiments.configs import test as test_config

CONFIGS = [
  path.stem
  for path in pathlib.Path(synthesis.__file__).parent.glob('*.py')
  if path.stem != '__init__'
]


def test_all_configs_are_found():
  assert {'default', 'demo', 'synthesis', 'synthesis_all', 'test'} <= {*CONFIGS}


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_only_overrides_fields_of_default(name):
  module = importlib.import_module(f'experiments.configs.{name}')
  config = module.get_config()
  fields = {*default.get_config().to_dict()}
  assert {*config.to_dict()} == fields
  for group in fields:
    ours, theirs = config[group], default.get_config()[group]
    if hasattr(ours, 'keys'):
      assert {*ours.keys()} == {*theirs.keys()}
  # Every config builds networks that take its grid.
  side = 32 if 'synthesis' in name else config.data.furniture_size
  y = jnp.zeros((1, side, side, side, 1))
  built = build.model(config, classes=('one', 'two'))
  if built.descriptor is not None:
    shape = jax.eval_shape(built.descriptor.init, jax.random.key(0), y)
    assert jax.tree.leaves(shape)
  if built.generator is not None:
    z = jnp.zeros((1, config.generator.latent_dim))
    made, _ = jax.eval_shape(
      functools.partial(built.generator.init_with_output, train=False),
      jax.random.key(0),
      z,
    )
    assert made.shape == y.shape
  build.optimizer(config)


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


@pytest.mark.parametrize('category', synthesis.CATEGORIES)
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


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('algorithm', 'magic', 'magic'),
    ('parallel', 'magic', 'magic'),
    ('model.network', 'magic', 'magic'),
    ('model.dtype', 'float8', 'float8'),
    ('model.reference', 'cauchy', 'cauchy'),
    ('model.reference_std', -1.0, '-1'),
    ('chains.kernel', 'hmc', 'hmc'),
    ('chains.restart_probability', 1.5, '1.5'),
    ('data.category', 'spoon', 'spoon'),
    ('data.batch_size', 1000, '1000'),
    ('data.batch_size', 0, '0'),
  ],
)
def test_impossible_values_are_refused(field, value, message):
  config = test_config.get_config()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    build.experiment(config)


@pytest.mark.parametrize(
  ('field', 'value'),
  [('members', 0), ('label_smoothing', 1.0), ('negative_share', -0.5)],
)
def test_impossible_classifiers_are_refused(field, value):
  config = test_config.get_config()
  config.algorithm = 'classify'
  config.classifier.network = 'tiny'
  config.classifier[field] = value
  with pytest.raises(ValueError, match=f'classifier.{field} .* got {value}'):
    build.experiment(config)


def test_unknown_field_is_refused():
  # As the command line locks it.
  config = test_config.get_config().lock()
  with pytest.raises((AttributeError, KeyError), match='num_stepz'):
    config.chains.num_stepz = 3


def test_network_that_does_not_fit_the_grid():
  config = test_config.get_config()
  config.model.network = 'paper_3_layer'
  config.model.padding = 'VALID'
  with pytest.raises(ValueError, match='does not'):
    build.experiment(config).init()


def test_missing_data():
  config = test_config.get_config()
  config.data.path = 'no_such_file.npz'
  with pytest.raises(FileNotFoundError, match=r'no_such_file\.npz'):
    build.experiment(config)


def test_schedule():
  config = test_config.get_config()
  config.chains.noise_iterations = 2
  temperature = build.experiment(config).temperature
  assert [temperature(i) for i in range(4)] == [1.0, 1.0, 0.0, 0.0]


def test_optimizer_is_clipped_adam_with_a_cosine():
  config = test_config.get_config()
  config.optimizer.clip_norm = 1.0
  optimizer = build.optimizer(config)
  params = jnp.zeros(3)
  state = optimizer.init(params)
  sizes = []
  for _ in range(config.train.num_iterations):
    updates, state = optimizer.update(jnp.full(3, 1e6), state, params)
    sizes.append(float(abs(updates).max()))
  rate, constant = config.optimizer.learning_rate, 2
  # Adam's step for a constant gradient is the rate itself.
  np.testing.assert_allclose(sizes[:constant], rate, rtol=1e-4)
  rest = config.train.num_iterations - constant
  t = np.arange(rest) / rest
  cosine = 0.05 + 0.95 * (1 + np.cos(np.pi * t)) / 2
  np.testing.assert_allclose(sizes[constant:], rate * cosine, rtol=1e-4)
