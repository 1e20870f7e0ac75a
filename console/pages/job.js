// A job: its loss as it falls, speed, memory, where the time goes; its logs as they come; why, when and for how much.

import { html, useEffect, useMemo, useRef, useState } from '../parts/core.js';
import { get, may, remove, request } from '../parts/api.js';
import { follow, readEvents, useLive, useNow } from '../parts/live.js';
import { Chart } from '../parts/chart.js';
import { Timeline } from '../parts/timeline.js';
import { Card, Page, Shown, Stat, State, Stats, Sure, Tabs } from '../parts/ui.js';
import { bytes, count, decimal, duration, money, plural, relative, short, told, when } from '../parts/format.js';

const kMaxPoints = 1500;
const isOver = (job) => ['succeeded', 'failed', 'cancelled'].includes(job.state);

/** Every progress line of the job, as it comes. */
function useLines(id) {
  const [lines, set] = useState([]);
  useEffect(() => {
    let over = false, kept = new Map();
    const show = () => over || set([...kept.values()].sort((a, b) => a.step - b.step));
    const load = () => get(`/jobs/${id}/metrics`).then(({ items }) => {
      for (const line of items) if (line.event === 'progress' || line.step != null && line.loss != null) kept.set(line.step, line);
      show();
    }, () => {});
    load();
    const leave = follow((kind, data) => {
      if (kind === 'reconnected') return load();
      if (kind !== 'progress' || data.job !== id) return;
      kept.set(data.line.step, data.line);
      show();
    });
    return () => (over = true, leave());
  }, [id]);
  return lines;
}

const thin = (lines) => (lines.length <= kMaxPoints ? lines : lines.filter((_, i) => i % Math.ceil(lines.length / kMaxPoints) === 0 || i === lines.length - 1));
const kSplit = [['compute_ms', 'Compute', '--c1'], ['optimizer_ms', 'Optimizer', '--c2'], ['collective_ms', 'Collectives', '--c3'], ['waited_ms', 'Waiting for others', '--c4'], ['data_ms', 'Data', '--c5']];

const whyNoCurve = (job) => (isOver(job) ? 'It told no progress, so there are no curves.' : job.state === 'pending' ? 'The curves begin when it runs.'
  : html`The curves begin with its second line of progress. A command of your own draws them too: it appends lines of JSON to the file <code>$TH_METRICS</code>, such as
    <code>{"event":"progress","step":10,"steps":200,"loss":5.1}</code>.`);

