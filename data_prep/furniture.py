"""Furniture made by procedure: a data set that needs no download.

Chairs, sofas, toilets and more, the ten kinds of ModelNet10, are put together
from boxes, cylinders, cones and rings with random dimensions and parts. They
become voxels on the very path of real meshes (`voxelize.voxelize`), and stand
as ModelNet10's do: z is up; chairs, toilets and beds have their back, tank and
headboard at +y, the other kinds have their back at +x and are wide along y.
Lengths are in metres.

    python -m data_prep.furniture --size 32 --out furniture_32.npz
"""

from collections.abc import Sequence
import functools
import itertools

from absl import app
from absl import flags
import numpy as np
import trimesh

from data_prep import command
from data_prep import voxel_file
from data_prep import voxelize

DEFAULT_CATEGORIES = ('chair', 'night_stand', 'sofa', 'table', 'toilet')
_ATTEMPTS = 200  # draws of one shape until it is like no other.


def make_furniture(
  size: int = 32,
  num_train: int = 100,
  num_test: int = 20,
  seed: int = 0,
  categories: Sequence[str] | None = None,
  margin: int | None = None,
) -> voxel_file.VoxelData:
  """A data set of procedural furniture.

  Every shape is drawn from its own random stream, named by seed, category,
  split and number, so more shapes leave the first ones as they are. No two
  shapes are equal.

  Args:
    size: voxels a side, 4 to 128; from about 12 a person can tell the kinds.
    num_train: shapes of each category in split `train`.
    num_test: shapes of each category in split `test`.
    seed: a number; the same one gives the same shapes.
    categories: some of `CATEGORIES`, by default `DEFAULT_CATEGORIES`.
    margin: voxels left empty on every side; by default
      `placement.default_margin(size)`.

  Returns:
    The shapes, uint8 `(n, size, size, size)`, sorted by category.

  Raises:
    ValueError: for an unknown category, a number of shapes that is negative, a
      size or margin out of range, or a grid too coarse for that many shapes.

  >>> data = make_furniture(size=16, num_train=2, num_test=1)
  >>> data.classes
  ('chair', 'night_stand', 'sofa', 'table', 'toilet')
  >>> data.voxels['train'].shape
  (10, 16, 16, 16)
  """
  categories = DEFAULT_CATEGORIES if categories is None else tuple(categories)
  for category in categories:
    _check_category(category)
  if len(set(categories)) != len(categories) or not categories:
    raise ValueError(f'categories must differ, got {list(categories)}')
  counts = {'train': num_train, 'test': num_test}
  if min(counts.values()) < 0 or max(counts.values()) < 1:
    raise ValueError(
      f'num_train and num_test must be numbers of shapes, at least one of them '
      f'positive; got {num_train} and {num_test}'
    )
  voxels, labels, names, seen = {}, {}, {}, set()
  first = 1
  for part, (split, count) in enumerate(counts.items()):
    if not count:
      continue
    voxels[split] = np.empty(
      (len(categories) * count, size, size, size), np.uint8
    )
    for label, category in enumerate(categories):
      for i in range(count):
        voxels[split][label * count + i] = _draw(
          category,
          (seed, CATEGORIES.index(category), part, i),
          size,
          margin,
          seen,
        )
    labels[split] = np.repeat(np.arange(len(categories)), count)
    names[split] = np.array(
      [f'{c}_{first + i:04d}' for c in categories for i in range(count)]
    )
    first += count
  return voxel_file.VoxelData(categories, voxels, labels, names)


def make_mesh(category: str, rng: np.random.Generator) -> trimesh.Trimesh:
  """A random piece of furniture as a mesh, its parts overlapping freely.

  Args:
    category: one of `CATEGORIES`.
    rng: NumPy's random generator; it is advanced.

  Returns:
    A mesh in metres, z up.

  Raises:
    ValueError: for an unknown category.

  >>> mesh = make_mesh('chair', np.random.default_rng(0))
  >>> bool(mesh.extents[2] > 0.5)
  True
  """
  _check_category(category)
  parts = _MAKERS[category](rng)
  offsets = np.cumsum([0] + [len(vertices) for vertices, _ in parts[:-1]])
  return trimesh.Trimesh(
    np.concatenate([vertices for vertices, _ in parts]),
    np.concatenate(
      [faces + at for (_, faces), at in zip(parts, offsets, strict=True)]
    ),
    process=False,
  )


def _check_category(category: str) -> None:
  if category not in _MAKERS:
    raise ValueError(
      f'unknown category {category!r}, must be one of {list(CATEGORIES)}'
    )


