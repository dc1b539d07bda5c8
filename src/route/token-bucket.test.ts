// The token bucket against a count in whole numbers, its row's life, and real threads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { LimitJob } from '../testing/limit-worker.ts';
import { createBarrier, runWorkers } from '../testing/run-workers.ts';
import {
  acquireClient,
  type ClientTable,
  clientOpenSessions,
  createClientTable,
  openClientTable,
  releaseClient,
  sweepClients,
} from './client-table.ts';
import { acquireLimitRow, limitKey, takeToken } from './token-bucket.ts';

const SEED = [0x0bad_5eed, 0x1234_5678];

function newTable(rows = 100): ClientTable {
  return openClientTable(createClientTable(rows, SEED), 1);
}

/** Tokens that IPv4 client `client` gets of `wanted`. */
function take(
  table: ClientTable,
  client: number,
  nowMs: number,
  wanted: number,
  ratePerMs: number,
  capacity: number,
): number {
  let granted = 0;
  for (let turn = 0; turn < wanted; turn++) {
    const row = acquireLimitRow(table, 4, 0, 0, client, nowMs);
    if (takeToken(table, row, nowMs, ratePerMs, capacity)) granted++;
    releaseClient(table, row, nowMs);
  }
  return granted;
}

test('takeToken() grants what a bucket counted in whole numbers grants', () => {
  const step = fc.record({ waitMs: fc.oneof(fc.nat(3), fc.nat(300)), wanted: fc.nat(12) });
  const setting = fc.record({
    requests: fc.integer({ min: 1, max: 200 }),
    windowMs: fc.integer({ min: 1, max: 900 }),
    burst: fc.nat(20),
    startMs: fc.nat(2 ** 31),
    steps: fc.array(step, { maxLength: 60 }),
  });
  fc.assert(
    fc.property(setting, ({ requests, windowMs, burst, startMs, steps }) => {
      const table = newTable();
      const capacity = requests + burst;
      // In parts of a token: a millisecond brings `requests` of them, a token has `windowMs`.
      let parts = capacity * windowMs;
      let nowMs = startMs;
      for (const { waitMs, wanted } of steps) {
        nowMs += waitMs;
        parts = Math.min(capacity * windowMs, parts + waitMs * requests);
        const expected = Math.min(wanted, Math.floor(parts / windowMs));
        parts -= expected * windowMs;
        assert.equal(take(table, 1, nowMs, wanted, requests / windowMs, capacity), expected);
      }
    }),
    { numRuns: 1000 },
  );
});

test('takeToken() grants the window and the burst at once, then the window each window', () => {
  const table = newTable();
  const [ratePerMs, capacity] = [100 / 1000, 110];
  assert.equal(take(table, 1, 5000, 500, ratePerMs, capacity), 110);
  assert.equal(take(table, 1, 5009, 10, ratePerMs, capacity), 0);
  assert.equal(take(table, 1, 5010, 10, ratePerMs, capacity), 1);
  assert.equal(take(table, 1, 6010, 500, ratePerMs, capacity), 100);
  assert.equal(take(table, 2, 6010, 500, ratePerMs, capacity), 110, 'a bucket for each client');
  assert.equal(take(table, 1, 60_000, 500, ratePerMs, capacity), 110, 'never above full');
});

test('takeToken() grants nothing more when another thread reads an older clock', () => {
  const table = newTable();
  assert.equal(take(table, 1, 1000, 5, 0.01, 5), 5);
  assert.equal(take(table, 1, 990, 5, 0.01, 5), 0);
  assert.equal(take(table, 1, 1000, 5, 0.01, 5), 0);
});

test('limitKey() is the whole IPv4 address, and the /64 of an IPv6 address', () => {
  const keyOf = (family: number, ...[w0, w1, w3]: [number, number, number]) => {
    const key = new Int32Array(4).fill(-7);
    limitKey(key, family, w0, w1, w3);
    return Array.from(key);
  };
  assert.deepEqual(keyOf(4, 1, 2, -3), [0, 0, 0xffff, -3]);
  assert.deepEqual(keyOf(6, -1, 2, 3), [-1, 2, 0, 0]);
  assert.deepEqual(keyOf(6, -1, 2, 4), keyOf(6, -1, 2, 3));
  assert.notDeepEqual(keyOf(6, -1, 3, 3), keyOf(6, -1, 2, 3));
  assert.notDeepEqual(keyOf(6, 0, 0, 0), keyOf(4, 0, 0, 0));
});

test('acquireLimitRow() counts the open sessions of a client over all its addresses', () => {
  const table = newTable();
  const first = acquireLimitRow(table, 6, 1, 2, 3, 0);
  const second = acquireLimitRow(table, 6, 1, 2, 99, 0);
  assert.equal(second, first);
  assert.equal(clientOpenSessions(table, first), 2);
  releaseClient(table, first, 0);
  assert.equal(clientOpenSessions(table, second), 1);
  // A binding's row of the same words is another one.
  assert.notEqual(acquireClient(table, 1, 2, 0, 0, 0, 0, 1000), first);
});

test('a client whose bucket is not full is kept until it is, and the TTL longer', () => {
  const table = newTable();
  const [ttlMs, ratePerMs] = [100, 1 / 1000];
  assert.equal(take(table, 1, 1000, 9, ratePerMs, 5), 5);
  assert.equal(take(table, 2, 1000, 1, ratePerMs, 5), 1);
  assert.equal(sweepClients(table, 1000 + ttlMs, ttlMs, 0, 100), 0);
  assert.equal(sweepClients(table, 2000 + ttlMs, ttlMs, 0, 100), 1);
  assert.equal(sweepClients(table, 5999 + ttlMs, ttlMs, 0, 100), 0);
  assert.equal(sweepClients(table, 6000 + ttlMs, ttlMs, 0, 100), 1);
});

test('a row given to another client starts with a full bucket', () => {
  const table = newTable(1);
  assert.equal(take(table, 1, 1000, 9, 0.001, 3), 3);
  assert.equal(take(table, 2, 1001, 9, 0.001, 3), 3);
  assert.equal(take(table, 1, 1002, 9, 0.001, 3), 3);
});

test('takeToken() asserts that the row is one for limits', () => {
  const table = newTable();
  const row = acquireClient(table, 0, 0, 0xffff, 1, 1, 0, 1000);
  assert.throws(() => takeToken(table, row, 0, 1, 1), { message: 'Not a row for limits' });
});

async function takeInThreads(fields: Partial<LimitJob>, threads: number): Promise<number[]> {
  const table = createClientTable(1000, SEED);
  const barrier = createBarrier(threads);
  const jobs = Array.from({ length: threads }, (_, at) => ({
    ...{ table, barrier, ownerId: at + 1, clients: 3, operations: 60_000 },
    ...{ operationsPerMs: Number.POSITIVE_INFINITY, ratePerMs: 0.1, capacity: 5000 },
    ...fields,
  }));
  const reports = await runWorkers<number[]>('./limit-worker.ts', jobs);
  return reports[0].map((_, client) => reports.reduce((sum, report) => sum + report[client], 0));
}

test('takeToken() grants exactly a bucket to many threads at one moment', async () => {
  assert.deepEqual(await takeInThreads({}, 4), [5000, 5000, 5000]);
});

test('takeToken() never grants threads more than the bucket and its refill', async () => {
  // 2 s for each thread: 60,000 operations, 30 in a millisecond; the clocks drift as threads do.
  const totals = await takeInThreads({ operationsPerMs: 30, capacity: 50 }, 4);
  for (const total of totals) assert.ok(total >= 50 && total <= 50 + 200, `${total} granted`);
});
