"""Pages in a real browser: what is drawn, turned, erased, filled and saved."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import report
from tests import browser
from tests.experiments import tiny
from tests.experiments.pages import again

ROOT = pathlib.Path(__file__).parents[3]
# Small, and it fills what is hidden.
MODEL = ROOT / 'pretrained' / 'recovery_chair'
# Set to keep the screenshots, for people.
_KEEP = 'DNET_JAX_SCREENSHOTS'
_IDLE = "return document.body.dataset.state === 'idle'"

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    bool(browser.missing()), reason=f'there is no {browser.missing()}'
  ),
  # Of the standard library's sockets, which selenium closes late.
  pytest.mark.filterwarnings('ignore::ResourceWarning'),
]


@contextlib.contextmanager
def _served(model, folder):
  """The page of a model, served as a user does it: address and process."""
  # Compiled as outside tests: steps have to be fast.
  slow = ('JAX_DISABLE_MOST_OPTIMIZATIONS', 'XLA_FLAGS')
  with open(folder / 'log', 'w') as log:
    process = subprocess.Popen(
      [
        *(sys.executable, '-m', 'experiments.view', '--port=0'),
        f'--workdir={model}',
      ],
      cwd=ROOT,
      env={name: x for name, x in os.environ.items() if name not in slow},
      stdout=subprocess.PIPE,
      stderr=log,
      text=True,
    )
    try:
      line = process.stdout.readline()
      yield re.match(r'(http://127\.0\.0\.1:\d+) ', line)[1], process
    finally:
      process.terminate()
      process.wait(30)
      process.stdout.close()


@pytest.fixture(scope='module')
def address(tmp_path_factory):
  with _served(MODEL, tmp_path_factory.mktemp('view')) as served:
    yield served


@pytest.fixture(scope='module')
def downloads(tmp_path_factory):
  return tmp_path_factory.mktemp('downloads')


@pytest.fixture
def driver(downloads):
  with browser.opened(downloads) as driver:
    browser.show(driver)
    yield driver
    assert browser.complaints(driver) == []


def _picture(driver, name):
  folder = os.environ.get(_KEEP)
  path = None
  if folder:
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f'{name}.png')
  return browser.screenshot(driver, path)


def _settled(driver, seconds=180):
  """Waits until nothing runs and the last step is drawn."""
  browser.until(driver, _IDLE, seconds)
  browser.until(
    driver, 'return document.body.dataset.drawn === document.body.dataset.step'
  )
  time.sleep(0.3)


def _solid(pixels):
  """Where a shape is drawn, and not its shadow."""
  return pixels[..., 3] > 250


def _actions(driver):
  from selenium.webdriver.common import action_chains

  return action_chains.ActionChains(driver, duration=50)


def _drag(driver, selector, start, moves):
  element = driver.find_element('css selector', selector)
  actions = _actions(driver)
  actions.move_to_element_with_offset(element, *start).click_and_hold()
  for move in moves:
    actions.move_by_offset(*move)
  actions.release().perform()


def _middle(driver):
  """Where something is drawn, nearest its middle: from the canvas' centre."""
  pixels = browser.pixels(driver, '#view')
  rows, columns = _solid(pixels).nonzero()
  near = np.argmin(abs(rows - rows.mean()) + abs(columns - columns.mean()))
  size = driver.find_element('id', 'view').size['width']
  scale = size / pixels.shape[1]
  return (
    int(columns[near] * scale - size / 2),
    int(rows[near] * scale - size / 2),
  )


def _saved(driver, downloads, kind):
  """What the page saves: the bytes of the file."""
  before = {*downloads.iterdir()}
  driver.execute_script(
    "document.getElementById('format').value = arguments[0];", kind
  )
  driver.find_element('id', 'save').click()
  end = time.monotonic() + 60
  while True:
    new = [
      path
      for path in {*downloads.iterdir()} - before
      if path.suffix == f'.{kind}'
    ]
    if new:
      return new[0].read_bytes()
    assert time.monotonic() < end, kind
    time.sleep(0.1)


