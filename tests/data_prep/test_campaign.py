"""Odd and bad inputs, generated: each comes out right or is refused.

Right: exit status 0, and the voxels of the shape that was drawn. Refused: one
sentence, another exit status, no traceback, and no file that was not there. One
process for each command does all of its inputs.
"""

import gzip
import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import zipfile

import numpy as np
import scipy.io
import trimesh

from data_prep import convert
from data_prep import voxel_file
from data_prep import voxelize

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 16
# Calls one command with many argument lists, each as if it were the only one.
CHILD = """
import contextlib, importlib, io, json, sys
from absl import flags
from data_prep import command
module = importlib.import_module('data_prep.' + sys.argv[1])
module.define_flags()
for line in sys.stdin:
  flags.FLAGS.unparse_flags()
  for flag in flags.FLAGS.get_flags_for_module(module.__name__):
    flag.unparse()
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      arguments = command._parse(['program', *json.loads(line)])
      status = command.guarded(module.main)(arguments)
    except SystemExit as stop:
      status = stop.code
    except BaseException as error:
      status = f'{type(error).__name__}: {error}'
  print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""


def child(name, calls):
  """Status, output and errors of each call of a command."""
  result = subprocess.run(
    [sys.executable, '-W', 'error', '-c', CHILD, name],
    input='\n'.join(json.dumps([str(a) for a in call]) for call in calls),
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert result.returncode == 0, result.stderr
  answers = [json.loads(line) for line in result.stdout.splitlines()]
  assert len(answers) == len(calls)
  return answers


def files(folder):
  return sorted(str(p.relative_to(folder)) for p in folder.rglob('*'))


def check(name, cases, out, known):
  """Checks the answers to `cases`: arguments, and what is to come out.

  That is an array; None, for a refusal; or a part of what the refusal says.
  """
  folders = [out / name / f'{i:03d}' for i in range(len(cases))]
  for folder in folders:
    folder.mkdir(parents=True)
  calls = [
    [argument.format(out=folder) for argument in arguments]
    for folder, (arguments, _) in zip(folders, cases, strict=True)
  ]
  wrong = []
  for call, folder, (_, expected), (status, _, errors) in zip(
    calls, folders, cases, child(name, calls), strict=True
  ):
    said = [
      line
      for line in errors.replace('\r', '\n').splitlines()
      if line.strip()
      and not line.startswith(('convert:', 'voxelize:', 'skipped '))
    ]
    new = files(folder)
    try:
      if isinstance(expected, str) or expected is None:
        assert status in (1, 2), status
        assert len(said) == 1, said
        assert said[0].startswith('error: ')
        assert (expected or '') in said[0]
        assert not new, new
      else:
        assert status == 0, (status, errors)
        assert new == ['x.npz']
        np.testing.assert_array_equal(known(folder / 'x.npz'), expected)
    except AssertionError as error:
      wrong.append((call[-3:], str(error)[:300]))
  assert not wrong, '\n'.join(map(str, wrong))


# The shape of all meshes: a box and a smaller one on it, without symmetry.

MESH = trimesh.util.concatenate(
  [
    trimesh.creation.box(bounds=[(0, 0, 0), (4, 3, 1)]),
    trimesh.creation.box(bounds=[(0.5, 0.5, 0.5), (1.5, 1.25, 2.5)]),
  ]
)
QUADS = [
  [8 * b + i for i in quad]
  for b in range(2)
  for quad in ([0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6],
               [0, 2, 6, 4], [1, 3, 7, 5])
]  # fmt: skip
CORNERS = np.array(
  [
    [b[i >> 2 & 1][0], b[i >> 1 & 1][1], b[i & 1][2]]
    for b in ([(0, 0, 0), (4, 3, 1)], [(0.5, 0.5, 0.5), (1.5, 1.25, 2.5)])
    for i in range(8)
  ]
)


def polygons(rng):
  """The faces in another order, turned, and some cut into triangles."""
  faces = []
  for i in rng.permutation(len(QUADS)):
    quad = list(np.roll(QUADS[i], rng.integers(4)))
    quad = quad[::-1] if rng.random() < 0.5 else quad
    faces += [quad] if rng.random() < 0.5 else [quad[:3], [*quad[2:], quad[0]]]
  return faces


def words(*values):
  return ' '.join(str(v) for v in values)


def off_text(rng):
  n, faces = len(CORNERS), polygons(rng)
  dialect = rng.choice(['OFF', 'COFF', 'NOFF', '4OFF', 'STOFF'])
  tail = {'COFF': (9, 9, 9, 255), 'NOFF': (0, 0, 1), '4OFF': (1,),
          'STOFF': (0.5, 0.5)}.get(dialect, ())  # fmt: skip
  colour = [(), (7,), (255, 0, 0), (0.1, 0.2, 0.3, 1)][rng.integers(4)]
  glue = '' if dialect == 'OFF' and rng.random() < 0.3 else '\n'
  lines = [f'{dialect}{glue}{n} {len(faces)}' + rng.choice(['', ' 0', ' 24'])]
  lines += [words(*c, *tail) for c in CORNERS]
  lines += [words(len(f), *f, *colour) for f in faces]
  return lines, '#'


def obj_text(rng):
  faces, lines, at = polygons(rng), [], {}
  for face in faces:  # corners come when they are needed.
    for i in face:
      if i not in at:
        at[i] = len(at) + 1
        lines.append('v ' + words(*CORNERS[i]))
    back = len(at) + 1 if rng.random() < 0.5 else 0
    tail = rng.choice(['', '/1', '//2', '/3/4'])
    lines.append('f ' + words(*(f'{at[i] - back}{tail}' for i in face)))
    if rng.random() < 0.3:
      lines.append(rng.choice(['g part', 'usemtl none', 's off', 'vn 0 0 1']))
  return lines, '#'


def ply_text(rng):
  faces = polygons(rng)
  head = [
    'ply', 'format ascii 1.0', 'comment TextureFile none.jpg',
    f'element vertex {len(CORNERS)}', 'property double x',
    'property double y', 'property uchar red', 'property double z',
    f'element face {len(faces)}', 'property list uchar int vertex_indices',
    'end_header',
  ]  # fmt: skip
  body = [words(x, y, 7, z) for x, y, z in CORNERS]
  return head + body + [words(len(f), *f) for f in faces], None


def stl_text(rng):
  lines = ['solid ' + rng.choice(['', 'box', 'facet vertex'])]
  for i in rng.permutation(len(MESH.faces)):
    lines += ['facet normal 0 0 0', ' outer loop']
    lines += [f'  vertex {words(*c)}' for c in MESH.vertices[MESH.faces[i]]]
    lines += [' endloop', rng.choice(['endfacet', 'end facet'])]
  return [*lines, rng.choice(['endsolid', 'end solid', 'endsolid box'])], None


TEXTS = {'off': off_text, 'obj': obj_text, 'ply': ply_text, 'stl': stl_text}


def odd_mesh(rng, kind):
  """A sound file of some dialect."""
  lines, sign = TEXTS[kind](rng)
  if sign:
    lines = [
      line + rng.choice(['', ' ', f' {sign} 1 2 3', '\n', f'\n{sign} note'])
      for line in lines
    ]
  text = '\n'.join(lines) + '\n'
  if kind == 'stl' and rng.random() < 0.3:
    text = text.upper()
  ending = rng.choice(['\n', '\r\n', '\r'])
  data = text.replace('\n', ending).encode()
  if kind in ('off', 'obj') and rng.random() < 0.3:
    data = text.encode('utf-16')
  elif rng.random() < 0.3:
    data = b'\xef\xbb\xbf' + data
  return data


def bad_mesh(rng, kind):
  """A file that cannot be right, and a part of what is to be said of it."""
  lines, _ = TEXTS[kind](rng)
  sign = 'vertex' if kind == 'stl' else 'f ' if kind == 'obj' else ''
  at = max(i for i, line in enumerate(lines) if sign in line)
  last = lines[at]
  what = rng.integers(6)
  if what == 0:  # cut off, but not within its last number.
    text = '\n'.join(lines)
    least = len(text) if kind == 'stl' else len(text.rstrip('0123456789./'))
    if kind == 'obj':  # which has no end: within a word.
      return (text + '\nf 1 2 3x').encode(), "'3x' is not a number"
    return text[: rng.integers(10, least - 9)].encode(), None
  if what == 1:  # a letter in a number.
    lines[at] = last[:-1] + 'x'
  elif what == 2:  # an index, or a coordinate, that is none.
    bad = {'off': '3 0 1 99', 'ply': '3 0 1 -1', 'obj': 'f 1 2 0',
           'stl': '  vertex 1 2'}[kind]  # fmt: skip
    lines[at] = bad
  elif what == 3:
    bad = {'off': '3 0 1 0.5', 'ply': '3 0 1 1.5', 'obj': 'f 1 2 2.5',
           'stl': '  vertex 0 nan 0'}[kind]  # fmt: skip
    lines[at] = bad
  elif what == 4:  # of something else altogether.
    return bytes(rng.integers(0, 256, 300, np.uint8)), None
  else:
    junk = (b'', b'\n \n', b'<!DOCTYPE html>', b'PK\x03\x04', b'\x89PNG\r\n')
    return junk[rng.integers(len(junk))], None
  return '\n'.join(lines).encode(), None


def binary_mesh(rng, kind):
  """A sound binary file."""
  if kind == 'glb':
    turned = MESH.copy()
    turned.vertices = turned.vertices[:, [0, 2, 1]] * (1, 1, -1)
    return turned.export(file_type='glb')
  if kind == 'stl':
    data = MESH.export(file_type='stl')
    head = rng.choice([b'solid binary', b'x', b'']).ljust(80, b'\0')
    count = rng.choice([data[80:84], b'\0\0\0\0'])
    return head + bytes(count).ljust(4, b'\0') + data[84:]
  faces = polygons(rng)
  if kind == 'off':
    return (
      b'OFF BINARY\n'
      + struct.pack('>3i', 16, len(faces), 0)
      + (CORNERS.astype('>f4').tobytes())
      + b''.join(struct.pack(f'>i{len(f)}ii', len(f), *f, 0) for f in faces)
    )
  order, name = [('<', 'little'), ('>', 'big')][rng.integers(2)]
  head = (
    f'ply\nformat binary_{name}_endian 1.0\nelement vertex 16\n'
    'property float x\nproperty float y\nproperty float z\n'
    f'element face {len(faces)}\nproperty list uchar uint vertex_index\n'
    'end_header\n'
  )
  return (
    head.encode()
    + CORNERS.astype(order + 'f4').tobytes()
    + b''.join(struct.pack(f'{order}B{len(f)}I', len(f), *f) for f in faces)
  )


def mesh_cases(folder, rng):
  expected = voxelize.voxelize(MESH.vertices, MESH.faces, SIZE)
  cases = []

  def add(data, kind, result):
    path = folder / f'{len(cases):03d}' / f'm.{kind}'
    if rng.random() < 0.2:
      path, data = path.with_name(f'{path.name}.gz'), gzip.compress(data)
    path.parent.mkdir()
    path.write_bytes(data)
    source = path
    if rng.random() < 0.2:
      source = path.with_name('m.zip')
      with zipfile.ZipFile(source, 'w') as archive:
        archive.write(path, f'box/train/{path.name}')
    cases.append(
      ([f'--meshes={source}', f'--size={SIZE}', '--out={out}/x.npz'], result)
    )

  for kind in TEXTS:
    for _ in range(14):
      add(odd_mesh(rng, kind), kind, expected)
    for _ in range(12):
      data, message = bad_mesh(rng, kind)
      add(data, kind, message)
  for kind in ('stl', 'off', 'ply', 'glb'):
    for _ in range(4):
      data = binary_mesh(rng, kind)
      add(data, kind, expected)
      add(data[: rng.integers(5, len(data) - 8)], kind, None)
  return cases


def first_voxels(path):
  stored = voxel_file.load(path)
  return stored.voxels[next(iter(stored.voxels))][0]


def test_meshes(tmp_path):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'out').mkdir()
  cases = mesh_cases(tmp_path / 'in', np.random.default_rng(22))
  assert len(cases) >= 120
  check('voxelize', cases, tmp_path / 'out', first_voxels)


# Voxels.

GRID = np.pad(np.random.default_rng(0).random((6, 6, 6)) < 0.4, 1)


def npy(array):
  file = io.BytesIO()
  np.save(file, array, allow_pickle=True)
  return file.getvalue()


def mat(array):
  file = io.BytesIO()
  scipy.io.savemat(file, {'instance': array})
  return file.getvalue()


def npz(**arrays):
  file = io.BytesIO()
  np.savez_compressed(file, **arrays)
  return file.getvalue()


def voxel_cases(folder, rng):
  cases = []

  def add(data, kind, result, *arguments):
    path = folder / f'{len(cases):03d}' / f'v.{kind}'
    if kind != 'npz' and rng.random() < 0.2:
      path, data = path.with_name(f'{path.name}.gz'), gzip.compress(data)
    path.parent.mkdir()
    path.write_bytes(data)
    arguments = [f'--source={path}', '--out={out}/x.npz', *arguments]
    cases.append((arguments, result))

  grid = GRID.astype(np.uint8)
  for dtype in (bool, np.uint8, np.int64, np.float16, np.float64, '>f4'):
    for shape in ((8, 8, 8), (1, 8, 8, 8), (1, 1, 8, 8, 8), (1, 8, 8, 8, 1)):
      array = np.asfortranarray(GRID.reshape(shape).astype(dtype))
      add(npy(array), 'npy', grid)
  for high, low in ((255, 0), (200, 20), (1e6, -5), (0.4, 0.1)):
    array = np.where(GRID, high, low)
    level = f'--threshold={(high + low) / 2}'
    for data, kind in ((npy(array), 'npy'), (mat(array), 'mat'),
                       (npz(voxels=array, other=array[0]), 'npz')):  # fmt: skip
      add(data, kind, grid, level)
  for kind in convert.OUT_FORMATS:
    data = convert.write_voxels(grid, kind)
    add(data, kind, grid)
    for _ in range(3):
      cut = data[: rng.integers(0, len(data) - 2)]
      add(cut, kind, None)
    add(bytes(rng.integers(0, 256, 99, np.uint8)), kind, None)
  add(npz(a=GRID, b=GRID), 'npz', 'say which with --key')
  add(npz(a=GRID, b=~GRID), 'npz', grid, '--key=a')
  add(npz(a=GRID), 'npz', "no key 'c'", '--key=c')
  add(npz(classes=GRID), 'npz', 'classes must be one or more names')
  add(npz(), 'npz', 'it holds no array')
  for array, message in (
    (np.full((4, 4, 4), np.nan), 'holds the value nan'),
    (np.full((4, 4, 4), np.inf), 'values from inf to inf'),
    (np.full((4, 4, 4), 1j), 'of complex128, not of numbers'),
    (np.full((4, 4, 4), 'x'), 'not of numbers'),
    (np.array([None] * 8).reshape(2, 2, 2), 'not a readable npy file'),
    (np.arange(64).reshape(4, 4, 4), 'say with --threshold'),
    (np.zeros((4, 4, 4)), 'it is empty'),
    (np.zeros((4, 4)), 'shape (4, 4)'),
    (np.zeros((4, 3)), 'which are points, not voxels'),
    (np.zeros((2, 3, 4, 4, 4)), 'of several channels'),
    (np.zeros((0, 4, 4, 4)), 'shape (0, 4, 4, 4)'),
    (np.float32(3), 'shape ()'),
  ):
    add(npy(array), 'npy', message)
  for arguments, message in (
    (['--size=0'], 'size must be positive'),
    (['--size=-4'], 'size must be positive'),
    (['--size=x'], 'flag --size=x'),
    (['--size=5'], 'would cut off'),
    (['--size=3'], 'would cut off'),
    (['--threshold=nan'], 'threshold must be a number'),
    (['--threshold=2'], 'it is empty'),
    (['--up=w'], 'flag --up=w'),
    (['--to=stl'], 'flag --to=stl'),
    (['--tree=x'], 'must have {name}'),
    (['--tree={{name}}.off'], 'that fit'),
    (['--key=x'], None),
    (['--out={out}/x'], 'must end in .npz'),
    (['--out={out}'], 'exists and is not overwritten'),
    (['--source={out}/none.npy'], 'does not exist'),
    (['--source={out}/none.npz'], 'no voxel file'),
    (['--source={out}'], 'no shapes in'),
    (['--nothing'], "Unknown command line flag 'nothing'"),
    (['word'], 'arguments without a flag'),
  ):
    kind = 'mat' if arguments == ['--key=x'] else 'npy'
    add(mat(grid) if kind == 'mat' else npy(grid), kind, message, *arguments)
  return cases


def test_voxels(tmp_path):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'out').mkdir()
  cases = voxel_cases(tmp_path / 'in', np.random.default_rng(23))
  assert len(cases) >= 60
  check('convert', cases, tmp_path / 'out', first_voxels)


# Arguments of the other commands.


def test_arguments_of_voxelize(tmp_path):
  (tmp_path / 'a.off').write_text(trimesh.exchange.off.export_off(MESH))
  (tmp_path / 'out').mkdir()
  (tmp_path / 'dangling.off').symlink_to(tmp_path / 'none.off')
  good = [f'--meshes={tmp_path}/a.off', '--out={out}/x.npz']
  cases = [
    ([*good, argument], message)
    for argument, message in (
      ('--size=3', 'size must be 4 to 128'),
      ('--size=129', 'size must be 4 to 128'),
      ('--size=16.5', '--size must be numbers'),
      ('--size=', '--size must be'),
      ('--size=16,16', '--size must be one or more different numbers'),
      ('--size=16,32', 'must contain {{size}}'),
      ('--margin=16', 'margin must be 0 to 15'),
      ('--margin=-1', 'margin must be'),
      ('--num_workers=-1', '--num_workers must be >= 0'),
      ('--up=no', 'flag --up=no'),
      ('--tree={{kind}}/{{name}}', 'must have {{name}}'),
      ('--out={out}/x.mat', 'ends in .npz'),
      ('--out={out}', 'ends in .npz'),
      (f'--out={tmp_path}/a.off/x.npz', None),
      ('--meshes={out}', 'no shapes in'),
      ('--meshes={out}/none', 'does not exist'),
      (f'--meshes={tmp_path}/dangling.off', 'does not exist'),
      ('--surface=1', 'Unknown command line flag'),
      ('a.off', 'arguments without a flag'),
    )
  ]
  cases = [
    (arguments, message and message.replace('{{', '{').replace('}}', '}'))
    for arguments, message in cases
  ]
  check('voxelize', cases, tmp_path / 'out', first_voxels)


def test_arguments_of_inspect_and_furniture(tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  (tmp_path / 'a.npz').write_bytes(npz(voxels=GRID))
  (tmp_path / 'b.npz').write_bytes(b'PK\x03\x04')
  (tmp_path / 'c.txt').write_text('x')
  cases = [
    ([], 'give one voxel file'),
    ([f'{tmp_path}/a.npz', f'{tmp_path}/b.npz'], 'give one voxel file'),
    ([f'{tmp_path}/b.npz'], 'not a readable .npz file'),
    ([f'{tmp_path}/c.txt'], 'no shapes in'),
    ([f'{tmp_path}/none.npz'], 'no voxel file'),
    ([f'{tmp_path}/a.npz', '--shapes=-1'], 'flag --shapes=-1'),
    ([f'{tmp_path}/a.npz', '--key=b'], "no key 'b'"),
    ([f'{tmp_path}/a.npz', '--picture={out}'], 'exists and is not overwr'),
    ([f'{tmp_path}/a.npz', '--picture={out}/x.doc'], None),
  ]
  check('inspect', cases, out, None)
  good = ['--out={out}/x.npz', '--num_train=1', '--num_test=1']
  cases = [
    ([*good, '--size=2'], 'size must be 4 to 128'),
    ([*good, '--size=big'], 'flag --size=big'),
    ([*good, '--num_train=-1'], None),
    ([*good, '--category=boat'], 'flag --category=boat'),
    ([*good, '--margin=99'], 'margin must be'),
    (['--out={out}'], 'exists and is not overwritten'),
    (good[1:], 'flag --out'),
  ]
  check('furniture', cases, out, None)


def test_the_campaign_is_drawn_by_its_seed(tmp_path):
  for name in 'ab':
    (tmp_path / name).mkdir()
    mesh_cases(tmp_path / name, np.random.default_rng(22))
  one, other = (
    [
      p.read_bytes()
      for p in sorted((tmp_path / name).rglob('*'))
      # Their heads hold the time of day.
      if p.is_file() and p.suffix not in ('.gz', '.zip')
    ]
    for name in 'ab'
  )
  assert one == other
  assert os.listdir(tmp_path / 'a')
