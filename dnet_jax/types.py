"""Types that the whole library shares.

A shape is an array `(*chains, D, H, W, C)`: any number of leading chain axes,
a voxel grid and a channel axis (1 for occupancy). An energy is `(*chains,)`.
A position of chains is one such array or any pytree of arrays, each of which
begins with the chain axes, such as shapes with their latent factors.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Array = jax.Array
Key = jax.Array
PyTree = Any
Params = Any
# A prefix of a pytree: in place of each array or subtree an axis, or None.
Axes = Any

# Where chains are: an array, or a pytree of arrays with the same chain axes.
Position = Any
# energy_fn(y) -> (*chains,): parameters are already bound.
EnergyFn = Callable[[Position], Array]
# An orthogonal projector: dy -> dy, the directions in which a chain may move.
Projection = Callable[[Position], Position]
# A network as a function, with or without its parameters bound; Any, since the
# `apply` of Flax gives an array or, where something is mutable, a pair.
NetworkFn = Callable[..., Any]
# loss_fn(params, model_state, *args) -> (loss, (model_state, metrics)).
LossFn = Callable[..., tuple[Array, tuple[PyTree, dict[str, Array]]]]


def known(x: Any) -> np.ndarray | None:
  """A number as a NumPy array; None where it is traced and has no value yet.

  Inside `jit`, what JAX computes from a known number is traced too, such as
  `x > 0`: checks use this instead.

  >>> known(0.5), jax.jit(lambda x: x + (known(x) is None))(1.0).item()
  (array(0.5), 2.0)
  """
  try:
    return np.asarray(x, np.float64)
  except (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
  ):
    return None
