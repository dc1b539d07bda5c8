// One coarse timer per slot: a hashed wheel of doubly linked lists in typed arrays. Setting and clearing cost a few
// stores. A deadline beyond the wheel's horizon fires at the horizon; the owner looks at its real deadline and sets again.
// (Varghese and Lauck, Hashed and hierarchical timing wheels, 1987.)

import { assert } from './assert.ts';

const BUCKETS = 512;
const NONE = 0;

export interface TimerWheel {
  readonly tickMs: number;
  /** First timer of each bucket; slot + 1, 0 = none. */
  readonly first: Int32Array;
  /** Neighbours in the bucket, by slot; slot + 1, 0 = none. */
  readonly next: Int32Array;
  readonly previous: Int32Array;
  /** Bucket + 1 the slot's timer is in, 0 = not set. */
  readonly bucket: Int32Array;
  /** Fired slots of the last advance. */
  readonly fired: Int32Array;
  count: number;
  tick: number;
}

export function createTimerWheel(slots: number, tickMs: number, nowMs: number): TimerWheel {
  return {
    tickMs,
    first: new Int32Array(BUCKETS),
    next: new Int32Array(slots),
    previous: new Int32Array(slots),
    bucket: new Int32Array(slots),
    fired: new Int32Array(slots),
    count: 0,
    tick: Math.floor(nowMs / tickMs),
  };
}

/** Sets the slot's timer, which must not be set, to fire at or up to one tick after `deadlineMs`. */
export function setTimer(wheel: TimerWheel, slot: number, deadlineMs: number): void {
  setTimerTicks(wheel, slot, Math.ceil(deadlineMs / wheel.tickMs) - wheel.tick);
}

/** The same, `ticks` from the wheel's own time; whole numbers are not boxed as arguments, times are. */
export function setTimerTicks(wheel: TimerWheel, slot: number, wanted: number): void {
  assert(wheel.bucket[slot] === NONE, 'A timer was set twice');
  const ticks = wanted < 1 ? 1 : wanted >= BUCKETS ? BUCKETS - 1 : wanted;
  const bucket = (wheel.tick + ticks) % BUCKETS;
  const head = wheel.first[bucket];
  wheel.next[slot] = head;
  wheel.previous[slot] = NONE;
  if (head !== NONE) wheel.previous[head - 1] = slot + 1;
  wheel.first[bucket] = slot + 1;
  wheel.bucket[slot] = bucket + 1;
  wheel.count++;
}

/** Clears the slot's timer if it is set. */
export function clearTimer(wheel: TimerWheel, slot: number): void {
  const bucket = wheel.bucket[slot] - 1;
  if (bucket < 0) return;
  const next = wheel.next[slot];
  const previous = wheel.previous[slot];
  if (previous === NONE) wheel.first[bucket] = next;
  else wheel.next[previous - 1] = next;
  if (next !== NONE) wheel.previous[next - 1] = previous;
  wheel.bucket[slot] = NONE;
  wheel.count--;
}

/** Moves to `nowMs`; the slots whose time came are in `fired[0..result-1]` and no longer set. */
export function advanceTimers(wheel: TimerWheel, nowMs: number): number {
  return advanceToTick(wheel, Math.floor(nowMs / wheel.tickMs));
}

/** The same, to a time in whole ticks. */
export function advanceToTick(wheel: TimerWheel, target: number): number {
  let fired = 0;
  // After a long pause one turn of the wheel meets every timer; with no timer there is nothing to meet.
  if (target - wheel.tick > BUCKETS) wheel.tick = target - BUCKETS;
  if (wheel.count === 0 && target > wheel.tick) wheel.tick = target;
  while (wheel.tick < target) {
    wheel.tick++;
    let entry = wheel.first[wheel.tick % BUCKETS];
    wheel.first[wheel.tick % BUCKETS] = NONE;
    while (entry !== NONE) {
      const slot = entry - 1;
      entry = wheel.next[slot];
      wheel.bucket[slot] = NONE;
      wheel.count--;
      wheel.fired[fired++] = slot;
    }
  }
  return fired;
}
