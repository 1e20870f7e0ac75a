// A line chart by uPlot, which is only asked for where there is one.

import { html, useDark, useEffect, useRef } from './core.js';
import { clock, decimal, when } from './format.js';
import { loadStyle } from './style.js';

let loading = null;
function uplot() {
  loading ||= new Promise((done, failed) => {
    const script = Object.assign(document.createElement('script'), { src: new URL('../npm/uplot.js', import.meta.url) });
    script.onload = () => done(window.uPlot);
    script.onerror = () => ((loading = null), script.remove(), failed(new Error('the charts could not be loaded')));
    document.head.append(script);
  });
  return Promise.all([loading, loadStyle('npm/uplot.css')]).then(([UPlot]) => UPlot);
}

const kBinary = Array.from({ length: 50 }, (_, i) => 2 ** i);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** How many digits tell these ticks apart. */
const digitsOf = (ticks) => [0, 1, 2, 3, 4, 5].find((d) => ticks.every((t) => t == null || Math.abs(t * 10 ** d - Math.round(t * 10 ** d)) < 1e-6)) ?? 6;

const times = (ticks, step_s) => ticks.map((t, i) => {
  const d = new Date(t * 1000), day = d.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
  if (step_s >= 86400) return day;
  return clock(t * 1e9).slice(0, 5) + (i === 0 || ticks[i - 1] == null || d.getDate() !== new Date(ticks[i - 1] * 1000).getDate() ? `\n${day}` : '');
});

/**
 * `data`: [xs, ys, ys, …]; `series`: [{label, color (a CSS variable), value: (v) => text, fill?}]; `x`: what xs count; with `time`
 * they are seconds since 1970. `tick(v, digits)`: the text of a tick. `bars`: how far each x reaches. `cap`: what
 * is higher is cut off. Screen readers get `summary`, a sentence.
 */
export function Chart({ title, data, series, x = 'Step', time = false, height = 200, stacked = false, summary, tick = decimal, binary, bars, cap = Infinity }) {
  const box = useRef(null), plot = useRef(null), most = useRef(cap), dark = useDark();
  most.current = cap;
  const shape = series.map((s) => s.label).join() + dark;
  useEffect(() => {
    let over = false, watch;
    uplot().then((UPlot) => {
      if (over || !box.current) return;
      const text = css('--muted'), font = '12px system-ui, sans-serif';
      const axis = { stroke: text, font, grid: { stroke: css('--line'), width: 1 }, ticks: { show: false } };
      const below = time ? { size: 40, values: (_, ticks, _axis, _space, step_s) => times(ticks, step_s) }
        : { size: 24, values: (_, ticks) => ticks.map((v) => decimal(v, digitsOf(ticks))), label: x, labelSize: 18, labelFont: font, labelGap: 0 };
      const paths = bars && UPlot.paths.bars({ size: [0.86, 80], align: 1 });
      plot.current = new UPlot({
        width: box.current.clientWidth, height, legend: { live: true }, cursor: { points: { size: 6, show: !bars }, drag: { x: true, y: false } },
        scales: { x: { time, range: bars ? (_, low, high) => [low, high + bars] : undefined }, y: { range: (_, low, high) => range(low, Math.min(high, most.current), stacked || series.some((s) => s.fill)) } },
        axes: [{ ...axis, ...below }, { ...axis, size: 62, incrs: binary ? kBinary : undefined, values: (_, ticks) => ticks.map((v) => (v == null ? '' : tick(v, digitsOf(ticks)))) }],
        series: [{ label: time ? 'Time' : x, value: (_, v) => (v == null ? '–' : time ? when(v * 1e9) : decimal(v, 0)) },
          ...series.map((s) => ({
            label: s.label, stroke: css(s.color), width: bars ? 0 : 1.75, points: { show: s.points ?? false }, spanGaps: true, paths,
            fill: s.fill ? css(s.color) + (stacked ? 'cc' : '26') : undefined,
            value: (u, v, i, at) => (at == null || v == null ? '–' : s.value(s.raw ? s.raw(at) : v)),
          }))],
      }, data, box.current);
      watch = new ResizeObserver(() => plot.current?.setSize({ width: box.current.clientWidth, height }));
      watch.observe(box.current);
    }, () => {});  // the controller is away; the page says so
    return () => {
      over = true;
      watch?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(data), [data]);
  return html`
    <figure class="chart">
      <figcaption>${title}</figcaption>
      <p class="sr">${summary}</p>
      <div ref=${box} aria-hidden="true" style=${{ minHeight: `${height}px` }}></div>
    </figure>`;
}

function range(low, high, fromZero) {
  if (low == null || high == null) return [0, 1];
  if (fromZero) return [0, high * 1.08 || 1];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - room, high + room];
}
