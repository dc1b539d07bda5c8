// The table `access`: read in whatever form it has, and changed by the command line's functions.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ProxyError } from '../base/errors.ts';
import { removeAccess, setAccess } from './access-edit.ts';
import {
  addAccessTable,
  initRoutingDb,
  openRoutingDb,
  type RoutingDb,
  readAccess,
  readRouting,
} from './routing-db.ts';

const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-access-'));
after(() => rmSync(directory, { recursive: true }));

let files = 0;
/** A routing database after these statements, open for writing. */
function database(...statements: string[]): RoutingDb {
  const path = join(directory, `routing-${++files}.db`);
  initRoutingDb(path);
  const db = openRoutingDb(path, { writable: true });
  for (const statement of statements) db.handle.exec(statement);
  return db;
}

const UNTYPED = 'CREATE TABLE access(action, match)';
const set = (db: RoutingDb, action: 'allow' | 'deny', match: string, app = '*'): string =>
  setAccess(db, { action, match, app, note: null });

test('readRouting() gives no access rows without the table, and all of them as text with it', () => {
  assert.deepEqual(readRouting(database()).access, []);
  assert.deepEqual(readRouting(database(UNTYPED)).access, []);
  const untyped = database(
    UNTYPED,
    "INSERT INTO access VALUES ('deny', 'BR'), (1, x'41'), (NULL, 7.5)",
  );
  assert.deepEqual(readRouting(untyped).access, [
    [null, 'deny', 'BR', null],
    [null, '1', 'A', null],
    [null, null, '7.5', null],
  ]);
  const typed = database();
  addAccessTable(typed);
  typed.handle.exec("INSERT INTO access(action, match, note) VALUES ('allow', '10.0.0.0/8', 'us')");
  assert.deepEqual(readRouting(typed).access, [['*', 'allow', '10.0.0.0/8', 'us']]);
});

test('readRouting() gives backends also when the access table cannot be used', () => {
  const db = database(
    'CREATE TABLE access(action TEXT, cidr TEXT)',
    "INSERT INTO backends(id, app, region, wg_ip, port) VALUES ('a', 'web', 'sa', '10.0.0.1', 80)",
  );
  const { backends, access } = readRouting(db);
  assert.equal(backends.length, 1);
  assert.ok(access instanceof ProxyError);
  assert.match(access.message, /table access lacks the column match$/);
  assert.throws(() => readAccess(db), /table access lacks the column match/);
});

test('setAccess() makes the table, writes one text for one meaning, and replaces the row there was', () => {
  const db = database();
  assert.equal(set(db, 'deny', 'br'), 'BR');
  setAccess(db, { action: 'allow', match: '2001:DB8::/32', app: 'web', note: 'our own' });
  set(db, 'allow', 'BR');
  set(db, 'deny', 'BR', 'web');
  assert.deepEqual(
    readAccess(db).map((row) => row.join()),
    ['*,allow,BR,', 'web,allow,2001:db8::/32,our own', 'web,deny,BR,'],
  );
});

test('setAccess() and removeAccess() find rows that an operator has written in another way', () => {
  const db = database(
    UNTYPED,
    "INSERT INTO access VALUES ('deny', ' br'), ('deny', '::ffff:10.0.0.0/104')",
  );
  set(db, 'allow', 'BR');
  removeAccess(db, '*', '10.0.0.0/8');
  assert.deepEqual(readAccess(db), [['*', 'allow', 'BR', null]]);
});

test('removeAccess() removes rows that cannot be read, by their text', () => {
  const db = database(
    UNTYPED,
    "INSERT INTO access VALUES ('deny', 'nonsense '), ('dny', 'BR'), (1, 2)",
  );
  removeAccess(db, '*', 'nonsense');
  removeAccess(db, '*', 'BR');
  removeAccess(db, '*', '2');
  assert.deepEqual(readAccess(db), []);
});

test('removeAccess() names similar rows when there is none such, and makes no table', () => {
  const db = database();
  const refused = (app: string, text: string, message: RegExp): void => {
    assert.throws(
      () => removeAccess(db, app, text),
      (error) => {
        assert.ok(error instanceof ProxyError);
        assert.equal(error.code, 'ERR_ACCESS_UNKNOWN');
        assert.match(error.message, message);
        return true;
      },
    );
  };
  refused('*', 'BR', /^No access row for all apps matches "BR": none is similar$/);
  assert.equal(
    db.handle.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'access'").get(),
    undefined,
  );
  set(db, 'deny', '10.0.0.0/8');
  refused('*', '10.0.0.0/9', /matches "10\.0\.0\.0\/9": similar ones are 10\.0\.0\.0\/8$/);
  refused('web', '10.0.0.0/8', /^No access row for app "web" matches "10\.0\.0\.0\/8": none/);
  assert.equal(readAccess(db).length, 1);
});

test('setAccess() refuses what the proxy would skip, and writes nothing', () => {
  const db = database();
  const refused = (match: string, app: string, message: RegExp): void => {
    assert.throws(() => set(db, 'deny', match, app), message);
  };
  refused(
    '10.0.0.1/8',
    '*',
    /^ProxyError: MATCH is "10\.0\.0\.1\/8", must not have bits .*as in 10\.0\.0\.0\/8$/,
  );
  refused('QQ', '*', /MATCH is "QQ", must be an ISO 3166-1 alpha-2 country code$/);
  refused(
    'example.test',
    '*',
    /, must be an address, or a prefix .*, a country code as in BR, or \*/,
  );
  refused('BR', 'a b', /--app is "a b", allowed: \* for all, or 1 to 64 characters/);
  assert.deepEqual(readAccess(db), []);
});
