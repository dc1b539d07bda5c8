// Asks a running proxy, at its admin address, how a backend fares: two numbers of its metrics page.

import { get } from 'node:http';
import { errorMessage } from '../base/errors.ts';
import type { Config } from '../config.ts';
import type { DrainLook } from './drain-watch.ts';

const ANSWER_MS_MAX = 5000;
const NO_TOKEN = 'it wants the token of EDGEPROXY_ADMIN_TOKEN or EDGEPROXY_ADMIN_TOKEN_FILE';
/** A proxy that listens everywhere is asked on this machine. */
const LOOPBACK: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' };

type HostPort = NonNullable<Config['metricsListen']>;

export interface AdminAddress extends HostPort {
  /** null: it needs none. */
  readonly token: string | null;
}

export function adminText({ host, port }: HostPort): string {
  const reached = LOOPBACK[host] ?? host;
  return `${reached.includes(':') ? `[${reached}]` : reached}:${port}`;
}

function metricsPage(address: AdminAddress): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = address.token === null ? {} : { authorization: `Bearer ${address.token}` };
    const url = `http://${adminText(address)}/metrics`;
    const request = get(url, { agent: false, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text);
        else if (response.statusCode === 401) reject(new Error(NO_TOKEN));
        else reject(new Error(`status ${response.statusCode}`));
      });
    });
    request.setTimeout(ANSWER_MS_MAX, () => request.destroy(new Error('no answer in time')));
    request.on('error', reject);
  });
}

/** The sample of `name` for a backend, whatever other labels it has; null when there is none. */
export function backendSample(page: string, name: string, id: string): number | null {
  const escaped = id.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  const label = `backend="${escaped}"`;
  for (const line of page.split('\n')) {
    if (!line.startsWith(`${name}{`)) continue;
    if (!line.includes(`{${label}`) && !line.includes(`,${label}`)) continue;
    return Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return null;
}

export async function lookAtBackend(address: AdminAddress, id: string): Promise<DrainLook> {
  let page: string;
  try {
    page = await metricsPage(address);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return { kind: 'unreachable', reason: code ?? errorMessage(error) };
  }
  const open = backendSample(page, 'edge_backend_connections_current', id);
  if (open === null) return { kind: 'unknown' };
  return { kind: 'seen', open, draining: backendSample(page, 'edge_backend_draining', id) === 1 };
}
