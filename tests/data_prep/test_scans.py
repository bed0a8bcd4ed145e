"""Scans: what a camera sees, and what is known of a grid then."""

import subprocess
import sys

import numpy as np
import pytest
import trimesh

from data_prep import mesh_files
from data_prep import scans

CLOUD = np.empty((0, 3), int)
BOX = trimesh.creation.box((2, 2, 2))


def test_full_voxels_are_those_that_hold_some():
  points = np.array([[0.5, 1.5, 2.5], [3.99, 0, 0], [4, 0, 0], [-0.1, 1, 1]])
  grid = scans.full_voxels(points, CLOUD, 4)
  assert np.argwhere(grid).tolist() == [[0, 1, 2], [3, 0, 0]]
  corners = np.array([[0.5, 0.5, 0.5], [3.2, 0.5, 0.5], [0.5, 3.2, 0.5]])
  grid = scans.full_voxels(corners, np.array([[0, 1, 2]]), 4)
  assert grid.sum() == grid[:, :, 0].sum() == 10


def test_a_box_cuts_triangles_at_its_sides():
  points, faces = scans.cropped(
    np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]]),
    np.array([[0, 1, 2]]),
    np.array([-1.0, -1, -1]),
    np.array([1.0, 2, 1]),
  )
  found = trimesh.Trimesh(points, faces)
  assert found.area == pytest.approx(2)
  np.testing.assert_allclose(found.bounds, [[0, 0, 0], [1, 2, 0]])
  points, faces = scans.cropped(
    BOX.vertices, BOX.faces, np.full(3, 3.0), np.full(3, 4.0)
  )
  assert not len(points) and not len(faces)
  points, _ = scans.cropped(
    np.array([[0.0, 0, 0], [2, 0, 0]]), CLOUD, np.zeros(3), np.ones(3)
  )
  assert points.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize('camera', [(40, 8, 8), (30, 40, 25), (-9, 2, 3)])
@pytest.mark.parametrize('cloud', [False, True])
def test_what_a_camera_knows_is_true(camera, cloud):
  """Nothing of the shape is called empty, and most of what is before it is."""
  size, camera = 16, np.array(camera, float)
  ball = trimesh.creation.icosphere(subdivisions=3, radius=4.0)
  points, faces = scans.seen_by(ball.vertices + 8, ball.faces, camera, 48)
  axis = np.arange(size) + 0.5
  place = np.stack(np.meshgrid(axis, axis, axis, indexing='ij'), axis=-1)
  solid = np.linalg.norm(place - 8, axis=-1) < 3.5
  full = scans.full_voxels(points, CLOUD if cloud else faces, size)
  free = scans.free_voxels(points, CLOUD if cloud else faces, full, camera)
  assert full.any() and not (free & full).any() and not (free & solid).any()
  # By geometry: the line from the camera meets the ball, behind the voxel.
  ray = place - camera
  length = np.linalg.norm(ray, axis=-1)
  along = ((8 - camera) * ray).sum(-1) / length
  off = np.sqrt(np.maximum(((8 - camera) ** 2).sum() - along**2, 0))
  entry = along - np.sqrt(np.maximum(16 - off**2, 0))
  before = (off < 3) & (length < entry - 2)
  assert before.sum() > 30 and (free[before]).mean() > 0.98
  behind = (off > 6) | ((off < 2.5) & (length > entry + 2))
  assert not free[behind].any()


def test_a_camera_sees_the_near_sides_only():
  points, faces = scans.seen_by(BOX.vertices, BOX.faces, np.array([5.0, 0, 0]))
  np.testing.assert_allclose(points[:, 0], 1)
  # Pixels are a little apart from the border.
  area = trimesh.Trimesh(points, faces).area
  assert 0.85 * 4 < area <= 4
  # Two boxes, one behind the other, are not joined.
  two = trimesh.util.concatenate(
    [BOX, BOX.copy().apply_translation((-8, 6, 0))]
  )
  points, faces = scans.seen_by(two.vertices, two.faces, np.array([5.0, 0, 0]))
  found = trimesh.Trimesh(points, faces, process=False)
  assert {round(x) for x in points[:, 0]} >= {1, -7}
  assert found.edges_unique_length.max() < 2
  with pytest.raises(ValueError, match='within the bounding box'):
    scans.seen_by(BOX.vertices, BOX.faces, np.zeros(3))


def scan(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'data_prep.scans', *map(str, arguments)],
    capture_output=True,
    text=True,
  )


def test_the_command_makes_a_scan(tmp_path):
  out = tmp_path / 'a.ply'
  result = scan('--furniture=chair', '--camera=-2,-3,2', f'--out={out}')
  assert result.returncode == 0, result.stderr
  points, faces = mesh_files.read_any(out.read_bytes(), 'ply')
  assert f'{len(points)} points' in result.stdout and len(faces) > len(points)
  BOX.export(tmp_path / 'box.stl')
  for out, more in (('b.ply', '--cloud'), ('b.off', '--pixels=9')):
    result = scan(
      f'--mesh={tmp_path}/box.stl', '--camera=5,0,0', f'--out={tmp_path / out}',
      more,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    data = (tmp_path / out).read_bytes()
    points, faces = mesh_files.read_any(data, out[2:])
    np.testing.assert_allclose(points[:, 0], 1, atol=1e-6)
    # The outermost of 9 pixels a side are beside it.
    assert len(faces) == (0 if more == '--cloud' else 2 * 6 * 6)


@pytest.mark.slow
def test_commands_that_cannot_be(tmp_path):
  BOX.export(tmp_path / 'box.stl')
  mesh, out = f'--mesh={tmp_path}/box.stl', f'--out={tmp_path}/a.ply'
  for arguments, message in (
    ([out, '--camera=5,0,0'], 'give either --mesh or --furniture'),
    ([mesh, out, '--camera=5,0'], '--camera must be x,y,z'),
    ([mesh, out, '--camera=0,0,0'], 'within the bounding box'),
    ([mesh, f'--out={tmp_path}/a.stl', '--camera=5,0,0'], 'must end in .ply'),
    ([mesh, f'--out={tmp_path}/box.stl', '--camera=5,0,0'], 'must end in .ply'),
  ):
    result = scan(*arguments)
    assert result.returncode == 1 and message in result.stderr
    assert len(result.stderr.splitlines()) == 1
  assert [path.name for path in tmp_path.iterdir()] == ['box.stl']
