"""A generator's latent space, on a tiny cooperative run."""

import functools
import json
import os

import jax
import numpy as np
import pytest
import trimesh

import dnet_jax
from experiments import build
from experiments import evaluate
from experiments import exported
from experiments import latent
from experiments import train
from experiments.configs import test as test_config
from experiments.files import checkpoints
from tests import runs

DIM = 4


def _config(**overrides):
  config = test_config.get_config()
  config.algorithm = 'cooperative'
  config.data.scaling = 'symmetric'
  config.generator.network = 'tiny'
  config.generator.latent_dim = DIM
  config.generator.init_std = 0.3  # Shapes that differ, without learning.
  config.chains.num_steps = 2
  config.train.picture_every = 1000
  config.latent.num_rows = 2
  config.latent.num_columns = 4
  config.latent.search = 12
  config.latent.num_starts = 3
  config.latent.num_steps = 60
  config.latent.step_size = 0.03
  config.latent.noise_std = 1.0
  config.latent.num_reconstructed = 2
  config.update_from_flattened_dict(overrides)
  return config


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = str(tmp_path_factory.mktemp('run') / 'run')
  train.train(_config(), path)
  return path


@pytest.fixture(scope='module')
def trained(workdir):
  return exported.load(workdir)


def _arrays(folder):
  with np.load(os.path.join(folder, 'voxels.npz')) as file:
    return {name: file[name] for name in file.files}


def _check_files(folder, arrays):
  assert os.path.getsize(os.path.join(folder, 'picture.png'))
  with open(os.path.join(folder, 'record.json')) as file:
    assert json.load(file)['experiment'] == 'test'
  for name, array in arrays.items():
    assert np.isfinite(array).all(), name
  paths = [
    os.path.join(root, name)
    for root, _, names in os.walk(os.path.join(folder, 'meshes'))
    for name in names
  ]
  assert paths and len(trimesh.load_mesh(paths[0]).faces)


def test_a_resumed_cooperative_run_is_the_run(workdir, tmp_path):
  # Iteration 5 of 6 fails, between two checkpoints.
  config = _config()
  stopped = str(tmp_path / 'stopped')
  assert runs.stop(config, stopped, call=6) == 4
  state = train.train(config, stopped)
  first = build.experiment(config).init()
  like = {'algorithm': first, 'rollbacks': 0}
  _, whole = checkpoints.restore(workdir, like)
  runs.assert_equal(state, whole['algorithm'])
  # Negative control: both networks and the averages have moved.
  for name in ('learner', 'generator'):
    before, after = (jax.tree.leaves(getattr(s, name)) for s in (first, state))
    moved = [
      np.asarray(a != b).any() for a, b in zip(before, after, strict=True)
    ]
    assert np.mean(moved) > 0.5


def test_generate_is_one_pass_of_the_generator(workdir, trained, tmp_path):
  folder = str(tmp_path / 'model')
  exported.export(workdir, folder)
  assert os.path.getsize(os.path.join(folder, 'curves.png'))
  config = _config(**{'sample.num_steps': 2, 'sample.num_samples': 3})
  first = latent.generate(config, folder)
  assert first != latent.generate(config, folder)
  arrays = _arrays(first)
  _check_files(first, arrays)
  assert arrays['voxels'].shape == arrays['refined'].shape == (3, 8, 8, 8)
  z = latent.draw(trained, 5, config.sample.seed)
  np.testing.assert_array_equal(arrays['z'], z[:3])
  apply = functools.partial(trained.model.generator.apply, train=False)
  expected = jax.jit(apply)(trained.variables['generator'], z[:3])
  # Parameters of an export are float16.
  np.testing.assert_allclose(
    arrays['voxels'], (expected[..., 0] + 1) / 2, atol=0.02
  )
  assert (arrays['voxels'].std(axis=0) > 0.05).any()


def test_latent_factors_are_of_the_prior(trained):
  z = latent.draw(trained, 2000, 1)
  assert abs(z.mean()) < 5 / z.size**0.5
  assert abs((z**2).mean() - 1) < 5 * (2 / z.size) ** 0.5


def test_sample_starts_at_the_generator(trained):
  common = dict(noise_steps=0, temperature=0.0, step_size=0.02, seed=3)
  start, moved = (
    evaluate.run(
      trained, start='generator', num_samples=2, num_steps=steps, **common
    )
    for steps in (0, 3)
  )
  np.testing.assert_array_equal(
    start, latent.shapes(trained, latent.draw(trained, 2, 3))
  )
  y = 2 * start[..., None] - 1
  score = jax.jit(dnet_jax.score(trained.energy_fn))
  for _ in range(3):
    y = y + 0.01 * score(y)
  np.testing.assert_allclose(moved, (y[..., 0] + 1) / 2, atol=1e-5)


