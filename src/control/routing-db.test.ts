import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { ProxyError } from '../base/errors.ts';
import {
  closeRoutingDb,
  initRoutingDb,
  openRoutingDb,
  type RoutingRows,
  readRouting,
} from './routing-db.ts';
import { addBackend, backendIds, changeBackend, deleteBackend } from './routing-edit.ts';
import { addressText } from './routing-rows.ts';

const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-routing-'));
after(() => rmSync(directory, { recursive: true }));

let files = 0;
const newPath = (): string => join(directory, `routing-${++files}.db`);

/** A database made by these statements, closed again. */
function database(...statements: string[]): string {
  const path = newPath();
  const db = new DatabaseSync(path);
  for (const statement of statements) db.exec(statement);
  db.close();
  return path;
}

const COLUMNS =
  'id, app, region, country, wg_ip, port, healthy, weight, soft_limit, hard_limit, deleted';
/** No types: SQLite then keeps whatever is written. */
const UNTYPED = `CREATE TABLE backends(${COLUMNS})`;
const insert = (values: string): string => `INSERT INTO backends VALUES (${values})`;
const GOOD = "'ok', 'web', 'sa', 'BR', '10.0.0.1', 80, 1, 1, 50, 100, 0";

function read(path: string): RoutingRows {
  const db = openRoutingDb(path, { busyTimeoutMs: 0 });
  try {
    return readRouting(db);
  } finally {
    closeRoutingDb(db);
  }
}

function failure(work: () => unknown): ProxyError {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof ProxyError, `not a ProxyError: ${error}`);
    return error;
  }
  throw new Error('Nothing was thrown');
}

/** What rows that say no more than they must leave open. */
const UNSET = { check: null, drain: null, proxyProtocol: null } as const;

test('readRouting() reads every column', () => {
  const path = database(
    UNTYPED,
    insert(GOOD),
    insert("'six','a','LAB',NULL,'fd00::7',1,0,0.5,0,0,1"),
  );
  const { backends, problems } = read(path);
  assert.deepEqual(problems, []);
  assert.deepEqual(backends, [
    {
      id: 'ok',
      app: 'web',
      region: 'sa',
      country: 'BR',
      family: 4,
      words: [0, 0, 0, 0x0a000001],
      port: 80,
      healthy: true,
      weight: 1,
      softLimit: 50,
      hardLimit: 100,
      deleted: false,
      ...UNSET,
    },
    {
      id: 'six',
      app: 'a',
      region: 'lab',
      country: null,
      family: 6,
      words: [0xfd000000, 0, 0, 7],
      port: 1,
      healthy: false,
      weight: 0.5,
      softLimit: 0,
      hardLimit: 0,
      deleted: true,
      ...UNSET,
    },
  ]);
});

test('readRouting() accepts a table without country and with extra columns', () => {
  const path = database(
    'CREATE TABLE backends(note TEXT, ID TEXT PRIMARY KEY, App, region, wg_ip, PORT, zone)',
    "INSERT INTO backends VALUES ('n', 'a', 'web', 'eu', '10.0.0.1', 80, 'z')",
  );
  const { backends, problems } = read(path);
  assert.deepEqual(problems, []);
  const [backend] = backends;
  assert.equal(backend?.country, null);
  assert.equal(backend?.healthy, true);
  assert.equal(backend?.weight, 1);
  assert.equal(backend?.softLimit, 100);
  assert.equal(backend?.hardLimit, 0);
  assert.equal(backend?.deleted, false);
});

test('readRouting() is tolerant of case, numeric text and NULL where there is a default', () => {
  const path = database(
    UNTYPED,
    insert("7, 'web', 'Sa', 'br', ' 10.0.0.1 ', '443', NULL, '2.5', NULL, NULL, NULL"),
    insert("'mapped', 'web', 'sa', '', '::ffff:10.0.0.2', 80.0, '0', 1, 1.0, '2', 0"),
  );
  const { backends, problems } = read(path);
  assert.deepEqual(problems, []);
  assert.deepEqual(
    backends.map(({ id, region, country, port, healthy, weight, softLimit, hardLimit }) => [
      ...[id, region, country, port, healthy, weight, softLimit, hardLimit],
    ]),
    [
      ['7', 'sa', 'BR', 443, true, 2.5, 100, 0],
      ['mapped', 'sa', null, 80, false, 1, 1, 2],
    ],
  );
  assert.deepEqual(backends.map(addressText), ['10.0.0.1', '10.0.0.2']);
  assert.equal(backends[1]?.family, 4);
});

