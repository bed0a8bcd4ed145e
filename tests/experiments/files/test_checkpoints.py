"""Checkpoints: exact, atomic, and whole or not there."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any
from typing import NamedTuple

from absl import logging
import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from experiments.files import checkpoints
from experiments.files import manifests
from tests import devices

ROOT = pathlib.Path(__file__).parents[3]


class State(NamedTuple):
  params: Any
  opt_state: Any
  chains: Any
  extra: Any


def make_state(seed=0, sides=5):
  keys = jax.random.split(jax.random.key(seed), 4)
  params = {
    'conv': {'kernel': jax.random.normal(keys[0], (sides, 3))},
    'bias': jax.random.normal(keys[1], (3,)).astype(jnp.bfloat16),
  }
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.constant_schedule(0.1))
  )
  return State(
    params,
    optimizer.init(params),
    (jax.random.bits(keys[2], (4,)), jnp.arange(6, dtype=jnp.int8) + seed),
    {
      'host': np.arange(3) + seed,
      'scalar': np.float64(seed + 1 / 3),
      'python': 7 + seed,
      'real': 0.1 + seed,
      'flag': True,
      'weak': jnp.asarray(1.5),
      'weak integers': jnp.full((3,), 2),
      'weak reals': jnp.full((3,), 1 / 3),
      'committed': jax.device_put(jnp.ones(2) * seed, jax.devices()[0]),
      'empty': jnp.zeros((0, 2)),
      'nothing': None,
      'a/b.c': jnp.float32(np.nan),
    },
  )


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert type(x) is type(y)
    if isinstance(x, jax.Array):
      assert x.committed == y.committed
      assert x.weak_type == y.weak_type
      assert x.sharding == y.sharding
    x, y = np.asarray(x), np.asarray(y)
    assert (x.dtype, x.shape) == (y.dtype, y.shape)
    assert x.tobytes() == y.tobytes()


def names(workdir):
  return sorted(os.listdir(workdir / 'checkpoints'))


def data_files(path):
  return [
    p for p in path.rglob('*') if p.is_file() and p.name != 'manifest.json'
  ]


def test_restores_bit_for_bit_with_types_and_structure(tmp_path):
  state = make_state(1)
  assert checkpoints.restore(tmp_path, state) is None
  checkpoints.save(tmp_path, 12, state)
  like = make_state(0)
  for leaf in jax.tree.leaves(like):
    if isinstance(leaf, jax.Array):
      # As after a step that was given the state for good (donation).
      leaf.delete()
  step, restored = checkpoints.restore(tmp_path, like)
  assert step == 12
  assert isinstance(restored.opt_state[1][0], optax.ScaleByAdamState)
  assert_same(restored, state)


def test_the_test_states_have_what_is_to_be_kept():
  extra = make_state().extra
  assert extra['weak'].weak_type
  assert extra['weak integers'].weak_type
  assert extra['weak reals'].weak_type
  assert extra['committed'].committed
  assert not extra['weak'].committed
  assert make_state().params['bias'].dtype == jnp.bfloat16


def test_orbax_does_not_drown_the_log(tmp_path, caplog):
  verbosity = logging.get_verbosity()
  try:
    logging.set_verbosity(logging.INFO)
    logging.info('a line of ours')
    checkpoints.save(tmp_path, 0, {'x': 1})
    checkpoints.restore(tmp_path, {'x': 1})
    assert logging.get_verbosity() == logging.INFO
  finally:
    logging.set_verbosity(verbosity)
  assert [record.getMessage() for record in caplog.records] == [
    'a line of ours'
  ]


def test_a_restored_state_does_not_trace_the_step_anew(tmp_path):
  traces = []

  @jax.jit
  def step(state):
    traces.append(1)
    return jax.tree.map(lambda x: x, state)

  state = make_state()
  step(state)
  checkpoints.save(tmp_path, 0, state)
  _, restored = checkpoints.restore(tmp_path, state)
  step(restored)
  assert len(traces) == 1


def test_restores_abstract_and_relative(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  state = {'x': jnp.arange(4)}
  checkpoints.save('run', 1, state)
  like = {'x': jax.ShapeDtypeStruct((4,), jnp.int32)}
  _, restored = checkpoints.restore('run', like)
  np.testing.assert_array_equal(restored['x'], np.arange(4))


def test_keeps_the_newest_and_what_is_not_its_own(tmp_path):
  (tmp_path / 'checkpoints' / 'notes').mkdir(parents=True)
  for step in (5, 10, 15, 20):
    checkpoints.save(tmp_path, step, {'x': jnp.int32(step)}, keep=2)
  assert checkpoints.steps(tmp_path) == [15, 20]
  assert names(tmp_path) == ['00000015', '00000020', 'notes']
  like = {'x': jnp.int32(0)}
  assert checkpoints.restore(tmp_path, like)[1]['x'] == 20
  assert checkpoints.restore(tmp_path, like, before=20)[0] == 15
  assert checkpoints.restore(tmp_path, like, before=15) is None


def test_a_save_never_deletes_itself_nor_later_ones(tmp_path):
  for step in (1, 20, 30, 40, 2, 3):
    checkpoints.save(tmp_path, step, {'x': step}, keep=2)
  assert checkpoints.steps(tmp_path) == [2, 3, 30, 40]
  checkpoints.save(tmp_path, 4, {'x': 4}, keep=1)
  assert checkpoints.steps(tmp_path) == [4, 30, 40]


def test_replaces_the_checkpoint_of_the_same_step(tmp_path):
  for value in (1, 2):
    checkpoints.save(tmp_path, 3, {'x': value})
  assert checkpoints.restore(tmp_path, {'x': 0}) == (3, {'x': 2})
  assert names(tmp_path) == ['00000003']


def test_set_aside_steps_are_not_restored(tmp_path):
  for step in (1, 2, 3):
    checkpoints.save(tmp_path, step, {'x': step})
  moved = checkpoints.set_aside(tmp_path, 2)
  assert [os.path.basename(path) for path in moved] == [
    '00000002.rejected',
    '00000003.rejected',
  ]
  assert checkpoints.restore(tmp_path, {'x': 0}) == (1, {'x': 1})


def damage_truncate(path):
  largest = max(data_files(path), key=lambda p: p.stat().st_size)
  with largest.open('r+b') as file:
    file.truncate(largest.stat().st_size // 2)


def damage_bit(path):
  largest = max(data_files(path), key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 1
  largest.write_bytes(data)


def damage_remove(path):
  data_files(path)[0].unlink()


def damage_manifest(path):
  (path / 'manifest.json').write_text('{"step": 2')


def damage_about(path):
  text = (path / 'manifest.json').read_text()
  assert '"step": 2' in text
  (path / 'manifest.json').write_text(text.replace('"step": 2', '"step": 3'))


def damage_no_manifest(path):
  (path / 'manifest.json').unlink()


@pytest.mark.parametrize(
  'damage',
  [
    damage_truncate,
    damage_bit,
    damage_remove,
    damage_manifest,
    damage_about,
    damage_no_manifest,
  ],
)
def test_a_corrupt_checkpoint_falls_back_and_says_so(tmp_path, damage):
  for step in (1, 2):
    checkpoints.save(tmp_path, step, make_state(step, sides=500))
  damage(tmp_path / 'checkpoints' / '00000002')
  events = []
  step, state = checkpoints.restore(
    tmp_path,
    make_state(0, sides=500),
    on_event=lambda step, kind, **fields: events.append((step, kind, fields)),
  )
  assert step == 1
  assert_same(state, make_state(1, sides=500))
  assert names(tmp_path) == ['00000001', '00000002.corrupt']
  ((step, kind, fields),) = events
  assert (step, kind) == (2, 'corrupt_checkpoint')
  assert fields['path'].endswith('00000002.corrupt')
  assert fields['reason']
  # Another corrupt one of the same step does not overwrite the first.
  checkpoints.save(tmp_path, 2, make_state(2, sides=500))
  damage(tmp_path / 'checkpoints' / '00000002')
  assert checkpoints.restore(tmp_path, make_state(0, sides=500))[0] == 1
  assert '00000002.corrupt_001' in names(tmp_path)


def test_all_corrupt_is_an_error_that_renames_nothing(tmp_path):
  checkpoints.save(tmp_path, 1, {'x': 1})
  damage_truncate(tmp_path / 'checkpoints' / '00000001')
  with pytest.raises(OSError, match=r'(?s)none of the 1 .* bytes'):
    checkpoints.restore(tmp_path, {'x': 1})
  assert names(tmp_path) == ['00000001']


def test_another_structure_is_an_error_that_names_the_leaves(tmp_path):
  checkpoints.save(tmp_path, 1, {'a': jnp.zeros(3), 'b': 1})
  for like, message in (
    ({'a': jnp.zeros(4), 'b': 1}, r'a: float32\[3\] -> float32\[4\]'),
    ({'a': jnp.zeros(3, jnp.int32), 'b': 1}, r'float32\[3\] -> int32\[3\]'),
    ({'a': jnp.zeros(3)}, r'b: int64\[\] -> \(absent\)'),
    ({'a': jnp.zeros(3), 'b': 1, 'c': 2}, r'c: \(absent\) -> int64'),
  ):
    with pytest.raises(ValueError, match=message):
      checkpoints.restore(tmp_path, like)
  assert names(tmp_path) == ['00000001']


ABOUT = {'phase': 'first', 'sizes': (1, 2), 'rate': 0.1, 'nothing': None}
AS_JSON = ABOUT | {'sizes': [1, 2]}


def test_what_is_said_about_a_checkpoint_is_kept(tmp_path):
  assert checkpoints.about(tmp_path) is None
  checkpoints.save(tmp_path, 1, {'x': 1}, about=ABOUT)
  assert checkpoints.about(tmp_path) == (1, AS_JSON)
  checkpoints.save(tmp_path, 2, {'x': 1})
  assert checkpoints.about(tmp_path) == (2, {})


def test_the_checkpoint_says_which_structure_it_has(tmp_path):
  checkpoints.save(tmp_path, 1, {'a': 5}, about={'name': 'a'})
  checkpoints.save(tmp_path, 2, {'b': np.ones(2)}, about={'name': 'b'})
  likes = {'a': {'a': 0}, 'b': {'b': np.zeros(2)}}

  def like(about):
    return likes[about['name']]

  step, state = checkpoints.restore(tmp_path, like)
  assert (step, state['b'].tolist()) == (2, [1.0, 1.0])
  assert checkpoints.restore(tmp_path, like, before=2) == (1, {'a': 5})


NAMES = [
  'chains/0', 'chains/1', 'extra/a/b.c', 'extra/committed', 'extra/empty',
  'extra/flag', 'extra/host', 'extra/python', 'extra/real', 'extra/scalar',
  'extra/weak', 'extra/weak integers', 'extra/weak reals',
  'opt_state/1/0/count', 'opt_state/1/0/mu/bias',
  'opt_state/1/0/mu/conv/kernel', 'opt_state/1/0/nu/bias',
  'opt_state/1/0/nu/conv/kernel', 'opt_state/1/1/count', 'params/bias',
  'params/conv/kernel',
]  # fmt: skip


def test_reads_leaves_by_name_without_a_tree(tmp_path):
  assert checkpoints.read(tmp_path) is None
  state = make_state(1)
  checkpoints.save(tmp_path, 3, state, about=ABOUT)
  step, about, leaves = checkpoints.read(tmp_path)
  assert (step, about) == (3, AS_JSON)
  assert sorted(leaves) == NAMES
  for name, x in zip(leaves, jax.tree.leaves(state), strict=True):
    assert type(leaves[name]) is np.ndarray
    assert leaves[name].dtype == np.asarray(x).dtype
    assert leaves[name].tobytes() == np.asarray(x).tobytes(), name


@pytest.mark.parametrize(
  ('prefixes', 'wanted'),
  [
    (['params/'], ['params/bias', 'params/conv/kernel']),
    (['chains/0', 'extra/empty'], ['chains/0', 'extra/empty']),
    (['extra/empty'], ['extra/empty']),
    (['conv'], []),
    ([], []),
  ],
)
def test_only_leaves_of_the_prefixes_are_read(
  tmp_path, monkeypatch, prefixes, wanted
):
  state = make_state(1)
  checkpoints.save(tmp_path, 3, state)
  asked = []
  restore = checkpoints.ocp.args.PyTreeRestore

  def spy(item, **options):
    asked.extend(item)
    return restore(item, **options)

  monkeypatch.setattr(checkpoints.ocp.args, 'PyTreeRestore', spy)
  _, _, leaves = checkpoints.read(tmp_path, prefixes)
  assert sorted(leaves) == wanted
  assert sorted(asked) == [name for name in wanted if leaves[name].size]
  if 'params/bias' in wanted:
    np.testing.assert_array_equal(leaves['params/bias'], state.params['bias'])


def test_who_reads_changes_nothing(tmp_path):
  """Another process may be writing: only it tidies up."""
  for step in (1, 2):
    checkpoints.save(tmp_path, step, {'x': step}, about={'step': step})
  damage_truncate(tmp_path / 'checkpoints' / '00000002')
  (tmp_path / 'checkpoints' / '00000003.partial').mkdir()
  before = names(tmp_path)
  step, about, leaves = checkpoints.read(tmp_path)
  assert (step, about) == (1, {'step': 1}) == checkpoints.about(tmp_path)
  assert leaves == {'x': 1}
  assert names(tmp_path) == before


def test_who_reads_gets_the_next_one_where_it_is_deleted_meanwhile(
  tmp_path, monkeypatch
):
  checkpoints.save(tmp_path, 1, {'x': 1}, keep=1)
  read_arrays = checkpoints._read_arrays

  def late(path, targets):
    if path.endswith('1'):
      checkpoints.save(tmp_path, 2, {'x': 2}, keep=1)
    return read_arrays(path, targets)

  monkeypatch.setattr(checkpoints, '_read_arrays', late)
  step, _, leaves = checkpoints.read(tmp_path)
  assert (step, leaves['x']) == (2, 2)


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
  """As they were before manifests had a format and a checksum."""
  checkpoints.save(tmp_path, 1, {'x': 1})
  path = tmp_path / 'checkpoints' / '00000001' / 'manifest.json'
  manifest = manifests.read(path.parent)
  old = {name: manifest[name] for name in ('step', 'files')}
  old['leaves'] = {"['x']": 'int64[]'}
  path.write_text(json.dumps(old))
  for call in (
    lambda: checkpoints.restore(tmp_path, {'x': 1}),
    lambda: checkpoints.about(tmp_path),
    lambda: checkpoints.read(tmp_path),
  ):
    with pytest.raises(ValueError, match='another version of this program'):
      call()
  assert names(tmp_path) == ['00000001']


def test_refuses_what_it_cannot_store(tmp_path):
  for state in ({'x': jax.random.key(0)}, {'x': 'text'}, {'x': np.array('a')}):
    with pytest.raises(TypeError, match=r'^x (is a PRNG key|must be)'):
      checkpoints.save(tmp_path, 0, state)
  with pytest.raises(ValueError, match='keep'):
    checkpoints.save(tmp_path, 0, {}, keep=0)
  with pytest.raises(ValueError, match='step'):
    checkpoints.save(tmp_path, -1, {})
  with pytest.raises(TypeError, match=r'about .* JSON'):
    checkpoints.save(tmp_path, 0, {}, about={'x': np.ones(2)})
  with pytest.raises(ValueError, match='two leaves are called a/b'):
    checkpoints.save(tmp_path, 0, {'a': {'b': 1}, 'a/b': 2})
  assert os.listdir(tmp_path) == []


def test_a_tree_without_leaves(tmp_path):
  checkpoints.save(tmp_path, 0, {'a': ()})
  assert checkpoints.restore(tmp_path, {'a': ()}) == (0, {'a': ()})


def test_an_unwritable_workdir_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match='cannot write the checkpoint of step 3 in'):
    checkpoints.save(tmp_path / 'file', 3, {'x': 1})


class KilledError(BaseException):
  """As a SIGKILL, caught by no `except Exception`."""


@pytest.mark.parametrize('same_step', [False, True])
def test_killed_at_any_change_of_the_folder(tmp_path, monkeypatch, same_step):
  """Whatever the last change on disk was, old or new is there as a whole."""
  new_step = 2 if same_step else 3
  for step in (1, 2):
    checkpoints.save(tmp_path / '0', step, {'x': step * 10, 'y': step})
  found = set()
  for count in itertools.count(1):
    workdir = tmp_path / str(count)
    shutil.copytree(tmp_path / '0', workdir)
    left = count

    def dying(function, workdir=workdir):
      def call(*args, **kwargs):
        nonlocal left
        if str(workdir) in str(args[0]):
          left -= 1
          if left == 0:
            raise KilledError
        return function(*args, **kwargs)

      return call

    with monkeypatch.context() as context:
      for name in ('mkdir', 'rename', 'replace', 'unlink', 'rmdir'):
        context.setattr(os, name, dying(getattr(os, name)))
      context.setattr(
        checkpoints.shutil, 'rmtree', dying(checkpoints.shutil.rmtree)
      )
      try:
        checkpoints.save(workdir, new_step, {'x': 99, 'y': 3}, keep=2)
        finished = True
      except KilledError:
        finished = False
    step, state = checkpoints.restore(workdir, {'x': 0, 'y': 0})
    assert (step, state) in (
      (2, {'x': 20, 'y': 2}),
      (new_step, {'x': 99, 'y': 3}),
    )
    found.add(state['x'])
    assert all('.' not in name for name in names(workdir))
    if finished:
      break
  assert found == {20, 99}
  assert count > 4


CHILD = """
import sys
from experiments.files import checkpoints
import numpy as np
like = {'x': np.zeros(2_000_000, np.float32), 'step': 0}
restored = checkpoints.restore(sys.argv[1], like)
step = 0 if restored is None else restored[0]
while True:
  step += 1
  state = {'x': np.full(2_000_000, step, np.float32), 'step': step}
  checkpoints.save(sys.argv[1], step, state)
  print(step, flush=True)
