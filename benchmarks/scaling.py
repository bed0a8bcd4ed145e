"""The cost of splitting a step over devices and processes, and a projection.

    python -m benchmarks.scaling --out=results/scaling.json

Algorithm 1 with 200 chains and 200 shapes in all, split over 1, 2, 4 and 8
devices that JAX simulates on one CPU, and over 1, 2 and 4 processes with one
device each. All share the same cores, so splitting gains nothing here: only its
cost is measured. `work` is the processor time of all processes for a step,
divided by that of one device; `seconds` is the time on the clock, which other
programs on the machine lengthen. Each layout has processes of its own, which
take turns with a few steps at a time (A B C A B C ...). Numbers are medians.

The collectives are read from the compiled step. Their bytes, and assumptions
that the JSON file and the table name, give an estimate of the time of a step on
other machines. These estimates are not measurements.
"""

from collections.abc import Sequence
import datetime
import json
import math
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import time
from typing import Any
from typing import NamedTuple

from absl import app
from absl import flags
import jax
import jax.numpy as jnp

import dnet_jax
from experiments import parallel
from experiments import processes
from experiments import tasks
from experiments.configs import default
from experiments.tasks import base
from experiments.tasks import parts

CHAINS = 200
# Processes, devices of each.
LAYOUTS = {
  '1 device': (1, 1),
  '2 devices': (1, 2),
  '4 devices': (1, 4),
  '8 devices': (1, 8),
  '2 processes': (2, 1),
  '4 processes': (4, 1),
}


class Machine(NamedTuple):
  """Another machine, as its maker describes it.

  Attributes:
    devices: how many.
    peak: FLOP/s of a device, in the precision of `format`.
    format: in which XLA multiplies float32 there by default.
    link: bytes/s that a device sends in an all-reduce.
    latency: seconds of one hop.
    hops: of an all-reduce over all devices, there and back.
    source: of peak and link.
  """

  devices: int
  peak: float
  format: str
  link: float
  latency: float
  hops: int
  source: str


MACHINES = {
  '8 GPUs': Machine(
    *(8, 495e12, 'TF32', 450e9, 3e-6, 14),
    'H100 SXM: 495 TFLOP/s TF32 without sparsity, NVLink 900 GB/s both ways',
  ),
  'v5e-16': Machine(
    *(16, 197e12, 'bfloat16', 100e9, 1e-6, 12),
    'TPU v5e: 197 TFLOP/s, 1,600 Gbit/s of links, half of them each way; 4 x 4',
  ),
  'v5p-256': Machine(
    *(128, 459e12, 'bfloat16', 300e9, 1e-6, 26),
    'TPU v5p-256: 128 chips, 459 TFLOP/s, 4,800 Gbit/s of links, half of them '
    'each way; 4 x 4 x 8',
  ),
}
# Share of the peak that XLA's convolutions of such sizes reached where they
# were measured (5.1 % to 21 % on an H100). A range, since no TPU was measured.
UTILISATION = (0.05, 0.2)
ASSUMPTIONS = (
  'A step is compute and one all-reduce after the other; nothing overlaps.',
  'Compute: FLOPs of the direct algorithm, at 5 to 20 % of the peak.',
  'All-reduce: a ring, 2 (n - 1) / n of the bytes over the links of a device, '
  'and a latency for each hop. XLA merges those of one moment into one.',
  'Input: packed bits, a step ahead, and so hidden.',
  '25 chains and 25 shapes on each device (weak scaling), or 200 in all where '
  'the devices divide them (strong scaling).',
)


def config():
  """Of all layouts: one network, few Langevin steps, 200 chains."""
  made = default.get_config()
  made.data.path = 'furniture'
  made.data.batch_size = made.chains.num_chains = CHAINS
  made.data.furniture_shapes = CHAINS
  made.chains.num_steps = flags.FLAGS.num_steps
  made.chains.num_slots = 1
  made.data.size = flags.FLAGS.size
  made.model.network = flags.FLAGS.network
  return made


# One process of a layout.


def _job():
  """Answers each line `n` of its input with a measurement of n steps."""
  given = json.loads(flags.FLAGS.job)
  if given['number'] > 1:
    processes.join(given['address'], given['number'], given['process'])
  made = config()
  experiment = tasks.TASKS[made.task].experiment(
    made, parts.data(made, packed=True)
  )
  (phase,) = experiment.phases
  algorithm = phase.algorithm
  devices = parallel.make(
    'shard_map', base.step_of(phase), algorithm.chain_axes
  )
  state = devices.init(
    algorithm.init, jax.random.key(0), experiment.params(), None
  )
  batch = devices.batch(phase.batch(0, 0, parallel.rows(phase.batch_size)))
  schedule = dnet_jax.Schedule(jnp.float32(0), jnp.float32(1))
  arguments = jax.random.key(1), state, batch, schedule
  compiled = devices.lower(*arguments).compile()
  state, metrics = devices.step(*arguments)
  jax.block_until_ready(metrics)
  told = {
    'collectives': collectives(compiled.as_text()),
    'parameters': sum(x.size for x in jax.tree.leaves(experiment.params())),
  }
  _answer(told)
  for line in sys.stdin:
    begin, used = time.monotonic(), time.process_time()
    for i in range(int(line)):
      state, metrics = devices.step(jax.random.key(i), state, batch, schedule)
    jax.block_until_ready(metrics)
    _answer(
      {'wall': time.monotonic() - begin, 'cpu': time.process_time() - used}
    )
  sys.stdout.flush()
  # Ends without a barrier, since others may still compute.
  os._exit(0)


