// What was used and what it cost: over time by tenant, by slice, and tokens by deployment.

import { html, useMemo, useState } from '../parts/core.js';
import { useLive } from '../parts/live.js';
import { Chart } from '../parts/chart.js';
import { Bar, Card, Empty, Page, Shown, Stat, Stats, Table, Tabs } from '../parts/ui.js';
import { count, money, short, time } from '../parts/format.js';

const kHourNs = 3600e9, kDayNs = 24 * kHourNs;
const kSpans = { day: { text: '24 hours', ns: kDayNs, step: kHourNs }, week: { text: '7 days', ns: 7 * kDayNs, step: kHourNs * 6 }, month: { text: '30 days', ns: 30 * kDayNs, step: kDayNs } };
const kWhat = { microusd: { text: 'Cost', show: money }, gpu_seconds: { text: 'GPU-hours', show: (s) => short(s / 3600) } };
const kColors = ['--c1', '--c2', '--c3', '--c4', '--c5'];

/** Sums by step of time, one row a tenant; the largest tenants by themselves, all others together. */
function series(items, what, { ns, step }) {
  const end = Math.floor((time.now() * 1e6) / step) * step, start = end - ns + step;
  const times = Array.from({ length: Math.round(ns / step) }, (_, i) => start + i * step);
  const totals = {};
  for (const item of items) if (item.start_ns >= start) totals[item.account] = (totals[item.account] || 0) + item[what];
  const largest = Object.keys(totals).sort((a, b) => totals[b] - totals[a]), own = largest.slice(0, largest.length > 5 ? 4 : 5);
  const names = largest.length > own.length ? [...own, 'others'] : own;
  const rows = names.map(() => times.map(() => 0));
  for (const item of items) {
    const at = Math.floor((item.start_ns - start) / step), row = own.includes(item.account) ? own.indexOf(item.account) : own.length;
    if (at >= 0 && at < times.length) rows[row][at] += item[what];
  }
  return { times, names, rows };
}

function OverTime({ items }) {
  const [span, setSpan] = useState('day'), [what, setWhat] = useState('microusd');
  const { times, names, rows } = useMemo(() => series(items, what, kSpans[span]), [items, what, span]);
  const tops = rows.map((_, i) => times.map((_, t) => rows.slice(0, i + 1).reduce((sum, row) => sum + row[t], 0)));
  const data = useMemo(() => [times.map((t) => t / 1e9), ...tops.toReversed()], [items, what, span]);
  const total = rows.flat().reduce((sum, v) => sum + v, 0), show = kWhat[what].show;
  return html`<${Card} title="Over time by tenant" actions=${html`
      <${Tabs} label="What" current=${what} choose=${setWhat} tabs=${Object.entries(kWhat).map(([id, w]) => ({ id, text: w.text }))} />
      <${Tabs} label="Span" current=${span} choose=${setSpan} tabs=${Object.entries(kSpans).map(([id, s]) => ({ id, text: s.text }))} />`}>
    ${names.length ? html`<${Chart} key=${what + span + names.join()} title="${kWhat[what].text}: ${show(total)}" time stacked height=${240} data=${data}
      series=${names.map((label, i) => ({ label, color: kColors[i % kColors.length], fill: true, value: show, raw: (at) => rows[i]?.[at] })).toReversed()}
      summary=${names.map((label, i) => `${label}: ${show(rows[i].reduce((a, b) => a + b, 0))}`).join('; ')} />`
      : html`<${Empty} title="Nothing was used in this time">What slices run and what deployments answer is counted here, by the hour.<//>`}<//>`;
}

const Accounts = ({ items }) => html`<${Card} title="Tenants">
  <${Table} caption="Tenants with what they use and may use" rows=${items} keyOf=${(a) => a.name} columns=${[
    { name: 'Tenant', show: (a) => html`<strong>${a.name || 'the platform'}</strong>${a.parent && a.parent !== 'root' ? html` <small>of ${a.parent}</small>` : ''}` },
    { name: 'GPUs now', num: true, show: (a) => html`${count(a.gpus)}${a.max_gpus ? html` <small>of ${count(a.max_gpus)}</small>` : ''}` },
    { name: 'Fair share', num: true, hide: true, show: (a) => (a.fair_share == null ? '–' : Number(a.fair_share).toFixed(2)) },
    { name: 'Promised', num: true, hide: true, show: (a) => money(a.committed_microusd) },
    { name: 'Budget', show: (a) => (a.budget_microusd ? html`${money(a.budget_microusd)}<${Bar} share=${a.committed_microusd / a.budget_microusd} label="Budget of ${a.name}" limited />` : 'none') },
    { name: 'Cost', num: true, show: (a) => money(a.cost_microusd) }]} /><//>`;

export default function Usage() {
  const kinds = ['usage_recorded', 'slice_ready', 'slice_released', 'slice_resized'];
  const usage = useLive('/usage', kinds, { every_ms: 15000 }), hours = useLive('/usage/hours', kinds, { every_ms: 60000 }), accounts = useLive('/accounts', kinds, { every_ms: 15000 });
  const tokens = (usage.data?.tokens || []).reduce((sum, t) => sum + t.prompt_tokens + t.completion_tokens, 0);
  return html`<${Page} title="Usage and cost" lead="Money is counted for whole hosts, from the moment a slice is ready to its end.">
    <${Shown} live=${usage}>${(data) => html`
      <${Stats}><${Stat} label="Cost in all" value=${money(data.microusd)} /><${Stat} label="GPU-hours" value=${short(data.gpu_seconds / 3600)} />
        <${Stat} label="Slices" value=${count(data.items.length)} /><${Stat} label="Tokens" value=${short(tokens)} /><//>
      ${hours.data && html`<${OverTime} items=${hours.data.items} />`}
      ${accounts.data && html`<${Accounts} items=${accounts.data.items} />`}
      <div class="columns"><${Card} title="By slice">
        <${Table} caption="Cost by slice" rows=${data.items.toReversed()} limit=${15} empty=${html`<p class="muted">No slice has run yet.</p>`} columns=${[
          { name: 'Slice', show: (s) => html`<a href="#/slices/${encodeURIComponent(s.id)}">${s.slice}</a>` },
          { name: 'GPU-hours', num: true, show: (s) => short(s.gpu_ns / kHourNs) },
          { name: 'Cost', num: true, show: (s) => money(s.microusd) }]} /><//>
      <${Card} title="Tokens by deployment">
        <${Table} caption="Tokens by deployment and key" rows=${data.tokens} keyOf=${(t) => t.deployment + t.key} limit=${15} empty=${html`<p class="muted">No deployment has answered yet.</p>`} columns=${[
          { name: 'Deployment', show: (t) => t.deployment }, { name: 'Key', hide: true, show: (t) => t.key },
          { name: 'Requests', num: true, show: (t) => count(t.requests) },
          { name: 'In', num: true, show: (t) => short(t.prompt_tokens) }, { name: 'Out', num: true, show: (t) => short(t.completion_tokens) }]} /><//></div>`}<//><//>`;
}
