"""What a model says about given shapes: features (6.5) and classes (6.1)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnet_jax import features
from dnet_jax import learning
from dnet_jax import models
from dnet_jax import networks
from dnet_jax import specs
from dnet_jax import types
from dnet_jax.uses import base

# The mirror images of an upright shape: axes of (n, D, H, W) to be flipped.
MIRRORS = ((), (1,), (2,), (1, 2))


def pooled_features(
  model: models.Model,
  voxels: types.Array,
  windows: Sequence[int] = (4, 2),
) -> types.Array:
  """The feature vector of section 6.5: feature maps, max-pooled.

  With the paper's network and windows 4 and 2 a 32^3 grid has 27 * 200 +
  27 * 100 = 8,100 features.

  Args:
    model: with a descriptor; of a multi-grid model that of the finest grid.
    voxels: `(*chains, D, H, W)`.
    windows: side of the pooling, one for each layer.

  Returns:
    `(*chains, features)`.

  Raises:
    ValueError: for a model without a descriptor, another grid, or another
      number of windows.

  >>> model = models.load('demo')
  >>> pooled_features(model, jnp.zeros((2, 32, 32, 32))).shape
  (2, 3456)
  """
  return _pooled_features(model, jnp.asarray(voxels), tuple(windows))


@jax.jit(static_argnames='windows')
def _pooled_features(model, voxels, windows):
  return features.pool_feature_maps(feature_maps(model, voxels), windows)


def feature_maps(
  model: models.Model, voxels: types.Array
) -> tuple[types.Array, ...]:
  """The output of each layer of the descriptor but the last, for shapes.

  For several poolings of the same maps; call it inside `jax.jit`.

  Args:
    model: with a descriptor; of a multi-grid model that of the finest grid.
    voxels: `(*chains, D, H, W)`.

  Returns:
    `(*chains, D_l, H_l, W_l, C_l)` for each layer.

  Raises:
    ValueError: for a model without a descriptor, or another grid.

  >>> model = models.load('demo')
  >>> [h.shape for h in feature_maps(model, jnp.zeros((2, 32, 32, 32)))]
  [(2, 11, 11, 11, 64), (2, 6, 6, 6, 64)]
  """
  base.need(model.spec, 'descriptor')
  shapes, leading = base.chains_of(model, voxels, 'voxels')
  net = base.descriptor(model.spec)
  net = net.bind(model.params[base.network_name(model.spec)])
  maps = net.feature_maps(base.to_network(model, shapes))
  return tuple(h.reshape(*leading, *h.shape[1:]) for h in maps)


class Classes(NamedTuple):
  """What an evaluation classifier says about shapes.

  A classifier that has learned from mirror images gives means over the four
  mirror images of a shape. The effect of label smoothing on `probabilities` is
  removed.

  Attributes:
    probabilities: `(*chains, classes)`, over the classes without 'none'.
    none: `(*chains,)`, probability that a shape is in none of them; 0 where the
      classifier has no such class.
    features: `(*chains, d)`, of its hidden layer.
  """

  probabilities: types.Array
  none: types.Array
  features: types.Array


def classifier(spec: specs.Spec) -> networks.Classifier | networks.Ensemble:
  """The classifier of a spec, without dropout.

  Raises:
    ValueError: for a model without one.
  """
  base.need(spec, 'classifier')
  sizes = spec.classifier
  assert sizes is not None
  members = [
    networks.Classifier(
      len(sizes.classes) + sizes.negatives,
      sizes.features,
      sizes.kernel_sizes,
      sizes.strides,
      sizes.hidden,
    )
    for _ in range(sizes.members)
  ]
  return networks.Ensemble(members) if members[1:] else members[0]


def classify_shapes(model: models.Model, voxels: types.Array) -> Classes:
  """Classifies shapes with an evaluation classifier.

  Args:
    model: with a classifier; its classes are `model.spec.classifier.classes`.
    voxels: `(*chains, D, H, W)`; thresholded at 0.5 first.

  Returns:
    Probabilities of the classes and of 'none', and features.

  Raises:
    ValueError: for a model without a classifier, or another grid.

  >>> sizes = specs.ClassifierSizes(('chair', 'sofa'), (2,), (3,), (2,), 4)
  >>> spec = specs.Spec((4, 4, 4), classifier=sizes)
  >>> variables = classifier(spec).init(
  ...   jax.random.key(0), jnp.zeros((1, 4, 4, 4, 1)), train=False)
  >>> extras = {'mean': 0.5, 'scale': 1.0, 'label_smoothing': 0.0}
  >>> model = models.Model(spec, {'classifier': variables}, extras)
  >>> classify_shapes(model, jnp.zeros((3, 4, 4, 4))).probabilities.shape
  (3, 2)
  """
  base.need(model.spec, 'classifier')
  shapes, leading = base.chains_of(model, voxels, 'voxels')
  found = _classify(model, shapes)
  return Classes(*(x.reshape(*leading, *x.shape[1:]) for x in found))


@jax.jit
def _classify(model, voxels):
  net, sizes = classifier(model.spec), model.spec.classifier
  net = net.bind(model.params['classifier'])
  y = base.to_network(model, voxels > 0.5)
  # A classifier that has learned from mirror images treats them all alike.
  mirrors = MIRRORS if sizes.mirror else ((),)
  hidden, logits = [], []
  for axes in mirrors:
    image = jnp.flip(y, axes)
    hidden.append(net.hidden_features(image))
    logits.append(net(image, train=False))
  # The logarithm of the mean probabilities, up to a constant for all classes.
  joint = jax.nn.logsumexp(jax.nn.log_softmax(jnp.stack(logits)), axis=0)
  count = len(sizes.classes)
  none = jnp.zeros(len(joint))
  if sizes.negatives:
    none = jax.nn.softmax(joint)[:, count]
  probabilities = learning.unsmoothed(
    jax.nn.softmax(joint[:, :count]), model.extras['label_smoothing']
  )
  return probabilities, none, sum(hidden) / len(mirrors)
