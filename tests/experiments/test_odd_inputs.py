"""Odd and bad inputs of every mode that takes some: right, or refused.

Right: exit status 0, and the shape that was drawn is what the mode worked on.
Refused: one sentence, another status, and no file that was not there. Drawn by
a seed, in one process, on tiny models.
"""

import functools
import gzip
import json
import zipfile

import numpy as np
import pytest
import trimesh

from data_prep import convert
from data_prep import mesh_files
from data_prep import voxelize
from experiments.files import models as opened
from tests.data_prep import test_campaign as odd
from tests.experiments import tiny

SIZE = 8
GRID = np.pad(np.random.default_rng(0).random((4, 4, 4)) < 0.6, 2)
MESH = voxelize.voxelize(odd.MESH.vertices, odd.MESH.faces, SIZE)
MODEL_OF = {
  'recover': 'recovery',
  'super_resolve': 'super_resolution',
  'sample': 'multi_grid',
  'reconstruct': 'cooperative',
  'interpolate': 'cooperative',
  'classify': 'evaluation_classifier',
}
FAST = [
  '--config.sample.mesh_format=',
  '--config.latent.num_steps=2',
  '--config.latent.num_columns=2',
  '--config.sample.num_steps=1',
]
ONE_MORE = b'OFF 4 4 0 0 0 0 1 0 0 0 1 0 0 0 1 3 0 1 2 3 0 1 3 3 0 2 3 3 1 2 3'


@pytest.fixture(scope='module', autouse=True)
def opened_once():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(opened, 'open_model', functools.cache(opened.open_model))
    yield


@pytest.fixture(scope='module')
def models(folder_of, tmp_path_factory):
  """`(mode) -> a copy of its model`, to write results into."""
  copies = {}

  def of(mode):
    if mode not in copies:
      copy = tmp_path_factory.mktemp('copy') / 'model'
      copy.mkdir()
      for name in ('spec.json', 'model.safetensors', 'card.json'):
        source = f'{folder_of(MODEL_OF[mode])}/{name}'
        with open(source, 'rb') as file:
          (copy / name).write_bytes(file.read())
      copies[mode] = copy
    return copies[mode]

  return of


def files(folder):
  return {str(path) for path in folder.rglob('*')}


def call(models, mode, path, arguments, capsys, monkeypatch):
  """Status, what was said, and the new files, of a mode with an input."""
  folder = models(mode)
  # Pictures have tests of their own.
  for name in ('isosurfaces', 'stacked'):
    monkeypatch.setattr(f'experiments.files.figures.{name}', no_picture)
  before = files(folder)
  capsys.readouterr()
  status = tiny.run(
    f'--mode={mode}',
    f'--workdir={folder}',
    f'--input={path}',
    *FAST,
    *arguments,
  )
  said = capsys.readouterr().err.splitlines()
  return status, said, files(folder) - before


def no_picture(*arguments, **named):
  del arguments, named


def refused(answer, message):
  """Asserts that a call was refused by a sentence with that in it."""
  status, said, new = answer
  assert status in (1, 2), (status, said)
  errors = [line for line in said if line.startswith('error: ')]
  assert len(errors) == 1 and errors[0] == said[-1], said
  assert message in errors[0], errors
  assert 'bug in the program' not in errors[0], errors
  assert not new


def right(mode, answer, expected):
  """Asserts that a call worked on the shapes `(n, D, H, W)`."""
  status, said, new = answer
  assert status == 0, said
  if mode == 'classify':
    (path,) = [name for name in new if name.endswith('.json')]
    with open(path, encoding='utf-8') as file:
      found = json.load(file)['shapes']
    assert len(found) == len(expected)
    for shape in found:
      assert sum(shape['probabilities'].values()) == pytest.approx(1, abs=0.01)
    return
  (path,) = [name for name in new if name.endswith('voxels.npz')]
  with np.load(path) as arrays:
    given = {key: arrays[key] for key in arrays.files}
  if mode == 'super_resolve':
    low = expected.reshape(-1, 4, 2, 4, 2, 4, 2).mean((2, 4, 6))
    np.testing.assert_allclose(given['low'], low, atol=1e-6)
  elif mode == 'sample':
    assert given['voxels'].shape == expected.shape
  else:
    np.testing.assert_array_equal(given['input'] > 0.5, expected > 0.5)
  for name in ('voxels', 'linear', 'spherical'):
    if name in given:
      assert np.isfinite(given[name]).all()


