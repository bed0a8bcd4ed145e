"""The evaluation classifier: a network of our own that classifies shapes.

Tables 1 to 3 of the paper are scores of a reference network. Here it is a
classifier that `experiments/configs/evaluation_classifier.py` trains,
`pretrained/evaluation_classifier`. A softmax over ten categories cannot reject
anything, so the network has one more class, 'none', for grids that are no
shape (see negatives.py). The probabilities of the categories are without it,
as in the paper; beside them stands the probability of 'none'.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np

import dnet_jax
from experiments import batches
from experiments.evaluation import negatives
from experiments.files import models

_SIZE = 100  # Shapes that are classified at once: bounds the memory.
_NEGATIVES = 100  # Grids of each kind of negatives in a report.


class EvaluationClassifier(NamedTuple):
  """A classifier of voxel shapes.

  Attributes:
    predict: `(voxels) -> dnet_jax.uses.Classes` of `(n, D, H, W)` voxels, some
      at a time.
    classes: names.
    card: of the model.
  """

  predict: Callable[[np.ndarray], Any]
  classes: tuple[str, ...]
  card: Any


def make(
  model: dnet_jax.Model, card: Mapping[str, Any]
) -> EvaluationClassifier:
  """Makes an evaluation classifier of a model.

  Raises:
    ValueError: when the model is not a classifier.
  """
  if model.spec.classifier is None:
    raise ValueError(
      'evaluate.classifier must be a model of task evaluation_classifier, got '
      f'{model!r}'
    )

  def predict(voxels):
    return batches.map_batches(
      lambda some: dnet_jax.classify_shapes(model, some), voxels, size=_SIZE
    )

  card = {name: x for name, x in card.items() if name != 'config'}
  return EvaluationClassifier(predict, model.spec.classifier.classes, card)


def load(folder: str) -> EvaluationClassifier | None:
  """Loads an evaluation classifier from a model or a workdir; None for ''.

  Raises:
    FileNotFoundError: when there is no such model.
    ValueError: when it is another kind of model.
  """
  return make(*models.open_model(folder)) if folder else None


def _row(prediction):
  p = prediction.probabilities
  entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)
  return {
    'shapes': len(p),
    'rejected': float((prediction.none > 0.5).mean()),
    'none': float(prediction.none.mean()),
    'largest_probability': float(p.max(axis=1).mean()),
    'entropy': float(entropy.mean()),
  }


def report(
  classifier: EvaluationClassifier,
  shapes: np.ndarray,
  labels: np.ndarray,
  seed: int = 0,
) -> dict[str, Any]:
  """How good a classifier is on real shapes, and on grids that are not shapes.

  Args:
    classifier: the classifier.
    shapes: real ones that it has not seen, `(n, D, H, W)`.
    labels: `(n,)` indices into its classes.
    seed: of the grids that are not shapes.

  Returns:
    `accuracy`, `probability` (mean, of the true class), `calibration_error`
    (mean over ten bins of confidence, weighted by their size, of the
    difference between confidence and accuracy), `categories` (accuracy,
    probability, number of each), `confusion` (rows are true), and
    `rejection`: for real shapes and each kind of negatives, the share that is
    rejected ('none' above 0.5), the means of 'none', of the largest of the
    ten probabilities and of their entropy (at most 2.303), and whether the
    kind was seen in learning.
  """
  prediction = classifier.predict(shapes)
  p = prediction.probabilities
  right = p.argmax(axis=1) == labels
  true = p[np.arange(len(p)), labels]
  confidence = p.max(axis=1)
  bins = np.minimum((confidence * 10).astype(int), 9)
  error = sum(
    abs((confidence[bins == b] - right[bins == b]).sum()) for b in range(10)
  ) / len(p)
  confusion = np.zeros((len(classifier.classes),) * 2, int)
  np.add.at(confusion, (labels, p.argmax(axis=1)), 1)
  rng = np.random.default_rng(seed)
  rejection = {'real shapes': _row(prediction)}
  some = shapes[rng.permutation(len(shapes))[:_NEGATIVES]]
  grids = {
    'empty': np.zeros_like(shapes[:1]),
    'full': np.ones_like(shapes[:1]),
    **{kind: maker(some, rng) for kind, maker in negatives.SEEN.items()},
    **{kind: maker(some, rng) for kind, maker in negatives.UNSEEN.items()},
  }
  for kind, grid in grids.items():
    rejection[kind] = _row(classifier.predict(grid)) | {
      'seen': kind not in negatives.UNSEEN
    }
  return {
    'accuracy': float(right.mean()),
    'probability': float(true.mean()),
    'calibration_error': float(error),
    'categories': {
      name: {
        'shapes': int((labels == i).sum()),
        'accuracy': float(right[labels == i].mean()),
        'probability': float(true[labels == i].mean()),
      }
      for i, name in enumerate(classifier.classes)
      if (labels == i).any()
    },
    'confusion': confusion.tolist(),
    'rejection': rejection,
  }
