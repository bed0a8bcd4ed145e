"""What a model of a config contains: its uses, and what it keeps of data."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import ml_collections
import numpy as np

import dnet_jax
from experiments.evaluation import baselines
from experiments.files import datasets
from experiments.files import summaries
from experiments.tasks import networks
from experiments.tasks import parts


def _recovery_start(settings):
  if settings.components_std:
    return 'components_and_average' if settings.fill_std else 'components'
  return 'local_average' if settings.fill_std else 'mean'


def _stds(settings):
  # 0 stands for the library's default.
  given = {x: settings[x] for x in ('components_std', 'anchor_std')}
  return {name: std for name, std in given.items() if std}


def uses(
  config: ml_collections.ConfigDict,
) -> tuple[tuple[tuple[str, dnet_jax.Use], ...], dict[str, Any]]:
  """How a model of this config is used: each `Use`, and its numbers."""
  chains, sample = config.chains, config.sample
  last = parts.temperature_at(config, config.train.num_iterations - 1)
  grid_heat = sample.temperature * np.asarray(last, np.float32)
  networks.choice(parts.KERNELS, chains.kernel, 'chains.kernel')

  def use(settings, start, **more):
    return dnet_jax.Use(
      start=start,
      num_steps=settings.num_steps,
      noise_steps=settings.noise_steps,
      refinement_steps=settings.refinement_steps,
      kernel=chains.kernel,
      **more,
    )

  def numbers(settings, **more):
    own = {
      'step_size': settings.step_size or chains.step_size,
      'temperature': settings.temperature,
      'refinement_std': settings.refinement_std,
    }
    return {name: np.float32(x) for name, x in (own | more).items()}

  found = {
    'synthesize': (
      use(sample, sample.start),
      numbers(
        sample,
        start_std=sample.start_std or chains.start_std,
        start_spread=sample.start_spread or chains.start_spread,
      ),
    ),
    'recover': (
      use(
        config.recover,
        _recovery_start(config.corruption),
        hold=config.corruption.hold,
      ),
      numbers(
        config.recover,
        fill_std=config.corruption.fill_std or 1.0,
        completion_spread=config.recover.completion_spread,
        **_stds(config.corruption),
      ),
    ),
    'super_resolve': (
      use(
        config.super_resolve,
        'components' if config.super_resolve.components_std else 'repeat',
        sharpening_steps=config.super_resolve.sharpening_steps,
      ),
      numbers(
        config.super_resolve,
        sharpening_std=config.super_resolve.sharpening_std,
        **_stds(config.super_resolve),
      ),
    ),
    'reconstruct': (
      dnet_jax.Use(
        'prior', config.latent.num_steps, num_starts=config.latent.num_starts
      ),
      {
        'step_size': np.float32(config.latent.step_size),
        'noise_std': np.float32(config.latent.noise_std),
      },
    ),
  }
  if config.model.grids:
    found['synthesize'][1]['temperature'] = grid_heat
  return (
    tuple((name, use) for name, (use, _) in found.items()),
    {name: numbers for name, (_, numbers) in found.items()},
  )


def with_settings(
  model: dnet_jax.Model, config: ml_collections.ConfigDict
) -> dnet_jax.Model:
  """The model with the settings of a config in place of its own."""
  how, numbers = uses(config)
  extras = dict(model.extras) | {'settings': numbers}
  if 'components' in extras:
    own = dict(extras['components'])
    own['neighbours'] = np.float32(
      config.components.neighbours or len(own['coordinates'])
    )
    own.pop('boxes', None)
    extras['components'] = own | _boxes(
      config, own, float(extras['mean']), float(extras['scale'])
    )
  if config.latent.correlation and 'latent_codes' not in extras:
    raise ValueError(
      f'latent.correlation is {config.latent.correlation}, but this model '
      'keeps no latent codes of training shapes: use 0, the prior'
    )
  if 'latent_codes' in extras:
    extras['latent_codes'] = dict(extras['latent_codes']) | {
      'correlation': np.float32(config.latent.correlation)
    }
  return dataclasses.replace(
    model, spec=model.spec._replace(uses=how), extras=extras
  )


def spec_and_extras(
  config: ml_collections.ConfigDict,
  grid: Sequence[int],
  mean: float,
  scale: float,
  **sizes: Any,
) -> tuple[dnet_jax.Spec, dict[str, Any]]:
  """The spec and the extras of a model of this config.

  Args:
    config: of the run.
    grid: `(D, H, W)`.
    mean: of its data.
    scale: likewise.
    **sizes: `descriptors`, `grids`, `generator`, `classifier` of the spec.
  """
  settings = config.model
  how, numbers = uses(config)
  spec = dnet_jax.Spec(
    grid=tuple(map(int, grid)),
    reference=networks.choice(
      networks.REFERENCES, settings.reference, 'model.reference'
    ),
    uses=how,
    **sizes,
  )
  extras = {
    'mean': np.float32(mean),
    'scale': np.float32(scale),
    'reference_std': np.asarray(parts.reference_stds(config), np.float32),
    'reference_means': np.array(
      networks.reference_means(config, float(mean), float(scale)), np.float32
    ),
    'settings': numbers,
  }
  return spec, extras


def components(
  config: ml_collections.ConfigDict,
  voxels: datasets.Dataset,
  among: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Principal components of the training shapes, `config.components`.

  Args:
    config: its `components` is read.
    voxels: the data.
    among: indices of some of the training shapes; None: all.
  """
  shapes, settings = np.asarray(voxels.train), config.components
  if among is not None:
    shapes = shapes[among]
  if settings.block > 1:
    shapes = baselines.downscale(shapes, settings.block)
  found = summaries.principal_components(
    datasets.to_network(shapes, voxels.mean, voxels.scale),
    settings.number,
    settings.neighbours,
  )
  return found | _boxes(config, found, voxels.mean, voxels.scale)


def _boxes(config, components, mean, scale):
  """Bounding boxes, where draws are stretched to those of other shapes."""
  if not config.components.stretched:
    return {}
  half = datasets.to_network(np.full((1, 1, 1, 1), 0.5), mean, scale)
  return {'boxes': summaries.bounding_boxes(components, half.item())}
