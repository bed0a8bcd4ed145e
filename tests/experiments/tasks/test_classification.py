"""Section 6.5: features, few labels, what a probe writes."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from dnet_jax import uses
from dnet_jax.uses import perception
from experiments.tasks import classification
from experiments.tasks import networks
from experiments.tasks import parts
from tests import reference
from tests.experiments import tiny


@pytest.fixture(scope='module')
def workdir(workdir_of):
  """Of a run that has not learned anything yet: this is not about learning."""
  return workdir_of('untrained')


@pytest.fixture(scope='module')
def model(workdir):
  return tiny.request(workdir).model


def test_features_are_pooled_feature_maps(model):
  voxels = parts.data(tiny.untrained()).test
  poolings = {'ours': (2, 1), 'coarse': (4, 2)}
  found = classification.extract(model, voxels, poolings)
  (sizes,) = model.spec.descriptors
  maps = reference.feature_maps(
    jax.tree.map(np.asarray, model.params['descriptor']),
    sizes.strides,
    np.asarray(uses.to_network(model, voxels)),
  )
  # 4^3 by blocks of 2^3, and 2^3 as it is; 4 channels each.
  n = len(voxels)
  first = maps[0].reshape(-1, 2, 2, 2, 2, 2, 2, 4).max((2, 4, 6))
  expected = np.concatenate(
    [first.reshape(n, -1), maps[1].reshape(n, -1)], axis=1
  )
  assert {name: x.shape for name, x in found.items()} == {
    'ours': (n, 64),
    'coarse': (n, 8),
  }
  np.testing.assert_allclose(found['ours'], expected, rtol=1e-4, atol=1e-5)


def test_the_paper_has_8100_features():
  config = tiny.synthesis(**{'model.network': 'paper_3_layer'})
  sizes = networks.descriptor_sizes(config, config.model.network)
  descriptor = networks.descriptor(config, sizes)
  none = jnp.zeros((0, 32, 32, 32, 1))
  params = jax.eval_shape(descriptor.init, jax.random.key(0), none)
  maps = jax.eval_shape(
    lambda p, y: descriptor.apply(p, y, method='feature_maps'), params, none
  )
  number = sum(
    np.prod([-(-side // n) for side in h.shape[1:4]]) * h.shape[4]
    for h, n in zip(maps, config.probe.windows, strict=True)
  )
  assert number == 8100


def test_views_are_mirror_images(model):
  voxels = np.random.default_rng(0).random((3, 8, 8, 8)) > 0.7
  poolings = {'x': (2, 1)}
  mirrors = perception.MIRRORS
  found = classification.extract(model, voxels, poolings, mirrors)
  views = np.stack(
    [
      classification.extract(model, np.flip(voxels, axes), poolings)['x']
      for axes in mirrors
    ],
    axis=1,
  )
  np.testing.assert_allclose(found['x'], views[:, 0], rtol=1e-4, atol=1e-5)
  pooled = np.concatenate([views.mean(axis=1), views.max(axis=1)], axis=1)
  name = 'x, pooled over mirror images'
  np.testing.assert_allclose(found[name], pooled, rtol=1e-4, atol=1e-5)
  assert abs(views[:, 0] - views[:, 1]).max() > 1e-3


def test_pooled_views_of_a_shape_and_of_its_mirror_images_are_equal(model):
  shapes = np.random.default_rng(0).random((3, 8, 8, 8)) < 0.3

  def look(shapes):
    poolings = {'x': (2, 1)}
    found = classification.extract(model, shapes, poolings, perception.MIRRORS)
    return found['x'], found['x, pooled over mirror images']

  x, pooled = look(shapes)
  for axes in perception.MIRRORS[1:]:
    flipped, same = look(np.flip(shapes, axes))
    assert np.abs(flipped - x).max() > 0.01
    np.testing.assert_allclose(same, pooled, rtol=1e-4, atol=1e-6)


def test_few_labels_are_stratified():
  labels = np.repeat([0, 1, 2], [100, 50, 3])
  chosen = classification.few(labels, 0.1, seed=0)
  assert np.bincount(labels[chosen]).tolist() == [10, 5, 1]
  assert len(np.unique(chosen)) == len(chosen)
  other = classification.few(labels, 0.1, seed=1)
  assert chosen.tolist() != other.tolist()
  with pytest.raises(ValueError, match=r'1\.5'):
    classification.few(labels, 1.5, seed=0)


def test_probe_writes_a_result(workdir, tmp_path, capsys, two_strengths):
  config = tiny.untrained(
    **{
      'probe.windows': (2, 1),
      'probe.fractions': (0.2, 1.0),
      'probe.draws': 2,
      'probe.more_windows': (1, 1),
      'probe.mirror': True,
    }
  )
  out = str(tmp_path / 'classification.json')
  result = classification.probe(tiny.request(workdir, config, out=out))
  assert tiny.content(tmp_path, 'classification.json') == result
  written = os.listdir(os.path.join(workdir, 'evaluations'))
  assert {'probe.json', 'probe.png'} <= {*written}
  with Image.open(tmp_path / 'classification.png') as image:
    # Lines of six colours on white, not an empty frame.
    assert len(image.convert('RGB').getcolors(1 << 20)) > 6
  assert {*result['scores']} == {
    'ours',
    'ours, finer pooling',
    'ours, pooled over mirror images',
    'the same network, untrained',
    'principal components',
    'raw voxels',
  }
  cell = result['scores']['raw voxels']['accuracy']['0.2']
  assert cell['draws'] == len(cell['C']) == 2
  # Furniture is easy.
  assert result['scores']['raw voxels']['accuracy']['1']['mean'] > 0.5
  assert 'raw voxels' in capsys.readouterr().out
  sizes = {name: row['features'] for name, row in result['scores'].items()}
  assert sizes['ours'] == sizes['the same network, untrained']
  assert sizes['ours'] < sizes['ours, finer pooling']
  assert sizes['ours, pooled over mirror images'] == 2 * sizes['ours']
  with pytest.raises(FileExistsError, match=r'classification\.json'):
    classification.probe(tiny.request(workdir, config, out=out))
  os.remove(out)
  with pytest.raises(FileExistsError, match=r'classification\.png'):
    classification.probe(tiny.request(workdir, config, out=out))
  config.data.category = 'chair'
  with pytest.raises(ValueError, match='chair of the'):
    classification.probe(tiny.request(workdir, config))
