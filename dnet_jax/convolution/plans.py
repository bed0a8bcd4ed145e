"""Which method to use: by a cost model on CPU, by a measured table on GPU."""

from dnet_jax.convolution import columns
from dnet_jax.convolution import derivatives
from dnet_jax.convolution import matrices
from dnet_jax.convolution import ordinary
from dnet_jax.convolution import shifts
from dnet_jax.convolution import spectra
from dnet_jax.convolution import transforms
from dnet_jax.convolution.axes import Axes
from dnet_jax.convolution.methods import Later
from dnet_jax.convolution.methods import Method
from dnet_jax.convolution.methods import Plan
from dnet_jax.convolution.methods import whole_axis
from dnet_jax.convolution.precision import check_precision

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
  'fourier_complex': Method(
    derivatives.correlate,
    derivatives.transpose,
    whole_axis,
    factors=spectra.FACTORS,
  ),
  'shifts': Method(
    derivatives.correlate,
    derivatives.transpose,
    whole_axis,
    factors=shifts.FACTORS,
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
# The table below was measured with 'fourier'. This is its form for a GPU, with
# no copies of the small matrices and fewer passes over memory. It has not been
# measured yet.
_FOURIER = 'fourier_complex'
# The fastest method for a score and a learning step together, of the layers
# (side of the grid, channels in, side of the kernel, stride, channels out) that
# were measured on an H100 and an H200. All but 'fourier' in TF32.
_MEASURED = {
  (32, 1, 16, 3, 200): _FOURIER,  # 6.1, first
  (11, 200, 6, 2, 100): 'phases',  # 6.1, second
  (32, 1, 9, 2, 64): _FOURIER,  # 6.4, first
  (16, 64, 7, 2, 128): 'direct',  # 6.4, second: 103 TFLOP/s, nothing else tried
  (64, 1, 5, 3, 100): 'phases',  # 6.6
}
# Where another method is the best in bfloat16.
_MEASURED_BFLOAT16 = _MEASURED | {(32, 1, 9, 2, 64): 'phases'}
_LARGE_SIDE = 9  # Of a kernel for which 'fourier' pays with one channel.


def name_on_gpu(
  axes: Axes, c: int, n: int, precision: str | None = None
) -> str:
  """The method on a GPU: as measured, or by a rule drawn from measurements.

  Args:
    axes: of the correlation.
    c: channels in.
    n: channels out.
    precision: of the products.

  Returns:
    A name in `METHODS`.
  """
  layers = {(axis.size, c, axis.taps, axis.stride, n) for axis in axes}
  if len(layers) == 1:
    (layer,) = layers
    table = _MEASURED_BFLOAT16 if precision == 'bfloat16' else _MEASURED
    if layer in table:
      return table[layer]
  if c == 1 and min(axis.taps for axis in axes) >= _LARGE_SIDE:
    return _FOURIER
  return 'phases' if max(axis.stride for axis in axes) > 1 else 'direct'


def check_method(method: str | None) -> None:
  """Raises ValueError for an unknown name."""
  if method is not None and method not in BY_NAME:
    raise ValueError(f'method must be one of {METHODS} or None, got {method!r}')


def later(axes: Axes, precision: str | None = None) -> Later:
  """The fastest plan of the platform that a program is lowered for."""
  check_precision(precision)
  return Later(axes, _fastest, precision)


def _fastest(axes, chains, c, n, platform, precision):
  return choose(axes, None, chains, c, n, platform, precision)


def choose(
  axes: Axes,
  method: str | None,
  chains: int,
  c: int,
  n: int,
  platform: str,
  precision: str | None = None,
) -> Plan:
  """The plan to use: a pure function of sizes and platform.

  Args:
    axes: of the correlation.
    method: a name in `METHODS`; None: the fastest by the cost model on 'cpu',
      `name_on_gpu` on a GPU, 'direct' elsewhere.
    chains: how many.
    c: channels in.
    n: channels out.
    platform: of JAX: 'cpu', 'gpu', 'tpu', ...
    precision: of its products, one of `PRECISIONS` or None.

  Raises:
    ValueError: for an unknown method or precision, or more taps than the
      method supports.
  """
  check_method(method)
  check_precision(precision)
  if chains == 0:
    method = 'direct'
  elif method is None and platform != 'cpu':
    method = 'direct'
    if platform in _GPUS:
      method = name_on_gpu(axes, c, n, precision)
  if method is None:
    candidates = [m for m in BY_NAME.values() if m.cost is not None]
  else:
    candidates = [BY_NAME[method]]
  plans = [
    Plan(m, tile, axes, precision) for m in candidates for tile in m.tiles(axes)
  ]
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
