// What a process and the machine used, read from /proc: CPU time and memory. Used by the load client, so that a measuring
// window starts and ends exactly between two batches, and by the benchmarks.

import { readdirSync, readFileSync } from 'node:fs';

export interface MemoryUse {
  /** Proportional share of what is mapped: shared libraries count in part. */
  readonly pssBytes: number;
  readonly rssBytes: number;
}

/** Nanoseconds of user and system time of every thread (/proc/PID/task/TID/schedstat, first field). */
export function cpuNanoseconds(pid: number): number {
  let total = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      const text = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8');
      total += Number(text.split(' ', 1)[0]);
    } catch (error) {
      // A thread that ended since the listing takes its time with it: short-lived helpers only.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return total;
}

/** Nanoseconds of user and system time of a process's first thread. */
export function mainThreadNanoseconds(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ', 1)[0]);
}

/** Nanoseconds by CPU. */
export interface MachineUse {
  /** Neither idle nor waiting for a disk; the kernel counts idle time exactly, busy time only by its ticks. */
  readonly idle: readonly number[];
  /** Taken by other virtual machines. */
  readonly steal: readonly number[];
}

/** /proc/stat counts in hundredths of a second (USER_HZ on every architecture of ours). */
const NANOSECONDS_PER_TICK = 1e7;

export function machineUse(): MachineUse {
  const rows = readFileSync('/proc/stat', 'utf8').matchAll(/^cpu\d+ (.*)$/gm);
  const columns = [...rows].map(([, text]) => text.split(' ').map(Number));
  return {
    idle: columns.map(([, , , idle, iowait]) => (idle + iowait) * NANOSECONDS_PER_TICK),
    steal: columns.map((fields) => fields[7] * NANOSECONDS_PER_TICK),
  };
}

/** From one reading to the next. */
export function machineUseBetween(before: MachineUse, after: MachineUse): MachineUse {
  const since = (from: readonly number[], to: readonly number[]): number[] =>
    to.map((value, cpu) => value - from[cpu]);
  return { idle: since(before.idle, after.idle), steal: since(before.steal, after.steal) };
}

/** Memory of a process (proc(5), smaps_rollup). */
export function memoryUse(pid: number): MemoryUse {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const kilobytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? Number.NaN);
  return { pssBytes: kilobytes('Pss') * 1024, rssBytes: kilobytes('Rss') * 1024 };
}

/** Memory that the kernel holds for sockets, requests, page tables and the like, of the whole machine. */
export function kernelBytes(): number {
  const text = readFileSync('/proc/meminfo', 'utf8');
  return ['Slab', 'KernelStack', 'PageTables', 'Percpu']
    .map((name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024)
    .reduce((sum, bytes) => sum + bytes, 0);
}
