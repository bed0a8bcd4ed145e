"""README's tables: a line for each task, and the saved models."""

import glob
import json
import os
import re
from typing import Any

from experiments.evaluation import cells
from experiments.evaluation import paper

# The first of these that a saved model has is its picture.
_PICTURES = ('fresh.png', 'picture.png', 'figure3.png', 'figure4.png')


def cards(folder: str) -> dict[str, Any]:
  """The cards of saved models, and what lies beside them.

  Args:
    folder: of folders with a card.json.

  Returns:
    By the name `pretrained/NAME`.
  """
  found = {}
  for path in sorted(glob.glob(os.path.join(folder, '*', 'card.json'))):
    with open(path, encoding='utf-8') as file:
      card = json.load(file)
    name = f'pretrained/{os.path.basename(os.path.dirname(path))}'
    beside = {*os.listdir(os.path.dirname(path))}
    pictures = [f'{name}/{file}' for file in _PICTURES if file in beside]
    found[name] = card | {
      'table': 'pretrained',
      'picture': [*pictures, None][0],
      'report': 'report.html' in beside,
    }
  return found


def _all_of(values):
  """The mean of some numbers; None unless each is there."""
  return None if None in values else cells.mean(values)


def _best_baseline(found, metric, best):
  """The baseline that is best on average: a name and its mean."""
  names = dict.fromkeys(name for scores in found for name in scores)
  means = {
    name: _all_of([s.get(name, {}).get(metric) for s in found])
    for name in names
    if not name.startswith('model')
  }
  means = {name: mean for name, mean in means.items() if mean is not None}
  if not means:
    return cells.number(None)
  name = best(means, key=means.get)
  return f'{name} {means[name]:.3f}'


def _new_shapes(results):
  """Rows of fresh shapes: Table 2, distances, Table 1."""
  there = [c for c in paper.CLASS_PROBABILITIES if f'synthesis_{c}' in results]

  def mean(kind, metric):
    return _all_of(
      [cells.score(results, f'synthesis_{c}', kind, metric) for c in there]
    )

  rows = []
  if there:
    of = ', '.join(c.replace('_', ' ') for c in there)
    if len(there) == len(paper.CLASS_PROBABILITIES):
      of = f'{len(there)} classes'
    probability, neighbour = 'class_probability', 'one_nn_accuracy'
    real = mean('training shapes', neighbour)
    printed = cells.mean([paper.CLASS_PROBABILITIES[c][0] for c in there])
    rows = [
      [
        f'New shapes ({of}): probability of the class, Table 2',
        cells.number(mean('fresh', probability), 3),
        f'test shapes {cells.number(mean("test shapes", probability), 3)}',
        cells.number(printed, 3),
      ],
      [
        'The same: 1-NN accuracy by IoU, best at 0.5',
        cells.number(mean('fresh', neighbour), 2),
        f'training shapes {cells.number(real, 2)}',
        '–',
      ],
    ]
  score = cells.score(results, 'synthesis_all', 'fresh', 'inception_score')
  if score is not None:
    real = cells.score(
      results, 'synthesis_all', 'test shapes', 'inception_score'
    )
    rows.append(
      [
        'One model of ten classes: inception score, Table 1',
        cells.number(score, 2),
        f'test shapes {cells.number(real, 2)}',
        paper.INCEPTION_SCORES['paper'],
      ]
    )
  return rows


def _given_a_part(results):
  """Rows of Table 4 and of super-resolution."""
  rows = []
  found = [r['scores'] for _, r in cells.table_4(results)]
  if found:
    ours = [s.get('model', {}).get('error_binary') for s in found]
    rows.append(
      [
        f'Recovery of 70 % hidden voxels, {len(found)} classes: error, Table 4',
        cells.number(_all_of(ours)),
        _best_baseline(found, 'error_binary', min),
        cells.number(
          cells.mean([x[0] for x in paper.RECOVERY_ERRORS.values()])
        ),
      ]
    )
  sides = {'8^3 to 32^3': False, '16^3 to 64^3': True}
  for words, fine in sides.items():
    found = [
      r['scores']
      for name, r in cells.of(results, 'super_resolution')
      if name.endswith('_64') == fine
    ]
    if not found:
      continue
    ours = [s.get('model', {}).get('iou') for s in found]
    rows.append(
      [
        f'Super-resolution, {words}, {len(found)} classes: IoU',
        cells.number(_all_of(ours), 3),
        _best_baseline(found, 'iou', max),
        '–',
      ]
    )
  return rows


