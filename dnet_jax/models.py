"""Models: the result of learning, as a value, and how it is saved and loaded.

A `Model` holds all that its use needs and nothing else. Its spec is static and
determines the program; parameters and extras are arrays. So models of two
categories with the same networks run in one compiled program. What a model can
do is in uses/. No other module of the library reads or writes files.

A saved model is a folder:

  spec.json          the spec, and the version of the format
  model.safetensors  parameters and extras: float16, or 8 bits (4 bits for
                     principal components)
  card.json          how it was made: data, device, date, numbers, config
  README.md          the same for people
"""

from collections.abc import Mapping
import dataclasses
import importlib.resources
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors
from safetensors import SafetensorError

from dnet_jax import specs

VERSION = 1
WEIGHTS = ('float16', 'int8')
_FILES = ('spec.json', 'model.safetensors', 'card.json', 'README.md')
_HUB = 'hf://'
# Arrays with fewer entries stay float32: they take next to no room.
_SMALL = 4096
_SCALE = ':scale'  # Ends the name of the scales of an array of 4 or 8 bits.
_SHAPE = ':shape'  # Ends the name of the shape of an array of 4 bits.
# This array takes 4 bits. It would be half of a saved model at 8 bits, and new
# shapes do not show the difference.
_FOUR_BITS = 'extras/components/directions'
_CLIP = 4.0  # Of 4 bits, in standard deviations of a component.


@jax.tree_util.register_dataclass
# Equal means identical: `==` of arrays would compare their elements.
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Model:
  """A trained model: a pytree, to be passed to `jit` like any array.

  Attributes:
    spec: static.
    params: variables of the networks by name, float32: 'descriptor', or
      'grid_1', 'grid_2' ... coarse first; 'generator'; 'classifier'.
    extras: what else its use needs: `mean` and `scale` of the data (a
      network sees `(voxels - mean) * scale`), `reference_std` and
      `reference_means`, `settings` (numbers of each use), and maybe `chains`
      (persistent ones, as the network sees them), `components` (see
      `pca.Components`), `histogram` (of averages, for multi-grid) and
      `latent_codes` (those of training shapes, `codes`, and the `correlation`
      of draws with them, for a generator).
  """

  spec: specs.Spec = dataclasses.field(metadata={'static': True})
  params: Mapping[str, Any]
  extras: Mapping[str, Any]

  def __repr__(self):
    """Its networks and its grid."""
    return f'Model({specs.describe(self.spec)})'


