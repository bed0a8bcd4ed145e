"""Sizes of networks by name: the paper's, and smaller ones."""

from collections.abc import Mapping
from typing import Any

# Arguments of `Descriptor` by experiment: the paper's section, then smaller
# ones for machines without an accelerator. Sub-sampling factors that the paper
# does not give (grids 3 and 4 of 6.6) are those of its grids 1 and 2.
DESCRIPTORS: Mapping[str, Mapping[str, Any]] = {
  # 6.1 synthesis, 6.2 recovery with 3 layers, 6.5 classification
  'paper_3_layer': dict(
    features=(200, 100), kernel_sizes=(16, 6), strides=(3, 2)
  ),
  # 6.2 recovery with 2 layers
  'paper_2_layer': dict(features=(100,), kernel_sizes=(16,), strides=(3,)),
  # 6.3 super-resolution
  'paper_super_resolution': dict(
    features=(200,), kernel_sizes=(16,), strides=(3,)
  ),
  # 6.4 cooperative learning
  'paper_coop': dict(
    features=(64, 128, 256), kernel_sizes=(9, 7, 4), strides=(2, 2, 2)
  ),
  # 6.6 multi-grid, the same for each of the four grids
  'paper_multigrid': dict(features=(100,), kernel_sizes=(5,), strides=(3,)),
  # The paper's 3-layer network with fewer filters.
  'small': dict(features=(32, 32), kernel_sizes=(16, 6), strides=(3, 2)),
  'medium': dict(features=(64, 64), kernel_sizes=(16, 6), strides=(3, 2)),
  # Multi-grid for machines without an accelerator, by the side of the grid: as
  # the paper's, a convolution and a full layer each.
  'grid_32': dict(features=(32,), kernel_sizes=(8,), strides=(2,)),
  'grid_64': dict(features=(32,), kernel_sizes=(8,), strides=(4,)),
  # For tests: seconds on a CPU, grids from 8^3.
  'tiny': dict(features=(4, 4), kernel_sizes=(5, 3), strides=(2, 2)),
}


# Arguments of `Generator` by name, likewise.
GENERATORS: Mapping[str, Mapping[str, Any]] = {
  # 6.4
  'paper': dict(features=(256, 128, 64, 1), factors=(1, 2, 2, 2)),
  'medium': dict(features=(128, 64, 32, 1), factors=(1, 2, 2, 2)),
  'small': dict(features=(64, 32, 16, 1), factors=(1, 2, 2, 2)),
  # For tests: 8^3.
  'tiny': dict(features=(8, 1), factors=(1, 2)),
}

# Arguments of `Classifier` by name: the evaluation classifier of 6.1 is ours,
# not the paper's.
CLASSIFIERS: Mapping[str, Mapping[str, Any]] = {
  'convnet': dict(
    features=(32, 64, 96, 192),
    kernel_sizes=(5, 3, 3, 3),
    strides=(2, 2, 1, 2),
    hidden=256,
  ),
  'tiny': dict(features=(8,), kernel_sizes=(3,), strides=(2,), hidden=8),
}
