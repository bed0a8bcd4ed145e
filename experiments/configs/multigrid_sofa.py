"""Figure 8, the sofas: section 6.6; see multigrid.py.

python -m experiments.main --config=experiments/configs/multigrid_sofa.py
"""

from experiments.configs import multigrid


def get_config(size: str = ''):
  """Returns the config; size `paper`, `text` or nothing."""
  return multigrid.get_config(f'sofa,{size}' if size else 'sofa')
