"""What pieces are made of: boxes, cylinders and rings, legs and feet.

A solid is a pair of corners `(v, 3)` and triangles `(m, 3)`, a piece a list of
them. Lengths are in metres, z is up.
"""

import functools
import itertools

import numpy as np
import trimesh


@functools.cache
def unit(kind: str):
  """A part of side 1: z from 0 to 1, x and y from -1/2 to 1/2."""
  if kind == 'box':
    mesh = trimesh.creation.box()
  elif kind == 'cylinder':
    mesh = trimesh.creation.cylinder(0.5, 1.0, sections=20)
  else:  # a ring whose hole is 0.6 of its width.
    mesh = trimesh.creation.annulus(0.3, 0.5, 1.0, sections=20)
  return np.add(mesh.vertices, (0, 0, 0.5)), np.array(mesh.faces)


def box(x0, x1, y0, y1, z0, z1):
  """A box by its sides."""
  return solid('box', (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, z0, z1)


def solid(kind, x, y, wide, deep, z0, z1, taper=1.0, shift=(0.0, 0.0)):
  """A unit part put at (x, y) from z0 to z1, `wide` along x, `deep` along y.

  Its foot is `taper` times its head, and moved by `shift`.
  """
  vertices, faces = unit(kind)
  low = 1 - vertices[:, 2:]
  flat = vertices[:, :2] * (wide, deep) * (1 + (taper - 1) * low)
  flat = np.add(flat, (x, y)) + np.multiply(low, shift)
  height = z0 + (z1 - z0) * vertices[:, 2:]
  return np.concatenate([flat, height], axis=1), faces


def lying(x0, x1, y, z, width):
  """A cylinder along x."""
  vertices, faces = unit('cylinder')
  along = x0 + (x1 - x0) * vertices[:, 2]
  return np.stack(
    [along, y + width * vertices[:, 0], z + width * vertices[:, 1]], axis=1
  ), faces


def lean(parts, z0, slope):
  """Shears parts towards +y above height z0."""
  return [
    (v + np.maximum(v[:, 2:] - z0, 0) * (0, slope, 0), f) for v, f in parts
  ]


def turn(parts):
  """Turns parts by a quarter, so that a back at +y comes to +x."""
  return [(v[:, [1, 0, 2]] * (1, -1, 1), f) for v, f in parts]


def legs(rng, wide, deep, top, thick=None, splay=None):
  """Four legs under a rectangle."""
  thick = rng.uniform(0.03, 0.08) if thick is None else thick
  splay = (
    rng.uniform(0, 0.08) * (rng.random() < 0.4) if splay is None else splay
  )
  kind = rng.choice(['box', 'cylinder'])
  taper = rng.uniform(0.4, 1.0)
  return [
    solid(
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


def star(rng, reach, top):
  """A column on a disc or on a star of feet."""
  column = rng.uniform(0.05, 0.1)
  parts = [solid('cylinder', 0, 0, column, column, 0, top)]
  if rng.random() < 0.5:
    foot = rng.uniform(0.02, 0.06)
    parts.append(solid('cylinder', 0, 0, 2 * reach, 2 * reach, 0, foot, 1.0))
    return parts
  count = int(rng.integers(3, 6))
  turn = rng.uniform(0, np.pi)
  thick = rng.uniform(0.04, 0.07)
  vertices, faces = unit('box')
  for angle in turn + np.arange(count) * 2 * np.pi / count:
    arm = np.add(vertices, (0.5, 0, 0)) * (reach, thick, thick)
    arm[:, 2] += 0.1 * top * (1 - arm[:, 0] / reach)
    c, s = np.cos(angle), np.sin(angle)
    parts.append((arm @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]), faces))
  return parts


def cells(start, stop, count):
  """Equal parts of a length: pairs of their ends."""
  edges = np.linspace(start, stop, count + 1)
  return list(itertools.pairwise(edges))
