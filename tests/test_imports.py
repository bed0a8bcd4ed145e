"""The layering: who may import whom."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Each module may import those before it.
LAYERS = (
  ('types',),
  ('grids',),
  ('projections',),
  ('energy', 'kernels'),
  ('sampling',),
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
}
# Third-party packages of the library; Flax in one module only.
THIRD_PARTY = {'jax', 'numpy', 'optax'}


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
  """Modules and packages of the library among dotted names."""
  return {n.split('.')[1] for n in names if n.startswith('dnet_jax.')}


def part(path):
  """The module of the library that a file is, or the package that it is of."""
  name = path.relative_to(ROOT / 'dnet_jax').parts[0]
  return name.removesuffix('.py')


def name_of(path):
  return '.'.join(path.relative_to(ROOT).with_suffix('').parts)


@pytest.mark.parametrize('path', modules('dnet_jax'), ids=name_of)
def test_library_layers(path):
  names = imports(path)
  if path.stem == '__init__':
    assert tops(names) == {'dnet_jax'}
    return
  mine = part(path)
  allowed = dict(ASIDE)
  below = set()
  for layer in LAYERS:
    allowed |= {name: set(below) for name in layer}
    below |= set(layer)
  assert mine in allowed, 'a new module: say here what it may import'
  inside = {mine} if path.parent.name == mine else set()
  assert within(names) <= allowed[mine] | inside
  third_party = THIRD_PARTY | ({'flax'} if mine == 'networks' else set())
  others = tops(names) - {'dnet_jax'} - set(sys.stdlib_module_names)
  assert others <= third_party


def test_only_sampling_scans():
  """No module but `sampling` has a loop over chain steps."""
  # Those of a convolution are over chunks of chains, or of frequencies.
  allowed = {'sampling': {'scan'}, 'convolution': {'fori_loop'}}
  found = set()
  for path in modules('dnet_jax'):
    code = ast.parse(path.read_text())
    loops = {
      node.attr
      for node in ast.walk(code)
      if isinstance(node, ast.Attribute)
      and node.attr in {'scan', 'fori_loop', 'while_loop'}
    }
    assert loops <= allowed.get(part(path), set()), path
    found |= {part(path)} if loops else set()
  assert found == set(allowed)  # So the search is not in vain.


def test_the_public_list_is_one_name_a_line_of_the_library():
  code = ast.parse((ROOT / 'dnet_jax' / '__init__.py').read_text())
  for node in code.body[1:]:
    assert isinstance(node, ast.ImportFrom)
    assert len(node.names) == 1
    assert node.names[0].asname is None


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
    'import sys, jax, flax.linen, optax, numpy\n'
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
