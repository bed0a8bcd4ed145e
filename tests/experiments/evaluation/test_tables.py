"""The tables of README and docs/ say what results/*.json say."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.configs import arguments
from experiments.evaluation import new_shapes
from experiments.evaluation import overview
from experiments.evaluation import paper
from experiments.evaluation import speed
from experiments.evaluation import tables

ROOT = pathlib.Path(__file__).parents[3]


def cells(table):
  """Rows of a Markdown table, header first, without the ruler."""
  lines = table.splitlines()
  widths = {line.count('|') for line in lines}
  assert len(widths) == 1, table
  split = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
  return [split[0], *split[2:]]


@pytest.mark.parametrize('page', tables.PAGES)
def test_pages_are_up_to_date(page):
  results = tables.read(str(ROOT / 'results'), str(ROOT / 'pretrained'))
  tables.update(str(ROOT / page), results, check=True)


def test_every_table_stands_on_a_page():
  text = ''.join((ROOT / page).read_text() for page in tables.PAGES)
  assert all(f'<!-- table: {name} -->' in text for name in tables.TABLES)


def test_the_command():
  result = subprocess.run(
    [sys.executable, '-m', 'experiments.evaluation.tables', '--check'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr


# A line, and not a table.
@pytest.mark.parametrize('name', sorted({*tables.TABLES} - {'speed_summary'}))
def test_tables_without_results_have_the_papers_numbers(name):
  rows = cells(tables.TABLES[name]({}))
  assert rows[0]


@pytest.mark.parametrize(
  ('name', 'columns', 'means'),
  [
    # As printed; of Table 3 the mean of the first column, which is not: desk
    # and dresser look like misprints of 0.1650.
    ('class_probability', 4, (0.8811, 0.7431, 0.7006, 0.4596)),
    ('classification_error', 4, (0.0671, 0.2315, 0.2826, 0.5291)),
    ('recovery', 4, (0.0092, 0.0127, 0.0259, 0.0956)),
  ],
)
def test_the_papers_columns_have_the_means_that_it_prints(name, columns, means):
  rows = [row for row in cells(tables.TABLES[name]({}))[1:] if row[0] != 'mean']
  assert len(rows) == 10
  for i, mean in enumerate(means):
    values = [float(row[i - columns]) for row in rows]
    assert sum(values) / 10 == pytest.approx(mean, abs=1.5e-4)


def test_results_reach_their_cells():
  def sets(**metrics):
    return {'fresh': {'shapes': 100, **metrics}}

  results = {
    'synthesis_sofa': {
      'table': 'synthesis',
      'category': 'sofa',
      'scores': sets(class_probability=0.25, classification_error=0.75)
      | {'fresh, 36 steps': {'one_nn_accuracy': 0.625}},
    },
    'synthesis_bed': {
      'table': 'synthesis',
      'category': 'bed',
      'scores': sets(class_probability=0.75),
    },
    'synthesis_all': {
      'table': 'synthesis',
      'category': 'all',
      'scores': sets(inception_score=7.125, inception_std=0.5),
    },
    # Persistent chains of the run before it, as a file of shapes.
    'synthesis_sofa_paper': {
      'table': 'synthesis',
      'category': 'sofa',
      'scores': {
        'shapes': {'class_probability': 0.625, 'one_nn_accuracy': 0.5},
        'training shapes': {'one_nn_accuracy': 0.375},
      },
    },
    # The run of the saved model, with more persistent chains.
    'synthesis_sofa_run': {
      'table': 'synthesis',
      'category': 'sofa',
      'scores': {
        'persistent': {'one_nn_accuracy': 0.5625},
        'training shapes': {'one_nn_accuracy': 0.375},
      },
    },
    'recovery_chair': {
      'table': 'recovery',
      'category': 'chair',
      'scores': {
        'model': {
          'error': 0.02,
          'error_binary': 0.01,
          'error_surface': 0.05,
        },
        'mean': {'error': 0.08},
      },
    },
    'recovery_sofa': {
      'table': 'recovery',
      'category': 'sofa',
      'scores': {'model': {'error': 0.04, 'error_binary': 0.03}},
    },
    'classification': {
      'table': 'classification',
      'scores': {
        'ours': {
          'features': 12,
          'accuracy': {
            '0.01': {'mean': 0.5, 'std': 0.01, 'draws': 5},
            '1': {'mean': 0.9, 'std': 0.0, 'draws': 1},
          },
        }
      },
    },
    'evaluation_classifier': {
      'table': 'evaluation_classifier',
      'accuracy': 0.93,
      'rejection': {},
    },
    'langevin': {
      'networks': [
        {
          'network': 'paper_coop',
          'section': '6.4',
          'grid': 32,
          'chains': 50,
          'batch': 40,
          'num_steps': 2,
          'seconds': {
            'ours': {'score': 2.0, 'learn': 8.0},
            'torch': {'score': 5.0},
            'direct': {'score': 9.0},
          },
          'estimated_seconds': {'direct': {'learn': 70.4}},
          'memory_mib': {'ours score': 30.0, 'torch score': 20.0},
          'error': {'ours': 3e-6},
          'compile_seconds': {'ours': {'score_many': 1.5, 'learn': 4.0}},
        }
      ],
      'growth': [
        {
          'network': 'chains 5',
          'chains': 5,
          'seconds': {'ours': {'score': 0.5}, 'torch': {'score': 1.0}},
          'xla_buffers_mib': {'ours': {'score_many': 64.0}},
        }
      ],
    },
  }
  header, *rows = cells(new_shapes.class_probability(results))
  column = header.index('fresh')
  values = {row[0]: row[column] for row in rows}
  assert values['sofa'] == '0.2500' and values['chair'] == '–'
  assert values['mean'] == '0.5000'
  sofa = next(row for row in rows if row[0] == 'sofa')
  assert sofa[header.index('before')] == '0.6250'
  header, *rows = cells(new_shapes.beside_real(results))
  sofa = next(row for row in rows if row[0] == 'sofa')
  assert sofa[header.index('1-NN accuracy, before')] == '0.500'
  assert sofa[header.index('persistent')] == '0.562'
  assert sofa[header.index('fresh, 36 steps')] == '0.625'
  assert sofa[header.index('class probability, fresh')] == '0.250'
  assert rows[-1][0] == 'mean of ten'
  # One row for each set that was made; the file's real shapes are elsewhere.
  rows = [row[:2] for row in cells(new_shapes.distances(results))[1:]]
  assert ['`synthesis_sofa_paper`', 'shapes'] in rows
  assert ['`synthesis_sofa_run`', 'persistent'] in rows
  assert ['`synthesis_sofa`', 'persistent'] not in rows
  for beside in ('paper', 'run'):
    assert [f'`synthesis_sofa_{beside}`', 'training shapes'] not in rows
  assert '0.7500' in new_shapes.classification_error(results)
  assert '7.125 ± 0.500' in new_shapes.inception(results)
  header, *rows = cells(tables.recovery(results))
  chair = dict(
    zip(header, next(r for r in rows if r[0] == 'chair'), strict=True)
  )
  assert chair['ours'] == '0.0200 / 0.0100'
  assert chair['mean'] == '0.0800 / –'
  assert chair['near the surface'] == '0.0500'
  assert chair['*paper, 3 layers*'] == '0.0118'
  *_, last = (dict(zip(header, row, strict=True)) for row in rows)
  assert last['ours'] == '0.0300 / 0.0200'
  # The paper's own mean of its ten categories.
  assert last['*paper, 3 layers*'] == '0.0092'
  name = 'evaluation_classifier'
  classifier = {name: results[name]}
  assert cells(tables.classification(classifier))[1][-1] == '93.0'
  rows = cells(tables.classification(results))
  assert rows[1][2:] == ['50.0 ± 1.0', '90.0']
  assert any(row[-1] == '93.0' for row in rows)
  _, score, learn = cells(speed.networks(results))
  assert score[1:5] == ['score, 50 chains', '2.00', '5.00', '2.50']
  assert score[5:] == ['9.00', '30 / 20', '3e-06 / –', '1.5']
  assert learn[1] == 'learn, 50 chains + 40 shapes, K = 2'
  assert learn[3:7] == ['–', '–', '≈ 70', '– / –']
  growth = cells(speed.growth(results))[1]
  assert growth[1:] == ['0.500', '100.0', '1.000', '2.00', '64']


def test_grids_of_a_model_stand_below_each_other():
  def grid(accuracy):
    row = {'one_nn_accuracy': accuracy, 'coverage': 0.25}
    return {'samples': row, 'training shapes': row | {'one_nn_accuracy': 0.5}}

  result = {
    'table': 'synthesis',
    'scores': {},
    'grids': {'4^3': grid(0.75), '8^3': grid(0.625)},
    'cost': {'steps': {'4^3': 10, '8^3': 20}, 'seconds_per_sample': 1.5},
  }
  rows = cells(new_shapes.multi_grid({'multigrid_sofa': result, 'other': {}}))
  numbers = [row[1:] for row in rows[-2:]]
  assert numbers == [
    ['4^3', '0.75', '0.50', '0.25', '0.25', '10', ''],
    ['8^3', '0.62', '0.50', '0.25', '0.25', '20', '1.50'],
  ]


def test_readme_s_tables():
  folder, models = str(ROOT / 'results'), str(ROOT / 'pretrained')
  results = {
    'synthesis_bed': {
      'table': 'synthesis',
      'scores': {
        'fresh': {'class_probability': 0.5, 'one_nn_accuracy': 0.75},
        'test shapes': {'class_probability': 0.9},
      },
    },
    'recovery_bed': {
      'table': 'recovery',
      'category': 'bed',
      'scores': {
        'model': {'error_binary': 0.01},
        'mean shape': {'error_binary': 0.25},
        'local average': {'error_binary': 0.02},
      },
    },
    'pretrained/recovery_bed': {
      'table': 'pretrained',
      'picture': 'pretrained/recovery_bed/figure3.png',
      'seconds': 240.0,
      'device': 'a machine',
      'date': '2026-01-01',
    },
  }
  _, first, second, third = cells(overview.summary(results))
  assert first[1:] == ['0.500', 'test shapes 0.900', '0.920']
  assert second[1:] == ['0.75', 'training shapes –', '–']
  assert third[1:] == ['0.0100', 'local average 0.020', '0.0092']
  (row,) = cells(overview.pretrained(results))[1:]
  assert row[0].startswith('`recovery`: [bed](pretrained/recovery_bed/')
  assert row[-1] == 'error 0.0100'
  (row,) = cells(overview.saved_models(results))[1:]
  assert row[2:] == ['error 0.0100', '–', '4', 'a machine, 2026-01-01']
  # Each model that is there has a row.
  found = tables.read(folder, models)
  rows = cells(overview.saved_models(found))[1:]
  assert len(rows) == len([*(ROOT / 'pretrained').glob('*/card.json')])
  assert 'PyTorch' in speed.summary(found)


def test_files_become_tables_and_stale_ones_are_found(tmp_path):
  readme, results = tmp_path / 'README.md', tmp_path / 'results'
  results.mkdir()
  readme.write_text(
    'before\n<!-- table: inception -->\nold\n<!-- end -->\nafter\n'
  )
  score = {'inception_score': 3.0, 'inception_std': 0.0, 'shapes': 5}
  (results / 'synthesis_all.json').write_text(
    json.dumps({'table': 'synthesis', 'scores': {'fresh': score}})
  )
  found = tables.read(str(results))
  text = tables.fill(readme.read_text(), found)
  assert '| 3.000 |' in text and 'old' not in text
  assert text.startswith('before\n') and text.endswith('\nafter\n')
  assert tables.fill(text, found) == text
  with pytest.raises(SystemExit, match=r'experiments\.evaluation\.tables'):
    tables.update(str(readme), found, check=True)
  assert 'old' in readme.read_text()
  tables.update(str(readme), found)
  assert readme.read_text() == text
  tables.update(str(readme), found, check=True)


def test_unknown_tables_and_open_markers():
  with pytest.raises(ValueError, match='spoon'):
    tables.fill('<!-- table: spoon -->\n<!-- end -->\n', {})
  with pytest.raises(ValueError, match='1 <!-- table'):
    tables.fill('<!-- table: inception -->\n', {})


def test_table_4_averages_as_printed():
  means = np.mean([*paper.RECOVERY_ERRORS.values()], axis=0)
  assert {*paper.RECOVERY_ERRORS} == {*arguments.CATEGORIES}
  np.testing.assert_allclose(means, [0.0092, 0.0127, 0.0259, 0.0956], atol=6e-5)


def test_models_of_other_networks_stand_beside_table_4():
  def result(error):
    model = {'error': 2 * error, 'error_binary': error, 'error_surface': 0.05}
    return {
      'table': 'recovery',
      'category': 'night_stand',
      'scores': {'model': model, 'start': model},
    }

  found = {
    'recovery_night_stand': result(0.01),
    'recovery_night_stand_two_layers': result(0.02),
  }
  table = tables.recovery(found).splitlines()
  assert 'two layers' in table[0]
  (row,) = (line for line in table if line.startswith('| night_stand'))
  assert '0.0200 / 0.0100' in row and '0.0400 / 0.0200' in row
  # The summary has the model itself alone.
  assert '0.0100' in tables.overview.summary(found)


def test_other_kinds_and_sizes_have_rows_of_their_own():
  scores = {'error_binary': 0.01, 'iou': 0.9}
  found = {
    name: {
      'table': name.split('_chair')[0],
      'category': 'chair',
      'settings': {'kind': kind},
      'scores': {'model': scores, 'start': scores},
    }
    for name, kind in {
      'recovery_chair': 'random_voxels',
      'recovery_chair_mixture': 'mixture',
      'super_resolution_chair': '',
      'super_resolution_chair_64': '',
    }.items()
  }
  table = tables.overview.summary(found)
  assert table.count('1 classes') == 3  # The mixture is not of Table 4.
  cards = {
    f'pretrained/{name}': {'table': 'pretrained', 'picture': None}
    for name in found
  }
  rows = tables.overview.pretrained(found | cards).splitlines()[2:]
  kinds = [row.split('`')[1] for row in rows]
  assert kinds == [
    'recovery',
    'recovery_mixture',
    'super_resolution',
    'super_resolution_64',
  ]
