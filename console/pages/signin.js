// Coming in: by an invitation, by name and password, or by a key.

import { go, html, route, useEffect, useRef, useState } from '../parts/core.js';
import { get, post, put, resume, session, signIn } from '../parts/api.js';
import { canPasskey, signInByPasskey } from '../parts/passkey.js';
import { connection } from '../parts/live.js';
import { Copy, Field, FormProblem, Tabs, useForm, wrong } from '../parts/ui.js';
import { Mark } from '../parts/icons.js';

const Brand = () => html`<p class="brand"><${Mark} /> Thunderhead</p>`;

function useHeading(title) {
  const heading = useRef(null);
  useEffect(() => {
    document.title = `${title} · Thunderhead`;
    heading.current?.focus();
  }, [title]);
  return html`<h1 tabindex="-1" ref=${heading}>${title}</h1>`;
}

const useMethods = () => {
  const [methods, set] = useState({});
  useEffect(() => void get('/session/methods', { signingIn: true }).then(set, () => {}), []);
  return methods;
};

function Invitation({ code }) {
  const form = useForm({ name: '', password: '', code }), methods = useMethods();
  const [key, setKey] = useState('');
  const heading = useHeading(key ? 'You are in' : 'You are invited');
  const take = (event) => {
    event.preventDefault();
    form.run(async () => {
      const { name, password } = form.values;
      if (password && password.length < 12) throw wrong('password', 'A password has 12 characters or more; or leave it empty.');
      const taken = await post('/invitations/take', { code: form.values.code.trim(), name }, { signingIn: true });
      setKey(taken.key);
      if (password) await put('/session/password', { password });
    });
  };
  // The provider says who it is; the code goes along, and is used up once it has.
  const outside = () => form.run(async () => {
    const { name, code: typed } = form.values;
    if (!typed.trim()) throw wrong('code', 'The code of your invitation is needed here too.');
    location.href = `/api/v1/session/oidc/start?${new URLSearchParams({ invitation: typed.trim(), ...(name && { name }) })}`;
  });
  const enter = async () => {
    await resume();
    go('/');
  };
  if (key) {
    return html`<div class="card">${heading}
      <p>This is your key for the command line and the API. It is shown once; keep it somewhere safe.</p>
      <p class="mono" data-key>${key}</p>
    ${form.error && html`<p class="note warn">Your password is not set: ${form.error.message} You can set one under Access.</p>`}<div class="buttons"><${Copy} text=${key} label="Copy the key" /><button onClick=${enter}>Go to the console</button></div></div>`;
  }
  return html`<form class="card" onSubmit=${take}>${heading}
    <p class="muted">Choose the name you will be known by${' '}and, if you like, a password to sign in with.</p>
    ${!code && html`<${Field} form=${form} name="code" label="Invitation code" required />`}
    <${Field} form=${form} name="name" label="Name" required autocomplete="username" hint="Letters, digits, - _ and ." />
    <${Field} form=${form} name="password" label="Password" type="password" autocomplete="new-password" hint="12 characters or more; or none: you also get a key" />
    <${FormProblem} form=${form} fields=${['name', 'password', ...(code ? [] : ['code'])]} />
    <button type="submit" aria-busy=${form.busy} disabled=${form.busy}>Come in</button>
    ${methods.oidc && html`<button type="button" class="secondary" onClick=${outside} disabled=${form.busy}>Come in with ${methods.oidc.name}</button>`}
    <p class="muted"><a href="#/">I have been here before</a></p>
  </form>`;
}

