"""Volumes to and from binvox, .mat and .npy."""

import gzip
import io
import pathlib
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import scipy.io

from data_prep import convert
from data_prep import grids
from data_prep import voxel_file
from data_prep import voxelize

ROOT = pathlib.Path(__file__).parents[2]


def shape(size=30, seed=0):
  """A shape without symmetry; its border is empty."""
  inner = np.random.default_rng(seed).random((size - 2,) * 3) < 0.2
  return np.pad(inner, 1).astype(np.uint8)


def mat(path, volume, key='instance'):
  path.parent.mkdir(parents=True, exist_ok=True)
  scipy.io.savemat(path, {key: volume})
  return path


def run(source, out, **options):
  return convert.convert(source, out, progress=False, **options)[:2]


@pytest.mark.parametrize('kind', convert.OUT_FORMATS)
@pytest.mark.parametrize('size', [8, 30, 32, 64])
def test_every_format_gives_the_shape_back(kind, size):
  volume = shape(size)
  data = convert.write_voxels(volume, kind)
  assert data == convert.write_voxels(volume, kind)
  found = convert.read_voxels(data, kind)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, volume[None])


@pytest.mark.parametrize('volume', [np.zeros((8, 8, 8)), np.ones((8, 8, 8))])
@pytest.mark.parametrize('kind', convert.OUT_FORMATS)
def test_empty_and_full(kind, volume):
  found = convert.read_voxels(convert.write_voxels(volume, kind), kind)
  np.testing.assert_array_equal(found[0], volume)


def test_binvox_is_what_its_specification_says():
  # The index of (x, y, z) is x * 4 * 4 + z * 4 + y; runs are (value, count).
  volume = np.zeros((4, 4, 4), np.uint8)
  volume[1, 2, 3] = 1
  at = 1 * 16 + 3 * 4 + 2
  runs = bytes([0, at, 1, 1, 0, 64 - at - 1])
  head = b'#binvox 1\ndim 4 4 4\ntranslate 0 0 0\nscale 1\ndata\n'
  np.testing.assert_array_equal(
    convert.read_voxels(head + runs, 'binvox')[0], volume
  )
  # Readers of others stop at anything more than these lines.
  assert convert.write_voxels(volume, 'binvox') == head + runs


def test_mat_is_read_as_matlab_reads_it():
  volume = shape(8)
  data = convert.write_voxels(volume, 'mat')
  content = scipy.io.loadmat(io.BytesIO(data))
  np.testing.assert_array_equal(content['instance'], volume)


@pytest.mark.parametrize('key', ['instance', 'voxels', 'v'])
@pytest.mark.parametrize('dtype', [np.uint8, bool, np.float64])
def test_keys_and_types_of_mat_files(tmp_path, key, dtype):
  path = mat(tmp_path / 'x.mat', shape().astype(dtype), key)
  found = convert.read_voxels(path.read_bytes(), 'mat')
  np.testing.assert_array_equal(found[0], shape())
  assert found.dtype == np.uint8


def test_batches_and_a_channel_axis(tmp_path):
  batch = np.stack([shape(seed=s) for s in range(3)])
  path = mat(tmp_path / 'x.mat', batch[..., None], 'voxels')
  found = convert.read_voxels(path.read_bytes(), 'mat')
  np.testing.assert_array_equal(found, batch)
  np.save(tmp_path / 'chairs.npy', batch)
  assert run(tmp_path / 'chairs.npy', tmp_path / 'x.npz') == (3, [])
  data = voxel_file.load(tmp_path / 'x.npz')
  assert data.names['train'].tolist() == [f'chairs_000{i}' for i in range(3)]
  np.testing.assert_array_equal(data.voxels['train'], batch)


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (np.full((2, 2048, 3), 0.25), 'clouds of points'),
    (np.full((2, 3, 2048), 0.25, np.float32), 'clouds of points'),
    (np.ones((8, 8, 8, 2)), 'several channels'),
    (np.ones((8, 8, 8, 3), np.uint8), 'several channels'),
    (np.eye(3, dtype=np.uint8)[np.indices((4, 5, 6)).sum(0) % 3], 'one-hot'),
    (np.eye(2)[:, np.indices((4, 5, 6)).sum(0) % 2], 'one-hot'),
    (np.ones((2, 8, 8, 8, 3)), 'several channels'),
  ],
)
def test_points_and_channels_are_no_voxels(array, message):
  with pytest.raises(ValueError, match=message):
    grids.check_voxels(array)


