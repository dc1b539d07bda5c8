// The end of a session. One door: endSession() sets the reason, gives back queued buffers and cancels what is in flight;
// when the last operation has reported, finishSession() closes the sockets and frees everything the slot held.

import { assert } from '../base/assert.ts';
import { freeSlot } from '../base/slot-pool.ts';
import { clearTimer } from '../base/timer-wheel.ts';
import { releaseClient } from '../route/client-table.ts';
import { releaseBackend } from '../route/select.ts';
import {
  REASON_COMPLETED,
  REASON_DRAINED,
  REASON_HALF_CLOSED_TIMEOUT,
  REASON_IDLE_TIMEOUT,
  REASON_NONE,
  REASON_SHUTDOWN,
  REJECTED,
} from './close-reason.ts';
import { recordEnd, recordRejection } from './session-records.ts';
import {
  ENDED_PASSED,
  type Sessions,
  STATE_CLOSING,
  STATE_FREE,
  STATE_HEADER,
  STATE_RELAYING,
} from './sessions.ts';
import { GLOBAL_SESSIONS } from './shared.ts';
import {
  countDuration,
  STAT_COUNTRY_ENDED,
  STAT_COUNTRY_OPENED,
  STAT_CURRENT,
  STAT_END,
  STAT_REJECTED,
} from './stats.ts';
import { judgeEnd } from './verdict.ts';
import type { WorkerState } from './worker-state.ts';

/** Bits of `resetOnClose`, by side. */
const RESET_CLIENT = 1;
const RESET_BACKEND = 2;
const NO_ENDPOINT = -1;

/** Turns a connection away that has no slot: RST, and counted. */
export function reject(worker: WorkerState, socket: number, reason: number): void {
  worker.stats.totals[STAT_REJECTED + reason]++;
  if (worker.recorder !== null) recordRejection(worker, worker.recorder, reason);
  worker.engine.reset(NO_ENDPOINT, socket);
}

/** The same for one that has a slot since its PROXY header was waited for; the client is the one in `worker.peer`. */
export function rejectHeld(worker: WorkerState, slot: number, reason: number): void {
  const { recorder } = worker;
  if (recorder !== null) {
    recorder.listenerNow = recorder.listener[slot];
    recordRejection(worker, recorder, reason);
  }
  endSession(worker, slot, REJECTED + reason);
}

/**
 * Ends the session for `reason`: by FIN when it completed, by RST otherwise, because a truncated stream must not look
 * complete (sidesToReset() says which sides). Only the first call counts.
 */
export function endSession(worker: WorkerState, slot: number, reason: number): void {
  const { sessions, engine } = worker;
  if (sessions.state[slot] === STATE_CLOSING) return;
  assert(sessions.state[slot] !== STATE_FREE, 'Ended a session that is not open');
  assert(reason !== REASON_NONE, 'A session ended without a reason');
  if (sessions.state[slot] === STATE_RELAYING) judgeEnd(worker, slot, reason);
  // Never admitted, so not counted as opened yet.
  if (sessions.state[slot] === STATE_HEADER && reason < REJECTED) {
    worker.stats.totals[STAT_COUNTRY_OPENED + sessions.country[slot]]++;
  }
  sessions.state[slot] = STATE_CLOSING;
  sessions.reason[slot] = reason;
  sessions.resetOnClose[slot] = sidesToReset(sessions, slot, reason);
  discardQueue(worker, slot * 2);
  discardQueue(worker, slot * 2 + 1);
  if (sessions.pending[slot] === 0) {
    finishSession(worker, slot);
    return;
  }
  for (let endpoint = slot * 2; endpoint <= slot * 2 + 1; endpoint++) {
    const socket = sessions.sockets[endpoint] - 1;
    if (socket >= 0) engine.cancel(endpoint, sessions.generation[slot], socket);
  }
}

/**
 * An RST throws away what the kernel has not delivered yet. Where no peer asked for one (a time-out, a drain, the shutdown) a
 * side that has been given the other's whole stream and its FIN is closed without: a slow reader gets all of it.
 */
