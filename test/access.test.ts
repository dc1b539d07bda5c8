// The access list through the real process: who is let in, who is not, and how the list changes while it runs.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { backendName, clientFate, echoOnce, openClient } from '../src/testing/clients.ts';
import { writeMmdb } from '../src/testing/mmdb-writer.ts';
import { openNamespaces, skipReason } from '../src/testing/netns.ts';
import {
  connectionsBalance,
  type HostPort,
  ProxyProcess,
  startProxy,
} from '../src/testing/proxy-process.ts';
import { changeRouting, writeAccess, writeRouting } from '../src/testing/routing-file.ts';
import { echo, sayName, startBackend, type TestBackend } from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

const IN_FORCE = 'Access list in force';
type Rows = Parameters<typeof writeAccess>[1];

/** A proxy before backend `a`, with this list from its start. */
async function startWithAccess(
  backend: TestBackend,
  rows: Rows,
  settings: Record<string, string | number> = {},
): Promise<ProxyProcess> {
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
  const path = join(directory, 'routing.db');
  writeRouting(path, [{ id: 'a', ...backend.row }]);
  writeAccess(path, rows);
  const proxy = await startProxy({ directory, settings });
  const dispose = proxy[Symbol.asyncDispose].bind(proxy);
  return Object.assign(proxy, {
    [Symbol.asyncDispose]: async () => {
      await dispose();
      rmSync(directory, { recursive: true });
    },
  });
}

/** Writes the list and waits until it is in force; with one worker the next client meets it. */
async function changeAccess(proxy: ProxyProcess, rows: Rows, from: string): Promise<void> {
  const before = await backendName(proxy.address, { from });
  writeAccess(proxy.dbPath, rows);
  await until(`another answer to ${from}`, async () => {
    return (await backendName(proxy.address, { from })) !== before;
  });
}

/** Clients that get through. */
async function admitted(at: HostPort, clients: readonly string[]): Promise<string[]> {
  const names = await Promise.all(clients.map((from) => backendName(at, { from })));
  return clients.filter((_, index) => names[index] === 'a');
}

test('access: denied prefixes are reset before anything is done for them, the longest prefix decides', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startWithAccess(
    backend,
    [
      ['deny', '127.8.0.0/16'],
      ['allow', '127.8.1.0/24'],
      ['deny', '127.8.1.7'],
      ['allow', '*'],
    ],
    { RATE_LIMIT_ENABLED: 'true' },
  );
  assert.equal((await clientFate(proxy.address, { from: '127.8.0.1' })).end, 'ECONNRESET');
  const clients = ['127.8.0.1', '127.8.1.1', '127.8.1.7', '127.8.1.8', '127.8.2.0', '127.9.0.0'];
  const expected = ['127.8.1.1', '127.8.1.8', '127.9.0.0'];
  assert.deepEqual(await admitted(proxy.address, clients), expected);
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  assert.deepEqual(metrics.nonZero('edge_rejected_total', 'reason'), { access_denied: 4 });
  assert.equal(backend.connections, 3);
  // One row of the client table for its binding, one for its limits: none for who was denied.
  assert.equal(metrics.get('edge_client_rows_current'), expected.length * 2);
  assert.equal(metrics.get('edge_access_rows'), 4);
  const { accepted, accounted } = connectionsBalance(metrics);
  assert.equal(accepted, accounted);
});

test('access: with a row that allows, whom no row matches is denied', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startWithAccess(backend, [['allow', '127.8.1.0/24']]);
  assert.deepEqual(await admitted(proxy.address, ['127.8.1.1', '127.8.2.1']), ['127.8.1.1']);
  assert.equal(proxy.log(IN_FORCE)?.unmatched, 'denied at *');
});

