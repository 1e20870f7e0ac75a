// What happened, when and why; checkpoints that follow one another are one entry.

import { html, useState } from './core.js';
import { clock, plural, told } from './format.js';

const stepOf = (moment) => /^checkpoint at step (\d+)/.exec(moment.what)?.[1];

function folded(timeline) {
  const out = [];
  for (const moment of timeline) {
    const step = stepOf(moment), last = out.at(-1);
    if (step && last?.steps) (last.steps = [...last.steps, step]), (last.time_ns = moment.time_ns);
    else out.push({ ...moment, steps: step && [step] });
  }
  return out;
}

const textOf = ({ what, steps }) => (steps?.length > 1 ? `${steps.length} checkpoints, steps ${steps[0]} to ${steps.at(-1)}` : told(what));

export function Timeline({ timeline, limit = 30 }) {
  const [whole, setWhole] = useState(false);
  const moments = folded(timeline), left = whole ? 0 : Math.max(0, moments.length - limit);
  return html`
    ${left > 0 && html`<button class="quiet" onClick=${() => setWhole(true)}>Show ${plural(left, 'earlier entry', 'earlier entries')}</button>`}
    <ol class="timeline">${moments.slice(left).map((moment) => html`
      <li><time>${clock(moment.time_ns)}</time><strong>${textOf(moment)}</strong>${moment.why && html`<p>${told(moment.why)}</p>`}</li>`)}</ol>`;
}
