"""The one training loop: batch, step, check, log, checkpoint, look."""

from collections.abc import Mapping
import math
import os
from typing import Any
from typing import NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import dnet_jax
from experiments import parallel
from experiments import tasks
from experiments.files import checkpoints
from experiments.files import figures
from experiments.files import logs
from experiments.files import models
from experiments.files import workdirs
from experiments.tasks import base
from experiments.tasks import beginnings
from experiments.tasks import parts

# Fields that a run may be resumed with other values of.
MAY_DIFFER = (
  'sample',
  'recover',
  'super_resolve',
  'evaluate',
  'probe',
  'latent',
  'limits',
  'train.keep_checkpoints',
  'train.picture_every',
  'train.picture_shapes',
)
_SHOWN = {
  'energy_gap': 'energy gap',
  'teaching_loss': 'teaching',
  'accuracy': 'accuracy',
  'grad_norm': 'grad',
}


class DivergedError(RuntimeError):
  """The run diverged again and again; the message says what to change."""


class _Saved(NamedTuple):
  """What a checkpoint holds.

  Attributes:
    state: of the algorithm of the phase.
    others: variables of the networks that the phase does not learn.
    extras: of the model.
    rollbacks: of the run so far.
    rate_factor: multiplies the learning rate; below 1 after divergence.
  """

  state: dnet_jax.State
  others: dict[str, Any]
  extras: dict[str, Any]
  rollbacks: int = 0
  rate_factor: float = 1.0


class _Run(NamedTuple):
  """What does not change in a run.

  Attributes:
    config: of the run.
    workdir: likewise.
    experiment: what is learned.
    data: what its checkpoints say of the data.
    devices: how the step of each phase runs.
    writer: of metrics and events.
  """

  config: ml_collections.ConfigDict
  workdir: str
  experiment: base.Experiment
  data: dict[str, Any]
  devices: tuple[parallel.Parallel, ...]
  writer: logs.Writer


def train(config: ml_collections.ConfigDict, workdir: str) -> dnet_jax.Model:
  """Learns all phases of a task, from the last checkpoint on.

  Args:
    config: see experiments/configs/default.py.
    workdir: made, or taken up again where it belongs to the same config.

  Returns:
    The model at the end.

  Raises:
    ValueError: for a config that is not possible, or not that of the workdir;
      where the data of the workdir have changed.
    DivergedError: when `limits.rollbacks` rollbacks in a row did not help.
    OSError: where the workdir cannot be written, or another run writes to it.
  """
  task = parts.choice(tasks.TASKS, config.task, 'task')
  factor = config.limits.rate_factor
  if not 0 < factor <= 1:
    raise ValueError(f'limits.rate_factor must be in (0, 1], got {factor}')
  experiment = task.experiment(config, parts.data(config))
  devices = tuple(
    parallel.make(
      config.parallel, phase.algorithm.step, phase.algorithm.chain_axes
    )
    for phase in experiment.phases
  )
  with workdirs.only_writer(workdir):
    # Before the workdir belongs to a config that is not possible.
    if checkpoints.steps(workdir):
      # All will be restored: train.init_from may be gone.
      params = experiment.params()
    else:
      params = beginnings.params(config, experiment)
    workdirs.check_config(workdir, config.to_dict(), may_differ=MAY_DIFFER)
    return _train(config, workdir, experiment, devices, params)


def _first(config, experiment, number, params) -> _Saved:
  """The beginning of a phase, from the variables of all networks."""
  phase = experiment.phases[number]
  key = jax.random.fold_in(jax.random.key(config.seed), 1)
  if number:
    key = jax.random.fold_in(key, number)
  learned = {name: params[name] for name in phase.networks}
  others = {name: x for name, x in params.items() if name not in learned}
  extras = jax.tree.map(np.asarray, dict(experiment.extras))
  return _Saved(phase.algorithm.init(key, learned), others, extras)


def _train(config, workdir, experiment, devices, params):
  """From the last checkpoint to the end."""
  numbers = {phase.name: i for i, phase in enumerate(experiment.phases)}
  data, number, events = _data(experiment.data), 0, []

  def like(told):
    nonlocal number
    number = numbers[told['phase']]
    _check_data(workdir, told['data'], data)
    return _first(config, experiment, number, params)

  restored = checkpoints.restore(
    workdir,
    like,
    on_event=lambda *args, **fields: events.append((args, fields)),
  )
  if restored is None:
    step, saved = 0, _first(config, experiment, 0, params)
  else:
    step, saved = restored
    # The settings of its use may be others now.
    extras = jax.tree.map(np.asarray, dict(experiment.extras))
    saved = saved._replace(extras=extras)
  writer = logs.open_writer(
    workdir,
    sum(phase.iterations for phase in experiment.phases),
    first_step=step,
    show=_SHOWN,
    active=jax.process_index() == 0,
  )
  run = _Run(config, workdir, experiment, data, devices, writer)
  try:
    for args, fields in events:
      writer.event(*args, **fields)
    if restored is None:
      _save(run, 0, 0, saved)
      writer.event(0, 'start', data=data['data'], shapes=data['shapes'])
    else:
      writer.event(step, 'resume')
    return _phases(run, number, step, saved)
  finally:
    writer.close()


