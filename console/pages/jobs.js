// The queue: what runs, what waits and why, what ended.

import { html, useEffect, useState } from '../parts/core.js';
import { get } from '../parts/api.js';
import { useList, useNow } from '../parts/live.js';
import { Bar, Card, Empty, Page, Shown, State, Table } from '../parts/ui.js';
import { count, duration, money, plural, relative, short, told, when } from '../parts/format.js';

const kMaxWhys = 40;
const isLive = (job) => ['starting', 'running', 'restarting'].includes(job.state);

/** The smallest change that would start each of the waiting jobs, by id. */
function useWhys(jobs) {
  const [whys, set] = useState({});
  const asked = jobs.slice(0, kMaxWhys).map((job) => job.id + job.reason).join();
  useEffect(() => {
    let over = false;
    Promise.all(jobs.slice(0, kMaxWhys).map((job) => get(`/why/${job.id}`).then((why) => [job.id, why], () => null)))
      .then((all) => over || set(Object.fromEntries(all.filter(Boolean))));
    return () => (over = true);
  }, [asked]);
  return whys;
}

const name = { name: 'Job', show: (job) => html`<a href="#/jobs/${job.id}"><strong>${job.name}</strong></a> <small class="nowrap">${job.id}</small>` };
const gpus = { name: 'GPUs', num: true, hide: true, show: (job) => count(job.gpus) };
const who = { name: 'Tenant', hide: true, show: (job) => job.account || '–' };

function Waiting({ jobs, more }) {
  const whys = useWhys(jobs), now = useNow();
  return html`<${Card} title="Waiting">
    <${Table} caption="Jobs that wait" rows=${jobs} limit=${20} more=${more} empty=${html`<p class="muted">Nothing waits.</p>`} columns=${[
      name, gpus, who,
      { name: 'Why', show: (job) => html`<${State} state=${job.reason_code || 'pending'} /><span class="reason brief" title=${told(job.reason)}>${told(job.reason)}</span>` },
      { name: 'Estimated start', show: (job) => (job.estimated_start_ns ? html`${when(job.estimated_start_ns, now)} <small class="nowrap">${relative(job.estimated_start_ns, now)}</small>` : 'not known') },
      { name: 'Smallest change', hide: true, show: (job) => html`<span class="reason">${whys[job.id]?.smallest_change || '–'}</span>` },
    ]} /><//>`;
}

const progress = (job) => job.progress && job.progress.steps && html`${count(job.progress.step)} of ${count(job.progress.steps)}<${Bar} share=${job.progress.step / job.progress.steps} label="Steps of ${job.name}" />`;

const Running = ({ jobs }) => html`<${Card} title="Running">
  <${Table} caption="Jobs that run" rows=${jobs} empty=${html`<p class="muted">Nothing runs.</p>`} columns=${[
    name, gpus, who,
    { name: 'State', show: (job) => html`<${State} state=${job.stopping ? 'stopping' : job.state} />` },
    { name: 'Steps', show: (job) => progress(job) || (job.kind === 'serve' ? 'serves' : '–') },
    { name: 'Loss', num: true, show: (job) => job.progress?.loss?.toFixed?.(3) ?? '–' },
    { name: 'Tokens/s', num: true, hide: true, show: (job) => short(job.progress?.tokens_per_s) },
    { name: 'Cost', num: true, hide: true, show: (job) => money(job.cost_microusd) },
  ]} /><//>`;

const Ended = ({ jobs, more }) => html`<${Card} title="Ended">
  <${Table} caption="Jobs that ended" rows=${jobs} limit=${20} more=${more} empty=${html`<p class="muted">Nothing has ended yet.</p>`} columns=${[
    name, gpus, who,
    { name: 'State', show: (job) => html`<${State} state=${job.state} />${job.state === 'failed' && html`<span class="reason brief" title=${told(job.reason)}>${told(job.reason)}</span>`}` },
    { name: 'Ran', num: true, hide: true, show: (job) => (job.started_ns ? duration(job.ended_ns - job.started_ns) : '–') },
    { name: 'Ended', show: (job) => html`<span class="nowrap">${when(job.ended_ns)}</span>` },
    { name: 'Cost', num: true, show: (job) => money(job.cost_microusd) },
  ]} /><//>`;

function View({ active, ended }) {
  const jobs = active.data.items;
  if (!jobs.length && ended.data && !ended.data.items.length) {
    return html`<${Empty} title="No job yet">A job is a gang of ranks that start together. <a href="#/jobs/new">Submit a recipe</a>${' '}
      or, on the command line: <code>th submit recipes/train/llama-small.yaml</code><//>`;
  }
  return html`<${Running} jobs=${jobs.filter(isLive)} /><${Waiting} jobs=${jobs.filter((job) => job.state === 'pending')} more=${active.more} />
    <${Shown} live=${ended}>${({ items }) => html`<${Ended} jobs=${items} more=${ended.more} />`}<//>`;
}

export default function Jobs() {
  const active = useList('/jobs?state=active', ['job_', 'attempt_', 'progress', 'slice_ready', 'slice_released', 'deployment_'], { size: 500 });
  const ended = useList('/jobs?state=ended&order=desc', ['job_finished']);
  const jobs = active.data?.items, and = active.more ? ' or more' : '';
  return html`<${Page} title="Jobs" lead=${jobs && `${plural(jobs.filter(isLive).length, 'job')} running, ${count(jobs.filter((j) => j.state === 'pending').length)}${and} waiting`}
    actions=${html`<a class="button" href="#/jobs/new">Submit a job</a>`}>
    <${Shown} live=${active}>${() => html`<${View} active=${active} ended=${ended} />`}<//><//>`;
}
