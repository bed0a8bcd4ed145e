"""Tables, desks, night stands, dressers and monitors."""

import numpy as np

from data_prep.pieces import solids


def table(rng):
  """A table."""
  long, wide = rng.uniform(0.7, 2.0), rng.uniform(0.5, 1.0)
  height, thick = rng.uniform(0.35, 0.95), rng.uniform(0.03, 0.09)
  under = height - thick
  kind = rng.choice(['box', 'cylinder'], p=[0.7, 0.3])
  if kind == 'cylinder' and rng.random() < 0.7:
    wide = long = min(long, 1.4)
  parts = [solids.solid(kind, 0, 0, wide, long, under, height)]
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
    parts += solids.legs(rng, 2 * x, 2 * y, under, rng.uniform(0.04, 0.12))
    if rng.random() < 0.4:
      drop = rng.uniform(0.05, 0.14)
      parts.append(solids.box(-x, x, -y, y, under - drop, under))
    if rng.random() < 0.3:
      z = height * rng.uniform(0.15, 0.4)
      parts.append(solids.box(-x, x, -y, y, z, z + 0.04))
  elif base == 'star':
    reach = rng.uniform(0.3, 0.48) * wide
    parts += solids.star(rng, reach, under)
  elif base == 'drum':
    drum = rng.uniform(0.3, 0.7)
    parts.append(
      solids.solid(
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
      parts.append(solids.box(-x, x, at - panel / 2, at + panel / 2, 0, under))
  else:
    post, foot = rng.uniform(0.06, 0.14), rng.uniform(0.04, 0.08)
    for side in (-1, 1):
      at = side * y * 0.8
      parts += [
        solids.box(-post / 2, post / 2, at - post / 2, at + post / 2, 0, under),
        solids.box(-x, x, at - post / 2, at + post / 2, 0, foot),
        solids.box(
          -x * 0.7, x * 0.7, at - post / 2, at + post / 2, under - foot, under
        ),
      ]
    z = height * rng.uniform(0.2, 0.5)
    parts.append(solids.box(-0.03, 0.03, -y * 0.8, y * 0.8, z, z + 0.07))
  return parts


def _drawers(rng, parts, wide, y0, z0, z1, columns, rows, handle=True):
  """Fronts that stand out towards -y, with knobs."""
  out, gap = rng.uniform(0.02, 0.04), rng.uniform(0.02, 0.035)
  knob = rng.uniform(0.03, 0.05)
  for x0, x1 in solids.cells(-wide / 2, wide / 2, columns):
    for low, high in solids.cells(z0, z1, rows):
      parts.append(
        solids.box(
          x0 + gap, x1 - gap, y0 - out, y0 + 0.01, low + gap, high - gap
        )
      )
      if handle:
        x, z = (x0 + x1) / 2, (low + high) / 2
        half = knob / 2
        parts.append(
          solids.box(
            x - half, x + half, y0 - out - knob, y0, z - half, z + half
          )
        )


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
      solids.box(-x, -x + wall, -y, y, leg, shelf),
      solids.box(x - wall, x, -y, y, leg, shelf),
      solids.box(-x, x, -y, y, leg, leg + wall),
    ]
    if rng.random() < 0.6:
      parts.append(solids.box(-x, x, y - wall, y, leg, shelf))
  parts.append(solids.box(-x, x, -y, y, shelf, top))
  _drawers(rng, parts, wide, -y, shelf, top, columns, rows, rng.random() < 0.8)
  over = rng.uniform(0.0, 0.06)
  parts.append(
    solids.box(-x - over, x + over, -y - over, y, top - 0.01, height)
  )
  if leg:
    if rng.random() < 0.7:
      parts += solids.legs(rng, wide, deep, leg + 0.02, rng.uniform(0.03, 0.07))
    else:
      parts.append(solids.box(-x * 0.9, x * 0.9, -y * 0.85, y, 0, leg + 0.01))
  return parts


def night_stand(rng):
  """A night stand."""
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
  return solids.turn(parts)


def dresser(rng):
  """A dresser, maybe with a mirror."""
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
      solids.box(
        -half, half, deep / 2 - 0.05, deep / 2, height - 0.01, height + rise
      )
    )
  return solids.turn(parts)


