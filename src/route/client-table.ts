// The client table: one row per (client address, app) in shared memory, for all threads at once:
// open sessions, last seen, binding. Until a session calls releaseClient its row index is a handle:
// a row with open sessions never moves and never goes away. Rows are handed out densely, lowest
// first, and found through a hash index: a key has one of 16 places in either of two buckets
// (two-choice hashing under a secret seed), so a lookup reads two buckets and never probes on.
//
//   header      seed, sizes, counters, head of the list of freed rows and its lock
//   locks       u32 per bucket: owner id, 0 = free
//   index       per bucket one cache line of hashes (u32 × 16, 0 = free place), one of rows
//   records     40 bytes a row: last seen ms (f64), address words (u32 × 4), open sessions (u32),
//               binding (u32: incarnation << 16 | backend index + 1, 0 = none),
//               place in the index (i32, negative = free row), app index (u32)
//   buckets     8 bytes a row: when its token bucket is full again (f64, see token-bucket.ts)
//
// A bucket's lock guards its places and 0 → 1 of its rows' open sessions. A session's owner changes
// binding, last seen and n → n - 1 without it. All zero is an empty table, so memory nobody used
// is never touched: 10,000 clients cost some 9 MB of index and half a megabyte of rows.
// Callers pass whole milliseconds and signed address words where they can: others get boxed.

import { assert } from '../base/assert.ts';
import { APPS_MAX, BACKENDS_MAX, CLIENT_TABLE_ROWS_MAX } from '../limits.ts';
import { CLIENT_KEY_WORDS, hashClient } from './client-hash.ts';
import { lockBucket, releaseDeadLock, tryLockBucket, unlockBucket } from './client-lock.ts';

const PLACES_PER_BUCKET = 16;
const BUCKET_WORDS = PLACES_PER_BUCKET * 2;
/** An index eight ninths full at most: then one client in 40,000 finds both its buckets full. */
const PLACES_PER_ROW = 9 / 8;

/** Words of a record. Last seen is the float64 in words 0 and 1. */
const RECORD_WORDS = 10;
const ADDRESS_WORD = 2;
const OPEN_WORD = 6;
const BINDING_WORD = 7;
const PLACE_WORD = 8;
const APP_WORD = 9;
const TOKEN_WORDS = 2;

/** The app of rows that count a client's connections for its limits, not its bindings. */
export const CLIENT_LIMIT_APP = APPS_MAX;

/** Header words; what changes has a cache line of its own. */
const HEADER_WORDS = 80;
const HEADER_ROWS = 0;
const HEADER_BUCKETS = 1;
const HEADER_SEED = 2;
const HEADER_ROWS_USED = 16;
const HEADER_BINDINGS = 32;
/** The next three belong together: the lock guards the other two. */
const HEADER_FREE_LOCK = 48;
/** Freed row + 1, linked through PLACE_WORD as -1 - next; 0 = none. */
const HEADER_FREE_HEAD = 49;
/** Rows handed out at least once: all above are untouched. */
const HEADER_ROWS_EVER = 50;

export interface ClientTable {
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly rows: number;
  readonly buckets: number;
  /** Word offsets of the index and of the records; the locks follow the header. */
  readonly indexWord: number;
  readonly recordsWord: number;
  /** Offset in `doubles` of the token buckets. */
  readonly tokensDouble: number;
  /** Two words; secret, or clients could aim at one bucket. */
  readonly seed: Int32Array;
  /** Scratch: address words and app of the client at hand. */
  readonly key: Int32Array;
  /** Scratch: the two hashes of `key`. */
  readonly hashes: Uint32Array;
  readonly ownerId: number;
}

export interface ClientTableCounts {
  readonly rows: number;
  readonly bindings: number;
}

export function clientTableBytes(capacity: number): number {
  if (!Number.isInteger(capacity) || capacity < 1 || capacity > CLIENT_TABLE_ROWS_MAX) {
    const allowed = `a whole number, 1 to ${CLIENT_TABLE_ROWS_MAX}`;
    throw new RangeError(`Cannot create client table of ${capacity} rows: must be ${allowed}`);
  }
  const recordsWord = indexWordFor(capacity) + bucketsFor(capacity) * BUCKET_WORDS;
  // All even numbers of words, for the float64 view.
  return (recordsWord + capacity * (RECORD_WORDS + TOKEN_WORDS)) * 4;
}

