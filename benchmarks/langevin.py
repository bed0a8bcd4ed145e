"""The score and the learning step, beside PyTorch and XLA's own convolution.

    python -m benchmarks.langevin --out=results.json
    python -m benchmarks.langevin --networks=paper_3_layer --growth

For each network of the paper, at its sizes: one score (the gradient of f in
the shapes Y, of all chains) and one learning step of Algorithm 1 (K steps of
Langevin dynamics, the gradient of eq. (8), Adam), by

* ours: this library as it is used, inside a jitted `lax.scan`. `score` is the
  cost of one more step, from the difference of a scan with many steps and one
  with few; `setup` is the cost that occurs once per update of the parameters;
* torch: the same network and weights in PyTorch, where it is installed: eager,
  `autograd.grad`, in the faster of its memory formats (and compiled, with
  `--torch_compile`);
* direct: the same in plain `lax.conv_general_dilated`. A call that would take
  longer than `--limit`, judged by the time of one chain, is left out;
  `estimated_seconds` has the estimate.

For the generator of 6.4, a score is the gradient of its squared error in z, and
a learning step is one update by eq. (22).

All run in one process, interleaved (A B C A B C ...), after a first call of
each that is not counted; times are medians. `error` is the relative error
(Euclidean norm) of the score against float64, for `--reference_chains` chains.
Memory is the growth of a fresh process in two calls, plus parameters and inputs
(`--memory`); for JAX there is also the size of XLA's buffers. `GFLOP/s` are the
operations of the direct algorithm divided by the time taken; a rate above that
of the machine's matrix product is the gain of a better algorithm.
"""

from collections.abc import Callable
from collections.abc import Sequence
import datetime
import functools
import gc
import json
import math
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import time
from typing import Any
from typing import NamedTuple

from absl import app
from absl import flags
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

import dnet_jax

try:
  import torch
except ImportError:  # Its columns stay empty.
  torch = None

LABELS = ('ours', 'torch', 'direct')
_LAYOUT = ('NDHWC', 'DHWIO', 'NDHWC')
_OPTIONAL = 'torch is not installed'


class Case(NamedTuple):
  """A network at the sizes of one of the paper's experiments."""

  section: str
  # (kernel side, stride, channels out) of each layer.
  layers: tuple[tuple[int, int, int], ...]
  grid: int
  chains: int
  batch: int
  num_steps: int  # K, as measured
  paper_steps: int | None  # K of the paper, if it is given
  step_size: float
  channels: int = 1  # of the input of the first layer
  latents: int = 0  # of a generator: z, and a dense layer before the others
  precision: str | None = None  # of our products
  note: str = ''

  @property
  def generator(self) -> bool:
    """Whether the network is a generator."""
    return self.latents > 0


def _descriptor(section, name, *rest, **kwargs):
  args = dnet_jax.DESCRIPTORS[name]
  layers = zip(
    args['kernel_sizes'], args['strides'], args['features'], strict=True
  )
  return Case(section, tuple(layers), *rest, **kwargs)


CASES = {
  'paper_3_layer': _descriptor('6.1', 'paper_3_layer', 32, 25, 20, 20, 20, 0.1),
  'paper_2_layer': _descriptor(
    '6.2', 'paper_2_layer', 32, 50, 50, 10, 90, 0.07
  ),
  'paper_super_resolution': _descriptor(
    *('6.3', 'paper_super_resolution', 64, 20, 20, 10, None, 0.01),
    note='neither chains, batch nor K are given: 20, 20 and 10',
  ),
  'paper_coop': _descriptor(
    *('6.4', 'paper_coop', 32, 50, 50, 10, None, 0.1),
    note='K is not given: 10',
  ),
  'paper_generator': Case(
    *('6.4', ((4, 1, 256), (4, 2, 128), (4, 2, 64), (4, 2, 1))),
    *(4, 50, 50, 0, 0, 0.0),
    channels=256,
    latents=100,
  ),
  'paper_multigrid': _descriptor(
    *('6.6', 'paper_multigrid', 64, 20, 20, 10, 10, 0.3),
    note='20 chains and batch, not 100: one layer of 100 is 4 GiB',
  ),
  # For tests.
  'tiny': _descriptor('', 'tiny', 8, 2, 2, 2, None, 0.1),
  'tiny_generator': Case(
    *('', ((4, 1, 4), (4, 2, 1)), 2, 2, 2, 0, 0, 0.0),
    channels=4,
    latents=5,
  ),
}


class Contender(NamedTuple):
  """Calls to time, and what the score function gives.

  `calls` has `score`, or the pair `score_few` and `score_many`, and `learn`;
  each call waits for its result and returns it.
  """

  calls: dict[str, Callable[[], Any]]
  compile_seconds: dict[str, float]
  buffers_mib: dict[str, float]
  note: str = ''
  variant: str = ''


