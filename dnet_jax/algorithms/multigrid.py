"""Algorithm 2: multi-grid sampling and learning, section 4.2."""

from collections.abc import Callable
from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp

from dnet_jax import chains
from dnet_jax import grids
from dnet_jax import kernels
from dnet_jax import learning
from dnet_jax import starts
from dnet_jax import types
from dnet_jax.algorithms import base


def grid_name(grid: int) -> str:
  """The name of the network of a grid, counted from 0, the coarsest.

  >>> grid_name(0)
  'grid_1'
  """
  return f'grid_{grid + 1}'


def _one_for_each(values, factors, what):
  """Checks that there are as many of something as grids."""
  if len(values) != len(factors):
    raise ValueError(
      f'one {what} for each of the {len(factors)} factors {tuple(factors)} is '
      f'needed, got {len(values)}'
    )
  return values


def _samplers(samplers, factors):
  """One sampler for each grid, given one for all grids or one for each."""
  if isinstance(samplers, chains.Sampler):
    return (samplers,) * len(factors)
  return _one_for_each(tuple(samplers), factors, 'sampler')


def _temperatures(temperature, factors):
  if jnp.ndim(temperature):
    _one_for_each(temperature, factors, 'temperature')
  return jnp.broadcast_to(temperature, (len(factors),))


def sample_grids(
  keys: types.Key,
  energy_fns: Sequence[types.EnergyFn],
  y: types.Array,
  factors: Sequence[int],
  samplers: chains.Sampler | Sequence[chains.Sampler],
  temperature: float | Sequence[float] | types.Array = 1.0,
  enlarge: Callable[[types.Array, int], types.Array] = grids.upscale,
) -> tuple[types.Array, ...]:
  """Multi-grid sampling, section 4.2: each grid starts from the coarser one.

  Args:
    keys: `(chains,)`, see `chain_keys`.
    energy_fns: one for each grid, coarse first, parameters bound.
    y: the coarsest shapes `(chains, D, H, W, C)`, for example averages of
      1^3; it is not moved.
    factors: ratios of side between neighbouring grids, the first between y
      and the first energy's; 1 where y has the first grid already.
    samplers: see `make_sampler`; one for all grids or one for each.
    temperature: T of section 2.5; one for all grids or one for each; may be
      traced.
    enlarge: see `from_coarse`.

  Returns:
    The samples of each grid, coarse first, without y.

  Raises:
    ValueError: when there are not as many energies, samplers or temperatures
      as factors.

  >>> keys = starts.chain_keys(jax.random.key(0), 2)
  >>> energies = [lambda y: (y**2).sum((1, 2, 3, 4))] * 2
  >>> sampler = chains.make_sampler(num_steps=1, step_size=0.1)
  >>> [y.shape[1] for y in sample_grids(
  ...   keys, energies, jnp.ones((2, 1, 1, 1, 1)), (4, 2), sampler)]
  [4, 8]
  """
  _one_for_each(energy_fns, factors, 'energy')
  temperatures = _temperatures(jnp.asarray(temperature), factors)
  samples = []
  for grid, (energy_fn, factor, sampler) in enumerate(
    zip(energy_fns, factors, _samplers(samplers, factors), strict=True)
  ):
    y, _ = sampler.run(
      kernels.fold_in(keys, grid),
      energy_fn,
      starts.from_coarse(y, factor, enlarge),
      temperatures[grid],
    )
    samples.append(y)
  return tuple(samples)


def multi_grid(
  energy_fns: Sequence[Callable[[types.Params, types.Array], types.Array]],
  learners: Sequence[learning.Learner],
  samplers: chains.Sampler | Sequence[chains.Sampler],
  *,
  factors: Sequence[int],
  source: chains.Source | None = None,
  enlarge: Callable[[types.Array, int], types.Array] = grids.upscale,
) -> base.Algorithm:
  """Algorithm 2: one model for each grid, each sampling from the coarser one.

  Chains begin at averages of the mini-batch's shapes over blocks whose side is
  the product of `factors`: at 1^3 when that is the side of the data. With a
  source they begin at its draws, p^(0) of section 4.2. The names
  of the metrics of grid s, counted from 1, the coarsest, end in `/grid_<s>`;
  those of the finest grid are also there under their plain names.

  Args:
    energy_fns: `energy(params, y) -> (*chains,)` for each grid, coarse first.
    learners: one for each grid, with `contrastive_loss(energy_fn)`.
    samplers: see `make_sampler`; one for all grids or one for each.
    factors: ratios of side, as for `sample_grids`.
    source: draws shapes of the size of those averages; its arrays belong to
      the state. None: the averages.
    enlarge: see `from_coarse`.

  Returns:
    An algorithm with the networks 'grid_1' (the coarsest), 'grid_2' and so on.
    The temperature of its schedule is one for all grids or `(grids,)`.

  Raises:
    ValueError: when the lengths differ.

  >>> import dnet_jax, optax
  >>> energy_fn = lambda theta, y: ((y - theta) ** 2).sum((1, 2, 3, 4)) / 2
  >>> loss_fn = dnet_jax.contrastive_loss(energy_fn)
  >>> algorithm = multi_grid(
  ...   [energy_fn] * 2,
  ...   [dnet_jax.make_learner(loss_fn, optax.sgd(0.1))] * 2,
  ...   dnet_jax.make_sampler(num_steps=1, step_size=0.1),
  ...   factors=(2, 2))
  >>> state = algorithm.init(
  ...   jax.random.key(0), {'grid_1': jnp.zeros(()), 'grid_2': jnp.zeros(())})
  >>> state, metrics = algorithm.step(
  ...   jax.random.key(1), state, jnp.ones((2, 4, 4, 4, 1)), base.Schedule())
  >>> sorted(state.learners), metrics['energy_gap/grid_1'].shape
  (['grid_1', 'grid_2'], ())
  """
  _one_for_each(energy_fns, factors, 'energy')
  _one_for_each(learners, factors, 'learner')
  by_grid = _samplers(samplers, factors)
  names = [grid_name(grid) for grid in range(len(factors))]
  named = dict(zip(names, learners, strict=True))

  def init(key, params):
    del key  # Chains start anew in each iteration.
    kept = None if source is None else chains.ChainMemory(None, source.arrays)
    return base.begin(named, params, kept)

  def step(key, state, batch, schedule):
    temperatures = _temperatures(schedule.temperature, factors)
    y_syn, *observed = grids.pyramid(batch, factors)
    if source is not None:
      # The keys of grids are counted from 0, so no grid uses this one.
      keys = by_grid[0].keys(jax.random.fold_in(key, len(factors)), len(batch))
      y_syn = source.draw(keys, state.memory.source)
    states: dict[str, learning.LearnerState] = {}
    metrics: dict[str, types.Array] = {}
    for grid, (name, energy_fn, factor, sampler, y_obs) in enumerate(
      zip(names, energy_fns, factors, by_grid, observed, strict=True)
    ):
      states[name], y_syn, own = base.analysis_by_synthesis(
        jax.random.fold_in(key, grid),
        state.learners[name],
        y_obs,
        len(y_syn),
        base.begin_at(
          functools.partial(starts.from_coarse, factor=factor, enlarge=enlarge),
          y_syn,
        ),
        schedule._replace(temperature=temperatures[grid]),
        energy_fn=energy_fn,
        learner=named[name],
        sampler=sampler,
      )
      metrics |= own
      metrics |= {f'{metric}/{name}': x for metric, x in own.items()}
    return base.State(states, state.memory, state.iteration + 1), metrics

  return base.Algorithm(init, step, base.axes())
