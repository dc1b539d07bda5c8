import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  advanceTimers,
  clearTimer,
  createTimerWheel,
  setTimer,
  type TimerWheel,
} from './timer-wheel.ts';

const TICK_MS = 100;
/** The wheel has 512 buckets: a deadline further away fires here. */
const HORIZON_MS = 511 * TICK_MS;

function fire(wheel: TimerWheel, nowMs: number): number[] {
  return [...wheel.fired.subarray(0, advanceTimers(wheel, nowMs))].sort((a, b) => a - b);
}

test('advanceTimers() fires a timer at its deadline or up to one tick later, once', () => {
  const wheel = createTimerWheel(4, TICK_MS, 0);
  setTimer(wheel, 2, 250);
  assert.deepEqual(fire(wheel, 299), []);
  assert.deepEqual(fire(wheel, 300), [2]);
  assert.deepEqual(fire(wheel, 100_000), []);
  assert.equal(wheel.count, 0);
});

test('setTimer() refuses a timer that is set', () => {
  const wheel = createTimerWheel(4, TICK_MS, 0);
  setTimer(wheel, 0, 1000);
  assert.throws(() => setTimer(wheel, 0, 2000), /set twice/);
});

test('clearTimer() forgets a timer anywhere in its bucket, and one that is not set', () => {
  const wheel = createTimerWheel(5, TICK_MS, 0);
  for (let slot = 0; slot < 5; slot++) setTimer(wheel, slot, 500);
  for (const slot of [0, 2, 4]) clearTimer(wheel, slot);
  clearTimer(wheel, 2);
  assert.equal(wheel.count, 2);
  assert.deepEqual(fire(wheel, 600), [1, 3]);
});

test('setTimer() brings a deadline beyond the horizon forward to it', () => {
  const wheel = createTimerWheel(1, TICK_MS, 0);
  setTimer(wheel, 0, 10 * HORIZON_MS);
  assert.deepEqual(fire(wheel, HORIZON_MS - 1), []);
  assert.deepEqual(fire(wheel, HORIZON_MS), [0]);
});

test('advanceTimers() misses nothing after a pause longer than the wheel', () => {
  const wheel = createTimerWheel(600, TICK_MS, 0);
  for (let slot = 0; slot < 600; slot++) setTimer(wheel, slot, slot * TICK_MS);
  assert.equal(advanceTimers(wheel, 1_000 * HORIZON_MS), 600);
});

/** The same by looking at every timer: what fires, and never too early. */
class Model {
  readonly deadlines = new Map<number, number>();
  tick = 0;

  set(slot: number, deadlineMs: number): void {
    const wanted = Math.ceil(deadlineMs / TICK_MS);
    this.deadlines.set(slot, Math.min(Math.max(wanted, this.tick + 1), this.tick + 511));
  }

  fire(nowMs: number): number[] {
    this.tick = Math.max(this.tick, Math.floor(nowMs / TICK_MS));
    const due = [...this.deadlines].filter(([, tick]) => tick <= this.tick).map(([slot]) => slot);
    for (const slot of due) this.deadlines.delete(slot);
    return due.sort((a, b) => a - b);
  }
}

test('a timer wheel fires what a plain list would, in any order of setting, clearing and waiting', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('set'), slot: fc.nat(15), ms: fc.nat(70_000) }),
    fc.record({ kind: fc.constant('clear'), slot: fc.nat(15), ms: fc.constant(0) }),
    fc.record({ kind: fc.constant('wait'), slot: fc.constant(0), ms: fc.nat(60_000) }),
    fc.record({ kind: fc.constant('wait'), slot: fc.constant(0), ms: fc.nat(300) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const wheel = createTimerWheel(16, TICK_MS, 0);
      const model = new Model();
      let now = 0;
      for (const { kind, slot, ms } of steps) {
        if (kind === 'set' && !model.deadlines.has(slot)) {
          setTimer(wheel, slot, now + ms);
          model.set(slot, now + ms);
        } else if (kind === 'clear') {
          clearTimer(wheel, slot);
          model.deadlines.delete(slot);
        } else if (kind === 'wait') {
          now += ms;
          assert.deepEqual(fire(wheel, now), model.fire(now));
        }
        assert.equal(wheel.count, model.deadlines.size);
      }
    }),
  );
});
