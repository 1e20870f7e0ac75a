// A shell beside a rank of the job, through the controller (docs/exec.md). It understands as much of a terminal as a shell's line
// needs: colours are left out, and programs that draw on the whole screen belong into `th attach`.

import { html, useEffect, useRef, useState } from './core.js';
import { post } from './api.js';
import { Card } from './ui.js';

const kStdin = 0, kStdout = 1, kControl = 3;
const kMaxLines = 2000, kRows = 30, kColumns = 100;
const kKeys = { Enter: '\r', Backspace: '\x7f', Tab: '\t', Escape: '\x1b', ArrowUp: '\x1b[A', ArrowDown: '\x1b[B', ArrowRight: '\x1b[C',
  ArrowLeft: '\x1b[D', Home: '\x1b[H', End: '\x1b[F', Delete: '\x1b[3~' };

/** Lines of text with a cursor on the last one. */
export class Screen {
  lines = [''];
  column = 0;
  pending = '';  // of an escape sequence that is not whole yet

  write(text) {
    text = this.pending + text;
    this.pending = '';
    for (let at = 0; at < text.length; at++) {
      const char = text[at];
      if (char === '\x1b') {
        const escape = /^\x1b(?:\[([0-9;?]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()].|[^[\]()])/.exec(text.slice(at, at + 300));
        if (!escape) {
          if (text.length - at < 300) this.pending = text.slice(at);
          return;
        }
        if (escape[2]) this.control(escape[2], parseInt(escape[1], 10) || 0);
        at += escape[0].length - 1;
      } else if (char === '\n') {
        this.lines.push('');
        if (this.lines.length > kMaxLines) this.lines.splice(0, this.lines.length - kMaxLines);
        this.column = Math.min(this.column, 0);
      } else if (char === '\r') {
        this.column = 0;
      } else if (char === '\b') {
        this.column = Math.max(0, this.column - 1);
      } else if (char === '\t') {
        this.put(' '.repeat(8 - (this.column % 8)));
      } else if (char >= ' ') {
        this.put(char);
      }
    }
  }
  put(text) {
    const line = this.lines.at(-1).padEnd(this.column);
    this.lines[this.lines.length - 1] = line.slice(0, this.column) + text + line.slice(this.column + text.length);
    this.column += text.length;
  }
  control(letter, count) {
    const line = this.lines.at(-1);
    if (letter === 'K') this.lines[this.lines.length - 1] = count === 0 ? line.slice(0, this.column) : '';
    if (letter === 'C') this.column += count || 1;
    if (letter === 'D') this.column = Math.max(0, this.column - (count || 1));
    if (letter === 'G') this.column = Math.max(0, (count || 1) - 1);
    if (letter === 'P') this.lines[this.lines.length - 1] = line.slice(0, this.column) + line.slice(this.column + (count || 1));
    if (letter === '@') this.lines[this.lines.length - 1] = line.slice(0, this.column) + ' '.repeat(count || 1) + line.slice(this.column);
    if (letter === 'J') this.lines = [''], this.column = 0;
  }
}

const keyOf = (event) => {
  if (event.ctrlKey && !event.altKey && event.key.length === 1) {
    const code = event.key.toUpperCase().charCodeAt(0);
    return code >= 64 && code < 96 ? String.fromCharCode(code - 64) : '';
  }
  if (event.metaKey || event.altKey) return '';
  return kKeys[event.key] ?? (event.key.length === 1 ? event.key : '');
};

const howItEnded = (last) => (last.error ? last.error.message : last.signal ? `Ended by signal ${last.signal}${last.reason ? `: ${last.reason}` : ''}.` : `Ended with exit code ${last.exit_code}.`);

/** One session, from its opening to its end. */
function Session({ job, rank, over }) {
  const [text, setText] = useState(''), [said, say] = useState('Opening…');
  const box = useRef(null), socket = useRef(null);
  useEffect(() => {
    let gone = false, ended = false, due = 0;
    const screen = new Screen(), decoder = new TextDecoder();
    const show = () => (due ||= setTimeout(() => ((due = 0), gone || setText(screen.lines.join('\n'))), 30));
    const end = (why) => gone || ended || ((ended = true), say(why), over());  // the first reason is the one
    (async () => {
      const session = await post(`/jobs/${job.id}/exec`, { rank, terminal: true, rows: kRows, columns: kColumns });
      if (gone) return;
      const opened = new WebSocket(`${location.protocol.replace('http', 'ws')}//${location.host}/api/v1/exec/${session.id}`);
      opened.binaryType = 'arraybuffer';
      opened.onopen = () => ((socket.current = opened), say(''), box.current?.focus());
      opened.onmessage = ({ data }) => {
        const bytes = new Uint8Array(data);
        if (bytes[0] === kStdout) screen.write(decoder.decode(bytes.subarray(1), { stream: true })), show();
        if (bytes[0] === kControl) end(howItEnded(JSON.parse(new TextDecoder().decode(bytes.subarray(1)))));
      };
      opened.onclose = () => ((socket.current = null), end('The connection was lost; what ran in the shell was ended.'));
      if (gone) opened.close();
    })().catch((error) => end(error.message));
    return () => ((gone = true), clearTimeout(due), socket.current?.close());
  }, []);
  useEffect(() => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  const send = (typed) => {
    const bytes = new TextEncoder().encode(typed), message = new Uint8Array(bytes.length + 1);
    message[0] = kStdin;
    message.set(bytes, 1);
    socket.current?.send(message);
  };
  const typed = (event) => {
    if (event.key === 'Tab' && event.shiftKey) return;  // the way out for who has no mouse
    const key = keyOf(event);
    if (!key || !socket.current) return;
    event.preventDefault();
    send(key);
  };
  return html`
    <pre class="log" ref=${box} tabindex="0" role="textbox" aria-multiline="true" aria-label="Shell beside rank ${rank}; Shift and Tab leave it"
      onKeyDown=${typed} onPaste=${(event) => (event.preventDefault(), send(event.clipboardData.getData('text').replaceAll('\n', '\r')))}>${text}▏</pre>
    ${said && html`<p class="muted" role="status">${said}</p>`}`;
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
