"""Reports: pages that need nothing but themselves."""

import base64
import html.parser
import json
import os
import re
import shutil
import zlib

import numpy as np
import pytest

from experiments import report
from experiments import reports
from experiments import train
from experiments.evaluation import paper
from experiments.files import figures
from experiments.files import logs
from experiments.pages import markup
from experiments.pages import samples
from experiments.tasks import synthesis
from tests.experiments import tiny


class _Parser(html.parser.HTMLParser):
  """Collects tags with their attributes, and the text."""

  def __init__(self):
    super().__init__()
    self.tags, self.text, self.open = [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self.open.append(tag)

  def handle_endtag(self, tag):
    assert tag in self.open, tag
    while self.open.pop() != tag:
      pass

  def handle_data(self, data):
    if self.open and self.open[-1] not in ('script', 'style'):
      self.text.append(data)


def parsed(path):
  with open(path, encoding='utf-8') as file:
    text = file.read()
  assert len(text.encode()) <= report.MOST_BYTES
  parser = _Parser()
  parser.feed(text)
  # Nothing is asked of a network: no address that would be loaded.
  for tag, attributes in parser.tags:
    if tag == 'a':
      continue  # A link is followed by who clicks it.
    for name in ('src', 'href', 'srcset', 'data'):
      assert (attributes.get(name) or 'data:').startswith('data:')
  assert not re.search(r'(url\(|@import|fetch\(|https?://)', text)
  return parser


def shapes_of(parser, kind):
  found = []
  for tag, attributes in parser.tags:
    if tag == 'canvas' and attributes['data-kind'] == kind:
      sides = tuple(map(int, attributes['data-sides'].split(',')))
      data = zlib.decompress(base64.b64decode(attributes['data-shape']))
      found.append(np.frombuffer(data, np.uint8).reshape(sides))
  return np.array(found)


def words(parser):
  return ' '.join(' '.join(parser.text).split())


def test_levels_keep_what_is_inside():
  rng = np.random.default_rng(0)
  voxels = rng.normal(0.5, 0.3, (20, 20, 20))
  voxels[0, 0, :3] = 0.5, np.nextafter(0.5, 1), np.nextafter(0.5, 0)
  levels = markup.levels(voxels)
  np.testing.assert_array_equal(levels > 127, voxels > 0.5)
  assert len(np.unique(levels)) == 16
  order = np.argsort(voxels, axis=None)
  assert (np.diff(levels.ravel()[order].astype(int)) >= 0).all()


def test_the_report_of_a_run(workdir_of):
  folder = workdir_of('synthesis')
  asked = tiny.request(folder)
  first = report.report(asked)
  assert os.path.basename(first) == 'report.html'
  page = parsed(first)
  # Fresh shapes are those of the seed, and persistent chains the first ones.
  settings = asked.config.sample
  number = min(8, settings.num_samples)
  fresh = synthesis.synthesize(asked.model, number, settings.seed)
  kept = samples.persistent(asked.model, number)
  np.testing.assert_array_equal(
    shapes_of(page, 'sample') > 127, np.concatenate([fresh, kept]) > 0.5
  )
  assert len(shapes_of(page, 'nearest')) == len(fresh) + len(kept)
  charts = [tag for tag, _ in page.tags if tag == 'svg']
  names = {*logs.read_metrics(folder)[-1]} - {'step'}
  assert len(charts) == len(names)
  text = words(page)
  for expected in ('energy gap', 'embedded furniture', 'model.network tiny'):
    assert expected in text
  # A second one leaves the first as it is.
  with open(first, encoding='utf-8') as file:
    content = file.read()
  assert os.path.basename(report.report(asked)) == 'report_001.html'
  with open(first, encoding='utf-8') as file:
    assert file.read() == content


@pytest.mark.parametrize(
  ('name', 'title', 'kinds'),
  [
    ('recovery', 'Recovered shapes', ('nearest', 'given', 'sample')),
    ('super_resolution', 'Sharpened shapes', ('nearest', 'given', 'sample')),
    ('cooperative', 'Fresh shapes', ('sample', 'nearest')),
  ],
)
def test_the_shapes_of_a_task(folder_of, tmp_path, name, title, kinds):
  out = str(tmp_path / 'page.html')
  page = parsed(report.report(tiny.request(folder_of(name), out=out)))
  assert title in words(page)
  for kind in kinds:
    assert len(shapes_of(page, kind)) >= 2
  with pytest.raises(FileExistsError, match='page'):
    report.report(tiny.request(folder_of(name), out=out))


def test_scores_beside_the_paper(tmp_path):
  path = tmp_path / 'synthesis_chair.json'
  result = {
    'experiment': 'synthesis_chair',
    'card': {'name': 'synthesis_chair', 'iterations': 31},
    'table': 'synthesis',
    'category': 'chair',
    'scores': {
      'fresh': {'class_probability': 0.87654, 'mmd': 0.5},
      'training shapes': {'class_probability': 0.91},
    },
  }
  path.write_text(json.dumps(result))
  assert tiny.run('report', path) == 0
  page = parsed(tmp_path / 'synthesis_chair.html')
  text = words(page)
  for number in (0.8765, 0.91, *paper.CLASS_PROBABILITIES['chair']):
    assert f'{number:.4g}' in text
  assert 'iterations 31' in text


def test_what_is_no_result_is_said(tmp_path, capsys):
  path = tmp_path / 'x.json'
  for content, message in (
    ('[1]', 'no JSON object'),
    ('{', 'not a results file'),
  ):
    path.write_text(content)
    assert tiny.run('report', path) == 1
    assert message in capsys.readouterr().err
  assert tiny.run('report', tmp_path / 'none.json') != 0
  assert len(capsys.readouterr().err.splitlines()) == 1
  assert os.listdir(tmp_path) == ['x.json']


@pytest.mark.slow
def test_pictures_have_the_room_that_is_left(tmp_path, monkeypatch):
  figures.isosurfaces(tmp_path / 'figure3.png', [[np.ones((4, 4, 4))]])
  noise = np.random.default_rng(0).uniform(size=(60, 60, 60))
  figures.isosurfaces(tmp_path / 'large.png', [[noise]], cell_inches=4)
  size = (tmp_path / 'figure3.png').stat().st_size
  assert (tmp_path / 'large.png').stat().st_size > 4 * size
  paths = report._pictures(str(tmp_path))
  assert [os.path.basename(path) for path in paths] == [
    'figure3.png',
    'large.png',
  ]
  body = ''.join(report._figures(paths, 2 * size))
  assert body.count('<img') == 1 and 'Figure 3' in body
  assert 'Too large for this page: large.png' in body


def test_a_training_writes_its_page_as_it_goes(tmp_path, monkeypatch):
  steps, running = [], report.running

  def noted(workdir, model, config, data, step):
    path = running(workdir, model, config, data, step)
    steps.append((step, words(parsed(path))))
    return path

  monkeypatch.setattr(report, 'running', noted)
  config = tiny.synthesis(**{'train.num_iterations': 5, 'train.page_every': 2})
  train.train(config, str(tmp_path))
  assert [step for step, _ in steps] == [2, 4, 5]
  assert 'iterations 2, still learning' in steps[0][1]
  assert 'energy gap' in steps[0][1]
  # The same file each time; a run without it has none.
  pages = [name for name in os.listdir(tmp_path) if name.endswith('.html')]
  assert pages == [report.RUNNING]


def test_curves_have_gaps_and_few_points():
  rows = [{'step': i, 'a': float(i), 'b': 1.0} for i in range(1000)]
  text = markup.charts(rows)
  assert text.count('<svg') == 2 and len(text) < 20_000
  rows = [{'step': i, 'a': x} for i, x in enumerate([1.0, float('nan'), 2.0])]
  (path,) = re.findall(r'<path d="([^"]*)"', markup.charts(rows))
  assert path.count('M') == 2


def test_names_are_shown_and_not_run():
  page = markup.page('<b>', [markup.facts({'<i>': '<script>'})])
  assert '<script>' not in page and '&lt;script&gt;' in page


def test_a_gallery_of_models(folder_of, tmp_path):
  folders = [folder_of('synthesis'), folder_of('recovery')]
  copy = tmp_path / 'models' / 'a'
  shutil.copytree(folders[0], copy)
  (copy / 'report.html').write_text('')
  path = tmp_path / 'docs' / 'gallery.html'
  for _ in range(2):  # Written anew.
    reports.gallery([str(copy), folders[1]], str(path))
  page = parsed(path)
  links = [attributes['href'] for tag, attributes in page.tags if tag == 'a']
  assert '../models/a/report.html' in links
  assert len(shapes_of(page, 'given')) == 3
  fresh = synthesis.synthesize(tiny.request(str(copy)).model, 3, 0)
  np.testing.assert_array_equal(
    shapes_of(page, 'sample')[:3] > 127, fresh > 0.5
  )