function Enter() {
  const [way, setWay] = useState('password'), methods = useMethods();
  const form = useForm({ name: '', password: '', key: '' });
  const heading = useHeading('Sign in');
  const submit = (event) => {
    event.preventDefault();
    const { name, password, key } = form.values;
    form.run(() => signIn(way === 'key' ? { key: key.trim() } : { name, password }));
  };
  const byPasskey = () => form.run(async () => session.set(await signInByPasskey()));
  const choose = (id) => (setWay(id), form.setError(null));
  return html`<form class="card" onSubmit=${submit}>${heading}
    <${Tabs} label="Way to sign in" current=${way} choose=${choose} tabs=${[{ id: 'password', text: 'Name and password' }, { id: 'key', text: 'Key' }]} />
    ${way === 'key'
      ? html`<${Field} form=${form} name="key" label="Key" type="password" required hint="From your invitation; of the one who runs it: STATE/admin.key" />`
      : html`<${Field} form=${form} name="name" label="Name" required autocomplete="username" />
        <${Field} form=${form} name="password" label="Password" type="password" required autocomplete="current-password" />`}
    <${FormProblem} form=${form} fields=${way === 'key' ? ['key'] : ['name', 'password']} />
    <button type="submit" aria-busy=${form.busy} disabled=${form.busy}>Sign in</button>
    ${methods.passkey && canPasskey() && html`<button type="button" class="secondary" onClick=${byPasskey} disabled=${form.busy}>Use a passkey</button>`}
    ${methods.oidc && html`<a class="button secondary" href="/api/v1/session/oidc/start">Sign in with ${methods.oidc.name}</a>`}
    <p class="muted">A password that is forgotten is set anew by an administrator of your tenant. Nobody comes in but by an invitation. <a href="#/invite">I have a code</a> · <a href="#/apply">Apply for one</a></p>
  </form>`;
}

/** By a link that an administrator made. It signs in as well. */
function Reset({ code }) {
  const form = useForm({ password: '', again: '' }), heading = useHeading('Set a new password');
  const submit = (event) => {
    event.preventDefault();
    form.run(async () => {
      const { password, again } = form.values;
      if (password !== again) throw wrong('again', 'These are not the same.');
      session.set(await post('/session/reset', { code, password }, { signingIn: true }));
      go('/');
    });
  };
  return html`<form class="card" onSubmit=${submit}>${heading}
    <p class="muted">The link is good for one use. Your other sessions end.</p>
    <${Field} form=${form} name="password" label="New password" type="password" required autocomplete="new-password" hint="12 characters or more" />
    <${Field} form=${form} name="again" label="The same again" type="password" required autocomplete="new-password" />
    <${FormProblem} form=${form} fields=${['password', 'again']} />
    <button type="submit" aria-busy=${form.busy} disabled=${form.busy}>Set it and sign in</button>
    <p class="muted"><a href="#/">Back to sign in</a></p>
  </form>`;
}

function Apply() {
  const form = useForm({ name: '', contact: '', why: '' });
  const [done, setDone] = useState(false);
  const heading = useHeading(done ? 'Thank you' : 'Apply for an invitation');
  const submit = (event) => {
    event.preventDefault();
    form.run(async () => {
      await post('/applications', form.values, { signingIn: true });
      setDone(true);
    });
  };
  if (done) return html`<div class="card">${heading}<p>Your application waits for review. You will hear at the address that you gave.</p><p><a href="#/">Back</a></p></div>`;
  return html`<form class="card" onSubmit=${submit}>${heading}
    <${Field} form=${form} name="name" label="Name" required />
    <${Field} form=${form} name="contact" label="Where to reach you" required hint="Such as an e-mail address" />
    <${Field} form=${form} name="why" label="What you want to do" rows=${4} required />
    <${FormProblem} form=${form} fields=${['name', 'contact', 'why']} />
    <button type="submit" aria-busy=${form.busy} disabled=${form.busy}>Send</button>
    <p class="muted"><a href="#/">Back to sign in</a></p>
  </form>`;
}

export default function SignIn() {
  const { parts } = route.use(), state = connection.use();
  return html`<main class="signin" id="main"><${Brand} />
    ${state === 'lost' && html`<p class="note warn" role="status">The controller does not answer.</p>`}
    ${parts[0] === 'invite' ? html`<${Invitation} code=${parts[1] || ''} />` : parts[0] === 'reset' ? html`<${Reset} code=${parts[1] || ''} />` : parts[0] === 'apply' ? html`<${Apply} />` : html`<${Enter} />`}
  </main>`;
}
