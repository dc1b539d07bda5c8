// The admin API through the real process: what each path answers, that edits reach the next connection, and everything that
// can be wrong in a request.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type AdminAnswer, type AdminRequest, askAdmin } from '../src/testing/admin-client.ts';
import { holdTo, holdToProblem, readAdmin } from '../src/testing/admin-reads.ts';
import { backendName, clientFate, echoOnce, openClient } from '../src/testing/clients.ts';
import { skipReason } from '../src/testing/netns.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { changeRouting, lockRouting, writeRouting } from '../src/testing/routing-file.ts';
import { echo, refusedPort, sayName, startBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

test('admin API: the status counts what happened and knows workers, listeners and places', async () => {
  await using a = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row },
      { id: 'bad', port: 99_999 },
    ],
    settings: { COUNTRY: 'CL', MAX_CONNECTIONS: 77 },
  });
  const before = await readAdmin(proxy, '/api/status', 'status');
  assert.equal(before.state, 'running');
  assert.equal(before.sessions.current, 0);
  assert.equal(before.connect.p50_ms, null);
  assert.deepEqual(before.pop, { region: 'sa', country: 'CL', latitude: -30, longitude: -71 });
  assert.equal(before.listeners[0]?.address, `127.0.0.1:${proxy.address.port}`);
  assert.equal(before.pid, proxy.pid);
  const client = await openClient(proxy.address);
  await echoOnce(client, 'twelve bytes');
  const now = await readAdmin(proxy, '/api/status', 'status');
  assert.equal(now.workers.length, 2);
  assert.deepEqual([...new Set(now.workers.map(({ phase }) => phase))], ['running']);
  assert.equal(
    now.workers.reduce((sum, { sessions }) => sum + sessions, 0),
    1,
  );
  assert.deepEqual(now.sessions, { current: 1, max: 77 });
  assert.equal(now.connections.total, 1);
  assert.ok(now.connections.per_second > 0);
  assert.deepEqual([now.bytes.up, now.bytes.down], [12, 12]);
  assert.equal(now.connect.count, 1);
  assert.ok(now.connect.p50_ms !== null && now.connect.p99_ms !== null);
  assert.equal(now.bindings.current, 1);
  assert.equal(now.routing.version, 1);
  assert.equal(now.routing.backends, 1);
  assert.equal(now.routing.problems_total, 1);
  assert.deepEqual(
    now.routing.problems.map(({ id, column, value }) => [id, column, value]),
    [['bad', 'port', '99999']],
  );
  assert.match(now.geo.source, /geolite2/);
  assert.equal(now.health.enabled, false);
  assert.equal(now.drain, null);
  client.destroy();
  await until('the end to be counted', async () => {
    const { ended } = await readAdmin(proxy, '/api/status', 'status');
    return (ended.client_reset ?? 0) + (ended.completed ?? 0) === 1;
  });
});

test('admin API: the status tells a failed reload, and a drain with its deadline', async () => {
  await using a = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...a.row }],
    settings: { DB_RELOAD_SECS: 0.05 },
  });
  assert.equal((await readAdmin(proxy, '/api/status', 'status')).routing.last_error, null);
  changeRouting(proxy.dbPath, 'ALTER TABLE backends RENAME TO gone');
  await proxy.untilLog('routing.db cannot be read, the last good data stays');
  const { routing } = await readAdmin(proxy, '/api/status', 'status');
  assert.equal(routing.errors, 1);
  assert.match(String(routing.last_error?.message), /has no table backends/);
  const client = await openClient(proxy.address);
  await echoOnce(client, 'open');
  proxy.signal('SIGTERM');
  await proxy.untilLog('Draining');
  const status = await readAdmin(proxy, '/api/status', 'status');
  assert.equal(status.state, 'draining');
  assert.deepEqual([status.drain?.sessions, status.drain?.cause], [1, 'SIGTERM']);
  const { since = '', deadline = '' } = status.drain ?? {};
  assert.equal(Date.parse(deadline) - Date.parse(since), 30_000);
  client.destroy();
});

