"""Table 1 and section 6.5: one model of all categories mixed.

python -m experiments.main --config=experiments/configs/synthesis_all.py

Half an hour of one CPU core (2026-11-25): seats, backs, slabs and blocks.
`synthesis_all.py:paper` takes the paper's network, 135 seconds of an H200
(2026-11-26); `:text` the text's numbers; `:fresh` is as in synthesis.py.

Ten categories need room in the memory: without noise a chain stays with the
kind of shape that it has come to, so there are four sets of 25 chains, and
young ones, from noise, until the end.

pretrained/synthesis_all went on from `:paper` in two stages of `:fresh`: 40
iterations with 50 neighbours and a spread of 0.3, then 20 with 10 and 0.2. That
3 are better was found afterwards and given to `export`.
"""

from experiments.configs import arguments
from experiments.configs import default
from experiments.configs import synthesis


def get_config(size: str = ''):
  """Returns the config; size `paper`, `text`, `fresh` or nothing."""
  name, category, _ = arguments.parse(
    'synthesis', f'all,{size}' if size else 'all', synthesis.SIZES
  )
  config = default.get_config()
  config.name = name
  config.data.category = category
  synthesis.RECIPES[size](config)
  if size == 'paper':
    config.chains.num_slots = 16
    config.train.num_iterations = 2600
    config.optimizer.constant_iterations = 1500
  if size == 'fresh':
    config.optimizer.constant_iterations = 10
    config.train.num_iterations = 20
    # Of shapes that are like each other, mostly of one category.
    config.components.neighbours = 3
    config.chains.start_spread = 0.2
  if not size:
    config.model.network = 'medium'
    config.chains.num_slots = 4
    config.train.num_iterations = 500
    config.optimizer.constant_iterations = 250
  return config
