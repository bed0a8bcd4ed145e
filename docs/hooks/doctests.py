"""Doctests of docstrings as examples: to Markdown, `>>>` is a quotation."""

import re

import griffe

# From the first prompt to the next empty line or the end.
_EXAMPLE = re.compile(r'(?:^|(?<=\n))>>> .*?(?=\n\n|\Z)', re.DOTALL)


class Doctests(griffe.Extension):
  """Puts each doctest into a fence."""

  def on_object(self, *, obj, **kwargs):
    """Once for each module, class, function and attribute."""
    del kwargs
    if obj.docstring is not None:
      obj.docstring.value = _EXAMPLE.sub(
        lambda found: f'Examples:\n{_indented(found[0])}', obj.docstring.value
      )


def _indented(text):
  return '\n'.join(f'    {line}' for line in text.splitlines())