test('admin API: backends are listed by page and filter, each with how it fares', async () => {
  await using a = await startBackend(sayName('a'));
  const dead = await refusedPort();
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row, hardLimit: 5, softLimit: 4 },
      { id: 'b', port: dead, region: 'eu', country: 'PT', weight: 0 },
      { id: 'c', port: dead, app: 'api', healthy: 0 },
      { id: 'd', port: dead, app: 'api', deleted: 1, checkPath: '/up' },
    ],
  });
  const client = await openClient(proxy.address);
  await until('the session', () => a.sockets.size === 1);
  const list = await readAdmin(proxy, '/api/backends', 'backendList');
  assert.deepEqual(
    list.backends.map(({ id, excluded }) => [id, excluded]),
    [
      ['a', null],
      ['b', 'weight 0'],
      ['c', 'disabled'],
      ['d', 'removed'],
    ],
  );
  const [first, second, , last] = list.backends;
  assert.equal(first?.active, 1);
  assert.equal(first?.load, 0.25);
  assert.equal(first?.connections.total, 1);
  assert.equal(first?.connect.count, 1);
  assert.equal(first?.located_in, 'BR');
  assert.deepEqual([second?.country, second?.located_in], ['PT', 'PT']);
  assert.deepEqual([last?.check_path, last?.check_type], ['/up', null]);
  const ids = async (query: string): Promise<string[]> => {
    const { backends } = await readAdmin(proxy, `/api/backends?${query}`, 'backendList');
    return backends.map(({ id }) => id);
  };
  assert.deepEqual(await ids('app=api'), ['c', 'd']);
  assert.deepEqual(await ids('region=eu'), ['b']);
  assert.deepEqual(await ids('country=br'), ['a', 'c', 'd']);
  assert.deepEqual(await ids('match=B'), ['b']);
  assert.deepEqual(await ids('excluded=false'), ['a']);
  assert.deepEqual(await ids('excluded=true&limit=2'), ['b', 'c']);
  assert.deepEqual(await ids('limit=2&offset=3'), ['d']);
  const page = await readAdmin(proxy, '/api/backends?limit=1&offset=1', 'backendList');
  assert.deepEqual([page.total, page.limit, page.offset], [4, 1, 1]);
  assert.equal((await readAdmin(proxy, '/api/backends/a', 'backend')).address, '127.0.0.1');
  const unknown = await askAdmin(proxy, '/api/backends/aa');
  holdToProblem(unknown, 404, 'backend-unknown');
  assert.match(String(unknown.json.detail), /similar ids are a/);
  client.destroy();
});

test('admin API: health and breaker of a backend show, with the reason', async () => {
  const dead = await refusedPort();
  await using proxy = await startProxy({
    backends: [{ id: 'a', port: dead }],
    settings: {
      HEALTH_CHECK_ENABLED: 'true',
      HEALTH_CHECK_INTERVAL_SECS: 0.05,
      CIRCUIT_FAILURE_THRESHOLD: 1,
    },
  });
  await clientFate(proxy.address);
  await proxy.untilLog('A backend is unhealthy');
  const backend = await readAdmin(proxy, '/api/backends/a', 'backend');
  assert.equal(backend.excluded, 'health');
  assert.equal(backend.reason, 'unhealthy: connect refused');
  assert.equal(backend.health?.healthy, false);
  assert.ok(Number(backend.health?.failure) >= 3);
  const status = await readAdmin(proxy, '/api/status', 'status');
  assert.deepEqual(status.health, { enabled: true, checked: 1, unhealthy: 1 });
  // Whether the client met the backend before the checks took it out is a matter of luck.
  assert.equal(status.breakers.open, Number(backend.breaker.open));
});

