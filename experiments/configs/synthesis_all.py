"""Table 1 and section 6.5: one model of all categories mixed.

python -m experiments.main --config=experiments/configs/synthesis_all.py \
  --config.data.path=modelnet10_32.npz --workdir=runs/all --mode=train

Half an hour of one CPU core (2026-11-25): seats, backs, slabs and blocks.
`synthesis_all.py:paper` takes the paper's network: days on a CPU.

Ten categories need room in the memory: without noise a chain stays with the
kind of shape that it has come to, so there are four sets of 25 chains, and
young ones, from noise, until the end.
"""

from experiments.configs import synthesis


def get_config(argument: str = ''):
  """Returns the config; argument `paper` or nothing."""
  config = synthesis.get_config(f'all,{argument}' if argument else 'all')
  if not argument:
    config.model.network = 'medium'
    config.chains.num_slots = 4
    config.train.num_iterations = 500
    config.optimizer.constant_iterations = 250
  return config
