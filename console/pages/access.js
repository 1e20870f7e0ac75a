// Who may come in: tenants, people, invitations, applications, keys; and what everybody changed.

import { announce, html, route, go, useState } from '../parts/core.js';
import { may, patch, post, remove, session } from '../parts/api.js';
import { useList, useLive } from '../parts/live.js';
import { Account } from '../parts/account.js';
import { Audit } from '../parts/audit.js';
import { Card, Copy, Dialog, Empty, Field, FormProblem, Page, Shown, State, Sure, Table, Tabs, useForm, wrong } from '../parts/ui.js';
import { count, money, parseDuration, relative, when } from '../parts/format.js';

const kRoles = ['viewer', 'member', 'operator', 'admin'];
const rolesBelow = () => kRoles.slice(0, kRoles.indexOf(session.get().role) + 1);
const tenantName = (name) => name || 'the platform';
const expiry = (text, field) => {
  if (!text) return {};
  const ns = parseDuration(text);
  if (!(ns > 0)) throw wrong(field, 'Such as 1h, 7d or 90d.');
  return { expires_ns: Math.round(Date.now() * 1e6 + ns) };
};

const useTenants = () => useLive('/tenants', ['tenant_', 'policy_']);
const limitFields = [{ name: 'max_gpus', label: 'GPUs at most', type: 'number', min: 1, hint: 'Empty: no limit' },
  { name: 'budget', field: 'budget_microusd', label: 'Budget, $', type: 'number', min: 0, step: '0.01', hint: 'Empty: none' }, { name: 'shares', label: 'Shares', type: 'number', min: 1, hint: 'Of the queue, beside its siblings' }];
/** Its own administrator may not raise its limits. */
const mayChange = (t) => may('admin') && t.made_by === 'api' && t.name !== session.get().tenant;
const tenantOptions = (tenants) => [...(session.get().tenant ? [] : [{ value: '', text: 'the platform' }]),
  ...(tenants.data?.items || []).filter((t) => !t.removed).map((t) => t.name).filter(Boolean).map((name) => ({ value: name, text: name }))];

/** What is shown once: a code or a key. */
function Once({ title, text, secret, link, close }) {
  return html`<${Dialog} title=${title} onClose=${close}><p>${text}</p><p class="mono" data-secret>${link || secret}</p>
    <div class="buttons"><${Copy} text=${link || secret} label="Copy" /></div><//>`;
}

/** A form in a dialog. */
function Ask({ title, fields, initial, act, close, verb = 'Create' }) {
  const form = useForm(initial);
  const submit = async (event) => {
    event.preventDefault();
    const made = await form.run(async () => (await act(form.values)) || {});
    if (made) close(made);
  };
  return html`<${Dialog} title=${title} onClose=${() => close()}><form onSubmit=${submit}><div class="fields">${fields.map((f) => html`<${Field} form=${form} ...${f} />`)}</div>
    <${FormProblem} form=${form} fields=${fields.flatMap((f) => [f.name, f.field])} />
    <div class="buttons"><button aria-busy=${form.busy} disabled=${form.busy}>${verb}</button></div></form><//>`;
}

