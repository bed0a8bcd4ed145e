"""Section 6.2: recovery of shapes of a file, and of the test split."""

import itertools
import os

import jax
import numpy as np
import pytest
import trimesh

from data_prep import furniture
from data_prep import scans
import dnet_jax
from experiments import evaluate
from experiments import train
from experiments.evaluation import paper
from experiments.evaluation import scores
from experiments.evaluation import tables
from experiments.files import datasets
from experiments.files import inputs
from experiments.tasks import completions
from experiments.tasks import conditioned
from experiments.tasks import contents
from experiments.tasks import parts
from experiments.tasks import recovery
from tests import runs
from tests.experiments import tiny


@pytest.fixture(scope='module')
def workdir(workdir_of):
  return workdir_of('recovery')


@pytest.fixture
def chair(tmp_path):
  """One shape of 8^3, as a file."""
  path = str(tmp_path / 'chair.npy')
  np.save(path, parts.data(tiny.synthesis()).test[0])
  return path


def recover(workdir, source, config=None, visible=None):
  return recovery.recover(
    tiny.request(workdir, config, input=source, visible=visible)
  )


def test_recover_a_file(workdir, chair):
  first, second = recover(workdir, chair), recover(workdir, chair)
  assert first != second
  assert {'voxels.npz', 'picture.png', 'record.json'} <= {*os.listdir(first)}
  got = tiny.arrays(first)
  seen = got['visible']
  assert seen.shape == (1, 8, 8, 8) and (~seen).sum() == round(0.7 * 512)
  np.testing.assert_array_equal(got['voxels'][seen], got['input'][seen])
  assert (got['voxels'][~seen] != got['input'][~seen]).mean() > 0.9
  np.testing.assert_array_equal(got['voxels'], tiny.arrays(second)['voxels'])
  error = np.abs(got['voxels'] - got['input'])[~seen].mean()
  found = tiny.content(first)['scores']['error']
  assert found == pytest.approx(error, abs=1e-4)


def test_recover_with_ones_own_mask(workdir, chair, tmp_path):
  seen = np.ones((8, 8, 8), bool)
  seen[:, 4:] = False
  mask = str(tmp_path / 'mask.npy')
  np.save(mask, seen.astype(np.uint8))
  got = tiny.arrays(recover(workdir, chair, visible=mask))
  np.testing.assert_array_equal(got['visible'][0], seen)
  np.testing.assert_array_equal(got['voxels'][0][seen], got['input'][0][seen])
  # What is hidden in the file is not looked at.
  other = np.load(chair)
  other[:, 4:] = 1 - other[:, 4:]
  np.save(chair, other)
  again = tiny.arrays(recover(workdir, chair, visible=mask))
  np.testing.assert_array_equal(got['voxels'], again['voxels'])


@pytest.mark.parametrize(
  ('mask', 'message'),
  [
    (np.ones((8, 8, 8), bool), 'nothing is hidden'),
    (np.zeros((8, 8, 8), bool), 'everything is hidden'),
    (np.ones((4, 8, 8), bool), r'\(4, 8, 8\)'),
    (np.ones((8, 8), bool), r'\(8, 8\)'),
    (np.full((8, 8, 8), 0.5), '0.5'),
    (np.array([{}]), 'visible='),
  ],
)
def test_masks_that_cannot_be(workdir, chair, tmp_path, mask, message):
  path = str(tmp_path / 'mask.npy')
  np.save(path, mask, allow_pickle=True)
  with pytest.raises(ValueError, match=message):
    recover(workdir, chair, visible=path)


@pytest.mark.parametrize(
  ('fraction', 'message'), [(0.0, 'nothing'), (1.0, 'everything'), (1.5, '1.5')]
)
def test_corruptions_that_cannot_be(workdir, chair, fraction, message):
  config = tiny.recovery(**{'corruption.fraction': fraction})
  with pytest.raises(ValueError, match=message):
    recover(workdir, chair, config)


def test_a_model_of_another_task_recovers_too(folder_of, chair):
  # What a model can do follows from its networks.
  got = tiny.arrays(recover(folder_of('synthesis'), chair))
  seen = got['visible']
  np.testing.assert_array_equal(got['voxels'][seen], got['input'][seen])


