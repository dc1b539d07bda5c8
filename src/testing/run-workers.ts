// Runs one worker program several times at once and collects what each of them posts.

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

/** Each worker posts one message and ends; `program` is relative to this folder. */
export function runWorkers<Report>(
  program: string,
  jobs: readonly unknown[],
): Promise<readonly Report[]> {
  return Promise.all(
    jobs.map(async (workerData): Promise<Report> => {
      const worker = new Worker(new URL(program, import.meta.url), { workerData });
      const exited = once(worker, 'exit');
      const [report] = await once(worker, 'message');
      await exited;
      return report;
    }),
  );
}

/** A point where workers wait until all of them are there, as often as they like. */
export interface Barrier {
  readonly shared: SharedArrayBuffer;
  readonly threads: number;
}

export function createBarrier(threads: number): Barrier {
  return { shared: new SharedArrayBuffer(8), threads };
}

/** Blocks this thread: never call it on the main thread. */
export function meet({ shared, threads }: Barrier): void {
  const [ARRIVED, ROUND] = [0, 1];
  const words = new Int32Array(shared);
  const round = Atomics.load(words, ROUND);
  if (Atomics.add(words, ARRIVED, 1) + 1 < threads) {
    Atomics.wait(words, ROUND, round);
    return;
  }
  // Reset before the round moves on: nobody arrives again until then.
  Atomics.store(words, ARRIVED, 0);
  Atomics.add(words, ROUND, 1);
  Atomics.notify(words, ROUND);
}
