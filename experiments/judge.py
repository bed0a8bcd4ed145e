"""The judge: what a classifier of our own says of voxel shapes.

Tables 1 to 3 of the paper are scores of a reference network. Here it is a
classifier that `experiments/configs/judge.py` trains, `pretrained/judge`. A
softmax over ten categories cannot reject anything, so the network has one more
class, 'none', for grids that are no shape (see junk.py). The probabilities of
the categories are without it, as in the paper; beside them stands the
probability of 'none'.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import dnet_jax
from experiments import datasets
from experiments import exported
from experiments import junk

_CHUNK = 100  # Shapes that are judged at once: bounds the memory.
_JUNK = 100  # Grids of each kind of junk in a report.


class Opinion(NamedTuple):
  """What the judge says of n shapes.

  Attributes:
    probabilities: `(n, classes)`, over the categories alone.
    none: `(n,)`, probability that it is none of them; 0 where the judge has
      no such class.
    features: `(n, d)`, of its hidden layer.

  Of a judge that has learned with mirror images, all are means over the four of
  them. `probabilities` are without the smoothing of labels.
  """

  probabilities: np.ndarray
  none: np.ndarray
  features: np.ndarray


class Judge(NamedTuple):
  """A classifier of voxel shapes.

  Attributes:
    opinion: `(voxels) -> Opinion` of `(n, D, H, W)` voxels, which are
      thresholded at 0.5 first.
    classes: names.
    card: of the model.
  """

  opinion: Callable[[np.ndarray], Opinion]
  classes: tuple[str, ...]
  card: Any


def make(trained: exported.Trained) -> Judge:
  """The judge that a trained model is.

  Raises:
    ValueError: when the model is no classifier.
  """
  classifier = trained.model.classifier
  if classifier is None:
    raise ValueError(
      f'a judge is a model that config.algorithm classify has trained, this '
      f'one is of {trained.config.algorithm!r}'
    )
  classes = tuple(trained.card['classes'])
  variables = trained.variables['classifier']
  # A shape and its mirror images are one shape to a judge that has learned so.
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

  def opinion(voxels):
    if voxels.shape[1:] != trained.shape[:3]:
      raise ValueError(
        f'the judge takes shapes of {trained.shape[:3]} voxels, got '
        f'{voxels.shape[1:]}'
      )
    if not len(voxels):
      raise ValueError('there is no shape to judge')
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
    return Opinion(np.asarray(p), none, features)

  return Judge(opinion, classes, trained.card)


def load(folder: str) -> Judge | None:
  """Loads a judge from a workdir or an exported model; '' is none.

  Raises:
    FileNotFoundError: when `folder` is neither.
    ValueError: when it holds another kind of model.
  """
  return make(exported.load(folder)) if folder else None


def _junk_row(opinion):
  p = opinion.probabilities
  entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)
  return {
    'shapes': len(p),
    'rejected': float((opinion.none > 0.5).mean()),
    'none': float(opinion.none.mean()),
    'largest_probability': float(p.max(axis=1).mean()),
    'entropy': float(entropy.mean()),
  }


def report(
  judge: Judge, shapes: np.ndarray, labels: np.ndarray, seed: int = 0
) -> dict[str, Any]:
  """How good a judge is: on real shapes, and on grids that are none.

  Args:
    judge: the judge.
    shapes: real ones that it has not seen, `(n, D, H, W)`.
    labels: `(n,)` indices into its classes.
    seed: of the grids that are none.

  Returns:
    `accuracy`, `probability` (mean, of the true class), `calibration_error`
    (mean over ten bins of confidence, weighted by their size, of the
    difference between confidence and accuracy), `categories` (accuracy,
    probability, number of each), `confusion` (rows are true), and
    `rejection`: for real shapes and each kind of junk, the share that is
    rejected ('none' above 0.5), the means of 'none', of the largest of the
    ten probabilities and of their entropy (at most 2.303), and whether it
    was seen in learning.
  """
  opinion = judge.opinion(shapes)
  p = opinion.probabilities
  right = p.argmax(axis=1) == labels
  true = p[np.arange(len(p)), labels]
  confidence = p.max(axis=1)
  bins = np.minimum((confidence * 10).astype(int), 9)
  error = sum(
    abs((confidence[bins == b] - right[bins == b]).sum()) for b in range(10)
  ) / len(p)
  confusion = np.zeros((len(judge.classes),) * 2, int)
  np.add.at(confusion, (labels, p.argmax(axis=1)), 1)
  rng = np.random.default_rng(seed)
  rejection = {'real shapes': _junk_row(opinion)}
  some = shapes[rng.permutation(len(shapes))[:_JUNK]]
  grids = {
    'empty': np.zeros_like(shapes[:1]),
    'full': np.ones_like(shapes[:1]),
    **{kind: maker(some, rng) for kind, maker in junk.SEEN.items()},
    **{kind: maker(some, rng) for kind, maker in junk.UNSEEN.items()},
  }
  for kind, grid in grids.items():
    rejection[kind] = _junk_row(judge.opinion(grid)) | {
      'seen': kind not in junk.UNSEEN
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
      for i, name in enumerate(judge.classes)
      if (labels == i).any()
    },
    'confusion': confusion.tolist(),
    'rejection': rejection,
  }