def test_scores_by_hand():
  y = np.zeros((2, 4, 4, 4), np.float32)
  y[:, :2] = 1
  visible = np.zeros(y.shape, bool)
  visible[:, :, :2] = True
  guess = np.where(visible, y, 0.6).astype(np.float32)
  found = scores.recovery_scores(guess, y, visible)
  # Next to the surface are the second plane, which is right, and the third.
  assert found == {
    'error': 0.5,
    'error_binary': 0.5,
    'error_surface': 0.5,
    'iou': 0.66667,
  }
  perfect = dict.fromkeys(found, 0.0) | {'iou': 1.0}
  assert scores.recovery_scores(y, y, visible) == perfect
  # The first plane is not next to it.
  first = np.where(np.arange(4)[:, None, None] == 0, 0, y)
  found = scores.recovery_scores(first, y, visible)
  assert found['error_binary'] == 0.25 and found['error_surface'] == 0.0


def test_evaluation_is_a_row_of_table_4(workdir, tmp_path):
  out = str(tmp_path / 'result.json')
  result = evaluate.evaluate(tiny.request(workdir, out=out))
  assert result['table'] == 'recovery' and result['test_shapes'] == 3
  methods = {'mean shape', 'nearest training shape', 'local average'}
  assert methods | {'model', 'start', *paper.RECOVERY_METHODS} <= {
    *result['scores']
  }
  assert tiny.content(tmp_path, 'result.json')['scores'] == result['scores']
  assert {*result['budget']} == {'iterations', 'seconds', 'device'}
  assert 'evaluation.png' in os.listdir(os.path.join(workdir, 'evaluations'))


def test_fill_begins_near_the_truth():
  y = np.zeros((1, 8, 8, 8, 1), np.float32)
  y[:, :4] = 1
  visible = dnet_jax.random_voxels(0.7)(
    dnet_jax.chain_keys(jax.random.key(0), 1), y
  )
  assert parts.fill(tiny.recovery()) is None
  fill = parts.fill(tiny.recovery(**{'corruption.fill_std': 1.0}))
  start, _ = dnet_jax.recovery_start(y, visible, True, fill)
  error = np.abs(np.asarray(start.position) - y)[~np.asarray(visible)].mean()
  assert error < 0.2
  with pytest.raises(ValueError, match='-1'):
    parts.fill(tiny.recovery(**{'corruption.fill_std': -1.0}))


