"""What a page does with a model: makes, moves, edits and fills one shape.

A `Piece` is the shape of one page; each function here returns the next one.
All of them may be called from several threads, one at a time.
"""

from collections.abc import Callable
from collections.abc import Mapping
import os
import tempfile
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import dnet_jax
from dnet_jax.uses import base as uses
from experiments.files import datasets
from experiments.files import shapes
from experiments.tasks import base
from experiments.tasks import parts
from experiments.tasks import synthesis

# In the order in which a page offers them.
FORMATS = ('glb', 'stl', 'obj', 'vox', 'binvox', 'npz', 'ply', 'off')
KEEP, HIDE, ADD, REMOVE = range(4)  # What an edit does to a voxel.
_SLIDERS = 6  # Directions of a latent space that a page offers.
_DRAWS = 200  # Draws of z, to find the directions that change most.


class Plan(NamedTuple):
  """The steps of a shape that are planned.

  Attributes:
    steps: how many, without refinement steps.
    noise_steps: how many of these, from the first one on, are at `temperature`;
      the others are at 0.
    temperature: T of section 2.5.
    step_size: the paper's delta-tau.
    refinement_steps: further steps after these, with a narrow reference.
    refinement_std: standard deviation of this reference.
  """

  steps: int = 0
  noise_steps: int = 0
  temperature: float = 0.0
  step_size: float = 0.05
  refinement_steps: int = 0
  refinement_std: float = 0.2


class Piece(NamedTuple):
  """The shape of a page.

  Attributes:
    voxels: `(D, H, W)` float32, not thresholded.
    hidden: boolean, likewise: the voxels that filling moves.
    filling: whether the steps fill what is hidden; else all voxels move.
    plan: of the steps.
    step: steps so far.
    draws: how often random numbers were drawn, so that none is drawn twice.
    latent: z of a generated shape, or None.
    energy: before the last step, or None.
    before: `(voxels, hidden)` of earlier shapes, the latest at the end.
  """

  voxels: np.ndarray
  hidden: np.ndarray
  filling: bool = False
  plan: Plan = Plan()
  step: int = 0
  draws: int = 0
  latent: np.ndarray | None = None
  energy: float | None = None
  before: tuple[tuple[np.ndarray, np.ndarray], ...] = ()


class Studio(NamedTuple):
  """A model at work.

  Attributes:
    model: the model.
    name: of its card.
    kinds: the kinds of new shapes that it can make, the usual one first.
    tests: test shapes `(n, D, H, W)`; n may be 0.
    directions: `(_SLIDERS, d)` orthonormal, of a generator's latent space, or
      None.
    moves: whether there is a descriptor that moves shapes.
    make: new shapes by kind: `(key, piece) -> piece`.
  """

  model: dnet_jax.Model
  name: str
  kinds: tuple[str, ...]
  tests: np.ndarray
  directions: np.ndarray | None
  moves: bool
  make: Mapping[str, Callable[[Any, Piece], Piece]]


def open_studio(
  model: dnet_jax.Model, name: str, config: ml_collections.ConfigDict
) -> Studio:
  """Prepares a model for pages.

  Args:
    model: with a descriptor or a generator.
    name: of it.
    config: of the model; test shapes of its data are offered, or of the
      furniture.

  Raises:
    ValueError: for a model that makes no shapes.
  """
  spec = model.spec
  if not (base.has_descriptor(spec) or base.has_generator(spec)):
    raise ValueError(
      'this needs a model with a descriptor or a generator; '
      f'{name} is {model!r}'
    )
  tests = _tests(config, spec.grid)
  make = {}
  use = dict(spec.uses).get('synthesize')
  if use is None or use.start != 'chains':
    make['fresh'] = lambda key, piece: _fresh(model, key, piece)
  if base.has_generator(spec):
    make['generated'] = lambda key, piece: _generated(model, key, piece)
  if 'chains' in model.extras:
    make['persistent'] = lambda key, piece: _persistent(model, key, piece)
  if len(tests):
    make['test shape'] = lambda key, piece: _test(tests, key, piece)
  if config.task in ('recovery', 'super_resolution') and len(tests):
    # These models have not learned to begin at noise.
    make = {'test shape': make.pop('test shape')} | make
  directions = _directions(model) if base.has_generator(spec) else None
  moves = base.has_descriptor(spec)
  return Studio(model, name, tuple(make), tests, directions, moves, make)


