// The fleet: rows of racks with power and use; a host down to its GPUs and what runs there.

import { announce, html, useEffect, useMemo, useState } from '../parts/core.js';
import { may, post } from '../parts/api.js';
import { useLive } from '../parts/live.js';
import { useFleet } from '../parts/fleet_data.js';
import { FleetMap, powerShare } from '../parts/fleet_map.js';
import { Card, Field, Page, Shown, Stat, State, Stats, Sure, Table, useForm } from '../parts/ui.js';
import { bytes, count, percent, plural, short, watts } from '../parts/format.js';

function sums(racks) {
  const out = { hosts: 0, gpus: 0, used: 0, drained: 0, power: 0, budget: 0 };
  for (const rack of racks) {
    out.power += rack.power_used_w;
    out.budget += rack.power_budget_w;
    for (const host of rack.hosts) {
      out.hosts++;
      out.gpus += host.gpus;
      out.used += host.gpus_used;
      if (host.state === 'drained') out.drained++;
    }
  }
  return out;
}

/** Drain and resume. */
function HostActions({ host }) {
  const form = useForm({ reason: '' });
  const path = `/hosts/${encodeURIComponent(host.id)}`;
  if (!may('operator', { platform: true })) return null;
  if (host.state === 'drained') {
    return html`<${Sure} label="Resume" title="Resume ${host.id}" danger=${false} act=${() => post(`${path}/resume`)} done="${host.id} is in use again"
      ask="New slices may be placed on it again." />`;
  }
  return html`<${Sure} label="Drain" title="Drain ${host.id}" act=${() => post(`${path}/drain`, form.values.reason ? { reason: form.values.reason } : {})}
    done="${host.id} is drained" ask="Nothing new is placed on it. A slice that holds it gets another host in its place where there is one.">
    <${Field} form=${form} name="reason" label="Reason" hint="Others will read it: fan fault, firmware, …" /><//>`;
}

/** By its own route where there is one: on which GPU which job is. */
function useHost(host) {
  const view = useLive(`/hosts/${encodeURIComponent(host.id)}`, ['slice_', 'vm_', 'node_', 'host_', 'attempt_', 'job_']);
  const gpus = view.data?.gpus || Array.from({ length: host.gpus }, (_, gpu) => ({ gpu, state: gpu < host.gpus_used ? 'used' : 'free', jobs: [] }));
  return { gpus, node: view.data?.node, reason: view.data?.reason ?? host.reason };
}

function Gpu({ gpu }) {
  return html`<li class="gpu ${gpu.state === 'used' ? 'used' : ''}"><b>GPU ${gpu.gpu}</b>
    ${gpu.jobs.length ? gpu.jobs.map((id) => html`<a href="#/jobs/${id}">${id}</a> `)
      : gpu.slice ? html`<span class="muted">held, no job</span>` : html`<span class="muted">${gpu.state === 'used' ? 'taken' : 'free'}</span>`}</li>`;
}

function Host({ host, rack, series }) {
  const { gpus, node, reason } = useHost(host);
  useEffect(() => announce(`${host.id}, ${host.state}, ${host.gpus_used} of ${host.gpus} GPUs in use`), [host.id]);
  return html`
    <${Card} title="Host ${host.id}" actions=${html`<${State} state=${host.lemon ? 'lemon' : host.state} /><${HostActions} host=${host} />`}>
      ${reason && html`<p class="note warn">${reason}</p>`}
      <ul class="gpus" aria-label="GPUs of ${host.id}">${gpus.map((gpu) => html`<${Gpu} key=${gpu.gpu} gpu=${gpu} />`)}</ul>
      <dl class="facts">
        <dt>Series</dt><dd>${host.series}${series?.gpu_memory_bytes ? html` <small>${series.accelerator}, ${bytes(series.gpu_memory_bytes)} a GPU</small>` : ''}</dd>
        <dt>Rack</dt><dd>${rack.id} <small>${watts(rack.power_used_w)} of ${watts(rack.power_budget_w)}</small></dd>
        <dt>Fabric</dt><dd>leaf ${rack.leaf}${rack.spine && `, spine ${rack.spine}`}</dd>
        ${node && html`<dt>Node</dt><dd>${node.name} <${State} state=${node.state} />${node.reason && html`<br /><small>${node.reason}</small>`}</dd>
          <dt>Slice</dt><dd><a href="#/slices/${encodeURIComponent(node.slice)}">${node.slice}</a></dd>`}
      </dl>
    <//>`;
}

