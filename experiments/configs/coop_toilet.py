"""Figures 5 to 7, the toilets: section 6.4; see coop.py.

python -m experiments.main \
  --config=experiments/configs/coop_toilet.py \
  --config.data.path=modelnet10_32.npz --workdir=runs/coop_toilet --mode=train

after abp.py:toilet in runs/abp_toilet; see coop.py.
"""

from experiments.configs import coop


def get_config():
  """Returns the config."""
  return coop.get_config('toilet')
