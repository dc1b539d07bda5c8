// A thread that uses one backend through its breaker, together with others: as sessions that fail,
// or by trials that win and fail. Started by breaker.test.ts.

import { parentPort, workerData } from 'node:worker_threads';
import { BACKEND_TICK_MS, openBackendState } from '../route/backend-state.ts';
import {
  BREAKER_CLOSED,
  BREAKER_OPENED,
  type BreakerPolicy,
  NO_TRIAL,
  noteFailure,
  noteSuccess,
} from '../route/breaker.ts';
import {
  createSelector,
  releaseBackend,
  reserveBackend,
  setSelectorTime,
  useSnapshot,
} from '../route/select.ts';
import { openSnapshot } from '../route/snapshot.ts';
import { type Barrier, meet } from './run-workers.ts';

export interface BreakerJob {
  readonly snapshot: SharedArrayBuffer;
  readonly state: SharedArrayBuffer;
  /** Two words: the time in ticks, which every session moves on, and trials under way. */
  readonly shared: SharedArrayBuffer;
  readonly barrier: Barrier;
  readonly policy: BreakerPolicy;
  readonly seed: number;
  readonly operations: number;
  /** `fail`: report failures only, at one moment. `use`: sessions, three of four in order. */
  readonly mode: 'fail' | 'use';
}

export interface BreakerReport {
  readonly opened: number;
  readonly closed: number;
  readonly trials: number;
  readonly sessions: number;
  /** Trials that began while another was under way. */
  readonly violations: number;
}

const [CLOCK, TRIALS] = [0, 1];

function run(job: BreakerJob): BreakerReport {
  const state = openBackendState(job.state);
  const selector = createSelector(state, job.seed, { breaker: job.policy });
  useSnapshot(selector, openSnapshot(job.snapshot));
  const shared = new Int32Array(job.shared);
  const report = { opened: 0, closed: 0, trials: 0, sessions: 0, violations: 0 };
  let random = job.seed;
  const note = (fails: boolean, trial: number, nowMs: number) => {
    const change = (fails ? noteFailure : noteSuccess)(state, job.policy, 0, trial, nowMs);
    if (change === BREAKER_OPENED) report.opened++;
    if (change === BREAKER_CLOSED) report.closed++;
  };
  meet(job.barrier);
  for (let turn = 0; turn < job.operations; turn++) {
    if (job.mode === 'fail') {
      note(true, NO_TRIAL, 0);
      continue;
    }
    const nowMs = Atomics.add(shared, CLOCK, 1) * BACKEND_TICK_MS;
    setSelectorTime(selector, nowMs);
    if (reserveBackend(selector, 1, 0, new Int32Array(0), 0) < 0) {
      // A thread may be stopped in the middle of its trial: the others must not use up their turns meanwhile.
      Atomics.wait(shared, TRIALS, 1, 1);
      continue;
    }
    const { trial } = selector;
    report.sessions++;
    random = (Math.imul(random, 1_103_515_245) + 12_345) | 0;
    const fails = (random >>> 16) % 4 === 0;
    if (trial !== NO_TRIAL) {
      report.trials++;
      if (Atomics.add(shared, TRIALS, 1) !== 0) report.violations++;
      for (let spin = 0; spin < 50; spin++) Atomics.load(shared, TRIALS);
      Atomics.sub(shared, TRIALS, 1);
      Atomics.notify(shared, TRIALS);
    }
    note(fails, trial, nowMs);
    releaseBackend(state, 0);
  }
  return report;
}

parentPort?.postMessage(run(workerData));
