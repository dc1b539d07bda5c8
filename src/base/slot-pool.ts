// Slots: small integers that name rows of typed arrays. Freed ones are used again last-in first-out, so a proxy with few
// sessions touches few rows however many it may have.

import { assert } from './assert.ts';

export interface SlotPool {
  readonly capacity: number;
  /** Freed slots, a stack of `freeCount`. */
  readonly free: Int32Array;
  freeCount: number;
  /** Slots never used yet start here: nothing is written at start. */
  fresh: number;
  used: number;
}

export function createSlotPool(capacity: number): SlotPool {
  return { capacity, free: new Int32Array(capacity), freeCount: 0, fresh: 0, used: 0 };
}

/** A free slot, or -1 when all are taken. */
export function takeSlot(pool: SlotPool): number {
  if (pool.freeCount > 0) {
    pool.used++;
    pool.freeCount--;
    return pool.free[pool.freeCount];
  }
  if (pool.fresh === pool.capacity) return -1;
  pool.used++;
  return pool.fresh++;
}

export function freeSlot(pool: SlotPool, slot: number): void {
  assert(slot >= 0 && slot < pool.fresh, 'Freed a slot that was never taken');
  assert(pool.used > 0, 'Freed more slots than were taken');
  pool.used--;
  pool.free[pool.freeCount++] = slot;
}