/** `seed` is two random 32-bit words. Touches only the header's page. */
export function createClientTable(capacity: number, seed: ArrayLike<number>): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(clientTableBytes(capacity));
  const header = new Int32Array(buffer, 0, HEADER_WORDS);
  header[HEADER_ROWS] = capacity;
  header[HEADER_BUCKETS] = bucketsFor(capacity);
  header[HEADER_SEED] = seed[0];
  header[HEADER_SEED + 1] = seed[1];
  return buffer;
}

/** `ownerId` is 1 or more and unique among the threads that share the table. */
export function openClientTable(buffer: SharedArrayBuffer, ownerId: number): ClientTable {
  assert(ownerId >= 1 && ownerId <= 0xffff, 'Client table owner id out of range');
  const words = new Int32Array(buffer);
  const rows = words[HEADER_ROWS];
  assert(buffer.byteLength === clientTableBytes(rows), 'Not a client table');
  const buckets = words[HEADER_BUCKETS];
  const recordsWord = indexWordFor(rows) + buckets * BUCKET_WORDS;
  return {
    words,
    doubles: new Float64Array(buffer),
    rows,
    buckets,
    indexWord: indexWordFor(rows),
    recordsWord,
    tokensDouble: (recordsWord + rows * RECORD_WORDS) / 2,
    seed: words.slice(HEADER_SEED, HEADER_SEED + 2),
    key: new Int32Array(CLIENT_KEY_WORDS),
    hashes: new Uint32Array(2),
    ownerId,
  };
}

function bucketsFor(rows: number): number {
  return Math.max(2, Math.ceil((rows * PLACES_PER_ROW) / PLACES_PER_BUCKET));
}

/** Behind the locks, at the start of a cache line. */
function indexWordFor(rows: number): number {
  return HEADER_WORDS + Math.ceil(bucketsFor(rows) / 16) * 16;
}

/**
 * The client's row with one more open session; a new row when the client has none, in place of
 * the one idle for longest when there is no room. A binding not seen for `ttlMs` is cleared.
 * -1 when there is no room and every row of both buckets has open sessions.
 */
export function acquireClient(
  table: ClientTable,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
  app: number,
  nowMs: number,
  ttlMs: number,
): number {
  const { words, key, hashes, buckets, ownerId } = table;
  key[0] = w0;
  key[1] = w1;
  key[2] = w2;
  key[3] = w3;
  key[4] = app;
  hashClient(hashes, table.seed, key);
  const hash = hashes[0] === 0 ? 1 : hashes[0] | 0;
  const bucketA = Math.floor((hashes[0] / 0x1_0000_0000) * buckets);
  let bucketB = Math.floor((hashes[1] / 0x1_0000_0000) * buckets);
  if (bucketB === bucketA) bucketB = bucketA + 1 === buckets ? 0 : bucketA + 1;
  // In index order, so that two threads with crossed buckets cannot wait for each other.
  const lockFirst = HEADER_WORDS + Math.min(bucketA, bucketB);
  const lockSecond = HEADER_WORDS + Math.max(bucketA, bucketB);
  lockBucket(words, lockFirst, ownerId);
  lockBucket(words, lockSecond, ownerId);
  let row = findRow(table, bucketA, hash);
  if (row < 0) row = findRow(table, bucketB, hash);
  if (row >= 0) reopenRow(table, row, nowMs, ttlMs);
  else row = openNewRow(table, bucketA, bucketB, hash, nowMs);
  unlockBucket(words, lockSecond);
  unlockBucket(words, lockFirst);
  return row;
}

/** Ends one session of the row: its owner must not use the row index after. */
export function releaseClient(table: ClientTable, row: number, nowMs: number): void {
  const record = recordWord(table, row);
  if (nowMs > table.doubles[record >> 1]) table.doubles[record >> 1] = nowMs;
  // After the store of last seen: at 0 another thread may give the row to another client.
  const before = Atomics.sub(table.words, record + OPEN_WORD, 1);
  assert(before > 0, 'Released a client row that had no open session');
}

/** Backend index of the client's binding, -1 = none. The caller holds a session on the row. */
export function clientBackend(table: ClientTable, row: number): number {
  // Atomic like every access to bindings: other sessions of this client may write it.
  return (Atomics.load(table.words, recordWord(table, row) + BINDING_WORD) & 0xffff) - 1;
}

