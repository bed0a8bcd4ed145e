"""Specs: what determines the program of a model; static and hashable.

Sizes of networks, the grid, and for each use of a model how its chains begin
and how many steps they take. A spec holds neither numbers nor a category:
models of two categories have one spec and one compiled program.
"""

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple


class DescriptorSizes(NamedTuple):
  """Arguments of `Descriptor`."""

  features: tuple[int, ...]
  kernel_sizes: tuple[int, ...]
  strides: tuple[int, ...]
  padding: str = 'SAME'


class GeneratorSizes(NamedTuple):
  """Arguments of `Generator`, and the length of z."""

  features: tuple[int, ...]
  factors: tuple[int, ...]
  latent_dim: int
  kernel_size: int = 4
  base: tuple[int, int, int] = (4, 4, 4)
  output_range: tuple[float, float] = (-1.0, 1.0)


class ClassifierSizes(NamedTuple):
  """Arguments of `Classifier`, of which there may be several.

  Attributes:
    classes: names. With `negatives` there is one more logit, the last one, for
      'none of them'.
    mirror: whether it has learned from mirror images too; answers are then
      means over the mirror images of a shape.
    members: number of classifiers whose answers are averaged.
  """

  classes: tuple[str, ...]
  features: tuple[int, ...]
  kernel_sizes: tuple[int, ...]
  strides: tuple[int, ...]
  hidden: int
  negatives: bool = False
  mirror: bool = False
  members: int = 1


class Use(NamedTuple):
  """How the chains of one use begin and move; numbers are in `extras`.

  Attributes:
    start: where they begin, see uses/.
    num_steps: Langevin steps; for multi-grid, of each grid.
    noise_steps: how many of these steps, from the first one on, are at the
      temperature; the others are at 0.
    refinement_steps: after these, steps with a narrow reference.
    sharpening_steps: super-resolution: after all chains, steps of `sharpen`.
    kernel: of the steps with noise.
    num_starts: chains for each shape; the best one is kept.
    hold: recovery: visible voxels are held at every step.
  """

  start: str
  num_steps: int
  noise_steps: int = 0
  refinement_steps: int = 0
  kernel: str = 'langevin'
  num_starts: int = 1
  hold: bool = True
  sharpening_steps: int = 0


class Spec(NamedTuple):
  """What determines the program of a model; static and hashable.

  Attributes:
    grid: `(D, H, W)`.
    descriptors: one, or for multi-grid one for each grid, coarse first.
    grids: for multi-grid, the sides of the grids; otherwise empty.
    reference: 'gaussian', or a mixture of them, or 'uniform'; eq. (3).
    generator: or None.
    classifier: or None.
    enlarge: for multi-grid, how a shape becomes the start of the next finer
      grid: 'repeat', whole blocks, or 'linear', interpolation.
    uses: pairs of a name and a `Use`: 'synthesize', 'recover',
      'super_resolve', 'reconstruct'.
  """

  grid: tuple[int, int, int]
  descriptors: tuple[DescriptorSizes, ...] = ()
  grids: tuple[int, ...] = ()
  reference: str = 'gaussian'
  generator: GeneratorSizes | None = None
  classifier: ClassifierSizes | None = None
  enlarge: str = 'repeat'
  uses: tuple[tuple[str, Use], ...] = ()


def network_names(spec: Spec) -> tuple[str, ...]:
  """The names of a model's networks, as its params have them.

  >>> network_names(Spec((8, 8, 8), generator=GeneratorSizes((1,), (2,), 5)))
  ('generator',)
  """
  names = []
  if spec.grids:
    names += [f'grid_{i}' for i in range(1, len(spec.grids) + 1)]
  elif spec.descriptors:
    names.append('descriptor')
  if spec.generator:
    names.append('generator')
  if spec.classifier:
    names.append('classifier')
  return tuple(names)


def describe(spec: Spec) -> str:
  """A spec in a few words.

  >>> describe(Spec((32, 32, 32), (DescriptorSizes((8,), (5,), (2,)),)))
  'descriptor of 5^3/2 x 8; 32 x 32 x 32 voxels'
  """

  def layers(sizes):
    triples = zip(
      sizes.kernel_sizes, sizes.strides, sizes.features, strict=True
    )
    return ', '.join(f'{k}^3/{s} x {n}' for k, s, n in triples)

  parts = []
  if spec.grids:
    parts += [
      f'descriptor of {layers(sizes)} for {side}^3'
      for side, sizes in zip(spec.grids, spec.descriptors, strict=True)
    ]
  elif spec.descriptors:
    parts.append(f'descriptor of {layers(spec.descriptors[0])}')
  if spec.generator:
    features = ', '.join(map(str, spec.generator.features))
    parts.append(f'generator of {features}')
  if spec.classifier:
    count = len(spec.classifier.classes)
    members = spec.classifier.members
    several = f'{members} classifiers' if members > 1 else 'classifier'
    parts.append(f'{several} of {count} classes')
  grid = ' x '.join(map(str, spec.grid))
  return '; '.join([*parts, f'{grid} voxels'])


def spec_to_json(spec: Spec) -> dict[str, Any]:
  """A spec as JSON can hold it.

  >>> spec_to_json(Spec((2, 2, 2)))['grid']
  [2, 2, 2]
  """

  def plain(value):
    if hasattr(value, '_asdict'):
      return {name: plain(x) for name, x in value._asdict().items()}
    if isinstance(value, tuple | list):
      return [plain(x) for x in value]
    return value

  return plain(spec) | {'uses': {name: plain(use) for name, use in spec.uses}}


def spec_from_json(content: Mapping[str, Any]) -> Spec:
  """The inverse of `spec_to_json`.

  Raises:
    ValueError: where a field is missing or unknown.

  >>> spec = Spec((2, 2, 2), uses=(('synthesize', Use('noise', 3)),))
  >>> spec_from_json(spec_to_json(spec)) == spec
  True
  """

  def fields(kind, content):
    if content is None:
      return None
    return kind(**{name: frozen(x) for name, x in content.items()})

  def frozen(value):
    return tuple(map(frozen, value)) if isinstance(value, list) else value

  try:
    content = dict(content)
    return Spec(
      descriptors=tuple(
        fields(DescriptorSizes, x) for x in content.pop('descriptors')
      ),
      generator=fields(GeneratorSizes, content.pop('generator')),
      classifier=fields(ClassifierSizes, content.pop('classifier')),
      uses=tuple(
        (name, fields(Use, x)) for name, x in content.pop('uses').items()
      ),
      **{name: frozen(x) for name, x in content.items()},
    )
  except (TypeError, KeyError, AttributeError) as error:
    raise ValueError(f'this is not the spec of a model: {error}') from error
