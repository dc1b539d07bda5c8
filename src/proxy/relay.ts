// Moving the bytes of a session: receive into pooled buffers at one endpoint, send at the other, one send in flight per
// socket and the rest in a queue. Back-pressure: at a number of queued buffers (buffer-turns.ts) the receive is cancelled,
// below half of it it is started again. A direction whose buffers keep arriving full is bulk: it moves to a pump (splice in
// the kernel) until it falls quiet. Half-close is kept both ways; a failed source resets the other side once what it sent
// is delivered.

import { PUMP_TARGET } from '../engine/proactor.ts';
import { ECANCELED, EHOSTUNREACH, ENOBUFS, ETIMEDOUT } from '../sys/errno.ts';
import { armReceive, mayReceive, queueMax, waitForBuffer } from './buffer-turns.ts';
import {
  REASON_BACKEND_LOST,
  REASON_BACKEND_RESET,
  REASON_CLIENT_LOST,
  REASON_CLIENT_RESET,
  REASON_COMPLETED,
} from './close-reason.ts';
import { noteHalfClose } from './deadlines.ts';
import { discardQueue, endSession, settleClosing } from './end.ts';
import { holdHeader, nextHeld, writeHeader } from './proxy-header-out.ts';
import {
  ENDED_ERROR,
  ENDED_FIN,
  ENDED_PASSED,
  HEADER_NONE,
  OPEN,
  RECEIVE_ARMED,
  RECEIVE_CANCELLING,
  RECEIVE_HELD,
  RECEIVE_IDLE,
  RECEIVE_PUMP_STOPPING,
  RECEIVE_PUMPING,
  STATE_CLOSING,
} from './sessions.ts';
import { BACKEND_BYTES, BACKEND_STATS, STAT_BYTES, STAT_PUMPS } from './stats.ts';
import { backendAnswered } from './verdict.ts';
import type { WorkerState } from './worker-state.ts';

/** Full buffers in a row (less one for each that was not) that make a flow bulk: 256 KiB of 16 KiB buffers. */
const BULK_STREAK = 16;
/** A pump turn that moved less counts as quiet; after this many in a row the flow goes back to buffers. */
const QUIET_BYTES = 32_768;
const QUIET_TURNS = 32;
/** After a pump was refused (no descriptors) the flow may ask again only when it has been full this often. */
const BULK_REFUSED = -16_384;
/** Backend leg only: the listener's TCP_NODELAY reaches accepted sockets. Nagle delays no first send. */
const NODELAY_AT_SEND = 1;

/** Both sides are connected. */
export function startRelay(worker: WorkerState, slot: number): void {
  const { sessions } = worker;
  const client = slot * 2;
  const plain = sessions.headerOut[slot] === 0 && sessions.headerIn[slot] === HEADER_NONE;
  if (plain) armReceive(worker, client);
  armReceive(worker, client + 1);
  if (plain) return;
  for (let entry = sessions.queueHead[client]; entry !== 0; entry = worker.bufferNext[entry - 1]) {
    countBytes(worker, client, worker.bufferBytes[entry - 1]);
  }
  startUp(worker, slot);
}

/** Starts the direction up: the PROXY header first, if the backend wants one, then what came behind the client's own. */
function startUp(worker: WorkerState, slot: number): void {
  const { sessions } = worker;
  const client = slot * 2;
  if (sessions.headerOut[slot] !== 0) {
    const buffer = writeHeader(worker, slot);
    if (buffer < 0) {
      sessions.receiving[client] = RECEIVE_HELD;
      holdHeader(worker, slot);
      return;
    }
    sessions.receiving[client] = RECEIVE_IDLE;
    if (!sendBuffer(worker, client + 1, buffer)) {
      continueReceive(worker, client);
      return;
    }
  }
  sendNext(worker, client + 1);
}

/** Sessions whose PROXY header waits for a buffer take their turn. */
export function feedOwed(worker: WorkerState): void {
  for (let turns = worker.owedCount; turns > 0; turns--) {
    const slot = nextHeld(worker);
    if (slot >= 0) startUp(worker, slot);
  }
}

