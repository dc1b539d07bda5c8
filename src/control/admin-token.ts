// The admin server's bearer token: from its setting or its file, checked before anything is opened. Off loopback the
// server does not start without one: nothing unauthenticated listens on a public address.

import { readFileSync, statSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { errorMessage } from '../base/errors.ts';
import { TOKEN_PATTERN } from '../base/names.ts';
import { type Config, ConfigError, SETTINGS } from '../config.ts';

/** Write by the group, anything by others. Read by the group stays: that is how secrets are mounted for a user. */
const MODE_REFUSED = 0o027;
const ALLOWED = SETTINGS.adminToken.allowed;

function isLoopback(host: string): boolean {
  return isIPv4(host) ? host.startsWith('127.') : host === '::1';
}

function tokenOfFile(path: string): string {
  const refuse = (what: string): never => {
    throw new ConfigError([`${SETTINGS.adminTokenFile.env} is "${path}": ${what}`]);
  };
  let text: string;
  try {
    const stats = statSync(path);
    if (!stats.isFile()) refuse('it is not a regular file');
    const mode = stats.mode & 0o777;
    if (process.platform !== 'win32' && (mode & MODE_REFUSED) !== 0) {
      const octal = mode.toString(8).padStart(4, '0');
      refuse(`its mode is ${octal}, allowed: 0600, 0640 or less; run: chmod 600 ${path}`);
    }
    text = readFileSync(path, 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    return refuse(`it cannot be read: ${errorMessage(error)}`);
  }
  if (!TOKEN_PATTERN.test(text)) refuse(`what it holds is not usable, allowed: ${ALLOWED}`);
  return text;
}

const TOKEN_ENV = SETTINGS.adminToken.env;
const FILE_ENV = SETTINGS.adminTokenFile.env;

/** The token that is set, for the server and for those who ask it; null: none is. Throws a ConfigError. */
export function adminTokenOf({
  adminToken,
  adminTokenFile,
}: Pick<Config, 'adminToken' | 'adminTokenFile'>): string | null {
  if (adminToken !== null && adminTokenFile !== null) {
    throw new ConfigError([`${TOKEN_ENV} and ${FILE_ENV} are both set, allowed: one of them`]);
  }
  return adminTokenFile === null ? adminToken : tokenOfFile(adminTokenFile);
}

/** The server's token, or null where none is needed. Throws a ConfigError, which ends the start with exit code 2. */
export function readAdminToken(config: Config): string | null {
  const { metricsListen } = config;
  const token = adminTokenOf(config);
  if (token !== null || metricsListen === null || isLoopback(metricsListen.host)) return token;
  const { host, port, family } = metricsListen;
  const address = `${family === 6 ? `[${host}]` : host}:${port}`;
  throw new ConfigError([
    `${SETTINGS.metricsListen.env} is "${address}", which is not loopback: set ${TOKEN_ENV} or ${FILE_ENV}`,
  ]);
}
