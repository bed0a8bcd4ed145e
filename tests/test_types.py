"""The library's annotations: right, and seen by those who use it."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

RIGHT = """\
import dnet_jax
import jax
import jax.numpy as jnp


def energy_fn(y: dict[str, jax.Array]) -> jax.Array:
  return jnp.sum(y['a'] ** 2, axis=-1) + jnp.sum(y['b'] ** 2, axis=-1)


key = jax.random.key(0)
kernel = dnet_jax.mala(energy_fn, 0.1, project=dnet_jax.free())
position = {'a': jnp.ones((2, 3)), 'b': jnp.ones((2, 4))}
position, info = dnet_jax.sample(key, kernel, position, 3)
distance: jax.Array = dnet_jax.metrics.iou(position['a'], position['a'])
version: str = dnet_jax.__version__
net = dnet_jax.networks.Descriptor((4,), (3,), (2,))
model_energy = dnet_jax.descriptor_energy(net.apply)
value: jax.Array = model_energy({}, position['a'])
"""
# What to add to it, and the code of the error that must be found there.
WRONG = {
  "dnet_jax.sample(key, 'langevin', position, 3)": 'arg-type',
  'dnet_jax.sample(key, kernel, position)': 'call-arg',
  "dnet_jax.langevin(energy_fn, step_size='0.1')": 'arg-type',
  'dnet_jax.mala(energy_fn, 0.1).move': 'attr-defined',
  'dnet_jax.metrics.no_such_name': 'attr-defined',
  'dnet_jax.langevin_dynamics': 'attr-defined',
}


def mypy(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'mypy', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  """What is known of JAX: read once for all tests here."""
  return f'--cache-dir={tmp_path_factory.mktemp("mypy")}'


@pytest.mark.slow
def test_the_library_has_no_findings(cache):
  done = mypy(cache)
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_users_see_the_types(cache, tmp_path):
  """As one who is strict about his own code: modules, lists, signatures."""
  script = tmp_path / 'script.py'
  lines = RIGHT.count('\n')
  script.write_text(RIGHT + '\n'.join(WRONG))
  done = mypy(
    cache,
    '--strict',
    '--config-file=',
    '--follow-imports=silent',
    str(script),
  )
  found = {}
  for line in done.stdout.splitlines():
    if ': error: ' in line:
      number = int(line.split(':')[1])
      found.setdefault(number, []).append(line.rsplit('[', 1)[1][:-1])
  expected = {lines + 1 + i: [code] for i, code in enumerate(WRONG.values())}
  assert found == expected, done.stdout + done.stderr
  assert (ROOT / 'dnet_jax' / 'py.typed').exists()