def _draw(category, stream, size, margin, seen) -> np.ndarray:
  for attempt in range(_ATTEMPTS):
    rng = np.random.default_rng((*stream, attempt))
    mesh = make_mesh(category, rng)
    grid = voxelize.voxelize(mesh.vertices, mesh.faces, size, margin=margin)
    bits = np.packbits(grid).tobytes()
    if bits not in seen:
      seen.add(bits)
      return grid
  raise ValueError(
    f'no new {category} in {_ATTEMPTS} draws at size {size}: '
    'take a larger size or fewer shapes'
  )


# Parts: (vertices, faces) pairs.


@functools.cache
def _unit(kind: str):
  """A part of side 1: z from 0 to 1, x and y from -1/2 to 1/2."""
  if kind == 'box':
    mesh = trimesh.creation.box()
  elif kind == 'cylinder':
    mesh = trimesh.creation.cylinder(0.5, 1.0, sections=20)
  else:  # a ring whose hole is 0.6 of its width.
    mesh = trimesh.creation.annulus(0.3, 0.5, 1.0, sections=20)
  return np.add(mesh.vertices, (0, 0, 0.5)), np.array(mesh.faces)


def _box(x0, x1, y0, y1, z0, z1):
  return _solid('box', (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, z0, z1)


def _solid(kind, x, y, wide, deep, z0, z1, taper=1.0, shift=(0.0, 0.0)):
  """A unit part put at (x, y) from z0 to z1, `wide` along x, `deep` along y.

  Its foot is `taper` times its head, and moved by `shift`.
  """
  vertices, faces = _unit(kind)
  low = 1 - vertices[:, 2:]
  flat = vertices[:, :2] * (wide, deep) * (1 + (taper - 1) * low)
  flat = np.add(flat, (x, y)) + np.multiply(low, shift)
  height = z0 + (z1 - z0) * vertices[:, 2:]
  return np.concatenate([flat, height], axis=1), faces


def _lying(x0, x1, y, z, width):
  """A cylinder along x."""
  vertices, faces = _unit('cylinder')
  along = x0 + (x1 - x0) * vertices[:, 2]
  return np.stack(
    [along, y + width * vertices[:, 0], z + width * vertices[:, 1]], axis=1
  ), faces


def _lean(parts, z0, slope):
  """Shears parts towards +y above height z0."""
  return [
    (v + np.maximum(v[:, 2:] - z0, 0) * (0, slope, 0), f) for v, f in parts
  ]


def _turn(parts):
  """Turns parts a quarter, so that their back at +y comes to +x."""
  return [(v[:, [1, 0, 2]] * (1, -1, 1), f) for v, f in parts]


def _legs(rng, wide, deep, top, thick=None, splay=None):
  """Four legs under a rectangle."""
  thick = rng.uniform(0.03, 0.08) if thick is None else thick
  splay = (
    rng.uniform(0, 0.08) * (rng.random() < 0.4) if splay is None else splay
  )
  kind = rng.choice(['box', 'cylinder'])
  taper = rng.uniform(0.4, 1.0)
  return [
    _solid(
      kind,
      sx * (wide - thick) / 2,
      sy * (deep - thick) / 2,
      thick,
      thick,
      0,
      top,
      taper,
      (sx * splay, sy * splay),
    )
    for sx in (-1, 1)
    for sy in (-1, 1)
  ]


def _star(rng, reach, top):
  """A column on a disc or on a star of feet."""
  column = rng.uniform(0.05, 0.1)
  parts = [_solid('cylinder', 0, 0, column, column, 0, top)]
  if rng.random() < 0.5:
    foot = rng.uniform(0.02, 0.06)
    parts.append(_solid('cylinder', 0, 0, 2 * reach, 2 * reach, 0, foot, 1.0))
    return parts
  count = int(rng.integers(3, 6))
  turn = rng.uniform(0, np.pi)
  thick = rng.uniform(0.04, 0.07)
  vertices, faces = _unit('box')
  for angle in turn + np.arange(count) * 2 * np.pi / count:
    arm = np.add(vertices, (0.5, 0, 0)) * (reach, thick, thick)
    arm[:, 2] += 0.1 * top * (1 - arm[:, 0] / reach)
    c, s = np.cos(angle), np.sin(angle)
    parts.append((arm @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]), faces))
  return parts


