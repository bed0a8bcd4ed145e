"""Section 6.6: multi-grid models, sampled, sharpened, scored."""

import os

import jax
import numpy as np
import pytest

import dnet_jax
from dnet_jax import kernels
from dnet_jax import uses
from dnet_jax.uses import synthesis as library
from experiments import evaluate
from experiments import export
from experiments import train
from experiments.configs import multigrid as multigrid_config
from experiments.configs import multigrid_sofa
from experiments.files import summaries
from experiments.tasks import multi_grid
from experiments.tasks import networks
from experiments.tasks import parts
from tests.experiments import tiny


@pytest.fixture(scope='module')
def workdir(workdir_of):
  return workdir_of('multi_grid')


@pytest.fixture(scope='module')
def folder(folder_of):
  return folder_of('multi_grid')


def test_the_preview_is_fresh_samples_of_the_finest_grid(workdir):
  assert os.listdir(os.path.join(workdir, 'pictures')) == ['chains_000004.png']
  config = tiny.multi_grid()
  model = tiny.request(workdir).model
  experiment = multi_grid.TASK.experiment(config, parts.data(config))
  shown = experiment.preview(model)
  assert shown.shape == (2, 8, 8, 8)
  expected = dnet_jax.synthesize(parts.fixed_key(config), model, 2)
  np.testing.assert_array_equal(shown, expected)
  assert (shown[0] != shown[1]).any()


@pytest.mark.parametrize('kind', ['workdir', 'folder'])
def test_samples_are_the_librarys(kind, request):
  model = tiny.request(request.getfixturevalue(kind)).model
  made = multi_grid.samples(model, 3, 5)
  assert [y.shape for y in made] == [(3, d, d, d) for d in tiny.GRIDS]
  # From averages of the histogram, by eq. (7) on each grid.
  keys = dnet_jax.chain_keys(jax.random.key(5), 3)
  y = library.draw_averages(kernels.fold_in(keys, 2), model)
  sampler = dnet_jax.make_sampler(num_steps=3, step_size=0.01)
  expected = jax.jit(
    lambda model, keys, y: dnet_jax.sample_grids(
      keys,
      [uses.energy_fn(model, grid) for grid in (0, 1)],
      uses.to_network(model, y),
      (2, 4),
      sampler,
      np.array([0.1, 0.0], np.float32),
    )
  )(model, keys, y)
  for a, b in zip(made, expected, strict=True):
    np.testing.assert_allclose(a, uses.from_network(model, b), atol=1e-5)


def test_sample_draws_every_grid_and_sharpens(folder):
  first = multi_grid.sample(tiny.request(folder))
  assert os.path.basename(first).startswith('grids')
  assert {'grids.png', 'grid_2.npz', 'grid_8.npz', 'voxels.npz'} <= {
    *os.listdir(first)
  }
  fine = tiny.arrays(first, 'grid_8.npz')['voxels']
  np.testing.assert_array_equal(tiny.arrays(first)['voxels'], fine)
  # The coarse grid of a sample gives its fine one: at T = 0 nothing else.
  source = os.path.join(first, 'grid_2.npz')
  again = multi_grid.sample(tiny.request(folder, input=source))
  np.testing.assert_allclose(tiny.arrays(again)['voxels'], fine, atol=1e-5)
  coarse = tiny.arrays(again, 'grid_2.npz')['voxels']
  assert coarse.shape == (3, 2, 2, 2)


def test_evaluation(folder, workdir, tmp_path):
  out = str(tmp_path / 'multigrid.json')
  result = evaluate.evaluate(tiny.request(folder, out=out))
  written = tiny.content(tmp_path, 'multigrid.json')
  assert written['grids'].keys() == result['grids'].keys()
  assert 'fresh' in result['scores'] and 'persistent' not in result['scores']
  assert [*result['grids']] == ['2^3', '8^3']
  fine = result['grids']['8^3']
  assert fine['level'] == 0.5
  for name, value in fine['samples'].items():
    assert value == result['scores']['fresh'][name], name
  # The training shapes come from the histogram itself, but for its bins.
  averages = result['averages']
  train = parts.data(tiny.multi_grid()).train
  bins = np.diff(summaries.histogram(train)['edges'])
  assert averages['training shapes']['wasserstein'] == 0
  assert averages['histogram']['wasserstein'] <= bins.max()
  assert result['cost']['steps'] == {'2^3': 3, '8^3': 3}
  assert result['cost']['seconds_per_sample'] >= 0
  config = tiny.multi_grid(**{'evaluate.baseline': workdir})
  with pytest.raises(ValueError, match='one descriptor'):
    evaluate.evaluate(tiny.request(folder, config))


@pytest.mark.slow
def test_evaluation_beside_a_baseline(folder, folder_of):
  config = tiny.multi_grid(
    **{
      'evaluate.baseline': folder_of('synthesis'),
      'evaluate.baseline_steps': 2,
      # Settings of a config count, those of the model do not.
      'sample.num_steps': 1,
    }
  )
  result = evaluate.evaluate(tiny.request(folder, config))
  assert result['cost']['steps'] == {'2^3': 1, '8^3': 1}
  baseline = result['baseline']
  assert (baseline['name'], baseline['steps']) == ('test', 2)
  finest = result['grids']['8^3']['samples']
  assert {*baseline['scores']} == {*finest}
  assert baseline['scores'] != finest


