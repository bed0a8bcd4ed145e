"""Downloads from a local server that breaks, lies and changes its mind."""

import hashlib
import http.server
import pathlib
import stat
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest

from data_prep import download

ROOT = pathlib.Path(__file__).parents[2]
DATA = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
  """Serves `data`; `script` says what each request in turn meets.

  An entry is a number of bytes after which the line breaks, a status to answer
  with, or None for a sound answer, which is also what follows the script.
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), Handler)
    self.data, self.etag, self.script = DATA, '"one"', []
    self.ranges, self.requests, self.announced = True, [], None
    self.url = f'http://127.0.0.1:{self.server_port}/file.zip'


class Handler(http.server.BaseHTTPRequestHandler):
  def log_message(self, *arguments):
    pass

  def do_GET(self):
    server = self.server
    server.requests.append(dict(self.headers))
    act = server.script.pop(0) if server.script else None
    if isinstance(act, str):
      self.send_response(int(act))
      self.send_header('Content-Length', '0')
      self.end_headers()
      return
    total, start = len(server.data), 0
    wanted = self.headers['Range']
    fresh = self.headers['If-Range'] in (None, server.etag)
    if wanted and server.ranges and fresh:
      start = int(wanted.removeprefix('bytes=').removesuffix('-'))
      if start >= total:
        self.send_response(416)
        self.send_header('Content-Range', f'bytes */{total}')
        self.send_header('Content-Length', '0')
        self.end_headers()
        return
      self.send_response(206)
      self.send_header('Content-Range', f'bytes {start}-{total - 1}/{total}')
    else:
      self.send_response(200)
    self.send_header('ETag', server.etag)
    length = total - start if server.announced is None else server.announced
    self.send_header('Content-Length', str(length))
    self.end_headers()
    body = server.data[start:]
    self.wfile.write(body if act is None else body[:act])


@pytest.fixture
def server():
  with Server() as made:
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
  monkeypatch.setenv('no_proxy', '127.0.0.1')


def fetch(server, path, **options):
  defaults = {'wait': 0.0, 'progress': False, 'retries': 2}
  return download.download(server.url, path, **{**defaults, **options})


def test_plain(server, tmp_path):
  path = tmp_path / 'deep' / 'file.zip'
  digest = fetch(server, path, num_bytes=len(DATA), sha256=SHA256.upper())
  assert digest == SHA256
  assert path.read_bytes() == DATA
  assert [p.name for p in path.parent.iterdir()] == ['file.zip']
  assert len(server.requests) == 1


def test_broken_lines_go_on_where_they_stopped(server, tmp_path):
  server.script = [100_000, 50_000, 0, '503', 1]
  fetch(server, tmp_path / 'x', sha256=SHA256, retries=3)
  assert (tmp_path / 'x').read_bytes() == DATA
  starts = [request.get('Range') for request in server.requests]
  assert starts == [
    None,
    'bytes=100000-',
    'bytes=150000-',
    'bytes=150000-',
    'bytes=150000-',
    'bytes=150001-',
  ]


def test_a_later_run_goes_on(server, tmp_path):
  server.script = [123_456, 0, 0, 0]
  with pytest.raises(OSError, match=r'123456 bytes are kept in .*x\.part'):
    fetch(server, tmp_path / 'x')
  assert (tmp_path / 'x.part').stat().st_size == 123_456
  assert not (tmp_path / 'x').exists()
  server.requests.clear()
  assert fetch(server, tmp_path / 'x') == SHA256
  assert [r.get('Range') for r in server.requests] == ['bytes=123456-']
  assert [path.name for path in tmp_path.iterdir()] == ['x']


def test_a_killed_run_is_taken_up(server, tmp_path):
  """SIGKILL in the middle, then the same command."""
  size = 200_000
  server.script = [size]
  code = (
    'from data_prep import download; import sys; '
    'download.download(sys.argv[1], sys.argv[2], wait=60, progress=False)'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code, server.url, str(tmp_path / 'x')], cwd=ROOT
  )
  for _ in range(60_000):
    part = tmp_path / 'x.part'
    if part.exists() and part.stat().st_size == size:
      break
    assert process.poll() is None
    time.sleep(0.01)
  process.kill()
  process.wait()
  assert not (tmp_path / 'x').exists()
  server.requests.clear()
  assert fetch(server, tmp_path / 'x') == SHA256
  assert [r.get('Range') for r in server.requests] == [f'bytes={size}-']


def test_complete_part_is_recognised(server, tmp_path):
  server.script = [len(DATA) - 1, 0, 0, 0]
  with pytest.raises(OSError, match='kept'):
    fetch(server, tmp_path / 'x')
  with open(tmp_path / 'x.part', 'ab') as file:
    file.write(DATA[-1:])
  assert fetch(server, tmp_path / 'x') == SHA256


def test_part_longer_than_the_file_is_not_used(server, tmp_path):
  server.script = [1000, 0, 0, 0]
  with pytest.raises(OSError, match='kept'):
    fetch(server, tmp_path / 'x')
  (tmp_path / 'x.part').write_bytes(DATA + b'more')
  assert fetch(server, tmp_path / 'x') == SHA256


def test_a_server_without_ranges_starts_over(server, tmp_path):
  server.ranges = False
  server.script = [100_000]
  assert fetch(server, tmp_path / 'x') == SHA256
  assert (tmp_path / 'x').read_bytes() == DATA


def test_two_versions_are_never_mixed(server, tmp_path):
  server.script = [100_000, 0, 0, 0]
  with pytest.raises(OSError, match='kept'):
    fetch(server, tmp_path / 'x')
  server.data, server.etag = DATA[::-1], '"two"'
  fetch(server, tmp_path / 'x')
  assert (tmp_path / 'x').read_bytes() == DATA[::-1]


def test_part_of_another_address_is_not_used(server, tmp_path):
  (tmp_path / 'x.part').write_bytes(b'z' * 1000)
  (tmp_path / 'x.part.json').write_text('{"url": "http://other/file"}')
  assert fetch(server, tmp_path / 'x') == SHA256
  (tmp_path / 'y.part').write_bytes(b'z' * 1000)
  (tmp_path / 'y.part.json').write_text('{"url": "http')  # cut off.
  assert fetch(server, tmp_path / 'y') == SHA256


def test_wrong_length_is_found_before_the_download(server, tmp_path):
  with pytest.raises(ValueError, match='has 300000 bytes, not 12'):
    fetch(server, tmp_path / 'x', num_bytes=12)
  assert not list(tmp_path.iterdir())


def test_a_server_that_says_less_than_it_is(server, tmp_path):
  server.announced = 200_000
  with pytest.raises(ValueError, match='has 200000 bytes, not 300000'):
    fetch(server, tmp_path / 'x', num_bytes=len(DATA))


def test_wrong_sha256(server, tmp_path):
  with pytest.raises(ValueError, match=f'has SHA-256 {SHA256}, not 0'):
    fetch(server, tmp_path / 'x', sha256='0' * 64)
  assert not (tmp_path / 'x').exists()


def test_a_file_that_is_there_is_checked_and_left(server, tmp_path):
  (tmp_path / 'x').write_bytes(DATA)
  assert fetch(server, tmp_path / 'x', sha256=SHA256) == SHA256
  (tmp_path / 'x').write_bytes(b'mine')
  with pytest.raises(ValueError, match='has 4 bytes, not 300000'):
    fetch(server, tmp_path / 'x', num_bytes=len(DATA))
  assert (tmp_path / 'x').read_bytes() == b'mine'
  assert not server.requests


def test_no_such_file_is_not_tried_again(server, tmp_path):
  server.script = ['404']
  with pytest.raises(OSError, match='404 Not Found'):
    fetch(server, tmp_path / 'x')
  assert len(server.requests) == 1


def test_giving_up(server, tmp_path):
  server.script = ['503'] * 9
  with pytest.raises(OSError, match=r'503 .*3 times in a row'):
    fetch(server, tmp_path / 'x')
  assert len(server.requests) == 3


def test_no_server(tmp_path):
  with pytest.raises(OSError, match='refused'):
    download.download(
      'http://127.0.0.1:9/x', tmp_path / 'x', retries=1, wait=0, progress=False
    )


# Unzipping.


def archive(path, members, **options):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, **options) as file:
    for name, content in members.items():
      file.writestr(name, content)
  return path


def tree(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


GOOD = {'M/a/train/a.off': b'one', 'M/a/test/b.off': b'two', 'M/c.txt': b''}


def test_unzip(tmp_path):
  path = archive(
    tmp_path / 'x.zip',
    {**GOOD, 'M/empty/': b'', '__MACOSX/M/._a': b'x', 'M/.DS_Store': b'x'},
  )
  assert download.unzip(path, tmp_path / 'out', progress=False) == 3
  assert tree(tmp_path / 'out') == GOOD


def test_unzip_again_and_after_a_kill(tmp_path):
  path = archive(tmp_path / 'x.zip', GOOD)
  out = tmp_path / 'out'
  download.unzip(path, out, progress=False)
  stamp = (out / 'M/a/train/a.off').stat().st_mtime_ns
  (out / 'M/a/test/b.off').unlink()
  (out / 'M/a/test/.b.off.part').write_bytes(b't')  # left by a kill.
  download.unzip(path, out, progress=False)
  assert tree(out) == GOOD
  assert (out / 'M/a/train/a.off').stat().st_mtime_ns == stamp


def test_unzip_overwrites_nothing(tmp_path):
  path = archive(tmp_path / 'x.zip', GOOD)
  (tmp_path / 'out/M/a/test').mkdir(parents=True)
  (tmp_path / 'out/M/a/test/b.off').write_bytes(b'own')
  with pytest.raises(FileExistsError, match=r'b\.off exists with other'):
    download.unzip(path, tmp_path / 'out', progress=False)
  assert (tmp_path / 'out/M/a/test/b.off').read_bytes() == b'own'


@pytest.mark.parametrize(
  'name',
  [
    '../evil',
    'M/../../evil',
    '/etc/evil',
    'C:/evil',
    'M\\..\\..\\evil',
    '..',
  ],
)
def test_no_path_outside_the_folder(tmp_path, name):
  path = archive(tmp_path / 'x.zip', {**GOOD, name: b'evil'})
  with pytest.raises(ValueError, match='leads out of'):
    download.unzip(path, tmp_path / 'out', progress=False)
  assert not tree(tmp_path / 'out')
  assert [p.name for p in tmp_path.rglob('*evil*')] == []


def test_no_way_out_through_a_link_in_the_folder(tmp_path):
  path = archive(tmp_path / 'x.zip', {'M/link/evil': b'evil'})
  (tmp_path / 'out/M').mkdir(parents=True)
  (tmp_path / 'elsewhere').mkdir()
  (tmp_path / 'out/M/link').symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(ValueError, match='leads out of'):
    download.unzip(path, tmp_path / 'out', progress=False)
  assert not list((tmp_path / 'elsewhere').iterdir())


def test_no_links(tmp_path):
  link = zipfile.ZipInfo('M/link')
  link.external_attr = (stat.S_IFLNK | 0o777) << 16
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
    file.writestr(link, '/etc')
  with pytest.raises(ValueError, match=r"'M/link', a link"):
    download.unzip(tmp_path / 'x.zip', tmp_path / 'out', progress=False)


def test_bound_on_the_unpacked_size(tmp_path):
  path = archive(tmp_path / 'x.zip', {'a': bytes(10**7), 'b': bytes(10**7)})
  assert path.stat().st_size < 10**5
  with pytest.raises(ValueError, match='unpack to 20000000 bytes, more than'):
    download.unzip(
      path, tmp_path / 'out', max_bytes=2 * 10**7 - 1, progress=False
    )
  assert not (tmp_path / 'out').exists()
  download.unzip(path, tmp_path / 'out', max_bytes=2 * 10**7, progress=False)


def test_a_length_that_lies_does_not_pass_the_bound(tmp_path):
  path = archive(tmp_path / 'x.zip', {'a': bytes(10**6)})
  data = bytearray(path.read_bytes())
  true, false = (10**6).to_bytes(4, 'little'), (10).to_bytes(4, 'little')
  assert data.count(true) == 2  # before the member and in the directory.
  path.write_bytes(data.replace(true, false))
  with pytest.raises(ValueError, match='not a valid zip file'):
    download.unzip(path, tmp_path / 'out', max_bytes=1000, progress=False)
  assert not tree(tmp_path / 'out')


def test_damaged_zip_files(tmp_path):
  path = archive(tmp_path / 'x.zip', GOOD)
  data = bytearray(path.read_bytes())
  (tmp_path / 'short.zip').write_bytes(data[:-30])
  with pytest.raises(ValueError, match='not a valid zip file'):
    download.unzip(tmp_path / 'short.zip', tmp_path / 'out', progress=False)
  data[data.index(b'a.off') + 5] ^= 255
  (tmp_path / 'bits.zip').write_bytes(data)
  with pytest.raises(ValueError, match='not a valid zip file'):
    download.unzip(tmp_path / 'bits.zip', tmp_path / 'out', progress=False)
  assert not tree(tmp_path / 'out')


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_a_name_twice(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
    file.writestr('a', 'one')
    file.writestr('a', 'two')
  with pytest.raises(ValueError, match='holds two files of the same name'):
    download.unzip(tmp_path / 'x.zip', tmp_path / 'out', progress=False)


# The command.


def command(*arguments):
  return subprocess.run(
    [sys.executable, '-W', 'error', '-m', 'data_prep.download', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )


def test_command(server, tmp_path):
  archive(tmp_path / 'x.zip', GOOD)
  server.data = (tmp_path / 'x.zip').read_bytes()
  server.script = [len(server.data) // 2]
  digest = hashlib.sha256(server.data).hexdigest()
  arguments = ('--dataset=modelnet10', f'--url={server.url}')
  result = command(*arguments, f'--out={tmp_path}/out')
  assert result.returncode == 0, result.stderr
  assert digest in result.stdout
  assert 'not checked, none is known' in result.stdout
  assert tree(tmp_path / 'out') == {'ModelNet10.zip': server.data, **GOOD}
  result = command(*arguments, f'--out={tmp_path}/out', f'--sha256={digest}')
  assert result.returncode == 0, result.stderr
  assert 'as expected' in result.stdout
  result = command(*arguments, f'--out={tmp_path}/out', '--sha256=' + '0' * 64)
  assert result.returncode == 1
  assert 'Traceback' not in result.stderr
  assert 'error: ' in result.stderr


def test_command_refuses_a_sha256_that_is_none(server, tmp_path):
  result = command(
    '--dataset=modelnet10',
    f'--url={server.url}',
    f'--out={tmp_path}',
    '--sha256=md5',
  )
  assert result.returncode == 1
  assert 'must be 64 hexadecimal digits' in result.stderr
  assert not server.requests
