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
  'train.picture_every',
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
  """What does not change in a run."""

  config: ml_collections.ConfigDict
  workdir: str
  experiment: base.Experiment
  writer: logs.Writer


def train(config: ml_collections.ConfigDict, workdir: str) -> dnet_jax.Model:
  """Learns all phases of a task, from the last checkpoint on.

  Args:
    config: see experiments/configs/default.py.
    workdir: made, or taken up again where it belongs to the same config.

  Returns:
    The model at the end.

  Raises:
    ValueError: for a config that is not possible, or not that of the workdir.
    DivergedError: when `limits.rollbacks` rollbacks in a row did not help.
    OSError: where the workdir cannot be written, or another run writes to it.
  """
  task = parts.choice(tasks.TASKS, config.task, 'task')
  experiment = task.experiment(config, parts.data(config))
  params = beginnings.params(config, experiment)
  with workdirs.only_writer(workdir):
    workdirs.check_config(workdir, config.to_dict(), may_differ=MAY_DIFFER)
    return _train(config, workdir, experiment, params)


def _first(config, experiment, phase, params, extras) -> _Saved:
  """The beginning of a phase."""
  key = jax.random.fold_in(jax.random.key(config.seed), 1)
  number = experiment.phases.index(phase)
  if number:
    key = jax.random.fold_in(key, number)
  learned = {name: params[name] for name in phase.networks}
  others = {name: x for name, x in params.items() if name not in learned}
  extras = jax.tree.map(np.asarray, dict(extras))
  return _Saved(phase.algorithm.init(key, learned), others, extras)


def _train(config, workdir, experiment, params):
  """From the last checkpoint to the end."""
  phases = {phase.name: phase for phase in experiment.phases}
  events = []

  def like(told):
    phase = phases[told['phase']]
    return _first(config, experiment, phase, params, experiment.extras)

  restored = checkpoints.restore(
    workdir,
    like,
    on_event=lambda *args, **fields: events.append((args, fields)),
  )
  phase, step = experiment.phases[0], 0
  if restored is None:
    saved = _first(config, experiment, phase, params, experiment.extras)
  else:
    told = checkpoints.about(workdir)[1]
    phase, (step, saved) = phases[told['phase']], restored
  writer = logs.open_writer(
    workdir,
    sum(phase.iterations for phase in experiment.phases),
    first_step=step,
    show=_SHOWN,
    active=jax.process_index() == 0,
  )
  run = _Run(config, workdir, experiment, writer)
  try:
    for args, fields in events:
      writer.event(*args, **fields)
    if restored is None:
      _save(run, phase, 0, saved)
      writer.event(
        0,
        'start',
        data=experiment.data.source,
        shapes=len(experiment.data.train),
      )
    else:
      writer.event(step, 'resume')
    return _phases(run, phase, step, saved)
  finally:
    writer.close()


def _phases(run, phase, step, saved):
  """Learns a phase and all later ones; returns the model."""
  config, experiment = run.config, run.experiment
  begun = False
  for current in experiment.phases[experiment.phases.index(phase) :]:
    if begun:
      model = _model(run, saved)
      saved = _first(
        config, experiment, current, dict(model.params), saved.extras
      )._replace(rollbacks=saved.rollbacks)
      run.writer.event(step, 'phase', name=current.name)
    begun = True
    step, saved = _phase(run, current, step, saved)
  return _model(run, saved)


def _phase(run, phase, step, saved):
  """From `step` to the end of a phase; returns that step, and what it left."""
  config, writer = run.config, run.writer
  phases = run.experiment.phases
  begin = sum(p.iterations for p in phases[: phases.index(phase)])
  end = begin + phase.iterations
  devices = parallel.make(
    config.parallel, phase.algorithm.step, phase.algorithm.chain_axes
  )
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
      _save(run, phase, step, saved)
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
  advice = 'with another key'
  if in_a_row > 1:
    # Another key did not help.
    factor *= limits.rate_factor
    advice = f'with a learning rate lower by {limits.rate_factor:g}'
  run.writer.rewind(step)
  run.writer.event(step, 'rollback', rollbacks=rollbacks, rate_factor=factor)
  logging.warning(
    'Diverged (%s); going on from step %d %s.', fault, step, advice
  )
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


def _save(run, phase, step, saved):
  data = run.experiment.data
  told = {
    'data': data.source,
    'shapes': len(data.train),
    'classes': list(data.classes),
  }
  checkpoints.save(
    run.workdir,
    step,
    saved,
    about=models.about(run.experiment.spec, phase.name, step, told),
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