def _phases(run, number, step, saved):
  """Learns a phase and all later ones; returns the model."""
  for later in range(number, len(run.experiment.phases)):
    if later > number:
      params = dict(_model(run, saved).params)
      first = _first(run.config, run.experiment, later, params)
      saved = first._replace(rollbacks=saved.rollbacks)
      # In place of the end of the phase before: a rollback has to find its own.
      _save(run, later, step, saved)
      run.writer.event(step, 'phase', name=run.experiment.phases[later].name)
    step, saved = _phase(run, later, step, saved)
  return _model(run, saved)


def _phase(run, number, step, saved):
  """From `step` to the end of a phase; returns that step, and what it left."""
  config, writer, devices = run.config, run.writer, run.devices[number]
  *before, phase = run.experiment.phases[: number + 1]
  begin = sum(other.iterations for other in before)
  end = begin + phase.iterations
  root = jax.random.fold_in(jax.random.key(config.seed), 2)
  in_a_row = 0
  state = devices.put(saved.state)
  while step < end:
    rollbacks = saved.rollbacks
    # Another key and order after each rollback, the same after a resume.
    key = jax.random.fold_in(jax.random.fold_in(root, rollbacks), step)
    batch = devices.batch(phase.batch(step - begin, rollbacks))
    schedule = dnet_jax.Schedule(
      jnp.float32(phase.temperature(step - begin)),
      jnp.float32(saved.rate_factor),
    )
    state, metrics = devices.step(key, state, batch, schedule)
    metrics = {name: float(value) for name, value in metrics.items()}
    fault = _fault(metrics, config.limits)
    if fault is not None:
      in_a_row += 1
      writer.event(step, 'divergence', reason=fault, metrics=metrics)
      step, saved = _roll_back(run, saved, step, fault, in_a_row)
      state = devices.put(saved.state)
      continue
    writer.metrics(step, metrics)
    step += 1
    if step == end or step % config.train.checkpoint_every == 0:
      in_a_row = 0
      saved = saved._replace(state=devices.get(state))
      _save(run, number, step, saved)
    if step == end or step % config.train.picture_every == 0:
      _picture(run, saved._replace(state=devices.get(state)), step)
  return step, saved._replace(state=devices.get(state))


def _roll_back(run, saved, step, fault, in_a_row):
  """Back to the last checkpoint, after `in_a_row` divergences."""
  limits = run.config.limits
  if in_a_row > limits.rollbacks:
    raise DivergedError(
      f'step {step} diverged ({fault}) after {limits.rollbacks} rollbacks in '
      'a row. Lower optimizer.learning_rate, chains.step_size or '
      'optimizer.clip_norm; or raise the limit.'
    )
  step, back = checkpoints.restore(
    run.workdir, saved, on_event=run.writer.event
  )
  rollbacks, factor = saved.rollbacks + 1, saved.rate_factor
  if in_a_row > 1:
    # Another key did not help.
    factor *= limits.rate_factor
  run.writer.rewind(step)
  run.writer.event(step, 'rollback', rollbacks=rollbacks, rate_factor=factor)
  logging.warning(
    'Diverged (%s); going on from step %d with another key, at %g of the '
    'learning rate.', fault, step, factor,
  )  # fmt: skip
  return step, back._replace(rollbacks=rollbacks, rate_factor=factor)


def _fault(metrics: Mapping[str, float], limits: Any) -> str | None:
  """Says in words what is wrong with a step, or None."""
  for name, value in metrics.items():
    if not math.isfinite(value):
      return f'{name} is {value}'
  for name, value in metrics.items():
    # Of each grid, in multi-grid learning: 'energy_gap/grid_1'.
    kind = name.partition('/')[0]
    if kind in limits and abs(value) > limits[kind]:
      return f'{name} = {value:.4g} is beyond limits.{kind}'
  return None


def _model(run, saved):
  return models.of_state(
    run.experiment.spec, saved.extras, saved.others, saved.state
  )


def _data(data):
  """What a checkpoint says of the data, of what JSON can hold."""
  return {
    'data': data.source,
    'shapes': len(data.train),
    'classes': list(data.classes),
    'checksum': data.checksum,
  }


def _check_data(workdir, theirs, ours):
  """Refuses to go on with other shapes than a run has begun with."""
  differing = [
    f'{name}: {theirs.get(name)} -> {value}'
    for name, value in ours.items()
    if theirs.get(name) != value
  ]
  if differing:
    raise ValueError(
      f'{workdir} has learned from other shapes than data.path has now; put '
      'those back, or take another workdir (theirs -> ours):\n  '
      + '\n  '.join(differing)
    )


def _save(run, number, step, saved):
  spec, phases = run.experiment.spec, run.experiment.phases
  checkpoints.save(
    run.workdir,
    step,
    saved,
    about=models.about(spec, phases[number].name, run.data),
    keep=run.config.train.keep_checkpoints,
  )


def _picture(run, saved, step):
  """Draws some shapes, where the task has some to show."""
  shown = run.experiment.preview(_model(run, saved))
  if shown is None:
    return
  folder = os.path.join(run.workdir, 'pictures')
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(folder, f'chains_{step:06d}.png')
  figures.isosurfaces(path, figures.rows(shown, 5))
  run.writer.picture(step, path)