def _voxels(driver, downloads):
  path = downloads / 'now.npy'
  path.write_bytes(_saved(driver, downloads, 'npz'))
  arrays = tiny.arrays(downloads, 'now.npy')
  path.unlink()
  return arrays['voxels'][0], arrays['hidden']


def test_a_report_is_drawn_and_turned(folder_of, driver, tmp_path):
  out = str(tmp_path / 'report.html')
  report.report(tiny.request(folder_of('recovery'), out=out))
  for size in (browser.WIDE, browser.PHONE):
    for dark in (False, True):
      browser.show(driver, size, dark)
      driver.get(f'file://{out}')
      browser.until(
        driver, "return document.querySelector('canvas[data-drawn]')"
      )
      time.sleep(0.5)
      name = f'report_{size[0]}_{"dark" if dark else "light"}'
      shown = _picture(driver, name)
      back = shown[5, 5, :3].mean()
      assert back < 60 if dark else back > 240
      assert driver.execute_script(
        'return document.documentElement.scrollWidth <= innerWidth'
      )
      drawn = _solid(browser.pixels(driver, 'canvas.shape'))
      assert 0.01 < drawn.mean() < 0.7
  browser.show(driver)
  time.sleep(1)  # Drawn anew, in the colours of the day.
  first = browser.pixels(driver, 'canvas.shape')
  _drag(driver, 'canvas.shape', (0, 0), [(25, 0), (25, 5)])
  time.sleep(0.5)
  turned = browser.pixels(driver, 'canvas.shape')
  assert (turned != first).any(-1).mean() > 0.01
  _actions(driver).double_click(
    driver.find_element('css selector', 'canvas.shape')
  ).perform()
  time.sleep(0.5)
  again = browser.pixels(driver, 'canvas.shape')
  np.testing.assert_array_equal(again, first)


def test_a_hole_is_filled(address, driver, downloads):
  driver.get(address[0])
  _settled(driver)
  whole, hidden = _voxels(driver, downloads)
  assert not hidden.any()
  first = browser.pixels(driver, '#view')
  assert 0.01 < _solid(first).mean() < 0.6
  _picture(driver, 'view_whole')
  # Turning changes the picture, and nothing else.
  _drag(driver, '#view', (0, 0), [(40, 0), (40, 20)])
  time.sleep(0.5)
  assert (browser.pixels(driver, '#view') != first).any(-1).mean() > 0.01
  np.testing.assert_array_equal(_voxels(driver, downloads)[0], whole)
  _actions(driver).double_click(driver.find_element('id', 'view')).perform()
  time.sleep(0.5)
  np.testing.assert_array_equal(browser.pixels(driver, '#view'), first)
  # Erases at the middle of what is drawn.
  start = _middle(driver)
  driver.find_element('css selector', '[value=erase]').click()
  _drag(driver, '#view', start, [(3, 0), (6, 2)])
  _settled(driver)
  erased, hidden = _voxels(driver, downloads)
  gone = hidden & (whole > 0.5)
  assert gone.sum() > 5 and not (erased[hidden] > 0.5).any()
  np.testing.assert_array_equal(erased[~hidden], whole[~hidden])
  pixels = _picture(driver, 'view_hole').astype(int)
  red = (pixels[..., 0] > pixels[..., 2] + 30) & (pixels[..., 0] > 90)
  assert red.sum() > 200
  # Fills it, live.
  driver.find_element('id', 'fill').click()
  browser.until(
    driver, "return document.getElementById('run').textContent === 'Stop'", 30
  )
  _settled(driver)
  filled, _ = _voxels(driver, downloads)
  _picture(driver, 'view_filled')
  np.testing.assert_array_equal(filled[~hidden], whole[~hidden])
  # Of a thin part the chain may make another one than there was.
  assert (filled[gone] > 0.5).mean() > 0.35
  assert (filled[hidden] > 0.5).sum() < 2 * gone.sum()
  # What it saves opens again.
  for kind in ('glb', 'stl', 'obj', 'vox', 'binvox'):
    data = _saved(driver, downloads, kind)
    again.check(data, kind, filled > 0.5)
  # Narrow, and dark.
  for dark in (False, True):
    browser.show(driver, browser.PHONE, dark)
    time.sleep(1)
    _picture(driver, f'view_phone_{"dark" if dark else "light"}')
    assert driver.execute_script(
      'return document.documentElement.scrollWidth <= innerWidth'
    )


