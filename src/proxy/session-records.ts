// What a worker tells about its sessions one by one, for the session log: a record when a session ends, when a connection
// is turned away, and from time to time while a session lasts. Records go into a ring in shared memory that the control
// plane empties (control/session-log.ts); nothing is allocated, formatted or waited for here. With the session log off
// there is no recorder, and the data plane pays one comparison per session.
//
// A record is RECORD_WORDS words: numbers below as words, then the times and byte counts as float64 from RECORD_TIMES on.

import {
  claimRecord,
  openRecordRing,
  publishRecord,
  type RecordRing,
  recordRingBytes,
} from '../base/record-ring.ts';
import { REASON_COMPLETED, REJECT_CLIENT_GONE, REJECT_MAX_CONNECTIONS } from './close-reason.ts';
import { type Sessions, STATE_RELAYING } from './sessions.ts';
import { STAT_RECORDS_LIMITED } from './stats.ts';
import type { WorkerState } from './worker-state.ts';

export const RECORD_END = 1;
export const RECORD_REJECTION = 2;
/** A session that goes on. */
export const RECORD_LASTING = 3;

export const RECORD_KIND = 0;
/** Of CLOSE_REASONS or, for a rejection, of REJECT_REASONS. */
export const RECORD_REASON = 1;
/** Four words, IPv4 as ::ffff:0:0/96; all 0 when the address is not known. */
export const RECORD_CLIENT = 2;
export const RECORD_CLIENT_PORT = 6;
export const RECORD_COUNTRY = 7;
/** Index among the listeners, NO_LISTENER where it is not known. */
export const RECORD_LISTENER = 8;
/** Backend index + 1, 0 = none. */
export const RECORD_BACKEND = 9;
/** Of the backend: an index that went to another one since is told from it. */
export const RECORD_INCARNATION = 10;
export const RECORD_TIER = 11;
/** Backends tried. */
export const RECORD_ATTEMPTS = 12;
export const RECORD_SLOT = 13;
export const RECORD_GENERATION = 14;
/** Offset of the float64 fields, in words. */
export const RECORD_TIMES = 16;
/** The clock of the engines, ms; then durations in ms, -1 = never connected; then bytes. */
export const TIME_NOW = 0;
export const TIME_CONNECT = 1;
export const TIME_OPEN = 2;
export const TIME_BYTES_UP = 3;
export const TIME_BYTES_DOWN = 4;
export const RECORD_WORDS = RECORD_TIMES + 12;

export const NO_LISTENER = -1;
const MAPPED_WORD = 0xffff;
/** What a worker writes at its fastest within half a second, which is how long the control plane may be away. */
const RING_RECORDS = 16_384;
/** Records per second and worker of connections turned away; a flood of them must not be a flood of log lines too. */
const REJECTIONS_PER_SECOND = 20;
/** The same for sessions that a sample holds only because they ended badly. */
const FAILURES_PER_SECOND = 100;
const SECOND_MS = 1000;
/** Of Recorder.walk: the time of the last step, and the slots that are due, with a fraction. */
const WALKED_AT = 0;
const WALK_DUE = 1;
const WALK_STEP_MS = 100;
/** A sample is drawn from 31 bits. */
const DRAW_MAX = 2 ** 31;

/** What is recorded; without it nothing is. */
export interface RecordOptions {
  /** Share of the sessions that are recorded whatever becomes of them; 1 = all. Those that end badly are besides. */
  readonly share: number;
  /** Time between the records of a session that goes on, 0 = none. */
  readonly intervalMs: number;
}

export const RECORD_ALL: RecordOptions = { share: 1, intervalMs: 0 };

export interface Recorder {
  readonly ring: RecordRing;
  readonly options: RecordOptions;
  /** A session is in the sample when its draw is below; DRAW_MAX = all. */
  readonly drawBelow: number;
  /** One element, a xorshift state, never 0. */
  readonly random: Int32Array;
  /** By slot. */
  readonly sampled: Uint8Array;
  readonly listener: Uint16Array;
  /** Of the connection at hand. */
  listenerNow: number;
  /** One element: when the allowances below are full again. */
  readonly renewAt: Float64Array;
  rejectionsLeft: number;
  failuresLeft: number;
  /** The walk of recordLasting(): the next slot, and see WALKED_AT. */
  walkSlot: number;
  readonly walk: Float64Array;
}

