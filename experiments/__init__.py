"""Experiments: all side effects live here; `dnet_jax` itself has none."""

import importlib.util

# Of the extra `experiments`; with the library alone none of these may be there.
_NEEDED = (
  'absl', 'h5py', 'matplotlib', 'ml_collections', 'orbax', 'PIL',
  'scipy', 'skimage', 'sklearn', 'tensorboardX', 'tqdm', 'trimesh',
)  # fmt: skip

for _name in _NEEDED:
  if importlib.util.find_spec(_name) is None:
    raise SystemExit(
      f'error: {_name} is missing; in the folder of the repository: pip '
      "install '.[experiments]'"
    )
