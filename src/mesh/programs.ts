// Runs the system's network programs (ip, wg) and says what went wrong in words an operator can act on. Secrets go by
// standard input, never as arguments, which everybody can read.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { ProxyError } from '../base/errors.ts';

/** Which package has a program, for the message when it is missing. */
const PACKAGES: Readonly<Record<string, string>> = { ip: 'iproute2', wg: 'wireguard-tools' };
const CAP_NET_ADMIN = 12n;
/** No call of ours takes longer than milliseconds; a program that hangs must not hang the mesh. */
const RUN_MS_MAX = 15_000;

export interface Ran {
  /** null: it was ended by a signal. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, whatever its exit code. Throws ProxyError when it cannot be started. */
export function runProgram(program: string, args: readonly string[], input = ''): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'pipe', timeout: RUN_MS_MAX });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
    child.on('error', (cause: NodeJS.ErrnoException) => {
      const name = PACKAGES[program] ?? program;
      const reason = cause.code === 'ENOENT' ? `it is not installed (package ${name})` : cause.code;
      reject(
        new ProxyError('ERR_MESH_PROGRAM', `Cannot run "${program}": ${reason}`, {
          retry: 'always',
          cause,
        }),
      );
    });
    child.on('close', (status) => resolve({ status, stdout, stderr: stderr.trim() }));
    // A program that ends without reading what it is told says why by itself.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}

/** Its output; throws ProxyError unless it ends with 0. */
export async function outputOf(
  program: string,
  args: readonly string[],
  input = '',
): Promise<string> {
  const { status, stdout, stderr } = await runProgram(program, args, input);
  if (status === 0) return stdout;
  const reason = stderr.split('\n').at(-1) || (status === null ? 'no end' : `exit code ${status}`);
  const message = `Cannot run "${[program, ...args].join(' ')}": ${reason}`;
  throw new ProxyError('ERR_MESH_PROGRAM', message, { retry: 'always' });
}

/** Whether this process may change the network: CAP_NET_ADMIN in CapEff of proc(5). */
export function mayAdministerNetwork(): boolean {
  const status = readFileSync('/proc/self/status', 'utf8');
  const effective = /^CapEff:\s+([0-9a-f]+)/m.exec(status)?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}

/** What to do where mayAdministerNetwork() says no. */
export const NO_ADMIN =
  'this process lacks CAP_NET_ADMIN; start it as root, or with that capability ' +
  '(systemd: AmbientCapabilities=CAP_NET_ADMIN, containers: --cap-add NET_ADMIN)';