test('access: IPv6 clients are matched by IPv6 rows, IPv4 clients of a dual-stack listener by IPv4 rows', async () => {
  await using backend = await startBackend(sayName('a'));
  const settings = { LISTEN_ADDR: '[::]:0', WORKERS: 1 };
  await using proxy = await startWithAccess(backend, [['deny', '::1']], settings);
  const six = proxy.address;
  const four = { ...six, host: '127.0.0.1' };
  const seen = async (): Promise<string[]> => [await backendName(six), await backendName(four)];
  assert.deepEqual(await seen(), ['', 'a']);
  const changes: [Rows, string[]][] = [
    [[['deny', '127.0.0.0/8']], ['a', '']],
    [[['deny', '::/0']], ['', 'a']],
    [[['deny', '::ffff:127.0.0.0/104']], ['a', '']],
    [[['allow', '127.0.0.1']], ['', 'a']],
    [[['allow', '::/64']], ['a', '']],
  ];
  for (const [list, expected] of changes) {
    writeAccess(proxy.dbPath, list);
    await until(`${list}`, async () => (await seen()).join() === expected.join());
  }
});

test('access: rows for an app count at its listeners only', async () => {
  await using backend = await startBackend(sayName('a'));
  const settings = { LISTEN_ADDR: 'web@127.0.0.1:0,mail@127.0.0.1:0' };
  await using proxy = await startWithAccess(
    backend,
    [
      ['deny', '127.8.1.0/24'],
      ['allow', '127.8.0.0/16', 'mail'],
      ['allow', '127.8.1.1', 'mail'],
      ['deny', '127.8.2.0/24', 'elsewhere'],
    ],
    settings,
  );
  writeRouting(proxy.dbPath, [
    { id: 'web', app: 'web', ...backend.row },
    { id: 'mail', app: 'mail', ...backend.row },
  ]);
  const [web, mail] = proxy.addresses as [HostPort, HostPort];
  const clients = ['127.8.1.1', '127.8.1.2', '127.8.2.1', '127.9.0.1'];
  await until(
    'both backends',
    async () => (await backendName(mail, { from: '127.8.3.1' })) === 'a',
  );
  assert.deepEqual(await admitted(web, clients), ['127.8.2.1', '127.9.0.1']);
  assert.deepEqual(await admitted(mail, clients), ['127.8.1.1', '127.8.2.1']);
  assert.equal(proxy.log(IN_FORCE)?.unmatched, 'denied at mail');
});

test('access: countries are denied by the country database, prefixes go before them', async (t) => {
  const clients = ['203.0.113.1', '203.0.113.2', '198.51.100.1', '2001:db8::1', '10.255.0.2'];
  using namespaces = openNamespaces(clients.filter((client) => client !== '10.255.0.2'));
  if (namespaces.problem !== '') {
    t.skip(skipReason(namespaces.problem));
    return;
  }
  await namespaces.serve(['127.0.0.1:9001=a']);
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const countries = { '203.0.113.0/24': 'BR', '198.51.100.0/24': 'US', '2001:db8::/32': 'BR' };
  const networks = Object.entries(countries).map(([cidr, code]) => ({
    cidr,
    value: { country: { iso_code: code } },
  }));
  const geoip = join(directory, 'countries.mmdb');
  writeFileSync(geoip, writeMmdb(networks));
  await using proxy = await startProxy({
    backends: [{ id: 'a', port: 9001 }],
    wrapper: namespaces.wrapper,
    settings: { LISTEN_ADDR: '[::]:8080', GEOIP_PATH: geoip, METRICS_LISTEN_ADDR: 'off' },
  });
  const seen = (): string[] => clients.filter((client) => namespaces.ask(client, 8080) === 'a');
  const becomes = async (rows: Rows, expected: readonly string[]): Promise<void> => {
    const from = proxy.logs.length;
    writeAccess(proxy.dbPath, rows);
    await proxy.untilLog(IN_FORCE, from);
    await until(`${rows}`, () => seen().join() === expected.join());
  };
  assert.deepEqual(seen(), clients);
  await becomes([['deny', 'br']], ['198.51.100.1', '10.255.0.2']);
  const own = ['203.0.113.2', '198.51.100.1', '10.255.0.2'];
  await becomes(
    [
      ['deny', 'BR'],
      ['allow', '203.0.113.2'],
      ['allow', '*'],
    ],
    own,
  );
  await becomes([['allow', 'BR']], ['203.0.113.1', '203.0.113.2', '2001:db8::1']);
  await becomes(
    [
      ['allow', 'BR'],
      ['deny', '2001:db8::/64'],
    ],
    ['203.0.113.1', '203.0.113.2'],
  );
});

