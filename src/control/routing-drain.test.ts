import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import {
  closeRoutingDb,
  initRoutingDb,
  openRoutingDb,
  type RoutingDb,
  type RoutingRows,
  readRouting,
} from './routing-db.ts';
import { addBackend, changeBackend, drainBackend, undrainBackend } from './routing-edit.ts';
import { problemEffect, type RowDrain } from './routing-rows.ts';

const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-drain-'));
after(() => rmSync(directory, { recursive: true }));

let files = 0;
const newPath = (): string => join(directory, `routing-${++files}.db`);

const PLAIN = 'id, app, region, country, wg_ip, port';

/** The row `a` with these values in its drain columns. */
function drainedRow(values: string): RoutingRows {
  const path = newPath();
  const handle = new DatabaseSync(path);
  handle.exec(`CREATE TABLE backends(${PLAIN}, draining, drain_close_at, drain_close_rate)`);
  handle.exec(`INSERT INTO backends VALUES ('a', 'web', 'sa', NULL, '10.0.0.1', 80, ${values})`);
  handle.close();
  const db = openRoutingDb(path);
  try {
    return readRouting(db);
  } finally {
    closeRoutingDb(db);
  }
}

/** A table as `init` makes it, with one backend. */
function openNew(): RoutingDb {
  const path = newPath();
  initRoutingDb(path);
  const db = openRoutingDb(path, { writable: true });
  addBackend(db, { id: 'a', app: 'web', region: 'sa', address: '10.0.0.1', port: 80 });
  return db;
}

const drainOf = (db: RoutingDb): RowDrain | null | undefined => readRouting(db).backends[0]?.drain;

function columns(db: RoutingDb): number {
  return db.handle.prepare('PRAGMA table_info(backends)').all().length;
}

test('readRouting() reads the drain columns', () => {
  const cases: [values: string, drain: RowDrain | null][] = [
    ['NULL, NULL, NULL', null],
    ["0, 1700000000, 'junk that nobody looks at'", null],
    ['1, NULL, NULL', { closeAt: null, closeRate: null }],
    ["'1', '', ''", { closeAt: null, closeRate: null }],
    ['1, 1700000000, NULL', { closeAt: 1_700_000_000, closeRate: null }],
    ["1, '1700000000.25', 0.5", { closeAt: 1_700_000_000.25, closeRate: 0.5 }],
  ];
  for (const [values, drain] of cases) {
    const { backends, problems } = drainedRow(values);
    assert.deepEqual(problems, [], values);
    assert.deepEqual(backends[0]?.drain, drain, values);
  }
});

test('readRouting() drains a row with a wrong drain column without ending sessions', () => {
  const cases: [values: string, column: string, reason: RegExp][] = [
    ["1, 'soon', NULL", 'drain_close_at', /Unix seconds/],
    ['1, 0, NULL', 'drain_close_at', /Unix seconds/],
    ['1, 1700000000000, NULL', 'drain_close_at', /Unix seconds/],
    ['1, 1700000000, 0', 'drain_close_rate', /per second, above 0/],
    ['1, 1700000000, -1', 'drain_close_rate', /per second, above 0/],
    ["1, 1700000000, x'00'", 'drain_close_rate', /per second, above 0/],
  ];
  for (const [values, column, reason] of cases) {
    const { backends, problems } = drainedRow(values);
    assert.deepEqual(backends[0]?.drain, { closeAt: null, closeRate: null }, values);
    assert.deepEqual(
      problems.map((problem) => [problem.id, problem.column, problemEffect(problem)]),
      [['a', column, 'is drained to no end']],
      values,
    );
    assert.match(problems[0]?.reason ?? '', reason);
  }
  const [problem] = drainedRow("'yes', NULL, NULL").problems;
  assert.equal(problem?.column, 'draining');
  assert.equal(problem && problemEffect(problem), 'is skipped');
});

test('drainBackend() adds its columns at first use and undrainBackend() empties them', () => {
  const db = openNew();
  const plain = columns(db);
  undrainBackend(db, 'a', true);
  assert.equal(columns(db), plain, 'ending no drain needs no column');
  drainBackend(db, 'a', { closeAt: 1_700_000_000.5, closeRate: 2.5 });
  assert.equal(columns(db), plain + 3);
  assert.deepEqual(drainOf(db), { closeAt: 1_700_000_000.5, closeRate: 2.5 });
  drainBackend(db, 'a', { closeAt: null, closeRate: null });
  assert.deepEqual(drainOf(db), { closeAt: null, closeRate: null });
  assert.equal(columns(db), plain + 3);
  undrainBackend(db, 'a', false);
  assert.equal(drainOf(db), null);
  addBackend(db, { id: 'b', app: 'web', region: 'sa', address: '10.0.0.2', port: 80 });
  assert.equal(readRouting(db).backends[1]?.drain, null);
  closeRoutingDb(db);
});

test('undrainBackend() enables only when told to', () => {
  const db = openNew();
  changeBackend(db, 'a', { healthy: false });
  drainBackend(db, 'a', { closeAt: null, closeRate: null });
  undrainBackend(db, 'a', false);
  assert.equal(readRouting(db).backends[0]?.healthy, false);
  drainBackend(db, 'a', { closeAt: null, closeRate: null });
  undrainBackend(db, 'a', true);
  assert.equal(readRouting(db).backends[0]?.healthy, true);
  assert.equal(drainOf(db), null);
  closeRoutingDb(db);
});

test('drainBackend() and undrainBackend() refuse an unknown id and leave the table alone', () => {
  const db = openNew();
  const plain = columns(db);
  const unknown = { code: 'ERR_BACKEND_UNKNOWN' };
  assert.throws(() => drainBackend(db, 'b', { closeAt: null, closeRate: null }), unknown);
  assert.throws(() => undrainBackend(db, 'b', false), unknown);
  assert.equal(columns(db), plain);
  assert.equal(db.handle.isTransaction, false);
  closeRoutingDb(db);
});
