"""Tasks: one file for each section of the paper, and what they share.

They say how a model is built from a config, learned, evaluated and shown. There
is no training loop here, and there are no flags.
"""

from experiments.tasks import base
from experiments.tasks import classification
from experiments.tasks import cooperative
from experiments.tasks import evaluation_classifier
from experiments.tasks import multi_grid
from experiments.tasks import recovery
from experiments.tasks import super_resolution
from experiments.tasks import synthesis

# By `config.task`.
TASKS = {
  'synthesis': synthesis.TASK,
  'recovery': recovery.TASK,
  'super_resolution': super_resolution.TASK,
  'cooperative': cooperative.TASK,
  'multi_grid': multi_grid.TASK,
  'evaluation_classifier': evaluation_classifier.TASK,
}
# Classification uses models of these tasks and trains none.
MODES = classification.MODES


def all_modes() -> dict[str, base.Mode]:
  """All modes by name, for help; modes of one name are merged.

  `find_mode` says which one runs.
  """
  found: dict[str, base.Mode] = {}
  for modes in (*(task.modes for task in TASKS.values()), MODES):
    for name, mode in modes.items():
      known = found.setdefault(name, mode)
      takes = dict.fromkeys((*known.takes, *mode.takes))
      fits = [known.fits, mode.fits]
      found[name] = known._replace(
        takes=tuple(takes),
        fits=lambda spec, fits=fits: any(fit(spec) for fit in fits),
      )
  return found


def find_mode(name: str, task: str) -> base.Mode:
  """The mode of that name: of the model's own task, or else of another."""
  for other in (task, *TASKS):
    if name in TASKS[other].modes:
      return TASKS[other].modes[name]
  return MODES[name]