export function onReceive(
  worker: WorkerState,
  endpoint: number,
  result: number,
  buffer: number,
  more: number,
): void {
  const { sessions, engine } = worker;
  const slot = endpoint >> 1;
  if (more === 0) sessions.pending[slot]--;
  if (sessions.state[slot] === STATE_CLOSING) {
    if (buffer >= 0) engine.releaseBuffer(buffer);
    if (more === 0) settleClosing(worker, slot);
    return;
  }
  if (more === 0) sessions.receiving[endpoint] = RECEIVE_IDLE;
  if (result > 0) {
    received(worker, endpoint, buffer, result);
  } else if (result === 0) {
    endDirection(worker, endpoint, howEnded(worker, endpoint), resetReason(endpoint));
    return;
  } else if (result !== -ECANCELED && result !== -ENOBUFS) {
    endDirection(worker, endpoint, ENDED_ERROR, failureReason(endpoint, result));
    return;
  }
  if (more === 0) continueReceive(worker, endpoint);
}

/**
 * A dead socket reads as ended once its error was reported to a send: that is no clean end. And io_uring reports the bytes
 * of a send that an RST cut short instead of the error; so while the rest of a short send is in flight the socket itself
 * is asked: one that was reset has no peer any more (getpeername(2)).
 */
function howEnded(worker: WorkerState, endpoint: number): number {
  const { sessions, engine } = worker;
  if (sessions.dead[endpoint] === 1) return ENDED_ERROR;
  const wasShort = sessions.sending[endpoint] !== 0 && sessions.sendOffset[endpoint] > 0;
  if (!wasShort) return ENDED_FIN;
  return engine.readPeer(sessions.sockets[endpoint] - 1, worker.peer) < 0 ? ENDED_ERROR : ENDED_FIN;
}

function resetReason(endpoint: number): number {
  return (endpoint & 1) === 0 ? REASON_CLIENT_RESET : REASON_BACKEND_RESET;
}

/** The kernel gave the peer up (keepalive, TCP_USER_TIMEOUT, unreachable), or the peer sent RST. */
function failureReason(endpoint: number, result: number): number {
  const lost = result === -ETIMEDOUT || result === -EHOSTUNREACH;
  if (!lost) return resetReason(endpoint);
  return (endpoint & 1) === 0 ? REASON_CLIENT_LOST : REASON_BACKEND_LOST;
}

function received(worker: WorkerState, endpoint: number, buffer: number, bytes: number): void {
  const { sessions, engine } = worker;
  const slot = endpoint >> 1;
  const target = endpoint ^ 1;
  if ((endpoint & 1) === 1 && sessions.bytes[endpoint] === 0) backendAnswered(worker, slot);
  countBytes(worker, endpoint, bytes);
  if (sessions.dead[target] === 1) {
    // Nobody to send to; but a peer that cannot write may never read what the dead one sent before. No activity: what
    // is thrown away must not keep the session.
    engine.releaseBuffer(buffer);
    return;
  }
  sessions.activityAt[slot] = worker.clock[0];
  worker.bufferBytes[buffer] = bytes;
  if (sessions.sending[target] === 0) sendBuffer(worker, target, buffer);
  else enqueue(worker, endpoint, buffer);
  noteFullness(worker, endpoint, bytes);
}

function countBytes(worker: WorkerState, endpoint: number, bytes: number): void {
  const { sessions, stats } = worker;
  const side = endpoint & 1;
  const backend = sessions.backend[endpoint >> 1] - 1;
  sessions.bytes[endpoint] += bytes;
  stats.totals[STAT_BYTES + side] += bytes;
  stats.backends[backend * BACKEND_STATS + BACKEND_BYTES + side] += bytes;
}

function noteFullness(worker: WorkerState, endpoint: number, bytes: number): void {
  const { sessions, engine } = worker;
  const streak = sessions.streak[endpoint];
  if (bytes === engine.bufferBytes) {
    sessions.streak[endpoint] = streak + 1;
    if (streak + 1 < BULK_STREAK || !engine.canPump) return;
    sessions.bulkWanted[endpoint] = 1;
    stopReceive(worker, endpoint);
  } else if (streak > 0) {
    sessions.streak[endpoint] = streak - 1;
  }
}

/** Ends the receive in flight; its last event continues. */
export function stopReceive(worker: WorkerState, endpoint: number): void {
  const { sessions, engine } = worker;
  if (sessions.receiving[endpoint] !== RECEIVE_ARMED) return;
  sessions.receiving[endpoint] = RECEIVE_CANCELLING;
  engine.cancelReceive(endpoint, sessions.generation[endpoint >> 1]);
}

