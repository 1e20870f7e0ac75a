// What happened, when and why; checkpoints that follow one another are one entry.

import { html } from './core.js';
import { clock } from './format.js';

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

const told = ({ what, steps }) => (steps?.length > 1 ? `${steps.length} checkpoints, steps ${steps[0]} to ${steps.at(-1)}` : what);

export function Timeline({ timeline, limit = 30 }) {
  const moments = folded(timeline);
  return html`
    ${moments.length > limit && html`<p class="muted">${moments.length - limit} earlier entries are not shown</p>`}
    <ol class="timeline">${moments.slice(-limit).map((moment) => html`
      <li><time>${clock(moment.time_ns)}</time><strong>${told(moment)}</strong>${moment.why && html`<p>${moment.why}</p>`}</li>`)}</ol>`;
}
