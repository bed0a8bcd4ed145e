"""README and docs/: their code runs, their commands can be typed, no link is
dead, every public name has a place.
"""

import configparser
import functools
import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import dnet_jax
from experiments import command
from experiments import config_files
from experiments import main
from experiments.configs import arguments

ROOT = pathlib.Path(__file__).parents[1]
TOP = ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'WORKSPACE.md')
PAGES = [
  *TOP,
  *(
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / 'docs').rglob('*.md'))
  ),
]
# What makes shapes, with the steps of a test where a page says none.
SLOW = (
  'synthesize',
  'recover',
  'super_resolve',
  'reconstruct',
  'infer_latent',
)
FENCE = re.compile(
  r'^(<!-- not run: .+ -->\n\n)?```(\w+)\n(.*?)^```$', re.DOTALL | re.MULTILINE
)


def blocks(page, language):
  """The fences of a language; those not to be run are left out."""
  text = (ROOT / page).read_text()
  return [
    block
    for aside, name, block in FENCE.findall(text)
    if name == language and not aside
  ]


def with_blocks(language):
  return [page for page in PAGES if blocks(page, language)]


def commands(page):
  """Command lines of a page, those on several lines as one."""
  for block in blocks(page, 'bash'):
    lines = block.replace('\\\n', ' ').splitlines()
    yield from filter(
      None, (shlex.split(line, comments=True) for line in lines)
    )


# Half a minute each.
def _marked(page):
  slow = page not in ('README.md', 'docs/index.md')
  return pytest.param(page, marks=pytest.mark.slow) if slow else page


@pytest.mark.parametrize('page', [*map(_marked, with_blocks('python'))])
def test_code_runs(page, tmp_path, monkeypatch, capsys):
  """All blocks of a page, one after the other, in a folder of their own."""
  for name in ('pretrained', 'experiments'):
    (tmp_path / name).symlink_to(ROOT / name)
  monkeypatch.chdir(tmp_path)
  for name in SLOW:
    function = getattr(dnet_jax, name)

    @functools.wraps(function)
    def few(*args, function=function, **kwargs):
      return function(*args, **{'num_steps': 2} | kwargs)

    monkeypatch.setattr(dnet_jax, name, few)
  namespace = {'__name__': page}
  for i, block in enumerate(blocks(page, 'python'), 1):
    exec(compile(block, f'{page}, block {i}', 'exec'), namespace)
  capsys.readouterr()


def _can_be_typed(words):
  """Checks a command line of the program as far as no file is needed."""
  typed = command.parse(words, [*main.MODES])
  if typed.mode is not None and not command.value(typed, 'help'):
    main._check_flags(typed, main.MODES[typed.mode])
  if command.value(typed, 'config') is not None:
    main._config(typed)


@pytest.mark.parametrize('page', with_blocks('bash'))
def test_commands_can_be_typed(page):
  makefile = (ROOT / 'Makefile').read_text()
  for words in commands(page):
    while words and re.fullmatch(r'[A-Z_]+=\S*', words[0]):
      words = words[1:]
    if words[:2] == ['python', '-m']:
      if words[2] == 'experiments.main':
        _can_be_typed(words[3:])
      else:
        assert importlib.util.find_spec(words[2]), words
    elif words[:1] == ['dnet']:
      _can_be_typed(words[1:])
    elif words[:1] == ['make']:
      for word in words[1:]:
        assert '=' in word or f'\n{word}:' in makefile, words
    elif words and words[0].startswith('scripts/'):
      assert (ROOT / words[0]).exists(), words