"""


def test_killed_amid_saves(tmp_path):
  like = {'x': np.zeros(2_000_000, np.float32), 'step': 0}
  for pause in (0.02, 0.07):
    child = subprocess.Popen(
      [sys.executable, '-W', 'error', '-c', CHILD, tmp_path],
      stdout=subprocess.PIPE,
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      text=True,
    )
    with child:
      for _ in range(3):
        told = int(child.stdout.readline())
      time.sleep(pause)
      child.send_signal(signal.SIGKILL)
      told = max([told, *map(int, child.stdout.read().split())])
    step, state = checkpoints.restore(tmp_path, like)
    # What was told to be saved is saved; one more may be.
    assert step in (told, told + 1)
    assert state['step'] == step
    assert (state['x'] == step).all()
  assert told >= 6


FULL_DISK = """
import resource, sys
from experiments.files import checkpoints
import numpy as np
rng = np.random.default_rng(0)
state = {'x': rng.normal(size=300_000)}
checkpoints.save(sys.argv[1], 1, state)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
  checkpoints.save(sys.argv[1], 2, state)
except OSError as error:
  print('OSError', error)
step, restored = checkpoints.restore(sys.argv[1], state)
assert step == 1 and (restored['x'] == state['x']).all()
"""


def test_a_full_disk_is_told_and_loses_nothing(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', FULL_DISK, tmp_path],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == (
    'OSError cannot write the checkpoint of step 2 in '
    f'{tmp_path}/checkpoints: File too large\n'
  )
  assert names(tmp_path) == ['00000001']


SHARDED = """
import sys
from experiments.files import checkpoints
import jax
import numpy as np
assert jax.device_count() == 4
mesh = jax.make_mesh((4,), ('device',))
def put(x, *spec):
  return jax.device_put(
      x, jax.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec)))
