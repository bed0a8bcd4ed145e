"""Scores of sets of voxel shapes, with and without a classifier."""

from collections.abc import Mapping
from collections.abc import Sequence
import os

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy import ndimage

from data_prep import voxel_file
from dnet_jax import metrics
from experiments.evaluation import classifier as classifiers
from experiments.files import datasets

# Compiled as a whole. Outside jit, its loop would be compiled in every call.
_iou = jax.jit(metrics.iou)
_chamfer = jax.jit(metrics.chamfer_distances)
_f_scores = jax.jit(metrics.f_scores)
_jensen_shannon = jax.jit(metrics.jensen_shannon_divergence)
# Scores against the test shapes, which mean nothing for the test shapes.
_AGAINST_TEST = (
  'one_nn_accuracy',
  'coverage',
  'mmd',
  'one_nn_accuracy_chamfer',
  'coverage_chamfer',
  'mmd_chamfer',
  'jensen_shannon',
  'frechet',
)


def scores(
  shapes,
  train_shapes,
  test_shapes,
  *,
  same: bool = False,
  surfaces: bool = True,
  classifier: classifiers.EvaluationClassifier | None = None,
  test_features: np.ndarray | None = None,
  label: int | None = None,
  splits: int = 1,
  copy_iou: float | None = None,
) -> dict[str, float]:
  """Scores a set of shapes against training and test shapes.

  Args:
    shapes: `(n, D, H, W)`; occupied above 0.5.
    train_shapes: `(m, D, H, W)`.
    test_shapes: `(k, D, H, W)`, the references.
    same: whether `shapes` are training shapes; then the nearest training shape
      is looked for among the others.
    surfaces: False: no scores of surfaces, which mean little on a coarse grid.
    classifier: classifies the shapes; None: no scores by a classifier.
    test_features: the classifier's features of the test shapes, where they are
      known already.
    label: index of the classifier's class that was meant; None: all of them.
    splits: of the inception score.
    copy_iou: what counts as a copy of a training shape, see `copy_threshold`;
      None: no copy rate.

  Returns:
    A dict of floats. Against the test shapes, by 1 - IoU of voxels and by the
    Chamfer distance of surfaces: 1-NN accuracy (0.5 is best), coverage and
    minimum matching distance; the Jensen-Shannon divergence of surfaces; the
    Frechet distance of the classifier's features. Of the set itself: mean
    pairwise IoU, share of duplicates, occupancy. Against the training shapes:
    mean IoU with the nearest, and the copy rate: the share above `copy_iou`.
    By the classifier: share that is rejected; class probability and
    classification error of one class, or the inception score and its deviation
    over the splits.
  """
  shapes, test_shapes = jnp.asarray(shapes), jnp.asarray(test_shapes)
  within = _iou(shapes, shapes)
  nearest = jnp.sort(_iou(shapes, train_shapes), axis=1)
  nearest = nearest[:, -2 if same else -1]
  result = {}
  distances = {'': lambda a, b: 1 - _iou(a, b)}
  if surfaces:
    distances['_chamfer'] = _chamfer
    result['jensen_shannon'] = _jensen_shannon(shapes, test_shapes)
  for suffix, distance in distances.items():
    between = distance(shapes, test_shapes)
    result |= {
      f'one_nn_accuracy{suffix}': metrics.nearest_neighbour_accuracy(
        distance(shapes, shapes), distance(test_shapes, test_shapes), between
      ),
      f'coverage{suffix}': metrics.coverage(between),
      f'mmd{suffix}': metrics.minimum_matching_distance(between),
    }
  result |= {
    'pairwise_iou': metrics.mean_pairwise(within),
    'duplicates': metrics.duplicates(within),
    'nearest_train_iou': nearest.mean(),
    'occupancy': (shapes > 0.5).mean(),
  }
  if copy_iou is not None:
    result['copy_rate'] = (nearest > copy_iou).mean()
  if classifier is not None:
    prediction = classifier.predict(np.asarray(shapes))
    p = prediction.probabilities
    if label is None:
      # In random order: the parts must not be of one category each.
      p = p[np.random.default_rng(0).permutation(len(p))]
      score, deviation = metrics.inception_score(p, min(splits, len(p)))
      result |= {'inception_score': score, 'inception_std': deviation}
    else:
      result |= {
        'class_probability': metrics.class_probability(p, label),
        'classification_error': metrics.classification_error(p, label),
      }
    if test_features is None:
      test_features = classifier.predict(np.asarray(test_shapes)).features
    result |= {
      'rejected': (prediction.none > 0.5).mean(),
      'frechet': metrics.frechet_distance(prediction.features, test_features),
    }
  return {
    name: round(float(value), 6 if name == 'mmd_chamfer' else 4)
    for name, value in result.items()
  }