def _tests(config, grid):
  """Test shapes of the data, or of the furniture where it is not there."""
  furniture = config.copy_and_resolve_references()
  furniture.data.path, furniture.data.hold_out = datasets.FURNITURE, 0.0
  furniture.data.size, furniture.data.furniture_shapes = grid[0], 80
  anything = furniture.copy_and_resolve_references()
  anything.data.category, anything.data.furniture_shapes = 'all', 12
  for choice in (config, furniture, anything):
    data = parts.data_or_none(choice)
    if data is not None and data.train.shape[1:] == grid and len(data.test):
      return data.test
  return np.zeros((0, *grid), np.float32)


def begin(studio: Studio) -> Piece:
  """An empty shape."""
  grid = studio.model.spec.grid
  return Piece(np.zeros(grid, np.float32), np.zeros(grid, bool))


def make(studio: Studio, piece: Piece, kind: str, seed: int) -> Piece:
  """Another shape in place of this one.

  Args:
    studio: of the model.
    piece: the one before.
    kind: one of `studio.kinds`.
    seed: of the random numbers.

  Raises:
    ValueError: for another kind.
  """
  if kind not in studio.kinds:  # A tuple: it may be anything.
    raise ValueError(
      f'kind must be one of {", ".join(studio.kinds)}, got {kind!r}'
    )
  key = jax.random.fold_in(jax.random.key(seed), piece.draws)
  clean = Piece(
    piece.voxels,
    np.zeros_like(piece.hidden),
    draws=piece.draws + 1,
    before=_remembered(piece),
  )
  return studio.make[kind](key, clean)


def _remembered(piece):
  return (*piece.before, (piece.voxels, piece.hidden))[-20:]


def _plan(model, use_name):
  use, numbers = uses.settings(model, use_name)
  return Plan(
    use.num_steps,
    use.noise_steps,
    # Of several grids: that of the finest, which pages move.
    float(np.ravel(numbers['temperature'])[-1]),
    float(numbers['step_size']),
    use.refinement_steps,
    float(numbers['refinement_std']),
  )


def _fresh(model, key, piece):
  plan = _plan(model, 'synthesize')
  if model.spec.grids or not model.spec.descriptors:
    voxels = dnet_jax.synthesize(key, model, 1)
    return piece._replace(voxels=_array(voxels), plan=plan._replace(steps=0))
  if dict(model.spec.uses).get('synthesize', ('',))[0] == 'generator':
    return _generated(model, key, piece)._replace(plan=plan)
  voxels = dnet_jax.synthesize(key, model, 1, num_steps=0, refinement_steps=0)
  return piece._replace(voxels=_array(voxels), plan=plan)


def _generated(model, key, piece):
  z = np.asarray(dnet_jax.draw_latent(key, model, 1))[0]
  return piece._replace(voxels=_decoded(model, z), latent=z)


def _persistent(model, key, piece):
  chains = synthesis.persistent(model, len(model.extras['chains']))
  return piece._replace(voxels=chains[_index(key, len(chains))])


def _test(tests, key, piece):
  chosen = tests[_index(key, len(tests))]
  return piece._replace(voxels=chosen.astype(np.float32))


def _index(key, count):
  return int(jax.random.randint(key, (), 0, count))


def _array(voxels):
  return np.asarray(voxels, np.float32)[0]


def _decoded(model, z):
  return np.asarray(dnet_jax.decode(model, z), np.float32)


