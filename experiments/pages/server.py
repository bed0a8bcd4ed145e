"""Serves the page of a model to browsers on this machine, and to no other.

A page asks for each step, so that the work stops when the page is closed. The
server listens on the loopback interface only, answers only requests for its own
name (so that a page of another site cannot reach it by a name that resolves to
this machine) and reads requests of limited length.

| request | what |
|---|---|
| GET / | the page |
| GET /info | what the model can do, JSON |
| POST /open | a token for one page, JSON |
| POST /make, /step, /latent, /fill, /undo, /close | JSON with the token |
| POST /edit?token= | a byte for each voxel: studio.KEEP, HIDE, ADD, REMOVE |
| GET /save?token=&format= | a file |

Shapes come as bytes: the levels of all voxels, then whether each is hidden;
the header X-State says the rest.
"""

from collections.abc import Callable
import errno
import http
from http import server as http_server
import json
import math
import secrets
import threading
from typing import Any
from typing import NamedTuple
from urllib import parse

from absl import logging
import numpy as np

from experiments.pages import markup
from experiments.pages import studio as studios

ADDRESS = '127.0.0.1'
_MOST_PAGES = 32  # With more, the least recently used one is forgotten.
_MOST_JSON = 1 << 14  # Bytes of a request.
_SECONDS = 60  # How long a connection may be silent.


class _Error(Exception):
  """An answer with an error: status and sentence."""


class Pages(NamedTuple):
  """The shapes of open pages; see `open_pages`.

  open: `() -> token`.
  get: `(token) -> piece`.
  change: `(token, change) -> piece`, `change(piece, seed) -> piece`; one at a
    time.
  close: `(token)`.
  count: `() -> number`.
  """

  open: Callable[[], str]
  get: Callable[[str], studios.Piece]
  change: Callable[..., studios.Piece]
  close: Callable[[str], None]
  count: Callable[[], int]


def open_pages(studio: studios.Studio) -> Pages:
  """Keeps one shape for each page."""
  pieces: dict[str, studios.Piece] = {}
  seeds: dict[str, int] = {}
  working, keeping = threading.Lock(), threading.Lock()

  def get(token):
    with keeping:
      if token not in pieces:
        raise _Error(
          http.HTTPStatus.GONE, 'this page was closed: load it again'
        )
      pieces[token] = pieces.pop(token)  # The dict is in order of last use.
      return pieces[token]

  def new():
    token = secrets.token_urlsafe(18)
    with keeping:
      while len(pieces) >= _MOST_PAGES:
        oldest = next(iter(pieces))
        del pieces[oldest], seeds[oldest]
      pieces[token] = studios.begin(studio)
      seeds[token] = secrets.randbits(31)
    return token

  def change(token, function):
    # One computation at a time: each uses all cores.
    with working:
      piece = get(token)
      piece = function(piece, seeds.get(token, 0))
      with keeping:
        if token in pieces:  # It may have been closed meanwhile.
          pieces[token] = piece
      return piece

  def close(token):
    with keeping:
      pieces.pop(token, None)
      seeds.pop(token, None)

  return Pages(new, get, change, close, lambda: len(pieces))


def serve(studio: studios.Studio, port: int) -> http_server.ThreadingHTTPServer:
  """A server that listens; `serve_forever` it, and close it.

  Args:
    studio: of the model.
    port: 0: any that is free.

  Raises:
    OSError: where the port cannot be used; the message says what to do.
  """
  pages = open_pages(studio)

  class Handler(_Handler):
    pass

  Handler.studio, Handler.pages = studio, pages
  try:
    server = http_server.ThreadingHTTPServer((ADDRESS, port), Handler)
  except OSError as error:
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
      why = {errno.EADDRINUSE: 'is in use', errno.EACCES: 'is not allowed'}
      raise OSError(
        f'port {port} {why[error.errno]}: use another one, --port=NUMBER, or '
        '--port=0 for any that is free'
      ) from error
    raise
  except OverflowError as error:
    raise OSError(f'port must be 0 to 65535, got {port}') from error
  server.daemon_threads = True
  return server


def _info(studio):
  plan = studios.planned(studios.begin(studio))
  return {
    'name': studio.name,
    'sides': studio.model.spec.grid,
    'kinds': studio.kinds,
    'moves': studio.moves,
    'latent': 0 if studio.directions is None else len(studio.directions),
    'formats': studios.FORMATS,
    'temperature': plan['temperature'],
    'step_size': plan['step_size'],
  }


def _number(content, name):
  value = content.get(name)
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise ValueError(f'{name} must be a number, got {value!r}')
  if not math.isfinite(value):
    raise ValueError(f'{name} must be finite, got {value}')
  return float(value)


