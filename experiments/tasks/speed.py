"""Seconds per shape of a compiled function: the fastest of a few calls."""

from collections.abc import Callable
import time
from typing import Any

import jax

import dnet_jax
from dnet_jax.uses import base as uses


def seconds(
  function: Callable[..., Any], *args: Any, repetitions: int = 3
) -> float:
  """Seconds of a call that is compiled already: the fastest of a few."""
  jax.block_until_ready(function(*args))
  times = []
  for _ in range(repetitions):
    begin = time.perf_counter()
    jax.block_until_ready(function(*args))
    times.append(time.perf_counter() - begin)
  return min(times)


def of_generator(
  model: dnet_jax.Model, num_steps: int, num: int
) -> dict[str, float]:
  """Seconds per shape: from the generator, refined, and from noise.

  Args:
    model: with a generator.
    num_steps: of a chain from noise; the time of 10 steps is measured.
    num: shapes that are made at once.
  """
  key, timed = jax.random.key(0), 10
  one_pass = seconds(lambda: dnet_jax.generate(key, model, num)) / num
  found = {'generated': one_pass}
  if model.spec.descriptors:
    start = dnet_jax.generate(key, model, num)
    step = seconds(
      lambda: dnet_jax.synthesize(
        key, model, num, start=start, num_steps=timed, temperature=0.0
      )
    ) / (timed * num)
    own, _ = uses.settings(model, 'synthesize')
    found['refined'] = one_pass + own.num_steps * step
    found['langevin from noise'] = num_steps * step
  return {name: round(value, 6) for name, value in found.items()}
