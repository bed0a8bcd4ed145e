"""Results and folders: written once, and never overwritten.

A result is a JSON file that says how it was made.
"""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import datetime
import errno
import glob
import itertools
import json
import logging as standard_logging
import os
import shutil
import sys
import tempfile
from typing import Any

from absl import logging
import jax
import numpy as np

from experiments.files import inputs
from experiments.files import shapes


def header(experiment: str) -> dict[str, Any]:
  """What every result begins with: experiment, command, date, device."""
  return {
    'experiment': experiment,
    'command': describe_command(),
    'date': datetime.date.today().isoformat(),
    'device': device(),
  }


def device() -> str:
  """The devices that JAX uses here, in words."""
  kind, processes = jax.devices()[0], jax.process_count()
  text = f'{jax.device_count()} x {kind.device_kind}'
  if kind.platform == 'cpu' and jax.device_count() == 1:
    text = f'{os.cpu_count()} CPU cores'
  if processes > 1:
    text += f', {jax.local_device_count()} in each of {processes} processes'
  return text


def plain_log() -> None:
  """Makes lines of the log have no dates; of libraries only errors come."""
  logging.set_verbosity(logging.INFO)
  formatter = standard_logging.Formatter('%(message)s')
  logging.get_absl_handler().setFormatter(formatter)
  for name in ('jax', 'orbax', 'matplotlib', 'trimesh'):
    standard_logging.getLogger(name).setLevel(standard_logging.ERROR)


def tell_devices() -> None:
  """Logs the devices; warns of a GPU that jax does not see."""
  logging.info('Devices: %s.', device())
  if jax.default_backend() == 'cpu' and glob.glob('/dev/nvidia[0-9]*'):
    logging.warning(
      'There is an NVIDIA GPU here, but this jax does not see it: pip install '
      '-U "jax[cuda13]".'
    )


def describe_command() -> str:
  """The command line that is running, as a user would type it."""
  return ' '.join(['python -m experiments.main', *sys.argv[1:]])


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


def write_result(
  folder: str, stem: str, result: Mapping[str, Any], out: str | None = None
) -> str:
  """Writes a result to `folder/evaluations/<stem>.json`, `_001`, ...

  Args:
    folder: of a model.
    stem: name of the file.
    result: what JSON can hold.
    out: a file to write it to as well, which must not exist.

  Returns:
    The first file.
  """
  path = unused_path(os.path.join(folder, 'evaluations'), stem, '.json')
  for name in (path, out):
    if name is not None:
      write(name, result)
  logging.info('Wrote %s', path)
  return path


def unused_path(folder, stem: str, suffix: str = '') -> str:
  """Returns the first of stem, stem_001, stem_002, ... that does not exist.

  Without a suffix it is a folder, which is made, so that two processes never
  get the same one. With a suffix ('.png') it is a file, which is not made.

  Args:
    folder: where; made if it is not there.
    stem: name without number and suffix.
    suffix: of a file, with its dot; empty for a folder.

  Raises:
    OSError: where `folder` cannot be written.
  """
  os.makedirs(folder, exist_ok=True)
  for number in itertools.count():
    name = f'{stem}_{number:03d}' if number else stem
    path = os.path.join(folder, name + suffix)
    if os.path.lexists(path):
      continue
    if suffix:
      return path
    try:
      os.mkdir(path)
    except FileExistsError:
      continue
    return path


def in_new_folder(folder: str, stem: str, fill: Callable[[str], None]) -> str:
  """Makes a folder of results, whole or not at all, never over another.

  Args:
    folder: where; made if it is not there.
    stem: name of the new folder, to which a number may be added.
    fill: writes what is in it.

  Returns:
    The new folder.

  Raises:
    OSError: where `folder` cannot be written; and whatever `fill` raises.
  """
  there = os.path.isdir(folder)
  os.makedirs(folder, exist_ok=True)
  partial = tempfile.mkdtemp(prefix=f'.{stem}.', dir=folder)
  try:
    inner = os.path.join(partial, stem)
    os.mkdir(inner)  # With the permissions of any folder.
    fill(inner)
    path = None
    while path is None:
      path = unused_path(folder, stem)  # Made, and empty.
      try:
        os.rename(inner, path)
      except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
          raise
        path = None
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    if not there:
      with contextlib.suppress(OSError):
        os.rmdir(folder)
    raise
  shutil.rmtree(partial, ignore_errors=True)
  logging.info('Wrote %s', path)
  return path


def write_shapes(
  folder: str,
  arrays: Mapping[str, Any],
  record: Mapping[str, Any],
  kinds: Mapping[str, Any],
  formats: str,
  given: inputs.Shapes | None = None,
) -> None:
  """Fills a new folder: voxels.npz, record.json, meshes/ and voxels/.

  Args:
    folder: that exists.
    arrays: of voxels.npz.
    record: how they were made, for record.json.
    kinds: `(n, D, H, W)` by the name of a folder below meshes/; '': in it.
    formats: of meshes and of voxels, with commas between them; '': none.
    given: the input that the n shapes were made from; they get its coordinates.
  """
  arrays, record = dict(arrays), dict(record)
  to_input, ups = None, ()
  if given is not None:
    arrays['to_input'] = to_input = given.to_input
    ups = given.ups
    record['shapes'] = [
      {
        'name': name,
        'up': up,
        'to_input': matrix.tolist(),
        'scan': seen is not None,
      }
      for name, up, matrix, seen in zip(
        given.names, given.ups, given.to_input, given.seen, strict=True
      )
    ]
  np.savez_compressed(os.path.join(folder, 'voxels.npz'), **arrays)
  chosen = shapes.parse(formats)
  split = {
    'meshes': [x for x in chosen if x in shapes.MESH_FORMATS],
    'voxels': [x for x in chosen if x not in shapes.MESH_FORMATS],
  }
  for kind, voxels in kinds.items():
    faces = ()
    for name, some in split.items():
      if some:
        faces = shapes.save(
          os.path.join(folder, name, kind),
          voxels,
          some,
          to_input=to_input,
          ups=ups,
        ).faces
    if split['meshes']:
      record.setdefault('faces', {})[kind or 'voxels'] = list(faces)
      logging.info('%s%s', _in_words(faces), f' ({kind})' if kind else '')
    if 0 in faces:
      empty = [i for i, n in enumerate(faces) if not n]
      logging.warning('Shapes without a surface: %s %s', kind, empty)
  write(os.path.join(folder, 'record.json'), record)


def _in_words(faces):
  """How many meshes there are, and how many faces they have."""
  some = sorted(n for n in faces if n)
  if not some:
    return 'No meshes'
  if len(some) == 1:
    return f'1 mesh of {some[0]:,} faces'
  return f'{len(some)} meshes of {some[0]:,} to {some[-1]:,} faces'
