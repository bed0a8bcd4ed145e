"""Features: pooled feature maps of a descriptor, section 6.5."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dnet_jax import types


def max_pool(h: types.Array, window: int) -> types.Array:
  """Maximum over blocks of `window`^3; the last block of a side may be short.

  Args:
    h: feature maps `(*chains, D, H, W, C)`.
    window: side of a block, and the stride.

  Returns:
    `(*chains, ceil(D / window), ..., C)`.

  Raises:
    ValueError: when `window` is not positive.

  >>> max_pool(jnp.arange(27.0).reshape(3, 3, 3, 1), 2)[..., 0].max().item()
  26.0
  """
  if window < 1:
    raise ValueError(f'window must be positive, got {window}')
  chains = h.shape[:-4]
  pads = [(0, -n % window) for n in h.shape[-4:-1]]
  return jax.lax.reduce_window(
    h,
    -jnp.inf,
    jax.lax.max,
    (1,) * len(chains) + (window,) * 3 + (1,),
    (1,) * len(chains) + (window,) * 3 + (1,),
    [(0, 0)] * len(chains) + pads + [(0, 0)],
  )


def pool_feature_maps(
  maps: Sequence[types.Array], windows: Sequence[int]
) -> types.Array:
  """The feature vector of section 6.5: each map max-pooled, concatenated.

  With windows 4 and 2 the paper's network has 27 * 200 + 27 * 100 = 8,100
  features of a 32^3 grid.

  Args:
    maps: `(*chains, D_l, H_l, W_l, C_l)`, from `Descriptor.feature_maps`.
    windows: one for each map.

  Returns:
    `(*chains, features)`.

  Raises:
    ValueError: when there is no map, or not as many windows as maps.

  >>> maps = jnp.ones((1, 11, 11, 11, 200)), jnp.ones((1, 6, 6, 6, 100))
  >>> pool_feature_maps(maps, (4, 2)).shape
  (1, 8100)
  """
  if not len(maps):
    raise ValueError('pooled features need at least one feature map, got none')
  if len(maps) != len(windows):
    raise ValueError(
      f'one window for each of the {len(maps)} feature maps is needed, got '
      f'{tuple(windows)}'
    )
  pooled = [max_pool(h, n) for h, n in zip(maps, windows, strict=True)]
  return jnp.concatenate(
    [h.reshape(*h.shape[:-4], -1) for h in pooled], axis=-1
  )
