"""The latent space of a generator, sections 5 and 6.4.

Latent factors z are `(*chains, d)`; their prior is N(0, I), eq. (20).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dnet_jax import chains
from dnet_jax import energy
from dnet_jax import kernels
from dnet_jax import models
from dnet_jax import networks
from dnet_jax import specs
from dnet_jax import starts
from dnet_jax import types
from dnet_jax.uses import base


def _sizes(spec: specs.Spec) -> specs.GeneratorSizes:
  base.need(spec, 'generator')
  assert spec.generator is not None  # Or `need` would have raised.
  return spec.generator


def generator(spec: specs.Spec) -> networks.Generator:
  """The generator of a spec.

  Raises:
    ValueError: for a model without one.
  """
  sizes = _sizes(spec)._asdict()
  del sizes['latent_dim']
  return networks.Generator(**sizes)


def _generate(model, z):
  """g(z), eq. (21), with running averages; as the network sees shapes."""
  net = generator(model.spec)
  return net.apply(model.params['generator'], z, train=False)


def generated(
  keys: types.Key, model: models.Model, first: types.Array | None = None
) -> types.Array:
  """What the generator makes of draws of z, one for each key.

  Args:
    keys: `(chains,)`.
    model: with a generator.
    first: the training shapes near whose codes z is, `(chains,)` indices. None:
      each key says it.
  """
  return _generate(model, _draw(keys, model, first, correlation_of(model)))


def draw_latent(
  key: types.Key,
  model: models.Model,
  num_shapes: int,
  *,
  correlation: float | types.Array | None = None,
) -> types.Array:
  """Latent factors: from their prior N(0, I), eq. (20), or near those of data.

  A generator that learned by regression may keep the latent codes c of its
  training shapes. Draws near them are r c + sqrt(1 - r^2) e, with e from
  N(0, I) and the codes in a random order, none twice before all have come once:
  where data lies in the latent space takes the place of the prior (Ghosh et al.
  2020, ex-post density estimation). With a larger r shapes are better, and
  nearer to training shapes.

  Args:
    key: consumed; one, or `(num_shapes,)`: then codes are independent.
    model: with a generator.
    num_shapes: how many; the first ones do not depend on it.
    correlation: r, in [0, 1); 0 is the prior. None: the model's own, which is 0
      where it keeps no codes.

  Returns:
    `(num_shapes, d)`.

  Raises:
    ValueError: for a model without a generator, or without codes for r > 0; for
      r out of range, or no shapes.

  >>> sizes = specs.GeneratorSizes((1,), (1,), 3)
  >>> spec = specs.Spec((4, 4, 4), generator=sizes)
  >>> variables = generator(spec).init(
  ...   jax.random.key(0), jnp.zeros((1, 3)), train=False)
  >>> extras = {'mean': 0.5, 'scale': 1.0}
  >>> model = models.Model(spec, {'generator': variables}, extras)
  >>> draw_latent(jax.random.key(0), model, 2).shape
  (2, 3)
  """
  base.need(model.spec, 'generator')
  if num_shapes < 1:
    raise ValueError(f'num_shapes must be at least 1, got {num_shapes}')
  keys, one = base.chain_keys(key, num_shapes), None
  r = correlation_of(model, correlation)
  if 'latent_codes' in model.extras and not jnp.ndim(kernels.as_key(key)):
    count = len(model.extras['latent_codes']['codes'])
    one = base.without_repeats(key, count, num_shapes)
  return _draw(kernels.fold_in(keys, 0), model, one, r)


def correlation_of(
  model: models.Model, given: float | types.Array | None = None
) -> float | types.Array:
  """The correlation of draws with latent codes: what is given, or its own.

  Raises:
    ValueError: when it is not in [0, 1), or above 0 for a model without codes.
  """
  own = model.extras.get('latent_codes', {}).get('correlation', 0.0)
  r = own if given is None else given
  known = types.known(r)
  if known is not None and (known.ndim or not 0 <= known < 1):
    raise ValueError(f'correlation must be one number in [0, 1), got {r}')
  if 'latent_codes' not in model.extras and (known is None or known > 0):
    raise ValueError(
      'correlation needs a model that keeps latent codes of its training '
      'shapes, and this one has none: use 0, the prior'
    )
  return r


def _draw(keys, model, one, r):
  """Draws of z, near the codes of the shapes `one`; None: of any."""
  z = starts.from_noise(keys, (_sizes(model.spec).latent_dim,)).position
  if 'latent_codes' not in model.extras:
    return z
  codes = jnp.asarray(model.extras['latent_codes']['codes'])
  count, width = codes.shape
  if one is None:
    one = jax.vmap(lambda key: jax.random.randint(key, (), 0, count))(
      kernels.fold_in(keys, 1)
    )
  # Factors beyond the codes are as those of the prior.
  near = r * codes[one] + jnp.sqrt(1 - r**2) * z[:, :width]
  return z.at[:, :width].set(near)


def decode(model: models.Model, z: types.Array) -> types.Array:
  """What the generator makes of latent factors: g(z) of eq. (21).

  Args:
    model: with a generator.
    z: `(*chains, d)`.

  Returns:
    `(*chains, D, H, W)` real values; above 0.5 is inside.

  Raises:
    ValueError: for a model without a generator, or z of another length.

  >>> sizes = specs.GeneratorSizes((1,), (1,), 3)
  >>> spec = specs.Spec((4, 4, 4), generator=sizes)
  >>> variables = generator(spec).init(
  ...   jax.random.key(0), jnp.zeros((1, 3)), train=False)
  >>> extras = {'mean': 0.5, 'scale': 1.0}
  >>> model = models.Model(spec, {'generator': variables}, extras)
  >>> decode(model, jnp.zeros((2, 3))).shape
  (2, 4, 4, 4)
  """
  return _decode(model, _latent(model, z))


def _latent(model, z):
  z, length = jnp.asarray(z), _sizes(model.spec).latent_dim
  if z.ndim < 1 or z.shape[-1] != length:
    raise ValueError(f'z must be (*chains, {length}), got shape {z.shape}')
  return z


@jax.jit
def _decode(model, z):
  y = _generate(model, z.reshape(-1, z.shape[-1]))
  return base.from_network(model, y).reshape(*z.shape[:-1], *model.spec.grid)


def generate(
  key: types.Key,
  model: models.Model,
  num_shapes: int,
  *,
  correlation: float | types.Array | None = None,
) -> types.Array:
  """New shapes of a generator in one pass: Figure 5.

  Args:
    key: consumed; one, or `(num_shapes,)`.
    model: with a generator.
    num_shapes: how many.
    correlation: as of `draw_latent`.

  Returns:
    `(num_shapes, D, H, W)` real values; above 0.5 is inside.

  Raises:
    ValueError: as `draw_latent`.

  >>> sizes = specs.GeneratorSizes((1,), (1,), 3)
  >>> spec = specs.Spec((4, 4, 4), generator=sizes)
  >>> variables = generator(spec).init(
  ...   jax.random.key(0), jnp.zeros((1, 3)), train=False)
  >>> extras = {'mean': 0.5, 'scale': 1.0}
  >>> model = models.Model(spec, {'generator': variables}, extras)
  >>> generate(jax.random.key(0), model, 2).shape
  (2, 4, 4, 4)
  """
  z = draw_latent(key, model, num_shapes, correlation=correlation)
  return decode(model, z)


def infer_latent(
  key: types.Key,
  model: models.Model,
  voxels: types.Array,
  visible: types.Array | None = None,
  *,
  num_starts: int | None = None,
  num_steps: int | None = None,
  step_size: float | types.Array | None = None,
  noise_std: float | types.Array | None = None,
) -> types.Array:
  """Infers z of given shapes by Langevin dynamics in the latent space.

  Samples the posterior under eq. (20) with several chains that start at draws
  of the prior, half of the steps with noise and half without, and keeps the
  chain of lowest energy. None always stands for the model's own setting.

  Args:
    key: consumed; one, or one for each shape.
    model: with a generator.
    voxels: `(*chains, D, H, W)`.
    visible: boolean, broadcasts against voxels; hidden ones are not read.
      None: all are visible.
    num_starts: chains of each shape.
    num_steps: Langevin steps.
    step_size: the paper's delta-tau.
    noise_std: sigma of eq. (20), as the network sees voxels.

  Returns:
    `(*chains, d)`; NaN for a shape of which no chain stayed finite, because
    the step size is too large for this sigma.

  Raises:
    TypeError: when `visible` is not boolean.
    ValueError: for a model without a generator, another grid than the model's,
      or settings out of range.

  >>> sizes = specs.GeneratorSizes((1,), (1,), 3)
  >>> spec = specs.Spec((4, 4, 4), generator=sizes)
  >>> variables = generator(spec).init(
  ...   jax.random.key(0), jnp.zeros((1, 3)), train=False)
  >>> extras = {'mean': 0.5, 'scale': 1.0}
  >>> model = models.Model(spec, {'generator': variables}, extras)
  >>> voxels = jnp.ones((2, 4, 4, 4))
  >>> infer_latent(jax.random.key(0), model, voxels, num_steps=2).shape
  (2, 3)
  """
  base.need(model.spec, 'generator')
  use, numbers = base.settings(
    model,
    'reconstruct',
    num_starts=num_starts,
    num_steps=num_steps,
    step_size=step_size,
    noise_std=noise_std,
  )
  shapes, leading = base.chains_of(model, voxels, 'voxels')
  seen = base.seen(model, True if visible is None else visible, leading)
  keys = base.chain_keys(key, len(shapes))
  z = _infer(keys, model, shapes, seen, use, numbers)
  return z.reshape(*leading, -1)


@jax.jit(static_argnames='use')
def _infer(keys, model, voxels, visible, use, numbers):
  # All starts of a shape side by side.
  count = use.num_starts
  several = jax.vmap(lambda key: starts.chain_keys(key, count))(keys)
  several = several.reshape(-1)
  function = energy.posterior_energy(
    lambda z: _generate(model, z),
    jnp.repeat(base.to_network(model, voxels), count, axis=0),
    numbers['noise_std'],
    jnp.repeat(visible[..., None], count, axis=0),
  )
  shape = (_sizes(model.spec).latent_dim,)
  start = starts.from_noise(kernels.fold_in(several, 0), shape)
  for phase, temperature in ((1, 1.0), (2, 0.0)):
    z, _ = chains.run_chains(
      kernels.fold_in(several, phase),
      function,
      start,
      num_steps=(use.num_steps + phase - 1) // 2,
      step_size=numbers['step_size'],
      temperature=temperature,
    )
    start = start._replace(position=z)
  energies = function(start.position).reshape(-1, count)
  energies = jnp.where(jnp.isfinite(energies), energies, jnp.inf)
  z = start.position.reshape(-1, count, *shape)
  best = energies.argmin(axis=1)[:, None, None]
  z = jnp.take_along_axis(z, best, axis=1)[:, 0]
  failed = jnp.isinf(energies).all(axis=1)
  return jnp.where(failed[:, None], jnp.nan, z)


def reconstruct(
  key: types.Key,
  model: models.Model,
  voxels: types.Array,
  visible: types.Array | None = None,
  *,
  num_starts: int | None = None,
  num_steps: int | None = None,
  step_size: float | types.Array | None = None,
  noise_std: float | types.Array | None = None,
) -> types.Array:
  """Rebuilds shapes by inference of z; what is hidden is filled.

  Args:
    key: consumed; one, or one for each shape.
    model: with a generator.
    voxels: `(*chains, D, H, W)`.
    visible: this and all arguments that follow are those of `infer_latent`.
    num_starts: chains of each shape.
    num_steps: Langevin steps.
    step_size: the paper's delta-tau.
    noise_std: sigma of eq. (20).

  Returns:
    `(*chains, D, H, W)` real values.

  Raises:
    TypeError, ValueError: as `infer_latent`.

  >>> sizes = specs.GeneratorSizes((1,), (1,), 3)
  >>> spec = specs.Spec((4, 4, 4), generator=sizes)
  >>> variables = generator(spec).init(
  ...   jax.random.key(0), jnp.zeros((1, 3)), train=False)
  >>> extras = {'mean': 0.5, 'scale': 1.0}
  >>> model = models.Model(spec, {'generator': variables}, extras)
  >>> voxels = jnp.ones((2, 4, 4, 4))
  >>> reconstruct(jax.random.key(0), model, voxels, num_steps=2).shape
  (2, 4, 4, 4)
  """
  z = infer_latent(
    key,
    model,
    voxels,
    visible,
    num_starts=num_starts,
    num_steps=num_steps,
    step_size=step_size,
    noise_std=noise_std,
  )
  return decode(model, z)


def linear(z_0: types.Array, z_1: types.Array, rho: types.Array) -> types.Array:
  """`(1 - rho) Z_0 + rho Z_1`: Figure 6.

  Args:
    z_0: `(*chains, d)`.
    z_1: likewise.
    rho: `(num,)`.

  Returns:
    `(*chains, num, d)`.

  >>> linear(jnp.zeros(1), jnp.ones(1), jnp.array([0, 0.5])).ravel().tolist()
  [0.0, 0.5]
  """
  rho = rho[:, None]
  return (1 - rho) * z_0[..., None, :] + rho * z_1[..., None, :]


def spherical(
  z_0: types.Array, z_1: types.Array, rho: types.Array
) -> types.Array:
  """Along the great circle, so that the middle is as probable as the ends.

  Shoemake (1985) for the direction; the length changes linearly.

  Args:
    z_0: `(*chains, d)`.
    z_1: likewise.
    rho: `(num,)`.

  Returns:
    `(*chains, num, d)`.

  >>> z = spherical(jnp.array([1.0, 0]), jnp.array([0, 1.0]), jnp.array([0.5]))
  >>> z.round(3).tolist()
  [[0.7070000171661377, 0.7070000171661377]]
  """

  def norm(z):
    return jnp.linalg.norm(z, axis=-1, keepdims=True)

  lengths = norm(z_0), norm(z_1)
  u_0, u_1 = (
    z / jnp.maximum(r, 1e-12) for z, r in zip((z_0, z_1), lengths, strict=True)
  )
  cosine = (u_0 * u_1).sum(-1, keepdims=True)
  angle = jnp.arccos(jnp.clip(cosine, -1, 1))[..., None, :]
  rho_ = rho[:, None]
  # Parallel vectors span no plane to turn in.
  sine = jnp.sin(angle)
  flat = sine < 1e-6
  sine = jnp.where(flat, 1, sine)
  direction = (
    jnp.sin((1 - rho_) * angle) * u_0[..., None, :]
    + jnp.sin(rho_ * angle) * u_1[..., None, :]
  ) / sine
  length = linear(*lengths, rho)
  return jnp.where(flat, linear(z_0, z_1, rho), length * direction)


PATHS: dict[str, Callable[..., types.Array]] = {
  'linear': linear,
  'spherical': spherical,
}


def interpolate(
  model: models.Model,
  z_0: types.Array,
  z_1: types.Array,
  num_shapes: int = 8,
  *,
  path: str = 'spherical',
) -> types.Array:
  """Shapes between two points of the latent space: Figure 6.

  Args:
    model: with a generator.
    z_0: `(*chains, d)`; of given shapes by `infer_latent`.
    z_1: likewise.
    num_shapes: how many, including both ends; at least 2.
    path: 'linear' or 'spherical'.

  Returns:
    `(*chains, num_shapes, D, H, W)` real values.

  Raises:
    ValueError: for a model without a generator, another path, or z that do
      not fit.

  >>> sizes = specs.GeneratorSizes((1,), (1,), 3)
  >>> spec = specs.Spec((4, 4, 4), generator=sizes)
  >>> variables = generator(spec).init(
  ...   jax.random.key(0), jnp.zeros((1, 3)), train=False)
  >>> extras = {'mean': 0.5, 'scale': 1.0}
  >>> model = models.Model(spec, {'generator': variables}, extras)
  >>> interpolate(model, jnp.zeros(3), jnp.ones(3), 5).shape
  (5, 4, 4, 4)
  """
  if path not in PATHS:
    raise ValueError(f'path must be one of {[*PATHS]}, got {path!r}')
  if num_shapes < 2:
    raise ValueError(f'num_shapes must be at least 2, got {num_shapes}')
  z_0, z_1 = _latent(model, z_0), _latent(model, z_1)
  if z_0.shape != z_1.shape:
    raise ValueError(
      f'z_0 and z_1 must have one shape, got {z_0.shape} and {z_1.shape}'
    )
  return decode(model, PATHS[path](z_0, z_1, jnp.linspace(0, 1, num_shapes)))
