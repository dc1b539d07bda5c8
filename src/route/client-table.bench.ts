// Nanoseconds per client session in the client table, with a hash of the rows used:
// `node src/route/client-table.bench.ts`.

import { getHeapStatistics } from 'node:v8';
import {
  acquireClient,
  bindClient,
  clientBackend,
  clientTableBytes,
  clientTableCounts,
  createClientTable,
  openClientTable,
  releaseClient,
  sweepClients,
} from './client-table.ts';

const CAPACITY = 1_000_000;
const SEED = [0x0bad_5eed, 0x1234_5678];
const TTL_MS = 600_000;

function measure(name: string, turns: number, operation: (turn: number) => number): void {
  let hash = 0;
  const allocatedBefore = getHeapStatistics().total_allocated_bytes;
  const started = process.hrtime.bigint();
  for (let turn = 0; turn < turns; turn++) hash = (Math.imul(hash, 31) + operation(turn)) | 0;
  const ns = Number(process.hrtime.bigint() - started) / turns;
  const allocated = (getHeapStatistics().total_allocated_bytes - allocatedBefore) / turns;
  const result = (hash >>> 0).toString(16).padStart(8, '0');
  process.stdout.write(
    `${name.padEnd(44)} ${ns.toFixed(0).padStart(9)} ns  ${allocated.toFixed(1)} B  ${result}\n`,
  );
}

const table = openClientTable(createClientTable(CAPACITY, SEED), 1);
let nowMs = 0;

/** What one accepted connection costs here: open, look at the binding, bind if new, end. */
function session(client: number): number {
  nowMs++;
  const row = acquireClient(table, 0, 0, 0xffff, (0x0a00_0000 + client) | 0, 1, nowMs, TTL_MS);
  if (clientBackend(table, row) < 0) bindClient(table, row, client % 1000, 1, nowMs);
  releaseClient(table, row, nowMs);
  return row;
}

const rss = process.memoryUsage().rss;
measure('warm-up, 10000 clients', 300_000, (turn) => session(turn % 10_000));
const touched = (process.memoryUsage().rss - rss) / 2 ** 20;
measure('known client, 100 clients', 1_000_000, (turn) => session(turn % 100));
measure('known client, 10000 clients', 1_000_000, (turn) => session(turn % 10_000));
measure('new client, until 1,000,000', CAPACITY, (turn) => session(turn));
const filled = clientTableCounts(table).rows;
// A stride that is prime to the capacity: every client once, neighbours far apart.
measure('known client, 1,000,000 clients', CAPACITY, (turn) =>
  session((turn * 611_953) % CAPACITY),
);
measure('new client, table full: evicts', CAPACITY, (turn) => session(CAPACITY * 2 + turn));
measure('sweep, all rows, none expired', 10, () => sweepClients(table, nowMs, 1e12, 0, table.rows));
measure('sweep, all rows, all expired', 1, () => sweepClients(table, 1e12, 1, 0, table.rows));

const bytes = clientTableBytes(CAPACITY);
process.stdout.write(
  `${filled} of ${CAPACITY} clients kept; ${bytes} bytes, ${bytes / CAPACITY} per client of ` +
    `capacity; 10,000 clients touched ${touched.toFixed(1)} MiB\n`,
);
