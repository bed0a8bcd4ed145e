"""The one training loop: batch, step, check, log, checkpoint, look."""

import math
import os
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from experiments import build
from experiments import exported
from experiments.files import checkpoints
from experiments.files import datasets
from experiments.files import figures
from experiments.files import logs
from experiments.files import workdirs

# Fields that a run may be resumed with other values of.
MAY_DIFFER = ('sample', 'evaluate', 'probe', 'latent', 'train.picture_every')


class DivergedError(RuntimeError):
  """The run diverged again and again; the message says what to change."""


def _fault(metrics, limits) -> str | None:
  """Says in words what is wrong with a step, or None."""
  for name, value in metrics.items():
    if not math.isfinite(value):
      return f'{name} is {value}'
  for name, value in metrics.items():
    # Of each grid, in multi-grid learning: 'energy_gap/grid1'.
    kind = name.partition('/')[0]
    if kind in limits and abs(value) > limits[kind]:
      return f'{name} = {value:.4g} is beyond limits.{kind}'
  return None


def train(config: ml_collections.ConfigDict, workdir: str) -> Any:
  """Learns until `config.train.num_iterations`, from the last checkpoint on.

  Args:
    config: see experiments/configs/default.py.
    workdir: made, or taken up again where it belongs to the same config.

  Returns:
    The state of the algorithm at the end.

  Raises:
    ValueError: for a config that is not possible, or not that of the workdir.
    DivergedError: when `limits.rollbacks` rollbacks in a row did not help.
    OSError: where the workdir cannot be written, or another run writes to it.
  """
  experiment = build.experiment(config)
  with workdirs.only_writer(workdir):
    workdirs.check_config(workdir, config.to_dict(), may_differ=MAY_DIFFER)
    return _run(config, workdir, experiment)


def _run(config, workdir, experiment):
  """From the last checkpoint to the end; returns the last state."""
  initial = {}
  for folder in config.train.init_from.split(','):
    if folder:
      initial |= exported.load(folder).variables
  events = []
  restored = checkpoints.restore(
    workdir,
    like := {'algorithm': experiment.init(initial), 'rollbacks': 0},
    on_event=lambda *args, **fields: events.append((args, fields)),
  )
  first_step, saved = (0, like) if restored is None else restored
  writer = logs.open_writer(
    workdir,
    config.train.num_iterations,
    first_step=first_step,
    show={
      'energy_gap': 'energy gap',
      'teaching_loss': 'teaching',
      'accuracy': 'accuracy',
      'grad_norm': 'grad',
    },
    active=jax.process_index() == 0,
  )
  for args, fields in events:
    writer.event(*args, **fields)
  if restored is None:
    checkpoints.save(workdir, 0, saved, keep=config.train.keep_checkpoints)
    writer.event(
      0, 'start', data=experiment.data.source, shapes=len(experiment.data.train)
    )
  else:
    writer.event(first_step, 'resume')
  try:
    return _loop(config, workdir, experiment, writer, first_step, saved)
  finally:
    writer.close()


def _loop(config, workdir, experiment, writer, step, saved):
  """Runs from `step` with what `saved` holds; returns the last state."""
  devices = experiment.parallel
  root = jax.random.fold_in(jax.random.key(config.seed), 2)
  rollbacks, in_a_row = saved['rollbacks'], 0
  state = devices.put(saved['algorithm'])
  while step < config.train.num_iterations:
    # Another key and order after each rollback, the same after a resume.
    key = jax.random.fold_in(jax.random.fold_in(root, rollbacks), step)
    batch = devices.batch(experiment.batch(step, rollbacks))
    temperature = np.float32(experiment.temperature(step))
    state, metrics = devices.step(key, state, batch, temperature)
    metrics = {name: float(value) for name, value in metrics.items()}
    fault = _fault(metrics, config.limits)
    if fault is not None:
      in_a_row += 1
      writer.event(step, 'divergence', reason=fault, metrics=metrics)
      if in_a_row > config.limits.rollbacks:
        raise DivergedError(
          f'step {step} diverged ({fault}) after {config.limits.rollbacks} '
          'rollbacks in a row. Lower optimizer.learning_rate, '
          'chains.step_size or optimizer.clip_norm; or raise the limit.'
        )
      rollbacks += 1
      step, saved = checkpoints.restore(workdir, saved, on_event=writer.event)
      state = devices.put(saved['algorithm'])
      writer.rewind(step)
      writer.event(step, 'rollback', rollbacks=rollbacks)
      logging.warning(
        'Diverged (%s); going on from step %d with another key.', fault, step
      )
      continue
    writer.metrics(step, metrics)
    step += 1
    last = step == config.train.num_iterations
    if last or step % config.train.checkpoint_every == 0:
      in_a_row = 0
      saved = {'algorithm': devices.get(state), 'rollbacks': rollbacks}
      checkpoints.save(workdir, step, saved, keep=config.train.keep_checkpoints)
    if last or step % config.train.picture_every == 0:
      picture(config, workdir, experiment, devices.get(state), step, writer)
  return devices.get(state)


def picture(config, workdir, experiment, state, step, writer) -> None:
  """Draws some of the chains, where the algorithm keeps chains."""
  chains = experiment.chains(state)
  if chains is None:
    return
  shown = datasets.to_voxels(
    chains[: config.train.picture_shapes],
    experiment.data.mean,
    experiment.data.scale,
  )
  folder = os.path.join(workdir, 'pictures')
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(folder, f'chains_{step:06d}.png')
  figures.isosurfaces(path, figures.rows(shown, 5))
  writer.picture(step, path)