def test_few_voxels_on_an_axis_are_voxels():
  for dims in (
    (8, 9, 3),
    (20, 20, 3),
    (5, 8, 8, 3),
    (4, 4, 4, 4),
    (6, 8, 8, 2),
  ):
    assert grids.check_voxels(np.ones(dims)).shape[-3:] == dims[-3:]


# Padding and cropping.


def test_a_thin_grid_is_not_padded_to_a_great_cube(tmp_path):
  np.save(tmp_path / 'a.npy', np.ones((1, 4000, 3), np.uint8))
  with pytest.raises(ValueError, match='too large as a cube of 4000'):
    run(tmp_path / 'a.npy', tmp_path / 'x.npz')
  assert not (tmp_path / 'x.npz').exists()


@pytest.mark.parametrize(('small', 'large'), [(30, 32), (30, 33), (31, 64)])
def test_padding_and_cropping_are_inverse(small, large):
  volume = shape(small) + 0
  volume[0, 0, 0] = 1
  wide = grids.resize(volume, large)
  assert wide.shape == (large,) * 3
  assert wide.sum() == volume.sum()
  np.testing.assert_array_equal(grids.resize(wide, small), volume)


def test_padding_is_centred():
  wide = grids.resize(np.ones((30, 30, 30)), 32)
  assert wide[1:-1, 1:-1, 1:-1].all()
  assert wide.sum() == 30**3


def test_cropping_loses_nothing_unless_asked():
  volume = np.ones((32, 32, 32))
  lost = 32**3 - 30**3
  with pytest.raises(ValueError, match=f'cut off {lost} occupied voxels'):
    grids.resize(volume, 30)
  assert grids.resize(volume, 30, lossy=True).sum() == 30**3


def test_mixed_sides():
  wide = grids.resize(np.ones((4, 6, 9)), 6, lossy=True)
  assert wide.shape == (6, 6, 6)
  assert wide.sum() == 4 * 6 * 6


@pytest.mark.parametrize('up', ['x', 'y', 'z'])
def test_turning_grids_is_turning_meshes(up):
  rng = np.random.default_rng(0)
  triangles = rng.normal(size=(5, 3, 3)) * (1.0, 0.8, 0.6)
  vertices, faces = triangles.reshape(-1, 3), np.arange(15).reshape(5, 3)
  plain = voxelize.voxelize(vertices, faces, 32)
  turned = voxelize.voxelize(vertices, faces, 32, up=up)
  np.testing.assert_array_equal(grids.turn_up(plain, up), turned)


# The whole conversion.


@pytest.fixture
def volumes(tmp_path):
  """A tree as 3D ShapeNets has it."""
  for name, split, seed in [
    ('chair', 'train', 0),
    ('chair', 'train', 1),
    ('chair', 'test', 2),
    ('sofa', 'train', 3),
  ]:
    mat(
      tmp_path / f'volumetric/{name}/30/{split}/{name}_{seed}_1.mat',
      shape(30, seed),
    )
  return tmp_path / 'volumetric'


def test_mat_tree_to_voxel_file_and_back(volumes, tmp_path):
  assert run(volumes, tmp_path / 'x.npz', size=32) == (4, [])
  data = voxel_file.load(tmp_path / 'x.npz')
  assert data.classes == ('chair', 'sofa')
  assert data.names['train'].tolist() == ['chair_0_1', 'chair_1_1', 'sofa_3_1']
  assert data.labels['train'].tolist() == [0, 0, 1]
  assert data.voxels['test'].shape == (1, 32, 32, 32)
  np.testing.assert_array_equal(
    data.voxels['train'][1], np.pad(shape(30, 1), 1)
  )
  for kind in convert.OUT_FORMATS:
    out = tmp_path / kind
    assert run(tmp_path / 'x.npz', out, to=kind, size=30) == (4, [])
    files = sorted(str(f.relative_to(out)) for f in out.rglob('*.*'))
    assert files == [
      f'chair/test/chair_2_1.{kind}',
      f'chair/train/chair_0_1.{kind}',
      f'chair/train/chair_1_1.{kind}',
      f'sofa/train/sofa_3_1.{kind}',
    ]
    assert run(out, tmp_path / f'{kind}.npz', size=32) == (4, [])
    assert (tmp_path / f'{kind}.npz').read_bytes() == (
      tmp_path / 'x.npz'
    ).read_bytes()