function sidesToReset(sessions: Sessions, slot: number, reason: number): number {
  if (reason === REASON_COMPLETED) return 0;
  if (!isOwnDecision(reason)) return RESET_CLIENT | RESET_BACKEND;
  const { ended } = sessions;
  return (
    (ended[slot * 2 + 1] === ENDED_PASSED ? 0 : RESET_CLIENT) |
    (ended[slot * 2] === ENDED_PASSED ? 0 : RESET_BACKEND)
  );
}

/** Neither peer failed: the proxy ends the session. */
function isOwnDecision(reason: number): boolean {
  return (
    reason === REASON_IDLE_TIMEOUT ||
    reason === REASON_HALF_CLOSED_TIMEOUT ||
    reason === REASON_DRAINED ||
    reason === REASON_SHUTDOWN
  );
}

/** Gives back what was received at `endpoint` and not sent yet; a buffer in flight stays until its event. */
export function discardQueue(worker: WorkerState, endpoint: number): void {
  const { sessions, engine, bufferNext } = worker;
  let entry = sessions.queueHead[endpoint];
  while (entry !== 0) {
    const next = bufferNext[entry - 1];
    engine.releaseBuffer(entry - 1);
    entry = next;
  }
  sessions.queueHead[endpoint] = 0;
  sessions.queueTail[endpoint] = 0;
  sessions.queueCount[endpoint] = 0;
}

/** An operation of a closing session reported its last event. */
export function settleClosing(worker: WorkerState, slot: number): void {
  if (worker.sessions.pending[slot] === 0) finishSession(worker, slot);
}

function finishSession(worker: WorkerState, slot: number): void {
  const { sessions, stats } = worker;
  const client = slot * 2;
  const { recorder } = worker;
  if (recorder !== null && sessions.reason[slot] < REJECTED) recordEnd(worker, recorder, slot);
  closeEndpoint(worker, client, sessions.resetOnClose[slot] & RESET_CLIENT);
  closeEndpoint(worker, client + 1, sessions.resetOnClose[slot] >> 1);
  releaseReserved(worker, slot);
  releaseRow(worker, sessions.clientRow, slot);
  releaseRow(worker, sessions.limitRow, slot);
  stats.totals[STAT_END + sessions.reason[slot]]++;
  stats.totals[STAT_CURRENT]--;
  if (sessions.reason[slot] < REJECTED) {
    stats.totals[STAT_COUNTRY_ENDED + sessions.country[slot]]++;
    countDuration(stats, worker.clock, sessions.acceptedAt, slot);
  }
  clearTimer(worker.timers, slot);
  sessions.state[slot] = STATE_FREE;
  freeSlot(sessions.slots, slot);
  Atomics.sub(worker.global, GLOBAL_SESSIONS, 1);
}

function releaseRow(worker: WorkerState, rows: Int32Array, slot: number): void {
  const row = rows[slot] - 1;
  if (row < 0) return;
  rows[slot] = 0;
  releaseClient(worker.clients, row, worker.clientClock[0]);
}

/** Gives the slot's place at its backend back. */
export function releaseReserved(worker: WorkerState, slot: number): void {
  const backend = worker.sessions.backend[slot] - 1;
  if (backend < 0) return;
  worker.sessions.backend[slot] = 0;
  releaseBackend(worker.backendState, backend);
}

/** Closes one socket of a session, if open. Nothing may be in flight on it. Before the place at its backend is given back. */
export function closeEndpoint(worker: WorkerState, endpoint: number, reset: number): void {
  const { sessions, engine } = worker;
  const socket = sessions.sockets[endpoint] - 1;
  if (socket < 0) return;
  sessions.sockets[endpoint] = 0;
  if ((endpoint & 1) === 1 && hasHardLimit(worker, endpoint >> 1)) {
    engine.closeNow(endpoint, socket, reset);
  } else if (reset === 1) engine.reset(endpoint, socket);
  else engine.close(endpoint, socket);
}

/**
 * Such a backend must not see the next connection before the end of this one: the place of this one is all that lets
 * another worker connect. The others are spared the call: a close in the queue costs less.
 */
function hasHardLimit(worker: WorkerState, slot: number): boolean {
  const { snapshot } = worker.selector;
  const backend = worker.sessions.backend[slot] - 1;
  if (snapshot === null || backend < 0 || backend >= snapshot.backendEnd) return false;
  return snapshot.hardLimit[backend] !== 0;
}
