"""Pieces of a page as HTML text; the page needs no other file."""

import base64
from collections.abc import Mapping
from collections.abc import Sequence
import html
import io
import json
import math
import pathlib
from typing import Any
import zlib

import numpy as np
from PIL import Image

_FOLDER = pathlib.Path(__file__).parent
# A page may run its own script and show its own pictures. It sends requests to
# no server, except to its own if it was served by one.
_POLICY = (
  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
  "img-src data:; base-uri 'none'; form-action 'none'"
)
_LEVELS = 15  # Of a voxel in a file, not counting 0: an odd divisor of 255.
# Values farther from 0.5 than this are shown as empty or full.
_SOFT = 1 / 3
_MOST_POINTS = 300  # Of a curve.
_CHART = (380, 190, 58, 24)  # Width, height, and margins left and below.


def asset(name: str) -> str:
  """The text of a file beside this one."""
  return (_FOLDER / name).read_text(encoding='utf-8')


def escape(value: Any) -> str:
  """A text as HTML shows it."""
  return html.escape(str(value))


def page(
  title: str,
  body: Sequence[str],
  scripts: Sequence[str] = (),
  styles: Sequence[str] = ('style.css',),
  *,
  served: bool = False,
) -> str:
  """A whole page, without any request to a network.

  Args:
    title: of the window.
    body: pieces of HTML.
    scripts: names of files beside this one.
    styles: likewise.
    served: whether its script may send requests to the server of the page.
  """
  code = '\n'.join(asset(name) for name in scripts)
  style = '\n'.join(asset(name) for name in styles)
  policy = _POLICY + ("; connect-src 'self'" if served else '')
  lines = [
    '<!doctype html>',
    '<html lang="en">',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
    '<link rel="icon" href="data:,">',
    f'<title>{escape(title)}</title>',
    f'<style>\n{style}</style>',
    '<body>',
    *body,
  ]
  if code:
    lines.append(f'<script>\n{code}</script>')
  return '\n'.join([*lines, '</body>', '</html>', ''])