def test_paths_between_latent_factors():
  rng = np.random.default_rng(0)
  z_0, z_1 = rng.normal(size=(2, 100))
  z_1 *= np.linalg.norm(z_0) / np.linalg.norm(z_1)
  for path in latent.PATHS.values():
    z = path(z_0, z_1, 8)
    assert z.shape == (8, 100)
    np.testing.assert_allclose(z[[0, -1]], [z_0, z_1], atol=1e-12)
  z = latent.linear(z_0, z_1, 8)
  np.testing.assert_allclose(np.diff(z, axis=0), np.tile(z[1] - z[0], (7, 1)))
  # On the sphere lengths and angles are equal; along the line they are not.
  z = latent.spherical(z_0, z_1, 8)
  lengths = np.linalg.norm(z, axis=1)
  np.testing.assert_allclose(lengths, lengths[0])
  cosines = (z[1:] * z[:-1]).sum(1) / lengths[0] ** 2
  np.testing.assert_allclose(cosines, cosines[0])
  middle = latent.linear(z_0, z_1, 3)[1]
  assert np.linalg.norm(middle) < 0.9 * lengths[0]
  np.testing.assert_allclose(latent.spherical(z_0, 2 * z_0, 3)[1], 1.5 * z_0)


def test_interpolate(workdir, trained):
  config = _config()
  folder = latent.interpolate(config, workdir)
  arrays = _arrays(folder)
  _check_files(folder, arrays)
  assert arrays['linear'].shape == (2, 4, 8, 8, 8)
  ends = latent.shapes(trained, latent.draw(trained, 4, config.sample.seed))
  for name in latent.PATHS:
    found = arrays[name][:, [0, -1]].reshape(4, 8, 8, 8)
    np.testing.assert_allclose(found, ends, atol=1e-4)
    np.testing.assert_allclose(
      arrays[name][1, 2],
      latent.shapes(trained, arrays[f'z_{name}'][1, 2:3])[0],
      atol=1e-4,
    )
  assert os.listdir(os.path.join(folder, 'meshes', 'spherical'))


def _lidded():
  """Bases 0 to 3 below; shapes 4 to 7 are the same with a lid."""
  shapes = np.zeros((8, 8, 8, 8), np.float32)
  for i in range(4):
    shapes[i::4, 2 * i : 2 * i + 2, :, :4] = 1
  shapes[4:, :, :, 6] = 1
  shapes[5, 0, 0, 6] = 0  # The others have the whole of it.
  return shapes


def test_examples_are_pairs_that_differ_in_one_half():
  (a, b, c, half), *_ = latent.find_examples(_lidded(), 1)
  assert half == 'high z'
  assert a in (4, 6, 7) and b == a - 4
  # c has no lid either, and another base.
  assert c in {0, 1, 2, 3} - {b}
  with pytest.raises(ValueError, match='got 2'):
    latent.find_examples(_lidded()[:2], 1)


def test_arithmetic(workdir, trained):
  config = _config(**{'latent.examples': (3, 1, 0, 2, 4, 5)})
  folder = latent.arithmetic(config, workdir)
  arrays = _arrays(folder)
  _check_files(folder, arrays)
  z = latent.draw(trained, 12, config.sample.seed)
  np.testing.assert_allclose(
    arrays['z'][:, 3], [z[0] + z[3] - z[1], z[5] + z[2] - z[4]], atol=1e-6
  )
  np.testing.assert_allclose(
    arrays['voxels'].reshape(8, 8, 8, 8),
    latent.shapes(trained, arrays['z'].reshape(8, DIM)),
    atol=1e-4,
  )
  folder = latent.arithmetic(_config(), workdir)
  with open(os.path.join(folder, 'record.json')) as file:
    examples = json.load(file)['examples']
  assert _arrays(folder)['voxels'].shape == (len(examples), 4, 8, 8, 8)
  for wrong in ((1, 2), (1, 2, 99)):
    with pytest.raises(ValueError, match=str(wrong[-1])):
      latent.arithmetic(_config(**{'latent.examples': wrong}), workdir)


def _error(trained, z, voxels, where=True):
  return float(np.mean((latent.shapes(trained, z) - voxels) ** 2, where=where))