export function enqueue(worker: WorkerState, endpoint: number, buffer: number): void {
  const { sessions, bufferNext } = worker;
  bufferNext[buffer] = 0;
  const tail = sessions.queueTail[endpoint];
  if (tail === 0) sessions.queueHead[endpoint] = buffer + 1;
  else bufferNext[tail - 1] = buffer + 1;
  sessions.queueTail[endpoint] = buffer + 1;
  sessions.queueCount[endpoint]++;
  if (sessions.queueCount[endpoint] >= queueMax(worker)) stopReceive(worker, endpoint);
}

/** Starts sending a buffer, which is given back when all of it is sent. Whether that is so already. */
function sendBuffer(worker: WorkerState, target: number, buffer: number): boolean {
  const { sessions, engine } = worker;
  const slot = target >> 1;
  const socket = sessions.sockets[target] - 1;
  const sends = sessions.sends[target];
  if (sends < 2) {
    sessions.sends[target] = sends + 1;
    if (sends === NODELAY_AT_SEND && (target & 1) === 1) engine.setNoDelay(socket);
  }
  const bytes = worker.bufferBytes[buffer];
  if (engine.send(target, sessions.generation[slot], socket, buffer, 0, bytes)) {
    engine.releaseBuffer(buffer);
    return true;
  }
  sessions.sending[target] = buffer + 1;
  sessions.sendOffset[target] = 0;
  sessions.sentAt[target] = worker.clock[0];
  sessions.pending[slot]++;
  return false;
}

export function onSend(worker: WorkerState, target: number, result: number): void {
  const { sessions, engine, bufferBytes } = worker;
  const slot = target >> 1;
  const buffer = sessions.sending[target] - 1;
  sessions.pending[slot]--;
  if (sessions.state[slot] === STATE_CLOSING) {
    sessions.sending[target] = 0;
    engine.releaseBuffer(buffer);
    settleClosing(worker, slot);
    return;
  }
  if (result < 0) {
    sessions.sending[target] = 0;
    engine.releaseBuffer(buffer);
    targetFailed(worker, target, result);
    return;
  }
  const offset = sessions.sendOffset[target] + result;
  if (offset < bufferBytes[buffer]) {
    const socket = sessions.sockets[target] - 1;
    const left = bufferBytes[buffer] - offset;
    if (!engine.send(target, sessions.generation[slot], socket, buffer, offset, left)) {
      sessions.sendOffset[target] = offset;
      sessions.sentAt[target] = worker.clock[0];
      sessions.pending[slot]++;
      return;
    }
  }
  sessions.sending[target] = 0;
  sessions.activityAt[slot] = worker.clock[0];
  engine.releaseBuffer(buffer);
  sendNext(worker, target);
}

/** The socket is free: the next buffers, or what waits for an empty queue. */
function sendNext(worker: WorkerState, target: number): void {
  const { sessions, bufferNext } = worker;
  const source = target ^ 1;
  let isFree = true;
  while (isFree && sessions.queueHead[source] !== 0) {
    const buffer = sessions.queueHead[source] - 1;
    const next = bufferNext[buffer];
    sessions.queueHead[source] = next;
    if (next === 0) sessions.queueTail[source] = 0;
    sessions.queueCount[source]--;
    isFree = sendBuffer(worker, target, buffer);
  }
  if (sessions.receiving[source] === RECEIVE_IDLE) continueReceive(worker, source);
  if (isFree && sessions.ended[source] !== OPEN) passEnd(worker, source);
}

/** Starts what the direction should do next, when nothing is in flight at its source. */
function continueReceive(worker: WorkerState, endpoint: number): void {
  const { sessions } = worker;
  if (sessions.ended[endpoint] !== OPEN) return;
  if (sessions.bulkWanted[endpoint] === 1 && sessions.dead[endpoint ^ 1] === 0) {
    // The pump writes past the queue, so the queue must be empty first.
    if (sessions.sending[endpoint ^ 1] !== 0) return;
    if (startPump(worker, endpoint)) return;
  }
  const isSending = sessions.sending[endpoint ^ 1] !== 0;
  if (!mayReceive(worker, isSending, sessions.queueCount[endpoint])) return;
  if (worker.engine.hasBuffer()) armReceive(worker, endpoint);
  else waitForBuffer(worker, endpoint);
}

// ---- end of a direction ---------------------------------------------------------------------------------------------

function endDirection(worker: WorkerState, source: number, how: number, reason: number): void {
  const { sessions } = worker;
  sessions.ended[source] = how;
  sessions.endReason[source] = reason;
  if (sessions.sending[source ^ 1] === 0) passEnd(worker, source);
  else noteHalfClose(worker, source >> 1);
}

