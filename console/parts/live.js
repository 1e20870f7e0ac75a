// The event stream of the controller, and lists that follow it.

import { store, useEffect, useRef, useState } from './core.js';
import { get, session } from './api.js';
import { time } from './format.js';

/** 'open', 'connecting' (for the first time) or 'lost'. */
export const connection = store('connecting');

const listeners = new Set();  // (kind, data) => void; kind 'reconnected': all may have changed
let lastId = '', lastTime_ms = 0, running = null;

export function follow(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Reads server-sent events; calls take({id, event, data}) for each. */
export async function readEvents(answer, take) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf('\n\n')) >= 0) {
      const fields = { id: '', event: 'message', data: '' };
      for (const line of text.slice(0, end).split('\n')) {
        const colon = line.indexOf(':');
        if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, '');
      }
      text = text.slice(end + 2);
      if (fields.data) take(fields);
    }
  }
}

const tell = (kind, data) => [...listeners].forEach((listener) => listener(kind, data));

async function run(signal) {
  let wasLost = false;
  for (let wait_ms = 500; !signal.aborted;) {
    try {
      const answer = await fetch('/api/v1/events', { signal, headers: lastId ? { 'Last-Event-ID': lastId } : {} });
      if (answer.status === 401) return session.set(null);
      if (!answer.ok) throw new Error(`events: ${answer.status}`);
      connection.set('open');
      wait_ms = 500;
      if (wasLost) tell('reconnected', {});
      await readEvents(answer, ({ id, event, data }) => {
        if (id) lastId = id;
        const fields = JSON.parse(data);
        lastTime_ms = fields.time_ns ? fields.time_ns / 1e6 : lastTime_ms;
        tell(event, fields);
      });
    } catch (error) {
      if (signal.aborted) return;
    }
    wasLost = true;
    connection.set('lost');
    await new Promise((done) => setTimeout(done, wait_ms));
    wait_ms = Math.min(wait_ms * 1.6, 5000);
  }
}

export function start() {
  stop();
  running = new AbortController();
  run(running.signal);
}
export function stop() {
  running?.abort();
  running = null;
  lastId = '';
  connection.set('connecting');
}

/**
 * What GET `path` says, asked again when an event comes whose kind begins with one of `kinds` (or `matches(kind, data)`),
 * but so that asking takes at most a tenth of the time. `every_ms`: also so often while the page is seen. `keep`: with another path,
 * what is there is shown until the answer comes.
 * Returns {data, error, loading, reload}; `path` null: nothing is asked.
 */
export function useLive(path, kinds = [], { every_ms = 0, matches, keep } = {}) {
  const [state, set] = useState({ data: undefined, error: null, loading: true });
  const reload = useRef(() => {});
  useEffect(() => {
    if (!path) return set({ data: undefined, error: null, loading: false });
    let over = false, busy = false, again = false, timer = 0, cost_ms = 0, ended_ms = 0;
    const load = async () => {
      timer = 0;
      if (busy) return (again = true);
      busy = true;
      const begun = performance.now();
      try {
        const data = await get(path);
        if (!over) set({ data, error: null, loading: false });
      } catch (error) {
        if (!over) set((old) => ({ data: old.data, error, loading: false }));
      }
      ended_ms = performance.now();
      cost_ms = ended_ms - begun;
      busy = false;
      if (again && !over) (again = false), soon();
    };
    const soon = () => {
      const wait_ms = Math.max(60, Math.max(250, 10 * cost_ms) - (performance.now() - ended_ms));
      if (!timer) timer = setTimeout(load, wait_ms);
    };
    reload.current = load;
    set((old) => ({ data: keep ? old.data : undefined, error: null, loading: true }));
    load();
    const leave = follow((kind, data) => {
      if (kind === 'reconnected' || (matches ? matches(kind, data) : kinds.some((k) => kind.startsWith(k)))) soon();
    });
    const poll = every_ms ? setInterval(() => document.hidden || busy || load(), every_ms) : 0;
    return () => {
      over = true;
      leave();
      clearTimeout(timer);
      clearInterval(poll);
    };
  }, [path]);
  return { ...state, reload: () => reload.current() };
}

const kMaxItems = 10000;  // the most that the API gives at once

/** The same of a list that may be long: the first `size` items, and `more()` for twice as many where there are more. */
export function useList(path, kinds, { size = 50, ...options } = {}) {
  const [limit, setLimit] = useState(size);
  const list = useLive(path && `${path}${path.includes('?') ? '&' : '?'}limit=${limit}`, kinds, { ...options, keep: true });
  return { ...list, more: list.data?.next != null && limit < kMaxItems ? () => setLimit(Math.min(2 * limit, kMaxItems)) : null };
}

/** From here on time is what events say. */
export function followVirtualTime() {
  time.now = () => lastTime_ms || Date.now();
}

/** The time, again every second while something on the page counts it. */
export function useNow(every_ms = 1000) {
  const [now, set] = useState(time.now());
  useEffect(() => {
    const timer = setInterval(() => set(time.now()), every_ms);
    return () => clearInterval(timer);
  }, [every_ms]);
  return now;
}
