import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dnet_jax
from dnet_jax import grids
from dnet_jax import pca

K = 5  # standard errors
SHAPE = (2, 2, 2, 1)


def energy_fn(y):
  return jnp.sum(y**2, axis=(-4, -3, -2, -1)) / 2


def keys(n, seed=0):
  return dnet_jax.chain_keys(jax.random.key(seed), n)


def test_chain_keys_do_not_depend_on_how_many_there_are():
  data = jax.random.key_data
  np.testing.assert_array_equal(data(keys(7))[:3], data(keys(3)))
  assert len(np.unique(data(keys(7)), axis=0)) == 7
  mapped = jax.vmap(
    lambda key: dnet_jax.chain_keys(key, 3, 'devices'),
    in_axes=None,
    axis_name='devices',
    axis_size=2,
  )(jax.random.key(0))
  np.testing.assert_array_equal(data(mapped).reshape(6, -1), data(keys(6)))


def test_noise_has_its_standard_deviation():
  y = dnet_jax.from_noise(keys(5000), SHAPE, std=0.3).position
  n = y.size
  assert abs(float((y**2).mean()) / 0.09 - 1) < K * np.sqrt(2 / n)
  assert abs(float(y.mean())) < K * 0.3 / np.sqrt(n)
  few = dnet_jax.from_noise(keys(3), SHAPE, std=0.3).position
  np.testing.assert_array_equal(few, y[:3])


def test_starts_hold_what_they_were_given():
  rng = np.random.default_rng(0)
  y = jnp.asarray(rng.normal(size=(3, 4, 4, 4, 1)), jnp.float32)
  visible = jnp.asarray(rng.random((3, 4, 4, 4, 1)) < 0.5)
  hidden = jnp.where(visible, y, jnp.nan)
  starts = {
    'data': dnet_jax.from_data(y),
    'corrupted': dnet_jax.from_corrupted(hidden, visible, 0.25),
    'low': dnet_jax.from_low_resolution(dnet_jax.downscale(y, 2), 2),
    'coarse': dnet_jax.from_coarse(dnet_jax.downscale(y, 4), 4),
  }
  np.testing.assert_array_equal(starts['data'].position, y)
  start = starts['corrupted'].position
  np.testing.assert_array_equal(start, jnp.where(visible, y, 0.25))
  run = functools.partial(dnet_jax.run_chains, num_steps=20, step_size=0.1)
  moved = jax.jit(
    lambda key: {
      name: run(key, energy_fn, start)[0] for name, start in starts.items()
    }
  )(jax.random.key(0))
  assert all(bool(jnp.isfinite(y).all()) for y in moved.values())
  np.testing.assert_array_equal(moved['corrupted'][visible], y[visible])
  assert bool((moved['corrupted'][~visible] != 0.25).all())
  np.testing.assert_allclose(
    dnet_jax.downscale(moved['low'], 2), dnet_jax.downscale(y, 2), atol=1e-5
  )
  for name, side in (('data', 2), ('coarse', 4)):
    change = dnet_jax.downscale(moved[name] - starts[name].position, side)
    assert float(jnp.abs(change).min()) > 0  # Free: averages move.


def test_a_slot_owns_its_chains():
  memory = dnet_jax.ChainMemory(
    jax.random.normal(jax.random.key(0), (3, 4, *SHAPE))
  )
  for slot in (1, jnp.asarray(1)):
    start = dnet_jax.read_chains(memory, slot)
    np.testing.assert_array_equal(start.position, memory.positions[1])
    new = dnet_jax.write_chains(memory, slot, start.position + 1)
    np.testing.assert_array_equal(new.positions[0], memory.positions[0])
    np.testing.assert_array_equal(new.positions[2], memory.positions[2])
    np.testing.assert_array_equal(new.positions[1], memory.positions[1] + 1)


