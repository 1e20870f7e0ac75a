// One's own ways to sign in: password and passkeys.

import { announce, html } from './core.js';
import { may, put, remove, session } from './api.js';
import { useLive } from './live.js';
import { addPasskey, canPasskey } from './passkey.js';
import { Card, Empty, Field, FormProblem, Shown, Sure, Table, useForm } from './ui.js';
import { relative, when } from './format.js';

function Password() {
  const form = useForm({ old: '', password: '' });
  const submit = async (event) => {
    event.preventDefault();
    const { old, password } = form.values;
    if (!(await form.run(() => put('/session/password', { password, ...(old && { old }) })))) return;
    form.set({ old: '', password: '' });
    announce('Your password is changed; your other sessions have ended');
  };
  return html`<${Card} title="Password"><form onSubmit=${submit}><div class="fields">
    <${Field} form=${form} name="old" label="The one of now" type="password" autocomplete="current-password" hint="Empty, if you have none yet" />
    <${Field} form=${form} name="password" label="New password" type="password" autocomplete="new-password" required hint="12 characters or more" /></div>
    <${FormProblem} form=${form} fields=${['old', 'password']} />
    <div class="buttons"><button aria-busy=${form.busy} disabled=${form.busy}>Change it</button></div></form><//>`;
}

function Passkeys() {
  const list = useLive('/passkeys', ['passkey_']), form = useForm({ name: '' });
  const add = (event) => {
    event.preventDefault();
    form.run(async () => {
      await addPasskey(form.values.name || 'passkey');
      form.set({ name: '' });
      list.reload();
      announce('The passkey is added');
    });
  };
  return html`<${Card} title="Passkeys"><${Shown} live=${list}>${(data) => html`
    <${Table} caption="Your passkeys" rows=${data.items} empty=${html`<${Empty} title="No passkey yet">A passkey signs you in with the lock of your device, without a password.<//>`} columns=${[
      { name: 'Name', show: (p) => html`<strong>${p.name}</strong>` }, { name: 'Since', show: (p) => when(p.created_ns || p.added_ns) },
      { name: 'Last used', hide: true, show: (p) => (p.last_used_ns ? relative(p.last_used_ns) : '–') },
      { name: '', show: (p) => html`<${Sure} label="Remove" act=${async () => (await remove(`/passkeys/${p.id}`), list.reload())} ask="It signs you in no more." />` }]} />
    ${canPasskey() && html`<form onSubmit=${add}><div class="fields"><${Field} form=${form} name="name" label="Name of a new passkey" hint="Such as the device" /></div>
      <${FormProblem} form=${form} fields=${['name']} /><div class="buttons"><button aria-busy=${form.busy} disabled=${form.busy}>Add a passkey</button></div></form>`}`}<//><//>`;
}

export function Account() {
  if (!session.get().user) return html`<${Card} title="You"><p class="muted">You came in with a key that belongs to no person, so there is no password or passkey to keep.${may('admin') && html` To have a name here, <a href="#/access/invitations">invite yourself</a> and take the invitation.`}</p><//>`;
  return html`<div class="columns"><${Password} /><${Passkeys} /></div>`;
}