def flatten(tree: Any) -> dict[str, np.ndarray]:
  """Arrays of nested dicts by their names, joined by '/'.

  >>> flatten({'a': {'b': np.zeros(2)}})
  {'a/b': array([0., 0.])}
  """
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def unflatten(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`.

  >>> unflatten({'a/b': 1})
  {'a': {'b': 1}}
  """
  tree: dict[str, Any] = {}
  for name, array in arrays.items():
    *groups, last = name.split('/')
    place = tree
    for group in groups:
      place = place.setdefault(group, {})
    place[last] = array
  return tree


def _encode(name, x, weights):
  """An array as it is stored, by name; few bits have scales beside them."""
  x = np.asarray(x, np.float32)
  if not np.isfinite(x).all():
    raise ValueError(f'{name} has values that are not finite')
  if x.size < _SMALL:
    return {name: x}
  if (x == np.clip(np.rint(x), 0, 255)).all():
    return {name: x.astype(np.uint8)}  # Bounding boxes: whole numbers.
  if weights == 'int8' and name == _FOUR_BITS:
    return _encode_four_bits(name, x)
  if weights == 'int8':
    # A scale for each filter, chain or component; one for a vector.
    filters = name.startswith('params/')
    last = x.ndim - 1
    axes = tuple(range(last) if filters else range(1, x.ndim)) or None
    scale = np.abs(x).max(axis=axes, keepdims=True) / 127
    levels = np.round(x / np.where(scale > 0, scale, 1)).astype(np.int8)
    return {name: levels, name + _SCALE: scale.astype(np.float32)}
  with np.errstate(over='ignore'):
    half = x.astype(np.float16)
  if not np.isfinite(half).all():
    raise ValueError(
      f'{name} has a value of {np.abs(x).max():.3g}, which float16 cannot hold'
    )
  return {name: half}


def _encode_four_bits(name, x):
  """Levels from -7 to 7 of each row, two in a byte."""
  rows = x.reshape(len(x), -1)
  largest = np.abs(rows).max(axis=1, keepdims=True)
  scale = np.minimum(largest, _CLIP * rows.std(axis=1, keepdims=True)) / 7
  # What was stored in four bits before is stored as it was, not clipped again;
  # also if it went through float16.
  before = rows * 7 / np.where(largest > 0, largest, 1)
  again = np.abs(before - np.rint(before)).max(axis=1, keepdims=True) < 1e-2
  scale = np.where(again, largest / 7, scale)
  levels = np.round(rows / np.where(scale > 0, scale, 1)).clip(-7, 7) + 8
  levels = np.pad(levels.astype(np.uint8), ((0, 0), (0, rows.shape[1] % 2)))
  return {
    name: levels[:, ::2] << 4 | levels[:, 1::2],
    name + _SCALE: scale.astype(np.float32),
    name + _SHAPE: np.array(x.shape, np.int32),
  }


def _decode_four_bits(packed, scale, shape):
  levels = np.stack([packed >> 4, packed & 15], axis=-1)
  levels = levels.reshape(len(packed), -1)[:, : np.prod(shape[1:])]
  return ((levels.astype(np.float32) - 8) * scale).reshape(shape)


def _decode(stored):
  """Arrays in float32, by name."""
  arrays = {}
  for name, x in stored.items():
    if name.endswith((_SCALE, _SHAPE)):
      continue
    if name + _SHAPE in stored:
      arrays[name] = _decode_four_bits(
        x, stored[name + _SCALE], stored[name + _SHAPE]
      )
      continue
    x = x.astype(np.float32)
    arrays[name] = x * stored[name + _SCALE] if name + _SCALE in stored else x
  return arrays


def save(
  model: Model,
  folder: str | os.PathLike[str],
  *,
  weights: str = 'float16',
  card: Mapping[str, Any] | None = None,
) -> None:
  """Writes a model, whole or not at all, never over another.

  Args:
    model: the model.
    folder: the folder to make.
    weights: 'float16', or 'int8' with a scale for each filter, and principal
      components of 4 bits. Whole numbers up to 255 are exact in both.
    card: how it was made, for card.json and README.md; its values must be of
      JSON's own types.

  Raises:
    FileExistsError: when `folder` exists.
    ValueError: for unknown `weights`, or a number that they cannot hold.

  >>> folder = os.path.join(tempfile.mkdtemp(), 'copy')
  >>> save(load('demo'), folder, weights='int8')
  >>> load(folder).spec == load('demo').spec
  True
  """
  if weights not in WEIGHTS:
    raise ValueError(f'weights must be one of {WEIGHTS}, got {weights!r}')
  target = pathlib.Path(os.path.abspath(folder))
  if os.path.lexists(target):
    raise FileExistsError(
      f'{folder} exists and is not overwritten: choose another name, or move it'
    )
  tensors: dict[str, np.ndarray] = {}
  for name, x in flatten(
    {'params': dict(model.params), 'extras': dict(model.extras)}
  ).items():
    tensors |= _encode(name, x, weights)
  card = dict(card or {})
  spec = {'version': VERSION} | specs.spec_to_json(model.spec)
  target.parent.mkdir(parents=True, exist_ok=True)
  partial = pathlib.Path(
    tempfile.mkdtemp(prefix=f'.{target.name}.', dir=target.parent)
  )
  try:
    partial.chmod(0o777 & ~_umask())
    safetensors.save_file(tensors, partial / 'model.safetensors')
    # safetensors makes it readable for its owner alone.
    (partial / 'model.safetensors').chmod(0o666 & ~_umask())
    for name, content in (('spec.json', spec), ('card.json', card)):
      text = json.dumps(content, indent=2) + '\n'
      (partial / name).write_text(text, encoding='utf-8')
    text = _readme(model, card, target.name, weights)
    (partial / 'README.md').write_text(text, encoding='utf-8')
    # Fails where another process has made a folder that is not empty.
    os.rename(partial, target)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _umask():
  mask = os.umask(0)
  os.umask(mask)
  return mask


def _words(value):
  if isinstance(value, Mapping):
    return ', '.join(f'{name} {x}' for name, x in value.items())
  if isinstance(value, list):
    return ', '.join(map(str, value))
  return value


def _readme(model, card, name, weights):
  """The card for people."""
  count = sum(x.size for x in jax.tree.leaves(dict(model.params)))
  networks = specs.describe(model.spec)
  rows = {'networks': f'{networks}; {count:,} parameters ({weights})'}
  rows |= {
    key.replace('_', ' '): _words(value)
    for key, value in card.items()
    if key not in ('config', 'name') and value not in (None, '', {}, [])
  }
  table = '\n'.join(f'| {key} | {value} |' for key, value in rows.items())
  return f"""# {card.get('name', name)}

A model of [dnet_jax](https://pypi.org/project/dnet-jax/), a 3D DescriptorNet.

| | |
|---|---|
{table}

```python
import dnet_jax

model = dnet_jax.load('{name}')
```
"""


def load(name: str | os.PathLike[str]) -> Model:
  """Loads a model.

  Args:
    name: a folder that `save` has written; 'demo', the model that comes with
      this package, where there is no folder of that name; or
      'hf://owner/name', a model on the Hugging Face hub. Only the last one
      uses the network, and needs the package huggingface_hub.

  Returns:
    The model, float32.

  Raises:
    FileNotFoundError: when there is no such folder, or it holds no model.
    ValueError: when its files are damaged or of another version, or the folder
      is the workdir of a run.
    ImportError: for the hub without its package.

  >>> load('demo').spec.grid
  (32, 32, 32)
  """
  folder = find(name)
  if not (folder / 'spec.json').exists():
    raise _no_model(name, folder)
  content = _read_json(name, folder / 'spec.json')
  version = content.pop('version', None)
  if version != VERSION:
    raise ValueError(
      f'{name} is of format version {version}; this dnet_jax reads version '
      f'{VERSION}: install another dnet_jax'
    )
  try:
    spec = specs.spec_from_json(content)
    stored = safetensors.load_file(folder / 'model.safetensors')
  except (OSError, ValueError, SafetensorError) as error:
    raise _damaged(name, error) from error
  tree = jax.tree.map(jnp.asarray, unflatten(_decode(stored)))
  model = Model(spec, tree.get('params', {}), tree.get('extras', {}))
  if {*model.params} != {*specs.network_names(spec)}:
    raise _damaged(
      name,
      f'model.safetensors holds the networks {sorted(model.params)}, and '
      f'spec.json names {sorted(specs.network_names(spec))}',
    )
  return model


def read_card(name: str | os.PathLike[str]) -> dict[str, Any]:
  """How a saved model was made: card.json.

  Args:
    name: as for `load`.

  Raises:
    FileNotFoundError: when there is no such folder.
    ValueError: when the card is missing or damaged.

  >>> 'config' in read_card('demo')
  True
  """
  return _read_json(name, find(name) / 'card.json')


def _read_json(name, path):
  try:
    content = json.loads(path.read_text('utf-8'))
  except (OSError, ValueError) as error:
    raise _damaged(name, f'{path.name}: {error}') from error
  if not isinstance(content, dict):
    raise _damaged(name, f'{path.name} holds no JSON object')
  return content


def _damaged(name, what):
  return ValueError(f'{name} is damaged: {what}; get the folder again')


def find(name: str | os.PathLike[str]) -> pathlib.Path:
  """The folder of a model, see `load`; from the hub it is downloaded."""
  text = os.fspath(name)
  if text.startswith(_HUB):
    return _from_hub(text)
  folder = pathlib.Path(text)
  if text == 'demo' and not folder.exists():
    return pathlib.Path(str(importlib.resources.files('dnet_jax') / 'demo'))
  if not folder.is_dir():
    raise FileNotFoundError(
      f"there is no folder {text}; a model is a folder, 'demo' or "
      "'hf://owner/name'"
    )
  return folder


def _from_hub(text):
  owner, _, rest = text.removeprefix(_HUB).partition('/')
  if not owner or not rest or '/' in rest:
    raise ValueError(f"a model on the hub is 'hf://owner/name', got {text!r}")
  try:
    import huggingface_hub
  except ImportError as error:
    raise ImportError(
      f'{text} needs a package: pip install huggingface_hub'
    ) from error
  try:
    folder = huggingface_hub.snapshot_download(
      f'{owner}/{rest}', allow_patterns=list(_FILES)
    )
  # Whatever the hub's client raises: no such model, or no network.
  except Exception as error:
    reason = str(error).strip().split('\n')[0]
    raise FileNotFoundError(f'cannot get {text}: {reason}') from error
  return pathlib.Path(folder)


def _no_model(name, folder):
  """The error for a folder without a model; it depends on what is there."""
  if (folder / 'model.npz').exists():
    return ValueError(
      f'{name} is a model of an older format; convert it: python -m '
      f'experiments.main --mode=export --workdir={name} --out=NEW'
    )
  if (folder / 'checkpoints').is_dir():
    return ValueError(
      f'{name} is the workdir of a run; make a model of it: python -m '
      f'experiments.main --mode=export --workdir={name} --out=NEW'
    )
  return FileNotFoundError(f'{name} holds no model: it has no spec.json')
