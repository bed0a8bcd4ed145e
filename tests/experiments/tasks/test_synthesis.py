"""Section 6.1: samples are written, and are the library's."""

import os

import jax
import numpy as np
import pytest
import trimesh

import dnet_jax
from dnet_jax import uses
from experiments import tasks
from experiments.files import summaries
from experiments.tasks import parts
from experiments.tasks import synthesis
from tests import runs
from tests.experiments import tiny


@pytest.fixture(scope='module')
def workdir(workdir_of):
  return workdir_of('synthesis')


@pytest.fixture(scope='module')
def model(workdir):
  return tiny.request(workdir).model


@pytest.mark.parametrize('start', ['chains', 'noise'])
@pytest.mark.parametrize('kind', ['workdir', 'folder'])
def test_sample_writes_everything_and_overwrites_nothing(
  start, kind, workdir_of, folder_of
):
  where = {'workdir': workdir_of, 'folder': folder_of}[kind]('synthesis')
  config = tiny.synthesis(**{'sample.start': start})
  first = synthesis.sample(tiny.request(where, config))
  second = synthesis.sample(tiny.request(where, config))
  assert first != second
  voxels = tiny.arrays(first)['voxels']
  assert voxels.shape == (3, 8, 8, 8) and voxels.dtype == np.float32
  for name in ('samples.png', 'neighbours.png', 'record.json'):
    assert os.path.getsize(os.path.join(first, name))
  assert tiny.content(first)['settings']['start'] == start
  meshes = os.listdir(os.path.join(first, 'meshes'))
  assert len(meshes) == (voxels > 0.5).any((1, 2, 3)).sum()
  for mesh in meshes:
    assert len(trimesh.load_mesh(os.path.join(first, 'meshes', mesh)).faces)
  np.testing.assert_array_equal(tiny.arrays(second)['voxels'], voxels)


def test_no_steps_give_the_chains_themselves(workdir, model):
  config = tiny.synthesis(
    **{'sample.start': 'chains', 'sample.num_steps': 0, 'sample.noise_steps': 0}
  )
  folder = synthesis.sample(tiny.request(workdir, config))
  expected = np.asarray(model.extras['chains'][:3, ..., 0])
  np.testing.assert_array_equal(
    tiny.arrays(folder)['voxels'], expected + np.float32(model.extras['mean'])
  )


@pytest.mark.parametrize('start', ['chains', 'noise'])
def test_steps_are_langevin_dynamics_without_noise(workdir, model, start):
  # `dnet_jax.score` and the update of eq. (7), nothing else.
  config = tiny.synthesis(
    **{
      'sample.start': start,
      'sample.num_steps': 3,
      'sample.noise_steps': 0,
      'sample.step_size': 0.02,
      'sample.start_std': 0.7,
      'sample.seed': 5,
    }
  )
  folder = synthesis.sample(tiny.request(workdir, config))
  if start == 'chains':
    y = model.extras['chains'][:3]
  else:
    keys = dnet_jax.chain_keys(jax.random.key(5), 3)
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    y = dnet_jax.from_noise(keys, (8, 8, 8, 1), 0.7).position
  energy_fn = uses.energy_fn(model)
  score = jax.jit(dnet_jax.score(energy_fn))
  for _ in range(3):
    y = y + 0.01 * score(y)
  np.testing.assert_allclose(
    tiny.arrays(folder)['voxels'],
    y[..., 0] + model.extras['mean'],
    atol=1e-5,
  )


def test_a_shape_does_not_depend_on_how_many_there_are(model):
  some = synthesis.synthesize(model, 2, 1, num_steps=2)
  # More than are moved at once.
  many = synthesis.synthesize(model, 60, 1, num_steps=2)
  np.testing.assert_allclose(many[:2], some, atol=1e-5)
  flat = many.reshape(60, -1)
  assert len(np.unique(flat, axis=0)) == 60


def test_some_at_a_time_is_all_at_once():
  # With one key no two shapes begin at the same training shape.
  model = dnet_jax.load('demo')
  expected = dnet_jax.synthesize(jax.random.key(3), model, 53, num_steps=0)
  found = synthesis.synthesize(model, 53, 3, num_steps=0)
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('start', 'data', "'data'"),
    ('num_samples', 1000, '1000'),
    ('num_samples', 0, '0'),
    ('temperature', -1.0, '-1'),
    ('start_std', -0.1, '-0.1'),
  ],
)
def test_impossible_settings(workdir, field, value, message):
  config = tiny.synthesis(
    **{'sample.start': 'chains', f'sample.{field}': value}
  )
  samples = os.path.join(workdir, 'samples')
  os.makedirs(samples, exist_ok=True)
  before = os.listdir(samples)
  with pytest.raises(ValueError, match=message):
    synthesis.sample(tiny.request(workdir, config))
  assert os.listdir(samples) == before


def test_a_model_without_its_data_can_be_sampled(workdir, caplog):
  config = tiny.synthesis(**{'data.path': 'nowhere.npz'})
  folder = synthesis.sample(tiny.request(workdir, config))
  assert 'neighbours.png' not in os.listdir(folder)
  assert 'samples.png' in os.listdir(folder)
  assert 'nowhere.npz' in caplog.text


def test_more_persistent_chains_than_a_model_keeps(model):
  kept = len(model.extras['chains'])
  with pytest.raises(ValueError, match=rf'num_samples={kept}$'):
    synthesis.persistent(model, kept + 1)
  extras = {k: v for k, v in model.extras.items() if k != 'chains'}
  bare = dnet_jax.Model(model.spec, model.params, extras)
  with pytest.raises(
    ValueError, match=r'keeps 0 .*--config\.sample\.start=noise'
  ):
    synthesis.persistent(bare, 1)


@pytest.mark.parametrize(
  ('start', 'number', 'times'),
  [('components', 4, 1), ('noise', 4, 1), ('noise', 0, 0)],
)
def test_components_are_found_once(monkeypatch, start, number, times):
  found, find = [], summaries.principal_components

  def counted(*arguments):
    found.append(find(*arguments))
    return found[-1]

  monkeypatch.setattr(summaries, 'principal_components', counted)
  config = runs.config(
    **{
      'chains.start': start,
      'components.number': number,
      'data.furniture_shapes': 20,
    }
  )
  made = tasks.TASKS[config.task].experiment(config, parts.data(config))
  assert len(found) == times
  assert ('components' in made.extras) == bool(number)