def test_hidden_voxels_begin_at_components_of_other_shapes(tmp_path):
  config = tiny.recovery(
    **{
      'components.number': 240,
      'components.share': 0.4,
      'corruption.components_std': 0.3,
      'corruption.fill_std': 0.7,
      'corruption.anchor_std': 0.4,
    }
  )
  data = parts.data(config)
  experiment = recovery.TASK.experiment(config, data)
  # The model keeps the components of all, and begins at them.
  config.components.number = len(data.train) // 3
  expected = contents.components(config, data)
  runs.assert_equal(dict(experiment.extras['components']), expected)
  uses = dict(experiment.spec.uses)
  assert uses['recover'].start == 'components_and_average'
  settings = experiment.extras['settings']['recover']
  np.testing.assert_allclose(settings['components_std'], 0.3)
  np.testing.assert_allclose(settings['anchor_std'], 0.4)
  # Mini-batches are of a part of the shapes; the others alone are behind the
  # fill.
  (phase,) = experiment.phases
  learned, others = conditioned.parted(config, len(data.train))
  assert len(learned) == round(0.4 * len(data.train))
  assert sorted([*learned, *others]) == [*range(len(data.train))]
  known = {x.tobytes() for x in datasets.stored(data.train, learned)}
  for step in range(4):
    assert {x.tobytes() for x in phase.batch(step, 0)} <= known
  config.components.number = max(len(others) // 3, 1)
  some = contents.components(config, data, others)
  visible = recovery.corrupted(config, data.train[:1], 0)[..., None]
  y = datasets.to_network(data.train[learned[:1]], data.mean, data.scale)
  components = dnet_jax.Components(**some)
  found = parts.fill(config)(y, visible, 0.0, components)
  begun = dnet_jax.completed(y, visible, components, 0.3)
  local = dnet_jax.corruptions.local_average(y - begun, visible, 0.7, 0.0)
  np.testing.assert_allclose(found, begun + local, atol=1e-6)
  # It learns, and the run is used.
  train.train(config, str(tmp_path / 'run'))
  result = evaluate.evaluate(tiny.request(str(tmp_path / 'run')))['scores']
  assert result['model'] != result['start']


def test_too_few_shapes_to_part():
  config = tiny.recovery(
    **{'components.number': 2, 'corruption.components_std': 0.3}
  )
  config.data.batch_size = len(parts.data(config).train)
  with pytest.raises(ValueError, match=r'at most \d+, the share 0.5'):
    recovery.TASK.experiment(config, parts.data(config))


def test_components_have_to_be_there():
  config = tiny.recovery(**{'corruption.components_std': 0.3})
  with pytest.raises(ValueError, match=r'components\.number'):
    recovery.TASK.experiment(config, parts.data(config))


# Scans.


@pytest.fixture
def scan(tmp_path):
  """What a camera sees of a chair, far from the origin; where the camera is."""
  mesh = furniture.make_mesh('chair', np.random.default_rng(3))
  far, camera = np.array([400.0, -50.0, 7.0]), np.array([-2.0, -3.0, 2.0])
  points, faces = scans.seen_by(mesh.vertices, mesh.faces, camera, 24)
  path = tmp_path / 'scan.obj'
  trimesh.Trimesh(points + far, faces).export(path, digits=6)
  source = inputs.Source(str(path), camera=tuple(camera + far))
  # Points without a triangle, where little was seen, are not of the mesh.
  return source, points[np.unique(faces)] + far


def test_a_scan_becomes_a_mesh_where_the_scan_is(workdir, scan):
  source, points = scan
  folder = recovery.recover(
    tiny.request(workdir, input=source, formats='ply,binvox')
  )
  got, record = tiny.arrays(folder), tiny.content(folder)
  seen, given = got['visible'], got['input']
  np.testing.assert_array_equal(got['voxels'][seen], given[seen])
  assert given[seen].any() and (given[seen] < 0.5).any() and (~seen).any()
  assert os.path.basename(folder) == 'scan'
  assert 'scores' not in record  # Nobody knows the truth.
  (shape,) = record['shapes']
  np.testing.assert_allclose(shape['to_input'], got['to_input'][0])
  assert shape['name'] == 'scan' and shape['scan']
  # The mesh has the voxels that were seen in it, so it is as large as the scan.
  mesh = trimesh.load(f'{folder}/meshes/sample_000.ply', process=False)
  assert mesh.is_watertight and record['faces']['voxels'] == [len(mesh.faces)]
  voxel = got['to_input'][0][0, 0]
  low, high = points.min(axis=0), points.max(axis=0)
  assert (mesh.bounds[0] <= low + voxel).all()
  assert (mesh.bounds[1] >= high - voxel).all()
  # What was written is an input, and lies in the same place.
  again = inputs.read(inputs.Source(folder), (8, 8, 8))
  np.testing.assert_allclose(again.to_input, got['to_input'])
  (path,) = os.listdir(f'{folder}/voxels')
  again = inputs.read(inputs.Source(f'{folder}/voxels/{path}'), (8, 8, 8))
  np.testing.assert_allclose(again.to_input, got['to_input'], rtol=1e-6)
  np.testing.assert_array_equal(again.voxels[0], got['voxels'][0] > 0.5)


def test_hidden_parts_of_scans_begin_at_components(workdir, scan):
  source, _ = scan
  request = tiny.request(
    workdir, tiny.recovery(**{'recover.num_steps': 0}), input=source
  )
  got = tiny.arrays(recovery.recover(request))
  model = recovery.with_components(request.model, request.config)
  keys = dnet_jax.chain_keys(jax.random.key(0), 1)
  expected = dnet_jax.recover(
    keys,
    model,
    got['input'],
    got['visible'],
    start='components',
    components_std=0.7,
    num_steps=0,
  )
  np.testing.assert_allclose(got['voxels'], np.clip(expected, 0, 1), atol=1e-5)


def test_components_are_the_models_the_datas_or_the_furnitures(
  workdir, scan, caplog, monkeypatch
):
  request = tiny.request(workdir)
  with_data = recovery.with_components(request.model, request.config)
  found = with_data.extras['components']['directions']
  assert found.shape == (4, 8, 8, 8, 1)  # A third of 12 training shapes.
  own = recovery.with_components(with_data, request.config)
  assert own is with_data
  config = tiny.recovery(**{'data.path': 'nowhere.npz'})
  other = recovery.with_components(request.model, config)
  found = other.extras['components']['directions']
  assert found.shape == (100, 8, 8, 8, 1)
  config.data.category = 'boat'
  assert recovery.with_components(request.model, config) is request.model
  got = recovery.complete_scans(
    request._replace(config=config),
    np.ones((1, 8, 8, 8), np.float32),
    np.arange(512).reshape(1, 8, 8, 8) % 2 > 0,
  )
  assert got.shape == (1, 8, 8, 8)
  assert 'keeps no principal components' in caplog.text


def test_completions_are_compared_shape_by_shape():
  rng = np.random.default_rng(0)
  voxels = (rng.random((3, 4, 4, 4)) < 0.5).astype(np.float32)
  visible = rng.random(voxels.shape) < 0.3
  made = [np.where(visible, voxels, rng.random(voxels.shape)) for _ in range(5)]
  found = completions.compared(made, voxels, visible)
  means, bests, votes, spreads = [], [], [], []
  for i in range(3):
    hidden = ~visible[i]
    full = [y[i][hidden] > 0.5 for y in made]
    truth = voxels[i][hidden] > 0.5
    errors = [(x != truth).mean() for x in full]
    means.append(np.mean(errors))
    bests.append(min(errors))
    votes.append(((np.sum(full, axis=0) >= 3) != truth).mean())
    spreads.append(
      np.mean([(a != b).mean() for a, b in itertools.combinations(full, 2)])
    )
  np.testing.assert_allclose(
    [found[name] for name in ('mean', 'best', 'vote', 'spread')],
    np.mean([means, bests, votes, spreads], axis=1),
    atol=1e-5,
  )
  assert completions.compared(made[:1], voxels, visible)['spread'] == 0


@pytest.mark.slow
def test_a_model_is_scored_on_every_kind(tmp_path):
  kinds = ('random_voxels', 'random_box', 'half_space', 'one_view')
  config = tiny.recovery(
    **{
      'components.number': 3,
      'corruption.kind': 'mixture',
      'corruption.components_std': 0.3,
      'evaluate.kinds': kinds,
      'evaluate.completions': 3,
    }
  )
  workdir = str(tmp_path / 'run')
  train.train(config, workdir)
  result = evaluate.evaluate(tiny.request(workdir))
  assert (*result['kinds'],) == kinds
  for row in result['kinds'].values():
    found = row['completions']
    assert found['best'] <= found['mean'] and found['spread'] > 0
  table = tables.corruption_kinds({'recovery_chair_mixture': result})
  assert table.count('| mixture |') == len(kinds)
  # Table 4 is of random voxels alone.
  assert tables.recovery({'x': result}) == tables.recovery({})
  pictures = os.listdir(os.path.join(workdir, 'evaluations'))
  assert {f'completions_{kind}.png' for kind in kinds} <= {*pictures}


@pytest.mark.slow
def test_a_generator_is_a_baseline(workdir, workdir_of):
  config = tiny.recovery(**{'evaluate.baseline': workdir_of('cooperative')})
  table = evaluate.evaluate(tiny.request(workdir, config))['scores']
  assert 0 < table['generator']['error'] < 1
  config.evaluate.baseline = workdir
  with pytest.raises(ValueError, match='must be a model with a generator'):
    evaluate.evaluate(tiny.request(workdir, config))
