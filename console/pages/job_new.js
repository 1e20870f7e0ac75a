// A recipe or a command becomes a job: checked and estimated first, then submitted.

import { announce, go, html, route, useEffect, useState } from '../parts/core.js';
import { post } from '../parts/api.js';
import { useLive } from '../parts/live.js';
import { Card, Field, FormProblem, Page, Tabs, useForm, wrong } from '../parts/ui.js';
import { bytes, duration, money, parseDuration, plural, relative, told, when } from '../parts/format.js';

const kStarters = ['llama-tiny', 'llama-small', 'gpt2-124m', 'code-small'];
const kMaxFileBytes = 900 << 10;  // a request takes 1 MiB
const kFields = ['yaml', 'name', 'gpus', 'command', 'time', 'slice'];
const base = new URL('..', import.meta.url);

/** The recipe without staging `path` from the controller's machine. */
function withoutStage(yaml, path) {
  const lines = yaml.split('\n').filter((line) => !(/^\s+\S/.test(line) && line.trim().startsWith(path + ':')));
  return lines.filter((line, i) => !(/^stage:\s*$/.test(line) && !/^\s+\S/.test(lines[i + 1] || ''))).join('\n');
}

async function jobOf(way, { yaml, slice, name, gpus, command, time }, files) {
  let job;
  if (way === 'recipe') {
    let text = yaml;
    for (const { path } of files) text = withoutStage(text, path);
    ({ job } = await post('/recipes/check', { yaml: text }).catch((error) => {
      throw Object.assign(error, { field: error.status === 400 ? 'yaml' : '' });
    }));
  } else {
    const words = command.match(/"[^"]*"|'[^']*'|\S+/g)?.map((w) => w.replace(/^(["'])(.*)\1$/, '$2'));
    if (!words) throw wrong('command', 'A program and its arguments, such as: python3 train.py --lr 3e-4');
    if (!name) throw wrong('name', 'A name for the job.');
    job = { name, gpus: Number(gpus) || 1, command: words };
    if (time) job.duration_ns = parseDuration(time);
    if (Number.isNaN(job.duration_ns)) throw wrong('time', 'Such as 90s, 45min or 2h.');
  }
  if (slice) job.slice = slice;
  if (files.length) job.files = { ...job.files, ...Object.fromEntries(files.map((f) => [f.path, f.text])) };
  return job;
}

function Files({ files, setFiles, form }) {
  const add = async (event) => {
    const picked = [...event.target.files];
    event.target.value = '';
    for (const file of picked) {
      if (file.size > kMaxFileBytes) return form.setError(wrong('', `${file.name} has ${bytes(file.size)}; at most ${bytes(kMaxFileBytes)} go along with a job. Import it as a data set: th data import.`));
      const text = await file.text();
      setFiles((old) => [...old.filter((f) => f.name !== file.name), { name: file.name, path: `data/${file.name}`, text, size: file.size }]);
    }
  };
  return html`<div class="field wide"><label for="files">Text files that go along, as data/NAME in the job's folder</label>
    <input id="files" type="file" multiple onChange=${add} />
    ${files.length > 0 && html`<ul class="chips">${files.map((f) => html`<li class="chip">${f.path} <small>${bytes(f.size)}</small>
      <button type="button" class="quiet" aria-label="Take ${f.name} out" onClick=${() => setFiles(files.filter((o) => o !== f))}>×</button></li>`)}</ul>`}</div>`;
}

function Estimate({ estimate, job }) {
  return html`<${Card} className="offer" title="If it is submitted now">
    <dl class="facts">
      <dt>Job</dt><dd>${job.name}, ${plural(job.gpus, 'GPU')}: <span class="mono">${job.command.join(' ')}</span></dd>
      <dt>Starts</dt><dd>${estimate.start_ns ? html`${when(estimate.start_ns)} <small>${relative(estimate.start_ns)}</small>` : 'not known'}</dd>
      ${estimate.price_microusd > 0 && html`<dt>At most</dt><dd>${money(estimate.price_microusd)}</dd>`}
      ${job.duration_ns && html`<dt>Time limit</dt><dd>${duration(job.duration_ns)}</dd>`}
      ${estimate.placement && html`<dt>Where</dt><dd>${estimate.placement}</dd>`}
    </dl>
    ${estimate.reason?.text && html`<p class="note ${estimate.reason.code === 'ready' ? '' : 'warn'}">${told(estimate.reason.text)}</p>`}
    ${estimate.smallest_change && html`<p class="note">To start now: ${told(estimate.smallest_change)}</p>`}<//>`;
}

