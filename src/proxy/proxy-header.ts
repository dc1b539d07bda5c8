// The PROXY header that a trusted proxy sends before its client's bytes. Until it is whole the connection has a slot, a
// deadline and nothing else (STATE_HEADER); then it is admitted as the client that the header names. What comes behind the
// header waits in the queue of direction up.
//
// Who is not trusted is never asked for a header, and one he sends is passed on like any bytes of his.

import { takeSlot } from '../base/slot-pool.ts';
import { clearTimer, setTimerTicks } from '../base/timer-wheel.ts';
import { isListed } from '../route/prefix-list.ts';
import { ECANCELED, ENOBUFS } from '../sys/errno.ts';
import { armReceive, waitForBuffer } from './buffer-turns.ts';
import {
  REJECT_CLIENT_GONE,
  REJECT_MAX_CONNECTIONS,
  REJECT_PROXY_HEADER_INVALID,
} from './close-reason.ts';
import { ticksOf } from './deadlines.ts';
import { reject, rejectHeld } from './end.ts';
import { PROXY_HEADER_BYTES_MAX, PROXY_NEED_MORE, parseProxyHeader } from './proxy-protocol.ts';
import { enqueue, stopReceive } from './relay.ts';
import { awaitOpening } from './session-records.ts';
import {
  HEADER_DESTINATION,
  HEADER_LOCAL,
  HEADER_NONE,
  HEADER_PROXIED,
  HEADER_WORDS,
  initSession,
  loadAddress,
  MAPPED_WORD,
  RECEIVE_IDLE,
  STATE_HEADER,
  setClient,
  storeAddress,
} from './sessions.ts';
import { STAT_CURRENT } from './stats.ts';
import { HEADER_PART_BYTES, type HeaderParts, type WorkerState } from './worker-state.ts';

/** Whether connections of the address in `worker.peer` must begin with a header. */
export function isTrusted(worker: WorkerState): boolean {
  const { peer, proxyIn } = worker;
  const mapped = peer.family === 4 ? MAPPED_WORD : peer.w2;
  return isListed(proxyIn.trusted, peer.w0, peer.w1, mapped, peer.w3);
}

/** The slot has this connection, and nothing of the one before. */
export function takeConnection(
  worker: WorkerState,
  slot: number,
  socket: number,
  app: number,
): void {
  const { sessions } = worker;
  initSession(sessions, slot, worker.clock);
  sessions.sockets[slot * 2] = socket + 1;
  sessions.sockets[slot * 2 + 1] = 0;
  sessions.app[slot] = app;
  worker.stats.totals[STAT_CURRENT]++;
}

/** A connection of the trusted proxy in `worker.peer`. False: turned away. */
export function awaitHeader(worker: WorkerState, app: number, socket: number): boolean {
  const { sessions } = worker;
  const slot = takeSlot(sessions.slots);
  if (slot < 0) {
    reject(worker, socket, REJECT_MAX_CONNECTIONS);
    return false;
  }
  takeConnection(worker, slot, socket, app);
  worker.headerParts.bytes[slot] = 0;
  setClient(sessions, slot, worker.peer);
  sessions.country[slot] = 0;
  sessions.state[slot] = STATE_HEADER;
  if (worker.recorder !== null) awaitOpening(worker.recorder, slot);
  setTimerTicks(worker.timers, slot, ticksOf(worker.proxyIn.timeoutMs));
  armReceive(worker, slot * 2);
  return true;
}

