import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EndQuotaJob } from '../testing/end-quota-worker.ts';
import { createBarrier, runWorkers } from '../testing/run-workers.ts';
import { createBackendState, openBackendState } from './backend-state.ts';
import { endsLeft, grantEnds, revokeEnds, takeEnd } from './end-quota.ts';

const BACKEND = 65_534;

test('takeEnd() gives as many as were granted, to that incarnation alone', () => {
  const state = openBackendState(createBackendState());
  // The highest half of the word makes it negative.
  for (const incarnation of [0, 1, 0x7fff, 0x8000, 0xffff]) {
    assert.equal(takeEnd(state, BACKEND, incarnation), false);
    grantEnds(state, BACKEND, incarnation, 2);
    grantEnds(state, BACKEND, incarnation, 1);
    assert.equal(endsLeft(state, BACKEND, incarnation), 3);
    const other = (incarnation + 1) & 0xffff;
    assert.equal(endsLeft(state, BACKEND, other), 0);
    assert.equal(takeEnd(state, BACKEND, other), false);
    assert.equal(takeEnd(state, BACKEND - 1, incarnation), false);
    for (let left = 2; left >= 0; left--) {
      assert.equal(takeEnd(state, BACKEND, incarnation), true);
      assert.equal(endsLeft(state, BACKEND, incarnation), left);
    }
    assert.equal(takeEnd(state, BACKEND, incarnation), false);
  }
});

test('grantEnds() drops what was left for another incarnation, and holds no more than it can', () => {
  const state = openBackendState(createBackendState());
  grantEnds(state, 0, 7, 5);
  grantEnds(state, 0, 8, 1);
  assert.equal(endsLeft(state, 0, 7), 0);
  assert.equal(endsLeft(state, 0, 8), 1);
  grantEnds(state, 0, 8, 100_000);
  assert.equal(endsLeft(state, 0, 8), 65_535);
  revokeEnds(state, 0);
  assert.equal(endsLeft(state, 0, 8), 0);
  assert.equal(takeEnd(state, 0, 8), false);
});

test('takeEnd() loses and doubles nothing under four threads and grants meanwhile', async () => {
  const buffer = createBackendState();
  const state = openBackendState(buffer);
  const done = new SharedArrayBuffer(4);
  const barrier = createBarrier(4);
  const job: EndQuotaJob = { state: buffer, done, barrier, backend: 3, incarnation: 0xfffe };
  const running = runWorkers<number>('./end-quota-worker.ts', [job, job, job, job]);
  let granted = 0;
  while (granted < 500_000) {
    const left = endsLeft(state, 3, 0xfffe);
    if (left < 10_000) {
      grantEnds(state, 3, 0xfffe, 1000);
      granted += 1000;
    }
    // The threads start by messages of this one.
    if (granted % 50_000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  Atomics.store(new Int32Array(done), 0, 1);
  const taken = await running;
  assert.equal(
    taken.reduce((sum, count) => sum + count, 0),
    granted,
  );
});
