"""What mkdocs does beside building pages: pictures, equations, links.

- Pictures of pretrained/ and results/, reports, and notebooks are files of the
  site.
- A link to one of them is written as the repository has it, such as
  `../pretrained/NAME/picture.png`, so that it works there, too.
- A fence ```math becomes MathML, which browsers draw without a script.
"""

import pathlib
import re

from latex2mathml import converter
from mkdocs.structure import files as mkdocs_files

ROOT = pathlib.Path(__file__).parents[2]
# Folders beside docs/ of which files belong to the site.
_BESIDE = (
  'pretrained/*/*.png',
  'pretrained/*/report.html',
  'results/*.png',
  'notebooks/*.ipynb',
)
_LINK = re.compile(
  r'(\]\(|src=")((?:\.\./)+)((?:pretrained|results|notebooks)/)'
)


def equation(source, language, css_class, options, md, **kwargs):
  """A fence ```math as MathML."""
  del language, options, md, kwargs
  lines = ' '.join(source.split())
  return f'<div class="{css_class}">{converter.convert(lines, "block")}</div>'


def on_config(config):
  """Equations are known to the extension of fences."""
  fence = {'name': 'math', 'class': 'math', 'format': equation}
  settings = config['mdx_configs'].setdefault('pymdownx.superfences', {})
  settings.setdefault('custom_fences', []).append(fence)
  return config


def on_files(files, config):
  """Adds what lies beside docs/."""
  for pattern in _BESIDE:
    for path in sorted(ROOT.glob(pattern)):
      name = path.relative_to(ROOT).as_posix()
      files.append(
        mkdocs_files.File(
          name, str(ROOT), config['site_dir'], config['use_directory_urls']
        )
      )
  return files


def on_page_markdown(markdown, page, **kwargs):
  """Links out of docs/ go to the same file within the site."""
  del kwargs
  up = '../' * page.file.src_uri.count('/')
  return _LINK.sub(lambda found: f'{found[1]}{up}{found[3]}', markdown)


def on_post_build(config):
  """The gallery links out of docs/, too."""
  path = pathlib.Path(config['site_dir']) / 'gallery.html'
  text = path.read_text('utf-8').replace('"../pretrained/', '"pretrained/')
  path.write_text(text, encoding='utf-8')
