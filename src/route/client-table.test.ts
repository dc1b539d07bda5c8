// The client table against a Map, then eviction order, capacity, seeds and real threads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapStatistics } from 'node:v8';
import fc from 'fast-check';
import type { ClientJob, ClientReport } from '../testing/client-worker.ts';
import { createBarrier, runWorkers } from '../testing/run-workers.ts';
import { lockBucket } from './client-lock.ts';
import {
  acquireClient,
  bindClient,
  type ClientTable,
  clientBackend,
  clientIncarnation,
  clientOpenSessions,
  clientTableBytes,
  clientTableCounts,
  createClientTable,
  openClientTable,
  releaseClient,
  releaseLocksOf,
  sweepClients,
} from './client-table.ts';

const SEED = [0x0bad_5eed, 0x1234_5678];
const TTL_MS = 100;
/** Few enough for two buckets: every key may use every row. */
const SMALL_ROWS = 28;

function smallTable(): ClientTable {
  return openClientTable(createClientTable(SMALL_ROWS, SEED), 1);
}

/** Client `key` of app 1, by IPv4-mapped address. */
function acquire(table: ClientTable, key: number, nowMs: number): number {
  return acquireClient(table, 0, 0, 0xffff, key, 1, nowMs, TTL_MS);
}

/** Opens and ends one session that leaves a binding to backend `key`. */
function visit(table: ClientTable, key: number, nowMs: number): void {
  const row = acquire(table, key, nowMs);
  bindClient(table, row, key, 0, nowMs);
  releaseClient(table, row, nowMs);
}

/** Whether client `key` is still known, seen through its binding; leaves it as it was. */
function isKnown(table: ClientTable, key: number, nowMs: number): boolean {
  const row = acquire(table, key, nowMs);
  const known = clientBackend(table, row) === key;
  releaseClient(table, row, nowMs);
  return known;
}

interface ModelRow {
  row: number;
  open: number;
  lastSeen: number;
  backend: number;
  incarnation: number;
}

type Step =
  | { readonly kind: 'acquire' | 'release' | 'bind'; readonly key: number; readonly value: number }
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'sweep'; readonly from: number; readonly rows: number };

/** The table said plainly: a map of at most SMALL_ROWS clients. */
class Model {
  readonly table = smallTable();
  readonly clients = new Map<number, ModelRow>();
  nowMs = 1000;

  step(step: Step): void {
    // A new moment for each step: no two clients are equally old.
    this.nowMs += 1;
    if (step.kind === 'wait') this.nowMs += step.ms;
    if (step.kind === 'sweep') this.#sweep(step.from, step.rows);
    if (step.kind === 'acquire') this.#acquire(step.key);
    if (step.kind === 'release') this.#release(step.key);
    if (step.kind === 'bind') this.#bind(step.key, step.value);
    this.#check();
  }

  #expired(client: ModelRow): boolean {
    return client.open === 0 && this.nowMs - client.lastSeen >= TTL_MS;
  }

  #acquire(key: number): void {
    const { clients, nowMs } = this;
    const row = acquire(this.table, key, nowMs);
    const known = clients.get(key);
    if (known !== undefined) {
      assert.equal(row, known.row, 'a known client keeps its row');
      if (this.#expired(known)) Object.assign(known, { backend: -1, incarnation: -1 });
      known.open++;
      known.lastSeen = nowMs;
      return;
    }
    if (clients.size === SMALL_ROWS) {
      const idle = [...clients].filter(([, client]) => client.open === 0);
      idle.sort(([, one], [, two]) => one.lastSeen - two.lastSeen);
      if (idle.length === 0) {
        assert.equal(row, -1);
        return;
      }
      const [oldestKey, oldest] = idle[0];
      assert.equal(row, oldest.row, 'the oldest idle row goes');
      clients.delete(oldestKey);
    }
    assert.ok(row >= 0 && row < SMALL_ROWS);
    assert.ok(
      [...clients.values()].every((client) => client.row !== row),
      'a row of its own',
    );
    clients.set(key, { row, open: 1, lastSeen: nowMs, backend: -1, incarnation: -1 });
  }

  #release(key: number): void {
    const client = this.clients.get(key);
    if (client === undefined || client.open === 0) return;
    releaseClient(this.table, client.row, this.nowMs);
    client.open--;
    client.lastSeen = this.nowMs;
  }

  #bind(key: number, value: number): void {
    const client = this.clients.get(key);
    if (client === undefined || client.open === 0) return;
    bindClient(this.table, client.row, value, 65_535 - value, this.nowMs);
    Object.assign(client, { backend: value, incarnation: 65_535 - value, lastSeen: this.nowMs });
  }

  #sweep(from: number, rows: number): void {
    const gone = [...this.clients].filter(
      ([, client]) => client.row >= from && client.row < from + rows && this.#expired(client),
    );
    for (const [key] of gone) this.clients.delete(key);
    assert.equal(sweepClients(this.table, this.nowMs, TTL_MS, from, rows), gone.length);
  }

  #check(): void {
    const bindings = [...this.clients.values()].filter(({ backend }) => backend >= 0).length;
    assert.deepEqual(clientTableCounts(this.table), { rows: this.clients.size, bindings });
    for (const client of this.clients.values()) {
      assert.equal(clientOpenSessions(this.table, client.row), client.open);
      assert.equal(clientBackend(this.table, client.row), client.backend);
      assert.equal(clientIncarnation(this.table, client.row), client.incarnation);
    }
  }
}

