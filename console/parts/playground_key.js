// A key for inference alone that only this page knows.

import { post, session } from './api.js';

let made = null;

/** Made when it is first needed, and anew before it ends. */
export async function playgroundKey() {
  const who = session.get()?.key;
  if (!made || made.who !== who || Date.now() > made.ends - 60e3) {
    const { key, expires_ns } = await post('/session/inference-key');
    made = { key, ends: expires_ns / 1e6, who, since: Date.now() };
  }
  return made.key;
}

/** The gateway hears of a new key a moment after it was made. */
export const isNew = () => made && Date.now() - made.since < 15e3;
