// The breaker against a plain model, what selection makes of it, and real threads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { BreakerJob, BreakerReport } from '../testing/breaker-worker.ts';
import { testBackend, testRoutingData } from '../testing/routing-data.ts';
import { createBarrier, runWorkers } from '../testing/run-workers.ts';
import {
  type BackendState,
  createBackendState,
  GATE_BREAKER,
  GATE_HEALTH,
  openBackendState,
} from './backend-state.ts';
import {
  BREAKER_CLOSED,
  BREAKER_OPENED,
  BREAKER_SAME,
  type BreakerPolicy,
  breakerEjections,
  checkBreakerPolicy,
  isBreakerOpen,
  NO_TRIAL,
  noteFailure,
  noteSuccess,
  resetBreaker,
  tryHalfOpen,
} from './breaker.ts';
import {
  ALL_FULL,
  createSelector,
  NO_BACKEND,
  releaseBackend,
  reserveBackend,
  reserveBound,
  type Selector,
  type SelectorOptions,
  setSelectorTime,
  useSnapshot,
} from './select.ts';
import { encodeSnapshot, openSnapshot, type RoutingBackend } from './snapshot.ts';

const NONE = new Int32Array(0);
const POLICY: BreakerPolicy = {
  failureThreshold: 3,
  successThreshold: 2,
  ejectionMs: 1000,
  ejectionMsMax: 2500,
  trialMs: 700,
};
/** What a tick adds to every time, for being a whole number. */
const TICK_MS = 100;

function newState(): BackendState {
  return openBackendState(createBackendState());
}

/** The rules said plainly, in ms; trials are named by their deadline. */
class Model {
  open = false;
  failures = 0;
  wins = 0;
  ejections = 0;
  at = 0;

  #eject(nowMs: number): number {
    this.ejections++;
    this.wins = 0;
    this.open = true;
    const ms = Math.min(POLICY.ejectionMs * this.ejections, POLICY.ejectionMsMax);
    return nowMs + ms + TICK_MS;
  }

  fail(trial: number, nowMs: number): number {
    if (this.open) {
      if (trial !== this.at) return BREAKER_SAME;
      this.at = this.#eject(nowMs);
      return BREAKER_OPENED;
    }
    this.failures++;
    if (this.failures < POLICY.failureThreshold) return BREAKER_SAME;
    const quietMs = Math.max(0, nowMs - this.at);
    const forgiven = Math.floor(quietMs / (POLICY.ejectionMs + TICK_MS));
    this.ejections = Math.max(0, this.ejections - forgiven);
    this.at = Math.max(this.at, this.#eject(nowMs));
    return BREAKER_OPENED;
  }

  succeed(trial: number, nowMs: number): number {
    if (!this.open) {
      this.failures = 0;
      return BREAKER_SAME;
    }
    if (trial === 0) return BREAKER_SAME;
    if (trial === this.at) this.at = nowMs;
    this.wins++;
    if (this.wins < POLICY.successThreshold) return BREAKER_SAME;
    this.open = false;
    this.failures = 0;
    return BREAKER_CLOSED;
  }

  try(nowMs: number): number {
    if (!this.open || this.at > nowMs) return 0;
    this.at = nowMs + TICK_MS + POLICY.trialMs;
    return this.at;
  }
}

test('the breaker behaves like the model, for any reports in any order', () => {
  const step = fc.record({
    kind: fc.constantFrom('fail', 'succeed', 'succeed', 'try', 'try', 'wait', 'wait'),
    // Which of the trials not yet reported; most reports are no trial's.
    which: fc.constantFrom(0, 0, 1, 1, 1, 2),
    waitTicks: fc.constantFrom(1, 5, 8, 11, 11, 40),
  });
  const ever = { opened: 0, closed: 0, expired: 0 };
  fc.assert(
    fc.property(fc.array(step, { minLength: 100, maxLength: 300 }), (steps) => {
      const [state, model, backend] = [newState(), new Model(), 77];
      const trials: number[] = [];
      let nowMs = 5000;
      for (const { kind, which, waitTicks } of steps) {
        if (kind === 'wait') nowMs += waitTicks * TICK_MS;
        if (kind === 'try') {
          const trial = tryHalfOpen(state, POLICY, backend, nowMs / TICK_MS);
          assert.equal(trial * TICK_MS, model.try(nowMs));
          if (trial !== NO_TRIAL) trials.push(trial);
        }
        if (kind === 'fail' || kind === 'succeed') {
          const [trial] = which === 0 ? [NO_TRIAL] : trials.splice(which - 1, 1);
          if (trial === undefined) continue;
          if (trial !== NO_TRIAL && trial * TICK_MS !== model.at) ever.expired++;
          const note = kind === 'fail' ? noteFailure : noteSuccess;
          const change = note(state, POLICY, backend, trial, nowMs);
          const expected =
            kind === 'fail'
              ? model.fail(trial * TICK_MS, nowMs)
              : model.succeed(trial * TICK_MS, nowMs);
          assert.equal(change, expected);
          if (change === BREAKER_OPENED) ever.opened++;
          if (change === BREAKER_CLOSED) ever.closed++;
        }
        assert.equal(isBreakerOpen(state, backend), model.open);
        assert.equal(state.gate[backend], model.open ? GATE_BREAKER : 0);
        assert.equal(breakerEjections(state, backend), model.ejections);
      }
      assert.equal(state.gate[backend - 1] | state.gate[backend + 1], 0);
    }),
    { numRuns: 3000, seed: 7 },
  );
  for (const count of Object.values(ever)) assert.ok(count > 100, JSON.stringify(ever));
});

