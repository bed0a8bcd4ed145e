"""Checkpoints: all that the next step needs, written as one atomic unit.

A workdir holds `checkpoints/00000100/` with the arrays, written by orbax, and
manifest.json, see manifests.py. A checkpoint is written under another name and
gets its own by one rename when it is complete, so that a process killed at any
moment leaves either the whole of it or nothing. Only a folder whose name is a
step's number is a checkpoint. The others are:

  00000100.partial      half written or half deleted; removed by the next
                        save or restore
  00000100.replaced     the former one of a step, while it is replaced
  00000100.corrupt_001  could not be read, renamed aside, never deleted
  00000100.rejected     set aside by `set_aside`, never deleted

A leaf is named by its path in the tree, such as
`algorithm/learners/descriptor/params/params/last/kernel`, so that it can be
read without the tree.

PRNG keys are not stored: the key of step t is `fold_in(root, t)`.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import errno
import os
import re
import shutil
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from experiments.files import manifests

_STEP = re.compile(r'\d{8,}')
_ARRAYS = 'arrays'
_OVERHEAD = 2**18  # Bytes of a checkpoint beside its arrays, at most.


def save(
  workdir,
  step: int,
  state: Any,
  *,
  about: Mapping[str, Any] | None = None,
  keep: int = 3,
) -> str:
  """Writes a checkpoint, then deletes all but the newest `keep`.

  In a run of several processes all of them call it, with one file system.

  Args:
    workdir: made if it is not there.
    step: number of iterations done; one that is there already is replaced.
    state: a tree of arrays and Python numbers: NamedTuples, dicts, tuples,
      optax states.
    about: what to keep beside it, of JSON's own types; None: nothing.
    keep: how many to keep with this one, at least 1; later steps stay.

  Returns:
    The folder of the checkpoint.

  Raises:
    OSError: where it cannot be written; older checkpoints are then untouched.
    TypeError: for a leaf that is not an array of numbers, or is a PRNG key; for
      an `about` that JSON cannot hold.
    ValueError: for a negative step, `keep` below 1, or two leaves of one name.
  """
  if keep < 1:
    raise ValueError(f'keep must be at least 1, got {keep}')
  if step < 0:
    raise ValueError(f'step must not be negative, got {step}')
  leaves = manifests.leaves(state)
  manifest = manifests.make(step, about, leaves)
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
    _check_room(folder, arrays.values())
    # Orbax can save neither an empty tree nor empty arrays.
    if arrays:
      with _checkpointer() as checkpointer:
        checkpointer.save(
          os.path.join(partial, _ARRAYS), args=ocp.args.PyTreeSave(arrays)
        )
    if _is_first():
      manifests.write(partial, manifest)
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
    raise OSError(
      f'cannot write the checkpoint of step {step} in {folder}: '
      f'{_reason(error)}'
    ) from error
  return final


def restore(
  workdir,
  like: Any,
  *,
  before: int | None = None,
  on_event: Callable[..., None] | None = None,
) -> tuple[int, Any] | None:
  """Reads the newest checkpoint that is whole, for the run that continues.

  One whose files are missing or changed is renamed aside, and the one before
  it is read. Half-written ones of a killed process are removed. So only the
  run that writes to the workdir may call it; others call `read`.

  Args:
    workdir: of `save`.
    like: a tree with the structure of the saved one, or a function `about ->
      tree`, where the structure depends on the checkpoint. Its leaves give
      shape, dtype and place: a committed `jax.Array` or a `ShapeDtypeStruct`
      with a sharding comes back with that sharding, any other `jax.Array`
      uncommitted, Python numbers as such, and all else as NumPy arrays.
    before: only checkpoints of lower steps; None: all.
    on_event: called as `on_event(step, 'corrupt_checkpoint', path=...,
      reason=...)`, like `Writer.event`. The log of absl gets a warning too.

  Returns:
    `(step, state)`, bit for bit what was saved; None where there is none.

  Raises:
    ValueError: where the leaves differ from those of `like` by name, shape or
      dtype: another model, not a corrupt file; for a checkpoint of an older
      format.
    OSError: where there are checkpoints but none is whole (then none is
      renamed), or one cannot be renamed.
  """
  folder = _folder(workdir)
  chosen = -1
  if _is_first():
    if os.path.isdir(folder):
      _clean(folder)
    chosen, _, faults = _newest_whole(workdir, before)
    _set_corrupt_aside(chosen, faults, on_event)
  if jax.process_count() > 1:
    chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
  if chosen < 0:
    return None
  path = os.path.join(folder, f'{chosen:08d}')
  manifest = manifests.read(path)
  if callable(like):
    like = like(manifest['about'])
  wanted = manifests.leaves(like)
  manifests.check_leaves(path, manifest['leaves'], wanted)
  found = _read_arrays(path, {name: _target(x) for name, x in wanted.items()})
  leaves = [_placed(found[name], x) for name, x in wanted.items()]
  return chosen, jax.tree.unflatten(jax.tree.structure(like), leaves)


def about(workdir) -> tuple[int, dict[str, Any]] | None:
  """Returns the step of the newest whole checkpoint, and its `about`.

  Changes nothing, even while a run writes to the workdir.

  Returns:
    `(step, about)`; None where there is none.

  Raises:
    OSError: where there are checkpoints but none is whole.
    ValueError: for a checkpoint of an older format.
  """
  chosen, manifest, _ = _newest_whole(workdir)
  return None if chosen < 0 else (chosen, manifest['about'])


def read(
  workdir, prefixes: Sequence[str] = ('',)
) -> tuple[int, dict[str, Any], dict[str, np.ndarray]] | None:
  """Reads leaves of the newest whole checkpoint by their names.

  Needs no tree of the same structure. Changes nothing, even while a run writes
  to the workdir.

  Args:
    workdir: of `save`.
    prefixes: only leaves whose name begins with one of these are read; all by
      default. `('algorithm/learners/',)` leaves the chains on disk.

  Returns:
    `(step, about, leaves)`, the leaves by name; None where there is none.

  Raises:
    OSError: where there are checkpoints but none is whole.
    ValueError: for a checkpoint of an older format.
  """
  while True:
    chosen, manifest, faults = _newest_whole(workdir)
    if chosen < 0:
      return None
    for step, _, reason in faults:
      logging.warning(
        'the checkpoint of step %d is corrupt (%s); taking that of step %d',
        step, reason, chosen,
      )  # fmt: skip
    path = os.path.join(_folder(workdir), f'{chosen:08d}')
    targets = {
      name: np.empty(shape, jnp.dtype(dtype))
      for name, (dtype, shape) in manifest['leaves'].items()
      if name.startswith(tuple(prefixes))
    }
    try:
      return chosen, manifest['about'], _read_arrays(path, targets)
    except Exception:
      # A run has deleted it meanwhile, so there is a newer one.
      if os.path.isdir(path):
        raise


def steps(workdir) -> list[int]:
  """Returns the steps of the checkpoints, the oldest first."""
  try:
    names = os.listdir(_folder(workdir))
  except FileNotFoundError:
    return []
  return sorted(int(name) for name in names if _STEP.fullmatch(name))


def set_aside(workdir, first_step: int) -> list[str]:
  """Renames the checkpoints of `first_step` and later to '.rejected'.

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


