"""Figures 5 to 7, the night stands: section 6.4; see coop.py.

python -m experiments.main \
  --config=experiments/configs/coop_night_stand.py \
  --config.data.path=modelnet10_32.npz --workdir=runs/coop_night_stand \
  --mode=train

after abp.py:night_stand in runs/abp_night_stand; see coop.py.
"""

from experiments.configs import coop


def get_config():
  """Returns the config."""
  return coop.get_config('night_stand')