def levels(voxels: np.ndarray, number: int = _LEVELS) -> np.ndarray:
  """Voxels as shapes.js takes them: uint8, above 127 is inside.

  Args:
    voxels: real values; above 0.5 is inside.
    number: of levels, not counting 0: an odd divisor of 255; fewer need less
      room.

  >>> levels(np.array([-1.0, 0.5, 0.51, 2.0])).tolist()
  [0, 119, 136, 255]
  """
  soft = np.clip((np.asarray(voxels) - 0.5) / (2 * _SOFT), -0.5, 0.5)
  # Half of the levels are inside: what is above 0.5 and no other.
  level = np.ceil((soft + 0.5) * number - 0.5)
  half = number // 2
  level = np.where(
    soft > 0, np.maximum(level, half + 1), np.minimum(level, half)
  )
  return (level * (255 // number)).astype(np.uint8)


def shape(voxels: np.ndarray, kind: str, label: str) -> str:
  """A shape that can be turned.

  Args:
    voxels: `(D, H, W)`.
    kind: its colour: 'sample', 'nearest' or 'given'.
    label: for users who cannot see it.
  """
  data = zlib.compress(np.ascontiguousarray(levels(voxels)).tobytes(), 9)
  text = base64.b64encode(data).decode()
  sides = ','.join(map(str, np.shape(voxels)))
  return (
    f'<canvas class="shape" tabindex="0" role="img" data-kind="{kind}" '
    f'data-sides="{sides}" aria-label="{escape(label)}" data-shape="{text}">'
    '</canvas>'
  )


def columns(sets: Mapping[str, tuple[str, Sequence[np.ndarray]]]) -> str:
  """Shapes side by side, with the matching shapes of other sets below each.

  Args:
    sets: by name, a kind and equally many shapes.
  """
  cells = []
  for i, some in enumerate(
    zip(*(shapes for _, shapes in sets.values()), strict=True)
  ):
    inner = ''
    for (name, (kind, _)), voxels in zip(sets.items(), some, strict=True):
      inner += shape(voxels, kind, f'{name} {i + 1}')
      inner += f'<span class="faint">{escape(name)} {i + 1}</span>'
    cells.append(f'<div class="pair">{inner}</div>')
  return f'<div class="row">{"".join(cells)}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """A table, its first column of names."""
  head = ''.join(f'<th>{escape(text)}</th>' for text in header)
  lines = ''.join(
    f'<tr>{"".join(f"<td>{escape(x)}</td>" for x in row)}</tr>' for row in rows
  )
  return (
    f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
    f'<tbody>{lines}</tbody></table></div>'
  )


def facts(rows: Mapping[str, Any]) -> str:
  """A table of names and values."""
  lines = ''.join(
    f'<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>'
    for name, value in rows.items()
  )
  return f'<table class="facts"><tbody>{lines}</tbody></table>'


def folded(title: str, text: str) -> str:
  """A text that opens by a click."""
  return (
    f'<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre>'
    '</details>'
  )


def picture(path: str, caption: str) -> str:
  """A picture (.png) inside the page, as WebP, of a third of the bytes."""
  data = io.BytesIO()
  with Image.open(path) as image:
    image.convert('RGB').save(data, 'WEBP', quality=75, method=6)
  text = base64.b64encode(data.getvalue()).decode()
  return (
    f'<figure><img alt="{escape(caption)}" '
    f'src="data:image/webp;base64,{text}">'
    f'<figcaption>{escape(caption)}</figcaption></figure>'
  )


def charts(rows: Sequence[Mapping[str, Any]]) -> str:
  """Curves of all metrics that are numbers, one drawing each.

  Args:
    rows: as `logs.read_metrics` gives them; a value that is not finite leaves a
      gap.
  """
  series: dict[str, list] = {}
  for row in rows:
    for name, value in row.items():
      if name != 'step' and isinstance(value, int | float):
        series.setdefault(name, []).append((row['step'], value))
  drawn = [
    f'<figure>{_chart(points)}<figcaption>'
    f'{escape(name.replace("_", " "))}</figcaption></figure>'
    for name, points in series.items()
  ]
  return f'<div class="charts">{"".join(drawn)}</div>'


def _chart(points):
  """One curve as SVG; many points are replaced by means of a few each."""
  x, y = np.array(points, np.float64).T
  if len(x) > _MOST_POINTS:
    parts = np.array_split(np.arange(len(x)), _MOST_POINTS)
    x = np.array([x[part].mean() for part in parts])
    y = np.array([y[part].mean() for part in parts])
  width, height, left, below = _CHART
  known = y[np.isfinite(y)]
  low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
  if high - low < 1e-12 * max(1.0, abs(high)):
    low, high = low - 0.5, high + 0.5
  first, last = x[0], max(x[-1], x[0] + 1)

  def place(a, b):
    return (
      left + (a - first) / (last - first) * (width - left - 8),
      8 + (high - b) / (high - low) * (height - below - 8),
    )

  path, pen = '', 'M'
  for a, b in zip(x, y, strict=True):
    if not math.isfinite(b):
      pen = 'M'
      continue
    u, v = place(a, b)
    path += f'{pen}{u:.1f} {v:.1f}'
    pen = 'L'
  if 'L' not in path:
    path += 'h3'  # A point.
  marks = []
  for value in (low, (low + high) / 2, high):
    _, v = place(first, value)
    marks.append(
      f'<line class="grid" x1="{left}" x2="{width - 8}" y1="{v:.1f}" '
      f'y2="{v:.1f}"/><text x="{left - 4}" y="{v + 4:.1f}" '
      f'text-anchor="end">{_tick(value)}</text>'
    )
  for value, anchor in ((first, 'start'), (last, 'end')):
    u, _ = place(value, low)
    marks.append(
      f'<text x="{u:.1f}" y="{height - 6}" text-anchor="{anchor}">'
      f'{value:g}</text>'
    )
  return (
    f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(marks)}'
    f'<path d="{path}"/></svg>'
  )


def _tick(value):
  """A number beside an axis, short enough for the margin.

  >>> [_tick(x) for x in (0.0392, -132.04, 17300.0, 2.5e6)]
  ['0.0392', '-132', '17,300', '2.5e+06']
  """
  if 1000 <= abs(value) < 100_000:
    return f'{value:,.0f}'
  return f'{value:.3g}'


def as_json(content: Any) -> str:
  """JSON for people."""
  return json.dumps(content, indent=2, sort_keys=True, default=str)