def write(folder, name, data):
  path = folder / name
  path.write_bytes(data)
  return path


def sound(rng, folder):
  """An odd, sound input: its path, arguments, and the shapes in it."""
  grid = GRID.astype(np.uint8)
  what = rng.integers(10)
  if what < 3:
    kind = str(rng.choice([*odd.TEXTS]))
    return write(folder, f'm.{kind}', odd.odd_mesh(rng, kind)), [], MESH[None]
  if what == 3:
    kind = str(rng.choice(['stl', 'off', 'ply', 'glb']))
    data = odd.binary_mesh(rng, kind)
    return write(folder, f'm.{kind}.gz', gzip.compress(data)), [], MESH[None]
  if what == 4:
    kind = str(rng.choice(convert.OUT_FORMATS))
    data = convert.write_voxels(grid, kind)
    return write(folder, f'v.{kind}', data), [], GRID[None]
  if what == 5:
    shape = [(8, 8, 8), (1, 1, 8, 8, 8), (1, 8, 8, 8, 1)][rng.integers(3)]
    dtype = rng.choice(['bool', 'uint8', 'float16', '>f4'])
    data = odd.npy(np.asfortranarray(GRID.reshape(shape).astype(dtype)))
    return write(folder, 'v.npy', data), [], GRID[None]
  if what == 6:
    high, low = [(255, 0), (200, 20), (1e6, -5), (0.4, 0.1)][rng.integers(4)]
    data = odd.npz(a=np.where(GRID, high, low), b=np.ones((2, 2, 2)))
    level = f'--threshold={(high + low) / 2}'
    return write(folder, 'v.npz', data), [level, '--key=a'], GRID[None]
  if what == 7:
    big = GRID.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    return write(folder, 'v.npy', odd.npy(big[:, :, :28])), [], None
  if what == 8:
    with zipfile.ZipFile(folder / 'a.zip', 'w') as archive:
      archive.writestr('x/a.npy', odd.npy(GRID))
      archive.writestr('x/b.off', odd.odd_mesh(rng, 'off'))
      archive.writestr('x/notes.txt', 'x')
    return folder / 'a.zip', [], np.stack([GRID, MESH])
  write(folder, 'voxels.npz', odd.npz(voxels=GRID[None] * 1.2 - 0.1))
  write(folder, 'record.json', b'{}')
  return folder, [], GRID[None]


def unsound(rng, folder):
  """An input that cannot be: its path, arguments, and part of the sentence."""
  what = rng.integers(9)
  if what < 3:
    kind = str(rng.choice([*odd.TEXTS]))
    data, message = odd.bad_mesh(rng, kind)
    return write(folder, f'm.{kind}', data), [], message or f'm.{kind}'
  if what == 3:
    kind = str(rng.choice(convert.OUT_FORMATS))
    data = convert.write_voxels(GRID.astype(np.uint8), kind)
    data = data[: rng.integers(0, len(data) - 2)]
    return write(folder, f'v.{kind}', data), [], f'v.{kind}'
  if what == 4:
    array, message = (
      (np.full((8, 8, 8), np.nan), 'nan'),
      (np.full((8, 8, 8), 1j), 'complex128'),
      (np.arange(512).reshape(8, 8, 8), '--threshold'),
      (np.zeros((8, 8, 8)), 'empty'),
      (np.zeros((8, 8)), '(8, 8)'),
      (np.zeros((2, 3, 8, 8, 8)), 'several channels'),
      (np.zeros((0, 8, 8, 8)), '(0, 8, 8, 8)'),
      (np.array([None] * 8).reshape(2, 2, 2), 'not a readable npy'),
    )[rng.integers(8)]
    return write(folder, 'v.npy', odd.npy(array)), [], message
  if what == 5:
    name, data = (
      ('v.npz', odd.npz(a=GRID, b=GRID)),
      ('v.npz', b'PK\x03\x04'),
      ('v.npz', odd.npz(classes=GRID)),
      ('v.doc', b'x'),
      ('v', b''),
      ('v.zip', b'PK'),
      ('v.gz', gzip.compress(b'x')),
    )[rng.integers(7)]
    return write(folder, name, data), [], name
  if what == 6:
    write(folder, 'notes.txt', b'x')
    return folder, [], 'no shapes in'
  if what == 7:
    return folder / 'none.off', [], 'does not exist'
  path = write(folder, 'v.npy', odd.npy(GRID))
  argument, message = (
    ('--up=w', "'w'"),
    ('--turn=left', "'left'"),
    ('--turn=45', 'not by 45'),
    ('--turn=nan', "'nan'"),
    ('--threshold=2', 'empty'),
    ('--threshold=x', "'x'"),
    ('--key=', '--key= is empty'),
    ('--format=step', "'step'"),
    ('--formats=obj', 'did you mean format'),
  )[rng.integers(9)]
  return path, [argument], message


