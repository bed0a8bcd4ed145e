"""Camera, light and shadow of pictures of shapes; the same for all of them.

The viewer stands in front of the shape, to its left and above it. In ModelNet
a chair or a toilet has its back at large y and a sofa at large x, so from
(-x, -y) both are seen from their front. The light comes from over the viewer's
left shoulder, and a little from everywhere. Pages draw shapes the same way
(experiments/pages/shapes.js).
"""

import math

import numpy as np

_AZIMUTH, _ELEVATION = math.radians(-122), math.radians(24)
# From the shape to the viewer, and the picture's axes in space.
VIEWER = np.array(
  [
    math.cos(_ELEVATION) * math.cos(_AZIMUTH),
    math.cos(_ELEVATION) * math.sin(_AZIMUTH),
    math.sin(_ELEVATION),
  ]
)
RIGHT = np.array([-math.sin(_AZIMUTH), math.cos(_AZIMUTH), 0.0])
UP = np.cross(VIEWER, RIGHT)


def _towards(left, up):
  way = VIEWER * 0.8 - RIGHT * left + UP * up
  return way / np.linalg.norm(way)


_LIGHT = _towards(0.32, 0.75)
# A light has a size: the edges of its shadows are soft.
_LIGHTS = [
  _towards(0.2, 0.75),
  _towards(0.44, 0.75),
  _towards(0.32, 0.6),
  _towards(0.32, 0.92),
]
_AMBIENT, _DIRECT, _FACING = 0.45, 0.82, 0.2
_STEP = 0.9  # Voxels between two samples of a ray.
_ROUND = 14  # Directions from which ambient light comes.
_NEAR = 5  # Samples along each of them.
_APART = 1.1  # Voxels between these samples.


def _around():
  """Directions spread evenly over the sphere, along a Fibonacci spiral."""
  z = 1 - (2 * np.arange(_ROUND) + 1) / _ROUND
  radius, turn = np.sqrt(1 - z**2), 2.4 * np.arange(_ROUND)
  return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)


def _blocked(inside, points, way, looks, step):
  """Whether a ray from each point meets the shape: `(n,)` booleans."""
  met = np.zeros(len(points), bool)
  left = np.arange(len(points))
  at = points.copy()
  sides = np.array(inside.shape)
  for _ in range(looks):
    at = at + step * way
    index = np.rint(at).astype(int)
    within = ((index >= 0) & (index < sides)).all(axis=1)
    hit = np.zeros(len(left), bool)
    hit[within] = inside[tuple(index[within].T)]
    met[left[hit]] = True
    # Rays that have left the grid and cannot enter it again are done, too.
    beyond = ((index < -2) & (way <= 0)) | ((index > sides + 1) & (way >= 0))
    going = ~hit & ~beyond.any(axis=1)
    left, at = left[going], at[going]
    if not len(left):
      break
  return met


def normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
  """Means of the normals of the faces around each vertex: `(n, 3)`."""
  corners = vertices[faces]
  across = np.cross(
    corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  )
  found = np.zeros_like(vertices)
  for k in range(3):
    np.add.at(found, faces[:, k], across)
  return found / np.maximum(np.linalg.norm(found, axis=1), 1e-12)[:, None]


def brightness(
  inside: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> np.ndarray:
  """How bright faces are; 1 is the plain colour.

  Args:
    inside: `(D, H, W)` booleans.
    vertices: `(n, 3)` in units of voxels, voxel centres at integers.
    faces: `(m, 3)`, counter-clockwise from outside.

  Returns:
    `(m,)`, above 1 for what is lighter than its colour.

  >>> from experiments.files import figures
  >>> cube = np.ones((4, 4, 4))
  >>> vertices, faces = figures.surface(cube)
  >>> shade = brightness(cube > 0.5, vertices, faces)
  >>> bool(0 < shade.min() < shade.max() < 1.4)
  True
  """
  normal = normals(vertices, faces)
  points = vertices + _STEP * normal
  lambert = np.clip(normal @ _LIGHT, 0, None)
  far = math.ceil(1.8 * max(inside.shape) / _STEP)
  lit, bright = np.zeros(len(vertices)), lambert > 0
  for way in _LIGHTS:
    free = ~_blocked(inside, points[bright], way, far, _STEP)
    lit[bright] += free / len(_LIGHTS)
  opened, total = np.zeros((2, len(vertices)))
  for way in _around():
    cosine = normal @ way
    seen = cosine >= 0.15
    free = ~_blocked(inside, points[seen], way, _NEAR, _APART)
    opened[seen] += cosine[seen] * free
    total[seen] += cosine[seen]
  ambient = 0.25 + 0.75 * opened / np.maximum(total, 1e-12)
  shade = _AMBIENT * ambient + _DIRECT * lambert * lit
  shade += _FACING * np.clip(normal @ VIEWER, 0, None)
  return shade[faces].mean(axis=1)


def floor_shadow(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The shadow on the floor below a shape.

  Args:
    inside: `(D, H, W)` booleans.

  Returns:
    `(k, 4, 3)` squares in units of voxels, and how dark they are, `(k,)` above
    0 and at most 1; none for an empty shape. Beyond the grid it fades.
  """
  heights = inside.any(axis=(0, 1)).nonzero()[0]
  if not len(heights):
    return np.zeros((0, 4, 3)), np.zeros(0)
  z = heights[0] - 0.6
  sides = np.array(inside.shape[:2])
  edge = math.ceil(max(sides) / 5)
  # Squares of half a voxel, so that edges are smooth.
  x, y = (np.arange(-2 * edge, 2 * (n + edge)) / 2 for n in sides)
  places = np.stack(np.meshgrid(x, y, indexing='ij'), axis=-1).reshape(-1, 2)
  points = np.column_stack([places, np.full(len(places), z)])
  far = math.ceil(2.2 * max(inside.shape) / _STEP)
  dark = sum(_blocked(inside, points, way, far, _STEP) for way in _LIGHTS)
  out = np.maximum(-places, places - (sides - 1)).max(axis=1) / edge
  dark = dark / len(_LIGHTS) * np.clip(1 - out, 0, 1)
  some = dark > 0.02
  corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) / 4
  return points[some][:, None] + corners, dark[some]