def copy_threshold(test: np.ndarray, train: np.ndarray) -> float:
  """The IoU with the nearest training shape above which a shape is a copy.

  One in twenty test shapes is nearer than that. Test shapes that the training
  split holds too, with an IoU of at least 0.95, do not count.

  Args:
    test: `(n, D, H, W)`.
    train: `(m, D, H, W)`.

  Returns:
    The 95th percentile; 0.95 where all test shapes are training shapes too.
  """
  nearest = np.asarray(_iou(jnp.asarray(test), train)).max(axis=1)
  nearest = nearest[nearest < 0.95]
  return float(np.percentile(nearest, 95)) if len(nearest) else 0.95


def _label(classifier, data):
  """The classifier's class of the data, or None for several."""
  if classifier is None or len(data.classes) > 1:
    return None
  (category,) = data.classes
  if category not in classifier.classes:
    raise ValueError(
      f'the classifier knows {", ".join(classifier.classes)}, not '
      f'{category!r}: use '
      "another classifier, or none: --config.evaluate.classifier=''"
    )
  return classifier.classes.index(category)


def read_shapes(path: str, category: str) -> np.ndarray:
  """Shapes `(n, D, H, W)` of a file, to be scored.

  Args:
    path: an .npz file with `voxels`, as `sample` writes it; or a voxel file, of
      which the test split is used, or the training split if there is no other.
    category: of a voxel file: its class, or 'all'.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: when it holds no shapes `(n, D, H, W)` of finite numbers.
  """
  if not os.path.exists(path):
    raise FileNotFoundError(f'{path} does not exist')
  with np.load(path) as file:
    shapes = file['voxels'] if 'voxels' in file.files else None
  if shapes is None:
    classes = None if category == 'all' else (category,)
    voxels = voxel_file.load(path, classes=classes).voxels
    shapes = voxels.get('test', voxels.get('train'))
  if shapes is None or shapes.ndim != 4 or len(shapes) < 2:
    raise ValueError(
      f'{path} must hold at least 2 shapes (n, D, H, W), got '
      f'{None if shapes is None else shapes.shape}'
    )
  if not np.isfinite(shapes).all():
    raise ValueError(f'{path} has voxels that are not finite')
  return shapes


def compare(
  sets: Mapping[str, Sequence[np.ndarray]],
  data: datasets.Dataset,
  settings: ml_collections.ConfigDict,
  classifier: classifiers.EvaluationClassifier | None,
) -> dict[str, dict[str, float]]:
  """Scores of sets of shapes, beside real shapes and two lower bounds.

  Args:
    sets: by name one or more draws of a set, `(n, D, H, W)` each.
    data: with test shapes.
    settings: `config.evaluate`.
    classifier: or None.

  Returns:
    Scores by name of the set, means over its draws; `draws` is their number
    where there are several. There are four more names: 'training shapes', an
    upper bound; 'test shapes', without scores against themselves; and the lower
    bounds 'mean shape' and 'noise'.

  Raises:
    ValueError: when grids differ, or the classifier does not know the category.
  """
  rng = np.random.default_rng(0)

  def some(shapes, most):
    count = min(len(shapes), most)
    return shapes[np.sort(rng.permutation(len(shapes))[:count])]

  test = some(data.test, settings.num_shapes)
  # All sets have the same size: 1-NN accuracies depend on it.
  training = [some(data.train, len(test)) for _ in range(settings.draws)]
  grid = test.shape[1:]
  for name, draws in sets.items():
    for shapes in draws:
      if shapes.shape[1:] != grid:
        raise ValueError(
          f'the {name} have grids of {shapes.shape[1:]} voxels, but the test '
          f'shapes of {grid}'
        )
  mean = data.train.mean(axis=0, dtype=np.float32)
  sets = {
    **sets,
    'training shapes': training,
    'test shapes': [test],
    'mean shape': [np.repeat(mean[None], len(test), axis=0)],
    'noise': [rng.random(test.shape).astype(np.float32)],
  }
  features = None if classifier is None else classifier.predict(test).features
  copy_iou = copy_threshold(data.test, data.train)
  table = {}
  for name, draws in sets.items():
    found = [
      scores(
        shapes,
        data.train,
        test,
        same=name == 'training shapes',
        classifier=classifier,
        test_features=features,
        label=_label(classifier, data),
        splits=settings.splits,
        copy_iou=copy_iou,
      )
      for shapes in draws
    ]
    table[name] = _mean(found) | {'shapes': len(draws[0])}
    if draws[1:]:
      table[name]['draws'] = len(draws)
  for name in _AGAINST_TEST:
    table['test shapes'].pop(name, None)
  return table


