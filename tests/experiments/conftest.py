"""What is made once: the embedded furniture, and a tiny model of each task."""

import functools

import pytest

from data_prep import furniture
from experiments import export
from experiments import train
from experiments.evaluation import logistic
from tests.experiments import tiny


@functools.cache
def _made(make, **arguments):
  data = make(**arguments)
  for arrays in (data.voxels, data.labels, data.names):
    for array in arrays.values():
      array.flags.writeable = False  # All tests share it.
  return data


@pytest.fixture(scope='module', autouse=True)
def furniture_made_once():
  with pytest.MonkeyPatch.context() as patch:
    make = functools.partial(_made, furniture.make_furniture)
    patch.setattr(furniture, 'make_furniture', make)
    yield


@pytest.fixture(scope='session')
def workdir_of(tmp_path_factory):
  """`(name in tiny.CONFIGS) -> workdir` of its run; results may be added."""

  @functools.cache
  def workdir(name):
    path = str(tmp_path_factory.mktemp('run') / name)
    train.train(tiny.CONFIGS[name](), path)
    return path

  return workdir


@pytest.fixture(scope='session')
def folder_of(workdir_of, tmp_path_factory):
  """`(name in tiny.CONFIGS) -> folder` of its exported model."""

  @functools.cache
  def folder(name):
    path = str(tmp_path_factory.mktemp('model') / name)
    export.export(workdir_of(name), path)
    return path

  return folder


@pytest.fixture
def two_strengths(monkeypatch):
  """Fewer fits of regressions, which take most of the time of a test."""
  monkeypatch.setattr(logistic, '_STRENGTHS', (1e-4, 1e-1))
