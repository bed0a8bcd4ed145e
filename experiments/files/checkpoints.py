"""Checkpoints: one atomic unit of all that the next step needs.

A workdir holds `checkpoints/00000100/` with the arrays, written by orbax, and
manifest.json: which leaves they are, and the size and checksum of every file.
A checkpoint is written under another name and gets its own by one rename when
it is complete, so that a process killed at any moment leaves either the whole
of it or nothing. What is not a step's number is not a checkpoint:

  00000100.partial      half written or half deleted; removed by the next
                        save or restore
  00000100.replaced     the former one of a step, while it is replaced
  00000100.corrupt_001  could not be read, renamed aside, never deleted
  00000100.rejected     set aside by `set_aside`, never deleted

PRNG keys are not stored: the key of step t is `fold_in(root, t)`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import os
import re
import shutil
from typing import Any
import zlib

from absl import logging
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

try:
  import fcntl
except ImportError:  # Windows: a workdir is not locked.
  fcntl = None

_STEP = re.compile(r'\d{8,}')
_MANIFEST = 'manifest.json'
_ARRAYS = 'arrays'


def save(workdir, step: int, state: Any, *, keep: int = 3) -> str:
  """Writes a checkpoint, and then deletes older ones but the newest `keep`.

  In a run of several processes all of them call it, with one file system.

  Args:
    workdir: made if it is not there.
    step: number of iterations done; one that is there already is replaced.
    state: a tree of arrays and Python numbers: NamedTuples, dicts, tuples,
      optax states.
    keep: how many to keep with this one, at least 1; later steps stay.

  Returns:
    The folder of the checkpoint.

  Raises:
    OSError: where it cannot be written; older checkpoints are then untouched.
    TypeError: for a leaf that is no array of numbers, or is a PRNG key.
    ValueError: for a negative step or `keep` below 1.
  """
  if keep < 1:
    raise ValueError(f'keep must be at least 1, got {keep}')
  if step < 0:
    raise ValueError(f'step must not be negative, got {step}')
  leaves = _leaves(state)
  folder = _folder(workdir)
  final = os.path.join(folder, f'{step:08d}')
  partial = f'{final}.partial'
  try:
    if _is_first():
      os.makedirs(folder, exist_ok=True)
      _clean(folder)
      os.mkdir(partial)
    _wait_for_all('save')
    arrays = {name: x for name, x in leaves.items() if np.size(x)}
    arrays = {
      name: x if isinstance(x, jax.Array) else np.asarray(x)
      for name, x in arrays.items()
    }
    # An empty tree cannot be saved, nor can empty arrays.
    if arrays:
      with _checkpointer() as checkpointer:
        checkpointer.save(
          os.path.join(partial, _ARRAYS), args=ocp.args.StandardSave(arrays)
        )
    if _is_first():
      _write_manifest(partial, step, leaves)
      _move_in(partial, final)
      older = [old for old in steps(workdir) if old < step]
      for old in older[: max(len(older) - keep + 1, 0)]:
        # Renamed first, so that half a checkpoint never has a step's name.
        doomed = os.path.join(folder, f'{old:08d}.partial')
        os.rename(os.path.join(folder, f'{old:08d}'), doomed)
        shutil.rmtree(doomed)
    _wait_for_all('saved')
  # Whatever orbax raises (a ValueError for a full disk), nothing was saved.
  except Exception as error:
    shutil.rmtree(partial, ignore_errors=True)
    reason = getattr(error, 'strerror', None) or error
    raise OSError(
      f'cannot write the checkpoint of step {step} in {folder}: {reason}'
    ) from error
  return final


def restore(
  workdir,
  like: Any,
  *,
  before: int | None = None,
  on_event: Callable[..., None] | None = None,
) -> tuple[int, Any] | None:
  """Reads the newest checkpoint that is whole.

  One whose files are missing or changed is renamed aside, and the one before
  it is read. Half-written ones of a killed process are removed.

  Args:
    workdir: of `save`.
    like: a tree of the structure of the saved one. Its leaves tell shape,
      dtype and place: a committed `jax.Array` or a `ShapeDtypeStruct` with a
      sharding comes back with that sharding, another `jax.Array`
      uncommitted, Python numbers as such, all else as NumPy arrays.
    before: only checkpoints of lower steps; None: all.
    on_event: told `(step, 'corrupt_checkpoint', path=..., reason=...)`, as
      `Writer.event` is; absl's log is told in any case.

  Returns:
    `(step, state)`, bit for bit what was saved; None where there is none.

  Raises:
    ValueError: where the leaves differ from those of `like` by name, shape or
      dtype: another model, not a corrupt file.
    OSError: where there are checkpoints but none is whole (then none is
      renamed), or one cannot be renamed.
  """
  wanted = _leaves(like)
  folder = _folder(workdir)
  chosen, manifest = -1, None
  if _is_first():
    chosen, manifest = _newest_whole(workdir, before, on_event)
  if jax.process_count() > 1:
    chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
  if chosen < 0:
    return None
  path = os.path.join(folder, f'{chosen:08d}')
  if manifest is None:
    manifest = _read_manifest(path)
  _check_leaves(path, manifest['leaves'], wanted)

  targets = {name: _target(x) for name, x in wanted.items()}
  # Empty arrays are not stored: each is its own target.
  stored = {name: x for name, x in targets.items() if np.size(x)}
  found = {}
  if stored:
    with _checkpointer() as checkpointer:
      found = checkpointer.restore(
        os.path.join(path, _ARRAYS), args=ocp.args.StandardRestore(stored)
      )
  leaves = [
    _placed(found.get(name, targets[name]), x) for name, x in wanted.items()
  ]
  return chosen, jax.tree.unflatten(jax.tree.structure(like), leaves)


def steps(workdir) -> list[int]:
  """Returns the steps of the checkpoints, the oldest first."""
  try:
    names = os.listdir(_folder(workdir))
  except FileNotFoundError:
    return []
  return sorted(int(name) for name in names if _STEP.fullmatch(name))


def set_aside(workdir, first_step: int) -> list[str]:
  """Renames the checkpoints of `first_step` and later ones, by '.rejected'.

  For a run that goes back to an older checkpoint than its newest, so that the
  next start does not take the newer ones up again.

  Returns:
    Their new paths.
  """
  moved = []
  for step in steps(workdir):
    if step >= first_step and _is_first():
      path = os.path.join(_folder(workdir), f'{step:08d}')
      moved.append(_rename_aside(path, 'rejected'))
  _wait_for_all('set_aside')
  return moved


@contextlib.contextmanager
def only_writer(workdir) -> Iterator[None]:
  """Holds a workdir, so that no second run writes to it meanwhile.

  The system lets go of `workdir/lock` when the process ends, however it ends.
  In a run of several processes the first one holds it.

  Args:
    workdir: made if it is not there.

  Raises:
    OSError: where another process holds it, or it cannot be written.
  """
  if not _is_first() or fcntl is None:
    yield
    return
  with contextlib.ExitStack() as stack:
    try:
      os.makedirs(workdir, exist_ok=True)
      path = os.path.join(workdir, 'lock')
      lock = stack.enter_context(open(path, 'a'))
    except OSError as error:
      raise _cannot_write(workdir, error) from error
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise OSError(
        f'another process is writing to workdir {workdir}; wait for it, stop '
        'it, or take another workdir'
      ) from error
    except OSError as error:
      # Not every network file system can.
      logging.warning('Cannot lock %s: %s.', workdir, error)
    yield


def check_config(
  workdir, config: Mapping[str, Any], *, may_differ: Sequence[str] = ()
) -> list[str]:
  """Refuses a workdir that belongs to another config.

  The first run writes `workdir/config.json`. A later run whose config differs
  only in fields of `may_differ` rewrites it.

  Args:
    workdir: made if it is not there.
    config: nested dicts of what JSON can hold; tuples count as lists.
    may_differ: names of fields ('train.num_iterations') or of groups of them
      ('sample').

  Returns:
    The allowed differences, each `field: theirs -> ours`.

  Raises:
    ValueError: with a line `field: theirs -> ours` for each field that
      differs, or where config.json cannot be read as one.
    OSError: where the workdir cannot be written.
  """
  path = os.path.join(workdir, 'config.json')
  text = json.dumps(config, indent=2, sort_keys=True) + '\n'
  ours = _flatten(json.loads(text))
  try:
    theirs = _read_config(path)
    allowed, refused = [], []
    if theirs is not None:
      for field in sorted(ours.keys() | theirs.keys()):
        a, b = theirs.get(field, '(absent)'), ours.get(field, '(absent)')
        # As JSON text, in which nan is itself and 1 is neither 1.0 nor true.
        if a != b:
          free = any(f'{field}.'.startswith(f'{name}.') for name in may_differ)
          (allowed if free else refused).append(f'{field}: {a} -> {b}')
    if refused:
      raise ValueError(
        f'{workdir} belongs to a run with another config; take another '
        'workdir, or set these fields back (theirs -> ours):\n  '
        + '\n  '.join(refused)
      )
    if theirs is None or allowed:
      os.makedirs(workdir, exist_ok=True)
      _write_text(path, text)
  except OSError as error:
    raise _cannot_write(workdir, error) from error
  return allowed


def _cannot_write(workdir, error):
  reason = error.strerror or error
  return OSError(f'cannot write to workdir {workdir}: {reason}')


def _folder(workdir):
  # Absolute, as orbax wants it.
  return os.path.join(os.path.abspath(workdir), 'checkpoints')


def _is_first():
  return jax.process_index() == 0


def _wait_for_all(name):
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def _checkpointer():
  """Opens orbax, whose many lines of level INFO would drown the run's own."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(min(verbosity, logging.WARNING))
  try:
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
      yield checkpointer
  finally:
    logging.set_verbosity(verbosity)