/** Something came while the header is waited for. True: it is read, and nothing is in flight any more. */
export function onHeaderReceive(
  worker: WorkerState,
  endpoint: number,
  result: number,
  buffer: number,
  more: number,
): boolean {
  const { sessions } = worker;
  const slot = endpoint >> 1;
  if (more === 0) {
    sessions.pending[slot]--;
    sessions.receiving[endpoint] = RECEIVE_IDLE;
  }
  if (result > 0) {
    if (!takeBytes(worker, endpoint, buffer, result)) {
      return turnAway(worker, slot, REJECT_PROXY_HEADER_INVALID);
    }
  } else if (result < 0 && result !== -ECANCELED && result !== -ENOBUFS) {
    return turnAway(worker, slot, REJECT_CLIENT_GONE);
  }
  if (sessions.headerIn[slot] !== HEADER_NONE) {
    // Also behind a FIN, which the relay will read again.
    if (more === 0) return true;
    // The rest can wait in the kernel until there is a backend.
    stopReceive(worker, endpoint);
    return false;
  }
  if (result === 0) {
    // Who checks whether we are there connects and leaves: that is no broken header.
    const silent = worker.headerParts.bytes[slot] + sessions.queueHead[endpoint] === 0;
    return turnAway(worker, slot, silent ? REJECT_CLIENT_GONE : REJECT_PROXY_HEADER_INVALID);
  }
  if (more === 0) {
    if (worker.engine.hasBuffer()) armReceive(worker, endpoint);
    else waitForBuffer(worker, endpoint);
  }
  return false;
}

/** Turns away whoever should have sent a header. */
export function turnAway(worker: WorkerState, slot: number, reason: number): false {
  const { clientWords, clientPort } = worker.sessions;
  loadAddress(clientWords, slot * 4, clientPort[slot], worker.peer);
  rejectHeld(worker, slot, reason);
  return false;
}

/** False: what is there can be no header. */
function takeBytes(worker: WorkerState, endpoint: number, buffer: number, bytes: number): boolean {
  const { sessions, bufferBytes } = worker;
  bufferBytes[buffer] = bytes;
  if (sessions.headerIn[endpoint >> 1] !== HEADER_NONE) {
    enqueue(worker, endpoint, buffer);
    return true;
  }
  const first = sessions.queueHead[endpoint] - 1;
  if (first >= 0) {
    if (!join(worker, first, buffer)) enqueue(worker, endpoint, buffer);
    return readLong(worker, endpoint, first);
  }
  if (readHeader(worker, endpoint, buffer)) return true;
  worker.engine.releaseBuffer(buffer);
  return false;
}

/** Looks for the header in what is kept of it and what `buffer` has now. False: there can be none. */
function readHeader(worker: WorkerState, endpoint: number, buffer: number): boolean {
  const { engine, bufferBytes, peer, destination, proxyIn, headerParts } = worker;
  const { memory } = engine;
  const slot = endpoint >> 1;
  const at = buffer * engine.bufferBytes;
  const come = bufferBytes[buffer];
  const kept = headerParts.bytes[slot];
  let used = 0;
  if (kept === 0) {
    used = parseProxyHeader(memory, at, come, proxyIn.accept, peer, destination);
  } else {
    const { scratch } = headerParts;
    const some = Math.min(come, PROXY_HEADER_BYTES_MAX);
    loadPart(headerParts, slot, scratch, 0);
    for (let byte = 0; byte < some; byte++) scratch[kept + byte] = memory[at + byte];
    used = parseProxyHeader(scratch, 0, kept + some, proxyIn.accept, peer, destination);
  }
  if (used === PROXY_NEED_MORE) return keep(worker, endpoint, buffer);
  if (used < 0) return false;
  noteHeader(worker, slot);
  // What is kept is never a whole header, so it ends in this buffer.
  if (strip(worker, buffer, used - kept) > 0) enqueue(worker, endpoint, buffer);
  else engine.releaseBuffer(buffer);
  return true;
}

/**
 * Keeps the part of a header that came. Short ones are copied out, so that connections that wait do not hold all the
 * buffers that the others' next bytes need. False: longer than any header.
 */
function keep(worker: WorkerState, endpoint: number, buffer: number): boolean {
  const { engine, bufferBytes, headerParts } = worker;
  const { memory } = engine;
  const slot = endpoint >> 1;
  const at = buffer * engine.bufferBytes;
  const come = bufferBytes[buffer];
  const kept = headerParts.bytes[slot];
  const all = kept + come;
  if (all <= HEADER_PART_BYTES) {
    const part = slot * HEADER_PART_BYTES + kept;
    for (let byte = 0; byte < come; byte++) headerParts.parts[part + byte] = memory[at + byte];
    headerParts.bytes[slot] = all;
    engine.releaseBuffer(buffer);
    return true;
  }
  if (all >= engine.bufferBytes) return false;
  memory.copyWithin(at + kept, at, at + come);
  loadPart(headerParts, slot, memory, at);
  headerParts.bytes[slot] = 0;
  bufferBytes[buffer] = all;
  enqueue(worker, endpoint, buffer);
  return true;
}