def _chair(rng):
  wide, deep = rng.uniform(0.4, 0.6, 2)
  top, thick = rng.uniform(0.38, 0.52), rng.uniform(0.04, 0.12)
  under = top - thick
  seat = rng.choice(['box', 'cylinder'], p=[0.8, 0.2])
  parts = [_solid(seat, 0, 0, wide, deep, under, top)]
  base = rng.choice(
    ['legs', 'star', 'sled', 'panels'], p=[0.55, 0.2, 0.15, 0.1]
  )
  if base == 'legs':
    inner = 0.75 if seat == 'cylinder' else 1.0
    parts += _legs(rng, wide * inner, deep * inner, under)
    if rng.random() < 0.3:
      z = rng.uniform(0.1, 0.2)
      for side in (-1, 1):
        x = side * (wide * inner / 2 - 0.02)
        parts.append(
          _box(x - 0.015, x + 0.015, -deep * 0.4, deep * 0.4, z, z + 0.03)
        )
  elif base == 'star':
    parts += _star(rng, rng.uniform(0.2, 0.32), under)
  elif base == 'sled':
    bar = rng.uniform(0.03, 0.05)
    for side in (-1, 1):
      x = side * (wide - bar) / 2
      x0, x1 = x - bar / 2, x + bar / 2
      parts += [
        _box(x0, x1, -deep / 2, deep / 2, 0, bar),
        _box(x0, x1, -deep / 2, -deep / 2 + bar, 0, under),
      ]
      if rng.random() < 0.5:
        parts.append(_box(x0, x1, deep / 2 - bar, deep / 2, 0, under))
    parts.append(_box(-wide / 2, wide / 2, deep / 2 - bar, deep / 2, 0, bar))
  else:
    panel = rng.uniform(0.03, 0.06)
    for side in (-1, 1):
      x = side * (wide - panel) / 2
      parts.append(
        _box(x - panel / 2, x + panel / 2, -deep / 2, deep / 2, 0, under)
      )
  height, bar = rng.uniform(0.3, 0.75), rng.uniform(0.03, 0.08)
  if seat == 'cylinder':
    wide *= 0.8
  y0, y1 = deep / 2 - bar, deep / 2
  back = rng.choice(['panel', 'slats', 'rails', 'raised'])
  if back == 'panel':
    rise = [_box(-wide / 2, wide / 2, y0, y1, top - 0.02, top + height)]
  else:
    rise = [
      _box(
        s * wide / 2 - (s > 0) * bar,
        s * wide / 2 + (s < 0) * bar,
        y0,
        y1,
        top - 0.02,
        top + height,
      )
      for s in (-1, 1)
    ]
    if back == 'slats':
      rise.append(
        _box(-wide / 2, wide / 2, y0, y1, top + height - bar, top + height)
      )
      count = int(rng.integers(1, 4))
      slat = rng.uniform(0.03, 0.06)
      for x in np.linspace(-wide / 2, wide / 2, count + 2)[1:-1]:
        rise.append(_box(x - slat / 2, x + slat / 2, y0, y1, top, top + height))
    elif back == 'rails':
      count = int(rng.integers(2, 4))
      rail = height / count * rng.uniform(0.35, 0.6)
      for z in top + height * (1 + np.arange(count)) / count:
        rise.append(_box(-wide / 2, wide / 2, y0, y1, z - rail, z))
    else:
      z0 = top + height * rng.uniform(0.25, 0.5)
      rise.append(_box(-wide / 2, wide / 2, y0, y1, z0, top + height))
  parts += _lean(rise, top, rng.uniform(0, 0.3))
  if rng.random() < 0.4:
    high, pad = top + rng.uniform(0.15, 0.28), rng.uniform(0.03, 0.08)
    reach = rng.uniform(-deep / 2, -deep / 4)
    solid = rng.random() < 0.25
    for side in (-1, 1):
      x = side * (wide + pad) / 2
      x0, x1 = x - pad / 2, x + pad / 2
      parts.append(_box(x0, x1, reach, deep / 2, high - 0.03, high))
      parts.append(
        _box(x0, x1, reach, deep / 2 if solid else reach + 0.04, under, high)
      )
  return parts


