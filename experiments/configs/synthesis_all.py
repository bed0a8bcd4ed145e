"""Table 1 and section 6.5: one model of all categories mixed.

python -m experiments.main --config=experiments/configs/synthesis_all.py \
  --config.data.path=modelnet10_32.npz --workdir=runs/all --mode=train

`synthesis_all.py:paper` takes the paper's network: days on a CPU.
"""

from experiments.configs import synthesis


def get_config(argument: str = ''):
  """Returns the config; argument `paper` or nothing."""
  return synthesis.get_config(f'all,{argument}' if argument else 'all')
