// A thread that takes tokens of a few clients as fast as it can and counts those it got.
// Started by token-bucket.test.ts; all of them begin at once.

import { parentPort, workerData } from 'node:worker_threads';
import { openClientTable, releaseClient } from '../route/client-table.ts';
import { acquireLimitRow, takeToken } from '../route/token-bucket.ts';
import { type Barrier, meet } from './run-workers.ts';

export interface LimitJob {
  readonly table: SharedArrayBuffer;
  readonly barrier: Barrier;
  readonly ownerId: number;
  readonly clients: number;
  readonly operations: number;
  /** Operations of this thread within one millisecond; Infinity: time stands still. */
  readonly operationsPerMs: number;
  readonly ratePerMs: number;
  readonly capacity: number;
}

function run(job: LimitJob): number[] {
  const table = openClientTable(job.table, job.ownerId);
  const granted = new Array<number>(job.clients).fill(0);
  meet(job.barrier);
  for (let turn = 0; turn < job.operations; turn++) {
    const client = turn % job.clients;
    const nowMs = Math.floor(turn / job.operationsPerMs);
    const row = acquireLimitRow(table, 4, 0, 0, client, nowMs);
    if (takeToken(table, row, nowMs, job.ratePerMs, job.capacity)) granted[client]++;
    releaseClient(table, row, nowMs);
  }
  return granted;
}

parentPort?.postMessage(run(workerData));
