"""The picture of fresh shapes of several models."""

import numpy as np
from PIL import Image
import pytest

from experiments import gallery
from tests.experiments import tiny


def test_rows_are_fresh_shapes_of_each_model(folder_of, tmp_path):
  model = tiny.request(folder_of('synthesis')).model
  path = tmp_path / 'fresh.png'
  made = gallery.draw(str(path), {'chair': model, 'desk': model}, 3)
  assert {name: x.shape for name, x in made.items()} == {
    'chair': (3, 8, 8, 8),
    'desk': (3, 8, 8, 8),
  }
  np.testing.assert_array_equal(made['chair'], made['desk'])
  models, second = {'chair': model}, str(tmp_path / 'b.png')
  more = gallery.draw(second, models, 2, labels=False)
  np.testing.assert_allclose(more['chair'], made['chair'][:2], atol=1e-5)
  other = gallery.draw(str(tmp_path / 'c.png'), models, 2, seed=1)
  assert np.abs(other['chair'] - more['chair']).max() > 1e-3
  with Image.open(path) as one, Image.open(tmp_path / 'b.png') as two:
    assert one.width > one.height and two.height < one.height
  with pytest.raises(FileExistsError, match='fresh'):
    gallery.draw(str(path), models, 2)