/** Fails `backend` until its breaker opens. */
function eject(state: BackendState, backend: number, nowMs = 0): void {
  while (noteFailure(state, POLICY, backend, NO_TRIAL, nowMs) !== BREAKER_OPENED);
}

test('noteFailure() opens at the threshold of consecutive failures only', () => {
  const state = newState();
  for (let round = 0; round < 5; round++) {
    noteFailure(state, POLICY, 0, NO_TRIAL, 0);
    noteFailure(state, POLICY, 0, NO_TRIAL, 0);
    assert.equal(noteSuccess(state, POLICY, 0, NO_TRIAL, 0), BREAKER_SAME);
  }
  assert.equal(isBreakerOpen(state, 0), false);
  eject(state, 0);
  assert.equal(state.gate[0], GATE_BREAKER);
  const off = { ...POLICY, failureThreshold: 0 };
  for (let turn = 0; turn < 100; turn++) noteFailure(state, off, 1, NO_TRIAL, 0);
  assert.equal(isBreakerOpen(state, 1), false);
});

test('noteFailure() makes each ejection longer, up to the longest, and quiet time forgives', () => {
  const state = newState();
  const dueAfter = (nowMs: number) => {
    for (let ms = 0; ; ms += TICK_MS) {
      const trial = tryHalfOpen(state, POLICY, 0, (nowMs + ms) / TICK_MS);
      if (trial !== NO_TRIAL) return { ms, trial };
    }
  };
  eject(state, 0);
  let nowMs = 0;
  for (const expectedMs of [1100, 2100, 2600, 2600]) {
    const { ms, trial } = dueAfter(nowMs);
    assert.equal(ms, expectedMs);
    nowMs += ms;
    noteFailure(state, POLICY, 0, trial, nowMs);
  }
  nowMs += dueAfter(nowMs).ms;
  resetBreaker(state, 0);
  assert.equal(state.gate[0], 0);
  eject(state, 0, nowMs);
  assert.equal(breakerEjections(state, 0), 1, 'a reset forgets');
});

test('an ejection is never shorter than set, wherever within a tick it starts', () => {
  for (const startMs of [0, 1, 50, 99, 100, 12_345]) {
    const state = newState();
    eject(state, 0, startMs);
    let nowMs = startMs;
    while (tryHalfOpen(state, POLICY, 0, Math.floor(nowMs / TICK_MS)) === NO_TRIAL) nowMs++;
    assert.ok(nowMs >= startMs + POLICY.ejectionMs && nowMs <= startMs + POLICY.ejectionMs + 100);
  }
});

test('a gate that a dead thread left wrong is put right', () => {
  const state = newState();
  eject(state, 0);
  Atomics.store(state.gate, 0, 0);
  noteFailure(state, POLICY, 0, NO_TRIAL, 0);
  assert.equal(state.gate[0], GATE_BREAKER);
  Atomics.store(state.gate, 1, GATE_BREAKER | GATE_HEALTH);
  assert.equal(tryHalfOpen(state, POLICY, 1, 1000), NO_TRIAL);
  assert.equal(state.gate[1], GATE_HEALTH);
});