def _answer(told):
  print('answer ' + json.dumps(told), flush=True)


def collectives(text: str) -> list[dict[str, Any]]:
  """What a compiled program sends between devices.

  >>> collectives('%a = (f32[3,2]{1,0}, f32[]) all-reduce(%b, %c), ...')
  [{'kind': 'all-reduce', 'arrays': 2, 'bytes': 28}]
  """
  kinds = (
    'all-reduce', 'all-gather', 'all-to-all', 'collective-permute',
    'reduce-scatter',
  )  # fmt: skip
  pattern = rf'= (.*?) ({"|".join(kinds)})(?:-start)?\('
  found = []
  for types, kind in re.findall(pattern, text):
    shapes = re.findall(r'[a-z]+(\d+)\[([\d,]*)\]', types)
    sizes = [
      int(bits) // 8 * math.prod(int(x) for x in shape.split(',') if x)
      for bits, shape in shapes
    ]
    found.append({'kind': kind, 'arrays': len(sizes), 'bytes': sum(sizes)})
  return found


# All layouts.


def _start(name):
  number, devices = LAYOUTS[name]
  with socket.create_server(('127.0.0.1', 0)) as server:
    address = f'127.0.0.1:{server.getsockname()[1]}'
  flag = f'--xla_force_host_platform_device_count={devices}'
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flag}',
  }
  running = []
  for process in range(number):
    job = {'address': address, 'number': number, 'process': process}
    running.append(
      subprocess.Popen(
        [
          *(sys.executable, '-m', 'benchmarks.scaling'),
          f'--num_steps={flags.FLAGS.num_steps}',
          f'--network={flags.FLAGS.network}',
          f'--size={flags.FLAGS.size}',
          f'--job={json.dumps(job)}',
        ],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
      )
    )
  return running


def _read(process):
  for line in process.stdout:
    if line.startswith('answer '):
      return json.loads(line.removeprefix('answer '))
  raise RuntimeError(f'a process of the benchmark ended: {process.args}')


def _ask(running, count):
  """Seconds and processor seconds of a step, of all processes of a layout."""
  for process in running:
    process.stdin.write(f'{count}\n')
    process.stdin.flush()
  answers = [_read(process) for process in running]
  return (
    max(one['wall'] for one in answers) / count,
    sum(one['cpu'] for one in answers) / count,
  )


def measure() -> list[dict[str, Any]]:
  """Rows of the layouts, all compared with the first."""
  running, told, layouts = {}, {}, flags.FLAGS.layouts
  try:
    for name in layouts:
      running[name] = _start(name)
      # One after the other: compilation takes all cores.
      told[name], *_ = map(_read, running[name])
    times = {name: [] for name in layouts}
    for _ in range(flags.FLAGS.repeats):
      for name, some in running.items():
        times[name].append(_ask(some, flags.FLAGS.count))
  finally:
    for some in running.values():
      for process in some:
        process.kill()
  rows, first = [], None
  for name in layouts:
    number, devices = LAYOUTS[name]
    seconds, work = (
      statistics.median(column) for column in zip(*times[name], strict=True)
    )
    first = first or work
    sent = told[name]['collectives']
    rows.append(
      {
        'layout': name,
        'processes': number,
        'devices': number * devices,
        'seconds': round(seconds, 3),
        'work_seconds': round(work, 3),
        'work_of_one': round(work / first, 3),
        'all': [[round(x, 3) for x in pair] for pair in times[name]],
        'collectives': sent,
        'bytes': sum(one['bytes'] for one in sent),
        'parameters': told[name]['parameters'],
      }
    )
  return rows


# Projections for other machines.