/** Every way a row can be wrong: the column, the value to put there, what is reported. */
const BAD: readonly [column: string, value: string, shown: string, reason: RegExp][] = [
  ['id', "''", '""', /printable/],
  ['id', 'NULL', 'NULL', /printable/],
  ['id', "x'00ff'", 'BLOB of 2 bytes', /printable/],
  ['id', "'a' || char(10) || 'b'", '"a\\nb"', /printable/],
  ['app', 'NULL', 'NULL', /1 to 64/],
  ['app', "'a,b'", '"a,b"', /commas/],
  ['app', "'*'", '"*"', /1 to 64/],
  ['region', "''", '""', /1 to 16/],
  ['region', "'south america'", '"south america"', /1 to 16/],
  ['country', "'XX'", '"XX"', /ISO 3166-1/],
  ['country', "'BRA'", '"BRA"', /ISO 3166-1/],
  ['wg_ip', "'backend.internal'", '"backend.internal"', /host names/],
  ['wg_ip', "'10.0.0'", '"10.0.0"', /IPv4 or IPv6/],
  ['wg_ip', "'10.0.0.256'", '"10.0.0.256"', /IPv4 or IPv6/],
  ['wg_ip', "'fe80::1%eth0'", '"fe80::1%eth0"', /IPv4 or IPv6/],
  ['wg_ip', "'0.0.0.0'", '"0.0.0.0"', /unspecified/],
  ['wg_ip', "'::'", '"::"', /unspecified/],
  ['wg_ip', "'224.0.0.1'", '"224.0.0.1"', /unicast/],
  ['wg_ip', "'ff02::1'", '"ff02::1"', /unicast/],
  ['wg_ip', 'NULL', 'NULL', /IPv4 or IPv6/],
  ['port', '0', '0', /1 to 65535/],
  ['port', '65536', '65536', /1 to 65535/],
  ['port', '-1', '-1', /1 to 65535/],
  ['port', '80.5', '80.5', /1 to 65535/],
  ['port', "'http'", '"http"', /1 to 65535/],
  ['port', 'NULL', 'NULL', /1 to 65535/],
  ['port', '9223372036854775807', '9223372036854775807', /1 to 65535/],
  ['healthy', '2', '2', /0 or 1/],
  ['healthy', "'yes'", '"yes"', /0 or 1/],
  ['weight', '-0.1', '-0.1', /0 or more/],
  ['weight', '9e999', 'Infinity', /0 or more/],
  ['weight', "'heavy'", '"heavy"', /0 or more/],
  ['soft_limit', '-1', '-1', /0 or more/],
  ['soft_limit', '1.5', '1.5', /0 or more/],
  ['hard_limit', '2147483648', '2147483648', /0 or more/],
  ['hard_limit', "''", '""', /0 or more/],
  ['deleted', '-1', '-1', /0 or 1/],
];

test('readRouting() skips a bad row and reports column, value and reason', () => {
  const names = COLUMNS.split(', ');
  for (const [column, value, shown, reason] of BAD) {
    const values = GOOD.replace("'ok'", "'bad'").split(', ');
    values[names.indexOf(column)] = value;
    const { backends, problems } = read(database(UNTYPED, insert(GOOD), insert(values.join())));
    const label = `${column} = ${value}`;
    assert.deepEqual(
      backends.map((backend) => backend.id),
      ['ok'],
      label,
    );
    assert.equal(problems.length, 1, label);
    const [problem] = problems;
    assert.equal(problem?.column, column, label);
    assert.equal(problem?.value, shown, label);
    assert.match(problem?.reason as string, reason, label);
    if (column !== 'id') assert.equal(problem?.id, 'bad', label);
  }
});

test('readRouting() reports every wrong column of a row', () => {
  const path = database(UNTYPED, insert("'x','web','sa',NULL,'nowhere',0,1,-1,1,1,0"));
  assert.deepEqual(
    read(path).problems.map(({ column }) => column),
    ['wg_ip', 'port', 'weight'],
  );
});

test('readRouting() keeps the first of two rows with one id', () => {
  const path = database(UNTYPED, insert(GOOD), insert(GOOD));
  const { backends, problems } = read(path);
  assert.equal(backends.length, 1);
  assert.deepEqual(
    problems.map(({ id, column, reason }) => [id, column, reason]),
    [['ok', 'id', 'must be unique']],
  );
});

