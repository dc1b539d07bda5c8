// The mutable shared numbers of every backend, by backend index: open sessions and gate bits.
// One fixed-size buffer for the life of the process; every write goes through Atomics.
// `active` is written by the workers (select.ts), `gate` by health, breaker and drain logic.

import { BACKENDS_MAX } from '../limits.ts';

/** Any gate bit excludes the backend from new sessions, bound ones included. */
export const GATE_HEALTH = 1;
export const GATE_BREAKER = 2;
export const GATE_DRAIN = 4;
export const GATE_PATH = 8;

export interface BackendState {
  /** Open sessions plus reservations; never above the backend's hard limit. */
  readonly active: Int32Array;
  /** GATE_ bits; 0 lets sessions in. */
  readonly gate: Int32Array;
}

export function createBackendState(): SharedArrayBuffer {
  return new SharedArrayBuffer(BACKENDS_MAX * Int32Array.BYTES_PER_ELEMENT * 2);
}

export function openBackendState(buffer: SharedArrayBuffer): BackendState {
  const bytes = BACKENDS_MAX * Int32Array.BYTES_PER_ELEMENT;
  return {
    active: new Int32Array(buffer, 0, BACKENDS_MAX),
    gate: new Int32Array(buffer, bytes, BACKENDS_MAX),
  };
}