def sizes(case: Case):
  """(grid in, grid out, channels in, channels out, side, stride) of layers."""
  grid, channels = case.grid, case.channels
  for side, stride, features in case.layers:
    out = grid * stride if case.generator else -(-grid // stride)
    yield grid, out, channels, features, side, stride
    grid, channels = out, features


def giga_flops(case: Case) -> tuple[float, float]:
  """GFLOP of a score and of a learning step by the direct algorithm.

  Padding is counted, dense layers are not. A convolution, its gradient in the
  input and that in the kernel cost the same.
  """
  layers = [
    2e-9 * min(grid, out) ** 3 * side**3 * c * n
    for grid, out, c, n, side, _ in sizes(case)
  ]
  score = 2 * sum(layers) * case.chains
  examples = case.chains * (not case.generator) + case.batch
  update = (3 * sum(layers) - layers[0] * (not case.generator)) * examples
  return score, case.num_steps * score + update


def make_arrays(case: Case, seed: int = 0):
  """Parameters, chains and observed shapes: the same for all contenders.

  Weights of variance 2 / (number of inputs) keep units active in every layer.
  """
  rng = np.random.default_rng(seed)

  def normal(*shape, std=1.0):
    return (std * rng.standard_normal(shape)).astype(np.float32)

  params = []
  for *_, c, n, side, stride in sizes(case):
    fan_in = side**3 * c / (stride**3 if case.generator else 1)
    shape = (n, c) if case.generator else (c, n)
    layer = {
      'kernel': normal(*[side] * 3, *shape, std=math.sqrt(2 / fan_in)),
      'bias': normal(n, std=0.1),
    }
    params.append(layer)
  *_, (_, out, _, n, _, _) = sizes(case)
  if case.generator:
    n_base = case.grid**3 * case.channels
    dense = {
      'kernel': normal(case.latents, n_base, std=case.latents**-0.5),
      'bias': normal(n_base, std=0.1),
    }
    params.insert(0, dense)
    # Parameters of batch normalisation, for all layers but the last.
    widths = [case.channels, *(features for *_, features in case.layers)]
    for layer, width in zip(params[:-1], widths, strict=False):
      layer['scale'] = 1 + normal(width, std=0.1)
      layer['shift'] = normal(width, std=0.1)
    y = normal(case.chains, case.latents)
    observed = normal(case.batch, out, out, out, n)
  else:
    last = out**3 * n
    params.append({'kernel': normal(last, 1, std=last**-0.5)})
    params[-1]['bias'] = normal(1)
    y = normal(case.chains, *[case.grid] * 3, case.channels)
    observed = normal(case.batch, *[case.grid] * 3, case.channels)
  return params, y, observed


# JAX, by `convolution` (its default: ours) or by XLA's own.


def _direct(x, kernel, stride):
  return lax.conv_general_dilated(
    x, kernel, (stride,) * 3, 'SAME', dimension_numbers=_LAYOUT
  )


def _direct_transpose(y, kernel, stride):
  grid = [stride * n for n in y.shape[1:4]]
  like = jax.ShapeDtypeStruct((len(y), *grid, kernel.shape[3]), y.dtype)
  forward = functools.partial(_direct, kernel=kernel, stride=stride)
  return jax.linear_transpose(forward, like)(y)[0]


def _f_ours(case: Case):
  """The f of eq. (2) by the library's own network."""
  sides, strides, features = zip(*case.layers, strict=True)
  net = dnet_jax.Descriptor(
    features=features,
    kernel_sizes=sides,
    strides=strides,
    precision=case.precision,
  )

  def f(params, y):
    tree = {f'layers_{i}': p for i, p in enumerate(params[:-1])}
    return net.apply({'params': tree | {'last': params[-1]}}, y)

  return f


def _f_direct(case: Case):
  def f(params, y):
    for (_, stride, _), p in zip(case.layers, params[:-1], strict=True):
      y = jax.nn.relu(_direct(y, p['kernel'], stride) + p['bias'])
    y = y.reshape(len(y), -1) @ params[-1]['kernel'] + params[-1]['bias']
    return y[:, 0]

  return f


def _g_ours(case: Case):
  """The g of eq. (21) by the library's own network."""
  sides, factors, features = zip(*case.layers, strict=True)
  net = dnet_jax.Generator(
    features=features,
    factors=factors,
    kernel_size=sides[0],
    base=(case.grid,) * 3,
    precision=case.precision,
  )
  g = dnet_jax.generator_fn(net, train=True)

  def generate(params, z):
    tree, running = {}, {}
    for i, p in enumerate(params):
      name = f'ConvTranspose_{i - 1}' if i else 'Dense_0'
      tree[name] = {'kernel': p['kernel'], 'bias': p['bias']}
      if 'scale' in p:
        tree[f'BatchNorm_{i}'] = {'scale': p['scale'], 'bias': p['shift']}
        running[f'BatchNorm_{i}'] = {
          'mean': jnp.zeros_like(p['shift']),
          'var': jnp.ones_like(p['scale']),
        }
    return g({'params': tree}, {'batch_stats': running}, z)[0]

  return generate


def _g_direct(case: Case):
  def normalise(h, p):
    mean = h.mean((0, 1, 2, 3))
    variance = ((h - mean) ** 2).mean((0, 1, 2, 3))
    h = (h - mean) * lax.rsqrt(variance + 1e-5) * p['scale'] + p['shift']
    return jax.nn.relu(h)

  def g(params, z):
    h = z @ params[0]['kernel'] + params[0]['bias']
    h = h.reshape(len(z), *[case.grid] * 3, case.channels)
    for (_, factor, _), before, p in zip(
      case.layers, params[:-1], params[1:], strict=True
    ):
      h = normalise(h, before)
      h = _direct_transpose(h, p['kernel'], factor) + p['bias']
    return jnp.tanh(h)

  return g


def _objective(case: Case, label: str, observed=None):
  """The function whose gradient is the score: `(params, y) -> scalar`."""
  if case.generator:
    g = (_g_ours if label == 'ours' else _g_direct)(case)
    return lambda params, z: -((observed - g(params, z)) ** 2).sum() / len(z)
  f = (_f_ours if label == 'ours' else _f_direct)(case)
  return lambda params, y: f(params, y).sum()


def _learn_jax(case: Case, label: str, params, y, observed):
  """A whole learning step, its arguments, and which of these is its state."""
  if case.generator:
    learner = dnet_jax.make_learner(
      lambda params, s, z, y: (
        -_objective(case, label, y)(params, z),
        (s, {}),
      ),
      optax.adam(3e-4, b1=0.6),
    )
    return learner.update, (learner.init(params), y, observed), 0
  f = (_f_ours if label == 'ours' else _f_direct)(case)
  energy_fn = dnet_jax.descriptor_energy(f)
  algorithm = dnet_jax.maximum_likelihood(
    energy_fn,
    dnet_jax.make_learner(
      dnet_jax.contrastive_loss(energy_fn), optax.adam(1e-3, b1=0.5)
    ),
    dnet_jax.make_sampler(num_steps=case.num_steps, step_size=case.step_size),
    dnet_jax.persistent(
      dnet_jax.noise_source(y.shape[1:]),
      num_chains=len(y),
      positions=jnp.array(y)[None],
    ),
  )
  state = algorithm.init(jax.random.key(0), {'descriptor': params})
  schedule = dnet_jax.Schedule(jnp.float32(1), jnp.float32(1))
  return algorithm.step, (jax.random.key(1), state, observed, schedule), 1


def _compile(function, args, state: int | None):
  """The compiled call, seconds of compilation, MiB of XLA's buffers.

  `state` is the position of a state in `args`, if there is one. A call then
  donates the state, takes the first result as the next state, as in training,
  and returns the rest.
  """
  donated = () if state is None else (state,)
  args = list(args)
  for i in donated:
    args[i] = jax.tree.map(jnp.copy, args[i])
  start = time.perf_counter()
  compiled = jax.jit(function, donate_argnums=donated).lower(*args).compile()
  seconds = time.perf_counter() - start
  memory = compiled.memory_analysis()
  mib = (
    memory.temp_size_in_bytes
    + memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
  ) / 2**20

  def call():
    result = jax.block_until_ready(compiled(*args))
    for i in donated:
      args[i], result = result
    return result

  return call, seconds, mib


def jax_contender(
  case: Case, label: str, arrays, what: Sequence[str], score_steps: int
) -> Contender:
  """Ours or direct; `what` of 'score' and 'learn'."""
  params, y, observed = jax.tree.map(jnp.asarray, arrays)
  score = jax.grad(_objective(case, label, observed), argnums=1)

  def run(num_steps, params, y, step_size):
    def step(carry, _):
      y, _ = carry
      s = score(params, y)
      return (y + step_size * s, s), None

    carry = (y, jnp.zeros_like(y))
    return lax.scan(step, carry, length=num_steps)[0][1]

  jobs = {}
  if 'score' in what and label == 'ours':
    # With a step size of 0 the last score is that of y; XLA does not know it.
    for name, n in (('score_few', 2), ('score_many', 2 + score_steps)):
      args = params, y, jnp.float32(0)
      jobs[name] = functools.partial(run, n), args, None
  elif 'score' in what:
    jobs['score'] = score, (params, y), None
  if 'learn' in what:
    jobs['learn'] = _learn_jax(case, label, params, y, observed)
  made = {name: _compile(*job) for name, job in jobs.items()}
  return Contender(*({k: v[i] for k, v in made.items()} for i in range(3)))


def reference_score(case: Case, arrays, chains: int) -> np.ndarray:
  """The score of the first chains by the direct algorithm in float64.

  Batch normalisation couples chains, so a generator takes all of them.
  """
  with jax.enable_x64(True):
    params, y, observed = jax.tree.map(
      lambda a: jnp.asarray(a, jnp.float64), arrays
    )
    if not case.generator:
      y = y[:chains]
    score = jax.grad(_objective(case, 'direct', observed), argnums=1)
    return np.asarray(jax.jit(score)(params, y))


# PyTorch.


def settle_torch(tf32: bool):
  """Uses all cores, and on a GPU the fastest algorithm, found by trial."""
  if torch is not None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True


def _torch_device():
  return 'cuda' if torch.cuda.is_available() else 'cpu'


class _TorchArrays(NamedTuple):
  params: list[dict[str, Any]]
  y: Any
  observed: Any


def _torch_arrays(case: Case, arrays, channels_last: bool) -> _TorchArrays:
  """Channels first, in PyTorch's order, in one of its memory formats."""

  def five(a):
    a = torch.tensor(a, device=_torch_device()).permute(0, 4, 1, 2, 3)
    return a.contiguous(memory_format=form)

  form = torch.channels_last_3d if channels_last else torch.contiguous_format
  params, y, observed = arrays
  result = []
  for p in params:
    p = {k: torch.tensor(a, device=_torch_device()) for k, a in p.items()}
    if p['kernel'].ndim == 5:
      # Transposed ones have (in, out, ...), too; ours have (..., out, in).
      kernel = p['kernel'].permute(4, 3, 0, 1, 2)
      p['kernel'] = kernel.contiguous(memory_format=form)
    elif not channels_last and not case.generator:
      # The last layer sees (channels, D, H, W).
      *_, (_, out, _, n, _, _) = sizes(case)
      kernel = p['kernel'].reshape(out**3, n).T.reshape(-1, 1)
      p['kernel'] = kernel.contiguous()
    result.append(p)
  y = torch.tensor(y, device=_torch_device()) if case.generator else five(y)
  return _TorchArrays(result, y, five(observed))


def _torch_f(case: Case, channels_last: bool):
  functional = torch.nn.functional
  pads = [
    divmod(max((out - 1) * stride + side - grid, 0), 2)
    for grid, out, _, _, side, stride in sizes(case)
    if not case.generator
  ]

  def f(params, y):
    for (_, stride, _), (low, odd), p in zip(
      case.layers, pads, params[:-1], strict=True
    ):
      if odd:
        y = functional.pad(y, (low, low + 1) * 3)
      y = functional.conv3d(
        y, p['kernel'], p['bias'], stride, 0 if odd else low
      )
      y = functional.relu(y)
    if channels_last:
      y = y.permute(0, 2, 3, 4, 1)
    y = y.reshape(len(y), -1) @ params[-1]['kernel'] + params[-1]['bias']
    return y[:, 0]

  def g(params, z):
    h = functional.linear(z, params[0]['kernel'].T, params[0]['bias'])
    h = h.reshape(len(z), *[case.grid] * 3, case.channels)
    h = h.permute(0, 4, 1, 2, 3)
    if not channels_last:
      h = h.contiguous()
    for (side, factor, _), before, p in zip(
      case.layers, params[:-1], params[1:], strict=True
    ):
      h = functional.batch_norm(
        h, None, None, before['scale'], before['shift'], training=True, eps=1e-5
      )
      h = functional.relu(h)
      low, odd = divmod(max(side - factor, 0), 2)
      out = [factor * n for n in h.shape[2:]]
      h = functional.conv_transpose3d(h, p['kernel'], p['bias'], factor, low)
      if odd:
        h = h[:, :, : out[0], : out[1], : out[2]]
    return torch.tanh(h)

  return g if case.generator else f


def _torch_calls(case: Case, arrays, variant: str):
  """Functions `score` and `learn` of a memory format, compiled or not."""
  channels_last = 'channels_last_3d' in variant
  data = _torch_arrays(case, arrays, channels_last)
  f = _torch_f(case, channels_last)
  f = torch.compile(f) if 'compiled' in variant else f

  def wait(x):
    if _torch_device() == 'cuda':
      torch.cuda.synchronize()
    return x

  def score():
    y = data.y.detach().requires_grad_()
    if case.generator:
      value = -((data.observed - f(data.params, y)) ** 2).sum() / len(y)
    else:
      value = f(data.params, y).sum()
    return wait(torch.autograd.grad(value, y)[0])

  weights = [
    {k: a.clone().requires_grad_() for k, a in p.items()} for p in data.params
  ]
  leaves = [a for p in weights for a in p.values()]
  rate, beta = (3e-4, 0.6) if case.generator else (1e-3, 0.5)
  optimizer = torch.optim.Adam(leaves, rate, (beta, 0.999))

  def energy(params, y):
    return (y**2).sum((1, 2, 3, 4)) / (2 * 0.5**2) - f(params, y)

  def learn():
    y = data.y
    if case.generator:
      loss = ((data.observed - f(weights, y)) ** 2).sum() / len(y)
    else:
      frozen = [{k: a.detach() for k, a in p.items()} for p in weights]
      for _ in range(case.num_steps):
        y = y.detach().requires_grad_()
        grad = torch.autograd.grad(energy(frozen, y).sum(), y)[0]
        noise = torch.randn_like(y)
        y = (
          y.detach()
          - case.step_size / 2 * grad
          + math.sqrt(case.step_size) * noise
        )
      both = energy(weights, torch.cat([data.observed, y]))
      batch = len(data.observed)
      loss = both[:batch].mean() - both[batch:].mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return wait(loss.detach())

  return {'score': score, 'learn': learn}


def torch_contender(
  case: Case, arrays, what: Sequence[str], compiled: bool
) -> Contender:
  """The fastest of PyTorch's settings, by the score (best of two calls)."""
  variants = ['contiguous', 'channels_last_3d']
  if compiled:
    variants += [f'{variant}, compiled' for variant in variants]
  made, first, best = {}, {}, {}
  notes = []
  for variant in variants:
    calls = _torch_calls(case, arrays, variant)
    try:
      first[variant] = _seconds(calls['score'])
    except Exception as error:
      # torch.compile does not work everywhere; the other variants must.
      if 'compiled' not in variant:
        raise
      notes.append(f'{variant} failed: {type(error).__name__}')
      continue
    best[variant] = min(_seconds(calls['score']) for _ in range(2))
    made[variant] = calls
    notes.append(f'{variant} {best[variant]:.3g} s')
  variant = min(best, key=best.get)
  return Contender(
    {k: v for k, v in made[variant].items() if k in what},
    {'score': max(first[variant] - best[variant], 0.0)},
    {},
    f'torch: {variant} (of {"; ".join(notes)})',
    variant,
  )


def as_numpy(label: str, x) -> np.ndarray:
  if label == 'torch':
    x = (x.permute(0, 2, 3, 4, 1) if x.ndim == 5 else x).cpu().numpy()
  return np.asarray(x)


# Measuring.


def _seconds(call: Callable[[], Any]) -> float:
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def interleaved(
  calls: dict[Any, Callable[[], Any]], repeats: int, limit: float
) -> dict[Any, list[float]]:
  """Times calls in turn; one that takes long is called less often."""
  seconds = {name: [] for name in calls}
  for i in range(repeats):
    for name, call in calls.items():
      spent = sum(seconds[name])
      if i == 0 or spent * (i + 1) / i < limit:
        seconds[name].append(_seconds(call))
  return seconds


def floors() -> dict[str, float]:
  """The machine's matrix product (GFLOP/s) and copy (GB/s, read and write)."""
  n = 2048
  a = jnp.ones((n, n), jnp.float32)
  x = jnp.ones(2**25, jnp.float32)  # 128 MiB
  product = jax.jit(lambda a: a @ a).lower(a).compile()
  # In a loop, so that no new memory is allocated.
  add = jax.jit(lambda x: lax.fori_loop(0, 8, lambda _, x: x + 1, x))
  copy = add.lower(x).compile()
  calls = {
    'matmul_gflops': lambda: jax.block_until_ready(product(a)),
    'copy_gbs': lambda: jax.block_until_ready(copy(x)),
  }
  if torch is not None:
    b = torch.ones(n, n, device=_torch_device())
    z = torch.ones(2**25, device=_torch_device())
    w = torch.empty_like(z)

    def wait(_):
      if _torch_device() == 'cuda':
        torch.cuda.synchronize()

    calls['torch_matmul_gflops'] = lambda: wait(b @ b)
    calls['torch_copy_gbs'] = lambda: wait(w.copy_(z))
  for call in calls.values():
    call()
  seconds = interleaved(calls, 7, 60.0)
  work = {
    'matmul_gflops': 2e-9 * n**3,
    'copy_gbs': 8 * 8e-9 * x.size,
    'torch_matmul_gflops': 2e-9 * n**3,
    'torch_copy_gbs': 8e-9 * x.size,
  }
  return {
    name: round(work[name] / statistics.median(values), 1)
    for name, values in seconds.items()
  }


def _estimate(case: Case, arrays) -> float:
  """Seconds of the direct score, from that of one chain."""
  one = case._replace(chains=1, batch=1)
  few = jax_contender(
    one, 'direct', (arrays[0], arrays[1][:1], arrays[2][:1]), ['score'], 0
  )
  few.calls['score']()
  return _seconds(few.calls['score']) * case.chains


def measure(
  name: str,
  case: Case,
  *,
  labels: Sequence[str] = LABELS,
  what: Sequence[str] = ('score', 'learn'),
  repeats: int = 5,
  limit: float = 60.0,
  score_steps: int = 4,
  reference_chains: int = 1,
  torch_compile: bool = False,
) -> dict[str, Any]:
  """One row: times, ratios, errors and compile times of one network."""
  arrays = make_arrays(case)
  notes = [case.note] if case.note else []
  contenders, estimated = {}, {}
  for label in labels:
    if label == 'torch':
      if torch is None:
        notes.append(_OPTIONAL)
        continue
      contenders[label] = torch_contender(case, arrays, what, torch_compile)
    elif label == 'ours':
      contenders[label] = jax_contender(case, label, arrays, what, score_steps)
    else:
      seconds = _estimate(case, arrays)
      score_work, learn_work = giga_flops(case)
      times = {'score': seconds, 'learn': seconds * learn_work / score_work}
      late = {k: v for k, v in times.items() if k in what and v > limit}
      notes += [f'direct {k} left out: {v:.0f} s' for k, v in late.items()]
      estimated[label] = late
      rest = [k for k in what if k not in late]
      contenders[label] = jax_contender(case, label, arrays, rest, 0)
  calls = {
    (label, call): function
    for label, contender in contenders.items()
    for call, function in contender.calls.items()
  }
  row = {
    'network': name,
    **case._asdict(),
    'compile_seconds': {k: v.compile_seconds for k, v in contenders.items()},
    'xla_buffers_mib': {k: v.buffers_mib for k, v in contenders.items()},
    'gflop': dict(zip(('score', 'learn'), giga_flops(case), strict=True)),
  }
  # The first call of each, and its error.
  results = {key: call() for key, call in calls.items()}
  if reference_chains:
    exact = reference_score(case, arrays, reference_chains)
    row['error'] = {
      label: float(
        np.linalg.norm(as_numpy(label, x)[: len(exact)] - exact)
        / np.linalg.norm(exact)
      )
      for (label, call), x in results.items()
      if call in ('score', 'score_few')
    }
  del results
  notes += [c.note for c in contenders.values() if c.note]
  row['variant'] = {k: v.variant for k, v in contenders.items() if v.variant}
  all_seconds = interleaved(calls, repeats, limit)
  if 'score' in what and 'ours' in contenders:
    few = all_seconds.pop(('ours', 'score_few'))
    many = all_seconds.pop(('ours', 'score_many'))
    pairs = list(zip(few, many, strict=False))
    score = [(b - a) / score_steps for a, b in pairs]
    all_seconds['ours', 'score'] = score
    all_seconds['ours', 'setup'] = [
      a - 2 * b for (a, _), b in zip(pairs, score, strict=True)
    ]
  seconds = {label: {} for label in contenders}
  for (label, call), values in all_seconds.items():
    seconds[label][call] = statistics.median(values)
  row['seconds'] = seconds
  row['all_seconds'] = {
    f'{label} {call}': [round(s, 5) for s in v]
    for (label, call), v in all_seconds.items()
  }
  row['ratio'] = {
    f'{label} {call}': seconds[label][call] / seconds['ours'][call]
    for label in seconds
    for call in ('score', 'learn')
    if label != 'ours' and call in seconds[label] and 'ours' in seconds
  }
  if case.paper_steps and case.paper_steps != case.num_steps:
    more = case.paper_steps - case.num_steps
    row['learn_at_paper_steps'] = {
      label: s['learn'] + more * s['score']
      for label, s in seconds.items()
      if 'learn' in s and 'score' in s
    }
  row['estimated_seconds'] = estimated  # of what was left out
  row['load'] = os.getloadavg()
  row['notes'] = notes
  return row


# Memory: a fresh process for each network, contender and call.


def _status_mib(field: str) -> float:
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{field}:'):
      return int(line.split()[1]) / 2**10
  raise ValueError(f'no {field} in /proc/self/status')


def memory_here(case: Case, label: str, variant: str, call: str) -> float:
  """MiB by which calls make this process grow, plus MiB of their arguments."""
  # One Langevin step needs as much memory as many.
  case = case._replace(num_steps=min(case.num_steps, 2))
  arrays = make_arrays(case)
  inputs = sum(a.nbytes for a in jax.tree.leaves(arrays)) / 2**20
  if label == 'torch':
    function = _torch_calls(case, arrays, variant)[call]
  else:
    # Compiled here, so that the compiler's own peak is not counted.
    calls = jax_contender(case, label, arrays, [call], 1).calls
    function = calls['score_many' if 'score_many' in calls else call]
  gc.collect()
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # Resets the peak.
  before = _status_mib('VmRSS')
  function()
  function()
  if label == 'torch' and _torch_device() == 'cuda':
    return torch.cuda.max_memory_allocated() / 2**20
  return _status_mib('VmHWM') - before + inputs


def memory_apart(name: str, case: Case, row) -> dict[str, float]:
  """`memory_here` of each contender and call of a row, each in a process."""
  result = {}
  for label, seconds in row['seconds'].items():
    for call in ('score', 'learn'):
      if call not in seconds:
        continue
      job = [name, label, row['variant'].get(label, ''), call]
      done = subprocess.run(
        [
          *(sys.executable, '-m', 'benchmarks.langevin'),
          f'--memory_job={json.dumps(job)}',
          *(f'--chains={case.chains}', f'--batch={case.batch}'),
        ],
        capture_output=True,
        text=True,
        check=False,
      )
      last = done.stdout.strip().splitlines()[-1:]
      result[f'{label} {call}'] = float(last[0]) if last else math.nan
  return result


# Reports.


def _program() -> str:
  return pathlib.Path(sys.argv[0]).stem


def machine() -> dict[str, Any]:
  """What the numbers were measured on."""
  info = pathlib.Path('/proc/cpuinfo')
  fields = {}
  if info.exists():
    for line in info.read_text().splitlines():
      key, _, value = line.partition(':')
      fields.setdefault(key.strip(), value.strip())
  cpu_flags = fields.get('flags', '').split()
  return {
    'cpu': fields.get('model name', platform.processor()),
    'cpu_flags': len(cpu_flags),
    'avx512': 'avx512f' in cpu_flags,
    'cores': len(os.sched_getaffinity(0)),
    'devices': [d.device_kind for d in jax.devices()],
    'python': platform.python_version(),
    'jax': jax.__version__,
    'torch': None if torch is None else torch.__version__,
    'torch_threads': None if torch is None else torch.get_num_threads(),
    'malloc': os.environ.get('GLIBC_TUNABLES', ''),  # huge pages or not
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'command': shlex.join(
      ['python', '-m', f'benchmarks.{_program()}', *sys.argv[1:]]
    ),
    'load_before': os.getloadavg(),
  }


def cell(value, form: str = '.3g') -> str:
  return '-' if value is None else f'{value:{form}}'


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]):
  lines = [header, *rows]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  for line in lines:
    first, *rest = [c.rjust(w) for c, w in zip(line, widths, strict=True)]
    print(first.strip().ljust(widths[0]), *rest, sep='  ')


