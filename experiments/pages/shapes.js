// Draws voxel shapes on a canvas, with light and shadow; needs no GPU.
//
// A field is {sides: [D, H, W], data: Uint8Array}, 0 empty and 255 full, with
// the last axis fastest; axes are x, y, z with z up. Inside is above 127. The
// camera is that of experiments/files/figures.py: parallel, from the front
// left and above.
'use strict';

const Shapes = (() => {
  const LEVEL = 127.5;
  const FRONT = {azimuth: -122, elevation: 24};
  const radians = degrees => degrees * Math.PI / 180;
  const normal = v => {
    const length = Math.hypot(...v) || 1;
    return v.map(x => x / length);
  };

  // From the shape to the viewer, and the picture's axes in space.
  function axes(camera) {
    const a = radians(camera.azimuth), e = radians(camera.elevation);
    const viewer = [
      Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
    const right = [-Math.sin(a), Math.cos(a), 0];
    const up = [
      viewer[1] * right[2] - viewer[2] * right[1],
      viewer[2] * right[0] - viewer[0] * right[2],
      viewer[0] * right[1] - viewer[1] * right[0]];
    return {viewer, right, up};
  }

  // Light and its neighbours, so that the edges of shadows are soft; fixed to
  // the shape, over the left shoulder of who looks from the front.
  const front = axes(FRONT);
  const toLight = (left, up) => normal([0, 1, 2].map(i =>
    0.8 * front.viewer[i] - left * front.right[i] + up * front.up[i]));
  const LIGHT = toLight(0.32, 0.75);
  const LIGHTS = [[0.2, 0.75], [0.44, 0.75], [0.32, 0.6], [0.32, 0.92]].map(
    pair => toLight(...pair));
  const AROUND = [];
  for (let i = 0; i < 14; i++) {
    const z = 1 - (2 * i + 1) / 14, r = Math.sqrt(1 - z * z), t = 2.4 * i;
    AROUND.push([r * Math.cos(t), r * Math.sin(t), z]);
  }

  // A field as zlib made it smaller, in base64.
  async function unpack(text, sides) {
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(
      new DecompressionStream('deflate'));
    const data = new Uint8Array(await new Response(stream).arrayBuffer());
    return {sides, data};
  }

  function blocked(field, x, y, z, d, steps, length) {
    const [D, H, W] = field.sides, data = field.data;
    for (let i = 0; i < steps; i++) {
      x += d[0] * length; y += d[1] * length; z += d[2] * length;
      const a = Math.round(x), b = Math.round(y), c = Math.round(z);
      if (a < 0 || b < 0 || c < 0 || a >= D || b >= H || c >= W) {
        if (a < -2 || b < -2 || c > W || a > D + 1 || b > H + 1) return false;
        continue;
      }
      if (data[(a * H + b) * W + c] > LEVEL) return true;
    }
    return false;
  }

  // What light comes to each corner: all of it is 1.
  function shade(field, mesh) {
    const {points, normals} = mesh, count = points.length / 3;
    const light = new Float32Array(count);
    const far = Math.ceil(1.8 * Math.max(...field.sides) / 0.9);
    for (let i = 0; i < count; i++) {
      const n = normals.subarray(3 * i, 3 * i + 3);
      const x = points[3 * i] + 0.9 * n[0];
      const y = points[3 * i + 1] + 0.9 * n[1];
      const z = points[3 * i + 2] + 0.9 * n[2];
      let open = 0, all = 0, lit = 0;
      for (const d of AROUND) {
        const cosine = d[0] * n[0] + d[1] * n[1] + d[2] * n[2];
        if (cosine < 0.15) continue;
        all += cosine;
        if (!blocked(field, x, y, z, d, 5, 1.1)) open += cosine;
      }
      const lambert = Math.max(
        0, n[0] * LIGHT[0] + n[1] * LIGHT[1] + n[2] * LIGHT[2]);
      if (lambert > 0) {
        for (const d of LIGHTS) {
          if (!blocked(field, x, y, z, d, far, 0.9)) lit += 1 / LIGHTS.length;
        }
      }
      light[i] = 0.45 * (all ? 0.25 + 0.75 * open / all : 1)
        + 0.82 * lambert * lit;
    }
    mesh.light = light;
    return mesh;
  }

  // The smooth surface at the level, by surface nets.
  function surface(field) {
    const [D, H, W] = field.sides, data = field.data;
    const at = (x, y, z) =>
      x < 0 || y < 0 || z < 0 || x >= D || y >= H || z >= W
        ? 0 : data[(x * H + y) * W + z];
    const points = [], faces = [];
    const ids = new Int32Array((D + 1) * (H + 1) * (W + 1)).fill(-1);
    const id = (x, y, z) => ((x + 1) * (H + 1) + y + 1) * (W + 1) + z + 1;
    const v = new Float32Array(8);
    for (let x = -1; x < D; x++) {
      for (let y = -1; y < H; y++) {
        for (let z = -1; z < W; z++) {
          let mask = 0;
          for (let i = 0; i < 8; i++) {
            v[i] = at(x + (i >> 2), y + (i >> 1 & 1), z + (i & 1));
            if (v[i] > LEVEL) mask |= 1 << i;
          }
          if (mask === 0 || mask === 255) continue;
          let px = 0, py = 0, pz = 0, n = 0;
          for (let i = 0; i < 8; i++) {
            for (let bit = 1; bit < 8; bit <<= 1) {
              const j = i | bit;
              if (j === i || (mask >> i & 1) === (mask >> j & 1)) continue;
              const t = (LEVEL - v[i]) / (v[j] - v[i]);
              px += (i >> 2) + (bit === 4 ? t : 0);
              py += (i >> 1 & 1) + (bit === 2 ? t : 0);
              pz += (i & 1) + (bit === 1 ? t : 0);
              n++;
            }
          }
          ids[id(x, y, z)] = points.length / 3;
          points.push(x + px / n, y + py / n, z + pz / n);
        }
      }
    }
    // A face for each pair of neighbours of which one is inside.
    for (let x = -1; x < D; x++) {
      for (let y = -1; y < H; y++) {
        for (let z = -1; z < W; z++) {
          const here = at(x, y, z) > LEVEL;
          const quad = (a, b, c, d, turned) => turned
            ? faces.push(a, b, c, a, c, d) : faces.push(a, c, b, a, d, c);
          if (here !== at(x + 1, y, z) > LEVEL) {
            quad(ids[id(x, y - 1, z - 1)], ids[id(x, y, z - 1)],
              ids[id(x, y, z)], ids[id(x, y - 1, z)], here);
          }
          if (here !== at(x, y + 1, z) > LEVEL) {
            quad(ids[id(x - 1, y, z - 1)], ids[id(x - 1, y, z)],
              ids[id(x, y, z)], ids[id(x, y, z - 1)], here);
          }
          if (here !== at(x, y, z + 1) > LEVEL) {
            quad(ids[id(x - 1, y - 1, z)], ids[id(x, y - 1, z)],
              ids[id(x, y, z)], ids[id(x - 1, y, z)], here);
          }
        }
      }
    }
    const mesh = {
      points: Float32Array.from(points), faces: Uint32Array.from(faces)};
    mesh.normals = averaged(mesh);
    return mesh;
  }

  function averaged({points, faces}) {
    const normals = new Float32Array(points.length);
    for (let i = 0; i < faces.length; i += 3) {
      const [a, b, c] = [3 * faces[i], 3 * faces[i + 1], 3 * faces[i + 2]];
      const ux = points[b] - points[a], uy = points[b + 1] - points[a + 1];
      const uz = points[b + 2] - points[a + 2];
      const wx = points[c] - points[a], wy = points[c + 1] - points[a + 1];
      const wz = points[c + 2] - points[a + 2];
      const n = [uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx];
      for (const corner of [a, b, c]) {
        for (let k = 0; k < 3; k++) normals[corner + k] += n[k];
      }
    }
    for (let i = 0; i < normals.length; i += 3) {
      const length = Math.hypot(
        normals[i], normals[i + 1], normals[i + 2]) || 1;
      for (let k = 0; k < 3; k++) normals[i + k] /= length;
    }
    return normals;
  }

  // The faces of the voxels themselves.
  function blocks(field) {
    const sides = field.sides, [D, H, W] = sides, data = field.data;
    const points = [], normals = [], faces = [];
    const strides = [H * W, W, 1], half = 0.48;
    for (let x = 0; x < D; x++) {
      for (let y = 0; y < H; y++) {
        for (let z = 0; z < W; z++) {
          const p = [x, y, z], here = (x * H + y) * W + z;
          if (data[here] <= LEVEL) continue;
          for (let axis = 0; axis < 3; axis++) {
            for (const sign of [-1, 1]) {
              const q = p[axis] + sign;
              if (q >= 0 && q < sides[axis]
                  && data[here + sign * strides[axis]] > LEVEL) continue;
              const u = (axis + 1) % 3, w = (axis + 2) % 3;
              const first = points.length / 3;
              for (const [s, t] of [[-1, -1], [1, -1], [1, 1], [-1, 1]]) {
                const corner = [...p], n = [0, 0, 0];
                corner[axis] += sign * half;
                corner[u] += s * half;
                corner[w] += t * half;
                n[axis] = sign;
                points.push(...corner);
                normals.push(...n);
              }
              faces.push(...(sign > 0 ? [0, 1, 2, 0, 2, 3]
                : [0, 2, 1, 0, 3, 2]).map(i => first + i));
            }
          }
        }
      }
    }
    return {
      points: Float32Array.from(points), normals: Float32Array.from(normals),
      faces: Uint32Array.from(faces)};
  }

  // Where the shape shadows the floor below it.
  function floor(field) {
    const [D, H] = field.sides, edge = Math.ceil(D / 3);
    const bottom = lowest(field);
    if (bottom < 0) return null;
    const rows = D + 2 * edge, columns = H + 2 * edge;
    const dark = new Float32Array(rows * columns);
    const far = Math.ceil(2.2 * Math.max(...field.sides));
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        for (const d of LIGHTS) {
          if (below(field, i - edge, j - edge, bottom - 0.6, d, far)) {
            dark[i * columns + j] += 1 / LIGHTS.length;
          }
        }
      }
    }
    return {dark, rows, columns, edge, z: bottom - 0.6};
  }

  function below(field, x, y, z, d, steps) {
    const [D, H, W] = field.sides, data = field.data;
    for (let i = 0; i < steps; i++) {
      x += d[0] * 0.9; y += d[1] * 0.9; z += d[2] * 0.9;
      const a = Math.round(x), b = Math.round(y), c = Math.round(z);
      if (c >= W) return false;
      if (a < 0 || b < 0 || c < 0 || a >= D || b >= H) continue;
      if (data[(a * H + b) * W + c] > LEVEL) return true;
    }
    return false;
  }

  function lowest(field) {
    const [D, H, W] = field.sides, data = field.data;
    let least = W;
    for (let i = 0; i < D * H; i++) {
      for (let z = 0; z < least; z++) {
        if (data[i * W + z] > LEVEL) { least = z; break; }
      }
    }
    return least === W ? -1 : least;
  }

  // All that a drawing needs: made once, turned often.
  function solid(field, kind = 'surface') {
    const mesh = kind === 'blocks' ? blocks(field) : surface(field);
    return {...shade(field, mesh), sides: field.sides, floor: floor(field)};
  }

  // Pixels of a voxel in a picture of `size` pixels.
  function scale(sides, size, camera) {
    return size / (1.52 * Math.max(...sides)) * (camera.zoom || 1);
  }

  function projector(sides, size, camera) {
    const {viewer, right, up} = axes(camera);
    const s = scale(sides, size, camera);
    const m = sides.map(n => (n - 1) / 2);
    const dot = (v, x, y, z) =>
      v[0] * (x - m[0]) + v[1] * (y - m[1]) + v[2] * (z - m[2]);
    return (x, y, z) => [
      size / 2 + s * dot(right, x, y, z), size / 2 - s * dot(up, x, y, z),
      dot(viewer, x, y, z)];
  }

  // layers: [{solid, color: [r, g, b], stipple}] into a square canvas.
  function draw(canvas, layers, camera, oversample = 2) {
    const size = Math.max(2, Math.round(
      canvas.width * oversample));
    const pixels = new Uint8ClampedArray(4 * size * size);
    const depth = new Float32Array(size * size).fill(-1e9);
    for (const layer of layers) {
      if (layer.solid.floor && camera.elevation > 2) {
        paintFloor(pixels, size, layer.solid, camera);
      }
    }
    for (const layer of layers) paint(pixels, depth, size, layer, camera);
    const image = new ImageData(pixels, size, size);
    const context = canvas.getContext('2d');
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (oversample === 1) {
      context.putImageData(image, 0, 0);
      return;
    }
    const large = scratch(size);
    large.getContext('2d').putImageData(image, 0, 0);
    context.imageSmoothingQuality = 'high';
    context.drawImage(large, 0, 0, canvas.width, canvas.height);
  }

  const scratches = new Map();
  function scratch(size) {
    if (!scratches.has(size)) {
      if (scratches.size > 4) scratches.clear();
      const canvas = document.createElement('canvas');
      canvas.width = canvas.height = size;
      scratches.set(size, canvas);
    }
    return scratches.get(size);
  }

  function paintFloor(pixels, size, {floor, sides}, camera) {
    const place = projector(sides, size, camera);
    const {dark, rows, columns, edge, z} = floor;
    const [ox, oy] = place(-edge, -edge, z);
    const [ax, ay] = place(1 - edge, -edge, z).map((v, i) => v - [ox, oy][i]);
    const [bx, by] = place(-edge, 1 - edge, z).map((v, i) => v - [ox, oy][i]);
    const det = ax * by - ay * bx;
    if (Math.abs(det) < 1e-6) return;
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const dx = x + 0.5 - ox, dy = y + 0.5 - oy;
        const i = (dx * by - dy * bx) / det, j = (dy * ax - dx * ay) / det;
        if (i < 0 || j < 0 || i >= rows - 1 || j >= columns - 1) continue;
        const a = Math.floor(i), b = Math.floor(j), s = i - a, t = j - b;
        const k = a * columns + b;
        const value = (1 - s) * ((1 - t) * dark[k] + t * dark[k + 1])
          + s * ((1 - t) * dark[k + columns] + t * dark[k + columns + 1]);
        // Outside the grid it fades: what the floor's end would cut off.
        const out = Math.max(0, edge - i, i - (rows - 1 - edge),
          edge - j, j - (columns - 1 - edge)) / edge;
        if (value > 0 && out < 1) {
          pixels[4 * (y * size + x) + 3] = 52 * value * (1 - out);
        }
      }
    }
  }

  function paint(pixels, depth, size, layer, camera) {
    const {points, normals, faces, light, sides} = layer.solid;
    const {viewer} = axes(camera);
    const place = projector(sides, size, camera);
    const count = points.length / 3;
    const screen = new Float32Array(3 * count), tone = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const p = 3 * i;
      screen.set(place(points[p], points[p + 1], points[p + 2]), p);
      const facing = Math.max(0, normals[p] * viewer[0]
        + normals[p + 1] * viewer[1] + normals[p + 2] * viewer[2]);
      tone[i] = light[i] + 0.2 * facing;
    }
    const [red, green, blue] = layer.color, {stipple} = layer;
    for (let f = 0; f < faces.length; f += 3) {
      const i = faces[f], j = faces[f + 1], k = faces[f + 2];
      const x0 = screen[3 * i], y0 = screen[3 * i + 1], z0 = screen[3 * i + 2];
      const x1 = screen[3 * j], y1 = screen[3 * j + 1], z1 = screen[3 * j + 2];
      const x2 = screen[3 * k], y2 = screen[3 * k + 1], z2 = screen[3 * k + 2];
      const area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0);
      if (area >= 0) continue; // It looks away: y of the screen points down.
      const left = Math.max(0, Math.floor(Math.min(x0, x1, x2)));
      const right = Math.min(size - 1, Math.ceil(Math.max(x0, x1, x2)));
      const top = Math.max(0, Math.floor(Math.min(y0, y1, y2)));
      const bottom = Math.min(size - 1, Math.ceil(Math.max(y0, y1, y2)));
      for (let y = top; y <= bottom; y++) {
        for (let x = left; x <= right; x++) {
          const px = x + 0.5, py = y + 0.5;
          const a = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area;
          const b = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area;
          const c = 1 - a - b;
          if (a < 0 || b < 0 || c < 0) continue;
          if (stipple && ((x >> 1) + (y >> 1)) % 2) continue;
          const z = a * z0 + b * z1 + c * z2, at = y * size + x;
          if (z <= depth[at]) continue;
          depth[at] = z;
          const t = a * tone[i] + b * tone[j] + c * tone[k];
          // Up to 1 the colour is darkened, above it lightened.
          const plain = Math.min(t, 1), more = Math.max(0, t - 1);
          pixels[4 * at] = red * plain + (255 - red) * more;
          pixels[4 * at + 1] = green * plain + (255 - green) * more;
          pixels[4 * at + 2] = blue * plain + (255 - blue) * more;
          pixels[4 * at + 3] = 255;
        }
      }
    }
  }

  // The first voxel under a point of the picture, and the empty one before it.
  // inside: (x, y, z) -> boolean.
  function pick(sides, size, camera, px, py, inside) {
    const {viewer, right, up} = axes(camera);
    const s = scale(sides, size, camera);
    const u = (px - size / 2) / s, v = (size / 2 - py) / s;
    const far = Math.hypot(...sides);
    let before = null;
    for (let t = far; t > -far; t -= 0.08) {
      const p = [0, 1, 2].map(i => Math.round((sides[i] - 1) / 2
        + u * right[i] + v * up[i] + t * viewer[i]));
      if (p.some((x, i) => x < 0 || x >= sides[i])) continue;
      if (inside(...p)) return {hit: p, before};
      if (!before || p.some((x, i) => x !== before[i])) before = p;
    }
    return {hit: null, before: null};
  }

  // Turns by dragging, by touch and by arrow keys; the wheel zooms with Ctrl.
  function turnable(element, camera, changed, mayTurn = () => true) {
    let last = null;
    const turn = (dx, dy) => {
      camera.azimuth -= dx;
      camera.elevation = Math.max(-89, Math.min(89, camera.elevation + dy));
      changed();
    };
    element.addEventListener('pointerdown', event => {
      if (!mayTurn(event)) return;
      last = [event.clientX, event.clientY];
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener('pointermove', event => {
      if (!last) return;
      turn((event.clientX - last[0]) * 0.6, (event.clientY - last[1]) * 0.6);
      last = [event.clientX, event.clientY];
    });
    for (const name of ['pointerup', 'pointercancel']) {
      element.addEventListener(name, () => { last = null; });
    }
    element.addEventListener('dblclick', () => {
      Object.assign(camera, FRONT, {zoom: 1});
      changed();
    });
    element.addEventListener('keydown', event => {
      const by = {ArrowLeft: [-10, 0], ArrowRight: [10, 0],
        ArrowUp: [0, -10], ArrowDown: [0, 10]}[event.key];
      if (!by) return;
      event.preventDefault();
      turn(...by);
    });
  }

  // A colour of the style sheet, such as --sample.
  function color(name) {
    const text = getComputedStyle(document.documentElement)
      .getPropertyValue(name).trim();
    return [1, 3, 5].map(i => parseInt(text.slice(i, i + 2), 16));
  }

  return {FRONT, axes, blocks, color, draw, pick, solid, surface, turnable,
    unpack};
})();
