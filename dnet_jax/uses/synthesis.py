"""New shapes from a model: sections 2, 4.2 and 5."""

from collections.abc import Callable
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnet_jax import algorithms
from dnet_jax import chains
from dnet_jax import grids
from dnet_jax import kernels
from dnet_jax import models
from dnet_jax import pca
from dnet_jax import specs
from dnet_jax import starts
from dnet_jax import types
from dnet_jax.uses import base
from dnet_jax.uses import latent


def synthesize(
  key: types.Key,
  model: models.Model,
  num_shapes: int,
  *,
  start: str | types.Array | None = None,
  num_steps: int | None = None,
  noise_steps: int | None = None,
  step_size: float | types.Array | None = None,
  temperature: float | types.Array | None = None,
  start_std: float | types.Array | None = None,
  start_spread: float | types.Array | None = None,
  first: types.Array | None = None,
  refinement_steps: int | None = None,
  refinement_std: float | types.Array | None = None,
) -> types.Array:
  """New shapes by Langevin dynamics, eq. (7).

  Different keys give different shapes. None always stands for the model's own
  setting.

  Args:
    key: consumed; one, or `(num_shapes,)`.
    model: with a descriptor, with one for each grid, or with a generator.
    num_shapes: how many.
    start: where chains begin: 'noise'; 'components', a draw of
      `from_components`; 'generator', what the model's generator makes;
      'chains', its persistent chains; 'grids', an average at 1^3, grid by grid
      (section 4.2); or shapes `(num_shapes, D, H, W)`. A multi-grid model also
      takes 'components', those of its coarsest grid.
    num_steps: Langevin steps; for a multi-grid model, those of each grid.
    noise_steps: how many of these, from the first one on, are at
      `temperature`; the others are at 0. A multi-grid model does not take this,
      `start_std`, `start_spread`, `refinement_steps` or `refinement_std`.
    step_size: the paper's delta-tau.
    temperature: T of section 2.5; a multi-grid model also takes one for each
      grid.
    start_std: standard deviation of the noise where chains begin.
    start_spread: `spread` of `pca.draw`, for start 'components'.
    first: for start 'components', the training shapes at which draws begin; for
      'generator', those near whose latent codes z is, where the model keeps
      such: `(num_shapes,)` indices. None: with one key for all, none comes
      twice before all have come once; with a key each, they are independent.
    refinement_steps: further steps after these, with a narrow reference.
    refinement_std: standard deviation of this reference.

  Returns:
    `(num_shapes, D, H, W)` real values; above 0.5 is inside.

  Raises:
    ValueError: for a model without the networks that this needs, or settings
      out of range.

  >>> model = models.load('demo')
  >>> synthesize(jax.random.key(0), model, 2, num_steps=1).shape
  (2, 32, 32, 32)
  """
  if num_shapes < 1:
    raise ValueError(f'num_shapes must be at least 1, got {num_shapes}')
  position = None
  if start is not None and not isinstance(start, str):
    position, start = start, None
  only_for_one_grid(
    model.spec,
    noise_steps=noise_steps,
    start_std=start_std,
    start_spread=start_spread,
    refinement_steps=refinement_steps,
    refinement_std=refinement_std,
  )
  use, numbers = base.settings(
    model,
    'synthesize',
    start=start,
    num_steps=num_steps,
    noise_steps=noise_steps,
    step_size=step_size,
    temperature=temperature,
    start_std=start_std,
    start_spread=start_spread,
    refinement_steps=refinement_steps,
    refinement_std=refinement_std,
  )
  keys = base.chain_keys(key, num_shapes)
  if position is None:
    _check_start(model, use, num_shapes)
  else:
    position = _checked(model, position, num_shapes)
  place = 'shapes' if position is not None else use.start
  first = _first(key, model, place, num_shapes, first)
  return _synthesize(keys, model, use, numbers, position, first)


def rows(
  key: types.Key,
  model: models.Model,
  num_shapes: int,
  start: str | None = None,
) -> dict[str, types.Array]:
  """What tells the chains of one key apart, to move them some at a time.

  Args:
    key: consumed.
    model: of `synthesize`.
    num_shapes: how many; a row does not depend on it.
    start: as of `synthesize`.

  Returns:
    Arguments of `synthesize` and `synthesize_grids`, a row for each shape:
    `key`, and `first` where chains begin at training shapes.

  >>> model = models.load('demo')
  >>> found = rows(jax.random.key(0), model, 3)
  >>> sorted(found), found['first'].shape
  (['first', 'key'], (3,))
  """
  use, _ = base.settings(model, 'synthesize', start=start)
  _check_start(model, use, num_shapes)
  found = {'key': starts.chain_keys(key, num_shapes)}
  if count := _count(model, use.start):
    found['first'] = base.without_repeats(key, count, num_shapes)
  return found


