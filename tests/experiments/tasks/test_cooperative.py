"""Section 6.4: a generator's latent space, of a tiny cooperative run."""

import json
import os

import jax
import numpy as np
import pytest
import trimesh

import dnet_jax
from dnet_jax import uses
from dnet_jax.uses import latent
from experiments import evaluate
from experiments import train
from experiments.files import datasets
from experiments.files import logs
from experiments.files import summaries
from experiments.tasks import arithmetic
from experiments.tasks import contents
from experiments.tasks import cooperative
from experiments.tasks import latent as modes
from experiments.tasks import parts
from experiments.tasks import synthesis
from tests.experiments import tiny


@pytest.fixture(scope='module')
def workdir(workdir_of):
  return workdir_of('cooperative')


@pytest.fixture(scope='module')
def model(workdir):
  return tiny.request(workdir).model


def _check_files(folder, arrays):
  assert os.path.getsize(os.path.join(folder, 'picture.png'))
  assert tiny.content(folder)['experiment'] == 'test'
  for name, array in arrays.items():
    assert np.isfinite(array).all(), name
  paths = [
    os.path.join(root, name)
    for root, _, names in os.walk(os.path.join(folder, 'meshes'))
    for name in names
  ]
  assert paths and len(trimesh.load_mesh(paths[0]).faces)


def test_generate_is_one_pass_of_the_generator(folder_of, model):
  folder = folder_of('cooperative')
  assert os.path.getsize(os.path.join(folder, 'curves.png'))
  config = tiny.cooperative(**{'sample.num_steps': 2, 'sample.num_samples': 3})
  first = modes.generate(tiny.request(folder, config))
  assert first != modes.generate(tiny.request(folder, config))
  arrays = tiny.arrays(first)
  _check_files(first, arrays)
  assert arrays['voxels'].shape == arrays['refined'].shape == (3, 8, 8, 8)
  z = modes.draw(model, 5, config.sample.seed)
  np.testing.assert_array_equal(arrays['z'], z[:3])
  generator = latent.generator(model.spec)
  expected = jax.jit(lambda v, z: generator.apply(v, z, train=False))(
    model.params['generator'], z[:3]
  )
  # Parameters of an export are float16.
  np.testing.assert_allclose(
    arrays['voxels'], (expected[..., 0] + 1) / 2, atol=0.02
  )
  assert (arrays['voxels'].std(axis=0) > 0.05).any()


def test_latent_factors_are_of_the_prior(model):
  z = modes.draw(model, 2000, 1)
  assert abs(z.mean()) < 5 / z.size**0.5
  assert abs((z**2).mean() - 1) < 5 * (2 / z.size) ** 0.5


def test_sample_starts_at_the_generator(model):
  common = dict(start='generator', noise_steps=0, step_size=0.02)
  start, moved = (
    synthesis.synthesize(model, 2, 3, num_steps=steps, **common)
    for steps in (0, 3)
  )
  # The generator alone makes other shapes of the same seed, of the same kind.
  assert start.shape == (2, 8, 8, 8) and (start[0] != start[1]).any()
  y = 2 * start[..., None] - 1
  score = jax.jit(dnet_jax.score(uses.energy_fn(model)))
  for _ in range(3):
    y = y + 0.01 * score(y)
  np.testing.assert_allclose(moved, (y[..., 0] + 1) / 2, atol=1e-5)
  assert abs(moved - start).max() > 1e-3


def test_paths_between_latent_factors():
  rng = np.random.default_rng(0)
  z_0, z_1 = rng.normal(size=(2, 100)).astype(np.float32)
  z_1 *= np.linalg.norm(z_0) / np.linalg.norm(z_1)
  rho = jax.numpy.linspace(0, 1, 8)
  for path in latent.PATHS.values():
    z = np.asarray(path(z_0, z_1, rho))
    assert z.shape == (8, 100)
    np.testing.assert_allclose(z[[0, -1]], [z_0, z_1], atol=1e-5)
  z = np.asarray(latent.linear(z_0, z_1, rho))
  np.testing.assert_allclose(
    np.diff(z, axis=0), np.tile((z_1 - z_0) / 7, (7, 1)), atol=1e-5
  )
  # On the sphere lengths and angles are equal; along the line they are not.
  z = np.asarray(latent.spherical(z_0, z_1, rho))
  lengths = np.linalg.norm(z, axis=1)
  np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)
  cosines = (z[1:] * z[:-1]).sum(1) / lengths[0] ** 2
  np.testing.assert_allclose(cosines, cosines[0], rtol=1e-4)
  middle = latent.linear(z_0, z_1, jax.numpy.array([0.5]))[0]
  assert np.linalg.norm(middle) < 0.9 * lengths[0]
  # Parallel ones have no plane to turn in.
  np.testing.assert_allclose(
    latent.spherical(z_0, 2 * z_0, jax.numpy.array([0.5]))[0],
    1.5 * z_0,
    rtol=1e-5,
  )


