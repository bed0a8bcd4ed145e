"""The voxel file: what it keeps, and what it refuses."""

import numpy as np
import pytest

from data_prep import voxel_file


def make(size=12, dtype=np.uint8):
  rng = np.random.default_rng(0)
  voxels = (rng.random((3, size, size, size)) < 0.3).astype(dtype)
  return voxel_file.VoxelData(
    ('bed', 'sofa'),
    {'train': voxels[:2], 'test': voxels[2:]},
    {'train': np.array([0, 1]), 'test': np.array([1])},
    {'train': np.array(['a', 'b']), 'test': np.array(['c'])},
  )


def content(**changes):
  """The arrays of a sound file, with changes; None takes a key away."""
  data = make(8)
  arrays = {
    'classes': np.array(data.classes),
    'voxels_train': np.packbits(data.voxels['train'], axis=-1),
    'labels_train': data.labels['train'],
    'names_train': data.names['train'],
    **changes,
  }
  return {key: value for key, value in arrays.items() if value is not None}


def same(one, other):
  assert one.classes == other.classes
  for field in ('voxels', 'labels', 'names'):
    assert list(getattr(one, field)) == list(getattr(other, field))
    for split in one.voxels:
      np.testing.assert_array_equal(
        getattr(one, field)[split], getattr(other, field)[split]
      )


@pytest.mark.parametrize('size', [4, 8, 12, 30, 32])
@pytest.mark.parametrize('dtype', [np.uint8, bool, np.int64])
def test_save_and_load_give_the_shapes_back(tmp_path, size, dtype):
  data = make(size, dtype)
  voxel_file.save(tmp_path / 'x.npz', data)
  loaded = voxel_file.load(tmp_path / 'x.npz')
  same(data, loaded)
  assert loaded.voxels['train'].dtype == np.uint8
  with np.load(tmp_path / 'x.npz') as file:
    assert file['voxels_train'].shape == (2, size, size, -(-size // 8))


def test_the_same_shapes_give_the_same_bytes(tmp_path):
  voxel_file.save(tmp_path / 'x.npz', make())
  voxel_file.save(tmp_path / 'y.npz', make())
  one, other = (tmp_path / 'x.npz').read_bytes(), (tmp_path / 'y.npz')
  assert one == other.read_bytes()


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (2, 8, 8, 1), (2, 1, 1, 1)])
def test_grids_that_are_no_cubes_are_kept(tmp_path, shape):
  data = make()._replace(
    voxels={'train': np.ones(shape, bool)},
    labels={'train': np.array([0, 1])},
    names={'train': np.array(['a', 'b'])},
  )
  # The second would read as the bits of a cube of 8, were it kept as uint8.
  voxel_file.save(tmp_path / 'x.npz', data)
  same(data, voxel_file.load(tmp_path / 'x.npz'))


def test_fractions_are_kept_as_floats(tmp_path):
  data = make()
  data = data._replace(
    voxels={split: v * 0.25 for split, v in data.voxels.items()}
  )
  voxel_file.save(tmp_path / 'x.npz', data)
  loaded = voxel_file.load(tmp_path / 'x.npz')
  same(data, loaded)
  assert loaded.voxels['train'].dtype == np.float32


@pytest.mark.parametrize('dtype', [bool, np.uint8, np.int32, np.float64])
def test_unpacked_arrays_are_read(tmp_path, dtype):
  voxels = make(8).voxels['train']
  np.savez(tmp_path / 'x.npz', **content(voxels_train=voxels.astype(dtype)))
  loaded = voxel_file.load(tmp_path / 'x.npz').voxels['train']
  np.testing.assert_array_equal(loaded, voxels)
  assert loaded.dtype == (np.float32 if dtype == np.float64 else np.uint8)


def test_an_earlier_file_is_not_overwritten(tmp_path):
  (tmp_path / 'x.npz').write_text('mine')
  with pytest.raises(FileExistsError, match=r'x\.npz exists'):
    voxel_file.save(tmp_path / 'x.npz', make())
  assert (tmp_path / 'x.npz').read_text() == 'mine'
  assert list(tmp_path.iterdir()) == [tmp_path / 'x.npz']


def test_a_failed_save_leaves_nothing(tmp_path):
  data = make()
  bad = data._replace(labels={'train': np.array([0, 7]), 'test': [1]})
  with pytest.raises(ValueError, match='labels_train holds 7, must be 0 to 1'):
    voxel_file.save(tmp_path / 'x.npz', bad)
  assert not list(tmp_path.iterdir())


def test_labels_that_would_wrap_are_refused(tmp_path):
  bad = make()._replace(labels={'train': np.array([0, 256]), 'test': [1]})
  with pytest.raises(ValueError, match='labels_train holds 256'):
    voxel_file.save(tmp_path / 'x.npz', bad)


def test_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match='no voxel file'):
    voxel_file.load(tmp_path / 'x.npz')


@pytest.mark.parametrize('keep', [0.0, 0.3, 0.9, 0.999])
def test_truncated_file(tmp_path, keep):
  voxel_file.save(tmp_path / 'x.npz', make(32))
  data = (tmp_path / 'x.npz').read_bytes()
  (tmp_path / 'y.npz').write_bytes(data[: int(keep * len(data))])
  with pytest.raises(ValueError, match=r'y\.npz is not a readable \.npz file'):
    voxel_file.load(tmp_path / 'y.npz')


