// The frame around the pages: who is signed in, where one can go, and whether the controller answers.

import { announcement, html, render, route, useEffect, useErrorBoundary, useState } from './parts/core.js';
import { resume, session, signOut } from './parts/api.js';
import { connection, followVirtualTime, start, stop } from './parts/live.js';
import { Loading, Page } from './parts/ui.js';
import { Icon, Mark } from './parts/icons.js';

const kPages = [
  { path: '', icon: 'fleet', text: 'Fleet', load: () => import('./pages/fleet.js') },
  { path: 'slices', icon: 'slices', text: 'Slices', load: () => import('./pages/slices.js') },
  { path: 'jobs', icon: 'jobs', text: 'Jobs', load: () => import('./pages/jobs.js') },
  { path: 'models', icon: 'models', text: 'Models', load: () => import('./pages/models.js') },
  { path: 'playground', icon: 'playground', text: 'Playground', load: () => import('./pages/playground.js') },
  { path: 'usage', icon: 'usage', text: 'Usage', load: () => import('./pages/usage.js') },
  { path: 'twin', icon: 'twin', text: 'Twin', load: () => import('./pages/twin.js') },
  { path: 'access', icon: 'access', text: 'Access', load: () => import('./pages/access.js') },
];
const kDetails = {
  slices: { new: () => import('./pages/slice_new.js'), one: () => import('./pages/slice.js') },
  jobs: { new: () => import('./pages/job_new.js'), one: () => import('./pages/job.js') },
};

function loaderOf([first = '', second]) {
  const details = kDetails[first];
  if (second && details) return details[second] || details.one;
  return kPages.find((page) => page.path === first)?.load;
}

function useModule(load) {
  const [loaded, set] = useState(null);
  useEffect(() => {
    let over = false;
    const attempt = () => load?.().then((module) => over || set({ load, Page: module.default }), () => over || setTimeout(attempt, 1500));
    attempt();
    return () => (over = true);
  }, [load]);
  return loaded?.load === load ? loaded.Page : null;
}

const Missing = () => html`<${Page} title="No such page"><p>There is nothing here. <a href="#/">Back to the fleet</a></p><//>`;

function Current() {
  const { parts, path } = route.use();
  const load = loaderOf(parts);
  const Shown = useModule(load);
  const [error, reset] = useErrorBoundary((wrong) => console.error(wrong));
  useEffect(() => reset(), [path]);
  if (error) return html`<${Page} title="This page broke"><p>${String(error.message)}</p><p><a href="#/">Back to the fleet</a></p><//>`;
  if (!load) return html`<${Missing} />`;
  return Shown ? html`<${Shown} key=${parts.join('/')} id=${parts[1]} />` : html`<div class="page"><${Loading} /></div>`;
}

/** Where the twin answers, every page says so. */
function useSimulated() {
  const [simulated, set] = useState(false);
  useEffect(() => void fetch('/health').then((answer) => answer.json()).then((health) => health.simulated && (followVirtualTime(), set(true)), () => {}), []);
  return simulated;
}

const kConnection = { open: 'Live', connecting: 'Connecting', lost: 'Connection lost' };

function Nav({ open, close }) {
  const who = session.use(), { parts } = route.use(), state = connection.use();
  return html`
    <nav id="nav" class=${open ? 'open' : ''} aria-label="Main">
      <ul>${kPages.map((page) => html`
        <li><a href="#/${page.path}" onClick=${close} aria-current=${(parts[0] || '') === page.path ? 'page' : undefined}>
          <${Icon} name=${page.icon} /> ${page.text}</a></li>`)}</ul>
      <div class="who">
        <p class="connection ${state}"><i></i>${kConnection[state]}</p>
        <p><strong>${who.name || who.user || 'signed in'}</strong><br /><small>${[who.role, who.tenant || 'platform'].filter(Boolean).join(' · ')}</small></p>
        <button class="quiet" onClick=${signOut}><${Icon} name="out" /> Sign out</button>
      </div>
    </nav>`;
}

function Frame() {
  const [open, setOpen] = useState(false);
  const state = connection.use(), simulated = useSimulated();
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(state === 'lost'), state === 'lost' ? 400 : 0);
    return () => clearTimeout(timer);
  }, [state]);
  return html`
    <a class="skip" href="#main" onClick=${(e) => (e.preventDefault(), document.querySelector('h1')?.focus())}>Skip to the page</a>
    <header class="top">
      <a class="brand" href="#/"><${Mark} /> Thunderhead</a>
      <button class="menu" aria-expanded=${open ? 'true' : 'false'} aria-controls="nav" onClick=${() => setOpen(!open)}>
        <${Icon} name="menu" /><span class="sr">Menu</span></button>
    </header>
    <${Nav} open=${open} close=${() => setOpen(false)} />
    <main id="main">
      ${late && html`<div class="banner" role="status"><strong>Connection lost.</strong> What you see may be old. Trying to reach the controller again …</div>`}
      ${simulated && html`<p class="simulated">Simulated: no machine stands behind this fleet, and its time is virtual.</p>`}
      <${Current} />
    </main>`;
}

const SignIn = () => {
  const Shown = useModule(kSignIn);
  return Shown ? html`<${Shown} />` : null;
};
const kSignIn = () => import('./pages/signin.js');

function App() {
  const who = session.use(), said = announcement.use(), { parts } = route.use();
  useEffect(() => {
    if (who) start();
    else stop();
  }, [who && (who.key || who.user || who.name)]);
  useEffect(() => {
    let timer = 0;
    const ask = () => resume().catch(() => (connection.set('lost'), timer = setTimeout(ask, 1500)));
    ask();
    return () => clearTimeout(timer);
  }, []);
  const body = who === undefined ? html`<p class="boot"><${Mark} /> Thunderhead</p>`
    : who === null || ['invite', 'reset'].includes(parts[0]) ? html`<${SignIn} />` : html`<${Frame} />`;
  return html`${body}<div class="sr" role="status" aria-live="polite">${said}</div>`;
}

const root = document.getElementById('app');
root.textContent = '';
root.className = 'app';
render(html`<${App} />`, root);