/** Incarnation of the bound backend, -1 = no binding. The caller holds a session on the row. */
export function clientIncarnation(table: ClientTable, row: number): number {
  const binding = Atomics.load(table.words, recordWord(table, row) + BINDING_WORD);
  return binding === 0 ? -1 : binding >>> 16;
}

/**
 * The client's binding word (incarnation << 16 | backend index + 1), 0 = none, for those who only look: no lock, no session,
 * and a moment later it may be another.
 */
export function peekBinding(
  table: ClientTable,
  key: readonly number[],
  nowMs: number,
  ttlMs: number,
): number {
  const { words, hashes, buckets } = table;
  table.key.set(key);
  hashClient(hashes, table.seed, table.key);
  const hash = hashes[0] === 0 ? 1 : hashes[0] | 0;
  const bucketA = Math.floor((hashes[0] / 0x1_0000_0000) * buckets);
  let bucketB = Math.floor((hashes[1] / 0x1_0000_0000) * buckets);
  if (bucketB === bucketA) bucketB = bucketA + 1 === buckets ? 0 : bucketA + 1;
  let row = findRow(table, bucketA, hash);
  if (row < 0) row = findRow(table, bucketB, hash);
  if (row < 0 || isExpired(table, row, nowMs, ttlMs)) return 0;
  return Atomics.load(words, recordWord(table, row) + BINDING_WORD);
}

/** Binds the client to a backend. The caller holds a session on the row. */
export function bindClient(
  table: ClientTable,
  row: number,
  backend: number,
  incarnation: number,
  nowMs: number,
): void {
  assert(backend >= 0 && backend < BACKENDS_MAX, 'Bound backend index out of range');
  const { words, doubles } = table;
  const record = recordWord(table, row);
  if (nowMs > doubles[record >> 1]) doubles[record >> 1] = nowMs;
  // An exchange, so that of two sessions binding at once exactly one counts the new binding.
  const binding = (incarnation << 16) | (backend + 1);
  const before = Atomics.exchange(words, record + BINDING_WORD, binding);
  if (before === 0) Atomics.add(words, HEADER_BINDINGS, 1);
}

/** Open sessions of the client at this moment, the caller's own included. */
export function clientOpenSessions(table: ClientTable, row: number): number {
  return Atomics.load(table.words, recordWord(table, row) + OPEN_WORD);
}

/**
 * Locks a row of CLIENT_LIMIT_APP for token-bucket.ts; returns the lock's word for unlockBucket().
 * The caller holds a session on the row, so it stays where it is.
 */
export function lockLimitRow(table: ClientTable, row: number): number {
  const { words, ownerId } = table;
  const record = recordWord(table, row);
  assert(words[record + APP_WORD] === CLIENT_LIMIT_APP, 'Not a row for limits');
  const lock = HEADER_WORDS + Math.floor(words[record + PLACE_WORD] / PLACES_PER_BUCKET);
  lockBucket(words, lock, ownerId);
  return lock;
}

/** Keeps a row from expiring, and from being evicted before others, as if seen at `untilMs`. */
export function keepClientUntil(table: ClientTable, row: number, untilMs: number): void {
  const lastSeen = recordWord(table, row) >> 1;
  if (untilMs > table.doubles[lastSeen]) table.doubles[lastSeen] = untilMs;
}

/** Frees the expired idle rows of rows `fromRow` to `fromRow + rows - 1`; returns how many. */
export function sweepClients(
  table: ClientTable,
  nowMs: number,
  ttlMs: number,
  fromRow: number,
  rows: number,
): number {
  const { words } = table;
  const end = Math.min(fromRow + rows, Atomics.load(words, HEADER_ROWS_EVER));
  let freed = 0;
  for (let row = fromRow; row < end; row++) {
    // Looked at without the lock first: most rows are free or alive, and stay so.
    const place = words[recordWord(table, row) + PLACE_WORD];
    if (place < 0 || !isExpired(table, row, nowMs, ttlMs)) continue;
    if (sweepRow(table, row, place, nowMs, ttlMs)) freed++;
  }
  return freed;
}

