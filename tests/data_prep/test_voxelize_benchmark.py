"""The benchmark runs, and its numbers are of the meshes it was given."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import trimesh

from data_prep import furniture

ROOT = pathlib.Path(__file__).parents[2]


def test_benchmark(tmp_path):
  faces = []
  for i in range(4):
    mesh = furniture.make_mesh('sofa', np.random.default_rng(i))
    (tmp_path / f'{i}.off').write_text(trimesh.exchange.off.export_off(mesh))
    faces.append(len(mesh.faces))
  result = subprocess.run(
    [
      *(sys.executable, '-W', 'error', '-m', 'benchmarks.voxelize'),
      *(f'--meshes={tmp_path}', '--size=16,32', '--num_workers=1'),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert result.returncode == 0, result.stderr
  *table, last = result.stdout.strip().splitlines()
  assert [line.split()[0] for line in table] == [
    *('4', 'step,', 'read', 'voxelize', 'voxelize', 'command,', 'peak'),
  ]
  numbers = json.loads(last)
  assert numbers['meshes'] == 4
  assert numbers['triangles_a_mesh'] == round(np.mean(faces))
  assert set(numbers['shapes_a_second']) == {'16', '32'}
  assert numbers['shapes_a_second']['32'] > 0
  assert 20 < numbers['peak_mib'] < 4000


def test_no_meshes_are_one_sentence(tmp_path):
  result = subprocess.run(
    [
      *(sys.executable, '-m', 'benchmarks.voxelize'),
      f'--meshes={tmp_path}/none.zip',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 1
  assert result.stderr.startswith('error: no shapes at ')
  assert len(result.stderr.splitlines()) == 1
