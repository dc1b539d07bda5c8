// What a session says about its backend, for the passive breaker (route/breaker.ts): a failed connect or a reset before
// the first byte is a failure; the first byte, or an orderly end without one, is a success.

import { GATE_PATH } from '../route/backend-state.ts';
import { BREAKER_SAME, noteFailure, noteSuccess } from '../route/breaker.ts';
import { REASON_BACKEND_LOST, REASON_BACKEND_RESET, REASON_COMPLETED } from './close-reason.ts';
import type { WorkerState } from './worker-state.ts';

/** The backend did not answer. */
export function backendFailed(worker: WorkerState, slot: number): void {
  const { breaker, sessions } = worker;
  const backend = sessions.backend[slot] - 1;
  if (breaker === null || backend < 0) return;
  // The path is to blame. A plain read: the gate has been closed for long by the time that failures come.
  if ((worker.backendState.gate[backend] & GATE_PATH) !== 0) return;
  const now = worker.clientClock[0];
  const trial = sessions.trial[slot];
  const change = noteFailure(worker.backendState, breaker, backend, trial, now);
  if (change !== BREAKER_SAME) worker.onBreaker(backend, change);
}

/** The backend answered. */
export function backendAnswered(worker: WorkerState, slot: number): void {
  const { breaker, sessions } = worker;
  const backend = sessions.backend[slot] - 1;
  if (breaker === null || backend < 0) return;
  const now = worker.clientClock[0];
  const trial = sessions.trial[slot];
  const change = noteSuccess(worker.backendState, breaker, backend, trial, now);
  if (change !== BREAKER_SAME) worker.onBreaker(backend, change);
}

/** A session whose connect had succeeded ends for `reason`. */
export function judgeEnd(worker: WorkerState, slot: number, reason: number): void {
  // Its first byte has spoken already.
  if (worker.sessions.bytes[slot * 2 + 1] > 0) return;
  if (reason === REASON_COMPLETED) backendAnswered(worker, slot);
  else if (reason === REASON_BACKEND_RESET || reason === REASON_BACKEND_LOST) {
    backendFailed(worker, slot);
  }
}
