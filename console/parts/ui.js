// What pages are made of.

import { announce, html, useCallback, useEffect, useRef, useState } from './core.js';
import { isLost } from './api.js';
import { plural } from './format.js';

/** The page's heading takes the focus, so that a screen reader begins there. */
export function Page({ title, lead, actions, back, children }) {
  const heading = useRef(null);
  useEffect(() => {
    document.title = `${title} · Thunderhead`;
    heading.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [title]);
  return html`
    <div class="page">
      ${back && html`<a class="back" href=${back.href}>← ${back.text}</a>`}
      <div class="page-head">
        <div>
          <h1 tabindex="-1" ref=${heading}>${title}</h1>
          ${lead && html`<p class="lead">${lead}</p>`}
        </div>
        ${actions && html`<div class="actions">${actions}</div>`}
      </div>
      ${children}
    </div>`;
}

const kKinds = {
  good: ['ready', 'succeeded', 'free', 'ok', 'active', 'accepted', 'taken', 'open'],
  busy: ['running', 'starting', 'used', 'in use', 'up', 'kept'],
  wait: ['pending', 'held', 'restarting', 'requested', 'releasing', 'suspect', 'waiting', 'degraded', 'drained', 'stopping'],
  bad: ['failed', 'down', 'refused', 'lost', 'lemon'],
};
const kindOf = (state) => Object.keys(kKinds).find((kind) => kKinds[kind].includes(state)) || 'off';

/** A state as a word; the colour only repeats it. */
export const State = ({ state }) => html`<span class="state ${kindOf(state)}">${state}</span>`;

/** `bar`: a share that is done; with `limited` a share of something that ends. */
export const Stat = ({ label, value, note, bar, limited }) => html`
  <div class="stat">
    <dt>${label}</dt>
    <dd><span class="value">${value}</span>${note && html` <small>${note}</small>`}
      ${bar != null && html`<${Bar} share=${bar} label=${label} limited=${limited} />`}</dd>
  </div>`;
export const Stats = ({ children }) => html`<dl class="stats">${children}</dl>`;

export const Bar = ({ share, label, limited }) => {
  const shown = Math.max(0, Math.min(1, share || 0));
  return html`<div class="bar ${!limited ? '' : share > 0.97 ? 'full' : share > 0.85 ? 'high' : ''}" role="meter" aria-label=${label}
    aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(shown * 100)}><i style=${{ width: `${shown * 100}%` }}></i></div>`;
};

export const Card = ({ title, actions, children, className = '' }) => html`
  <section class="card ${className}" aria-label=${title}>
    ${(title || actions) && html`<div class="card-head"><h2>${title}</h2>${actions && html`<div class="actions">${actions}</div>`}</div>`}
    ${children}
  </section>`;

export const Empty = ({ title, children }) => html`<div class="empty"><p><strong>${title}</strong></p>${children && html`<p>${children}</p>`}</div>`;

export const Loading = ({ what = 'Loading' }) => html`<p class="loading" aria-busy="true">${what} …</p>`;

export function Problem({ error, title = 'Not done' }) {
  if (!error) return null;
  const text = isLost(error) ? 'The controller does not answer. This page tries again by itself.' : error.message;
  return html`<div class="problem" role="alert"><strong>${isLost(error) ? 'No connection' : title}</strong><span>${text}</span></div>`;
}

/** What a live list shows before, without and with its data. */
export function Shown({ live, children }) {
  const problem = live.error && html`<${Problem} error=${live.error} title=${live.error.status === 404 ? 'Not there' : 'Not shown'} />`;
  if (live.data !== undefined) return html`${live.error && !isLost(live.error) ? problem : null}${children(live.data)}`;
  return problem || html`<${Loading} />`;
}

/** Columns: {name, show: (row) => …, num?, hide? (at phone width)}. Shows `limit` rows and more when asked; `more()` gets rows that are not here yet. */
export function Table({ caption, columns, rows, keyOf = (row) => row.id || row.name, empty, limit = 50, more }) {
  const [shown, setShown] = useState(limit);
  if (!rows.length) return empty || null;
  const next = () => {
    if (more && rows.length <= shown + 4 * limit) more();
    setShown(shown + 4 * limit);
  };
  return html`
    <div class="table" role="region" aria-label=${caption} tabindex="0">
      <table>
        <caption class="sr">${caption}</caption>
        <thead><tr>${columns.map((c) => html`<th scope="col" class=${cell(c)}>${c.name || html`<span class="sr">What to do</span>`}</th>`)}</tr></thead>
        <tbody>${rows.slice(0, shown).map((row) => html`
          <tr key=${keyOf(row)}>${columns.map((c) => html`<td class=${cell(c)} data-label=${c.name}>${c.show(row)}</td>`)}</tr>`)}</tbody>
      </table>
    </div>
    ${(rows.length > shown || more) && html`<button class="quiet" onClick=${next}>${more ? 'Show more' : `${plural(rows.length - shown, 'more row')} – show more`}</button>`}`;
}
const cell = (c) => `${c.num ? 'num' : ''} ${c.hide ? 'wide-only' : ''} ${c.name ? '' : 'do'}`;

/** Values of a form, and what was wrong with them: {values, set, busy, error, run}. */
export function useForm(initial) {
  const [values, setValues] = useState(initial);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const set = useCallback((changes) => setValues((old) => ({ ...old, ...changes })), []);
  const run = async (work) => {
    setBusy(true);
    setError(null);
    try {
      return await work();
    } catch (wrong) {
      setError(wrong);
      announce(`Not done: ${wrong.message}`);
    } finally {
      setBusy(false);
    }
  };
  return { values, set, busy, error, run, setError };
}

/** An error of a field that the form checks by itself. */
export const wrong = (field, message) => Object.assign(new Error(message), { field, status: 0, local: true });

export function Field({ form, name, label, hint, type = 'text', options, rows, wide, field = name, ...rest }) {
  const id = `f-${name}`;
  const bad = form.error && form.error.field === field;
  const shared = {
    id, name, ...rest,
    'aria-invalid': bad ? 'true' : undefined,
    'aria-describedby': bad || hint ? `${id}-note` : undefined,
  };
  const take = (event) => form.set({ [name]: type === 'checkbox' ? event.target.checked : event.target.value });
  const value = form.values[name];
  const input = options
    ? html`<select ...${shared} value=${value} onChange=${take}>${options.map((o) => {
      const { value: v, text } = typeof o === 'string' ? { value: o, text: o } : o;
      return html`<option value=${v} selected=${v === value}>${text}</option>`;
    })}</select>`
    : rows
      ? html`<textarea ...${shared} rows=${rows} value=${value} onInput=${take} spellcheck="false"></textarea>`
      : type === 'checkbox'
        ? html`<input ...${shared} type="checkbox" checked=${value} onChange=${take} />`
        : html`<input ...${shared} type=${type} value=${value} onInput=${take} autocomplete=${rest.autocomplete || 'off'} />`;
  const note = html`<small id="${id}-note" class=${bad ? 'bad' : ''}>${bad ? form.error.message : hint}</small>`;
  return type === 'checkbox'
    ? html`<div class="field check"><label for=${id}>${input} ${label}</label>${(bad || hint) && note}</div>`
    : html`<div class="field ${wide ? 'wide' : ''}"><label for=${id}>${label}</label>${input}${(bad || hint) && note}</div>`;
}

/** The error of a form, unless it stands at one of its `fields`. */
export const FormProblem = ({ form, fields = [] }) =>
  form.error && !fields.includes(form.error.field) ? html`<${Problem} error=${form.error} />` : null;

export function Dialog({ title, onClose, children }) {
  const box = useRef(null);
  useEffect(() => {
    box.current.showModal();
  }, []);
  return html`
    <dialog ref=${box} onClose=${onClose} aria-labelledby="dialog-title" onClick=${(e) => e.target === box.current && box.current.close()}>
      <article>
        <header><h2 id="dialog-title">${title}</h2><button class="close" aria-label="Close" onClick=${() => box.current.close()}>×</button></header>
        ${children}
      </article>
    </dialog>`;
}

/** A button that asks first. `ask`: what will happen; `children` of the dialog: more fields. */
export function Sure({ label, title = label, ask, act, done, danger = true, disabled, children }) {
  const [open, setOpen] = useState(false);
  const form = useForm({});
  const submit = async (event) => {
    event.preventDefault();
    const ok = await form.run(async () => (await act(), true));
    if (!ok) return;
    setOpen(false);
    if (done) announce(done);
  };
  return html`
    <button class=${danger ? 'danger' : 'secondary'} disabled=${disabled} onClick=${() => setOpen(true)}>${label}</button>
    ${open && html`<${Dialog} title=${title} onClose=${() => setOpen(false)}>
      <form onSubmit=${submit}>
        <p>${ask}</p>
        ${children}
        <${FormProblem} form=${form} />
        <div class="buttons"><button type="button" class="secondary" onClick=${() => setOpen(false)}>Back</button>
          <button class=${danger ? 'danger solid' : ''} aria-busy=${form.busy} disabled=${form.busy}>${label}</button></div>
      </form>
    <//>`}`;
}

export function Copy({ text, label = 'Copy' }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      setTimeout(() => setDone(false), 1500);
      announce('Copied');
    } catch {
      announce('This browser does not let the page copy; select the text instead');
    }
  };
  return html`<button type="button" class="quiet" onClick=${copy}>${done ? 'Copied' : label}</button>`;
}

/** Tabs: [{id, text}] */
export const Tabs = ({ tabs, current, choose, label }) => html`
  <div class="tabs" role="toolbar" aria-label=${label}>${tabs.map((tab) => html`
    <button type="button" aria-pressed=${tab.id === current ? 'true' : 'false'} onClick=${() => choose(tab.id)}>${tab.text}</button>`)}</div>`;
