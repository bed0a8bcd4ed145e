"""Logistic regression, one class against the rest, of many features.

The solutions are those of scikit-learn. The solver is for section 6.5:
thousands of features, several strengths, and all classes at once.
"""

import functools
import math

import numpy as np
from scipy import linalg
from scipy import optimize
from scipy import special
from scipy.linalg import blas
from sklearn import model_selection
from sklearn import preprocessing

# Strengths of regularisation to choose from: C of scikit-learn.
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 3
_MAX_ITER = 1000
# Tolerances at which a fit ends. A coarse one is enough to compare strengths;
# the last fit is exact, so that its accuracy does not depend on the order of
# sums.
_TOLERANCE, _LAST_TOLERANCE = 1e-3, 1e-7
_COLUMNS = 2048  # Features that are multiplied at once.


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
