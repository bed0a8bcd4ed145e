"""The mode `evaluate`: a model, or the shapes of a file, beside real shapes."""

import os
from typing import Any

import ml_collections

from data_prep import voxel_file
from experiments import tasks
from experiments.evaluation import scores
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import parts
from experiments.tasks import synthesis


def evaluate(request: base.Request) -> dict[str, Any]:
  """Scores a model as its task does.

  Returns:
    The result that is written to `evaluations/evaluation.json`, `_001`, ...
    below the model, and to the file `out`.

  Raises:
    FileExistsError: when `out` exists.
    ValueError: for data without test shapes.
  """
  task = tasks.TASKS[request.config.task]
  folder = os.path.join(request.folder, 'evaluations')
  return _write(
    request, lambda data: task.evaluate(request, data, folder), request.card
  )


def evaluate_file(
  config: ml_collections.ConfigDict, path: str, out: str | None = None
) -> dict[str, Any]:
  """Scores the shapes of an .npz file, see `scores.read_shapes`.

  Args:
    config: whose `data` and `evaluate` settings count.
    path: the file; evaluations/ is made beside it.
    out: as for `evaluate`.
  """
  shapes = scores.read_shapes(path, config.data.category)
  card = {'name': config.name, 'file': os.path.basename(path)}
  folder = os.path.dirname(path)
  request = base.Request(None, card, config, folder, out=out)
  return _write(
    request,
    lambda data: synthesis.scored(request, data, {'shapes': [shapes]}),
    card,
  )


def _write(request, score, card):
  if request.out is not None:
    voxel_file.refuse_existing(request.out)
  whole = request.config.copy_and_resolve_references()
  with whole.unlocked():
    whole.data.hold_out = 0.0
  data = parts.data(whole)
  if len(data.test) < 2:
    raise ValueError(
      f'evaluate compares with test shapes, but {data.source} has '
      f'{len(data.test)}: give another --config.data.path'
    )
  result = outputs.header(card['name'])
  result['card'] = {name: x for name, x in card.items() if name != 'config'}
  result |= {'data': data.source} | score(data)
  outputs.write_result(request.folder, 'evaluation', result, request.out)
  if 'scores' in result:
    _print(result['scores'])
  elif 'categories' in result:
    # Of a classifier.
    rows = {'all': result} | result['categories']
    names = ('accuracy', 'probability')
    _print({row: {x: rows[row][x] for x in names} for row in rows})
  return result


def _print(table):
  """Prints scores: sets are columns, or rows where there are more of them."""
  names = list(dict.fromkeys(name for row in table.values() for name in row))
  rows = [['', *table]]
  for name in names:
    values = (scores.get(name) for scores in table.values())
    rows.append([name, *('' if v is None else f'{v:.4f}' for v in values)])
  if len(table) > len(names):
    rows = [*map(list, zip(*rows, strict=True))]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = [x.rjust(width) for x, width in zip(row, widths, strict=True)]
    print('  '.join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
