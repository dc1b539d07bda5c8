// The watch against real files and real writers in other processes. Nothing here measures time:
// each step waits for what must come, and a step that waits in vain fails by the test's own
// timeout.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ProxyError } from '../base/errors.ts';
import { initRoutingDb, openRoutingDb, type RoutingRows, readRouting } from './routing-db.ts';
import { watchRoutingDb } from './routing-watch.ts';

/** Longer than any test: what is noticed is noticed by the watch, not by the poll. */
const NO_POLL_MS = 600_000;
const LIMIT = { timeout: 20_000 };

const root = mkdtempSync(join(tmpdir(), 'edgeproxy-watch-'));
after(() => rmSync(root, { recursive: true }));

let folders = 0;
function newFolder(): string {
  const folder = join(root, String(++folders));
  mkdirSync(folder);
  return folder;
}

function insert(path: string, id: string, pragma = ''): void {
  const db = new DatabaseSync(path, { timeout: 5000 });
  if (pragma !== '') db.exec(pragma);
  db.prepare(
    "INSERT INTO backends(id, app, region, wg_ip, port) VALUES (?, 'w', 'sa', '10.0.0.1', 80)",
  ).run(id);
  db.close();
}

function newDb(path: string, ...ids: string[]): string {
  initRoutingDb(path);
  for (const id of ids) insert(path, id);
  return path;
}

/** A running watch, and a way to wait for what it reports. */
function start(
  t: TestContext,
  path: string,
  pollMs = NO_POLL_MS,
  db?: ReturnType<typeof openRoutingDb>,
) {
  const changes: RoutingRows[] = [];
  const errors: ProxyError[] = [];
  const watch = watchRoutingDb({
    path,
    pollMs,
    onChange: (rows) => changes.push(rows),
    onError: (error) => errors.push(error),
    ...(db ? { db } : {}),
  });
  t.after(() => watch.close());
  const until = async (condition: () => boolean): Promise<void> => {
    // Ends with the test: a loop that outlived it would keep the whole run from ending.
    while (!condition()) await sleep(2, undefined, { signal: t.signal });
  };
  const ids = (): string =>
    changes
      .at(-1)
      ?.backends.map(({ id }) => id)
      .join() ?? 'nothing';
  return {
    changes,
    errors,
    until,
    ids,
    untilIds: (wanted: string) => until(() => ids() === wanted),
  };
}

for (const mode of ['delete', 'truncate', 'persist', 'wal']) {
  test(
    `watchRoutingDb() notices a commit by another connection, journal mode ${mode}`,
    LIMIT,
    async (t) => {
      const path = newDb(join(newFolder(), 'routing.db'), 'a');
      const writer = new DatabaseSync(path);
      writer.exec(`PRAGMA journal_mode = ${mode}`);
      const { untilIds, errors } = start(t, path);
      await untilIds('a');
      writer.exec(
        "INSERT INTO backends(id, app, region, wg_ip, port) VALUES ('b', 'w', 'sa', '::1', 1)",
      );
      await untilIds('a,b');
      writer.exec("DELETE FROM backends WHERE id = 'a'");
      await untilIds('b');
      writer.close();
      assert.deepEqual(errors, []);
    },
  );
}

test('watchRoutingDb() notices commits of other programs', LIMIT, async (t) => {
  const path = newDb(join(newFolder(), 'routing.db'), 'a');
  const { untilIds } = start(t, path);
  await untilIds('a');
  const sql = (id: string) =>
    `INSERT INTO backends(id, app, region, wg_ip, port) VALUES ('${id}', 'w', 'sa', '::1', 1)`;
  const cli = spawnSync('sqlite3', [path, '.timeout 5000', sql('b')]);
  if (cli.error) {
    t.skip('sqlite3 is not installed');
    return;
  }
  await untilIds('a,b');
  const code = `import sqlite3
c = sqlite3.connect(${JSON.stringify(path)})
c.execute(${JSON.stringify(sql('c'))})
c.commit()`;
  const python = spawnSync('python3', ['-c', code]);
  if (python.status === 0) await untilIds('a,b,c');
});

