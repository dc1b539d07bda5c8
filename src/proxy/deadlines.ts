// What a session's timer means when it fires. Timers are lazy: activity only notes the time, and a timer that fires early
// looks at the real deadline and is set again, so an exchange costs no timer work.

import { advanceToTick, clearTimer, setTimer, setTimerTicks } from '../base/timer-wheel.ts';
import {
  REASON_HALF_CLOSED_TIMEOUT,
  REASON_IDLE_TIMEOUT,
  REJECT_PROXY_HEADER_TIMEOUT,
} from './close-reason.ts';
import { endSession } from './end.ts';
import { turnAway } from './proxy-header.ts';
import {
  HEADER_NONE,
  OPEN,
  type Sessions,
  STATE_CONNECTING,
  STATE_HEADER,
  STATE_RELAYING,
} from './sessions.ts';
import { TICK_MS, type WorkerState } from './worker-state.ts';

/** A time-out as whole ticks of the wheel, never early: the wheel's time is the start of the current tick. */
export function ticksOf(timeoutMs: number): number {
  return Math.ceil(timeoutMs / TICK_MS) + 1;
}

/** Fires the timers whose time has come. */
export function runTimers(worker: WorkerState): void {
  const { timers, sessions } = worker;
  const fired = advanceToTick(timers, Math.floor(worker.clock[0] / TICK_MS));
  for (let index = 0; index < fired; index++) {
    const slot = timers.fired[index];
    if (sessions.state[slot] === STATE_CONNECTING) reviewConnecting(worker, slot);
    else if (sessions.state[slot] === STATE_RELAYING) reviewRelaying(worker, slot);
    else if (sessions.state[slot] === STATE_HEADER) reviewHeader(worker, slot);
  }
}

function reviewHeader(worker: WorkerState, slot: number): void {
  const { sessions } = worker;
  // Read, and about to be admitted.
  if (sessions.headerIn[slot] !== HEADER_NONE) return;
  const deadline = sessions.acceptedAt[slot] + worker.proxyIn.timeoutMs;
  if (worker.clock[0] < deadline) setTimer(worker.timers, slot, deadline);
  else turnAway(worker, slot, REJECT_PROXY_HEADER_TIMEOUT);
}

function reviewConnecting(worker: WorkerState, slot: number): void {
  const { sessions, options, engine } = worker;
  const now = worker.clock[0];
  const deadline = Math.min(
    sessions.attemptAt[slot] + options.connectTimeoutMs,
    sessions.acceptedAt[slot] + options.connectTotalTimeoutMs,
  );
  if (now < deadline) {
    setTimer(worker.timers, slot, deadline);
    return;
  }
  // The connect reports -ECANCELED, and onConnect() takes the next backend. The timer runs on for that attempt.
  const total = sessions.acceptedAt[slot] + options.connectTotalTimeoutMs;
  setTimer(worker.timers, slot, Math.min(now + options.connectTimeoutMs, total));
  const endpoint = slot * 2 + 1;
  engine.cancel(endpoint, sessions.generation[slot], sessions.sockets[endpoint] - 1);
}

function reviewRelaying(worker: WorkerState, slot: number): void {
  const { sessions, options, engine } = worker;
  const now = worker.clock[0];
  const client = slot * 2;
  if (sessions.longLived[slot] === 0) {
    // Keepalive and TCP_USER_TIMEOUT matter only to sessions that last; short ones are spared the eight calls.
    sessions.longLived[slot] = 1;
    for (let endpoint = client; endpoint <= client + 1; endpoint++) {
      const socket = sessions.sockets[endpoint] - 1;
      engine.setLongLived(socket, options.keepaliveSecs, options.userTimeoutSecs);
    }
  }
  const silentMs = now - sessions.activityAt[slot];
  const halfClosed =
    sessions.ended[client] !== OPEN ||
    sessions.ended[client + 1] !== OPEN ||
    sessions.dead[client] === 1 ||
    sessions.dead[client + 1] === 1;
  let waitMs = Number.POSITIVE_INFINITY;
  if (halfClosed && options.halfClosedTimeoutMs > 0) {
    if (silentMs >= options.halfClosedTimeoutMs) {
      endSession(worker, slot, deadReason(sessions, slot) || REASON_HALF_CLOSED_TIMEOUT);
      return;
    }
    waitMs = options.halfClosedTimeoutMs - silentMs;
  }
  if (options.idleTimeoutMs > 0) {
    if (silentMs >= options.idleTimeoutMs) {
      endSession(worker, slot, REASON_IDLE_TIMEOUT);
      return;
    }
    waitMs = Math.min(waitMs, options.idleTimeoutMs - silentMs);
  }
  if (waitMs < Number.POSITIVE_INFINITY) setTimer(worker.timers, slot, now + waitMs);
}

/** Why a peer that is gone went; 0 when both are there. */
function deadReason(sessions: Sessions, slot: number): number {
  for (let endpoint = slot * 2; endpoint <= slot * 2 + 1; endpoint++) {
    if (sessions.dead[endpoint] === 1) return sessions.endReason[endpoint];
  }
  return 0;
}

/** A direction ended: from now on the session is closed when the other one stays silent. */
export function noteHalfClose(worker: WorkerState, slot: number): void {
  const { halfClosedTimeoutMs, idleTimeoutMs } = worker.options;
  if (halfClosedTimeoutMs <= 0) return;
  clearTimer(worker.timers, slot);
  // The slot has one timer: it must not sleep through the idle timeout, should that be over sooner.
  const idleDeadline = worker.sessions.activityAt[slot] + idleTimeoutMs;
  if (idleTimeoutMs > 0 && idleDeadline < worker.clock[0] + halfClosedTimeoutMs) {
    setTimer(worker.timers, slot, idleDeadline);
  } else {
    setTimerTicks(worker.timers, slot, ticksOf(halfClosedTimeoutMs));
  }
}
