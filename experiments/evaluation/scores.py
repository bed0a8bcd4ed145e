"""Scores of sets of voxel shapes, with and without a classifier."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from data_prep import voxel_file
from dnet_jax import metrics
from experiments.evaluation import classifier as classifiers

# Compiled as a whole: a loop that runs op by op is compiled in every call.
_iou = jax.jit(metrics.iou)
_chamfer = jax.jit(metrics.chamfer_distances)
_jensen_shannon = jax.jit(metrics.jensen_shannon_divergence)
# What compares with the test shapes, and so says nothing of themselves.
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
) -> dict[str, float]:
  """Scores a set of shapes against training and test shapes.

  Args:
    shapes: `(n, D, H, W)`; occupied above 0.5.
    train_shapes: `(m, D, H, W)`.
    test_shapes: `(k, D, H, W)`, the references.
    same: whether `shapes` are training shapes themselves: then the nearest
      training shape is another one.
    surfaces: False: no scores of surfaces, which a coarse grid hardly has.
    classifier: says what the shapes are; None: no scores by it.
    test_features: what the classifier makes of the test shapes, where that
      is known already.
    label: index of the classifier's class that was meant; None: all of them.
    splits: of the inception score.

  Returns:
    A dict of floats. Against the test shapes, by 1 - IoU of voxels and by the
    Chamfer distance of surfaces: 1-NN accuracy (0.5 is best), coverage and
    minimum matching distance; the Jensen-Shannon divergence of surfaces; the
    Frechet distance of the classifier's features. Of the set itself: mean
    pairwise IoU, share of duplicates, occupancy. Against the training shapes:
    mean IoU with the nearest, share of copies (an IoU of at least 0.95). By the
    classifier: share that is rejected; class probability and classification
    error of one class, or the inception score and its deviation over the
    splits.
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
    'copies': (nearest >= 0.95).mean(),
    'occupancy': (shapes > 0.5).mean(),
  }
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


def _label(classifier, data):
  """The classifier's class of the data, or None for several."""
  if classifier is None or len(data.classes) > 1:
    return None
  (category,) = data.classes
  if category not in classifier.classes:
    raise ValueError(
      f'the classifier knows {", ".join(classifier.classes)}, not '
      f'{category!r}: use '
      "another one, or --config.evaluate.classifier=''"
    )
  return classifier.classes.index(category)


def read_shapes(path: str, category: str) -> np.ndarray:
  """Shapes `(n, D, H, W)` of a file, to be scored.

  Args:
    path: an .npz file with `voxels`, as `sample` writes it; or a voxel file,
      of which the test split is taken, or else the training split.
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


def compare(sets, data, settings, classifier):
  """Scores of sets of shapes beside those of real shapes and of two floors.

  Args:
    sets: `(n, D, H, W)` arrays by name.
    data: a `datasets.Dataset` with test shapes.
    settings: `config.evaluate`.
    classifier: or None.

  Returns:
    Scores by name of the set; more names are 'training shapes', the ceiling,
    'test shapes' (what does not compare with themselves), 'mean shape' and
    'noise', the floors.

  Raises:
    ValueError: when grids differ, or the classifier does not know the category.
  """
  rng = np.random.default_rng(0)

  def some(shapes):
    count = min(len(shapes), settings.num_shapes)
    return shapes[np.sort(rng.permutation(len(shapes))[:count])]

  test, training = some(data.test), some(data.train)
  grid = test.shape[1:]
  for name, shapes in sets.items():
    if shapes.shape[1:] != grid:
      raise ValueError(
        f'the {name} have grids of {shapes.shape[1:]} voxels, those they are '
        f'compared with {grid}'
      )
  mean = data.train.mean(axis=0, dtype=np.float32)
  sets = {
    **sets,
    'training shapes': training,
    'test shapes': test,
    'mean shape': np.repeat(mean[None], len(test), axis=0),
    'noise': rng.random(test.shape).astype(np.float32),
  }
  features = None if classifier is None else classifier.predict(test).features
  table = {
    name: scores(
      shapes,
      data.train,
      test,
      same=name == 'training shapes',
      classifier=classifier,
      test_features=features,
      label=_label(classifier, data),
      splits=settings.splits,
    )
    | {'shapes': len(shapes)}
    for name, shapes in sets.items()
  }
  for name in _AGAINST_TEST:
    table['test shapes'].pop(name, None)
  return table


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

  Args:
    recovered: `(n, D, H, W)`.
    voxels: the originals.
    visible: boolean; errors are over the others, IoU is of whole shapes.
  """
  y = np.clip(recovered, 0, 1)
  return _rounded(
    {
      'error': metrics.recovery_error(y, voxels, visible),
      'error_binary': metrics.recovery_error(y, voxels, visible, threshold=0.5),
      'iou': own_iou(y, voxels),
    }
  )


def super_resolution_scores(
  y: np.ndarray, voxels: np.ndarray
) -> dict[str, float]:
  """Mean absolute difference, real-valued and thresholded, IoU, Chamfer.

  Args:
    y: `(n, D, H, W)`.
    voxels: the originals.

  Returns:
    Means over shapes; `chamfer` as `metrics.chamfer_distances`, a thousand
    times.
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
    }
  )