test(
  'watchRoutingDb() reads once or twice after a burst of commits, and has the last',
  LIMIT,
  async (t) => {
    const path = newDb(join(newFolder(), 'routing.db'));
    const writer = new DatabaseSync(path, { timeout: 5000 });
    writer.exec('PRAGMA synchronous = OFF');
    const { changes, until, ids } = start(t, path);
    await until(() => changes.length === 1);
    // Synchronous, so the watch's thread cannot run in between: 200 commits are one burst to it.
    for (let at = 0; at < 200; at++) {
      writer.exec(
        `INSERT INTO backends(id, app, region, wg_ip, port) VALUES ('${at}', 'w', 'sa', '::1', 1)`,
      );
    }
    writer.close();
    await until(() => changes.at(-1)?.backends.length === 200);
    assert.ok(changes.length <= 3, `${changes.length} reads`);
    assert.ok(ids().length > 0);
  },
);

test('watchRoutingDb() shows a transaction whole or not at all', LIMIT, async (t) => {
  for (const mode of ['delete', 'wal']) {
    const path = newDb(join(newFolder(), 'routing.db'), 'a');
    const writer = new DatabaseSync(path);
    writer.exec(`PRAGMA journal_mode = ${mode}; PRAGMA cache_size = 1; BEGIN`);
    const { changes, untilIds, errors } = start(t, path);
    const filler = 'x'.repeat(3000);
    writer.exec('ALTER TABLE backends ADD COLUMN note');
    // Spills pages to the file (or the WAL) before the commit.
    const add = writer.prepare(
      "INSERT INTO backends(id, app, region, wg_ip, port, note) VALUES (?, 'w', 'sa', '::1', 1, ?)",
    );
    for (let at = 0; at < 50; at++) add.run(`b${at}`, filler);
    await sleep(50);
    writer.exec("DELETE FROM backends WHERE id LIKE 'b%'; COMMIT");
    insert(path, 'z');
    await untilIds('a,z');
    writer.close();
    assert.ok(
      changes.every(({ backends }) => backends.length <= 2),
      mode,
    );
    assert.deepEqual(errors, [], mode);
  }
});

test(
  'watchRoutingDb() follows a rename over the file, and the new file after that',
  LIMIT,
  async (t) => {
    const folder = newFolder();
    const path = newDb(join(folder, 'routing.db'), 'old');
    const next = newDb(join(folder, 'next.db'), 'new');
    const { untilIds, errors } = start(t, path);
    await untilIds('old');
    renameSync(next, path);
    await untilIds('new');
    insert(path, 'newer');
    await untilIds('new,newer');
    assert.deepEqual(errors, []);
  },
);

test(
  'watchRoutingDb() follows a copy over the file, even with an equal change counter',
  LIMIT,
  async (t) => {
    const folder = newFolder();
    const path = newDb(join(folder, 'routing.db'), 'one');
    // Made by the same number of commits, so its header counts the same.
    const next = newDb(join(newFolder(), 'next.db'), 'two');
    const { untilIds } = start(t, path);
    await untilIds('one');
    copyFileSync(next, path);
    await untilIds('two');
  },
);

test('watchRoutingDb() follows symbolic links that are swapped', LIMIT, async (t) => {
  const folder = newFolder();
  for (const version of ['v1', 'v2']) {
    mkdirSync(join(folder, version));
    newDb(join(folder, version, 'routing.db'), version);
  }
  // As a mounted ConfigMap does it: the file links through `..data`, which is swapped.
  symlinkSync('v1', join(folder, '..data'));
  symlinkSync('..data/routing.db', join(folder, 'routing.db'));
  const { untilIds } = start(t, join(folder, 'routing.db'));
  await untilIds('v1');
  insert(join(folder, 'v1', 'routing.db'), 'x');
  await untilIds('v1,x');
  symlinkSync('v2', join(folder, '..data_tmp'));
  renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
  await untilIds('v2');
});

test(
  'watchRoutingDb() reports a deleted file once and takes it up when it is back',
  LIMIT,
  async (t) => {
    const path = newDb(join(newFolder(), 'routing.db'), 'a');
    const { untilIds, until, errors, changes } = start(t, path);
    await untilIds('a');
    rmSync(path);
    await until(() => errors.length > 0);
    assert.equal(errors[0]?.code, 'ERR_ROUTING_DB_MISSING');
    await sleep(600);
    assert.equal(errors.length, 1);
    assert.equal(changes.length, 1, 'the last good rows stay in use');
    newDb(path, 'b');
    await untilIds('b');
    rmSync(path);
    await until(() => errors.length === 2);
  },
);

