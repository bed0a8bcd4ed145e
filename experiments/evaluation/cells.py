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
  """Results of recovery by models of Table 4's corruption, random voxels."""
  found = of(results, 'recovery')
  kinds = [r.get('settings', {}).get('kind', 'random_voxels') for _, r in found]
  return [
    one
    for one, kind in zip(found, kinds, strict=True)
    if kind == 'random_voxels'
  ]


def score(results: Results, name: str, kind: str, metric: str) -> Any:
  """A score of a set of shapes, or None."""
  row = results.get(name, {}).get('scores', {}).get(kind, {})
  return row.get(metric)


def mean(values: Sequence[float | None]) -> float | None:
  """The mean of those that are there; None where none is."""
  known = [value for value in values if value is not None]
  return sum(known) / len(known) if known else None