function loadPart(
  { parts, bytes }: HeaderParts,
  slot: number,
  target: Uint8Array,
  at: number,
): void {
  const part = slot * HEADER_PART_BYTES;
  for (let byte = 0; byte < bytes[slot]; byte++) target[at + byte] = parts[part + byte];
}

/** Moves the bytes of `next` behind those of `first`. False: some had no room, and stay in `next`. */
function join(worker: WorkerState, first: number, next: number): boolean {
  const { engine, bufferBytes } = worker;
  const { memory } = engine;
  const held = bufferBytes[first];
  const come = bufferBytes[next];
  const from = next * engine.bufferBytes;
  const moved = Math.min(come, engine.bufferBytes - held);
  memory.copyWithin(first * engine.bufferBytes + held, from, from + moved);
  bufferBytes[first] = held + moved;
  if (moved === come) engine.releaseBuffer(next);
  else strip(worker, next, moved);
  return moved === come;
}

/** Looks for a long header in the first buffer of the queue, which collects it. False: there can be none. */
function readLong(worker: WorkerState, endpoint: number, first: number): boolean {
  const { engine, bufferBytes, peer, destination, proxyIn } = worker;
  const at = first * engine.bufferBytes;
  const there = bufferBytes[first];
  const used = parseProxyHeader(engine.memory, at, there, proxyIn.accept, peer, destination);
  if (used === PROXY_NEED_MORE) return there < engine.bufferBytes;
  if (used < 0) return false;
  noteHeader(worker, endpoint >> 1);
  if (strip(worker, first, used) === 0) dropFirst(worker, endpoint, first);
  return true;
}

/** Takes bytes from the front of a buffer; how many are left. */
function strip(worker: WorkerState, buffer: number, bytes: number): number {
  const { engine, bufferBytes } = worker;
  const at = buffer * engine.bufferBytes;
  engine.memory.copyWithin(at, at + bytes, at + bufferBytes[buffer]);
  bufferBytes[buffer] -= bytes;
  return bufferBytes[buffer];
}

function dropFirst(worker: WorkerState, endpoint: number, first: number): void {
  const { sessions } = worker;
  const next = worker.bufferNext[first];
  sessions.queueHead[endpoint] = next;
  if (next === 0) sessions.queueTail[endpoint] = 0;
  sessions.queueCount[endpoint]--;
  worker.engine.releaseBuffer(first);
}

/** The header is read; its addresses are in `worker.peer` and `worker.destination`. */
function noteHeader(worker: WorkerState, slot: number): void {
  const { sessions, peer, destination } = worker;
  sessions.headerIn[slot] = peer.family === 0 ? HEADER_LOCAL : HEADER_PROXIED;
  const at = slot * HEADER_WORDS;
  storeAddress(sessions.headerWords, at, peer);
  sessions.headerWords[at + 4] = peer.port;
  storeAddress(sessions.headerWords, at + HEADER_DESTINATION, destination);
  sessions.headerWords[at + HEADER_DESTINATION + 4] = destination.port;
}

/**
 * Fills `worker.peer` with the client that the header named, or with the peer itself; -errno when that is gone. The
 * connection's time as a session begins now.
 */
export function readClient(worker: WorkerState, slot: number): number {
  const { sessions, engine, peer } = worker;
  clearTimer(worker.timers, slot);
  sessions.acceptedAt[slot] = worker.clock[0];
  sessions.activityAt[slot] = worker.clock[0];
  if (sessions.headerIn[slot] !== HEADER_PROXIED) {
    return engine.readPeer(sessions.sockets[slot * 2] - 1, peer);
  }
  const at = slot * HEADER_WORDS;
  loadAddress(sessions.headerWords, at, sessions.headerWords[at + 4], peer);
  return 0;
}
