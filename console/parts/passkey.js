// Passkeys: what the browser keeps and shows instead of a password.

import { post } from './api.js';

export const canPasskey = () => !!window.PublicKeyCredential?.parseRequestOptionsFromJSON;

/** Signs in; the answer is the session. */
export async function signInByPasskey() {
  const { challenge, publicKey } = await post('/session/passkey/begin', {}, { signingIn: true });
  const credential = await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(publicKey) });
  return post('/session/passkey', { challenge, credential: credential.toJSON() }, { signingIn: true });
}

export async function addPasskey(name) {
  const { challenge, publicKey } = await post('/passkeys/begin');
  const credential = await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(publicKey) });
  return post('/passkeys', { challenge, credential: credential.toJSON(), name });
}
