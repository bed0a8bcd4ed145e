"""Figures 5 to 7, the night stands: section 6.4; see coop.py.

python -m experiments.main --config=experiments/configs/coop_night_stand.py
"""

from experiments.configs import coop


def get_config(size: str = ''):
  """Returns the config; size `paper`, `text`, `abp` or nothing."""
  return coop.get_config(f'night_stand,{size}' if size else 'night_stand')