def test_chains_that_begin_at_components(tmp_path):
  config = tiny.multi_grid(
    **{
      'model.grid_reference_stds': (0.5, 0.25),
      'model.enlarge': 'linear',
      'components.number': 10_000,
      'chains.start': 'components',
      'sample.start': 'components',
    }
  )
  workdir, folder = str(tmp_path / 'run'), str(tmp_path / 'model')
  train.train(config, workdir)
  export.export(workdir, folder, weights='int8')
  model, saved = tiny.request(workdir).model, tiny.request(folder).model
  train_shapes = parts.data(config).train
  kept = model.extras['components']
  assert kept['directions'].shape == (len(train_shapes) // 3, 2, 2, 2, 1)
  coarse = train_shapes.reshape(-1, 2, 4, 2, 4, 2, 4).mean((2, 4, 6))
  np.testing.assert_allclose(
    kept['mean'][..., 0] + float(model.extras['mean']),
    coarse.mean(0),
    atol=1e-5,
  )
  np.testing.assert_allclose(model.extras['reference_std'], (0.5, 0.25))
  assert model.spec.enlarge == saved.spec.enlarge == 'linear'
  made = multi_grid.samples(saved, 3, 5)
  assert [y.shape for y in made] == [(3, d, d, d) for d in tiny.GRIDS]
  assert (made[0][0] != made[0][1]).any()
  np.testing.assert_allclose(
    multi_grid.samples(model, 3, 5)[1], made[1], 0, 0.2
  )


def test_levels_make_test_shapes_as_full_on_each_grid():
  rng = np.random.default_rng(0)
  grid = rng.random((50, 4, 4, 4))
  level = multi_grid._level(grid, 0.1)
  assert abs((grid > level).mean() - 0.1) < 0.01


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'model.grids': (3, 8)}, r'3, 8'),
    ({'model.grids': (8, 2)}, r'8, 2|side of the data'),
    ({'model.grids': (2, 4)}, 'side of the data'),
    ({'model.grids': (8,)}, 'as many'),
    ({'chains.grid_temperatures': (1.0,)}, 'grid_temperatures'),
    ({'chains.grid_temperatures': (1.0, -1.0)}, r'-1'),
    ({'model.grid_reference_stds': (1.0,)}, r'grid_reference_stds .*\(1\.0,\)'),
    ({'model.enlarge': 'cubic'}, "model.enlarge .*'cubic'"),
  ],
)
def test_impossible_configs(overrides, message):
  config = tiny.multi_grid(**overrides)
  with pytest.raises(ValueError, match=message):
    multi_grid.TASK.experiment(config, parts.data(config))


@pytest.mark.parametrize(
  ('shape', 'message'),
  [((2, 8, 8, 8), '8, 8'), ((2, 4, 4, 4), '4, 4'), ((2, 2, 2), '2, 2')],
)
def test_shapes_that_cannot_be_sharpened(folder, shape, message):
  model = tiny.request(folder).model
  with pytest.raises(ValueError, match=message):
    multi_grid.samples(model, 2, 0, np.zeros(shape))


def test_other_models_have_no_grids(folder_of):
  model = tiny.request(folder_of('synthesis')).model
  with pytest.raises(ValueError, match='of several grids'):
    multi_grid.samples(model, 1, 0)


def test_the_papers_grids():
  config = multigrid_sofa.get_config('paper')
  assert str(config) == str(multigrid_config.get_config('sofa,paper'))
  assert config.model.grids == (4, 16, 32, 64)
  assert parts.grid_factors(config) == (4, 4, 2, 2)
  np.testing.assert_allclose(
    parts.temperature_at(config, 0), (0.01, 0.001, 0, 0)
  )
  text = multigrid_sofa.get_config('text')
  assert parts.temperature_at(text, text.train.num_iterations - 1) == 1
  for name in config.model.grid_networks:
    sizes = networks.descriptor_sizes(config, name)
    assert sizes.features == (100,) and sizes.kernel_sizes == (5,)
  with pytest.raises(ValueError, match='spoon'):
    multigrid_config.get_config('spoon')
  with pytest.raises(ValueError, match='large'):
    multigrid_config.get_config('sofa,large')


@pytest.mark.parametrize('size', ['', ',paper'])
def test_every_network_takes_its_grid(size):
  config = multigrid_config.get_config('sofa' + size)
  for name, side in zip(
    config.model.grid_networks, config.model.grids, strict=True
  ):
    network = networks.descriptor(
      config, networks.descriptor_sizes(config, name)
    )
    out = jax.eval_shape(
      lambda key, d=network, side=side: d.init_with_output(
        key, jax.numpy.zeros((2, side, side, side, 1))
      )[0],
      jax.random.key(0),
    )
    assert out.shape == (2,)
