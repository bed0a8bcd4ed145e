"""Text of unknown encoding and the numbers in it."""

import codecs
import warnings

import numpy as np

_MARKS = (
  (codecs.BOM_UTF8, 'utf-8'),
  (codecs.BOM_UTF16_LE, 'utf-16-le'),
  (codecs.BOM_UTF16_BE, 'utf-16-be'),
)


def plain(data: bytes) -> bytes:
  """Text as bytes of one byte a letter, without byte order mark.

  UTF-16 is recognised by its mark, or by the zero byte in each of its ASCII
  letters. Names and comments may have letters of any encoding.

  >>> plain('v 1'.encode('utf-16'))
  b'v 1'
  """
  for mark, encoding in _MARKS:
    if data.startswith(mark):
      data = data[len(mark) :]
      if encoding == 'utf-8':
        return data
      return data.decode(encoding, 'replace').encode()
  if data[1:2] == b'\0' and data[:1] != b'\0':
    return data.decode('utf-16-le', 'replace').encode()
  if data[:1] == b'\0' and data[1:2] not in (b'\0', b''):
    return data.decode('utf-16-be', 'replace').encode()
  return data


def shown(text: bytes) -> str:
  """The beginning of a text, for messages.

  >>> shown(b'v 0 0 0')
  "'v 0 0 0'"
  """
  text = text.strip().decode('latin-1')
  return ascii(text if len(text) <= 40 else f'{text[:40]}...')


def numbers(text: bytes) -> np.ndarray | None:
  r"""All numbers of a text, float64 `(n,)`; None where a word is not a number.

  >>> numbers(b'1 2.5\n3').tolist()
  [1.0, 2.5, 3.0]
  >>> numbers(b'1 two')
  """
  if not text.strip():
    return np.empty(0)
  with warnings.catch_warnings():
    warnings.simplefilter('error')  # NumPy only warns of a word in the text.
    try:
      return np.fromstring(text, sep=' ')
    except (DeprecationWarning, ValueError):
      return None


def values(data: bytes, first: int) -> tuple[np.ndarray, np.ndarray]:
  r"""All numbers of a text and the line of each, both `(n,)`.

  Args:
    data: the text; its lines end in `\n`.
    first: the number of its first line, for messages.

  Raises:
    ValueError: naming the line, where a word is not a number.

  >>> [a.tolist() for a in values(b'1 2.5\n\n3', 4)]
  [[1.0, 2.5, 3.0], [4, 4, 6]]
  """
  rows = data.split(b'\n')
  lengths = [len(row.split()) for row in rows]
  found = numbers(data)
  if found is None or found.size != sum(lengths):
    for i, row in enumerate(rows):
      for word in row.split():
        one = numbers(word)
        if one is None or one.size != 1:
          raise ValueError(f'line {first + i}: {shown(word)} is not a number')
  return found, np.repeat(np.arange(first, first + len(rows)), lengths)


def index(value: float, count: int, where: str) -> int:
  """A whole number from 0 to `count - 1`.

  Raises:
    ValueError: for another one, beginning with `where`.

  >>> index(2.0, 3, 'line 7')
  2
  """
  if value != value or value in (np.inf, -np.inf) or value != int(value):
    raise ValueError(f'{where}: index {value:g} is not a whole number')
  if not 0 <= value < count:
    raise ValueError(
      f'{where}: index {value:.0f} out of range: there are {count} vertices'
    )
  return int(value)


def check_indices(
  values: np.ndarray, count: int, where: str = 'a face'
) -> None:
  """Raises ValueError unless all are whole numbers from 0 to `count - 1`."""
  with np.errstate(invalid='ignore'):
    bad = ~((values >= 0) & (values < count) & (values == np.floor(values)))
  if bad.any():
    index(float(values[bad][0]), count, where)


def whole(value: float, line: int, what: str) -> int:
  """A count, not negative.

  Raises:
    ValueError: for another number, naming the line.

  >>> whole(12.0, 2, 'vertices')
  12
  """
  if not 0 <= value < 1e12 or value != int(value):
    raise ValueError(f'line {line}: {value:g} is not a number of {what}')
  return int(value)
