"""What is best where: a model of the cost on CPU, a measured table on GPU."""

from dnet_jax.convolution import columns
from dnet_jax.convolution import derivatives
from dnet_jax.convolution import matrices
from dnet_jax.convolution import ordinary
from dnet_jax.convolution import transforms
from dnet_jax.convolution.axes import Axes
from dnet_jax.convolution.methods import Later
from dnet_jax.convolution.methods import Method
from dnet_jax.convolution.methods import Plan
from dnet_jax.convolution.methods import whole_axis

BY_NAME = {
  'direct': Method(ordinary.direct, ordinary.direct_transpose, whole_axis),
  'phases': Method(ordinary.phases, ordinary.phases_transpose, whole_axis),
  'im2col': Method(
    derivatives.correlate,
    derivatives.transpose,
    whole_axis,
    columns.cost,
    columns.FACTORS,
  ),
  'fourier': Method(
    derivatives.correlate,
    derivatives.transpose,
    whole_axis,
    transforms.cost,
    transforms.FOURIER,
  ),
  'winograd': Method(
    derivatives.correlate,
    derivatives.transpose,
    transforms.winograd_tiles,
    transforms.cost,
    transforms.WINOGRAD,
  ),
}
METHODS = tuple(BY_NAME)
_GPUS = ('gpu', 'cuda', 'rocm')
# The best by time of a score and of a learning step together, on an H100 and an
# H200, of layers (side of the grid, channels in, side of the kernel, stride,
# channels out) that were measured. In float32 with TF32, but 'fourier'.
_MEASURED = {
  (32, 1, 16, 3, 200): 'fourier',  # 6.1, first
  (11, 200, 6, 2, 100): 'phases',  # 6.1, second
  (32, 1, 9, 2, 64): 'fourier',  # 6.4, first
  (16, 64, 7, 2, 128): 'direct',  # 6.4, second: 103 TFLOP/s, nothing else tried
  (64, 1, 5, 3, 100): 'phases',  # 6.6
}
_LARGE_SIDE = 9  # Of a kernel for which 'fourier' pays with one channel.


def name_on_gpu(axes: Axes, c: int, n: int) -> str:
  """The method on a GPU: measured, or by a rule that the measured suggest.

  Args:
    axes: of the correlation.
    c: channels in.
    n: channels out.

  Returns:
    A name in `METHODS`.
  """
  layers = {(axis.size, c, axis.taps, axis.stride, n) for axis in axes}
  if len(layers) == 1:
    (layer,) = layers
    if layer in _MEASURED:
      return _MEASURED[layer]
  if c == 1 and min(axis.taps for axis in axes) >= _LARGE_SIDE:
    return 'fourier'
  return 'phases' if max(axis.stride for axis in axes) > 1 else 'direct'


def check_method(method: str | None) -> None:
  """Raises ValueError for a name that is none."""
  if method is not None and method not in BY_NAME:
    raise ValueError(f'method must be one of {METHODS} or None, got {method!r}')


def later(axes: Axes) -> Later:
  """The fastest plan of the platform that a program is lowered for."""
  return Later(axes, _fastest)


def _fastest(axes, chains, c, n, platform):
  return choose(axes, None, chains, c, n, platform)


def choose(
  axes: Axes, method: str | None, chains: int, c: int, n: int, platform: str
) -> Plan:
  """The plan to use: a pure function of sizes and platform.

  Args:
    axes: of the correlation.
    method: a name in `METHODS`; None: the fastest, of the model's cost on
      'cpu', `name_on_gpu` on a GPU, 'direct' elsewhere.
    chains: how many.
    c: channels in.
    n: channels out.
    platform: of JAX: 'cpu', 'gpu', 'tpu', ...

  Raises:
    ValueError: for a method that is none, or that cannot do so many taps.
  """
  check_method(method)
  if chains == 0:
    method = 'direct'
  elif method is None and platform != 'cpu':
    method = name_on_gpu(axes, c, n) if platform in _GPUS else 'direct'
  if method is None:
    candidates = [m for m in BY_NAME.values() if m.cost is not None]
  else:
    candidates = [BY_NAME[method]]
  plans = [Plan(m, tile, axes) for m in candidates for tile in m.tiles(axes)]
  if not plans:
    raise ValueError(
      f'method {method!r} needs at most {matrices.MAX_POINTS} taps for each '
      f'phase, got kernel sides {[axis.taps for axis in axes]} at strides '
      f"{[axis.stride for axis in axes]}; use 'fourier'"
    )
  if len(plans) == 1:
    return plans[0]

  def seconds(plan: Plan) -> float:
    cost = plan.method.cost
    assert cost is not None, 'a method without a cost has one plan'
    return cost(plan, chains, c, n)

  return min(plans, key=seconds)
