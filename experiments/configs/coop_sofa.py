"""Figures 5 to 7, the sofas: section 6.4; see coop.py.

python -m experiments.main --config=experiments/configs/coop_sofa.py
"""

from experiments.configs import coop


def get_config(size: str = ''):
  """Returns the config; size `paper`, `text`, `abp` or nothing."""
  return coop.get_config(f'sofa,{size}' if size else 'sofa')
