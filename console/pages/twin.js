// The report of the digital twin: what th-sim printed with --json, read from a file on this side. It is sent nowhere.

import { html, useMemo, useState } from '../parts/core.js';
import { Chart } from '../parts/chart.js';
import { Card, Empty, Page, Stat, Stats, Table } from '../parts/ui.js';
import { count } from '../parts/format.js';

const kMaxBytes = 32 << 20;
const words = (key) => key.replaceAll('_', ' ').replace(/ (ns|s|w|gpus)$/, (unit) => unit);
const isScalar = (v) => v === null || ['number', 'string', 'boolean'].includes(typeof v);
const show = (v) => (typeof v === 'number' ? (Number.isInteger(v) ? count(v) : String(Number(v.toPrecision(5)))) : v === true ? 'yes' : v === false ? 'no' : v === null ? '–' : String(v));
const isNumbers = (v) => Array.isArray(v) && v.length > 2 && v.every((n) => typeof n === 'number');
const isRows = (v) => Array.isArray(v) && v.length > 0 && v.every((row) => row && typeof row === 'object' && !Array.isArray(row));

/** The last line of JSON of what was printed, or the whole. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return JSON.parse(text.trim().split('\n').at(-1));
  }
}

function Rows({ title, rows }) {
  const keys = [...new Set(rows.slice(0, 50).flatMap((row) => Object.keys(row).filter((k) => isScalar(row[k]))))].slice(0, 9);
  const indexed = useMemo(() => rows.map((row, i) => ({ ...row, '#': i })), [rows]);
  return html`<${Card} title=${title}><${Table} caption=${title} rows=${indexed} keyOf=${(r) => r['#']} limit=${25} columns=${keys.map((key) => ({
    name: words(key), num: rows.every((row) => row[key] == null || typeof row[key] === 'number'), show: (row) => show(row[key] ?? null) }))} /><//>`;
}

/** Figures first, then what has parts. */
function Part({ title, value, depth = 0 }) {
  if (isNumbers(value)) {
    const data = [value.map((_, i) => i), value];
    return html`<${Card}><${Chart} title=${title} x="Entry" data=${data} series=${[{ label: title, color: '--c1', value: (v) => show(v) }]} summary="${value.length} values, from ${show(value[0])} to ${show(value.at(-1))}" /><//>`;
  }
  if (isRows(value)) return html`<${Rows} title=${title} rows=${value} />`;
  if (Array.isArray(value)) return html`<${Card} title=${title}><p>${value.slice(0, 200).map(show).join(', ')}</p><//>`;
  const entries = Object.entries(value), flat = entries.filter(([, v]) => isScalar(v)), parts = entries.filter(([, v]) => !isScalar(v));
  const short = flat.filter(([, v]) => typeof v !== 'string' || v.length < 24), long = flat.filter((e) => !short.includes(e));
  return html`
    ${depth > 0 && flat.length > 0 && html`<h2>${title}</h2>`}
    ${short.length > 0 && html`<${Stats}>${short.map(([k, v]) => html`<${Stat} label=${words(k)} value=${show(v)} />`)}<//>`}
    ${long.length > 0 && html`<${Card}><dl class="facts">${long.map(([k, v]) => html`<dt>${words(k)}</dt><dd>${v}</dd>`)}</dl><//>`}
    ${parts.map(([k, v]) => html`<${Part} title=${depth && !flat.length ? `${title}: ${words(k)}` : words(k)} value=${v} depth=${depth + 1} />`)}`;
}

export default function Twin() {
  const [report, setReport] = useState(null), [problem, setProblem] = useState('');
  const pick = async (event) => {
    const file = event.target.files[0];
    if (!file) return;
    setProblem('');
    setReport(null);
    if (file.size > kMaxBytes) return setProblem(`${file.name} is too large for a report: at most 32 MiB.`);
    try {
      const value = parse(await file.text());
      if (!value || typeof value !== 'object') throw new Error();
      setReport({ name: file.name, value });
    } catch {
      setProblem(`${file.name} is no report: want JSON as th-sim prints it with --json.`);
    }
  };
  return html`<${Page} title="Digital twin" lead="What th-sim rehearsed: placement, queues, power and faults, with the same code that runs here. All of it is simulated.">
    <${Card}><div class="field"><label for="report">Report, as th-sim prints it with --json</label><input id="report" type="file" accept=".json,.jsonl,.txt,application/json" onChange=${pick} aria-describedby="report-note" />
      <small id="report-note" class=${problem ? 'bad' : ''}>${problem || 'It is read in this page and sent nowhere.'}</small></div><//>
    ${report ? html`<p class="note">Simulated: ${report.name}</p><${Part} title=${report.name} value=${report.value} />`
      : html`<${Empty} title="No report yet">On the command line: <code>th-sim place --preset hyperscale-131k --json > report.json</code><//>`}<//>`;
}