const keyArbitrary = fc.integer({ min: -24, max: 23 });
const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constantFrom('acquire', 'acquire', 'acquire', 'release', 'release', 'bind'),
      key: keyArbitrary,
      value: fc.oneof(fc.constantFrom(0, 65_534), fc.nat(65_534)),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('wait'), ms: fc.nat(150) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('sweep'),
      from: fc.nat(SMALL_ROWS - 1),
      rows: fc.nat(SMALL_ROWS + 8),
    }),
  },
);

test('the client table behaves like a Map of 28 clients that forgets the oldest', () => {
  const steps = fc.array(stepArbitrary, { maxLength: 400, size: 'max' });
  fc.assert(
    fc.property(steps, (list) => {
      const model = new Model();
      for (const step of list) model.step(step);
    }),
    { numRuns: 300 },
  );
});

test('clientTableBytes() stays within 64 bytes for each row of capacity', () => {
  for (const capacity of [100_000, 1_000_000, 5_000_000]) {
    assert.ok(clientTableBytes(capacity) <= capacity * 64);
  }
  for (const capacity of [1, 2, 3, 999, 1000]) {
    const table = openClientTable(createClientTable(capacity, SEED), 1);
    assert.equal(table.rows, capacity);
    assert.equal(table.words.byteLength, clientTableBytes(capacity));
    assert.equal(table.tokensDouble * 2, table.recordsWord + capacity * 10);
    assert.equal(table.doubles.length, table.tokensDouble + capacity, 'room for every bucket');
  }
});

test('clientTableBytes() refuses a capacity out of range', () => {
  for (const capacity of [0, -1, 1.5, Number.NaN, 50_000_001]) {
    assert.throws(() => clientTableBytes(capacity), {
      name: 'RangeError',
      message: /1 to 50000000/,
    });
  }
});

test('acquireClient() tells addresses and apps apart by every word', () => {
  const table = openClientTable(createClientTable(1000, SEED), 1);
  const rows = new Set<number>();
  const keys = [
    [0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0],
    [0, 1, 0, 0, 0],
    [0, 0, 1, 0, 0],
    [0, 0, 0, 1, 0],
    [0, 0, 0, 0, 1],
    [0, 0, 0, 0, 65_534],
    [0, 0, 0, 0xffff_ffff, 0],
  ];
  for (const [w0, w1, w2, w3, app] of keys) {
    rows.add(acquireClient(table, w0, w1, w2, w3, app, 1, TTL_MS));
  }
  assert.equal(rows.size, keys.length);
  const again = acquireClient(table, 0, 0, 0, -1, 0, 1, TTL_MS);
  assert.ok(rows.has(again), 'signed and unsigned words are the same address');
  assert.equal(clientTableCounts(table).rows, keys.length);
});

test('acquireClient() forgets a binding at its TTL, not a millisecond before', () => {
  const table = smallTable();
  visit(table, 5, 1000);
  const early = acquire(table, 5, 1000 + TTL_MS - 1);
  assert.equal(clientBackend(table, early), 5);
  releaseClient(table, early, 2000);
  const late = acquire(table, 5, 2000 + TTL_MS);
  assert.equal(clientBackend(table, late), -1);
  assert.equal(clientIncarnation(table, late), -1);
  assert.deepEqual(clientTableCounts(table), { rows: 1, bindings: 0 });
});