def print_rows(rows: Sequence[dict[str, Any]]):
  """The table: two lines for each network."""
  table = []
  for row in rows:
    for call in ('score', 'learn'):
      s = {k: row['seconds'].get(k, {}).get(call) for k in LABELS}
      memory = row.get('memory_mib', {})
      examples = f'{row["chains"]}'
      if call == 'learn':
        examples += f'+{row["batch"]}, K={row["num_steps"]}'
      compiled = row['compile_seconds'].get('ours', {})
      table.append(
        [
          f'{row["section"]} {row["network"]} {row["grid"]}^3',
          f'{call} {examples}',
          *(cell(s[k]) for k in LABELS),
          cell(row['seconds']['ours'].get('setup'), '.2g')
          if call == 'score'
          else '',
          *(cell(row['ratio'].get(f'{k} {call}'), '.2f') for k in LABELS[1:]),
          *(
            cell(row.get('error', {}).get(k), '.0e') if call == 'score' else ''
            for k in LABELS[:2]
          ),
          *(cell(memory.get(f'{k} {call}'), '.0f') for k in LABELS[:2]),
          cell(
            compiled.get('score_many' if call == 'score' else 'learn'), '.1f'
          ),
          *(
            cell(s[k] and row['gflop'][call] / s[k], '.0f') for k in LABELS[:2]
          ),
        ]
      )
  print_table(
    [
      *('network', 'call', 'ours s', 'torch s', 'direct s', 'setup s'),
      *('torch/ours', 'direct/ours', 'error', 'torch error', 'MiB'),
      *('torch MiB', 'compile s', 'GFLOP/s', 'torch GFLOP/s'),
    ],
    table,
  )
  for row in rows:
    for note in row['notes']:
      print(f'{row["network"]}: {note}')
    for label, value in row.get('learn_at_paper_steps', {}).items():
      print(
        f'{row["network"]}: {label} at K={row["paper_steps"]}, by adding '
        f'scores: {value:.1f} s'
      )


