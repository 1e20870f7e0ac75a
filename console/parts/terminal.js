// A shell beside a rank of the job, through the controller (docs/exec.md), on a terminal by xterm.js; both are asked for here only.

import { html, useEffect, useRef, useState } from './core.js';
import { post } from './api.js';
import { loadStyle } from './style.js';
import { Card } from './ui.js';
import { Terminal as Xterm } from '../npm/xterm.js';
import { FitAddon } from '../npm/xterm_fit.js';

const kStdin = 0, kStdout = 1, kControl = 3;

const howItEnded = (last) => (last.error ? last.error.message : last.signal ? `Ended by signal ${last.signal}${last.reason ? `: ${last.reason}` : ''}.` : `Ended with exit code ${last.exit_code}.`);

const message = (kind, bytes) => {
  const out = new Uint8Array(bytes.length + 1);
  out[0] = kind;
  out.set(bytes, 1);
  return out;
};
const utf8 = (text) => new TextEncoder().encode(text);
const binary = (text) => Uint8Array.from(text, (char) => char.charCodeAt(0));

/** A terminal in `box` that follows its size. The page's own keys stay: Shift and Tab leave it. */
function openTerminal(box, rank) {
  const terminal = new Xterm({ screenReaderMode: true, scrollback: 5000, fontSize: 13, lineHeight: 1.15, cursorBlink: false,
    minimumContrastRatio: 4.5, fontFamily: getComputedStyle(document.documentElement).getPropertyValue('--mono'), theme: { background: '#0d1119', foreground: '#d5dbe8' } });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(box);
  terminal.textarea.setAttribute('aria-label', `Shell beside rank ${rank}; Shift and Tab leave it`);
  terminal.attachCustomKeyEventHandler((event) => !(event.key === 'Tab' && event.shiftKey));
  fit.fit();
  const watch = new ResizeObserver(() => fit.fit());
  watch.observe(box);
  return { terminal, close: () => (watch.disconnect(), terminal.dispose()) };
}

/** Its bytes to `socket` and back, and its size. `end(why)` once it is over. */
function connect(terminal, socket, begin, end) {
  const send = (kind, bytes) => socket.readyState === WebSocket.OPEN && socket.send(message(kind, bytes));
  const tellSize = () => send(kControl, utf8(JSON.stringify({ resize: { rows: terminal.rows, columns: terminal.cols } })));
  socket.onopen = () => (tellSize(), begin());
  socket.binaryType = 'arraybuffer';
  socket.onmessage = ({ data }) => {
    const bytes = new Uint8Array(data);
    if (bytes[0] === kStdout) terminal.write(bytes.subarray(1));
    if (bytes[0] === kControl) end(howItEnded(JSON.parse(new TextDecoder().decode(bytes.subarray(1)))));
  };
  socket.onclose = () => end('The connection was lost; what ran in the shell was ended.');
  terminal.onData((text) => send(kStdin, utf8(text)));
  terminal.onBinary((text) => send(kStdin, binary(text)));
  terminal.onResize(tellSize);
}

/** One session, from its opening to its end. */
function Session({ job, rank, over }) {
  const box = useRef(null), [said, say] = useState('Opening…');
  useEffect(() => {
    let gone = false, ended = false, opened = null, socket = null;
    const end = (why) => {
      if (gone || ended) return;  // the first reason is the one
      ended = true;
      if (opened) opened.terminal.options.disableStdin = true;
      say(why);
      over();
    };
    (async () => {
      await loadStyle('npm/xterm.css');
      if (gone) return;
      const { terminal } = (opened = openTerminal(box.current, rank));
      const session = await post(`/jobs/${job.id}/exec`, { rank, terminal: true, rows: terminal.rows, columns: terminal.cols });
      if (gone) return;
      socket = new WebSocket(`${location.protocol.replace('http', 'ws')}//${location.host}/api/v1/exec/${session.id}`);
      connect(terminal, socket, () => (say(''), terminal.focus()), end);
    })().catch((error) => end(error.message));
    return () => ((gone = true), socket?.close(), opened?.close());
  }, []);
  return html`<div class="shell"><div ref=${box}></div></div>${said && html`<p class="muted" role="status">${said}</p>`}`;
}

export default function Terminal({ job }) {
  const [rank, setRank] = useState(0), [round, setRound] = useState(0), [open, setOpen] = useState(false);
  const running = job.state === 'running';
  return html`<${Card} title="Shell" actions=${html`
      <label class="sr" for="shell-rank">Rank</label><select id="shell-rank" value=${rank} disabled=${open} onChange=${(e) => setRank(Number(e.target.value))}>
        ${job.ranks.slice(0, 1024).map(({ rank: n }) => html`<option value=${n}>Rank ${n}</option>`)}</select>
      <button disabled=${!running || open} onClick=${() => (setOpen(true), setRound(round + 1))}>Open a shell</button>`}>
    ${round ? html`<${Session} key=${round} job=${job} rank=${rank} over=${() => setOpen(false)} />`
      : html`<p class="muted">${running ? 'It runs as the job’s user, in the rank’s folder and environment, and ends with the job.' : 'A shell can be opened while the job runs.'}</p>`}<//>`;
}