function View({ fleet }) {
  const [chosen, choose] = useState(null);
  const [site, setSite] = useState('');
  const total = useMemo(() => sums(fleet.racks), [fleet]);
  const found = useMemo(() => {
    for (const rack of fleet.racks) for (const host of rack.hosts) if (host.id === chosen) return { rack, host };
    return null;
  }, [fleet, chosen]);
  const racks = useMemo(() => (site ? fleet.racks.filter((r) => r.spine === site) : fleet.racks), [fleet, site]);
  const spines = useMemo(() => [...new Set(fleet.racks.map((r) => r.spine).filter(Boolean))], [fleet]);
  return html`
    <${Stats}>
      <${Stat} label="GPUs in use" value=${short(total.used)} note="of ${short(total.gpus)}" bar=${total.used / total.gpus} />
      <${Stat} label="Power" value=${watts(total.power)} note="of ${watts(total.budget)}" bar=${total.power / total.budget} limited />
      <${Stat} label="Hosts" value=${count(total.hosts)} note="in ${plural(fleet.racks.length, 'rack')}" />
      <${Stat} label="Out of use" value=${count(total.drained)} note=${total.drained === 1 ? 'host' : 'hosts'} />
    <//>
    <div class="columns wide-left">
      <${Card} title="Racks" actions=${spines.length > 1 && html`<label class="sr" for="spine">Spine</label>
        <select id="spine" value=${site} onChange=${(e) => setSite(e.target.value)}><option value="">All ${plural(spines.length, 'spine')}</option>
        ${spines.map((s) => html`<option value=${s}>${s}</option>`)}</select>`}>
        <${FleetMap} racks=${racks} chosen=${chosen} choose=${choose} />
      <//>
      ${found ? html`<${Host} key=${chosen} ...${found} series=${fleet.series.find((s) => s.name === found.host.series)} />`
        : html`<${Card} title="Host"><p class="muted">Choose a host on the map to see its GPUs and what runs there.</p><//>`}
    </div>
    <details><summary>Table of racks</summary>
      <${Table} caption="Racks" keyOf=${(r) => r.id} rows=${racks} columns=${[
        { name: 'Rack', show: (r) => r.id },
        { name: 'Leaf', show: (r) => r.leaf, hide: true },
        { name: 'Power', show: (r) => html`${watts(r.power_used_w)} <small>${powerShare(r)}</small>`, num: true },
        { name: 'GPUs in use', num: true, show: (r) => { const s = sums([r]); return `${s.used} of ${s.gpus}`; } },
        { name: 'Hosts', show: (r) => r.hosts.slice(0, 16).map((h) => html`<button class="quiet" aria-label="${h.id}, ${h.state}" onClick=${() => choose(h.id)}>${h.id}</button>`) },
      ]} />
    </details>
    <${Card} title="Series">
      <${Table} caption="Series of the fleet" rows=${fleet.series} keyOf=${(s) => s.name} columns=${[
        { name: 'Series', show: (s) => html`<strong>${s.name}</strong>${s.accelerator && html`<span class="reason">${s.accelerator}</span>`}` },
        { name: 'GPUs', num: true, show: (s) => count(s.gpus) },
        { name: 'A host', num: true, hide: true, show: (s) => count(s.gpus_per_host) },
        { name: 'Memory of a GPU', num: true, hide: true, show: (s) => (s.gpu_memory_bytes ? bytes(s.gpu_memory_bytes) : '–') },
        { name: 'List price', num: true, show: (s) => (s.microusd_per_gpu_hour ? `$${(s.microusd_per_gpu_hour / 1e6).toFixed(2)} / GPU-h` : 'by offer') },
      ]} />
    <//>`;
}

export default function Fleet() {
  const fleet = useFleet(), total = fleet.data && sums(fleet.data.racks);
  return html`<${Page} title="Fleet" lead=${fleet.data && `${fleet.data.name}: ${percent(total.used / total.gpus)} of the GPUs are in use`}
    actions=${html`<a class="button" href="#/slices/new">Get a slice</a>`}>
    <${Shown} live=${fleet}>${(data) => html`<${View} fleet=${data} />`}<//><//>`;
}