def test_a_command_that_cannot_be_typed_is_found():
  """A negative control of the test above."""
  with pytest.raises(command.UsageError):
    _can_be_typed(['--mode=sample', '--workdir=demo', '--out=x'])
  with pytest.raises((command.UsageError, ValueError)):
    _can_be_typed(['train', 'coop_sofa', '--config.no.such.field=1'])


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files(page):
  """Anchors, and links within the site, are mkdocs' to check."""
  text = (ROOT / page).read_text()
  links = re.findall(r'\]\(([^)\s#]+)[^)]*\)|src="([^"]+)"', text)
  for link in map(''.join, links):
    if not re.match(r'https?:|mailto:', link):
      assert (ROOT / page).parent.joinpath(link).exists(), link


def _documented():
  """Modules by the page of the API that shows them."""
  return {
    module: path.name
    for path in (ROOT / 'docs' / 'api').glob('*.md')
    for module in re.findall(r'^::: (\S+)$', path.read_text(), re.MULTILINE)
  }


def test_every_public_name_has_a_page():
  """The index names all, and mkdocs, strict, that each is on a page."""
  text = (ROOT / 'docs' / 'api' / 'index.md').read_text()
  named = dict(re.findall(r'\[`([\w.]+)`\]\[([\w.]+)\]', text))
  modules = set()
  for name in dnet_jax.__all__:
    if name == '__version__':
      continue
    thing = getattr(dnet_jax, name)
    if type(thing) is type(dnet_jax):
      modules.add(f'dnet_jax.{name}')
      continue
    target = named[name]
    module, _, last = target.rpartition('.')
    assert getattr(importlib.import_module(module), last) is thing, name
    assert module in _documented(), name
  assert modules == {*_documented()}
  assert {*named} <= {*dnet_jax.__all__}


def test_readme_is_short():
  assert len((ROOT / 'README.md').read_text().splitlines()) <= 150


def test_all_configs_and_tasks_are_described():
  text = (ROOT / 'docs' / 'training.md').read_text()
  for name in config_files.config_names():
    assert f'`{name}' in text, name
  assert all(
    name in (ROOT / 'docs' / 'data.md').read_text()
    for name in arguments.CATEGORIES
  )


def test_the_version_stands_in_one_place():
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  assert parser['metadata']['version'] == 'attr: dnet_jax.version.__version__'
  for name in ('CITATION.cff', 'pyproject.toml', 'mkdocs.yml', 'README.md'):
    assert dnet_jax.__version__ not in (ROOT / name).read_text(), name


@pytest.mark.slow
def test_the_site_is_built(tmp_path):
  """Strictly: a dead link, or a name without a page, is an error."""
  done = subprocess.run(
    [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-d', str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {'NO_MKDOCS_2_WARNING': '1', 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  # Nothing is asked of a network when a page is opened.
  asked = re.compile(
    r'<(?:script|img|link)[^>]+(?:src|href)="?(https?:[^"> ]+)'
  )
  for path in tmp_path.rglob('*.html'):
    found = [x for x in asked.findall(path.read_text()) if 'canonical' not in x]
    assert not found, (path, found)
  energies = (tmp_path / 'api' / 'energy.html').read_text()
  assert 'id="dnet_jax.energy.descriptor_energy"' in energies
  assert '<math' in (tmp_path / 'concepts.html').read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', sorted(path.name for path in (ROOT / 'notebooks').glob('*.ipynb'))
)
def test_notebooks_run(name, tmp_path, monkeypatch):
  nbclient = pytest.importorskip('nbclient')
  nbformat = pytest.importorskip('nbformat')
  notebook = nbformat.read(ROOT / 'notebooks' / name, as_version=4)
  assert not any(cell.get('outputs') for cell in notebook.cells)
  for folder in ('pretrained', 'experiments'):
    (tmp_path / folder).symlink_to(ROOT / folder)
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  # As outside tests.
  for variable in ('JAX_DISABLE_MOST_OPTIMIZATIONS', 'XLA_FLAGS'):
    monkeypatch.delenv(variable, raising=False)
  nbclient.NotebookClient(
    notebook, timeout=600, resources={'metadata': {'path': str(tmp_path)}}
  ).execute()
