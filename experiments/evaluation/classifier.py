"""The evaluation classifier: what a network of our own says of voxel shapes.

Tables 1 to 3 of the paper are scores of a reference network. Here it is a
classifier that `experiments/configs/evaluation_classifier.py` trains,
`pretrained/evaluation_classifier`. A softmax over ten categories cannot reject
anything, so the network has one more class, 'none', for grids that are no
shape (see negatives.py). The probabilities of the categories are without it,
as in the paper; beside them stands the probability of 'none'.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import dnet_jax
from experiments.evaluation import negatives
from experiments.files import datasets

_CHUNK = 100  # Shapes that are classified at once: bounds the memory.
_NEGATIVES = 100  # Grids of each kind of negatives in a report.


class Prediction(NamedTuple):
  """What the classifier says of n shapes.

  Attributes:
    probabilities: `(n, classes)`, over the categories alone.
    none: `(n,)`, probability that it is none of them; 0 where the classifier
      has no such class.
    features: `(n, d)`, of its hidden layer.

  Of a classifier that has learned with mirror images, all are means over the
  four of them. `probabilities` are without the smoothing of labels.
  """

  probabilities: np.ndarray
  none: np.ndarray
  features: np.ndarray


class EvaluationClassifier(NamedTuple):
  """A classifier of voxel shapes.

  Attributes:
    predict: `(voxels) -> Prediction` of `(n, D, H, W)` voxels, which are
      thresholded at 0.5 first.
    classes: names.
    card: of the model.
  """

  predict: Callable[[np.ndarray], Prediction]
  classes: tuple[str, ...]
  card: Any


def make(trained: Any) -> EvaluationClassifier:
  """The evaluation classifier that a trained model is.

  Args:
    trained: an `exported.Trained`.

  Raises:
    ValueError: when the model is no classifier.
  """
  classifier = trained.model.classifier
  if classifier is None:
    raise ValueError(
      'an evaluation classifier is a model that config.algorithm classify has '
      f'trained, this one is of {trained.config.algorithm!r}'
    )
  classes = tuple(trained.card['classes'])
  variables = trained.variables['classifier']
  # A shape and its mirror images are one to a network that has learned so.
  mirrors = datasets.MIRRORS if trained.config.data.mirror else ((),)

  @jax.jit
  def look(variables, y):
    features, logits = 0.0, []
    for axes in mirrors:
      image = jnp.flip(y, axes)
      features += classifier.apply(variables, image, method='hidden_features')
      logits.append(classifier.apply(variables, image, train=False))
    # Up to a constant that all classes share, the logarithm of the mean.
    logits = jax.nn.logsumexp(jax.nn.log_softmax(jnp.stack(logits)), axis=0)
    return logits, features / len(mirrors)

  def predict(voxels):
    if voxels.shape[1:] != trained.shape[:3]:
      raise ValueError(
        f'the classifier takes shapes of {trained.shape[:3]} voxels, got '
        f'{voxels.shape[1:]}'
      )
    if not len(voxels):
      raise ValueError('there is no shape to classify')
    parts = []
    for i in range(0, len(voxels), _CHUNK):
      some = np.asarray(voxels[i : i + _CHUNK]) > 0.5
      y = datasets.to_network(some, trained.mean, trained.scale)
      parts.append(jax.tree.map(np.asarray, look(variables, y)))
    logits, features = (np.concatenate(p) for p in zip(*parts, strict=True))
    n = len(classes)
    none = np.zeros(len(logits))
    if logits.shape[1] > n:
      none = np.asarray(jax.nn.softmax(logits)[:, n])
    p = dnet_jax.unsmoothed(
      jax.nn.softmax(jnp.asarray(logits[:, :n])),
      trained.config.classifier.label_smoothing,
    )
    return Prediction(np.asarray(p), none, features)

  return EvaluationClassifier(predict, classes, trained.card)


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
  """How good a classifier is: on real shapes, and on grids that are none.

  Args:
    classifier: the classifier.
    shapes: real ones that it has not seen, `(n, D, H, W)`.
    labels: `(n,)` indices into its classes.
    seed: of the grids that are none.

  Returns:
    `accuracy`, `probability` (mean, of the true class), `calibration_error`
    (mean over ten bins of confidence, weighted by their size, of the
    difference between confidence and accuracy), `categories` (accuracy,
    probability, number of each), `confusion` (rows are true), and
    `rejection`: for real shapes and each kind of negatives, the share that is
    rejected ('none' above 0.5), the means of 'none', of the largest of the
    ten probabilities and of their entropy (at most 2.303), and whether it
    was seen in learning.
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
