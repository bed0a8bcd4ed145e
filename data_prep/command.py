"""How the commands of this package begin and end.

A mistake of the user gives one sentence on standard error and exit status 1;
Ctrl-C gives one line and 130. A traceback means a bug.
"""

from collections.abc import Callable
from collections.abc import Sequence
import sys

from absl import app
from absl import flags

from data_prep import mesh_files


def run(main: Callable[[Sequence[str]], int], define: Callable[[], None]):
  """Runs a command and ends the process with its exit status.

  Args:
    main: takes the arguments that are not flags, the name of the program first;
      returns the exit status.
    define: defines the flags.
  """
  define()
  app.run(guarded(main), flags_parser=_parse)


def guarded(
  main: Callable[[Sequence[str]], int],
) -> Callable[[Sequence[str]], int]:
  """A main function that reports its user's mistakes in one sentence."""

  def inner(argv: Sequence[str]) -> int:
    try:
      return main(argv)
    except (app.UsageError, *mesh_files.READ_ERRORS) as error:
      return _say(error)
    except KeyboardInterrupt as error:
      print(f'stopped{": " if str(error) else ""}{error}', file=sys.stderr)
      return 130

  return inner


def _say(error: BaseException) -> int:
  print(f'error: {mesh_files.sentence(error)}', file=sys.stderr)
  return 1


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _say(error)
    sys.exit(1)