def test_interpolate(workdir, model):
  config = tiny.cooperative()
  folder = modes.interpolate(tiny.request(workdir))
  arrays = tiny.arrays(folder)
  _check_files(folder, arrays)
  assert arrays['linear'].shape == (2 * 4, 8, 8, 8)
  z = modes.draw(model, 4, config.sample.seed)
  np.testing.assert_array_equal(arrays['z'], z.reshape(2, 2, -1))
  ends = modes.shapes(model, z)
  for name, path in latent.PATHS.items():
    rows = arrays[name].reshape(2, 4, 8, 8, 8)
    found = rows[:, [0, -1]].reshape(4, 8, 8, 8)
    np.testing.assert_allclose(found, ends, atol=1e-4)
    between = path(*arrays['z'][1], jax.numpy.linspace(0, 1, 4))
    np.testing.assert_allclose(rows[1], modes.shapes(model, between), atol=1e-4)
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
  (a, b, c, half), *_ = arithmetic.find_examples(_lidded(), 1)
  assert half == 'high z'
  assert a in (4, 6, 7) and b == a - 4
  # c has no lid either, and another base.
  assert c in {0, 1, 2, 3} - {b}
  with pytest.raises(ValueError, match='got 2'):
    arithmetic.find_examples(_lidded()[:2], 1)


def test_arithmetic(workdir, model):
  config = tiny.cooperative(**{'latent.examples': (3, 1, 0, 2, 4, 5)})
  folder = modes.arithmetic(tiny.request(workdir, config))
  arrays = tiny.arrays(folder)
  _check_files(folder, arrays)
  z = modes.draw(model, 12, config.sample.seed)
  np.testing.assert_allclose(
    arrays['z'][:, 3], [z[0] + z[3] - z[1], z[5] + z[2] - z[4]], atol=1e-6
  )
  np.testing.assert_allclose(
    arrays['voxels'].reshape(8, 8, 8, 8),
    modes.shapes(model, arrays['z'].reshape(8, tiny.LATENT_DIM)),
    atol=1e-4,
  )
  folder = modes.arithmetic(tiny.request(workdir))
  examples = tiny.content(folder)['examples']
  assert tiny.arrays(folder)['voxels'].shape == (4 * len(examples), 8, 8, 8)
  for wrong in ((1, 2), (1, 2, 99)):
    config = tiny.cooperative(**{'latent.examples': wrong})
    with pytest.raises(ValueError, match=str(wrong[-1])):
      modes.arithmetic(tiny.request(workdir, config))


def _error(model, z, voxels):
  return float(np.mean((modes.shapes(model, z) - voxels) ** 2))


@pytest.mark.parametrize('partly', [False, True])
def test_latent_factors_of_a_generated_shape_are_found(model, partly):
  voxels = modes.shapes(model, modes.draw(model, 3, 7))
  model = contents.with_settings(
    model, tiny.cooperative(**{'latent.num_steps': 200})
  )
  visible = np.ones(voxels.shape, bool)
  if partly:
    visible[:, :4] = False
  z = modes.infer(model, voxels, visible, 0)
  # Also of what was hidden: far better than any draw of the prior.
  error = _error(model, z, voxels)
  draws = modes.shapes(model, modes.draw(model, 30, 8))
  best = np.mean([((draws - y) ** 2).mean((1, 2, 3)).min() for y in voxels])
  assert error < best / 3
  if partly:  # Hidden voxels are not read.
    other = np.where(visible, voxels, 1 - voxels)
    np.testing.assert_array_equal(modes.infer(model, other, visible, 0), z)


