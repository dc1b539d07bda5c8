// Counts what a proxy's thread asks of the kernel while something runs: system calls by name, and the operations that it
// submits to io_uring. Through strace(1), because counters of instructions are missing on many virtual machines.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';

/** The kernel cuts names of threads off at 15 characters. */
const WORKER_NAME = 'edgeproxy worke';

export interface KernelWork {
  readonly calls: ReadonlyMap<string, number>;
  /** Sum of all calls. */
  readonly callsTotal: number;
  /** What io_uring_enter(2) says it took from the submission queue. */
  readonly operations: number;
}

/** From the lines that strace writes of one thread: `name(…) = result`. */
export function countKernelWork(text: string): KernelWork {
  const calls = new Map<string, number>();
  let operations = 0;
  for (const line of text.split('\n')) {
    const name = /^(\w+)\(/.exec(line)?.[1];
    if (name !== undefined) calls.set(name, (calls.get(name) ?? 0) + 1);
    const taken = /^io_uring_enter\(.*= (\d+)$/.exec(line)?.[1];
    operations += Number(taken ?? 0);
  }
  const callsTotal = [...calls.values()].reduce((sum, count) => sum + count, 0);
  return { calls, callsTotal, operations };
}

/** The thread that serves connections: of edgeproxy its one worker, of a proxy with one thread that. */
function servingThread(pid: number): string {
  const threads = readdirSync(`/proc/${pid}/task`);
  const name = (thread: string): string =>
    readFileSync(`/proc/${pid}/task/${thread}/comm`, 'utf8').trim();
  return threads.find((thread) => name(thread).startsWith(WORKER_NAME)) ?? String(pid);
}

/** What the serving thread of `pid` asks of the kernel while `load` runs; strace writes to `path` meanwhile. */
export async function kernelWorkOf(
  pid: number,
  path: string,
  load: () => Promise<unknown>,
): Promise<KernelWork> {
  const args = ['-o', path, '-p', servingThread(pid)];
  const strace = spawn('strace', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(strace, 'exit');
  let said = '';
  await new Promise<void>((resolve, reject) => {
    strace.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      said += chunk;
      if (said.includes('attached')) resolve();
    });
    strace.once('exit', () => reject(new Error(`Cannot watch process ${pid}: ${said}`)));
  });
  try {
    await load();
  } finally {
    // It lets the process go and ends.
    strace.kill('SIGINT');
    await ended;
  }
  return countKernelWork(readFileSync(path, 'utf8'));
}