test('access: a change under traffic reaches new clients, touches no open session, and is no routing change', async () => {
  await using backend = await startBackend(echo);
  await using named = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'talk', ...backend.row }],
    settings: { DB_RELOAD_SECS: 3600, WORKERS: 1 },
  });
  const froms = Array.from({ length: 10 }, (_, index) => `127.8.0.${index + 1}`);
  const talkers = await Promise.all(froms.map((from) => openClient(proxy.address, { from })));
  await proxy.reroute([{ id: 'a', ...named.row }]);
  let rounds = 0;
  let stop = false;
  const talking = talkers.map(async (client, index) => {
    for (let turn = 0; !stop; turn++) {
      await echoOnce(client, `client ${index} turn ${turn}`);
      rounds++;
    }
  });
  const before = (await proxy.metrics()).get('edge_routing_version');
  for (let change = 0; change < 20; change++) {
    await changeAccess(proxy, [['deny', '127.8.0.0/16']], '127.8.1.1');
    assert.deepEqual(await admitted(proxy.address, ['127.8.0.1', '127.9.0.1']), ['127.9.0.1']);
    await changeAccess(proxy, change % 2 === 0 ? [] : [['allow', '127.0.0.0/8']], '127.8.1.1');
    assert.deepEqual(await admitted(proxy.address, ['127.8.0.200']), ['127.8.0.200']);
  }
  stop = true;
  await Promise.all(talking);
  assert.ok(rounds > 100, `only ${rounds} exchanges happened meanwhile`);
  assert.equal(backend.sockets.size, 10, 'no session was touched');
  assert.equal((await proxy.metrics()).get('edge_routing_version'), before);
  for (const client of talkers) client.destroy();
});

test('access: a replaced worker has the list of the moment, not the one of the start', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { WORKERS: 1, FAULT_INJECTION: 1 },
  });
  await changeAccess(proxy, [['deny', '127.8.0.0/16']], '127.8.0.1');
  proxy.signal('SIGUSR2');
  await proxy.untilLog('A worker was replaced');
  assert.deepEqual(await admitted(proxy.address, ['127.8.0.1', '127.9.0.1']), ['127.9.0.1']);
});

test('access: a dry run turns nobody away, and counts', async () => {
  await using backend = await startBackend(sayName('a'));
  const settings = { ACCESS_DRY_RUN: 'true' };
  await using proxy = await startWithAccess(backend, [['deny', '127.8.0.0/16']], settings);
  const clients = ['127.8.0.1', '127.8.0.2', '127.9.0.1'];
  assert.deepEqual(await admitted(proxy.address, clients), clients);
  const metrics = await proxy.untilMetric('edge_access_dry_run_total', 2);
  assert.deepEqual(metrics.nonZero('edge_rejected_total', 'reason'), {});
  assert.equal(proxy.log(IN_FORCE)?.dryRun, true);
});

test('access: bad rows are skipped and reported with what they match, column, value and reason', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  changeRouting(
    proxy.dbPath,
    `CREATE TABLE access(app, action, match);
     INSERT INTO access VALUES ('*', 'deny', '127.8.0.1/16'), ('*', 'dny', 'BR'),
       ('*', 'deny', 'Brazil'), ('a b', 'deny', 'BR'), (NULL, 'deny', '127.9.0.0/16')`,
  );
  const { rows, skipped } = await proxy.untilLog(IN_FORCE);
  assert.deepEqual({ rows, skipped }, { rows: 1, skipped: 4 });
  const told = proxy.logs.filter(({ message }) => message === 'A row of routing.db is skipped');
  assert.deepEqual(
    told.map(({ table, id, column, value }) => [table, id, column, value]),
    [
      ['access', '"127.8.0.1/16"', 'match', '"127.8.0.1/16"'],
      ['access', '"BR"', 'action', '"dny"'],
      ['access', '"Brazil"', 'match', '"Brazil"'],
      ['access', '"BR"', 'app', '"a b"'],
    ],
  );
  assert.match(
    String(told[0]?.reason),
    /must not have bits beyond its prefix length, as in 127\.8\.0\.0\/16$/,
  );
  await until('the good row', async () => {
    return (await admitted(proxy.address, ['127.8.0.1', '127.9.0.1'])).join() === '127.8.0.1';
  });
  const values = Array.from({ length: 50 }, (_, index) => `('*', 'deny', 'bad ${index}')`);
  changeRouting(proxy.dbPath, `INSERT INTO access VALUES ${values.join()}`);
  const more = await proxy.untilLog('More rows of routing.db are skipped');
  assert.equal(more.count, 34, '20 are told');
});