def test_zip_of_volumes(volumes, tmp_path):
  with zipfile.ZipFile(tmp_path / 'v.zip', 'w') as archive:
    for file in volumes.rglob('*.mat'):
      archive.write(file, file.relative_to(volumes))
  run(volumes, tmp_path / 'x.npz')
  run(tmp_path / 'v.zip', tmp_path / 'y.npz')
  assert (tmp_path / 'x.npz').read_bytes() == (tmp_path / 'y.npz').read_bytes()


def test_fractions_stay_unless_a_threshold_is_given(tmp_path):
  volume = (shape(8) * 0.7).astype(np.float32)
  np.save(tmp_path / 'x.npy', volume)
  run(tmp_path / 'x.npy', tmp_path / 'x.npz')
  found = voxel_file.load(tmp_path / 'x.npz').voxels['train'][0]
  np.testing.assert_array_equal(found, volume)
  run(tmp_path / 'x.npz', tmp_path / 'y.npz', threshold=0.5)
  found = voxel_file.load(tmp_path / 'y.npz').voxels['train'][0]
  np.testing.assert_array_equal(found, shape(8))
  with pytest.raises(ValueError, match='0 and 1 only, not fractions'):
    convert.write_voxels(volume, 'binvox')
  for kind in ('binvox', 'vox'):
    outcome = convert.convert(
      tmp_path / 'x.npz', tmp_path / kind, to=kind, progress=False
    )
    assert outcome.notes == [
      f'1 shapes of fractions were thresholded at 0.5: {kind} holds 0 and 1'
    ]
    file = next((tmp_path / kind).rglob(f'*.{kind}'))
    np.testing.assert_array_equal(
      convert.read_voxels(file.read_bytes(), kind)[0], shape(8)
    )


def test_binary_and_fractions_together_are_fractions(tmp_path):
  np.save(tmp_path / 'a.npy', shape(8) * 0.5)
  np.save(tmp_path / 'b.npy', shape(8, 1))
  run(tmp_path, tmp_path / 'x.npz')
  found = voxel_file.load(tmp_path / 'x.npz').voxels['train']
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found[1], shape(8, 1))


def test_grids_that_are_no_cubes(tmp_path):
  volume = np.ones((2, 3, 4), np.uint8)
  np.save(tmp_path / 'a.npy', volume)
  outcome = convert.convert(tmp_path, tmp_path / 'x.npz', progress=False)
  found = voxel_file.load(tmp_path / 'x.npz').voxels['train']
  assert found.shape == (1, 4, 4, 4)
  np.testing.assert_array_equal(found[0, 1:3, :3], volume)
  assert found.sum() == volume.sum()
  assert outcome.notes == ['1 shapes of a grid (2, 3, 4) were padded to 4^3']


def test_different_grids_need_a_size(tmp_path):
  np.save(tmp_path / 'a.npy', shape(8))
  np.save(tmp_path / 'b.npy', shape(10))
  with pytest.raises(
    ValueError, match='different grids, choose one with --size'
  ):
    run(tmp_path, tmp_path / 'x.npz')
  run(tmp_path, tmp_path / 'x.npz', size=10)
  assert voxel_file.load(tmp_path / 'x.npz').voxels['train'].shape[1] == 10