export function createRecordBuffer(records = RING_RECORDS): SharedArrayBuffer {
  return new SharedArrayBuffer(recordRingBytes(records, RECORD_WORDS));
}

/** `buffer` null: no recorder. */
export function createRecorder(
  buffer: SharedArrayBuffer | null,
  options: RecordOptions,
  capacity: number,
  seed: number,
): Recorder | null {
  if (buffer === null) return null;
  const { share } = options;
  return {
    ring: openRecordRing(buffer, RECORD_WORDS),
    options,
    drawBelow: share >= 1 ? DRAW_MAX : Math.floor(share * DRAW_MAX),
    random: Int32Array.of(seed | 1),
    sampled: new Uint8Array(capacity),
    listener: new Uint16Array(capacity),
    listenerNow: 0,
    renewAt: new Float64Array(1),
    rejectionsLeft: 0,
    failuresLeft: 0,
    walkSlot: 0,
    walk: new Float64Array(2),
  };
}

/** A number below 2^31. */
function draw(random: Int32Array): number {
  let state = random[0];
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  random[0] = state;
  return state & 0x7fff_ffff;
}

function renewAllowances(recorder: Recorder, clock: Float64Array): void {
  if (clock[0] < recorder.renewAt[0]) return;
  recorder.renewAt[0] = clock[0] + SECOND_MS;
  recorder.rejectionsLeft = REJECTIONS_PER_SECOND;
  recorder.failuresLeft = FAILURES_PER_SECOND;
}

/** A session begins: whether it is in the sample is decided now, so that all its records are there or none. */
export function recordOpening(recorder: Recorder, slot: number): void {
  recorder.listener[slot] = recorder.listenerNow;
  recorder.sampled[slot] = draw(recorder.random) < recorder.drawBelow ? 1 : 0;
}

/** A connection has a slot, and may yet become a session. */
export function awaitOpening(recorder: Recorder, slot: number): void {
  recorder.listener[slot] = recorder.listenerNow;
  recorder.sampled[slot] = 0;
}

/** A session has ended; its slot still holds everything. */
export function recordEnd(worker: WorkerState, recorder: Recorder, slot: number): void {
  const reason = worker.sessions.reason[slot];
  if (recorder.sampled[slot] === 0) {
    if (reason === REASON_COMPLETED) return;
    renewAllowances(recorder, worker.clock);
    if (recorder.failuresLeft === 0) {
      worker.stats.totals[STAT_RECORDS_LIMITED]++;
      return;
    }
    recorder.failuresLeft--;
  }
  writeSession(worker, recorder, slot, RECORD_END, reason);
}

/** The connection at hand is turned away. */
export function recordRejection(worker: WorkerState, recorder: Recorder, reason: number): void {
  renewAllowances(recorder, worker.clock);
  if (recorder.rejectionsLeft === 0) {
    worker.stats.totals[STAT_RECORDS_LIMITED]++;
    return;
  }
  recorder.rejectionsLeft--;
  const at = claimRecord(recorder.ring);
  if (at < 0) return;
  const { words, doubles } = recorder.ring;
  const { peer } = worker;
  // These two come when the address could not be asked for, or has not been.
  const isKnown = reason !== REJECT_CLIENT_GONE && reason !== REJECT_MAX_CONNECTIONS;
  words[at + RECORD_KIND] = RECORD_REJECTION;
  words[at + RECORD_REASON] = reason;
  words[at + RECORD_CLIENT] = isKnown ? peer.w0 : 0;
  words[at + RECORD_CLIENT + 1] = isKnown ? peer.w1 : 0;
  words[at + RECORD_CLIENT + 2] = isKnown ? (peer.family === 4 ? MAPPED_WORD : peer.w2) : 0;
  words[at + RECORD_CLIENT + 3] = isKnown ? peer.w3 : 0;
  words[at + RECORD_CLIENT_PORT] = isKnown ? peer.port : 0;
  words[at + RECORD_LISTENER] =
    reason === REJECT_MAX_CONNECTIONS ? NO_LISTENER : recorder.listenerNow;
  doubles[(at + RECORD_TIMES) / 2 + TIME_NOW] = worker.clock[0];
  publishRecord(recorder.ring);
}

