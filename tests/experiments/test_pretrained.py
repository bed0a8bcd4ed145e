"""Every folder of pretrained/ is loaded and does what it is for."""

import pathlib

import jax
import numpy as np
import pytest

import dnet_jax
from dnet_jax import models
from experiments.files import models as files

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = sorted((ROOT / 'pretrained').iterdir())


def _ball(grid):
  axes = np.indices(grid) - (np.array(grid) - 1)[:, None, None, None] / 2
  return ((axes**2).sum(0) < (grid[0] / 4) ** 2).astype(np.float32)


def _synthesis(model, key):
  assert model.spec.reference == 'gaussian'
  persistent = dnet_jax.synthesize(key, model, 2, start='chains', num_steps=0)
  # Learned shapes are neither empty nor full.
  assert 0.01 < float((persistent > 0.5).mean()) < 0.5
  return dnet_jax.synthesize(key, model, 2, start='noise', num_steps=2)


def _recovery(model, key):
  ball = _ball(model.spec.grid)
  visible = np.arange(model.spec.grid[2]) % 2 == 0
  y = dnet_jax.recover(key, model, ball, visible)
  shown = np.broadcast_to(visible, ball.shape)
  np.testing.assert_array_equal(np.asarray(y)[shown], ball[shown])
  return y[None]


def _super_resolution(model, key):
  y = _ball(model.spec.grid)[None, ..., None]
  coarse = dnet_jax.downscale(y, 4)[..., 0]
  fine = dnet_jax.super_resolve(key, model, coarse, num_steps=2)
  again = dnet_jax.downscale(fine[..., None], 4)[..., 0]
  np.testing.assert_allclose(again, coarse, atol=1e-4)
  return fine


def _cooperative(model, key):
  made = dnet_jax.generate(key, model, 2)
  assert 0.01 < float((made > 0.5).mean()) < 0.5
  z = dnet_jax.infer_latent(key, model, made, num_starts=1, num_steps=2)
  assert z.shape == (2, model.spec.generator.latent_dim)
  return dnet_jax.synthesize(key, model, 2, start='generator', num_steps=1)


def _multi_grid(model, key):
  made = dnet_jax.synthesize(key, model, 2, num_steps=1)
  assert 0.01 < float((made > 0.5).mean()) < 0.5
  coarser, finest = model.spec.grids[-2:]
  coarse = dnet_jax.downscale(made[..., None], finest // coarser)[..., 0]
  return dnet_jax.super_resolve(key, model, coarse, num_steps=1)


def _classifier(model, key):
  del key
  ball = _ball(model.spec.grid)
  found = dnet_jax.classify_shapes(model, np.stack([ball, np.ones_like(ball)]))
  np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)
  # A full grid is none of the classes.
  assert found.none[1] > 0.5
  return np.zeros((1, *model.spec.grid))


_USES = {
  'synthesis': _synthesis,
  'recovery': _recovery,
  'super_resolution': _super_resolution,
  'cooperative': _cooperative,
  'multi_grid': _multi_grid,
  'evaluation_classifier': _classifier,
}


def _first_of_each_task():
  seen = set()
  for folder in FOLDERS:
    task = folder.name.rpartition('_')[0]
    marks = [pytest.mark.slow] if task in seen else []
    seen.add(task)
    yield pytest.param(folder, id=folder.name, marks=marks)


@pytest.mark.parametrize('folder', [*_first_of_each_task()])
def test_a_pretrained_model_is_used(folder):
  model, card = dnet_jax.load(folder), models.read_card(folder)
  task = card['config']['task']
  y = _USES[task](model, jax.random.key(0))
  assert y.shape[1:] == model.spec.grid and np.isfinite(y).all()
  # The program opens it likewise, and knows its config.
  _, own = files.open_model(str(folder))
  assert files.full_config(own['config']).name == card['name']
  assert card['seconds'] > 0 and card['numbers'] and card['data']


def test_there_is_one_of_each_task():
  found = {models.read_card(f)['config']['task'] for f in FOLDERS}
  assert found == {*_USES}