def _sofa(rng):
  # The back at +y; turned at the end.
  seats = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.3, 0.35, 0.15]))
  wide = seats * rng.uniform(0.55, 0.75)
  deep, top = rng.uniform(0.7, 1.0), rng.uniform(0.35, 0.5)
  leg = rng.uniform(0.06, 0.16) * (rng.random() < 0.6)
  back, high = rng.uniform(0.12, 0.28), rng.uniform(0.3, 0.55)
  cushion = rng.uniform(0.08, 0.16)
  y1 = deep / 2
  parts = [
    _box(-wide / 2, wide / 2, -y1, y1, leg, top - cushion),
  ]
  gap = rng.uniform(0.02, 0.05)
  edges = np.linspace(-wide / 2, wide / 2, seats + 1)
  lift = rng.uniform(0.0, 0.12)
  for x0, x1 in itertools.pairwise(edges):
    parts.append(
      _box(x0 + gap / 2, x1 - gap / 2, -y1, y1, top - cushion - 0.02, top)
    )
    if lift > 0.04:
      parts += _lean(
        [
          _box(
            x0 + gap,
            x1 - gap,
            y1 - back - 0.1,
            y1 - back + 0.02,
            top - 0.02,
            top + high * rng.uniform(0.7, 0.95),
          )
        ],
        top,
        0.15,
      )
  parts += _lean(
    [_box(-wide / 2, wide / 2, y1 - back, y1, leg, top + high)],
    top,
    rng.uniform(0, 0.25),
  )
  full = wide
  arms = rng.choice(['box', 'round', 'thin', 'none'], p=[0.4, 0.25, 0.2, 0.15])
  if arms != 'none':
    arm = rng.uniform(0.05, 0.09) if arms == 'thin' else rng.uniform(0.14, 0.28)
    over = top + rng.uniform(0.08, 0.28)
    full = wide + 2 * arm
    for side in (-1, 1):
      x = side * (wide + arm) / 2
      if arms == 'round':
        parts.append(
          _box(x - arm / 2, x + arm / 2, -y1, y1, leg, over - arm / 2)
        )
        vertices, faces = _lying(-y1, y1, x, over - arm / 2, arm * 1.15)
        parts.append((vertices[:, [1, 0, 2]], faces))
      else:
        parts.append(_box(x - arm / 2, x + arm / 2, -y1, y1, leg, over))
  if seats > 2 and rng.random() < 0.35:
    side = rng.choice([-1, 1])
    x0, x1 = sorted((side * wide / 2, side * (wide / 2 - wide / seats)))
    parts.append(
      _box(x0, x1, -y1 - rng.uniform(0.4, 0.8), -y1 + 0.05, leg, top)
    )
  if leg:
    parts += _legs(rng, full, deep, leg + 0.02, rng.uniform(0.05, 0.09), 0.0)
  return _turn(parts)


def _table(rng):
  long, wide = rng.uniform(0.7, 2.0), rng.uniform(0.5, 1.0)
  height, thick = rng.uniform(0.35, 0.95), rng.uniform(0.03, 0.09)
  under = height - thick
  kind = rng.choice(['box', 'cylinder'], p=[0.7, 0.3])
  if kind == 'cylinder' and rng.random() < 0.7:
    wide = long = min(long, 1.4)
  parts = [_solid(kind, 0, 0, wide, long, under, height)]
  if kind == 'cylinder':
    base = rng.choice(['legs', 'star', 'drum'], p=[0.4, 0.45, 0.15])
    inner = 0.68
  else:
    base = rng.choice(
      ['legs', 'panels', 'trestle', 'star'], p=[0.6, 0.15, 0.15, 0.1]
    )
    inner = rng.uniform(0.85, 1.0)
  x, y = wide * inner / 2, long * inner / 2
  if base == 'legs':
    parts += _legs(rng, 2 * x, 2 * y, under, rng.uniform(0.04, 0.12))
    if rng.random() < 0.4:
      drop = rng.uniform(0.05, 0.14)
      parts.append(_box(-x, x, -y, y, under - drop, under))
    if rng.random() < 0.3:
      z = height * rng.uniform(0.15, 0.4)
      parts.append(_box(-x, x, -y, y, z, z + 0.04))
  elif base == 'star':
    reach = rng.uniform(0.3, 0.48) * wide
    parts += _star(rng, reach, under)
  elif base == 'drum':
    drum = rng.uniform(0.3, 0.7)
    parts.append(
      _solid(
        'cylinder',
        0,
        0,
        wide * drum,
        long * drum,
        0,
        under,
        rng.uniform(0.7, 1.3),
      )
    )
  elif base == 'panels':
    panel = rng.uniform(0.04, 0.12)
    for side in (-1, 1):
      at = side * (y - panel / 2)
      parts.append(_box(-x, x, at - panel / 2, at + panel / 2, 0, under))
  else:
    post, foot = rng.uniform(0.06, 0.14), rng.uniform(0.04, 0.08)
    for side in (-1, 1):
      at = side * y * 0.8
      parts += [
        _box(-post / 2, post / 2, at - post / 2, at + post / 2, 0, under),
        _box(-x, x, at - post / 2, at + post / 2, 0, foot),
        _box(
          -x * 0.7, x * 0.7, at - post / 2, at + post / 2, under - foot, under
        ),
      ]
    z = height * rng.uniform(0.2, 0.5)
    parts.append(_box(-0.03, 0.03, -y * 0.8, y * 0.8, z, z + 0.07))
  return parts