def _leaves(tree):
  """Returns the leaves of a tree by their paths, in the order of the tree."""
  leaves = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path) or 'state'
    dtype = getattr(leaf, 'dtype', None)
    if dtype is None and isinstance(leaf, bool | int | float):
      dtype = np.asarray(leaf).dtype
    if dtype is None or getattr(dtype, 'kind', '') in 'OSU':
      raise TypeError(f'{name} is no array of numbers: {type(leaf).__name__}')
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
      raise TypeError(f'{name} is a PRNG key; fold the step into the root key')
    leaves[name] = leaf
  return leaves


def _describe(leaf):
  dtype = getattr(leaf, 'dtype', None)
  dtype = np.asarray(leaf).dtype if dtype is None else dtype
  return f'{np.dtype(dtype).name}{list(np.shape(leaf))}'


def _target(leaf):
  """Returns what orbax restores a leaf as."""
  dtype = getattr(leaf, 'dtype', None)
  dtype = np.asarray(leaf).dtype if dtype is None else dtype
  host = np.empty(np.shape(leaf), dtype)
  sharding = None
  if isinstance(leaf, jax.ShapeDtypeStruct) or (
    isinstance(leaf, jax.Array) and leaf.committed
  ):
    sharding = leaf.sharding
  if sharding is None:
    return host
  if not host.size:
    return jax.device_put(host, sharding)
  return jax.ShapeDtypeStruct(host.shape, host.dtype, sharding=sharding)