def test_corrupt_file(tmp_path):
  voxel_file.save(tmp_path / 'x.npz', make(32))
  data = bytearray((tmp_path / 'x.npz').read_bytes())
  middle = data.index(b'voxels_train.npy') + 200
  data[middle : middle + 50] = bytes(50)
  (tmp_path / 'y.npz').write_bytes(data)
  with pytest.raises(ValueError, match=r'not a readable \.npz file'):
    voxel_file.load(tmp_path / 'y.npz')


def test_other_files(tmp_path):
  np.save(tmp_path / 'x.npy', np.zeros(3))
  (tmp_path / 'y.npz').write_bytes((tmp_path / 'x.npy').read_bytes())
  with pytest.raises(ValueError, match=r'not a readable \.npz file'):
    voxel_file.load(tmp_path / 'y.npz')
  np.savez(tmp_path / 'z.npz', classes=np.array([{}], object))
  with pytest.raises(ValueError, match=r'not a readable \.npz file'):
    voxel_file.load(tmp_path / 'z.npz')


GRID = (2, 8, 8, 8)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'classes': None}, 'no key classes'),
    ({'voxels_train': None}, 'no key voxels_<split>'),
    ({'labels_train': None}, 'no key labels_train'),
    ({'names_train': None}, 'no key names_train'),
    ({'classes': np.array([1, 2])}, 'classes must be one or more names'),
    ({'classes': np.array(['a', 'a'])}, 'classes must differ'),
    ({'voxels_train': np.zeros((2, 8, 8))}, r'must be \(n, D, H, W\)'),
    ({'voxels_train': np.zeros((2, 8, 0, 8))}, r'must be \(n, D, H, W\)'),
    ({'voxels_train': np.full(GRID, np.nan)}, 'shape 0 .* holds nan'),
    ({'voxels_train': np.full(GRID, 1.5)}, r'holds 1\.5, .* in \[0, 1\]'),
    ({'voxels_train': np.full(GRID, -0.5)}, 'holds -0.5'),
    ({'voxels_train': np.full(GRID, 3, np.uint8)}, 'holds 3, .* 0 or 1'),
    ({'voxels_train': np.full(GRID, -1)}, 'holds -1, .* 0 or 1'),
    ({'voxels_train': np.full(GRID, 1j)}, 'got dtype complex128'),
    ({'voxels_train': np.full((2, 6, 6, 1), 255, np.uint8)}, 'bits set beyond'),
    ({'labels_train': np.array([0, 2])}, 'holds 2, must be 0 to 1'),
    ({'labels_train': np.array([0, -1])}, 'holds -1, must be 0 to 1'),
    ({'labels_train': np.array([0])}, 'must be 2 integers'),
    ({'labels_train': np.array([0.0, 1.0])}, 'must be 2 integers'),
    ({'names_train': np.array(['a'])}, 'must be 2 strings'),
    ({'names_train': np.array([1, 2])}, 'must be 2 strings'),
    (
      {
        'voxels_test': np.zeros((1, 4, 4, 1), np.uint8),
        'labels_test': np.array([0]),
        'names_test': np.array(['a']),
      },
      'different grids',
    ),
  ],
)
def test_bad_content_is_named(tmp_path, changes, message):
  np.savez(tmp_path / 'x.npz', **content(**changes))
  with pytest.raises(ValueError, match=message) as error:
    voxel_file.load(tmp_path / 'x.npz')
  assert 'x.npz' in str(error.value)


def test_selection(tmp_path):
  data = make()
  voxel_file.save(tmp_path / 'x.npz', data)
  chosen = voxel_file.load(tmp_path / 'x.npz', ['train'], ['sofa', 'bed'])
  assert chosen.classes == ('sofa', 'bed')
  assert list(chosen.voxels) == ['train']
  assert chosen.labels['train'].tolist() == [1, 0]
  chosen = voxel_file.load(tmp_path / 'x.npz', classes=['sofa'])
  assert chosen.names['train'].tolist() == ['b']
  assert chosen.labels['train'].tolist() == [0]
  np.testing.assert_array_equal(
    chosen.voxels['train'], data.voxels['train'][1:]
  )


def test_an_empty_class_is_an_error_only_where_selected(tmp_path):
  path = tmp_path / 'x.npz'
  voxel_file.save(path, make())  # no bed in split test.
  assert len(voxel_file.load(path).voxels['test']) == 1
  assert len(voxel_file.load(path, ['train'], ['bed']).voxels['train']) == 1
  with pytest.raises(ValueError, match="'bed' is selected but has no shapes"):
    voxel_file.load(path, classes=['bed'])


@pytest.mark.parametrize(
  ('splits', 'classes', 'message'),
  [
    (['val'], None, "no split 'val', only"),
    (None, ['car'], "no class 'car', only"),
    (None, ['bed', 'bed'], 'selected twice'),
  ],
)
def test_unknown_selection(tmp_path, splits, classes, message):
  voxel_file.save(tmp_path / 'x.npz', make())
  with pytest.raises(ValueError, match=message):
    voxel_file.load(tmp_path / 'x.npz', splits, classes)


def test_pack_refuses_fractions():
  with pytest.raises(ValueError, match=r'found 0\.5'):
    voxel_file.pack(np.full((1, 4, 4, 4), 0.5))


def test_unpack_refuses_other_widths():
  with pytest.raises(ValueError, match='12 voxels are packed into 2 bytes'):
    voxel_file.unpack(np.zeros((1, 12, 12, 3), np.uint8))
