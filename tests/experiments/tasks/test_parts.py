"""Configs become objects; what is not possible is refused with the value."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dnet_jax
from experiments import parallel
from experiments import tasks
from experiments import train
from experiments.configs import test as test_config
from experiments.tasks import checks
from experiments.tasks import networks
from experiments.tasks import parts
from tests import runs


def _experiment(config):
  task = networks.choice(tasks.TASKS, config.task, 'task')
  return task.experiment(config, parts.data(config))


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('task', 'magic', 'task .*magic'),
    ('algorithm', 'magic', 'algorithm .*magic'),
    ('algorithm', 'cooperative', 'algorithm .*cooperative'),
    ('model.network', 'magic', r'model\.network .*magic'),
    ('model.dtype', 'float8', r'model\.dtype .*float8'),
    ('model.precision', 'half', r'model\.precision .*half'),
    ('model.reference', 'cauchy', r'model\.reference .*cauchy'),
    ('model.reference_std', -1.0, '-1'),
    ('chains.kernel', 'hmc', r'chains\.kernel .*hmc'),
    ('chains.restart_probability', 1.5, r'1\.5'),
    ('data.category', 'spoon', 'spoon'),
    ('data.batch_size', 1000, '1000'),
    ('data.batch_size', 0, '0'),
  ],
)
def test_impossible_values_are_refused(field, value, message):
  # By the parts themselves: not only by `checks`.
  with pytest.raises(ValueError, match=message):
    _experiment(runs.config(**{field: value}))


@pytest.mark.parametrize(
  ('kind', 'overrides', 'message'),
  [
    ('cooperative', {'algorithm': 'magic'}, 'algorithm .*magic'),
    ('cooperative', {'generator.network': 'magic'}, r'generator\.network'),
    ('cooperative', {'generator.latent_dim': 0}, 'latent_dim .* got 0'),
    ('recovery', {'corruption.kind': 'magic'}, r'corruption\.kind .*magic'),
    ('recovery', {'corruption.fill_std': -1.0}, 'fill_std .* got -1'),
    ('super_resolution', {'factor': 3}, r'factor .*\(8, 8, 8\), got 3'),
    ('super_resolution', {'factor': 1}, 'factor .* got 1'),
    ('multi_grid', {'model.grids': (3, 8)}, r'whole factors, got \(3, 8\)'),
    ('multi_grid', {'model.grids': (8, 2)}, r'the side of the data.*\(8, 2\)'),
    ('multi_grid', {'model.grids': (2, 4)}, r'the side of the data.*\(2, 4\)'),
    ('multi_grid', {'model.grids': (8,)}, r'as many .* got \(8,\)'),
    (
      'multi_grid',
      {'chains.grid_temperatures': (1.0,)},
      r'grid_temperatures .* got \(1\.0,\)',
    ),
    (
      'multi_grid',
      {'chains.grid_temperatures': (1.0, -1.0)},
      r'grid_temperatures .* got \(1\.0, -1\.0\)',
    ),
    ('evaluation_classifier', {'classifier.members': 0}, 'members .* got 0'),
    (
      'evaluation_classifier',
      {'classifier.label_smoothing': 1.0},
      r'label_smoothing .* got 1\.0',
    ),
    (
      'evaluation_classifier',
      {'classifier.negative_share': -0.5},
      r'negative_share .* got -0\.5',
    ),
  ],
)
def test_impossible_values_of_a_task_are_refused(kind, overrides, message):
  with pytest.raises(ValueError, match=message):
    _experiment(runs.config(kind, **overrides))


@pytest.mark.parametrize('kind', [*runs.KINDS])
def test_what_is_possible_passes_the_checks(kind):
  checks.check(runs.config(kind))


def test_network_that_does_not_fit_the_grid():
  config = runs.config(
    **{'model.network': 'paper_3_layer', 'model.padding': 'VALID'}
  )
  with pytest.raises(ValueError, match=r'paper_3_layer.*\(8, 8, 8\)'):
    _experiment(config).params()


def test_generator_of_another_grid(tmp_path):
  config = runs.config('cooperative', **{'generator.network': 'small'})
  with pytest.raises(ValueError, match=r"'small' makes .*\(8, 8, 8\)"):
    train.train(config, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_missing_data():
  config = runs.config(**{'data.path': 'no_such_file.npz'})
  with pytest.raises(FileNotFoundError, match=r'no_such_file\.npz'):
    parts.data(config)
  assert parts.data_or_none(config) is None


def test_schedule():
  config = runs.config(**{'chains.noise_iterations': 2})
  (phase,) = _experiment(config).phases
  assert [phase.temperature(i) for i in range(4)] == [1.0, 1.0, 0.0, 0.0]
  config.chains.noise_iterations = -1
  assert parts.temperature_at(config, 10**6) == 1.0


def test_temperatures_of_grids():
  config = runs.config('multi_grid', **{'chains.temperature': 2.0})
  (phase,) = _experiment(config).phases
  np.testing.assert_allclose(phase.temperature(0), [0.2, 0.0])


def test_optimizer_is_clipped_adam_with_a_cosine():
  config = test_config.get_config()
  config.optimizer.clip_norm = 1.0
  params = jnp.zeros(3)

  def sizes(**options):
    optimizer = parts.optimizer(config, **options)
    state, found = optimizer.init(params), []
    for _ in range(config.train.num_iterations):
      updates, state = optimizer.update(jnp.full(3, 1e6), state, params)
      found.append(float(abs(updates).max()))
    return found

  rate, constant = config.optimizer.learning_rate, 2
  # Adam's step for a constant gradient is the rate itself.
  falling = sizes()
  np.testing.assert_allclose(falling[:constant], rate, rtol=1e-4)
  rest = config.train.num_iterations - constant
  t = np.arange(rest) / rest
  cosine = 0.05 + 0.95 * (1 + np.cos(np.pi * t)) / 2
  np.testing.assert_allclose(falling[constant:], rate * cosine, rtol=1e-4)
  always = optax.constant_schedule(rate)
  np.testing.assert_allclose(sizes(learning_rate=always), rate, rtol=1e-4)
  np.testing.assert_allclose(sizes(learning_rate=0.5)[0], 0.5, rtol=1e-4)


def test_a_gradient_is_clipped():
  config = runs.config(**{'optimizer.clip_norm': 1.0})
  clipped = parts.optimizer(config)
  config.optimizer.clip_norm = 0.0
  plain = parts.optimizer(config)
  gradients = jnp.array([30.0, 40.0]), jnp.array([0.3, 0.4])
  moved = []
  for optimizer in (clipped, plain):
    state = optimizer.init(jnp.zeros(2))
    for gradient in gradients:
      updates, state = optimizer.update(gradient, state)
    moved.append(np.asarray(updates))
  # A first gradient of norm 1 and not 50 leaves more to the second.
  assert (abs(moved[0]) > 1.2 * abs(moved[1])).all()


def test_a_size_that_devices_cannot_share(monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 3)
  for field in ('chains.num_chains', 'data.batch_size'):
    sizes = {'chains.num_chains': 6, 'data.batch_size': 6, field: 4}
    with pytest.raises(ValueError, match=f'{field} = 4 .* 3 devices'):
      _experiment(runs.config(**sizes))


def test_parallel_modes():
  with pytest.raises(ValueError, match='magic'):
    parallel.make('magic', lambda: None, dnet_jax.State(None, None, None))