function Tenants() {
  const tenants = useTenants(), [asking, ask] = useState(false);
  const create = ({ name, parent, kind, max_gpus, budget, shares }) => post('/tenants', { name, parent, kind, ...(max_gpus && { max_gpus: Number(max_gpus) }),
    ...(budget && { budget_microusd: Math.round(Number(budget) * 1e6) }), ...(shares && { shares: Number(shares) }) });
  const [changing, change] = useState(null);
  const setLimits = (t, { max_gpus, budget, shares }) => patch(`/tenants/${encodeURIComponent(t.name)}`, { max_gpus: max_gpus === '' ? null : Number(max_gpus),
    budget_microusd: budget === '' ? null : Math.round(Number(budget) * 1e6), ...(shares !== '' && { shares: Number(shares) }) });
  return html`<${Shown} live=${tenants}>${(data) => html`<${Card} title="Tenants" actions=${may('admin') && html`<button onClick=${() => ask(true)}>New tenant</button>`}>
    <${Table} caption="Tenants" rows=${data.items.filter((t) => !t.removed)} keyOf=${(t) => t.name} empty=${html`<${Empty} title="No tenant yet">Everything belongs to the platform.<//>`} columns=${[
      { name: 'Tenant', show: (t) => html`<strong>${tenantName(t.name)}</strong>` }, { name: 'Of', show: (t) => t.parent || 'the platform' }, { name: 'Kind', hide: true, show: (t) => t.kind },
      { name: 'GPUs at most', num: true, show: (t) => (t.max_gpus ? count(t.max_gpus) : 'no limit') },
      { name: 'Budget', num: true, hide: true, show: (t) => (t.budget_microusd ? money(t.budget_microusd) : 'none') },
      { name: 'Shares', num: true, hide: true, show: (t) => (t.shares == null ? '–' : count(t.shares)) },
      { name: '', show: (t) => mayChange(t) && html`<button class="secondary" onClick=${() => change(t)}>Limits</button><${Sure} label="Remove" title="Remove ${t.name}" act=${() => remove(`/tenants/${encodeURIComponent(t.name)}`)} ask="It must have nothing that runs. Its people and keys come in no more." />` }]} /><//>`}<//>
    ${asking && html`<${Ask} title="New tenant" act=${create} close=${() => (ask(false), tenants.reload())} initial=${{ name: '', parent: session.get().tenant || '', kind: 'tenant', max_gpus: '', budget: '', shares: '' }} fields=${[
      { name: 'name', label: 'Name', required: true }, { name: 'parent', label: 'Below', options: tenantOptions(tenants) },
      { name: 'kind', label: 'Kind', options: ['tenant', 'project'], hint: 'A project has none below it' }, ...limitFields]} />`}
    ${changing && html`<${Ask} title="Limits of ${changing.name}" verb="Change" act=${(v) => setLimits(changing, v)} close=${() => (change(null), tenants.reload())} fields=${limitFields}
      initial=${{ max_gpus: changing.max_gpus ? String(changing.max_gpus) : '', budget: changing.budget_microusd ? String(changing.budget_microusd / 1e6) : '', shares: changing.shares ? String(changing.shares) : '' }} />`}`;
}

function People() {
  const users = useList('/users', ['user_', 'invitation_']), who = session.get(), [made, show] = useState(null);
  return html`<${Shown} live=${users}>${(data) => html`<${Card} title="People">
    <${Table} caption="People" rows=${data.items.filter((u) => !u.removed)} more=${users.more} empty=${html`<${Empty} title="Nobody yet">People come in by an invitation. <a href="#/access/invitations">Invite somebody</a><//>`} columns=${[
      { name: 'Name', show: (u) => html`<strong>${u.name}</strong> <small>${u.id}</small>` },
      { name: 'Roles', show: (u) => u.roles.map((r) => `${r.role} of ${tenantName(r.tenant)}`).join(', ') || '–' },
      { name: 'Since', hide: true, show: (u) => when(u.created_ns) },
      { name: '', show: (u) => may('admin') && u.id !== who.user && html`<${Sure} label="Reset password" title="Reset the password of ${u.name}" danger=${false} act=${async () => show(await post(`/users/${u.id}/reset`))}
          ask="You get a link that sets a new one, good for one use and a day. Until it is used the old password holds." />
        <${Sure} label="Remove" title="Remove ${u.name}" act=${() => remove(`/users/${u.id}`)} done="Removed" ask="Their keys and sessions end at once. What they submitted runs on." />` }]} /><//>`}<//>
    ${made && html`<${Once} title="A new password for ${made.name}" text="Send this link to ${made.name}. It is shown once, and good for one use until ${when(made.expires_ns)}." link=${`${location.origin}/#reset=${encodeURIComponent(made.code)}`} close=${() => show(null)} />`}`;
}