test('checkBreakerPolicy() refuses what the shared words cannot hold', () => {
  checkBreakerPolicy(POLICY);
  checkBreakerPolicy({ ...POLICY, failureThreshold: 0, successThreshold: 1000 });
  const wrong: Partial<BreakerPolicy>[] = [
    { failureThreshold: 1001 },
    { failureThreshold: -1 },
    { successThreshold: 0 },
    { successThreshold: 1001 },
    { ejectionMs: 0 },
    { ejectionMsMax: 999 },
    { ejectionMsMax: 86_400_001 },
    { trialMs: Number.NaN },
  ];
  for (const fields of wrong) {
    assert.throws(() => checkBreakerPolicy({ ...POLICY, ...fields }), {
      name: 'RangeError',
      message: /^Cannot use breaker .* must be \d+ to \d+$/,
    });
  }
});

function selectorFor(
  backends: readonly RoutingBackend[],
  options: Partial<SelectorOptions> = {},
): Selector {
  const selector = createSelector(newState(), 1, { breaker: POLICY, ...options });
  useSnapshot(selector, openSnapshot(encodeSnapshot(testRoutingData(backends))));
  return selector;
}

function reserve(selector: Selector): number {
  return reserveBackend(selector, 1, 0, NONE, 0);
}

test('reserveBackend() gives an ejected backend one trial at a time, when its time is over', () => {
  const selector = selectorFor([
    testBackend({ index: 0, softLimit: 1000 }),
    testBackend({ index: 1 }),
  ]);
  const { state } = selector;
  eject(state, 0);
  setSelectorTime(selector, 1000);
  assert.equal(reserve(selector), 1);
  setSelectorTime(selector, 1100);
  for (let win = 0; win < POLICY.successThreshold; win++) {
    assert.equal(reserve(selector), 0);
    const { trial } = selector;
    assert.notEqual(trial, NO_TRIAL);
    assert.deepEqual([reserve(selector), selector.trial], [1, NO_TRIAL]);
    assert.equal(isBreakerOpen(state, 0), true);
    noteSuccess(state, POLICY, 0, trial, 1100);
  }
  assert.equal(isBreakerOpen(state, 0), false);
  assert.deepEqual([reserve(selector), selector.trial], [0, NO_TRIAL]);
});

test('reserveBackend() starts no trial on a backend at its hard limit', () => {
  const selector = selectorFor([testBackend({ index: 0, hardLimit: 1 })]);
  eject(selector.state, 0);
  selector.state.active[0] = 1;
  setSelectorTime(selector, 5000);
  const before = selector.state.breakerAt[0];
  assert.equal(reserve(selector), ALL_FULL);
  assert.equal(selector.state.breakerAt[0], before);
});

test('reserveBackend() finds the due trials of a tier above 64, each once', () => {
  const backends = Array.from({ length: 100 }, (_, index) => testBackend({ index }));
  const selector = selectorFor(backends);
  for (const { index } of backends) eject(selector.state, index, index < 50 ? 0 : 9000);
  setSelectorTime(selector, 5000);
  const picked = new Set(Array.from({ length: 50 }, () => reserve(selector)));
  assert.deepEqual(
    [...picked].sort((one, two) => one - two),
    Array.from(backends.keys()).slice(0, 50),
  );
  assert.equal(reserve(selector), NO_BACKEND);
  const active = selector.state.active.subarray(0, 100);
  assert.equal(
    active.reduce((sum, one) => sum + one, 0),
    50,
    'lost trials give their place back',
  );
});

test('reserveBackend() fails open only when breakers alone leave no backend', () => {
  const three = [0, 1, 2].map((index) => testBackend({ index, hardLimit: 2 }));
  const closed = selectorFor(three);
  const selector = selectorFor(three, { failOpen: true });
  for (const { state } of [closed, selector]) {
    for (const { index } of three) eject(state, index);
    Atomics.or(state.gate, 2, GATE_HEALTH);
  }
  assert.equal(reserve(closed), NO_BACKEND);
  const picks = Array.from({ length: 4 }, () => [reserve(selector), selector.failedOpen]);
  assert.deepEqual(picks.sort(), [
    [0, true],
    [0, true],
    [1, true],
    [1, true],
  ]);
  assert.deepEqual([reserve(selector), selector.failedOpen], [ALL_FULL, false]);
  releaseBackend(selector.state, 0);
  Atomics.store(selector.state.gate, 1, 0);
  assert.deepEqual(
    [reserve(selector), selector.failedOpen],
    [ALL_FULL, false],
    'backend 1 is full',
  );
  releaseBackend(selector.state, 1);
  assert.deepEqual([reserve(selector), selector.failedOpen], [1, false]);
  // A client's own failures are not forgiven by it.
  Atomics.store(selector.state.gate, 1, GATE_HEALTH);
  assert.equal(reserveBackend(selector, 1, 0, Int32Array.of(0), 1), NO_BACKEND);
  assert.deepEqual([reserveBound(selector, 1, 0, 1), selector.failedOpen], [false, false]);
});