def _placed(found, leaf):
  """Returns a restored leaf as one like `leaf`."""
  if isinstance(leaf, bool | int | float):
    return type(leaf)(found.item())
  if isinstance(leaf, np.generic):
    return found[()]
  if isinstance(leaf, jax.Array) and not leaf.committed:
    if leaf.weak_type:
      # As weak as it was, or the step would be traced anew: what is set in a
      # weakly typed array takes its type.
      zero = np.zeros((), found.dtype).item()
      return jnp.full(found.shape, zero).at[...].set(found)
    return jnp.asarray(found)
  return found


def _check_leaves(path, saved, wanted):
  wanted = {name: _describe(x) for name, x in wanted.items()}
  differing = [
    f'{name}: {saved.get(name, "(absent)")} -> {wanted.get(name, "(absent)")}'
    for name in sorted(saved.keys() | wanted.keys())
    if saved.get(name) != wanted.get(name)
  ]
  if differing:
    more = len(differing) - 10
    raise ValueError(
      f'{path} holds another state than this run has (theirs -> ours):\n  '
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
      if relative == _MANIFEST:
        continue
      size, checksum = 0, 0
      with open(file_path, 'rb') as file:
        while block := file.read(1 << 22):
          size, checksum = size + len(block), zlib.crc32(block, checksum)
      found[relative] = [size, checksum]
  return found


def _write_manifest(path, step, leaves):
  manifest = {
    'step': step,
    'leaves': {name: _describe(leaf) for name, leaf in leaves.items()},
    'files': _files(path),
  }
  _write_text(os.path.join(path, _MANIFEST), json.dumps(manifest, indent=1))


def _read_manifest(path):
  with open(os.path.join(path, _MANIFEST), encoding='utf-8') as file:
    return json.load(file)


def _write_text(path, text):
  partial = f'{path}.partial'
  with open(partial, 'w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def _fault(path):
  """Returns `(manifest, None)` of a whole checkpoint, else `(None, reason)`."""
  try:
    manifest = _read_manifest(path)
    expected, found = manifest['files'], _files(path)
    manifest['leaves'].items()
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    return None, f'{type(error).__name__}: {error}'
  for name, size_checksum in expected.items():
    if name not in found:
      return None, f'{name} is missing'
    if found[name][0] != size_checksum[0]:
      return None, f'{name} has {found[name][0]} of {size_checksum[0]} bytes'
    if found[name] != size_checksum:
      return None, f'{name} has another checksum'
  return manifest, None


def _newest_whole(workdir, before, on_event):
  """Returns `(step, manifest)`, with step -1 where there is no checkpoint."""
  folder = _folder(workdir)
  if os.path.isdir(folder):
    _clean(folder)
  faults = []
  chosen, manifest = -1, None
  for step in reversed(steps(workdir)):
    if before is not None and step >= before:
      continue
    path = os.path.join(folder, f'{step:08d}')
    manifest, reason = _fault(path)
    if manifest is not None:
      chosen = step
      break
    faults.append((step, path, reason))
  if chosen < 0 and faults:
    raise OSError(
      f'none of the {len(faults)} checkpoints in {folder} can be read; move '
      'the folder away to start anew:\n  '
      + '\n  '.join(f'{path}: {reason}' for _, path, reason in faults)
    )
  for step, path, reason in faults:
    aside = _rename_aside(path, 'corrupt')
    logging.warning(
      'the checkpoint of step %d is corrupt (%s), now %s; taking that of '
      'step %d', step, reason, aside, chosen,
    )  # fmt: skip
    if on_event is not None:
      on_event(step, 'corrupt_checkpoint', path=aside, reason=reason)
  return chosen, manifest


def _rename_aside(path, word):
  """Renames a checkpoint, never onto another one; returns its new path."""
  number, aside = 0, f'{path}.{word}'
  while os.path.lexists(aside):
    number += 1
    aside = f'{path}.{word}_{number:03d}'
  os.rename(path, aside)
  return aside


def _move_in(partial, final):
  """Gives a complete checkpoint its name; at any moment one is in place."""
  replaced = f'{final}.replaced'
  if os.path.isdir(final):
    os.rename(final, replaced)
  os.rename(partial, final)
  shutil.rmtree(replaced, ignore_errors=True)


def _clean(folder):
  """Ends what a killed process has begun."""
  for name in os.listdir(folder):
    stem, _, word = name.partition('.')
    path = os.path.join(folder, name)
    if not _STEP.fullmatch(stem):
      continue
    final = os.path.join(folder, stem)
    if word == 'replaced' and not os.path.isdir(final):
      os.rename(path, final)
    elif word in ('partial', 'replaced'):
      shutil.rmtree(path)


def _read_config(path):
  """Returns the fields of a config.json, None where there is none."""
  try:
    with open(path, encoding='utf-8') as file:
      config = json.load(file)
    if not isinstance(config, dict):
      raise ValueError('no JSON object')
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise ValueError(f'{path} is not a config: {error}') from error
  return _flatten(config)


def _flatten(config, prefix=''):
  """Returns `{'a.b': JSON text}` of nested dicts."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, dict) and value:
      flat |= _flatten(value, f'{prefix}{name}.')
    else:
      flat[f'{prefix}{name}'] = json.dumps(value)
  return flat
