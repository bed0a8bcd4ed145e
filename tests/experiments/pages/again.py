"""Files that a page saved, opened again."""

import io

import numpy as np
import trimesh

from data_prep import volumes


def check(data, kind, inside):
  """Checks that a file holds these voxels, or a closed mesh around them."""
  if kind in ('vox', 'binvox', 'npz'):
    found = np.squeeze(volumes.read(data, kind))
    np.testing.assert_array_equal(found > 0.5, inside)
    return
  mesh = trimesh.load(io.BytesIO(data), file_type=kind, force='mesh')
  assert mesh.is_watertight and len(mesh.faces) > 10
  # By the boxes around them; glTF's y is up.
  size = np.ptp(np.argwhere(inside), axis=0)[
    [0, 2, 1] if kind == 'glb' else ...
  ]
  assert abs(mesh.extents - size - 1).max() < 1.01