@pytest.mark.parametrize('mode', [*MODEL_OF])
@pytest.mark.parametrize(
  'seed',
  [0, pytest.param(1, marks=pytest.mark.slow)],
)
def test_sound_inputs(mode, seed, models, tmp_path, capsys, monkeypatch):
  wrong = []
  for i in range(5):
    rng = np.random.default_rng((seed, i))
    folder = tmp_path / f'{i:03d}'
    folder.mkdir()
    path, arguments, expected = sound(rng, folder)
    if mode == 'classify':
      arguments = [x for x in arguments if not x.startswith('--format')]
    if mode == 'interpolate':
      # Between two: the shape, and a pyramid.
      more = write(tmp_path, f'{i:03d}.off', ONE_MORE)
      if expected is None or len(expected) == 1:
        path = f'{path},{more}'
        pyramid = voxelize.voxelize(
          *mesh_files.read_mesh(ONE_MORE, 'off'), SIZE
        )
        if expected is not None:
          expected = np.stack([expected[0], pyramid])
    if expected is None:
      # Scaled down by blocks, as far as it is there.
      expected = GRID.copy()[None]
      expected[..., 7:] = False
      if mode == 'interpolate':
        expected = np.stack([expected[0], pyramid])
    answer = call(models, mode, path, arguments, capsys, monkeypatch)
    try:
      right(mode, answer, np.asarray(expected, np.float32))
    except (AssertionError, ValueError) as error:
      wrong.append((path, arguments, answer[:2], str(error)[:300]))
  assert not wrong, '\n'.join(map(str, wrong))


@pytest.mark.parametrize('mode', [*MODEL_OF])
def test_unsound_inputs(mode, models, tmp_path, capsys, monkeypatch):
  wrong = []
  for i in range(30):
    rng = np.random.default_rng((22, i))
    folder = tmp_path / f'{i:03d}'
    folder.mkdir()
    path, arguments, message = unsound(rng, folder)
    if mode == 'classify' and '--format=step' in arguments:
      message = 'does not read --format'
    answer = call(models, mode, path, arguments, capsys, monkeypatch)
    try:
      refused(answer, message)
    except AssertionError as error:
      wrong.append((str(path), arguments, str(error)[:300]))
  assert not wrong, '\n'.join(map(str, wrong))


SCANS = ('recover', 'reconstruct')


@pytest.mark.parametrize('mode', SCANS)
@pytest.mark.parametrize('kind', ['ply', 'xyz', 'npy', 'off'])
def test_scans(mode, kind, models, tmp_path, capsys, monkeypatch):
  points = np.array(MESH.nonzero()).T * 0.25 + 100
  path = tmp_path / f's.{kind}'
  if kind == 'npy':
    np.save(path, points)
  elif kind == 'off':
    # A sheet: the faces that look up.
    up = odd.MESH.face_normals[:, 2] > 0.5
    trimesh.Trimesh(odd.MESH.vertices, odd.MESH.faces[up]).export(path)
  else:
    trimesh.PointCloud(points).export(path)
  camera = [] if kind == 'xyz' else ['--camera=90,90,120']
  answer = call(models, mode, path, camera, capsys, monkeypatch)
  status, said, new = answer
  assert status == 0, said
  (path,) = [name for name in new if name.endswith('voxels.npz')]
  with np.load(path) as arrays:
    seen, given, y = (arrays[k] for k in ('visible', 'input', 'voxels'))
  assert 0 < seen.sum() < seen.size and given[seen].any()
  assert (given[seen] < 0.5).any() == bool(camera)
  if mode == 'recover':
    np.testing.assert_array_equal(y[seen], given[seen])


@pytest.mark.parametrize('mode', [m for m in MODEL_OF if m not in SCANS])
def test_scans_are_refused_by_name(mode, models, tmp_path, capsys, monkeypatch):
  sheet = b'OFF 4 2 0 0 0 0 1 0 0 1 1 0 0 1 0 3 0 1 2 3 0 2 3'
  for name, data, message in (
    (
      'a.xyz',
      b'0 0 0\n1 1 1',
      'cloud of 2 points, and a part of the shape is hidden',
    ),
    ('a.off', sheet, 'no inside, so it is a scan'),
    ('a.npy', odd.npy(np.eye(3)), 'cloud of 3 points'),
  ):
    path = write(tmp_path, name, data)
    answer = call(models, mode, path, [], capsys, monkeypatch)
    refused(answer, message)
    assert '--mode=recover completes it' in answer[1][-1]


