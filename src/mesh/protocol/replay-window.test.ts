import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { acceptCounter, REPLAY_BITS, REPLAY_WORDS, resetReplayWindow } from './replay-window.ts';

const BASE = 3;

function windowAt(): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer((BASE + REPLAY_WORDS + 2) * 4)).fill(-1);
  resetReplayWindow(words, BASE);
  return words;
}

const accept = (words: Int32Array, counter: number): boolean =>
  acceptCounter(words, BASE, counter | 0, Math.floor(counter / 2 ** 32) | 0);

test('acceptCounter() takes each counter once', () => {
  const words = windowAt();
  for (const counter of [0, 1, 5, 3, 4, 2]) assert.ok(accept(words, counter), `${counter}`);
  for (const counter of [0, 1, 2, 3, 4, 5]) assert.ok(!accept(words, counter), `${counter}`);
});

test('acceptCounter() tells at least 2048 counters apart, and refuses older ones', () => {
  assert.ok(REPLAY_BITS >= 2048);
  for (const start of [0, 17, 2 ** 31 - 5, 2 ** 32 - 5000, 2 ** 52]) {
    const words = windowAt();
    assert.ok(accept(words, start + REPLAY_BITS + 1));
    assert.ok(!accept(words, start));
    for (let counter = start + 1; counter <= start + REPLAY_BITS; counter++) {
      if (!accept(words, counter)) assert.fail(`${counter} refused`);
    }
    for (let counter = start; counter <= start + REPLAY_BITS + 1; counter++) {
      if (accept(words, counter)) assert.fail(`${counter} twice`);
    }
  }
});

test('acceptCounter() refuses counters that doubles do not hold', () => {
  const words = windowAt();
  assert.ok(!acceptCounter(words, BASE, 0, 2 ** 21));
  assert.ok(!acceptCounter(words, BASE, -1, -1));
  assert.ok(acceptCounter(words, BASE, -1, 2 ** 21 - 1));
  assert.ok(!accept(words, 0));
});

test('acceptCounter() stays within its words', () => {
  const words = windowAt();
  for (let counter = 0; counter < 100_000; counter += 37) accept(words, counter);
  assert.deepEqual([...words.subarray(0, BASE)], [-1, -1, -1]);
  assert.deepEqual([...words.subarray(BASE + REPLAY_WORDS)], [-1, -1]);
});

test('acceptCounter() does as a set of all counters would', () => {
  const jump = fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: -40, max: 40 }) },
    { weight: 4, arbitrary: fc.integer({ min: -9_000, max: 9_000 }) },
    { weight: 1, arbitrary: fc.integer({ min: -1e6, max: 1e10 }) },
  );
  fc.assert(
    fc.property(fc.array(jump, { minLength: 50, maxLength: 400 }), (jumps) => {
      const words = windowAt();
      const seen = new Set<number>();
      let greatest = 0;
      for (const by of jumps) {
        const counter = Math.max(0, greatest + by);
        const expected = counter + REPLAY_BITS >= greatest && !seen.has(counter);
        assert.equal(accept(words, counter), expected, `${counter} after ${greatest}`);
        seen.add(counter);
        greatest = Math.max(greatest, counter);
      }
    }),
    { numRuns: 200 },
  );
});