/** Never waits, not even for a dead thread: a row somebody works at is left for the next sweep. */
function sweepRow(
  table: ClientTable,
  row: number,
  place: number,
  nowMs: number,
  ttlMs: number,
): boolean {
  const { words, ownerId } = table;
  const lock = HEADER_WORDS + Math.floor(place / PLACES_PER_BUCKET);
  if (!tryLockBucket(words, lock, ownerId)) return false;
  // Again under the lock: by now the row may be in use, free, or another client's elsewhere.
  const expired =
    words[recordWord(table, row) + PLACE_WORD] === place && isExpired(table, row, nowMs, ttlMs);
  const free = expired && tryLockBucket(words, HEADER_FREE_LOCK, ownerId);
  if (free) {
    leavePlace(table, row);
    words[recordWord(table, row) + PLACE_WORD] = -1 - words[HEADER_FREE_HEAD];
    words[HEADER_FREE_HEAD] = row + 1;
    unlockBucket(words, HEADER_FREE_LOCK);
  }
  unlockBucket(words, lock);
  return free;
}

/** Rows in use and live bindings, from shared counters. */
export function clientTableCounts(table: ClientTable): ClientTableCounts {
  return {
    rows: Atomics.load(table.words, HEADER_ROWS_USED),
    bindings: Atomics.load(table.words, HEADER_BINDINGS),
  };
}

/** Opens the locks a dead thread still held; returns how many. Its thread must have ended. */
export function releaseLocksOf(buffer: SharedArrayBuffer, ownerId: number): number {
  const { words, buckets } = openClientTable(buffer, ownerId);
  let released = releaseDeadLock(words, HEADER_FREE_LOCK, ownerId) ? 1 : 0;
  for (let bucket = 0; bucket < buckets; bucket++) {
    if (releaseDeadLock(words, HEADER_WORDS + bucket, ownerId)) released++;
  }
  return released;
}

/** The key's row in the bucket, -1 = none. Under the bucket's lock. */
function findRow(table: ClientTable, bucket: number, hash: number): number {
  const { words, key } = table;
  const first = table.indexWord + bucket * BUCKET_WORDS;
  for (let at = first; at < first + PLACES_PER_BUCKET; at++) {
    if (words[at] !== hash) continue;
    const row = words[at + PLACES_PER_BUCKET];
    const record = recordWord(table, row);
    if (
      words[record + ADDRESS_WORD + 3] === key[3] &&
      words[record + ADDRESS_WORD + 2] === key[2] &&
      words[record + ADDRESS_WORD + 1] === key[1] &&
      words[record + ADDRESS_WORD] === key[0] &&
      words[record + APP_WORD] === key[4]
    ) {
      return row;
    }
  }
  return -1;
}

/** One more session on a known client's row, under its lock. */
function reopenRow(table: ClientTable, row: number, nowMs: number, ttlMs: number): void {
  const { words, doubles } = table;
  const record = recordWord(table, row);
  if (isExpired(table, row, nowMs, ttlMs)) clearBinding(words, record);
  // Never back: threads read the clock once per batch, so one may be a little behind.
  if (nowMs > doubles[record >> 1]) doubles[record >> 1] = nowMs;
  Atomics.add(words, record + OPEN_WORD, 1);
}

/** A row for the client in `table.key`, with one open session. Under both buckets' locks. */
function openNewRow(
  table: ClientTable,
  bucketA: number,
  bucketB: number,
  hash: number,
  nowMs: number,
): number {
  const freeA = freePlaces(table, bucketA);
  const freeB = freePlaces(table, bucketB);
  let row = freeA === 0 && freeB === 0 ? -1 : takeFreeRow(table);
  if (row >= 0) {
    // Into the emptier one: filling one bucket first would lose one client in 60.
    occupyRow(table, row, freePlace(table, freeB > freeA ? bucketB : bucketA), hash, nowMs);
    return row;
  }
  // Expired rows are the ones not seen for longest, so the oldest idle row is the right one.
  row = olderRow(table, oldestIdleRow(table, bucketA), oldestIdleRow(table, bucketB));
  if (row < 0) return row;
  const place = leavePlace(table, row);
  occupyRow(table, row, place, hash, nowMs);
  return row;
}

function freePlaces(table: ClientTable, bucket: number): number {
  const first = table.indexWord + bucket * BUCKET_WORDS;
  let free = 0;
  for (let at = first; at < first + PLACES_PER_BUCKET; at++) {
    if (table.words[at] === 0) free++;
  }
  return free;
}

/** A free place of a bucket that has one. */
function freePlace(table: ClientTable, bucket: number): number {
  const first = table.indexWord + bucket * BUCKET_WORDS;
  let lane = 0;
  while (table.words[first + lane] !== 0) lane++;
  return bucket * PLACES_PER_BUCKET + lane;
}

