"""The server of a page: who may ask, what is answered, and when it ends."""

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from experiments.pages import server as servers
from experiments.pages import studio as studios
from tests.experiments import tiny


@pytest.fixture
def server(folder_of):
  asked = tiny.request(folder_of('recovery'))
  studio = studios.open_studio(asked.model, 'a <b>', asked.config)
  made = servers.serve(studio, 0)
  thread = threading.Thread(target=made.serve_forever, args=(0.05,))
  thread.start()
  yield made
  made.shutdown()
  made.server_close()
  thread.join(30)


class Page:
  """A client that holds a token."""

  def __init__(self, server):
    self.port = server.server_address[1]
    self.token = json.loads(self.post('/open', {})[2])['token']

  def ask(self, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), data

  def post(self, path, content, **fields):
    return self.ask('POST', path, json.dumps(content | fields))

  def shape(self, path, content=None, body=None):
    if body is None:
      body = json.dumps((content or {}) | {'token': self.token})
    status, headers, data = self.ask('POST', path, body)
    assert status == 200, data
    half = len(data) // 2
    levels = np.frombuffer(data[:half], np.uint8).reshape(8, 8, 8)
    hidden = np.frombuffer(data[half:], np.uint8).reshape(8, 8, 8)
    return levels, hidden, json.loads(headers['X-State'])


def test_it_listens_on_the_loopback_alone(server):
  assert server.server_address[0] == '127.0.0.1'


def test_a_page_fills_what_it_hides(server):
  page = Page(server)
  status, headers, text = page.ask('GET', '/')
  assert status == 200 and b'a &lt;b&gt;' in text
  assert headers['X-Frame-Options'] == 'DENY'
  info = json.loads(page.ask('GET', '/info')[2])
  assert info['sides'] == [8, 8, 8] and info['kinds'][0] == 'test shape'
  levels, _, _ = page.shape('/make', {'kind': 'test shape'})
  codes = np.zeros((8, 8, 8), np.uint8)
  codes[2:5] = studios.HIDE
  path = f'/edit?token={page.token}'
  hidden = page.shape(path, body=codes.tobytes())[1]
  np.testing.assert_array_equal(hidden, codes)
  _, _, state = page.shape('/fill')
  while not state['done']:
    step = {name: state[name] for name in ('temperature', 'step_size')}
    now, _, state = page.shape('/step', step)
  np.testing.assert_array_equal(now[5:], levels[5:])
  assert state['filling'] and state['step'] == state['total']
  back, _, _ = page.shape('/undo')
  assert not back[2:5].any()
  status, headers, data = page.ask(
    'GET', f'/save?token={page.token}&format=npz'
  )
  assert status == 200 and data[:2] == b'PK'
  assert headers['Content-Disposition'] == 'attachment; filename="a__b_.npz"'


