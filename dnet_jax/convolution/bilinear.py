"""Bilinear maps as primitives of JAX, with all their derivatives.

The adjoint of such a map in either argument must be a bilinear map of the same
kind. Differentiation then works in both modes, to any order; a derivative that
is not asked for is not computed.

A map B(a, b) has three primitives: its `value`; its `tangent`,
B(da, b) + B(a, db), which exists only to be transposed; and the transpose of
that, `both`, which gives both derivatives of B for one cotangent together, so
that the work they share is done once. (`jax.custom_vjp` needs no primitives,
but it has no forward mode; `jax.custom_derivatives.linear_call` has no
derivative in the arguments in which it is not linear.)
"""

from collections.abc import Callable
from collections.abc import Hashable
import functools
from typing import NamedTuple

import jax
from jax.extend import core
from jax.interpreters import ad
from jax.interpreters import batching
from jax.interpreters import mlir
import jax.numpy as jnp

from dnet_jax import types

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


class Map(NamedTuple):
  """A bilinear map: its primitives."""

  value: core.Primitive
  tangent: core.Primitive
  both: core.Primitive


class Adjoint(NamedTuple):
  """The adjoint of a map in one argument: a map of the other and the cotangent.

  map: this map.
  cotangent_first: whether the cotangent is its first argument.
  """

  map: Map
  cotangent_first: bool


def _primitive(name, run, shapes):
  """A primitive of a multilinear function, with results, shapes and `vmap`.

  Args:
    name: of the primitive.
    run: `(plan, platform, *arrays)` to a tuple of arrays, where the platform is
      the one that the program is lowered for, of `PLATFORMS` or 'other'.
    shapes: `(plan, *shapes)` to a tuple of shapes.

  Its parameter `levels` lists the `vmap`s around it, the innermost first: for
  each, which arguments have its axis, in front. All results have that axis.
  """
  primitive = core.Primitive(name)
  primitive.multiple_results = True

  def compute(*arrays, plan, levels, platform):
    return _under_vmap(functools.partial(run, plan, platform), levels)(*arrays)

  @functools.partial(jax.jit, static_argnames=('plan', 'levels'))
  def compute_now(*arrays, plan, levels):
    return primitive.bind(*arrays, plan=plan, levels=levels)

  def abstract(*arrays, plan, levels):
    inside = [array.shape for array in arrays]
    leading = []
    for level in reversed(levels):
      leading.append(inside[level.index(True)][0])
      inside = [s[has:] for s, has in zip(inside, level, strict=True)]
    return [
      jax.core.ShapedArray((*leading, *shape), arrays[0].dtype)
      for shape in shapes(plan, *inside)
    ]

  def batch(arrays, dims, *, plan, levels):
    level = tuple(dim is not None for dim in dims)
    arrays = [
      jnp.moveaxis(array, dim, 0) if has else array
      for array, dim, has in zip(arrays, dims, level, strict=True)
    ]
    out = primitive.bind(*arrays, plan=plan, levels=(*levels, level))
    return out, [0] * len(out)

  primitive.def_impl(compute_now)
  primitive.def_abstract_eval(abstract)
  batching.primitive_batchers[primitive] = batch
  for platform in (*PLATFORMS, None):
    on_platform = functools.partial(compute, platform=platform or 'other')
    rule = mlir.lower_fun(on_platform, multiple_results=True)
    mlir.register_lowering(primitive, rule, platform=platform)
  return primitive


def _under_vmap(function, levels):
  for level in levels:
    function = jax.vmap(function, tuple(0 if has else None for has in level))
  return function


def make_map(
  name: str,
  run: Callable[..., types.Array],
  both: Callable[..., tuple[types.Array, types.Array]],
  shape: Callable[..., tuple[int, ...]],
) -> Map:
  """The primitives of a bilinear map, which has no derivatives yet.

  Args:
    name: of the map.
    run: `(plan, platform, a, b)`, its value. The plan is anything hashable;
      the platform is the one that the program is lowered for.
    both: `(plan, platform, a, b, cotangent)`, its adjoints in a and in b.
    shape: `(plan, shape of a, shape of b)`, that of the value.
  """
  return Map(
    _primitive(
      name,
      lambda plan, platform, a, b: (run(plan, platform, a, b),),
      lambda plan, a, b: (shape(plan, a, b),),
    ),
    _primitive(
      f'{name}_tangent',
      lambda plan, platform, a, b, da, db: (
        run(plan, platform, da, b) + run(plan, platform, a, db),
      ),
      lambda plan, a, b, da, db: (shape(plan, a, b),),
    ),
    _primitive(f'{name}_both', both, lambda plan, a, b, cotangent: (a, b)),
  )


def define_derivatives(of: Map, in_first: Adjoint, in_second: Adjoint) -> None:
  """Gives a map its derivatives, of any order and in both modes.

  Args:
    of: the map.
    in_first: its adjoint in its first argument.
    in_second: in the second.
  """
  adjoints = in_first, in_second
  _define_value(of, adjoints)
  _define_tangent(of, adjoints)
  _define_both(of, adjoints)


def call(
  of: Map, plan: Hashable, a: types.Array, b: types.Array
) -> types.Array:
  """The value of a map."""
  return _bind(of.value, plan, a, b)[0]


def _bind(primitive, plan, *arrays):
  return primitive.bind(*arrays, plan=plan, levels=())


