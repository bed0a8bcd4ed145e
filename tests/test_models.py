"""A model as a value: a pytree, one program, and a folder."""

import functools
import hashlib
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

import dnet_jax
from dnet_jax import models as library
from dnet_jax import specs
from tests import models

ROOT = pathlib.Path(__file__).parents[1]
USES = (
  ('synthesize', specs.Use('noise', 3, noise_steps=2)),
  ('recover', specs.Use('local_average', 2, refinement_steps=1, hold=False)),
  ('super_resolve', specs.Use('repeat', 2, sharpening_steps=3)),
)
KINDS = {
  'descriptor': functools.partial(models.descriptor, uses=USES),
  'multi_grid': models.multi_grid,
  'generator': functools.partial(models.generator, with_descriptor=True),
  'classifier': functools.partial(models.classifier, members=2),
}


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype == jnp.float32
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('kind', KINDS)
def test_a_model_is_a_pytree(kind):
  model = KINDS[kind]()
  leaves, structure = jax.tree.flatten(model)
  assert all(isinstance(leaf, jax.Array) for leaf in leaves)
  again = jax.tree.unflatten(structure, leaves)
  assert again.spec is model.spec
  assert_same(again, model)
  doubled = jax.tree.map(lambda x: 2 * x, model)
  assert isinstance(doubled, dnet_jax.Model)
  assert_same(jax.tree.map(lambda x: x / 2, doubled), model)
  assert hash(model.spec) == hash(KINDS[kind](1).spec)
  assert repr(model).startswith('Model(')
  assert 'array' not in repr(model).lower()


CALLS = {
  'synthesize': lambda key, model: dnet_jax.synthesize(
    key, model, 2, num_steps=2
  ),
  'recover': lambda key, model: dnet_jax.recover(
    key,
    model,
    jnp.ones((models.SIDE,) * 3),
    jnp.arange(models.SIDE) < 3,
    num_steps=2,
  ),
  'super_resolve': lambda key, model: dnet_jax.super_resolve(
    key, model, jnp.full((4, 4, 4), 0.4), num_steps=2
  ),
}


@pytest.mark.parametrize('name', CALLS)
def test_models_of_two_categories_trace_once(name):
  traces = []

  @jax.jit
  def call(key, model):
    traces.append(1)
    return CALLS[name](key, model)

  key = jax.random.key(0)
  results = [call(key, models.descriptor(seed)) for seed in (0, 1)]
  assert len(traces) == 1
  assert float(abs(results[0] - results[1]).max()) > 1e-3
  # Another spec is another program: the counter counts.
  call(key, models.descriptor(0, USES))
  assert len(traces) == 2


@pytest.mark.parametrize('name', CALLS)
def test_called_by_hand_they_compile_once_a_spec(name):
  # What is compiled stands beside the public function.
  jitted = getattr(dnet_jax, name).__globals__[f'_{name}']
  jitted.clear_cache()
  for seed in (0, 1):
    CALLS[name](jax.random.key(seed), models.descriptor(seed))
  assert jitted._cache_size() == 1
  CALLS[name](jax.random.key(0), models.descriptor(0, USES))
  assert jitted._cache_size() == 2


def large(key=0):
  """A model with an array of each role that is stored in few bits."""
  rng = np.random.default_rng(key)
  sizes = specs.DescriptorSizes((32, 8), (6, 4), (2, 2))
  net = dnet_jax.Descriptor(**sizes._asdict())
  shapes = models.shapes_of(net, *models.GRID)
  params = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), dict(shapes)
  )
  kernel = params['params']['layers_0']['kernel']
  assert kernel.size >= 4096
  # Filters of very different size: each has a scale of its own.
  kernel = kernel * jnp.logspace(-3, 1, kernel.shape[-1])
  params['params']['layers_0']['kernel'] = kernel.at[..., 3].set(0)
  side = models.SIDE
  chains = rng.normal(size=(10, side, side, side, 1)) * 10 ** rng.uniform(
    -3, 3, (10, 1, 1, 1, 1)
  )
  more = {'chains': jnp.asarray(chains, jnp.float32)}
  spec = specs.Spec((side,) * 3, (sizes,), uses=USES)
  return dnet_jax.Model(
    spec, {'descriptor': params}, models.extras(key, **more)
  )


