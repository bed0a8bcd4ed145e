"""Cells of tables: numbers out of results, and rows as Markdown."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

# What results/*.json hold, by the name of the file.
Results = Mapping[str, Mapping[str, Any]]


def number(value: Any, digits: int = 4) -> str:
  """A number, a text as it is, or a dash for None."""
  if value is None:
    return '–'
  return value if isinstance(value, str) else f'{value:.{digits}f}'


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A table."""
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def of(results: Results, table: str) -> list[tuple[str, Mapping[str, Any]]]:
  """Results that belong to a table, with their names."""
  return [(n, r) for n, r in results.items() if r.get('table') == table]


def table_4(results: Results) -> list[tuple[str, Mapping[str, Any]]]:
  """Results of recovery by models of Table 4's corruption, random voxels.

  A model that stands beside them, as of another network, has a name with more
  after its category, and is not among these; see `beside`.
  """
  return [
    (name, result)
    for name, result in of(results, 'recovery')
    if _kind(result) == 'random_voxels' and not _more(name, result)
  ]


def beside(
  results: Results, category: str
) -> dict[str, Mapping[str, Mapping[str, Any]]]:
  """Results of other models of Table 4's corruption, by what they are.

  >>> result = {'table': 'recovery', 'category': 'sofa', 'scores': {}}
  >>> beside({'recovery_sofa_two_layers': result}, 'sofa')
  {'two layers': {}}
  """
  return {
    _more(name, result).replace('_', ' '): result['scores']
    for name, result in of(results, 'recovery')
    if _kind(result) == 'random_voxels'
    and result['category'] == category
    and _more(name, result)
  }


def _kind(result):
  return result.get('settings', {}).get('kind', 'random_voxels')


def _more(name, result):
  """What the name of a result has after its category."""
  return name.partition(f'_{result["category"]}')[2].removeprefix('_')


def score(results: Results, name: str, kind: str, metric: str) -> Any:
  """A score of a set of shapes, or None."""
  row = results.get(name, {}).get('scores', {}).get(kind, {})
  return row.get(metric)


def mean(values: Sequence[float | None]) -> float | None:
  """The mean of those that are there; None where none is."""
  known = [value for value in values if value is not None]
  return sum(known) / len(known) if known else None
