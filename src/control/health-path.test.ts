// Health checks and the breaker while the path to a backend is dead: what fails then is not the backend's fault.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../base/log.ts';
import {
  createBackendState,
  GATE_HEALTH,
  GATE_PATH,
  openBackendState,
} from '../route/backend-state.ts';
import { forgiveFailures, isBreakerOpen, NO_TRIAL, noteFailure } from '../route/breaker.ts';
import { HealthChecker } from './health.ts';
import type { CheckOutcome } from './health-probe.ts';
import type { RawBackend } from './routing-rows.ts';

const ROW: RawBackend = {
  id: 'a',
  app: 'web',
  region: 'sa',
  country: null,
  family: 4,
  words: [0, 0, 0, 0x0a00_0001],
  port: 80,
  healthy: true,
  weight: 1,
  softLimit: 100,
  hardLimit: 0,
  deleted: false,
  check: null,
  drain: null,
  proxyProtocol: null,
};

/** Checks are ended by hand, with any outcome. */
function setUp() {
  let now = 0;
  let waiting: { at: number; work: () => void } | null = null;
  const open: ((outcome: CheckOutcome) => void)[] = [];
  const state = openBackendState(createBackendState());
  const events: unknown[] = [];
  const write = (line: string): void => void events.push(JSON.parse(line).event);
  const health = new HealthChecker(
    {
      intervalMs: 1000,
      timeoutMs: 500,
      healthyThreshold: 2,
      unhealthyThreshold: 3,
      defaults: { type: 'tcp', path: '/' },
      concurrentMax: 10,
    },
    state,
    createLogger({ json: true, write }),
    {
      nowMs: () => now,
      wake: (delayMs, work) => {
        const mine = { at: now + delayMs, work };
        waiting = mine;
        return () => {
          if (waiting === mine) waiting = null;
        };
      },
      random: () => 0,
      startProbe: (_host, _check, done) => {
        open.push(done);
        return { expire: () => {}, cancel: () => {} };
      },
    },
  );
  const begin = (): void => {
    while (open.length === 0 && waiting !== null) {
      const { at, work }: { at: number; work: () => void } = waiting;
      waiting = null;
      now = Math.max(now, at);
      work();
    }
  };
  const end = (result: CheckOutcome['result']): void => {
    open.pop()?.({ result, reason: result });
  };
  const check = (result: CheckOutcome['result']): void => {
    begin();
    end(result);
  };
  health.update([ROW], () => 0);
  const setPath = (dead: boolean): void => {
    if (dead) Atomics.or(state.gate, 0, GATE_PATH);
    else Atomics.and(state.gate, 0, ~GATE_PATH);
  };
  return { state, health, events, check, begin, end, setPath, now: () => now };
}

test('HealthChecker counts failures over a dead path as inconclusive, also of a check that began then', () => {
  const { state, health, check, begin, end, setPath } = setUp();
  setPath(true);
  for (let count = 0; count < 10; count++) check('failure');
  begin();
  setPath(false);
  end('failure');
  assert.equal(state.gate[0], 0);
  const { healthy, failure, inconclusive } = health.backend('a') ?? assert.fail();
  assert.deepEqual([healthy, failure, inconclusive], [true, 0, 11]);
  for (let count = 0; count < 3; count++) check('failure');
  assert.equal(state.gate[0], GATE_HEALTH, 'from now on it is the backend');
});

test('excuse() takes back what was found since the trouble began, and nothing older', () => {
  for (const [sinceMs, expected] of [
    [-1, 0],
    [Number.POSITIVE_INFINITY, GATE_HEALTH],
  ] as const) {
    const { state, health, check, events } = setUp();
    for (let count = 0; count < 3; count++) check('failure');
    assert.equal(state.gate[0], GATE_HEALTH);
    health.excuse(0, sinceMs);
    assert.equal(state.gate[0], expected);
    assert.equal(events.includes('backend_healthy'), expected === 0);
  }
});

test('excuse() begins to count anew', () => {
  const { state, health, check } = setUp();
  check('failure');
  check('failure');
  health.excuse(0, 0);
  check('failure');
  check('failure');
  assert.equal(state.gate[0], 0);
  check('failure');
  assert.equal(state.gate[0], GATE_HEALTH);
});

test('forgiveFailures() begins to count anew, but does not close an open breaker', () => {
  const state = openBackendState(createBackendState());
  const policy = {
    failureThreshold: 3,
    successThreshold: 1,
    ejectionMs: 1000,
    ejectionMsMax: 10_000,
    trialMs: 1000,
  };
  const fail = (count: number): void => {
    for (let at = 0; at < count; at++) noteFailure(state, policy, 0, NO_TRIAL, 1000);
  };
  fail(2);
  forgiveFailures(state, 0);
  fail(2);
  assert.equal(isBreakerOpen(state, 0), false);
  fail(1);
  assert.equal(isBreakerOpen(state, 0), true);
  forgiveFailures(state, 0);
  assert.equal(isBreakerOpen(state, 0), true);
});