def test_reconstruct_writes_what_it_rebuilt(workdir, model, tmp_path):
  source = str(tmp_path / 'some.npz')
  z = modes.draw(model, 2, 7)
  given = (modes.shapes(model, z) > 0.5) * 1.0
  np.savez(source, voxels=given)
  hidden = str(tmp_path / 'visible.npy')
  visible = np.ones((8, 8, 8), bool)
  visible[:4] = False
  np.save(hidden, visible)

  def reconstruct(source, visible=None):
    return modes.reconstruct(
      tiny.request(workdir, input=source, visible=visible)
    )

  folder = reconstruct(source, hidden)
  arrays = tiny.arrays(folder)
  _check_files(folder, arrays)
  assert os.path.basename(folder) == 'reconstruct_some'
  assert arrays['voxels'].shape == (2, 8, 8, 8)
  np.testing.assert_array_equal(arrays['input'], given)
  assert (arrays['visible'] == visible).all()
  np.testing.assert_allclose(
    arrays['voxels'], modes.shapes(model, arrays['z']), atol=1e-4
  )
  with pytest.raises(FileNotFoundError, match=r'none\.npz'):
    reconstruct(str(tmp_path / 'none.npz'))
  np.save(hidden, np.zeros((8, 8, 8), bool))
  with pytest.raises(ValueError, match='0 visible voxels'):
    reconstruct(source, hidden)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('step_size', 1e6, '1000000'),
    ('num_starts', 0, 'got 0'),
    ('num_steps', -1, 'got -1'),
    ('noise_std', 0.0, 'noise_std'),
  ],
)
def test_impossible_inference(model, field, value, message):
  voxels = np.zeros((1, 8, 8, 8), np.float32)
  config = tiny.cooperative(**{f'latent.{field}': value})
  model = contents.with_settings(model, config)
  with pytest.raises(ValueError, match=message):
    modes.infer(model, voxels, np.ones(voxels.shape, bool), 0)


def test_impossible_settings(workdir, model):
  voxels = np.zeros((1, 4, 4, 4), np.float32)
  with pytest.raises(ValueError, match=r'\(8, 8, 8\).*\(1, 4, 4, 4\)'):
    modes.infer(model, voxels, voxels == 0, 0)
  config = tiny.cooperative(**{'latent.num_columns': 1})
  with pytest.raises(ValueError, match='num_columns'):
    modes.interpolate(tiny.request(workdir, config))


def test_evaluation_scores_generated_and_refined_shapes(workdir, tmp_path):
  out = str(tmp_path / 'result.json')
  result = evaluate.evaluate(tiny.request(workdir, out=out))
  with open(out, encoding='utf-8') as file:
    assert json.load(file) == json.loads(json.dumps(result))
  assert {'generated', 'refined', 'test shapes'} <= {*result['scores']}
  assert 'persistent' not in result['scores']
  seconds = result['seconds_per_shape']
  assert 0 < seconds['generated'] < seconds['refined']
  assert {*result['interpolation']} >= {*latent.PATHS}
  assert 0 <= result['reconstruction']['iou'] <= 1


@pytest.mark.slow
def test_a_generator_alone_generates_and_rebuilds(tmp_path):
  config = tiny.cooperative(
    algorithm='alternating_back_propagation',
    **{'chains.step_size': 0.03, 'generator.noise_std': 1.0},
  )
  config.train.num_iterations = 60
  config.train.checkpoint_every = 60
  config.back_propagation.step_size = 0.03
  config.back_propagation.noise_std = 1.0
  config.back_propagation.learning_rate = 0.01
  workdir = str(tmp_path / 'abp')
  model = train.train(config, workdir)
  assert {*model.params} == {'generator'}
  request = tiny.request(workdir)
  # Steps of a descriptor that it has not are left out, or an error.
  arrays = tiny.arrays(modes.generate(request))
  assert {*arrays} == {'voxels', 'z'}
  with pytest.raises(ValueError, match=r'with a descriptor.*has a generator'):
    synthesis.sample(request)
  # It rebuilds training shapes better than their mean does.
  train_shapes = parts.data(config).train
  voxels = train_shapes[:4].astype(np.float32)
  z = modes.infer(model, voxels, np.ones(voxels.shape, bool), 0)
  mean = train_shapes.mean(axis=0, dtype=np.float32)
  assert _error(model, z, voxels) < np.mean((voxels - mean) ** 2)


