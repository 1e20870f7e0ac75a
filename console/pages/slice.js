// A slice: its window, price and nodes on the fabric; what runs there; resize and release.

import { html } from '../parts/core.js';
import { post, remove } from '../parts/api.js';
import { useList, useLive, useNow } from '../parts/live.js';
import { Card, Field, Page, Shown, Stat, State, Stats, Sure, Table, useForm } from '../parts/ui.js';
import { Fabric } from '../parts/fabric.js';
import { Timeline } from '../parts/timeline.js';
import { Window, kSliceKinds } from './slices.js';
import { clock, count, duration, money, plural, relative, told, when } from '../parts/format.js';

const isOver = (slice) => ['released', 'failed', 'expired'].includes(slice.state);

function Actions({ slice }) {
  const path = `/slices/${encodeURIComponent(slice.id)}`, form = useForm({ gpus: String(slice.gpus) });
  if (isOver(slice) || slice.state === 'releasing') return null;
  return html`
    ${slice.state === 'held' && html`<${Sure} label="Commit" danger=${false} act=${() => post(`${path}/commit`)} done="Committed" ask="The slice becomes yours for ${money(slice.offer.price_microusd)} at most." />`}
    ${slice.state === 'ready' && html`<${Sure} label="Resize" danger=${false} act=${() => post(`${path}/resize`, { gpus: Number(form.values.gpus) })} done="It is being resized"
      ask="It grows where there is room beside it, and shrinks by nodes that nobody uses."><${Field} form=${form} name="gpus" label="GPUs" type="number" min="1" /><//>`}
    <${Sure} label="Release" title="Release ${slice.name}" act=${() => remove(path)} done="${slice.name} is being released" ask="Its jobs are cancelled and its machines go back. What it cost up to now stays." />`;
}

function View({ slice }) {
  const now = useNow();
  const jobs = useList(`/jobs?slice=${encodeURIComponent(slice.id)}&order=desc`, ['job_', 'attempt_'], { size: 20 }), why = useLive(`/why/${encodeURIComponent(slice.id)}`, kSliceKinds);
  const left = slice.end_ns / 1e6 - now;
  return html`
    ${slice.state === 'held' && html`<p class="note warn">It is held for you until ${clock(slice.hold_expires_ns)} (${relative(slice.hold_expires_ns, now)}). Commit it, or it goes back.</p>`}
    ${slice.reason && html`<p class="note ${slice.state === 'ready' ? '' : 'warn'}">${told(slice.reason)}</p>`}
    <${Stats}>
      <${Stat} label="State" value=${html`<${State} state=${slice.state} />`} note=${slice.resizing_to_gpus ? `growing to ${slice.resizing_to_gpus} GPUs` : ''} />
      <${Stat} label="GPUs" value=${count(slice.gpus)} note=${slice.series} />
      <${Stat} label="Cost" value=${money(slice.cost_microusd)} note="of ${money(slice.offer.price_microusd)}" bar=${slice.cost_microusd / slice.offer.price_microusd} />
      <${Stat} label="Price" value=${money(slice.offer.microusd_per_gpu_hour)} note="a GPU-hour" />
      <${Stat} label=${isOver(slice) ? 'Ended' : 'Ends'} value=${when(isOver(slice) ? slice.ended_ns || slice.end_ns : slice.end_ns, now)} note=${!isOver(slice) && left > 0 ? `${duration(left * 1e6)} left` : ''} />
    <//>
    ${!isOver(slice) && html`<div><${Window} slice=${slice} now=${now} /><p class="ends"><span>${when(slice.start_ns, now)}</span><span>${when(slice.end_ns, now)}</span></p></div>`}
    <div class="columns">
      <${Card} title="Nodes on the fabric">
        <${Fabric} places=${slice.nodes.length ? slice.nodes : slice.offer.hosts} />
        <p class="muted">${slice.offer.placement}</p><//>
      <${Card} title="Why and when">${why.data && html`<${Timeline} timeline=${why.data.timeline} limit=${14} />`}<//>
    </div>
    <${Card} title="Jobs here" actions=${!isOver(slice) && html`<a class="button secondary" href="#/jobs/new?slice=${encodeURIComponent(slice.name)}">Submit a job here</a>`}>
      <${Table} caption="Jobs on this slice" rows=${jobs.data?.items || []} limit=${20} more=${jobs.more} empty=${html`<p class="muted">Nothing has run here yet.</p>`} columns=${[
        { name: 'Job', show: (j) => html`<a href="#/jobs/${j.id}">${j.name}</a> <small>${j.id}</small>` },
        { name: 'State', show: (j) => html`<${State} state=${j.state} />` },
        { name: 'GPUs', num: true, show: (j) => count(j.gpus) },
        { name: 'Cost', num: true, show: (j) => money(j.cost_microusd) }]} /><//>`;
}

export default function Slice({ id }) {
  const slice = useLive(`/slices/${encodeURIComponent(id)}`, kSliceKinds, { every_ms: 10000 }), now = slice.data;
  return html`<${Page} title=${now?.name || id} back=${{ href: '#/slices', text: 'Slices' }} lead=${now && `${now.id} · ${plural(now.gpus, 'GPU')} of ${now.series}${now.stack ? ` · ${now.stack}` : ''}`}
    actions=${now && html`<${Actions} slice=${now} />`}>
    <${Shown} live=${slice}>${(data) => html`<${View} slice=${data} />`}<//><//>`;
}