/** An edit that must succeed. */
async function edit(proxy: ProxyProcess, path: string, options: AdminRequest, status = 200) {
  const answer = await askAdmin(proxy, path, options);
  assert.equal(answer.status, status, answer.text);
  const parsed = holdTo('backendEdit', answer.json);
  assert.equal(parsed.applied, true);
  assert.match(String(answer.headers.location), /^\/api\/backends\//);
  return parsed;
}

test('admin API: edits are in routing.db and in force when they are answered', async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using proxy = await startProxy({ backends: [{ id: 'a', ...a.row }] });
  let client = 1;
  // The workers take a publication between two batches: a moment after it was made.
  const gets = (name: string): Promise<unknown> =>
    until(`a client to get "${name}"`, async () => {
      return (await backendName(proxy.address, { from: `127.7.1.${client++}` })) === name;
    });
  const added = { id: 'b/1 ü', address: '127.0.0.1', port: b.port, region: 'sa', app: 'web' };
  const { backend } = await edit(proxy, '/api/backends', { method: 'POST', body: added }, 201);
  assert.equal(backend?.soft_limit, 100, "the table's default");
  const path = `/api/backends/${encodeURIComponent(added.id)}`;
  const change = (body: object) => edit(proxy, path, { method: 'PATCH', body });
  await edit(proxy, '/api/backends/a', { method: 'PATCH', body: { enabled: false } });
  await gets('b');
  assert.equal(await backendName(proxy.address, { from: '127.7.2.1' }), 'b');
  await edit(proxy, '/api/backends/a', { method: 'PATCH', body: { enabled: true } });
  const limits = { weight: 0, soft_limit: 7, hard_limit: 9 };
  const changed = await change(limits);
  assert.deepEqual(
    [changed.backend?.weight, changed.backend?.soft_limit, changed.backend?.hard_limit],
    [0, 7, 9],
  );
  await gets('a');
  await edit(proxy, '/api/backends/a', { method: 'DELETE' });
  await gets('');
  const restored = await edit(proxy, '/api/backends/a', {
    method: 'PATCH',
    body: { removed: false },
  });
  assert.equal(restored.backend?.removed, false);
  await gets('a');
  const purged = await edit(proxy, `${path}?purge=true`, { method: 'DELETE' });
  assert.equal(purged.backend, null);
  holdToProblem(await askAdmin(proxy, path, { method: 'DELETE' }), 404, 'backend-unknown');
  const edits = proxy.logs.filter((line) => line.event === 'backend_edited');
  assert.deepEqual(
    edits.map(({ action }) => action),
    ['add', 'change', 'change', 'change', 'remove', 'change', 'delete'],
  );
  assert.equal(edits[0]?.from, '127.0.0.1');
});

test('admin API: a drain ends with its backend enabled or by itself, and can be given a time', async () => {
  await using a = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'a', ...a.row }] });
  const path = '/api/backends/a/drain';
  const held = await openClient(proxy.address);
  await echoOnce(held, 'open');
  const drained = await edit(proxy, path, { method: 'PUT', body: {} });
  assert.deepEqual(drained.backend?.drain, { close_at: null, close_rate: null });
  assert.deepEqual([drained.backend?.excluded, drained.backend?.reason], ['draining', 'draining']);
  const { drains } = await readAdmin(proxy, '/api/status', 'status');
  assert.deepEqual(drains, { backends: 1, sessions: 1 });
  assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  await echoOnce(held, 'still open');
  assert.equal((await edit(proxy, path, { method: 'DELETE' })).backend?.drain, null);
  await edit(proxy, path, { method: 'PUT', body: { timeout_seconds: 3600, rate: 2 } });
  const enabled = await edit(proxy, '/api/backends/a', {
    method: 'PATCH',
    body: { enabled: true },
  });
  assert.deepEqual([enabled.backend?.drain, enabled.backend?.excluded], [null, null]);
  await edit(proxy, path, { method: 'PUT', body: { timeout_seconds: 0 } });
  await until('the session to be ended', async () => {
    return (await readAdmin(proxy, '/api/status', 'status')).ended.drained === 1;
  });
  for (const [body, field] of [
    [{ rate: 1 }, 'timeout_seconds'],
    [{ timeout_seconds: -1 }, 'timeout_seconds'],
    [{ timeout_seconds: 1, rate: 0 }, 'rate'],
    [[], ''],
  ] as const) {
    const answer = await askAdmin(proxy, path, { method: 'PUT', body });
    assert.equal(holdToProblem(answer, 422, 'invalid-body')[0]?.[0], field);
  }
  const unknown = await askAdmin(proxy, '/api/backends/b/drain', { method: 'PUT', body: {} });
  holdToProblem(unknown, 404, 'backend-unknown');
  held.destroy();
});

