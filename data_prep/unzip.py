"""A voxel file as a folder of arrays that are read as they are needed.

  python -m data_prep.unzip data/large.npz data/large

For training sets that are larger than the memory: see `voxel_file`.
"""

from collections.abc import Sequence

from absl import app

from data_prep import voxel_file


def main(argv: Sequence[str]) -> None:
  """Writes the folder, which must not be there."""
  if len(argv) != 3:
    raise app.UsageError('python -m data_prep.unzip FILE.npz FOLDER')
  _, source, folder = argv
  try:
    voxel_file.save_folder(folder, voxel_file.read(source))
  except (OSError, ValueError) as error:
    raise SystemExit(f'error: {error}') from error
  print(f'Wrote {folder}')


if __name__ == '__main__':
  app.run(main)
