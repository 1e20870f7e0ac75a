// Nodes as they hang on the fabric: leaf by leaf, rack by rack.

import { html } from './core.js';
import { State } from './ui.js';
import { plural } from './format.js';

const kMaxChips = 96;

/** Places: {host, rack, leaf, gpus, name?, state?, reason?}. */
export function Fabric({ places }) {
  const leaves = new Map();
  for (const place of places || []) leaves.set(place.leaf, [...(leaves.get(place.leaf) || []), place]);
  if (!leaves.size) return null;
  let left = kMaxChips;
  return html`<div class="fabric">${[...leaves].slice(0, 24).map(([leaf, nodes]) => {
    const shown = nodes.slice(0, Math.max(0, left));
    left -= shown.length;
    return html`<div class="leaf"><h3>Leaf ${leaf} <small>${plural(nodes.length, 'node')}, ${plural(nodes.reduce((sum, n) => sum + n.gpus, 0), 'GPU')}</small></h3>
      <ul class="chips">${shown.map((n) => html`<li class="chip"><strong>${n.name || n.host}</strong>${n.name && html` <small>on ${n.host}</small>`} <small>rack ${n.rack}, ${plural(n.gpus, 'GPU')}</small>
        ${n.state && html`<${State} state=${n.state} />`}${n.reason && html`<small>${n.reason}</small>`}</li>`)}
        ${shown.length < nodes.length && html`<li class="chip"><small>and ${nodes.length - shown.length} more</small></li>`}</ul></div>`;
  })}${leaves.size > 24 && html`<p class="muted">and ${plural(leaves.size - 24, 'more leaf', 'more leaves')}</p>`}</div>`;
}