@pytest.mark.parametrize('partly', [False, True])
def test_latent_factors_of_a_generated_shape_are_found(trained, partly):
  voxels = latent.shapes(trained, latent.draw(trained, 3, 7))
  settings = latent._infer_settings(_config())
  settings['num_steps'] = 200
  visible = np.ones(voxels.shape, bool)
  if partly:
    visible[:, :4] = False
  z = latent.infer(trained, voxels, visible, **settings)
  # Also of what was hidden: far better than any draw of the prior.
  error = _error(trained, z, voxels)
  draws = latent.shapes(trained, latent.draw(trained, 30, 8))
  best = np.mean([((draws - y) ** 2).mean((1, 2, 3)).min() for y in voxels])
  assert error < best / 3
  if partly:  # Hidden voxels are not read.
    other = np.where(visible, voxels, 1 - voxels)
    np.testing.assert_array_equal(
      latent.infer(trained, other, visible, **settings), z
    )


def test_reconstruct_writes_what_it_rebuilt(workdir, trained, tmp_path):
  source = str(tmp_path / 'some.npz')
  shapes = (latent.shapes(trained, latent.draw(trained, 2, 7)) > 0.5) * 1.0
  np.savez(source, voxels=shapes)
  hidden = str(tmp_path / 'visible.npy')
  visible = np.ones((8, 8, 8), bool)
  visible[:4] = False
  np.save(hidden, visible)
  folder = latent.reconstruct(_config(), workdir, source, hidden)
  arrays = _arrays(folder)
  _check_files(folder, arrays)
  assert os.path.basename(folder) == 'reconstruct_some'
  assert arrays['voxels'].shape == (2, 8, 8, 8)
  np.testing.assert_array_equal(arrays['input'], shapes)
  assert (arrays['visible'] == visible).all()
  np.testing.assert_allclose(
    arrays['voxels'], latent.shapes(trained, arrays['z']), atol=1e-4
  )
  with pytest.raises(FileNotFoundError, match=r'none\.npz'):
    latent.reconstruct(_config(), workdir, str(tmp_path / 'none.npz'))
  np.save(hidden, np.zeros((8, 8, 8), bool))
  with pytest.raises(ValueError, match='0 visible voxels'):
    latent.reconstruct(_config(), workdir, source, hidden)


def test_impossible_settings_are_refused(workdir, trained):
  voxels = np.zeros((1, 8, 8, 8), np.float32)
  settings = latent._infer_settings(_config())
  for change, message in (
    ({'step_size': 1e6}, '1000000'),
    ({'num_starts': 0}, 'got 0'),
    ({'noise_std': 0.0}, 'noise_std'),
  ):
    with pytest.raises(ValueError, match=message):
      latent.infer(trained, voxels, **settings | change)
  with pytest.raises(ValueError, match=r'\(4, 4, 4\)'):
    latent.infer(trained, voxels[:, :4, :4, :4], **settings)
  with pytest.raises(ValueError, match='num_columns'):
    latent.interpolate(_config(**{'latent.num_columns': 1}), workdir)
  none = trained.model._replace(generator=None)
  with pytest.raises(ValueError, match='no generator'):
    latent.draw(trained._replace(model=none), 1, 0)
  with pytest.raises(ValueError, match='no descriptor'):
    latent.refine(trained._replace(energy_fn=None), voxels)


def test_evaluate_scores_generated_and_refined_shapes(workdir, tmp_path):
  out = str(tmp_path / 'result.json')
  result = evaluate.evaluate(_config(), workdir, out)
  with open(out) as file:
    assert json.load(file) == json.loads(json.dumps(result))
  assert {'generated', 'refined', 'fresh', 'test shapes'} <= {*result['scores']}
  assert 'persistent' not in result['scores']
  seconds = result['seconds_per_shape']
  assert 0 < seconds['generated'] < seconds['refined']
  assert {*result['interpolation']} >= {*latent.PATHS}
  assert 0 <= result['reconstruction']['iou'] <= 1


def test_alternating_back_propagation_trains_and_generates(tmp_path):
  config = _config(
    algorithm='alternating_back_propagation',
    **{'chains.step_size': 0.03, 'generator.noise_std': 1.0},
  )
  config.train.num_iterations = 60
  config.train.checkpoint_every = 60
  config.generator.learning_rate = 0.01
  workdir = str(tmp_path / 'abp')
  state = train.train(config, workdir)
  assert int(state.iteration) == 60
  trained = exported.load(workdir)
  assert trained.energy_fn is None
  assert {*latent.sets(trained, 2, 0)} == {'generated'}
  # It rebuilds training shapes better than their mean does.
  voxels = build.data(config).train[:4].astype(np.float32)
  settings = latent._infer_settings(config)
  error = _error(trained, latent.infer(trained, voxels, **settings), voxels)
  mean = build.data(config).train.mean(axis=0, dtype=np.float32)
  assert error < np.mean((voxels - mean) ** 2)

  # Cooperative learning may begin there; its descriptor is a fresh one.
  begun = build.experiment(_config()).init(trained.variables)
  runs.assert_equal(
    begun.generator.params, trained.variables['generator']['params']
  )
