// preact and htm, a shared value that components follow, and the page's address.

import { html, render, useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback, useErrorBoundary } from '../npm/htm.js';

export { html, render, useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback, useErrorBoundary };

/** A value that components follow by .use(). */
export function store(value) {
  const followers = new Set();
  return {
    get: () => value,
    set(next) {
      value = next;
      for (const tell of [...followers]) tell();
    },
    use() {
      const [, redraw] = useState(0);
      useEffect(() => {
        const tell = () => redraw((n) => n + 1);
        followers.add(tell);
        tell();  // it may have changed between the drawing and here
        return () => followers.delete(tell);
      }, []);
      return value;
    },
  };
}

const read = () => {
  const hash = location.hash.slice(1).replace(/^invitation=/, '/invite/').replace(/^reset=/, '/reset/');  // as th writes its links
  const [path, query] = (hash || '/').split('?');
  return { path, parts: path.split('/').filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
};
export const route = store(read());
addEventListener('hashchange', () => route.set(read()));

export function go(path) {
  location.hash = path;
}

/** Words for screen readers: what just happened. */
export const announcement = store('');
export function announce(text) {
  announcement.set('');
  setTimeout(() => announcement.set(text), 50);  // the same words twice are told twice
}

/** What the system says about motion, colours and width may change while the page is open. */
export function useMedia(query) {
  const media = useMemo(() => matchMedia(query), [query]);
  const [matches, set] = useState(media.matches);
  useEffect(() => {
    const change = () => set(media.matches);
    media.addEventListener('change', change);
    return () => media.removeEventListener('change', change);
  }, [media]);
  return matches;
}
export const useDark = () => useMedia('(prefers-color-scheme: dark)');
