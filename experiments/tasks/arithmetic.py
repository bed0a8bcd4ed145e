"""Arithmetic in a latent space, Figure 7: which shapes to add and subtract."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from dnet_jax import metrics


def halves(sides: Sequence[int]) -> dict[str, tuple[slice, ...]]:
  """Slices of the six halves of a grid, by name."""
  whole = (slice(None),) * 4
  parts = {}
  for axis, name in enumerate('xyz', 1):
    middle = sides[axis - 1] // 2
    for side, part in (
      ('low', slice(None, middle)),
      ('high', slice(middle, None)),
    ):
      parts[f'{side} {name}'] = (*whole[:axis], part, *whole[axis + 1 :])
  return parts


def other(half: str) -> str:
  """The name of the half beside one.

  >>> other('high z')
  'low z'
  """
  side, axis = half.split()
  return f'{"low" if side == "high" else "high"} {axis}'


def in_one_piece(voxels: np.ndarray, share: float = 0.99) -> np.ndarray:
  """Indices of shapes `(n, D, H, W)` whose largest piece is most of them.

  Voxels of a piece share faces. Torn shapes differ from all others, so a search
  for what differs finds them.

  >>> shapes = np.zeros((2, 4, 4, 4))
  >>> shapes[:, 0], shapes[1, 3] = 1, 1
  >>> in_one_piece(shapes).tolist()
  [0]
  """

  def whole(shape):
    pieces, _ = ndimage.label(shape > 0.5)
    sizes = np.bincount(pieces.ravel())[1:]
    return sizes.size > 0 and sizes.max() >= share * sizes.sum()

  return np.flatnonzero([whole(shape) for shape in voxels])


def find_examples(
  voxels: np.ndarray, num: int
) -> list[tuple[int, int, int, str]]:
  """Shapes for arithmetic: c + (a - b), where a has a part that b lacks.

  For each half of the grid it finds the pair (a, b) that is most alike in the
  other half and differs most in this one, where a has more voxels; and a shape
  c that is like b in this half, and unlike a and b in the other.

  Args:
    voxels: `(n, D, H, W)`, n at least 3.
    num: how many examples, at most.

  Returns:
    `(a, b, c, half)`, the clearest pair first; indices into `voxels`, and the
    half, such as 'high z'. The best one of each half comes first, then the
    second best ones.

  Raises:
    ValueError: for fewer than 3 shapes.
  """
  if len(voxels) < 3:
    raise ValueError(f'arithmetic needs at least 3 shapes, got {len(voxels)}')
  by_name = halves(voxels.shape[1:])
  similar = {
    name: np.asarray(metrics.iou(voxels[part], voxels[part]))
    for name, part in by_name.items()
  }
  found = []
  for name, part in by_name.items():
    here, there = similar[name], similar[other(name)]
    size = (voxels[part] > 0.5).sum((1, 2, 3))
    score = np.where(size[:, None] > size, there - here, -np.inf)
    for rank in range(-(-num // len(by_name))):
      a, b = np.unravel_index(np.argmax(score), score.shape)
      if not np.isfinite(score[a, b]):
        break
      fit = here[b] - np.maximum(there[a], there[b])
      fit[[a, b]] = -np.inf
      found.append(
        (rank, -score[a, b], int(a), int(b), int(fit.argmax()), name)
      )
      score[a], score[:, b] = -np.inf, -np.inf
  return [example[2:] for example in sorted(found)[:num]]


def given_examples(
  examples: Sequence[int], num: int
) -> list[tuple[int, int, int, str]]:
  """Examples of `latent.examples`, as `find_examples` returns them.

  Raises:
    ValueError: for numbers that are not triples, or not below `num`.
  """
  examples = [int(i) for i in examples]
  if len(examples) % 3 or not all(0 <= i < num for i in examples):
    raise ValueError(
      'latent.examples must be triples a, b, c of numbers below latent.search '
      f'= {num}, got {tuple(examples)}'
    )
  return [(*examples[i : i + 3], '') for i in range(0, len(examples), 3)]


def sums(
  z: np.ndarray, examples: Sequence[tuple[int, int, int, str]]
) -> np.ndarray:
  """z_c + z_a - z_b of each example."""
  return np.stack([z[c] + z[a] - z[b] for a, b, c, _ in examples])