def _toilet(rng):
  wide, deep = rng.uniform(0.34, 0.44), rng.uniform(0.42, 0.56)
  rim = rng.uniform(0.36, 0.46)
  foot, shift = rng.uniform(0.45, 0.8), rng.uniform(0.0, 0.1)
  waist = rng.uniform(0.1, 0.22)
  parts = [
    _solid('cylinder', 0, 0, wide, deep, waist, rim - 0.03, foot, (0, shift)),
    _solid(
      'cylinder',
      0,
      shift,
      wide * foot * 1.1,
      deep * foot * 1.2,
      0,
      waist + 0.02,
      rng.uniform(1.0, 1.25),
    ),
  ]
  tank_deep, gap = rng.uniform(0.14, 0.22), rng.uniform(-0.08, 0.0)
  y0 = deep / 2 + gap
  y1 = y0 + tank_deep
  tank_wide = rng.uniform(0.36, 0.54)
  high = rim + rng.uniform(0.25, 0.45)
  low = rim - rng.uniform(0.0, 0.1)
  if rng.random() < 0.85:
    parts += [
      _solid(
        'box',
        0,
        (y0 + y1) / 2,
        tank_wide,
        tank_deep,
        low,
        high,
        rng.uniform(0.8, 1.0),
      ),
      _box(
        -tank_wide / 2 - 0.015,
        tank_wide / 2 + 0.015,
        y0 - 0.02,
        y1 + 0.01,
        high,
        high + 0.04,
      ),
    ]
  else:  # one piece: a low, rounded tank.
    parts.append(
      _solid(
        'cylinder',
        0,
        (y0 + y1) / 2,
        tank_wide,
        tank_deep * 1.3,
        low,
        high - 0.15,
      )
    )
  # The bridge from bowl to tank.
  parts.append(
    _box(
      -wide * 0.35,
      wide * 0.35,
      deep * 0.1,
      y1 - 0.02,
      rng.uniform(0.0, rim - 0.15),
      rim,
    )
  )
  lid = rng.choice(['closed', 'up', 'none'])
  ring = _solid('ring', 0, 0, wide * 1.05, deep * 1.05, rim - 0.04, rim + 0.02)
  if lid == 'closed':
    parts.append(
      _solid('cylinder', 0, 0, wide * 1.05, deep * 1.05, rim - 0.03, rim + 0.05)
    )
  else:
    parts.append(ring)
  if lid == 'up':
    vertices, faces = _unit('cylinder')
    upright = np.stack(
      [
        vertices[:, 0] * wide,
        y0 - 0.07 + 0.035 * vertices[:, 2],
        rim + (vertices[:, 1] + 0.5) * deep * 0.9,
      ],
      axis=1,
    )
    parts += _lean([(upright, faces)], rim, 0.1)
  return parts


def _drawers(rng, parts, wide, y0, z0, z1, columns, rows, handle=True):
  """Fronts that stand out towards -y, with knobs."""
  out, gap = rng.uniform(0.02, 0.04), rng.uniform(0.02, 0.035)
  knob = rng.uniform(0.03, 0.05)
  for x0, x1 in _cells(-wide / 2, wide / 2, columns):
    for low, high in _cells(z0, z1, rows):
      parts.append(
        _box(x0 + gap, x1 - gap, y0 - out, y0 + 0.01, low + gap, high - gap)
      )
      if handle:
        x, z = (x0 + x1) / 2, (low + high) / 2
        half = knob / 2
        parts.append(
          _box(x - half, x + half, y0 - out - knob, y0, z - half, z + half)
        )


def _cells(start, stop, count):
  edges = np.linspace(start, stop, count + 1)
  return list(itertools.pairwise(edges))


