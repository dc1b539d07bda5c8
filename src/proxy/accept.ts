// Accepting: starting and stopping it, what its errors mean, and EDGEPROXY_MAX_CONNECTIONS. At the maximum accepting stops
// and connections wait in the kernel's queue; those the kernel had accepted by then are parked here, not turned away, and
// become sessions as others end.

import { EAGAIN, ECANCELED, isConnectionError } from '../sys/errno.ts';
import { admit } from './admit.ts';
import { REJECT_MAX_CONNECTIONS } from './close-reason.ts';
import { reject } from './end.ts';
import {
  CONTROL_PARKED,
  CONTROL_PARKED_COUNT,
  CONTROL_PARKED_HEAD,
  GLOBAL_SESSIONS,
  PARKED_MAX,
} from './shared.ts';
import { STAT_ACCEPT_ERRORS, STAT_CONNECTIONS } from './stats.ts';
import type { WorkerState } from './worker-state.ts';

/** An accept error that lasts is retried after this, doubling up to the maximum. */
const BACKOFF_MS_MIN = 50;
const BACKOFF_MS_MAX = 1000;
/** Longer than any queue may be (the backlog listeners are opened with): what comes in meanwhile cannot prolong a stop. */
const WAITING_MAX = 65_536;

/** Starts an accept on every listener that has none, unless accepting is held back. */
export function resumeAccept(worker: WorkerState): void {
  if (worker.held || worker.draining || worker.acceptPaused || worker.backoff[0] > worker.clock[0])
    return;
  const { listeners } = worker.options;
  for (let listener = 0; listener < listeners.length; listener++) {
    if (worker.accepting[listener] === 1) continue;
    worker.accepting[listener] = 1;
    const { socket, shared } = listeners[listener];
    worker.engine.accept(socket, listener, shared);
  }
}

/** Stops accepting; connections wait in the kernel's queue. */
export function pauseAccept(worker: WorkerState): void {
  for (let listener = 0; listener < worker.accepting.length; listener++) {
    if (worker.accepting[listener] === 1) worker.engine.cancelAccept(listener);
  }
}

export function onAccept(
  worker: WorkerState,
  listener: number,
  result: number,
  more: number,
): void {
  if (more === 0) worker.accepting[listener] = 0;
  if (result >= 0) {
    worker.backoff[1] = 0;
    takeIn(worker, listener, result);
  } else if (result !== -ECANCELED) {
    worker.stats.totals[STAT_ACCEPT_ERRORS + (-result & 0xff)]++;
    // An error of that one connection, which is gone (accept(2)), is no reason to wait; anything else (descriptors or
    // memory are short, above all) lasts, and trying again at once would only burn the CPU.
    if (!isConnectionError(result)) backOff(worker);
  }
  if (more === 0) resumeAccept(worker);
}

/** A session now, or once there is room. */
function takeIn(worker: WorkerState, listener: number, socket: number): void {
  if (parkedCount(worker) > 0 || !tryAdmit(worker, listener, socket))
    park(worker, listener, socket);
}

/**
 * Takes in what waits in the queues of the listeners, whose accepts have ended: those clients are connected already, and
 * closing the listeners would reset them. Where another process accepts as well, too (`shared`): the kernel may have woken
 * this worker for a connection just when its accept was cancelled. But what finds no room here is the other's then.
 */
export function takeWaiting(worker: WorkerState, shared: boolean): void {
  const { engine, options, stats } = worker;
  for (let listener = 0; listener < options.listeners.length; listener++) {
    const { socket } = options.listeners[listener];
    for (let count = 0; count < WAITING_MAX; count++) {
      if (shared && !hasRoom(worker)) return;
      const result = engine.acceptWaiting(socket, listener);
      if (result >= 0) {
        takeIn(worker, listener, result);
        continue;
      }
      if (result === -EAGAIN) break;
      stats.totals[STAT_ACCEPT_ERRORS + (-result & 0xff)]++;
      if (!isConnectionError(result)) break;
    }
  }
}

