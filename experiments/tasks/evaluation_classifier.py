"""Section 6.1: the classifier that Tables 1 to 3 need."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from data_prep import voxel_file
import dnet_jax
from dnet_jax import specs
from experiments import parallel
from experiments.evaluation import classifier as classifiers
from experiments.evaluation import negatives
from experiments.files import datasets
from experiments.files import inputs
from experiments.files import mini_batches
from experiments.files import outputs
from experiments.tasks import base
from experiments.tasks import contents
from experiments.tasks import networks
from experiments.tasks import parts


def _sizes(config, classes):
  settings = config.classifier
  if settings.members < 1:
    raise ValueError(
      f'classifier.members must be at least 1, got {settings.members}'
    )
  for name in ('negative_share', 'label_smoothing', 'dropout'):
    if not 0 <= settings[name] < 1:
      raise ValueError(
        f'classifier.{name} must be in [0, 1), got {settings[name]}'
      )
  return specs.ClassifierSizes(
    classes=tuple(classes),
    **networks.choice(
      dnet_jax.CLASSIFIERS, settings.network, 'classifier.network'
    ),
    negatives=settings.negative_share > 0,
    mirror=config.data.mirror,
    members=settings.members,
  )


def _network(config, sizes):
  """The classifier in learning."""
  members = [
    dnet_jax.Classifier(
      len(sizes.classes) + sizes.negatives,
      sizes.features,
      sizes.kernel_sizes,
      sizes.strides,
      sizes.hidden,
      dropout=config.classifier.dropout,
      axis_name=parallel.AXIS,
      precision=networks.precision(config),
    )
    for _ in range(sizes.members)
  ]
  return dnet_jax.Ensemble(members) if members[1:] else members[0]


def _batch(config, voxels):
  """`(step, rollbacks, rows) -> mini-batch`, each class equally often.

  All rows are made, since one draw decides all of them.
  """
  settings, size = config.data, config.data.batch_size
  parallel.check_divisible(**{'data.batch_size': size})
  num_negatives = round(size * config.classifier.negative_share)

  def batch(step, rollbacks=0, rows=slice(None)):
    del rollbacks  # Every step draws a new mini-batch anyway.
    chosen = mini_batches.balanced_indices(
      voxels.train_labels, size, step, config.seed
    )
    rng = np.random.default_rng((config.seed, 4, step))
    shapes = mini_batches.augment(
      voxels.train[chosen],
      rng,
      mirror=settings.mirror,
      turn_degrees=settings.turn_degrees,
      shift_voxels=settings.shift_voxels,
      scale_range=settings.scale_range,
    )
    labels = voxels.train_labels[chosen]
    if num_negatives:
      some = shapes[:num_negatives]
      shapes[:num_negatives] = negatives.mixed(some, rng)
      labels = np.concatenate(
        [np.full(num_negatives, len(voxels.classes)), labels[num_negatives:]]
      )
    return {'y': shapes[rows], 'labels': labels[rows].astype(np.int32)}

  batch(0)  # Raises now what the first step would raise.
  return batch


def _experiment(
  config: ml_collections.ConfigDict, voxels: datasets.Dataset
) -> base.Experiment:
  settings = config.classifier
  sizes = _sizes(config, voxels.classes)
  network = _network(config, sizes)
  learner = dnet_jax.make_learner(
    dnet_jax.classification_loss(
      dnet_jax.classifier_fn(network),
      settings.label_smoothing,
      len(voxels.classes),
    ),
    parts.optimizer(config, weight_decay=settings.weight_decay),
  )
  algorithm = dnet_jax.classification(learner, axis_name=parallel.AXIS)
  spec, extras = contents.spec_and_extras(
    config, *datasets.seen(voxels), classifier=sizes
  )
  extras['label_smoothing'] = np.float32(settings.label_smoothing)

  def params():
    none = jnp.zeros((0, *voxels.train.shape[1:], 1))
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    init = jax.jit(lambda key: network.init(key, none, train=False))
    return {'classifier': dict(init(key))}

  batch = _batch(config, voxels)
  phase = parts.one_phase(config, voxels, ('classifier',), algorithm, batch)
  # Shapes that were moved are not stored as bits.
  scaled = functools.partial(
    datasets.to_network, mean=voxels.mean, scale=voxels.scale
  )
  phase = phase._replace(
    prepare=lambda batch: batch | {'y': scaled(batch['y'])}
  )
  return base.Experiment(
    voxels, spec, extras, params, (phase,), lambda model: None
  )


def _evaluate(
  request: base.Request, data: datasets.Dataset, folder: str
) -> dict[str, Any]:
  """Scores it on test shapes, and on training shapes that were held out."""
  del folder
  classifier = classifiers.make(request.model, request.card)
  labels = _labels(classifier, data)
  result = classifiers.report(classifier, data.test, labels)
  own = request.card.get('config', {}).get('data', {}).get('hold_out', 0.0)
  if own:
    held = request.config.copy_and_resolve_references()
    with held.unlocked():
      held.data.hold_out = own
    shapes = parts.data(held)
    prediction = classifier.predict(shapes.test)
    right = prediction.probabilities.argmax(axis=1) == _labels(
      classifier, shapes
    )
    result['held_out'] = {
      'shapes': len(right),
      'accuracy': float(right.mean()),
    }
  return {'table': 'evaluation_classifier', **result}


def _labels(classifier, data):
  """Labels of the test shapes as indices into the classifier's classes."""
  unknown = [name for name in data.classes if name not in classifier.classes]
  if unknown:
    raise ValueError(
      f'the classifier knows {", ".join(classifier.classes)}, and '
      f'{data.source} has {", ".join(unknown)} too'
    )
  own = [classifier.classes.index(name) for name in data.classes]
  return np.array(own)[data.test_labels]


def classify(request: base.Request) -> dict[str, Any]:
  """Classifies shapes from outside.

  Returns:
    What is written to `evaluations/classes.json`, `_001`, ...: for each shape
    the probabilities of the classes and of 'none'.

  Raises:
    FileNotFoundError, ValueError: for input that cannot be used.
  """
  model, source = request.model, request.input
  if request.out is not None:
    voxel_file.refuse_existing(request.out)
  given = inputs.read(source, model.spec.grid)
  classifier = classifiers.make(model, request.card)
  found = classifier.predict(given.voxels)
  shapes = [
    {
      'name': name,
      'class': classifier.classes[int(p.argmax())],
      'probabilities': {
        name: round(float(x), 4)
        for name, x in zip(classifier.classes, p, strict=True)
      },
      'none': round(float(none), 4),
    }
    for name, p, none in zip(
      given.names, found.probabilities, found.none, strict=True
    )
  ]
  result = outputs.header(request.card['name']) | {
    'input': source._asdict(),
    'shapes': shapes,
  }
  outputs.write_result(request.folder, 'classes', result, request.out)
  for shape in shapes:
    # The most probable classes first.
    likely = sorted(shape['probabilities'].items(), key=lambda x: -x[1])
    words = [f'{name} {p:.3f}' for name, p in likely[:3]]
    print(f'{shape["name"]}: {", ".join(words)}; none {shape["none"]:.3f}')
  inputs.tell_skipped(given)
  return result


TASK = base.Task(
  _experiment,
  _evaluate,
  {
    'classify': base.Mode(
      classify,
      'classifies the shapes of --input',
      needs=('input',),
      takes=('config', 'out', *base.INPUT),
      fits=base.has_classifier,
    )
  },
)
