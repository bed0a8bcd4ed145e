"""Each task learns, goes on where it was stopped, and needs no data to be used.

What its modes and numbers are is tested task by task.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep import furniture
from data_prep import voxel_file
import dnet_jax
from experiments import export
from experiments import parallel
from experiments import tasks
from experiments import train
from experiments.files import checkpoints
from experiments.files import datasets
from experiments.files import logs
from experiments.files import models
from experiments.tasks import base
from experiments.tasks import latent
from experiments.tasks import parts
from tests import runs

ITERATIONS = 4


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  """A voxel file."""
  data = furniture.make_furniture(size=8, num_train=12, num_test=3)
  path = str(tmp_path_factory.mktemp('data') / 'shapes.npz')
  voxel_file.save(path, data)
  return path


def _config(kind, path, **overrides):
  settings = {
    'data.path': path,
    'train.num_iterations': ITERATIONS,
    'sample.mesh_format': '',
  }
  return runs.config(kind, **settings | overrides)


# Which differ from maximum likelihood by where their chains begin; the second
# of two phases alone; and two phases, of which more is asked below.
_LIKE_ANOTHER = (
  'contrastive_divergence',
  'persistent_contrastive_divergence',
  'cooperative',
  'two_phases',
)


@pytest.fixture(
  scope='module',
  params=[
    pytest.param(kind, marks=pytest.mark.slow if kind in _LIKE_ANOTHER else ())
    for kind in runs.KINDS
  ],
)
def whole(request, path, tmp_path_factory):
  """The config and the workdir of a run of each kind, and its model."""
  config = _config(request.param, path)
  workdir = str(tmp_path_factory.mktemp(request.param) / 'run')
  return config, workdir, train.train(config, workdir)


def _experiment(config):
  return tasks.TASKS[config.task].experiment(config, parts.data(config))


def test_every_network_learns(whole):
  config, workdir, model = whole
  experiment = _experiment(config)
  total = sum(phase.iterations for phase in experiment.phases)
  assert [r['step'] for r in logs.read_metrics(workdir)] == list(range(total))
  first = experiment.params()
  assert {*model.params} == {*first}
  for name, before in first.items():
    moved = {
      jax.tree_util.keystr(place): (np.asarray(a) != np.asarray(b)).any()
      for (place, a), b in zip(
        jax.tree_util.tree_leaves_with_path(before),
        jax.tree.leaves(model.params[name]),
        strict=True,
      )
      # The last bias is in both terms of eq. (8), which cancel.
      if 'last' not in (text := jax.tree_util.keystr(place))
      or 'bias' not in text
    }
    assert all(moved.values()), (name, moved)


def test_stopped_before_its_end_it_goes_on_to_the_bit(whole, tmp_path):
  config, workdir, model = whole
  stopped = str(tmp_path / 'stopped')
  total = len(logs.read_metrics(workdir))
  assert runs.stop(config, stopped, call=total) == total - 2
  again = train.train(config, stopped)
  runs.assert_same(stopped, workdir)
  runs.assert_equal(again, model)


def test_a_workdir_needs_no_data(whole, path, tmp_path):
  config, workdir, learned = whole
  os.rename(path, f'{path}.away')
  try:
    with pytest.raises(FileNotFoundError):
      parts.data(config)
    model, card = models.open_model(workdir)
    runs.assert_equal(dict(model.params), dict(learned.params))
    runs.assert_equal(dict(model.extras), dict(learned.extras))
    assert model.spec == learned.spec
    assert card['data'] == f'{config.data.category} of shapes.npz'
    assert card['iterations'] == len(logs.read_metrics(workdir))
    assert card['numbers'] and card['device'] and card['date']
    assert models.full_config(card['config']).to_dict() == config.to_dict()
    if model.spec.classifier is None:
      request = base.Request(model, card, config, workdir)
      name = 'generate' if model.spec.generator else 'sample'
      folder = tasks.find_mode(name, config.task).run(request)
      with np.load(os.path.join(folder, 'voxels.npz')) as file:
        assert np.isfinite(file['voxels']).all()
        assert file['voxels'].shape == (config.sample.num_samples, 8, 8, 8)
    else:
      y = np.zeros((2, 8, 8, 8))
      assert np.isfinite(dnet_jax.classify_shapes(model, y).probabilities).all()
    exported = str(tmp_path / 'model')
    export.export(workdir, exported)
  finally:
    os.rename(f'{path}.away', path)
  again = dnet_jax.load(exported)
  assert again.spec == model.spec
  for a, b in zip(
    jax.tree.leaves(dict(again.params)),
    jax.tree.leaves(dict(model.params)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


# Two phases.


@pytest.mark.slow
def test_a_run_of_two_phases_compiles_two_steps(path, tmp_path, monkeypatch):
  traces, make = [], parallel.make

  def counting(mode, step, chain_axes):
    def counted(*args):
      traces.append(step)
      return step(*args)

    return make(mode, counted, chain_axes)

  monkeypatch.setattr(parallel, 'make', counting)
  calls = []

  def change(step):
    def diverging(*args):
      state, metrics = step(*args)
      calls.append(1)
      # The first iteration of the second phase, before any checkpoint of it
      # but that of its beginning.
      if len(calls) == 3:
        metrics = metrics | {'grad_norm': jnp.inf}
      return state, metrics

    return diverging

  runs.change_step(monkeypatch, change)
  workdir = str(tmp_path / 'run')
  train.train(_config('two_phases', path), workdir)
  assert len(traces) == len({*traces}) == 2
  events = logs.read_events(workdir)
  assert [(event['step'], event['kind']) for event in events] == [
    (0, 'start'),
    (2, 'phase'),
    (2, 'divergence'),
    (2, 'rollback'),
  ]
  assert len(logs.read_metrics(workdir)) == ITERATIONS + 2


@pytest.mark.slow
def test_stopped_in_either_phase_it_goes_on_to_the_bit(path, tmp_path):
  # Between the phases, and in the last iteration: above.
  config = _config('two_phases', path)
  names = [phase.name for phase in _experiment(config).phases]
  whole = str(tmp_path / 'whole')
  train.train(config, whole)
  for call, last, phase in ((2, 0, 0), (3, 2, 1)):
    stopped = str(tmp_path / f'stopped_{call}')
    assert runs.stop(config, stopped, call=call) == last
    assert checkpoints.about(stopped)[1]['phase'] == names[phase]
    # The first phase does not learn the descriptor, and keeps it.
    model, _ = models.open_model(stopped)
    assert {*model.params} == {'descriptor', 'generator'}
    runs.assert_equal(
      dict(model.params['descriptor']),
      _experiment(config).params()['descriptor'],
    )
    train.train(config, stopped)
    runs.assert_same(stopped, whole)


def test_the_second_phase_begins_where_the_first_has_ended(path, tmp_path):
  two = str(tmp_path / 'two')
  runs.stop(_config('two_phases', path), two, call=3)
  one = train.train(
    _config(
      'alternating_back_propagation', path, **{'train.num_iterations': 2}
    ),
    str(tmp_path / 'one'),
  )
  begun, _ = models.open_model(two)
  runs.assert_equal(
    dict(begun.params['generator']), dict(one.params['generator'])
  )


def test_alternating_back_propagation_rebuilds_shapes(tmp_path):
  config = runs.config(
    'alternating_back_propagation',
    **{
      'train.num_iterations': 60,
      'train.checkpoint_every': 60,
      'back_propagation.num_steps': 3,
      'back_propagation.step_size': 0.03,
      'back_propagation.noise_std': 1.0,
      'back_propagation.learning_rate': 0.01,
      'latent.num_starts': 3,
      'latent.num_steps': 60,
      'latent.step_size': 0.03,
      'latent.noise_std': 1.0,
    },
  )
  model = train.train(config, str(tmp_path / 'run'))
  assert not model.spec.descriptors and {*model.params} == {'generator'}
  # Latent factors are no chains of shapes.
  assert 'chains' not in model.extras
  # It rebuilds training shapes better than their mean does.
  train_voxels = parts.data(config).train
  voxels = train_voxels[:4].astype(np.float32)
  z = latent.infer(model, voxels, np.ones(voxels.shape, bool), 0)
  error = np.mean((latent.shapes(model, z) - voxels) ** 2)
  mean = train_voxels.mean(axis=0, dtype=np.float32)
  assert error < np.mean((voxels - mean) ** 2)


# Single tasks.


def test_persistent_cd_owns_its_shapes(path):
  experiment = _experiment(_config('persistent_contrastive_divergence', path))
  (phase,) = experiment.phases
  devices = parallel.make(
    'shard_map', base.step_of(phase), phase.algorithm.chain_axes
  )
  state = devices.init(
    phase.algorithm.init,
    jax.random.key(0),
    experiment.params(),
    phase.first_chains,
  )
  positions = state.memory.positions
  for slot in range(len(positions)):
    shapes = phase.prepare(phase.batch(slot, 0))
    np.testing.assert_array_equal(positions[slot], shapes)
    # The next epoch brings the same mini-batch to the same slot.
    np.testing.assert_array_equal(
      phase.batch(slot, 0), phase.batch(slot + len(positions), 0)
    )


def test_pictures_of_multi_grid_are_fresh_samples(path):
  config = _config('multi_grid', path)
  experiment = _experiment(config)
  model = dnet_jax.Model(
    experiment.spec, experiment.params(), dict(experiment.extras)
  )
  shown = experiment.preview(model)
  assert shown.shape == (config.train.picture_shapes, 8, 8, 8)
  np.testing.assert_array_equal(shown, experiment.preview(model))


def test_a_mini_batch_of_the_classifier_has_negatives(path):
  config = _config('evaluation_classifier', path)
  experiment = _experiment(config)
  (phase,) = experiment.phases
  batch = phase.batch(0, 0)
  number = round(0.2 * config.data.batch_size)
  none = len(experiment.data.classes)
  assert (batch['labels'] == none).sum() == number == 2
  y = phase.prepare(batch)['y']
  assert y.shape == (config.data.batch_size, 8, 8, 8, 1)
  voxels = datasets.to_voxels(y, experiment.data.mean)
  assert voxels.min() > -1e-6 and voxels.max() < 1 + 1e-6
  assert (phase.batch(1, 0)['y'] != batch['y']).any()
