"""The layering: who may import whom."""

import ast
import configparser
import importlib
from importlib import metadata
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

import dnet_jax

ROOT = pathlib.Path(__file__).parents[1]
# Each module may import those before it.
LAYERS = (
  ('types',),
  ('corruptions', 'grids', 'parts'),
  ('projections',),
  ('energy', 'kernels'),
  ('sampling',),
  ('pca',),
  ('starts',),
  ('chains',),
  ('learning',),
  ('algorithms',),
)
# And these stand aside: what they may import of the library.
ASIDE = {
  'convolution': {'types'},
  'networks': {'types', 'convolution'},
  'features': {'types'},
  'metrics': {'types'},
  'specs': set(),
  'version': set(),
}
# Above all of these, one on the other.
ABOVE = ('models', 'uses')
# Third-party packages of the library, and those of one module only.
THIRD_PARTY = {'jax', 'numpy', 'optax'}
OF_ONE = {
  'networks': {'flax'},
  'models': {'safetensors', 'huggingface_hub'},
}
# What reads or writes files, or knows of the network.
FILES = {'importlib', 'io', 'os', 'pathlib', 'shutil', 'tempfile', 'urllib'}


def imports(path):
  """Dotted names that a file imports, wherever in the file it does."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def tops(names):
  return {name.split('.')[0] for name in names}


def modules(folder):
  return sorted((ROOT / folder).rglob('*.py'))


def within(names):
  """Modules of the library among dotted names."""
  return {n.split('.')[1] for n in names if n.startswith('dnet_jax.')}


def module(path):
  """The module of the library, or the package, that a file belongs to."""
  return path.relative_to(ROOT / 'dnet_jax').parts[0].removesuffix('.py')


def allowed():
  """What each module may import of the library."""
  result, below = dict(ASIDE), set()
  for layer in LAYERS:
    result |= {name: set(below) for name in layer}
    below |= set(layer)
  below |= set(ASIDE)
  for name in ABOVE:
    result[name] = set(below)
    below.add(name)
  return result


@pytest.mark.parametrize(
  'path',
  modules('dnet_jax'),
  ids=lambda p: str(p.relative_to(ROOT / 'dnet_jax')),
)
def test_library_layers(path):
  names, name = imports(path), module(path)
  if name == '__init__':
    assert tops(names) == {'dnet_jax'}
    return
  assert name in allowed(), 'a new module: say here what it may import'
  # Files of one package may import each other.
  assert within(names) - {name} <= allowed()[name]
  standard = set(sys.stdlib_module_names)
  others = tops(names) - {'dnet_jax'} - standard
  assert others <= THIRD_PARTY | OF_ONE.get(name, set())
  if name != 'models':
    assert not tops(names) & FILES
  if path.stem == '__init__':
    assert tops(names) == {'dnet_jax'}


def test_files_of_a_package_do_not_import_in_circles():
  """`base` first; a package's own list imports them all."""
  for package in ('algorithms', 'uses'):
    below = {}
    for path in modules(f'dnet_jax/{package}'):
      if path.stem != '__init__':
        prefix = f'dnet_jax.{package}.'
        names = {n for n in imports(path) if n.startswith(prefix)}
        below[path.stem] = {n.split('.')[2] for n in names}
    done = set()
    while below:
      free = {name for name, needs in below.items() if needs <= done}
      assert free, f'{package}: {below} import each other'
      done |= free
      below = {name: needs for name, needs in below.items() if name not in free}
    assert 'base' in done


def test_only_sampling_scans():
  """No module but `sampling` has a loop over chain steps."""
  loops = {}
  for path in modules('dnet_jax'):
    found = {
      node.attr
      for node in ast.walk(ast.parse(path.read_text()))
      if isinstance(node, ast.Attribute)
      and node.attr in {'scan', 'fori_loop', 'while_loop'}
    }
    loops[module(path)] = loops.get(module(path), set()) | found
  # Those of a convolution are over chunks of chains, or of frequencies; that of
  # grids sharpens shapes when the chains are done.
  expected = {
    'sampling': {'scan'},
    'grids': {'fori_loop'},
    'convolution': {'fori_loop'},
    'parts': {'fori_loop'},
  }
  assert {name: found for name, found in loops.items() if found} == expected


