// Percentiles against exact ones, and that waiting for a slow answer counts as latency of those who wait.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  createHistogram,
  createPace,
  isPaceOver,
  latencyOf,
  recordMs,
  takeAnswer,
  takeDue,
} from './load-pace.ts';

function isNear(actual: number, expected: number): void {
  assert.ok(Math.abs(actual / expected - 1) < 0.016, `${actual} is not near ${expected}`);
}

test('latencyOf() gives percentiles within the error of a bucket, over six orders of magnitude', () => {
  const histogram = createHistogram();
  const values = Array.from({ length: 1000 }, (_, index) => 10 ** (index / 170) / 1000);
  for (const ms of values) recordMs(histogram, ms);
  const latency = latencyOf(histogram);
  assert.equal(latency.count, 1000);
  isNear(latency.p50, values[499] * 1000);
  isNear(latency.p90, values[899] * 1000);
  isNear(latency.p99, values[989] * 1000);
  isNear(latency.p999, values[998] * 1000);
  isNear(latency.max, values[999] * 1000);
});

test('latencyOf() of nothing is 0', () => {
  const expected = { count: 0, p50: 0, p90: 0, p99: 0, p999: 0, max: 0 };
  assert.deepEqual(latencyOf(createHistogram()), expected);
});

/** Time as the load client has it: an array of one element. */
const at = (ms: number): Float64Array => Float64Array.of(ms);

test('takeDue() gives each request its turn at its time, and none after the window', () => {
  const pace = createPace(2, 1000, 100, 0, 0.004);
  assert.equal(takeDue(pace, at(99.9)), -1);
  assert.deepEqual([takeDue(pace, at(100)), takeDue(pace, at(100))], [0, -1]);
  assert.deepEqual([takeDue(pace, at(101.5)), takeDue(pace, at(101.5))], [1, -1]);
  assert.equal(takeAnswer(pace, 0, at(101.6)), false);
  assert.equal(takeAnswer(pace, 1, at(101.6)), false);
  assert.deepEqual([takeDue(pace, at(200)), takeDue(pace, at(200))], [0, 1]);
  assert.equal(takeDue(pace, at(200)), -1, 'the window is over');
  assert.equal(isPaceOver(pace), false, 'two are not answered');
  takeAnswer(pace, 0, at(201));
  takeAnswer(pace, 1, at(201));
  assert.equal(isPaceOver(pace), true);
  isNear(latencyOf(pace.lateness).max, 98_000);
});

test('a slow answer delays the requests behind it, and their latency says so', () => {
  const pace = createPace(1, 1000, 0, 0, 0.01);
  assert.equal(takeDue(pace, at(0)), 0);
  for (let request = 1; request < 10; request++) assert.equal(takeDue(pace, at(9)), -2);
  assert.equal(takeAnswer(pace, 0, at(10)), true, 'the next one is sent at once');
  for (let request = 1; request < 9; request++) assert.equal(takeAnswer(pace, 0, at(10)), true);
  assert.equal(takeAnswer(pace, 0, at(10)), false);
  const { count, p50, max } = latencyOf(pace.latencies);
  assert.equal(count, 10);
  isNear(max, 10_000);
  isNear(p50, 5000);
  assert.equal(latencyOf(pace.lateness).count, 1, 'late because of the proxy is not late');
});

test('requests of the warm-up do not count', () => {
  const pace = createPace(1, 1000, 0, 0.005, 0.005);
  for (let ms = 0; ms < 10; ms++) {
    assert.equal(takeDue(pace, at(ms)), 0);
    takeAnswer(pace, 0, at(ms + (ms < 5 ? 0.9 : 0.1)));
  }
  const latency = latencyOf(pace.latencies);
  assert.equal(latency.count, 5);
  isNear(latency.max, 100);
  assert.equal(latencyOf(pace.lateness).count, 5);
});
