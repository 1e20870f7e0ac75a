// The REST API (docs/api.md). Whoever is signed in is known by a cookie that scripts cannot read.

import { store } from './core.js';

/** undefined: not asked yet; null: nobody is signed in. */
export const session = store(undefined);

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The controller answered ${status}.`);
    this.status = status;
    this.code = problem.code || '';
    this.field = problem.field || (/field '([\w.]+)'/.exec(this.message) || [])[1] || '';
  }
}
export const isLost = (error) => !(error instanceof ApiError);

const onceKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');

export async function request(method, path, body, options = {}) {
  const headers = {};
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (method !== 'GET') Object.assign(headers, { 'X-Th-Csrf': '1', 'Idempotency-Key': onceKey() });
  const answer = await fetch('/api/v1' + path, {
    method, headers: { ...headers, ...options.headers }, signal: options.signal,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401 && session.get() && !options.signingIn) session.set(null);
  throw new ApiError(answer.status, problem.error ? { ...problem.error, detail: problem.error.message } : problem);
}

const parsed = async (answer) => (answer.status === 204 ? null : answer.json());
export const get = async (path, options) => parsed(await request('GET', path, undefined, options));
export const post = async (path, body = {}, options) => parsed(await request('POST', path, body, options));
export const put = async (path, body) => parsed(await request('PUT', path, body));
export const patch = async (path, body) => parsed(await request('PATCH', path, body));
export const remove = async (path) => parsed(await request('DELETE', path));
export const items = async (path) => (await get(path)).items;

export async function resume() {
  try {
    session.set(await get('/session', { signingIn: true }));
  } catch (error) {
    if (isLost(error)) throw error;
    session.set(null);
  }
}
export async function signIn(credentials) {
  session.set(await post('/session', credentials, { signingIn: true }));
}
export async function signOut() {
  await remove('/session').catch(() => {});
  session.set(null);
}

const kRanks = ['viewer', 'member', 'operator', 'admin'];
/** Whether the one who is signed in has at least this role (in their tenant; `platform`: at the root). */
export function may(role, { platform = false } = {}) {
  const who = session.get();
  return !!who && kRanks.indexOf(who.role) >= kRanks.indexOf(role) && (!platform || !who.tenant);
}
