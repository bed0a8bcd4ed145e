"""What a run reports while it runs: metrics, events, pictures and progress.

A workdir then holds

  metrics.jsonl  one JSON object a step: `{"step": 0, "energy_gap": 1.5, ...}`
  events.jsonl   one JSON object an event: time, step, kind, and its fields
  tensorboard/   the same numbers and the pictures, for TensorBoard

JSON has no NaN or infinity: they are the strings "NaN", "Infinity" and
"-Infinity" in the files, and `read_metrics` turns these back into floats.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import datetime
import json
import math
import os
import re
import sys
import time
from typing import Any
from typing import NamedTuple

from absl import logging
import matplotlib.image
import numpy as np
from tensorboardX import event_file_writer
from tensorboardX import summary
from tensorboardX.proto import event_pb2
import tqdm

_NON_FINITE = ('NaN', 'Infinity', '-Infinity')


class Writer(NamedTuple):
  """The closures of an open writer; see `open_writer`.

  metrics: `(step, {name: number or array})`, at most once a step, in order;
    adds `seconds_per_step`, from the second call of a process on, since the
    first step compiles.
  event: `(step, kind, **fields)`: a divergence, a rollback, a resume, ...
  picture: `(step, path)`: adds the picture (.png) at `path`.
  rewind: `(step)`: drops the metrics of this step and all later ones, for a
    run that was rolled back and repeats these steps.
  say: `(text)`: logs a line for people, and writes it to no file.
  close: `()`.
  """

  metrics: Callable[..., None]
  event: Callable[..., None]
  picture: Callable[..., None]
  rewind: Callable[..., None]
  say: Callable[[str], None]
  close: Callable[[], None]


def open_writer(
  workdir,
  num_iterations: int,
  *,
  first_step: int = 0,
  show: Mapping[str, str] | None = None,
  log_seconds: float = 20.0,
  active: bool = True,
  progress: bool | None = None,
) -> Writer:
  """Opens the files of a run, fresh or resumed.

  Metrics of `first_step` and later, which a killed run has left behind, are
  dropped from metrics.jsonl, since this run writes them again; so is half a
  line at the end of either file. Events are kept: they did happen.

  Args:
    workdir: made if it is not there.
    num_iterations: the step at which the run ends.
    first_step: the first step that this run does.
    show: metrics named in the progress, and how:
      `{'energy_gap': 'energy gap'}`.
    log_seconds: least number of seconds between two lines of the log (absl,
      level INFO), where there is no terminal; the first and the last step
      always have a line.
    active: False for a writer that does nothing, for all processes of a run
      but the first.
    progress: a progress bar on stderr instead of lines; None: where stderr is
      a terminal.

  Returns:
    A writer. Close it: otherwise the last numbers may be missing in
    TensorBoard.

  Raises:
    OSError: where the workdir cannot be written, here and from the writer.
    ValueError: where metrics.jsonl holds something else; from `metrics`, for
      a step that has been written already.
  """
  if not active:
    return Writer(*[lambda *args, **kwargs: None] * 6)
  if show is None:
    show = {'energy_gap': 'energy gap', 'grad_norm': 'gradient'}
  metrics_path = os.path.join(workdir, 'metrics.jsonl')
  events_path = os.path.join(workdir, 'events.jsonl')
  board_path = os.path.join(workdir, 'tensorboard')
  if progress is None:
    progress = sys.stderr.isatty()

  with _telling(workdir):
    os.makedirs(workdir, exist_ok=True)
    _keep_rows(metrics_path, lambda row: row['step'] < first_step)
    _keep_rows(events_path, lambda row: True)
    with contextlib.ExitStack() as stack:
      metrics_file = stack.enter_context(open(metrics_path, 'a'))
      events_file = stack.enter_context(open(events_path, 'a'))
      board = _open_board(board_path, first_step)
      stack.pop_all()
  bar = None
  if progress:
    bar = tqdm.tqdm(
      total=num_iterations,
      initial=first_step,
      dynamic_ncols=True,
      # Speed and time left are ours, which leave out compilation.
      bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]',
      file=sys.stderr,
    )
  next_step, last_time, pace = first_step, None, None
  logged = flushed = -math.inf

  def say(text):
    if bar is None:
      logging.info('%s', text)
    else:
      bar.write(text, file=sys.stderr)

  def append(file, row):
    with _telling(workdir):
      file.write(json.dumps(row, allow_nan=False) + '\n')
      file.flush()

  def metrics(step, values):
    nonlocal next_step, last_time, pace, logged, flushed
    step, now = int(step), time.monotonic()
    if step < next_step:
      raise ValueError(
        f'step {step} is written already; the next step must be at least '
        f'{next_step}'
      )
    row = {name: _plain(value) for name, value in values.items()}
    if last_time is not None:
      seconds = (now - last_time) / (step + 1 - next_step)
      pace = seconds if pace is None else 0.9 * pace + 0.1 * seconds
      row.setdefault('seconds_per_step', seconds)
    next_step, last_time = step + 1, now
    append(metrics_file, {'step': step} | _encode(row))
    with _telling(workdir):
      for name, value in row.items():
        if isinstance(value, int | float) and math.isfinite(value):
          _write_event(board, step, summary=summary.scalar(name, value))
      if now - flushed >= 5:
        flushed = now
        board.flush()

    texts = [
      f'{label} {row[name]:.4g}'
      for name, label in show.items()
      if isinstance(row.get(name), int | float)
    ]
    left = max(num_iterations - next_step, 0)
    if pace is not None:
      eta = datetime.timedelta(seconds=round(left * pace))
      texts += [f'{pace:.3g} s/step', f'ETA {eta}']
    text = ', '.join(texts)
    if bar is not None:
      bar.set_postfix_str(text, refresh=False)
      bar.update(next_step - bar.n)
    elif now - logged >= log_seconds or left == 0:
      logged = now
      logging.info('step %d of %d: %s', next_step, num_iterations, text)

  def event(step, kind, **fields):
    row = {name: _plain(value) for name, value in fields.items()}
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    head = {'time': stamp, 'step': int(step), 'kind': kind}
    append(events_file, head | _encode(row))
    details = ', '.join(
      f'{name} {_words(value)}' for name, value in row.items()
    )
    text = f'step {step}: {kind.replace("_", " ")}'
    say(f'{text} ({details})' if details else text)

  def picture(step, path):
    image = matplotlib.image.imread(path)
    if image.ndim == 2:
      image = np.repeat(image[..., None], 3, axis=-1)
    stem = os.path.splitext(os.path.basename(path))[0]
    # chains_000100.png is one of the pictures called chains.
    tag = re.sub(r'[_-]?\d+$', '', stem) or stem
    picture = summary.image(tag, image[..., :3], dataformats='HWC')
    with _telling(workdir):
      _write_event(board, step, summary=picture)
      board.flush()
    say(f'step {step}: {path}')

  def rewind(step):
    nonlocal metrics_file, board, next_step, last_time
    with _telling(workdir):
      metrics_file.close()
      _keep_rows(metrics_path, lambda row: row['step'] < step)
      metrics_file = open(metrics_path, 'a')  # noqa: SIM115
      board.close()
      board = _open_board(board_path, step)
    next_step, last_time = int(step), None
    if bar is not None:
      bar.n = next_step
      bar.refresh()

  def close():
    with _telling(workdir), contextlib.ExitStack() as stack:
      if bar is not None:
        stack.callback(bar.close)
      stack.callback(board.close)
      stack.callback(events_file.close)
      stack.callback(metrics_file.close)

  return Writer(metrics, event, picture, rewind, say, close)


def read_metrics(workdir) -> list[dict[str, Any]]:
  """Returns the rows of metrics.jsonl, even while the run writes to it.

  Half a line at the end, which a killed run leaves, is ignored.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where another line is not a JSON object with a step.
  """
  rows, _ = _read_rows(os.path.join(workdir, 'metrics.jsonl'))
  return [_decode(row) for row in rows]


def write_metrics(path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Writes rows as metrics.jsonl has them, to a new file.

  Raises:
    FileExistsError: when `path` exists.
  """
  with open(path, 'x', encoding='utf-8') as file:
    file.writelines(json.dumps(_encode(dict(row))) + '\n' for row in rows)