function Invitations() {
  const list = useList('/invitations?order=desc', ['invitation_', 'user_']), tenants = useTenants(), [asking, ask] = useState(false), [made, show] = useState(null);
  const create = ({ tenant, role, name, expires, max_gpus, tokens_per_minute }) => post('/invitations', { tenant, role, ...(name && { name }), ...expiry(expires, 'expires'),
    ...(max_gpus && { max_gpus: Number(max_gpus) }), ...(tokens_per_minute && { tokens_per_minute: Number(tokens_per_minute) }) });
  const link = made?.code && `${location.origin}/#/invite/${encodeURIComponent(made.code)}`;
  return html`<${Shown} live=${list}>${(data) => html`<${Card} title="Invitations" actions=${may('admin') && html`<button onClick=${() => ask(true)}>Invite</button>`}>
    <${Table} caption="Invitations" rows=${data.items} more=${list.more} empty=${html`<${Empty} title="No invitation yet">Nobody comes in but by one. It is good for one use.<//>`} columns=${[
      { name: 'For', show: (i) => html`<strong>${i.name || 'anyone who has it'}</strong> <small>${i.id}</small>` }, { name: 'As', show: (i) => `${i.role} of ${tenantName(i.tenant)}` },
      { name: 'State', show: (i) => html`<${State} state=${i.state} />` },
      { name: 'Ends', hide: true, show: (i) => (i.state !== 'open' ? '–' : i.expires_ns ? `${when(i.expires_ns)} (${relative(i.expires_ns)})` : 'never') },
      { name: '', show: (i) => may('admin') && i.state === 'open' && html`<${Sure} label="Revoke" act=${() => remove(`/invitations/${i.id}`)} ask="Its code lets nobody in any more." />` }]} /><//>`}<//>
    ${asking && html`<${Ask} title="Invite somebody" verb="Invite" act=${create} close=${(m) => (ask(false), m?.code && show(m), list.reload())} initial=${{ tenant: session.get().tenant || '', role: 'member', name: '', expires: '7d', max_gpus: '', tokens_per_minute: '' }} fields=${[
      { name: 'tenant', label: 'To tenant', options: tenantOptions(tenants) }, { name: 'role', label: 'As', options: rolesBelow() },
      { name: 'name', label: 'For', hint: 'Their name; empty: they choose it' }, { name: 'expires', field: 'expires_ns', label: 'Good for', hint: '1h, 7d' },
      { name: 'max_gpus', label: 'GPUs at most', type: 'number', min: 1 }, { name: 'tokens_per_minute', label: 'Tokens a minute', type: 'number', min: 0 }]} />`}
    ${made && html`<${Once} title="The invitation" text="Send this link to whom you invite. It is shown once and good for one use." link=${link} close=${() => show(null)} />`}`;
}

function Applications() {
  const list = useList('/applications?order=desc', ['application_']), tenants = useTenants(), [asking, ask] = useState(null), [made, show] = useState(null);
  const review = (id, answer) => post(`/applications/${id}/review`, answer);
  const code = made?.invitation?.code;
  return html`<${Shown} live=${list}>${(data) => html`<${Card} title="Applications">
    <${Table} caption="Applications" rows=${data.items} more=${list.more} empty=${html`<${Empty} title="No application">Who has no invitation may apply for one on the sign-in page.<//>`} columns=${[
      { name: 'Who', show: (a) => html`<strong>${a.name}</strong><span class="reason">${a.contact}</span>` }, { name: 'Why', show: (a) => html`<span class="reason">${a.why}</span>` },
      { name: 'State', show: (a) => html`<${State} state=${a.state === 'open' ? 'waiting' : a.state} />` },
      { name: '', show: (a) => (a.state === 'open' && may('admin') ? html`<div class="actions"><button onClick=${() => ask(a)}>Accept</button>
        <${Sure} label="Decline" act=${() => review(a.id, { accept: false })} ask="${a.name} gets no invitation." /></div>` : '') }]} /><//>`}<//>
    ${asking && html`<${Ask} title="Accept ${asking.name}" verb="Accept" act=${(v) => review(asking.id, { accept: true, ...v })} close=${(m) => (ask(null), m && show(m), list.reload())}
      initial=${{ tenant: asking.tenant || session.get().tenant || '', role: 'member' }} fields=${[{ name: 'tenant', label: 'Into tenant', options: tenantOptions(tenants) }, { name: 'role', label: 'As', options: rolesBelow() }]} />`}
    ${code && html`<${Once} title="Accepted" text="Send this link to them. It is shown once and good for one use." link="${location.origin}/#/invite/${encodeURIComponent(code)}" close=${() => show(null)} />`}`;
}

function Keys() {
  const list = useList('/keys?order=desc', ['key_', 'session_']), tenants = useTenants(), [asking, ask] = useState(false), [made, show] = useState(null);
  const create = ({ name, tenant, role, scopes, expires }) => post('/keys', { name, ...(tenant && { tenant }), role, scopes: scopes.split('+'), ...expiry(expires, 'expires') });
  return html`<${Shown} live=${list}>${(data) => html`<${Card} title="Keys" actions=${may('admin') && html`<button onClick=${() => ask(true)}>New key</button>`}>
    <${Table} caption="Keys" rows=${data.items.filter((k) => !k.revoked)} more=${list.more} columns=${[
      { name: 'Key', show: (k) => html`<strong>${k.name}</strong> <small>${k.id}</small>` }, { name: 'Of', show: (k) => `${k.role} of ${tenantName(k.tenant)}` },
      { name: 'For', hide: true, show: (k) => ((k.scopes || []).join() === 'console' ? 'a session of the console' : (k.scopes || []).join(', ')) }, { name: 'Ends', hide: true, show: (k) => (k.expires_ns ? relative(k.expires_ns) : 'never') },
      { name: 'Last used', show: (k) => (k.last_used_ns ? relative(k.last_used_ns) : 'never') },
      { name: '', show: (k) => may('admin') && k.name !== 'admin' && html`<${Sure} label="Revoke" title="Revoke ${k.name}" act=${() => remove(`/keys/${k.id}`)} done="Revoked" ask="It ends with the next request." />` }]} /><//>`}<//>
    ${asking && html`<${Ask} title="New key" act=${create} close=${(m) => (ask(false), m?.key && show(m), list.reload())} initial=${{ name: '', tenant: session.get().tenant || '', role: 'member', scopes: 'api+inference', expires: '90d' }} fields=${[
      { name: 'name', label: 'Name', required: true }, { name: 'tenant', label: 'Of tenant', options: tenantOptions(tenants) }, { name: 'role', label: 'Role', options: rolesBelow() },
      { name: 'scopes', label: 'For', options: [{ value: 'api+inference', text: 'the API and inference' }, { value: 'inference', text: 'inference only' }, { value: 'api', text: 'the API only' }] },
      { name: 'expires', field: 'expires_ns', label: 'Good for', hint: '1h, 90d; empty: for ever' }]} />`}
    ${made && html`<${Once} title="The key ${made.name}" text="It is shown once; only its hash is kept." secret=${made.key} close=${() => (show(null), announce('The key is shown no more'))} />`}`;
}

const kTabs = { you: ['You', Account, 'viewer'], tenants: ['Tenants', Tenants, 'viewer'], people: ['People', People, 'admin'], invitations: ['Invitations', Invitations, 'admin'], applications: ['Applications', Applications, 'admin'], keys: ['Keys', Keys, 'admin'], audit: ['Audit log', Audit, 'operator'] };

export default function Access() {
  const { parts } = route.use(), tabs = Object.keys(kTabs).filter((id) => may(kTabs[id][2]));
  const tab = tabs.includes(parts[1]) ? parts[1] : tabs[0], Shown = kTabs[tab][1], who = session.get();
  return html`<${Page} title="Access" lead="You are ${who.name}, ${who.role} of ${tenantName(who.tenant)}. A role holds for all that is below.">
    <div><${Tabs} label="Parts of access" current=${tab} choose=${(id) => go(`/access/${id}`)} tabs=${tabs.map((id) => ({ id, text: kTabs[id][0] }))} /></div>
    <${Shown} /><//>`;
}