def test_the_public_list_is_one_name_a_line_of_the_library():
  code = ast.parse((ROOT / 'dnet_jax' / '__init__.py').read_text())
  *imported, listed = code.body[1:]
  names = []
  for node in imported:
    assert isinstance(node, ast.ImportFrom)
    assert len(node.names) == 1
    assert node.names[0].asname is None
    names.append(node.names[0].name)
  assert isinstance(listed, ast.Assign)
  assert listed.targets[0].id == '__all__'
  assert sorted(names) == sorted(ast.literal_eval(listed.value))


def test_each_module_is_an_attribute_of_the_library():
  code = (
    'import dnet_jax\n'
    'print(dnet_jax.metrics.iou.__name__, dnet_jax.corruptions.__name__)\n'
    'print(*dnet_jax.__all__)\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  first, listed = result.stdout.splitlines()
  assert first == 'iou dnet_jax.corruptions'
  public = {m.name for m in pkgutil.iter_modules(dnet_jax.__path__)}
  public = {n for n in public - {'version'} if not n.startswith('_')}
  assert public <= set(listed.split())


def hidden_modules(root, package):
  """Functions and classes whose name is that of a module beside them.

  Read from the files: once all modules are imported, which of the two an
  attribute of a package is depends on the order of the imports.
  """

  def names(folder):
    return {
      path.stem
      for path in folder.iterdir()
      if path.suffix == '.py' or (path / '__init__.py').exists()
    } - {'__init__'}

  def is_module(dotted):
    path = root.joinpath(*dotted.split('.'))
    return path.with_suffix('.py').exists() or path.is_dir()

  found = []
  for path in sorted((root / package).rglob('*.py')):
    beside = names(path.parent)
    if path.stem == '__init__' and path.parent.name != package:
      # Beside a package are its modules and its neighbours.
      beside |= names(path.parent.parent)
    bound = set()
    for node in ast.parse(path.read_text()).body:
      if isinstance(node, ast.FunctionDef | ast.ClassDef):
        bound.add(node.name)
      elif isinstance(node, ast.Assign):
        bound |= {t.id for t in node.targets if isinstance(t, ast.Name)}
      elif isinstance(node, ast.ImportFrom):
        bound |= {
          alias.asname or alias.name
          for alias in node.names
          if not is_module(f'{node.module}.{alias.name}')
        }
    found += [f'{path.relative_to(root)}: {n}' for n in sorted(bound & beside)]
  return found


def test_no_function_has_the_name_of_a_module_beside_it():
  """It would hide the module, in its package or where both are imported."""
  assert hidden_modules(ROOT, 'dnet_jax') == []


def test_a_function_that_hides_a_module_is_found(tmp_path):
  outer = tmp_path / 'hiding'
  inner = outer / 'inner'
  inner.mkdir(parents=True)
  for path, text in (
    (outer / '__init__.py', 'from hiding import first\n'
                            'from hiding.first import second\n'),
    (outer / 'first.py', 'def second(): pass\ndef third(): pass\n'),
    (outer / 'second.py', 'import first\ninner = print\n'),
    (inner / '__init__.py', 'from hiding.inner.fourth import fourth, first\n'),
    (inner / 'fourth.py', 'def fourth(): pass\ndef first(): pass\n'),
  ):  # fmt: skip
    path.write_text(text)
  assert hidden_modules(tmp_path, 'hiding') == [
    'hiding/__init__.py: second',
    'hiding/first.py: second',
    'hiding/inner/__init__.py: first',
    'hiding/inner/__init__.py: fourth',
    'hiding/inner/fourth.py: fourth',
    'hiding/second.py: inner',
  ]


def test_version_is_written_once():
  assert metadata.version('dnet_jax') == dnet_jax.__version__
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  assert setup['metadata']['version'] == 'attr: dnet_jax.version.__version__'


@pytest.mark.parametrize(
  ('folder', 'extras'),
  [
    ('dnet_jax', ('hub',)),
    ('experiments', ('experiments',)),
    ('data_prep', ('data-prep',)),
  ],
)
def test_what_is_imported_is_declared(folder, extras):
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  lines = setup['options']['install_requires'].split()
  for extra in extras:
    lines += setup['options.extras_require'][extra].split()
  declared = {normal(re.split(r'[<>=]', line)[0]) for line in lines}
  distributions = metadata.packages_distributions()
  for path in modules(folder):
    ours = {'dnet_jax', 'experiments', 'data_prep'}
    for name in tops(imports(path)) - ours - set(sys.stdlib_module_names):
      wanted = {normal(d) for d in distributions.get(name, [name])}
      assert wanted & declared, f'{path} imports {name}: not in setup.cfg'


def normal(name):
  """A distribution's name as PyPI compares it."""
  return re.sub(r'[-_.]+', '-', name).lower()


@pytest.mark.parametrize('path', modules('data_prep'), ids=lambda p: p.stem)
def test_data_prep_stands_alone(path):
  assert not tops(imports(path)) & {'jax', 'dnet_jax', 'experiments', 'flax'}


@pytest.mark.parametrize(
  'path', modules('dnet_jax') + modules('data_prep'), ids=lambda p: p.stem
)
def test_nothing_imports_the_experiments(path):
  assert not tops(imports(path)) & {'experiments', 'benchmarks', 'tests'}


def test_library_alone_loads_nothing_of_the_experiments():
  """What it loads beyond JAX, Flax and Optax themselves."""
  code = (
    'import sys, jax, flax.linen, optax, numpy, safetensors.numpy\n'
    'before = {name.split(".")[0] for name in sys.modules}\n'
    'import dnet_jax\n'
    'after = {name.split(".")[0] for name in sys.modules}\n'
    'print(*sorted(after - before - set(sys.stdlib_module_names)))\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert result.stdout.split() == ['dnet_jax']


# Names of packages that PyPI has under another name.
IMPORTED_AS = {
  'absl-py': 'absl',
  'ml-collections': 'ml_collections',
  'orbax-checkpoint': 'orbax',
  'pillow': 'PIL',
  'scikit-image': 'skimage',
  'scikit-learn': 'sklearn',
}


@pytest.mark.parametrize('room', ['experiments', 'data_prep'])
def test_a_package_that_is_missing_is_named(room):
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  extra = room.replace('_', '-')
  lines = parser['options.extras_require'][extra].split()
  packages = [re.split('[<>=]', line)[0] for line in lines]
  wanted = {IMPORTED_AS.get(name, name) for name in packages}
  needed = importlib.import_module(room)._NEEDED
  assert {*needed} == wanted
  code = f'import sys; sys.modules[{needed[-1]!r}] = None; import {room}.x'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 1
  (line,) = done.stderr.splitlines()
  assert line.startswith(f'error: {needed[-1]} is missing')
  assert line.endswith(f"pip install '.[{extra}]'")


@pytest.mark.parametrize(
  'path', modules('experiments'), ids=lambda p: f'{p.parent.name}.{p.stem}'
)
def test_experiments_import_one_way(path):
  """files <- evaluation <- tasks <- pages <- what trains and is called."""
  rooms = (
    'configs', 'batches', 'parallel', 'files', 'evaluation', 'tasks', 'pages',
  )  # fmt: skip
  room = path.relative_to(ROOT / 'experiments').parts[0].removesuffix('.py')
  if room not in rooms:
    return
  found = {
    name.split('.')[1]
    for name in imports(path)
    if name.startswith('experiments.')
  }
  assert found <= {*rooms[: rooms.index(room) + 1]}
