// The fleet on a canvas: racks with a line of power on top, hosts as tiles below it, coloured by how much of them is used.
// Only tiles that changed are drawn again, so that 16,384 of them stay live.

import { html, useDark, useEffect, useRef, useState } from './core.js';
import { percent, watts } from './format.js';

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const kColors = ['free', 'use-1', 'use-2', 'use-3', 'bad', 'wait', 'line', 'text', 'muted', 'surface', 'hot', 'on-accent'];
const palette = () => Object.fromEntries(kColors.map((name) => [name, css('--' + name)]));

// Tile widths and heights; the largest that fits is taken.
const kSizes = [[150, 46], [84, 30], [44, 20], [26, 14], [16, 10], [11, 8], [8, 6], [6, 5], [5, 4]];
const kMaxHeight = 620;

function place(racks, width, [w, h]) {
  const gap = w > 40 ? 14 : w > 12 ? 6 : 3, pad = w > 40 ? 4 : 1, title = w >= 84 ? 18 : 0, power = w > 12 ? 5 : 3;
  const across = Math.max(1, Math.floor((width + gap) / (w + gap)));
  const tallest = Math.max(1, ...racks.map((rack) => rack.hosts.length));
  const rackHeight = title + power + tallest * (h + pad);
  const tiles = [], frames = [];
  racks.forEach((rack, i) => {
    const x = (i % across) * (w + gap), y = Math.floor(i / across) * (rackHeight + gap);
    frames.push({ rack, x, y, w, title, power });
    rack.hosts.forEach((host, k) => tiles.push({ host, rack, x, y: y + title + power + pad + k * (h + pad), w, h }));
  });
  return { tiles, frames, height: Math.ceil(racks.length / across) * (rackHeight + gap), w, h };
}

function layout(racks, width) {
  for (const size of kSizes) {
    const placed = place(racks, width, size);
    if (placed.height <= kMaxHeight || size === kSizes.at(-1)) return placed;
  }
}

const share = (host) => (host.gpus ? host.gpus_used / host.gpus : host.state === 'used' ? 1 : 0);
function fillOf(host, colors) {
  if (host.state === 'drained') return 'hatch';
  if (host.lemon || host.state === 'down') return colors.bad;
  const used = share(host);
  return used <= 0 ? colors.free : used <= 0.34 ? colors['use-1'] : used < 0.99 ? colors['use-2'] : colors['use-3'];
}

function hatch(context, colors) {
  const tile = Object.assign(document.createElement('canvas'), { width: 6, height: 6 }), c = tile.getContext('2d');
  c.fillStyle = colors.free;
  c.fillRect(0, 0, 6, 6);
  c.strokeStyle = colors.wait;
  c.lineWidth = 2;
  c.beginPath();
  for (const at of [-6, 0, 6]) c.moveTo(at, 6), c.lineTo(at + 6, 0);
  c.stroke();
  return context.createPattern(tile, 'repeat');
}

function drawTile(c, tile, colors, pattern, chosen) {
  const { host, x, y, w, h } = tile, fill = fillOf(host, colors);
  c.fillStyle = colors.surface;
  c.fillRect(x - 1, y - 1, w + 2, h + 2);
  const radius = w > 40 ? 6 : w > 12 ? 2 : 0;
  const box = () => (c.beginPath(), radius ? c.roundRect(x, y, w, h, radius) : c.rect(x, y, w, h));
  c.fillStyle = w >= 44 && fill !== 'hatch' && fill !== colors.bad ? colors.free : fill === 'hatch' ? pattern : fill;
  box();
  c.fill();
  if (w >= 44 && fill !== 'hatch') gpuCells(c, tile, colors);
  if (w >= 84) {
    c.fillStyle = colors.text;
    c.font = '12px system-ui, sans-serif';
    if (fill === 'hatch') (c.fillStyle = colors.free), c.fillRect(x + 4, y + 5, c.measureText(host.id).width + 8, 16), (c.fillStyle = colors.text);
    c.fillText(host.id, x + 8, y + 16, w - 14);
  }
  if (!chosen) return;
  c.strokeStyle = colors.text;
  c.lineWidth = 2;
  box();
  c.stroke();
}

function gpuCells(c, { host, x, y, w, h }, colors) {
  const n = host.gpus || 1, top = w >= 84 ? 23 : 4, room = w - 12, size = Math.min(12, room / n - 2, h - top - 5);
  if (size < 2) return;
  for (let i = 0; i < n; i++) {
    c.fillStyle = i < host.gpus_used ? colors['use-3'] : colors.surface;
    c.beginPath();
    c.roundRect(x + 7 + i * (size + 3), y + top, size, size, Math.min(3, size / 3));
    c.fill();
  }
}

