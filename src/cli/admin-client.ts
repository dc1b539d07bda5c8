// Asks a running proxy at its admin address: which one by the settings, with the token if there is one, and what went wrong
// in words an operator can act on.

import { get, type IncomingMessage } from 'node:http';
import { errorMessage, ProxyError } from '../base/errors.ts';
import { type Config, type ConfigFlags, loadConfig } from '../config.ts';
import { adminTokenOf } from '../control/admin-token.ts';
import { ADMIN_SETTINGS } from './admin-settings.ts';

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

/** Where the running proxy can be asked; a problem when the settings say nowhere. */
export function askedAddress(flags: ConfigFlags): AdminAddress | string {
  const config = loadConfig(flags, process.env, ADMIN_SETTINGS);
  const { metricsListen } = config;
  if (metricsListen === null) return 'EDGEPROXY_METRICS_LISTEN_ADDR is off';
  if (metricsListen.port === 0) return 'EDGEPROXY_METRICS_LISTEN_ADDR has no port';
  return { ...metricsListen, token: adminTokenOf(config) };
}

/** The answer to `path` once its head is there; fails unless it is 200. */
export function askStream(address: AdminAddress, path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = address.token === null ? {} : { authorization: `Bearer ${address.token}` };
    const url = `http://${adminText(address)}${path}`;
    const request = get(url, { agent: false, headers }, (response) => {
      const { statusCode } = response;
      if (statusCode === 200) {
        resolve(response);
        return;
      }
      response.resume();
      reject(new Error(statusCode === 401 ? NO_TOKEN : `status ${statusCode}`));
    });
    request.setTimeout(ANSWER_MS_MAX, () => request.destroy(new Error('no answer in time')));
    request.on('error', reject);
  });
}

export async function askText(address: AdminAddress, path: string): Promise<string> {
  const response = await askStream(address, path);
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  return text;
}

export async function askJson<Answer>(address: AdminAddress, path: string): Promise<Answer> {
  return JSON.parse(await askText(address, path)) as Answer;
}

/** `ECONNREFUSED`, or what else went wrong. */
export function failureText(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? errorMessage(error);
}

/** For commands that are nothing without a running proxy. */
export function unreachable(address: AdminAddress | string, error: unknown = null): ProxyError {
  const where = typeof address === 'string' ? '' : ` at ${adminText(address)}`;
  const why = typeof address === 'string' ? address : failureText(error);
  const hint = 'is "edgeproxy run" there, and is EDGEPROXY_METRICS_LISTEN_ADDR the same for both?';
  return new ProxyError('ERR_PROXY_UNREACHABLE', `Cannot ask the proxy${where}: ${why}; ${hint}`);
}
