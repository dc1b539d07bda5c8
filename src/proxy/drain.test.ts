import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Proactor } from '../engine/proactor.ts';
import { createBackendState } from '../route/backend-state.ts';
import { createClientTable } from '../route/client-table.ts';
import { endsLeft, grantEnds } from '../route/end-quota.ts';
import { parseMmdb } from '../route/mmdb.ts';
import { encodeSnapshot } from '../route/snapshot.ts';
import { writeMmdb } from '../testing/mmdb-writer.ts';
import { testBackend, testRoutingData } from '../testing/routing-data.ts';
import { REASON_DRAINED } from './close-reason.ts';
import { endDrained, startEnding } from './drain.ts';
import {
  STATE_CLOSING,
  STATE_CONNECTING,
  STATE_FREE,
  STATE_RELAYING,
  sharedSessionsBytes,
} from './sessions.ts';
import { createControlBlock, createGlobalBlock } from './shared.ts';
import { createWorkerStats, STAT_END } from './stats.ts';
import { createWorkerState, type WorkerState } from './worker-state.ts';

const SLOTS = 100_000;
const INCARNATION = 3;
const LOOKS_MAX = 4096;
const ENDS_MAX = 64;

/** A worker with `slots` sessions, each at the backend that `backendOf` says; nothing is in flight. */
function workerWith(slots: number, backendOf: (slot: number) => number): WorkerState {
  const clock = (target: Float64Array): void => void target.fill(0);
  const engine = { bufferCount: 1, readClock: clock, releaseBuffer() {}, cancel() {} };
  const memory = {
    control: createControlBlock(),
    global: createGlobalBlock(),
    stats: createWorkerStats(),
    sessions: new SharedArrayBuffer(sharedSessionsBytes(SLOTS)),
    backendState: createBackendState(),
    clients: createClientTable(16, [1, 2]),
    routing: encodeSnapshot(testRoutingData([testBackend({})])),
    access: new SharedArrayBuffer(0),
    geo: parseMmdb(writeMmdb([], { metadata: { database_type: 'None' } })),
    records: null,
  };
  const worker = createWorkerState(engine as unknown as Proactor, memory, {
    workerId: 1,
    seed: 1,
    epochMs: 0,
    listeners: [],
    maxConnections: SLOTS,
    connectTimeoutMs: 1,
    connectTotalTimeoutMs: 1,
    connectRetries: 0,
    idleTimeoutMs: 0,
    halfClosedTimeoutMs: 0,
    bindingTtlMs: 0,
    keepaliveSecs: 0,
    userTimeoutSecs: 0,
  });
  const { sessions, backendState } = worker;
  sessions.slots.fresh = slots;
  sessions.slots.used = slots;
  for (let slot = 0; slot < slots; slot++) {
    sessions.state[slot] = slot % 2 === 0 ? STATE_RELAYING : STATE_CONNECTING;
    sessions.backend[slot] = backendOf(slot) + 1;
    sessions.incarnation[slot] = INCARNATION;
    backendState.active[backendOf(slot)]++;
  }
  return worker;
}

const ended = (worker: WorkerState): number => worker.stats.totals[STAT_END + REASON_DRAINED];

/** Batches until the search is over; checks the bounds of each. */
function search(worker: WorkerState): number {
  for (let batches = 0; ; batches++) {
    if (worker.drainLeft === 0) return batches;
    const [endedBefore, leftBefore] = [ended(worker), worker.drainLeft];
    endDrained(worker);
    assert.ok(ended(worker) - endedBefore <= ENDS_MAX, 'ends of one batch');
    assert.ok(leftBefore - worker.drainLeft <= LOOKS_MAX, 'looks of one batch');
  }
}

test('endDrained() ends what is granted of a backend, connecting or relaying, and no other', () => {
  const worker = workerWith(1000, (slot) => slot % 3);
  grantEnds(worker.backendState, 1, INCARNATION, 100);
  grantEnds(worker.backendState, 2, INCARNATION + 1, 100);
  startEnding(worker);
  search(worker);
  assert.equal(ended(worker), 100);
  assert.deepEqual([...worker.backendState.active.subarray(0, 3)], [334, 233, 333]);
  assert.equal(endsLeft(worker.backendState, 1, INCARNATION), 0);
  const { state } = worker.sessions;
  const free = state.subarray(0, 1000).filter((value) => value === STATE_FREE).length;
  assert.equal(free, 100);
  grantEnds(worker.backendState, 1, INCARNATION, 1000);
  startEnding(worker);
  search(worker);
  assert.equal(ended(worker), 333);
  assert.equal(endsLeft(worker.backendState, 1, INCARNATION), 1000 - 233, 'the rest is kept');
});

test('endDrained() leaves a session alone that ends already', () => {
  const worker = workerWith(3, () => 0);
  worker.sessions.state[1] = STATE_CLOSING;
  grantEnds(worker.backendState, 0, INCARNATION, 2);
  startEnding(worker);
  search(worker);
  assert.equal(ended(worker), 2);
  assert.equal(worker.sessions.state[1], STATE_CLOSING);
});

test('endDrained() goes through 100,000 slots in short batches', () => {
  const worker = workerWith(SLOTS, (slot) => (slot % 1000 === 999 ? 1 : 0));
  grantEnds(worker.backendState, 1, INCARNATION, 65_535);
  startEnding(worker);
  assert.equal(search(worker), Math.ceil(SLOTS / LOOKS_MAX));
  assert.equal(ended(worker), SLOTS / 1000);
  grantEnds(worker.backendState, 0, INCARNATION, 10_000);
  startEnding(worker);
  search(worker);
  assert.equal(ended(worker), SLOTS / 1000 + 10_000);
});

test('endDrained() reaches every slot though it is asked again after each batch', () => {
  const worker = workerWith(SLOTS, (slot) => (slot === SLOTS - 1 ? 1 : 0));
  grantEnds(worker.backendState, 1, INCARNATION, 1);
  for (let batch = 0; batch <= SLOTS / LOOKS_MAX; batch++) {
    startEnding(worker);
    endDrained(worker);
  }
  assert.equal(ended(worker), 1);
});