def desk(rng):
  """A desk, with a cabinet or without."""
  wide, deep = rng.uniform(1.0, 1.8), rng.uniform(0.5, 0.9)
  height, thick = rng.uniform(0.68, 0.8), rng.uniform(0.03, 0.07)
  under = height - thick
  x, y = wide / 2, deep / 2
  parts = [solids.box(-x, x, -y, y, under, height)]
  left, right = rng.choice(['chest', 'panel', 'legs'], 2, p=[0.45, 0.3, 0.25])
  for side, kind in ((-1, left), (1, right)):
    breadth = rng.uniform(0.3, 0.45) if kind == 'chest' else 0.05
    x0, x1 = sorted((side * x, side * (x - breadth)))
    if kind == 'legs':
      parts += [
        solids.box(x0, x1, -y, -y + 0.05, 0, under),
        solids.box(x0, x1, y - 0.05, y, 0, under),
      ]
    elif kind == 'panel':
      parts.append(solids.box(x0, x1, -y, y, 0, under))
    else:
      lift = rng.uniform(0.05, 0.15) * (rng.random() < 0.5)
      parts.append(solids.box(x0, x1, -y + 0.03, y, lift, under))
      chest = []
      _drawers(
        rng, chest, breadth, -y + 0.03, lift, under, 1, int(rng.integers(2, 4))
      )
      parts += [(np.add(v, ((x0 + x1) / 2, 0, 0)), f) for v, f in chest]
      if lift:
        for at in (-y + 0.05, y - 0.05):
          parts.append(solids.box(x0, x1, at - 0.03, at + 0.03, 0, lift + 0.01))
  if rng.random() < 0.5:
    parts.append(
      solids.box(-x, x, y - 0.06, y - 0.02, rng.uniform(0.0, 0.4), under)
    )
  if rng.random() < 0.3:
    rise, shelf = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.3)
    parts += [
      solids.box(-x, -x + 0.04, y - shelf, y, height, height + rise),
      solids.box(x - 0.04, x, y - shelf, y, height, height + rise),
      solids.box(-x, x, y - 0.04, y, height, height + rise),
      solids.box(-x, x, y - shelf, y, height + rise - 0.04, height + rise),
    ]
    if rng.random() < 0.5:
      z = height + rise * 0.5
      parts.append(solids.box(-x, x, y - shelf, y, z - 0.02, z + 0.02))
  return solids.turn(parts)


def monitor(rng):
  """A monitor on its foot."""
  wide = rng.uniform(0.4, 0.75)
  tall = wide * rng.uniform(0.55, 0.82)
  thick, neck = rng.uniform(0.025, 0.07), rng.uniform(0.06, 0.16)
  x = wide / 2
  rim = rng.uniform(0.015, 0.035)
  parts = [
    solids.box(-x, x, 0, thick, neck, neck + tall),
    # The frame stands out in front of the screen.
    solids.box(-x, x, -rim, 0.01, neck, neck + 0.04),
    solids.box(-x, x, -rim, 0.01, neck + tall - 0.03, neck + tall),
    solids.box(-x, -x + 0.03, -rim, 0.01, neck, neck + tall),
    solids.box(x - 0.03, x, -rim, 0.01, neck, neck + tall),
  ]
  middle = neck + tall / 2
  if rng.random() < 0.25:  # a cathode ray tube behind.
    back, taper = rng.uniform(0.2, 0.4), rng.uniform(0.4, 0.7)
    vertices, faces = solids.unit('box')
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
      solids.box(
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
    solids.solid(
      rng.choice(['box', 'cylinder']), 0, at, post, 0.05, 0, middle - tall * 0.2
    )
  )
  parts.append(
    solids.solid(
      rng.choice(['box', 'cylinder']),
      0,
      at - 0.02,
      rng.uniform(0.2, 0.4),
      rng.uniform(0.16, 0.28),
      0,
      foot,
    )
  )
  return solids.turn(parts)