def growth_cases() -> dict[str, Case]:
  """6.1's network with more chains, a larger grid or other filters."""
  base = CASES['paper_3_layer']
  first, second = base.layers
  cases = {
    f'chains {n}': base._replace(chains=n) for n in (1, 5, 25, 50, 100, 200)
  }
  cases |= {f'grid {n}': base._replace(grid=n) for n in (16, 32, 48, 64)}
  cases |= {
    f'filters {n}': base._replace(layers=((*first[:2], n), second))
    for n in (32, 64, 128, 200)
  }
  return cases


def print_growth(rows: Sequence[dict[str, Any]]):
  table = []
  for row in rows:
    ours = row['seconds']['ours']
    theirs = row['seconds'].get('torch', {}).get('score')
    table.append(
      [
        row['network'],
        cell(ours['score']),
        cell(ours['setup'], '.2g'),
        cell(theirs),
        cell(theirs and theirs / ours['score'], '.2f'),
        cell(1e3 * ours['score'] / row['chains']),
        cell(row['xla_buffers_mib']['ours']['score_many'], '.0f'),
        cell(row['gflop']['score'] / ours['score'], '.0f'),
      ]
    )
  print_table(
    [
      *('score of 6.1', 'ours s', 'setup s', 'torch s', 'torch/ours'),
      *('ms a chain', 'buffers MiB', 'GFLOP/s'),
    ],
    table,
  )