function Charts({ job, lines }) {
  const seen = useMemo(() => thin(lines), [lines]);
  const column = (name, of = (v) => v) => seen.map((line) => (line[name] == null ? null : of(line[name])));
  const steps = column('step');
  if (seen.length < 2) return html`<${Card} title="Progress"><p class="muted">${whyNoCurve(job)}</p><//>`;
  const has = (name) => seen.some((line) => line[name] != null);
  const last = seen.at(-1), first = seen[0];
  // Stacked: each series is drawn over what lies above it, the whole first.
  const parts = kSplit.filter(([name]) => has(name));
  const tops = parts.map((_, i) => seen.map((line) => parts.slice(0, i + 1).reduce((sum, [name]) => sum + (line[name] || 0), 0)));
  const usual = [...(tops.at(-1) || [])].sort((a, b) => a - b), cap = 4 * usual[Math.floor(0.95 * usual.length)], isCut = usual.at(-1) > cap;
  return html`<div class="charts">
    ${has('loss') && html`<${Card}><${Chart} title="Loss" data=${[steps, column('loss')]} series=${[{ label: 'Loss', color: '--c1', value: (v) => v.toFixed(3) }]}
      summary="Loss went from ${first.loss?.toFixed(3)} at step ${first.step} to ${last.loss?.toFixed(3)} at step ${last.step}." /><//>`}
    ${has('tokens_per_s') && html`<${Card}><${Chart} title="Tokens per second" data=${[steps, column('tokens_per_s')]} series=${[{ label: 'Tokens/s', color: '--c2', value: short, fill: true }]}
      summary="Now ${short(last.tokens_per_s)} tokens a second." /><//>`}
    ${parts.length > 0 && html`<${Card}><${Chart} title="Where a step's time goes${isCut ? ' (its highest peaks are cut)' : ''}" stacked cap=${cap} tick=${(v, digits) => `${decimal(v, digits)} ms`} data=${[steps, ...tops.toReversed()]}
      series=${parts.map(([name, label, color], i) => ({ label, color, fill: true, value: (v) => `${v.toFixed(v < 10 ? 1 : 0)} ms`, raw: (at) => seen[at]?.[name] || 0, i })).toReversed()}
      summary=${parts.map(([name, label]) => `${label} ${(last[name] || 0).toFixed(1)} ms`).join(', ')} /><//>`}
    ${has('memory_bytes') && html`<${Card}><${Chart} title="Memory of rank 0" binary tick=${bytes} data=${[steps, column('memory_bytes'), column('peak_memory_bytes')]}
      series=${[{ label: 'Now', color: '--c3', value: bytes, fill: true }, { label: 'Peak', color: '--c5', value: bytes }]} summary="Now ${bytes(last.memory_bytes)}." /><//>`}
  </div>`;
}

function Logs({ job }) {
  const [rank, setRank] = useState(0), [text, setText] = useState(''), [paused, setPaused] = useState(false);
  const box = useRef(null), ranks = Math.max(1, job.ranks.length);
  useEffect(() => {
    const stop = new AbortController();
    let offset = 0, all = '', due = 0;
    setText('');
    const add = (more) => {
      all = (all + more).slice(-200000);
      due ||= setTimeout(() => ((due = 0), setText(all)), 80);
    };
    const run = async () => {
      while (!stop.signal.aborted) {
        try {
          const answer = await request('GET', `/jobs/${job.id}/logs?follow=1&rank=${rank}&offset=${offset}`, undefined, { signal: stop.signal });
          await readEvents(answer, ({ data }) => {
            const piece = JSON.parse(data);
            if (piece.text) add(piece.text);
            if (piece.offset != null) offset = piece.offset;
          });
          return;  // it ends with the job
        } catch (error) {
          if (stop.signal.aborted || error.status === 404) return;
          await new Promise((done) => setTimeout(done, 1500));
        }
      }
    };
    run();
    return () => (stop.abort(), clearTimeout(due));
  }, [job.id, rank, job.attempt > 0]);
  useEffect(() => {
    if (!paused && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text, paused]);
  const scrolled = () => setPaused(box.current.scrollHeight - box.current.scrollTop - box.current.clientHeight > 40);
  return html`<${Card} title="Output" actions=${html`
      ${paused && html`<button class="quiet" onClick=${() => setPaused(false)}>Follow again</button>`}
      ${ranks > 1 && html`<label class="sr" for="rank">Rank</label><select id="rank" value=${rank} onChange=${(e) => setRank(Number(e.target.value))}>
        ${Array.from({ length: Math.min(ranks, 1024) }, (_, i) => html`<option value=${i}>Rank ${i}</option>`)}</select>`}`}>
    <div class="log" ref=${box} onScroll=${scrolled} tabindex="0" role="log" aria-label="Output of rank ${rank}" aria-live="off">${text || (isOver(job) ? 'It wrote nothing.' : 'Nothing written yet.')}</div><//>`;
}

function Why({ why }) {
  if (!why) return null;
  return html`<${Card} title="Why, when, for how much">
    <p><${State} state=${why.state} /> ${told(why.reason?.text)}</p>
    ${why.smallest_change && html`<p class="note">Smallest change that would start it now: <strong>${why.smallest_change}</strong></p>`}
    <${Timeline} timeline=${why.timeline} /><//>`;
}

/** Loaded when it is asked for. */
function Shell({ job }) {
  const [Terminal, set] = useState(null);
  useEffect(() => {
    let over = false;
    import('../parts/terminal.js').then((module) => over || set(() => module.default));
    return () => (over = true);
  }, []);
  return Terminal ? html`<${Terminal} job=${job} />` : html`<${Card} title="Shell"><p class="muted">Loading…</p><//>`;
}

function Ranks({ job }) {
  if (!job.ranks.length) return null;
  return html`<${Card} title=${plural(job.ranks.length, 'rank')}>
    <ul class="chips">${job.ranks.slice(0, 256).map((rank) => html`<li class="chip"><strong>${rank.rank}</strong> <${State} state=${rank.state} />
      <small>${rank.node}${rank.exit_code ? `, exit ${rank.exit_code}` : ''}${rank.signal ? `, signal ${rank.signal}` : ''}</small></li>`)}</ul><//>`;
}

