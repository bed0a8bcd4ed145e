"""Starts: where chains begin, and the directions in which they may move.

A `Start` is a position and a projection. The makers below are the starts of
the paper's algorithms; `chains.run_chains` moves one.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnet_jax import grids
from dnet_jax import kernels
from dnet_jax import projections
from dnet_jax import types


class Start(NamedTuple):
  """Where chains begin, and the directions in which they may move."""

  position: types.Array
  project: types.Projection


class Components(NamedTuple):
  """A mixture of Gaussians in the span of a few directions of the data.

  Attributes:
    mean: of the data, `(D, H, W, C)`.
    directions: orthonormal, `(k, D, H, W, C)`: principal components.
    centers: of the Gaussians, in coordinates along the directions, `(m, k)`.
    deviations: their standard deviations along the directions, `(m, k)`.
    weights: their probabilities, `(m,)`.
  """

  mean: types.Array
  directions: types.Array
  centers: types.Array
  deviations: types.Array
  weights: types.Array


def chain_keys(
  key: types.Key, num_chains: int, axis_name: str | None = None
) -> types.Key:
  """One key for each chain, the same however chains are split over devices.

  Args:
    key: consumed.
    num_chains: chains on this device.
    axis_name: the device axis over which chains are split, if any.

  Returns:
    Keys `(num_chains,)`; chain i of the whole has `fold_in(key, i)`.

  >>> chain_keys(jax.random.key(0), 3).shape
  (3,)
  """
  key, index = kernels.as_key(key), jnp.arange(num_chains)
  if axis_name is not None:
    index = index + jax.lax.axis_index(axis_name) * num_chains
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def from_noise(
  keys: types.Key, shape: Sequence[int], std: float | types.Array = 1.0
) -> Start:
  """White noise N(0, std^2), free to move: a fresh chain for each key.

  Args:
    keys: `(chains,)`, see `chain_keys`.
    shape: of one chain, `(D, H, W, C)`.
    std: standard deviation of each voxel.

  >>> keys = chain_keys(jax.random.key(0), 2)
  >>> from_noise(keys, (4, 4, 4, 1)).position.shape
  (2, 4, 4, 4, 1)
  """
  noise = jax.vmap(lambda key: jax.random.normal(key, tuple(shape)))(keys)
  return Start(std * noise, projections.free())


def from_components(
  keys: types.Key, components: Components, std: float | types.Array = 0.05
) -> Start:
  """Draws of a mixture that is fitted to data, where chains soon find a shape.

  `mean + sum_k (c_k + s_k z_k) v_k + noise`, with centers c and deviations s of
  a Gaussian that is drawn by its weight, and standard normal z.

  Args:
    keys: `(chains,)`, see `chain_keys`.
    components: mean, v, c, s and the weights.
    std: of white noise on top.

  >>> components = Components(
  ...   jnp.zeros((4, 4, 4, 1)), jnp.ones((2, 4, 4, 4, 1)),
  ...   jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones(1))
  >>> keys = chain_keys(jax.random.key(0), 3)
  >>> from_components(keys, components).position.shape
  (3, 4, 4, 4, 1)
  """
  shape, count = components.mean.shape, len(components.directions)
  logits = jnp.log(components.weights)
  chosen = jax.vmap(lambda key: jax.random.categorical(key, logits))(
    kernels.fold_in(keys, 2)
  )
  z = from_noise(kernels.fold_in(keys, 0), (count,)).position
  offsets = jnp.einsum(
    'nk,k...->n...',
    components.centers[chosen] + z * components.deviations[chosen],
    components.directions,
    precision='highest',
  )
  noise = from_noise(kernels.fold_in(keys, 1), shape, std).position
  return Start(components.mean + offsets + noise, projections.free())


def completed(
  y: types.Array,
  visible: types.Array,
  components: Components,
  std: float | types.Array,
) -> types.Array:
  """What a Gaussian fitted to data expects, given the visible voxels.

  The Gaussian has the mean m and the covariance `A A'` of the mixture. The
  result is `m + A z` with the z of the least `|z|^2 + |visible residual|^2 /
  std^2`: the posterior mean under y ~ N(m + A z, std^2 I). Where much is
  hidden, it is nearer to a shape than an average is.

  Args:
    y: shapes `(*chains, D, H, W, C)`; only visible voxels are read.
    visible: boolean, broadcasts against y; True = observed.
    components: of the data.
    std: what the components are trusted to leave open, of a voxel.

  Returns:
    `(*chains, D, H, W, C)`, the visible voxels too.

  >>> components = Components(
  ...   jnp.zeros((1, 1, 2, 1)), jnp.full((1, 1, 1, 2, 1), 0.5**0.5),
  ...   jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones(1))
  >>> y, visible = jnp.ones((1, 1, 2, 1)), jnp.array([[True], [False]])
  >>> found = completed(y, visible, components, 0.1)
  >>> [round(float(x), 2) for x in found.ravel()]
  [0.98, 0.98]
  """
  shape = components.mean.shape
  weights = components.weights / components.weights.sum()
  center = weights @ components.centers
  within = jnp.sqrt(weights @ jnp.square(components.deviations))
  between = jnp.sqrt(weights)[:, None] * (components.centers - center)
  directions = components.directions.reshape(len(center), -1)
  mean = components.mean.ravel() + center @ directions
  # The rows of A', of the Gaussians themselves and of their centers.
  basis = jnp.concatenate(
    [
      within[:, None] * directions,
      jnp.matmul(between, directions, precision='highest'),
    ]
  )
  variance = jnp.square(std)

  def one(chain):
    residual, seen = chain
    rows = basis * seen
    products = jnp.matmul(rows, rows.T, precision='highest')
    products += variance * jnp.eye(len(rows))
    z = jnp.linalg.solve(
      products, jnp.matmul(rows, residual, precision='highest')
    )
    return mean + jnp.matmul(z, basis, precision='highest')

  seen = jnp.broadcast_to(visible, y.shape).reshape(-1, mean.size)
  residual = jnp.where(seen, y.reshape(-1, mean.size) - mean, 0)
  # One after the other: each takes as much memory as all components.
  found = jax.lax.map(one, (residual, seen.astype(y.dtype)))
  return found.reshape(*y.shape[: y.ndim - len(shape)], *shape)


def from_data(y: types.Array) -> Start:
  """The observed data, free to move: contrastive divergence, section 4.1.

  >>> from_data(jnp.ones((2, 4, 4, 4, 1))).position.shape
  (2, 4, 4, 4, 1)
  """
  return Start(y, projections.free())


def from_corrupted(
  y: types.Array, visible: types.Array, fill: types.Array | float
) -> Start:
  """A corrupted shape whose visible voxels are held: Algorithm 4.

  Args:
    y: shapes `(*chains, D, H, W, C)`; only visible voxels are read.
    visible: boolean, broadcasts against y; True = observed.
    fill: where hidden voxels begin; broadcasts against y.

  >>> start = from_corrupted(jnp.ones(2), jnp.array([True, False]), 0.5)
  >>> start.position.tolist(), start.project(jnp.ones(2)).tolist()
  ([1.0, 0.5], [0.0, 1.0])
  """
  return Start(jnp.where(visible, y, fill), projections.fixed_voxels(visible))


def recovery_start(
  y: types.Array,
  visible: types.Array,
  hold: bool = True,
  fill: Callable[..., types.Array] | None = None,
) -> tuple[Start, Callable[[types.Array], types.Array]]:
  """The start of a recovery in both readings of section 6.2, and its end.

  Args:
    y: shapes `(*chains, D, H, W, C)`; only visible voxels are read.
    visible: boolean, broadcasts against y; True = observed.
    hold: True: visible voxels are held at every step (the text); False: all
      move (the authors' code).
    fill: `(y, visible, mean) -> (*chains, D, H, W, C)`, where hidden voxels
      begin, from the mean of the visible ones of each shape; None: at that
      mean, as in the authors' code.

  Returns:
    The start, and a function that puts the visible voxels back.

  >>> y, visible = jnp.ones((1, 1, 1, 2, 1)), jnp.array([[True], [False]])
  >>> start, finish = recovery_start(y, visible, hold=False)
  >>> start.position.ravel().tolist(), finish(0 * y).ravel().tolist()
  ([1.0, 1.0], [1.0, 0.0])
  """
  axes = (-4, -3, -2, -1)
  count = jnp.broadcast_to(visible, y.shape).sum(axes, keepdims=True)
  total = jnp.where(visible, y, 0).sum(axes, keepdims=True)
  mean = total / jnp.maximum(count, 1)
  start = from_corrupted(
    y, visible, mean if fill is None else fill(y, visible, mean)
  )
  if hold:
    return start, lambda y_syn: y_syn
  free = start._replace(project=projections.free())
  return free, lambda y_syn: jnp.where(visible, y, y_syn)


def from_low_resolution(y_low: types.Array, factor: int) -> Start:
  """`C^- Y_low`, its block averages held: Algorithm 5.

  Args:
    y_low: shapes `(*chains, D, H, W, C)`.
    factor: ratio d of the sides of the high and the low resolution.

  >>> from_low_resolution(jnp.ones((1, 2, 2, 2, 1)), 2).position.shape
  (1, 4, 4, 4, 1)
  """
  return Start(grids.upscale(y_low, factor), projections.fixed_average(factor))


def from_coarse(y_coarse: types.Array, factor: int) -> Start:
  """The upscaled sample of the next coarser grid, free to move: Algorithm 2.

  Args:
    y_coarse: shapes `(*chains, D, H, W, C)`.
    factor: ratio of the sides of the finer and the coarser grid.

  >>> from_coarse(jnp.ones((1, 1, 1, 1, 1)), 4).position.shape
  (1, 4, 4, 4, 1)
  """
  return Start(grids.upscale(y_coarse, factor), projections.free())
