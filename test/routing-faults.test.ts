// routing.db that is missing, empty, locked, damaged, or wrong in part, at start and while running: survived and reported.

import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { backendName, clientFate } from '../src/testing/clients.ts';
import { ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { changeRouting, lockRouting, writeRouting } from '../src/testing/routing-file.ts';
import { sayName, startBackend } from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

const UNREADABLE = 'routing.db cannot be read, the last good data stays';

/** Waits until a client at this address gets this backend: the workers have the new routing. */
async function untilRouted(proxy: ProxyProcess, from: string, name: string): Promise<void> {
  await until(`${from} to be routed to "${name}"`, async () => {
    return (await backendName(proxy.address, { from })) === name;
  });
}

test('start: a missing routing.db ends with exit code 1 and says what to run', async () => {
  await using proxy = new ProxyProcess({});
  assert.equal((await within('the end', proxy.exited)).code, 1);
  const text = JSON.stringify(proxy.logs) + proxy.stderrText;
  assert.match(text, /Cannot open routing database .*no such file, create it with: edgeproxy init/);
});

test('start: a file that is not SQLite ends with exit code 1', async () => {
  await using proxy = await startWithFile(
    'this is not a database, whatever its name says'.repeat(50),
  );
  assert.equal((await within('the end', proxy.exited)).code, 1);
  assert.match(JSON.stringify(proxy.logs) + proxy.stderrText, /not a SQLite database/);
});

test('start: an empty file has no table, which the message says with what to run', async () => {
  await using proxy = await startWithFile('');
  assert.equal((await within('the end', proxy.exited)).code, 1);
  assert.match(
    JSON.stringify(proxy.logs) + proxy.stderrText,
    /it has no table backends, add it with: edgeproxy init/,
  );
});

/** A proxy whose routing.db holds this text. */
async function startWithFile(text: string): Promise<ProxyProcess> {
  const seed = await startProxy({ backends: [] });
  await seed.stop();
  writeFileSync(seed.dbPath, text);
  const proxy = new ProxyProcess({ directory: seed.directory });
  return Object.assign(proxy, {
    [Symbol.asyncDispose]: async () => {
      if (proxy.exit === null) proxy.signal('SIGKILL');
      await proxy.exited;
      await seed[Symbol.asyncDispose]();
    },
  });
}

test('start: a table without rows runs, and serves the first backend that comes', async () => {
  await using a = await startBackend(sayName('a'));
  await using proxy = await startProxy({ backends: [] });
  assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  writeRouting(proxy.dbPath, [{ id: 'a', ...a.row }]);
  await untilRouted(proxy, '127.6.4.1', 'a');
});

const BAD_ROW = `INSERT INTO backends(id, app, region, wg_ip, port, weight) VALUES
  ('bad-port', 'web', 'sa', '127.0.0.1', 99999, 1),
  ('bad-ip', 'web', 'sa', 'example.test', 80, 1),
  ('bad-weight', 'web', 'sa', '127.0.0.1', 80, -3)`;

for (const when of ['at start', 'while running']) {
  test(`rows: bad ones ${when} are skipped and reported with id, column, value and reason`, async () => {
    await using a = await startBackend(sayName('a'));
    await using seed = await startProxy({ backends: [{ id: 'a', ...a.row }] });
    const before = (await seed.metrics()).get('edge_routing_version');
    changeRouting(seed.dbPath, BAD_ROW);
    let proxy = seed;
    if (when === 'at start') {
      await seed.stop();
      proxy = await new ProxyProcess({ directory: seed.directory }).listening();
    }
    await until('the reports', () => {
      return (
        proxy.logs.filter((line) => line.message === 'A row of routing.db is skipped').length === 3
      );
    });
    const report = proxy.logs.find((line) => line.id === 'bad-port');
    const { id, column, value, reason } = report as Record<string, unknown>;
    assert.deepEqual(
      { id, column, value, reason },
      {
        id: 'bad-port',
        column: 'port',
        value: '99999',
        reason: 'must be a whole number from 1 to 65535',
      },
    );
    assert.equal(await backendName(proxy.address), 'a');
    assert.ok((await proxy.metrics()).get('edge_routing_version') >= before);
    if (proxy !== seed) await proxy[Symbol.asyncDispose]();
  });
}

/** Damage to the file of a running proxy, and how it is mended. */
const DAMAGES: Record<string, (path: string) => void> = {
  'is removed': (path) => rmSync(path),
  'is truncated': (path) => truncateSync(path, 1500),
  'is overwritten with text': (path) => writeFileSync(path, 'no database at all '.repeat(400)),
  'is emptied': (path) => truncateSync(path, 0),
  'becomes another database': (path) => changeRouting(path, 'DROP TABLE backends'),
};

for (const [name, damage] of Object.entries(DAMAGES)) {
  test(`damage: when routing.db ${name}, the last good data stays, is reported once, and mends`, async () => {
    await using a = await startBackend(sayName('a'));
    await using b = await startBackend(sayName('b'));
    await using proxy = await startProxy({
      backends: [{ id: 'a', ...a.row }],
      settings: { DB_RELOAD_SECS: 0.05 },
    });
    damage(proxy.dbPath);
    await proxy.untilLog(UNREADABLE);
    for (let index = 1; index < 10; index++) {
      assert.equal(await backendName(proxy.address, { from: `127.6.5.${index}` }), 'a');
    }
    const errors = (await proxy.metrics()).get('edge_routing_reload_errors_total');
    assert.equal(errors, proxy.logs.filter((line) => line.message === UNREADABLE).length);
    assert.ok(errors <= 2, `reported ${errors} times`);
    const mended = join(proxy.directory, 'mended.db');
    writeRouting(mended, [{ id: 'b', ...b.row }]);
    renameSync(mended, proxy.dbPath);
    await untilRouted(proxy, '127.6.5.1', 'b');
  });
}

test('damage: a database replaced by rename and one copied over are followed', async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using proxy = await startProxy({ backends: [{ id: 'a', ...a.row }] });
  const other = join(proxy.directory, 'other.db');
  writeRouting(other, [{ id: 'b', ...b.row }]);
  copyFileSync(other, proxy.dbPath);
  await untilRouted(proxy, '127.6.6.1', 'b');
  writeRouting(other, [{ id: 'a', ...a.row }]);
  renameSync(other, proxy.dbPath);
  await untilRouted(proxy, '127.6.6.1', 'a');
});

