"""All networks on a GPU: whole learning steps, and every method by layer.

    python -m benchmarks.gpu --out=gpu.json

For each network of the paper, at its sizes, it measures one score of all chains
and one learning step of Algorithm 1, in TF32 and in bfloat16. PyTorch (TF32,
`cudnn.benchmark`, eager) is measured in the same run, with calls in turn. Times
are medians, with the goal beside them where there is one. Without PyTorch its
columns stay empty.

Then for each layer it measures every method in every precision: milliseconds of
the correlation, of its gradient in the input and of that in the kernel, and the
relative error of each (Euclidean norm) against 'phases' in float32. `chosen` is
the method that `method=None` takes there.

The benchmark ends after `--minutes`, even if something is not done. The most
important measurements come first, and the file is written after each row. A
measurement that fails (memory, a compiler) is a row with the reason. On a CPU
everything runs too, more slowly:

    python -m benchmarks.gpu --networks=tiny --out=tiny.json

There, too, errors are those of a GPU, since operands are rounded
(`--contenders=` omits the learning steps; `--chains=1` is enough for errors).
"""

from collections.abc import Sequence
from concurrent import futures
import functools
import json
import os
import pathlib
import statistics
import threading
import time
from typing import Any

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import langevin
import dnet_jax
from dnet_jax import convolution
from dnet_jax.convolution import axes
from dnet_jax.convolution import plans

# Goals: milliseconds of a learning step on an H100, and the ratio of PyTorch's
# time for a score to ours.
GOALS = {'paper_3_layer': {'tensorfloat32': 38.0, 'bfloat16': 28.0}}
SCORE_GOAL = 3.0
NETWORKS = (
  *('paper_3_layer', 'paper_coop', 'paper_multigrid', 'paper_2_layer'),
  *('paper_generator', 'paper_super_resolution'),
)
_NAMES = {'float32': 'f32', 'tensorfloat32': 'tf32', 'bfloat16': 'bf16'}
_PASSES = ('forward', 'input', 'kernel')
# Methods that are also measured in float32, in which the others gain nothing.
_IN_FLOAT32 = ('fourier', 'fourier_complex', 'winograd')
_MOST_TAPS = 4  # Most taps of an axis and phase for which 'shifts' is measured.


def _say(error: BaseException) -> str:
  """An error in one line."""
  text = ' '.join(str(error).split())
  return f'{type(error).__name__}: {text[:200]}'


# Whole learning steps.


def measure_network(
  name: str,
  labels: Sequence[str],
  repeats: int,
  score_steps: int,
  chains: int | None = None,
) -> dict[str, Any]:
  """Scores and learning steps of a network, in ms, by precision and PyTorch.

  Args:
    name: of `langevin.CASES`.
    labels: of precisions, and 'torch'.
    repeats: calls of each.
    score_steps: Langevin steps; the time of a score is their mean.
    chains: None: the network's own.
  """
  case = langevin.CASES[name]
  case = case._replace(chains=chains or case.chains)
  arrays = langevin.make_arrays(case)
  row = {'network': name, **case._asdict(), 'notes': [], 'compile_seconds': {}}
  calls, scores = {}, {}
  for label in labels:
    try:
      if label == 'torch':
        if langevin.torch is None:
          row['notes'].append('torch is not installed')
          continue
        made = langevin.torch_contender(case, arrays, ('score', 'learn'), False)
        row['notes'].append(made.note)
      else:
        made = langevin.jax_contender(
          case._replace(precision=None if label == 'default' else label),
          *('ours', arrays, ('score', 'learn'), score_steps),
        )
      for call, function in made.calls.items():
        result = function()
        if call in ('score', 'score_few'):
          scores[label] = langevin.as_numpy(label, result)
    except Exception as error:  # The others are still measured.
      row['notes'].append(f'{label} failed: {_say(error)}')
      continue
    row['compile_seconds'][label] = made.compile_seconds
    calls |= {(label, call): function for call, function in made.calls.items()}
  seconds = {
    key: statistics.median(values)
    for key, values in langevin.interleaved(calls, repeats, 20.0).items()
  }
  ms = {}
  for label, call in list(seconds):
    if call == 'score_many':
      few = seconds[label, 'score_few']
      score = (seconds[label, call] - few) / score_steps
      ms[label] = {'score': 1e3 * score, 'setup': 1e3 * (few - 2 * score)}
  for (label, call), value in seconds.items():
    if call in ('score', 'learn'):
      ms.setdefault(label, {})[call] = 1e3 * value
  row['ms'] = ms
  exact = scores.get('float32')
  row['error'] = {
    label: _relative(score, exact)
    for label, score in scores.items()
    if exact is not None and label != 'float32'
  }
  row['goal_ms'] = GOALS.get(name, {})
  row['torch_by_ours'] = {
    label: ms['torch']['score'] / value['score']
    for label, value in ms.items()
    if 'torch' in ms and label != 'torch'
  }
  return row


