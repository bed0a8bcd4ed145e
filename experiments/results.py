"""Results: JSON files that say how they came about, never written over."""

from collections.abc import Mapping
import datetime
import json
import os
from typing import Any

import jax

from experiments import exported


def header(experiment: str) -> dict[str, Any]:
  """What every result begins with: experiment, command, date, device."""
  kind = jax.devices()[0]
  return {
    'experiment': experiment,
    'command': exported.describe_command(),
    'date': datetime.date.today().isoformat(),
    'device': (
      f'{os.cpu_count()} CPU cores'
      if kind.platform == 'cpu'
      else f'{jax.device_count()} x {kind.device_kind}'
    ),
  }


def write(path: str, result: Mapping[str, Any]) -> None:
  """Writes a result as JSON.

  Raises:
    FileExistsError: when `path` exists.
  """
  folder = os.path.dirname(path)
  if folder:
    os.makedirs(folder, exist_ok=True)
  with open(path, 'x', encoding='utf-8') as file:
    json.dump(result, file, indent=2)
    file.write('\n')
