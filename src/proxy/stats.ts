// Counters of one worker: a block of Float64 in shared memory with a single writer, read (and summed) by the control
// plane at any time. Aligned 64-bit stores do not tear, so plain loads and stores do.

import { BACKENDS_MAX, COUNTRIES_MAX } from '../limits.ts';
import { CLOSE_REASONS, REJECT_REASONS, REJECTED } from './close-reason.ts';

export const STAT_CONNECTIONS = 0;
export const STAT_CURRENT = 1;
/** Received bytes by side: + 0 from clients (up), + 1 from backends (down). */
export const STAT_BYTES = 2;
export const STAT_RETRIES = 4;
export const STAT_BUFFERS_IN_USE = 5;
export const STAT_BUFFER_WAITS = 6;
export const STAT_PUMPS = 7;
export const STAT_STALE_EVENTS = 8;
export const STAT_BATCHES = 9;
export const STAT_EVENTS = 10;
export const STAT_UNBOUND_SESSIONS = 11;
export const STAT_LIMIT_DRY_RUN = 12;
export const STAT_FAIL_OPEN = 13;
export const STAT_ACCESS_DRY_RUN = 14;
/** Session slots ever used: open sessions are in slots below. */
export const STAT_SLOTS = 15;
/** By close reason. */
export const STAT_END = 16;
/** By rejection reason. */
export const STAT_REJECTED = STAT_END + REJECTED;
/** By errno, 0 to 255. */
export const STAT_ACCEPT_ERRORS = STAT_REJECTED + 32;
/** By country index of the client: sessions opened, and of those ended. */
export const STAT_COUNTRY_OPENED = STAT_ACCEPT_ERRORS + 256;
export const STAT_COUNTRY_ENDED = STAT_COUNTRY_OPENED + COUNTRIES_MAX;
/** Connect times of all backends together, by bucket of CONNECT_MS_BUCKETS. */
export const STAT_CONNECT_BUCKETS = STAT_COUNTRY_ENDED + COUNTRIES_MAX;
/** Sessions connected, by tier of their backend, 0 to 3. */
export const STAT_TIER = STAT_CONNECT_BUCKETS + 16;
/** Sessions that went to the backend their client was bound to. */
export const STAT_BOUND_SESSIONS = STAT_TIER + 4;
/** Receive buffers the worker may have in use at once. */
export const STAT_BUFFERS_MAX = STAT_BOUND_SESSIONS + 1;
export const STAT_DURATION_MS_SUM = STAT_BUFFERS_MAX + 1;
/** Records of the session log left out because there were too many of their kind (session-records.ts). */
export const STAT_RECORDS_LIMITED = STAT_DURATION_MS_SUM + 1;
export const STAT_DURATION_BUCKETS = STAT_RECORDS_LIMITED + 1;

/** Upper bounds of the histogram of session durations, in ms; one more bucket takes the rest. */
export const DURATION_MS_BUCKETS: readonly number[] = [
  10, 100, 1000, 10_000, 60_000, 300_000, 1_800_000, 3_600_000, 14_400_000, 86_400_000,
];
const STATS = STAT_DURATION_BUCKETS + DURATION_MS_BUCKETS.length + 1;

/** Upper bounds of the connect-time histogram, in ms; one more bucket takes the rest. */
export const CONNECT_MS_BUCKETS: readonly number[] = [
  0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 3000,
];
export const BACKEND_CONNECTIONS = 0;
export const BACKEND_FAILURES = 1;
export const BACKEND_CONNECT_MS_SUM = 2;
/** Received bytes by side, as in STAT_BYTES. */
export const BACKEND_BYTES = 3;
export const BACKEND_CONNECT_BUCKETS = 5;
export const BACKEND_STATS = BACKEND_CONNECT_BUCKETS + CONNECT_MS_BUCKETS.length + 1;

export interface WorkerStats {
  readonly totals: Float64Array;
  /** BACKEND_STATS per backend index; untouched indexes cost no memory. */
  readonly backends: Float64Array;
}

export function createWorkerStats(): SharedArrayBuffer {
  if (CLOSE_REASONS.length > REJECTED || REJECT_REASONS.length > 32) {
    throw new RangeError('Cannot lay out worker stats: more than 32 reasons');
  }
  if (CONNECT_MS_BUCKETS.length >= 16) {
    throw new RangeError('Cannot lay out worker stats: more than 16 buckets');
  }
  return new SharedArrayBuffer((STATS + BACKENDS_MAX * BACKEND_STATS) * 8);
}

export function openWorkerStats(buffer: SharedArrayBuffer): WorkerStats {
  return {
    totals: new Float64Array(buffer, 0, STATS),
    backends: new Float64Array(buffer, STATS * 8),
  };
}

/** Counts a connect that took from `startedAt[slot]` to `clock[0]`. (Arrays: times as arguments would be boxed.) */
export function countConnect(
  stats: WorkerStats,
  backend: number,
  clock: Float64Array,
  startedAt: Float64Array,
  slot: number,
): void {
  const ms = clock[0] - startedAt[slot];
  const at = backend * BACKEND_STATS;
  stats.backends[at + BACKEND_CONNECTIONS]++;
  stats.backends[at + BACKEND_CONNECT_MS_SUM] += ms;
  let bucket = 0;
  while (bucket < CONNECT_MS_BUCKETS.length && ms > CONNECT_MS_BUCKETS[bucket]) bucket++;
  stats.backends[at + BACKEND_CONNECT_BUCKETS + bucket]++;
  stats.totals[STAT_CONNECT_BUCKETS + bucket]++;
}

/** Counts a session that ends at `clock[0]` and was accepted at `acceptedAt[slot]`. */
export function countDuration(
  stats: WorkerStats,
  clock: Float64Array,
  acceptedAt: Float64Array,
  slot: number,
): void {
  const ms = clock[0] - acceptedAt[slot];
  stats.totals[STAT_DURATION_MS_SUM] += ms;
  let bucket = 0;
  while (bucket < DURATION_MS_BUCKETS.length && ms > DURATION_MS_BUCKETS[bucket]) bucket++;
  stats.totals[STAT_DURATION_BUCKETS + bucket]++;
}

export function countConnectFailure(stats: WorkerStats, backend: number): void {
  stats.backends[backend * BACKEND_STATS + BACKEND_FAILURES]++;
}
