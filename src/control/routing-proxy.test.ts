import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { closeRoutingDb, initRoutingDb, openRoutingDb, readRouting } from './routing-db.ts';
import { addBackend, setBackendProxy } from './routing-edit.ts';
import { parseRow, proxyVersion, type RawBackend, type RowProblem } from './routing-rows.ts';

const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-proxy-'));
after(() => rmSync(directory, { recursive: true }));

let files = 0;
const newPath = (): string => join(directory, `routing-${++files}.db`);

/** The row `a` with this in its column `proxy_protocol`, as SQL. */
function rowWith(value: string): { backend: RawBackend | undefined; problems: unknown[] } {
  const path = newPath();
  const handle = new DatabaseSync(path);
  handle.exec('CREATE TABLE backends(id, app, region, country, wg_ip, port, proxy_protocol)');
  handle.exec(`INSERT INTO backends VALUES ('a', 'web', 'sa', NULL, '10.0.0.1', 80, ${value})`);
  handle.close();
  const db = openRoutingDb(path);
  try {
    const { backends, problems } = readRouting(db);
    return { backend: backends[0], problems: [...problems] };
  } finally {
    closeRoutingDb(db);
  }
}

test('readRouting() reads proxy_protocol, and nothing of it as the setting', () => {
  for (const [value, expected] of [
    ["'v1'", 'v1'],
    ["' V2 '", 'v2'],
    ["'off'", 'off'],
    ['NULL', null],
    ["''", null],
  ] as const) {
    const { backend, problems } = rowWith(value);
    assert.deepEqual([backend?.proxyProtocol, problems], [expected, []], value);
  }
});

test('readRouting() skips a row whose proxy_protocol it does not know', () => {
  for (const [value, shown] of [
    ["'v3'", '"v3"'],
    ['1', '1'],
    ["x'7632'", 'BLOB of 2 bytes'],
    ["'yes'", '"yes"'],
  ]) {
    const { backend, problems } = rowWith(value as string);
    assert.equal(backend, undefined, value);
    const reason = 'must be one of off, v1, v2';
    assert.deepEqual(problems, [{ id: 'a', column: 'proxy_protocol', value: shown, reason }]);
  }
});

test('setBackendProxy() adds the column when it is first needed', () => {
  const path = newPath();
  initRoutingDb(path);
  const db = openRoutingDb(path, { writable: true });
  const columns = (): number => db.handle.prepare('PRAGMA table_info(backends)').all().length;
  const before = columns();
  addBackend(db, { id: 'a', app: 'web', region: 'sa', address: '10.0.0.1', port: 80 });
  assert.equal(columns(), before);
  setBackendProxy(db, 'a', 'v1');
  assert.equal(columns(), before + 1);
  assert.equal(readRouting(db).backends[0]?.proxyProtocol, 'v1');
  setBackendProxy(db, 'a', null);
  assert.equal(readRouting(db).backends[0]?.proxyProtocol, null);
  addBackend(db, {
    id: 'b',
    app: 'web',
    region: 'sa',
    address: '10.0.0.2',
    port: 80,
    proxyProtocol: 'off',
  });
  assert.equal(readRouting(db).backends[1]?.proxyProtocol, 'off');
  assert.equal(columns(), before + 1);
  assert.throws(() => setBackendProxy(db, 'c', 'v2'), /Unknown backend "c"/);
  closeRoutingDb(db);
  assert.equal(initRoutingDb(path), 'present');
});

test('proxyVersion() prefers the row to the setting', () => {
  const problems: RowProblem[] = [];
  const plain = parseRow(['a', 'web', 'sa', null, '10.0.0.1', 80, 1, 1, 100, 0, 0], problems);
  assert.ok(plain);
  assert.equal(proxyVersion(plain, 0), 0);
  assert.equal(proxyVersion(plain, 2), 2);
  assert.equal(proxyVersion({ ...plain, proxyProtocol: 'off' }, 2), 0);
  assert.equal(proxyVersion({ ...plain, proxyProtocol: 'v1' }, 2), 1);
  assert.equal(proxyVersion({ ...plain, proxyProtocol: 'v2' }, 0), 2);
});