def _count(model, start):
  """How many training shapes chains may begin at, or near; 0: at none."""
  if start == 'components':
    return len(model.extras['components']['coordinates'])
  if start == 'generator' and 'latent_codes' in model.extras:
    return len(model.extras['latent_codes']['codes'])
  return 0


def _first(key, model, start, num_shapes, first):
  """The training shapes to begin at; None: each chain's own key says it."""
  count = _count(model, start)
  if not count:
    if first is not None:
      raise ValueError(
        "first is for chains that begin at 'components', or at a 'generator' "
        f'with latent codes, not at {start}'
      )
    return None
  if first is None:
    key = kernels.as_key(key)
    return None if key.ndim else base.without_repeats(key, count, num_shapes)
  try:
    x = np.asarray(first)  # As it was given: JAX would cut it to 32 bits.
    allowed = x.dtype.kind in 'iu' and ((x >= 0) & (x < count)).all()
  except jax.errors.TracerArrayConversionError:
    x = first
    allowed = jnp.issubdtype(x.dtype, jnp.integer)
  if x.shape != (num_shapes,) or not allowed:
    raise ValueError(
      f'first must be {num_shapes} whole numbers from 0 to {count - 1}, got '
      f'{first}'
    )
  return jnp.asarray(x)


def only_for_one_grid(spec: specs.Spec, **given: Any) -> None:
  """Raises ValueError for settings that a multi-grid model does not have."""
  names = [name for name, x in given.items() if x is not None]
  if spec.grids and names:
    raise ValueError(
      'a multi-grid model moves the chains of each grid at one temperature, '
      f"from the coarser grid's: {', '.join(names)} cannot be set"
    )


def _checked(model, position, num_shapes):
  """Shapes to start from."""
  base.need_one_descriptor(model.spec)
  position, _ = base.chains_of(model, position, 'start')
  if len(position) != num_shapes:
    raise ValueError(
      f'start holds {len(position)} shapes, num_shapes is {num_shapes}'
    )
  return position


def _check_start(model, use, num_shapes):
  spec = model.spec
  if use.start not in _PLACES:
    raise ValueError(
      f'start must be one of {[*_PLACES]}, or shapes; got {use.start!r}'
    )
  if use.start != 'generator' or use.num_steps or use.refinement_steps:
    base.need(spec, 'descriptor')
  allowed = _GRID_STARTS if spec.grids else _STARTS
  if use.start not in allowed:
    raise ValueError(
      "start must be 'grids' or 'components' for a multi-grid model, and "
      "'grids' for no other model; this one has a "
      f'{specs.describe(spec)}, and start is {use.start!r}'
    )
  if use.start == 'generator':
    base.need(spec, 'generator')
    latent.correlation_of(model)
  if use.start == 'components':
    other, side = ('grids', spec.grids[0]) if spec.grids else ('noise', None)
    base.need_components(model, use.start, other, side=side)
  if use.start == 'chains':
    there = len(model.extras.get('chains', ()))
    if num_shapes > there:
      raise ValueError(
        f'num_shapes is {num_shapes}, but the model keeps {there} persistent '
        "chains; use start='noise'"
      )


def _noise(keys, model, numbers, first):
  return starts.from_noise(keys, (*model.spec.grid, 1), numbers['start_std'])


def _components(keys, model, numbers, first):
  components = pca.Components(**model.extras['components'])
  return starts.from_components(
    keys, components, numbers['start_std'], numbers['start_spread'], first
  )


def _generator(keys, model, numbers, first):
  return starts.from_data(latent.generated(keys, model, first))


def _chains(keys, model, numbers, first):
  return starts.from_data(model.extras['chains'][: len(keys)])


_STARTS: dict[str, Callable[..., starts.Start]] = {
  'noise': _noise,
  'components': _components,
  'generator': _generator,
  'chains': _chains,
}
# Of a multi-grid model: p^(0) of section 4.2, or shapes of its first grid.
_GRID_STARTS = ('grids', 'components')
_PLACES = (*_STARTS, 'grids')
ENLARGE: dict[str, Callable[[types.Array, int], types.Array]] = {
  'repeat': grids.upscale,
  'linear': grids.trilinear,
}


@jax.jit(static_argnames='use')
def _synthesize(keys, model, use, numbers, position, first):
  if position is None and model.spec.grids:
    return _grids(keys, model, use, numbers, None, 0, first)[-1]
  if position is None:
    # Phase 0; the chains' own are from 1 on.
    begin = _STARTS[use.start]
    start = begin(kernels.fold_in(keys, 0), model, numbers, first)
  else:
    start = starts.from_data(base.to_network(model, position))
  y = start.position
  if use.num_steps or use.refinement_steps:
    y = base.move(keys, model, start, use, numbers)
  return base.from_network(model, y)


