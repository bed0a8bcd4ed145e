"""A classifier of shapes, and an ensemble of them."""

from collections.abc import Callable
from collections.abc import Sequence
import math

import flax.linen as nn
import jax.numpy as jnp

from dnet_jax import convolution
from dnet_jax import types
from dnet_jax.networks import layers


class Classifier(nn.Module):
  """A classifier of shapes, such as the evaluation classifier of section 6.1.

  Correlations, batch normalisation and ReLU; then the maximum in each octant
  of the grid (shapes stand upright, so the position of a part says something),
  a hidden layer, dropout and a linear layer.

  Attributes:
    num_classes: number of logits.
    features: channels of each convolutional layer.
    kernel_sizes: sides of their cubic kernels.
    strides: their sub-sampling factors.
    hidden: units of the hidden layer.
    dropout: share of inputs and outputs of the hidden layer that are dropped
      in learning.
    axis_name: device axis over which batch statistics are averaged, if any.
    method: of the convolution, one of `convolution.METHODS`; None: the fastest
      for these sizes on the platform that it is lowered for.
    precision: of the products of convolutions, one of `convolution.PRECISIONS`;
      None: as `convolution.correlate` says. Dense layers have at least this
      precision; None: JAX's default.

  >>> import jax
  >>> net = Classifier(10, (4,), kernel_sizes=(3,), strides=(2,), hidden=6)
  >>> y = jnp.zeros((2, 8, 8, 8, 1))
  >>> variables = net.init(jax.random.key(0), y, train=False)
  >>> net.apply(variables, y, train=False).shape
  (2, 10)
  >>> net.apply(variables, y, method='hidden_features').shape
  (2, 6)
  """

  num_classes: int
  features: Sequence[int]
  kernel_sizes: Sequence[int]
  strides: Sequence[int]
  hidden: int = 128
  dropout: float = 0.5
  axis_name: str | None = None
  method: str | None = None
  precision: str | None = None

  def setup(self):
    """Builds the layers; refuses sizes that are empty or not equally long."""
    layers.check_sizes(
      features=self.features,
      kernel_sizes=self.kernel_sizes,
      strides=self.strides,
    )
    self.layers = [
      layers.Conv(
        n,
        k,
        s,
        init_std=(2 / (k**3 * c)) ** 0.5,
        method=self.method,
        precision=self.precision,
      )
      for n, k, s, c in zip(
        self.features,
        self.kernel_sizes,
        self.strides,
        (1, *self.features[:-1]),
        strict=True,
      )
    ]
    self.norms = [
      nn.BatchNorm(momentum=0.9, axis_name=self.axis_name)
      for _ in self.features
    ]
    self.drop = nn.Dropout(self.dropout)
    precision = convolution.of_lax(self.precision)
    self.middle = nn.Dense(self.hidden, precision=precision)
    self.last = nn.Dense(self.num_classes, precision=precision)

  def hidden_features(self, y: types.Array, train: bool = False) -> types.Array:
    """Features `(*chains, hidden)` that the last layer gets; see `__call__`."""
    for layer, norm in zip(self.layers, self.norms, strict=True):
      y = nn.relu(norm(layer(y), use_running_average=not train))
    windows = tuple(-(-side // 2) for side in y.shape[-4:-1])
    y = nn.max_pool(y, windows, windows, 'SAME')
    y = y.reshape(*y.shape[:-4], math.prod(y.shape[-4:]))
    return nn.relu(self.middle(self.drop(y, deterministic=not train)))

  def __call__(self, y: types.Array, train: bool) -> types.Array:
    """Logits `(*chains, num_classes)` of shapes `(*chains, D, H, W, C)`.

    Args:
      y: shapes.
      train: True: batch statistics and dropout (needs
        `rngs={'dropout': key}` and `mutable=['batch_stats']`).
    """
    h = self.hidden_features(y, train)
    return self.last(self.drop(h, deterministic=not train))


class Ensemble(nn.Module):
  """Classifiers with different initial weights, whose answers are averaged.

  Their mean probabilities are more often right than those of one network,
  better calibrated, and less confident about grids that are not shapes
  (Lakshminarayanan et al., Simple and scalable predictive uncertainty
  estimation using deep ensembles, 2017).

  Attributes:
    members: classifiers of the same classes.

  >>> import jax
  >>> one = Classifier(10, (4,), kernel_sizes=(3,), strides=(2,), hidden=6)
  >>> net = Ensemble((one.clone(), one.clone()))
  >>> y = jnp.zeros((2, 8, 8, 8, 1))
  >>> net.init_with_output(jax.random.key(0), y, train=False)[0].shape
  (2, 10)
  """

  members: Sequence[nn.Module]

  def hidden_features(self, y: types.Array, train: bool = False) -> types.Array:
    """Features of all members, `(*chains, members * hidden)`."""
    return jnp.concatenate(
      [member.hidden_features(y, train) for member in self.members], axis=-1
    )

  def __call__(self, y: types.Array, train: bool) -> types.Array:
    """Logits of shapes, as `Classifier`.

    Args:
      y: shapes `(*chains, D, H, W, C)`.
      train: as in `Classifier`.

    Returns:
      Logarithms of the mean probabilities, `(*chains, num_classes)`. With
      `train`, logits of each member, `(members, *chains, num_classes)`: they
      learn side by side, not as one.
    """
    logits = jnp.stack([member(y, train) for member in self.members])
    if train:
      return logits
    return nn.logsumexp(nn.log_softmax(logits), axis=0) - math.log(
      len(self.members)
    )


def classifier_fn(
  classifier: nn.Module,
) -> Callable[..., tuple[types.Array, types.PyTree]]:
  """A classifier as a function, for `learning.classification_loss`.

  Args:
    classifier: a `Classifier` or `Ensemble`.

  Returns:
    `(params, model_state, y, key) -> (logits, model_state)`.
  """

  def classify(params, model_state, y, key):
    return classifier.apply(
      {**params, **model_state},
      y,
      train=True,
      rngs={'dropout': key},
      mutable=['batch_stats'],
    )

  return classify
