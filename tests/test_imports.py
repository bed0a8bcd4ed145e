"""The layering: who may import whom."""

import ast
import inspect
import pathlib
import subprocess
import sys

import pytest

import dnet_jax

ROOT = pathlib.Path(__file__).parents[1]
# Each module may import those before it.
LAYERS = (
  ('types',),
  ('grids',),
  ('projections',),
  ('energy', 'kernels'),
  ('sampling',),
  ('starts',),
  ('chains',),
  ('learning',),
  ('algorithms',),
)
# And these stand aside: what they may import of the library.
ASIDE = {
  'convolution': {'types'},
  'networks': {'types', 'convolution'},
  'corruptions': {'types'},
  'features': {'types'},
  'metrics': {'types'},
  'specs': set(),
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
  # Those of a convolution are over chunks of chains, or of frequencies.
  expected = {'sampling': {'scan'}, 'convolution': {'fori_loop'}}
  assert {name: found for name, found in loops.items() if found} == expected


def test_the_public_list_is_one_name_a_line_of_the_library():
  for path in (ROOT / 'dnet_jax').rglob('__init__.py'):
    code = ast.parse(path.read_text())
    assert ast.get_docstring(code), path
    for node in code.body[1:]:
      assert isinstance(node, ast.ImportFrom)
      assert len(node.names) == 1
      assert node.names[0].asname is None


def test_no_public_function_has_the_name_of_a_module():
  """`dnet_jax.x` is one thing; the library's modules are reachable by it."""
  paths = [path.relative_to(ROOT) for path in modules('dnet_jax')]
  named = {path.stem for path in paths} | {path.parts[-2] for path in paths}
  for name in named & {*dir(dnet_jax)}:
    assert inspect.ismodule(getattr(dnet_jax, name)), name
  for name in allowed():
    assert inspect.ismodule(getattr(dnet_jax, name)), name
  # Nor has a package's file a function of its own name.
  for path in paths:
    if path.stem != '__init__':
      dotted = '.'.join(path.with_suffix('').parts)
      value = getattr(sys.modules[dotted], path.stem, None)
      assert value is None or inspect.ismodule(value), dotted


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


@pytest.mark.parametrize(
  'path', modules('experiments'), ids=lambda p: f'{p.parent.name}.{p.stem}'
)
def test_experiments_import_one_way(path):
  """files <- evaluation <- what trains, samples and is called."""
  rooms = ('files', 'evaluation')
  room = path.relative_to(ROOT / 'experiments').parts[0]
  if room not in rooms:
    return
  found = {
    name.split('.')[1]
    for name in imports(path)
    if name.startswith('experiments.')
  }
  assert found <= {*rooms[: rooms.index(room) + 1]}
