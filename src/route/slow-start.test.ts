// Slow start: the share of weight over time, and what selection makes of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { testBackend, testRoutingData } from '../testing/routing-data.ts';
import { createBackendState, openBackendState } from './backend-state.ts';
import { explainSelection } from './candidates.ts';
import {
  createSelector,
  reserveBackend,
  type Selector,
  setSelectorTime,
  useSnapshot,
} from './select.ts';
import { rampFactor, startRamp } from './slow-start.ts';
import { encodeSnapshot, openSnapshot, type RoutingBackend } from './snapshot.ts';

function selectorFor(backends: readonly RoutingBackend[], rampMs: number): Selector {
  const selector = createSelector(openBackendState(createBackendState()), 1, { rampMs });
  useSnapshot(selector, openSnapshot(encodeSnapshot(testRoutingData(backends))));
  return selector;
}

/** Sessions of backend 1, whose ramp runs, after `sessions` on it and equals of it. */
function shareOfRamped(selector: Selector, sessions: number, nowMs: number): number {
  selector.state.active.fill(0);
  setSelectorTime(selector, nowMs);
  for (let turn = 0; turn < sessions; turn++) {
    reserveBackend(selector, 1, 0, new Int32Array(0), 0);
  }
  return selector.state.active[1] / sessions;
}

test('rampFactor() grows from a tenth to one over the ramp', () => {
  assert.equal(rampFactor(300, 0, 300), 0.1);
  assert.equal(rampFactor(300, 30, 300), 0.1);
  assert.equal(rampFactor(300, 150, 300), 0.5);
  assert.equal(rampFactor(300, 299, 300), 1 - 1 / 300);
  assert.equal(rampFactor(300, 300, 300), 1);
  assert.equal(rampFactor(300, 3000, 300), 1);
  assert.equal(rampFactor(300, 0, 0), 1, 'off');
  fc.assert(
    fc.property(fc.nat(1000), fc.nat(1000), fc.nat(1000), (end, tick, ramp) => {
      const factor = rampFactor(end, tick, ramp);
      assert.ok(factor >= 0.1 && factor <= 1);
      assert.ok(rampFactor(end, tick + 1, ramp) >= factor);
    }),
  );
});

test('reserveBackend() gives a ramping backend the share of its weight', () => {
  const two = [0, 1].map((index) => testBackend({ index }));
  const selector = selectorFor(two, 30_000);
  startRamp(selector.state, 1, 60_000, 30_000);
  const shareAt = (nowMs: number) => shareOfRamped(selector, 11_000, nowMs);
  const close = (share: number, expected: number) =>
    assert.ok(Math.abs(share - expected) < 0.01, `${share} is not ${expected}`);
  close(shareAt(60_000), 0.1 / 1.1);
  close(shareAt(75_000), 0.5 / 1.5);
  close(shareAt(90_000), 0.5);
  startRamp(selector.state, 1, 100_000, 0);
  close(shareAt(100_000), 0.5);
});

test('reserveBackend() ramps in tiers above 64, too, and explainSelection() shows it', () => {
  const many = Array.from({ length: 100 }, (_, index) => testBackend({ index }));
  const selector = selectorFor(many, 10_000);
  for (let index = 0; index < 50; index++) startRamp(selector.state, index, 0, 10_000);
  setSelectorTime(selector, 5000);
  for (let turn = 0; turn < 15_000; turn++) {
    reserveBackend(selector, 1, 0, new Int32Array(0), 0);
  }
  const ramped = selector.state.active.subarray(0, 50).reduce((sum, one) => sum + one, 0);
  assert.ok(ramped > 4500 && ramped < 5500, `${ramped} of 15000`);
  selector.state.active.fill(0);
  const scores = new Map(
    explainSelection(selector, 1, 0).map(({ index, score }) => [index, score]),
  );
  const load = 1 / 100;
  assert.equal(scores.get(0), 200 + load / 0.5);
  assert.equal(scores.get(99), 200 + load);
});

test('a ramp never lets another tier in', () => {
  const [near, far] = [testBackend({ index: 1 }), testBackend({ index: 0, region: 1, country: 3 })];
  const selector = selectorFor([near, far], 30_000);
  startRamp(selector.state, 1, 0, 30_000);
  assert.equal(shareOfRamped(selector, 5000, 0), 1);
});