def _relative(value, truth) -> float:
  truth = np.asarray(truth, np.float64)
  difference = np.linalg.norm(np.asarray(value, np.float64) - truth)
  return float(difference / np.linalg.norm(truth))


def print_networks(rows: Sequence[dict[str, Any]]):
  """One line for each network and contender."""
  table = []
  for row in rows:
    goals = row['goal_ms']
    for label, ms in row['ms'].items():
      ratio = row['torch_by_ours'].get(label)
      table.append(
        [
          f'{row["section"]} {row["network"]}',
          label,
          langevin.cell(ms.get('score')),
          langevin.cell(ratio, '.2f'),
          f'{SCORE_GOAL:g}' if goals and label != 'torch' else '',
          langevin.cell(ms.get('learn')),
          langevin.cell(goals.get(label)) if label in goals else '',
          langevin.cell(row['error'].get(label), '.0e'),
        ]
      )
  langevin.print_table(
    [
      *('network', 'precision', 'score ms', 'torch/ours', 'goal'),
      *('learn ms', 'goal', 'error'),
    ],
    table,
  )
  for row in rows:
    for note in row['notes']:
      print(f'{row["network"]}: {note}')


# Layers.


def layers_of(
  name: str, chains: int | None = None
) -> list[tuple[str, int, int, int, int, int, int]]:
  """(kind, chains, side, c, n, taps, stride) of a network's layers.

  The kind is 'correlate', or 'transpose' in a generator; c channels in, n out.
  """
  case = langevin.CASES[name]
  kind = 'transpose' if case.generator else 'correlate'
  return [
    (kind, chains or case.chains, grid, c, n, taps, stride)
    for grid, _, c, n, taps, stride in langevin.sizes(case)
  ]


def _passes(layer, method, precision):
  """The three functions of `(x, kernel, cotangent)`."""
  kind, *_, stride = layer
  function = {
    'correlate': dnet_jax.correlate,
    'transpose': dnet_jax.correlate_transpose,
  }[kind]
  one = functools.partial(
    function, strides=stride, method=method, precision=precision
  )

  def back(i, x, w, y):
    return jax.vjp(one, x, w)[1](y)[i]

  return {
    'forward': lambda x, w, y: one(x, w),
    'input': functools.partial(back, 0),
    'kernel': functools.partial(back, 1),
  }


