"""Writes the tables of README and docs/ from results/*.json and pretrained/.

python -m experiments.evaluation.tables          # writes the files of `PAGES`
python -m experiments.evaluation.tables --check  # fails where one is stale

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; everything
between them is replaced. Names are those of `TABLES`. A number that is in no
result is a dash.
"""

from collections.abc import Callable
from collections.abc import Mapping
import glob
import json
import os
import re
from typing import Any

from absl import app
from absl import flags

from experiments.evaluation import cells
from experiments.evaluation import overview
from experiments.evaluation import paper
from experiments.evaluation import speed

# Sets of shapes of a result, our own first.
_OURS = ('persistent', 'fresh')
_REAL = ('training shapes', 'test shapes')

PAGES = ('README.md', 'docs/results.md', 'docs/speed.md')


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


def new_shapes(results: cells.Results) -> str:
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


def class_probability(results: cells.Results) -> str:
  """Table 2."""
  return _by_category(results, paper.CLASS_PROBABILITIES, 'class_probability')


def classification_error(results: cells.Results) -> str:
  """Table 3."""
  return _by_category(
    results, paper.CLASSIFICATION_ERRORS, 'classification_error'
  )


def recovery(results: cells.Results) -> str:
  """Table 4; our errors and the baselines' are real-valued and thresholded.

  For our model the table also has the thresholded error of voxels next to the
  surface. The last row has means over the categories. A supervised network
  stands beside the baselines where there is one (`benchmarks.supervised`), and
  models of other networks do (`cells.beside`).
  """
  found: dict[str, dict[str, Any]] = {}
  for name, result in cells.table_4(results):
    found.setdefault(result['category'], {}).update(
      result['scores'] | _supervised(results, name)
    )
  for category, scores in found.items():
    others = cells.beside(results, category)
    scores.update((what, other['model']) for what, other in others.items())
  baselines = dict.fromkeys(
    name
    for scores in found.values()
    for name in scores
    if name != 'model' and name not in paper.RECOVERY_METHODS
  )

  def columns(metric, names):
    return [
      [found.get(c, {}).get(name, {}).get(metric) for c in categories]
      for name in names
    ]

  categories = [*paper.RECOVERY_ERRORS]
  ours = [
    *zip(
      columns('error', ['model', *baselines]),
      columns('error_binary', ['model', *baselines]),
      strict=True,
    )
  ]
  surface = columns('error_surface', ['model'])
  printed = [*map(list, zip(*paper.RECOVERY_ERRORS.values(), strict=True))]
  # One more row: the means.
  for column in (*(x for both in ours for x in both), *surface, *printed):
    column.append(cells.mean(column))
  rows = [
    [
      category,
      *(f'{cells.number(x[i])} / {cells.number(y[i])}' for x, y in ours[:1]),
      cells.number(surface[0][i]),
      *(f'{cells.number(x[i])} / {cells.number(y[i])}' for x, y in ours[1:]),
      *(cells.number(column[i]) for column in printed),
    ]
    for i, category in enumerate([*categories, 'mean'])
  ]
  header = ['real-valued / thresholded', 'ours', 'near the surface', *baselines]
  return cells.markdown(
    [*header, *(f'*{name}*' for name in paper.RECOVERY_METHODS)], rows
  )


def _supervised(results, name):
  """Scores of the supervised network that is given what a model is given."""
  found = cells.of(results, 'supervised')
  return {
    k: x for _, r in found if r['model'] == name for k, x in r['scores'].items()
  }


def corruption_kinds(results: cells.Results) -> str:
  """Thresholded errors of each kind of corruption, and of several completions.

  Rows are models, by what they have learned.
  """
  rows = [
    [
      f'`{name}`',
      result['settings']['kind'].replace('_', ' '),
      kind.replace('_', ' '),
      cells.number(row['error_binary']),
      cells.number(row['error_surface']),
      cells.number(row['iou']),
      *(
        cells.number(row.get('completions', {}).get(x))
        for x in ('mean', 'best', 'vote', 'spread')
      ),
    ]
    for name, result in cells.of(results, 'recovery')
    for kind, row in result.get('kinds', {}).items()
  ]
  # A table for each kind, so to speak: models of one kind stand together.
  rows.sort(key=lambda row: row[2])
  return cells.markdown(
    [
      'result',
      'learned from',
      'hidden',
      'error',
      'near the surface',
      'IoU',
      'completions: error',
      'best',
      'vote',
      'spread',
    ],
    rows,
  )


def super_resolution(results: cells.Results) -> str:
  """Scores of section 6.3, for which the paper has pictures only.

  A supervised network stands beside them where there is one.
  """
  found = cells.of(results, 'super_resolution')
  metrics = dict.fromkeys(
    metric for _, r in found for row in r['scores'].values() for metric in row
  )
  rows = [
    [
      f'`{name}`',
      method,
      *(cells.number(row.get(metric)) for metric in metrics),
    ]
    for name, result in found
    for method, row in (result['scores'] | _supervised(results, name)).items()
  ]
  return cells.markdown(['result', 'method', *metrics], rows)


