// Bucket locks: one owner at a time, and a dead owner's locks open again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClientJob, ClientReport } from '../testing/client-worker.ts';
import { createBarrier, runWorkers } from '../testing/run-workers.ts';
import { lockBucket, releaseDeadLock, tryLockBucket, unlockBucket } from './client-lock.ts';

test('lockBucket() lets one thread in at a time', async () => {
  const table = new SharedArrayBuffer(8);
  const [threads, operations] = [4, 50_000];
  const barrier = createBarrier(threads);
  const jobs = Array.from(
    { length: threads },
    (_, at): ClientJob => ({ table, barrier, ownerId: at + 1, mode: 'count', keys: 0, operations }),
  );
  await runWorkers<ClientReport>('./client-worker.ts', jobs);
  assert.deepEqual(Array.from(new Int32Array(table)), [0, threads * operations]);
});

test('tryLockBucket() does not wait for a taken lock', () => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  lockBucket(words, 0, 1);
  assert.equal(tryLockBucket(words, 0, 2), false);
  unlockBucket(words, 0);
  assert.equal(tryLockBucket(words, 0, 2), true);
  assert.equal(tryLockBucket(words, 0, 2), false);
});

test('releaseDeadLock() opens only the locks of that owner', () => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  lockBucket(words, 0, 1);
  assert.equal(releaseDeadLock(words, 0, 2), false);
  assert.equal(tryLockBucket(words, 0, 2), false);
  assert.equal(releaseDeadLock(words, 0, 1), true);
  assert.equal(releaseDeadLock(words, 0, 1), false);
  assert.equal(tryLockBucket(words, 0, 2), true);
});

test('lockBucket() goes on when a dead owner it slept for is released', async () => {
  const table = new SharedArrayBuffer(8);
  const words = new Int32Array(table);
  lockBucket(words, 0, 9);
  const job: ClientJob = {
    table,
    barrier: createBarrier(1),
    ownerId: 1,
    mode: 'count',
    keys: 0,
    operations: 10,
  };
  const reports = runWorkers<ClientReport>('./client-worker.ts', [job]);
  // The mark of a sleeper on the lock shows that the other thread waits.
  const deadline = Date.now() + 10_000;
  while (Atomics.load(words, 0) === 9 && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.equal(words[1], 0);
  assert.equal(releaseDeadLock(words, 0, 9), true);
  await reports;
  assert.deepEqual(Array.from(words), [0, 10]);
});
