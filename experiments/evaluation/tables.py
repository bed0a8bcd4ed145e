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
from experiments.evaluation import new_shapes
from experiments.evaluation import overview
from experiments.evaluation import paper
from experiments.evaluation import speed

PAGES = ('README.md', 'docs/results.md', 'docs/speed.md')


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
  'inception': new_shapes.inception,
  'new_shapes': new_shapes.beside_real,
  'class_probability': new_shapes.class_probability,
  'classification_error': new_shapes.classification_error,
  'recovery': recovery,
  'corruption_kinds': corruption_kinds,
  'super_resolution': super_resolution,
  'classification': classification,
  'distances': new_shapes.distances,
  'multi_grid': new_shapes.multi_grid,
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
