"""Scores of models and of files."""

import json
import os

import numpy as np
import pytest

from data_prep import furniture
from data_prep import voxel_file
from experiments import evaluate
from experiments.evaluation import scores
from experiments.tasks import parts
from tests.experiments import tiny


def test_evaluate_tells_real_from_noise(folder_of, tmp_path, capsys):
  out = str(tmp_path / 'result.json')
  result = evaluate.evaluate(tiny.request(folder_of('synthesis'), out=out))
  table = result['scores']
  assert {*table} == {
    'persistent',
    'fresh',
    'training shapes',
    'test shapes',
    'mean shape',
    'noise',
  }
  for metric in ('mmd', 'mmd_chamfer', 'jensen_shannon'):
    assert table['training shapes'][metric] < table['noise'][metric]
    assert metric not in table['test shapes']
  assert 'training shapes' in capsys.readouterr().out
  written = tiny.content(tmp_path, 'result.json')
  assert written == json.loads(json.dumps(result))


@pytest.mark.slow
def test_persistent_chains_may_be_fewer_than_are_asked_for(folder_of, tmp_path):
  path = str(tmp_path / 'own.npz')
  voxel_file.save(
    path, furniture.make_furniture(size=8, num_train=12, num_test=12)
  )
  config = tiny.synthesis(
    **{'data.path': path, 'evaluate.num_shapes': 10, 'evaluate.draws': 1}
  )
  request = tiny.request(folder_of('synthesis'), config)
  table = evaluate.evaluate(request)['scores']
  assert table['fresh']['shapes'] == 10
  assert (
    table['persistent']['shapes'] == len(request.model.extras['chains']) < 10
  )


@pytest.mark.slow
def test_sets_are_no_larger_than_the_test_set(folder_of):
  config = tiny.synthesis(**{'evaluate.num_shapes': 10})
  table = evaluate.evaluate(tiny.request(folder_of('synthesis'), config))[
    'scores'
  ]
  test_shapes = len(parts.data(config).test)
  assert test_shapes < 10
  for row in ('fresh', 'persistent', 'training shapes', 'test shapes'):
    assert table[row]['shapes'] == test_shapes


@pytest.mark.slow
def test_another_data_set_may_be_scored_by(folder_of, tmp_path):
  # Of the model there is no data; that of the config counts.
  data = furniture.make_furniture(size=8, num_train=3, num_test=2)
  path = str(tmp_path / 'own.npz')
  voxel_file.save(path, data)
  config = tiny.synthesis(**{'data.path': path})
  result = evaluate.evaluate(tiny.request(folder_of('synthesis'), config))
  assert 'own.npz' in result['data']
  assert result['scores']['test shapes']['shapes'] == 2
  voxel_file.save(
    str(tmp_path / 'train.npz'),
    data._replace(
      **{
        field: {'train': getattr(data, field)['train']}
        for field in ('voxels', 'labels', 'names')
      }
    ),
  )
  config.data.path = str(tmp_path / 'train.npz')
  with pytest.raises(ValueError, match='has 0: give another'):
    evaluate.evaluate(tiny.request(folder_of('synthesis'), config))


def test_scores_of_the_test_set_itself():
  data = parts.data(tiny.synthesis())
  values = scores.scores(data.test, data.train, data.test)
  assert values['coverage'] == values['coverage_chamfer'] == 1.0
  assert values['mmd'] == values['mmd_chamfer'] == 0.0
  assert values['jensen_shannon'] == 0.0
  assert 0 < values['pairwise_iou'] < 1


def test_copies_are_nearer_than_all_but_a_twentieth_of_the_test_shapes():
  # Shapes of n of 100 voxels have an IoU of n / 100 with the whole.
  def bars(*counts):
    shapes = np.zeros((len(counts), 4, 5, 5), np.float32)
    for shape, n in zip(shapes, counts, strict=True):
      shape.ravel()[:n] = 1
    return shapes

  train, test = bars(100), bars(*range(40, 61), 97, 100)
  threshold = scores.copy_threshold(test, train)
  # The last two are in both splits.
  np.testing.assert_allclose(threshold, 0.59)
  shapes = bars(30, 59, 60, 100)
  found = scores.scores(shapes, train, test, copy_iou=threshold)
  assert found['copy_rate'] == 0.5
  # Nothing but shapes of both splits.
  assert scores.copy_threshold(train, train) == 0.95