def half_error(name, x):
  """Rounding to 11 significant bits, or to a multiple of 2^-24."""
  return np.maximum(np.abs(x) * 2.0**-11, 2.0**-25)


def byte_error(name, x):
  """Half a level of its filter or chain; float32 rounds twice."""
  axes = tuple(range(x.ndim - 1)) if 'params' in name else tuple(range(1, 5))
  largest = np.abs(x).max(axis=axes, keepdims=True)
  return largest / 127 / 2 + largest * 2.0**-22


@pytest.mark.parametrize(
  ('weights', 'bound'), [('float16', half_error), ('int8', byte_error)]
)
def test_a_saved_model_is_the_same_up_to_rounding(tmp_path, weights, bound):
  model = large()
  dnet_jax.save(model, tmp_path / 'model', weights=weights)
  loaded = dnet_jax.load(tmp_path / 'model')
  assert loaded.spec == model.spec
  assert hash(loaded.spec) == hash(model.spec)
  assert jax.tree.structure(loaded) == jax.tree.structure(model)
  before = library.flatten([model.params, model.extras])
  after = library.flatten([loaded.params, loaded.extras])
  rounded = 0
  for name, x in before.items():
    y = after[name]
    assert y.dtype == np.float32
    name = ('params', 'extras')[int(name[0])] + name[1:]
    x = np.asarray(x, np.float64)
    if x.size < 4096:
      np.testing.assert_array_equal(x, y)
      continue
    rounded += 1
    error = np.abs(x - y)
    assert (error <= bound(name, x)).all(), name
    # And they are rounded, as the bound says: not to a quarter of it.
    assert (error > bound(name, x) / 4).any(), name
  assert rounded == 3
  size = (tmp_path / 'model' / 'model.safetensors').stat().st_size
  count = sum(x.size for x in before.values() if x.size >= 4096)
  assert size < count * {'float16': 2, 'int8': 1}[weights] + 12_000
  # What was rounded is not rounded again.
  dnet_jax.save(loaded, tmp_path / 'again', weights='float16')
  if weights == 'float16':
    assert_same(dnet_jax.load(tmp_path / 'again'), loaded)


@pytest.mark.parametrize('side', [17, 18])  # The last byte of 17^3 is half.
def test_components_take_four_bits_of_eight(tmp_path, side):
  model, rng = large(), np.random.default_rng(0)
  directions = rng.normal(size=(3, side, side, side, 1)).astype(np.float32)
  directions *= np.array([1e-3, 1, 50])[:, None, None, None, None]
  directions[1, 0, 0, 0] = 30.0  # Clipped: the others keep their levels.
  model.extras['components'] = {'directions': jnp.asarray(directions)}
  dnet_jax.save(model, tmp_path / 'a', weights='int8')
  found = dnet_jax.load(tmp_path / 'a').extras['components']['directions']
  assert found.dtype == np.float32 and found.shape == directions.shape
  std = directions.std(axis=(1, 2, 3, 4), keepdims=True)
  level = 4 * std / 7
  near = np.abs(directions) < 4 * std
  error = np.abs(found - directions)
  assert (error <= level * 0.5001)[near].all()
  assert (error > level / 4).any()
  np.testing.assert_allclose(found[1, 0, 0, 0], 4 * std[1, 0, 0, 0], rtol=1e-6)
  # What has four bits is saved as it is, also from half precision.
  dnet_jax.save(dnet_jax.load(tmp_path / 'a'), tmp_path / 'half')
  half = dnet_jax.load(tmp_path / 'half')
  dnet_jax.save(half, tmp_path / 'back', weights='int8')
  back = dnet_jax.load(tmp_path / 'back').extras['components']['directions']
  np.testing.assert_allclose(back, found, rtol=2e-3)
  again = dnet_jax.load(tmp_path / 'a')
  dnet_jax.save(again, tmp_path / 'again', weights='int8')
  twice = dnet_jax.load(tmp_path / 'again').extras['components']['directions']
  np.testing.assert_allclose(twice, found, rtol=1e-6)
  # Half a byte each, beside what the model has without them.
  del model.extras['components']
  dnet_jax.save(model, tmp_path / 'b', weights='int8')
  sizes = [
    (tmp_path / x / 'model.safetensors').stat().st_size for x in ('a', 'b')
  ]
  assert sizes[0] - sizes[1] < directions.size / 2 + 1000


