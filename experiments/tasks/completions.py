"""Recovery of every kind of corruption, and several completions of one shape.

Where much is hidden, more than one shape fits what is visible. Each completion
begins at another draw of what the principal components leave open.
"""

from collections.abc import Sequence
import os
from typing import Any

import numpy as np

from experiments.evaluation import scores
from experiments.files import figures
from experiments.files import outputs

_SHOWN = 6  # Shapes in a picture, as many columns.


def compared(
  made: Sequence[np.ndarray], voxels: np.ndarray, visible: np.ndarray
) -> dict[str, float]:
  """Scores several completions of each shape.

  Args:
    made: completions, each `(n, D, H, W)`.
    voxels: the originals.
    visible: boolean, likewise; the share of others that are wrong is the error.

  Returns:
    Of thresholded voxels, means over shapes: the `mean` error of a completion,
    that of the `best` one, that of the `vote` of all of them, voxel by voxel,
    and the `spread`: the share of hidden voxels in which two completions
    differ.
  """
  full = np.stack([np.asarray(y) > 0.5 for y in made])
  hidden = ~np.broadcast_to(visible, voxels.shape)
  axes = (-3, -2, -1)
  count = np.maximum(hidden.sum(axes), 1)

  def share(wrong):
    return (wrong & hidden).sum(axes) / count

  original = np.asarray(voxels) > 0.5
  errors = np.stack([share(y != original) for y in full])
  vote = full.mean(axis=0)
  # The number of pairs that differ in a voxel is that of full times empty ones.
  pairs = len(full) * (len(full) - 1) / 2
  differing = len(full) ** 2 * vote * (1 - vote) / max(pairs, 1)
  spread = np.where(hidden, differing, 0).sum(axes) / count
  found = {
    'mean': errors.mean(),
    'best': errors.min(axis=0).mean(),
    'vote': share((vote > 0.5) != original).mean(),
    'spread': spread.mean(),
  }
  return {name: round(float(x), 5) for name, x in found.items()}


def picture(
  folder: str,
  kind: str,
  voxels: np.ndarray,
  given: np.ndarray,
  expected: np.ndarray,
  made: Sequence[np.ndarray],
) -> None:
  """Draws originals, what is visible, and their completions below.

  Args:
    folder: gets `completions_<kind>.png`, `_001`, ...; made if it is not there.
    kind: of the corruption.
    voxels: originals `(n, D, H, W)`.
    given: their visible parts.
    expected: the completion that is expected.
    made: others, each `(n, D, H, W)`.
  """
  os.makedirs(folder, exist_ok=True)
  sets = {'original': voxels, 'visible': given, 'expected': expected}
  sets |= {f'draw {i}': y for i, y in enumerate(made[:4], 1)}
  figures.stacked(
    outputs.unused_path(folder, f'completions_{kind}', '.png'),
    {name: y[:_SHOWN] for name, y in sets.items()},
  )


def scored(
  voxels: np.ndarray,
  visible: np.ndarray,
  expected: np.ndarray,
  made: Sequence[np.ndarray],
) -> dict[str, Any]:
  """Scores of one kind: of the expected completion, and of several draws."""
  found: dict[str, Any] = scores.recovery_scores(expected, voxels, visible)
  if made:
    found['completions'] = compared(made, voxels, visible) | {
      'number': len(made)
    }
  return found
