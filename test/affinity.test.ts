// Affinity: a client address returns to its backend until the binding ends, whatever the load says.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { backendName, openClient, readBytes } from '../src/testing/clients.ts';
import { type HostPort, type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import type { BackendRow } from '../src/testing/routing-file.ts';
import type { Settings } from '../src/testing/scene.ts';
import { sayName, startBackend, type TestBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

const NAMES = ['a', 'b', 'c'];
const backends = new Map<string, TestBackend>();

before(async () => {
  for (const name of NAMES) backends.set(name, await startBackend(sayName(name)));
});
after(async () => {
  for (const backend of backends.values()) await backend[Symbol.asyncDispose]();
});

function rows(changes: Readonly<Record<string, Partial<BackendRow>>> = {}): BackendRow[] {
  return NAMES.map((id) => ({ id, ...(backends.get(id) as TestBackend).row, ...changes[id] }));
}

function start(settings: Settings = {}): Promise<ProxyProcess> {
  return startProxy({ backends: rows(), settings });
}

/** Connects until the name has come, and keeps the session open. */
async function holdSession(at: HostPort, from: string): Promise<{ name: string; end(): void }> {
  const socket = await openClient(at, { from });
  const name = (await readBytes(socket, 1)).toString();
  return { name, end: () => socket.destroy() };
}

/** Asks for `from` until a session was answered under the newest routing: workers take it between batches. */
async function nameAfterReload(proxy: ProxyProcess, from: string, not: string): Promise<string> {
  return until(`the binding to ${not} to end`, async () => {
    const name = await backendName(proxy.address, { from });
    return name === not ? null : name;
  });
}

test('affinity: the same client address returns to its backend, other addresses spread', async () => {
  await using proxy = await start();
  const first = await Promise.all(
    Array.from({ length: 12 }, (_, index) => holdSession(proxy.address, `127.3.0.${index + 1}`)),
  );
  const names = first.map(({ name }) => name);
  assert.deepEqual(new Set(names), new Set(NAMES));
  for (const session of first) session.end();
  for (let round = 0; round < 3; round++) {
    for (const [index, name] of names.entries()) {
      assert.equal(await backendName(proxy.address, { from: `127.3.0.${index + 1}` }), name);
    }
  }
  assert.equal((await proxy.metrics()).get('edge_bindings_current'), 12);
});

test('affinity: a binding wins over load and survives a reload', async () => {
  await using proxy = await start();
  const session = await holdSession(proxy.address, '127.3.1.1');
  const others = NAMES.filter((name) => name !== session.name);
  // The bound backend is now by far the worst choice for anyone else.
  await proxy.reroute(rows({ [session.name]: { weight: 0.001 } }));
  for (let round = 0; round < 5; round++) {
    assert.equal(await backendName(proxy.address, { from: '127.3.1.1' }), session.name);
  }
  const stranger = await backendName(proxy.address, { from: '127.3.1.2' });
  assert.ok(others.includes(stranger));
  session.end();
});

test('affinity: a bound client keeps its backend at weight 0, a new one does not get it', async () => {
  await using proxy = await start();
  const name = await backendName(proxy.address, { from: '127.3.2.1' });
  await proxy.reroute(rows({ [name]: { weight: 0 } }));
  for (let index = 10; index < 20; index++) {
    await until('the new weight to be in force', async () => {
      return (await backendName(proxy.address, { from: `127.3.2.${index}` })) !== name;
    });
  }
  assert.equal(await backendName(proxy.address, { from: '127.3.2.1' }), name);
});

const MOVES: Record<string, Partial<BackendRow>> = {
  disabled: { healthy: 0 },
  deleted: { deleted: 1 },
};

for (const [state, change] of Object.entries(MOVES)) {
  test(`affinity: a client moves for good when its backend is ${state}`, async () => {
    await using proxy = await start();
    const from = '127.3.3.1';
    const old = await backendName(proxy.address, { from });
    await proxy.reroute(rows({ [old]: change }));
    const next = await nameAfterReload(proxy, from, old);
    assert.ok(NAMES.includes(next));
    await proxy.reroute(rows());
    for (let round = 0; round < 5; round++) {
      assert.equal(await backendName(proxy.address, { from }), next, 'it stays where it moved');
    }
  });
}

test('affinity: a client moves when the row of its backend is gone', async () => {
  await using proxy = await start();
  const from = '127.3.4.1';
  const old = await backendName(proxy.address, { from });
  await proxy.reroute(`DELETE FROM backends WHERE id = '${old}'`);
  assert.ok(NAMES.includes(await nameAfterReload(proxy, from, old)));
});

test('affinity: a client goes elsewhere while its backend is full', async () => {
  await using proxy = await start();
  const from = '127.3.5.1';
  const first = await holdSession(proxy.address, from);
  await proxy.reroute(rows({ [first.name]: { hardLimit: 1 } }));
  const second = await nameAfterReload(proxy, from, first.name);
  assert.notEqual(second, first.name);
  first.end();
});

test('affinity: a binding ends when the client was away for longer than the TTL', async () => {
  await using proxy = await start({ BINDING_TTL_SECS: 0.3, BINDING_GC_INTERVAL_SECS: 0.1 });
  const from = '127.3.6.1';
  const session = await holdSession(proxy.address, from);
  await proxy.untilMetric('edge_bindings_current', 1);
  // An open session is a client that is there.
  await proxy.reroute(rows({ [session.name]: { weight: 0.001 } }));
  assert.equal(await backendName(proxy.address, { from }), session.name);
  session.end();
  await proxy.untilMetric('edge_bindings_current', 0);
  assert.notEqual(await backendName(proxy.address, { from }), session.name);
});

test('affinity: bindings are per app', async () => {
  const row = (id: string): { address: string; port: number } =>
    (backends.get(id) as TestBackend).row;
  await using proxy = await startProxy({
    backends: [
      { id: 'a', app: 'one', ...row('a') },
      { id: 'b', app: 'two', ...row('b') },
      { id: 'c', app: 'two', ...row('c') },
    ],
    settings: { LISTEN_ADDR: 'one@127.0.0.1:0,two@127.0.0.1:0' },
  });
  const [one, two] = proxy.addresses as [HostPort, HostPort];
  const from = '127.3.7.1';
  assert.equal(await backendName(one, { from }), 'a');
  const second = await backendName(two, { from });
  assert.notEqual(second, 'a');
  for (let round = 0; round < 4; round++) {
    assert.equal(await backendName(two, { from }), second);
    assert.equal(await backendName(one, { from }), 'a');
  }
  assert.equal((await proxy.metrics()).get('edge_bindings_current'), 2);
});

test('affinity: a client on the dual-stack listener is the same client over IPv4 there', async () => {
  await using proxy = await start({ LISTEN_ADDR: '127.0.0.1:0,[::]:0' });
  const [v4, dual] = proxy.addresses as [HostPort, HostPort];
  const from = '127.3.8.1';
  const name = await backendName(v4, { from });
  assert.equal(await backendName({ ...dual, host: '127.0.0.1' }, { from }), name);
  assert.equal((await proxy.metrics()).get('edge_bindings_current'), 1);
});

test('affinity: a full client table turns nobody away', async () => {
  await using proxy = await start({ CLIENT_TABLE_SIZE: 16 });
  const sessions = await Promise.all(
    Array.from({ length: 200 }, (_, index) => holdSession(proxy.address, `127.3.9.${index + 1}`)),
  );
  const metrics = await proxy.metrics();
  assert.equal(metrics.get('edge_connections_current'), 200);
  assert.ok(metrics.get('edge_unbound_sessions_total') > 0);
  for (const session of sessions) session.end();
  await proxy.untilMetric('edge_connections_current', 0);
});