@pytest.mark.parametrize('weights', dnet_jax.models.WEIGHTS)
def test_whole_numbers_are_exact(tmp_path, weights):
  model, rng = large(), np.random.default_rng(0)
  whole = rng.integers(0, 256, size=(900, 3, 2)).astype(np.float32)
  almost = whole + 0.25
  model.extras['components'] = {'boxes': whole, 'others': almost}
  dnet_jax.save(model, tmp_path / 'a', weights=weights)
  found = dnet_jax.load(tmp_path / 'a').extras['components']
  assert found['boxes'].dtype == np.float32
  np.testing.assert_array_equal(found['boxes'], whole)
  np.testing.assert_allclose(found['others'], almost, atol=1.1)


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_model_comes_back(tmp_path, kind):
  model = KINDS[kind]()
  dnet_jax.save(model, tmp_path / 'model')
  loaded = dnet_jax.load(str(tmp_path / 'model'))
  assert loaded.spec == model.spec
  assert_same(loaded, model)  # They are small, and so kept as they are.


def test_the_folder_is_for_programs_and_for_people(tmp_path):
  card = {
    'name': 'A chair',
    'data': 'furniture',
    'device': 'CPU',
    'numbers': {'inception_score': 3.5, 'distance': 0.25},
    'config': {'seed': 0},
  }
  dnet_jax.save(models.descriptor(), tmp_path / 'chair', card=card)
  folder = tmp_path / 'chair'
  assert {path.name for path in folder.iterdir()} == {
    'spec.json', 'model.safetensors', 'card.json', 'README.md',
  }  # fmt: skip
  assert json.loads((folder / 'spec.json').read_text())['version'] == 1
  assert library.read_card(folder) == card
  text = (folder / 'README.md').read_text()
  assert text.startswith('# A chair\n')
  assert "dnet_jax.load('chair')" in text
  assert '| numbers | inception_score 3.5, distance 0.25 |' in text
  assert '{' not in text
  # Readable by whom a folder of this user is.
  made = tmp_path / 'made'
  made.mkdir()
  assert folder.stat().st_mode == made.stat().st_mode
  assert {path.name for path in tmp_path.iterdir()} == {'chair', 'made'}


def test_nothing_is_overwritten(tmp_path):
  model = models.descriptor()
  for name in ('file', 'empty', 'full', 'link'):
    target = tmp_path / name
    if name == 'file':
      target.write_text('mine')
    elif name == 'link':
      target.symlink_to(tmp_path / 'nowhere')
    else:
      target.mkdir()
    if name == 'full':
      (target / 'mine').write_text('mine')
    with pytest.raises(FileExistsError, match='is not overwritten'):
      dnet_jax.save(model, target)
  assert (tmp_path / 'file').read_text() == 'mine'
  assert (tmp_path / 'full' / 'mine').read_text() == 'mine'
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'file', 'empty', 'full', 'link'}


