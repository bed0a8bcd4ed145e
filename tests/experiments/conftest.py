"""The embedded furniture is made once: the same few shapes, for each run."""

import functools

import pytest

from data_prep import furniture


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
