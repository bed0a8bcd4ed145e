"""Section 6.5: how useful the features of a descriptor are to a classifier.

A descriptor that has learned without labels is the feature extractor: its
feature maps are max-pooled and concatenated (8,100 numbers for the paper's
network), and logistic regression, one versus all, learns from them and from
the labels of all training shapes or of a few. For comparison, the same
regression uses raw voxels, their principal components, and the features of the
same network before it has learned. Table 5.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import math
import os
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg
from scipy import optimize
from scipy import special
from scipy.linalg import blas
from sklearn import decomposition
from sklearn import model_selection
from sklearn import preprocessing

from data_prep import voxel_file
import dnet_jax
from dnet_jax import features
from dnet_jax import types
from dnet_jax import uses
from experiments import batches
from experiments.files import figures
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import parts

_COMPONENTS = 200  # Principal components of the baseline.
# Strengths of regularisation to choose from: C of scikit-learn.
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 3
_MAX_ITER = 1000
# Tolerances at which a fit ends. A coarse one is enough to compare strengths;
# the last fit is exact, so that its accuracy does not depend on the order of
# sums.
_TOLERANCE, _LAST_TOLERANCE = 1e-3, 1e-7
_BATCH = 128  # Shapes.
_COLUMNS = 2048  # Features that are multiplied at once.
# A shape and its left-right mirror image: most furniture is symmetric.
_VIEWS = ((), (1,))


def extract(
  model: dnet_jax.Model,
  voxels: np.ndarray,
  poolings: Mapping[str, Sequence[int]],
  mirrors: Sequence[tuple[int, ...]] = ((),),
) -> dict[str, np.ndarray]:
  """Pooled features of shapes, of several poolings of the same feature maps.

  Args:
    model: with a descriptor.
    voxels: `(n, D, H, W)`.
    poolings: for each name the windows of the max pooling, one a layer.
    mirrors: for each view of a shape the axes along which it is flipped, the
      shape itself first.

  Returns:
    For each name `(n, features)` float32, of the shape itself; and with more
    views than one also '<name>, pooled over mirror images' of the first name,
    see `pool_views`.
  """

  @jax.jit
  def look(model, some):
    maps = uses.feature_maps(model, some)
    found = {
      name: features.pool_feature_maps(maps, windows)
      for name, windows in poolings.items()
    }
    first, windows = next(iter(poolings.items()))
    views = [found[first]]
    for axes in mirrors[1:]:
      maps = uses.feature_maps(model, jnp.flip(some, axes))
      views.append(features.pool_feature_maps(maps, windows))
    if mirrors[1:]:
      name = f'{first}, pooled over mirror images'
      found[name] = pool_views(jnp.stack(views, axis=1))
    return found

  # Two batches at a time, since parts of a convolution use one core only.
  return batches.map_batches(
    lambda some: look(model, some), voxels, size=_BATCH, workers=2
  )


def pool_views(x: types.Array) -> types.Array:
  """Features that do not change under flips: mean and maximum over the views.

  Args:
    x: `(n, views, features)`, the views a group of mirror images.

  Returns:
    `(n, 2 * features)`.

  >>> pool_views(jnp.array([[[0.0, 2.0], [1.0, 0.0]]])).tolist()
  [[0.5, 1.0, 1.0, 2.0]]
  """
  return jnp.concatenate([x.mean(axis=1), x.max(axis=1)], axis=1)


def _products(x: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
  """`x x^T`, or `other x^T`, in double precision, some features at a time."""
  found = np.zeros((len(x if other is None else other), len(x)), order='F')
  for i in range(0, x.shape[1], _COLUMNS):
    some = x[:, i : i + _COLUMNS].astype(np.float64)
    if other is None:
      # Half the work: the lower triangle.
      found = blas.dsyrk(1.0, some, 1.0, found, lower=1, overwrite_c=1)
    else:
      found += other[:, i : i + _COLUMNS].astype(np.float64) @ some.T
  if other is None:
    found += np.tril(found, -1).T
  return found


def _rotated(
  products: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Coordinates in the span of the shapes that are fitted.

  Regression with an l2 penalty finds a solution in the span of the training
  shapes, so that nothing is lost by rotating into it. With `x x^T = L L^T`, the
  rows of L are such coordinates, with less work than an orthonormal basis.

  Args:
    products: `x x^T` of the features of these shapes, `(n, n)`.
    others: `y x^T` of further ones, `(m, n)`.

  Returns:
    `(n, n)` and `(m, n)`.
  """
  # Centred features span one dimension less than there are shapes.
  n = len(products)
  products = products.copy()
  products[np.diag_indices(n)] += 1e-10 * np.trace(products) / n
  root = linalg.cholesky(products, lower=True, check_finite=False)
  others = linalg.solve_triangular(root, others.T, lower=True).T
  return root, others


