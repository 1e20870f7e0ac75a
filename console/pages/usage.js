// What was used and what it cost: over time by tenant, by slice, and tokens by deployment.

import { html, useMemo, useState } from '../parts/core.js';
import { useLive } from '../parts/live.js';
import { Chart } from '../parts/chart.js';
import { Bar, Card, Empty, Page, Shown, Stat, Stats, Table, Tabs } from '../parts/ui.js';
import { count, decimal, money, short, time, when } from '../parts/format.js';

const kHourNs = 3600e9, kDayNs = 24 * kHourNs;
const kSpans = { day: { text: '24 hours', each: 'the hour', ns: kDayNs, step: kHourNs }, week: { text: '7 days', each: '6 hours', ns: 7 * kDayNs, step: kHourNs * 6 }, month: { text: '30 days', each: 'the day', ns: 30 * kDayNs, step: kDayNs } };
/** `of`: of an hour of the API. */
const kWhat = {
  cost: { text: 'Cost', unit: '$', of: (hour) => hour.microusd / 1e6, show: (dollars) => money(dollars * 1e6), tick: (v, digits) => `$${decimal(v, digits)}` },
  gpus: { text: 'GPU-hours', unit: 'GPU-hours', of: (hour) => hour.gpu_seconds / 3600, show: short },
  tokens: { text: 'Tokens', unit: 'tokens', of: (hour) => (hour.prompt_tokens || 0) + (hour.completion_tokens || 0), show: short },
};
const kColors = ['--c1', '--c2', '--c3', '--c4', '--c5'];

/** Sums by step of time, one row a tenant; the largest tenants by themselves, all others together. */
function series(items, of, { ns, step }) {
  const end = Math.floor((time.now() * 1e6) / step) * step, start = end - ns + step;
  const times = Array.from({ length: Math.round(ns / step) }, (_, i) => start + i * step);
  const totals = {};
  for (const item of items) if (item.start_ns >= start) totals[item.account] = (totals[item.account] || 0) + of(item);
  const largest = Object.keys(totals).filter((name) => totals[name] > 0).sort((a, b) => totals[b] - totals[a]), own = largest.slice(0, largest.length > 5 ? 4 : 5);
  const names = largest.length > own.length ? [...own, 'others'] : own;
  const rows = names.map(() => times.map(() => 0));
  for (const item of items) {
    const at = Math.floor((item.start_ns - start) / step), row = own.includes(item.account) ? own.indexOf(item.account) : own.length;
    if (at >= 0 && at < times.length && rows[row]) rows[row][at] += of(item);
  }
  return { times, names, rows };
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const tenantName = (name) => name || 'the platform';

/** The figures behind the bars. */
const Figures = ({ times, names, rows, show }) => html`<details><summary>As a table</summary>
  <${Table} caption="Over time by tenant" keyOf=${(at) => times[at]} limit=${24} rows=${times.map((_, at) => at).filter((at) => rows.some((row) => row[at])).reverse()} columns=${[
    { name: 'From', show: (at) => html`<span class="nowrap">${when(times[at])}</span>` },
    ...names.map((name, i) => ({ name: tenantName(name), num: true, show: (at) => (rows[i][at] ? show(rows[i][at]) : '–') })),
    ...(names.length > 1 ? [{ name: 'All', num: true, show: (at) => show(sum(rows.map((row) => row[at]))) }] : [])]} /></details>`;

function OverTime({ items }) {
  const [span, setSpan] = useState('day'), [what, setWhat] = useState('cost');
  const { of, show, tick, text, unit } = kWhat[what];
  const { times, names, rows } = useMemo(() => series(items, of, kSpans[span]), [items, what, span]);
  // Stacked: each series is drawn over what lies above it, the whole first.
  const tops = rows.map((_, i) => times.map((_, t) => sum(rows.slice(0, i + 1).map((row) => row[t]))));
  const data = useMemo(() => [times.map((t) => t / 1e9), ...tops.toReversed()], [items, what, span]);
  return html`<${Card} title="Over time by tenant" actions=${html`
      <${Tabs} label="What" current=${what} choose=${setWhat} tabs=${Object.entries(kWhat).map(([id, w]) => ({ id, text: w.text }))} />
      <${Tabs} label="Span" current=${span} choose=${setSpan} tabs=${Object.entries(kSpans).map(([id, s]) => ({ id, text: s.text }))} />`}>
    ${names.length ? html`<${Chart} key=${what + span + names.join()} title="${text}: ${show(sum(rows.flat()))} in ${kSpans[span].text}" time stacked bars=${kSpans[span].step / 1e9} height=${240} data=${data} tick=${tick}
      series=${names.map((name, i) => ({ label: tenantName(name), color: kColors[i % kColors.length], fill: true, value: show, raw: (at) => rows[i]?.[at] })).toReversed()}
      summary="${unit} by ${kSpans[span].each}: ${names.map((name, i) => `${tenantName(name)} ${show(sum(rows[i]))}`).join('; ')}. The table below says when." />
      <${Figures} ...${{ times, names, rows, show }} />`
      : html`<${Empty} title=${what === 'tokens' ? 'No tokens in this time' : 'Nothing was used in this time'}>${what === 'tokens'
        ? html`What deployments answer is counted here, by the hour. <a href="#/models">Deploy a model</a>` : html`What slices run is counted here, by the hour. <a href="#/slices/new">Get a slice</a>`}<//>`}<//>`;
}

const Accounts = ({ items }) => html`<${Card} title="Tenants">
  <${Table} caption="Tenants with what they use and may use" rows=${items} keyOf=${(a) => a.name} columns=${[
    { name: 'Tenant', show: (a) => html`<strong>${tenantName(a.name)}</strong>${a.parent && a.parent !== 'root' ? html` <small>of ${a.parent}</small>` : ''}` },
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
