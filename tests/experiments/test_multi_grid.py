"""Multi-grid models: learned, resumed, exported, sampled, sharpened, scored."""

import functools
import json
import os

import jax
import numpy as np
import pytest

import dnet_jax
from experiments import build
from experiments import evaluate
from experiments import exported
from experiments import multigrid
from experiments import train
from experiments.configs import multigrid as multigrid_config
from experiments.configs import multigrid_sofa
from experiments.configs import test as test_config
from experiments.files import checkpoints
from experiments.files import datasets
from tests import runs

GRIDS = (2, 8)


def _config(**overrides):
  config = test_config.get_config()
  config.algorithm = 'multi_grid'
  config.model.grids = GRIDS
  config.model.grid_networks = ('tiny', 'tiny')
  config.chains.grid_temperatures = (0.1, 0.0)
  config.chains.noise_iterations = -1
  config.sample.start = 'grids'
  config.sample.num_steps = 0
  config.sample.mesh_format = ''
  config.evaluate.num_shapes = 3
  config.evaluate.num_steps = 0
  config.evaluate.noise_steps = 0
  config.train.num_iterations = 4
  config.train.picture_every = 4
  config.update_from_flattened_dict(overrides)
  return config


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = str(tmp_path_factory.mktemp('run') / 'run')
  train.train(_config(), path)
  return path


@pytest.fixture(scope='module')
def folder(workdir, tmp_path_factory):
  path = str(tmp_path_factory.mktemp('out') / 'model')
  exported.export(workdir, path)
  return path


def test_a_stopped_run_goes_on_to_the_bit(workdir, tmp_path):
  stopped = str(tmp_path / 'stopped')
  assert runs.stop(_config(), stopped, call=4) == 2
  state = train.train(_config(), stopped)
  like = {'algorithm': build.experiment(_config()).init(), 'rollbacks': 0}
  step, whole = checkpoints.restore(workdir, like)
  assert step == 4
  runs.assert_equal(state, whole['algorithm'])
  # All grids have learned.
  for before, after in zip(
    like['algorithm'].learners, state.learners, strict=True
  ):
    kernels = [x.params['params']['last']['kernel'] for x in (before, after)]
    assert float(abs(kernels[0] - kernels[1]).max()) > 0


def test_pictures_are_samples_from_scratch(workdir):
  assert os.listdir(os.path.join(workdir, 'pictures')) == ['chains_000004.png']
  trained = exported.load(workdir)
  made = multigrid.samples(trained, num_samples=2, seed=trained.config.seed)
  np.testing.assert_allclose(
    datasets.to_voxels(trained.chains, trained.mean), made[-1], atol=1e-5
  )


@pytest.mark.parametrize('kind', ['workdir', 'folder'])
def test_samples_are_the_librarys(kind, request):
  trained = exported.load(request.getfixturevalue(kind))
  made = multigrid.samples(trained, num_samples=3, seed=5)
  assert [y.shape for y in made] == [(3, d, d, d) for d in GRIDS]
  y = datasets.draw_averages(trained.variables['histogram'], 3, 5)
  y = datasets.to_network(y, trained.mean)
  sample = functools.partial(
    dnet_jax.sample_grids,
    num_steps=3,
    step_size=0.01,
    temperature=(0.1, 0.0),
  )
  expected = jax.jit(
    lambda keys, grids, y: sample(
      keys,
      [
        functools.partial(f, grids[f'grid{i}'])
        for i, f in enumerate(trained.model.grid_energies, 1)
      ],
      y,
      (2, 4),
    )
  )(dnet_jax.chain_keys(jax.random.key(5), 3), trained.variables['grids'], y)
  for a, b in zip(made, expected, strict=True):
    np.testing.assert_allclose(a, b[..., 0] + trained.mean, atol=1e-5)


