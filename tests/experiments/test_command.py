"""What is typed: wrong lines have one sentence, right ones do what they say."""

import configparser
import importlib
import os
import pathlib
import shlex
import subprocess
import sys

import numpy as np
import pytest

from experiments import command
from experiments import config_files
from experiments import main
from experiments.configs import default
from experiments.files import outputs
from experiments.tasks import checks

ROOT = pathlib.Path(__file__).parents[2]
FILES = {
  'text.txt': 'no config, no mesh, no voxels',
  'data.npz': 'no voxel file',
  'broken.off': 'OFF\n3 1 0\n0 0 0\n',
  'syntax.py': 'def get_config(:',
  'empty.py': '',
  'wrong.py': 'def get_config():\n  return {"seed": 3}\n',
  'failing.py': 'def get_config():\n  return 1 / 0\n',
  'lacking.py': 'from experiments.configs import default\n'
  'def get_config():\n'
  '  config = default.get_config()\n'
  '  del config.chains\n'
  '  return config\n',
}


def run(line):
  return main.run(shlex.split(line))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Where the command lines are typed: with a run, and files of all kinds."""
  path = tmp_path_factory.mktemp('typed')
  for name, text in FILES.items():
    (path / name).write_text(text)
  (path / 'folder').mkdir()
  shapes = np.zeros((2, 8, 8, 8), np.float32)
  shapes[:, 2:6, 2:6, 1:7] = 1
  np.savez(path / 'shapes.npz', voxels=shapes)
  np.save(path / 'visible.npy', np.ones((5, 5, 5), bool))
  # Typed there, since a config's name is that of its workdir.
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(path)
    assert run('train test --config.train.num_iterations=1') == 0
  return path


def tree(path):
  """All that lies there, and when it was written."""
  return {
    str(p.relative_to(path)): (p.stat().st_size, p.stat().st_mtime_ns)
    for p in path.rglob('*')
    # A listing does not change what a folder holds.
    if p.is_file()
  } | {str(p.relative_to(path)): None for p in path.rglob('*') if p.is_dir()}


# A command line, and what its sentence must name.
WRONG = [
  # The mode, and what stands without a flag.
  ('', '--config'),
  ('trian test', "'trian' (did you mean train?)"),
  ('Train test', "'Train'"),
  ('--mode=trian test', "'trian'"),
  ('--mode= test', '--mode='),
  ('coop_sofa', 'train coop_sofa'),
  ('coop_sofa train', 'the mode comes first: train coop_sofa'),
  ('runs/test', "'runs/test'"),
  ('train test demo', "'demo'"),
  ('train coop_sofa paper', "'paper'"),
  ('--mode=train test demo', "'demo'"),
  ('train test --config=demo', '--config=demo'),
  ('sample demo --workdir=runs/test', '--workdir=runs/test'),
  ('train test --config.model.features=32, 64', "'64'"),
  ('sample', '--workdir'),
  ('dnet train test', "'dnet'"),
  ('train coop sofa', 'did you mean coop_sofa?'),
  ('train test config.seed=3', 'did you mean --config.seed=3?'),
  ('recover runs/test shapes.npz', "'shapes.npz'"),
  # Flags.
  ('train test --wordkir=x', '--wordkir (did you mean workdir?)'),
  ('train test --iterations=3', '--iterations'),
  ('train test --seed=3', 'config.seed'),
  ('train test --batch_size=5', 'config.data.batch_size'),
  ('train test --train.num_iterations=3', 'config.train.num_iterations'),
  ('train test --debugging', '--debugging'),
  ('train test --accept_changes=perhaps', 'perhaps'),
  ('train --config', '--config'),
  ('train --config=', '--config='),
  ('train test --workdir=', '--workdir='),
  ('train test --out=x', '--out'),
  ('train test --input=x', '--input'),
  ('train test --up=x', '--up'),
  ('train test --weights=int8', '--weights'),
  ('sample runs/test --input=shapes.npz', '--input'),
  ('sample runs/test --accept_changes', '--accept_changes'),
  ('sample runs/test --out=x', '--out'),
  ('evaluate runs/test --input=shapes.npz', '--input'),
  ('probe runs/test --visible=visible.npy', '--visible'),
  ('describe test --accept_changes', '--accept_changes'),
  ('export runs/test', '--out'),
  ('export runs/test --out=x --config.seed=3', '--config.seed'),
  ('export runs/test --out=x --weights=float8', "'float8'"),
  ('recover runs/test', '--input'),
  ('recover runs/test --input=shapes.npz --up=w', "'w'"),
  # Configs.
  ('train nothing', 'nothing'),
  ('train --config=nothing.py', 'nothing.py'),
  ('train --config=experiments/config/coop_sofa.py', 'did you mean coop_sofa'),
  ('train coop_sof', 'did you mean coop_sofa'),
  ('train synthesis_chiar', 'did you mean synthesis_chair'),
  ('train coop:sof', "'sof' (did you mean 'sofa'?)"),
  ('train coop:sofa,large', "'sofa,large'"),
  ('train coop:sofa, paper', "'paper'"),
  ("train 'coop:sofa, paper'", "'sofa, paper'"),
  ('train coop:sofa,', "'sofa,'"),
  ('train coop:', "''"),
  ('train synthesis:all', "'all'"),
  ('train test:3', "'3'"),
  ('train coop_sofa_paper:text', 'coop_sofa_paper:text'),
  ('train folder', 'folder is a folder'),
  ('train text.txt', 'text.txt'),
  ('train syntax.py', 'syntax.py'),
  ('train empty.py', 'empty.py'),
  ('train wrong.py', 'wrong.py'),
  ('train failing.py', 'ZeroDivisionError'),
  ('train lacking.py', 'chains.step_size'),
  ('describe nowhere', 'nowhere'),
  ('describe --workdir=nowhere', 'nowhere'),
  ('describe test --workdir=runs/test', 'not both'),
  # Models and files.
  ('sample nowhere', 'nowhere'),
  ('sample test', 'did you mean runs/test?'),
  ('sample runs/tets', 'did you mean runs/test?'),
  ('sample coop_sofa', 'train coop_sofa'),
  ('sample --config=coop_sofa', 'train coop_sofa'),
  ('sample folder', 'folder'),
  ('sample text.txt', 'text.txt'),
  ('export nowhere --out=x', 'nowhere'),
  ('export runs/test --out=folder', 'folder exists'),
  ('generate runs/test', 'modes that do: sample'),
  ('classify runs/test --input=shapes.npz', 'modes that do: sample'),
  ('reconstruct runs/test --input=shapes.npz', 'modes that do: sample'),
  ('recover runs/test --input=missing.npz', 'missing.npz'),
  ('recover runs/test --input=folder', 'folder'),
  ('recover runs/test --input=text.txt', 'text.txt'),
  ('recover runs/test --input=data.npz', 'data.npz'),
  ('recover runs/test --input=broken.off', 'broken.off'),
  (
    'recover runs/test --input=shapes.npz --visible=missing.npy',
    'missing.npy',
  ),
  ('recover runs/test --input=shapes.npz --visible=visible.npy', '(5, 5, 5)'),
  ('sample --config=test --config.model.network=small', 'tiny -> small'),
  ('sample runs/test --config.model.network=small', 'tiny -> small'),
  ('sample runs/test --config.sample.num_sample=3', 'sample.num_samples'),
  ('evaluate shapes.npz', '--config'),
  ('evaluate missing.npz --config=test', 'missing.npz'),
  ('evaluate runs/test --out=text.txt', 'text.txt exists'),
  ('train test --workdir=text.txt', 'text.txt'),
  ('train runs/test --config.chains.step_size=0.3', '0.01 -> 0.3'),
  ('train runs/test --config.train.num_iterations=0', 'asks for 0'),
]
# Of the config `test`: a field and its text, and what the sentence must name.
WRONG_FIELDS = [
  ('sed=1', 'did you mean seed?'),
  ('num_iterations=3', 'did you mean train.num_iterations?'),
  ('train=3', 'train is a group'),
  ('chains.steps=3', 'chains.steps'),
  ('seed', '--config.seed needs a value'),
  ('optimizer.learning_rate=fast', "'fast'"),
  ('chains.step_size=0,01', "'0,01'"),
  ('train.num_iterations=1.5', "'1.5'"),
  ('train.num_iterations=1e3', "'1e3'"),
  ('train.num_iterations=', "''"),
  ('data.mirror=2', "'2'"),
  ("'model.features=(3,'", "'(3,'"),
  ('model.features=a,b', "'a,b'"),
  ('model.features=None', '(None,)'),
  ('model.features=1.5', '(1.5,)'),
  ('train.checkpoint_every=-1', '-1'),
  ('train.num_iterations=-1', '-1'),
  ('train.picture_every=-2', '-2'),
  ('train.page_every=-1', '-1'),
  ('train.keep_checkpoints=0', '0'),
  ('optimizer.b1=2', '2'),
  ('optimizer.b2=1', '1'),
  ('optimizer.learning_rate=0', '0'),
  ('optimizer.clip_norm=-1', '-1'),
  ('optimizer.final_fraction=2', '2'),
  ('classifier.dropout=2', '2'),
  ('classifier.members=0', '0'),
  ('model.init_std=-1', '-1'),
  ('model.reference_std=0', '0'),
  ("'model.reference_means=(0,one)'", 'one'),
  ("'model.reference_means=(0,1e999)'", 'inf'),
  ('generator.latent_dim=0', '0'),
  ('chains.num_slots=0', '0'),
  ('chains.num_chains=0', '0'),
  ('chains.step_size=nan', 'nan'),
  ('chains.step_size=inf', 'inf'),
  ('chains.temperature=-1', '-1'),
  ('chains.noise_iterations=-2', '-2'),
  ('chains.restart_probability=1.5', '1.5'),
  ('chains.grid_temperatures=-1', '(-1,)'),
  ('chains.kernel=mala', 'noise_iterations = 2'),
  ('chains.kernel=hmc', "'hmc'"),
  ('sample.mesh_format=stp', "'stp'"),
  ('sample.start=nowhere', "'nowhere'"),
  ('sample.noise_steps=300', '300'),
  ('sample.seed=-1', '-1'),
  ('seed=99999999999', '99999999999'),
  ('recover.refinement_std=0', '0'),
  ('data.batch_size=0', '0'),
  ('data.batch_size=400', '400'),
  ('data.hold_out=1', '1'),
  ('data.category=sofas', "'sofas'"),
  ('data.scaling=none', "'none'"),
  ('data.path=missing.npz', 'missing.npz'),
  ('data.path=data.npz', 'data.npz'),
  ('data.path=folder', 'folder'),
  ('corruption.fraction=2', '2'),
  ('corruption.kind=dust', "'dust'"),
  ('factor=1', '1'),
  ('model.network=big', "'big'"),
  ('model.network=custom', 'model.features = ()'),
  ('model.padding=VALID', 'tiny'),
  ('model.grids=4,8', '(4, 8)'),
  ('model.dtype=float64', "'float64'"),
  ('model.precision=float16', "'float16'"),
  ('model.padding=same', "'same'"),
  ('model.reference=flat', "'flat'"),
  ('generator.network=big', "'big'"),
  ('classifier.network=big', "'big'"),
  ('parallel=ddp', "'ddp'"),
  ('task=learn', "'learn'"),
  ('algorithm=sgd', "'sgd'"),
  ('name=a/b', "'a/b'"),
  ('name=', "''"),
  ('limits.rate_factor=0', '0'),
  ('limits.energy_gap=-5', '-5'),
  ('limits.rollbacks=-1', '-1'),
  ('latent.num_columns=1', '1'),
  ('latent.examples=1,2', '(1, 2)'),
  ('evaluate.splits=0', '0'),
  ('probe.fractions=2', '2'),
  ('train.init_from=nowhere', 'nowhere'),
  ('train.init_from=runs/test,nowhere', 'nowhere'),
]
WRONG += [
  (f'train test --workdir=fresh --config.{text}', named)
  if not text.startswith("'")
  else (f"train test --workdir=fresh '--config.{text[1:]}", named)
  for text, named in WRONG_FIELDS
]


def test_there_are_enough_of_them():
  assert len({line for line, _ in WRONG}) == len(WRONG) >= 100


@pytest.mark.parametrize(('line', 'named'), WRONG)
def test_a_mistake_is_one_sentence(folder, monkeypatch, capfd, line, named):
  monkeypatch.chdir(folder)
  before = tree(folder)
  assert run(line) in (1, 2)
  out, err = capfd.readouterr()
  lines = err.splitlines()
  assert len(lines) == 1 and lines[0].startswith('error: ')
  assert named in lines[0]
  assert len(lines[0]) < 500 and 'bug in the program' not in err
  assert not out
  # A file is locked by opening it.
  assert tree(folder) == before


@pytest.mark.parametrize(
  ('line', 'shown'),
  [
    ('help', 'Modes, and the flags'),
    ('--help', 'Modes, and the flags'),
    ('-h', 'Modes, and the flags'),
    ('train --help', 'Modes, and the flags'),
    ('--version', 'dnet_jax '),
    ('describe', "name = 'default'"),
    ('describe test', 'chains.num_steps = 3'),
    ('--mode=describe --config=test', 'chains.num_steps = 3'),
    ('--mode describe --config test', 'chains.num_steps = 3'),
    ('--mode=describe test', 'chains.num_steps = 3'),
    ('describe test.py', 'chains.num_steps = 3'),
    ('describe experiments/configs/test.py', 'chains.num_steps = 3'),
    ('describe runs/test', 'train.num_iterations = 1'),
    ('describe --workdir=demo', "data.category = 'chair'"),
    ('describe coop:sofa,paper', "model.network = 'paper_coop'"),
    ('describe coop_sofa:paper', "model.network = 'paper_coop'"),
    ('describe coop_sofa_paper', "model.network = 'paper_coop'"),
    ('describe recovery_chair_mixture', "corruption.kind = 'mixture'"),
    ('describe super_resolution_sofa_64', 'data.size = 64'),
    ('describe test --config.seed 3', 'seed = 3'),
    ('describe test -config.chains.start_std=1', 'start_std = 1.0'),
    ('describe test --config.chains.noise_iterations -1', 'iterations = -1'),
    ('describe test --config.model.features=[3,4]', 'features = (3, 4)'),
    ('describe test --config.model.strides=2', 'strides = (2,)'),
    ('describe test --config.data.mirror=yes', 'mirror = True'),
    ("describe test --config.train.init_from='a, b'", "init_from = 'a, b'"),
    ('--config.seed=3 describe test', 'seed = 3'),
  ],
)
def test_right_lines(folder, monkeypatch, capfd, line, shown):
  monkeypatch.chdir(folder)
  assert run(line) == 0
  out, err = capfd.readouterr()
  assert shown in out
  assert not err


def test_a_run_by_its_short_line(folder, monkeypatch, caplog):
  monkeypatch.chdir(folder)
  assert run('sample runs/test --config.sample.mesh_format=') == 0
  assert caplog.messages[-1] == 'Wrote runs/test/samples/noise'
  # A mode says where its files are, and nothing twice.
  assert sum('runs/test/samples' in text for text in caplog.messages) == 1
  caplog.clear()
  assert run('train runs/test --config.train.num_iterations=2') == 0
  assert caplog.messages[-1] == 'Wrote runs/test'
  caplog.clear()
  assert run('export runs/test --out=mine') == 0
  assert caplog.messages[-1] == 'Wrote mine'
  assert run('sample mine --config.sample.num_samples=2') == 0
  assert os.path.exists('mine/samples/noise/samples.png')


def test_the_demo_is_sampled_in_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  fast = '--config.sample.num_samples=1 --config.sample.num_steps=1'
  assert run(f'sample demo {fast} --config.sample.noise_steps=0') == 0
  assert (tmp_path / 'runs/models/demo/samples/components/samples.png').exists()


def test_a_traceback_only_with_debug():
  with pytest.raises(command.UsageError, match='trian'):
    run('trian --debug')


def test_a_fault_of_the_program_says_so(monkeypatch, capsys):
  def fail(*args):
    raise RuntimeError('what nobody\nforesaw')

  monkeypatch.setattr(command, 'parse', fail)
  assert run('train test') == 1
  lines = capsys.readouterr().err.splitlines()
  assert lines == [
    'error: RuntimeError: what nobody foresaw; this is a bug in the program: '
    '--debug shows where'
  ]


# Fields.


def test_every_field_has_a_meaning():
  fields = config_files.fields(default.get_config())
  told = config_files.meanings()
  assert told.keys() == fields.keys()
  for name, text in told.items():
    # Whole sentences and phrases, and nothing of a neighbour's.
    assert len(text) > 5, name
    assert text.count('(') == text.count(')'), name


def test_describe_prints_all_of_them(capsys):
  assert run('describe') == 0
  out = capsys.readouterr().out
  for name, text in config_files.meanings().items():
    assert f'\n{name} = ' in f'\n{out}'
    for line in text.splitlines():
      assert f'\n    {line}\n' in f'{out}\n'


def _numeric(x):
  return isinstance(x, int | float | tuple) and not isinstance(x, bool)


def test_every_number_has_a_rule():
  fields = config_files.fields(default.get_config())
  rules = checks.rules()
  assert rules.keys() <= fields.keys()
  assert {n for n, x in fields.items() if _numeric(x)} <= rules.keys()


@pytest.mark.parametrize('name', checks.rules())
def test_each_rule_refuses_something(name):
  """And names the field and the value."""
  old = config_files.fields(default.get_config())[name]
  bad = {str: '?/', int: -5, float: -0.5, tuple: ('?/',)}[type(old)]
  config = default.get_config()
  group, _, field = name.rpartition('.')
  with config.unlocked():
    (config[group] if group else config)[field] = bad
  with pytest.raises(ValueError, match=name.replace('.', r'\.')) as raised:
    checks.check(config)
  assert str(bad) in str(raised.value)


@pytest.mark.parametrize(
  'name',
  [
    name
    for name, x in config_files.fields(default.get_config()).items()
    if isinstance(x, float)
  ],
)
def test_nan_is_refused_anywhere(name):
  config = default.get_config()
  config_files.override(config, [(name, 'nan')])
  with pytest.raises(ValueError, match=f'{name} must be finite, got nan'):
    checks.check(config)


# The machine, and what is installed.


def test_a_gpu_that_jax_does_not_see(monkeypatch, caplog):
  outputs.device()  # jax itself looks for devices, once.
  monkeypatch.setattr(outputs.glob, 'glob', lambda pattern: ['/dev/nvidia0'])
  caplog.set_level('INFO', logger='absl')
  outputs.tell_devices()
  assert caplog.messages[0].startswith('Devices: ')
  assert 'jax[cuda' in caplog.messages[1]
  caplog.clear()
  monkeypatch.setattr(outputs.glob, 'glob', lambda pattern: [])
  outputs.tell_devices()
  assert len(caplog.messages) == 1


def _setup():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  return setup


def test_the_command_is_installed_with_its_packages():
  setup = _setup()
  scripts = setup['options.entry_points']['console_scripts'].split('\n')
  entries = dict(line.split(' = ') for line in scripts if line)
  module, _, name = entries['dnet'].partition(':')
  assert getattr(importlib.import_module(module), name) is main.main
  included = setup['options.packages.find']['include'].split()
  for package in ('dnet_jax', 'experiments', 'data_prep'):
    assert {package, f'{package}.*'} <= {*included}


@pytest.mark.parametrize(
  'missing',
  ['absl', 'sklearn', pytest.param('orbax', marks=pytest.mark.slow)],
)
def test_a_missing_extra_is_named(tmp_path, missing):
  code = (
    f'import sys; sys.modules[{missing!r}] = None\n'
    'from experiments import main\n'
    'main.main()\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1
  (line,) = done.stderr.splitlines()
  assert line.startswith(f'error: {missing}')
  assert line.endswith("pip install '.[experiments]'")