def main(argv: Sequence[str]):
  if len(argv) > 1:
    raise app.UsageError(f'arguments without a flag: {argv[1:]}')
  values = flags.FLAGS
  change = {
    'chains': values.chains,
    'batch': values.batch,
    'num_steps': values.num_steps,
  }

  def changed(case):
    case = case._replace(**{k: v for k, v in change.items() if v is not None})
    return case._replace(num_steps=0) if case.generator else case

  settle_torch(values.tf32)
  if values.tf32:
    jax.config.update('jax_default_matmul_precision', 'tensorfloat32')
  if values.memory_job:
    name, *job = json.loads(values.memory_job)
    print(memory_here(changed(CASES[name]), *job))
    return
  result = {'machine': machine(), 'floors': floors(), 'networks': []}
  print(json.dumps(result['machine'], indent=2))
  print(result['floors'])
  arguments = {
    'repeats': values.repeats,
    'limit': values.limit,
    'score_steps': values.score_steps,
    'torch_compile': values.torch_compile,
  }

  def write():
    result['machine']['load_after'] = os.getloadavg()
    if values.out:
      pathlib.Path(values.out).write_text(json.dumps(result, indent=2) + '\n')

  for name in values.networks:
    case = changed(CASES[name])
    row = measure(
      name,
      case,
      labels=values.contenders,
      reference_chains=values.reference_chains,
      **arguments,
    )
    if values.memory:
      row['memory_mib'] = memory_apart(name, case, row)
    result['networks'].append(row)
    # After each network, so that finished rows are kept if a later one fails.
    write()
    print_rows([row])
    jax.clear_caches()
    gc.collect()
  if values.growth:
    result['growth'] = []
    for name, case in growth_cases().items():
      result['growth'].append(
        measure(
          name,
          case,
          labels=('ours', 'torch'),
          what=['score'],
          reference_chains=0,
          **arguments,
        )
      )
      write()
      jax.clear_caches()
      gc.collect()
  print()
  print_rows(result['networks'])
  if values.growth:
    print()
    print_growth(result['growth'])
  print('load', result['machine']['load_before'], 'to', os.getloadavg())