def _mean(found):
  """The means of dicts of floats that have the same names.

  The deviation of an inception score is then that of the draws.
  """
  if not found[1:]:
    return found[0]
  mean = {
    name: round(float(np.mean([x[name] for x in found])), 6)
    for name in found[0]
  }
  if 'inception_std' in mean:
    scores = [x['inception_score'] for x in found]
    mean['inception_std'] = round(float(np.std(scores)), 6)
  return mean


def own_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Intersection over union of each shape with its original, `(n,)`.

  Args:
    a: shapes `(n, ...)`, occupied above 0.5.
    b: their originals.

  >>> own_iou(np.ones((1, 2)), np.array([[0, 1]])).tolist()
  [0.5]
  """
  a, b = (np.asarray(x).reshape(len(x), -1) > 0.5 for x in (a, b))
  either = (a | b).sum(axis=1)
  return np.where(either, (a & b).sum(axis=1) / np.maximum(either, 1), 1.0)


def _rounded(scores):
  return {name: round(float(np.mean(x)), 5) for name, x in scores.items()}


def recovery_scores(
  recovered: np.ndarray, voxels: np.ndarray, visible: np.ndarray
) -> dict[str, float]:
  """Table 4's error, real-valued and of thresholded voxels, and IoU.

  `error_surface` is over the hidden voxels next to the surface, thresholded:
  those with one of their six neighbours on the other side. It depends less on
  how much of the grid a shape fills.

  Args:
    recovered: `(n, D, H, W)`.
    voxels: the originals.
    visible: boolean; errors are over the others, IoU is of whole shapes.
  """
  y = np.clip(recovered, 0, 1)
  near = _surface(voxels) & ~visible
  wrong = (y > 0.5) != (np.asarray(voxels) > 0.5)
  return _rounded(
    {
      'error': metrics.recovery_error(y, voxels, visible),
      'error_binary': metrics.recovery_error(y, voxels, visible, threshold=0.5),
      'error_surface': wrong[near].sum() / max(near.sum(), 1),
      'iou': own_iou(y, voxels),
    }
  )


def _surface(voxels):
  """True where one of a voxel's six neighbours differs from it."""
  full = np.asarray(voxels) > 0.5
  near = {
    'footprint': ndimage.generate_binary_structure(3, 1)[None],
    'mode': 'nearest',
  }
  most = ndimage.maximum_filter(full, **near)
  return most != ndimage.minimum_filter(full, **near)


def super_resolution_scores(
  y: np.ndarray, voxels: np.ndarray
) -> dict[str, float]:
  """Mean absolute difference, real-valued and thresholded, IoU, surfaces.

  Args:
    y: `(n, D, H, W)`.
    voxels: the originals.

  Returns:
    Means over shapes; `chamfer` as `metrics.chamfer_distances`, a thousand
    times; `f_score` of surfaces within one voxel.
  """
  y = np.clip(y, 0, 1)
  voxels = np.asarray(voxels, np.float32)
  return _rounded(
    {
      'error': np.abs(y - voxels),
      'error_binary': (y > 0.5) != (voxels > 0.5),
      'iou': own_iou(y, voxels),
      'chamfer_1000': [
        1000 * _chamfer(a[None], b[None])
        for a, b in zip(y, voxels, strict=True)
      ],
      'f_score': [
        _f_scores(a[None], b[None]) for a, b in zip(y, voxels, strict=True)
      ],
    }
  )
