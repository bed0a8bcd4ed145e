// Draws the shapes of a report; one camera turns all of them.
'use strict';

(() => {
  const camera = {...Shapes.FRONT};
  const shown = new Map();
  const dark = matchMedia('(prefers-color-scheme: dark)');
  let waiting = false;

  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      for (const [canvas, solid] of shown) {
        if (solid && canvas.dataset.seen) draw(canvas, solid);
      }
    });
  }

  function draw(canvas, solid) {
    const size = Math.round(
      canvas.clientWidth * Math.min(2, devicePixelRatio || 1));
    if (!size) return;
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const color = Shapes.color(`--${canvas.dataset.kind}`);
    Shapes.draw(canvas, [{solid, color}], camera);
    canvas.dataset.drawn = 'yes';
  }

  const observer = new IntersectionObserver(entries => {
    for (const {target, isIntersecting} of entries) {
      target.dataset.seen = isIntersecting ? 'yes' : '';
      if (isIntersecting && shown.get(target) === null) load(target);
    }
    redraw();
  }, {rootMargin: '200px'});

  async function load(canvas) {
    shown.set(canvas, undefined);
    const sides = canvas.dataset.sides.split(',').map(Number);
    shown.set(canvas, Shapes.solid(
      await Shapes.unpack(canvas.dataset.shape, sides)));
    redraw();
  }

  for (const canvas of document.querySelectorAll('canvas.shape')) {
    shown.set(canvas, null);
    Shapes.turnable(canvas, camera, redraw);
    observer.observe(canvas);
  }
  dark.addEventListener('change', redraw);
  addEventListener('resize', redraw);
})();
