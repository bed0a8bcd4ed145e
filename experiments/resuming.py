"""Whether a run can be resumed from the files in its workdir."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.files import datasets
from experiments.files import workdirs
from experiments.tasks import base
from experiments.tasks import networks
from experiments.tasks import parts

# Fields that may have other values when a run is resumed. They do not change
# the results so far; most change no result at all while nothing diverges.
MAY_DIFFER = (
  'sample',
  'recover',
  'super_resolve',
  'evaluate',
  'probe',
  'latent',
  'data.path',
  'parallel',
  'chains.at_once',
  'limits',
  'train.num_iterations',
  'train.checkpoint_every',
  'train.keep_checkpoints',
  'train.picture_every',
  'train.picture_shapes',
  'train.page_every',
)


def find_data(
  config: ml_collections.ConfigDict, workdir: str, told: Mapping[str, Any]
) -> tuple[ml_collections.ConfigDict, datasets.Dataset]:
  """The shapes that a run has learned from, and the config with their path.

  They are looked for at the path of the run, and at that of the config.
  """
  recorded = (workdirs.read_config(workdir) or {}).get('data', {}).get('path')
  found, missing = [], None
  for path in dict.fromkeys((recorded, config.data.path)):
    if path is None:
      continue
    there = config.copy_and_resolve_references()
    with there.unlocked():
      there.data.path = path
    try:
      data = parts.data(there, packed=True)
    except (FileNotFoundError, ValueError) as error:
      missing = error
      continue
    if data.checksum == told['checksum']:
      return there, data
    found.append(f'{data.checksum}: {data.source}')
  if not found:
    raise missing
  raise ValueError(
    f'{workdir} has learned from other shapes (checksum {told["checksum"]}: '
    f'{told["data"]}) than data.path has now ({", ".join(found)}): point '
    '--config.data.path at the old shapes, use another workdir, or continue '
    'with the new shapes by --accept_changes'
  )


def check_goes_on(
  workdir: str, experiment: base.Experiment, step: int, told: Mapping[str, Any]
) -> None:
  """Refuses a run whose phase or iteration does not exist in its config."""
  networks.choice(
    [phase.name for phase in experiment.phases],
    told['phase'],
    f'the phase that {workdir} is in',
  )
  total = sum(phase.iterations for phase in experiment.phases)
  if step > total:
    raise ValueError(
      f'{workdir} has learned for {step} iterations already, but the config '
      f'asks for {total}: raise train.num_iterations, or use another workdir'
    )
