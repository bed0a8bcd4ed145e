// The page of one model: it asks the server for every step, and draws it.
'use strict';

(() => {
  const $ = id => document.getElementById(id);
  const KEEP = 0, HIDE = 1, ADD = 2;
  const canvas = $('view'), camera = {...Shapes.FRONT, zoom: 1};
  let token = null, info = null, state = {};
  let field = null, hidden = null; // As the server has them, with own strokes.
  let solid = null, veil = null; // What is drawn of them; null: stale.
  let loop = null, touched = {}, rates = [], waiting = false, chain = null;
  let asked = 0, pending = 0, latentWaits = false;

  const say = text => { $('status').textContent = text; };

  async function post(path, content, body) {
    const response = await fetch(path, {
      method: 'POST', body: body || JSON.stringify({token, ...content})});
    if (!response.ok) throw new Error(await response.text());
    return response;
  }

  // Requests of this page come one after the other.
  function ask(path, content, body) {
    const turn = (chain || Promise.resolve()).then(
      () => post(path, content, body)).then(show);
    chain = turn.catch(() => {});
    return turn;
  }

  async function show(response) {
    const bytes = new Uint8Array(await response.arrayBuffer());
    const half = bytes.length / 2;
    state = JSON.parse(response.headers.get('X-State'));
    field = {sides: info.sides, data: bytes.slice(0, half)};
    hidden = {sides: info.sides, data: bytes.slice(half).map(x => 255 * x)};
    solid = veil = null;
    follow();
    redraw();
    return state;
  }

  // Sliders go with the plan until a hand moves them.
  function follow() {
    if (!touched.temperature) $('temperature').value = state.temperature;
    if (!touched.size) $('size').value = Math.log10(state.step_size);
    const sliders = document.querySelectorAll('#latent input');
    sliders.forEach((slider, i) => {
      slider.disabled = !state.latent.length;
      if (state.latent.length && !latentWaits
          && document.activeElement !== slider) {
        slider.value = state.latent[i];
      }
    });
    labels();
    controls();
  }

  function labels() {
    for (const label of document.querySelectorAll('label.slider')) {
      const input = label.querySelector('input');
      label.querySelector('output').textContent = input.id === 'size'
        ? (10 ** input.value).toPrecision(2) : Number(input.value).toFixed(
          input.id === 'brush' ? 0 : 2);
    }
  }

  function controls() {
    const some = hidden && hidden.data.some(x => x);
    $('fill').disabled = !some || !info.moves;
    $('run').textContent = loop ? 'Stop' : 'Run';
    $('run').disabled = !info.moves;
    document.body.dataset.state = loop || pending ? 'running' : 'idle';
    document.body.dataset.step = state.step;
  }

  function tell() {
    const parts = [info.sides.join(' × ') + ' voxels'];
    if (state.step) {
      parts.push(`step ${state.step}`
        + (state.total && state.step <= state.total
          ? ` of ${state.total}` : ''));
    }
    if (state.energy !== null && state.energy !== undefined) {
      parts.push(`energy ${state.energy.toFixed(1)}`);
    }
    if (loop && rates.length > 3) parts.push(`${rate().toFixed(1)} steps/s`);
    document.body.dataset.rate = rates.length > 3 ? rate().toFixed(2) : '';
    say(parts.join(', '));
  }

  function rate() {
    return 1000 * (rates.length - 1) / (rates[rates.length - 1] - rates[0]);
  }

  // Steps until the plan is done, or, freely, until they are stopped.
  async function steps(freely) {
    const mine = loop = {};
    rates = [];
    controls();
    try {
      while (loop === mine && (freely || !state.done)) {
        await ask('/step', {
          temperature: Number($('temperature').value),
          step_size: 10 ** $('size').value});
        rates = [...rates.slice(-30), performance.now()];
        if (loop === mine) tell();
      }
    } catch (error) {
      if (loop === mine) say(error.message);
      freely = null;
    }
    if (loop === mine) {
      loop = null;
      if (freely !== null) tell();
      controls();
      redraw();
    }
  }

  function stop() { loop = null; controls(); }

  // What a hand asks for; the steps of its plan follow, unless another one has
  // asked for something else meanwhile.
  async function act(path, content, body, goOn = false) {
    const mine = ++asked;
    pending++;
    stop();
    try {
      await ask(path, content, body);
      tell();
      if (goOn && mine === asked) steps(false);
    } catch (error) {
      say(error.message);
    }
    pending--;
    controls();
  }

  function redraw() {
    if (waiting || !field) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }

  function draw() {
    const sharp = Math.min(2, devicePixelRatio || 1);
    const size = Math.round(canvas.clientWidth * sharp);
    if (!size) return;
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const kind = $('blocks').checked ? 'blocks' : 'surface';
    if (!solid) solid = Shapes.solid(field, kind);
    const layers = [{solid, color: Shapes.color('--sample')}];
    // While steps fill it, what was hidden is seen as it becomes.
    if (!state.filling && hidden.data.some(x => x)) {
      if (!veil) veil = {...Shapes.solid(hidden, 'blocks'), floor: null};
      layers.push({
        solid: veil, color: Shapes.color('--hidden'), stipple: true});
    }
    Shapes.draw(canvas, layers, camera, loop || stroke || sharp > 1 ? 1 : 2);
    document.body.dataset.drawn = state.step;
  }

  // The mouse.

  const tool = () => document.querySelector('[name=tool]:checked').value;
  let stroke = null;

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const before = stroke ? stroke.before : field.data;
    const [, H, W] = field.sides;
    return Shapes.pick(
      field.sides, box.width, camera, event.clientX - box.left,
      event.clientY - box.top,
      (x, y, z) => before[(x * H + y) * W + z] > 127);
  }

  function mark(x, y, z, code) {
    const [D, H, W] = field.sides;
    if (x < 0 || y < 0 || z < 0 || x >= D || y >= H || z >= W) return;
    const i = (x * H + y) * W + z;
    stroke.codes[i] = code;
    field.data[i] = code === ADD ? 255 : 0;
    hidden.data[i] = code === HIDE ? 255 : 0;
  }

  function ball([x, y, z], radius, code) {
    const r = radius + 0.3, n = Math.ceil(r);
    for (let i = -n; i <= n; i++) {
      for (let j = -n; j <= n; j++) {
        for (let k = -n; k <= n; k++) {
          if (i * i + j * j + k * k <= r * r) mark(x + i, y + j, z + k, code);
        }
      }
    }
  }

  function box(a, b) {
    // Drawn anew as the mouse moves.
    field.data.set(stroke.before);
    hidden.data.set(stroke.veiled);
    stroke.codes.fill(KEEP);
    const grow = Number($('brush').value);
    const low = a.map((v, i) => Math.min(v, b[i]) - grow);
    const high = a.map((v, i) => Math.max(v, b[i]) + grow);
    for (let x = low[0]; x <= high[0]; x++) {
      for (let y = low[1]; y <= high[1]; y++) {
        for (let z = low[2]; z <= high[2]; z++) mark(x, y, z, HIDE);
      }
    }
  }

  function paint(event) {
    const {hit, before} = place(event), radius = Number($('brush').value);
    if (stroke.tool === 'erase' && hit) ball(hit, radius, HIDE);
    if (stroke.tool === 'add' && (hit || before)) {
      ball(before || hit, Math.max(0, radius - 1), ADD);
    }
    if (stroke.tool === 'box') {
      const corner = hit || before;
      if (corner && !stroke.corner) stroke.corner = corner;
      if (corner && stroke.corner) box(stroke.corner, corner);
    }
    solid = veil = null;
    redraw();
  }

  const turns = event =>
    tool() === 'turn' || event.button === 2 || event.shiftKey;

  canvas.addEventListener('contextmenu', event => event.preventDefault());
  canvas.addEventListener('pointerdown', event => {
    if (turns(event) || !field || stroke) return;
    stop();
    if (state.filling) hidden.data.fill(0); // A new part is hidden.
    state.filling = false;
    stroke = {
      tool: tool(), before: field.data.slice(), veiled: hidden.data.slice(),
      codes: new Uint8Array(field.data.length)};
    canvas.setPointerCapture(event.pointerId);
    paint(event);
  });
  canvas.addEventListener('pointermove', event => {
    if (stroke) paint(event);
  });
  for (const name of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(name, () => {
      if (!stroke) return;
      const {codes} = stroke;
      stroke = null;
      if (codes.some(x => x)) {
        act(`/edit?token=${encodeURIComponent(token)}`, {}, codes);
      } else redraw();
    });
  }
  canvas.addEventListener('wheel', event => {
    event.preventDefault();
    camera.zoom = Math.max(
      0.5, Math.min(6, camera.zoom * Math.exp(-event.deltaY / 600)));
    redraw();
  }, {passive: false});
  Shapes.turnable(canvas, camera, redraw, turns);

  // Buttons and sliders.

  $('make').addEventListener('click', () => {
    touched = {};
    act('/make', {kind: $('kind').value}, null, true);
  });
  $('fill').addEventListener('click', () => {
    touched = {};
    act('/fill', {}, null, true);
  });
  $('undo').addEventListener('click', () => act('/undo', {}));
  $('run').addEventListener('click', () => {
    asked++;
    loop ? stop() : steps(true);
  });
  $('blocks').addEventListener('change', () => { solid = null; redraw(); });
  $('save').addEventListener('click', async () => {
    const query = new URLSearchParams({token, format: $('format').value});
    const response = await fetch(`/save?${query}`);
    if (!response.ok) { say(await response.text()); return; }
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await response.blob());
    link.download = `${info.name}.${$('format').value}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
  for (const name of ['temperature', 'size']) {
    $(name).addEventListener('input', () => { touched[name] = true; });
  }
  document.addEventListener('input', labels);

  async function latent() {
    if (latentWaits) return;
    latentWaits = true;
    await chain;
    latentWaits = false;
    const sliders = [...document.querySelectorAll('#latent input')];
    act('/latent', {values: sliders.map(x => Number(x.value))});
  }

  function options(select, names) {
    for (const name of names) select.add(new Option(name, name));
  }

  async function begin() {
    info = await (await fetch('/info')).json();
    $('name').textContent = document.title = info.name;
    options($('kind'), info.kinds);
    options($('format'), info.formats);
    $('steps').hidden = !info.moves;
    for (let i = 0; i < info.latent; i++) {
      const label = document.createElement('label');
      label.className = 'slider';
      label.append(`latent ${i + 1} `, document.createElement('output'));
      const slider = Object.assign(document.createElement('input'), {
        type: 'range', min: -4, max: 4, step: 0.05, value: 0});
      slider.addEventListener('input', latent);
      label.append(slider);
      $('latent').append(label);
    }
    token = (await (await post('/open', {})).json()).token;
    act('/make', {kind: info.kinds[0]}, null, true);
  }

  addEventListener('pagehide', () => {
    loop = null;
    if (token) navigator.sendBeacon('/close', JSON.stringify({token}));
  });
  // Back from the browser's memory: the server has forgotten it.
  addEventListener('pageshow', event => {
    if (event.persisted) location.reload();
  });
  addEventListener('resize', redraw);
  matchMedia('(prefers-color-scheme: dark)').addEventListener(
    'change', redraw);
  begin().catch(error => say(error.message));
})();
