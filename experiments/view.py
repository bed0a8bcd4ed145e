"""A page to work with a model in a browser.

python -m experiments.view --workdir=pretrained/recovery_chair

The page makes new shapes, hides and adds voxels with the mouse, and shows how
Langevin steps fill hidden voxels. It is served to this machine only; Ctrl-C
ends it.
"""

from collections.abc import Sequence

from absl import app
from absl import flags

from experiments.files import models
from experiments.files import outputs
from experiments.pages import server as servers
from experiments.pages import studio as studios

_WORKDIR = flags.DEFINE_string(
  'workdir', None, "A run, a saved model, 'demo' or 'hf://owner/name'."
)
_PORT = flags.DEFINE_integer('port', 8760, 'Port of the page; 0: any free one.')


def main(argv: Sequence[str]) -> None:
  """Serves the page until Ctrl-C."""
  if argv[1:]:
    raise app.UsageError(f'no arguments but flags are taken, got {argv[1:]}')
  outputs.plain_log()
  try:
    model, card = models.open_model(_WORKDIR.value)
    config = models.full_config(card.get('config', {}))
    outputs.tell_devices()
    studio = studios.open_studio(model, card['name'], config)
    server = servers.serve(studio, _PORT.value)
  except (OSError, ValueError) as error:
    raise SystemExit(f'error: {error}') from error
  host, port = server.server_address[:2]
  print(f'http://{host}:{port}  (Ctrl-C ends it)', flush=True)
  try:
    server.serve_forever()
  except KeyboardInterrupt:
    print('Stopped.')
  finally:
    server.server_close()


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  app.run(main)
