"""Figures 5 to 7, the sofas: section 6.4; see coop.py.

python -m experiments.main \
  --config=experiments/configs/coop_sofa.py \
  --config.data.path=modelnet10_32.npz --workdir=runs/coop_sofa --mode=train \
  --config.train.init_from=runs/abp_sofa

after abp.py:sofa, see there; from random weights it has not been run.
"""

from experiments.configs import coop


def get_config():
  """Returns the config."""
  return coop.get_config('sofa')