def _directions(model):
  """Directions of z that change shapes most: `(_SLIDERS, d)`."""
  z = np.asarray(dnet_jax.draw_latent(jax.random.key(0), model, _DRAWS))
  y = np.asarray(dnet_jax.decode(model, z)).reshape(_DRAWS, -1)
  u, _, _ = np.linalg.svd(z.T @ (y - y.mean(axis=0)), full_matrices=False)
  return u.T[:_SLIDERS]


def latent_values(studio: Studio, piece: Piece) -> list[float]:
  """Coordinates of a generated shape along `studio.directions`, else `[]`."""
  if piece.latent is None or studio.directions is None:
    return []
  return (studio.directions @ piece.latent).tolist()


def move_latent(studio: Studio, piece: Piece, values: list[float]) -> Piece:
  """The generated shape with other coordinates along `studio.directions`.

  Raises:
    ValueError: for a shape that is not generated, or `values` that are not as
      many numbers as there are directions.
  """
  if piece.latent is None or studio.directions is None:
    raise ValueError('only a generated shape has latent factors to change')
  directions = studio.directions
  wanted = np.array(values, np.float32)
  if wanted.shape != directions.shape[:1] or not np.isfinite(wanted).all():
    raise ValueError(f'{len(directions)} numbers are needed, got {values!r}')
  wanted = np.clip(wanted, -5, 5)
  z = piece.latent + (wanted - directions @ piece.latent) @ directions
  return piece._replace(
    voxels=_decoded(studio.model, z.astype(np.float32)),
    latent=z.astype(np.float32),
    hidden=np.zeros_like(piece.hidden),
    filling=False,
    plan=Plan(),
    step=0,
  )


def edit(piece: Piece, codes: np.ndarray) -> Piece:
  """Hides, adds and removes voxels.

  Args:
    piece: the shape.
    codes: `(D, H, W)` of `KEEP`, `HIDE`, `ADD` and `REMOVE`.

  Raises:
    ValueError: for other codes.
  """
  if codes.shape != piece.voxels.shape or codes.max(initial=0) > REMOVE:
    raise ValueError(
      f'codes must be 0 to {REMOVE} of the grid {piece.voxels.shape}'
    )
  # After filling, the voxels that were hidden are a part of the shape.
  hidden = np.zeros_like(piece.hidden) if piece.filling else piece.hidden
  voxels = np.where((codes == HIDE) | (codes == REMOVE), 0, piece.voxels)
  return piece._replace(
    voxels=np.where(codes == ADD, 1, voxels).astype(np.float32),
    hidden=(hidden | (codes == HIDE)) & (codes != ADD) & (codes != REMOVE),
    filling=False,
    plan=Plan(),
    step=0,
    latent=None,
    before=_remembered(piece),
  )


def fill(studio: Studio, piece: Piece, seed: int) -> Piece:
  """Sets hidden voxels to where their chains begin; steps then fill them.

  Raises:
    ValueError: where nothing is hidden, or everything.
  """
  if not piece.hidden.any() or piece.hidden.all():
    raise ValueError('hide a part of the shape first, but not all of it')
  model, key = studio.model, jax.random.key(seed)
  if model.spec.grids:
    # `recover` needs a model with one descriptor, so hidden voxels begin at the
    # mean of the visible ones here.
    mean = float(piece.voxels[~piece.hidden].mean())
    voxels = np.where(piece.hidden, np.float32(mean), piece.voxels)
    plan = _plan(model, 'synthesize')
  else:
    voxels = dnet_jax.recover(
      jax.random.fold_in(key, piece.draws),
      model,
      piece.voxels,
      ~piece.hidden,
      num_steps=0,
      refinement_steps=0,
    )
    plan = _plan(model, 'recover')
  return piece._replace(
    voxels=np.asarray(voxels, np.float32),
    filling=True,
    plan=plan,
    step=0,
    draws=piece.draws + 1,
    latent=None,
    before=_remembered(piece),
  )