test('acquireClient() keeps the binding of a client whose session outlives the TTL', () => {
  const table = smallTable();
  const row = acquire(table, 5, 0);
  bindClient(table, row, 7, 3, 0);
  assert.equal(acquire(table, 5, TTL_MS * 10), row);
  assert.equal(clientBackend(table, row), 7);
  assert.equal(sweepClients(table, TTL_MS * 100, TTL_MS, 0, table.rows), 0);
});

test('acquireClient() never lets a late clock make a client look older', () => {
  const table = smallTable();
  visit(table, 5, 1000);
  visit(table, 5, 990);
  assert.equal(sweepClients(table, 1000 + TTL_MS - 1, TTL_MS, 0, table.rows), 0);
  assert.equal(sweepClients(table, 1000 + TTL_MS, TTL_MS, 0, table.rows), 1);
});

test('acquireClient() evicts the oldest idle client, never one with open sessions', () => {
  const table = smallTable();
  const held = acquire(table, 0, 1);
  bindClient(table, held, 0, 0, 1);
  for (let key = 1; key < SMALL_ROWS; key++) visit(table, key, 1 + key);
  visit(table, 1, 40);
  visit(table, 100, 41);
  assert.equal(clientOpenSessions(table, held), 1);
  assert.deepEqual(clientTableCounts(table), { rows: SMALL_ROWS, bindings: SMALL_ROWS });
  assert.ok(isKnown(table, 0, 42));
  assert.ok(isKnown(table, 1, 43), 'seen again, so not the oldest');
  assert.ok(isKnown(table, 100, 44));
  assert.ok(!isKnown(table, 2, 45), 'the oldest went');
});

test('acquireClient() says -1 when every row has open sessions, and recovers', () => {
  const table = smallTable();
  const rows = Array.from({ length: SMALL_ROWS }, (_, key) => acquire(table, key, 1));
  assert.equal(new Set(rows).size, SMALL_ROWS);
  assert.equal(acquire(table, 99, 2), -1);
  assert.equal(acquire(table, 3, 2), rows[3], 'known clients still get in');
  releaseClient(table, rows[8], 3);
  assert.equal(acquire(table, 99, 4), rows[8]);
  assert.equal(clientBackend(table, rows[8]), -1);
  assert.equal(clientTableCounts(table).rows, SMALL_ROWS);
});

test('releaseClient() refuses to end a session that was never opened', () => {
  assert.throws(() => releaseClient(smallTable(), 3, 1), /no open session/);
});

test('1,000,000 clients fit a table for 1,000,000, and more replace the oldest of them', () => {
  const clients = 1_000_000;
  const more = 250_000;
  const table = openClientTable(createClientTable(clients, SEED), 1);
  for (let key = 0; key < clients; key++) {
    const row = acquireClient(table, 0, 0, 0xffff, 0x0a00_0000 + key, 1, key, clients * 9);
    bindClient(table, row, key % 1000, 0, key);
    releaseClient(table, row, key);
  }
  const { rows, bindings } = clientTableCounts(table);
  assert.ok(rows >= clients * 0.9999, `${rows} rows`);
  assert.equal(bindings, rows);
  for (let key = clients; key < clients + more; key++) {
    const row = acquireClient(table, 0, 0, 0xffff, 0x0a00_0000 + key, 1, key, clients * 9);
    assert.ok(row >= 0 && row < table.rows);
    releaseClient(table, row, key);
  }
  const after = clientTableCounts(table);
  assert.ok(after.rows <= table.rows);
  const replaced = bindings - after.bindings;
  assert.ok(replaced >= more * 0.999, `new clients took the place of ${replaced} old ones`);
  assert.equal(sweepClients(table, clients * 99, 1, 0, table.rows), after.rows);
  assert.deepEqual(clientTableCounts(table), { rows: 0, bindings: 0 });
});

