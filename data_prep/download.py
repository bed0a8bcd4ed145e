"""Downloads a data set of meshes, and resumes when the connection breaks.

    python -m data_prep.download --dataset modelnet10 --out DIR

A broken download resumes from `<file>.part`, also in a later run. The length is
checked, and the SHA-256 where it is known. The authors of ModelNet do not
publish one; the command prints that of the file, which can be given with
`--sha256` to check another copy.

Unzipping writes nothing outside DIR and no more than `--max_unpacked_gb`. After
an interruption it resumes. No file is ever overwritten.
`python -m data_prep.voxelize` also reads the zip file as it is: `--nounzip`.
"""

from collections.abc import Sequence
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import stat
import time
from typing import NamedTuple
import urllib.error
import urllib.request
import zipfile
import zlib

from absl import app
from absl import flags
import tqdm

from data_prep import command

_BLOCK = 1 << 18  # bytes read at a time.


class DataSet(NamedTuple):
  """Where a data set is published.

  Attributes:
    url: the file.
    num_bytes: its length, None where it is not known.
    sha256: its SHA-256 in hexadecimal digits, None where it is not known.
  """

  url: str
  num_bytes: int | None = None
  sha256: str | None = None


DATASETS = {
  'modelnet10': DataSet(
    'http://3dvision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip',
    num_bytes=473402300,
  ),
  'modelnet40': DataSet('http://modelnet.cs.princeton.edu/ModelNet40.zip'),
}


def download(
  url: str,
  path: str | os.PathLike,
  *,
  num_bytes: int | None = None,
  sha256: str | None = None,
  retries: int = 10,
  wait: float = 1.0,
  timeout: float = 30.0,
  progress: bool = True,
) -> str:
  """Downloads a file, and resumes where an earlier attempt stopped.

  The bytes so far are kept in `<path>.part`; `<path>.part.json` says from where
  and of which version they are, so that two versions are never mixed.

  Args:
    url: where it is.
    path: where to write; missing folders are made. A file that is there is
      checked and left as it is.
    num_bytes: its length, if known.
    sha256: its SHA-256, if known.
    retries: how often in a row to try again without a byte of progress.
    wait: seconds before the first retry, doubled each time up to a minute.
    timeout: seconds without an answer until a connection counts as broken.
    progress: whether to show a progress bar.

  Returns:
    The SHA-256 of the file.

  Raises:
    ValueError: when length or SHA-256 differ.
    OSError: when the file cannot be downloaded.
  """
  path = pathlib.Path(path)
  if path.exists():
    return check_file(path, num_bytes, sha256)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'{path.name}.part')
  failures = 0
  with tqdm.tqdm(
    desc=path.name,
    total=num_bytes,
    unit='B',
    unit_scale=True,
    disable=not progress,
  ) as bar:
    while True:
      before = _length(part)
      try:
        if _fetch(url, part, num_bytes, timeout, bar):
          break
        reason = 'the connection broke'
      except urllib.error.HTTPError as error:
        error.close()
        if error.code < 500 and error.code not in (408, 429):
          raise OSError(f'{url}: {error.code} {error.reason}') from None
        reason = f'{error.code} {error.reason}'
      except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
      failures = 0 if _length(part) > before else failures + 1
      if failures > retries:
        raise OSError(
          f'{url}: {reason}, {failures} times in a row; {_length(part)} bytes '
          f'are kept in {part}; the same command resumes from there'
        )
      bar.set_postfix_str(f'{reason}, trying again')
      time.sleep(min(60.0, wait * 2 ** max(0, failures - 1)))
  digest = check_file(part, num_bytes, sha256)
  if path.exists():
    raise FileExistsError(f'{path} appeared meanwhile and is not overwritten')
  os.replace(part, path)
  _record(part).unlink(missing_ok=True)
  return digest


def check_file(
  path: str | os.PathLike, num_bytes: int | None, sha256: str | None
) -> str:
  """Checks a file's length and SHA-256, where they are given.

  Returns:
    The SHA-256 of the file.

  Raises:
    ValueError: when they differ.

  >>> check_file(os.devnull, 0, None)[:8]
  'e3b0c442'
  """
  length = _length(path)
  if num_bytes is not None and length != num_bytes:
    raise ValueError(
      f'{path} has {length} bytes, not {num_bytes}: remove it and try again'
    )
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if sha256 is not None and digest != sha256.lower():
    raise ValueError(
      f'{path} has SHA-256 {digest}, not {sha256}: remove it and try again'
    )
  return digest