def undo(piece: Piece) -> Piece:
  """The shape before the last change."""
  if not piece.before:
    return piece
  *before, (voxels, hidden) = piece.before
  return Piece(voxels, hidden, draws=piece.draws, before=tuple(before))


def planned(piece: Piece) -> dict[str, Any]:
  """The settings of the next step of the plan, for the sliders."""
  plan = piece.plan
  total = plan.steps + plan.refinement_steps
  refining = plan.steps <= piece.step < total
  step_size = plan.step_size
  return {
    'temperature': plan.temperature if piece.step < plan.noise_steps else 0.0,
    # The square of the reference's deviation bounds a stable step.
    'step_size': min(step_size, plan.refinement_std**2)
    if refining
    else step_size,
    'total': total,
    'done': piece.step >= total,
  }


def move(
  studio: Studio,
  piece: Piece,
  seed: int,
  temperature: float,
  step_size: float,
) -> Piece:
  """One Langevin step, eq. (7), of all voxels or of what is hidden.

  Args:
    studio: of a model with a descriptor.
    piece: the shape.
    seed: of the noise.
    temperature: T >= 0.
    step_size: the paper's delta-tau, above 0.

  Raises:
    ValueError: for numbers out of range, a model without a descriptor, or
      chains that diverged.
  """
  if not studio.moves:
    raise ValueError('this model has no descriptor, which is needed for steps')
  if not (0 <= temperature <= 100 and 0 < step_size <= 10):
    raise ValueError(
      'temperature must be from 0 to 100 and step_size above 0 and at most 10; '
      f'got {temperature} and {step_size}'
    )
  plan, model = piece.plan, studio.model
  # Of several grids: that of the finest.
  std = float(np.ravel(model.extras['reference_std'])[-1])
  if plan.steps <= piece.step < plan.steps + plan.refinement_steps:
    std = plan.refinement_std
  free = piece.hidden if piece.filling else np.ones_like(piece.hidden)
  key = jax.random.fold_in(jax.random.key(seed), piece.draws)
  voxels, energy = _step(
    key,
    model,
    jnp.asarray(piece.voxels),
    jnp.asarray(~free),
    jnp.float32(step_size),
    jnp.float32(temperature),
    jnp.float32(std),
  )
  voxels = np.asarray(voxels)
  if not np.isfinite(voxels).all() or abs(voxels).max() > 100:
    raise ValueError('the chain diverged: use a smaller step size')
  return piece._replace(
    # Voxels that may not move stay exactly as they were.
    voxels=np.where(free, voxels, piece.voxels),
    step=piece.step + 1,
    draws=piece.draws + 1,
    energy=float(energy),
    latent=None,
  )


@jax.jit
def _step(key, model, voxels, visible, step_size, temperature, std):
  y = uses.to_network(model, voxels[None])
  kernel = dnet_jax.langevin(
    uses.energy_fn(model, reference_std=std),
    step_size,
    temperature=temperature,
    project=dnet_jax.fixed_voxels(visible[None, ..., None]),
  )
  state, info = kernel.step(key, kernel.init(y))
  return uses.from_network(model, state.position)[0], info.energy[0]


def content(piece: Piece, kind: str) -> bytes:
  """The shape as a file of one of `FORMATS`.

  Raises:
    ValueError: for another format, or a shape without a surface.
  """
  if kind not in FORMATS:
    raise ValueError(
      f'format must be one of {", ".join(FORMATS)}, got {kind!r}'
    )
  with tempfile.TemporaryDirectory(prefix='dnet_view_') as folder:
    if kind == 'npz':
      path = os.path.join(folder, 'shape.npz')
      np.savez_compressed(path, voxels=piece.voxels[None], hidden=piece.hidden)
    else:
      paths = shapes.save(folder, piece.voxels[None], (kind,)).paths
      if not paths:
        raise ValueError('the shape is empty: there is nothing to save')
      (path,) = paths
    with open(path, 'rb') as file:
      return file.read()
