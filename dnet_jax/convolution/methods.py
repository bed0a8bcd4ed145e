"""What a method is: a value with its functions.

Every fast algorithm for a correlation, which is bilinear, has the form

  y = O [ (I x) * (K w) ]

with linear maps I, K and O, and `*` a matrix product over channels for each
"frequency". `Factors` are these maps and their adjoints. What multiplies them,
chain by chain, in chunks and in all derivatives, is written once for all
methods in `derivatives`.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from dnet_jax import types
from dnet_jax.convolution.axes import Axes


class Limits(NamedTuple):
  """How many transformed chains there may be at a time.

  least: bytes that they may always take.
  most: bytes where `K w` is large: each chunk of chains reads all of it.
  fewest: chains, however large they are.
  """

  least: int
  most: int
  fewest: int


class Factors(NamedTuple):
  """I, K and O of a method. All take the plan first.

  Chains are `(m, D, H, W, channels)`, kernels `(kD, kH, kW, c, n)`. With
  `last`, chains are the last axis of a product, not the last but one, so that
  `K w` stands on its left.

  factor: `(plan, x)`: I x.
  kernel_factor: `(plan, w, transposed)`: K w, or its transpose in that layout.
  result: `(plan, product, m)`: O of a product, of m chains.
  factor_transposed: `(plan, product, m, c, last)`: the adjoint of `factor`.
  kernel_factor_transposed: `(plan, I x, O' y, c)`: the adjoint of
    `kernel_factor`, of the product of the two over chains.
  result_transposed: `(plan, y, last)`: the adjoint of `result`.
  result_is_product: whether O does nothing.
  chain_size: `(plan, c, n)`: bytes of one chain's transforms.
  kernel_size: `(plan, c, n)`: bytes of K w, beyond those of w.
  limits: of chains that are transformed at a time.
  family: what else the functions need to know.
  """

  factor: Callable[..., types.Array]
  kernel_factor: Callable[..., types.Array]
  result: Callable[..., types.Array]
  factor_transposed: Callable[..., types.Array]
  kernel_factor_transposed: Callable[..., types.Array]
  result_transposed: Callable[..., types.Array]
  result_is_product: bool
  chain_size: Callable[..., int]
  kernel_size: Callable[..., int]
  limits: Limits
  family: Any = None


class Method(NamedTuple):
  """A way to compute a correlation and its adjoint in the input.

  correlate: `(plan, x, w) -> y`, of `(m, D, H, W, c)`, in the dtype of x.
  transpose: `(plan, y, w) -> x`, its adjoint.
  tiles: `(axes)`: the tiles that it supports; empty where it does not apply.
  cost: `(plan, chains, c, n)`: seconds on a CPU by a model, of which only
    ratios matter; None: a CPU never chooses this method by itself.
  factors: of the methods that have them.
  """

  correlate: Callable[..., types.Array]
  transpose: Callable[..., types.Array]
  tiles: Callable[[Axes], Sequence[int]]
  cost: Callable[..., float] | None = None
  factors: Factors | None = None


class Plan(NamedTuple):
  """A method, its tile, the three axes and the precision of its products.

  A tile of 0 is one tile, the whole axis. The precision is one of
  `precision.PRECISIONS` or None.
  """

  method: Method
  tile: int
  axes: Axes
  precision: str | None = None


class Later(NamedTuple):
  """A plan that waits for the platform that the program is lowered for.

  axes: the three.
  choose: `(axes, chains, c, n, platform, precision) -> Plan`.
  precision: of its products, one of `precision.PRECISIONS` or None.
  """

  axes: Axes
  choose: Callable[..., Plan]
  precision: str | None = None


def known_plan(
  plan: Plan | Later, platform: str, chains: int, c: int, n: int
) -> Plan:
  """The plan, chosen now if it waits for the platform."""
  if isinstance(plan, Plan):
    return plan
  return plan.choose(plan.axes, chains, c, n, platform, plan.precision)


def factors_of(plan: Plan) -> Factors:
  """The factors of a plan whose method has them."""
  factors = plan.method.factors
  assert factors is not None, "XLA's own convolution has no factors"
  return factors


def whole_axis(axes: Axes) -> tuple[int, ...]:
  """The tiles of methods without tiling: one, the whole axis."""
  del axes
  return (0,)


# Rates of two cores of a server CPU, by which costs are compared.
FLOPS, BYTES = 1e11, 6e9
