import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createSlotPool, freeSlot, takeSlot } from './slot-pool.ts';

test('takeSlot() gives every slot once, then -1', () => {
  const pool = createSlotPool(3);
  assert.deepEqual([takeSlot(pool), takeSlot(pool), takeSlot(pool)], [0, 1, 2]);
  assert.equal(takeSlot(pool), -1);
  assert.equal(pool.used, 3);
});

test('takeSlot() gives the slot freed last', () => {
  const pool = createSlotPool(10);
  for (let slot = 0; slot < 4; slot++) takeSlot(pool);
  freeSlot(pool, 1);
  freeSlot(pool, 2);
  assert.deepEqual([takeSlot(pool), takeSlot(pool), takeSlot(pool)], [2, 1, 4]);
});

test('freeSlot() refuses a slot never taken, and more slots than are taken', () => {
  const pool = createSlotPool(4);
  assert.throws(() => freeSlot(pool, 0), /never taken/);
  assert.throws(() => freeSlot(pool, -1), /never taken/);
  const slot = takeSlot(pool);
  freeSlot(pool, slot);
  assert.throws(() => freeSlot(pool, slot), /more slots than were taken/);
});

test('a slot pool agrees with a set, whatever is taken and freed', () => {
  const steps = fc.array(fc.nat(20), { maxLength: 300 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 12 }), steps, (capacity, choices) => {
      const pool = createSlotPool(capacity);
      const taken = new Set<number>();
      for (const choice of choices) {
        if (choice % 2 === 0) {
          const slot = takeSlot(pool);
          assert.equal(slot === -1, taken.size === capacity);
          if (slot === -1) continue;
          assert.ok(slot >= 0 && slot < capacity && !taken.has(slot));
          taken.add(slot);
        } else if (taken.size > 0) {
          const slot = [...taken][choice % taken.size] as number;
          taken.delete(slot);
          freeSlot(pool, slot);
        }
        assert.equal(pool.used, taken.size);
      }
    }),
  );
});
