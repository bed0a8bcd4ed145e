"""Tables of what benchmarks/langevin.py measures."""

from experiments.evaluation import cells


def summary(results: cells.Results) -> str:
  """README's line: the score of 6.1 beside PyTorch."""
  for result in results.values():
    for row in result.get('networks', []):
      seconds = row['seconds']
      ours = seconds.get('ours', {}).get('score')
      torch = seconds.get('torch', {}).get('score')
      if row['network'] == 'paper_3_layer' and ours and torch:
        machine = result['machine']
        return (
          "The score of the paper's network, one for each Langevin step, "
          f'takes {ours:.2f} s for {row["chains"]} chains of '
          f'{row["grid"]}^3 on {machine["cores"]} cores of {machine["cpu"]}, '
          f'{torch / ours:.1f} times as fast as PyTorch '
          f'{machine["torch"].split("+")[0]} ({machine["date"][:10]}).'
        )
  return '–'


def networks(results: cells.Results) -> str:
  """Scores and learning steps of benchmarks/langevin.py, beside PyTorch.

  `≈` is an estimate by the time of one chain.
  """
  rows = []
  for result in results.values():
    for row in result.get('networks', []):
      name = row['network'].removeprefix('paper_')
      memory, compiled = row.get('memory_mib', {}), row['compile_seconds']
      for call in ('score', 'learn'):
        ours, torch = (
          row['seconds'].get(label, {}).get(call) for label in ('ours', 'torch')
        )
        what = f'{row["chains"]} chains'
        if call == 'learn':
          what += f' + {row["batch"]} shapes'
          what += f', K = {row["num_steps"]}' if row['num_steps'] else ''
        errors = (row.get('error', {}).get(k) for k in ('ours', 'torch'))
        direct = cells.number(row['seconds'].get('direct', {}).get(call), 2)
        late = row.get('estimated_seconds', {}).get('direct', {}).get(call)
        rows.append(
          [
            f'{row["section"]} {name}, {row["grid"]}^3',
            f'{call}, {what}',
            cells.number(ours, 2),
            cells.number(torch, 2),
            cells.number(torch and torch / ours, 2),
            f'≈ {late:.0f}' if late else direct,
            ' / '.join(
              cells.number(memory.get(f'{k} {call}'), 0)
              for k in ('ours', 'torch')
            ),
            ' / '.join('–' if e is None else f'{e:.0e}' for e in errors)
            if call == 'score'
            else '',
            cells.number(
              compiled['ours'].get('score_many' if call == 'score' else call), 1
            ),
          ]
        )
  header = ['network', 'call', 'ours, s', 'PyTorch, s', 'ratio']
  header += ["XLA's own, s", 'memory, MiB', 'error', 'compiles in, s']
  return cells.markdown(header, rows)


def growth(results: cells.Results) -> str:
  """How the cost of a score grows, of benchmarks/langevin.py --growth."""
  rows = []
  for result in results.values():
    for row in result.get('growth', []):
      ours, torch = (
        row['seconds'].get(label, {}).get('score')
        for label in ('ours', 'torch')
      )
      rows.append(
        [
          row['network'],
          cells.number(ours, 3),
          cells.number(1e3 * ours / row['chains'], 1),
          cells.number(torch, 3),
          cells.number(torch and torch / ours, 2),
          cells.number(row['xla_buffers_mib']['ours']['score_many'], 0),
        ]
      )
  header = ['score of 6.1', 'ours, s', 'ms a chain', 'PyTorch, s', 'ratio']
  return cells.markdown([*header, 'buffers, MiB'], rows)