export default function NewJob() {
  const slices = useLive('/slices?state=active&limit=1000', ['slice_']);
  const ready = (slices.data?.items || []).filter((s) => ['ready', 'starting', 'degraded'].includes(s.state) && !s.implicit);
  const [way, setWay] = useState('recipe'), [files, setFiles] = useState([]), [asked, setAsked] = useState(null);
  const form = useForm({ yaml: '', slice: route.get().query.get('slice') || '', name: '', gpus: '1', command: '', time: '', starter: kStarters[0] });
  const load = async (name) => {
    form.set({ starter: name });
    const answer = await fetch(new URL(`recipes/${name}.yaml`, base));
    if (answer.ok) form.set({ yaml: await answer.text() });
  };
  useEffect(() => void load(kStarters[0]), []);
  const estimate = () => form.run(async () => {
    setAsked(null);
    const job = await jobOf(way, form.values, files);
    setAsked({ job, estimate: await post('/jobs/estimate', job) });
    announce('Checked: the estimate is there');
  });
  const submit = (event) => {
    event.preventDefault();
    form.run(async () => {
      const job = await post('/jobs', await jobOf(way, form.values, files));
      announce(`${job.id} is submitted`);
      go(`/jobs/${job.id}`);
    });
  };
  return html`<${Page} title="Submit a job" back=${{ href: '#/jobs', text: 'Jobs' }} lead="A gang of ranks, one a GPU, that start together or not at all.">
    <${Card}><form onSubmit=${submit}><div class="fields">
      <div class="wide field"><${Tabs} label="What to submit" current=${way} choose=${(id) => (setWay(id), setAsked(null))} tabs=${[{ id: 'recipe', text: 'Recipe' }, { id: 'command', text: 'Command' }]} /></div>
      ${way === 'recipe' ? html`
        <div class="field"><label for="starter">Begin with</label><select id="starter" value=${form.values.starter} onChange=${(e) => load(e.target.value)}>${kStarters.map((s) => html`<option value=${s}>${s}</option>`)}</select>
          <small>Recipes that come with Thunderhead</small></div>` : html`
        <${Field} form=${form} name="name" label="Name" required />
        <${Field} form=${form} name="gpus" label="GPUs" type="number" min="1" />
        <${Field} form=${form} name="time" label="Time limit" hint="45min, 2h; empty: 1 hour" />`}
      <${Field} form=${form} name="slice" label="On slice" options=${[{ value: '', text: 'a new one, for this job' }, ...ready.map((s) => ({ value: s.name, text: `${s.name} – ${plural(s.gpus, 'GPU')}` }))]} />
      ${way === 'recipe'
        ? html`<${Field} form=${form} name="yaml" label="Recipe (YAML)" rows=${18} wide class="recipe" hint="Paths under 'stage' are of the controller's machine, absolute or beside its recipes; or name a data set with 'data', or let files go along." />`
        : html`<${Field} form=${form} name="command" label="Command" wide placeholder="python3 train.py --lr 3e-4" />`}
      <${Files} files=${files} setFiles=${setFiles} form=${form} />
    </div>
    <${FormProblem} form=${form} fields=${kFields} />
    <div class="buttons"><button type="button" class="secondary" disabled=${form.busy} onClick=${estimate}>Check and estimate</button><button aria-busy=${form.busy} disabled=${form.busy}>Submit</button></div></form><//>
    ${asked && html`<${Estimate} ...${asked} />`}<//>`;
}
