// Runs programs for the mesh demo. Each is in a session of its own, so that Ctrl-C at the terminal reaches the demo alone,
// which then takes everything down in order.

import { spawn } from 'node:child_process';
import { ProxyError } from '../../base/errors.ts';

/** Nothing here takes longer than seconds; a program that hangs must not hang the demo. */
const RUN_MS_MAX = 30_000;

interface CommandOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly directory?: string;
  /** What it reads. */
  readonly input?: string;
}

/** What the program says on standard output. Throws ProxyError unless it ends with 0. */
export function commandOutput(
  command: readonly string[],
  { env, directory, input = '' }: CommandOptions = {},
): Promise<string> {
  const [program = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: 'pipe',
      detached: true,
      timeout: RUN_MS_MAX,
      cwd: directory,
      env: env ?? { PATH: process.env.PATH },
    });
    const fail = (reason: string): void => {
      const message = `Cannot run "${command.join(' ')}": ${reason}`;
      reject(new ProxyError('ERR_DEMO_COMMAND', message));
    };
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
    child.stdin.on('error', () => {});
    child.on('error', ({ message }) => fail(message));
    child.on('close', (status, signal) => {
      if (status === 0) resolve(stdout);
      else fail(stderr.trim() || (signal ?? `exit code ${status}`));
    });
    child.stdin.end(input);
  });
}
