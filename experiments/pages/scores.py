"""Results as tables of a page: ours beside real shapes and the paper."""

from collections.abc import Mapping
import glob
import json
import os
from typing import Any

from experiments.evaluation import paper
from experiments.pages import markup


def read(path: str) -> dict[str, Any]:
  """Reads a result.

  Raises:
    ValueError: for a file that is not a result.
  """
  try:
    with open(path, encoding='utf-8') as file:
      result = json.load(file)
  except (UnicodeDecodeError, ValueError) as error:
    raise ValueError(f'{path} is not a results file: {error}') from error
  if not isinstance(result, dict):
    raise ValueError(f'{path} is not a results file: it holds no JSON object')
  return result


def of_model(
  name: str, folder: str, results: str = 'results'
) -> dict[str, dict[str, Any]]:
  """The results of a model by file: its own evaluations, and those kept.

  Args:
    name: of its card.
    folder: of the model or run; the newest file of each name counts.
    results: folder of results of earlier runs; it may be missing.
  """
  found = {}
  for path in sorted(glob.glob(os.path.join(glob.escape(results), '*.json'))):
    result = read(path)
    if (result.get('card') or {}).get('name') == name:
      found[path] = result
  own = glob.glob(os.path.join(glob.escape(folder), 'evaluations', '*.json'))
  newest = {}
  for path in sorted(own, key=os.path.getmtime):
    stem = os.path.splitext(os.path.basename(path))[0].rstrip('0123456789_')
    newest[stem] = path
  return found | {path: read(path) for path in newest.values()}


def section(path: str, result: Mapping[str, Any]) -> list[str]:
  """The tables of a result, as pieces of HTML."""
  head = ', '.join(
    str(result[name]) for name in ('date', 'device', 'data') if name in result
  )
  parts = [
    f'<h3>{markup.escape(os.path.basename(path))}</h3>',
    f'<p class="faint">{markup.escape(head)}</p>' if head else '',
  ]
  if isinstance(result.get('scores'), dict):
    parts.append(_scores(result))
  for name, value in result.items():
    if name in ('scores', 'card', 'settings', 'classifier', 'budget'):
      continue
    if isinstance(value, dict) and all(
      isinstance(x, dict) for x in value.values()
    ):
      parts.append(f'<p>{markup.escape(name.replace("_", " "))}</p>')
      parts.append(_table(value))
    elif isinstance(value, dict | list):
      parts.append(markup.folded(name, markup.as_json(value)))
    elif isinstance(value, float):
      parts.append(markup.facts({name: _number(value)}))
  if 'command' in result:
    parts.append(f'<pre>{markup.escape(result["command"])}</pre>')
  return parts


def _scores(result):
  """Sets of shapes or methods side by side, those of the paper last."""
  sets = {name: _flat(row) for name, row in result['scores'].items()}
  sets |= _paper(result.get('table'), result.get('category'))
  return _table(sets)


def _paper(table, category):
  """The numbers that the paper prints for the same scores, by method."""
  if table == 'synthesis':
    found = {}
    for metric, printed in (
      ('class_probability', paper.CLASS_PROBABILITIES),
      ('classification_error', paper.CLASSIFICATION_ERRORS),
    ):
      for name, value in zip(
        paper.SYNTHESIS_METHODS, printed.get(category, ()), strict=False
      ):
        found.setdefault(_theirs(name), {})[metric] = value
    if category == 'all':
      for name, value in paper.INCEPTION_SCORES.items():
        found[_theirs(name)] = {'inception_score': value}
    return found
  if table == 'classification':
    return {
      _theirs(name): {'accuracy 1.0 mean': value}
      for name, value in paper.ACCURACIES.items()
    }
  return {}


def _theirs(name):
  return name if name == 'paper' else f'paper: {name}'


def _flat(row, prefix=''):
  if not isinstance(row, dict):
    return {'value': row}
  flat = {}
  for name, value in row.items():
    if isinstance(value, dict):
      flat |= _flat(value, f'{prefix}{name} ')
    else:
      flat[f'{prefix}{name}'] = value
  return flat


def _table(sets):
  """Sets by name as columns, or as rows where there are many of them."""
  sets = {name: _flat(row) for name, row in sets.items()}
  metrics = list(dict.fromkeys(name for row in sets.values() for name in row))
  if len(sets) > len(metrics):
    rows = [
      [name, *(_number(row.get(metric)) for metric in metrics)]
      for name, row in sets.items()
    ]
    return markup.table(['', *(x.replace('_', ' ') for x in metrics)], rows)
  rows = [
    [
      metric.replace('_', ' '),
      *(_number(row.get(metric)) for row in sets.values()),
    ]
    for metric in metrics
  ]
  return markup.table(['', *sets], rows)


def _number(value):
  if value is None:
    return '–'
  if isinstance(value, bool) or not isinstance(value, int | float):
    return str(value)
  if isinstance(value, int) or value == round(value):
    return f'{value:,.0f}' if abs(value) >= 10 else f'{value:g}'
  return f'{value:.4g}'
