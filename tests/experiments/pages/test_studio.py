"""What pages do with a model: made, moved, edited and filled shapes."""

import jax
import numpy as np
import pytest

import dnet_jax
from experiments.pages import studio as studios
from tests.experiments import tiny
from tests.experiments.pages import again


@pytest.fixture
def studio_of(folder_of):
  def studio(name):
    asked = tiny.request(folder_of(name))
    return studios.open_studio(asked.model, name, asked.config)

  return studio


@pytest.mark.slow
def test_kinds_of_new_shapes(studio_of):
  for name, expected in (
    ('synthesis', ('fresh', 'persistent', 'test shape')),
    ('recovery', ('test shape', 'fresh')),
    ('cooperative', ('fresh', 'generated', 'persistent', 'test shape')),
    ('multi_grid', ('fresh', 'test shape')),
  ):
    studio = studio_of(name)
    kinds = [kind for kind in expected if kind in studio.kinds]
    assert [*studio.kinds] == kinds and kinds[0] == expected[0]
    piece = studios.begin(studio)
    for kind in kinds:
      first = studios.make(studio, piece, kind, 3)
      assert first.voxels.shape == (8, 8, 8) and np.isfinite(first.voxels).all()
      # The same seed makes the same shape; the next one is another.
      again = studios.make(studio, piece, kind, 3)
      np.testing.assert_array_equal(first.voxels, again.voxels)
      others = [first]
      for _ in range(4):
        others.append(studios.make(studio, others[-1], kind, 3))
      assert len({other.voxels.tobytes() for other in others}) > 1
    with pytest.raises(ValueError, match='kind must be one of'):
      studios.make(studio, piece, 'chair', 0)


@pytest.mark.slow
def test_a_classifier_makes_no_shapes(folder_of):
  asked = tiny.request(folder_of('evaluation_classifier'))
  with pytest.raises(ValueError, match='descriptor or a generator'):
    studios.open_studio(asked.model, 'x', asked.config)


def test_steps_are_those_of_the_library(studio_of):
  studio = studio_of('synthesis')
  piece = studios.make(studio, studios.begin(studio), 'fresh', 1)
  start, plan = piece.voxels, studios.planned(piece)
  assert not plan['done'] and plan['total'] == piece.plan.steps > 1
  for _ in range(3):
    piece = studios.move(studio, piece, 1, 0.0, plan['step_size'])
  expected = dnet_jax.synthesize(
    jax.random.key(0),
    studio.model,
    1,
    start=start[None],
    num_steps=3,
    step_size=plan['step_size'],
    temperature=0.0,
    refinement_steps=0,
  )
  np.testing.assert_allclose(piece.voxels, expected[0], atol=1e-5)
  assert piece.step == 3 and np.isfinite(piece.energy)
  hot = studios.move(studio, piece, 1, 1.0, plan['step_size'])
  cold = studios.move(studio, piece, 1, 0.0, plan['step_size'])
  noise = (hot.voxels - cold.voxels) * float(studio.model.extras['scale'])
  # Eq. (7): its variance is T times the step, 5 standard errors.
  spread = noise.var() / plan['step_size']
  assert abs(spread - 1) < 5 * np.sqrt(2 / noise.size)
  for bad in ((-1, 0.1), (1, 0.0), (1, float('nan')), (float('inf'), 0.1)):
    with pytest.raises(ValueError, match='temperature must be'):
      studios.move(studio, piece, 1, *bad)


def test_filling_moves_what_is_hidden_and_nothing_else(studio_of):
  for name in ('recovery', 'multi_grid'):
    studio = studio_of(name)
    piece = studios.make(studio, studios.begin(studio), 'test shape', 0)
    codes = np.zeros((8, 8, 8), np.uint8)
    codes[:4] = studios.HIDE
    codes[7, 7, 7] = studios.ADD
    edited = studios.edit(piece, codes)
    assert not edited.voxels[:4].any() and edited.voxels[7, 7, 7] == 1
    np.testing.assert_array_equal(edited.hidden, codes == studios.HIDE)
    filled = studios.fill(studio, edited, 0)
    plan = studios.planned(filled)
    while not studios.planned(filled)['done']:
      filled = studios.move(studio, filled, 0, 0.1, plan['step_size'])
    assert filled.step == plan['total'] > 1
    np.testing.assert_array_equal(filled.voxels[4:], edited.voxels[4:])
    assert (filled.voxels[:4] != edited.voxels[:4]).all()
    # Undone step by step.
    for before in (edited, piece):
      filled = studios.undo(filled)
      np.testing.assert_array_equal(filled.voxels, before.voxels)
      np.testing.assert_array_equal(filled.hidden, before.hidden)
    # What is hidden next is another part.
    whole = studios.fill(studio, edited, 0)
    codes = np.zeros_like(codes)
    codes[6:] = studios.HIDE
    np.testing.assert_array_equal(
      studios.edit(whole, codes).hidden, codes == studios.HIDE
    )


def test_edits_that_cannot_be(studio_of):
  studio = studio_of('recovery')
  piece = studios.make(studio, studios.begin(studio), 'test shape', 0)
  for codes in (np.full((8, 8, 8), 4, np.uint8), np.zeros((4, 4, 4), np.uint8)):
    with pytest.raises(ValueError, match='codes must be'):
      studios.edit(piece, codes)
  with pytest.raises(ValueError, match='hide a part'):
    studios.fill(studio, piece, 0)
  nothing = studios.edit(piece, np.full((8, 8, 8), studios.HIDE, np.uint8))
  with pytest.raises(ValueError, match='not all of it'):
    studios.fill(studio, nothing, 0)
  removed = studios.edit(piece, np.full((8, 8, 8), studios.REMOVE, np.uint8))
  assert not removed.hidden.any() and not removed.voxels.any()


@pytest.mark.slow
def test_sliders_of_a_latent_space(studio_of):
  studio = studio_of('cooperative')
  piece = studios.make(studio, studios.begin(studio), 'generated', 0)
  values = studios.latent_values(studio, piece)
  assert len(values) == len(studio.directions) == tiny.LATENT_DIM
  np.testing.assert_allclose(
    studio.directions @ studio.directions.T, np.eye(len(values)), atol=1e-5
  )
  same = studios.move_latent(studio, piece, values)
  np.testing.assert_allclose(same.voxels, piece.voxels, atol=1e-5)
  wanted = [values[0] + 1.5, *values[1:]]
  moved = studios.move_latent(studio, piece, wanted)
  np.testing.assert_allclose(
    studios.latent_values(studio, moved), wanted, atol=1e-5
  )
  np.testing.assert_allclose(
    moved.voxels, dnet_jax.decode(studio.model, moved.latent), atol=1e-6
  )
  assert abs(moved.voxels - piece.voxels).max() > 1e-3
  for bad in ([1.0], [*values[:-1], float('nan')]):
    with pytest.raises(ValueError, match='numbers are needed'):
      studios.move_latent(studio, piece, bad)
  stepped = studios.move(studio, piece, 0, 0.0, 0.01)
  with pytest.raises(ValueError, match='only a generated shape'):
    studios.move_latent(studio, stepped, values)


def test_files_open_again(studio_of):
  studio = studio_of('synthesis')
  piece = studios.make(studio, studios.begin(studio), 'test shape', 0)
  inside = piece.voxels > 0.5
  for kind in studios.FORMATS:
    again.check(studios.content(piece, kind), kind, inside)
  with pytest.raises(ValueError, match='format must be one of'):
    studios.content(piece, 'exe')
  with pytest.raises(ValueError, match='nothing to save'):
    studios.content(studios.begin(studio), 'glb')
