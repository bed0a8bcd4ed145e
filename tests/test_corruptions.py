"""What is hidden: how much of it, where, and independent of its company."""

import jax
import numpy as np
import pytest

import dnet_jax
from dnet_jax import corruptions

SHAPE = (8, 6, 10, 1)
KINDS = {
  'random_voxels': corruptions.random_voxels(0.7),
  'random_box': corruptions.random_box(0.2),
  'half_space': corruptions.half_space(0.4),
  'one_view': corruptions.one_view(0.3),
  'mixture': corruptions.mixture(
    [corruptions.random_box(0.2), corruptions.half_space(0.4)]
  ),
}


def shapes(n):
  """Some of whose voxels are full, a little and more than that."""
  rng = np.random.default_rng(7)
  y, some = rng.random((2, 300, *SHAPE))
  return (y * (some < 0.2))[:n].astype(np.float32)


def draw(corrupt, keys, first=0):
  y = shapes(first + len(keys))[first:]
  return np.asarray(jax.jit(corrupt)(keys, y))


def hidden(kind, n=12, seed=0):
  visible = draw(KINDS[kind], dnet_jax.chain_keys(jax.random.key(seed), n))
  assert visible.shape == (n, *SHAPE) and visible.dtype == bool
  return ~visible[..., 0]


@pytest.mark.parametrize('kind', KINDS)
def test_each_chain_has_its_own_whatever_is_beside_it(kind):
  corrupt = KINDS[kind]
  keys = dnet_jax.chain_keys(jax.random.key(3), 6)
  whole = draw(corrupt, keys)
  # As two devices would have it, with `axis_name` in `chain_keys`.
  split = np.concatenate([draw(corrupt, keys[:3]), draw(corrupt, keys[3:], 3)])
  np.testing.assert_array_equal(whole, split)
  assert len(np.unique(whole.reshape(6, -1), axis=0)) == 6


@pytest.mark.parametrize('kind', KINDS)
def test_keys_of_the_old_style_hide_the_same(kind):
  keys = jax.random.split(jax.random.PRNGKey(3), 4)
  assert keys.shape == (4, 2)
  np.testing.assert_array_equal(
    draw(KINDS[kind], keys),
    draw(KINDS[kind], jax.random.wrap_key_data(keys)),
  )


@pytest.mark.parametrize('fraction', [0.0, 0.333, 0.7, 1.0])
def test_exact_fraction(fraction):
  keys = dnet_jax.chain_keys(jax.random.key(0), 3)
  size = np.prod(SHAPE)
  for corrupt in (
    corruptions.random_voxels(fraction),
    corruptions.half_space(fraction),
  ):
    counts = (~draw(corrupt, keys)).sum(axis=(1, 2, 3, 4))
    assert counts.tolist() == [round(fraction * size)] * 3


def test_random_voxels_are_everywhere_alike():
  # 480 voxels of 200 shapes: each share within 5 standard errors of 0.7.
  share = hidden('random_voxels', 200).mean(axis=0)
  assert abs(share - 0.7).max() < 5 * np.sqrt(0.7 * 0.3 / 200)
  # And not in lumps: a neighbour is no more often hidden than any voxel.
  h = hidden('random_voxels', 200)
  both = (h[:, 1:] & h[:, :-1]).mean()
  assert abs(both - 0.49) < 0.01


def test_a_box_is_a_box_inside_the_grid():
  volumes = []
  for h in hidden('random_box', 40):
    sides = [np.flatnonzero(h.any(axis=(b, c))) for b, c in
             ((1, 2), (0, 2), (0, 1))]  # fmt: skip
    box = np.zeros_like(h)
    box[np.ix_(*sides)] = True
    np.testing.assert_array_equal(h, box)
    for side in sides:
      assert (np.diff(side) == 1).all()
    volumes.append(h.mean())
  # Rounded to whole voxels, so only about 0.2.
  assert abs(np.mean(volumes) - 0.2) < 0.03
  assert len(set(volumes)) > 5


def test_half_spaces_are_convex_on_both_sides():
  rng = np.random.default_rng(0)
  place = np.stack(np.meshgrid(*map(np.arange, SHAPE[:3]), indexing='ij'), -1)
  place = place.reshape(-1, 3)
  for h in hidden('half_space', 10):
    for side in (h, ~h):
      own = place[side.ravel()]
      a, b = own[rng.integers(len(own), size=(2, 2000))]
      middle = (a + b)[((a + b) % 2 == 0).all(axis=1)] // 2
      assert len(middle) > 50
      assert side[tuple(middle.T)].all()


def test_half_spaces_look_everywhere():
  # The mean hidden place of many planes is the middle of the grid.
  place = np.indices(SHAPE[:3]).reshape(3, -1)
  h = hidden('half_space', 300).reshape(300, -1)
  centre = (h @ place.T / h.sum(axis=1, keepdims=True)).mean(axis=0)
  middle = (np.array(SHAPE[:3]) - 1) / 2
  assert abs(centre - middle).max() < 0.6


def brute_force_view(full, axis, backwards):
  visible = np.zeros_like(full)
  for place in np.ndindex(*np.delete(full.shape, axis)):
    line = [*place]
    line.insert(axis, slice(None))
    steps = range(full.shape[axis])
    for step in reversed(steps) if backwards else steps:
      line[axis] = step
      visible[tuple(line)] = True
      if full[tuple(line)]:
        break
  return visible


def test_one_view_sees_up_to_the_first_full_voxel():
  full = shapes(40)[..., 0] > 0.3
  seen = ~hidden('one_view', 40)
  found = set()
  for y, visible in zip(full, seen, strict=True):
    views = {
      (axis, backwards): brute_force_view(y, axis, backwards)
      for axis in (0, 1)
      for backwards in (False, True)
    }
    matching = [v for v, x in views.items() if (x == visible).all()]
    assert len(matching) == 1
    found |= {*matching}
  # From all four sides.
  assert found == {(0, False), (0, True), (1, False), (1, True)}


def test_a_mixture_has_all_its_kinds():
  kinds = corruptions.mixture(
    [corruptions.random_voxels(0.5), corruptions.half_space(0.25)]
  )
  keys = dnet_jax.chain_keys(jax.random.key(0), 40)
  counts = (~draw(kinds, keys)).sum(axis=(1, 2, 3, 4))
  assert {*counts.tolist()} == {240, 120}
  assert 8 <= (counts == 240).sum() <= 32


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: corruptions.random_voxels(1.1), '1.1'),
    (lambda: corruptions.random_voxels(-0.1), '-0.1'),
    (lambda: corruptions.random_box(0.0), '0.0'),
    (lambda: corruptions.half_space(2.0), '2.0'),
    (lambda: corruptions.mixture([]), 'at least one'),
    (lambda: corruptions.one_view(axes=()), r'\(\)'),
    (lambda: corruptions.one_view(axes=(0, 3)), r'\(0, 3\)'),
  ],
)
def test_impossible_corruptions(make, message):
  with pytest.raises(ValueError, match=message):
    make()