def test_pairs_have_z_near_the_code_of_their_shape():
  config = tiny.cooperative(
    **{'components.number': 2, 'regression.correlation': 0.8}
  )
  voxels = parts.data(config)
  batch = cooperative._pairs(config, voxels)
  z, y = (
    np.concatenate([batch(step)[name] for step in range(500)]) for name in 'zy'
  )
  y = datasets.to_network(y, voxels.mean, voxels.scale)
  rows = datasets.to_network(voxels.train, voxels.mean, voxels.scale)
  codes = summaries.latent_codes(rows, 2, z.shape[1])
  y, rows = (x.reshape(len(x), -1) for x in (y, rows))
  chosen = (y[:, None] == rows[None]).all(-1).argmax(1)
  noise = z - 0.8 * codes[chosen]
  error = 5 / len(z) ** 0.5
  np.testing.assert_allclose(noise.mean(0), 0, atol=error)
  # Together with the codes, z varies as its prior.
  variances = [0.36, 0.36] + [1.0] * (z.shape[1] - 2)
  np.testing.assert_allclose(noise.var(0), variances, atol=2**0.5 * error)
  # Rows of a mini-batch are the same ones, however they are split.
  some = batch(3, 0, slice(1, 2))
  np.testing.assert_array_equal(some['z'], batch(3)['z'][1:2])
  np.testing.assert_array_equal(some['y'], batch(3)['y'][1:2])
  assert (batch(3, 1)['z'] != batch(3)['z']).all()


def test_cooperative_learning_may_begin_with_a_regression(tmp_path):
  config = tiny.cooperative(
    **{
      'components.number': 2,
      'regression.iterations': 40,
      'regression.learning_rate': 0.01,
      'train.num_iterations': 1,
    }
  )
  workdir = str(tmp_path / 'run')
  train.train(config, workdir)
  rows = logs.read_metrics(workdir)
  losses = [row['teaching_loss'] for row in rows]
  assert losses[39] < losses[0] / 2
  assert 'energy_gap' in rows[40] and 'energy_gap' not in rows[39]
  # The model keeps the codes that it learned from, and begins at the prior.
  model = tiny.request(workdir).model
  own = model.extras['latent_codes']
  np.testing.assert_allclose(
    own['codes'], cooperative.codes(config, parts.data(config)), atol=1e-6
  )
  assert own['codes'].shape[1] == 2 and own['correlation'] == 0
  prior = modes.draw(model, 4, 0)
  np.testing.assert_array_equal(prior, modes.draw(model, 4, 0, 0.0))
  scores = evaluate.evaluate(tiny.request(workdir))['scores']
  assert 'generated, prior' not in scores

  # Another correlation can be given to a finished model.
  config.latent.correlation = 0.875
  near = contents.with_settings(model, config)
  np.testing.assert_allclose(
    modes.draw(near, 4, 0), modes.draw(model, 4, 0, 0.875), atol=1e-6
  )
  assert abs(modes.draw(near, 4, 0) - prior).max() > 0.1
  request = tiny.request(workdir, config)
  scores = evaluate.evaluate(request._replace(model=near))['scores']
  assert scores['generated'] != scores['generated, prior']
  del model.extras['latent_codes']
  with pytest.raises(ValueError, match=r'latent.correlation is 0.875, but'):
    contents.with_settings(model, config)
  saved = str(tmp_path / 'saved')
  dnet_jax.save(near, saved, weights='int8', card={'name': 'saved'})
  np.testing.assert_allclose(
    modes.draw(dnet_jax.load(saved), 4, 0), modes.draw(near, 4, 0), atol=0.05
  )


def test_a_descriptor_of_synthesis_teaches_a_generator(tmp_path, workdir_of):
  """Its scale is another one than [-1, 1]: the generator's output follows."""
  folder = workdir_of('synthesis')
  theirs = tiny.request(folder).model
  config = tiny.cooperative(
    # Another seed, so that fresh weights would be others.
    **{'data.scaling': 'mean', 'train.init_from': folder, 'seed': 1}
  )
  config.model = tiny.synthesis().model
  config.train.num_iterations = 1
  workdir = str(tmp_path / 'run')
  train.train(config, workdir)
  model = tiny.request(workdir).model
  mean = float(model.extras['mean'])
  assert model.spec.generator.output_range == pytest.approx((-mean, 1 - mean))
  shapes = np.asarray(dnet_jax.generate(jax.random.key(0), model, 20))
  assert shapes.min() >= 0 and shapes.max() <= 1
  # One small step from where it began.
  for ours, there in zip(
    jax.tree.leaves(model.params['descriptor']),
    jax.tree.leaves(theirs.params['descriptor']),
    strict=True,
  ):
    np.testing.assert_allclose(ours, there, atol=0.02)