def test_two_pages_have_their_own_shapes_and_end_alone(server):
  one, two = Page(server), Page(server)
  first = one.shape('/make', {'kind': 'fresh'})[0]
  second = two.shape('/make', {'kind': 'fresh'})[0]
  assert (first != second).any()
  done = {}

  def steps(page):
    for _ in range(5):
      made = page.shape('/step', {'temperature': 0.1, 'step_size': 0.01})
      done[page] = made[2]['step']

  threads = [threading.Thread(target=steps, args=(p,)) for p in (one, two)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert done == {one: 5, two: 5}
  one.post('/close', {'token': one.token})
  status, _, text = one.post('/undo', {'token': one.token})
  assert status == 410 and b'load it again' in text
  assert two.shape('/undo')


def test_only_some_pages_are_kept(server):
  pages = [Page(server) for _ in range(34)]
  for page, status in ((pages[0], 410), (pages[1], 410), (pages[2], 200)):
    assert page.post('/undo', {'token': page.token})[0] == status


def test_other_names_and_sites_are_refused(server):
  page = Page(server)
  for headers in (
    {'Host': f'evil.example:{page.port}'},
    {'Host': '127.0.0.1:1'},
    {'Origin': 'http://evil.example'},
    {'Origin': 'null'},
  ):
    for method, path in (('GET', '/info'), ('POST', '/open')):
      assert page.ask(method, path, '{}', headers)[0] == 403
  name = {'Host': f'localhost:{page.port}'}
  assert page.ask('GET', '/info', headers=name)[0] == 200


def test_requests_that_cannot_be(server):
  page = Page(server)
  token = {'token': page.token}
  for path, body, status, message in (
    ('/none', '{}', 404, 'there is no /none'),
    ('/undo', '[', 400, 'must be JSON'),
    ('/undo', '[]', 400, 'JSON object'),
    ('/undo', '{"token": "x"}', 410, 'load it again'),
    ('/undo', ' ' * 20_000, 413, 'at most 16384 bytes'),
    ('/make', json.dumps(token | {'kind': 'x'}), 400, 'kind must be one of'),
    ('/make', json.dumps(token | {'kind': [1]}), 400, 'kind must be one of'),
    ('/step', json.dumps(token), 400, 'temperature must be a number'),
    (
      '/step',
      json.dumps(token | {'temperature': float('nan'), 'step_size': 1}),
      400,
      'finite',
    ),
    ('/fill', json.dumps(token), 400, 'hide a part'),
    ('/latent', json.dumps(token | {'values': [1]}), 400, 'generated shape'),
    ('/latent', json.dumps(token | {'values': 1}), 400, 'list of numbers'),
    (f'/edit?token={page.token}', b'\0' * 511, 400, 'a byte for each voxel'),
    (f'/edit?token={page.token}', b'\0' * 513, 413, 'at most 512 bytes'),
    (f'/edit?token={page.token}', b'\7' * 512, 400, 'codes must be'),
  ):
    found, _, text = page.ask('POST', path, body)
    assert (found, message in text.decode()) == (status, True), (path, text)
    assert len(text.splitlines()) == 1
  path = f'/save?token={page.token}&format='
  assert page.ask('GET', path + 'sh')[0] == 400
  assert page.ask('GET', '/../../etc/passwd')[0] == 404
  # It still works.
  assert page.shape('/make', {'kind': 'fresh'})


def test_a_request_without_a_length_is_refused(server):
  with socket.create_connection(server.server_address) as connection:
    connection.sendall(
      b'POST /open HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n'
      % server.server_address[1]
    )
    assert b' 411 ' in connection.recv(1 << 16).splitlines()[0]


@pytest.mark.slow
def test_a_port_in_use_is_said(server, folder_of):
  port = server.server_address[1]
  with pytest.raises(OSError, match=f'port {port} is in use: use another'):
    servers.serve(server.RequestHandlerClass.studio, port)
  with pytest.raises(OSError, match='port must be'):
    servers.serve(server.RequestHandlerClass.studio, 70_000)
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'experiments.view', f'--port={port}'),
      f'--workdir={folder_of("recovery")}',
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1
  lines = done.stderr.splitlines()
  assert f'error: port {port} is in use' in lines[-1]
  # Lines of the log are for people, and come from this program alone.
  assert not [line for line in lines if re.match(r'[IWE]\d{4} ', line)]


def test_what_nobody_reads_any_more_ends(server):
  page = Page(server)
  connection = http.client.HTTPConnection('127.0.0.1', page.port)
  content = {'token': page.token, 'kind': 'fresh'}
  connection.request('POST', '/make', json.dumps(content))
  connection.close()
  # The next page is served, and no thread stays behind.
  assert Page(server).shape('/make', {'kind': 'fresh'})
  end = time.monotonic() + 30
  while names := [
    thread.name
    for thread in threading.enumerate()
    if 'process_request' in thread.name
  ]:
    assert time.monotonic() < end, names
    time.sleep(0.05)
