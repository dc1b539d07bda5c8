// What a mesh demo leaves behind unless it is taken away: processes in its namespaces, the namespaces, sockets of userspace
// devices, its directory. All their names begin with the demo's process id, so that a later demo finds those of a dead one.

import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { commandOutput } from './command.ts';

const NAMESPACES = '/run/netns';
const DEVICE_SOCKETS = '/var/run/wireguard';
const NAME = /^edgeproxy-demo-(\d+)-/;
const LOOK_MS = 50;
/** Processes get so many looks to end by themselves. */
const LOOKS_MAX = 100;

/** Begins the names of its namespaces and its directory. */
export function demoPrefix(pid: number): string {
  return `edgeproxy-demo-${pid}`;
}

/** Begins the names of its mesh interfaces: at most 15 characters, unique in all namespaces (their sockets share a folder). */
export function interfacePrefix(pid: number): string {
  return `demo${pid}`;
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function inodeOf(path: string): number {
  try {
    return statSync(path).ino;
  } catch {
    return 0;
  }
}

/** Processes whose network namespace is one of these. */
function processesIn(namespaces: readonly string[]): number[] {
  const inodes = new Set(namespaces.map((name) => inodeOf(join(NAMESPACES, name))));
  inodes.delete(0);
  return entries('/proc')
    .filter((entry) => /^\d+$/.test(entry) && inodes.has(inodeOf(`/proc/${entry}/ns/net`)))
    .map(Number);
}

function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** Ends all processes in them: SIGTERM lets devices remove their sockets, SIGKILL is for what does not end. */
async function emptyNamespaces(namespaces: readonly string[]): Promise<void> {
  signalAll(processesIn(namespaces), 'SIGTERM');
  for (let looks = 0; looks < 2 * LOOKS_MAX; looks++) {
    const left = processesIn(namespaces);
    if (left.length === 0) return;
    if (looks >= LOOKS_MAX) signalAll(left, 'SIGKILL');
    await delay(LOOK_MS);
  }
}

/** Takes away all that the demo with this process id has left, or is about to leave. */
export async function removeRemains(pid: number): Promise<void> {
  const isOurs = (name: string): boolean => name.startsWith(`${demoPrefix(pid)}-`);
  const namespaces = entries(NAMESPACES).filter(isOurs);
  await emptyNamespaces(namespaces);
  for (const name of namespaces) await commandOutput(['ip', 'netns', 'del', name]);
  for (const name of entries(DEVICE_SOCKETS)) {
    if (new RegExp(`^${interfacePrefix(pid)}[a-z]+\\.sock$`).test(name)) {
      rmSync(join(DEVICE_SOCKETS, name), { force: true });
    }
  }
  for (const name of entries(tmpdir()).filter(isOurs)) {
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

/** Whether a demo with this process id runs; the id may be another program's by now. */
function isRunning(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes('demo');
  } catch {
    return false;
  }
}

/** Takes away what demos that were killed have left, before this one makes anything; their process ids. */
export async function removeStale(): Promise<number[]> {
  const names = [...entries(NAMESPACES), ...entries(tmpdir())];
  const found = names.map((name) => NAME.exec(name)?.[1]).filter((pid) => pid !== undefined);
  const pids = new Set(found.map(Number));
  const stale = [...pids].filter((pid) => pid === process.pid || !isRunning(pid));
  for (const pid of stale) await removeRemains(pid);
  return stale;
}