def read_events(workdir) -> list[dict[str, Any]]:
  """Returns the rows of events.jsonl; as `read_metrics`."""
  rows, _ = _read_rows(os.path.join(workdir, 'events.jsonl'))
  return [_decode(row) for row in rows]


def _open_board(folder, step):
  """Opens another event file for TensorBoard.

  SummaryWriter is not used: its thread dies on a full disk, and its queue then
  blocks the run. Two of its files that are opened in the same second also have
  the same name.
  """
  os.makedirs(folder, exist_ok=True)
  older = len(os.listdir(folder))
  board = event_file_writer.EventsWriter(
    os.path.join(folder, 'events'), f'.{older}'
  )
  if older:
    # TensorBoard then forgets what older files say of this step and later.
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    _write_event(board, step, file_version='brain.Event:2')
    _write_event(board, step, session_log=start)
  board.flush()
  return board


def _write_event(board, step, **content):
  board.write_event(
    event_pb2.Event(wall_time=time.time(), step=int(step), **content)
  )


def _read_rows(path):
  """Returns the rows of a file, and whether its last line is a whole one."""
  with open(path, encoding='utf-8', errors='replace') as file:
    *lines, rest = file.read().split('\n')
  rows = []
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      if not isinstance(row, dict) or not isinstance(row.get('step'), int):
        raise ValueError('no JSON object with a step')
    except ValueError as error:
      raise ValueError(f'{path}, line {number}: {error}') from error
    rows.append(row)
  return rows, not rest


def _keep_rows(path, keep):
  """Rewrites a file with some of its rows, whole or not at all."""
  try:
    rows, whole = _read_rows(path)
  except FileNotFoundError:
    return
  kept = [row for row in rows if keep(row)]
  if whole and len(kept) == len(rows):
    return
  partial = f'{path}.partial'
  with open(partial, 'w', encoding='utf-8') as file:
    file.writelines(json.dumps(row) + '\n' for row in kept)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def _words(value):
  """A value of an event, for a line of the log."""
  return '; '.join(map(str, value)) if isinstance(value, list) else value


def _plain(value):
  """Turns arrays and NumPy numbers into Python's own."""
  if isinstance(value, str | bool | None):
    return value
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if isinstance(value, Mapping):
    return {str(name): _plain(item) for name, item in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  array = np.asarray(value)
  if array.dtype.kind not in 'biuf':
    # NumPy does not know bfloat16 as a kind of float.
    array = array.astype(np.float64)
  return array.tolist()


def _encode(value):
  if isinstance(value, dict):
    return {name: _encode(item) for name, item in value.items()}
  if isinstance(value, list):
    return [_encode(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return {math.inf: 'Infinity', -math.inf: '-Infinity'}.get(value, 'NaN')
  return value


def _decode(value):
  if isinstance(value, dict):
    return {name: _decode(item) for name, item in value.items()}
  if isinstance(value, list):
    return [_decode(item) for item in value]
  return float(value) if value in _NON_FINITE else value


@contextlib.contextmanager
def _telling(workdir):
  """Names the workdir in an OSError."""
  try:
    yield
  except OSError as error:
    reason = error.strerror or error
    raise OSError(f'cannot write to workdir {workdir}: {reason}') from error
