// The audit log: who changed what, from where, and what was answered.

import { html, useState } from './core.js';
import { useLive } from './live.js';
import { Card, Empty, Field, Shown, State, Table, useForm } from './ui.js';
import { clock, when } from './format.js';

/** "" for today, else such as "21 Nov ". */
const dayOf = (ns) => when(ns).slice(0, -5);

export function Audit() {
  const form = useForm({ who: '', what: '' }), [asked, ask] = useState({ who: '', what: '' }), [cursors, setCursors] = useState(['']);
  const query = (extra) => new URLSearchParams(Object.entries({ ...asked, ...extra }).filter(([, v]) => v)).toString();
  const after = cursors.at(-1);
  const list = useLive(`/audit?${query({ limit: 50, after })}`, after ? [] : ['']);
  const submit = (event) => {
    event.preventDefault();
    setCursors(['']);
    ask(form.values);
  };
  return html`<${Card} title="Audit log" actions=${html`<a class="button secondary" href="/api/v1/audit?${query({ format: 'csv' })}" download="audit.csv">Export CSV</a>
      <a class="button secondary" href="/api/v1/audit?${query({ format: 'jsonl' })}" download="audit.jsonl">Export JSON lines</a>`}>
    <form onSubmit=${submit}><div class="fields"><${Field} form=${form} name="who" label="Who" /><${Field} form=${form} name="what" label="What" hint="A word of the route or of what was asked" /></div>
      <div class="buttons"><button class="secondary">Search</button></div></form>
    <${Shown} live=${list}>${(data) => html`
      <${Table} caption="Changes" rows=${data.items} keyOf=${(e) => e.seq} empty=${html`<${Empty} title="Nothing found">Every change is written here, and every attempt that was refused.<//>`} columns=${[
        { name: 'When', show: (e) => html`<span class="nowrap">${dayOf(e.time_ns)}${clock(e.time_ns)}</span>` },
        { name: 'Who', show: (e) => html`<strong>${e.who || 'a stranger'}</strong> <small>${e.key || ''}</small>` },
        { name: 'From', hide: true, show: (e) => html`<span class="mono">${e.peer}</span>` },
        { name: 'What', show: (e) => html`<span class="mono">${e.method} ${e.path}</span><span class="reason">${e.summary}</span>` },
        { name: 'Answer', show: (e) => html`<${State} state=${e.status < 400 ? 'ok' : 'refused'} /> <small>${e.status}</small>` }]} />
      <div class="buttons">${cursors.length > 1 && html`<button class="secondary" onClick=${() => setCursors(cursors.slice(0, -1))}>Newer</button>`}
        ${data.next && html`<button class="secondary" onClick=${() => setCursors([...cursors, String(data.next)])}>Older</button>`}</div>`}<//><//>`;
}
