// Open sessions, countries, regions and explain of the admin API, with real sessions: on every engine, because it is the
// workers' own tables that are read.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { askAdmin } from '../src/testing/admin-client.ts';
import { holdTo, holdToProblem, readAdmin } from '../src/testing/admin-reads.ts';
import { backendName, echoOnce, openClient } from '../src/testing/clients.ts';
import { openNamespaces, skipReason } from '../src/testing/netns.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { echo, openBlackhole, sayName, startBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

/** Ids of clients: their port says which is which. */
async function ports(proxy: ProxyProcess, query: string): Promise<number[]> {
  const { sessions } = await readAdmin(proxy, `/api/sessions?${query}`, 'sessionList');
  return sessions.map(({ client }) => client.port);
}

function total(proxy: ProxyProcess): Promise<number> {
  return readAdmin(proxy, '/api/sessions', 'sessionList').then((list) => list.total);
}

const portOf = (socket: Socket): number => socket.localPort as number;

test('admin sessions: each open session is listed with who, where, how long and how much', async () => {
  await using a = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'a', ...a.row }] });
  const empty = await readAdmin(proxy, '/api/sessions', 'sessionList');
  assert.deepEqual(empty, { total: 0, limit: 100, offset: 0, sessions: [] });
  const client = await openClient(proxy.address, { from: '127.8.0.9' });
  await echoOnce(client, 'sixteen bytes ..');
  const [session] = (await readAdmin(proxy, '/api/sessions', 'sessionList')).sessions;
  assert.deepEqual(session?.client, { address: '127.8.0.9', port: portOf(client) });
  assert.deepEqual([session?.bytes_up, session?.bytes_down], [16, 16]);
  assert.deepEqual(
    [session?.backend, session?.app, session?.country, session?.tier, session?.state],
    ['a', '*', null, 2, 'relaying'],
  );
  assert.ok(Math.abs(Date.parse(String(session?.accepted_at)) - Date.now()) < 60_000);
  client.destroy();
  await until('the session to be gone', async () => (await total(proxy)) === 0);
});

test('admin sessions: the largest or the oldest come first, page by page', async () => {
  await using a = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'a', ...a.row, hardLimit: 100 }] });
  const clients: Socket[] = [];
  for (let index = 0; index < 12; index++) {
    const client = await openClient(proxy.address, { from: `127.8.1.${index + 1}` });
    // Every other one is larger than all before it.
    await echoOnce(client, 'x'.repeat(index % 2 === 0 ? 100 + index : 50 - index));
    clients.push(client);
  }
  const bySize = [...clients.keys()]
    .sort((one, two) => {
      const size = (index: number): number => (index % 2 === 0 ? 100 + index : 50 - index);
      return size(two) - size(one);
    })
    .map((index) => portOf(clients[index] as Socket));
  assert.deepEqual(await ports(proxy, ''), bySize);
  const byAge = clients.map(portOf);
  assert.deepEqual(await ports(proxy, 'order=age'), byAge);
  const pages: number[] = [];
  for (let offset = 0; offset < 12; offset += 5) {
    pages.push(...(await ports(proxy, `order=age&limit=5&offset=${offset}`)));
  }
  assert.deepEqual(pages, byAge);
  const beyond = await readAdmin(proxy, '/api/sessions?offset=50', 'sessionList');
  assert.deepEqual([beyond.total, beyond.sessions.length], [12, 0]);
  const { sessions } = await readAdmin(proxy, '/api/sessions', 'sessionList');
  assert.equal(new Set(sessions.map(({ id }) => id)).size, 12);
  // A slot that is used again is another session.
  clients[0]?.destroy();
  await until('one to be gone', async () => (await total(proxy)) === 11);
  const another = await openClient(proxy.address, { from: '127.8.1.99' });
  await echoOnce(another, 'new');
  assert.deepEqual(await ports(proxy, 'order=age'), [...byAge.slice(1), portOf(another)]);
  for (const client of [...clients, another]) client.destroy();
});

