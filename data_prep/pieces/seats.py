"""Chairs and toilets with their back at +y, and sofas with theirs at +x."""

import itertools

import numpy as np

from data_prep.pieces import solids


def chair(rng):
  """A chair."""
  wide, deep = rng.uniform(0.4, 0.6, 2)
  top, thick = rng.uniform(0.38, 0.52), rng.uniform(0.04, 0.12)
  under = top - thick
  seat = rng.choice(['box', 'cylinder'], p=[0.8, 0.2])
  parts = [solids.solid(seat, 0, 0, wide, deep, under, top)]
  base = rng.choice(
    ['legs', 'star', 'sled', 'panels'], p=[0.55, 0.2, 0.15, 0.1]
  )
  if base == 'legs':
    inner = 0.75 if seat == 'cylinder' else 1.0
    parts += solids.legs(rng, wide * inner, deep * inner, under)
    if rng.random() < 0.3:
      z = rng.uniform(0.1, 0.2)
      for side in (-1, 1):
        x = side * (wide * inner / 2 - 0.02)
        parts.append(
          solids.box(x - 0.015, x + 0.015, -deep * 0.4, deep * 0.4, z, z + 0.03)
        )
  elif base == 'star':
    parts += solids.star(rng, rng.uniform(0.2, 0.32), under)
  elif base == 'sled':
    bar = rng.uniform(0.03, 0.05)
    for side in (-1, 1):
      x = side * (wide - bar) / 2
      x0, x1 = x - bar / 2, x + bar / 2
      parts += [
        solids.box(x0, x1, -deep / 2, deep / 2, 0, bar),
        solids.box(x0, x1, -deep / 2, -deep / 2 + bar, 0, under),
      ]
      if rng.random() < 0.5:
        parts.append(solids.box(x0, x1, deep / 2 - bar, deep / 2, 0, under))
    parts.append(
      solids.box(-wide / 2, wide / 2, deep / 2 - bar, deep / 2, 0, bar)
    )
  else:
    panel = rng.uniform(0.03, 0.06)
    for side in (-1, 1):
      x = side * (wide - panel) / 2
      parts.append(
        solids.box(x - panel / 2, x + panel / 2, -deep / 2, deep / 2, 0, under)
      )
  height, bar = rng.uniform(0.3, 0.75), rng.uniform(0.03, 0.08)
  if seat == 'cylinder':
    wide *= 0.8
  y0, y1 = deep / 2 - bar, deep / 2
  back = rng.choice(['panel', 'slats', 'rails', 'raised'])
  if back == 'panel':
    rise = [solids.box(-wide / 2, wide / 2, y0, y1, top - 0.02, top + height)]
  else:
    rise = [
      solids.box(
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
        solids.box(
          -wide / 2, wide / 2, y0, y1, top + height - bar, top + height
        )
      )
      count = int(rng.integers(1, 4))
      slat = rng.uniform(0.03, 0.06)
      for x in np.linspace(-wide / 2, wide / 2, count + 2)[1:-1]:
        rise.append(
          solids.box(x - slat / 2, x + slat / 2, y0, y1, top, top + height)
        )
    elif back == 'rails':
      count = int(rng.integers(2, 4))
      rail = height / count * rng.uniform(0.35, 0.6)
      for z in top + height * (1 + np.arange(count)) / count:
        rise.append(solids.box(-wide / 2, wide / 2, y0, y1, z - rail, z))
    else:
      z0 = top + height * rng.uniform(0.25, 0.5)
      rise.append(solids.box(-wide / 2, wide / 2, y0, y1, z0, top + height))
  parts += solids.lean(rise, top, rng.uniform(0, 0.3))
  if rng.random() < 0.4:
    high, pad = top + rng.uniform(0.15, 0.28), rng.uniform(0.03, 0.08)
    reach = rng.uniform(-deep / 2, -deep / 4)
    solid = rng.random() < 0.25
    for side in (-1, 1):
      x = side * (wide + pad) / 2
      x0, x1 = x - pad / 2, x + pad / 2
      parts.append(solids.box(x0, x1, reach, deep / 2, high - 0.03, high))
      parts.append(
        solids.box(
          x0, x1, reach, deep / 2 if solid else reach + 0.04, under, high
        )
      )
  return parts


def sofa(rng):
  """A sofa, for one to four."""
  # Built with its back at +y, and turned at the end.
  seats = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.3, 0.35, 0.15]))
  wide = seats * rng.uniform(0.55, 0.75)
  deep, top = rng.uniform(0.7, 1.0), rng.uniform(0.35, 0.5)
  leg = rng.uniform(0.06, 0.16) * (rng.random() < 0.6)
  back, high = rng.uniform(0.12, 0.28), rng.uniform(0.3, 0.55)
  cushion = rng.uniform(0.08, 0.16)
  y1 = deep / 2
  parts = [
    solids.box(-wide / 2, wide / 2, -y1, y1, leg, top - cushion),
  ]
  gap = rng.uniform(0.02, 0.05)
  edges = np.linspace(-wide / 2, wide / 2, seats + 1)
  lift = rng.uniform(0.0, 0.12)
  for x0, x1 in itertools.pairwise(edges):
    parts.append(
      solids.box(x0 + gap / 2, x1 - gap / 2, -y1, y1, top - cushion - 0.02, top)
    )
    if lift > 0.04:
      parts += solids.lean(
        [
          solids.box(
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
  parts += solids.lean(
    [solids.box(-wide / 2, wide / 2, y1 - back, y1, leg, top + high)],
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
          solids.box(x - arm / 2, x + arm / 2, -y1, y1, leg, over - arm / 2)
        )
        vertices, faces = solids.lying(-y1, y1, x, over - arm / 2, arm * 1.15)
        parts.append((vertices[:, [1, 0, 2]], faces))
      else:
        parts.append(solids.box(x - arm / 2, x + arm / 2, -y1, y1, leg, over))
  if seats > 2 and rng.random() < 0.35:
    side = rng.choice([-1, 1])
    x0, x1 = sorted((side * wide / 2, side * (wide / 2 - wide / seats)))
    parts.append(
      solids.box(x0, x1, -y1 - rng.uniform(0.4, 0.8), -y1 + 0.05, leg, top)
    )
  if leg:
    parts += solids.legs(
      rng, full, deep, leg + 0.02, rng.uniform(0.05, 0.09), 0.0
    )
  return solids.turn(parts)


def toilet(rng):
  """A toilet."""
  wide, deep = rng.uniform(0.34, 0.44), rng.uniform(0.42, 0.56)
  rim = rng.uniform(0.36, 0.46)
  foot, shift = rng.uniform(0.45, 0.8), rng.uniform(0.0, 0.1)
  waist = rng.uniform(0.1, 0.22)
  parts = [
    solids.solid(
      'cylinder', 0, 0, wide, deep, waist, rim - 0.03, foot, (0, shift)
    ),
    solids.solid(
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
      solids.solid(
        'box',
        0,
        (y0 + y1) / 2,
        tank_wide,
        tank_deep,
        low,
        high,
        rng.uniform(0.8, 1.0),
      ),
      solids.box(
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
      solids.solid(
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
    solids.box(
      -wide * 0.35,
      wide * 0.35,
      deep * 0.1,
      y1 - 0.02,
      rng.uniform(0.0, rim - 0.15),
      rim,
    )
  )
  lid = rng.choice(['closed', 'up', 'none'])
  ring = solids.solid(
    'ring', 0, 0, wide * 1.05, deep * 1.05, rim - 0.04, rim + 0.02
  )
  if lid == 'closed':
    parts.append(
      solids.solid(
        'cylinder', 0, 0, wide * 1.05, deep * 1.05, rim - 0.03, rim + 0.05
      )
    )
  else:
    parts.append(ring)
  if lid == 'up':
    vertices, faces = solids.unit('cylinder')
    upright = np.stack(
      [
        vertices[:, 0] * wide,
        y0 - 0.07 + 0.035 * vertices[:, 2],
        rim + (vertices[:, 1] + 0.5) * deep * 0.9,
      ],
      axis=1,
    )
    parts += solids.lean([(upright, faces)], rim, 0.1)
  return parts
