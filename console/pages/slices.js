// Slices: the virtual supercomputers that somebody acquired.

import { html } from '../parts/core.js';
import { useList, useNow } from '../parts/live.js';
import { Card, Empty, Page, Shown, State, Table } from '../parts/ui.js';
import { count, money, plural, relative, told, when } from '../parts/format.js';

export const kSliceKinds = ['slice_', 'vm_', 'node_'];
const isOver = (slice) => ['released', 'failed', 'expired'].includes(slice.state);

export function Window({ slice, now }) {
  const from = slice.start_ns / 1e6, to = slice.end_ns / 1e6;
  const share = Math.max(0, Math.min(1, (now - from) / (to - from)));
  return html`<div class="window" role="img" aria-label="${Math.round(100 * share)} % of its window has passed"><i style=${{ width: `${100 * share}%` }}></i></div>`;
}

const columns = (now) => [
  { name: 'Slice', show: (s) => html`<a href="#/slices/${encodeURIComponent(s.id)}"><strong>${s.name}</strong></a> <small class="nowrap">${s.implicit ? 'of a job' : s.id}</small>` },
  { name: 'State', show: (s) => html`<${State} state=${s.state} />${s.reason && html`<span class="reason brief" title=${told(s.reason)}>${told(s.reason)}</span>`}` },
  { name: 'GPUs', num: true, show: (s) => count(s.gpus) },
  { name: 'Series', hide: true, show: (s) => s.series },
  { name: 'Tenant', hide: true, show: (s) => s.account || '–' },
  { name: 'Window', show: (s) => html`<span class="nowrap">${when(s.start_ns, now)} – ${when(s.end_ns, now)}</span>${!isOver(s) && html`<${Window} slice=${s} now=${now} />`}` },
  { name: 'Cost', num: true, show: (s) => money(s.cost_microusd) },
];

function View({ active, ended }) {
  const now = useNow(5000), over = ended.data?.items || [];
  if (!active.data.items.length && ended.data && !over.length) {
    return html`<${Empty} title="No slice yet">A slice is a supercomputer of your own for a while: a gang of machines, close on the fabric, for a price that is
      known before. <a href="#/slices/new">Get an offer</a><//>`;
  }
  return html`
    <${Card} title="Held and running"><${Table} caption="Slices that are held or run" rows=${active.data.items} more=${active.more} columns=${columns(now)} empty=${html`<p class="muted">None at the moment. <a href="#/slices/new">Get an offer</a></p>`} /><//>
    ${over.length > 0 && html`<${Card} title="Over"><${Table} caption="Slices that are over" rows=${over} limit=${20} more=${ended.more} columns=${columns(now)} /><//>`}`;
}

export default function Slices() {
  const active = useList('/slices?state=active', kSliceKinds, { size: 200 }), ended = useList('/slices?state=ended&order=desc', ['slice_']);
  const live = active.data?.items, next = live?.filter((s) => s.state === 'held').map((s) => s.hold_expires_ns).sort()[0];
  return html`<${Page} title="Slices" lead=${live && `${plural(live.length, 'slice')}${active.more ? ' or more' : ''} with ${plural(live.reduce((sum, s) => sum + s.gpus, 0), 'GPU')}${next ? `; a hold ends ${relative(next)}` : ''}`}
    actions=${html`<a class="button" href="#/slices/new">Get a slice</a>`}>
    <${Shown} live=${active}>${() => html`<${View} active=${active} ended=${ended} />`}<//><//>`;
}