def unzip(
  path: str | os.PathLike,
  folder: str | os.PathLike,
  *,
  max_bytes: int = 20 * 10**9,
  progress: bool = True,
) -> int:
  """Unpacks a zip file into a folder and nowhere else.

  Nothing is written before all names and lengths have been checked. Files with
  the right content, from an interrupted run, are kept.

  Args:
    path: the zip file.
    folder: where to; made when missing.
    max_bytes: how much it may unpack to.
    progress: whether to show a progress bar.

  Returns:
    How many files it holds. macOS's own (`__MACOSX`, `.DS_Store`) are left out.

  Raises:
    FileExistsError: when another file is in the way.
    ValueError: when a name leads out of the folder, a member is a link or
      encrypted, the content is damaged or more than `max_bytes`.
  """
  folder = pathlib.Path(folder)
  try:
    with zipfile.ZipFile(path) as archive:
      members = [_check_member(path, m, folder) for m in archive.infolist()]
      members = [pair for pair in members if pair is not None]
      total = sum(member.file_size for member, _ in members)
      if total > max_bytes:
        raise ValueError(
          f'{path} would unpack to {total} bytes, more than the limit of '
          f'{max_bytes}'
        )
      targets = [target for _, target in members]
      if len(set(targets)) != len(targets):
        raise ValueError(f'{path} holds two files of the same name')
      with tqdm.tqdm(
        desc='unzip',
        total=total,
        unit='B',
        unit_scale=True,
        disable=not progress,
      ) as bar:
        for member, target in members:
          _extract(archive, member, target, bar)
  except (zipfile.BadZipFile, zlib.error, EOFError) as error:
    raise ValueError(f'{path} is not a valid zip file: {error}') from error
  return len(members)


def _length(path) -> int:
  try:
    return os.stat(path).st_size
  except FileNotFoundError:
    return 0


