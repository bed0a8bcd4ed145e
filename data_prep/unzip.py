"""Writes a voxel file as a folder of arrays, which are read when needed.

  python -m data_prep.unzip data/large.npz data/large

For training sets that are larger than the memory: see `voxel_file`.
"""

from collections.abc import Sequence

from absl import app

from data_prep import command
from data_prep import voxel_file


def main(argv: Sequence[str]) -> int:
  """Writes the folder, which must not exist yet."""
  if len(argv) != 3:
    raise app.UsageError(f'give two paths, FILE.npz FOLDER; got {argv[1:]}')
  _, source, folder = argv
  voxel_file.save_folder(folder, voxel_file.read(source))
  print(f'Wrote {folder}')
  return 0


if __name__ == '__main__':
  command.run(main, lambda: None)
