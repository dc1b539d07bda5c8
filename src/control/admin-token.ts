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

/** The token, or null where none is needed. Throws a ConfigError, which ends the start with exit code 2. */
export function readAdminToken(config: Config): string | null {
  const { adminToken, adminTokenFile, metricsListen } = config;
  const [setting, file] = [SETTINGS.adminToken.env, SETTINGS.adminTokenFile.env];
  if (adminToken !== null && adminTokenFile !== null) {
    throw new ConfigError([`${setting} and ${file} are both set, allowed: one of them`]);
  }
  if (adminTokenFile !== null) return tokenOfFile(adminTokenFile);
  if (adminToken !== null || metricsListen === null) return adminToken;
  if (isLoopback(metricsListen.host)) return null;
  const { host, port, family } = metricsListen;
  const address = `${family === 6 ? `[${host}]` : host}:${port}`;
  throw new ConfigError([
    `${SETTINGS.metricsListen.env} is "${address}", which is not loopback: set ${setting} or ${file}`,
  ]);
}
