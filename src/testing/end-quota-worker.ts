// A thread that takes ends of one backend as fast as it can until it is told that no more come, and reports how many it
// got. Started by end-quota.test.ts with the shared backend state.

import { parentPort, workerData } from 'node:worker_threads';
import { openBackendState } from '../route/backend-state.ts';
import { endsLeft, takeEnd } from '../route/end-quota.ts';
import { type Barrier, meet } from './run-workers.ts';

export interface EndQuotaJob {
  readonly state: SharedArrayBuffer;
  /** One word, not 0 once everything is granted. */
  readonly done: SharedArrayBuffer;
  readonly barrier: Barrier;
  readonly backend: number;
  readonly incarnation: number;
}

function run({ state: buffer, done, barrier, backend, incarnation }: EndQuotaJob): number {
  const state = openBackendState(buffer);
  const words = new Int32Array(done);
  let taken = 0;
  meet(barrier);
  for (;;) {
    const last = Atomics.load(words, 0) !== 0;
    if (takeEnd(state, backend, incarnation + 1)) throw new Error('Took one of another');
    while (takeEnd(state, backend, incarnation)) taken++;
    if (last && endsLeft(state, backend, incarnation) === 0) return taken;
  }
}

const job: EndQuotaJob = workerData;
parentPort?.postMessage(run(job));