def _folder(workdir):
  # Absolute, as orbax wants it.
  return os.path.join(os.path.abspath(workdir), 'checkpoints')


def _check_room(folder, arrays):
  """Raises OSError where the disk is too full, briefly; orbax would not.

  Where orbax fails while it writes, the tasks that it leaves behind print their
  errors, one line for each array.
  """
  disk = shutil.disk_usage(folder)
  if disk.total and disk.free < sum(x.nbytes for x in arrays) + _OVERHEAD:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(error):
  """The system's text of an error, also where other errors wrap it."""
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code:
    return os.strerror(int(code[1]))
  return getattr(error, 'strerror', None) or error


def _is_first():
  return jax.process_index() == 0


def _wait_for_all(name):
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def _checkpointer():
  """Opens orbax, silenced: it also raises what it logs, and we report that."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  try:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
      yield checkpointer
  finally:
    logging.set_verbosity(verbosity)


def _target(leaf):
  """Returns what orbax restores a leaf as."""
  host = np.empty(np.shape(leaf), manifests.dtype(leaf))
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
      # Weakly typed if it was so before, or the step would be traced again. A
      # value that is set in a weakly typed array takes its type.
      zero = np.zeros((), found.dtype).item()
      return jnp.full(found.shape, zero).at[...].set(found)
    return jnp.asarray(found)
  return found


def _read_arrays(path, targets):
  """Reads these leaves and no others, each as its target is."""
  # Empty arrays are not stored: each is its own target.
  stored = {name: x for name, x in targets.items() if np.size(x)}
  if not stored:
    return targets
  with _checkpointer() as checkpointer:
    found = checkpointer.restore(
      os.path.join(path, _ARRAYS),
      args=ocp.args.PyTreeRestore(
        stored,
        restore_args=ocp.checkpoint_utils.construct_restore_args(stored),
        partial_restore=True,
      ),
    )
  return targets | found


def _newest_whole(workdir, before=None):
  """Returns `(step, manifest, faults)`, with step -1 where there is none.

  `faults` are `(step, path, reason)` of newer ones that are not whole.
  """
  folder, faults = _folder(workdir), []
  listed = steps(workdir)
  for step in reversed(listed):
    if before is not None and step >= before:
      continue
    path = os.path.join(folder, f'{step:08d}')
    manifest, reason = manifests.check(path)
    if manifest is not None:
      return step, manifest, faults
    # Otherwise a run has deleted it meanwhile.
    if os.path.isdir(path):
      faults.append((step, path, reason))
  if faults:
    raise OSError(
      f'none of the {len(faults)} checkpoints in {folder} can be read; move '
      'the folder away to start anew:\n  '
      + '\n  '.join(f'{path}: {reason}' for _, path, reason in faults)
    )
  if listed != steps(workdir):
    return _newest_whole(workdir, before)
  return -1, None, faults


def _set_corrupt_aside(chosen, faults, on_event):
  """Renames the checkpoints that are not whole, and logs it."""
  for step, path, reason in faults:
    aside = _rename_aside(path, 'corrupt')
    logging.warning(
      'the checkpoint of step %d is corrupt (%s), now %s; taking that of '
      'step %d', step, reason, aside, chosen,
    )  # fmt: skip
    if on_event is not None:
      on_event(step, 'corrupt_checkpoint', path=aside, reason=reason)


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
  """Completes or removes what a killed process has left."""
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
