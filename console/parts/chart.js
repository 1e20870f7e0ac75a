// A line chart by uPlot, which is only asked for where there is one.

import { html, useDark, useEffect, useRef } from './core.js';
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

/**
 * `data`: [xs, ys, ys, …]; `series`: [{label, color (a CSS variable), value: (v) => text, fill?}]; `x`: (v) => text.
 * Screen readers get `summary`, a sentence.
 */
export function Chart({ title, data, series, x = (v) => v, time = false, height = 190, stacked = false, summary, log = false, value, binary }) {
  const box = useRef(null), plot = useRef(null), dark = useDark();
  const shape = series.map((s) => s.label).join() + dark + log;
  useEffect(() => {
    let over = false, watch;
    uplot().then((UPlot) => {
      if (over || !box.current) return;
      const text = css('--muted'), grid = css('--line');
      const show = (s) => s.value || value || ((v) => v);
      const axis = { stroke: text, font: '12px system-ui, sans-serif', grid: { stroke: grid, width: 1 }, ticks: { show: false } };
      plot.current = new UPlot({
        width: box.current.clientWidth, height, legend: { live: true }, cursor: { points: { size: 6 }, drag: { x: true, y: false } },
        scales: { x: { time }, y: { distr: log ? 3 : 1, range: log ? undefined : (_, low, high) => range(low, high, stacked || series.some((s) => s.fill)) } },
        axes: [{ ...axis, values: time ? undefined : (_, ticks) => ticks.map(x) },
          { ...axis, size: 62, incrs: binary ? kBinary : undefined, values: (_, ticks) => ticks.map((v) => (v == null ? '' : show(series[0])(v))) }],
        series: [{ label: time ? 'Time' : 'Step', value: time ? undefined : (_, v) => (v == null ? '–' : x(v)) },
          ...series.map((s) => ({
            label: s.label, stroke: css(s.color), width: 1.75, points: { show: s.points ?? false }, spanGaps: true,
            fill: s.fill ? css(s.color) + (stacked ? 'cc' : '26') : undefined,
            value: (u, v, i, at) => (at == null || v == null ? '–' : show(s)(s.raw ? s.raw(at) : v)),
          }))],
      }, data, box.current);
      watch = new ResizeObserver(() => plot.current?.setSize({ width: box.current.clientWidth, height }));
      watch.observe(box.current);
    });
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
