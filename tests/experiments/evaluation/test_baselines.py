"""Baselines, by hand."""

import numpy as np
import pytest

from experiments.evaluation import baselines


def test_baselines_by_hand():
  rng = np.random.default_rng(0)
  train_shapes = (rng.random((20, 4, 4, 4)) > 0.5).astype(np.uint8)
  y = train_shapes[[3, 7]].astype(np.float32)
  visible = rng.random(y.shape) < 0.6
  noisy = np.where(visible, y, 1 - y)
  np.testing.assert_array_equal(
    baselines.nearest_visible(noisy, visible, train_shapes), y
  )
  filled = baselines.smoothed(noisy, visible, 0.7, np.zeros((4, 4, 4)))
  d = np.array([(a, b, c) for a in range(4) for b in range(4)
                for c in range(4)])  # fmt: skip
  weights = np.exp(-((d - (1, 2, 3)) ** 2).sum(1) / (2 * 0.7**2))
  seen = visible[0].ravel()
  expected = (weights * seen) @ y[0].ravel() / ((weights * seen).sum() + 1e-3)
  assert filled[0, 1, 2, 3] == pytest.approx(expected, rel=1e-4)
  # A ramp is a ramp again, but at the border.
  ramp = np.broadcast_to(np.arange(16.0) / 16, (1, 16, 16, 16))
  again = baselines.trilinear(baselines.downscale(ramp, 4), 4)
  np.testing.assert_allclose(
    again[:, 2:-2, 2:-2, 2:-2], ramp[:, 2:-2, 2:-2, 2:-2], atol=1e-6
  )