def define_flags():
  paper = [name for name in CASES if name.startswith('paper')]
  flags.DEFINE_list('networks', paper, f'Of {", ".join(CASES)}; may be empty.')
  flags.DEFINE_list('contenders', list(LABELS), 'Of ours, torch and direct.')
  flags.DEFINE_integer('chains', None, "Chains; None: the network's own.", 1)
  flags.DEFINE_integer('batch', None, "Mini-batch; None: the network's own.", 1)
  flags.DEFINE_integer('num_steps', None, "K; None: the network's own.", 0)
  flags.DEFINE_integer('repeats', 5, 'Calls of which the median is taken.', 1)
  flags.DEFINE_integer(
    'score_steps', 4, 'By how many steps the longer scan is longer.', 1
  )
  flags.DEFINE_float('limit', 60.0, 'Seconds for the repeats of one call.')
  flags.DEFINE_integer(
    'reference_chains', 1, 'Chains in float64, for errors; 0: no errors.', 0
  )
  flags.DEFINE_bool('memory', True, 'Measure memory, in other processes.')
  flags.DEFINE_bool('growth', False, 'Measure how the cost of 6.1 grows.')
  flags.DEFINE_bool('torch_compile', False, 'Try torch.compile as well.')
  flags.DEFINE_bool('tf32', False, 'TF32 on a GPU, for all contenders.')
  flags.DEFINE_string('out', None, 'JSON file for all numbers.')
  flags.DEFINE_string('memory_job', None, 'Used by --memory.')


if __name__ == '__main__':
  define_flags()
  app.run(main)
