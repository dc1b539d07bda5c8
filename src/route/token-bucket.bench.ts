// Nanoseconds per token, with a hash of what was granted: `node src/route/token-bucket.bench.ts`.

import { getHeapStatistics } from 'node:v8';
import { createClientTable, openClientTable, releaseClient } from './client-table.ts';
import { acquireLimitRow, takeToken } from './token-bucket.ts';

const CLIENTS = 10_000;
const table = openClientTable(createClientTable(1_000_000, [0x0bad_5eed, 0x1234_5678]), 1);
const TURNS = 1_000_000;

function measure(name: string, operation: (turn: number) => number): void {
  const results: number[] = [];
  let hash = 0;
  let allocated = 0;
  for (let round = 0; round < 6; round++) {
    const allocatedBefore = getHeapStatistics().total_allocated_bytes;
    const started = process.hrtime.bigint();
    for (let turn = 0; turn < TURNS; turn++) hash = (Math.imul(hash, 31) + operation(turn)) | 0;
    const ns = Number(process.hrtime.bigint() - started) / TURNS;
    allocated = (getHeapStatistics().total_allocated_bytes - allocatedBefore) / TURNS;
    if (round > 0) results.push(ns);
  }
  results.sort((one, two) => one - two);
  const [least, most] = [results[0].toFixed(0), results[4].toFixed(0)];
  const result = (hash >>> 0).toString(16).padStart(8, '0');
  process.stdout.write(
    `${name.padEnd(44)} ${results[2].toFixed(0).padStart(6)} ns  (${least}..${most})` +
      `  ${allocated.toFixed(1)} B  ${result}\n`,
  );
}

const held = acquireLimitRow(table, 4, 0, 0, 1, 0);
const limit = { ratePerMs: 0.1, capacity: 110 };
measure('takeToken, one client, mostly refused', (turn) =>
  Number(takeToken(table, held, turn >> 4, limit.ratePerMs, limit.capacity)),
);

measure(`acquire + takeToken + release, ${CLIENTS} clients`, (turn) => {
  const nowMs = turn >> 4;
  const row = acquireLimitRow(table, 6, turn % CLIENTS, 7, 9, nowMs);
  const granted = takeToken(table, row, nowMs, limit.ratePerMs, limit.capacity);
  releaseClient(table, row, nowMs);
  return Number(granted);
});