def test_scores_are_means_over_draws(folder_of):
  request = tiny.request(folder_of('synthesis'))
  settings = request.config.evaluate
  table = evaluate.evaluate(request)['scores']
  both = table['fresh']
  assert both.pop('draws') == settings.draws == 2
  # Of training shapes too, so that they compare.
  assert table['training shapes']['draws'] == 2
  each = []
  for seed in (settings.seed, settings.seed + 1):
    config = request.config.copy_and_resolve_references()
    config.evaluate.draws, config.evaluate.seed = 1, seed
    one = evaluate.evaluate(tiny.request(request.folder, config))
    each.append(one['scores']['fresh'])
    assert 'draws' not in each[-1]
  assert each[0] != each[1]
  for name, value in both.items():
    np.testing.assert_allclose(
      value, np.mean([x[name] for x in each]), atol=1e-6
    )


def test_a_row_of_more_steps(folder_of):
  request = tiny.request(folder_of('synthesis'))
  own = dict(request.model.spec.uses)['synthesize'].num_steps
  request.config.evaluate.more_steps = own
  table = evaluate.evaluate(request)['scores']
  assert table[f'fresh, {own} steps'] == table['fresh']
  assert table['fresh']['draws'] == 2
  request.config.evaluate.more_steps = own + 3
  request.config.evaluate.more_draws = 1
  table = evaluate.evaluate(request)['scores']
  assert table[f'fresh, {own + 3} steps'] != table['fresh']
  assert 'draws' not in table[f'fresh, {own + 3} steps']


def test_evaluate_shapes_of_a_file_with_a_classifier(folder_of, tmp_path):
  config = tiny.synthesis(
    **{'evaluate.classifier': folder_of('evaluation_classifier')}
  )
  data = parts.data(config)
  path = str(tmp_path / 'voxels.npz')
  np.savez(path, voxels=data.test)
  table = evaluate.evaluate_file(config, path)['scores']
  assert table['shapes']['mmd'] == 0.0
  for row in table.values():
    assert 0 <= row['class_probability'] <= 1
    assert 0 <= row['classification_error'] <= 1
  assert table['shapes']['frechet'] < table['noise']['frechet']
  assert os.listdir(tmp_path / 'evaluations') == ['evaluation.json']
  # Of several categories: the inception score.
  config.data.category = 'all'
  table = evaluate.evaluate_file(config, path)['scores']
  assert 1 <= table['test shapes']['inception_score'] <= 10
  assert 'class_probability' not in table['shapes']


def test_files_that_hold_no_shapes(tmp_path):
  config = tiny.synthesis()
  path = str(tmp_path / 'voxels.npz')
  with pytest.raises(FileNotFoundError, match='voxels'):
    evaluate.evaluate_file(config, path)
  np.savez(path, voxels=np.full((3, 8, 8, 8), np.nan))
  with pytest.raises(ValueError, match='finite'):
    evaluate.evaluate_file(config, path)
  np.savez(tmp_path / 'one.npz', voxels=np.ones((8, 8, 8)))
  with pytest.raises(ValueError, match=r'\(8, 8, 8\)'):
    evaluate.evaluate_file(config, str(tmp_path / 'one.npz'))
  np.savez(tmp_path / 'other.npz', voxels=np.ones((3, 4, 4, 4)))
  with pytest.raises(ValueError, match=r'\(4, 4, 4\)'):
    evaluate.evaluate_file(config, str(tmp_path / 'other.npz'))


def test_voxel_files_are_scored_by_their_test_split(tmp_path):
  data = furniture.make_furniture(size=8, num_train=3, num_test=2)
  path = str(tmp_path / 'furniture.npz')
  voxel_file.save(path, data)
  np.testing.assert_array_equal(
    scores.read_shapes(path, 'all'), data.voxels['test']
  )
  assert len(scores.read_shapes(path, 'chair')) == 2


def test_scores_are_printed_apart(capsys):
  few = {'model': {'error': 0.5}, 'nearest training shape': {'iou': 1.0}}
  evaluate._print(few)
  assert capsys.readouterr().out.splitlines() == [
    '        model  nearest training shape',
    'error  0.5000',
    'iou                            1.0000',
  ]
  evaluate._print(few | {'paper': {'error': 0.25}})
  assert capsys.readouterr().out.splitlines() == [
    '                         error     iou',
    'model                   0.5000',
    'nearest training shape          1.0000',
    'paper                   0.2500',
  ]