test('access: while the table cannot be used the last good list stays, and backends are followed', async () => {
  await using a = await startBackend(sayName('a'));
  await using proxy = await startWithAccess(a, [['deny', '127.8.0.0/16']], { WORKERS: 1 });
  changeRouting(proxy.dbPath, 'ALTER TABLE access RENAME COLUMN match TO cidr');
  const line = await proxy.untilLog('The access table cannot be read, the last good list stays');
  assert.match(String(line.reason), /table access lacks the column match$/);
  await proxy.reroute('UPDATE backends SET weight = 2');
  await proxy.untilMetric('edge_routing_reload_errors_total', 1);
  assert.deepEqual(await admitted(proxy.address, ['127.8.0.1', '127.9.0.1']), ['127.9.0.1']);
  assert.equal((await proxy.metrics()).get('edge_access_rows'), 1);
  const from = '127.8.0.1';
  changeRouting(
    proxy.dbPath,
    "ALTER TABLE access RENAME COLUMN cidr TO match; UPDATE access SET match = '127.9.0.0/16'",
  );
  await until('the mended list', async () => (await backendName(proxy.address, { from })) === 'a');
  assert.deepEqual(await admitted(proxy.address, ['127.9.0.1']), []);
  changeRouting(proxy.dbPath, 'DROP TABLE access');
  await until('no list', async () => {
    return (await admitted(proxy.address, ['127.9.0.1'])).length === 1;
  });
});

test('access: a table that cannot be used at start ends with exit code 1 and says why', async () => {
  await using seed = await startProxy({ backends: [] });
  await seed.stop();
  changeRouting(seed.dbPath, 'CREATE TABLE access(cidr TEXT, action TEXT)');
  await using proxy = new ProxyProcess({ directory: seed.directory });
  assert.equal((await within('the end', proxy.exited)).code, 1);
  const text = JSON.stringify(proxy.logs) + proxy.stderrText;
  assert.match(text, /Cannot read routing database .*table access lacks the column match/);
});

test('access: 100,000 rows are loaded, decide, and change', async () => {
  await using backend = await startBackend(sayName('a'));
  const rows: [string, string][] = [];
  for (let index = 0; index < 50_000; index++) {
    const [high, low] = [(index >> 8) & 255, index & 255];
    // 127.128 to 127.255 and more: every other address of each /24 that starts with it.
    rows.push(['deny', `127.${128 + (index >> 14)}.${(index >> 6) & 255}.${(index & 63) * 4}/31`]);
    rows.push(['deny', `2001:db8:${high.toString(16)}:${low.toString(16)}::/64`]);
  }
  await using proxy = await startWithAccess(backend, rows, { WORKERS: 1 });
  assert.equal(proxy.log(IN_FORCE)?.rows, 100_000);
  const clients = ['127.128.0.1', '127.128.0.2', '127.129.7.9', '127.129.7.11', '127.8.0.1'];
  const before = ['127.128.0.2', '127.129.7.11', '127.8.0.1'];
  assert.deepEqual(await admitted(proxy.address, clients), before);
  changeRouting(proxy.dbPath, "INSERT INTO access(action, match) VALUES ('deny', '127.8.0.1')");
  await until('the last row', async () => {
    return (await admitted(proxy.address, ['127.8.0.1'])).length === 0;
  });
  assert.deepEqual(await admitted(proxy.address, clients), before.slice(0, 2));
  assert.equal((await proxy.metrics()).get('edge_access_rows'), 100_001);
});