def _tangent(of, plan, a, b, da, db):
  """B(da, b) + B(a, db), where either of da and db may be None: zero."""
  if da is None and db is None:
    return None
  if da is None:
    return call(of, plan, a, db)
  if db is None:
    return call(of, plan, da, b)
  return _bind(of.tangent, plan, a, b, da, db)[0]


def _ordered(adjoint, other, cotangent):
  if adjoint.cotangent_first:
    return cotangent, other
  return other, cotangent


def _adjoint_of(adjoint, plan, other, cotangent):
  return call(adjoint.map, plan, *_ordered(adjoint, other, cotangent))


def _sum(*terms):
  """The sum of the terms that are not None; None if there are none."""
  known = [term for term in terms if term is not None]
  return sum(known[1:], known[0]) if known else None


def _define_jvp(primitive, rule):
  """Sets `rule(plan, arrays, tangents)`; None stands for a tangent of zero."""

  def jvp(arrays, tangents, *, plan, levels):
    out = primitive.bind(*arrays, plan=plan, levels=levels)
    known = [type(tangent) is not ad.Zero for tangent in tangents]
    given = [t for t, is_known in zip(tangents, known, strict=True) if is_known]

    def tangents_of(*values):
      inside, rest = values[: len(arrays)], iter(values[len(arrays) :])
      all_tangents = [next(rest) if is_known else None for is_known in known]
      return rule(plan, inside, all_tangents)

    levels = [
      (
        *level,
        *(h for h, is_known in zip(level, known, strict=True) if is_known),
      )
      for level in levels
    ]
    tangents_out = _under_vmap(tangents_of, levels)(*arrays, *given)
    return out, [
      ad.Zero(jax.typeof(value)) if tangent is None else tangent
      for value, tangent in zip(out, tangents_out, strict=True)
    ]

  ad.primitive_jvps[primitive] = jvp


def _define_transpose(primitive, rule):
  """Sets `rule(plan, arrays, wanted, cotangents)`, the transpose.

  The rule gets None for an unknown array and for a cotangent of zero; `wanted`
  says which arrays are unknown. It returns a cotangent for each argument, or
  None.
  """

  def transpose(cotangents, *arrays, plan, levels):
    wanted = [ad.is_undefined_primal(array) for array in arrays]
    given = [type(cotangent) is not ad.Zero for cotangent in cotangents]
    inputs = [a for a, skip in zip(arrays, wanted, strict=True) if not skip]
    inputs += [c for c, has in zip(cotangents, given, strict=True) if has]
    if not any(given):
      return [
        ad.Zero(array.aval) if unknown else None
        for array, unknown in zip(arrays, wanted, strict=True)
      ]

    def cotangents_of(*values):
      rest = iter(values)
      known = [None if unknown else next(rest) for unknown in wanted]
      return rule(
        plan, known, wanted, [next(rest) if g else None for g in given]
      )

    inner = [
      (
        *(has for has, skip in zip(level, wanted, strict=True) if not skip),
        *(True for has in given if has),
      )
      for level in levels
    ]
    out = list(_under_vmap(cotangents_of, inner)(*inputs))
    for i, cotangent in enumerate(out):
      # An argument without the axis of a level is shared by all of that level:
      # its cotangents add up.
      common = tuple(
        len(levels) - 1 - j for j, level in enumerate(levels) if not level[i]
      )
      if cotangent is not None and common:
        out[i] = cotangent.sum(common)
    return out

  ad.primitive_transposes[primitive] = transpose


def _define_value(of, adjoints):
  def jvp(plan, arrays, tangents):
    return (_tangent(of, plan, *arrays, *tangents),)

  def transpose(plan, arrays, wanted, cotangents):
    (a, b), (cotangent,) = arrays, cotangents
    if wanted[0]:
      return _adjoint_of(adjoints[0], plan, b, cotangent), None
    return None, _adjoint_of(adjoints[1], plan, a, cotangent)

  _define_jvp(of.value, jvp)
  _define_transpose(of.value, transpose)


def _define_tangent(of, adjoints):
  def jvp(plan, arrays, tangents):
    # B(da, b) + B(a, db) is as linear in (a, b) as in (da, db).
    a, b, da, db = arrays
    return (
      _sum(
        _tangent(of, plan, a, b, *tangents[2:]),
        _tangent(of, plan, da, db, *tangents[:2]),
      ),
    )

  def transpose(plan, arrays, wanted, cotangents):
    (a, b, _, _), (cotangent,) = arrays, cotangents
    if wanted[2] and wanted[3]:
      return None, None, *_bind(of.both, plan, a, b, cotangent)
    if wanted[2]:
      return None, None, _adjoint_of(adjoints[0], plan, b, cotangent), None
    return None, None, None, _adjoint_of(adjoints[1], plan, a, cotangent)

  _define_jvp(of.tangent, jvp)
  _define_transpose(of.tangent, transpose)


def _define_both(of, adjoints):
  def jvp(plan, arrays, tangents):
    (*ab, cotangent), (*dab, d_cotangent) = arrays, tangents
    out = []
    for adjoint, other, d_other in zip(
      adjoints, reversed(ab), reversed(dab), strict=True
    ):
      out.append(
        _tangent(
          adjoint.map,
          plan,
          *_ordered(adjoint, other, cotangent),
          *_ordered(adjoint, d_other, d_cotangent),
        )
      )
    return tuple(out)

  def transpose(plan, arrays, wanted, cotangents):
    del wanted  # Always the cotangent: `both` is linear in nothing else.
    return None, None, _tangent(of, plan, *arrays[:2], *cotangents)

  _define_jvp(of.both, jvp)
  _define_transpose(of.both, transpose)