def draw_averages(keys: types.Key, model: models.Model) -> types.Array:
  """Draws shapes of 1^3 from p^(0), section 4.2: a bin, then a number in it.

  Args:
    keys: `(n,)`.
    model: with a `histogram` of the averages of its data.

  Returns:
    `(n, 1, 1, 1)` in [0, 1].
  """
  histogram = model.extras['histogram']
  edges = jnp.asarray(histogram['edges'])
  logits = jnp.log(histogram['probabilities'])

  def one(key):
    key_bin, key_place = jax.random.split(key)
    chosen = jax.random.categorical(key_bin, logits)
    place = jax.random.uniform(key_place)
    return edges[chosen] + place * (edges[chosen + 1] - edges[chosen])

  return jax.vmap(one)(keys)[:, None, None, None]


def finer_grids(
  keys: types.Key,
  model: models.Model,
  use: specs.Use,
  numbers: dict[str, types.Array],
  y: types.Array,
  first: int,
) -> tuple[types.Array, ...]:
  """Samples of grid `first` and all finer ones of a multi-grid model.

  Args:
    keys: `(n,)`.
    model: of several grids.
    use: steps and kernel.
    numbers: step size and temperature.
    y: shapes of a coarser grid, or of this one, as the network sees them, with
      channel.
    first: counted from 0, the coarsest.

  Returns:
    `(n, d, d, d, C)` for each grid.
  """
  sides = (y.shape[1], *model.spec.grids[first:])
  sampler = chains.make_sampler(
    num_steps=use.num_steps,
    step_size=numbers['step_size'],
    kernel=base.KERNELS[use.kernel],
  )
  count = len(model.spec.grids)
  return algorithms.sample_grids(
    keys,
    [base.energy_fn(model, grid) for grid in range(first, count)],
    y,
    [fine // coarse for coarse, fine in itertools.pairwise(sides)],
    sampler,
    jnp.broadcast_to(numbers['temperature'], (count,))[first:],
    ENLARGE[model.spec.enlarge],
  )


def synthesize_grids(
  key: types.Key,
  model: models.Model,
  num_shapes: int,
  *,
  coarse: types.Array | None = None,
  num_steps: int | None = None,
  step_size: float | types.Array | None = None,
  temperature: float | types.Array | None = None,
  first: types.Array | None = None,
) -> tuple[types.Array, ...]:
  """As `synthesize`, for a multi-grid model: the samples of every grid.

  Args:
    key: consumed; one, or `(num_shapes,)`.
    model: of several grids.
    num_shapes: how many.
    coarse: shapes `(num_shapes, d, d, d)` to start from, d the side of one of
      the coarser grids, or 1; None: where the model's chains begin, averages
      drawn from its histogram or components of its coarsest grid.
    num_steps: of each grid.
    step_size: the paper's delta-tau.
    temperature: T, one or one for each grid.
    first: as of `synthesize`.

  Returns:
    `(num_shapes, d, d, d)` for each grid that is finer than the start.

  Raises:
    ValueError: for a model of one grid, or shapes that do not fit.
  """
  sides = (1, *model.spec.grids)
  if not model.spec.grids:
    raise ValueError(
      f'this needs a model of several grids; this one has a '
      f'{specs.describe(model.spec)}'
    )
  use, numbers = base.settings(
    model,
    'synthesize',
    num_steps=num_steps,
    step_size=step_size,
    temperature=temperature,
  )
  if num_shapes < 1:
    raise ValueError(f'num_shapes must be at least 1, got {num_shapes}')
  if coarse is None:
    _check_start(model, use, num_shapes)
  keys = base.chain_keys(key, num_shapes)
  place = 'shapes' if coarse is not None else use.start
  first, grid = _first(key, model, place, num_shapes, first), 0
  if coarse is not None:
    coarse = jnp.asarray(coarse)
    side = coarse.shape[-1] if coarse.ndim else 0
    if coarse.shape != (num_shapes, side, side, side) or side not in sides[:-1]:
      raise ValueError(
        f'shapes to start from must be ({num_shapes}, d, d, d) with d one of '
        f'{sides[:-1]}, got {coarse.shape}'
      )
    grid = sides.index(side)
  return _synthesize_grids(keys, model, use, numbers, coarse, grid, first)


@jax.jit(static_argnames=('use', 'grid'))
def _synthesize_grids(keys, model, use, numbers, coarse, grid, first):
  return _grids(keys, model, use, numbers, coarse, grid, first)


def _grids(keys, model, use, numbers, coarse, grid, first):
  # The keys of grids are counted from 0, so no grid uses this one.
  keys_start = kernels.fold_in(keys, len(model.spec.grids))
  if coarse is None and use.start == 'components':
    y = _components(keys_start, model, numbers, first).position
  else:
    if coarse is None:
      coarse = draw_averages(keys_start, model)
    y = base.to_network(model, coarse)
  samples = finer_grids(keys, model, use, numbers, y, grid)
  return tuple(base.from_network(model, y) for y in samples)
