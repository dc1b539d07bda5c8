// What a process used, read from /proc: CPU time of all its threads and memory. Used by the load client, so that a
// measuring window starts and ends exactly between two batches, and by the benchmarks.

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

/** Memory of a process (proc(5), smaps_rollup). */
export function memoryUse(pid: number): MemoryUse {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const kilobytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? Number.NaN);
  return { pssBytes: kilobytes('Pss') * 1024, rssBytes: kilobytes('Rss') * 1024 };
}
