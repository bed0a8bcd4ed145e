"""The mode `report`: a run, a model or a result as one page for a browser.

The page is one file without any request to a network, of at most 5 MB: what
the model is and how it was made, its curves, shapes that can be turned, the
pictures beside it and its scores.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import glob
import os
from typing import Any

from absl import logging
import ml_collections

from data_prep import voxel_file
import dnet_jax
from dnet_jax import specs
from experiments.configs import default
from experiments.files import datasets
from experiments.files import logs
from experiments.files import outputs
from experiments.files import workdirs
from experiments.pages import markup
from experiments.pages import samples
from experiments.pages import scores
from experiments.tasks import base
from experiments.tasks import parts

MOST_BYTES = 5_000_000
RUNNING = 'page.html'  # The page of a run that is still learning.
_SHAPES = 8  # Of a group.
_PICTURES = 12  # At most, the newest ones.
# The entries of a card that a page shows first, and the unit of each.
_SHORT = {
  'data': '',
  'iterations': ' iterations',
  'seconds': ' s',
  'device': '',
  'date': '',
}
# Names of pictures that a model is saved with.
_CAPTIONS = {
  'figure3': 'Figure 3: recovery',
  'figure4': 'Figure 4: super-resolution',
  'figure5': 'Figure 5: generated shapes',
  'figure6': 'Figure 6: interpolations',
  'figure7': 'Figure 7: arithmetic',
  'figure8': 'Figure 8: from coarse to fine',
  'curves': 'How the generator learned',
}


def report(request: base.Request) -> str:
  """Writes the page of a model: `report.html`, `report_001.html`, ...

  Returns:
    The file: below the model, or `request.out`.

  Raises:
    FileExistsError: when `request.out` exists.
  """
  if request.out is not None:
    voxel_file.refuse_existing(request.out)
  data = parts.data_or_none(request.config)
  number = min(_SHAPES, request.config.sample.num_samples)
  groups = samples.fresh(request, data, number)
  groups += samples.of_chains(request.model, data, number)
  text = _page(
    request.folder,
    request.model.spec,
    request.card,
    _metrics(request.folder),
    groups,
    scores.of_model(request.card['name'], request.folder),
  )
  return _write(request.folder, text, request.out)


def report_result(path: str, out: str | None = None) -> str:
  """Writes the page of a results file, beside it.

  Args:
    path: of the file (.json).
    out: the page, which must not exist; None: below the folder of the file.

  Raises:
    FileExistsError: when `out` exists.
    ValueError: for a file that is not a result.
  """
  if out is not None:
    voxel_file.refuse_existing(out)
  result = scores.read(path)
  name = result.get('experiment') or os.path.basename(path)
  body = [f'<h1>{markup.escape(name)}</h1>', '<h2>Scores</h2>']
  body += scores.section(path, result)
  card = result.get('card')
  if isinstance(card, Mapping):
    body += ['<h2>The model</h2>', markup.facts(_facts(card))]
  if isinstance(result.get('settings'), Mapping):
    body.append(markup.folded('Settings', markup.as_json(result['settings'])))
  stem = os.path.splitext(os.path.basename(path))[0]
  text = markup.page(name, body)
  return _write(os.path.dirname(path) or '.', text, out, stem)


def running(
  workdir: str,
  model: dnet_jax.Model,
  config: ml_collections.ConfigDict,
  data: datasets.Dataset,
  step: int,
) -> str:
  """Writes `page.html` of a training as it goes, in place of the last one.

  Its shapes are persistent chains, or what a generator makes: both cost little.

  Returns:
    The file.
  """
  card = {
    'name': config.name,
    'data': data.source,
    'shapes': len(data.train),
    'classes': list(data.classes),
    'iterations': f'{step}, still learning',
    'device': outputs.device(),
    'config': config.to_dict(),
  }
  groups = samples.of_chains(model, data, _SHAPES)
  if not groups and base.has_generator(model.spec):
    request = base.Request(model, card, config, workdir)
    groups = samples.fresh(request, data, _SHAPES)
  text = _page(workdir, model.spec, card, _metrics(workdir), groups, {})
  path = os.path.join(workdir, RUNNING)
  workdirs.write_text(path, text)
  return path


def _page(folder, spec, card, rows, groups, results):
  """The page of a model."""
  made = [
    f'{card[name]}{unit}' for name, unit in _SHORT.items() if card.get(name)
  ]
  body = [
    f'<h1>{markup.escape(card["name"])}</h1>',
    f'<p>{markup.escape(specs.describe(spec))}.</p>',
    f'<p class="faint">{markup.escape(", ".join(made))}</p>',
  ]
  for group in groups:
    body += samples.section(group)
  if groups:
    body.append(
      '<p class="faint">Drag a shape, or use the arrow keys, to turn all of '
      'them; a double click turns them back.</p>'
    )
  if rows:
    body += ['<h2>Learning</h2>', markup.charts(rows)]
  shown = _pictures(folder)
  place = len(body)
  if results:
    body.append('<h2>Scores</h2>')
    for path, result in results.items():
      body += scores.section(path, result)
  body += ['<h2>How it was made</h2>', markup.facts(_facts(card))]
  body += _config(card.get('config'))
  scripts = ('shapes.js', 'report.js') if groups else ()
  room = MOST_BYTES - len(markup.page(card['name'], body, scripts).encode())
  body[place:place] = _figures(shown, room - 10_000)
  return markup.page(card['name'], body, scripts)


def _facts(card: Mapping[str, Any]) -> dict[str, Any]:
  """The entries of a card, without its config."""
  found = {}
  for name, value in card.items():
    if name in ('config', 'name') or value is None:
      continue
    if isinstance(value, Mapping):
      value = ', '.join(f'{key} {x}' for key, x in value.items())
    elif isinstance(value, list | tuple):
      value = ', '.join(map(str, value))
    found[name.replace('_', ' ')] = value
  return found


def _config(content: Mapping[str, Any] | None) -> list[str]:
  """The fields that differ from the default, and the whole config, folded."""
  if not content:
    return []
  own, usual = _flat(content), _flat(default.get_config().to_dict())
  other = {
    name: value
    for name, value in own.items()
    if name != 'name'
    and markup.as_json(value) != markup.as_json(usual.get(name))
  }
  return [
    '<p>Fields of its config that are not the default:</p>',
    markup.facts(other),
    markup.folded('The whole config', markup.as_json(content)),
  ]


def _flat(content, prefix=''):
  flat = {}
  for name, value in content.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f'{prefix}{name}.')
    else:
      flat[f'{prefix}{name}'] = value
  return flat


def _metrics(folder: str) -> list[dict[str, Any]]:
  if not os.path.exists(os.path.join(folder, 'metrics.jsonl')):
    return []
  return logs.read_metrics(folder)


def _pictures(folder: str) -> list[str]:
  """Pictures of a model or run: those in its folder, then the newest others."""

  def inside(pattern):
    return glob.glob(os.path.join(glob.escape(folder), pattern))

  own = sorted(inside('*.png'), key=lambda path: ('figure' not in path, path))
  folders: dict[str, str] = {}
  for path in sorted(
    [*inside('*/*.png'), *inside('*/*/*.png')], key=os.path.getmtime
  ):
    kind = os.path.relpath(path, folder).split(os.sep)[0]
    stem = os.path.splitext(os.path.basename(path))[0].rstrip('0123456789_')
    folders[f'{kind}/{stem}'] = path
  return [*own, *reversed(folders.values())][:_PICTURES]


def _figures(paths: Sequence[str], room: int) -> list[str]:
  """Pictures as HTML, as many as there is room for."""
  body, left_out = [], []
  for path in paths:
    stem = os.path.splitext(os.path.basename(path))[0]
    piece = markup.picture(path, _CAPTIONS.get(stem, stem.replace('_', ' ')))
    if len(piece) > room:
      left_out.append(os.path.basename(path))
      continue
    room -= len(piece)
    body.append(piece)
  if left_out:
    names = ', '.join(left_out)
    body.append(f'<p class="faint">Too large for this page: {names}.</p>')
  return ['<h2>Pictures</h2>', *body] if body else []


def _write(folder, text, out, stem='report'):
  path = out or outputs.unused_path(folder, stem, '.html')
  if os.path.dirname(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, 'x', encoding='utf-8') as file:
    file.write(text)
  logging.info('Wrote %s (%.1f MB)', path, len(text.encode()) / 1e6)
  return path
