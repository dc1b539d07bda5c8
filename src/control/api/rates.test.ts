import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  BACKEND_CONNECT_BUCKETS,
  BACKEND_FAILURES,
  BACKEND_STATS,
  CONNECT_MS_BUCKETS,
  createWorkerStats,
  openWorkerStats,
  STAT_CONNECTIONS,
} from '../../proxy/stats.ts';
import type { WorkerPool } from '../worker-pool.ts';
import { percentileMs, perSecond, Rates, sumTotals } from './rates.ts';

const BUCKETS = CONNECT_MS_BUCKETS.length + 1;

/** Two workers, a clock, and rates that began at 1000 ms. */
function setUp() {
  const buffers = [createWorkerStats(), createWorkerStats()];
  const pool = { stats: () => buffers } as unknown as WorkerPool;
  const clock = { nowMs: 1000 };
  const rates = new Rates(
    pool,
    1000,
    () => 3,
    () => clock.nowMs,
  );
  const [one, two] = buffers.map(openWorkerStats) as [
    ReturnType<typeof openWorkerStats>,
    ReturnType<typeof openWorkerStats>,
  ];
  const at = (nowMs: number): void => {
    clock.nowMs = nowMs;
    rates.move();
  };
  const connections = (): [number, number] => {
    const { values, ms } = rates.totals(sumTotals(pool));
    return [values[STAT_CONNECTIONS] as number, ms];
  };
  return { rates, one, two, at, connections };
}

test('totals() covers the time since the start, then one to two seconds, all workers together', () => {
  const { rates, one, two, at, connections } = setUp();
  one.totals[STAT_CONNECTIONS] = 3;
  two.totals[STAT_CONNECTIONS] = 4;
  at(1500);
  assert.deepEqual(connections(), [7, 500]);
  at(2000);
  one.totals[STAT_CONNECTIONS] += 10;
  at(2400);
  assert.deepEqual(connections(), [17, 1400], 'less than a second later nothing has moved');
  at(3000);
  assert.deepEqual(connections(), [10, 1000]);
  one.totals[STAT_CONNECTIONS] += 5;
  at(3800);
  assert.deepEqual(connections(), [15, 1800]);
  at(4000);
  assert.deepEqual(connections(), [5, 1000]);
  at(9000);
  at(10_000);
  assert.deepEqual(connections(), [0, 1000]);
  rates.close();
});

test('backend() covers five to ten seconds of one backend, one that is new included', () => {
  const { rates, one, two, at } = setUp();
  const count = (worker: typeof one, index: number, stat: number, more: number): void => {
    worker.backends[index * BACKEND_STATS + stat] += more;
  };
  const recent = (index: number) => {
    const { values, failed, ms } = rates.backend([one, two], index);
    return { values: [...values], failed, ms };
  };
  const buckets = (...pairs: [bucket: number, count: number][]): number[] => {
    const values = new Array<number>(BUCKETS).fill(0);
    for (const [bucket, value] of pairs) values[bucket] = value;
    return values;
  };
  count(one, 2, BACKEND_CONNECT_BUCKETS, 1);
  count(two, 2, BACKEND_CONNECT_BUCKETS + BUCKETS - 1, 2);
  count(two, 2, BACKEND_FAILURES, 4);
  at(3000);
  const first = { values: buckets([0, 1], [BUCKETS - 1, 2]), failed: 4, ms: 2000 };
  assert.deepEqual(recent(2), first);
  assert.deepEqual(recent(1), { values: buckets(), failed: 0, ms: 2000 });
  at(6000);
  at(11_000);
  count(one, 2, BACKEND_CONNECT_BUCKETS + 1, 7);
  count(one, 7, BACKEND_CONNECT_BUCKETS + 3, 5);
  at(12_000);
  assert.deepEqual(recent(2), { values: buckets([1, 7]), failed: 0, ms: 6000 });
  assert.deepEqual(recent(7), { values: buckets([3, 5]), failed: 0, ms: 6000 });
  rates.close();
});

test('percentileMs() lies within its bucket, and is null without a connect', () => {
  const buckets = new Float64Array(BUCKETS);
  assert.equal(percentileMs(buckets, 0.5), null);
  buckets[2] = 100;
  assert.equal(percentileMs(buckets, 0.5), 0.75, 'half way from 0.5 to 1 ms');
  assert.equal(percentileMs(buckets, 1), 1);
  buckets[0] = 100;
  assert.equal(percentileMs(buckets, 0.5), 0.25);
  buckets[BUCKETS - 1] = 1000;
  assert.equal(percentileMs(buckets, 0.99), 3000, 'above the last bound');
  for (const share of [0.01, 0.2, 0.5, 0.9, 0.99]) {
    const value = percentileMs(buckets, share);
    assert.ok(value !== null && value >= 0 && value <= 3000, `${share}: ${value}`);
  }
});

test('perSecond() is a rate to three digits', () => {
  assert.equal(perSecond(10, 1500), 6.67);
  assert.equal(perSecond(0, 1), 0);
  assert.equal(perSecond(123_456, 1000), 123_000);
});
