"""Figures 5 to 7, the night stands: section 6.4; see coop.py.

python -m experiments.main --config=experiments/configs/coop_night_stand.py
"""

from experiments.configs import coop


def get_config(size: str = ''):
  """Returns the config; size `paper`, `text` or nothing: that of components."""
  config = coop.get_config(f'night_stand,{size or "components"}')
  config.name = config.name.removesuffix('_components')
  return config
