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
import os
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
from sklearn import decomposition

from data_prep import voxel_file
import dnet_jax
from dnet_jax import features
from dnet_jax import types
from dnet_jax import uses
from experiments import batches
from experiments.evaluation import logistic
from experiments.files import figures
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import parts

_COMPONENTS = 200  # Principal components of the baseline.
_BATCH = 128  # Shapes.
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
        value, strength = logistic.accuracy(
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