function View({ job, why }) {
  const lines = useLines(job.id), now = useNow(), [tab, setTab] = useState('progress');
  const at = lines.at(-1) || job.progress || {};
  const ran = job.started_ns ? duration((job.ended_ns || now * 1e6) - job.started_ns) : '–';
  const result = job.result && typeof job.result === 'object' ? Object.entries(job.result).filter(([k]) => k !== 'event') : [];
  return html`
    ${!isOver(job) && job.state === 'pending' && html`<p class="note warn">It waits: ${told(job.reason) || 'it will be looked at in a moment'}.
      ${job.estimated_start_ns ? ` Estimated start ${when(job.estimated_start_ns)} (${relative(job.estimated_start_ns, now)}).` : ''}</p>`}
    ${job.state === 'failed' && html`<p class="problem"><strong>Failed</strong><span>${told(job.reason)}</span></p>`}
    <${Stats}>
      <${Stat} label="State" value=${html`<${State} state=${job.stopping ? 'stopping' : job.state} />`} />
      ${at.steps ? html`<${Stat} label="Step" value=${count(at.step)} note="of ${count(at.steps)}" bar=${at.step / at.steps} />` : html`<${Stat} label="GPUs" value=${count(job.gpus)} />`}
      ${at.loss != null && html`<${Stat} label="Loss" value=${at.loss.toFixed(3)} />`}
      ${at.tokens_per_s != null && html`<${Stat} label="Tokens/s" value=${short(at.tokens_per_s)} note=${at.mfu ? `MFU ${Math.round(100 * at.mfu)} %` : ''} />`}
      <${Stat} label="Ran" value=${ran} note=${!isOver(job) && at.eta_s ? `${duration(at.eta_s * 1e9)} left` : ''} />
      <${Stat} label="Cost" value=${money(job.cost_microusd)} />
    <//>
    <${Tabs} label="Parts of the job" current=${tab} choose=${setTab} tabs=${[{ id: 'progress', text: 'Progress' }, { id: 'output', text: 'Output' }, ...(may('member') ? [{ id: 'shell', text: 'Shell' }] : []), { id: 'about', text: 'About' }]} />
    ${tab === 'progress' && html`<${Charts} job=${job} lines=${lines} />
      ${result.length > 0 && html`<${Card} title="Result"><dl class="facts">${result.map(([k, v]) => html`<dt>${k.replaceAll('_', ' ')}</dt><dd>${typeof v === 'number' ? Number(v.toPrecision(5)) : String(v)}</dd>`)}</dl><//>`}
      <${Why} why=${why} />`}
    ${tab === 'output' && html`<${Logs} job=${job} />`}
    ${tab === 'shell' && html`<${Shell} job=${job} />`}
    ${tab === 'about' && html`<${Ranks} job=${job} /><${Card} title="About"><dl class="facts">
      <dt>Id</dt><dd>${job.id}</dd><dt>Kind</dt><dd>${job.kind}</dd>
      <dt>Slice</dt><dd>${job.slice ? html`<a href="#/slices/${encodeURIComponent(job.slice)}">${job.slice}</a>` : 'one of its own, when it starts'}</dd>
      <dt>Tenant</dt><dd>${job.account || '–'}</dd><dt>Quality of service</dt><dd>${job.qos || '–'}</dd>
      <dt>Submitted</dt><dd>${when(job.submitted_ns)}</dd><dt>Attempts</dt><dd>${count(job.attempt)}, ${plural(job.retries_used, 'retry', 'retries')} used, ${plural(job.preemptions, 'time')} preempted</dd>
      <dt>Checkpoint</dt><dd>${job.checkpoint_step ? `step ${count(job.checkpoint_step)}` : 'none yet'}; ${plural(job.lost_steps, 'step')} lost to faults</dd></dl><//>`}`;
}

export default function Job({ id }) {
  const matches = (kind, data) => kind !== 'progress' && (data.job === id || kind.startsWith('slice_'));
  const job = useLive(`/jobs/${encodeURIComponent(id)}`, [], { matches });
  const why = useLive(`/why/${encodeURIComponent(id)}`, [], { matches });
  const now = job.data;
  return html`<${Page} title=${now?.name || id} back=${{ href: '#/jobs', text: 'Jobs' }} lead=${now && `${now.id} · ${plural(now.gpus, 'GPU')}${now.slice ? ` on ${now.slice}` : ''}`}
    actions=${now && html`
      ${now.state === 'succeeded' && now.kind !== 'serve' && html`<a class="button secondary" href="#/models">Models</a>`}
      ${!isOver(now) && html`<${Sure} label="Cancel" title="Cancel ${now.name}" act=${() => remove(`/jobs/${now.id}`)} done="${now.name} is being cancelled"
        ask="Its ranks are stopped. What it saved in checkpoints stays in its folder; no model is registered." />`}`}>
    <${Shown} live=${job}>${(data) => html`<${View} job=${data} why=${why.data} />`}<//><//>`;
}