test('readRouting() reads 10,000 rows of a WAL and of a rollback-journal database', () => {
  for (const mode of ['wal', 'delete']) {
    const path = database(
      `PRAGMA journal_mode = ${mode}`,
      UNTYPED,
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
       INSERT INTO backends
       SELECT 'b' || i, 'web', 'sa', 'BR',
              '10.1.' || (i / 256) || '.' || (i % 256), 80, 1, 1, 1, 0, 0
       FROM n`,
    );
    const { backends, problems } = read(path);
    assert.deepEqual(problems, [], mode);
    assert.equal(backends.length, 10_000, mode);
    assert.equal(new Set(backends.map(({ words }) => words[3])).size, 10_000, mode);
  }
});

test('openRoutingDb() names the command to run when the file is missing', () => {
  const path = newPath();
  const error = failure(() => openRoutingDb(path));
  assert.equal(error.code, 'ERR_ROUTING_DB_MISSING');
  assert.ok(error.message.includes(`edgeproxy init --db-path ${path}`), error.message);
});

test('readRouting() tells an empty file, another table and missing columns apart', () => {
  const empty = newPath();
  writeFileSync(empty, '');
  for (const [path, text] of [
    [empty, 'it has no table backends'],
    [database('CREATE TABLE other(a)'), 'it has no table backends'],
    [database('CREATE TABLE backends(id, app, wg_ip)'), 'lacks the column region, port'],
  ] as const) {
    const error = failure(() => read(path));
    assert.equal(error.code, 'ERR_ROUTING_DB_SCHEMA');
    assert.ok(error.message.includes(text), error.message);
  }
});

test('readRouting() says that a file is not SQLite, damaged or a directory', () => {
  const text = newPath();
  writeFileSync(text, 'these are not the bytes of a database\n'.repeat(100));
  assert.equal(failure(() => read(text)).code, 'ERR_ROUTING_DB_FORMAT');

  const whole = database(UNTYPED, ...new Array<string>(500).fill(insert(GOOD)));
  const bytes = spawnSync('head', ['-c', '4096', whole]).stdout;
  const cut = newPath();
  writeFileSync(cut, bytes);
  assert.equal(failure(() => read(cut)).code, 'ERR_ROUTING_DB_CORRUPT');

  const folder = newPath();
  mkdirSync(folder);
  const error = failure(() => read(folder));
  assert.equal(error.code, 'ERR_ROUTING_DB_UNREADABLE');
  assert.match(error.message, /directory/);
});

test('readRouting() reports a lock held by another connection, and reads once it is gone', () => {
  const path = database(UNTYPED, insert(GOOD));
  const writer = new DatabaseSync(path);
  writer.exec('BEGIN EXCLUSIVE');
  const error = failure(() => read(path));
  assert.equal(error.code, 'ERR_ROUTING_DB_LOCKED');
  assert.equal(error.retry, 'always');
  writer.exec('COMMIT');
  assert.equal(read(path).backends.length, 1);
  writer.close();
});

test('readRouting() reads a WAL database while a writer is in a transaction', () => {
  const path = database('PRAGMA journal_mode = WAL', UNTYPED, insert(GOOD));
  const writer = new DatabaseSync(path);
  writer.exec('BEGIN IMMEDIATE');
  writer.exec(insert(GOOD.replace("'ok'", "'more'")));
  assert.equal(read(path).backends.length, 1);
  writer.exec('COMMIT');
  assert.equal(read(path).backends.length, 2);
  writer.close();
});

test('openRoutingDb() is read-only unless asked', () => {
  const path = database(UNTYPED);
  const db = openRoutingDb(path);
  assert.throws(() => db.handle.exec(insert(GOOD)), /readonly/);
  closeRoutingDb(db);
});

test('initRoutingDb() creates, leaves alone, and completes an older table', () => {
  const path = newPath();
  assert.equal(initRoutingDb(path), 'created');
  assert.equal(initRoutingDb(path), 'present');
  const old = database(
    'CREATE TABLE backends(id TEXT PRIMARY KEY, app, region, wg_ip, port)',
    "INSERT INTO backends VALUES ('a', 'web', 'sa', '10.0.0.1', 80)",
  );
  assert.equal(initRoutingDb(old), 'upgraded');
  assert.equal(initRoutingDb(old), 'present');
  assert.equal(read(old).backends[0]?.softLimit, 100);
  const text = newPath();
  writeFileSync(text, 'x'.repeat(5000));
  assert.equal(failure(() => initRoutingDb(text)).code, 'ERR_ROUTING_DB_FORMAT');
  assert.equal(failure(() => initRoutingDb(join(text, 'x.db'))).code, 'ERR_ROUTING_DB_UNREADABLE');
});

test('initRoutingDb() makes a table that takes rows as DESIGN writes them', () => {
  const path = newPath();
  initRoutingDb(path);
  const db = new DatabaseSync(path);
  db.exec(`INSERT INTO backends VALUES (${GOOD})`);
  assert.equal(db.prepare('PRAGMA journal_mode').get()?.journal_mode, 'delete');
  db.close();
  assert.equal(read(path).backends[0]?.hardLimit, 100);
});

const CHECK_COLUMNS = 'check_type, check_port, check_path, check_expect';

/** The row `ok` with these values in its check columns. */
function checkedRow(values: string): RoutingRows {
  return read(
    database(
      `CREATE TABLE backends(${COLUMNS}, ${CHECK_COLUMNS})`,
      "INSERT INTO backends(id, app, region, wg_ip, port) VALUES ('plain', 'a', 'sa', '::1', 1)",
      insert(`${GOOD}, ${values}`),
    ),
  );
}

test('readRouting() reads the check columns', () => {
  const cases: [values: string, check: object | null][] = [
    ['NULL, NULL, NULL, NULL', null],
    ["'', '', '', ''", null],
    ["'HTTP', 8080, '/up?x=1', 200", { type: 'http', port: 8080, path: '/up?x=1', expect: '200' }],
    ["' tcp ', '81', NULL, ''", { type: 'tcp', port: 81, path: null, expect: null }],
    ["'none', NULL, NULL, NULL", { type: 'none', port: null, path: null, expect: null }],
    [
      "NULL, NULL, NULL, '200-299, 301'",
      { type: null, port: null, path: null, expect: '200-299, 301' },
    ],
  ];
  for (const [values, check] of cases) {
    const { backends, problems } = checkedRow(values);
    assert.deepEqual(problems, [], values);
    assert.deepEqual(backends.find(({ id }) => id === 'ok')?.check, check, values);
  }
});

test('readRouting() serves a row with a wrong check column, checked by default, and says so', () => {
  const cases: [values: string, column: string, reason: RegExp][] = [
    ["'ping', 81, NULL, NULL", 'check_type', /one of tcp, http, none/],
    ["'http', 0, NULL, NULL", 'check_port', /1 to 65535/],
    ["'http', 65536, NULL, NULL", 'check_port', /1 to 65535/],
    ["'http', 80.5, NULL, NULL", 'check_port', /1 to 65535/],
    ["'http', NULL, 'up', NULL", 'check_path', /starts with \//],
    ["'http', NULL, '/a b', NULL", 'check_path', /without blanks/],
    ["'http', NULL, '/a' || char(13) || char(10) || 'X:1', NULL", 'check_path', /without blanks/],
    ["'http', NULL, NULL, '2xx'", 'check_expect', /200-299/],
    ["'http', NULL, NULL, x'00ff'", 'check_expect', /200-299/],
  ];
  for (const [values, column, reason] of cases) {
    const { backends, problems } = checkedRow(values);
    assert.equal(backends.length, 2, values);
    assert.equal(backends.find(({ id }) => id === 'ok')?.check, null, values);
    assert.equal(problems.length, 1, values);
    const [problem] = problems;
    assert.deepEqual([problem?.id, problem?.column, problem?.served], ['ok', column, true], values);
    assert.match(problem?.reason ?? '', reason);
  }
});

test('addBackend() writes check columns, refuses wrong ones, and can do without them', () => {
  const path = newPath();
  initRoutingDb(path);
  const db = openRoutingDb(path, { writable: true });
  const base = { id: 'a', app: 'web', region: 'sa', address: '::1', port: 80 };
  const check = { type: 'http', port: '81', path: '/up', expect: '200-299' };
  const error = failure(() => addBackend(db, { ...base, check: { ...check, path: 'up' } }));
  assert.equal(error.code, 'ERR_BACKEND_INVALID');
  assert.match(error.message, /check_path is "up", must be a path/);
  addBackend(db, { ...base, check });
  assert.deepEqual(readRouting(db).backends[0]?.check, { ...check, port: 81 });
  closeRoutingDb(db);

  const old = openRoutingDb(database(UNTYPED), { writable: true });
  addBackend(old, base);
  assert.equal(readRouting(old).backends[0]?.check, null);
  addBackend(old, { ...base, id: 'b', check });
  const added = readRouting(old).backends.find(({ id }) => id === 'b');
  assert.deepEqual(added?.check, { ...check, port: 81 });
  closeRoutingDb(old);
});

test('addBackend() and changeBackend() write what readRouting() reads', () => {
  const path = newPath();
  initRoutingDb(path);
  const db = openRoutingDb(path, { writable: true });
  addBackend(db, {
    id: 'a',
    app: 'web',
    region: 'SA',
    address: 'fd00::1',
    port: 80,
    country: 'br',
  });
  assert.equal(
    failure(() => addBackend(db, { id: 'a', app: 'w', region: 'sa', address: '::1', port: 1 }))
      .code,
    'ERR_BACKEND_EXISTS',
  );
  assert.equal(
    failure(() => addBackend(db, { id: 'b', app: 'w', region: 'sa', address: 'x', port: 1 })).code,
    'ERR_BACKEND_INVALID',
  );
  changeBackend(db, 'a', { weight: 2.5, softLimit: 7, hardLimit: undefined, healthy: false });
  const [row] = readRouting(db).backends;
  assert.deepEqual(
    [row?.region, row?.country, row?.weight, row?.softLimit, row?.hardLimit, row?.healthy],
    ['sa', 'BR', 2.5, 7, 0, false],
  );
  changeBackend(db, 'a', { deleted: true });
  assert.equal(readRouting(db).backends[0]?.deleted, true);
  assert.match(
    failure(() => addBackend(db, { id: 'a', app: 'w', region: 'sa', address: '::1', port: 1 }))
      .message,
    /backend restore/,
  );
  deleteBackend(db, 'a');
  assert.deepEqual(backendIds(db), []);
  closeRoutingDb(db);
});

test('changeBackend() and deleteBackend() name ids similar to an unknown one', () => {
  const path = newPath();
  initRoutingDb(path);
  const db = openRoutingDb(path, { writable: true });
  for (const id of ['br-1', 'br-2', 'us-1']) {
    addBackend(db, { id, app: 'web', region: 'sa', address: '10.0.0.1', port: 80 });
  }
  for (const work of [
    () => changeBackend(db, 'br-3', { weight: 1 }),
    () => deleteBackend(db, 'br-3'),
  ]) {
    const error = failure(work);
    assert.equal(error.code, 'ERR_BACKEND_UNKNOWN');
    assert.equal(error.message, 'Unknown backend "br-3": similar ids are br-1, br-2');
  }
  assert.equal(backendIds(db).length, 3);
  closeRoutingDb(db);
});

test('readRouting() explains a WAL file that cannot be opened in a read-only directory', (t) => {
  if (process.getuid?.() === 0) {
    const user = spawnSync('setpriv', ['--version']);
    if (user.status !== 0) {
      t.skip('running as root, which no permission stops, without setpriv');
      return;
    }
  }
  const source = database('PRAGMA journal_mode = WAL', UNTYPED, insert(GOOD));
  const folder = join(directory, 'read-only');
  mkdirSync(folder);
  copyFileSync(source, join(folder, 'routing.db'));
  spawnSync('chmod', ['0755', directory]);
  spawnSync('chmod', ['0555', folder]);
  const module = new URL('./routing-db.ts', import.meta.url).href;
  const path = join(folder, 'routing.db');
  const script = `import { openRoutingDb, readRouting } from ${JSON.stringify(module)};
    try { readRouting(openRoutingDb(${JSON.stringify(path)})); console.log('read'); }
    catch (error) { console.log(error.code, error.message); }`;
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '-e', script];
  const command =
    process.getuid?.() === 0 ? ['setpriv', '--reuid=65534', '--clear-groups', ...node] : node;
  const { stdout } = spawnSync(command[0] as string, command.slice(1), { encoding: 'utf8' });
  spawnSync('chmod', ['0755', folder]);
  if (stdout === '') {
    t.skip('the checkout cannot be read by an unprivileged user');
    return;
  }
  assert.match(stdout, /ERR_ROUTING_DB_UNREADABLE .*WAL mode needs a writable directory/);
});
