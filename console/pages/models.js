// Deployments with what they have to do now, and the registry of models.

import { announce, html, useEffect, useRef, useState } from '../parts/core.js';
import { post, remove } from '../parts/api.js';
import { useLive } from '../parts/live.js';
import { Card, Dialog, Empty, Field, FormProblem, Page, Shown, Stat, State, Stats, Sure, Table, useForm } from '../parts/ui.js';
import { bytes, count, plural, short } from '../parts/format.js';

const kFields = ['name', 'model', 'slice', 'gpus', 'tokens_per_minute'];
const seconds = (s) => (s == null ? '–' : s < 1 ? `${Math.round(1000 * s)} ms` : `${s.toFixed(1)} s`);

/** Tokens a second, by what the replica counted between two looks. */
function useRate(replica) {
  const last = useRef(null), [rate, set] = useState(null);
  useEffect(() => {
    if (!replica) return (last.current = null);
    const now = performance.now(), before = last.current;
    if (before && replica.tokens_total >= before.tokens) set((1000 * (replica.tokens_total - before.tokens)) / (now - before.at));
    last.current = { at: now, tokens: replica.tokens_total };
  }, [replica]);
  return rate;
}

function Deployment({ deployment: d }) {
  const path = `/deployments/${encodeURIComponent(d.name)}`, live = ['starting', 'ready'].includes(d.state);
  const load = useLive(d.state === 'ready' ? `${path}/load` : null, ['usage_recorded'], { every_ms: 2000 });
  const { replica, recent } = load.data || {}, rate = useRate(replica);
  return html`<${Card} title=${d.name} actions=${html`<${State} state=${d.state} />
      ${d.state === 'ready' && html`<a class="button secondary" href="#/playground?deployment=${encodeURIComponent(d.name)}">Try it</a>`}
      ${live && html`<${Sure} label="Stop" title="Stop ${d.name}" act=${() => remove(path)} done="${d.name} is being stopped" ask="Requests to it are refused from then on; the model stays in the registry." />`}`}>
    ${d.reason && html`<p class="note ${d.state === 'failed' ? 'warn' : ''}">${d.reason}</p>`}
    ${d.state === 'ready' && html`<${Stats}>
      <${Stat} label="Tokens/s now" value=${rate == null ? '…' : short(rate)} />
      <${Stat} label="Queue" value=${replica ? count(replica.waiting) : '–'} note=${replica ? `${count(replica.running)} running` : ''} />
      <${Stat} label="First token" value=${seconds(replica?.first_token_s)} note="mean" />
      <${Stat} label="Latency" value=${seconds(recent?.latency_s?.p50)} note=${recent?.latency_s ? `p95 ${seconds(recent.latency_s.p95)}` : 'no request in 5 min'} />
      <${Stat} label="KV cache" value=${replica ? `${Math.round((100 * replica.kv_blocks_used) / (replica.kv_blocks || 1))} %` : '–'} bar=${replica ? replica.kv_blocks_used / (replica.kv_blocks || 1) : 0} limited />
    <//>`}
    <p class="muted">Model ${d.model}${d.version ? `, version ${d.version}` : ''} · job <a href="#/jobs/${d.job}">${d.job}</a>${d.slice ? html` on <a href="#/slices/${encodeURIComponent(d.slice)}">${d.slice}</a>` : ''}${' · '}${d.tokens_per_minute ? `${count(d.tokens_per_minute)} tokens a minute` : 'no limit of tokens'}</p><//>`;
}

function Deploy({ models, model, close }) {
  const slices = useLive('/slices?state=active&limit=1000', ['slice_']);
  const form = useForm({ name: `${model}-chat`, model, slice: '', gpus: '1', tokens_per_minute: '' });
  const submit = async (event) => {
    event.preventDefault();
    const { name, slice, gpus, tokens_per_minute } = form.values;
    const ok = await form.run(() => post('/deployments', { name, model: form.values.model, gpus: Number(gpus), ...(slice && { slice }), ...(tokens_per_minute && { tokens_per_minute: Number(tokens_per_minute) }) }));
    if (!ok) return;
    announce(`${name} is starting`);
    close();
  };
  const ready = (slices.data?.items || []).filter((s) => s.state === 'ready' && !s.implicit);
  return html`<${Dialog} title="Deploy a model" onClose=${close}><form onSubmit=${submit}><div class="fields">
    <${Field} form=${form} name="model" label="Model" options=${models.map((m) => m.name)} />
    <${Field} form=${form} name="name" label="Served under the name" required />
    <${Field} form=${form} name="gpus" label="GPUs" type="number" min="1" max="32" />
    <${Field} form=${form} name="slice" label="On slice" options=${[{ value: '', text: 'chosen for you' }, ...ready.map((s) => s.name)]} />
    <${Field} form=${form} name="tokens_per_minute" label="Tokens a minute" type="number" min="0" hint="Empty: no limit" /></div>
    <${FormProblem} form=${form} fields=${kFields} />
    <div class="buttons"><button aria-busy=${form.busy} disabled=${form.busy}>Deploy</button></div></form><//>`;
}

export default function Models() {
  const models = useLive('/models', ['model_']), deployments = useLive('/deployments', ['deployment_', 'job_finished', 'attempt_']);
  const [deploying, setDeploying] = useState(null);
  const latest = [...new Map((models.data?.items || []).map((m) => [m.name, m])).values()].reverse();
  const all = deployments.data?.items || [], live = all.filter((d) => ['starting', 'ready'].includes(d.state)), over = all.filter((d) => !live.includes(d));
  return html`<${Page} title="Models" lead=${models.data && `${plural(live.length, 'deployment')}, ${plural(latest.length, 'model')} in the registry`}
    actions=${latest.length > 0 && html`<button onClick=${() => setDeploying(latest[0].name)}>Deploy a model</button>`}>
    <${Shown} live=${deployments}>${() => (live.length ? live.map((d) => html`<${Deployment} key=${d.name} deployment=${d} />`)
      : latest.length ? html`<${Empty} title="Nothing is served">Choose a model below and deploy it.<//>` : null)}<//>
    <${Shown} live=${models}>${() => html`<${Card} title="Registry">
      <${Table} caption="Models of the registry" rows=${latest} keyOf=${(m) => m.name} empty=${html`<${Empty} title="No model yet">A job whose recipe says <code>register: NAME</code>${' '}
        puts its model here when it succeeds. <a href="#/jobs/new">Submit one</a><//>`} columns=${[
          { name: 'Model', show: (m) => html`<strong>${m.name}</strong>` },
          { name: 'Version', num: true, hide: true, show: (m) => m.version },
          { name: 'Size', num: true, show: (m) => bytes(m.bytes) },
          { name: 'Files', num: true, hide: true, show: (m) => count(m.files.length) },
          { name: 'Made by', show: (m) => (m.job ? html`<a href="#/jobs/${m.job}">${m.job}</a>` : 'brought in') },
          { name: '', show: (m) => html`<button class="secondary" onClick=${() => setDeploying(m.name)}>Deploy</button>` }]} /><//>`}<//>
    ${over.length > 0 && html`<${Card} title="Not served any more"><${Table} caption="Deployments that ended" rows=${over} keyOf=${(d) => d.name} limit=${10} columns=${[
      { name: 'Deployment', show: (d) => d.name }, { name: 'State', show: (d) => html`<${State} state=${d.state} />` }, { name: 'Why', show: (d) => html`<span class="reason">${d.reason}</span>` }]} /><//>`}
    ${deploying && html`<${Deploy} models=${latest} model=${deploying} close=${() => setDeploying(null)} />`}<//>`;
}