/** Sessions that go on get a record each interval: a step of a walk that passes every slot once in that time. */
export function recordLasting(worker: WorkerState, recorder: Recorder): void {
  const { walk, options, sampled } = recorder;
  const { sessions, clock } = worker;
  const { fresh } = sessions.slots;
  const elapsedMs = clock[0] - walk[WALKED_AT];
  if (options.intervalMs === 0 || elapsedMs < WALK_STEP_MS) return;
  walk[WALKED_AT] = clock[0];
  walk[WALK_DUE] = Math.min(fresh, walk[WALK_DUE] + (fresh * elapsedMs) / options.intervalMs);
  for (; walk[WALK_DUE] >= 1; walk[WALK_DUE]--) {
    const slot = recorder.walkSlot < fresh ? recorder.walkSlot : 0;
    recorder.walkSlot = slot + 1;
    if (sampled[slot] === 0 || sessions.state[slot] !== STATE_RELAYING) continue;
    if (clock[0] - sessions.acceptedAt[slot] < options.intervalMs) continue;
    writeSession(worker, recorder, slot, RECORD_LASTING, 0);
  }
}

function writeSession(
  worker: WorkerState,
  recorder: Recorder,
  slot: number,
  kind: number,
  reason: number,
): void {
  const at = claimRecord(recorder.ring);
  if (at < 0) return;
  const { words, doubles } = recorder.ring;
  const { sessions, clock } = worker;
  const { clientWords } = sessions;
  const attempts = sessions.attempts[slot];
  const reserved = sessions.backend[slot];
  words[at + RECORD_KIND] = kind;
  words[at + RECORD_REASON] = reason;
  words[at + RECORD_CLIENT] = clientWords[slot * 4];
  words[at + RECORD_CLIENT + 1] = clientWords[slot * 4 + 1];
  words[at + RECORD_CLIENT + 2] = clientWords[slot * 4 + 2];
  words[at + RECORD_CLIENT + 3] = clientWords[slot * 4 + 3];
  words[at + RECORD_CLIENT_PORT] = sessions.clientPort[slot];
  words[at + RECORD_COUNTRY] = sessions.country[slot];
  words[at + RECORD_LISTENER] = recorder.listener[slot];
  words[at + RECORD_BACKEND] = reserved !== 0 ? reserved : lastFailed(sessions, slot);
  words[at + RECORD_INCARNATION] = sessions.incarnation[slot];
  words[at + RECORD_TIER] = sessions.tier[slot];
  words[at + RECORD_ATTEMPTS] = reserved !== 0 ? attempts + 1 : attempts;
  words[at + RECORD_SLOT] = slot;
  words[at + RECORD_GENERATION] = sessions.generation[slot];
  const times = (at + RECORD_TIMES) / 2;
  const connected = sessions.connectedAt[slot] !== 0;
  doubles[times + TIME_NOW] = clock[0];
  doubles[times + TIME_CONNECT] = connected
    ? sessions.connectedAt[slot] - sessions.attemptAt[slot]
    : -1;
  doubles[times + TIME_OPEN] = clock[0] - sessions.acceptedAt[slot];
  doubles[times + TIME_BYTES_UP] = sessions.bytes[slot * 2];
  doubles[times + TIME_BYTES_DOWN] = sessions.bytes[slot * 2 + 1];
  publishRecord(recorder.ring);
}

/** The backend that failed last + 1, 0 = none has. */
function lastFailed(sessions: Sessions, slot: number): number {
  const attempts = sessions.attempts[slot];
  return attempts === 0 ? 0 : sessions.failed[slot * sessions.attemptsMax + attempts - 1] + 1;
}