def _layer_arrays(layer):
  kind, chains, side, c, n, taps, stride = layer
  out = side * stride if kind == 'transpose' else -(-side // stride)
  ends = (n, c) if kind == 'transpose' else (c, n)
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = (
    (chains, *[side] * 3, c),
    (*[taps] * 3, *ends),
    (chains, *[out] * 3, n),
  )
  return tuple(map(jax.random.normal, keys, shapes))


def chosen(layer, precision: str, platform: str) -> str:
  """The method that `method=None` takes."""
  kind, chains, side, c, n, taps, stride = layer
  grid = side * stride if kind == 'transpose' else side
  c, n = (n, c) if kind == 'transpose' else (c, n)
  each = axes.make_axes((grid,) * 3, (taps,) * 3, (stride,) * 3, 'SAME')
  plan = plans.choose(each, None, chains, c, n, platform, precision)
  return next(k for k, m in plans.BY_NAME.items() if m == plan.method)


def _per_call(compiled, arrays, repeats: int) -> float:
  """Seconds of a call; several run in a row, so that the device never waits."""
  jax.block_until_ready(compiled(*arrays))
  start = time.perf_counter()
  jax.block_until_ready(compiled(*arrays))
  number = max(1, min(20, round(0.02 / (time.perf_counter() - start))))
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    for _ in range(number):
      result = compiled(*arrays)
    jax.block_until_ready(result)
    seconds.append((time.perf_counter() - start) / number)
  return statistics.median(seconds)


def measure_layer(
  layer: tuple[str, int, int, int, int, int, int],
  methods: Sequence[str],
  repeats: int,
  deadline: float,
) -> list[dict[str, Any]]:
  """Rows of a layer: each method and precision, programs compiled side by side.

  Args:
    layer: of `layers_of`.
    methods: of `convolution.METHODS`.
    repeats: calls of which the median is taken.
    deadline: a time of `time.monotonic`, after which no row is begun.
  """
  arrays = _layer_arrays(layer)
  platform = jax.default_backend()
  jobs = [
    (method, precision)
    for precision in convolution.PRECISIONS
    for method in methods
    if (precision != 'float32' or method in _IN_FLOAT32)
    # With many taps it needs gigabytes for products that belong to no output.
    and not (method == 'shifts' and -(-layer[5] // layer[6]) > _MOST_TAPS)
  ]

  def compile_all(method, precision):
    try:
      return {
        name: jax.jit(function).lower(*arrays).compile()
        for name, function in _passes(layer, method, precision).items()
      }
    except Exception as error:  # The others are still measured.
      return error

  rows = []
  # Programs are compiled side by side; what is timed runs alone, afterwards.
  with futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    reference = pool.submit(compile_all, 'phases', 'float32')
    made = [pool.submit(compile_all, *job) for job in jobs]
    futures.wait([reference, *made])
  truth = reference.result()
  if not isinstance(truth, Exception):
    truth = {k: np.asarray(f(*arrays)) for k, f in truth.items()}
  kind, chains, side, c, n, taps, stride = layer
  sizes = dict(
    kind=kind, chains=chains, side=side, c=c, n=n, taps=taps, stride=stride
  )
  out = side if kind == 'transpose' else -(-side // stride)
  gflop = 2e-9 * chains * out**3 * taps**3 * c * n
  for (method, precision), future in zip(jobs, made, strict=True):
    if time.monotonic() > deadline:
      break
    row = {'method': method, 'precision': precision, **sizes, 'gflop': gflop}
    row['chosen'] = chosen(layer, precision, platform) == method
    programs = future.result()
    try:
      if isinstance(programs, Exception):
        raise programs
      row['error'] = {
        name: _relative(program(*arrays), truth[name])
        for name, program in programs.items()
        if isinstance(truth, dict)
      }
      row['ms'] = {
        name: 1e3 * _per_call(program, arrays, repeats)
        for name, program in programs.items()
      }
    except Exception as error:  # Memory, or the compiler.
      row['failed'] = _say(error)
    rows.append(row)
  return rows


def print_layers(rows: Sequence[dict[str, Any]]):
  """One line for each layer, method and precision."""
  table = []
  for row in rows:
    layer = (
      f'{row["kind"]} {row["chains"]} x {row["side"]}^3 x {row["c"]}, '
      f'{row["taps"]}^3/{row["stride"]} -> {row["n"]}'
    )
    ms, error = row.get('ms', {}), row.get('error', {})
    table.append(
      [
        layer,
        f'{row["method"]} {_NAMES[row["precision"]]}',
        'chosen' if row['chosen'] else '',
        *(langevin.cell(ms.get(name)) for name in _PASSES),
        *(langevin.cell(error.get(name), '.0e') for name in _PASSES),
        langevin.cell(ms and row['gflop'] / ms['forward'], '.3g')
        if ms
        else row['failed'],
      ]
    )
  langevin.print_table(
    [
      *('layer', 'method', '', 'forward ms', 'input ms', 'kernel ms'),
      *('error', 'of input', 'of kernel', 'TFLOP/s'),
    ],
    table,
  )


def rates(side: int) -> dict[str, float]:
  """TFLOP/s of a matrix product in each precision, with nothing else in it."""
  a = jax.random.normal(jax.random.key(0), (side, side))
  result = {}
  for precision in convolution.PRECISIONS:
    kind = jnp.bfloat16 if precision == 'bfloat16' else jnp.float32
    product = jax.jit(
      functools.partial(jnp.matmul, precision=convolution.of_lax(precision))
    )
    x = a.astype(kind)
    compiled = product.lower(x, x).compile()
    seconds = _per_call(compiled, (x, x), 3)
    result[precision] = 2e-12 * side**3 / seconds
  return result


def main(argv: Sequence[str]):
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  for name in values.networks:
    if name not in langevin.CASES:
      raise app.UsageError(
        f'--networks must be of {", ".join(langevin.CASES)}, got {name!r}'
      )
  out = pathlib.Path(values.out) if values.out else None
  if out is not None and out.exists():
    raise app.UsageError(f'{out} exists and is not overwritten: name another')
  # Before JAX reserves its memory: PyTorch needs some, too.
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.6')
  start = time.monotonic()
  deadline = start + 60 * values.minutes
  langevin.settle_torch(tf32=True)
  on_cpu = jax.default_backend() == 'cpu'
  result = {
    'machine': langevin.machine(),
    'tflops': rates(512 if on_cpu else 8192),
    'networks': [],
    'layers': [],
    'left_out': [],
  }
  print(json.dumps(result['machine'], indent=2))
  print(result['tflops'], flush=True)

  def write():
    result['minutes'] = (time.monotonic() - start) / 60
    if out is not None:
      # Whole or not at all.
      part = out.with_name(f'{out.name}.part')
      part.write_text(json.dumps(result, indent=2) + '\n')
      part.replace(out)

  def give_up():
    """Ends the process: a compiler may take forever, and cannot be stopped."""
    result['left_out'].append('the run was ended by its timer')
    write()
    print_networks(result['networks'])
    print_layers(result['layers'])
    print(f'ended after {values.minutes:g} minutes', flush=True)
    os._exit(3)

  watch = threading.Timer(60 * values.minutes + 30, give_up)
  watch.daemon = True
  watch.start()
  write()
  seen = set()
  for name in values.networks:
    if time.monotonic() > deadline:
      result['left_out'].append(name)
      continue
    if values.contenders:
      row = measure_network(
        name,
        values.contenders,
        values.repeats,
        values.score_steps,
        values.chains,
      )
      result['networks'].append(row)
      write()
      print_networks([row])
      print(flush=True)
      jax.clear_caches()
    for layer in layers_of(name, values.chains):
      if layer in seen:
        continue
      seen.add(layer)
      if time.monotonic() > deadline:
        result['left_out'].append(f'{name}: {layer}')
        continue
      rows = measure_layer(layer, values.methods, values.repeats, deadline)
      result['layers'] += rows
      write()
      print_layers(rows)
      print(flush=True)
      jax.clear_caches()
  watch.cancel()
  write()
  print_networks(result['networks'])
  print()
  print_layers(result['layers'])
  for what in result['left_out']:
    print(f'left out, out of time: {what}')


def define_flags():
  flags.DEFINE_list('networks', list(NETWORKS), 'Networks, in this order.')
  labels = ['float32', 'tensorfloat32', 'bfloat16', 'torch']
  flags.DEFINE_list('contenders', labels, 'Precisions, default, and torch.')
  # In the order in which they are likely to be the fastest.
  methods = ['phases', 'fourier_complex', 'shifts', 'direct', 'fourier']
  flags.DEFINE_list(
    'methods', [*methods, 'winograd', 'im2col'], 'Methods for the layers.'
  )
  flags.DEFINE_integer('chains', None, "Chains; None: the network's own.", 1)
  flags.DEFINE_integer('repeats', 5, 'Calls of which the median is taken.', 1)
  flags.DEFINE_integer(
    'score_steps', 20, 'By how many steps the longer scan is longer.', 1
  )
  flags.DEFINE_float('minutes', 8.0, 'When to begin nothing more.', 0.0)
  flags.DEFINE_string('out', None, 'New JSON file for all numbers.')


if __name__ == '__main__':
  define_flags()
  app.run(main)
