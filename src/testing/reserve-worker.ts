// A thread that reserves and releases backends as fast as it can and reports what it saw.
// Started by select.test.ts with the shared snapshot and backend state.

import { parentPort, workerData } from 'node:worker_threads';
import { openBackendState } from '../route/backend-state.ts';
import {
  createSelector,
  releaseBackend,
  reserveBackend,
  reserveBound,
  useSnapshot,
} from '../route/select.ts';
import { openSnapshot } from '../route/snapshot.ts';
import { type Barrier, meet } from './run-workers.ts';

export interface ReserveJob {
  readonly snapshot: SharedArrayBuffer;
  readonly state: SharedArrayBuffer;
  readonly barrier: Barrier;
  readonly seed: number;
  readonly operations: number;
  /** Reservations this thread holds at most at one time. */
  readonly heldMax: number;
  /** Keep what is held at the end instead of giving it back. */
  readonly keep: boolean;
}

export interface ReserveReport {
  /** Times a hard limit was seen exceeded. */
  readonly violations: number;
  readonly reserved: number;
  readonly refused: number;
  readonly held: number;
}

function run(job: ReserveJob): ReserveReport {
  const state = openBackendState(job.state);
  const snapshot = openSnapshot(job.snapshot);
  const selector = createSelector(state, job.seed);
  useSnapshot(selector, snapshot);
  const none = new Int32Array(1);
  const held: number[] = [];
  let violations = 0;
  let reserved = 0;
  let refused = 0;
  meet(job.barrier);
  for (let turn = 0; turn < job.operations; turn++) {
    if (held.length >= job.heldMax) releaseBackend(state, held.shift() ?? -1);
    const bound = turn % snapshot.backendEnd;
    const takesBound =
      turn % 4 === 0 && reserveBound(selector, 1, bound, snapshot.incarnation[bound]);
    const backend = takesBound ? bound : reserveBackend(selector, 1, turn % 3, none, 0);
    if (backend < 0) {
      refused++;
      if (held.length > 0) releaseBackend(state, held.shift() ?? -1);
      continue;
    }
    reserved++;
    held.push(backend);
    if (Atomics.load(state.active, backend) > snapshot.hardLimit[backend]) violations++;
  }
  if (!job.keep) for (const backend of held.splice(0)) releaseBackend(state, backend);
  return { violations, reserved, refused, held: held.length };
}

const job: ReserveJob = workerData;
parentPort?.postMessage(run(job));
