"""What a task is: the interface between a section of the paper and the program.

`train` learns an `Experiment`; `main` calls the modes. They use nothing of a
task except what is defined here.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import ml_collections
import numpy as np

import dnet_jax
from experiments.files import datasets
from experiments.files import inputs


class Phase(NamedTuple):
  """A part of a training with one algorithm.

  Attributes:
    name: for people and for checkpoints.
    iterations: how many.
    networks: names of the networks that it learns; the others do not change.
    algorithm: learns them.
    batch: `(step, rollbacks, rows) -> mini-batch`, some rows of it (a slice),
      as they are stored; steps count from the beginning of the phase.
    batch_size: rows of the whole mini-batch.
    temperature: `(step) -> T` of section 2.5, one or one for each grid.
    prepare: `(mini-batch) -> mini-batch`, on the device: turns a mini-batch as
      it is stored into the one that the algorithm's step takes.
    first_chains: `(chains) -> (slots, chains, ...)`, where some chains (a
      slice) of all slots of the memory begin; None: as `algorithm.init` says.
  """

  name: str
  iterations: int
  networks: tuple[str, ...]
  algorithm: dnet_jax.Algorithm
  batch: Callable[[int, int, slice], Any]
  batch_size: int
  temperature: Callable[[int], Any]
  prepare: Callable[[Any], Any] = lambda batch: batch
  first_chains: Callable[[slice], np.ndarray] | None = None


def step_of(phase: Phase) -> Callable[..., Any]:
  """The step of a phase, of a mini-batch as it is stored."""

  def step(key, state, batch, schedule):
    return phase.algorithm.step(key, state, phase.prepare(batch), schedule)

  return step


class Experiment(NamedTuple):
  """All that a training needs.

  Attributes:
    data: training and test shapes.
    spec: of the model that is learned.
    extras: of the model, without its persistent chains.
    params: `() -> params`: fresh variables of all networks by name.
    phases: run one after the other; each begins with the networks that the
      phase before it has learned.
    preview: `(model) -> (n, D, H, W)` or None: shapes to look at.
  """

  data: datasets.Dataset
  spec: dnet_jax.Spec
  extras: Mapping[str, Any]
  params: Callable[[], dict[str, Any]]
  phases: tuple[Phase, ...]
  preview: Callable[[dnet_jax.Model], np.ndarray | None]


# Flags of modes that read input shapes; and of those that also read scans.
INPUT = ('up', 'turn', 'key', 'threshold')
SCAN = ('visible', 'scan', 'camera', 'box')


class Request(NamedTuple):
  """What a mode is asked to do.

  Attributes:
    model: the model.
    card: how it was made.
    config: the settings to use.
    folder: of the model; results go below it.
    input: where the input shapes are, or None.
    visible: a file that says which of their voxels were observed, or None.
    out: a file or folder to write to as well, or None.
    formats: of meshes and voxels, with commas between them; None: those of the
      config.
  """

  model: dnet_jax.Model
  card: Mapping[str, Any]
  config: ml_collections.ConfigDict
  folder: str
  input: inputs.Source | None = None
  visible: str | None = None
  out: str | None = None
  formats: str | None = None


class Mode(NamedTuple):
  """Something that is done with a model.

  Attributes:
    run: `(request) -> result`, such as the folder that was written.
    help: in one line.
    needs: flags that must be given.
    takes: further flags that it reads.
    fits: `(spec) -> bool`, whether it works with a model.
  """

  run: Callable[[Request], Any]
  help: str
  needs: tuple[str, ...] = ()
  takes: tuple[str, ...] = ()
  fits: Callable[[dnet_jax.Spec], bool] = lambda spec: True


def formats(request: Request) -> str:
  """The formats in which a mode writes shapes."""
  if request.formats is not None:
    return request.formats
  return request.config.sample.mesh_format


def has_descriptor(spec: dnet_jax.Spec) -> bool:
  """Whether a model has a descriptor, one or one for each grid."""
  return bool(spec.descriptors)


def has_one_descriptor(spec: dnet_jax.Spec) -> bool:
  """Whether a model has one descriptor, of one grid."""
  return bool(spec.descriptors) and not spec.grids


def has_generator(spec: dnet_jax.Spec) -> bool:
  """Whether a model has a generator."""
  return spec.generator is not None


def has_classifier(spec: dnet_jax.Spec) -> bool:
  """Whether a model has a classifier."""
  return spec.classifier is not None


class Task(NamedTuple):
  """A section of the paper.

  Attributes:
    experiment: `(config, data) -> Experiment`.
    evaluate: `(request, data, folder) -> result`, its tables; pictures go to
      the folder.
    modes: by name; also for models of other tasks, where they can.
  """

  experiment: Callable[[ml_collections.ConfigDict, Any], Experiment]
  evaluate: Callable[[Request, Any, str], dict[str, Any]]
  modes: Mapping[str, Mode] = {}
