"""Tables of shapes that models made: 1 to 3, distances, and multi-grid."""

from experiments.evaluation import cells
from experiments.evaluation import paper

# Sets of shapes of a result, our own first.
_OURS = ('persistent', 'fresh')
_REAL = ('training shapes', 'test shapes')

# What the name of a result ends with: that of the run of a saved model, and
# that of the persistent chains of the run before it, as a file of shapes.
_RUN, _BEFORE = '_run', '_paper'


def _sets(results):
  """Name of the result, name of the set, and scores, of all shapes made.

  A saved model keeps a few of its persistent chains. Those of its run stand for
  them, where there is a result of the run. Real shapes of both are the same.
  """
  for name, result in cells.of(results, 'synthesis'):
    beside = name.endswith((_RUN, _BEFORE))
    for kind, row in result['scores'].items():
      real = kind in (*_REAL, 'mean shape', 'noise')
      few = kind == 'persistent' and f'{name}{_RUN}' in results
      if not (few or (beside and real)):
        yield name, kind, row


def _persistent(results, name):
  """The name of the result that has a model's persistent chains."""
  return f'{name}{_RUN}' if f'{name}{_RUN}' in results else name


def inception(results: cells.Results) -> str:
  """Table 1."""
  rows = []
  for name, kind, row in _sets(results):
    if 'inception_score' in row:
      score = f'{row["inception_score"]:.3f}'
      if row['inception_std']:
        score += f' ± {row["inception_std"]:.3f}'
      number = f'{row["shapes"]:.0f}'
      rows.append([f'{kind}, `{name}`', number, score])
  rows += [[f'*{k}*', '', v] for k, v in paper.INCEPTION_SCORES.items()]
  return cells.markdown(['method', 'shapes', 'inception score'], rows)


def _by_category(results, printed, metric):
  """Tables 2 and 3; the mean of our column is over the numbers that exist.

  `before` are the persistent chains of the `,paper` run from which the model
  went on.
  """
  kinds = (*_OURS, *_REAL, 'noise')
  rows, columns = (
    [],
    [[] for _ in range(1 + len(kinds) + len(paper.SYNTHESIS_METHODS))],
  )
  for category, theirs in printed.items():
    name = f'synthesis_{category}'
    sources = {'persistent': _persistent(results, name)}
    values = [cells.score(results, f'{name}{_BEFORE}', 'shapes', metric)]
    values += [
      cells.score(results, sources.get(kind, name), kind, metric)
      for kind in kinds
    ]
    values += theirs
    rows.append([category, *map(cells.number, values)])
    for column, value in zip(columns, values, strict=True):
      column.append(value)
  rows.append(
    ['mean', *(cells.number(cells.mean(column)) for column in columns)]
  )
  header = ['', 'before', *kinds]
  header += [f'*{name}*' for name in paper.SYNTHESIS_METHODS]
  return cells.markdown(header, rows)


def class_probability(results: cells.Results) -> str:
  """Table 2."""
  return _by_category(results, paper.CLASS_PROBABILITIES, 'class_probability')


def classification_error(results: cells.Results) -> str:
  """Table 3."""
  return _by_category(
    results, paper.CLASSIFICATION_ERRORS, 'classification_error'
  )


def beside_real(results: cells.Results) -> str:
  """Fresh and persistent shapes of each category beside real ones.

  'more steps' is the set 'fresh, N steps', of `evaluate.more_steps`.
  """
  kinds = (kind for _, kind, _ in _sets(results))
  more = next((kind for kind in kinds if kind.endswith('steps')), 'more steps')
  own = ''
  columns = (
    ('1-NN accuracy, before', _BEFORE, 'shapes', 'one_nn_accuracy'),
    ('persistent', _RUN, 'persistent', 'one_nn_accuracy'),
    ('fresh', own, 'fresh', 'one_nn_accuracy'),
    (more, own, more, 'one_nn_accuracy'),
    ('training shapes', own, 'training shapes', 'one_nn_accuracy'),
    ('coverage, fresh', own, 'fresh', 'coverage'),
    (more, own, more, 'coverage'),
    ('training shapes', own, 'training shapes', 'coverage'),
    ('class probability, fresh', own, 'fresh', 'class_probability'),
    (more, own, more, 'class_probability'),
    ('test shapes', own, 'test shapes', 'class_probability'),
    ('copy rate, before', _BEFORE, 'shapes', 'copy_rate'),
    ('persistent', _RUN, 'persistent', 'copy_rate'),
    ('fresh', own, 'fresh', 'copy_rate'),
    (more, own, more, 'copy_rate'),
  )

  def value(name, source, kind, metric):
    name = _persistent(results, name) if source == _RUN else f'{name}{source}'
    return cells.score(results, name, kind, metric)

  rows = {
    category: [value(f'synthesis_{category}', *of) for _, *of in columns]
    for category in (*paper.CLASS_PROBABILITIES, 'all')
  }
  ten = [rows[category] for category in paper.CLASS_PROBABILITIES]
  rows['mean of ten'] = [
    cells.mean(column) for column in zip(*ten, strict=True)
  ]
  return cells.markdown(
    ['', *(name for name, *_ in columns)],
    [
      [name, *(cells.number(value, 3) for value in values)]
      for name, values in rows.items()
    ],
  )


def distances(results: cells.Results) -> str:
  """Distances of all sets of shapes that were made, and of training shapes."""
  columns = {
    'one_nn_accuracy': '1-NN, IoU',
    'coverage': 'coverage',
    'mmd': 'distance',
    'one_nn_accuracy_chamfer': '1-NN, Chamfer',
    'coverage_chamfer': 'coverage',
    'mmd_chamfer': 'distance, 10^-3',
    'jensen_shannon': 'JSD',
    'frechet': 'Frechet',
    'pairwise_iou': 'pairwise IoU',
    'nearest_train_iou': 'IoU with nearest training shape',
    'copy_rate': 'copy rate',
    'rejected': 'rejected',
  }
  rows = []
  for name, kind, scores in _sets(results):
    if kind in ('test shapes', 'mean shape', 'noise'):
      continue
    values = []
    for metric in columns:
      value = scores.get(metric)
      if metric == 'mmd_chamfer' and value is not None:
        value *= 1000
      values.append(cells.number(value, 2))
    rows.append([f'`{name}`', kind, *values])
  return cells.markdown(['result', 'shapes', *columns.values()], rows)


def multi_grid(results: cells.Results) -> str:
  """Fresh shapes of multi-grid models on each grid, beside training shapes."""
  metrics = ('one_nn_accuracy', 'coverage')
  rows = []
  for name, result in cells.of(results, 'synthesis'):
    for grid, scores in result.get('grids', {}).items():
      values = [
        cells.number(scores[kind].get(metric), 2)
        for metric in metrics
        for kind in ('samples', 'training shapes')
      ]
      steps = str(result['cost']['steps'][grid])
      rows.append([f'`{name}`', grid, *values, steps])
    if 'grids' in result:
      rows[-1].append(cells.number(result['cost']['seconds_per_sample'], 2))
  header = ['result', 'grid', '1-NN accuracy', 'training shapes', 'coverage']
  header += ['training shapes', 'steps', 'seconds a shape']
  return cells.markdown(
    header, [row + [''] * (len(header) - len(row)) for row in rows]
  )
