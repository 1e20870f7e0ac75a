// A provider of OpenID Connect on loopback: any login is let in, with any password. REDIRECT is where it may send people back.

import http from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import { Provider } from 'oidc-provider';

const key = async (alg) => ({ ...await exportJWK((await generateKeyPair(alg, { extractable: true })).privateKey), alg, use: 'sig', kid: alg });
const client = (id, alg) => ({ client_id: id, client_secret: `${id}-secret`, redirect_uris: [process.env.REDIRECT], id_token_signed_response_alg: alg });

const server = http.createServer();
server.listen(0, '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [client('desk-rs256', 'RS256'), client('desk-es256', 'ES256')],
    jwks: { keys: [await key('RS256'), await key('ES256')] },
    cookies: { keys: ['only for this test'] },
    conformIdTokenClaims: false,
    claims: { openid: ['sub'], profile: ['preferred_username'], email: ['email'] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: `subject-of-${id}`, preferred_username: id, email: `${id}@lab.example` }) }),
    pkce: { required: () => true },
    ttl: { AccessToken: 60, AuthorizationCode: 60, IdToken: 60, Interaction: 600, Session: 600, Grant: 600 },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