/** A row freed before, else the next untouched one; -1 = all are in use. */
function takeFreeRow(table: ClientTable): number {
  const { words } = table;
  lockBucket(words, HEADER_FREE_LOCK, table.ownerId);
  let row = words[HEADER_FREE_HEAD] - 1;
  if (row >= 0) {
    words[HEADER_FREE_HEAD] = -1 - words[recordWord(table, row) + PLACE_WORD];
  } else if (words[HEADER_ROWS_EVER] < table.rows) {
    row = words[HEADER_ROWS_EVER];
    // Not a place yet: a sweep may look at the row as soon as it is counted.
    words[recordWord(table, row) + PLACE_WORD] = -1;
    Atomics.store(words, HEADER_ROWS_EVER, row + 1);
  }
  unlockBucket(words, HEADER_FREE_LOCK);
  return row;
}

function oldestIdleRow(table: ClientTable, bucket: number): number {
  const { words } = table;
  const first = table.indexWord + bucket * BUCKET_WORDS;
  let oldest = -1;
  for (let at = first; at < first + PLACES_PER_BUCKET; at++) {
    if (words[at] === 0) continue;
    const row = words[at + PLACES_PER_BUCKET];
    // Only a holder of the lock opens a first session: 0 stays 0 until we unlock.
    if (Atomics.load(words, recordWord(table, row) + OPEN_WORD) !== 0) continue;
    oldest = olderRow(table, oldest, row);
  }
  return oldest;
}

/** The row not seen for longer; either may be -1. */
function olderRow(table: ClientTable, one: number, two: number): number {
  if (one < 0) return two;
  if (two < 0) return one;
  const { doubles } = table;
  const oneSeen = doubles[recordWord(table, one) >> 1];
  return doubles[recordWord(table, two) >> 1] < oneSeen ? two : one;
}

/** Gives a row to the client in `table.key`, with one open session and no binding. */
function occupyRow(
  table: ClientTable,
  row: number,
  place: number,
  hash: number,
  nowMs: number,
): void {
  const { words, key } = table;
  const record = recordWord(table, row);
  words[record + ADDRESS_WORD] = key[0];
  words[record + ADDRESS_WORD + 1] = key[1];
  words[record + ADDRESS_WORD + 2] = key[2];
  words[record + ADDRESS_WORD + 3] = key[3];
  words[record + APP_WORD] = key[4];
  table.doubles[record >> 1] = nowMs;
  // A full bucket. Other rows never use theirs, so its memory stays untouched.
  if (key[4] === CLIENT_LIMIT_APP) table.doubles[table.tokensDouble + row] = 0;
  Atomics.store(words, record + OPEN_WORD, 1);
  words[record + PLACE_WORD] = place;
  const at = placeWord(table, place);
  words[at + PLACES_PER_BUCKET] = row;
  // Last, so that a thread that dies before it leaves no half-written row to be found.
  words[at] = hash;
  Atomics.add(words, HEADER_ROWS_USED, 1);
}

/** Takes an idle row out of the index, under its lock; returns its place. */
function leavePlace(table: ClientTable, row: number): number {
  const { words } = table;
  const record = recordWord(table, row);
  const place = words[record + PLACE_WORD];
  words[placeWord(table, place)] = 0;
  clearBinding(words, record);
  Atomics.sub(words, HEADER_ROWS_USED, 1);
  return place;
}

function clearBinding(words: Int32Array, record: number): void {
  const before = Atomics.exchange(words, record + BINDING_WORD, 0);
  if (before !== 0) Atomics.sub(words, HEADER_BINDINGS, 1);
}

function isExpired(table: ClientTable, row: number, nowMs: number, ttlMs: number): boolean {
  const record = recordWord(table, row);
  // Before last seen is read: a session's end stores last seen first, then counts itself out.
  if (Atomics.load(table.words, record + OPEN_WORD) !== 0) return false;
  return nowMs - table.doubles[record >> 1] >= ttlMs;
}

function placeWord(table: ClientTable, place: number): number {
  const bucket = Math.floor(place / PLACES_PER_BUCKET);
  return table.indexWord + bucket * BUCKET_WORDS + (place % PLACES_PER_BUCKET);
}

function recordWord(table: ClientTable, row: number): number {
  return table.recordsWord + row * RECORD_WORDS;
}
