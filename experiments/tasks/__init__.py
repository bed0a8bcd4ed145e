"""Tasks: one file for each section of the paper, and what they share.

How a model is built from a config, learned, evaluated and shown. No loop of
learning lives here, and no flag.
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
# Done with models of these tasks; it has none of its own.
MODES = classification.MODES


def mode_names() -> list[str]:
  """The names of all modes."""
  names = [name for task in TASKS.values() for name in task.modes]
  return list(dict.fromkeys([*names, *MODES]))


def find_mode(name: str, task: str) -> base.Mode:
  """The mode of that name: of the model's own task, or else of another."""
  for other in (task, *TASKS):
    if name in TASKS[other].modes:
      return TASKS[other].modes[name]
  return MODES[name]