def test_adding_and_hiding_a_box(address, driver, downloads):
  driver.get(address[0])
  _settled(driver)
  whole, _ = _voxels(driver, downloads)
  driver.find_element('css selector', '[value=add]').click()
  _drag(driver, '#view', _middle(driver), [(2, 2)])
  _settled(driver)
  added, hidden = _voxels(driver, downloads)
  assert (added > 0.5).sum() > (whole > 0.5).sum() and not hidden.any()
  driver.find_element('css selector', '[value=box]').click()
  _drag(driver, '#view', _middle(driver), [(-20, -20), (30, 40)])
  _settled(driver)
  _, hidden = _voxels(driver, downloads)
  places = np.argwhere(hidden)
  # A whole box and nothing else.
  assert len(places) == np.prod(np.ptp(places, axis=0) + 1) > 30
  driver.find_element('id', 'undo').click()
  _settled(driver)
  back, hidden = _voxels(driver, downloads)
  np.testing.assert_array_equal(back, added)
  assert not hidden.any()


def test_sliders_of_a_latent_space(driver, tmp_path):
  with _served(ROOT / 'pretrained' / 'coop_sofa', tmp_path) as (url, _):
    driver.get(url)
    _settled(driver)
    driver.execute_script(
      "document.getElementById('kind').value = 'generated';"
      "document.getElementById('make').click();"
    )
    browser.until(
      driver, "return !document.querySelector('#latent input').disabled"
    )
    _settled(driver)
    first = browser.pixels(driver, '#view')
    assert _solid(first).mean() > 0.01
    driver.execute_script(
      "const x = document.querySelector('#latent input');"
      'x.value = x.value > 0 ? -3 : 3;'
      "x.dispatchEvent(new Event('input', {bubbles: true}));"
    )
    time.sleep(3)
    _settled(driver)
    moved = browser.pixels(driver, '#view')
    _picture(driver, 'view_latent')
    assert (moved != first).any(-1).mean() > 0.01


def _seconds(process):
  """What a process has computed so far, in seconds."""
  fields = pathlib.Path(f'/proc/{process.pid}/stat').read_text().split(')')[1]
  return sum(map(int, fields.split()[11:13])) / os.sysconf('SC_CLK_TCK')


def test_two_pages_at_once_and_the_end_of_work(address, driver):
  url, process = address
  handles = []
  for _ in range(2):
    driver.switch_to.new_window('window')
    browser.show(driver)
    driver.get(url)
    _settled(driver)
    driver.find_element('id', 'run').click()
    handles.append(driver.current_window_handle)
  for handle in handles:
    driver.switch_to.window(handle)
    browser.until(driver, 'return Number(document.body.dataset.step) > 8')
    assert driver.execute_script(_IDLE) is False
  busy = _seconds(process)
  with contextlib.suppress(TimeoutError):
    browser.until(driver, 'return Number(document.body.dataset.step) > 60', 20)
  assert _seconds(process) > busy
  for handle in handles:
    driver.switch_to.window(handle)
    driver.close()
  driver.switch_to.window(driver.window_handles[0])
  time.sleep(2)  # The last step.
  before = _seconds(process)
  time.sleep(3)
  assert _seconds(process) - before < 0.3
