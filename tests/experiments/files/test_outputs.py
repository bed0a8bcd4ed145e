"""Results and new folders: written once, never over another."""

import concurrent.futures
import os

import pytest

from experiments.files import outputs


def test_unused_paths(tmp_path):
  folder = tmp_path / 'new'
  assert outputs.unused_path(folder, 'a', '.png') == str(folder / 'a.png')
  assert os.listdir(folder) == []
  (folder / 'a.png').write_text('')
  os.symlink('nowhere', folder / 'a_001.png')
  assert outputs.unused_path(folder, 'a', '.png') == str(folder / 'a_002.png')
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    paths = list(
      pool.map(lambda _: outputs.unused_path(folder, 'samples'), range(40))
    )
  assert len(set(paths)) == 40
  assert sorted(paths)[:2] == [str(folder / 'samples'), f'{folder}/samples_001']
  assert all(os.path.isdir(path) for path in paths)


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path):
  def fill(folder):
    with open(os.path.join(folder, 'a.txt'), 'w') as file:
      file.write('a')

  paths = [
    outputs.in_new_folder(str(tmp_path / 'x'), 'new', fill) for _ in range(2)
  ]
  assert [os.path.basename(path) for path in paths] == ['new', 'new_001']
  assert all(os.listdir(path) == ['a.txt'] for path in paths)

  def fail(folder):
    fill(folder)
    raise KeyboardInterrupt

  for folder in ('x', 'y'):
    with pytest.raises(KeyboardInterrupt):
      outputs.in_new_folder(str(tmp_path / folder), 'new', fail)
  assert os.listdir(tmp_path) == ['x']
  assert sorted(os.listdir(tmp_path / 'x')) == ['new', 'new_001']


def test_processes_at_once_get_folders_of_their_own(tmp_path):
  def fill(folder):
    with open(os.path.join(folder, 'a.txt'), 'x'):
      pass

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    paths = list(
      pool.map(
        lambda _: outputs.in_new_folder(str(tmp_path), 'new', fill), range(20)
      )
    )
  assert len({*paths}) == 20 and len(os.listdir(tmp_path)) == 20


@pytest.mark.parametrize(
  ('faces', 'words'),
  [
    ((0,), 'No meshes'),
    ((0, 1234), '1 mesh of 1,234 faces'),
    ((2000, 0, 12), '2 meshes of 12 to 2,000 faces'),
  ],
)
def test_meshes_in_words(faces, words):
  assert outputs._in_words(faces) == words
