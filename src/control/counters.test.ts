import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  BACKEND_BYTES,
  BACKEND_CONNECTIONS,
  BACKEND_STATS,
  createWorkerStats,
  openWorkerStats,
  STAT_RETRIES,
} from '../proxy/stats.ts';
import { Counters } from './counters.ts';

test('Counters sums the workers, and starts a backend at zero where the index was used before', () => {
  const buffers: SharedArrayBuffer[] = [];
  const counters = new Counters(() => buffers);
  assert.equal(counters.total(STAT_RETRIES), 0);
  buffers.push(createWorkerStats(), createWorkerStats());
  const [one, two] = buffers.map(openWorkerStats) as [
    ReturnType<typeof openWorkerStats>,
    ReturnType<typeof openWorkerStats>,
  ];
  one.totals[STAT_RETRIES] = 2;
  two.totals[STAT_RETRIES] = 3;
  assert.equal(counters.total(STAT_RETRIES), 5);

  const at = 7 * BACKEND_STATS;
  one.backends[at + BACKEND_CONNECTIONS] = 10;
  two.backends[at + BACKEND_BYTES] = 500;
  counters.restartBackend(7);
  counters.restartBackend(8);
  assert.equal(counters.backend(7, BACKEND_CONNECTIONS), 0);
  one.backends[at + BACKEND_CONNECTIONS]++;
  two.backends[at + BACKEND_CONNECTIONS] += 2;
  assert.equal(counters.backend(7, BACKEND_CONNECTIONS), 3);
  assert.equal(counters.backend(7, BACKEND_BYTES), 0);
  counters.restartBackend(7);
  assert.equal(counters.backend(7, BACKEND_CONNECTIONS), 0);
  one.backends[8 * BACKEND_STATS] = 1;
  assert.equal(counters.backend(8, BACKEND_CONNECTIONS), 1);
});
