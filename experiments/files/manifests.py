"""What a checkpoint says about itself, manifest.json, and whether it is true.

The manifest has what `checkpoints.save` was told, the leaves with their types
and shapes, and the size and checksum of every file. It has a checksum itself.
"""

from collections.abc import Mapping
import json
import os
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.files import workdirs

NAME = 'manifest.json'
_FORMAT = 2  # The first had no number.


def leaves(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by their paths, in the order of the tree.

  Raises:
    TypeError: for a leaf that is not an array of numbers, or is a PRNG key.
    ValueError: for two leaves of one name.

  >>> leaves({'params': {'bias': 1.0}, 'steps': (2, 3)})
  {'params/bias': 1.0, 'steps/0': 2, 'steps/1': 3}
  """
  named = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator='/') or 'state'
    if name in named:
      raise ValueError(f'two leaves are called {name}; rename one of them')
    dtype = getattr(leaf, 'dtype', None)
    if dtype is None and isinstance(leaf, bool | int | float):
      dtype = np.asarray(leaf).dtype
    if dtype is None or getattr(dtype, 'kind', '') in 'OSU':
      raise TypeError(
        f'{name} must be an array of numbers, got {type(leaf).__name__}'
      )
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
      raise TypeError(
        f'{name} is a PRNG key, which cannot be saved: fold the step into the '
        'root key'
      )
    named[name] = leaf
  return named


def dtype(leaf: Any) -> np.dtype:
  """The dtype of a leaf, also of a Python number."""
  found = getattr(leaf, 'dtype', None)
  return np.dtype(np.asarray(leaf).dtype if found is None else found)


def _describe(leaf):
  return [dtype(leaf).name, list(np.shape(leaf))]


def check_leaves(
  path: str, saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Refuses a checkpoint that has other leaves than are wanted.

  Args:
    path: of the checkpoint.
    saved: `leaves` of its manifest.
    wanted: arrays by name.

  Raises:
    ValueError: with a line `name: saved -> needed` for each that differs.
  """

  def text(described):
    if described is None:
      return '(absent)'
    dtype, shape = described
    return f'{dtype}{shape}'

  wanted = {name: _describe(x) for name, x in wanted.items()}
  differing = [
    f'{name}: {text(saved.get(name))} -> {text(wanted.get(name))}'
    for name in sorted(saved.keys() | wanted.keys())
    if saved.get(name) != wanted.get(name)
  ]
  if differing:
    more = len(differing) - 10
    raise ValueError(
      f'{path} holds other arrays than this run needs (saved -> needed):\n  '
      + '\n  '.join(differing[:10])
      + (f'\n  and {more} more' if more > 0 else '')
    )


def _files(path):
  """Returns size and checksum of all files below a checkpoint."""
  found = {}
  for root, _, names in os.walk(path):
    for name in names:
      file_path = os.path.join(root, name)
      relative = os.path.relpath(file_path, path)
      if relative == NAME:
        continue
      size, checksum = 0, 0
      with open(file_path, 'rb') as file:
        while block := file.read(1 << 22):
          size, checksum = size + len(block), zlib.crc32(block, checksum)
      found[relative] = [size, checksum]
  return found


def _checksum(manifest):
  content = {k: v for k, v in manifest.items() if k != 'checksum'}
  return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def make(
  step: int, about: Mapping[str, Any] | None, named: Mapping[str, Any]
) -> dict[str, Any]:
  """A manifest without its files.

  Args:
    step: number of iterations done.
    about: what is kept beside the leaves, of what JSON can hold.
    named: the leaves by name.

  Raises:
    TypeError: for an `about` that JSON cannot hold.
  """
  try:
    # Through JSON, in which tuples are lists.
    about = json.loads(json.dumps(dict(about or {})))
  except (TypeError, ValueError) as error:
    raise TypeError(f'about must have JSON types only: {error}') from error
  return {
    'format': _FORMAT,
    'step': int(step),
    'about': about,
    'leaves': {name: _describe(leaf) for name, leaf in named.items()},
  }


def write(path: str, manifest: Mapping[str, Any]) -> None:
  """Adds the files of the checkpoint at `path`, and writes its manifest."""
  manifest = {**manifest, 'files': _files(path)}
  manifest['checksum'] = _checksum(manifest)
  text = json.dumps(manifest, indent=1)
  workdirs.write_text(os.path.join(path, NAME), text)


def read(path: str) -> dict[str, Any]:
  """The manifest of the checkpoint at `path`, as it is."""
  with open(os.path.join(path, NAME), encoding='utf-8') as file:
    return json.load(file)


def check(path: str) -> tuple[dict[str, Any] | None, str | None]:
  """Whether the checkpoint at `path` is whole.

  Returns:
    `(manifest, None)` if it is, else `(None, reason)`.

  Raises:
    ValueError: for one of another version of this program.
  """
  try:
    manifest = read(path)
    old = {'step', 'leaves', 'files'} == manifest.keys()
    if not old and manifest['checksum'] != _checksum(manifest):
      return None, f'{NAME} has another checksum'
    expected, found = manifest['files'], _files(path)
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    return None, f'{type(error).__name__}: {error}'
  if manifest.get('format') != _FORMAT:
    raise ValueError(
      f'{path} was written by another version of this program, and this '
      'version cannot read it: continue with that version, or train again in '
      'another workdir'
    )
  for name, size_checksum in expected.items():
    if name not in found:
      return None, f'{name} is missing'
    if found[name][0] != size_checksum[0]:
      return None, f'{name} has {found[name][0]} of {size_checksum[0]} bytes'
    if found[name] != size_checksum:
      return None, f'{name} has another checksum'
  return manifest, None
