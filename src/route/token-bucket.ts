// The rate limit of new connections per client address: a token bucket in the client's limit row of
// the client table, shared by all workers. An IPv6 client is its /64: it commands all of it.
// The row is of its own app, so one limit covers all apps; its open sessions are the client's
// concurrent ones, so it also serves a limit of those. Only the time at which the bucket is full
// again is kept: tokens missing = (fullAt - now) * rate. One number under one lock, no refill.

import { unlockBucket } from './client-lock.ts';
import {
  acquireClient,
  CLIENT_LIMIT_APP,
  type ClientTable,
  keepClientUntil,
  lockLimitRow,
} from './client-table.ts';

/** Share of a token by which rounding may err: none is granted early by it. */
const TOLERANCE = 0.001;
/** As the data plane keys IPv4 clients: IPv4-mapped, so that none meets an IPv6 client's key. */
const MAPPED_WORD = 0xffff;

/** The address words a client's limits go by. `family` 4 or 6, IPv4 in `w3`. */
export function limitKey(
  key: Int32Array,
  family: number,
  w0: number,
  w1: number,
  w3: number,
): void {
  const v4 = family === 4;
  key[0] = v4 ? 0 : w0;
  key[1] = v4 ? 0 : w1;
  key[2] = v4 ? MAPPED_WORD : 0;
  key[3] = v4 ? w3 : 0;
}

/**
 * The client's limit row with one more open session: give it back with releaseClient(), at once or
 * with the session when clientOpenSessions() shall count it. -1 when the table has no room.
 */
export function acquireLimitRow(
  table: ClientTable,
  family: number,
  w0: number,
  w1: number,
  w3: number,
  nowMs: number,
): number {
  const { key } = table;
  limitKey(key, family, w0, w1, w3);
  // No binding here that could expire, so the TTL means nothing.
  return acquireClient(table, key[0], key[1], key[2], key[3], CLIENT_LIMIT_APP, nowMs, 0);
}

/**
 * Takes a token, or returns false when none is left. `capacity` is what a full bucket holds: what a
 * client may do at once after a pause, the requests of a window plus the burst; it refills at
 * `ratePerMs`, the requests of a window over its length. The caller holds a session on the row.
 */
export function takeToken(
  table: ClientTable,
  row: number,
  nowMs: number,
  ratePerMs: number,
  capacity: number,
): boolean {
  const { doubles } = table;
  const at = table.tokensDouble + row;
  const tokenMs = 1 / ratePerMs;
  // All of this client's takers take the same lock: between read and write there is no other.
  const lock = lockLimitRow(table, row);
  const fullAt = Math.max(doubles[at], nowMs) + tokenMs;
  const granted = fullAt - nowMs <= (capacity + TOLERANCE) * tokenMs;
  if (granted) {
    doubles[at] = fullAt;
    // Forgotten earlier, the client would find a full bucket again.
    keepClientUntil(table, row, fullAt);
  }
  unlockBucket(table.words, lock);
  return granted;
}
