"""Measures how many meshes a second are voxelized, and the memory it takes.

    python -m benchmarks.voxelize --meshes ModelNet10 --limit 200

prints a table and, last, one line of JSON. Reading is timed separately, since
it is done once for all sizes. `--num_workers` also times the whole command with
that many processes, including their start.
"""

from collections.abc import Sequence
import json
import os
import pathlib
import resource
import sys
import tempfile
import time

from absl import app
from absl import flags
import numpy as np

from data_prep import command
from data_prep import groups
from data_prep import mesh_files
from data_prep import trees
from data_prep import voxelize


def time_steps(meshes: Sequence[trees.ShapeFile], sizes: Sequence[int]):
  """Seconds in this process for each step, summed over the meshes."""
  seconds = dict.fromkeys(['read', *sizes], 0.0)
  faces = 0
  with trees.open_shapes(meshes) as read:
    for mesh in meshes:
      start = time.perf_counter()
      corners, triangles = mesh_files.read_mesh(
        read(mesh), trees.file_type(mesh)
      )
      seconds['read'] += time.perf_counter() - start
      faces += len(triangles)
      for size in sizes:
        start = time.perf_counter()
        voxelize.voxelize(corners, triangles, size)
        seconds[size] += time.perf_counter() - start
  return seconds, faces


def time_command(meshes, sizes, num_workers: int) -> float:
  """Seconds of the whole command: read, voxelize, write."""
  with tempfile.TemporaryDirectory() as folder:
    outs = {size: pathlib.Path(folder) / f'{size}.npz' for size in sizes}
    start = time.perf_counter()
    groups.convert(meshes, outs, num_workers=num_workers, progress=False)
    return time.perf_counter() - start


def peak_mib(who: int) -> float:
  """Peak memory of a process in MiB; of the largest one for children."""
  peak = resource.getrusage(who).ru_maxrss
  return peak / (2**20 if sys.platform == 'darwin' else 2**10)


def main(argv: Sequence[str]) -> int:
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  sizes = voxelize.parse_sizes(values.size)
  meshes = trees.find_shapes(values.meshes)
  # Some of every class, the same ones in every run.
  chosen = np.random.default_rng(0).permutation(len(meshes))[: values.limit]
  meshes = [meshes[i] for i in sorted(chosen)]
  seconds, faces = time_steps(meshes, sizes)
  count = len(meshes)
  result = {
    'meshes': count,
    'triangles_a_mesh': round(faces / count),
    'cores': os.cpu_count(),
    'read_a_second': round(count / seconds['read'], 1),
    'shapes_a_second': {n: round(count / seconds[n], 1) for n in sizes},
    'peak_mib': round(peak_mib(resource.RUSAGE_SELF)),
  }
  print(f'{count} meshes, {result["triangles_a_mesh"]} triangles each')
  print(f'{"step, one process":24}{"a second":>10}{"ms each":>10}')
  for step, total in seconds.items():
    name = step if step == 'read' else f'voxelize {step}^3'
    print(f'{name:24}{count / total:10.1f}{1000 * total / count:10.2f}')
  if values.num_workers:
    whole = time_command(meshes, sizes, values.num_workers)
    result['num_workers'] = values.num_workers
    result['command_meshes_a_second'] = round(count / whole, 1)
    result['peak_mib_of_a_worker'] = round(peak_mib(resource.RUSAGE_CHILDREN))
    name = f'command, {values.num_workers} processes'
    print(f'{name:24}{count / whole:10.1f}{1000 * whole / count:10.2f}')
  print(f'peak memory {result["peak_mib"]} MiB')
  print(json.dumps(result))
  return 0


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_string('meshes', None, 'Zip file or folder of meshes.')
  flags.DEFINE_integer('limit', 200, 'How many meshes, chosen at random.', 1)
  flags.DEFINE_list('size', ['32', '64'], 'Voxels a side.')
  flags.DEFINE_integer('num_workers', 0, 'Time the command, too, if not 0.', 0)
  flags.mark_flags_as_required(['meshes'])


if __name__ == '__main__':
  command.run(main, define_flags)