@pytest.mark.parametrize('probability', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('traced', [False, True])
def test_restarts_a_share_of_the_chains(probability, traced):
  n, std = 4000, 0.7
  start = dnet_jax.from_data(jnp.full((n, *SHAPE), 9.0))

  def draw(keys):
    return dnet_jax.from_noise(keys, SHAPE, std).position

  def restart(probability):
    return dnet_jax.restart_chains(keys(n), start, probability, draw).position

  y = np.asarray((jax.jit(restart) if traced else restart)(probability))
  same = (y == 9.0).all((1, 2, 3, 4))
  some = (y == 9.0).any((1, 2, 3, 4))
  np.testing.assert_array_equal(same, some)  # A chain as a whole, or not.
  error = np.sqrt(probability * (1 - probability) * n)
  assert abs((~same).sum() - n * probability) <= K * error
  if probability:
    fresh = y[~same]
    error = np.sqrt(2 / fresh.size)
    assert abs((fresh**2).mean() / std**2 - 1) < K * error
    assert abs(fresh.mean()) < K * std / np.sqrt(fresh.size)
    # That a chain restarts says nothing about its noise.
    assert len(np.unique(fresh[:, 0, 0, 0, 0])) > 0.99 * len(fresh)


def noise(keys):
  return dnet_jax.from_noise(keys, SHAPE).position


def test_a_restart_is_of_the_chains_own_key():
  start = dnet_jax.from_data(jnp.zeros((6, *SHAPE)))
  y = dnet_jax.restart_chains(keys(6), start, 0.5, noise).position
  assert len(np.unique(np.asarray(y == 0).all((1, 2, 3, 4)))) == 2
  part = start._replace(position=start.position[2:5])
  alone = dnet_jax.restart_chains(keys(6)[2:5], part, 0.5, noise).position
  np.testing.assert_array_equal(alone, y[2:5])


def test_share_must_be_a_probability():
  start = dnet_jax.from_data(jnp.zeros((2, *SHAPE)))
  source = dnet_jax.noise_source(SHAPE)
  for probability in (-0.1, 1.1, float('nan')):
    with pytest.raises(ValueError, match=r'\[0, 1\]'):
      dnet_jax.restart_chains(keys(2), start, probability, noise)
    with pytest.raises(ValueError, match=r'restart_probability .*\[0, 1\]'):
      dnet_jax.persistent(source, num_chains=2, restart_probability=probability)


@pytest.mark.parametrize('slot', [-1, 3, np.int32(7)])
def test_a_slot_out_of_range_is_no_other_slot(slot):
  # XLA would clamp it to the last one.
  memory = dnet_jax.ChainMemory(jnp.zeros((3, 4, *SHAPE)))
  match = f'slot must be from 0 to 2, got {slot}'
  with pytest.raises(ValueError, match=match):
    dnet_jax.read_chains(memory, slot)
  with pytest.raises(ValueError, match=match):
    dnet_jax.write_chains(memory, slot, memory.positions[0])


@pytest.mark.parametrize('field', ['num_chains', 'num_slots'])
def test_a_memory_holds_at_least_one_chain(field):
  sizes = {'num_chains': 3, 'num_slots': 2} | {field: 0}
  with pytest.raises(ValueError, match=r'at least 1, got .*0'):
    dnet_jax.persistent(dnet_jax.noise_source(SHAPE), **sizes)


def components(neighbours=2):
  rng = np.random.default_rng(0)
  directions, _ = np.linalg.qr(rng.normal(size=(8, 2)))
  return dnet_jax.Components(
    jnp.asarray(rng.normal(size=SHAPE), jnp.float32),
    jnp.asarray(directions.T.reshape(2, *SHAPE), jnp.float32),
    coordinates=jnp.array([[1, 0], [-1, 2], [3, 1], [-4, -1], [1, -2.0]]),
    neighbours=neighbours,
  )


def nearest(coordinates, neighbours):
  """Pairs of a shape and one of its nearest, by brute force."""
  for i, one in enumerate(coordinates):
    distances = [np.linalg.norm(one - other) for other in coordinates]
    for j in np.argsort(distances)[1 : neighbours + 1]:
      yield i, j


@pytest.mark.parametrize(('neighbours', 'spread'), [(1, 0.3), (2, 0.7), (9, 0)])
def test_draws_of_components_lie_around_points_between_two(neighbours, spread):
  n, std = 5000, 0.1
  mean, directions, coordinates = (
    np.asarray(x, np.float64) for x in components()[:3]
  )
  drawn = dnet_jax.from_components(keys(n), components(neighbours), std, spread)
  y = np.asarray(drawn.position, np.float64).reshape(n, -1)
  v = directions.reshape(2, -1)
  # Of a share that is uniform between .3 and .7, of a pair.
  pairs = [*nearest(coordinates, min(neighbours, 4))]
  middles = np.stack([coordinates[[i, j]].mean(0) for i, j in pairs])
  apart = np.stack([coordinates[j] - coordinates[i] for i, j in pairs])
  middle = middles.mean(0)
  within = np.diag(spread**2 * np.square(coordinates).mean(0))
  within += 0.4**2 / 12 * apart.T @ apart / len(pairs)
  between = (middles - middle).T @ (middles - middle) / len(pairs)
  covariance = v.T @ (within + between) @ v + std**2 * np.eye(8)
  centred = y - mean.ravel() - middle @ v
  assert (np.abs(centred.mean(0)) < K * np.sqrt(np.diag(covariance) / n)).all()
  products = centred[:, :, None] * centred[:, None]
  error = products.std(0) / np.sqrt(n)
  found = products.mean(0)
  assert (np.abs(found - covariance) < K * error).all()
  # Negative controls: the middles alone, and noise of twice that deviation.
  alone = v.T @ between @ v + std**2 * np.eye(8)
  assert (np.abs(found - alone) > K * error).any()
  assert (np.abs(found - covariance - 3 * std**2 * np.eye(8)) > K * error).any()


def test_no_draw_of_components_is_near_a_copy():
  mean, directions, coordinates = (
    np.asarray(x, np.float64) for x in components()[:3]
  )
  y = dnet_jax.from_components(keys(300), components(), 0.0, 0.0).position
  y = np.asarray(y, np.float64) - mean
  along = y.reshape(300, -1) @ directions.reshape(2, -1).T
  seen = set()
  for point in along:
    found = []
    for i, j in nearest(coordinates, 2):
      one, other = coordinates[[i, j]]
      direction = other - one
      share = (point - one) @ direction / (direction @ direction)
      off = np.abs(point - one - share * direction).max()
      if off < 1e-4 and 0.3 - 1e-4 <= share <= 0.7 + 1e-4:
        found.append((i, j))
    assert found
    seen |= {*found}
  assert seen == {*nearest(coordinates, 2)}


def stretched_reference(y, box, new, outside):
  """Voxel by voxel: the value where its centre was before."""
  found = np.full(y.shape, outside, y.dtype)
  for place in np.ndindex(*y.shape[:3]):
    was = [
      int(np.floor(a0 + (k + 0.5 - b0) * (a1 - a0) / (b1 - b0)))
      for k, (a0, a1), (b0, b1) in zip(place, box, new, strict=True)
    ]
    if all(0 <= x < side for x, side in zip(was, y.shape, strict=False)):
      found[place] = y[tuple(was)]
  return found


def test_a_stretched_draw_is_one_shape_in_the_proportions_of_another():
  rng = np.random.default_rng(0)
  shapes = np.zeros((3, 9, 6, 5, 1), np.float32)
  boxes = np.array(
    [
      [[0, 9], [2, 4], [0, 2]],
      [[1, 4], [0, 6], [0, 5]],
      [[3, 9], [1, 2], [1, 4]],
    ]
  )
  for y, box in zip(shapes, boxes, strict=True):
    inside = tuple(slice(*side) for side in box)
    y[inside] = rng.uniform(0.6, 1.0, size=y[inside].shape)
  mean = shapes.mean(0)
  rows = (shapes - mean).reshape(3, -1)
  _, _, directions = np.linalg.svd(rows, full_matrices=False)
  coordinates = rows @ directions.T
  drawn = dnet_jax.from_components(
    keys(60),
    dnet_jax.Components(
      jnp.asarray(mean),
      jnp.asarray(directions.reshape(3, *mean.shape)),
      jnp.asarray(coordinates),
      neighbours=1,
      boxes=jnp.asarray(boxes, jnp.float32),
    ),
    0.0,
    0.0,
  )
  pairs = [*nearest(coordinates, 1)]
  shares = np.linspace(0.3, 1.0, 701)
  # Sides are whole voxels: few of the shares differ.
  expected = {
    (i, tuple(np.floor(new + 0.5).ravel())): (i, np.floor(new + 0.5))
    for i, j in pairs
    for new in boxes[i] + shares[:, None, None] * (boxes[j] - boxes[i])
  }
  expected = [
    (i, stretched_reference(shapes[i], boxes[i], new, mean.min()))
    for i, new in expected.values()
  ]
  seen = set()
  for y in np.asarray(drawn.position):
    errors = [np.abs(y - other).max() for _, other in expected]
    assert min(errors) < 1e-5
    seen.add(expected[int(np.argmin(errors))][0])
  assert seen == {0, 1, 2}
  # Negative control: no draw is a shape as it was.
  for y in np.asarray(drawn.position):
    assert min(np.abs(y - shape).max() for shape in shapes) > 0.2


@pytest.mark.parametrize('neighbours', [1, 9])
def test_a_draw_is_never_a_shape_in_its_own_box(neighbours):
  """The nearest shapes often have the same box, or one almost as large."""
  rng = np.random.default_rng(0)
  shapes = np.zeros((4, 8, 8, 8, 1), np.float32)
  boxes = np.tile([[0, 8], [1, 7], [2, 6]], (4, 1, 1))
  boxes[2, 1] = boxes[3, 0] = 2, 7
  for y, box in zip(shapes, boxes, strict=True):
    inside = tuple(slice(*side) for side in box)
    y[inside] = rng.uniform(0.6, 1.0, size=y[inside].shape)
  mean = shapes.mean(0)
  rows = (shapes - mean).reshape(4, -1)
  directions = np.linalg.svd(rows, full_matrices=False)[2]

  def draws(boxes):
    components = dnet_jax.Components(
      *map(jnp.asarray, (mean, directions.reshape(4, *mean.shape))),
      coordinates=jnp.asarray(rows @ directions.T),
      neighbours=neighbours,
      boxes=jnp.asarray(boxes, jnp.float32),
    )
    first = jnp.arange(200) % 4
    return np.asarray(pca.draw(keys(200), components, 0.0, 0.0, first))

  for i, y in enumerate(draws(boxes)):
    assert np.abs(y - shapes[i % 4]).max() > 0.1
    found = grids.bounding_boxes(jnp.asarray(y), 0.5)
    assert (np.asarray(found) != boxes[i % 4]).any()
  # Where all have one box, there is nothing to stretch to.
  for i, y in enumerate(draws(boxes[[0] * 4])):
    if i % 4 < 2:
      np.testing.assert_allclose(y, shapes[i % 4], atol=1e-5)


def test_no_index_comes_twice_before_all_have_come_once():
  drawn = [np.asarray(dnet_jax.without_repeats(key, 3, 8)) for key in keys(600)]
  for order in drawn:
    assert sorted(order[:3]) == [0, 1, 2]
    np.testing.assert_array_equal(order, np.resize(order[:3], 8))
  np.testing.assert_array_equal(
    dnet_jax.without_repeats(keys(1)[0], 3, 2), drawn[0][:2]
  )
  # All orders are as likely: a chi-squared of 5 degrees of freedom.
  _, counts = np.unique([order[:3] for order in drawn], axis=0,
                        return_counts=True)  # fmt: skip
  assert len(counts) == 6
  assert np.square(counts - 100).sum() / 100 < 25.7  # One in ten thousand.
  with pytest.raises(ValueError, match='count must be at least 1, got 0'):
    dnet_jax.without_repeats(keys(1)[0], 0, 2)


def test_draws_of_components_begin_at_the_shapes_that_are_asked_for():
  mean, directions, coordinates = (
    np.asarray(x, np.float64) for x in components()[:3]
  )
  first = np.arange(200) % 3
  y = dnet_jax.from_components(
    keys(200), components(), 0.0, 0.0, jnp.asarray(first)
  ).position
  along = (np.asarray(y) - mean).reshape(200, -1) @ directions.reshape(2, -1).T
  seen = set()
  for i, point in zip(first, along, strict=True):
    found = set()
    for one, j in nearest(coordinates, 2):
      towards = coordinates[j] - coordinates[one]
      share = (point - coordinates[one]) @ towards / (towards @ towards)
      off = np.abs(point - coordinates[one] - share * towards).max()
      if off < 1e-4 and 0.3 - 1e-4 <= share <= 0.7 + 1e-4:
        found.add((one, j))
    found = {pair for pair in found if pair[0] == i}
    assert found
    seen |= found
  assert seen == {(i, j) for i, j in nearest(coordinates, 2) if i < 3}


SOURCES = {
  'noise': lambda: dnet_jax.noise_source(SHAPE, 0.3),
  'components': lambda: dnet_jax.component_source(components(), 0.3, 0.5),
}


@pytest.mark.parametrize('name', SOURCES)
def test_a_memory_begins_and_restarts_at_its_source(name):
  source = SOURCES[name]()
  memory = dnet_jax.persistent(
    source, num_chains=4, num_slots=3, restart_probability=1.0
  )
  key = jax.random.key(1)
  held = memory.init(key)
  drawn = source.draw(dnet_jax.chain_keys(key, 12), source.arrays)
  np.testing.assert_array_equal(held.positions.reshape(12, *SHAPE), drawn)
  sampler = dnet_jax.make_sampler(num_steps=1, step_size=0.1)
  start = memory.read(jax.random.key(2), held, 5, sampler)
  again = dnet_jax.chain_keys(jax.random.key(2), 4)
  again = jax.vmap(jax.random.fold_in, (0, None))(again, 1)
  np.testing.assert_array_equal(
    start.position, source.draw(again, source.arrays)
  )
  held = memory.write(held, 5, start.position)
  np.testing.assert_array_equal(held.positions[2], start.position)
  np.testing.assert_array_equal(
    held.positions[:2].reshape(8, *SHAPE), drawn[:8]
  )


@pytest.mark.parametrize('name', SOURCES)
def test_what_chains_restart_from_is_no_constant_of_the_program(name):
  """It comes with the state: other arrays, the same program."""
  source = SOURCES[name]()
  memory = dnet_jax.persistent(source, num_chains=4, restart_probability=1.0)
  sampler = dnet_jax.make_sampler(num_steps=1, step_size=0.1)
  traces = []

  @jax.jit
  def read(held):
    traces.append(1)
    return memory.read(jax.random.key(2), held, 0, sampler).position

  held = memory.init(jax.random.key(1))
  first = read(held)
  doubled = jax.tree.map(lambda x: 2 * x, held.source)
  again = dnet_jax.chain_keys(jax.random.key(2), 4)
  again = jax.vmap(jax.random.fold_in, (0, None))(again, 1)
  second = read(held._replace(source=doubled))
  np.testing.assert_allclose(second, source.draw(again, doubled), atol=1e-5)
  assert np.abs(second - first).max() > 0.1
  assert len(traces) == 1


@pytest.mark.parametrize('name', ['recovery', 'super_resolution'])
def test_what_a_guess_needs_is_no_constant_of_the_step(name):
  """It belongs to the state: other arrays, the same program."""

  def energy_fn(theta, y):
    return ((y - theta) ** 2).sum((-4, -3, -2, -1)) / 2

  # Signs that no average of blocks shows.
  signs = jnp.broadcast_to(1.0 - 2 * (jnp.arange(SHAPE[2]) % 2)[:, None], SHAPE)
  own = {
    'recovery': {
      'corrupt': lambda keys, y: jnp.zeros(y.shape, bool),
      'fill': lambda y, visible, mean, level: jnp.full_like(y, level),
    },
    'super_resolution': {
      'factor': 2,
      'guess': lambda low, level: level * jnp.stack([signs] * len(low)),
    },
  }
  algorithm = getattr(dnet_jax, name)(
    energy_fn,
    dnet_jax.make_learner(dnet_jax.contrastive_loss(energy_fn), optax.sgd(0.1)),
    dnet_jax.make_sampler(num_steps=0, step_size=0.1),
    arrays=jnp.asarray(2.0),
    **own[name],
  )
  traces = []

  @jax.jit
  def step(state):
    traces.append(1)
    return algorithm.step(
      jax.random.key(1), state, jnp.ones((3, *SHAPE)), dnet_jax.Schedule()
    )

  state = algorithm.init(jax.random.key(0), {'descriptor': jnp.zeros(())})
  with pytest.raises(ValueError, match='no chains'):
    dnet_jax.read_chains(state.memory, 0)
  after, metrics = step(state)
  other = state._replace(memory=state.memory._replace(source=jnp.asarray(-3.0)))
  _, others = step(other)
  assert len(traces) == 1
  levels = (2.0, 3.0) if name == 'recovery' else (1 + 2.0, 1 + 3.0)
  assert (float(metrics['chain_max']), float(others['chain_max'])) == levels
  assert float(after.memory.source) == 2.0


def test_a_memory_may_begin_at_data():
  y = jax.random.normal(jax.random.key(0), (2, 3, *SHAPE))
  memory = dnet_jax.persistent(
    dnet_jax.noise_source(SHAPE), num_chains=3, num_slots=2, positions=y
  )
  np.testing.assert_array_equal(memory.init(jax.random.key(1)).positions, y)
  for shape in ((3, 2, *SHAPE), (6, *SHAPE), (2, 4, *SHAPE)):
    with pytest.raises(ValueError, match=r'positions must be \(2, 3, \.\.\.\)'):
      dnet_jax.persistent(
        dnet_jax.noise_source(SHAPE),
        num_chains=3,
        num_slots=2,
        positions=jnp.zeros(shape),
      )


def test_a_sampler_is_run_chains_with_its_settings():
  start = dnet_jax.from_data(jnp.ones((3, *SHAPE)))
  for kernel in (dnet_jax.langevin, dnet_jax.mala):
    settings = dict(num_steps=3, step_size=0.2, kernel=kernel)
    sampler = dnet_jax.make_sampler(**settings)
    y, info = sampler.run(keys(3), energy_fn, start, 0.5)
    expected, trace = dnet_jax.run_chains(
      keys(3), energy_fn, start, temperature=0.5, **settings
    )
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(info.energy, trace.energy)
  data = jax.random.key_data
  np.testing.assert_array_equal(
    data(sampler.keys(jax.random.key(0), 3)), data(keys(3))
  )