@pytest.mark.parametrize(
  ('arguments', 'data', 'message'),
  [
    (['--camera=1,2'], b'0 0 0\n1 1 1', 'must be 3 numbers with commas'),
    (['--camera=a,b,c'], b'0 0 0\n1 1 1', "'a,b,c'"),
    (['--camera=inf,0,0'], b'0 0 0\n1 1 1', "'inf,0,0'"),
    (['--box=0,0,0,1,1'], b'0 0 0\n1 1 1', 'must be 6 numbers'),
    (['--box=0,0,0,1,1,0'], b'0 0 0\n1 1 1', 'lower and an upper corner'),
    (['--box=5,5,5,6,6,6'], b'0 0 0\n1 1 1', 'no part of it is in the box'),
    (['--scan=perhaps'], b'0 0 0\n1 1 1', 'perhaps'),
    ([], b'0 0 0', 'zero extent'),
    ([], b'', 'empty file'),
    ([], b'1 2\n', 'has 2 numbers'),
    ([], b'nan nan nan\n', 'a.xyz'),
    (['--visible={folder}/none.npy'], b'0 0 0\n1 1 1', 'none.npy'),
    (['--visible={folder}/v.npz'], b'0 0 0\n1 1 1', 'v.npz'),
  ],
)
@pytest.mark.parametrize('mode', SCANS)
def test_bad_scans(
  mode, arguments, data, message, models, tmp_path, capsys, monkeypatch
):
  write(tmp_path, 'v.npz', odd.npz(a=GRID, b=GRID))
  path = write(tmp_path, 'a.xyz', data)
  arguments = [argument.format(folder=tmp_path) for argument in arguments]
  refused(call(models, mode, path, arguments, capsys, monkeypatch), message)


@pytest.mark.parametrize('mode', [m for m in MODEL_OF if m != 'interpolate'])
def test_of_a_folder_what_is_sound(
  mode, models, tmp_path, capsys, caplog, monkeypatch
):
  caplog.set_level('INFO', 'absl')
  write(tmp_path, 'a.npy', odd.npy(GRID))
  write(tmp_path, 'b.off', b'OFF 3')
  write(tmp_path, 'c.txt', b'x')
  answer = call(models, mode, tmp_path, [], capsys, monkeypatch)
  status, said, new = answer
  assert status == 2
  assert said[-1].startswith('error: 1 of 2 shapes were skipped, such as')
  assert 'passed over: 1 .txt' in caplog.text
  right(mode, (0, said, new), GRID[None].astype(np.float32))


@pytest.mark.parametrize('count', [1, 3])
def test_interpolation_is_between_two(
  count, models, tmp_path, capsys, monkeypatch
):
  for i in range(count):
    write(tmp_path, f'{i}.npy', odd.npy(GRID))
  answer = call(models, 'interpolate', tmp_path, [], capsys, monkeypatch)
  refused(answer, f'it holds {"one" if count == 1 else "more"}')


def test_interpolation_of_what_is_skipped_says_so(
  models, tmp_path, capsys, monkeypatch
):
  write(tmp_path, 'a.npy', odd.npy(GRID))
  write(tmp_path, 'b.off', b'OFF 3')
  answer = call(models, 'interpolate', tmp_path, [], capsys, monkeypatch)
  refused(answer, 'b: no counts of vertices and faces')
  assert answer[1][-1].endswith('; nothing is written')


def test_ctrl_c_leaves_nothing(models, tmp_path, capsys, monkeypatch):
  def stop(*arguments, **named):
    raise KeyboardInterrupt

  path = write(tmp_path, 'a.npy', odd.npy(GRID))
  monkeypatch.setattr('experiments.files.shapes.save', stop)
  arguments = ['--format=obj']
  answer = call(models, 'recover', path, arguments, capsys, monkeypatch)
  assert answer[0] == 130 and answer[1][-1] == 'Stopped.' and not answer[2]


def test_there_are_enough():
  modes = len(MODEL_OF)
  assert modes * (5 + 30) + 2 * (4 + 13) + 3 * (modes - 2) >= 250