def summary(results: cells.Results) -> str:
  """README's table: a line or two for each task."""
  rows = _new_shapes(results) + _given_a_part(results)
  for _, result in cells.of(results, 'classification'):
    accuracy = {
      name: 100 * row['accuracy']['1']['mean']
      for name, row in result['scores'].items()
      if '1' in row['accuracy']
    }
    ours, other = 'ours', 'the same network, untrained'
    if ours in accuracy:
      rows.append(
        [
          'Classification by its features: accuracy, Table 5',
          f'{accuracy[ours]:.1f} %',
          f'untrained: {cells.number(accuracy.get(other), 1)} %',
          f'{100 * paper.ACCURACIES["paper"]:.1f} %',
        ]
      )
  return cells.markdown(['task', 'ours', 'compare', '*paper*'], rows)


def _reached(name, results):
  """The scores of a model of pretrained/, by the name of the score."""
  result = results.get(name, {})
  scores = result.get('scores', {})
  if 'accuracy' in result:
    return {'accuracy': result['accuracy']}
  if 'model' in scores:
    if result['table'] == 'super_resolution':
      return {'IoU': scores['model'].get('iou')}
    return {'error': scores['model'].get('error_binary')}
  for kind in ('generated', 'fresh'):
    row = scores.get(kind, {})
    if 'one_nn_accuracy' in row:
      return {'1-NN': row['one_nn_accuracy'], 'coverage': row.get('coverage')}
  return {}


_DIGITS = {'error': 4, 'accuracy': 3}


def _words(reached):
  """Several models' numbers as means."""
  names = dict.fromkeys(name for numbers in reached for name in numbers)
  parts = []
  for name in names:
    mean = cells.mean([numbers.get(name) for numbers in reached])
    parts.append(f'{name} {cells.number(mean, _DIGITS.get(name, 2))}')
  return ', '.join(parts) or cells.number(None)


def _minutes(card):
  seconds = card.get('seconds')
  return None if seconds is None else round(seconds / 60)


def _where(card):
  words = f'{card.get("device", "–")}, {card.get("date", "–")}'
  began = card.get('began')
  return f'{words}; began with {"; ".join(began)}' if began else words


# A kind of model, its category and what else its config says.
_NAME = re.compile(
  rf'(.+)_({"|".join([*paper.CLASS_PROBABILITIES, "all"])})(_64|_mixture|)'
)


def pretrained(results: cells.Results) -> str:
  """README's table of saved models: a row for each kind."""
  kinds: dict[str, dict[str, Any]] = {}
  for name, card in cells.of(results, 'pretrained'):
    name = name.removeprefix('pretrained/')
    match = _NAME.fullmatch(name)
    kind = f'{match[1]}{match[3]}' if match else name
    kinds.setdefault(kind, {})[name] = card
  rows = []
  for kind, members in kinds.items():
    links = [
      f'[{match[2] if (match := _NAME.fullmatch(name)) else name}]'
      f'(pretrained/{name}/README.md)'
      for name in members
    ]
    pictures = [card['picture'] for card in members.values() if card['picture']]
    rows.append(
      [
        links[0] if [*members] == [kind] else f'`{kind}`: {", ".join(links)}',
        f'<img src="{pictures[0]}" width="300">' if pictures else '–',
        _words([_reached(name, results) for name in members]),
      ]
    )
  return cells.markdown(['model', 'shapes of the first', 'reached'], rows)


def saved_models(results: cells.Results) -> str:
  """All saved models, a row for each, for a page of docs/."""
  rows = []
  for name, card in cells.of(results, 'pretrained'):
    picture, folder = card.get('picture'), f'../{name}'
    name = name.removeprefix('pretrained/')
    report = card.get('report')
    rows.append(
      [
        f'[`{name}`]({folder}/report.html)' if report else f'`{name}`',
        f'<img src="../{picture}" width="240">' if picture else '–',
        _words([_reached(name, results)]),
        str(card.get('iterations', '–')),
        cells.number(_minutes(card), 0),
        _where(card),
      ]
    )
  header = ['model', 'shapes', 'reached', 'iterations', 'minutes', 'on']
  return cells.markdown(header, rows)