def _record(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(f'{part.name}.json')


def _fetch(url, part, num_bytes, timeout, bar) -> bool:
  """Asks for what is missing of a file; returns whether it is whole now."""
  have = _length(part)
  record = {}
  if have and _record(part).exists():
    with contextlib.suppress(ValueError):  # a record cut off by a kill.
      record = json.loads(_record(part).read_text())
  if record.get('url') != url:
    have = 0
  headers = {'User-Agent': 'data_prep.download', 'Accept-Encoding': 'identity'}
  if have:
    headers['Range'] = f'bytes={have}-'
    if record.get('version'):
      headers['If-Range'] = record['version']
  try:
    answer = urllib.request.urlopen(
      urllib.request.Request(url, headers=headers), timeout=timeout
    )
  except urllib.error.HTTPError as error:
    if error.code != 416:
      raise
    error.close()
    found = re.fullmatch(
      r'bytes \*/(\d+)', error.headers['Content-Range'] or ''
    )
    if found and int(found[1]) == have:
      return True
    part.unlink(missing_ok=True)  # longer than the file: another version.
    return False
  with answer:
    length = answer.headers['Content-Length']
    total = int(length) if length else None
    if answer.status == 206:
      found = re.fullmatch(
        r'bytes (\d+)-\d+/(\d+|\*)', answer.headers['Content-Range'] or ''
      )
      if not found or int(found[1]) != have:
        raise OSError(
          f'bytes from {have} were requested, but the answer has '
          f'{answer.headers["Content-Range"]!r}'
        )
      total = None if found[2] == '*' else int(found[2])
    else:
      have = 0  # the server sends all of it, or another version.
    if num_bytes is not None and total is not None and total != num_bytes:
      raise ValueError(f'{url} has {total} bytes, not {num_bytes}')
    total = num_bytes if total is None else total
    version = answer.headers['ETag'] or answer.headers['Last-Modified']
    if version and version.startswith('W/'):
      version = answer.headers['Last-Modified']
    bar.total = total
    bar.n = have
    bar.refresh()
    with open(part, 'ab' if have else 'wb') as file:
      _record(part).write_text(json.dumps({'url': url, 'version': version}))
      while block := answer.read(_BLOCK):
        file.write(block)
        bar.update(len(block))
        if total is not None and file.tell() > total:
          raise ValueError(f'{url} sends more than its {total} bytes')
    return total is None or _length(part) == total


def _check_member(path, member, folder):
  """A zip member with its target in `folder`; None for what is left out."""
  name = member.filename
  parts = pathlib.PurePosixPath(name).parts
  if (
    not parts
    or '\\' in member.orig_filename
    or '\0' in member.orig_filename
    or pathlib.PurePosixPath(name).is_absolute()
    or pathlib.PureWindowsPath(name).drive
    or '..' in parts
    or not (folder / name).resolve().is_relative_to(folder.resolve())
  ):
    raise ValueError(f'{path} holds {name!r}, which leads out of {folder}')
  if stat.S_ISLNK(member.external_attr >> 16):
    raise ValueError(f'{path} holds {name!r}, a link')
  if member.flag_bits & 1:
    raise ValueError(f'{path} holds {name!r}, which is encrypted')
  if member.is_dir() or '__MACOSX' in parts or parts[-1] == '.DS_Store':
    return None
  return member, folder.joinpath(*parts)


def _extract(archive, member, target, bar) -> None:
  """Writes one member, whole or not at all."""
  if os.path.lexists(target):
    crc = 0
    if target.is_file() and _length(target) == member.file_size:
      with open(target, 'rb') as file:
        while block := file.read(_BLOCK):
          crc = zlib.crc32(block, crc)
      if crc == member.CRC:
        bar.update(member.file_size)
        return
    raise FileExistsError(
      f'{target} exists with other content and is not overwritten'
    )
  target.parent.mkdir(parents=True, exist_ok=True)
  part = target.with_name(f'.{target.name}.part')
  try:
    with archive.open(member) as source, open(part, 'wb') as file:
      # No more than the length announced is read, and its checksum checked.
      while block := source.read(_BLOCK):
        file.write(block)
        bar.update(len(block))
    if _length(part) != member.file_size:
      raise ValueError(f'{member.filename!r} is cut short in the zip file')
    os.replace(part, target)
  finally:
    part.unlink(missing_ok=True)


def define_flags() -> None:
  """Defines the flags of the command; not on import, where they could clash."""
  flags.DEFINE_enum('dataset', None, sorted(DATASETS), 'What to download.')
  flags.DEFINE_string('out', None, 'Folder to download and unzip to.')
  flags.DEFINE_string('url', None, 'Another URL than the known one.')
  flags.DEFINE_string('sha256', None, 'SHA-256 that the file must have.')
  flags.DEFINE_bool('unzip', True, 'Also unzip it.')
  flags.DEFINE_float(
    'max_unpacked_gb', 20.0, 'The most it may unpack to, in GB.', 0.0
  )
  flags.DEFINE_integer(
    'retries', 10, 'Retries in a row without progress before giving up.', 0
  )
  flags.mark_flags_as_required(['dataset', 'out'])


def main(argv: Sequence[str]) -> int:
  """The command; returns its exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  known = DATASETS[values.dataset]
  sha256 = values.sha256 or known.sha256
  url = values.url or known.url
  path = pathlib.Path(values.out) / pathlib.PurePosixPath(known.url).name
  if sha256 and not re.fullmatch('[0-9a-fA-F]{64}', sha256):
    raise ValueError(f'--sha256 must be 64 hexadecimal digits, got {sha256!r}')
  digest = download(
    url,
    path,
    # At another URL the file may be packed differently; a SHA-256 checks it.
    num_bytes=None if values.url else known.num_bytes,
    sha256=sha256,
    retries=values.retries,
  )
  checked = 'as expected' if sha256 else 'not checked, none is known'
  print(f'{path}: {_length(path)} bytes, SHA-256 {digest} ({checked})')
  if values.unzip:
    count = unzip(
      path, values.out, max_bytes=int(values.max_unpacked_gb * 10**9)
    )
    print(f'{count} files unzipped to {values.out}')
  return 0


if __name__ == '__main__':
  command.run(main, define_flags)