class _Handler(http_server.BaseHTTPRequestHandler):
  """Answers requests; a class since the standard library asks for one."""

  protocol_version = 'HTTP/1.1'
  timeout = _SECONDS
  disable_nagle_algorithm = True
  wbufsize = -1  # Head and body in one packet.
  studio: Any = None
  pages: Any = None

  def do_GET(self):
    """Pages, facts and files."""
    self._answer(
      {'/': self._page, '/info': self._send_info, '/save': self._save}
    )

  def do_POST(self):
    """What changes a shape."""
    self._answer(
      {
        '/open': self._open,
        '/close': self._close,
        '/make': self._make,
        '/step': self._step,
        '/latent': self._latent,
        '/fill': self._fill,
        '/undo': self._undo,
        '/edit': self._edit,
      }
    )

  def log_message(self, *args):
    """Says nothing of each request."""

  def _answer(self, routes):
    path, _, query = self.path.partition('?')
    self.query = dict(parse.parse_qsl(query))
    try:
      self._check_origin()
      if path not in routes:
        raise _Error(http.HTTPStatus.NOT_FOUND, f'there is no {path[:100]}')
      routes[path]()
    except _Error as error:
      self._refuse(*error.args)
    except ValueError as error:
      self._refuse(http.HTTPStatus.BAD_REQUEST, str(error))
    except (ConnectionError, TimeoutError):
      self.close_connection = True
    except Exception as error:
      logging.exception('A request to %s failed.', path[:100])
      text = f'{type(error).__name__}: this is a bug in the program'
      self._refuse(http.HTTPStatus.INTERNAL_SERVER_ERROR, text)

  def _check_origin(self):
    port = self.server.server_address[1]
    names = [f'{name}:{port}' for name in (ADDRESS, 'localhost')]
    if self.headers.get('Host') not in names:
      raise _Error(http.HTTPStatus.FORBIDDEN, f'the host must be {names[0]}')
    origin = self.headers.get('Origin')
    if origin not in (None, *(f'http://{name}' for name in names)):
      raise _Error(
        http.HTTPStatus.FORBIDDEN, f'requests must come from http://{names[0]}'
      )

  def _refuse(self, status, text):
    # The unread rest of the request would be read as the next request.
    self.close_connection = True
    self._send(status, text.encode(), 'text/plain; charset=utf-8')

  def _send(self, status, body, kind, **headers):
    self.send_response(status)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(body)))
    self.send_header('Cache-Control', 'no-store')
    self.send_header('X-Content-Type-Options', 'nosniff')
    self.send_header('Cross-Origin-Resource-Policy', 'same-origin')
    self.send_header('X-Frame-Options', 'DENY')
    if self.close_connection:
      self.send_header('Connection', 'close')
    for name, value in headers.items():
      self.send_header(name.replace('_', '-'), value)
    self.end_headers()
    self.wfile.write(body)
    self.wfile.flush()

  def _body(self, most):
    text = self.headers.get('Content-Length')
    if text is None or not text.isdigit():
      raise _Error(
        http.HTTPStatus.LENGTH_REQUIRED, 'a Content-Length is needed'
      )
    if int(text) > most:
      raise _Error(
        http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f'a request may have at most {most} bytes, this one has {text}',
      )
    return self.rfile.read(int(text))

  def _json(self):
    try:
      content = json.loads(self._body(_MOST_JSON))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
      raise ValueError(f'the request must be JSON: {error}') from error
    if not isinstance(content, dict):
      raise ValueError('the request must be a JSON object')
    return content

  def _send_json(self, content):
    body = json.dumps(content).encode()
    self._send(http.HTTPStatus.OK, body, 'application/json')

  def _send_piece(self, piece):
    levels = markup.levels(piece.voxels, 255)
    state = studios.planned(piece) | {
      'step': piece.step,
      'filling': piece.filling,
      'energy': piece.energy,
      'latent': studios.latent_values(self.studio, piece),
    }
    self._send(
      http.HTTPStatus.OK,
      levels.tobytes() + piece.hidden.astype(np.uint8).tobytes(),
      'application/octet-stream',
      X_State=json.dumps(state),
    )

  def _change(self, content, function):
    token = str(content.get('token'))
    self._send_piece(self.pages.change(token, function))

  def _page(self):
    text = markup.page(
      self.studio.name,
      [markup.asset('view.html')],
      ('shapes.js', 'view.js'),
      ('style.css', 'view.css'),
      served=True,
    )
    self._send(http.HTTPStatus.OK, text.encode(), 'text/html; charset=utf-8')

  def _send_info(self):
    self._send_json(_info(self.studio))

  def _open(self):
    self._body(_MOST_JSON)
    self._send_json({'token': self.pages.open()})

  def _close(self):
    self.pages.close(str(self._json().get('token')))
    self._send_json({})

  def _make(self):
    content = self._json()
    kind = content.get('kind')
    self._change(
      content, lambda piece, seed: studios.make(self.studio, piece, kind, seed)
    )

  def _step(self):
    content = self._json()
    numbers = [_number(content, name) for name in ('temperature', 'step_size')]
    self._change(
      content,
      lambda piece, seed: studios.move(self.studio, piece, seed, *numbers),
    )

  def _latent(self):
    content = self._json()
    values = content.get('values')
    if not isinstance(values, list):
      raise ValueError('values must be a list of numbers')
    numbers = [_number({'value': value}, 'value') for value in values]
    self._change(
      content,
      lambda piece, seed: studios.move_latent(self.studio, piece, numbers),
    )

  def _fill(self):
    self._change(
      self._json(), lambda piece, seed: studios.fill(self.studio, piece, seed)
    )

  def _undo(self):
    self._change(self._json(), lambda piece, seed: studios.undo(piece))

  def _edit(self):
    grid = self.studio.model.spec.grid
    body = self._body(math.prod(grid))
    if len(body) != math.prod(grid):
      raise ValueError(
        f'the request must be a byte for each voxel of {grid}, got {len(body)} '
        'bytes'
      )
    codes = np.frombuffer(body, np.uint8).reshape(grid)
    self._change(self.query, lambda piece, seed: studios.edit(piece, codes))

  def _save(self):
    kind = self.query.get('format', '')
    piece = self.pages.get(self.query.get('token', ''))
    body = studios.content(piece, kind)
    name = ''.join(c if c.isalnum() else '_' for c in self.studio.name)
    self._send(
      http.HTTPStatus.OK,
      body,
      'application/octet-stream',
      Content_Disposition=f'attachment; filename="{name}.{kind}"',
    )
