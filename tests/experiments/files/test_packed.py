"""Shapes that stay bits, in memory and on disk."""

import json
import os
import statistics
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from data_prep import furniture
from data_prep import unzip
from data_prep import voxel_file
from experiments import batches
from experiments import parallel
from experiments import tasks
from experiments import train
from experiments.files import checkpoints
from experiments.files import datasets
from experiments.files import packed
from experiments.tasks import base
from experiments.tasks import parts
from tests import processes
from tests import runs


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """A voxel file, and a folder of the same arrays."""
  folder = tmp_path_factory.mktemp('packed')
  data = furniture.make_furniture(size=12, num_train=9, num_test=3)
  voxel_file.save(folder / 'shapes.npz', data)
  stored = voxel_file.read(folder / 'shapes.npz')
  voxel_file.save_folder(folder / 'shapes', stored)
  return folder


@pytest.mark.parametrize('category', ['all', 'chair'])
@pytest.mark.parametrize('hold_out', [0.0, 0.25])
def test_a_folder_and_bits_hold_what_the_file_holds(files, category, hold_out):
  whole = datasets.load(str(files / 'shapes.npz'), category, hold_out=hold_out)
  for name in ('shapes.npz', 'shapes'):
    data = datasets.load(
      str(files / name), category, hold_out=hold_out, packed=True
    )
    assert isinstance(data.train, packed.Packed)
    for split in ('train', 'test'):
      ours, theirs = getattr(data, split), getattr(whole, split)
      assert len(ours) == len(theirs) and ours.shape == theirs.shape
      np.testing.assert_array_equal(np.asarray(ours), theirs)
      np.testing.assert_array_equal(ours[1:3], theirs[1:3])
    np.testing.assert_array_equal(data.train_labels, whole.train_labels)
    # A run goes on with either.
    assert data.checksum == whole.checksum
    assert (data.mean, data.classes) == (whole.mean, whole.classes)
    # To the bit what a network saw before.
    rows = np.array([4, 0, 2])
    seen = jax.jit(datasets.prepare(data))(datasets.stored(data.train, rows))
    expected = datasets.to_network(whole.train[rows], whole.mean, whole.scale)
    np.testing.assert_array_equal(seen, expected)


def test_a_folder_stays_on_disk(files):
  stored = voxel_file.read(files / 'shapes')
  assert isinstance(stored.arrays['train'], np.memmap)
  with pytest.raises(FileExistsError, match='not overwritten'):
    voxel_file.save_folder(files / 'shapes', stored)
  data = datasets.load(str(files / 'shapes'), 'chair', packed=True)
  assert isinstance(data.train.bits, np.memmap)


def test_unzip(files, tmp_path):
  arguments = ['unzip', str(files / 'shapes.npz'), str(tmp_path / 'shapes')]
  unzip.main(arguments)
  ours, theirs = (
    voxel_file.load(folder / 'shapes') for folder in (tmp_path, files)
  )
  np.testing.assert_array_equal(ours.voxels['test'], theirs.voxels['test'])
  with pytest.raises(FileExistsError, match='not overwritten'):
    unzip.main(arguments)


def test_a_broken_folder_is_told(tmp_path):
  with pytest.raises(ValueError, match='no key classes'):
    voxel_file.read(tmp_path)
  (tmp_path / 'classes.npy').write_bytes(b'none')
  with pytest.raises(ValueError, match=r'classes\.npy is not a readable'):
    voxel_file.read(tmp_path)


@pytest.mark.slow
def test_a_run_of_a_folder_is_that_of_its_file(tmp_path, files):
  for name in ('shapes', 'shapes.npz'):
    config = runs.config(
      **{'data.path': str(files / name), 'train.num_iterations': 2}
    )
    config.data.batch_size = 4
    train.train(config, str(tmp_path / name))
  a, b = (checkpoints.read(tmp_path / x) for x in ('shapes', 'shapes.npz'))
  runs.assert_equal(a[2], b[2])