def flops(name: str, grid: int, steps: int) -> tuple[float, int]:
  """FLOPs of the direct algorithm for a chain and a shape, and parameters.

  Args:
    name: of a descriptor.
    grid: side.
    steps: of Langevin dynamics, each a pass forward and one back; the learning
      step has one more of both, and the gradient in the kernels, for a chain
      and for a shape.
  """
  sizes = dnet_jax.DESCRIPTORS[name]
  passes, parameters, side, channels = 0.0, 0, grid, 1
  for features, kernel, stride in zip(
    sizes['features'], sizes['kernel_sizes'], sizes['strides'], strict=True
  ):
    side = -(-side // stride)
    weights = kernel**3 * channels * features
    passes += 2.0 * side**3 * weights
    parameters += weights + features
    channels = features
  parameters += side**3 * channels + 1
  return passes * (2 * steps + 2 * 3), parameters


def project(name: str, grid: int, steps: int) -> list[dict[str, Any]]:
  """Seconds of a step on each of `MACHINES`, by `ASSUMPTIONS`."""
  of_pair, parameters = flops(name, grid, steps)
  rows = []
  for machine, m in MACHINES.items():
    n = m.devices
    sent = 4 * parameters
    reduce = 2 * (n - 1) / n * sent / m.link + m.hops * m.latency
    for kind, pairs in (('weak', 25), ('strong', CHAINS / n)):
      if pairs != int(pairs) or (kind, pairs) == ('strong', 25):
        continue
      slow, fast = (of_pair * pairs / (m.peak * u) for u in UTILISATION)
      rows.append(
        {
          'machine': machine,
          'network': name,
          'scaling': kind,
          'devices': n,
          'pairs_on_a_device': int(pairs),
          'bytes_reduced': sent,
          'reduce_seconds': reduce,
          'compute_seconds': [fast, slow],
          'efficiency': [fast / (fast + reduce), slow / (slow + reduce)],
        }
      )
  return rows


def table(result: dict[str, Any]) -> str:
  """Both tables, as docs/clusters.md shows them."""
  lines = [
    '| layout | work of a step, beside one device | on the clock | reduced |',
    '|---|---|---|---|',
  ]
  for row in result['measured']:
    lines.append(
      f'| {row["layout"]} | {row["work_of_one"]:.2f} | {row["seconds"]:.2f} s '
      f'| {row["bytes"] / 2**20:.2f} MiB in {len(row["collectives"])} |'
    )
  lines += [
    '',
    '| machine | chains and shapes | reduced | all-reduce | compute | '
    'efficiency |',
    '|---|---|---|---|---|---|',
  ]
  for row in result['projected']:
    low, high = row['compute_seconds']
    worst, best = row['efficiency']
    lines.append(
      f'| {row["machine"]} | {row["pairs_on_a_device"]} a device, '
      f'{row["pairs_on_a_device"] * row["devices"]} in all | '
      f'{row["bytes_reduced"] / 2**20:.1f} MiB | '
      f'{1e3 * row["reduce_seconds"]:.2f} ms | '
      f'{1e3 * low:.0f} to {1e3 * high:.0f} ms | '
      f'{100 * worst:.1f} to {100 * best:.1f} % |'
    )
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  """Measures, projects, prints, writes."""
  del argv
  if flags.FLAGS.job:
    _job()
  out = flags.FLAGS.out
  if out and os.path.exists(out):
    raise SystemExit(f'error: {out} exists and is not overwritten')
  load = os.getloadavg()
  result = {
    'command': 'python -m benchmarks.scaling',
    'date': datetime.date.today().isoformat(),
    'machine': {
      'cores': os.cpu_count(),
      'load_before': load,
      'jax': jax.__version__,
    },
    'settings': {
      'chains': CHAINS,
      'shapes': CHAINS,
      'network': flags.FLAGS.network,
      'grid': flags.FLAGS.size,
      'num_steps': flags.FLAGS.num_steps,
      'steps_a_turn': flags.FLAGS.count,
      'turns': flags.FLAGS.repeats,
    },
    'measured': measure(),
    'assumptions': [
      *ASSUMPTIONS,
      *(f'{name}: {m.source}.' for name, m in MACHINES.items()),
    ],
    'machines': {name: m._asdict() for name, m in MACHINES.items()},
    'projected': project('paper_3_layer', 32, 20),
  }
  result['machine']['load_after'] = os.getloadavg()
  print(table(result))
  if out:
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    with open(out, 'x', encoding='utf-8') as file:
      json.dump(result, file, indent=1)
      file.write('\n')


def define_flags():
  flags.DEFINE_string('out', None, 'JSON file for all numbers.')
  flags.DEFINE_list(
    'layouts', list(LAYOUTS), 'Layouts; all are compared with the first.'
  )
  flags.DEFINE_string('network', 'small', 'A name in dnet_jax.DESCRIPTORS.')
  flags.DEFINE_integer('size', 32, 'Voxels a side.')
  flags.DEFINE_integer('num_steps', 2, 'Langevin steps of an iteration.', 1)
  flags.DEFINE_integer('count', 1, 'Iterations of a turn.', 1)
  flags.DEFINE_integer('repeats', 5, 'Turns, of which the median is taken.', 1)
  flags.DEFINE_string('job', None, 'Used by the benchmark itself.')


if __name__ == '__main__':
  define_flags()
  app.run(main)
