"""Pictures and curves; files only, no display.

Shapes are `(D, H, W)` arrays of about [0, 1] whose axes are x, y, z with z up;
a shape is where its array is at or above `level`. Nothing here keeps state
between calls: every picture is its own matplotlib `Figure`, drawn by Agg.

Camera and light are those of light.py, for every picture.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import io
import itertools
import math
import os
from typing import Any
import warnings

from matplotlib import collections
from matplotlib import colors as mpl_colors
from matplotlib import figure
from matplotlib.backends import backend_agg
import numpy as np
from PIL import Image
from skimage import measure

from experiments.files import light

SAMPLE_COLOR = '#7d9cc0'
NEIGHBOUR_COLOR = '#d9a066'

_FLOOR = 0.17  # How much darker the floor is in full shadow.
_SUPERSAMPLING = 3
_APART = 0.02  # Least distance of values from the level, as a share of it.


def surface(voxels, level: float = 0.5):
  """Returns the closed surface of a shape by marching cubes.

  The grid is padded with zeros first, so that a shape that touches its border
  is closed there. Every edge has two faces.

  Args:
    voxels: `(D, H, W)` finite numbers.
    level: the isovalue, above 0.

  Returns:
    `(vertices, faces)`: `(n, 3)` float64 in units of voxels, voxel centres at
    integers, and `(m, 3)` indices, counter-clockwise seen from outside; or
    None for a shape without a voxel above `level`.

  Raises:
    ValueError: when the array is empty, is not `(D, H, W)` or has values that
      are not finite, or when `level` is not above 0.

  >>> vertices, faces = surface(np.ones((1, 1, 1)))
  >>> vertices.shape, faces.shape
  ((6, 3), (8, 3))
  """
  voxels = np.asarray(voxels)
  if voxels.ndim != 3 or voxels.size == 0:
    raise ValueError(
      f'a shape is a non-empty (D, H, W) array, got shape {voxels.shape}'
    )
  if not level > 0 or not math.isfinite(level):
    raise ValueError(f'level must be finite and above 0, got {level}')
  voxels = voxels.astype(np.float32)
  if not np.isfinite(voxels).all():
    count = int(np.sum(~np.isfinite(voxels)))
    raise ValueError(f'{count} of {voxels.size} voxels are not finite')
  if not voxels.max() > level:
    return None
  # Values close to the level are moved away from it, so that no two corners of
  # triangles meet in one point: an edge could then have one face, or three.
  apart = np.where(voxels < level, -1, 1) * np.maximum(
    abs(voxels - level), _APART * level
  )
  voxels = (level + apart).astype(np.float32)
  with warnings.catch_warnings():
    # scikit-image 0.26 sets an array's shape, which NumPy 2.5 deprecates.
    warnings.filterwarnings(
      'ignore', category=DeprecationWarning, module=r'skimage\.'
    )
    vertices, faces, _, _ = measure.marching_cubes(
      np.pad(voxels, 1),
      np.float32(level),
      allow_degenerate=False,
      # Every edge has two faces then; the default gives some of them four.
      method='lorensen',
    )
  # skimage winds the faces of what is above the level clockwise.
  return vertices.astype(np.float64) - 1, faces[:, ::-1]


def isosurfaces(
  path,
  rows: Sequence[Sequence[Any]],
  *,
  level: float = 0.5,
  titles: Sequence[str] = (),
  row_labels: Sequence[str] = (),
  captions: Sequence[Sequence[str]] = (),
  colors: Any = SAMPLE_COLOR,
  cell_inches: float = 1.3,
  dpi: int = 160,
) -> None:
  """Writes a picture (.png) of shapes in a grid of cells.

  Each shape is scaled by its own grid, so that a 16^3 and a 64^3 sample of the
  same object are equally large. Shapes are lit and cast shadows. Ten cells that
  are printed 6.5 inches wide, as the text of a paper, have 320 pixels an inch.

  Args:
    path: file to write, by replacing it as a whole.
    rows: rows of `(D, H, W)` arrays, or None for an empty cell; rows may
      differ in length and cells in size.
    level: the isovalue, above 0.
    titles: one for each column, above it.
    row_labels: one for each row, at its left.
    captions: for each row one text a cell, drawn below the cell; a row may have
      none.
    colors: a matplotlib colour for all shapes, or for each row either a colour
      or one colour a cell.
    cell_inches: side of a cell.
    dpi: pixels an inch.

  Raises:
    ValueError: where there is no cell, a shape is not a finite `(D, H, W)`
      array (the message says which cell), or there are more labels than cells.
    OSError: where `path` cannot be written.
  """
  rows = [list(row) for row in rows]
  num_rows, num_columns = len(rows), max(map(len, rows), default=0)
  if num_columns == 0:
    raise ValueError('no cell to draw: rows is empty')
  for name, texts, limit in (
    ('titles', titles, num_columns),
    ('row_labels', row_labels, num_rows),
    ('captions', captions, num_rows),
  ):
    if len(texts) > limit:
      raise ValueError(f'{len(texts)} {name} for {limit} places')
  cell_colors = _cell_colors(colors, rows)

  # In units of cells, inside one axes: many small axes are slow to draw.
  font = 8
  line = font * 1.5 / 72 / cell_inches
  left = 0.0
  if row_labels:
    lines = '\n'.join(row_labels).split('\n')
    longest = max(map(len, lines))
    left = longest * font * 0.6 / 72 / cell_inches + line / 2
  top = line if titles else 0.0
  tops = [top]
  for i in range(num_rows):
    has_caption = i < len(captions) and any(captions[i])
    tops.append(tops[-1] + 1 + (line if has_caption else 0.0))
  width, depth = left + num_columns, tops[-1]
  fig = figure.Figure(figsize=(width * cell_inches, depth * cell_inches))
  backend_agg.FigureCanvasAgg(fig)
  axes = fig.add_axes((0, 0, 1, 1))
  axes.set_axis_off()
  axes.set_xlim(0, width)
  axes.set_ylim(-depth, 0)

  for i, row in enumerate(rows):
    for j, voxels in enumerate(row):
      if voxels is None:
        continue
      try:
        mesh = surface(voxels, level)
      except ValueError as error:
        raise ValueError(f'row {i}, column {j}: {error}') from error
      if mesh is None:
        continue
      inside = np.asarray(voxels) > level
      centre = np.array([left + j + 0.5, -(tops[i] + 0.5)])
      squares, dark = light.floor_shadow(inside)
      if len(dark):
        _add(
          axes,
          _flat(squares, inside.shape) + centre,
          np.repeat(1 - _FLOOR * dark[:, None], 3, axis=1),
        )
      triangles, shade = _project(*mesh, inside)
      rgb = np.array(mpl_colors.to_rgb(cell_colors[i][j]))
      # Up to 1 the colour is darkened, above it lightened.
      rgb = np.where(
        shade[:, None] <= 1,
        rgb * shade[:, None],
        rgb + (1 - rgb) * (shade[:, None] - 1),
      )
      _add(axes, triangles + centre, np.clip(rgb, 0, 1))
  style = {'fontsize': font, 'color': '#333333'}
  for j, text in enumerate(titles):
    axes.text(
      left + j + 0.5, -top * 0.6, text, ha='center', va='center', **style
    )
  for i, text in enumerate(row_labels):
    y = -(tops[i] + 0.5)
    axes.text(line / 3, y, text, ha='left', va='center', **style)
  for i, texts in enumerate(captions):
    for j, text in enumerate(texts):
      y = -(tops[i] + 1 + line / 2)
      axes.text(left + j + 0.5, y, text, ha='center', va='center', **style)
  _write_png(path, fig, dpi)


def curves(
  path,
  metrics_by_name: Mapping[str, Sequence[Mapping[str, Any]]],
  *,
  names: Sequence[str] = (),
  panel_inches: tuple[float, float] = (3.6, 2.2),
  dpi: int = 100,
) -> None:
  """Writes a picture (.png) of metrics over steps, one panel for each metric.

  Args:
    path: file to write, by replacing it as a whole.
    metrics_by_name: for each run its rows, as `logs.read_metrics` gives
      them: `{'step': 0, 'energy_gap': 1.5, ...}`. A value that is not finite
      leaves a gap in the curve.
    names: metrics to draw, in this order; empty: all that hold numbers.
    panel_inches: width and height of a panel.
    dpi: pixels an inch.

  Raises:
    ValueError: where there is nothing to draw, or no row has one of `names`.
    OSError: where `path` cannot be written.
  """
  series: dict[str, dict[str, list]] = {}
  for run, rows in metrics_by_name.items():
    for row in rows:
      for name, value in row.items():
        if name == 'step' or not isinstance(value, int | float):
          continue
        points = series.setdefault(name, {}).setdefault(run, [])
        points.append((row['step'], value))
  missing = [name for name in names if name not in series]
  if missing or not series:
    have = ', '.join(series) or 'none'
    raise ValueError(
      f'no numbers to draw of {", ".join(missing) or "any metric"}; have {have}'
    )
  names = list(names or series)
  columns = min(len(names), 3)
  lines = math.ceil(len(names) / columns)
  fig = figure.Figure(
    figsize=(panel_inches[0] * columns, panel_inches[1] * lines),
    layout='constrained',
  )
  backend_agg.FigureCanvasAgg(fig)
  grid = fig.subplots(lines, columns, squeeze=False).ravel()
  for axes, name in itertools.zip_longest(grid, names):
    if name is None:
      axes.set_axis_off()
      continue
    for run, points in series[name].items():
      step, value = np.array(points, np.float64).T
      value = np.where(np.isfinite(value), value, np.nan)
      marker = '.' if len(step) < 3 else ''
      axes.plot(step, value, linewidth=0.9, marker=marker, label=run)
    axes.set_title(name, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(color='#dddddd', linewidth=0.5)
    axes.spines[['top', 'right']].set_visible(False)
  if len(metrics_by_name) > 1:
    grid[0].legend(fontsize=7, frameon=False)
  _write_png(path, fig, dpi)


def few_labels(
  path,
  scores: Mapping[str, Mapping[str, Any]],
  *,
  inches: tuple[float, float] = (5.0, 3.2),
  dpi: int = 200,
) -> None:
  """Writes a picture (.png) of accuracies against the share of the labels.

  Args:
    path: file to write, by replacing it as a whole.
    scores: for each method `{'accuracy': {share: {'mean': x, 'std': x}}}`, as
      the mode `probe` writes them; bars are one deviation of the draws.
    inches: width and height.
    dpi: pixels an inch.

  Raises:
    ValueError: where there is nothing to draw.
    OSError: where `path` cannot be written.
  """
  if not scores:
    raise ValueError('no accuracies to draw')
  fig = figure.Figure(figsize=inches, layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  axes, shares = fig.subplots(), set()
  for name, row in scores.items():
    points = sorted(
      (100 * float(share), 100 * x['mean'], 100 * x['std'])
      for share, x in row['accuracy'].items()
    )
    share, mean, deviation = np.array(points).T
    shares |= {*share}
    axes.errorbar(
      share, mean, deviation, label=name, marker='o', markersize=3, linewidth=1
    )
  axes.set_xscale('log')
  axes.set_xticks([*shares], [f'{x:g}' for x in shares])
  axes.set_xticks([], minor=True)
  axes.set_xlabel('labels, %', fontsize=8)
  axes.set_ylabel('accuracy, %', fontsize=8)
  axes.tick_params(labelsize=7)
  axes.grid(color='#dddddd', linewidth=0.5)
  axes.spines[['top', 'right']].set_visible(False)
  axes.legend(fontsize=7, frameon=False)
  _write_png(path, fig, dpi)


def stacked(path, sets: Mapping[str, Any], columns: int = 10) -> None:
  """Writes a picture (.png) of sets of shapes, one below the other.

  Args:
    path: file to write, by replacing it as a whole.
    sets: `(n, D, H, W)` by name, of one n; the last one has the colour of
      samples. Shape i of each set is below shape i of the one before.
    columns: shapes in a row, at most.
  """
  names = list(sets)
  split = [rows(shapes, columns) for shapes in sets.values()]
  lines = [line for some in zip(*split, strict=True) for line in some]
  times = len(lines) // len(names)
  isosurfaces(
    path,
    lines,
    row_labels=names * times,
    colors=([NEIGHBOUR_COLOR] * (len(names) - 1) + [SAMPLE_COLOR]) * times,
  )


def rows(shapes, columns: int) -> list[list[np.ndarray]]:
  """Splits shapes into rows of `columns`, for a picture.

  >>> [len(row) for row in rows([1, 2, 3], 2)]
  [2, 1]
  """
  shapes = list(shapes)
  return [shapes[i : i + columns] for i in range(0, len(shapes), columns)]


def _add(axes, polygons, rgb):
  """Draws polygons `(k, n, 2)`, one over the other."""
  axes.add_collection(
    collections.PolyCollection(
      polygons,
      facecolors=rgb,
      linewidths=0,
      # Antialiased faces would show their seams; the whole picture is drawn
      # larger instead.
      antialiaseds=False,
    ),
    autolim=False,
  )


def _flat(points, grid):
  """Points as the viewer sees them; a grid fills the unit square around 0.

  Args:
    points: `(..., 3)` in units of voxels.
    grid: `(D, H, W)`.

  Returns:
    `(..., 2)`.
  """
  half = np.array(grid) / 2
  # A box of half sides h reaches |h| . |axis| along an axis.
  reach = 2 * max(half @ np.abs(light.RIGHT), half @ np.abs(light.UP))
  centred = points - (np.array(grid) - 1) / 2
  flat = np.stack([centred @ light.RIGHT, centred @ light.UP], axis=-1)
  return 0.96 * flat / reach


def _project(vertices, faces, inside):
  """Returns the faces that look at the viewer, the farthest first.

  Args:
    vertices: `(n, 3)`.
    faces: `(m, 3)`, counter-clockwise from outside.
    inside: `(D, H, W)` booleans, the voxels that cast shadows.

  Returns:
    `(k, 3, 2)` triangles and their `(k,)` brightness, 1 for the plain colour.
  """
  shade = light.brightness(inside, vertices, faces)
  corners = vertices[faces]
  across = np.cross(
    corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  )
  front = across @ light.VIEWER > 0
  corners, shade = corners[front], shade[front]
  order = np.argsort(corners.mean(1) @ light.VIEWER, kind='stable')
  return _flat(corners[order], inside.shape), shade[order]


def _cell_colors(colors, rows):
  """Spreads one colour, or one a row, over the cells."""
  if mpl_colors.is_color_like(colors):
    return [[colors] * len(row) for row in rows]
  if len(colors) != len(rows):
    raise ValueError(f'{len(colors)} colours for {len(rows)} rows')
  spread = []
  for i, (color, row) in enumerate(zip(colors, rows, strict=True)):
    cells = [color] * len(row) if mpl_colors.is_color_like(color) else color
    if len(cells) != len(row) or not all(map(mpl_colors.is_color_like, cells)):
      raise ValueError(
        f'row {i}: a colour, or one for each of its {len(row)} cells, '
        f'got {color!r}'
      )
    spread.append(list(cells))
  return spread


def _write_png(path, fig, dpi):
  """Writes a figure with a palette of 128 colours, whole or not at all."""
  fig.set_dpi(dpi * _SUPERSAMPLING)
  fig.canvas.draw()
  drawn = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3])
  small = drawn.reduce(_SUPERSAMPLING)
  small = small.quantize(127, method=Image.Quantize.MEDIANCUT)
  data = io.BytesIO()
  small.save(data, format='png', optimize=True)
  path = os.path.abspath(path)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  partial = f'{path}.partial'
  try:
    with open(partial, 'wb') as file:
      file.write(data.getvalue())
    os.replace(partial, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      os.remove(partial)
    raise OSError(
      error.errno, f'cannot write the picture: {error.strerror}', path
    ) from error