test('watchRoutingDb() survives the removal of the whole directory', LIMIT, async (t) => {
  const folder = newFolder();
  const path = newDb(join(folder, 'routing.db'), 'a');
  const { untilIds, until, errors } = start(t, path);
  await untilIds('a');
  rmSync(folder, { recursive: true });
  await until(() => errors.length > 0);
  mkdirSync(folder);
  newDb(path, 'b');
  await untilIds('b');
  insert(path, 'c');
  await untilIds('b,c');
});

test(
  'watchRoutingDb() keeps the last good rows while the file is junk, reported once',
  LIMIT,
  async (t) => {
    const path = newDb(join(newFolder(), 'routing.db'), 'a');
    const { untilIds, until, errors, changes } = start(t, path);
    await untilIds('a');
    writeFileSync(path, 'not a database '.repeat(1000));
    await until(() => errors.length > 0);
    assert.equal(errors[0]?.code, 'ERR_ROUTING_DB_FORMAT');
    await sleep(400);
    assert.equal(errors.length, 1);
    assert.equal(changes.length, 1);
    rmSync(path);
    await until(() => errors.length === 2);
    assert.equal(errors[1]?.code, 'ERR_ROUTING_DB_MISSING');
  },
);

test(
  'watchRoutingDb() waits out a lock, reports a long one once, and reads after it',
  LIMIT,
  async (t) => {
    const path = newDb(join(newFolder(), 'routing.db'), 'a');
    const { untilIds, until, errors } = start(t, path);
    await untilIds('a');
    const writer = new DatabaseSync(path);
    writer.exec('BEGIN EXCLUSIVE');
    writer.exec(
      "INSERT INTO backends(id, app, region, wg_ip, port) VALUES ('b', 'w', 'sa', '::1', 1)",
    );
    // A lock without a write raises no event: touch the file to have it looked at.
    spawnSync('touch', [path]);
    await until(() => errors.length > 0);
    assert.equal(errors[0]?.code, 'ERR_ROUTING_DB_LOCKED');
    writer.exec('COMMIT');
    await untilIds('a,b');
    writer.close();
    assert.equal(errors.length, 1);
  },
);

test('watchRoutingDb() finds a change by polling alone', LIMIT, async (t) => {
  const folder = newFolder();
  mkdirSync(join(folder, 'v1'));
  mkdirSync(join(folder, 'v2'));
  newDb(join(folder, 'v1', 'routing.db'), 'v1');
  newDb(join(folder, 'v2', 'routing.db'), 'v2');
  symlinkSync('v1', join(folder, 'current'));
  // A swapped link above the watched directory: no event of that directory tells of it.
  const { untilIds } = start(t, join(folder, 'current', 'routing.db'), 50);
  await untilIds('v1');
  symlinkSync('v2', join(folder, 'next'));
  renameSync(join(folder, 'next'), join(folder, 'current'));
  await untilIds('v2');
});

test(
  'watchRoutingDb() takes over an open database without reading its rows again',
  LIMIT,
  async (t) => {
    const path = newDb(join(newFolder(), 'routing.db'), 'a');
    const db = openRoutingDb(path);
    readRouting(db);
    const { changes, untilIds } = start(t, path, NO_POLL_MS, db);
    await sleep(100);
    assert.equal(changes.length, 0);
    insert(path, 'b');
    await untilIds('a,b');
    assert.equal(changes.length, 1);
  },
);

test('watchRoutingDb() misses no commit made between the read and the watch', LIMIT, async (t) => {
  const path = newDb(join(newFolder(), 'routing.db'), 'a');
  const db = openRoutingDb(path);
  readRouting(db);
  insert(path, 'b');
  const { untilIds } = start(t, path, NO_POLL_MS, db);
  await untilIds('a,b');
});

test('watchRoutingDb() is silent after close()', LIMIT, async () => {
  const path = newDb(join(newFolder(), 'routing.db'), 'a');
  let calls = 0;
  const count = (): void => {
    calls++;
  };
  const watch = watchRoutingDb({ path, pollMs: 10, onChange: count, onError: count });
  watch.close();
  insert(path, 'b');
  await sleep(100);
  assert.equal(calls, 0);
});