test('createClientTable() places clients by its seed', () => {
  // In a full table a new client takes a row out of its own two buckets, so rows show buckets.
  const rowsBy = (seed: number[]) => {
    const table = openClientTable(createClientTable(1000, seed), 1);
    for (let key = 0; key < 1000; key++) visit(table, key, key);
    return Array.from({ length: 50 }, (_, key) => acquire(table, 1000 + key, 1000));
  };
  assert.deepEqual(rowsBy([1, 2]), rowsBy([1, 2]));
  assert.notDeepEqual(rowsBy([1, 2]), rowsBy([1, 3]));
  assert.notDeepEqual(rowsBy([1, 2]), rowsBy([2, 2]));
});

test('sweepClients() skips a bucket somebody works in, and takes it the next time', () => {
  const table = smallTable();
  visit(table, 1, 0);
  // Both bucket locks, as a dead thread would leave them; the locks start at word 80.
  lockBucket(table.words, 80, 7);
  lockBucket(table.words, 81, 7);
  assert.equal(sweepClients(table, 1000, TTL_MS, 0, table.rows), 0);
  assert.equal(releaseLocksOf(table.words.buffer as SharedArrayBuffer, 6), 0);
  assert.equal(releaseLocksOf(table.words.buffer as SharedArrayBuffer, 7), 2);
  assert.equal(sweepClients(table, 1000, TTL_MS, 0, table.rows), 1);
});

function jobsFor(table: SharedArrayBuffer, job: Partial<ClientJob>, threads = 4): ClientJob[] {
  const barrier = createBarrier(threads);
  return Array.from({ length: threads }, (_, at) => ({
    table,
    barrier,
    ownerId: at + 1,
    mode: 'hold',
    keys: 500,
    operations: 20,
    ...job,
  }));
}

test('acquireClient() gives one row per client to four threads, and counts exactly', async () => {
  // Many clients and few sessions each, so that the threads compete for new rows.
  const keys = 40_000;
  const buffer = createClientTable(keys * 2, SEED);
  const jobs = jobsFor(buffer, { keys, operations: 2 });
  const reports = await runWorkers<ClientReport>('./client-worker.ts', jobs);
  for (const { rows, violations } of reports) {
    assert.deepEqual(violations, []);
    assert.deepEqual(rows, reports[0].rows);
  }
  const table = openClientTable(buffer, 9);
  assert.equal(new Set(reports[0].rows).size, keys);
  for (const row of reports[0].rows) assert.equal(clientOpenSessions(table, row), 0);
  assert.equal(clientTableCounts(table).rows, keys);
});

test('the client table survives four threads that open, bind, end and evict', async () => {
  const buffer = createClientTable(SMALL_ROWS, SEED);
  const jobs = jobsFor(buffer, { mode: 'churn', keys: 60, operations: 60_000 });
  const running = runWorkers<ClientReport>('./client-worker.ts', jobs);
  const table = openClientTable(buffer, 9);
  let done = false;
  const reports = running.finally(() => {
    done = true;
  });
  while (!done) {
    sweepClients(table, 30_000, 50, 0, table.rows);
    const { rows, bindings } = clientTableCounts(table);
    assert.ok(rows >= 0 && rows <= SMALL_ROWS, `${rows} rows`);
    assert.ok(bindings <= SMALL_ROWS, `${bindings} bindings`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  for (const { violations } of await reports) assert.deepEqual(violations.slice(0, 3), []);
  const before = clientTableCounts(table).rows;
  assert.ok(before > 0);
  for (let row = 0; row < table.rows; row++) assert.equal(clientOpenSessions(table, row), 0);
  assert.equal(sweepClients(table, 1e9, 1, 0, table.rows), before, 'the counter was exact');
  assert.deepEqual(clientTableCounts(table), { rows: 0, bindings: 0 });
});

test('the client table allocates nothing per session once warm', () => {
  const table = openClientTable(createClientTable(10_000, SEED), 1);
  const run = (sessions: number) => {
    for (let key = 0; key < sessions; key++) {
      const row = acquireClient(table, 0, 0, 0xffff, (key % 20_000) | 0, 1, key, 5000);
      if (clientBackend(table, row) < 0) bindClient(table, row, key % 100, 1, key);
      releaseClient(table, row, key);
    }
  };
  run(300_000);
  const before = getHeapStatistics().total_allocated_bytes;
  run(300_000);
  const perSession = (getHeapStatistics().total_allocated_bytes - before) / 300_000;
  // One boxed number would be 12 bytes or more; the measurement itself takes some kilobytes.
  assert.ok(perSession < 4, `${perSession} bytes per session`);
});