test('reserveBackend() treats a due trial as an open gate, and fails open to ejected ones', () => {
  const gateArbitrary = fc.record({
    ejected: fc.constantFrom(-1, -1, 0, 50_000),
    health: fc.constantFrom(0, 0, 0, GATE_HEALTH),
    active: fc.nat(3),
  });
  const world = fc.record({
    backends: fc.array(
      fc.record({ weight: fc.constantFrom(1, 2), hardLimit: fc.nat(3), region: fc.nat(1) }),
      { minLength: 1, maxLength: 90 },
    ),
    gates: fc.array(gateArbitrary, { minLength: 90, maxLength: 90 }),
    failOpen: fc.boolean(),
  });
  fc.assert(
    fc.property(world, ({ backends: rows, gates, failOpen }) => {
      const backends = rows.map((fields, index) => testBackend({ index, ...fields }));
      const nowMs = 20_000;
      /** A selector that sees what counts as shut in plain gates. */
      const plain = (isOpen: (ejected: number) => boolean) => {
        const selector = selectorFor(backends, { breaker: null });
        gates.forEach(({ ejected, health, active }, index) => {
          selector.state.gate[index] = isOpen(ejected) ? health : GATE_HEALTH;
          selector.state.active[index] = active;
        });
        return reserve(selector);
      };
      const selector = selectorFor(backends, { failOpen });
      const { state } = selector;
      gates.forEach(({ ejected, health, active }, index) => {
        if (ejected >= 0) eject(state, index, ejected);
        Atomics.or(state.gate, index, health);
        state.active[index] = active;
      });
      setSelectorTime(selector, nowMs);
      const [random] = selector.random;
      const picked = reserve(selector);
      const first = plain((ejected) => ejected < nowMs);
      const open = failOpen && first === NO_BACKEND;
      assert.equal(selector.failedOpen, open && picked >= 0);
      if (!open) assert.equal(picked, first);
      else if (selector.random[0] === random)
        assert.equal(
          picked,
          plain(() => true),
        );
      const isTrial = picked >= 0 && !open && gates[picked].ejected >= 0;
      assert.equal(selector.trial !== NO_TRIAL, isTrial);
    }),
    { numRuns: 1500 },
  );
});

async function runThreads(fields: Partial<BreakerJob>): Promise<{
  readonly state: BackendState;
  readonly sum: (field: keyof BreakerReport) => number;
}> {
  const [threads, stateBuffer] = [4, createBackendState()];
  const backends = [testBackend({ index: 0, hardLimit: 100 })];
  const barrier = createBarrier(threads);
  const shared = new SharedArrayBuffer(8);
  const snapshot = encodeSnapshot(testRoutingData(backends));
  const jobs = Array.from({ length: threads }, (_, at) => ({
    ...{ snapshot, state: stateBuffer, shared, barrier, seed: at + 1, operations: 20_000 },
    ...{ mode: 'use', policy: { ...POLICY, trialMs: 86_400_000 } },
    ...fields,
  }));
  const reports = await runWorkers<BreakerReport>('./breaker-worker.ts', jobs);
  const sum = (field: keyof BreakerReport) =>
    reports.reduce((total, report) => total + report[field], 0);
  return { state: openBackendState(stateBuffer), sum };
}

test('noteFailure() opens once, however many threads report at one moment', async () => {
  const { state, sum } = await runThreads({ mode: 'fail', operations: 5000 });
  assert.equal(sum('opened'), 1);
  assert.equal(breakerEjections(state, 0), 1);
  assert.equal(state.gate[0], GATE_BREAKER);
});

test('the breaker admits one trial at a time over all threads', async () => {
  const { state, sum } = await runThreads({});
  assert.equal(sum('violations'), 0);
  assert.ok(sum('trials') > 50 && sum('closed') > 10, `${sum('trials')} ${sum('closed')}`);
  assert.ok(sum('opened') >= sum('closed') && sum('sessions') > sum('trials'));
  assert.equal(state.gate[0], isBreakerOpen(state, 0) ? GATE_BREAKER : 0);
  assert.equal(state.active[0], 0);
});
