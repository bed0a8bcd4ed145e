"""What follows the colon of a config: a category and a size.

`FILE.py:CATEGORY` is small enough for two CPU cores to learn in an hour.
`,paper` is the paper's network with the schedule that worked, and `,text` has
every number of the paper's text.
"""

from collections.abc import Sequence
import difflib

CATEGORIES = (
  'bathtub',
  'bed',
  'chair',
  'desk',
  'dresser',
  'monitor',
  'night_stand',
  'sofa',
  'table',
  'toilet',
)
SIZES = ('paper', 'text')


def parse(
  kind: str,
  argument: str,
  sizes: Sequence[str] = SIZES,
  *,
  mixed: bool = True,
) -> tuple[str, str, str]:
  """Splits an argument.

  Args:
    kind: name of the file, with which the config's name begins.
    argument: `CATEGORY` or `CATEGORY,SIZE`.
    sizes: that the file has.
    mixed: whether the category may be 'all'.

  Returns:
    The config's name, the category and the size, '' for the small one.

  Raises:
    ValueError: for another category or size.

  >>> parse('coop', 'sofa,paper')
  ('coop_sofa_paper', 'sofa', 'paper')
  """
  category, comma, size = argument.partition(',')
  categories = (*CATEGORIES, 'all') if mixed else CATEGORIES
  # 'chair,' is half of 'chair, paper': a space without quotes.
  if category not in categories or (comma and size not in sizes):
    forms = ', '.join(['CATEGORY', *(f'CATEGORY,{name}' for name in sizes)])
    near = [*difflib.get_close_matches(category, categories, 1), category][0]
    hint = f" (did you mean '{near}'?)" if near != category else ''
    raise ValueError(
      f"{kind}.py takes {forms}, got '{argument}'{hint}; a category is one "
      f'of {", ".join(categories)}'
    )
  name = '_'.join(filter(None, (kind, category, size)))
  return name, category, size
