"""References in NumPy and float64, written from the definitions.

Slow and short: nothing here shares code, or an idea, with the library.
"""

import numpy as np


def langevin_step(y, gradient, noise, step_size, temperature=1.0, project=None):
  """Eq. (7): gradient is dE/dY at y, noise is N(0, I)."""
  dy = -step_size / 2 * gradient + np.sqrt(temperature * step_size) * noise
  if project is not None:
    dy = (project @ dy.reshape(len(dy), -1).T).T.reshape(dy.shape)
  return y + dy


def block_average(sides, factor):
  """C as a dense matrix (blocks, voxels); its pinv is C^-."""
  voxels = np.stack(np.indices(sides), -1).reshape(-1, 3)
  blocks = np.stack(np.indices([n // factor for n in sides]), -1).reshape(-1, 3)
  inside = (voxels[None] // factor == blocks[:, None]).all(-1)
  return inside / factor**3


def same_pads(grid, taps, strides):
  """(low, high) of each axis: ceil(size / stride) outputs, centred."""
  pads = []
  for size, tap, stride in zip(grid, taps, strides, strict=True):
    total = max((-(-size // stride) - 1) * stride + tap - size, 0)
    pads.append((total // 2, total - total // 2))
  return pads


def _reach(size, taps, stride, pads):
  """1 where output o sees position p through tap t: p = s o + t - low."""
  out = (size + sum(pads) - taps) // stride + 1
  o, t, p = np.ogrid[:out, :taps, :size]
  return (p == stride * o + t - pads[0]).astype(float)


class Correlation:
  """`y[o] = sum_t x[s o + t - low] w[t]` on (m, D, H, W, c), and adjoints."""

  def __init__(self, grid, taps, strides, pads):
    self.reach = [
      _reach(*axis) for axis in zip(grid, taps, strides, pads, strict=True)
    ]

  def _sum(self, arrays, indices, result):
    subscripts = f'dip,ejq,fkr,{indices}->{result}'
    arrays = [np.asarray(a, np.float64) for a in arrays]
    return np.einsum(subscripts, *self.reach, *arrays, optimize=True)

  def value(self, x, w):
    return self._sum((x, w), 'mpqrc,ijkcn', 'mdefn')

  def adjoint_input(self, y, w):
    return self._sum((y, w), 'mdefn,ijkcn', 'mpqrc')

  def adjoint_kernel(self, x, y):
    return self._sum((x, y), 'mpqrc,mdefn', 'ijkcn')


def feature_maps(params, strides, y):
  """Hidden outputs of eq. (2), SAME padding, of `Descriptor` parameters."""
  maps = []
  for i, stride in enumerate(strides):
    layer = params['params'][f'layers_{i}']
    sizes = y.shape[1:4], layer['kernel'].shape[:3], (stride,) * 3
    correlation = Correlation(*sizes, same_pads(*sizes))
    y = correlation.value(y, layer['kernel']) + np.asarray(layer['bias'])
    y = np.maximum(y, 0)
    maps.append(y)
  return maps


def descriptor(params, strides, y):
  """f of eq. (2) for y (chains, D, H, W, C)."""
  h = feature_maps(params, strides, y)[-1]
  last = params['params']['last']
  kernel = np.asarray(last['kernel'], np.float64)
  return h.reshape(len(h), -1) @ kernel[:, 0] + np.asarray(last['bias'])[0]


def energy(params, strides, y, reference_std):
  """Eq. (3)."""
  quadratic = (np.asarray(y, np.float64) ** 2).sum((1, 2, 3, 4))
  f = descriptor(params, strides, y)
  return quadratic / (2 * reference_std**2) - f


def moments(energy_fn, temperature, grids, functions):
  """Means of functions under exp(-E / T), by quadrature on a regular grid."""
  y = np.stack(np.meshgrid(*grids, indexing='ij'), -1)
  energy = energy_fn(y) / temperature
  weight = np.exp(energy.min() - energy)
  weight /= weight.sum()
  return [(weight * function(y)).sum() for function in functions]


def langevin_law(gradient_fn, step_size, temperature, grid, start, num_steps):
  """Probabilities on a regular grid after some steps of eq. (7), from a point.

  In one dimension, the finite step included.
  """
  mean = grid - step_size / 2 * gradient_fn(grid)
  distance = grid[None] - mean[:, None]
  transition = np.exp(-(distance**2) / (2 * temperature * step_size))
  total = transition.sum(1, keepdims=True)
  transition = transition / np.where(total > 0, total, 1)
  p = (np.arange(len(grid)) == np.abs(grid - start).argmin()).astype(float)
  for _ in range(num_steps):
    p = p @ transition
  return p / p.sum()


def iou(a, b):
  return (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0


def pairwise(function, a, b):
  return np.array([[function(x, y) for y in b] for x in a])


def minimum_matching_distance(distance):
  n, m = distance.shape
  return sum(min(distance[i, j] for i in range(n)) for j in range(m)) / m


def coverage(distance):
  return len({int(np.argmin(row)) for row in distance}) / distance.shape[1]


def nearest_neighbour_accuracy(distance, num_samples):
  """From distances of all shapes to all, samples first."""
  right = 0
  for i, row in enumerate(distance):
    others = [j for j in range(len(row)) if j != i]
    nearest = min(others, key=lambda j: row[j])
    right += (nearest < num_samples) == (i < num_samples)
  return right / len(distance)


def generator(variables, factors, z, train, epsilon=1e-5):
  """g of eq. (21), the layers of section 6.4, for z (chains, d).

  SAME padding. Also returns the mean and the variance of the batch that each
  normalisation saw, in order; without `train` it uses the running ones.
  """
  params, statistics = variables['params'], []

  def normalise(h):
    i = len(statistics)
    axes = tuple(range(h.ndim - 1))
    mean, variance = h.mean(axes), h.var(axes)
    statistics.append((mean, variance))
    if not train:
      running = variables['batch_stats'][f'BatchNorm_{i}']
      mean, variance = np.asarray(running['mean']), np.asarray(running['var'])
    layer = params[f'BatchNorm_{i}']
    h = (h - mean) / np.sqrt(variance + epsilon)
    return np.maximum(h * np.asarray(layer['scale']) + layer['bias'], 0)

  dense = params['Dense_0']
  h = np.asarray(z, np.float64) @ np.asarray(dense['kernel'], np.float64)
  channels = params['ConvTranspose_0']['kernel'].shape[4]
  h = h + np.asarray(dense['bias'])
  side = round((h.shape[1] / channels) ** (1 / 3))
  h = normalise(h.reshape(len(h), side, side, side, channels))
  for i, factor in enumerate(factors):
    layer = params[f'ConvTranspose_{i}']
    grid = tuple(n * factor for n in h.shape[1:4])
    sizes = grid, layer['kernel'].shape[:3], (factor,) * 3
    correlation = Correlation(*sizes, same_pads(*sizes))
    h = correlation.adjoint_input(h, layer['kernel'])
    h = h + np.asarray(layer['bias'])
    h = normalise(h) if i < len(factors) - 1 else np.tanh(h)
  return h, statistics


def recovery_error(y, y_true, visible):
  """For each shape, over its hidden voxels."""
  errors = []
  for a, b, v in zip(y, y_true, visible, strict=True):
    hidden = [i for i in np.ndindex(v.shape) if not v[i]]
    errors.append(sum(abs(float(a[i]) - float(b[i])) for i in hidden))
    errors[-1] /= len(hidden)
  return errors


def inception_score(probabilities):
  p = np.asarray(probabilities, np.float64)
  marginal = p.mean(0)
  total = 0.0
  for row in p:
    for x, m in zip(row, marginal, strict=True):
      total += x * np.log(x / m) if x > 0 else 0.0
  return np.exp(total / len(p))


def surface(shape):
  """Occupied voxels one of whose six neighbours is free: a list of indices."""
  points = []
  for i in np.ndindex(shape.shape):
    steps = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    near = [tuple(np.add(i, step)) for step in steps]
    inside = [
      all(0 <= k < n for k, n in zip(j, shape.shape, strict=True)) for j in near
    ]
    free = [not ok or not shape[j] for j, ok in zip(near, inside, strict=True)]
    if shape[i] and any(free):
      points.append(i)
  return np.array(points, float).reshape(-1, 3)


def f_score(a, b, distance):
  """Of two shapes, both not empty; the distance is in voxels."""
  p, q = surface(a), surface(b)
  squared = ((p[:, None] - q[None]) ** 2).sum(-1)
  precision = (squared.min(1) <= distance**2).mean()
  recall = (squared.min(0) <= distance**2).mean()
  return 2 / (1 / precision + 1 / recall) if precision * recall else 0.0


def chamfer(a, b):
  """Of two shapes, both not empty; the longest side is 1."""
  p, q = surface(a) / max(a.shape), surface(b) / max(b.shape)
  squared = ((p[:, None] - q[None]) ** 2).sum(-1)
  return squared.min(1).mean() + squared.min(0).mean()
