"""What a model can do: each use is a composition of the library's parts."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy import special

import dnet_jax
from dnet_jax import specs
from dnet_jax.uses import base
from dnet_jax.uses import latent
from dnet_jax.uses import synthesis
from tests import models

SIDE = models.SIDE
GRID = (SIDE,) * 3
KEY = jax.random.key(0)
K = 5  # standard errors


def shapes(n=3, seed=0):
  """Real values: a use may be given averages, not only 0 and 1."""
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.uniform(size=(n, *GRID)), jnp.float32)


def mask(seed=0):
  return np.random.default_rng(seed).random(GRID) < 0.4


def keys_of(key, n, phase):
  """The key of each chain, of a phase: 0 is the start."""
  keys = dnet_jax.chain_keys(key, n)
  return jax.vmap(jax.random.fold_in, (0, None))(keys, phase)


def network(model, voxels):
  return (voxels[..., None] - model.extras['mean']) * model.extras['scale']


def voxels_of(model, y):
  return y[..., 0] / model.extras['scale'] + model.extras['mean']


def energy_of(model, std=None):
  net = dnet_jax.Descriptor(**models.SIZES._asdict())
  energy_fn = dnet_jax.descriptor_energy(
    net.apply,
    model.extras['reference_std'] if std is None else std,
    model.extras['reference_means'],
  )
  return functools.partial(energy_fn, model.params['descriptor'])


def moved(model, start, phases, key=KEY, std=None):
  """Phases of (number, steps, step size, temperature), written out."""

  @jax.jit
  def move(key, y):
    for phase, steps, step_size, temperature in phases:
      kernel = dnet_jax.langevin(
        energy_of(model, std if phase == 3 else None),
        step_size,
        temperature=temperature,
        project=start.project,
      )
      y, _ = dnet_jax.sample(keys_of(key, len(y), phase), kernel, y, steps)
    return y

  return move(key, start.position)


@jax.jit
def decoded(model, z):
  """As the network sees shapes."""
  net = dnet_jax.Generator((4, 1), (1, 2), 3)
  return net.apply(model.params['generator'], z, train=False)


def close(a, b, atol=2e-5):
  assert a.shape == b.shape
  np.testing.assert_allclose(a, b, atol=atol)


PARTS = dnet_jax.Components(
  jax.random.normal(jax.random.key(3), (*GRID, 1)) / 9,
  jax.random.normal(jax.random.key(4), (2, *GRID, 1)) / 9,
  coordinates=jnp.array([[2.0, 1.0], [-2.0, 0.0], [0.0, -1.0]]),
  neighbours=jnp.float32(1),
)


def rich():
  """A model with all that chains can begin with."""
  chains = jax.random.normal(jax.random.key(5), (5, *GRID, 1))
  model = models.generator(
    with_descriptor=True, components=PARTS._asdict(), chains=chains
  )
  return model


def noise(keys, model):
  return dnet_jax.from_noise(keys, (*GRID, 1), 0.2)


def different(num_draws, count=3):
  """The shapes that draws begin at, by a key that no chain has."""
  key = jax.random.fold_in(KEY, np.uint32(2**32 - 1))
  return dnet_jax.without_repeats(key, count, num_draws)


def components(keys, model):
  return dnet_jax.from_components(keys, PARTS, 0.2, 1.7, different(2))


def generated(keys, model):
  z = dnet_jax.from_noise(keys, (models.DIM,)).position
  return dnet_jax.from_data(decoded(model, z))


def remembered(keys, model):
  return dnet_jax.from_data(model.extras['chains'][:2])


STARTS = {
  'noise': noise,
  'components': components,
  'generator': generated,
  'chains': remembered,
}
SETTINGS = dict(
  num_steps=5,
  noise_steps=3,
  step_size=0.02,
  temperature=0.5,
  start_std=0.2,
  start_spread=1.7,
)


@pytest.mark.parametrize('start', STARTS)
def test_synthesis_is_its_parts(start):
  model = rich()
  found = dnet_jax.synthesize(KEY, model, 2, start=start, **SETTINGS)
  begin = STARTS[start](keys_of(KEY, 2, 0), model)
  y = moved(model, begin, [(1, 3, 0.02, 0.5), (2, 2, 0.02, 0.0)])
  close(found, voxels_of(model, y))
  # Neither the start alone, nor chains without noise.
  assert float(abs(found - voxels_of(model, begin.position)).mean()) > 0.01
  cold = dnet_jax.synthesize(
    KEY, model, 2, start=start, **SETTINGS | {'temperature': 0.0}
  )
  assert float(abs(found - cold).mean()) > 0.01


def test_shapes_begin_at_different_ones_or_at_those_that_are_asked_for():
  model = rich()
  draw = functools.partial(
    dnet_jax.synthesize, model=model, num_shapes=3, start='components',
    num_steps=0, start_std=0.0, start_spread=0.0,
  )  # fmt: skip
  keys = dnet_jax.chain_keys(KEY, 3)
  first = different(3)
  assert sorted(first.tolist()) == [0, 1, 2]
  found = draw(KEY)
  close(draw(keys, first=first), found)
  begun = keys_of(KEY, 3, 0)
  own = dnet_jax.from_components(begun, PARTS, 0.0, 0.0)
  asked = dnet_jax.from_components(begun, PARTS, 0.0, 0.0, jnp.array([2, 2, 0]))
  # With a key for each chain they are independent.
  close(draw(keys), voxels_of(model, own.position))
  close(draw(KEY, first=np.array([2, 2, 0])), voxels_of(model, asked.position))
  assert abs(found - voxels_of(model, own.position)).max() > 0.01
  rows = synthesis.rows(KEY, model, 5, 'components')
  np.testing.assert_array_equal(rows['first'][:3], first)
  assert set(synthesis.rows(KEY, model, 5, 'noise')) == {'key'}


@pytest.mark.parametrize(
  'first', [[0, 1], [0, 1, 3], [0, 1, -1], [0.0, 1.0, 2.0], 1, [0, 2**33, 1]]
)
def test_first_shapes_must_exist(first):
  match = r'first must be 3 whole numbers from 0 to 2, got .*' + re.escape(
    str(first).strip('[]')
  )
  with pytest.raises(ValueError, match=match):
    dnet_jax.synthesize(KEY, rich(), 3, start='components', first=first)


@pytest.mark.parametrize('start', ['noise', 'shapes'])
def test_only_draws_of_components_have_first_shapes(start):
  place = shapes() if start == 'shapes' else start
  with pytest.raises(ValueError, match=f'latent codes, not at {start}'):
    dnet_jax.synthesize(KEY, rich(), 3, start=place, first=[0, 1, 2])


def test_an_anchored_recovery_stays_near_its_start():
  model, visible = models.descriptor(), mask()
  recover = functools.partial(
    dnet_jax.recover, KEY, model, shapes(), visible, step_size=0.02
  )
  begun, free = recover(num_steps=0), recover(num_steps=4)
  np.testing.assert_array_equal(free, recover(num_steps=4, anchor_std=np.inf))
  held = recover(num_steps=4, anchor_std=0.15)
  start, finish = dnet_jax.recovery_start(
    network(model, shapes()), visible[..., None], anchor_std=0.15
  )
  y, _ = dnet_jax.run_chains(
    KEY, energy_of(model), start, num_steps=4, step_size=0.02, temperature=0.0
  )
  close(held, voxels_of(model, finish(y)))
  assert abs(held - begun).mean() < 0.8 * abs(free - begun).mean()
  # A model has its own, which is no less finite than others may be.
  model.extras['settings'] = {'recover': {'anchor_std': 0.15}}
  np.testing.assert_array_equal(held, recover(num_steps=4))
  with pytest.raises(ValueError, match='anchor_std must be finite and'):
    recover(anchor_std=0.0)


def test_synthesis_starts_at_given_shapes_and_is_refined():
  model, std = models.descriptor(refinement=jnp.ones(())), 0.05
  model.extras['settings'] = {'synthesize': {'refinement_std': std}}
  found = dnet_jax.synthesize(
    KEY,
    model,
    3,
    start=shapes(),
    num_steps=1,
    step_size=0.02,
    refinement_steps=4,
  )
  start = dnet_jax.from_data(network(model, shapes()))
  # A narrow reference bounds the step by its variance.
  phases = [(2, 1, 0.02, 0.0), (3, 4, std**2, 0.0)]
  y = moved(model, start, phases, std=std)
  close(found, voxels_of(model, y))


def test_recovery_is_its_parts():
  model, visible = models.descriptor(), mask()
  for fill, hold in (('mean', True), ('local_average', False)):
    found = dnet_jax.recover(
      KEY,
      model,
      shapes(),
      visible,
      start=fill,
      num_steps=4,
      noise_steps=1,
      step_size=0.02,
      temperature=0.3,
      fill_std=0.6,
      hold=hold,
    )
    average = functools.partial(local_average, std=0.6)
    start, finish = dnet_jax.recovery_start(
      network(model, shapes()),
      visible[..., None],
      hold,
      average if fill == 'local_average' else None,
    )
    y = moved(model, start, [(1, 1, 0.02, 0.3), (2, 3, 0.02, 0.0)])
    close(found, voxels_of(model, finish(y)))
    np.testing.assert_array_equal(
      np.asarray(found)[:, visible], np.asarray(shapes())[:, visible]
    )
    assert (np.asarray(found) != shapes())[:, ~visible].mean() > 0.9


def local_average(y, visible, mean, std):
  return dnet_jax.corruptions.local_average(y, visible, std, mean)


def components(model, number=3):
  """Of which a shape may be a sum, with directions that are orthonormal."""
  rng = np.random.default_rng(5)
  size = int(np.prod(model.spec.grid))
  directions, _ = np.linalg.qr(rng.normal(size=(size, number)))
  return {
    'mean': rng.normal(size=(*model.spec.grid, 1)).astype(np.float32),
    'directions': directions.T.reshape(number, *model.spec.grid, 1),
    # Uncorrelated, and of mean 0.
    'coordinates': np.array([[4, 1, -3], [4, -1, 3], [-4, 1, 3], [-4, -1, -3]])[
      :, :number
    ],
    'neighbours': np.array(3),
  }


def with_components(model):
  made = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), components(model))
  extras = dict(model.extras) | {'components': made}
  return dnet_jax.Model(model.spec, model.params, extras)


@pytest.mark.parametrize('local', [False, True])
def test_recovery_from_principal_components(local):
  start = 'components_and_average' if local else 'components'
  model, visible, std = with_components(models.descriptor()), mask(), 0.3
  found = dnet_jax.recover(
    KEY, model, shapes(), visible, start=start, num_steps=0,
    components_std=std, fill_std=0.6,
  )  # fmt: skip
  # The conditional mean of a Gaussian, by its whole covariance matrix.
  made = {k: np.asarray(x, np.float64) for k, x in components(model).items()}
  coordinates = np.cov(made['coordinates'].T, ddof=0)
  directions = made['directions'].reshape(3, -1)
  covariance = directions.T @ coordinates @ directions
  v = np.asarray(visible).ravel()
  y = np.asarray(network(model, shapes()), np.float64)
  y = y.reshape(len(y), -1)
  mean = made['mean'].ravel()
  known = covariance[np.ix_(v, v)] + std**2 * np.eye(v.sum())
  gain = covariance[:, v] @ np.linalg.inv(known)
  mean_given = mean + (y - mean)[:, v] @ gain.T
  shape = (-1, *model.spec.grid, 1)
  if local:  # Of what the visible voxels have beside it.
    left = (y - mean_given).reshape(shape).astype(np.float32)
    seen = visible[..., None]
    more = dnet_jax.corruptions.local_average(left, seen, 0.6, 0.0)
    mean_given += np.asarray(more).reshape(y.shape)
  expected = np.where(v, y, mean_given).reshape(shape)
  back = voxels_of(model, jnp.asarray(expected))
  np.testing.assert_allclose(found, back, atol=1e-4)
  # And chains begin there.
  moved_on = dnet_jax.recover(
    KEY, model, shapes(), visible, start=start, num_steps=2,
    components_std=std, fill_std=0.6, step_size=1e-8,
  )  # fmt: skip
  np.testing.assert_allclose(moved_on, found, atol=1e-4)
  with pytest.raises(ValueError, match='keeps principal components'):
    dnet_jax.recover(KEY, models.descriptor(), shapes(), visible, start=start)


@pytest.mark.parametrize(
  'start', ['mean', 'local_average', 'components', 'components_and_average']
)
def test_recovery_reads_no_hidden_voxel(start):
  model, visible = with_components(models.descriptor()), mask()
  recover = functools.partial(dnet_jax.recover, start=start, num_steps=2)
  hidden = jnp.where(visible, shapes(), jnp.nan)
  found = recover(KEY, model, hidden, visible)
  np.testing.assert_array_equal(found, recover(KEY, model, shapes(), visible))
  # Voxels that are booleans, as files have them.
  whole = np.asarray(shapes() > 0.5)
  found = recover(KEY, model, whole, visible)
  assert found.dtype == jnp.float32
  np.testing.assert_array_equal(
    np.asarray(found)[:, visible], whole[:, visible]
  )
  # A mask of its own for each shape, and no chain axis at all.
  masks = np.stack([mask(i) for i in range(3)])
  several = recover(KEY, model, shapes(), masks)
  np.testing.assert_array_equal(
    np.asarray(several)[masks], np.asarray(shapes())[masks]
  )
  one = recover(dnet_jax.chain_keys(KEY, 3)[:1], model, shapes()[0], masks[0])
  close(one, several[0])


def test_completions_are_draws_of_what_is_left_open():
  model, visible, std = with_components(models.descriptor()), mask(), 0.3
  made = {k: np.asarray(x, np.float64) for k, x in components(model).items()}
  y = network(model, shapes()[:1])
  given = functools.partial(
    dnet_jax.completed, y, visible[..., None], dnet_jax.Components(**made), std
  )
  # Completions are linear in their noise, so unit vectors say all.
  moves = np.stack(
    [np.ravel(given(noise=e[None]) - given()) for e in np.eye(3)]
  )
  # The conditional covariance of a Gaussian.
  directions = made['directions'].reshape(3, -1)
  covariance = np.cov(made['coordinates'].T, ddof=0)
  covariance = directions.T @ covariance @ directions
  v = visible.ravel()
  known = covariance[np.ix_(v, v)] + std**2 * np.eye(v.sum())
  expected = covariance - covariance[:, v] @ np.linalg.solve(
    known, covariance[v]
  )
  close(moves.T @ moves, expected, atol=1e-4 * abs(expected).max())
  # Of a use: another completion for each key, none without a spread.
  use = functools.partial(
    dnet_jax.recover, voxels=shapes(), visible=visible, model=model,
    start='components', components_std=std, num_steps=0,
  )  # fmt: skip
  keys = dnet_jax.chain_keys(KEY, 6)
  expected, other = use(keys[:3]), use(keys[3:])
  np.testing.assert_array_equal(expected, other)
  near, far = (use(keys[:3], completion_spread=s) for s in (0.5, 1.0))
  np.testing.assert_array_equal(
    np.asarray(far)[:, visible], shapes()[:, visible]
  )
  assert abs(far - use(keys[3:], completion_spread=1.0)).max() > 0.01
  close(far - expected, 2 * (near - expected), atol=1e-4)


@pytest.mark.slow
def test_super_resolution_is_its_parts():
  model = models.descriptor()
  coarse = dnet_jax.downscale(shapes()[..., None], 4)[..., 0]
  found = dnet_jax.super_resolve(
    KEY, model, coarse, num_steps=6, noise_steps=2, step_size=0.02,
    temperature=0.3, refinement_steps=0,
  )  # fmt: skip
  start = dnet_jax.from_low_resolution(network(model, coarse), 4)
  y = moved(model, start, [(1, 2, 0.02, 0.3), (2, 4, 0.02, 0.0)])
  close(found, voxels_of(model, y))
  averages = dnet_jax.downscale(found[..., None], 4)[..., 0]
  # Sums of 64 numbers of about 1, and a step.
  close(averages, coarse, atol=6 * 64 * 2.0**-24)
  detail = found - dnet_jax.upscale(coarse[..., None], 4)[..., 0]
  assert float(abs(detail).max()) > 0.05
  # Nothing to add where nothing is missing.
  close(dnet_jax.super_resolve(KEY, model, shapes(), num_steps=2), shapes())


def test_super_resolution_is_sharpened_after_its_chains():
  model = models.descriptor()
  coarse = dnet_jax.downscale((shapes() > 0.5)[..., None] * 1.0, 4)[..., 0]
  use = functools.partial(
    dnet_jax.super_resolve, KEY, model, coarse, num_steps=2
  )
  plain = use(sharpening_steps=0)
  found = use(sharpening_steps=3, sharpening_std=0.8)
  expected = dnet_jax.sharpen(
    plain[..., None], coarse[..., None], 4, num_steps=3, std=0.8
  )[..., 0]
  # Two programs may round a value at the border of full and empty otherwise.
  assert (found != expected).mean() < 0.01
  close(dnet_jax.downscale(found[..., None], 4)[..., 0], coarse, atol=1e-6)
  assert {*np.unique(found)} <= {0.0, 1.0}
  for wrong in (dict(sharpening_steps=-1), dict(sharpening_std=0.0)):
    (name,) = wrong
    with pytest.raises(ValueError, match=f'{name} must be'):
      use(**wrong)


def test_super_resolution_from_principal_components():
  model, std = with_components(models.descriptor()), 0.3
  coarse = dnet_jax.downscale(shapes()[..., None], 2)[..., 0]
  found = dnet_jax.super_resolve(
    KEY, model, coarse, start='components', num_steps=0, components_std=std
  )
  # The conditional mean of a Gaussian, by its whole covariance matrix.
  made = {k: np.asarray(x, np.float64) for k, x in components(model).items()}
  directions = made['directions'].reshape(3, -1)
  covariance = np.cov(made['coordinates'].T, ddof=0)
  covariance = directions.T @ covariance @ directions
  grid = model.spec.grid
  size = int(np.prod(grid))
  average = np.asarray(
    dnet_jax.downscale(jnp.eye(size).reshape(size, *grid, 1), 2)
  ).reshape(size, -1)
  low = np.asarray(network(model, coarse), np.float64)
  low = low.reshape(len(low), -1)
  mean = made['mean'].ravel()
  known = average.T @ covariance @ average + std**2 * np.eye(low.shape[1])
  gain = covariance @ average @ np.linalg.inv(known)
  expected = mean + (low - mean @ average) @ gain.T
  guess = dnet_jax.expected_details(
    network(model, coarse), 2, dnet_jax.Components(**made), std
  )
  close(guess.reshape(expected.shape), expected.astype(np.float32), atol=1e-4)
  # And then with the averages as they were given.
  expected = expected.reshape(-1, *grid, 1).astype(np.float32)
  left = np.asarray(network(model, coarse) - dnet_jax.downscale(expected, 2))
  expected += ndimage.zoom(
    left, (1, 2, 2, 2, 1), order=1, mode='nearest', grid_mode=True
  )
  left = network(model, coarse) - dnet_jax.downscale(expected, 2)
  expected += np.asarray(dnet_jax.upscale(left, 2))
  close(found, voxels_of(model, jnp.asarray(expected)), atol=1e-4)
  # A Gaussian around the start holds it there.
  move = functools.partial(
    dnet_jax.super_resolve, KEY, model, coarse, start='components',
    num_steps=3, components_std=std, step_size=0.02,
  )  # fmt: skip
  free, held = move(), move(anchor_std=0.15)
  assert abs(held - found).mean() < 0.9 * abs(free - found).mean()
  with pytest.raises(ValueError, match="use start='repeat'"):
    dnet_jax.super_resolve(KEY, models.descriptor(), coarse, start='components')
  with pytest.raises(ValueError, match="got 'mean'"):
    dnet_jax.super_resolve(KEY, model, coarse, start='mean')


def test_super_resolution_from_components_of_a_coarser_grid():
  model, std = models.descriptor(), 0.3
  made = {k: np.asarray(x, np.float32) for k, x in components(model).items()}
  for name in ('mean', 'directions'):
    made[name] = np.asarray(dnet_jax.downscale(made[name], 2))
  model = dnet_jax.Model(
    model.spec, model.params, dict(model.extras) | {'components': made}
  )
  coarse = dnet_jax.downscale(shapes()[..., None], 4)[..., 0]
  found = dnet_jax.super_resolve(
    KEY, model, coarse, start='components', num_steps=0, components_std=std
  )
  low = np.asarray(network(model, coarse))

  def held(y, y_low):
    left = y_low - np.asarray(dnet_jax.downscale(y, 2))
    y = y + ndimage.zoom(
      left, (1, 2, 2, 2, 1), order=1, mode='nearest', grid_mode=True
    )
    left = y_low - np.asarray(dnet_jax.downscale(y, 2))
    return y + left.repeat(2, 1).repeat(2, 2).repeat(2, 3)

  # First to the grid of the components, and from there by interpolation.
  middle = held(
    np.asarray(
      dnet_jax.expected_details(low, 2, dnet_jax.Components(**made), std)
    ),
    low,
  )
  side = model.spec.grid[0]
  expected = held(np.zeros((len(low), side, side, side, 1)), middle)
  close(found, voxels_of(model, expected.astype(np.float32)), atol=1e-4)
  averages = dnet_jax.downscale(found[..., None], 4)[..., 0]
  close(averages, coarse, atol=1e-5)
  # Other starts need them on the grid of the model.
  with pytest.raises(ValueError, match=f'has those of {side // 2}\\^3'):
    dnet_jax.recover(KEY, model, shapes(), mask(), start='components')
  with pytest.raises(ValueError, match="use start='noise'"):
    dnet_jax.synthesize(KEY, model, 2, start='components')


@pytest.mark.parametrize(
  'temperature', [pytest.param(0.5, marks=pytest.mark.slow), (0.5, 0.0, 0.1)]
)
def test_multi_grid_synthesis_is_its_parts(temperature):
  model = models.multi_grid()
  found = synthesis.synthesize_grids(
    KEY, model, 3, num_steps=2, step_size=0.02, temperature=temperature
  )
  assert [y.shape for y in found] == [(3, d, d, d) for d in models.GRIDS]
  averages = synthesis.draw_averages(keys_of(KEY, 3, 3), model)
  y = network(model, averages)
  temperatures = np.broadcast_to(temperature, 3)

  @functools.partial(jax.jit, static_argnums=0)
  def finer(grid, y, temperature):
    net = dnet_jax.Descriptor((3,), (2,), (1,))
    energy_fn = dnet_jax.descriptor_energy(
      net.apply, model.extras['reference_std'], model.extras['reference_means']
    )
    return dnet_jax.run_chains(
      keys_of(KEY, 3, grid),
      functools.partial(energy_fn, model.params[f'grid_{grid + 1}']),
      dnet_jax.from_coarse(y, models.GRIDS[grid] // (1, *models.GRIDS)[grid]),
      num_steps=2,
      step_size=0.02,
      temperature=temperature,
    )[0]

  for grid in range(3):
    y = finer(grid, y, temperatures[grid])
    close(found[grid], voxels_of(model, y))
  last = dnet_jax.synthesize(
    KEY, model, 3, num_steps=2, step_size=0.02, temperature=temperature
  )
  np.testing.assert_array_equal(last, found[-1])


def test_a_multi_grid_model_begins_at_components_of_its_coarsest_grid():
  use = specs.Use('components', 2)
  model = models.multi_grid(uses=(('synthesize', use),))
  first = model.spec._replace(grid=(models.GRIDS[0],) * 3)
  small = with_components(dnet_jax.Model(first, model.params, model.extras))
  stds = jnp.array([0.6, 0.5, 0.3])
  model = dnet_jax.Model(
    model.spec._replace(enlarge='linear'),
    model.params,
    dict(small.extras) | {'reference_std': stds},
  )
  found = synthesis.synthesize_grids(KEY, model, 3, step_size=0.02)
  y = dnet_jax.from_components(
    keys_of(KEY, 3, 3), dnet_jax.Components(**small.extras['components']),
    0.3, 0.6, different(3, len(small.extras['components']['coordinates'])),
  ).position  # fmt: skip
  factors = (1, *(b // a for a, b in itertools.pairwise(models.GRIDS)))
  for grid, factor in enumerate(factors):
    net = dnet_jax.Descriptor((3,), (2,), (1,))
    energy_fn = dnet_jax.descriptor_energy(
      net.apply, float(stds[grid]), model.extras['reference_means']
    )
    y, _ = dnet_jax.run_chains(
      KEY,
      functools.partial(energy_fn, model.params[f'grid_{grid + 1}']),
      dnet_jax.from_coarse(y, factor, dnet_jax.trilinear),
      num_steps=2,
      step_size=0.02,
      temperature=0.0,
    )
    close(found[grid], voxels_of(model, y))
  # From a coarse shape it goes on likewise; and it has averages too.
  again = dnet_jax.super_resolve(
    KEY, model, found[0], num_steps=2, step_size=0.02
  )
  close(again, found[-1])
  other = dnet_jax.synthesize(KEY, model, 3, start='grids', step_size=0.02)
  assert abs(other - found[-1]).max() > 0.1
  with pytest.raises(ValueError, match='keeps principal components'):
    call('multi_grid', start='components')


def test_a_multi_grid_model_goes_on_from_a_coarse_shape():
  model = models.multi_grid()
  arguments = dict(num_steps=2, step_size=0.02)
  grids = synthesis.synthesize_grids(KEY, model, 3, **arguments)
  again = dnet_jax.super_resolve(KEY, model, grids[0], **arguments)
  close(again, grids[-1])  # Without noise keys do not matter.
  many = dnet_jax.super_resolve(KEY, model, grids[0][None], **arguments)
  close(many[0], again)
  last = synthesis.synthesize_grids(KEY, model, 3, coarse=grids[1], **arguments)
  close(last[-1], again)
  assert len(last) == 1


def test_averages_are_drawn_from_the_histogram():
  n, model = 4000, models.multi_grid()
  draws = synthesis.draw_averages(dnet_jax.chain_keys(KEY, n), model)
  assert draws.shape == (n, 1, 1, 1)
  draws = np.asarray(draws).ravel()
  # Bins of 0.2, 0.8 and nothing; even within each.
  assert draws.min() >= 0 and draws.max() < 0.5
  low = draws < 0.3
  assert abs(low.mean() - 0.2) < K * np.sqrt(0.2 * 0.8 / n)
  for part, first, last in ((draws[low], 0, 0.3), (draws[~low], 0.3, 0.5)):
    error = (last - first) / np.sqrt(12 * len(part))
    assert abs(part.mean() - (first + last) / 2) < K * error


def test_averages_do_not_share_a_key_with_the_first_step():
  """Which bin is drawn says nothing of the noise of a voxel."""
  model, n = models.multi_grid(), 500
  found = synthesis.synthesize_grids(
    KEY, model, n, num_steps=1, step_size=1e-6, temperature=1.0
  )
  noise_ = (found[0] - found[0].mean((1, 2, 3), keepdims=True)).reshape(n, -1)
  averages = np.asarray(found[0]).mean((1, 2, 3))
  for voxel in np.asarray(noise_).T:
    assert abs(np.corrcoef(voxel, averages)[0, 1]) < K / np.sqrt(n)


def test_generation_is_the_generator():
  model = models.generator()
  z = dnet_jax.draw_latent(KEY, model, 4)
  keys = keys_of(KEY, 4, 0)
  np.testing.assert_array_equal(
    z, dnet_jax.from_noise(keys, (models.DIM,)).position
  )
  expected = voxels_of(model, decoded(model, z))
  assert expected.shape == (4, *GRID)
  close(dnet_jax.generate(KEY, model, 4), expected)
  close(dnet_jax.decode(model, z.reshape(2, 2, -1)).reshape(4, *GRID), expected)
  close(dnet_jax.decode(model, z[1]), expected[1])
  # What a descriptor is not there for: synthesis is this as well.
  close(dnet_jax.synthesize(KEY, model, 4), expected)
  few = dnet_jax.draw_latent(KEY, model, 2)
  np.testing.assert_array_equal(few, z[:2])


def with_codes(correlation=0.6):
  model = models.generator()
  codes = np.random.default_rng(2).normal(size=(3, 2)).astype(np.float32)
  own = {'codes': codes, 'correlation': np.float32(correlation)}
  return dnet_jax.Model(
    model.spec, model.params, dict(model.extras) | {'latent_codes': own}
  )


def test_draws_near_the_codes_of_training_shapes():
  model, r = with_codes(), 0.6
  codes = model.extras['latent_codes']['codes']
  prior = dnet_jax.draw_latent(KEY, models.generator(), 5)
  z = dnet_jax.draw_latent(KEY, model, 5)
  one = np.asarray(different(5))
  np.testing.assert_allclose(
    z[:, :2], r * codes[one] + 0.8 * prior[:, :2], atol=1e-6
  )
  np.testing.assert_array_equal(z[:, 2:], prior[:, 2:])
  np.testing.assert_array_equal(dnet_jax.draw_latent(KEY, model, 2), z[:2])
  close(dnet_jax.generate(KEY, model, 5), dnet_jax.decode(model, z))
  # r may be given, and 0 is the prior.
  other = dnet_jax.draw_latent(KEY, model, 5, correlation=0.0)
  np.testing.assert_array_equal(other, prior)
  np.testing.assert_array_equal(
    dnet_jax.draw_latent(KEY, with_codes(0.0), 5, correlation=r), z
  )
  close(
    dnet_jax.generate(KEY, model, 5, correlation=0.0),
    dnet_jax.decode(model, prior),
  )


def test_with_a_key_each_codes_are_independent():
  model, n = with_codes(0.999), 3000
  z = dnet_jax.draw_latent(dnet_jax.chain_keys(KEY, n), model, n)
  codes = model.extras['latent_codes']['codes']
  apart = np.linalg.norm(np.asarray(z)[:, None, :2] - codes, axis=-1)
  counts = np.bincount(apart.argmin(1), minlength=3)
  assert apart.min(1).max() < 0.3
  assert np.square(counts - n / 3).sum() / (n / 3) < 18.4  # 1 in 10,000.
  # A synthesis that begins at the generator has the same codes, each once.
  made = dnet_jax.synthesize(KEY, model, 4)
  keys = keys_of(KEY, 4, 0)
  close(made, voxels_of(model, latent.generated(keys, model, different(4))))
  close(made, dnet_jax.generate(KEY, model, 4))
  np.testing.assert_array_equal(
    synthesis.rows(KEY, model, 4)['first'], different(4)
  )
  assert (
    abs(made - dnet_jax.synthesize(KEY, models.generator(), 4)).max() > 0.01
  )


@pytest.mark.parametrize('r', [-0.1, 1.0, float('nan'), [0.5, 0.5]])
def test_a_correlation_must_be_a_number_below_one(r):
  with pytest.raises(ValueError, match=r'correlation must be one number in'):
    dnet_jax.draw_latent(KEY, with_codes(), 2, correlation=r)


@pytest.mark.parametrize('num_shapes', [0, -1])
def test_there_is_at_least_one_shape(num_shapes):
  for call in (
    lambda: dnet_jax.draw_latent(KEY, with_codes(), num_shapes),
    lambda: dnet_jax.generate(KEY, models.generator(), num_shapes),
    lambda: synthesis.synthesize_grids(KEY, models.multi_grid(), num_shapes),
  ):
    with pytest.raises(ValueError, match=f'at least 1, got {num_shapes}'):
      call()


def test_a_multi_grid_model_without_components_says_so():
  use = dnet_jax.Use('components', 2)
  model = models.multi_grid(uses=(('synthesize', use),))
  with pytest.raises(ValueError, match="use start='grids'"):
    synthesis.synthesize_grids(KEY, model, 2)


def test_a_model_with_an_impossible_correlation_says_so():
  for call in (dnet_jax.synthesize, dnet_jax.generate):
    with pytest.raises(ValueError, match=r'correlation must be .*1\.5'):
      call(KEY, with_codes(1.5), 2)


def test_draws_near_codes_need_codes():
  with pytest.raises(ValueError, match='this one has none: use 0, the prior'):
    dnet_jax.generate(KEY, models.generator(), 2, correlation=0.5)


def sharp_generator():
  """One whose shapes differ much from each other."""
  model = models.generator()
  params = jax.tree.map(lambda x: x, model.params)
  kernel = params['generator']['params']['Dense_0']['kernel']
  rng = np.random.default_rng(0)
  params['generator']['params']['Dense_0']['kernel'] = jnp.asarray(
    rng.normal(size=kernel.shape) / np.sqrt(models.DIM), jnp.float32
  )
  return dnet_jax.Model(model.spec, params, model.extras)


@pytest.mark.parametrize(
  'partly', [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_inference_finds_the_z_of_a_generated_shape(partly):
  model = sharp_generator()
  z = dnet_jax.draw_latent(jax.random.key(1), model, 3)
  y = dnet_jax.decode(model, z)
  visible = mask() if partly else None
  given = y if visible is None else jnp.where(visible, y, jnp.nan)
  settings = dict(num_starts=4, num_steps=600, step_size=1e-3, noise_std=0.05)
  found = dnet_jax.infer_latent(KEY, model, given, visible, **settings)
  assert found.shape == z.shape
  # All but what the prior pulls.
  assert float(abs(found - z).max()) < 0.1 < float(abs(z).max())
  again = dnet_jax.reconstruct(KEY, model, given, visible, **settings)
  np.testing.assert_array_equal(again, dnet_jax.decode(model, found))
  apart = float(abs(y[0] - y[1]).mean())
  assert float(abs(again - y).mean()) < 0.05 * apart


@pytest.mark.slow
def test_inference_is_its_parts():
  model, given = models.generator(), shapes(2)
  found = dnet_jax.infer_latent(
    KEY, model, given, num_starts=3, num_steps=5, step_size=0.05, noise_std=2.0
  )
  for i, key in enumerate(dnet_jax.chain_keys(KEY, 2)):
    energy_fn = dnet_jax.posterior_energy(
      functools.partial(decoded, model),
      network(model, given[i]),
      2.0,
    )
    start = dnet_jax.from_noise(keys_of(key, 3, 0), (models.DIM,))
    for phase, steps, temperature in ((1, 2, 1.0), (2, 3, 0.0)):
      z, _ = dnet_jax.run_chains(
        keys_of(key, 3, phase),
        energy_fn,
        start,
        num_steps=steps,
        step_size=0.05,
        temperature=temperature,
      )
      start = dnet_jax.from_data(z)
    best = z[np.argmin(energy_fn(z))]
    close(found[i], best)
    assert np.ptp(np.asarray(energy_fn(z))) > 1e-2


def test_a_step_too_large_is_nan_and_only_there():
  model = models.generator()
  arguments = dict(num_steps=40, num_starts=2)
  found = dnet_jax.infer_latent(
    KEY, model, shapes(2), step_size=1e6, noise_std=0.1, **arguments
  )
  assert bool(jnp.isnan(found).all())
  found = dnet_jax.infer_latent(
    KEY, model, shapes(2), step_size=0.01, noise_std=4.0, **arguments
  )
  assert bool(jnp.isfinite(found).all())


@pytest.mark.parametrize('path', ['linear', 'spherical'])
def test_interpolation_is_decoded_path(path):
  model = models.generator()
  z_0, z_1 = (jax.random.normal(jax.random.key(i), (2, 5)) for i in (1, 2))
  found = dnet_jax.interpolate(model, z_0, z_1, 5, path=path)
  assert found.shape == (2, 5, *GRID)
  z = np.asarray(latent.PATHS[path](z_0, z_1, jnp.linspace(0, 1, 5)))
  close(found, dnet_jax.decode(model, z))
  close(z[:, 0], np.asarray(z_0), atol=1e-5)
  close(z[:, -1], np.asarray(z_1), atol=1e-5)
  lengths = np.linalg.norm(z, axis=-1)
  if path == 'linear':
    close(z[:, 2], np.asarray(z_0 + z_1) / 2)
  else:
    # The length changes linearly, and the angle does.
    steps = np.linspace(0, 1, 5)
    ends = lengths[:, :1], lengths[:, -1:]
    close(lengths, ends[0] + steps * (ends[1] - ends[0]), atol=1e-5)
    u = z / lengths[..., None]
    angles = np.arccos((u[:, 1:] * u[:, :-1]).sum(-1))
    close(angles, np.broadcast_to(angles[:, :1], angles.shape), atol=1e-3)


def test_parallel_ends_have_a_path_as_well():
  z = jnp.array([[1.0, 2.0, 0.0, 0.0, 0.0]])
  for other in (z, 2 * z, -z, 0 * z):
    path = latent.spherical(z, other, jnp.linspace(0, 1, 4))
    assert bool(jnp.isfinite(path).all())
    close(path[:, -1], other, atol=1e-5)


@pytest.mark.parametrize('windows', [(4, 2), (1, 3)])
def test_features_are_pooled_maps(windows):
  model = models.descriptor()
  found = dnet_jax.pooled_features(model, shapes(), windows)
  net = dnet_jax.Descriptor(**models.SIZES._asdict())
  maps = net.apply(
    model.params['descriptor'], network(model, shapes()), method='feature_maps'
  )
  close(found, dnet_jax.features.pool_feature_maps(maps, windows))
  several = dnet_jax.pooled_features(model, shapes()[None], windows)
  np.testing.assert_array_equal(several[0], found)
  with pytest.raises(ValueError, match='2 feature maps'):
    dnet_jax.pooled_features(model, shapes(), (4,))


def logits_of(model, voxels, members, negatives):
  """Of the mean probabilities of all members, thresholded at 0.5."""
  y = network(model, (voxels > 0.5).astype(jnp.float32))
  count = len(models.CLASSES) + negatives
  net = dnet_jax.Classifier(count, (3,), (3,), (2,), 6)
  if members == 1:
    logits = net.apply(model.params['classifier'], y, train=False)
    return special.softmax(np.asarray(logits, np.float64), -1)
  total = 0
  for i in range(members):
    variables = {
      name: collection[f'members_{i}']
      for name, collection in model.params['classifier'].items()
    }
    logits = net.apply(variables, y, train=False)
    total = total + special.softmax(np.asarray(logits, np.float64), -1)
  return total / members


@pytest.mark.parametrize('negatives', [True, False])
@pytest.mark.parametrize('mirror', [True, False])
@pytest.mark.parametrize('members', [1, 2])
def test_classes_are_a_softmax_written_out(members, mirror, negatives):
  model = models.classifier(0, members, mirror, negatives)
  found = dnet_jax.classify_shapes(model, shapes())
  images = [shapes()]
  if mirror:
    images += [jnp.flip(shapes(), axes) for axes in ((1,), (2,), (1, 2))]
  p = np.mean([logits_of(model, y, members, negatives) for y in images], 0)
  q = p[:, :3] / p[:, :3].sum(1, keepdims=True)
  s = 0.1
  q = np.maximum(q - s / 3, 0)
  close(found.probabilities, q / q.sum(1, keepdims=True))
  close(found.none, p[:, 3] if negatives else np.zeros(3))
  assert found.features.shape == (3, 6 * members)
  if mirror:
    turned = dnet_jax.classify_shapes(model, jnp.flip(shapes(), (1, 2)))
    close(turned.probabilities, found.probabilities)
    close(turned.features, found.features)
  several = dnet_jax.classify_shapes(model, shapes()[None])
  close(several.probabilities[0], found.probabilities)


# A use as `(key, model, **keywords) -> array`, and a model that has it.
FIELD = dict(num_steps=3, step_size=0.02)
USES = {
  'synthesize': (
    lambda key, model, **kw: dnet_jax.synthesize(key, model, 2, **FIELD | kw),
    models.descriptor,
    ('step_size', 'temperature', 'start_std'),
  ),
  'multi_grid': (
    lambda key, model, **kw: dnet_jax.synthesize(key, model, 2, **FIELD | kw),
    models.multi_grid,
    ('step_size', 'temperature'),
  ),
  'recover': (
    lambda key, model, **kw: dnet_jax.recover(
      key, model, shapes(2), mask(), start='local_average', **FIELD | kw
    ),
    models.descriptor,
    ('step_size', 'temperature', 'fill_std'),
  ),
  'super_resolve': (
    lambda key, model, **kw: dnet_jax.super_resolve(
      key, model, jnp.full((2, 4, 4, 4), 0.3), **FIELD | kw
    ),
    models.descriptor,
    ('step_size', 'temperature'),
  ),
  'generate': (
    lambda key, model: dnet_jax.generate(key, model, 2),
    models.generator,
    (),
  ),
  'infer_latent': (
    lambda key, model, **kw: dnet_jax.infer_latent(
      key, model, shapes(2), num_steps=3, **kw
    ),
    models.generator,
    ('step_size', 'noise_std'),
  ),
  'reconstruct': (
    lambda key, model, **kw: dnet_jax.reconstruct(
      key, model, shapes(2), mask(), num_steps=3, **kw
    ),
    models.generator,
    ('step_size', 'noise_std'),
  ),
}
# Which take long, and are made of what the others are made of.
_LIKE_ANOTHER = ('multi_grid', 'infer_latent', 'reconstruct')
# Those whose chains have a temperature.
HOT = ('synthesize', 'multi_grid', 'recover', 'super_resolve')
DETERMINISTIC = {
  'pooled_features': (
    lambda model: dnet_jax.pooled_features(model, shapes()),
    models.descriptor,
  ),
  'classify_shapes': (
    lambda model: dnet_jax.classify_shapes(model, shapes()).probabilities,
    models.classifier,
  ),
  'decode': (
    lambda model: dnet_jax.decode(model, jnp.ones((2, models.DIM))),
    models.generator,
  ),
  'interpolate': (
    lambda model: dnet_jax.interpolate(
      model, jnp.ones(models.DIM), jnp.arange(models.DIM), 3
    ),
    models.generator,
  ),
}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow if name in _LIKE_ANOTHER else ())
    for name in USES
  ],
)
def test_uses_are_functions_to_jax(name):
  """Under jit with the model as an argument, and vmap over keys."""
  use, make, _ = USES[name]
  model, keys = make(), jax.random.split(KEY, 3)
  plain = [use(key, model) for key in keys]
  jitted = jax.jit(use)
  for key, expected in zip(keys, plain, strict=True):
    close(jitted(key, model), expected)
  mapped = jax.jit(jax.vmap(use, (0, None)))(keys, model)
  close(mapped, jnp.stack(plain))
  # Over models as well, as over anything.
  both = jax.tree.map(lambda *x: jnp.stack(x), model, make(1))
  over = jax.jit(jax.vmap(use, (None, 0)))(keys[0], both)
  close(over[0], plain[0])
  close(over[1], use(keys[0], make(1)))


@pytest.mark.parametrize('name', DETERMINISTIC)
def test_uses_without_a_key_are_functions_to_jax(name):
  use, make = DETERMINISTIC[name]
  close(jax.jit(use)(make()), use(make()))
  assert float(abs(use(make()) - use(make(1))).max()) > 1e-4


@pytest.mark.parametrize(
  ('name', 'keyword'), [(name, k) for name in USES for k in USES[name][2]]
)
def test_numbers_may_be_traced(name, keyword):
  use, make, _ = USES[name]
  if name in HOT and keyword != 'temperature':
    use = functools.partial(use, temperature=0.3)
  traces = []

  @jax.jit
  def call(key, model, value):
    traces.append(1)
    return use(key, model, **{keyword: value})

  found = [call(KEY, make(), value) for value in (0.02, 0.5)]
  assert len(traces) == 1
  for value, result in zip((0.02, 0.5), found, strict=True):
    close(result, use(KEY, make(), **{keyword: value}))
  assert float(abs(found[0] - found[1]).max()) > 1e-5


@pytest.mark.parametrize('name', USES)
def test_different_keys_give_different_shapes(name):
  use, make, _ = USES[name]
  keywords = {'temperature': 1.0} if name in HOT else {}
  a, b = (use(jax.random.key(i), make(), **keywords) for i in (1, 2))
  assert float(abs(a - b).max()) > 1e-3
  np.testing.assert_array_equal(a, use(jax.random.key(1), make(), **keywords))
  # Nor are two chains of one key equal.
  assert float(abs(a[0] - a[1]).max()) > 1e-3


@pytest.mark.parametrize('name', USES)
def test_old_style_keys_and_keys_of_each_chain(name):
  use, make, _ = USES[name]
  keywords = {'temperature': 1.0} if name in HOT else {}
  plain = use(KEY, make(), **keywords)
  old = use(jax.random.PRNGKey(0), make(), **keywords)
  np.testing.assert_array_equal(old, plain)
  keys = dnet_jax.chain_keys(KEY, 2)
  np.testing.assert_array_equal(use(keys, make(), **keywords), plain)
  with pytest.raises(ValueError, match=r'or 2 keys for 2 shapes; .*\(3,\)'):
    use(jax.random.split(KEY, 3), make())
  with pytest.raises(TypeError, match='key'):
    use(0, make())


OWN = specs.Use('noise', 6, noise_steps=4, refinement_steps=1)


@pytest.mark.parametrize(
  ('given', 'num_steps', 'noise_steps', 'temperature'),
  [
    ({}, 6, 4, 0.25),
    ({'num_steps': 3}, 3, 3, 0.25),  # The first steps are those with noise.
    ({'num_steps': 9}, 9, 4, 0.25),
    ({'temperature': 0.0}, 6, 0, 0.0),
    ({'temperature': np.float32(0)}, 6, 0, 0.0),
    ({'temperature': 2.0}, 6, 4, 2.0),
    ({'noise_steps': 2}, 6, 2, 0.25),
    ({'noise_steps': 0, 'temperature': 2.0}, 6, 0, 2.0),
    ({'num_steps': np.int64(0)}, 0, 0, 0.25),
  ],
)
def test_settings_not_given_are_the_models_own(
  given, num_steps, noise_steps, temperature
):
  numbers = {'synthesize': {'temperature': 0.25, 'step_size': 0.125}}
  model = models.descriptor(uses=(('synthesize', OWN),), settings=numbers)
  use, found = base.settings(model, 'synthesize', step_size=None, **given)
  assert use == OWN._replace(num_steps=num_steps, noise_steps=noise_steps)
  assert type(use.num_steps) is type(use.noise_steps) is int
  assert float(found['temperature']) == temperature
  assert float(found['step_size']) == 0.125
  assert all(x.dtype == jnp.float32 for x in found.values())


def test_a_temperature_brings_noise_to_a_model_without():
  model = models.descriptor()
  use, _ = base.settings(model, 'synthesize', num_steps=7)
  assert (use.num_steps, use.noise_steps) == (7, 0)
  use, _ = base.settings(model, 'synthesize', num_steps=7, temperature=0.1)
  assert (use.num_steps, use.noise_steps) == (7, 7)


@pytest.mark.slow
def test_none_is_the_models_own_setting():
  numbers = {
    name: {'temperature': 0.5, 'step_size': 0.03}
    for name in ('synthesize', 'recover', 'super_resolve')
  }
  uses = tuple(
    (name, specs.Use(start, 3, noise_steps=2))
    for name, start in (
      ('synthesize', 'noise'), ('recover', 'mean'), ('super_resolve', 'repeat')
    )
  )  # fmt: skip
  model = models.descriptor(uses=uses, settings=numbers)
  plain = models.descriptor()
  told = dict(num_steps=3, noise_steps=2, temperature=0.5, step_size=0.03)
  for use in (
    lambda model, **kw: dnet_jax.synthesize(KEY, model, 2, **kw),
    lambda model, **kw: dnet_jax.recover(KEY, model, shapes(), mask(), **kw),
    lambda model, **kw: dnet_jax.super_resolve(
      KEY, model, jnp.full((2, 2, 2), 0.3), **kw
    ),
  ):
    np.testing.assert_array_equal(use(model), use(plain, **told))
    assert float(abs(use(model) - use(model, temperature=0.0)).max()) > 1e-3


def call(name, model=None, **keywords):
  use, make, _ = USES[name]
  return use(KEY, make() if model is None else model, **keywords)


BAD = {
  'steps': (dict(num_steps=-1), ValueError, 'num_steps must be >= 0, got -1'),
  'noise': (
    dict(num_steps=2, noise_steps=3),
    ValueError,
    'noise_steps must be from 0 to num_steps, got 3 and 2',
  ),
  'float': (dict(num_steps=2.0), TypeError, 'num_steps must be a whole .*2.0'),
  'refine': (dict(refinement_steps=-2), ValueError, 'refinement_steps .*-2'),
  'size': (dict(step_size=0.0), ValueError, 'step_size .* positive, got 0.0'),
  'nan': (dict(step_size=np.nan), ValueError, 'step_size must be finite'),
  'infinite': (dict(step_size=np.inf), ValueError, 'step_size must be finite'),
  'cold': (dict(temperature=-0.1), ValueError, 'temperature .*>= 0, got -0.1'),
  'hot': (dict(temperature=np.nan), ValueError, 'temperature must be finite'),
  'several': (
    dict(temperature=(1.0, 0.5)),
    ValueError,
    r'temperature must be one number; got .*\(2,\)',
  ),
}


@pytest.mark.parametrize('bad', BAD)
@pytest.mark.parametrize('name', ['synthesize', 'recover', 'super_resolve'])
def test_settings_that_are_not_possible(name, bad):
  keywords, kind, match = BAD[bad]
  with pytest.raises(kind, match=match):
    call(name, **keywords)


def test_settings_of_one_use_that_are_not_possible():
  with pytest.raises(ValueError, match=r'start_std .*>= 0, got -1'):
    call('synthesize', start_std=-1.0)
  with pytest.raises(ValueError, match=r'fill_std .* positive, got 0'):
    call('recover', fill_std=0.0)
  with pytest.raises(ValueError, match=r'noise_std .* positive, got 0'):
    call('infer_latent', noise_std=0.0)
  with pytest.raises(ValueError, match='num_starts must be >= 1, got 0'):
    call('infer_latent', num_starts=0)
  with pytest.raises(ValueError, match='num_shapes must be at least 1, got 0'):
    dnet_jax.synthesize(KEY, models.descriptor(), 0)
  with pytest.raises(ValueError, match='num_shapes must be at least 2, got 1'):
    dnet_jax.interpolate(models.generator(), jnp.ones(5), jnp.ones(5), 1)
  with pytest.raises(ValueError, match=r"'linear', 'spherical'.*'round'"):
    z = jnp.ones(models.DIM)
    dnet_jax.interpolate(models.generator(), z, z, path='round')
  with pytest.raises(ValueError, match=r'one shape, got \(5,\) and \(2, 5\)'):
    dnet_jax.interpolate(models.generator(), jnp.ones(5), jnp.ones((2, 5)))
  for z in (jnp.ones((2, 4)), jnp.ones(())):
    with pytest.raises(ValueError, match=r'z must be \(\*chains, 5\), got'):
      dnet_jax.decode(models.generator(), z)
    with pytest.raises(ValueError, match=r'z must be \(\*chains, 5\), got'):
      dnet_jax.interpolate(models.generator(), z, z)


def test_starts_that_are_not_possible():
  for start in ('somewhere', 'given'):
    match = rf"start must be one of \['noise', .*got '{start}'"
    with pytest.raises(ValueError, match=match):
      call('synthesize', start=start)
  with pytest.raises(ValueError, match=r"'mean', 'local_average'.*'zero'"):
    dnet_jax.recover(KEY, models.descriptor(), shapes(), mask(), start='zero')
  for start, match in (
    ('components', 'principal components'),
    ('chains', 'num_shapes is 2, but the model keeps 0'),
    ('grids', "start must be 'grids' or 'components' for a multi-grid model"),
    ('generator', 'needs a model with a generator'),
    (shapes(3), 'start holds 3 shapes, num_shapes is 2'),
    (shapes(2)[:, 1:], r'start must be .*\(8, 8, 8\).*\(2, 7, 8, 8\)'),
  ):
    with pytest.raises(ValueError, match=match):
      call('synthesize', start=start)
  with pytest.raises(ValueError, match="and start is 'noise'"):
    call('multi_grid', start='noise')
  with pytest.raises(ValueError, match='one for each of the grids'):
    call('multi_grid', start=shapes(2))


def test_a_multi_grid_model_says_what_is_not_for_it():
  for keywords in (
    dict(noise_steps=1),
    dict(start_std=0.1),
    dict(start_spread=1.1),
    dict(refinement_steps=1),
    dict(refinement_std=0.1),
    dict(sharpening_steps=1),
    dict(sharpening_std=0.5),
  ):
    (name,) = keywords
    if not name.startswith('sharpening'):
      with pytest.raises(ValueError, match=f'{name} cannot be set'):
        call('multi_grid', **keywords)
    if name not in ('start_std', 'start_spread'):
      with pytest.raises(ValueError, match=f'{name} cannot be set'):
        dnet_jax.super_resolve(
          KEY, models.multi_grid(), jnp.ones((2, 2, 2)), **keywords
        )
  match = r'one number, or \(3,\) for each grid; got .*\(2,\)'
  with pytest.raises(ValueError, match=match):
    call('multi_grid', temperature=(1.0, 0.5))
  with pytest.raises(ValueError, match='one for each of the grids'):
    dnet_jax.recover(KEY, models.multi_grid(), shapes(), mask())
  for side in (3, 8):
    with pytest.raises(ValueError, match=r'\(1, 2, 4\)|of the model'):
      dnet_jax.super_resolve(
        KEY, models.multi_grid(), jnp.ones((side,) * 3), num_steps=1
      )


def test_shapes_that_do_not_fit():
  model, wrong = models.descriptor(), jnp.zeros((2, 7, 8, 8))
  named = r'\(8, 8, 8\) of the model, got shape \(2, 7, 8, 8\)'
  with pytest.raises(ValueError, match=named):
    dnet_jax.recover(KEY, model, wrong, mask())
  with pytest.raises(ValueError, match=named):
    dnet_jax.pooled_features(model, wrong)
  with pytest.raises(ValueError, match=named):
    dnet_jax.classify_shapes(models.classifier(), wrong)
  with pytest.raises(ValueError, match=named):
    dnet_jax.infer_latent(KEY, models.generator(), wrong)
  for coarse in (
    jnp.ones((3, 3, 3)),
    jnp.ones((4, 4, 2)),
    jnp.ones((4, 4)),
    jnp.ones(()),
    jnp.ones((16, 16, 16)),
    jnp.ones((0, 0, 0)),
  ):
    with pytest.raises(ValueError, match=r'coarse must be .* one factor d'):
      dnet_jax.super_resolve(KEY, model, coarse)


def test_masks_that_do_not_fit():
  for use, model in (
    (dnet_jax.recover, models.descriptor()),
    (dnet_jax.infer_latent, models.generator()),
    (dnet_jax.reconstruct, models.generator()),
  ):
    with pytest.raises(TypeError, match='visible must be boolean, got int'):
      use(KEY, model, shapes(), mask().astype(int))
    for wrong in (mask()[1:], np.stack([mask()] * 2), mask()[..., None]):
      with pytest.raises(ValueError, match='does not fit voxels of shape'):
        use(KEY, model, shapes(), wrong)


def test_what_a_model_can_do_follows_from_its_networks():
  without_descriptor = models.generator(), models.classifier()
  without_generator = models.descriptor(), models.multi_grid()
  z = jnp.ones(models.DIM)
  for model in without_descriptor:
    for use in (
      lambda m: dnet_jax.synthesize(KEY, m, 1, start='noise'),
      lambda m: dnet_jax.recover(KEY, m, shapes(), mask()),
      lambda m: dnet_jax.super_resolve(KEY, m, jnp.ones((4, 4, 4))),
      lambda m: dnet_jax.pooled_features(m, shapes()),
    ):
      with pytest.raises(ValueError, match='needs a model with a descriptor'):
        use(model)
  for model in (*without_generator, models.classifier()):
    for use in (
      lambda m: dnet_jax.generate(KEY, m, 1),
      lambda m: dnet_jax.draw_latent(KEY, m, 1),
      lambda m: dnet_jax.decode(m, z),
      lambda m: dnet_jax.infer_latent(KEY, m, shapes()),
      lambda m: dnet_jax.reconstruct(KEY, m, shapes()),
      lambda m: dnet_jax.interpolate(m, z, z),
    ):
      with pytest.raises(ValueError, match='needs a model with a generator'):
        use(model)
  for model in (*without_generator, models.generator()):
    with pytest.raises(ValueError, match='needs a model with a classifier'):
      dnet_jax.classify_shapes(model, shapes())
  with pytest.raises(ValueError, match='needs a model of several grids'):
    synthesis.synthesize_grids(KEY, models.descriptor(), 2)
  # One with both networks does all of it.
  both = rich()
  assert dnet_jax.generate(KEY, both, 1).shape == (1, *GRID)
  found = dnet_jax.recover(KEY, both, shapes(), mask(), num_steps=1)
  assert found.shape == (3, *GRID)


def test_a_uniform_reference():
  model = models.descriptor()
  model = dnet_jax.Model(
    model.spec._replace(reference='uniform'), model.params, model.extras
  )
  y = network(model, shapes())
  net = dnet_jax.Descriptor(**models.SIZES._asdict())
  f = net.apply(model.params['descriptor'], y)
  close(dnet_jax.uses.energy_fn(model)(y), -f, atol=1e-4)
  assert not np.allclose(energy_of(model)(y), -f)


def test_mala_needs_a_temperature():
  use = specs.Use('noise', 4, noise_steps=4, kernel='mala')
  model = models.descriptor(uses=(('synthesize', use),))
  with pytest.raises(ValueError, match='mala needs temperature > 0'):
    dnet_jax.synthesize(KEY, model, 2, noise_steps=2)
  found = dnet_jax.synthesize(KEY, model, 2, temperature=1.0, step_size=0.01)
  start = dnet_jax.from_noise(keys_of(KEY, 2, 0), (*GRID, 1), 0.3)

  @jax.jit
  def move(key, y):
    kernel = dnet_jax.mala(energy_of(model), 0.01)
    return dnet_jax.sample(keys_of(key, 2, 1), kernel, y, 4)[0]

  y = move(KEY, start.position)
  close(found, voxels_of(model, y))
  unknown = models.descriptor(
    uses=(('synthesize', use._replace(kernel='gibbs')),)
  )
  with pytest.raises(ValueError, match=r"'langevin', 'mala'.*'gibbs'"):
    dnet_jax.synthesize(KEY, unknown, 2)