def bytes_of(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


GOOD = {
  kind: convert.write_voxels(shape(8), kind) for kind in convert.OUT_FORMATS
}
HUGE = bytes_of(np.zeros((3, 3, 3))).replace(
  b'(3, 3, 3), }' + b' ' * 12, b'(1000000, 1000000, 9), }'
)
HEAD = b'#binvox 1\ndim 4 4 %d\ntranslate 0 0 0\nscale 1\ndata\n'


@pytest.mark.parametrize(
  ('kind', 'data', 'message'),
  [
    ('binvox', b'', 'not a readable binvox file'),
    ('binvox', b'#other\n', 'not a readable binvox file'),
    ('binvox', GOOD['binvox'][:-1], 'truncated in the middle'),
    ('binvox', GOOD['binvox'][:-2], 'truncated: its runs cover'),
    ('binvox', HEAD % 4 + bytes([7, 64]), 'values from 7 to 7: say with --thr'),
    ('binvox', HEAD % 4 + bytes([0, 65]), 'its runs cover 65 voxels, but it'),
    ('binvox', HEAD[:20], 'truncated: it has no data'),
    ('binvox', HEAD.replace(b'dim', b'size') % 4, 'no line dim'),
    ('binvox', HEAD.replace(b'4 4', b'99999 99999') % 4, 'truncated: its runs'),
    ('mat', b'', 'not a readable mat file'),
    ('mat', GOOD['mat'][:-40], 'not a readable mat file'),
    ('npy', GOOD['npy'][:-4], 'not a readable npy file'),
    ('npy', bytes_of(np.array([{}])), 'not a readable npy file'),
    ('npy', bytes_of(np.zeros((3, 3))), r'shape \(3, 3\)'),
    ('npy', bytes_of(np.zeros((0, 3, 3, 3))), 'not a shape'),
    ('npy', bytes_of(np.full((3, 3, 3), 'a')), 'not of numbers'),
    ('npy', bytes_of(np.full((3, 3, 3), np.nan)), 'holds the value nan'),
    (
      'npy',
      bytes_of(np.full((3, 3, 3), 1.6)),
      r'values from 1\.6 to 1\.6',
    ),
    ('npy', bytes_of(np.full((3, 3, 3), -1)), 'values from -1 to -1: say'),
    ('npy', bytes_of(np.arange(27).reshape(3, 3, 3)), 'values from 0 to 26'),
    ('npy', bytes_of(np.zeros((9, 3))), 'which are points, not voxels'),
    ('npy', bytes_of(np.zeros((2, 3, 4, 4, 4))), 'of several channels'),
    ('npy', HUGE, 'truncated: 72000000000000 bytes promised'),
    ('npz', b'PK', 'not a readable npz file: BadZipFile'),
    ('vox', b'', "it does not begin with 'VOX '"),
    ('vox', GOOD['vox'][:-2], 'truncated: its chunk'),
    ('vox', GOOD['vox'] + GOOD['vox'][20:], 'it holds 2 models'),
    ('binvox.gz', b'', "unknown format 'binvox.gz'"),
  ],
)
def test_broken_files_are_refused_with_the_reason(kind, data, message):
  with pytest.raises(ValueError, match=message):
    convert.read_voxels(data, kind)


def test_a_mat_file_of_several_arrays(tmp_path):
  scipy.io.savemat(tmp_path / 'x.mat', {'a': shape(8), 'b': shape(8)})
  with pytest.raises(ValueError, match=r"only \['a', 'b'\]"):
    convert.read_voxels((tmp_path / 'x.mat').read_bytes(), 'mat')


def test_broken_files_are_skipped_or_stop(volumes, tmp_path):
  (volumes / 'chair/30/train/bad.mat').write_bytes(b'MATLAB')
  mat(volumes / 'chair/30/train/full.mat', np.ones((30, 30, 30)))
  count, skipped = run(volumes, tmp_path / 'x.npz', size=28)
  assert count == 4
  assert [name for name, _ in skipped] == [
    'chair/train/bad',
    'chair/train/full',
  ]
  assert 'not a readable mat' in skipped[0][1]
  assert 'would cut off' in skipped[1][1]
  with pytest.raises(ValueError, match=r'chair/train/bad: not .*stopped'):
    run(volumes, tmp_path / 'y.npz', strict=True)
  with pytest.raises(ValueError, match='stopped'):
    run(volumes, tmp_path / 'y', to='npy', strict=True)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['volumetric', 'x.npz']


def test_values_of_any_range(tmp_path):
  grey = (shape(8) * 200 + 10).astype(np.uint8)
  with pytest.raises(ValueError, match='values from 10 to 210: say with --thr'):
    grids.check_voxels(grey)
  np.testing.assert_array_equal(grids.check_voxels(grey, 127)[0], shape(8))
  # Two values say by themselves what is inside.
  for value in (255, 2, 3.5):
    np.testing.assert_array_equal(
      grids.check_voxels(shape(8) * value)[0], shape(8)
    )
  signed = shape(8) * 2.0 - 1
  np.testing.assert_array_equal(grids.check_voxels(signed, 0)[0], shape(8))
  mat(tmp_path / 'x.mat', grey)
  run(tmp_path / 'x.mat', tmp_path / 'x.npz', threshold=127)
  np.testing.assert_array_equal(
    voxel_file.load(tmp_path / 'x.npz').voxels['train'][0], shape(8)
  )


@pytest.mark.parametrize('add', [(), (0,), (0, 1), (-1,), (0, -1), (0, 0)])
def test_axes_of_batches_and_channels(add):
  volume = shape(8)
  for axis in add:
    volume = np.expand_dims(volume, axis)
  np.testing.assert_array_equal(grids.check_voxels(volume), shape(8)[None])
  assert len(grids.check_voxels(np.stack([shape(8)] * 3)[:, None])) == 3


def test_our_own_results_are_inputs(tmp_path):
  """Real values a little beyond 0 and 1, with other arrays beside them."""
  rng = np.random.default_rng(0)
  real = np.stack([shape(8, s) for s in range(2)]) * 1.1 - 0.03
  real = (real + rng.normal(0, 0.01, real.shape)).astype(np.float32)
  np.savez(tmp_path / 'voxels.npz', voxels=real, visible=real > 0, seed=3)
  assert run(tmp_path / 'voxels.npz', tmp_path / 'x.npz') == (2, [])
  found = voxel_file.load(tmp_path / 'x.npz')
  np.testing.assert_array_equal(found.voxels['train'], np.clip(real, 0, 1))
  assert found.names['train'].tolist() == ['voxels_0000', 'voxels_0001']
  run(tmp_path / 'voxels.npz', tmp_path / 'b', to='binvox')
  file = next((tmp_path / 'b').rglob('voxels_0001.binvox'))
  np.testing.assert_array_equal(
    convert.read_voxels(file.read_bytes(), 'binvox')[0], shape(8, 1)
  )
  run(tmp_path / 'voxels.npz', tmp_path / 'v.npz', key='visible')
  assert voxel_file.load(tmp_path / 'v.npz').voxels['train'].dtype == np.uint8
  with pytest.raises(ValueError, match=r"no key 'x', only \['seed', 'vis"):
    run(tmp_path / 'voxels.npz', tmp_path / 'w.npz', key='x')


def test_the_only_grid_of_a_file_is_found(tmp_path):
  np.savez(tmp_path / 'a.npz', mask=shape(8), seed=np.array(3))
  assert run(tmp_path / 'a.npz', tmp_path / 'x.npz') == (1, [])
  np.savez(tmp_path / 'b.npz', mask=shape(8), other=shape(8))
  with pytest.raises(ValueError, match=r"\['mask', 'other'\]: say which"):
    run(tmp_path / 'b.npz', tmp_path / 'y.npz')


@pytest.mark.parametrize('factor', [2, 4])
def test_blocks_keep_what_is_thin(factor, tmp_path):
  thin = np.zeros((32, 32, 32), np.uint8)
  thin[5, 2:30, 3:29] = 1
  small = grids.resize(thin, 32 // factor)
  expected = np.zeros_like(small)
  expected[tuple(np.argwhere(thin).T // factor)] = 1
  np.testing.assert_array_equal(small, expected)
  outcome = convert.convert(
    save(tmp_path / 'a.npy', thin),
    tmp_path / 'x.npz',
    size=32 // factor,
    progress=False,
  )
  assert outcome.notes == [
    f'1 shapes of 32^3 were scaled down to {32 // factor}^3'
  ]


def save(path, volume):
  np.save(path, volume)
  return path


def test_what_voxelize_makes_large_is_scaled_to_what_it_makes_small():
  vertices = np.array([[0, 0, 0], [1, 0.2, 0], [0.3, 1, 0.1], [0.4, 0.3, 0.8]])
  faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
  large = voxelize.voxelize(vertices, faces, 128)
  small = voxelize.voxelize(vertices, faces, 32)
  np.testing.assert_array_equal(grids.resize(large, 32), small)


@pytest.mark.parametrize(
  ('options', 'reason'),
  [
    ({'size': 12, 'lossy': True}, 'empty when it is cropped to 12'),
    ({'threshold': 300}, 'it is empty: no voxel is occupied'),
  ],
)
def test_nothing_comes_out_empty_in_silence(tmp_path, options, reason):
  slab = np.zeros((32, 32, 32), np.uint8)
  slab[2:5] = 200
  np.save(tmp_path / 'a.npy', slab)
  np.save(tmp_path / 'b.npy', np.full((32, 32, 32), 301))
  count, skipped = run(
    tmp_path, tmp_path / 'x.npz', **({'threshold': 100} | options)
  )
  assert count == 1
  assert [name.split('/')[-1] for name, _ in skipped] == ['a']
  assert reason in skipped[0][1]


def test_vox_is_what_its_specification_says():
  volume = np.zeros((3, 4, 5), np.uint8)
  volume[2, 1, 4] = volume[0, 3, 0] = 1
  data = convert.write_voxels(volume, 'vox')
  assert data == (
    b'VOX ' + struct.pack('<i', 150)
    + b'MAIN' + struct.pack('<ii', 0, 48)
    + b'SIZE' + struct.pack('<ii', 12, 0) + struct.pack('<iii', 3, 4, 5)
    + b'XYZI' + struct.pack('<ii', 12, 0) + struct.pack('<i', 2)
    + bytes([0, 3, 0, 79, 2, 1, 4, 79])
  )  # fmt: skip
  with pytest.raises(ValueError, match='at most 256 voxels a side'):
    convert.write_voxels(np.zeros((2, 2, 257), np.uint8), 'vox')


@pytest.mark.parametrize('kind', convert.OUT_FORMATS)
def test_gzip(kind, tmp_path):
  (tmp_path / f'a.{kind}.gz').write_bytes(gzip.compress(GOOD[kind]))
  assert run(tmp_path, tmp_path / 'x.npz') == (1, [])
  found = voxel_file.load(tmp_path / 'x.npz')
  assert found.names['train'].tolist() == ['a']
  np.testing.assert_array_equal(found.voxels['train'][0], shape(8))


def test_hdf5_and_mat_of_version_7(tmp_path):
  h5py = pytest.importorskip('h5py')
  volume = shape(8)
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    file['group/voxels'] = volume
    file['group/seed'] = 3
  found = convert.read_voxels((tmp_path / 'a.h5').read_bytes(), 'h5')
  np.testing.assert_array_equal(found[0], volume)
  # As MATLAB writes it: a block of its own, axes from the last to the first.
  with h5py.File(tmp_path / 'b.mat', 'w', userblock_size=512) as file:
    file['instance'] = volume.T
    file['#refs#/a'] = volume
  data = (tmp_path / 'b.mat').read_bytes()
  data = b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(512) + data[512:]
  np.testing.assert_array_equal(convert.read_voxels(data, 'mat')[0], volume)
  (tmp_path / 'b.mat').write_bytes(data)
  assert run(tmp_path, tmp_path / 'x.npz', key='instance') == (
    1,
    [(f'{tmp_path.name}/train/a', SKIPPED)],
  )

  for kind, data in (('mat', b'MATLAB 7.3 MAT-file' + bytes(600)),
                     ('h5', b'\x89HDF')):  # fmt: skip
    with pytest.raises(ValueError, match=f'not a readable {kind} file'):
      convert.read_voxels(data, kind)


def test_hdf5_without_its_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'h5py', None)
  with pytest.raises(ValueError, match=r'needs a package: .*h5py'):
    convert.read_voxels(b'x', 'h5')


SKIPPED = (
  "not a readable h5 file: no key 'instance', only ['group/seed', "
  "'group/voxels']"
)


def test_shapenet_and_other_trees(tmp_path):
  vox32 = tmp_path / 'ShapeNetVox32'
  for synset, name in (('03001627', 'aaa1'), ('03001627', 'bbb2'),
                       ('04379243', 'aaa1')):  # fmt: skip
    path = vox32 / synset / name / 'model.binvox'
    path.parent.mkdir(parents=True)
    path.write_bytes(GOOD['binvox'])
  run(vox32, tmp_path / 'x.npz')
  found = voxel_file.load(tmp_path / 'x.npz')
  assert found.classes == ('03001627', '04379243')
  assert found.names['train'].tolist() == ['aaa1', 'bbb2', 'aaa1']
  (vox32 / 'notes.txt').write_text('x')
  outcome = convert.convert(
    vox32, tmp_path / 'y.npz', tree='0300{class}/{name}/*.binvox',
    progress=False,
  )  # fmt: skip
  assert outcome.count == 2
  assert outcome.notes == ['passed over: 1 .binvox, 1 .txt']
  assert voxel_file.load(tmp_path / 'y.npz').classes == ('1627',)


def test_solid_grids_of_shapenet_are_taken(tmp_path):
  folder = tmp_path / 'ShapeNetCore.v2' / '03001627' / 'a1' / 'models'
  folder.mkdir(parents=True)
  solid = shape(8)
  for kind, volume in (('solid', solid), ('surface', 1 - solid)):
    path = folder / f'model_normalized.{kind}.binvox'
    path.write_bytes(convert.write_voxels(volume, 'binvox'))
  outcome = convert.convert(
    tmp_path / 'ShapeNetCore.v2', tmp_path / 'x.npz', progress=False
  )
  assert outcome.notes == ['passed over: 1 .binvox']
  found = voxel_file.load(tmp_path / 'x.npz')
  assert found.names['train'].tolist() == ['a1']
  np.testing.assert_array_equal(found.voxels['train'][0], solid)


def test_marks_of_doubt_are_kept(tmp_path):
  cube = voxel_file.pack(shape(8)[None])
  voxel_file.save_stored(
    tmp_path / 'a.npz', ['b'], {'train': cube}, {'train': np.array([0])},
    {'train': ['n']}, {'train': np.array([True])},
  )  # fmt: skip
  run(tmp_path / 'a.npz', tmp_path / 'x.npz', size=12)
  assert voxel_file.read(tmp_path / 'x.npz').doubtful['train'].tolist() == [
    True
  ]


def test_nothing_sound(tmp_path):
  (tmp_path / 'a.npy').write_bytes(b'x')
  with pytest.raises(ValueError, match='holds no usable shape; first reason: '):
    run(tmp_path, tmp_path / 'x.npz')


def test_nothing_is_overwritten(volumes, tmp_path):
  (tmp_path / 'x.npz').write_text('mine')
  (tmp_path / 'x').mkdir()
  with pytest.raises(FileExistsError, match=r'x\.npz exists'):
    run(volumes, tmp_path / 'x.npz')
  with pytest.raises(FileExistsError, match='x exists'):
    run(volumes, tmp_path / 'x', to='npy')
  assert (tmp_path / 'x.npz').read_text() == 'mine'


@pytest.mark.parametrize('name', ['../evil', 'a/b', '..', ''])
def test_names_that_are_paths_are_not_written(tmp_path, name):
  data = voxel_file.VoxelData(
    ('box',),
    {'train': shape(8)[None]},
    {'train': np.array([0])},
    {'train': np.array([name])},
  )
  voxel_file.save(tmp_path / 'x.npz', data)
  with pytest.raises(ValueError, match='cannot be the name of a file'):
    run(tmp_path / 'x.npz', tmp_path / 'out', to='npy')
  assert [p.name for p in tmp_path.iterdir()] == ['x.npz']


@pytest.mark.parametrize(
  ('out', 'options', 'message'),
  [
    ('x', {}, r'must end in \.npz'),
    ('x', {'to': 'h5'}, '--to must be one of'),
    ('x.npz', {'threshold': np.nan}, 'threshold must be a number, got nan'),
    ('x.npz', {'threshold': 2.0}, 'first reason: .*: it is empty: no voxel'),
    ('x.npz', {'tree': '{class}/*.mat'}, 'must have {name}'),
    ('x.npz', {'tree': '{class}/{x}/{name}'}, 'must have {name}'),
    ('x.npz', {'tree': 'no/{name}.mat'}, 'no shapes in .* that fit'),
    ('x.npz', {'up': 'w'}, "got 'w'"),
    ('x.npz', {'size': 0}, 'size must be positive, got 0'),
  ],
)
def test_bad_arguments(volumes, tmp_path, out, options, message):
  with pytest.raises(ValueError, match=message):
    run(volumes, tmp_path / out, **options)


def test_command(volumes, tmp_path):
  (volumes / 'chair/30/train/bad.mat').write_bytes(b'MATLAB')
  command = [
    *(sys.executable, '-W', 'error', '-m', 'data_prep.convert'),
    *(f'--source={volumes}', f'--out={tmp_path}/x.npz', '--size=32'),
  ]
  options = {'cwd': ROOT, 'capture_output': True, 'text': True, 'timeout': 600}
  result = subprocess.run(command, **options)
  assert result.returncode == 2, result.stderr
  assert 'x.npz: 4 shapes' in result.stdout
  assert 'skipped chair/train/bad: not a readable mat file' in result.stderr
  result = subprocess.run(command, **options)
  assert result.returncode == 1
  assert 'x.npz exists and is not overwritten' in result.stderr