def _cabinet(rng, wide, deep, height, columns, rows, *, open_shelf):
  """A chest of drawers with its back at +y."""
  leg = rng.uniform(0.05, 0.25) * height * (rng.random() < 0.65)
  x, y = wide / 2, deep / 2
  top = height - 0.04
  shelf = leg
  parts = []
  if open_shelf:
    shelf = leg + (top - leg) * rng.uniform(0.35, 0.65)
    wall = 0.025
    parts += [
      _box(-x, -x + wall, -y, y, leg, shelf),
      _box(x - wall, x, -y, y, leg, shelf),
      _box(-x, x, -y, y, leg, leg + wall),
    ]
    if rng.random() < 0.6:
      parts.append(_box(-x, x, y - wall, y, leg, shelf))
  parts.append(_box(-x, x, -y, y, shelf, top))
  _drawers(rng, parts, wide, -y, shelf, top, columns, rows, rng.random() < 0.8)
  over = rng.uniform(0.0, 0.06)
  parts.append(_box(-x - over, x + over, -y - over, y, top - 0.01, height))
  if leg:
    if rng.random() < 0.7:
      parts += _legs(rng, wide, deep, leg + 0.02, rng.uniform(0.03, 0.07))
    else:
      parts.append(_box(-x * 0.9, x * 0.9, -y * 0.85, y, 0, leg + 0.01))
  return parts


def _night_stand(rng):
  wide, deep = rng.uniform(0.35, 0.7), rng.uniform(0.32, 0.55)
  parts = _cabinet(
    rng,
    wide,
    deep,
    rng.uniform(0.4, 0.75),
    1,
    int(rng.integers(1, 4)),
    open_shelf=rng.random() < 0.45,
  )
  return _turn(parts)


def _dresser(rng):
  tall = rng.random() < 0.4
  wide = rng.uniform(0.6, 0.9) if tall else rng.uniform(0.9, 1.7)
  height = rng.uniform(1.0, 1.5) if tall else rng.uniform(0.7, 1.0)
  columns = 1 if tall else int(rng.integers(2, 4))
  rows = int(rng.integers(3, 6)) if tall else int(rng.integers(2, 5))
  deep = rng.uniform(0.4, 0.6)
  parts = _cabinet(rng, wide, deep, height, columns, rows, open_shelf=False)
  if not tall and rng.random() < 0.35:
    half, rise = wide * rng.uniform(0.25, 0.45), rng.uniform(0.5, 0.9)
    parts.append(
      _box(-half, half, deep / 2 - 0.05, deep / 2, height - 0.01, height + rise)
    )
  return _turn(parts)


def _bed(rng):
  wide, long = rng.uniform(0.9, 2.0), rng.uniform(1.9, 2.2)
  leg = rng.uniform(0.08, 0.25) * (rng.random() < 0.7)
  frame, mattress = rng.uniform(0.08, 0.25), rng.uniform(0.12, 0.28)
  x, y = wide / 2, long / 2
  top = leg + frame + mattress
  inset = rng.uniform(0.0, 0.07)
  parts = [
    _box(-x, x, -y, y, leg, leg + frame),
    _box(-x + inset, x - inset, -y + inset, y, leg + frame - 0.01, top),
  ]
  if leg:
    parts += _legs(rng, wide, long, leg + 0.01, rng.uniform(0.06, 0.12), 0.0)
  board = rng.uniform(0.05, 0.12)
  if rng.random() < 0.9:
    high, over = top + rng.uniform(0.2, 0.7), rng.uniform(0.0, 0.1)
    style = rng.choice(['panel', 'arch', 'bars'])
    if style == 'bars':
      parts.append(_box(-x, x, y, y + board, high - 0.1, high))
      for at in np.linspace(-x + board / 2, x - board / 2, rng.integers(3, 6)):
        parts.append(
          _box(at - board / 2, at + board / 2, y, y + board, 0, high)
        )
    else:
      parts.append(_box(-x - over, x + over, y, y + board, 0, high))
      if style == 'arch':
        vertices, faces = _unit('cylinder')
        arch = np.stack(
          [
            vertices[:, 0] * 2 * (x + over),
            y + board * vertices[:, 2],
            high + vertices[:, 1] * rng.uniform(0.3, 0.6),
          ],
          axis=1,
        )
        parts.append((arch, faces))
  if rng.random() < 0.4:
    high = top + rng.uniform(-0.1, 0.3)
    parts.append(_box(-x, x, -y - board, -y, 0, high))
  pillows = int(rng.integers(0, 3)) if wide > 1.3 else int(rng.integers(0, 2))
  for x0, x1 in _cells(-x + inset, x - inset, max(pillows, 1)) * (pillows > 0):
    plump = rng.uniform(0.08, 0.16)
    parts.append(
      _box(
        x0 + 0.08,
        x1 - 0.08,
        y - rng.uniform(0.4, 0.55),
        y - 0.08,
        top - 0.01,
        top + plump,
      )
    )
  if rng.random() < 0.12:
    post, high = 0.07, rng.uniform(1.6, 2.1)
    for sx in (-1, 1):
      for sy in (-1, 1):
        parts.append(
          _solid(
            'box', sx * (x - post / 2), sy * (y - post / 2), post, post, 0, high
          )
        )
      at = sx * (x - post / 2)
      parts.append(_box(at - post / 2, at + post / 2, -y, y, high - post, high))
      at = sx * (y - post / 2)
      parts.append(_box(-x, x, at - post / 2, at + post / 2, high - post, high))
  return parts


