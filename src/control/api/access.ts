// Who may ask: a bearer token where one is set; without one (loopback only) nothing that a web page of another site could
// have sent. Such a page can reach a loopback port: by a name it has rebound to 127.0.0.1, which the Host header tells, or by
// a request across sites, which Origin and Sec-Fetch-Site tell.

import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { ApiProblem } from './problem.ts';

export type Authorize = (request: IncomingMessage) => ApiProblem | null;

function digest(text: string): Buffer {
  // Loaded only where a token is set: it costs the start 5 ms.
  const { createHash } = process.getBuiltinModule('node:crypto');
  return createHash('sha256').update(text).digest();
}

/** Checks the Authorization header; equal time whatever is wrong, digests being of one length. */
export function bearerCheck(token: string): Authorize {
  const { timingSafeEqual } = process.getBuiltinModule('node:crypto');
  const expected = digest(token);
  return ({ headers }) => {
    const match = /^bearer +([!-~]+)$/i.exec(headers.authorization ?? '');
    if (match !== null && timingSafeEqual(digest(match[1] as string), expected)) return null;
    const isWrong = headers.authorization !== undefined;
    return new ApiProblem(
      'unauthorized',
      isWrong
        ? 'The token of the Authorization header is not the one of EDGEPROXY_ADMIN_TOKEN'
        : 'The header "Authorization: Bearer TOKEN" is missing',
      {
        headers: {
          'www-authenticate': `Bearer realm="edgeproxy"${isWrong ? ', error="invalid_token"' : ''}`,
        },
      },
    );
  };
}

/** `localhost` or an IP address: names are what rebinding needs. */
function isSafeHost(host: string): boolean {
  const name = /^(?:\[([^\]]+)\]|([^:]+))(?::\d{1,5})?$/.exec(host);
  const plain = name?.[1] ?? name?.[2] ?? '';
  return isIP(plain) !== 0 || plain.toLowerCase() === 'localhost';
}

function forbidden(header: string, value: string, allowed: string): ApiProblem {
  return new ApiProblem('forbidden', `${header} is ${JSON.stringify(value)}, allowed: ${allowed}`);
}

/** For a server without token. A request without these headers comes from no browser. */
export const sameSiteCheck: Authorize = ({ headers, method }) => {
  const { host, origin } = headers;
  if (host !== undefined && !isSafeHost(host)) {
    return forbidden('Host', host, 'localhost or an IP address, or set EDGEPROXY_ADMIN_TOKEN');
  }
  if (origin !== undefined && origin !== `http://${host}`) {
    return forbidden('Origin', origin, `http://${host}`);
  }
  const site = headers['sec-fetch-site'];
  const isRead = method === 'GET' || method === 'HEAD';
  // Reading by a link from elsewhere shows nothing to that site.
  if (!isRead && site !== undefined && site !== 'same-origin' && site !== 'none') {
    return forbidden('Sec-Fetch-Site', String(site), 'same-origin or none');
  }
  return null;
};
