// A thread that opens and ends client sessions in a shared client table as fast as it can.
// Started by client-table.test.ts; jobs meet at a barrier so that they really run at once.

import { parentPort, workerData } from 'node:worker_threads';
import { lockBucket, unlockBucket } from '../route/client-lock.ts';
import {
  acquireClient,
  bindClient,
  clientBackend,
  clientIncarnation,
  clientOpenSessions,
  openClientTable,
  releaseClient,
} from '../route/client-table.ts';
import { type Barrier, meet } from './run-workers.ts';

export interface ClientJob {
  readonly table: SharedArrayBuffer;
  readonly barrier: Barrier;
  readonly ownerId: number;
  /** `hold`: open all keys, meet, close all. `churn`: random sessions. `count`: locks only. */
  readonly mode: 'hold' | 'churn' | 'count';
  readonly keys: number;
  readonly operations: number;
}

export interface ClientReport {
  /** Mode hold: the row of each key. */
  readonly rows: readonly number[];
  /** Mode churn: things that must not happen. */
  readonly violations: readonly string[];
  readonly refused: number;
}

const TTL_MS = 50;

/** A small generator of its own, so that each thread goes another way. */
function createRandom(seed: number): (end: number) => number {
  let state = Math.imul(seed, 0x9e37_79b1) | 1;
  return (end) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % end;
  };
}

function hold(job: ClientJob): ClientReport {
  const table = openClientTable(job.table, job.ownerId);
  const random = createRandom(job.ownerId);
  const rows: number[] = [];
  const order = Array.from({ length: job.keys }, (_, key) => key);
  for (let at = order.length - 1; at > 0; at--) {
    const other = random(at + 1);
    [order[at], order[other]] = [order[other], order[at]];
  }
  meet(job.barrier);
  for (let round = 0; round < job.operations; round++) {
    for (const key of order) rows[key] = acquireClient(table, 0, 0, 0xffff, key, 1, 1, TTL_MS);
  }
  // First all have opened, then the main thread has looked (it meets nobody: it waits for us).
  meet(job.barrier);
  const violations: string[] = [];
  for (const key of order) {
    const open = clientOpenSessions(table, rows[key]);
    if (open !== job.operations * job.barrier.threads) violations.push(`key ${key}: ${open} open`);
  }
  meet(job.barrier);
  for (let round = 0; round < job.operations; round++) {
    for (const key of order) releaseClient(table, rows[key], 2);
  }
  return { rows, violations, refused: 0 };
}

function churn(job: ClientJob): ClientReport {
  const table = openClientTable(job.table, job.ownerId);
  const random = createRandom(job.ownerId);
  const violations: string[] = [];
  const sessions: { row: number; key: number }[] = [];
  let refused = 0;
  meet(job.barrier);
  for (let nowMs = 0; nowMs < job.operations; nowMs++) {
    const key = random(job.keys);
    const row = acquireClient(table, 0, 0, 0xffff, key, 1, nowMs, TTL_MS);
    if (row < 0) {
      refused++;
    } else {
      // Every binding is made with a backend that names its key: another key's would show here.
      const backend = clientBackend(table, row);
      if (backend >= 0 && backend !== key) violations.push(`key ${key} bound to ${backend}`);
      if (backend >= 0 && clientIncarnation(table, row) !== key + 1) violations.push('incarnation');
      if (clientOpenSessions(table, row) < 1) violations.push('no session though open');
      if (random(2) === 0) bindClient(table, row, key, key + 1, nowMs);
      sessions.push({ row, key });
    }
    if (sessions.length > random(12)) {
      const [session] = sessions.splice(random(sessions.length), 1);
      const backend = clientBackend(table, session.row);
      if (backend >= 0 && backend !== session.key) violations.push('row changed hands while open');
      releaseClient(table, session.row, nowMs);
    }
  }
  for (const { row } of sessions) releaseClient(table, row, job.operations);
  return { rows: [], violations, refused };
}

/** Adds to a plain number under one lock: word 0 is the lock, word 1 the number. */
function count(job: ClientJob): ClientReport {
  const words = new Int32Array(job.table);
  meet(job.barrier);
  for (let turn = 0; turn < job.operations; turn++) {
    lockBucket(words, 0, job.ownerId);
    words[1]++;
    unlockBucket(words, 0);
  }
  return { rows: [], violations: [], refused: 0 };
}

const job: ClientJob = workerData;
const modes = { hold, churn, count };
parentPort?.postMessage(modes[job.mode](job));