/** Everything received is delivered: pass the end on. */
function passEnd(worker: WorkerState, source: number): void {
  const { sessions, engine } = worker;
  const slot = source >> 1;
  const target = source ^ 1;
  if (sessions.ended[source] === ENDED_PASSED) return;
  const failed = sessions.ended[source] === ENDED_ERROR || sessions.dead[source] === 1;
  if (failed || sessions.dead[target] === 1) {
    const blamed = failed ? source : target;
    endSession(worker, slot, sessions.endReason[blamed] || resetReason(blamed));
    return;
  }
  sessions.ended[source] = ENDED_PASSED;
  if (sessions.ended[target] === ENDED_PASSED) {
    endSession(worker, slot, REASON_COMPLETED);
    return;
  }
  engine.shutdownWrite(sessions.sockets[target] - 1);
  noteHalfClose(worker, slot);
}

/**
 * A send to `target` failed: that peer is gone. What it had sent before may still wait in its receive queue, so its
 * receive side is heard to the end (data, then an error or the end of stream), and only then is the session reset.
 */
function targetFailed(worker: WorkerState, target: number, result: number): void {
  const { sessions } = worker;
  const source = target ^ 1;
  const reason = failureReason(target, result);
  sessions.dead[target] = 1;
  sessions.endReason[target] = reason;
  discardQueue(worker, source);
  // Its end may be known while what it sent is still being delivered: sendNext() ends the session then.
  const delivering = sessions.sending[source] !== 0;
  if (sessions.dead[source] === 1 || (sessions.ended[target] !== OPEN && !delivering)) {
    endSession(worker, target >> 1, reason);
    return;
  }
  noteHalfClose(worker, target >> 1);
  if (sessions.receiving[target] === RECEIVE_IDLE) continueReceive(worker, target);
  if (sessions.receiving[source] === RECEIVE_IDLE) continueReceive(worker, source);
}

// ---- pump -----------------------------------------------------------------------------------------------------------

function startPump(worker: WorkerState, endpoint: number): boolean {
  const { sessions, engine } = worker;
  const slot = endpoint >> 1;
  sessions.bulkWanted[endpoint] = 0;
  const source = sessions.sockets[endpoint] - 1;
  const target = sessions.sockets[endpoint ^ 1] - 1;
  if (!engine.pump(endpoint, sessions.generation[slot], source, target)) {
    sessions.streak[endpoint] = BULK_REFUSED;
    return false;
  }
  sessions.streak[endpoint] = 0;
  sessions.quiet[endpoint] = 0;
  sessions.receiving[endpoint] = RECEIVE_PUMPING;
  sessions.pending[slot]++;
  worker.stats.totals[STAT_PUMPS]++;
  return true;
}

export function onPump(
  worker: WorkerState,
  endpoint: number,
  result: number,
  side: number,
  more: number,
): void {
  const { sessions } = worker;
  const slot = endpoint >> 1;
  if (more === 0) sessions.pending[slot]--;
  if (more === 1) {
    countBytes(worker, endpoint, result);
    sessions.activityAt[slot] = worker.clock[0];
    if (sessions.state[slot] !== STATE_CLOSING) noteQuiet(worker, endpoint, result);
    return;
  }
  if (sessions.state[slot] === STATE_CLOSING) {
    settleClosing(worker, slot);
    return;
  }
  sessions.receiving[endpoint] = RECEIVE_IDLE;
  if (result === -ECANCELED) continueReceive(worker, endpoint);
  else if (result === 0) {
    endDirection(worker, endpoint, howEnded(worker, endpoint), resetReason(endpoint));
  } else if (side === PUMP_TARGET) targetFailed(worker, endpoint ^ 1, result);
  else endDirection(worker, endpoint, ENDED_ERROR, failureReason(endpoint, result));
}

function noteQuiet(worker: WorkerState, endpoint: number, moved: number): void {
  const { sessions, engine } = worker;
  if (moved >= QUIET_BYTES) {
    sessions.quiet[endpoint] = 0;
    return;
  }
  sessions.quiet[endpoint]++;
  if (sessions.quiet[endpoint] < QUIET_TURNS) return;
  if (sessions.receiving[endpoint] !== RECEIVE_PUMPING) return;
  sessions.receiving[endpoint] = RECEIVE_PUMP_STOPPING;
  engine.stopPump(endpoint, sessions.generation[endpoint >> 1]);
}
