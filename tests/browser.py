"""A headless Chromium for tests, where the system has one."""

import contextlib
import io
import os
import shutil
import time

import numpy as np
from PIL import Image

# Debian's packages chromium and chromium-driver.
_BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
_DRIVER = 'chromedriver'
WIDE, PHONE = (1280, 900), (390, 844)


def missing():
  """What is not there of a browser and its driver, in words; '': nothing."""
  found = [name for name in _BROWSERS if shutil.which(name)]
  absent = [] if found else ['chromium']
  absent += [] if shutil.which(_DRIVER) else ['chromium-driver']
  try:
    import selenium  # noqa: F401
  except ImportError:
    absent.append('the Python package selenium')
  return ', '.join(absent)


@contextlib.contextmanager
def opened(downloads=None):
  """A browser that is closed in the end.

  Args:
    downloads: a folder for the files that pages save.
  """
  from selenium import webdriver
  from selenium.webdriver.chrome import service

  options = webdriver.ChromeOptions()
  options.binary_location = next(filter(None, map(shutil.which, _BROWSERS)))
  for argument in (
    '--headless=new',
    '--no-sandbox',  # Of tests that run as root in a container.
    '--disable-dev-shm-usage',
    '--disable-gpu',
    '--hide-scrollbars',
    '--disable-background-networking',
    '--no-first-run',
  ):
    options.add_argument(argument)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  if downloads is not None:
    options.add_experimental_option(
      'prefs', {'download.default_directory': os.fspath(downloads)}
    )
  # A path: nothing is downloaded.
  driver = webdriver.Chrome(options, service.Service(shutil.which(_DRIVER)))
  try:
    driver.set_script_timeout(120)
    yield driver
  finally:
    driver.quit()


def show(driver, size=WIDE, dark=False):
  """A window of that size, light or dark, as of a phone where it is narrow."""
  driver.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {
      'width': size[0],
      'height': size[1],
      'deviceScaleFactor': 2 if size == PHONE else 1,
      'mobile': size == PHONE,
    },
  )
  driver.execute_cdp_cmd(
    'Emulation.setEmulatedMedia',
    {
      'features': [
        {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
      ]
    },
  )


def complaints(driver):
  """What the console has said of errors and warnings since the last call."""
  return [
    entry['message']
    for entry in driver.get_log('browser')
    if entry['level'] in ('SEVERE', 'WARNING')
  ]


def until(driver, script, seconds=60):
  """Waits until a script is true, and returns what it is.

  Raises:
    TimeoutError: when it is not, in time.
  """
  end = time.monotonic() + seconds
  while True:
    found = driver.execute_script(script)
    if found:
      return found
    if time.monotonic() > end:
      raise TimeoutError(f'not within {seconds} s: {script}')
    time.sleep(0.05)


def pixels(driver, selector):
  """The pixels of a canvas, `(height, width, 4)`."""
  data = driver.execute_script(
    'const c = document.querySelector(arguments[0]);'
    "return c.toDataURL('image/png').split(',')[1];",
    selector,
  )
  return _decoded(data)


def screenshot(driver, path=None, whole=False):
  """What is seen, `(height, width, 4)`, and maybe a file of it.

  Args:
    driver: the browser.
    path: of a picture (.png) to write as well.
    whole: of the page and not of the window only.
  """
  data = driver.execute_cdp_cmd(
    'Page.captureScreenshot',
    {'format': 'png', 'captureBeyondViewport': whole},
  )['data']
  image = _decoded(data)
  if path is not None:
    Image.fromarray(image).save(path)
  return image


def _decoded(data):
  import base64

  with Image.open(io.BytesIO(base64.b64decode(data))) as image:
    return np.asarray(image.convert('RGBA'))