def _margins(x, is_class, other, strengths, tol):
  """Margins of other shapes, from regressions of one class against the rest.

  All classes are fitted at once by L-BFGS, in coordinates in which a bound of
  the Hessian is at most 1 (Boehning and Lindsay 1988). This needs a tenth of
  the steps.

  Args:
    x: features `(n, d)`.
    is_class: `(n, classes)` booleans; each column must have True and False.
    other: features `(m, d)`.
    strengths: C of each regression, increasing: each begins where the one
      before ended.
    tol: largest slope, of the mean loss in these coordinates, at which a fit
      ends.

  Returns:
    `(strengths, m, classes)`.
  """
  n, d = x.shape
  signs = np.where(is_class, 1, -1).astype(x.dtype)
  gram = blas.dsyrk(1.0, x.astype(np.float64), trans=1)
  weights, offsets = (
    np.zeros((d, signs.shape[1])),
    np.zeros((1, signs.shape[1])),
  )
  found = []
  for strength in strengths:
    # The Hessian is at most that of all probabilities at one half.
    bound = strength / 4 * gram
    bound[np.diag_indices(d)] += 1
    metric = linalg.cholesky(bound, overwrite_a=True, check_finite=False)
    metric = metric.astype(x.dtype)
    solve = functools.partial(
      linalg.solve_triangular, metric, check_finite=False
    )
    inner = solve(x.T, trans='T')
    # SciPy's product, since L-BFGS uses SciPy's threads: NumPy's threads and
    # these would wait for each other.
    gemm = linalg.get_blas_funcs('gemm', (inner,))
    scale = math.sqrt(strength * n / 4)

    def loss(position, gemm=gemm, inner=inner, strength=strength, scale=scale):
      position = position.reshape(d + 1, -1).astype(x.dtype)
      position, offsets = position[:d], position[d:] / scale
      scores = gemm(1, inner, position, trans_a=1)
      margins = signs * (scores + offsets)
      # The penalty, in these coordinates.
      value = ((position**2).sum() - strength / 4 * (scores**2).sum()) / 2
      value += strength * np.logaddexp(0, -margins).sum()
      slopes = -strength * signs * special.expit(-margins)
      slope = np.concatenate([
        gemm(1, inner, slopes - strength / 4 * scores) + position,
        slopes.sum(axis=0, keepdims=True) / scale,
      ])  # fmt: skip
      slope = slope.ravel().astype(np.float64)
      return float(value) / (strength * n), slope / (strength * n)

    start = np.concatenate([metric @ weights, offsets * scale])
    end = optimize.minimize(
      loss,
      start.ravel(),
      jac=True,
      method='L-BFGS-B',
      options={'gtol': tol, 'ftol': 0, 'maxiter': _MAX_ITER},
    ).x.reshape(d + 1, -1)
    weights, offsets = solve(end[:d]), end[d:] / scale
    found.append(other @ weights + offsets)
  return np.stack(found)


def _predict(x, labels, other, strengths, tol):
  """Labels of other shapes by regression, one versus all.

  Args:
    x: features `(n, d)` of the shapes that are fitted.
    labels: `(n,)`.
    other: features `(m, d)` of the shapes whose labels are predicted.
    strengths: C, increasing.
    tol: see `_margins`.

  Returns:
    `(strengths, m)`.
  """
  classes = np.unique(labels)
  if len(classes) == 1:
    return np.full((len(strengths), len(other)), classes[0])
  is_class = labels[:, None] == classes
  margins = _margins(x, is_class, other, strengths, tol)
  return classes[margins.argmax(axis=2)]