def classification(results: cells.Results) -> str:
  """Table 5, and few labels."""
  found = cells.of(results, 'classification')
  shares = dict.fromkeys(
    share
    for _, result in found
    for row in result['scores'].values()
    for share in row['accuracy']
  )
  shares = sorted(shares, key=float)
  rows = []
  for name, result in found:
    for method, row in result['scores'].items():
      accuracies = []
      for share in shares:
        cell = row['accuracy'].get(share)
        text = '–'
        if cell is not None:
          text = f'{100 * cell["mean"]:.1f}'
          if cell['draws'] > 1:
            text += f' ± {100 * cell["std"]:.1f}'
        accuracies.append(text)
      rows.append([f'{method}, `{name}`', str(row['features']), *accuracies])
  blank = ['–'] * max(len(shares) - 1, 0)
  for _, result in cells.of(results, 'evaluation_classifier'):
    accuracy = f'{100 * result["accuracy"]:.1f}'
    rows.append(
      ['our classifier (a ConvNet with labels)', '', *blank, accuracy]
    )
  for method, value in paper.ACCURACIES.items():
    rows.append([f'*{method}*', '', *blank, f'{100 * value:.1f}'])
  header = ['method', 'features']
  header += [f'{100 * float(share):g} % of the labels' for share in shares]
  if not shares:
    header += ['accuracy, %']
  return cells.markdown(header, rows)


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


def evaluation_classifier(results: cells.Results) -> str:
  """What the evaluation classifier rejects."""
  rows = []
  for _, result in cells.of(results, 'evaluation_classifier'):
    for kind, row in result['rejection'].items():
      learned = {True: 'yes', False: 'no'}.get(row.get('seen'), '')
      values = (
        row[name]
        for name in ('rejected', 'none', 'largest_probability', 'entropy')
      )
      number = f'{row["shapes"]:.0f}'
      rows.append(
        [kind, number, learned, *(cells.number(v, 3) for v in values)]
      )
  header = ['grids', 'number', 'seen in learning', 'rejected', "P('none')"]
  return cells.markdown([*header, 'largest of the ten', 'entropy'], rows)


TABLES: Mapping[str, Callable[[cells.Results], str]] = {
  'inception': inception,
  'new_shapes': new_shapes,
  'class_probability': class_probability,
  'classification_error': classification_error,
  'recovery': recovery,
  'corruption_kinds': corruption_kinds,
  'super_resolution': super_resolution,
  'classification': classification,
  'distances': distances,
  'multi_grid': multi_grid,
  'evaluation_classifier': evaluation_classifier,
  'speed': speed.networks,
  'growth': speed.growth,
  'speed_summary': speed.summary,
  'summary': overview.summary,
  'pretrained': overview.pretrained,
  'saved_models': overview.saved_models,
}


def read(folder: str, models: str | None = None) -> dict[str, Any]:
  """All results of a folder, by the name of the file, without .json.

  Args:
    folder: of results.
    models: a folder of saved models, whose cards are added by the name
      `pretrained/NAME`.
  """
  found = {} if models is None else overview.cards(models)
  for path in sorted(glob.glob(os.path.join(folder, '*.json'))):
    with open(path, encoding='utf-8') as file:
      found[os.path.splitext(os.path.basename(path))[0]] = json.load(file)
  return found


def fill(text: str, results: cells.Results) -> str:
  r"""A text with its tables written anew.

  Raises:
    ValueError: for a table of another name, or a marker without its end.

  >>> print(fill('a\n<!-- table: super_resolution -->\n<!-- end -->', {}))
  a
  <!-- table: super_resolution -->
  <BLANKLINE>
  | result | method |
  | --- | --- |
  <BLANKLINE>
  <!-- end -->
  """
  begins = len(re.findall(r'^<!-- table: ', text, re.MULTILINE))
  ends = len(re.findall(r'^<!-- end -->$', text, re.MULTILINE))
  if begins != ends:
    raise ValueError(
      f'there are {begins} <!-- table: NAME --> but {ends} <!-- end -->'
    )

  def table(match):
    name = match[1]
    if name not in TABLES:
      raise ValueError(f'there is no table {name!r}: {", ".join(TABLES)}')
    content = TABLES[name](results)
    return f'<!-- table: {name} -->\n\n{content}\n\n<!-- end -->'

  return re.sub(
    r'^<!-- table: (\w+) -->$.*?^<!-- end -->$',
    table,
    text,
    flags=re.MULTILINE | re.DOTALL,
  )


def update(page: str, results: cells.Results, *, check: bool = False) -> None:
  """Writes a file's tables anew.

  Args:
    page: the file.
    results: see `read`.
    check: write nothing.

  Raises:
    SystemExit: with `check`, when the file is not up to date.
  """
  with open(page, encoding='utf-8') as file:
    text = file.read()
  filled = fill(text, results)
  if filled == text:
    return
  if check:
    raise SystemExit(
      f'{page} does not match the results: run python -m '
      'experiments.evaluation.tables'
    )
  with open(page, 'w', encoding='utf-8') as file:
    file.write(filled)


def main(argv):
  """Writes or checks the pages."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}')
  results = read(_RESULTS.value, _MODELS.value)
  for page in _FILES.value:
    update(page, results, check=_CHECK.value)


if __name__ == '__main__':
  _FILES = flags.DEFINE_list('pages', list(PAGES), 'The files to write.')
  _RESULTS = flags.DEFINE_string('results', 'results', 'Folder of results.')
  _MODELS = flags.DEFINE_string('models', 'pretrained', 'Saved models.')
  _CHECK = flags.DEFINE_bool('check', False, 'Write nothing; fail if stale.')
  app.run(main)