def test_what_cannot_be_saved_leaves_nothing(tmp_path, monkeypatch):
  target = tmp_path / 'model'
  model = models.descriptor()
  with pytest.raises(ValueError, match=r"'float16', 'int8'.*'float8'"):
    dnet_jax.save(model, target, weights='float8')
  for value in (jnp.nan, jnp.inf):
    broken = jax.tree.map(lambda x, v=value: jnp.full_like(x, v), model)
    with pytest.raises(ValueError, match='not finite'):
      dnet_jax.save(broken, target)
  loud = jax.tree.map(lambda x: 1e5 * x, large())
  match = 'which float16 cannot hold'
  with pytest.raises(ValueError, match=match):
    dnet_jax.save(loud, target)
  with pytest.raises(TypeError, match='JSON'):
    dnet_jax.save(model, target, card={'data': object()})

  def stop(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, 'rename', stop)
  with pytest.raises(KeyboardInterrupt):
    dnet_jax.save(model, target)
  assert not list(tmp_path.iterdir())


def test_killed_half_way_there_is_no_model(tmp_path):
  """SIGKILL before the last step: no folder of that name, and it can be."""
  code = (
    'import os, sys, time\n'
    'import dnet_jax\n'
    'from tests import models\n'
    'def wait(*args):\n'
    '  print("half", flush=True)\n'
    '  time.sleep(600)\n'
    'os.rename = wait\n'
    'dnet_jax.save(models.descriptor(), sys.argv[1])\n'
  )
  target = tmp_path / 'model'
  with subprocess.Popen(
    [sys.executable, '-c', code, str(target)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout.readline() == 'half\n'
    process.send_signal(signal.SIGKILL)
  assert process.returncode == -signal.SIGKILL
  assert not target.exists()
  assert all(path.name.startswith('.') for path in tmp_path.iterdir())
  with pytest.raises(FileNotFoundError, match='there is no folder'):
    dnet_jax.load(target)
  dnet_jax.save(models.descriptor(), target)
  assert_same(dnet_jax.load(target), models.descriptor())


@pytest.fixture
def saved(tmp_path):
  dnet_jax.save(models.descriptor(), tmp_path / 'model')
  return tmp_path / 'model'


def edit(path, **changes):
  content = json.loads(path.read_text())
  path.write_text(json.dumps(content | changes))


def truncate(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-100])


def other_networks(folder):
  path = folder / 'model.safetensors'
  arrays = safetensors.load_file(path)
  renamed = {n.replace('descriptor', 'critic'): x for n, x in arrays.items()}
  safetensors.save_file(renamed, path)


def spec_text(text):
  return lambda folder: (folder / 'spec.json').write_text(text)


DAMAGES = {
  'truncated': (truncate, 'is damaged'),
  'no weights': (lambda f: (f / 'model.safetensors').unlink(), 'is damaged'),
  'weights of text': (
    lambda f: (f / 'model.safetensors').write_text('version https://git-lfs'),
    'is damaged',
  ),
  'weights of another': (other_networks, r"'critic'.*'descriptor'"),
  'no JSON': (spec_text('{"version": 1'), r'is damaged: spec\.json'),
  'no object': (spec_text('[1]'), r'is damaged: spec\.json holds no JSON'),
  'no bytes of text': (
    lambda f: (f / 'spec.json').write_bytes(b'\xff\xfe\x00'),
    'is damaged',
  ),
  'no version': (spec_text('{}'), 'is of format version None'),
  'version': (
    lambda f: edit(f / 'spec.json', version=2),
    'is of format version 2; this dnet_jax reads version 1',
  ),
  'field': (lambda f: edit(f / 'spec.json', wings=2), 'damaged.*wings'),
  'uses': (lambda f: edit(f / 'spec.json', uses=[1]), 'is damaged'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_model_is_one_sentence(saved, damage):
  spoil, match = DAMAGES[damage]
  spoil(saved)
  with pytest.raises(ValueError, match=match) as error:
    dnet_jax.load(saved)
  assert str(saved) in str(error.value)
  assert '\n' not in str(error.value)


def test_a_damaged_card_does_not_matter_to_the_model(saved):
  (saved / 'card.json').write_text('[')
  assert_same(dnet_jax.load(saved), models.descriptor())
  with pytest.raises(ValueError, match=r'is damaged: card\.json'):
    library.read_card(saved)


def test_what_is_no_model_says_what_it_is(tmp_path):
  with pytest.raises(FileNotFoundError, match="'demo' or 'hf://owner/name'"):
    dnet_jax.load(tmp_path / 'nowhere')
  (tmp_path / 'file').write_text('')
  with pytest.raises(FileNotFoundError, match='there is no folder'):
    dnet_jax.load(tmp_path / 'file')
  empty, old, workdir = (tmp_path / n for n in ('empty', 'old', 'workdir'))
  empty.mkdir()
  with pytest.raises(FileNotFoundError, match=r'it has no spec\.json'):
    dnet_jax.load(empty)
  old.mkdir()
  (old / 'model.npz').write_bytes(b'')
  (workdir / 'checkpoints').mkdir(parents=True)
  for folder, what in ((old, 'older format'), (workdir, 'workdir of a run')):
    command = f'--mode=export --workdir={folder} --out=NEW'
    with pytest.raises(ValueError, match=re.escape(command)) as error:
      dnet_jax.load(folder)
    assert what in str(error.value)


def test_a_model_needs_no_extras(tmp_path):
  model = models.descriptor()
  bare = dnet_jax.Model(model.spec, model.params, {})
  dnet_jax.save(bare, tmp_path / 'bare')
  assert_same(dnet_jax.load(tmp_path / 'bare'), bare)


DEMO = ROOT / 'dnet_jax' / 'demo'


@pytest.mark.skipif(not DEMO.exists(), reason='has no demo model yet')
def test_the_demo_comes_with_the_package(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  model = dnet_jax.load('demo')
  assert model.spec.grid == (32, 32, 32)
  assert sum(path.stat().st_size for path in DEMO.iterdir()) <= 3_000_000
  shapes = dnet_jax.synthesize(jax.random.key(0), model, 1, num_steps=1)
  assert shapes.shape == (1, 32, 32, 32)
  assert bool(jnp.isfinite(shapes).all())
  assert library.read_card('demo')


def test_a_folder_of_ones_own_goes_before_the_demo(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  dnet_jax.save(models.descriptor(), 'demo')
  assert_same(dnet_jax.load('demo'), models.descriptor())


def test_folders_never_open_a_socket(saved, monkeypatch):
  """Nor does a model that is not there."""

  def connect(*args, **kwargs):
    raise AssertionError('a socket is opened')

  monkeypatch.setattr(socket, 'socket', connect)
  monkeypatch.setattr(socket, 'getaddrinfo', connect)
  for name in ('huggingface_hub', 'httpx', 'requests'):
    monkeypatch.setitem(sys.modules, name, None)  # Nor is it imported.
  assert_same(dnet_jax.load(saved), models.descriptor())
  if DEMO.exists():
    dnet_jax.load('demo')
  for name in ('nobody/nothing', 'hf:/owner/name', 'https://example.org/a'):
    with pytest.raises(FileNotFoundError, match='there is no folder'):
      dnet_jax.load(name)


def test_the_hub_needs_its_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(ImportError, match='pip install huggingface_hub'):
    dnet_jax.load('hf://owner/name')


@pytest.mark.parametrize(
  'name', ['hf://', 'hf://owner', 'hf://owner/', 'hf:///name', 'hf://a/b/c']
)
def test_names_on_the_hub(name):
  with pytest.raises(ValueError, match=f'got {name!r}'):
    dnet_jax.load(name)


COMMIT = '0123456789abcdef0123456789abcdef01234567'


class Hub(http.server.BaseHTTPRequestHandler):
  """As much of the hub's HTTP as `snapshot_download` needs."""

  folder: pathlib.Path
  calls: list[str]

  def answer(self, status, content=b'', **headers):
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name.replace('_', '-'), value)
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    if self.command == 'GET':
      self.wfile.write(content)

  def do_GET(self):
    path = self.path.split('?')[0]
    self.calls.append(f'{self.command} {path}')
    files = {p.name: p.read_bytes() for p in self.folder.iterdir()}
    api = '/api/models/owner/name'
    if path in (api, f'{api}/revision/main'):
      siblings = [{'rfilename': name} for name in files]
      content = {'id': 'owner/name', 'sha': COMMIT, 'siblings': siblings}
      self.answer(200, json.dumps(content).encode())
    elif path == f'{api}/tree/{COMMIT}':
      listing = [
        {
          'type': 'file',
          'path': name,
          'size': len(data),
          'oid': hashlib.sha1(data).hexdigest(),
        }
        for name, data in files.items()
      ]
      self.answer(200, json.dumps(listing).encode())
    elif match := re.fullmatch(
      rf'/owner/name/resolve/(?:main|{COMMIT})/([^/]+)', path
    ):
      data = files[match[1]]
      etag = f'"{hashlib.sha1(data).hexdigest()}"'
      self.answer(200, data, ETag=etag, X_Repo_Commit=COMMIT)
    else:
      self.answer(404, b'{}', X_Error_Code='RepoNotFound')

  do_HEAD = do_GET

  def log_message(self, *args):
    pass


@pytest.fixture
def hub(tmp_path):
  """A server with the model owner/name; its address, and what it was asked."""
  folder = tmp_path / 'served'
  dnet_jax.save(models.descriptor(), folder)
  (folder / 'picture.png').write_bytes(b'no part of a model')
  calls = []
  handler = type('OwnHub', (Hub,), {'folder': folder, 'calls': calls})
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield f'http://127.0.0.1:{server.server_port}', calls
  server.shutdown()
  thread.join()
  server.server_close()


LOADING = """
import sys
import numpy as np
import dnet_jax
from dnet_jax import models
for name in sys.argv[1:]:
  try:
    print(*models.flatten(dnet_jax.load(name).params).values(), sep=',')
  except Exception as error:
    print(type(error).__name__, error)
"""


def load_elsewhere(home, endpoint, *names):
  """What a new process with a home of its own prints: it reads these once."""
  done = subprocess.run(
    [sys.executable, '-c', LOADING, *names],
    cwd=ROOT,
    env=os.environ
    | {
      'HF_HOME': str(home),
      'HF_ENDPOINT': endpoint,
      'HF_HUB_DISABLE_PROGRESS_BARS': '1',
      'HF_HUB_DISABLE_TELEMETRY': '1',
      'NO_PROXY': '127.0.0.1',
      'no_proxy': '127.0.0.1',
    },
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
  )
  return done.stdout


@pytest.mark.slow
def test_a_model_of_the_hub(tmp_path, hub):
  pytest.importorskip('huggingface_hub')
  endpoint, calls = hub
  home = tmp_path / 'home'
  text = load_elsewhere(home, endpoint, 'hf://owner/name', 'hf://owner/other')
  expected = library.flatten(models.descriptor().params).values()
  loaded, error = text.rsplit('FileNotFoundError', 1)
  assert loaded.strip() == ','.join(map(str, expected))
  assert error.startswith(' cannot get hf://owner/other: ')
  assert '\n' not in error.strip()
  asked = {call.rsplit('/', 1)[-1] for call in calls if '/resolve/' in call}
  assert asked == {'spec.json', 'model.safetensors', 'card.json', 'README.md'}
  # What is there is not fetched again.
  calls.clear()
  assert load_elsewhere(home, endpoint, 'hf://owner/name') == loaded
  assert not [call for call in calls if '/resolve/' in call]
  # Nor is the network needed for it.
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    nobody = f'http://127.0.0.1:{free.getsockname()[1]}'
  assert load_elsewhere(home, nobody, 'hf://owner/name') == loaded