function drawFrame(c, { rack, x, y, w, title, power }, colors) {
  c.fillStyle = colors.surface;
  c.fillRect(x, y, w, title + power);
  if (title) {
    c.fillStyle = colors.muted;
    c.font = '12px system-ui, sans-serif';
    c.fillText(rack.id, x + 1, y + 12, w * 0.45);
    c.textAlign = 'right';
    c.fillText(`${watts(rack.power_used_w)} of ${watts(rack.power_budget_w)}`, x + w - 1, y + 12, w * 0.55);
    c.textAlign = 'left';
  }
  const drawn = rack.power_budget_w ? Math.min(1, rack.power_used_w / rack.power_budget_w) : 0, thick = Math.max(2, power - 2);
  c.fillStyle = colors.free;
  c.fillRect(x, y + title, w, thick);
  c.fillStyle = drawn > 0.97 ? colors.bad : drawn > 0.85 ? colors.hot : colors['use-3'];
  c.fillRect(x, y + title, w * drawn, thick);
}

const textOf = ({ host, rack }) => `${host.id}: ${host.state}, ${host.gpus_used} of ${host.gpus} GPUs in use; rack ${rack.id}`;

export function FleetMap({ racks, chosen, choose }) {
  const box = useRef(null), canvas = useRef(null), drawn = useRef(new Map()), placed = useRef(null);
  const [width, setWidth] = useState(0), [tip, setTip] = useState(null), dark = useDark();

  useEffect(() => {
    const watch = new ResizeObserver(() => setWidth(box.current.clientWidth));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);

  useEffect(() => {
    if (!width) return;
    const scale = devicePixelRatio || 1, plan = (placed.current = layout(racks, width)), el = canvas.current, c = el.getContext('2d');
    const shape = [width, plan.height, plan.w, racks.length, dark, scale].join();
    if (drawn.current.shape !== shape) {
      el.width = width * scale;
      el.height = plan.height * scale;
      el.style.height = `${plan.height}px`;
      drawn.current = new Map();
      drawn.current.shape = shape;
    }
    c.setTransform(scale, 0, 0, scale, 0, 0);
    const colors = palette(), pattern = hatch(c, colors), old = drawn.current;
    for (const frame of plan.frames) {
      const key = `${frame.rack.power_used_w}/${frame.rack.power_budget_w}`;
      if (old.get(frame.rack.id) !== key) drawFrame(c, frame, colors), old.set(frame.rack.id, key);
    }
    for (const tile of plan.tiles) {
      const { host } = tile, key = `${host.state}${host.gpus_used}${host.lemon}${host.id === chosen}`;
      if (old.get('/' + host.id) !== key) drawTile(c, tile, colors, pattern, host.id === chosen), old.set('/' + host.id, key);
    }
  }, [racks, width, chosen, dark]);

  const tileAt = (event) => {
    const at = canvas.current.getBoundingClientRect(), x = event.clientX - at.left, y = event.clientY - at.top;
    return placed.current?.tiles.find((t) => x >= t.x - 1 && x <= t.x + t.w + 1 && y >= t.y - 1 && y <= t.y + t.h + 1);
  };
  const hover = (event) => {
    const tile = tileAt(event);
    setTip(tile && { text: textOf(tile), x: Math.min(tile.x, width - 260), y: tile.y + tile.h + 6 });
  };
  const step = (event) => {
    const tiles = placed.current?.tiles || [], at = tiles.findIndex((t) => t.host.id === chosen), tile = tiles[at] || tiles[0];
    const toward = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!toward || !tile) return;
    event.preventDefault();
    if (at < 0) return choose(tile.host.id);
    let best = null, least = Infinity;
    for (const t of tiles) {
      const dx = t.x - tile.x, dy = t.y - tile.y, along = dx * toward[0] + dy * toward[1];
      const apart = along + 3 * Math.abs(dx * toward[1] + dy * toward[0]);
      if (along > 0 && apart < least) (best = t), (least = apart);
    }
    if (best) choose(best.host.id);
  };
  return html`
    <div class="map" ref=${box}>
      <canvas ref=${canvas} tabindex="0" role="application" aria-roledescription="map of the fleet" onKeyDown=${step}
        aria-label="Fleet map. Arrow keys go from host to host; what is chosen is told below the map. The table of racks says the same."
        onPointerMove=${hover} onPointerLeave=${() => setTip(null)} onClick=${(e) => choose(tileAt(e)?.host.id)}></canvas>
      ${tip && html`<div class="tip" style=${{ left: `${Math.max(0, tip.x)}px`, top: `${tip.y}px` }}>${tip.text}</div>`}
      <p class="legend" aria-hidden="true"><span><i class="free"></i> free</span><span><i class="ramp"></i> in use</span>
        <span><i class="drained"></i> out of use</span><span><i class="bad"></i> node down, or often lost</span><span>line above a rack: its power</span></p>
    </div>`;
}

export const powerShare = (rack) => percent(rack.power_budget_w ? rack.power_used_w / rack.power_budget_w : NaN);
