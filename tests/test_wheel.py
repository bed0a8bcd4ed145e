"""The wheel: what it holds, and README's first example from it alone."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
import setuptools

ROOT = pathlib.Path(__file__).parents[1]
_MOST = 4 * 2**20  # Bytes of a wheel.
_CHECKS = """
import pathlib
import sys

assert pathlib.Path(dnet_jax.__file__).is_relative_to(sys.argv[1])
assert shapes.shape == (8, *model.spec.grid)
assert (whole[visible] == shapes[visible]).all()
assert abs(dnet_jax.downscale(fine[..., None], 4)[..., 0] - coarse).max() < 1e-3
"""


def _readme_example():
  """README's first example, with few steps."""
  text = (ROOT / 'README.md').read_text()
  block = re.search(r'```python\n(.*?)```', text, re.DOTALL)[1]
  calls = r'(synthesize|recover|super_resolve)\((.*)\)'
  block, number = re.subn(calls, r'\1(\2, num_steps=2)', block)
  assert number == 3
  return block + _CHECKS


def _run(*command, **options):
  done = subprocess.run(
    [str(part) for part in command],
    capture_output=True,
    text=True,
    check=False,
    **options,
  )
  assert done.returncode == 0, done.stdout + done.stderr


def _can_build():
  # Older ones need the package wheel to make one.
  numbers = setuptools.__version__.split('.')[:2]
  return tuple(map(int, numbers)) >= (70, 1)


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  if not _can_build():
    pytest.skip('building a wheel needs setuptools >= 70.1, see setup.cfg')
  # Of a copy: a build writes beside its sources.
  source = tmp_path_factory.mktemp('source') / 'tree'
  source.mkdir()
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  for name in ('dnet_jax', 'experiments', 'data_prep'):
    ignored = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / name, source / name, ignore=ignored)
  out = tmp_path_factory.mktemp('wheel')
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'wheel']
  _run(
    *(*pip, '--quiet', '--no-deps', '--no-build-isolation'),
    *('--no-index', '-w', out, source),
    cwd=source,
  )
  (found,) = out.glob('dnet_jax-*.whl')
  return found


def test_what_is_in_the_wheel(wheel):
  assert wheel.stat().st_size <= _MOST
  with zipfile.ZipFile(wheel) as file:
    names = {*file.namelist()}
  ours = {
    str(path.relative_to(ROOT))
    for path in (ROOT / 'dnet_jax').rglob('*')
    if path.suffix == '.py' or path.parent.name == 'demo'
  }
  assert ours | {'dnet_jax/py.typed'} <= names
  assert 'dnet_jax/demo/model.safetensors' in names
  # No tests, and no program that a library would bring along unseen.
  assert not [name for name in names if name.startswith('tests')]


def _example(python, place, folder, **environment):
  kept = {x: v for x, v in os.environ.items() if x != 'PYTHONPATH'}
  # -I: neither the current folder nor the user's packages.
  _run(
    *(
      python,
      '-I',
      '-c',
      environment.pop('prelude', '') + _readme_example(),
      place,
    ),
    cwd=folder,
    env=kept | environment,
  )


def test_the_readme_s_first_example_without_the_repository(wheel, tmp_path):
  place, empty = tmp_path / 'installed', tmp_path / 'empty'
  empty.mkdir()
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'install']
  _run(*pip, '--quiet', '--no-deps', '--no-index', '--target', place, wheel)
  # The venv's packages, but not its link to the repository.
  packages = sysconfig.get_path('purelib')
  prelude = f"""
import sys
repository = {str(ROOT)!r}
sys.path[:] = [{str(place)!r}] + [
  path for path in sys.path if not path.startswith(repository + '/dnet')
  and path != repository
]
assert {packages!r} in sys.path
sys.meta_path[:] = [
  x for x in sys.meta_path if 'editable' not in getattr(x, '__module__', '')
]
"""
  _example(sys.executable, place, empty, prelude=prelude)
  assert not [*empty.iterdir()]


@pytest.mark.slow
def test_the_wheel_in_an_empty_environment(wheel, tmp_path):
  """With its dependencies from the package index: minutes."""
  home, empty = tmp_path / 'venv', tmp_path / 'empty'
  empty.mkdir()
  venv.create(home, with_pip=True)
  python = home / 'bin' / 'python'
  _run(python, '-m', 'pip', 'install', '--quiet', wheel)
  _example(python, home, empty)