def _bathtub(rng):
  long, wide = rng.uniform(1.3, 1.9), rng.uniform(0.65, 0.95)
  height, wall = rng.uniform(0.4, 0.65), rng.uniform(0.06, 0.12)
  leg = rng.uniform(0.06, 0.14) * (rng.random() < 0.4)
  floor = leg + rng.uniform(0.08, 0.2)
  x, y = wide / 2, long / 2
  if rng.random() < 0.5:
    parts = [
      _box(-x, x, -y, y, leg, floor),
      _box(-x, -x + wall, -y, y, leg, height),
      _box(x - wall, x, -y, y, leg, height),
      _box(-x, x, -y, -y + wall, leg, height),
      _box(-x, x, y - rng.uniform(1, 3) * wall, y, leg, height),
    ]
  else:
    taper = rng.uniform(0.65, 0.95)
    parts = []
    angles = np.linspace(0, 2 * np.pi, 25)
    power = rng.uniform(0.55, 1.0)  # an oval, or nearly a rectangle.

    def curve(scale, inset, z):
      c, s = np.cos(angles), np.sin(angles)
      return np.stack(
        [
          (x - inset) * scale * np.sign(c) * np.abs(c) ** power,
          (y - inset) * scale * np.sign(s) * np.abs(s) ** power,
          np.full(angles.size, z),
        ],
        axis=1,
      )

    low = taper + (1 - taper) * (floor - leg) / (height - leg)
    rings = [
      curve(0.0, 0, leg),
      curve(taper, 0, leg),
      curve(1.0, 0, height),
      curve(1.0, wall, height),
      curve(low, wall, floor),
      curve(0.0, 0, floor),
    ]
    count = angles.size
    first = np.arange(count - 1)
    quads = np.stack(
      [first, first + 1, first + count + 1, first + count], axis=1
    )
    faces = np.concatenate(
      [quads[:, [0, 1, 2]] + r * count for r in range(5)]
      + [quads[:, [0, 2, 3]] + r * count for r in range(5)]
    )
    parts.append((np.concatenate(rings), faces))
  if leg:
    parts += _legs(rng, wide * 0.75, long * 0.75, leg + 0.06, 0.1, 0.0)
  if rng.random() < 0.5:
    pipe, rise = 0.05, rng.uniform(0.12, 0.3)
    reach = rng.uniform(0.15, 0.3)
    parts += [
      _box(-pipe / 2, pipe / 2, y - pipe, y, height - 0.1, height + rise),
      _box(
        -pipe / 2, pipe / 2, y - reach, y, height + rise - pipe, height + rise
      ),
    ]
  return parts


def _desk(rng):
  wide, deep = rng.uniform(1.0, 1.8), rng.uniform(0.5, 0.9)
  height, thick = rng.uniform(0.68, 0.8), rng.uniform(0.03, 0.07)
  under = height - thick
  x, y = wide / 2, deep / 2
  parts = [_box(-x, x, -y, y, under, height)]
  left, right = rng.choice(['chest', 'panel', 'legs'], 2, p=[0.45, 0.3, 0.25])
  for side, kind in ((-1, left), (1, right)):
    breadth = rng.uniform(0.3, 0.45) if kind == 'chest' else 0.05
    x0, x1 = sorted((side * x, side * (x - breadth)))
    if kind == 'legs':
      parts += [
        _box(x0, x1, -y, -y + 0.05, 0, under),
        _box(x0, x1, y - 0.05, y, 0, under),
      ]
    elif kind == 'panel':
      parts.append(_box(x0, x1, -y, y, 0, under))
    else:
      lift = rng.uniform(0.05, 0.15) * (rng.random() < 0.5)
      parts.append(_box(x0, x1, -y + 0.03, y, lift, under))
      chest = []
      _drawers(
        rng, chest, breadth, -y + 0.03, lift, under, 1, int(rng.integers(2, 4))
      )
      parts += [(np.add(v, ((x0 + x1) / 2, 0, 0)), f) for v, f in chest]
      if lift:
        for at in (-y + 0.05, y - 0.05):
          parts.append(_box(x0, x1, at - 0.03, at + 0.03, 0, lift + 0.01))
  if rng.random() < 0.5:
    parts.append(_box(-x, x, y - 0.06, y - 0.02, rng.uniform(0.0, 0.4), under))
  if rng.random() < 0.3:
    rise, shelf = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.3)
    parts += [
      _box(-x, -x + 0.04, y - shelf, y, height, height + rise),
      _box(x - 0.04, x, y - shelf, y, height, height + rise),
      _box(-x, x, y - 0.04, y, height, height + rise),
      _box(-x, x, y - shelf, y, height + rise - 0.04, height + rise),
    ]
    if rng.random() < 0.5:
      z = height + rise * 0.5
      parts.append(_box(-x, x, y - shelf, y, z - 0.02, z + 0.02))
  return _turn(parts)


