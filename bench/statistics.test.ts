// Medians and quartiles of few values, and ratios that stay within a round.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ratiosByRound, spreadOf } from './statistics.ts';

test('spreadOf() takes median and quartiles, whatever the order', () => {
  assert.deepEqual(spreadOf([5, 1, 4, 2, 3]), { median: 3, q1: 2, q3: 4 });
  assert.deepEqual(spreadOf([4, 1, 3, 2]), { median: 2.5, q1: 1.75, q3: 3.25 });
  assert.deepEqual(spreadOf([7]), { median: 7, q1: 7, q3: 7 });
  assert.throws(() => spreadOf([]), RangeError);
});

test('ratiosByRound() divides within a round, so that a slow round changes nothing', () => {
  const over = new Map([
    [0, 1],
    [1, 10],
    [2, 3],
  ]);
  const under = new Map([
    [1, 20],
    [0, 2],
    [3, 1],
  ]);
  assert.deepEqual(ratiosByRound(over, under), { median: 0.5, q1: 0.5, q3: 0.5 });
  assert.equal(ratiosByRound(over, new Map([[9, 1]])), null);
  assert.equal(ratiosByRound(over, new Map([[0, 0]])), null);
});