state = {'w': put(np.arange(5.)), 'chains': put(np.arange(16.), 'device')}
checkpoints.save(sys.argv[1], 1, state)
like = jax.tree.map(jax.numpy.zeros_like, state)
step, restored = checkpoints.restore(sys.argv[1], like)
for name, x in state.items():
  assert restored[name].sharding == x.sharding, name
  assert (restored[name] == x).all(), name
"""


def test_shardings_and_another_number_of_devices(tmp_path):
  devices.run('-c', SHARDED, tmp_path)
  like = {'w': jnp.zeros(5), 'chains': jnp.zeros(16)}
  _, restored = checkpoints.restore(tmp_path, like)
  np.testing.assert_array_equal(restored['chains'], np.arange(16.0))
  assert not restored['w'].committed


TWO_PROCESSES = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from experiments.files import checkpoints
import numpy as np
mesh = jax.make_mesh((2,), ('device',))
def put(x, *spec):
  sharding = jax.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
  return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])
def state(step):
  chains = np.arange(16.) + step
  return {'w': put(np.ones(5)), 'chains': put(chains, 'device'), 'n': step}
for step in (1, 2, 3):
  checkpoints.save(sys.argv[3], step, state(step), about={'at': step}, keep=2)
step, restored = checkpoints.restore(sys.argv[3], lambda about: state(0))
assert (step, restored['n']) == (3, 3)
assert restored['chains'].sharding == state(3)['chains'].sharding
ours, = restored['chains'].addressable_shards
assert (np.asarray(ours.data) == np.arange(16.)[ours.index] + 3).all()
"""


def test_two_processes_save_one_checkpoint(tmp_path):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', TWO_PROCESSES, address, str(i), tmp_path / 'run'],
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  for process in processes:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
  assert names(tmp_path / 'run') == ['00000002', '00000003']
  # And one process reads what two have written.
  step, about, leaves = checkpoints.read(tmp_path / 'run')
  assert (step, about, leaves['n']) == (3, {'at': 3}, 3)
  np.testing.assert_array_equal(leaves['chains'], np.arange(16.0) + 3)


def test_a_hundred_megabytes_in_seconds(tmp_path):
  rng = np.random.default_rng(0)
  state = {'x': jnp.asarray(rng.normal(size=(25, 10**6)), jnp.float32)}
  start = time.perf_counter()
  checkpoints.save(tmp_path, 0, state)
  # Half a second on two free cores; the bound leaves room for busy ones.
  assert time.perf_counter() - start < 10
