"""Writes the reports of several models, and a gallery page of all of them.

python -m experiments.reports                    # of pretrained/
python -m experiments.reports --models=runs/a,runs/b --gallery=runs/gallery.html

A model that has a report keeps it; remove `report.html` for a new one.
"""

from collections.abc import Sequence
import glob
import os

from absl import app
from absl import flags
from absl import logging

from experiments import report
from experiments.files import models
from experiments.files import outputs
from experiments.files import workdirs
from experiments.pages import markup
from experiments.pages import samples
from experiments.tasks import base
from experiments.tasks import parts

_MODELS = flags.DEFINE_list(
  'models', None, 'Saved models or workdirs; all of pretrained/ if not given.'
)
_GALLERY = flags.DEFINE_string(
  'gallery', 'docs/gallery.html', "The page of all; '': none."
)
_SHAPES = 3  # Of a model, in the gallery.


def gallery(folders: Sequence[str], path: str) -> None:
  """Writes a page of shapes of several models, in place of an older one.

  Args:
    folders: of models; a model with a `report.html` is linked with it.
    path: of the page.
  """
  body = [
    '<h1>Models</h1>',
    '<p class="faint">The first shapes of each model; none is picked by hand. '
    'Drag one to turn all of them.</p>',
  ]
  for folder in folders:
    body += _entry(folder, os.path.dirname(os.path.abspath(path)))
  text = markup.page('Models', body, ('shapes.js', 'report.js'))
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
  workdirs.write_text(path, text)
  logging.info('Wrote %s (%.1f MB)', path, len(text.encode()) / 1e6)


def _entry(folder, beside):
  model, card = models.open_model(folder)
  config = models.full_config(card.get('config', {}))
  request = base.Request(model, card, config, folder)
  data = None
  if config.task in samples.CONDITIONED:
    data = parts.data_or_none(config)
  groups = samples.fresh(request, data, _SHAPES)
  groups = groups or samples.of_chains(model, None, _SHAPES)
  name = markup.escape(card['name'])
  page = os.path.join(folder, 'report.html')
  if os.path.exists(page):
    link = os.path.relpath(page, beside).replace(os.sep, '/')
    name = f'<a href="{markup.escape(link)}">{name}</a>'
  about = ', '.join(
    f'{card[field]}{unit}'
    for field, unit in (('data', ''), ('iterations', ' iterations'))
    if field in card
  )
  body = [f'<h2>{name}</h2>', f'<p class="faint">{markup.escape(about)}</p>']
  return body + [markup.columns(group.sets) for group in groups[:1]]


def main(argv: Sequence[str]) -> None:
  """Writes the reports that do not exist yet, and the gallery."""
  if argv[1:]:
    raise app.UsageError(f'no arguments but flags are taken, got {argv[1:]}')
  outputs.plain_log()
  folders = _MODELS.value
  if folders is None:
    folders = sorted(map(os.path.dirname, glob.glob('pretrained/*/spec.json')))
  try:
    for folder in folders:
      if os.path.exists(os.path.join(folder, 'report.html')):
        continue
      model, card = models.open_model(folder)
      config = models.full_config(card.get('config', {}))
      report.report(base.Request(model, card, config, folder))
    if _GALLERY.value:
      gallery(folders, _GALLERY.value)
  except (OSError, ValueError) as error:
    raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
  app.run(main)