test('admin API: an edit that cannot be applied changes nothing and says why', async () => {
  await using proxy = await startProxy({
    backends: [
      { id: 'a', port: 1 },
      { id: 'gone', port: 1, deleted: 1 },
    ],
  });
  const good = { id: 'n', address: '10.0.0.1', port: 80, region: 'sa' };
  const post = (body: unknown): Promise<AdminAnswer> =>
    askAdmin(proxy, '/api/backends', { method: 'POST', body });
  const exists = await post({ ...good, id: 'a' });
  holdToProblem(exists, 409, 'backend-exists');
  assert.match(String((await post({ ...good, id: 'gone' })).json.detail), /it was removed/);
  // Wrong in a way that only the code that reads rows knows.
  for (const [field, value] of [
    ['address', '0.0.0.0'],
    ['address', '224.0.0.1'],
    ['country', 'QQ'],
  ] as const) {
    const answer = await post({ ...good, [field]: value });
    const [error] = holdToProblem(answer, 422, 'invalid-body');
    assert.equal(error?.[0], field);
  }
  const unlock = lockRouting(proxy.dbPath);
  const locked = await askAdmin(proxy, '/api/backends/a', { method: 'PATCH', body: { weight: 2 } });
  unlock();
  holdToProblem(locked, 503, 'routing-locked');
  assert.equal(locked.headers['retry-after'], '1');
  changeRouting(proxy.dbPath, 'ALTER TABLE backends RENAME TO other');
  holdToProblem(
    await askAdmin(proxy, '/api/backends/a', { method: 'DELETE' }),
    500,
    'routing-unusable',
  );
  changeRouting(proxy.dbPath, 'ALTER TABLE other RENAME TO backends');
  const { backends } = await readAdmin(proxy, '/api/backends', 'backendList');
  assert.deepEqual(
    backends.map(({ id, weight }) => [id, weight]),
    [
      ['a', 1],
      ['gone', 1],
    ],
  );
});

test('admin API: a routing.db that this process may not write is said to be read-only', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
  try {
    writeRouting(join(directory, 'routing.db'), [{ id: 'a', port: 1 }]);
    // Permissions do not hold root back; a mount does.
    const remount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"';
    const wrapper = ['unshare', '--mount', 'sh', '-c', remount, directory];
    const [command = '', ...args] = [...wrapper, 'true'];
    const probe = spawnSync(command, args, { encoding: 'utf8' });
    if (probe.status !== 0) {
      t.skip(skipReason(probe.error?.message ?? probe.stderr));
      return;
    }
    await using proxy = await startProxy({ directory, wrapper });
    for (const [method, body] of [
      ['PATCH', { weight: 2 }],
      ['DELETE', undefined],
      ['POST', { id: 'n', address: '10.0.0.1', port: 80, region: 'sa' }],
    ] as const) {
      const path = method === 'POST' ? '/api/backends' : '/api/backends/a';
      const answer = await askAdmin(proxy, path, { method, ...(body ? { body } : {}) });
      holdToProblem(answer, 409, 'routing-read-only');
      assert.match(String(answer.json.detail), /^Cannot change routing database/);
    }
    assert.equal((await readAdmin(proxy, '/api/backends/a', 'backend')).weight, 1);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