test('admin sessions: filters by backend, app and country; a session that connects has its state', async () => {
  await using a = await startBackend(echo);
  await using slow = await openBlackhole();
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row, app: 'web' },
      { id: 'slow', port: slow.port, app: 'far' },
    ],
    settings: {
      LISTEN_ADDR: 'web@127.0.0.1:0,far@127.0.0.1:0',
      CONNECT_TIMEOUT_MS: 60_000,
      CONNECT_TOTAL_TIMEOUT_MS: 60_000,
    },
  });
  const [web, far] = proxy.addresses as [ProxyProcess['address'], ProxyProcess['address']];
  const one = await openClient(web);
  await echoOnce(one, 'hello');
  const two = await openClient(far);
  const connecting = await until('the connecting session', async () => {
    const { sessions } = await readAdmin(proxy, '/api/sessions?app=far', 'sessionList');
    return sessions[0];
  });
  assert.deepEqual([connecting.state, connecting.backend], ['connecting', 'slow']);
  assert.deepEqual(await ports(proxy, 'app=web'), [portOf(one)]);
  assert.deepEqual(await ports(proxy, 'backend=a'), [portOf(one)]);
  assert.deepEqual(await ports(proxy, 'backend=slow'), [portOf(two)]);
  assert.deepEqual(await ports(proxy, 'app=*'), []);
  assert.deepEqual((await ports(proxy, 'country=none')).length, 2);
  assert.deepEqual(await ports(proxy, 'country=BR'), []);
  const wrong: [query: string, status: number, name: string, field?: string][] = [
    ['backend=b', 404, 'backend-unknown'],
    ['app=wbe', 404, 'app-unknown'],
    ['country=QQ', 400, 'invalid-query', 'country'],
    ['country=Brazil', 400, 'invalid-query', 'country'],
    ['order=size', 400, 'invalid-query', 'order'],
    ['limit=0', 400, 'invalid-query', 'limit'],
    ['limit=1e3', 400, 'invalid-query', 'limit'],
    ['offset=9950&limit=100', 400, 'invalid-query', 'offset'],
  ];
  for (const [query, status, name, field] of wrong) {
    const answer = await askAdmin(proxy, `/api/sessions?${query}`);
    const [error] = holdToProblem(answer, status, name);
    assert.equal(error?.[0], field, query);
  }
  one.destroy();
  two.destroy();
});

test('admin sessions: those of a dead worker are gone, from the list and from the map', async () => {
  await using a = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...a.row }],
    settings: { WORKERS: 1 },
    wrapper: ['env', 'EDGEPROXY_FAULT_INJECTION=1'],
  });
  const clients = await Promise.all(Array.from({ length: 9 }, () => openClient(proxy.address)));
  for (const client of clients) await echoOnce(client, 'hello');
  assert.equal(await total(proxy), 9);
  proxy.signal('SIGUSR2');
  await proxy.untilLog('A worker was replaced');
  const { sessions, ended, workers } = await readAdmin(proxy, '/api/status', 'status');
  assert.deepEqual([sessions.current, ended.worker_lost], [0, 9]);
  assert.deepEqual([workers[0]?.phase, workers[0]?.replacements], ['running', 1]);
  assert.equal(await total(proxy), 0);
  const { countries } = await readAdmin(proxy, '/api/countries', 'countries');
  assert.deepEqual([countries[0]?.sessions, countries[0]?.connections], [0, 9]);
  const client = await openClient(proxy.address);
  await echoOnce(client, 'again');
  assert.equal(await total(proxy), 1);
  client.destroy();
});

