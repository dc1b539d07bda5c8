// The session table of one worker: a slot is a row over typed arrays, one array per field. No object per session.
//
// An *endpoint* is slot * 2 + side (0 client, 1 backend); the socket across is endpoint ^ 1. A *direction* is named by its
// source endpoint: bytes received there wait in its queue, a linked list through the buffers, to be sent at endpoint ^ 1.
//
// What the supervisor needs to give back after a worker died (sockets, reserved backend, client row), and what it shows of
// open sessions, is in shared memory: the same arrays, written once by the worker, read by the control plane as they are.

import { createSlotPool, type SlotPool } from '../base/slot-pool.ts';
import { isMappedIPv4 } from '../route/address-text.ts';
import type { PeerAddress } from '../sys/socket.ts';

export const STATE_FREE = 0;
export const STATE_CONNECTING = 1;
export const STATE_RELAYING = 2;
/** Ended; waits for the last events of its operations, then its sockets are closed and the slot freed. */
export const STATE_CLOSING = 3;
/** A trusted proxy connected: no session before its PROXY header says for whom. Only the client's socket is open. */
export const STATE_HEADER = 4;

/** What an endpoint's receive side is doing. */
export const RECEIVE_IDLE = 0;
export const RECEIVE_ARMED = 1;
export const RECEIVE_CANCELLING = 2;
/** No buffer was free: waits its turn. */
export const RECEIVE_STARVED = 3;
export const RECEIVE_PUMPING = 4;
export const RECEIVE_PUMP_STOPPING = 5;
/** The backend must get its PROXY header first, and no buffer was free to write it. */
export const RECEIVE_HELD = 6;

/** The PROXY header that a trusted proxy sends. */
export const HEADER_NONE = 0;
/** Read, and it names nobody: the peer itself is the client. */
export const HEADER_LOCAL = 1;
/** Read; `headerWords` are the addresses it names. */
export const HEADER_PROXIED = 2;
/** Words per slot of `headerWords`: address and port of the client, then of what it connected to. */
export const HEADER_WORDS = 10;
export const HEADER_DESTINATION = 5;

/** How a direction ended. */
export const OPEN = 0;
/** End of stream received; FIN goes on once the queue is empty. */
export const ENDED_FIN = 1;
/** End of stream passed on. */
export const ENDED_PASSED = 2;
/** The source failed: the session is reset once what it sent before is delivered. */
export const ENDED_ERROR = 3;

/** IPv4 addresses are kept as IPv4-mapped IPv6, so that they never meet an IPv6 address. */
export const MAPPED_WORD = 0xffff;

/** Bytes per slot of the shared part: four float64, ten int32, three uint16, a byte. */
const SHARED_BYTES = 79;

/**
 * Shared part. Sockets, backend and rows are stored + 1, so that untouched memory reads as "none". A reader that is not
 * the worker looks at `generation` before and after: what changed meanwhile was another session.
 */
export interface SharedSessions {
  /** By endpoint: socket + 1. */
  readonly sockets: Int32Array;
  /** By slot: reserved backend index + 1. */
  readonly backend: Int32Array;
  /** By slot: client table row + 1. */
  readonly clientRow: Int32Array;
  /** By slot: the row that counts the client's sessions + 1. */
  readonly limitRow: Int32Array;

  // By slot.
  readonly state: Uint8Array;
  /** 24 bits, never 0; changes with every session and every connect attempt. */
  readonly generation: Int32Array;
  readonly app: Uint16Array;
  readonly country: Uint16Array;
  /** Four words of the client's address, IPv4 as ::ffff:0:0/96. */
  readonly clientWords: Int32Array;
  readonly clientPort: Uint16Array;
  readonly acceptedAt: Float64Array;
  readonly activityAt: Float64Array;
  /** By endpoint: bytes received from it. */
  readonly bytes: Float64Array;
}

export interface Sessions extends SharedSessions {
  readonly slots: SlotPool;

