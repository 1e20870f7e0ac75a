// A desk of its own for one test: th up in a new state folder, on free ports of loopback.

import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const bin = process.env.TH_BIN, source = process.env.TH_SOURCE;

export class Desk {
  constructor() {
    this.state = mkdtempSync(join(tmpdir(), 'th-browser-'));
    chmodSync(this.state, 0o711);
    this.up('--fleet', join(source, 'recipes/fleet/desk.yaml'), '--port', '0', '--gateway-port', '0');
    this.key = readFileSync(join(this.state, 'admin.key'), 'utf8').trim();
    this.url = this.daemon().url;
  }
  th(...args) {
    const env = { ...process.env, TH_STATE: this.state };
    for (const name of ['TH_URL', 'TH_KEY', 'TH_GATEWAY_URL']) delete env[name];
    const done = spawnSync(join(bin, 'th'), args, { encoding: 'utf8', env });
    if (done.status !== 0) throw new Error(`th ${args.join(' ')}: ${done.status}\n${done.stdout}${done.stderr}`);
    return done.stdout;
  }
  up(...options) {
    this.th('up', ...options);
  }
  daemon() {
    return JSON.parse(readFileSync(join(this.state, 'controld.json'), 'utf8'));
  }
  /** The controller is gone from one moment to the next. */
  kill() {
    process.kill(this.daemon().pid, 'SIGKILL');
  }
  /** It comes back where it was: on the port of the last time. */
  restart(...options) {
    this.up('--port', new URL(this.url).port, '--gateway-port', '0', ...options);
  }
  async api(method, path, body) {
    const answer = await fetch(`${this.url}/api/v1${path}`, { method, body: body && JSON.stringify(body),
      headers: { Authorization: `Bearer ${this.key}`, 'Content-Type': 'application/json' } });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return JSON.parse(text);
  }
  async has(path) {
    return (await fetch(`${this.url}/api/v1${path}`, { headers: { Authorization: `Bearer ${this.key}` } })).status !== 404;
  }
  /** llama-tiny under another name, with its text by its absolute path and as many steps. */
  recipe(name, steps) {
    return readFileSync(join(source, 'recipes/train/llama-tiny.yaml'), 'utf8').replaceAll('../data/', join(source, 'recipes/data/'))
      .replace(/^name: .*/m, `name: ${name}`).replace(/^register: .*/m, `register: ${name}`).replace(/^  steps: .*/m, `  steps: ${steps}`);
  }
  down() {
    try {
      this.th('down');
    } finally {
      rmSync(this.state, { recursive: true, force: true });
    }
  }
}
