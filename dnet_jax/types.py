"""Types that the whole library shares.

A shape is an array `(*chains, D, H, W, C)`: any number of leading chain axes,
a voxel grid and a channel axis (1 for occupancy). An energy is `(*chains,)`.
"""

from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array
Key = jax.Array
PyTree = Any
Params = Any

# energy_fn(y) -> (*chains,): parameters are already bound.
EnergyFn = Callable[[Array], Array]
# An orthogonal projector: dy -> dy, the directions in which a chain may move.
Projection = Callable[[Array], Array]
# loss_fn(params, model_state, *args) -> (loss, (model_state, metrics)).
LossFn = Callable[..., tuple[Array, tuple[PyTree, dict[str, Array]]]]
