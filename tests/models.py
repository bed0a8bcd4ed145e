"""Tiny models with numbers that nobody has learned."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import dnet_jax
from dnet_jax import specs

SIDE = 8
GRID = (SIDE, SIDE, SIDE, 1)
GRIDS = (2, 4, 8)
DIM = 5
CLASSES = ('chair', 'sofa', 'toilet')
SIZES = specs.DescriptorSizes((3, 4), (3, 3), (2, 1))


def spread(key, shapes):
  """Variables with no number at its first value; averages are positive."""
  rng = np.random.default_rng(key)

  def draw(path, x):
    numbers = rng.uniform(0.05, 0.3, x.shape)
    if 'batch_stats' not in str(path):
      numbers *= rng.choice([-1, 1], x.shape)
    return jnp.asarray(numbers, jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, dict(shapes))


@functools.cache
def shapes_of(net, *shape, **arguments):
  init = functools.partial(net.init, **arguments)
  inputs = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.eval_shape(init, jax.random.key(0), inputs)


def extras(key, **more):
  rng = np.random.default_rng(key)
  return {
    'mean': jnp.float32(rng.uniform(0.2, 0.4)),
    'scale': jnp.float32(rng.uniform(1.0, 2.0)),
    'reference_std': jnp.float32(rng.uniform(0.4, 0.6)),
    'reference_means': jnp.array([-0.3, 0.7], jnp.float32),
    **more,
  }


def descriptor(key=0, uses=(), **more):
  """One descriptor, of any algorithm."""
  spec = specs.Spec((SIDE,) * 3, (SIZES,), uses=uses)
  net = dnet_jax.Descriptor(**SIZES._asdict())
  params = {'descriptor': spread(key, shapes_of(net, *GRID))}
  return dnet_jax.Model(spec, params, extras(key, **more))


def multi_grid(key=0, uses=(), **more):
  sizes = tuple(specs.DescriptorSizes((3,), (2,), (1,)) for _ in GRIDS)
  spec = specs.Spec((SIDE,) * 3, sizes, GRIDS, uses=uses)
  params = {
    f'grid_{i}': spread(
      key + i,
      shapes_of(dnet_jax.Descriptor(**s._asdict()), side, side, side, 1),
    )
    for i, (s, side) in enumerate(zip(sizes, GRIDS, strict=True), 1)
  }
  histogram = {
    'edges': jnp.array([0.0, 0.3, 0.5, 1.0]),
    'probabilities': jnp.array([0.2, 0.8, 0.0]),
  }
  return dnet_jax.Model(spec, params, extras(key, histogram=histogram, **more))


def generator(key=0, uses=(), with_descriptor=False, **more):
  """Of alternating back-propagation, or with the descriptor of Algorithm 3."""
  sizes = specs.GeneratorSizes((4, 1), (1, 2), DIM, 3)
  descriptors = (SIZES,) if with_descriptor else ()
  spec = specs.Spec((SIDE,) * 3, descriptors, generator=sizes, uses=uses)
  net = dnet_jax.Generator((4, 1), (1, 2), 3)
  params = {'generator': spread(key, shapes_of(net, DIM, train=False))}
  if with_descriptor:
    params |= descriptor(key).params
  return dnet_jax.Model(spec, params, extras(key, **more))


def classifier(key=0, members=1, mirror=True, negatives=True):
  sizes = specs.ClassifierSizes(
    CLASSES, (3,), (3,), (2,), 6, negatives, mirror, members
  )
  spec = specs.Spec((SIDE,) * 3, classifier=sizes)
  nets = [
    dnet_jax.Classifier(len(CLASSES) + negatives, (3,), (3,), (2,), 6)
    for _ in range(members)
  ]
  net = dnet_jax.Ensemble(tuple(nets)) if members > 1 else nets[0]
  params = {'classifier': spread(key, shapes_of(net, *GRID, train=False))}
  more = {'label_smoothing': jnp.float32(0.1)}
  return dnet_jax.Model(spec, params, extras(key) | more)