def _monitor(rng):
  wide = rng.uniform(0.4, 0.75)
  tall = wide * rng.uniform(0.55, 0.82)
  thick, neck = rng.uniform(0.025, 0.07), rng.uniform(0.06, 0.16)
  x = wide / 2
  rim = rng.uniform(0.015, 0.035)
  parts = [
    _box(-x, x, 0, thick, neck, neck + tall),
    # The frame stands out before the screen.
    _box(-x, x, -rim, 0.01, neck, neck + 0.04),
    _box(-x, x, -rim, 0.01, neck + tall - 0.03, neck + tall),
    _box(-x, -x + 0.03, -rim, 0.01, neck, neck + tall),
    _box(x - 0.03, x, -rim, 0.01, neck, neck + tall),
  ]
  middle = neck + tall / 2
  if rng.random() < 0.25:  # a cathode ray tube behind.
    back, taper = rng.uniform(0.2, 0.4), rng.uniform(0.4, 0.7)
    vertices, faces = _unit('box')
    narrow = 1 + (taper - 1) * vertices[:, 2]
    parts.append(
      (
        np.stack(
          [
            vertices[:, 0] * wide * 0.95 * narrow,
            thick + (back + 0.01) * vertices[:, 2] - 0.01,
            middle + (vertices[:, 1]) * tall * 0.95 * narrow,
          ],
          axis=1,
        ),
        faces,
      )
    )
    at = thick + back / 3
  else:
    bulge = rng.uniform(0.02, 0.06)
    half = wide * rng.uniform(0.15, 0.4)
    parts.append(
      _box(
        -half,
        half,
        thick - 0.01,
        thick + bulge,
        middle - tall * 0.3,
        middle + tall * 0.3,
      )
    )
    at = thick + bulge / 2
  post, foot = rng.uniform(0.04, 0.14), rng.uniform(0.02, 0.04)
  parts.append(
    _solid(
      rng.choice(['box', 'cylinder']), 0, at, post, 0.05, 0, middle - tall * 0.2
    )
  )
  parts.append(
    _solid(
      rng.choice(['box', 'cylinder']),
      0,
      at - 0.02,
      rng.uniform(0.2, 0.4),
      rng.uniform(0.16, 0.28),
      0,
      foot,
    )
  )
  return _turn(parts)


_MAKERS = {
  'bathtub': _bathtub,
  'bed': _bed,
  'chair': _chair,
  'desk': _desk,
  'dresser': _dresser,
  'monitor': _monitor,
  'night_stand': _night_stand,
  'sofa': _sofa,
  'table': _table,
  'toilet': _toilet,
}
CATEGORIES = tuple(_MAKERS)


def define_flags() -> None:
  """Defines the flags of the command; not on import, lest they clash."""
  flags.DEFINE_string('out', None, 'File to write.')
  flags.DEFINE_integer('size', 32, 'Voxels a side, 4 to 128.')
  flags.DEFINE_integer('num_train', 100, 'Training shapes of each category.')
  flags.DEFINE_integer('num_test', 20, 'Test shapes of each category.')
  flags.DEFINE_integer('seed', 0, 'The same seed gives the same shapes.', 0)
  flags.DEFINE_multi_enum(
    'category', list(DEFAULT_CATEGORIES), CATEGORIES, 'Kinds, in their order.'
  )
  flags.DEFINE_integer(
    'margin', None, 'Empty voxels on every side; by default size // 32.'
  )
  flags.mark_flags_as_required(['out'])


def main(argv: Sequence[str]) -> int:
  """The command; returns its exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  voxel_file.refuse_existing(values.out)
  data = make_furniture(
    values.size,
    values.num_train,
    values.num_test,
    values.seed,
    values.category,
    values.margin,
  )
  voxel_file.save(values.out, data)
  counts = ', '.join(f'{len(v)} {split}' for split, v in data.voxels.items())
  print(f'{values.out}: {counts} shapes')
  return 0


if __name__ == '__main__':
  command.run(main, define_flags)
