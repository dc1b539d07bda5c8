// The mutable shared numbers of every backend, by backend index: open sessions, gate bits, breaker,
// slow start and drain. One fixed-size buffer for the life of the process; every write goes through
// Atomics. `active` is written by the workers (select.ts), `gate` by health, breaker and drain
// logic, the breaker's words by breaker.ts, `rampEnd` by slow-start.ts, `ends` by end-quota.ts. All
// zero: nothing is amiss.
// Times here are ticks of 100 ms: whole ms would overflow 31 bits after 24 days, ticks in 6 years.

import { BACKENDS_MAX } from '../limits.ts';

/** Any gate bit excludes the backend from new sessions, bound ones included. */
export const GATE_HEALTH = 1;
export const GATE_BREAKER = 2;
export const GATE_DRAIN = 4;
export const GATE_PATH = 8;

export const BACKEND_TICK_MS = 100;

export interface BackendState {
  /** Open sessions plus reservations; never above the backend's hard limit. */
  readonly active: Int32Array;
  /** GATE_ bits; 0 lets sessions in. */
  readonly gate: Int32Array;
  /** Breaker: open or closed, what it counts, ejections so far; see breaker.ts. */
  readonly breaker: Int32Array;
  /** Tick of the breaker's next trial; while closed the tick it closed at. */
  readonly breakerAt: Int32Array;
  /** Tick at which slow start ends; 0 = none. */
  readonly rampEnd: Int32Array;
  /** Sessions that are to be ended now; see end-quota.ts. */
  readonly ends: Int32Array;
}

const ARRAYS = 6;

export function createBackendState(): SharedArrayBuffer {
  return new SharedArrayBuffer(BACKENDS_MAX * Int32Array.BYTES_PER_ELEMENT * ARRAYS);
}

export function openBackendState(buffer: SharedArrayBuffer): BackendState {
  const bytes = BACKENDS_MAX * Int32Array.BYTES_PER_ELEMENT;
  const array = (index: number) => new Int32Array(buffer, index * bytes, BACKENDS_MAX);
  return {
    active: array(0),
    gate: array(1),
    breaker: array(2),
    breakerAt: array(3),
    rampEnd: array(4),
    ends: array(5),
  };
}

/** The tick of a time in ms since the start; the same start for all threads. */
export function backendTick(nowMs: number): number {
  return Math.floor(nowMs / BACKEND_TICK_MS);
}

/**
 * Adds a session unless the backend is full (0 = no limit).
 * Compare-exchange rather than add, check and undo: `active` is then never above the limit, not
 * even for a moment, so no other worker or metric sees a backend full that has room.
 */
export function reserveActive(state: BackendState, backend: number, hardLimit: number): boolean {
  const { active } = state;
  if (hardLimit === 0) {
    Atomics.add(active, backend, 1);
    return true;
  }
  // A plain read may be stale: then the exchange fails and says the true count.
  let seen = active[backend];
  while (seen < hardLimit) {
    // A lost exchange means another worker moved the count: progress for one of them.
    const before = Atomics.compareExchange(active, backend, seen, seen + 1);
    if (before === seen) return true;
    seen = before;
  }
  return false;
}