def test_batches_are_made_ahead_and_in_order():
  made = []

  def make(step, rollbacks):
    made.append((step, rollbacks))
    return step, rollbacks

  with batches.ahead(make, 3) as batch_at:
    assert batch_at(0, 0) == (0, 0)
    assert batch_at(1, 0) == (1, 0)
    # After a rollback others are wanted.
    assert batch_at(0, 1) == (0, 1)
    assert batch_at(1, 1) == (1, 1)
    assert batch_at(2, 1) == (2, 1)
  assert max(made) == (2, 1) and {(0, 0), (1, 0), (0, 1)} < {*made}


# More shapes of 64^3 than may be in memory, though packed.


def _large(folder, number):
  """A folder of so many shapes: a few, turned, mirrored and repeated."""
  some = furniture.make_furniture(
    size=64, num_train=25, num_test=1, categories=('chair',)
  ).voxels['train']
  turned = np.concatenate(
    [np.rot90(x, k, (1, 2)) for x in (some, some[:, ::-1]) for k in range(4)]
  )
  bits = voxel_file.pack(turned)
  folder.mkdir()
  voxels = np.lib.format.open_memmap(
    folder / 'voxels_train.npy', 'w+', np.uint8, (number, *bits.shape[1:])
  )
  for first in range(0, number, len(bits)):
    voxels[first : first + len(bits)] = bits[: number - first]
  voxels.flush()
  np.save(folder / 'labels_train.npy', np.zeros(number, np.uint8))
  np.save(folder / 'names_train.npy', np.arange(number).astype(str))
  np.save(folder / 'classes.npy', np.array(['chair']))


def _peak():
  """The most memory that this process ever had, in bytes, files included."""
  with open('/proc/self/status') as file:
    (line,) = (line for line in file if line.startswith('VmHWM'))
  return int(line.split()[1]) * 1024


def _measure(path):
  """Learns a little, and prints the memory and the time that input took."""
  config = runs.config(**{'data.path': path, 'data.batch_size': 5})
  config.model.network = 'small'
  config.chains.num_chains, config.chains.num_steps = 5, 1
  experiment = tasks.TASKS[config.task].experiment(
    config, parts.data(config, packed=True)
  )
  (phase,) = experiment.phases
  algorithm = phase.algorithm
  devices = parallel.make(
    'shard_map', base.step_of(phase), algorithm.chain_axes
  )
  make = train._batch_of(phase, devices)
  state = devices.init(
    algorithm.init, jax.random.key(0), experiment.params(), None
  )
  inputs, steps = [], []
  for i in range(3):
    begin = time.monotonic()
    batch = jax.block_until_ready(make(i, 0))
    middle = time.monotonic()
    state, metrics = devices.step(
      jax.random.key(i), state, batch, train._schedule(0.0, 1.0)
    )
    jax.block_until_ready(metrics)
    inputs.append(middle - begin)
    steps.append(time.monotonic() - middle)
  for i in range(200):
    make(i, 0)
  print(
    json.dumps(
      {
        'peak': _peak(),
        'input': statistics.median(inputs),
        # The first compiles.
        'step': statistics.median(steps[1:]),
      }
    )
  )


@pytest.mark.slow
def test_20000_shapes_take_little_more_memory_than_500(tmp_path):
  # A step as fast as it is outside tests.
  slower = ('JAX_DISABLE_MOST_OPTIMIZATIONS', 'XLA_FLAGS')
  env = {k: v for k, v in os.environ.items() if k not in slower}
  found = {}
  for number in (500, 20_000):
    _large(tmp_path / str(number), number)
    done = subprocess.run(
      [sys.executable, __file__, str(tmp_path / str(number))],
      env=env | {'PYTHONPATH': str(processes.ROOT)},
      capture_output=True,
      text=True,
      check=True,
    )
    found[number] = json.loads(done.stdout.splitlines()[-1])
    print(number, found[number])
  assert found[20_000]['peak'] - found[500]['peak'] < 0.3 * 2**30
  # Even if it were not made during the step before.
  assert found[20_000]['input'] < 0.05 * found[20_000]['step']


if __name__ == '__main__':
  _measure(sys.argv[1])
