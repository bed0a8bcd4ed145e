"""Beds and bathtubs."""

import numpy as np

from data_prep.pieces import solids


def bed(rng):
  """A bed."""
  wide, long = rng.uniform(0.9, 2.0), rng.uniform(1.9, 2.2)
  leg = rng.uniform(0.08, 0.25) * (rng.random() < 0.7)
  frame, mattress = rng.uniform(0.08, 0.25), rng.uniform(0.12, 0.28)
  x, y = wide / 2, long / 2
  top = leg + frame + mattress
  inset = rng.uniform(0.0, 0.07)
  parts = [
    solids.box(-x, x, -y, y, leg, leg + frame),
    solids.box(-x + inset, x - inset, -y + inset, y, leg + frame - 0.01, top),
  ]
  if leg:
    parts += solids.legs(
      rng, wide, long, leg + 0.01, rng.uniform(0.06, 0.12), 0.0
    )
  board = rng.uniform(0.05, 0.12)
  if rng.random() < 0.9:
    high, over = top + rng.uniform(0.2, 0.7), rng.uniform(0.0, 0.1)
    style = rng.choice(['panel', 'arch', 'bars'])
    if style == 'bars':
      parts.append(solids.box(-x, x, y, y + board, high - 0.1, high))
      for at in np.linspace(-x + board / 2, x - board / 2, rng.integers(3, 6)):
        parts.append(
          solids.box(at - board / 2, at + board / 2, y, y + board, 0, high)
        )
    else:
      parts.append(solids.box(-x - over, x + over, y, y + board, 0, high))
      if style == 'arch':
        vertices, faces = solids.unit('cylinder')
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
    parts.append(solids.box(-x, x, -y - board, -y, 0, high))
  pillows = int(rng.integers(0, 3)) if wide > 1.3 else int(rng.integers(0, 2))
  for x0, x1 in solids.cells(-x + inset, x - inset, max(pillows, 1)) * (
    pillows > 0
  ):
    plump = rng.uniform(0.08, 0.16)
    parts.append(
      solids.box(
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
          solids.solid(
            'box', sx * (x - post / 2), sy * (y - post / 2), post, post, 0, high
          )
        )
      at = sx * (x - post / 2)
      parts.append(
        solids.box(at - post / 2, at + post / 2, -y, y, high - post, high)
      )
      at = sx * (y - post / 2)
      parts.append(
        solids.box(-x, x, at - post / 2, at + post / 2, high - post, high)
      )
  return parts


def bathtub(rng):
  """A bathtub."""
  long, wide = rng.uniform(1.3, 1.9), rng.uniform(0.65, 0.95)
  height, wall = rng.uniform(0.4, 0.65), rng.uniform(0.06, 0.12)
  leg = rng.uniform(0.06, 0.14) * (rng.random() < 0.4)
  floor = leg + rng.uniform(0.08, 0.2)
  x, y = wide / 2, long / 2
  if rng.random() < 0.5:
    parts = [
      solids.box(-x, x, -y, y, leg, floor),
      solids.box(-x, -x + wall, -y, y, leg, height),
      solids.box(x - wall, x, -y, y, leg, height),
      solids.box(-x, x, -y, -y + wall, leg, height),
      solids.box(-x, x, y - rng.uniform(1, 3) * wall, y, leg, height),
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
    parts += solids.legs(rng, wide * 0.75, long * 0.75, leg + 0.06, 0.1, 0.0)
  if rng.random() < 0.5:
    pipe, rise = 0.05, rng.uniform(0.12, 0.3)
    reach = rng.uniform(0.15, 0.3)
    parts += [
      solids.box(-pipe / 2, pipe / 2, y - pipe, y, height - 0.1, height + rise),
      solids.box(
        -pipe / 2, pipe / 2, y - reach, y, height + rise - pipe, height + rise
      ),
    ]
  return parts