test('lock: while a writer locks routing.db the last good data stays, afterwards the change is in force', async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...a.row }],
    settings: { DB_RELOAD_SECS: 0.05 },
  });
  const unlock = lockRouting(proxy.dbPath);
  await proxy.untilLog(UNREADABLE);
  assert.match(String(proxy.log(UNREADABLE)?.reason), /locked by another process/);
  assert.equal(await backendName(proxy.address, { from: '127.6.7.1' }), 'a');
  unlock();
  writeRouting(proxy.dbPath, [{ id: 'b', ...b.row }]);
  await untilRouted(proxy, '127.6.7.1', 'b');
});

test('lock: a database that stays locked at start ends with exit code 1 and says so', async () => {
  await using seed = await startProxy({ backends: [] });
  await seed.stop();
  const unlock = lockRouting(seed.dbPath);
  await using proxy = new ProxyProcess({ directory: seed.directory });
  assert.equal((await within('the end', proxy.exited)).code, 1);
  assert.match(JSON.stringify(proxy.logs) + proxy.stderrText, /locked by another process/);
  unlock();
});

test('start: routing.db is opened read-only', async () => {
  await using a = await startBackend(sayName('a'));
  await using seed = await startProxy({ backends: [{ id: 'a', ...a.row }] });
  await seed.stop();
  chmodSync(seed.dbPath, 0o444);
  await using proxy = await startProxy({ directory: seed.directory });
  assert.equal(await backendName(proxy.address), 'a');
});