  // By slot.
  /** Of the backend when it was reserved: until the connect is done a new snapshot may have the index for another. */
  readonly incarnation: Uint16Array;
  /** How near the backend is to the client, 0 to 3 (DESIGN 3.4). */
  readonly tier: Uint8Array;
  readonly reason: Uint8Array;
  /** Operations whose last event has not come. */
  readonly pending: Uint8Array;
  /** Backends tried so far without success; their indexes are in `failed`. */
  readonly attempts: Uint8Array;
  /** `attemptsMax` per slot. */
  readonly failed: Int32Array;
  readonly attemptsMax: number;
  /** Number of the breaker's trial that this session is, 0 = none. */
  readonly trial: Int32Array;
  readonly lastError: Int16Array;
  readonly longLived: Uint8Array;
  /** HEADER_…: the PROXY header that came. */
  readonly headerIn: Uint8Array;
  readonly headerWords: Int32Array;
  /** Version of the PROXY header that the backend must get before anything else; 0 = none, or it is sent. */
  readonly headerOut: Uint8Array;
  /** Which sides are closed by RST: 1 the client, 2 the backend. */
  readonly resetOnClose: Uint8Array;
  readonly attemptAt: Float64Array;
  /** When the connect succeeded, 0 = it has not. */
  readonly connectedAt: Float64Array;

  // By endpoint.
  readonly receiving: Uint8Array;
  readonly ended: Uint8Array;
  readonly endReason: Uint8Array;
  /** A send to this endpoint failed: it is dead, its receive side will say so. */
  readonly dead: Uint8Array;
  /** Buffer in flight to this endpoint + 1, and how much of it is sent. */
  readonly sending: Int32Array;
  readonly sendOffset: Int32Array;
  /** When that send began or last made progress, ms. */
  readonly sentAt: Float64Array;
  /** Sends to this endpoint, up to 2: the second one needs TCP_NODELAY. */
  readonly sends: Uint8Array;
  /** Queue of received buffers, by source endpoint: buffer + 1. */
  readonly queueHead: Int32Array;
  readonly queueTail: Int32Array;
  readonly queueCount: Uint16Array;
  /** Full buffers in a row: a bulk flow shows by it. */
  readonly streak: Int16Array;
  /** Small pump turns in a row: a bulk flow that fell quiet shows by it. */
  readonly quiet: Uint8Array;
  readonly bulkWanted: Uint8Array;
}

export function sharedSessionsBytes(capacity: number): number {
  return capacity * SHARED_BYTES;
}

export function openSharedSessions(buffer: SharedArrayBuffer): SharedSessions {
  const capacity = buffer.byteLength / SHARED_BYTES;
  // Widest elements first, so that every array is aligned.
  let at = 0;
  const next = (bytes: number): number => {
    const offset = at;
    at += capacity * bytes;
    return offset;
  };
  return {
    acceptedAt: new Float64Array(buffer, next(8), capacity),
    activityAt: new Float64Array(buffer, next(8), capacity),
    bytes: new Float64Array(buffer, next(16), capacity * 2),
    sockets: new Int32Array(buffer, next(8), capacity * 2),
    backend: new Int32Array(buffer, next(4), capacity),
    clientRow: new Int32Array(buffer, next(4), capacity),
    limitRow: new Int32Array(buffer, next(4), capacity),
    generation: new Int32Array(buffer, next(4), capacity),
    clientWords: new Int32Array(buffer, next(16), capacity * 4),
    app: new Uint16Array(buffer, next(2), capacity),
    country: new Uint16Array(buffer, next(2), capacity),
    clientPort: new Uint16Array(buffer, next(2), capacity),
    state: new Uint8Array(buffer, next(1), capacity),
  };
}