def test_sample_draws_every_grid_and_sharpens(folder):
  config = _config()
  first = evaluate.sample(config, folder)
  assert first.endswith('grids')
  assert {'grids.png', 'grid_2.npz', 'grid_8.npz', 'voxels.npz'} <= {
    *os.listdir(first)
  }
  with np.load(os.path.join(first, 'grid_8.npz')) as file:
    fine = file['voxels']
  with np.load(os.path.join(first, 'voxels.npz')) as file:
    np.testing.assert_array_equal(file['voxels'], fine)
  # The coarse grid of a sample gives its fine one: at T = 0 nothing else.
  again = evaluate.sample(config, folder, os.path.join(first, 'grid_2.npz'))
  with np.load(os.path.join(again, 'voxels.npz')) as file:
    np.testing.assert_allclose(file['voxels'], fine, atol=1e-5)
  with np.load(os.path.join(again, 'grid_2.npz')) as file:
    assert file['voxels'].shape == (3, 2, 2, 2)


def test_evaluation(folder, workdir, tmp_path):
  out = str(tmp_path / 'multigrid.json')
  result = evaluate.evaluate(_config(), folder, out)
  with open(out, encoding='utf-8') as file:
    assert json.load(file)['grids'].keys() == result['grids'].keys()
  assert 'fresh' in result['scores'] and 'persistent' not in result['scores']
  assert [*result['grids']] == ['2^3', '8^3']
  fine = result['grids']['8^3']
  assert fine['level'] == 0.5
  for name, value in fine['samples'].items():
    assert value == result['scores']['fresh'][name], name
  # The training shapes come from the histogram itself, but for its bins.
  averages = result['averages']
  bins = np.diff(datasets.histogram(build.data(_config()).train)['edges'])
  assert averages['training shapes']['wasserstein'] == 0
  assert averages['histogram']['wasserstein'] <= bins.max()
  assert result['cost']['steps'] == {'2^3': 3, '8^3': 3}
  assert result['cost']['seconds_per_sample'] >= 0
  with pytest.raises(ValueError, match='one descriptor'):
    evaluate.evaluate(_config(**{'evaluate.baseline': workdir}), folder)


def test_levels_make_test_shapes_as_full_on_each_grid():
  rng = np.random.default_rng(0)
  grid = rng.random((50, 4, 4, 4))
  level = multigrid._level(grid, 0.1)
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
  ],
)
def test_impossible_configs(overrides, message):
  with pytest.raises(ValueError, match=message):
    build.experiment(_config(**overrides)).temperature(0)


@pytest.mark.parametrize(
  ('shape', 'message'),
  [((2, 8, 8, 8), '8, 8'), ((2, 4, 4, 4), '4, 4'), ((2, 2, 2), '2, 2')],
)
def test_shapes_that_cannot_be_sharpened(folder, shape, message):
  with pytest.raises(ValueError, match=message):
    multigrid.samples(
      exported.load(folder), num_samples=2, seed=0, coarse=np.zeros(shape)
    )


def test_other_models_have_no_grids(folder):
  trained = exported.load(folder)
  other = trained._replace(variables={'descriptor': trained.params})
  with pytest.raises(ValueError, match='multi-grid'):
    multigrid.samples(other, num_samples=1, seed=0)


def test_the_papers_grids():
  config = multigrid_sofa.get_config()
  assert config == multigrid_config.get_config('sofa,paper')
  assert config.model.grids == (4, 16, 32, 64)
  assert build.grid_factors(config) == (4, 4, 2, 2)
  for descriptor in build.model(config).grid_descriptors:
    assert descriptor.features == (100,) and descriptor.kernel_sizes == (5,)
  with pytest.raises(ValueError, match='spoon'):
    multigrid_config.get_config('spoon')
  with pytest.raises(ValueError, match='large'):
    multigrid_config.get_config('sofa,large')


@pytest.mark.parametrize('size', ['', ',paper'])
def test_every_network_takes_its_grid(size):
  config = multigrid_config.get_config('sofa' + size)
  for descriptor, side in zip(
    build.model(config).grid_descriptors, config.model.grids, strict=True
  ):
    shape = (2, side, side, side, 1)
    out = jax.eval_shape(
      lambda key, d=descriptor, s=shape: d.init_with_output(
        key, jax.numpy.zeros(s)
      )[0],
      jax.random.key(0),
    )
    assert out.shape == (2,)
