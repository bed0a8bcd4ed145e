"""Meshes to voxels to one .npz file. Imports neither jax nor dnet_jax."""

import importlib.util

# Of the extra `data-prep`; with the library alone none of these may be there.
_NEEDED = ('absl', 'h5py', 'matplotlib', 'scipy', 'skimage', 'tqdm', 'trimesh')

for _name in _NEEDED:
  if importlib.util.find_spec(_name) is None:
    raise SystemExit(
      f'error: {_name} is missing; in the folder of the repository: pip '
      "install '.[data-prep]'"
    )