export function createSessions(shared: SharedArrayBuffer, attemptsMax: number): Sessions {
  const capacity = shared.byteLength / SHARED_BYTES;
  const endpoints = capacity * 2;
  return {
    ...openSharedSessions(shared),
    slots: createSlotPool(capacity),
    incarnation: new Uint16Array(capacity),
    tier: new Uint8Array(capacity),
    reason: new Uint8Array(capacity),
    pending: new Uint8Array(capacity),
    attempts: new Uint8Array(capacity),
    failed: new Int32Array(capacity * attemptsMax),
    attemptsMax,
    lastError: new Int16Array(capacity),
    trial: new Int32Array(capacity),
    longLived: new Uint8Array(capacity),
    headerIn: new Uint8Array(capacity),
    headerWords: new Int32Array(capacity * HEADER_WORDS),
    headerOut: new Uint8Array(capacity),
    resetOnClose: new Uint8Array(capacity),
    attemptAt: new Float64Array(capacity),
    connectedAt: new Float64Array(capacity),
    receiving: new Uint8Array(endpoints),
    ended: new Uint8Array(endpoints),
    endReason: new Uint8Array(endpoints),
    dead: new Uint8Array(endpoints),
    sending: new Int32Array(endpoints),
    sendOffset: new Int32Array(endpoints),
    sentAt: new Float64Array(endpoints),
    sends: new Uint8Array(endpoints),
    queueHead: new Int32Array(endpoints),
    queueTail: new Int32Array(endpoints),
    queueCount: new Uint16Array(endpoints),
    streak: new Int16Array(endpoints),
    quiet: new Uint8Array(endpoints),
    bulkWanted: new Uint8Array(endpoints),
  };
}

/** Sets every field of a slot that the session before may have left; `clock[0]` is now. */
export function initSession(sessions: Sessions, slot: number, clock: Float64Array): void {
  bumpGeneration(sessions, slot);
  sessions.reason[slot] = 0;
  sessions.attempts[slot] = 0;
  sessions.lastError[slot] = 0;
  sessions.trial[slot] = 0;
  sessions.limitRow[slot] = 0;
  sessions.longLived[slot] = 0;
  sessions.headerIn[slot] = HEADER_NONE;
  sessions.headerOut[slot] = 0;
  sessions.resetOnClose[slot] = 0;
  sessions.acceptedAt[slot] = clock[0];
  sessions.connectedAt[slot] = 0;
  sessions.activityAt[slot] = clock[0];
  for (let endpoint = slot * 2; endpoint <= slot * 2 + 1; endpoint++) {
    sessions.receiving[endpoint] = RECEIVE_IDLE;
    sessions.ended[endpoint] = OPEN;
    sessions.endReason[endpoint] = 0;
    sessions.dead[endpoint] = 0;
    sessions.sending[endpoint] = 0;
    sessions.sends[endpoint] = 0;
    sessions.queueHead[endpoint] = 0;
    sessions.queueTail[endpoint] = 0;
    sessions.queueCount[endpoint] = 0;
    sessions.streak[endpoint] = 0;
    sessions.quiet[endpoint] = 0;
    sessions.bulkWanted[endpoint] = 0;
    sessions.bytes[endpoint] = 0;
  }
}

/** Notes who the client is; IPv4 as IPv4-mapped IPv6. */
export function setClient(sessions: Sessions, slot: number, peer: PeerAddress): void {
  storeAddress(sessions.clientWords, slot * 4, peer);
  sessions.clientPort[slot] = peer.port;
}

/** Stores four words; IPv4 as IPv4-mapped IPv6. */
export function storeAddress(words: Int32Array, at: number, address: PeerAddress): void {
  words[at] = address.w0;
  words[at + 1] = address.w1;
  words[at + 2] = address.family === 4 ? MAPPED_WORD : address.w2;
  words[at + 3] = address.w3;
}

/** The reverse of storeAddress(). */
export function loadAddress(words: Int32Array, at: number, port: number, to: PeerAddress): void {
  const mapped = isMappedIPv4(words[at], words[at + 1], words[at + 2]);
  to.family = mapped ? 4 : 6;
  to.w0 = words[at];
  to.w1 = words[at + 1];
  to.w2 = mapped ? 0 : words[at + 2];
  to.w3 = words[at + 3];
  to.port = port;
}

/** A new 24-bit generation, never 0, so that events of operations started before are recognised as late. */
export function bumpGeneration(sessions: Sessions, slot: number): void {
  const next = (sessions.generation[slot] + 1) & 0xff_ffff;
  sessions.generation[slot] = next === 0 ? 1 : next;
}