function hasRoom(worker: WorkerState): boolean {
  const open = Atomics.load(worker.global, GLOBAL_SESSIONS);
  return parkedCount(worker) === 0 && open < worker.options.maxConnections;
}

function backOff(worker: WorkerState): void {
  const wait = Math.min(BACKOFF_MS_MAX, Math.max(BACKOFF_MS_MIN, worker.backoff[1] * 2));
  worker.backoff[1] = wait;
  worker.backoff[0] = worker.clock[0] + wait;
}

/** False when the maximum is reached. Counted first, so that no number of workers exceeds it together. */
function tryAdmit(worker: WorkerState, listener: number, socket: number): boolean {
  const before = Atomics.add(worker.global, GLOBAL_SESSIONS, 1);
  if (before >= worker.options.maxConnections) {
    Atomics.sub(worker.global, GLOBAL_SESSIONS, 1);
    return false;
  }
  worker.stats.totals[STAT_CONNECTIONS]++;
  // The last place is taken: stop now, not with the connection that finds none.
  if (before + 1 >= worker.options.maxConnections) pauseForRoom(worker);
  if (!admit(worker, listener, socket)) Atomics.sub(worker.global, GLOBAL_SESSIONS, 1);
  return true;
}

function pauseForRoom(worker: WorkerState): void {
  if (worker.acceptPaused) return;
  worker.acceptPaused = true;
  pauseAccept(worker);
}

export function parkedCount(worker: WorkerState): number {
  return worker.control[CONTROL_PARKED_COUNT];
}

function park(worker: WorkerState, listener: number, socket: number): void {
  const { control } = worker;
  pauseForRoom(worker);
  const count = control[CONTROL_PARKED_COUNT];
  if (count === PARKED_MAX) {
    turnAway(worker, socket);
    return;
  }
  const at = CONTROL_PARKED + ((control[CONTROL_PARKED_HEAD] + count) % PARKED_MAX) * 2;
  control[at] = socket + 1;
  control[at + 1] = listener;
  control[CONTROL_PARKED_COUNT] = count + 1;
}

function turnAway(worker: WorkerState, socket: number): void {
  worker.stats.totals[STAT_CONNECTIONS]++;
  reject(worker, socket, REJECT_MAX_CONNECTIONS);
}

/** Takes accepting up again once there is room, parked connections first, or the wait after an error is over. */
export function reviewAccept(worker: WorkerState): void {
  if (worker.acceptPaused) {
    while (parkedCount(worker) > 0 && unpark(worker)) {}
    if (hasRoom(worker)) worker.acceptPaused = false;
  }
  if (worker.backoff[0] !== 0 && worker.backoff[0] <= worker.clock[0]) worker.backoff[0] = 0;
  resumeAccept(worker);
}

/** Admits the connection that waits longest; false when there is no room for it. */
function unpark(worker: WorkerState): boolean {
  const { control } = worker;
  const head = control[CONTROL_PARKED_HEAD];
  const at = CONTROL_PARKED + head * 2;
  if (!tryAdmit(worker, control[at + 1], control[at] - 1)) return false;
  control[at] = 0;
  control[CONTROL_PARKED_HEAD] = (head + 1) % PARKED_MAX;
  control[CONTROL_PARKED_COUNT]--;
  return true;
}

/** Turns away what is parked: the worker stops. */
export function rejectParked(worker: WorkerState): void {
  const { control } = worker;
  while (parkedCount(worker) > 0) {
    const head = control[CONTROL_PARKED_HEAD];
    const at = CONTROL_PARKED + head * 2;
    turnAway(worker, control[at] - 1);
    control[at] = 0;
    control[CONTROL_PARKED_HEAD] = (head + 1) % PARKED_MAX;
    control[CONTROL_PARKED_COUNT]--;
  }
}
