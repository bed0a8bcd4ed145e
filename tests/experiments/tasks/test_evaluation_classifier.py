"""The evaluation classifier: what it knows, rejects and says of shapes."""

import os

import jax
import numpy as np
import pytest
from scipy import special

from dnet_jax import uses
from dnet_jax.uses import perception
from experiments import evaluate
from experiments.evaluation import classifier as classifiers
from experiments.evaluation import negatives
from experiments.tasks import evaluation_classifier
from experiments.tasks import parts
from tests.experiments import tiny


@pytest.fixture(scope='module')
def folder(folder_of):
  return folder_of('evaluation_classifier')


def test_it_knows_the_furniture_and_rejects_negatives(folder, tmp_path, capsys):
  out = str(tmp_path / 'classifier.json')
  result = evaluate.evaluate(tiny.request(folder, out=out))
  first, whole, *_ = capsys.readouterr().out.splitlines()
  assert first.split() == ['accuracy', 'probability']
  assert whole.split()[:2] == ['all', f'{result["accuracy"]:.4f}']
  assert tiny.content(tmp_path, 'classifier.json') == result
  classes = len(result['card']['classes'])
  confusion = np.array(result['confusion'])
  assert confusion.shape == (classes, classes)
  accuracy = np.trace(confusion) / confusion.sum()
  assert result['accuracy'] == pytest.approx(accuracy)
  # Far above chance, after seconds of learning.
  assert result['accuracy'] > 2 / classes
  rejection = result['rejection']
  assert rejection['noise']['rejected'] > rejection['real shapes']['rejected']
  assert {*negatives.UNSEEN} <= {
    k for k, v in rejection.items() if not v.get('seen')
  }
  assert result['held_out']['shapes'] > 0
  # Never over an existing file, and that before anything is computed.
  with pytest.raises(FileExistsError, match=r'classifier\.json'):
    evaluate.evaluate(tiny.request(folder, out=out)._replace(model=None))


def test_labels_are_those_of_its_own_classes(folder):
  config = tiny.evaluation_classifier(**{'data.category': 'sofa'})
  result = evaluate.evaluate(tiny.request(folder, config))
  assert [*result['categories']] == ['sofa']
  whole = evaluate.evaluate(tiny.request(folder))
  assert result['categories']['sofa'] == whole['categories']['sofa']


def test_prediction_is_a_softmax_with_and_without_none(folder):
  request = tiny.request(folder)
  model = request.model
  voxels = parts.data(request.config).test[:3]
  prediction = classifiers.make(model, request.card).predict(voxels)
  y = np.asarray(uses.to_network(model, voxels))
  network = perception.classifier(model.spec)
  # Means over mirror images and members.
  logits, features = [], []
  for image in (y, y[:, ::-1], y[:, :, ::-1], y[:, ::-1, ::-1]):
    for i, member in enumerate(network.members):
      variables = {
        kind: tree[f'members_{i}']
        for kind, tree in model.params['classifier'].items()
      }
      logits.append(
        jax.jit(lambda v, x, member=member: member.apply(v, x, train=False))(
          variables, image
        )
      )
      h = member.apply(variables, image, method='hidden_features')
      features.append(h)
  p = special.softmax(np.array(logits, float), axis=-1).mean(axis=0)
  np.testing.assert_allclose(prediction.none, p[:, -1], atol=1e-5)
  among = p[:, :-1] / p[:, :-1].sum(axis=1, keepdims=True)
  # Labels were smoothed by 0.1.
  among = np.maximum(among - 0.1 / among.shape[1], 0)
  np.testing.assert_allclose(
    prediction.probabilities,
    among / among.sum(axis=1, keepdims=True),
    atol=1e-5,
  )
  for i in (0, 1):
    np.testing.assert_allclose(
      np.split(prediction.features, 2, axis=1)[i],
      np.mean(features[i::2], axis=0),
      atol=1e-5,
    )
  with pytest.raises(ValueError, match=r'\(1, 4, 4, 4\)'):
    classifiers.make(model, {}).predict(np.ones((1, 4, 4, 4)))


def test_not_every_model_is_a_classifier(folder_of):
  with pytest.raises(ValueError, match=r'evaluation_classifier, got.*desc'):
    classifiers.load(folder_of('synthesis'))


def test_classify_says_what_shapes_of_a_file_are(folder, tmp_path, capsys):
  data = parts.data(tiny.evaluation_classifier())
  source = str(tmp_path / 'shapes.npz')
  np.savez(source, voxels=data.test)
  out = str(tmp_path / 'classes.json')
  result = evaluation_classifier.classify(
    tiny.request(folder, input=source, out=out)
  )
  assert tiny.content(tmp_path, 'classes.json') == result
  assert 'classes.json' in os.listdir(os.path.join(folder, 'evaluations'))
  assert len(result['shapes']) == len(data.test)
  right = [
    shape['class'] == data.classes[label]
    for shape, label in zip(result['shapes'], data.test_labels, strict=True)
  ]
  assert np.mean(right) > 2 / len(data.classes)
  for shape in result['shapes']:
    assert sum(shape['probabilities'].values()) == pytest.approx(1, abs=1e-3)
    assert 0 <= shape['none'] <= 1
  first = result['shapes'][0]
  likely = f'{first["class"]} {first["probabilities"][first["class"]]:.3f}'
  assert f'shapes_0000: {likely}, ' in capsys.readouterr().out
