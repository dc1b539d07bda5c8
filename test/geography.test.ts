// Geography from the client's real address to the backend, and the country database: given, changed, damaged.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { backendName } from '../src/testing/clients.ts';
import { Metrics } from '../src/testing/metrics-text.ts';
import { writeMmdb } from '../src/testing/mmdb-writer.ts';
import { type Namespaces, openNamespaces, skipReason } from '../src/testing/netns.ts';
import { ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { writeRouting } from '../src/testing/routing-file.ts';
import { sayName, startBackend } from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
});
after(() => rmSync(directory, { recursive: true }));

/** A country database that has only these networks. */
function countries(networks: Readonly<Record<string, string>>): Uint8Array {
  return writeMmdb(
    Object.entries(networks).map(([cidr, code]) => ({
      cidr,
      value: { country: { iso_code: code } },
    })),
  );
}

const BACKENDS = [
  { id: 'br', region: 'sa', country: 'BR', port: 9001 },
  { id: 'cl', region: 'sa', country: 'CL', port: 9002 },
  { id: 'us', region: 'us', country: 'US', port: 9003 },
  { id: 'de', region: 'eu', country: 'DE', port: 9004 },
  { id: 'sg', region: 'ap', country: 'SG', port: 9005 },
];
const SERVE = BACKENDS.map(({ id, port }) => `127.0.0.1:${port}=${id}`);
const LISTEN = 8080;
const ADMIN = 9090;

/** The metrics of a proxy that listens inside. */
function metricsInside({ wrapper }: Namespaces): Metrics {
  const script = `fetch('http://127.0.0.1:${ADMIN}/metrics').then(async (r) => console.log(await r.text()))`;
  const [command = '', ...args] = [...wrapper, process.execPath, '-e', script];
  return new Metrics(spawnSync(command, args, { encoding: 'utf8' }).stdout);
}

/** Addresses on which all country databases agree, and who should serve them from a POP in Europe. */
const CLIENTS: Record<string, string> = {
  '200.160.2.3': 'br',
  '2804:14d::1': 'br',
  '8.8.8.8': 'us',
  '133.242.0.1': 'sg',
  '10.255.0.2': 'de',
  'fd00:ff::2': 'de',
};

test('geography: clients from four continents reach their backend, by country, then region, then distance', async (t) => {
  const own = ['10.255.0.2', 'fd00:ff::2'];
  const public_ = [
    ...Object.keys(CLIENTS).filter((address) => !own.includes(address)),
    '200.160.2.4',
  ];
  using namespaces = openNamespaces([...public_, '200.160.2.5']);
  if (namespaces.problem !== '') {
    t.skip(skipReason(namespaces.problem));
    return;
  }
  await namespaces.serve(SERVE);
  await using proxy = await startProxy({
    backends: BACKENDS,
    wrapper: namespaces.wrapper,
    settings: {
      LISTEN_ADDR: `[::]:${LISTEN}`,
      METRICS_LISTEN_ADDR: `127.0.0.1:${ADMIN}`,
      REGION: 'eu',
    },
  });
  for (const [from, name] of Object.entries(CLIENTS)) {
    assert.equal(namespaces.ask(from, LISTEN), name, `the client from ${from}`);
  }
  const metrics = metricsInside(namespaces);
  assert.deepEqual(metrics.nonZero('edge_country_connections_total', 'country'), {
    none: 2,
    BR: 2,
    US: 1,
    JP: 1,
  });
  assert.deepEqual(metrics.nonZero('edge_tier_connections_total', 'tier'), { 0: 3, 1: 1, 2: 2 });
  // Tier by tier: without the one in the country the region, without the region the nearest.
  writeRouting(
    proxy.dbPath,
    BACKENDS.filter(({ id }) => id !== 'br'),
  );
  await proxy.untilLog('Routing reloaded');
  await until('the next tier', () => namespaces.ask('200.160.2.4', LISTEN) === 'cl');
  writeRouting(
    proxy.dbPath,
    BACKENDS.filter(({ region }) => region === 'us' || region === 'ap'),
  );
  // No backend in the POP's region either: the United States are nearer to Brazil than Singapore.
  await until('the nearest region', () => namespaces.ask('200.160.2.5', LISTEN) === 'us');
});

test('geography: a country database that is swapped moves the next client, a truncated one moves nobody', async (t) => {
  const file = join(directory, 'countries.mmdb');
  const clients = Array.from({ length: 5 }, (_, index) => `203.0.113.${index + 1}`);
  using namespaces = openNamespaces(clients);
  if (namespaces.problem !== '') {
    t.skip(skipReason(namespaces.problem));
    return;
  }
  await namespaces.serve(SERVE);
  writeFileSync(file, countries({ '203.0.113.0/24': 'BR' }));
  await using proxy = await startProxy({
    backends: BACKENDS,
    wrapper: namespaces.wrapper,
    settings: { LISTEN_ADDR: `0.0.0.0:${LISTEN}`, REGION: 'eu', GEOIP_PATH: file },
  });
  assert.equal(namespaces.ask('203.0.113.1', LISTEN), 'br');
  truncateSync(file, 60);
  await proxy.untilLog('Country data cannot be read, the last good data stays');
  assert.equal(namespaces.ask('203.0.113.2', LISTEN), 'br');
  writeFileSync(file, countries({ '203.0.113.0/24': 'US' }));
  await proxy.untilLog('Country data reloaded');
  await until('the new countries', () => namespaces.ask('203.0.113.3', LISTEN) === 'us');
  assert.equal(namespaces.ask('203.0.113.1', LISTEN), 'br', 'a bound client stays');
});

test('geography: a truncated country database at start ends with exit code 1 and names the file', async () => {
  const whole = countries({ '203.0.113.0/24': 'BR' });
  for (const bytes of [0, 10, whole.length - 5]) {
    const file = join(directory, 'truncated.mmdb');
    writeFileSync(file, whole.subarray(0, bytes));
    await using proxy = new ProxyProcess({ backends: [], settings: { GEOIP_PATH: file } });
    assert.equal((await within('the end', proxy.exited)).code, 1);
    const text = JSON.stringify(proxy.logs) + proxy.stderrText;
    assert.match(text, /Cannot read country database .*truncated.mmdb/);
  }
});

test('geography: a country database that is damaged, removed and mended while running never stops service', async () => {
  await using backend = await startBackend(sayName('a'));
  const file = join(directory, 'damaged.mmdb');
  const whole = countries({ '203.0.113.0/24': 'BR' });
  writeFileSync(file, whole);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { GEOIP_PATH: file },
  });
  const unreadable = 'Country data cannot be read, the last good data stays';
  for (const text of ['not a country database', Buffer.from(whole.subarray(0, 99))]) {
    const from = proxy.logs.length;
    writeFileSync(file, text);
    const line = await proxy.untilLog(unreadable, from);
    assert.match(String(line.reason), /damaged.mmdb/);
    assert.equal(await backendName(proxy.address), 'a');
  }
  const from = proxy.logs.length;
  writeFileSync(file, readFileSync(file).fill(0));
  await proxy.untilLog(unreadable, from);
  writeFileSync(file, whole);
  await proxy.untilLog('Country data reloaded', from);
  proxy.signal('SIGHUP');
  await until('another load', () => {
    return proxy.logs.filter(({ message }) => message === 'Country data reloaded').length >= 2;
  });
  assert.equal(await backendName(proxy.address), 'a');
});
