"""Section 6.4: a descriptor and a generator, Figures 5 to 7; and 5.0.1.

Voxels are `(n, D, H, W)` in [0, 1] here, latent factors `(n, d)`.
"""

from typing import Any

import ml_collections
import numpy as np
import optax

import dnet_jax
from dnet_jax import metrics
from dnet_jax.uses import latent as library
from experiments import batches
from experiments import parallel
from experiments.evaluation import scores
from experiments.files import datasets
from experiments.files import mini_batches
from experiments.files import summaries
from experiments.tasks import arithmetic as examples_of
from experiments.tasks import base
from experiments.tasks import contents
from experiments.tasks import latent
from experiments.tasks import networks
from experiments.tasks import parts
from experiments.tasks import speed
from experiments.tasks import synthesis

_COLUMNS = 10
_PAIRS = 20  # Number of pairs whose interpolations are scored.
_ARITHMETIC = 10  # Number of sums that are scored.
ALGORITHMS = ('cooperative', 'alternating_back_propagation')


# Learning.


def _experiment(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> base.Experiment:
  networks.choice(ALGORITHMS, config.algorithm, 'algorithm')
  shape = (*voxels.train.shape[1:], 1)
  sizes = networks.generator_sizes(config, voxels.mean, voxels.scale)
  generator = networks.generator(config, sizes)
  alone = config.algorithm == 'alternating_back_propagation'
  found: dict[str, Any] = {'generator': sizes}
  fresh = {
    'generator': lambda: networks.init_generator(config, generator, shape)
  }
  phases = []
  if config.regression.iterations and not alone:
    phases.append(_regression(config, voxels, generator))
  iterations = config.back_propagation.iterations
  if alone:
    iterations = config.train.num_iterations
  if iterations:
    phases.append(_back_propagation(config, voxels, generator, iterations))
  if not alone:
    own = networks.descriptor_sizes(config, config.model.network)
    descriptor = networks.descriptor(config, own)
    found['descriptors'] = (own,)
    fresh['descriptor'] = lambda: networks.init_descriptor(
      config, descriptor, shape
    )
    phases.append(_cooperation(config, voxels, descriptor, generator))
  spec, extras = contents.spec_and_extras(
    config, *datasets.seen(voxels), **found
  )
  if config.components.number:
    extras['latent_codes'] = {
      'codes': codes(config, voxels),
      'correlation': np.float32(config.latent.correlation),
    }

  def preview(model):
    key, count = parts.fixed_key(config), config.train.picture_shapes
    return np.asarray(dnet_jax.generate(key, model, count))

  return base.Experiment(
    voxels,
    spec,
    extras,
    lambda: {name: make() for name, make in fresh.items()},
    tuple(phases),
    preview,
  )


def _learner(config, generator, learning_rate):
  settings = config.generator
  return dnet_jax.make_learner(
    dnet_jax.teaching_loss(dnet_jax.generator_fn(generator, train=True)),
    parts.optimizer(
      config,
      learning_rate=learning_rate,
      b1=settings.b1,
      b2=settings.b2,
    ),
  )


def _cooperation(config, voxels, descriptor, generator):
  """Algorithm 3."""
  parallel.check_divisible(**{'chains.num_chains': config.chains.num_chains})
  energy_fn = networks.energy_fn(config, descriptor, voxels.mean, voxels.scale)
  algorithm = dnet_jax.cooperative(
    energy_fn,
    parts.contrastive_learner(config, energy_fn),
    dnet_jax.generator_fn(generator, train=True),
    _learner(config, generator, config.generator.learning_rate),
    parts.sampler(config),
    latent_dim=config.generator.latent_dim,
    num_chains=config.chains.num_chains,
    noise_std=config.generator.noise_std,
  )
  return parts.one_phase(
    config,
    voxels,
    ('descriptor', 'generator'),
    algorithm,
    parts.batch_of(config, voxels),
  )._replace(name='cooperative')


def codes(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> np.ndarray:
  """Latent codes of the training shapes, `(n, k)`: z beyond k is free.

  Args:
    config: its `components.number` is k, or a third of the shapes where these
      are few, see `principal_components`.
    voxels: the data.

  Raises:
    ValueError: as `summaries.latent_codes`.
  """
  number = min(config.components.number, max(len(voxels.train) // 3, 1))
  found = summaries.latent_codes(
    datasets.to_network(np.asarray(voxels.train), voxels.mean, voxels.scale),
    number,
    config.generator.latent_dim,
  )
  return found[:, :number]


def _pairs(config, voxels):
  """`(step, rollbacks, rows) -> mini-batch` of shapes, and z that go with them.

  z has a Gaussian around r times the code of its shape, with the standard
  deviation sqrt(1 - r^2), r the correlation, and its factors beyond the
  components are N(0, 1); so z of all shapes are nearly as draws of the prior.
  All rows are made, since one draw decides all of them.
  """
  size, correlation = config.data.batch_size, config.regression.correlation
  parallel.check_divisible(**{'data.batch_size': size})
  own = codes(config, voxels)
  (count, number), width = own.shape, config.generator.latent_dim

  def batch(step, rollbacks=0, rows=slice(None)):
    chosen = np.array(
      mini_batches.batch_indices(
        count, size, step, config.seed, True, rollbacks
      )
    )
    rng = np.random.default_rng((config.seed, 5, rollbacks, step))
    z = rng.standard_normal((size, width), np.float32)
    z[:, :number] *= np.float32(np.sqrt(1 - correlation**2))
    z[:, :number] += np.float32(correlation) * own[chosen]
    return {'y': datasets.stored(voxels.train, chosen[rows]), 'z': z[rows]}

  return batch


def _regression(config, voxels, generator):
  """Eq. (22), on pairs of z and training shapes."""
  settings, prepare = config.regression, datasets.prepare(voxels)
  rate = optax.cosine_decay_schedule(
    settings.learning_rate,
    settings.iterations,
    config.optimizer.final_fraction,
  )
  learner = _learner(config, generator, rate)
  return base.Phase(
    'regression',
    settings.iterations,
    ('generator',),
    dnet_jax.regression(learner, axis_name=parallel.AXIS),
    _pairs(config, voxels),
    config.data.batch_size,
    lambda step: 1.0,
    lambda batch: batch | {'y': prepare(batch['y'])},
  )


def _back_propagation(config, voxels, generator, iterations):
  """Alternating back-propagation, section 5.0.1."""
  settings, size = config.back_propagation, config.data.batch_size
  memory = dnet_jax.persistent(
    dnet_jax.noise_source((config.generator.latent_dim,)),
    num_chains=size,
    num_slots=len(voxels.train) // size,
  )
  sampler = dnet_jax.make_sampler(
    num_steps=settings.num_steps,
    step_size=settings.step_size,
    axis_name=parallel.AXIS,
  )
  algorithm = dnet_jax.alternating_back_propagation(
    dnet_jax.generator_fn(generator, train=False),
    _learner(
      config, generator, optax.constant_schedule(settings.learning_rate)
    ),
    sampler,
    memory,
    noise_std=settings.noise_std,
  )
  return base.Phase(
    'alternating_back_propagation',
    iterations,
    ('generator',),
    algorithm,
    # Each mini-batch owns its z, so the same ones must come in each epoch.
    parts.batch_of(config, voxels, shuffle=False),
    size,
    lambda step: 1.0,
    datasets.prepare(voxels),
  )


# Numbers.


def _interpolations(model, train, seed):
  ends = latent.draw(model, 2 * _PAIRS, seed).reshape(_PAIRS, 2, -1)
  table = {}
  for name in library.PATHS:
    rows = latent.between(model, ends, 8, name)
    nearest = np.asarray(metrics.iou(rows.reshape(-1, *rows.shape[2:]), train))
    nearest = nearest.max(axis=1).reshape(_PAIRS, 8)
    table[name] = latent.smoothness(rows) | {
      'nearest_train_iou_ends': round(float(nearest[:, [0, -1]].mean()), 4),
      'nearest_train_iou_middle': round(float(nearest[:, 1:-1].mean()), 4),
    }
  return table | {'pairs': _PAIRS, 'columns': 8}


def _transfer(model, settings, seed):
  """Whether c + a - b gets the part of a, and keeps the rest of c."""
  z = latent.draw(model, settings.search, seed)
  voxels = latent.shapes(model, z)
  found = examples_of.find_examples(voxels, _ARITHMETIC)
  if not found:
    return {'examples': 0}
  added = latent.shapes(model, examples_of.sums(z, found))
  halves = examples_of.halves(voxels.shape[1:])
  values = []
  for (a, b, c, half), y in zip(found, added, strict=True):
    part, rest = halves[half], halves[examples_of.other(half)]
    a, b, c, y = (x[None] for x in (voxels[a], voxels[b], voxels[c], y))
    values.append(
      [
        float(scores.own_iou(p[s], q[s])[0])
        for p, q, s in (
          (y, a, part),
          (c, a, part),
          (y, c, rest),
          (a, c, rest),
        )
      ]
    )
  names = (
    'part_iou_of_sum_with_a',
    'part_iou_of_c_with_a',
    'rest_iou_of_sum_with_c',
    'rest_iou_of_a_with_c',
  )
  means = np.mean(values, axis=0)
  return {'examples': len(found)} | {
    name: round(float(x), 4) for name, x in zip(names, means, strict=True)
  }


def _rebuilt(request, data):
  """Reconstruction of test shapes, beside baselines without a model."""
  config, model = request.config, request.model
  test = data.test[: config.latent.num_reconstructed].astype(np.float32)
  seen = np.ones(test.shape, bool)
  z = latent.infer(model, test, seen, config.evaluate.seed)
  voxels = latent.shapes(model, z)
  nearest = np.asarray(metrics.iou(test, data.train))
  mean = data.train.mean(axis=0, dtype=np.float32)
  values = {
    'iou': scores.own_iou(voxels, test).mean(),
    'error_binary': ((voxels > 0.5) != (test > 0.5)).mean(),
    'nearest_train_iou': nearest.max(axis=1).mean(),
    'mean_shape_iou': np.asarray(metrics.iou(mean[None], test)).mean(),
    'latent_norm': np.sqrt((z**2).mean()),
  }
  return {'shapes': len(test)} | {
    name: round(float(value), 4) for name, value in values.items()
  }


def _evaluate(
  request: base.Request, data: datasets.Dataset, folder: str
) -> dict[str, Any]:
  """Scores generated and refined shapes, and the latent space."""
  del folder
  config, model = request.config, request.model
  settings = config.evaluate
  count = min(settings.num_shapes, len(data.test))
  seeds = synthesis.draws(settings)
  made = [
    latent.shapes(model, latent.draw(model, count, seed)) for seed in seeds
  ]
  sets = {'generated': made}
  if model.extras.get('latent_codes', {}).get('correlation', 0):
    sets['generated, prior'] = [
      latent.shapes(model, latent.draw(model, count, seed, 0.0))
      for seed in seeds
    ]
  if model.spec.descriptors:
    sets['refined'] = [
      latent.refined(request, shapes, seed)
      for shapes, seed in zip(made, seeds, strict=True)
    ]
  return synthesis.scored(request, data, sets) | {
    'latent': config.latent.to_dict(),
    'interpolation': _interpolations(model, data.train, settings.seed),
    'arithmetic': _transfer(model, config.latent, settings.seed),
    'reconstruction': _rebuilt(request, data),
    'seconds_per_shape': speed.of_generator(
      model, settings.baseline_steps, min(settings.num_shapes, batches.SIZE)
    ),
  }


TASK = base.Task(
  _experiment,
  _evaluate,
  {
    'sample': synthesis.TASK.modes['sample'],
    **latent.MODES,
  },
)
