// An offer for a slice: price, start and place before anything is promised; then hold and commit.

import { announce, go, html, useState } from '../parts/core.js';
import { may, post, session } from '../parts/api.js';
import { useLive } from '../parts/live.js';
import { useFleet } from '../parts/fleet_data.js';
import { Card, Field, FormProblem, Page, useForm, wrong } from '../parts/ui.js';
import { Fabric } from '../parts/fabric.js';
import { count, duration, money, parseDuration, plural, relative, time, told, when } from '../parts/format.js';

const kFields = ['name', 'gpus', 'series', 'time', 'max_price', 'budget', 'start', 'duration_ns', 'start_ns', 'account'];

function bodyOf({ name, gpus, series, time, start, max_price, budget, spares, max_switches, spot, account }) {
  if (!/^[a-z0-9]([\w.-]{0,62})$/i.test(name)) throw wrong('name', 'Letters, digits, - _ and ., up to 63; the first a letter or digit.');
  const duration_ns = parseDuration(time);
  if (!(duration_ns > 0)) throw wrong('time', 'Such as 90s, 45min, 2h or 1d 12h.');
  if (!(Number(gpus) >= 1)) throw wrong('gpus', 'A whole number from 1 on.');
  const body = { name, gpus: Number(gpus), series, duration_ns };
  if (start) body.start_ns = new Date(start).getTime() * 1e6;
  if (max_price) body.max_microusd_per_gpu_hour = Math.round(Number(max_price) * 1e6);
  if (budget) body.budget_microusd = Math.round(Number(budget) * 1e6);
  if (Number(spares)) body.spares = Number(spares);
  if (Number(max_switches)) body.max_switches = Number(max_switches);
  if (spot) body.spot = true;
  if (account) body.account = account;
  return body;
}

function Offer({ offer, body, form }) {
  const isNow = offer.start_ns / 1e6 < time.now() + 2000;
  const take = () => form.run(async () => {
    const wanted = isNow ? body : { ...body, start_ns: offer.start_ns };
    await post('/slices', wanted);
    await post(`/slices/${encodeURIComponent(body.name)}/commit`);
    announce(`Slice ${body.name} is yours; its nodes are starting`);
    go(`/slices/${encodeURIComponent(body.name)}`);
  });
  return html`<${Card} className="offer" title="The offer">
    <p class="price">${money(offer.price_microusd)}</p>
    <p class="muted">${plural(offer.gpus, 'GPU')} for ${duration(offer.end_ns - offer.start_ns)} at ${money(offer.microusd_per_gpu_hour)} a GPU-hour; the most it can cost</p>
    <dl class="facts"><dt>Starts</dt><dd>${isNow ? 'now' : html`${when(offer.start_ns)} <small>${relative(offer.start_ns)}</small>`}</dd><dt>Ends</dt><dd>${when(offer.end_ns)}</dd>
      <dt>Where</dt><dd>${offer.placement}</dd></dl>
    ${offer.reason && html`<p class="note warn">${isNow ? '' : 'Not now: '}${told(offer.reason.text)}</p>`}
    ${offer.sooner && html`<p class="note">To start now: ${told(offer.sooner)}</p>`}
    ${offer.cheaper && html`<p class="note">Cheaper: ${offer.cheaper}</p>`}
    ${offer.cloud && html`<p class="muted">${offer.cloud.reason ? `The cloud: ${offer.cloud.reason}` : `The cloud asks ${money(offer.cloud.microusd_per_vm_hour)} a VM-hour ${offer.cloud.where}`}</p>`}
    <${Fabric} places=${offer.hosts} />
    <${FormProblem} form=${form} />
    <div class="buttons"><button disabled=${form.busy} aria-busy=${form.busy} onClick=${take}>${isNow ? 'Commit: get it now' : 'Commit: reserve it'}</button></div><//>`;
}

export default function NewSlice() {
  const fleet = useFleet(), series = fleet.data?.series || [];
  const form = useForm({ name: '', gpus: '4', series: '', time: '1h', start: '', max_price: '', budget: '', spares: '', max_switches: '', spot: false, account: '' });
  const commit = useForm({});
  const [asked, setAsked] = useState(null);
  const own = session.get().tenant, tenants = useLive(may('member') ? '/tenants' : null, ['tenant_']);
  const accounts = (tenants.data?.items || []).filter((t) => !t.removed && t.name).map((t) => t.name);
  const chosen = form.values.series || series[0]?.name || '';
  const ask = (event) => {
    event.preventDefault();
    setAsked(null);
    commit.setError(null);
    form.run(async () => {
      const body = bodyOf({ ...form.values, series: chosen });
      const offer = await post('/offers', body);
      setAsked({ body, offer });
      announce(`Offer: ${money(offer.price_microusd)}, starts ${when(offer.start_ns)}`);
    });
  };
  return html`<${Page} title="Get a slice" back=${{ href: '#/slices', text: 'Slices' }} lead="Ask first: an offer says price, start and place, and binds nobody. What you commit is yours or costs nothing.">
    <div class="columns">
      <${Card} title="What you need"><form onSubmit=${ask}><div class="fields">
        <${Field} form=${form} name="name" label="Name" required />
        <${Field} form=${form} name="gpus" label="GPUs" type="number" min="1" required />
        <${Field} form=${{ ...form, values: { ...form.values, series: chosen } }} name="series" label="Series" options=${series.map((s) => ({ value: s.name, text: `${s.name} – ${count(s.gpus)} GPUs` }))} />
        <${Field} form=${form} name="time" field=${form.error?.field === 'duration_ns' ? 'duration_ns' : 'time'} label="For" hint="90s, 2h, 1d 12h" required />
        ${accounts.length > 1 && html`<${Field} form=${form} name="account" label="Paid by" options=${[{ value: '', text: own || 'default' }, ...accounts.filter((name) => name !== (own || 'default'))]} hint="The tenant that it counts for" />`}
        <${Field} form=${form} name="start" field=${form.error?.field === 'start_ns' ? 'start_ns' : 'start'} label="Not before" type="datetime-local" hint="Empty: now" />
      </div>
      <details><summary>More wishes</summary><div class="fields">
        <${Field} form=${form} name="max_price" label="At most, $ a GPU-hour" type="number" min="0" step="0.01" />
        <${Field} form=${form} name="budget" label="At most, $ in all" type="number" min="0" step="0.01" />
        <${Field} form=${form} name="spares" label="Spare nodes" type="number" min="0" />
        <${Field} form=${form} name="max_switches" label="At most so many leaf switches" type="number" min="0" />
        <${Field} form=${form} name="spot" label="Spot: cheaper, may be taken back" type="checkbox" />
      </div></details>
      <${FormProblem} form=${form} fields=${kFields} />
      <div class="buttons"><button aria-busy=${form.busy} disabled=${form.busy}>Get an offer</button></div></form><//>
      ${asked ? html`<${Offer} ...${asked} form=${commit} />` : html`<${Card} title="The offer"><p class="muted">Here you will see what it costs, when it starts, and where its nodes are.</p><//>`}
    </div><//>`;
}
