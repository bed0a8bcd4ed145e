"""Figures 5 to 7, the toilets: section 6.4; see coop.py.

python -m experiments.main --config=experiments/configs/coop_toilet.py
"""

from experiments.configs import coop


def get_config(size: str = ''):
  """Returns the config; size `paper`, `text`, `abp` or nothing."""
  return coop.get_config(f'toilet,{size}' if size else 'toilet')