def scaled(x: np.ndarray, x_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Features as the regression sees them.

  The square root of each feature, with its sign, so that a filter that answers
  strongly to a few shapes does not outweigh the others; then standardised by
  the training shapes; then all shapes of one length (Perronnin, Sanchez and
  Mensink 2010, power and l2 normalisation).

  Args:
    x: features `(n, d)` of the training shapes.
    x_test: features `(m, d)`.

  Returns:
    `(n, d)` and `(m, d)`, with a mean square of 1 in each row.

  >>> x = np.array([[0.0, 4.0], [4.0, 0.0]])
  >>> scaled(x, np.array([[9.0, 1.0]]))[1].round(3).tolist()
  [[1.414, 0.0]]
  """
  root, root_test = (np.sign(v) * np.sqrt(np.abs(v)) for v in (x, x_test))
  scaler = preprocessing.StandardScaler().fit(root)
  length = math.sqrt(x.shape[1])
  # A shape whose features are all average has no direction, and stays 0.
  return tuple(
    length * preprocessing.normalize(scaler.transform(v))
    for v in (root, root_test)
  )


def accuracy(
  x: np.ndarray,
  labels: np.ndarray,
  x_test: np.ndarray,
  test_labels: np.ndarray,
  seed: int = 0,
) -> tuple[float, float]:
  """Test accuracy of logistic regression, one versus all.

  The features are `scaled`. The regularisation is the one that is best in
  three-fold cross-validation among the training shapes; then the regression is
  fitted to all of them. (A single held-out part is too few: near copies of it
  among the other shapes make it easy, and the best strengths differ by less
  than its noise.)

  Args:
    x: features `(n, d)` of the training shapes.
    labels: theirs, `(n,)`.
    x_test: features `(m, d)`.
    test_labels: `(m,)`.
    seed: of the folds.

  Returns:
    The accuracy, and C.
  """
  x, x_test = scaled(x, x_test)
  wide = x.shape[1] > len(x)
  if wide:
    products, others = _products(x), _products(x, x_test)
  right = np.zeros(len(_STRENGTHS), int)
  folds = model_selection.KFold(_FOLDS, shuffle=True, random_state=seed)
  for inside, outside in folds.split(x):
    if wide:
      parts = _rotated(
        products[np.ix_(inside, inside)], products[np.ix_(outside, inside)]
      )
    else:
      parts = x[inside], x[outside]
    parts = [part.astype(np.float32) for part in parts]
    guesses = _predict(
      parts[0], labels[inside], parts[1], _STRENGTHS, _TOLERANCE
    )
    right += (guesses == labels[outside]).sum(axis=1)
  best = _STRENGTHS[int(right.argmax())]
  parts = _rotated(products, others) if wide else (x, x_test)
  guesses = _predict(parts[0], labels, parts[1], (best,), _LAST_TOLERANCE)[0]
  return float((guesses == test_labels).mean()), best


def few(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
  """Indices of a share of the shapes, stratified, at least one of each class.

  >>> few(np.repeat([0, 1], [100, 20]), 0.1, 0).shape
  (12,)
  >>> labels = np.repeat([0, 1], [100, 20])
  >>> labels[few(labels, 0.01, 0)].tolist()
  [0, 1]
  """
  if not 0 < fraction <= 1:
    raise ValueError(f'probe.fractions must be in (0, 1], got {fraction}')
  rng = np.random.default_rng(seed)
  chosen = []
  for label in np.unique(labels):
    of_class = rng.permutation(np.flatnonzero(labels == label))
    chosen.append(of_class[: max(round(fraction * len(of_class)), 1)])
  return np.sort(np.concatenate(chosen))


def compare(
  extractors: Mapping[str, tuple[np.ndarray, np.ndarray]],
  labels: np.ndarray,
  test_labels: np.ndarray,
  *,
  fractions: Sequence[float],
  draws: int,
) -> dict[str, Any]:
  """Accuracies by kind of feature and by share of the labels.

  Args:
    extractors: for each name, features of training, `(n, d)`, and of test
      shapes, `(m, d)`.
    labels: of the training shapes.
    test_labels: of the test shapes.
    fractions: shares of the training shapes whose labels are known; 1: all.
    draws: of a share below 1.

  Returns:
    For each name `features` (their number) and `accuracy`: for each share, as
    a string, `mean` and `std` over the draws, the labels of one draw, the
    draws and the C that each chose.
  """
  table = {}
  for name, (x, x_test) in extractors.items():
    table[name] = {'features': x.shape[1], 'accuracy': {}}
    for fraction in fractions:
      values, strengths = [], []
      for draw in range(draws if fraction < 1 else 1):
        chosen = few(labels, fraction, draw)
        value, strength = accuracy(
          x[chosen], labels[chosen], x_test, test_labels, draw
        )
        values.append(value)
        strengths.append(strength)
      table[name]['accuracy'][f'{fraction:g}'] = {
        'mean': round(float(np.mean(values)), 4),
        'std': round(float(np.std(values)), 4),
        'labels': len(chosen),
        'draws': len(values),
        'C': strengths,
      }
      logging.info(
        '%s, %g of the labels: %.4f (C %s)',
        name,
        fraction,
        np.mean(values),
        strengths,
      )
  return table


def untrained(model: dnet_jax.Model, seed: int) -> dnet_jax.Model:
  """The same network before it has learned."""
  network = uses.descriptor(model.spec)
  none = jnp.zeros((0, *model.spec.grid, 1))
  variables = jax.jit(network.init)(jax.random.key(seed), none)
  return dataclasses.replace(model, params={'descriptor': variables})


def _picture(path):
  return os.path.splitext(path)[0] + '.png'


def probe(request: base.Request) -> dict[str, Any]:
  """Scores a model as a feature extractor: Table 5.

  Returns:
    What is written to `evaluations/probe.json`, `_001`, ..., with a picture
    of the same name.

  Raises:
    FileExistsError: when the file to write to as well, or its picture, exists.
    ValueError: for a model without a descriptor, or data without test shapes
      or with one class only.
  """
  if request.out is not None:
    voxel_file.refuse_existing(request.out)
    voxel_file.refuse_existing(_picture(request.out))
  settings, model = request.config.probe, request.model
  data = parts.data(request.config)
  if not len(data.test) or len(data.classes) < 2:
    raise ValueError(
      f'{data.source} has {len(data.test)} test shapes of '
      f'{len(data.classes)} classes: use --config.data.category=all'
    )
  both = data.train, data.test
  poolings = {'ours': settings.windows}
  if settings.more_windows:
    poolings['ours, finer pooling'] = settings.more_windows
  # What has not learned is a floor, and needs no further rows.
  floor = {'the same network, untrained': settings.windows}
  mirrors = _VIEWS if settings.mirror else ((),)
  found = [
    extract(model, v, poolings, mirrors)
    | extract(untrained(model, request.config.seed), v, floor)
    for v in both
  ]
  extractors = {name: (x, found[1][name]) for name, x in found[0].items()}
  raw = [v.reshape(len(v), -1).astype(np.float32) for v in both]
  number = min(_COMPONENTS, *raw[0].shape)
  principal = decomposition.PCA(number, random_state=0).fit(raw[0])
  extractors['principal components'] = [principal.transform(x) for x in raw]
  extractors['raw voxels'] = raw
  result = outputs.header(request.card['name']) | {
    'table': 'classification',
    'data': data.source,
    'train_shapes': len(data.train),
    'test_shapes': len(data.test),
    'card': {k: x for k, x in request.card.items() if k != 'config'},
    'settings': {
      k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()
    },
    'scores': compare(
      extractors,
      data.train_labels,
      data.test_labels,
      fractions=settings.fractions,
      draws=settings.draws,
    ),
  }
  path = outputs.write_result(request.folder, 'probe', result, request.out)
  for name in filter(None, (path, request.out)):
    figures.few_labels(_picture(name), result['scores'])
  for name, row in result['scores'].items():
    print(f'{name:30}{row["features"]:8}', end='')
    for value in row['accuracy'].values():
      print(f'{value["mean"]:10.4f} ({value["std"]:.4f})', end='')
    print()
  return result


MODES = {
  'probe': base.Mode(
    probe,
    'scores its features by logistic regression, Table 5',
    takes=('config', 'out'),
    fits=base.has_one_descriptor,
  )
}
