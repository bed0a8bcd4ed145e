"""The one training loop: batch, step, check, log, checkpoint, look."""

from collections.abc import Mapping
import contextlib
import datetime
import math
import os
import signal
import time
from typing import Any
from typing import NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import dnet_jax
from experiments import batches
from experiments import memory
from experiments import parallel
from experiments import report
from experiments import resuming
from experiments import signals
from experiments import tasks
from experiments.files import checkpoints
from experiments.files import figures
from experiments.files import logs
from experiments.files import models
from experiments.files import outputs
from experiments.files import workdirs
from experiments.tasks import base
from experiments.tasks import beginnings
from experiments.tasks import checks
from experiments.tasks import networks
from experiments.tasks import parts

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
    state: of the algorithm of the phase, as `Parallel.get` gives it.
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
    devices: how the step of each phase runs.
    writer: of metrics and events; None before it is open.
    caught: numbers of signals that came.
  """

  config: ml_collections.ConfigDict
  workdir: str
  experiment: base.Experiment
  devices: tuple[parallel.Parallel, ...]
  writer: logs.Writer | None
  caught: list[int]


def train(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  accept_changes: bool = False,
) -> dnet_jax.Model:
  """Learns all phases of a task, from the last checkpoint on.

  A finished run continues if `train.num_iterations` is larger now, by the
  schedule of the new config. In a run of several processes all of them call
  this; only the first one writes anything except the arrays of checkpoints.

  Args:
    config: see experiments/configs/default.py.
    workdir: made, or resumed if it belongs to a run with the same config.
    accept_changes: continue with another config or with other data than the
      run began with; an event says what has changed.

  Returns:
    The model at the end; in several processes, each one with its own chains.

  Raises:
    ValueError: for a config with a wrong value, or another config or other data
      than those of the workdir.
    DivergedError: when `limits.rollbacks` rollbacks in a row did not help.
    Stopped: when SIGTERM or SIGINT came; all is saved.
    OSError: where the workdir cannot be written, or another run writes to it.
  """
  task = networks.choice(tasks.TASKS, config.task, 'task')
  # All checks come before anything is written.
  begun = checkpoints.about(workdir)
  # Until its first checkpoint, a workdir may be used with any config.
  if begun is not None and not accept_changes:
    workdirs.check_config(
      workdir, config.to_dict(), may_differ=resuming.MAY_DIFFER
    )
    config, data = resuming.find_data(config, workdir, begun[1]['data'])
  else:
    data = parts.data(config, packed=True)
  experiment = task.experiment(config, data)
  devices = tuple(
    parallel.make(
      config.parallel, base.step_of(phase), phase.algorithm.chain_axes
    )
    for phase in experiment.phases
  )
  if begun is None:
    params, began = beginnings.params(config, experiment)
  else:
    resuming.check_goes_on(workdir, experiment, *begun)
    # All variables are restored later, so train.init_from is not read again.
    params, began = experiment.params(), []
  changes = workdirs.check_config(workdir, config.to_dict(), accept=True)
  # All processes have read the workdir before one of them writes to it.
  parallel.wait_for_all('read')
  with workdirs.only_writer(workdir), signals.caught_signals() as caught:
    if jax.process_index() == 0:
      workdirs.write_config(workdir, config.to_dict())
    run = _Run(config, workdir, experiment, devices, None, caught)
    return _train(run, params, began, changes if begun is not None else [])


def _first(run, number, params, like=False) -> _Saved:
  """The first state of a phase, from the variables of all networks.

  Args:
    run: the run.
    number: of the phase.
    params: the variables.
    like: True: only the structure of such a state, for one to be restored.
  """
  config, phase = run.config, run.experiment.phases[number]
  devices, init = run.devices[number], phase.algorithm.init
  key = jax.random.fold_in(jax.random.key(config.seed), 1)
  if number:
    key = jax.random.fold_in(key, number)
  learned = {name: params[name] for name in phase.networks}
  others = {name: x for name, x in params.items() if name not in learned}
  if like:
    state = devices.like(jax.eval_shape(init, key, learned))
  else:
    state = devices.init(init, key, learned, phase.first_chains)
    state = devices.get(state)
  return _Saved(
    state,
    jax.tree.map(np.asarray, others),
    jax.tree.map(np.asarray, dict(run.experiment.extras)),
  )


def _train(run, params, began, changes):
  """From the last checkpoint to the end."""
  workdir, experiment = run.workdir, run.experiment
  numbers = {phase.name: i for i, phase in enumerate(experiment.phases)}
  number, told, events = 0, {}, []

  def like(about):
    nonlocal number, told
    told = about
    number = numbers[about['phase']]
    return _first(run, number, params, like=True)

  restored = checkpoints.restore(
    workdir,
    like,
    on_event=lambda *args, **fields: events.append((args, fields)),
  )
  if restored is None:
    step, saved = 0, _first(run, 0, params)
  else:
    step, saved = restored
    # The settings of the model's uses may have changed since then.
    extras = jax.tree.map(np.asarray, dict(experiment.extras))
    saved = saved._replace(extras=extras)
  total = sum(phase.iterations for phase in experiment.phases)
  outputs.tell_devices()
  writer = logs.open_writer(
    workdir,
    total,
    first_step=step,
    show=_SHOWN,
    active=jax.process_index() == 0,
  )
  run = run._replace(writer=writer)
  data = experiment.data
  try:
    for args, fields in events:
      writer.event(*args, **fields)
    if restored is None:
      _save(run, 0, 0, saved)
      more = {'began': began} if began else {}
      source, shapes = data.source, len(data.train)
      writer.event(0, 'start', data=source, shapes=shapes, **more)
    else:
      writer.event(step, 'resume')
      if changes:
        writer.event(step, 'changed_config', fields=changes)
      if told['data']['checksum'] != data.checksum:
        writer.event(step, 'changed_data', data=data.source)
    return _phases(run, number, step, saved)
  finally:
    writer.close()


def _phases(run, number, step, saved):
  """Learns a phase and all later ones; returns the model."""
  for later in range(number, len(run.experiment.phases)):
    if later > number:
      params = dict(_model(run, later - 1, saved).params)
      first = _first(run, later, params)
      saved = first._replace(rollbacks=saved.rollbacks)
      # Replaces the checkpoint of this step, which belongs to the phase before:
      # a rollback must find a checkpoint of its own phase.
      _save(run, later, step, saved)
      run.writer.event(step, 'phase', name=run.experiment.phases[later].name)
    step, saved = _phase(run, later, step, saved)
  return _model(run, len(run.experiment.phases) - 1, saved)


def _batch_of(phase, devices):
  """`(step, rollbacks)`: a mini-batch, placed as the step takes it."""
  rows = parallel.rows(phase.batch_size)
  return lambda *when: devices.batch(phase.batch(*when, rows))


def _check_memory(run, phase, devices, state, batch):
  """Compiles the step, and says whether it fits."""
  if run.config.parallel == 'pmap':
    # With pmap the step would be traced again when it is called.
    return
  lowered = devices.lower(
    jax.random.key(0), state, batch, _schedule(phase.temperature(0), 1.0)
  )
  config, count = run.config, jax.device_count()
  shapes = phase.batch_size // count
  chains = shapes
  if state.memory is not None and state.memory.positions is not None:
    chains = state.memory.positions.shape[1] // count
  memory.check(
    memory.estimate(lowered.compile()),
    memory.room(),
    {
      'chains': chains,
      'shapes': shapes,
      'at_once': config.task not in checks.WITH_STATISTICS,
    },
  )


def _schedule(temperature, rate_factor):
  return dnet_jax.Schedule(jnp.float32(temperature), jnp.float32(rate_factor))


def _phase(run, number, step, saved):
  """Runs a phase from `step` to its end; returns that step and its state."""
  with contextlib.ExitStack() as stack:
    return _learn(run, number, step, saved, stack)


def _learn(run, number, step, saved, stack):
  config, writer, devices = run.config, run.writer, run.devices[number]
  *before, phase = run.experiment.phases[: number + 1]
  begin = sum(other.iterations for other in before)
  end = begin + phase.iterations
  root = jax.random.fold_in(jax.random.key(config.seed), 2)
  in_a_row, pace = 0, _announce(run, step)
  state = devices.put(saved.state)
  batch_at = stack.enter_context(
    batches.ahead(_batch_of(phase, devices), end - begin)
  )
  if step < end:
    _check_memory(run, phase, devices, state, batch_at(step - begin, 0))
  while step < end:
    rollbacks = saved.rollbacks
    # Another key and order after each rollback, the same after a resume.
    key = jax.random.fold_in(jax.random.fold_in(root, rollbacks), step)
    batch = batch_at(step - begin, rollbacks)
    schedule = _schedule(phase.temperature(step - begin), saved.rate_factor)
    state, metrics = devices.step(key, state, batch, schedule)
    metrics = {name: float(value) for name, value in metrics.items()}
    fault = _fault(metrics, config.limits)
    if fault is not None:
      in_a_row += 1
      writer.event(step, 'divergence', reason=fault, metrics=metrics)
      step, saved = _roll_back(run, number, saved, step, fault, in_a_row)
      state = devices.put(saved.state)
      continue
    writer.metrics(step, metrics)
    step += 1
    pace(step)
    # All processes stop if one of them has caught a signal.
    stop = parallel.agree(run.caught[0] if run.caught else 0)
    if step == end or stop or _due(step, config.train.checkpoint_every):
      in_a_row = 0
      saved = saved._replace(state=devices.get(state))
      _save(run, number, step, saved)
    if stop:
      writer.event(step, 'stopped', signal=signal.Signals(stop).name)
      raise signals.Stopped(stop, step, run.workdir)
    if step == end or _due(step, config.train.picture_every):
      _picture(run, number, saved._replace(state=devices.get(state)), step)
    every = config.train.page_every
    if _due(step, every) or (every and step == end):
      _page(run, number, saved._replace(state=devices.get(state)), step)
  return step, saved._replace(state=devices.get(state))


def _due(step, every):
  """Whether something that is done every `every` steps is due; 0: never."""
  return every > 0 and step % every == 0


def _announce(run, first):
  """Says after ten iterations how long the rest will take: `(step) -> None`."""
  total = sum(phase.iterations for phase in run.experiment.phases)
  times = {}

  def pace(step):
    # The first iteration compiles.
    if step - first not in (1, 11):
      return
    times[step] = time.monotonic()
    if step - first == 1:
      return
    seconds = (times[step] - times[step - 10]) / 10 * (total - step)
    text = f'About {datetime.timedelta(seconds=round(seconds))} to go.'
    small = run.config.name.removesuffix('_paper').removesuffix('_text')
    if seconds > 2 * 3600 and small != run.config.name:
      text += f' Two CPU cores learn {small} within an hour.'
    run.writer.say(text)

  return pace


def _roll_back(run, number, saved, step, fault, in_a_row):
  """Back to the last checkpoint, after `in_a_row` divergences."""
  limits = run.config.limits
  if in_a_row > limits.rollbacks:
    raise DivergedError(
      f'step {step} diverged ({fault}) after {limits.rollbacks} rollbacks in '
      'a row. Lower optimizer.learning_rate or chains.step_size, set a '
      'smaller optimizer.clip_norm (0: none), or raise a limit that was '
      'exceeded.'
    )
  # The state has been given to the step, but it still has its shapes.
  like = saved._replace(state=run.devices[number].like(saved.state))
  step, back = checkpoints.restore(run.workdir, like, on_event=run.writer.event)
  rollbacks, factor = saved.rollbacks + 1, saved.rate_factor
  if in_a_row > 1:
    # Other random numbers did not help.
    factor *= limits.rate_factor
  run.writer.rewind(step)
  run.writer.event(step, 'rollback', rollbacks=rollbacks, rate_factor=factor)
  logging.warning(
    'Diverged (%s); continuing from step %d with other random numbers, at %g '
    'times the learning rate.', fault, step, factor,
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


def _model(run, number, saved):
  """The model of a phase, with the chains that this process has."""
  state = run.devices[number].local(saved.state)
  return models.of_state(run.experiment.spec, saved.extras, saved.others, state)


def _save(run, number, step, saved):
  spec, phases = run.experiment.spec, run.experiment.phases
  data = run.experiment.data
  told = {
    'data': data.source,
    'shapes': len(data.train),
    'classes': list(data.classes),
    'checksum': data.checksum,
  }
  checkpoints.save(
    run.workdir,
    step,
    saved,
    about=models.about(spec, phases[number].name, told),
    keep=run.config.train.keep_checkpoints,
  )


def _picture(run, number, saved, step):
  """Draws some shapes of the first process, if the task has any to show."""
  if jax.process_index():
    return
  shown = run.experiment.preview(_model(run, number, saved))
  if shown is None:
    return
  folder = os.path.join(run.workdir, 'pictures')
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(folder, f'chains_{step:06d}.png')
  figures.isosurfaces(path, figures.rows(shown, 5))
  run.writer.picture(step, path)


def _page(run, number, saved, step):
  """Writes the report of the run as it goes, of the first process."""
  if jax.process_index():
    return
  model, data = _model(run, number, saved), run.experiment.data
  path = report.running(run.workdir, model, run.config, data, step)
  run.writer.say(f'step {step}: {path}')