test('admin explain: load, exclusions and the binding are those of the running process', async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row, hardLimit: 1, softLimit: 1 },
      { id: 'b', ...b.row, region: 'eu', country: 'PT' },
      { id: 'c', port: 1, app: 'api' },
    ],
    settings: { LISTEN_ADDR: 'web@127.0.0.1:0' },
  });
  const explain = (query: string) => readAdmin(proxy, `/api/explain?${query}`, 'explanation');
  const before = await explain('ip=127.8.3.1&app=web');
  assert.deepEqual([before.choice, before.binding, before.total], ['a', null, 2]);
  assert.match(String(before.country_reason), /loopback/);
  const held = await openClient(proxy.address, { from: '127.8.3.1' });
  await until('the session', () => a.sockets.size === 1);
  const full = await explain('ip=127.8.3.2&app=web');
  assert.equal(full.choice, 'b');
  assert.deepEqual(
    full.candidates.map(({ id, active, excluded, tier }) => [id, active, excluded, tier]),
    [
      ['b', 0, null, 3],
      ['a', 1, 'hard limit', 2],
    ],
  );
  assert.equal(await backendName(proxy.address, { from: '127.8.3.2' }), 'b');
  held.destroy();
  await until('the place to be free', async () => (await total(proxy)) === 0);
  // The client is kept where it was, although another is nearer.
  const bound = await explain('ip=127.8.3.2&app=web');
  assert.deepEqual(bound.binding, { backend: 'b', usable: true });
  assert.deepEqual([bound.choice, bound.candidates[0]?.id], ['b', 'a']);
  assert.equal(await backendName(proxy.address, { from: '127.8.3.2' }), 'b');
  await askAdmin(proxy, '/api/backends/b', { method: 'PATCH', body: { enabled: false } });
  const lost = await explain('ip=127.8.3.2&app=web');
  assert.deepEqual([lost.binding?.usable, lost.choice], [false, 'a']);
  assert.equal((await explain('ip=8.8.8.8')).country, 'US');
  assert.equal((await explain('ip=::ffff:8.8.8.8')).ip, '8.8.8.8');
  assert.equal((await explain('ip=8.8.8.8&limit=1')).candidates.length, 1);
  for (const [query, status, name] of [
    ['', 400, 'invalid-query'],
    ['ip=8.8.8', 400, 'invalid-query'],
    ['ip=8.8.8.8&app=wbe', 404, 'app-unknown'],
  ] as const) {
    holdToProblem(await askAdmin(proxy, `/api/explain?${query}`), status, name);
  }
});

test('admin map: sessions by country and region, with places', async (t) => {
  const clients = ['200.160.2.3', '2804:14d::1', '8.8.8.8'];
  using namespaces = openNamespaces(clients);
  if (namespaces.problem !== '') {
    t.skip(skipReason(namespaces.problem));
    return;
  }
  await namespaces.serve(['127.0.0.1:9001=br', '127.0.0.1:9002=us']);
  await using proxy = await startProxy({
    backends: [
      { id: 'br', region: 'sa', port: 9001 },
      { id: 'us', region: 'us', port: 9002 },
    ],
    wrapper: namespaces.wrapper,
    settings: { LISTEN_ADDR: '[::]:8080', COUNTRY: 'PT', REGION: 'eu' },
  });
  for (const from of [...clients, '10.255.0.2']) namespaces.ask(from, 8080);
  /** The admin address is in there, too. */
  const read = (path: string): unknown => {
    const url = `http://127.0.0.1:${proxy.admin?.port}${path}`;
    const script = `fetch('${url}').then(async (r) => console.log(await r.text()))`;
    const [command = '', ...args] = [...namespaces.wrapper, process.execPath, '-e', script];
    return JSON.parse(spawnSync(command, args, { encoding: 'utf8' }).stdout);
  };
  const { countries } = await until('all sessions to end', () => {
    const map = holdTo('countries', read('/api/countries'));
    return map.countries.every(({ sessions }) => sessions === 0) ? map : null;
  });
  assert.deepEqual(
    countries.map(({ country, region, connections, latitude }) => ({
      ...{ country, region, connections, latitude },
    })),
    [
      { country: 'BR', region: 'sa', connections: 2, latitude: -10 },
      { country: null, region: null, connections: 1, latitude: null },
      { country: 'US', region: 'us', connections: 1, latitude: 38 },
    ],
  );
  const { pop, regions } = holdTo('regions', read('/api/regions'));
  assert.deepEqual(pop, { region: 'eu', country: 'PT', latitude: 39.5, longitude: -8 });
  const sa = regions.find(({ name }) => name === 'sa');
  assert.deepEqual([sa?.home_country, sa?.backends, sa?.sessions], ['BR', 1, 0]);
  assert.ok(sa?.countries.includes('BR') && sa.countries.includes('AR'));
  assert.deepEqual(
    regions.map(({ name }) => name),
    ['sa', 'us', 'eu', 'ap', 'af', 'me'],
  );
});
