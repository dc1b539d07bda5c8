// From accept to an open backend connection when something is wrong: dead backends, the next-best one, timeouts, nothing left.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backendName, clientFate, exchange, openClient } from '../src/testing/clients.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import {
  hold,
  openBlackhole,
  refusedPort,
  sayName,
  startBackend,
} from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

/** Clients from different addresses, so that no binding decides. */
function address(number: number): string {
  return `127.1.${number >> 8}.${number & 255}`;
}

for (const host of ['127.0.0.1', '::1']) {
  test(`connect: a refused first backend over ${host} gives way to the next within one client connection`, async () => {
    await using good = await startBackend(sayName('good'), host);
    await using proxy = await startProxy({
      backends: [
        { id: 'dead', region: 'sa', address: host, port: await refusedPort(host) },
        { id: 'good', region: 'us', ...good.row },
      ],
      settings: { LISTEN_ADDR: host === '::1' ? '[::1]:0' : '127.0.0.1:0' },
    });
    assert.equal(await backendName(proxy.address), 'good');
    const metrics = await proxy.untilMetric('edge_session_end_total', 1, { reason: 'completed' });
    assert.equal(metrics.get('edge_retries_total'), 1);
    assert.equal(metrics.get('edge_backend_connect_failures_total', { backend: 'dead' }), 1);
    await proxy.untilMetric('edge_backend_connections_current', 0, { backend: 'dead' });
    assert.equal(metrics.get('edge_connections_total'), 1);
  });
}

test('connect: what the client sent before the retry reaches the backend it ends up at', async () => {
  await using good = await startBackend((socket) => socket.pipe(socket));
  await using proxy = await startProxy({
    backends: [
      { id: 'dead', region: 'sa', port: await refusedPort() },
      { id: 'good', region: 'us', ...good.row },
    ],
  });
  for (let round = 0; round < 20; round++) {
    const from = address(round);
    assert.deepEqual(await exchange(proxy.address, 'early words', { from }), {
      text: 'early words',
      end: 'fin',
    });
  }
});

test('connect: when all backends refuse, the client gets RST after at most three of them', async () => {
  const ports = await Promise.all(Array.from({ length: 5 }, () => refusedPort()));
  await using proxy = await startProxy({
    backends: ports.map((port, index) => ({ id: `dead-${index}`, port })),
  });
  assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  const reason = { reason: 'connect_failed' };
  const metrics = await proxy.untilMetric('edge_session_end_total', 1, reason);
  assert.equal(metrics.get('edge_retries_total'), 2);
  assert.equal(metrics.get('edge_backend_connect_failures_total'), 3);
  await proxy.untilMetric('edge_backend_connections_current', 0);
  assert.equal(metrics.get('edge_bindings_current'), 0, 'only a connect that succeeded binds');
});

test('connect: with retries off the first refusal is the end', async () => {
  await using good = await startBackend(sayName('good'));
  await using proxy = await startProxy({
    backends: [
      { id: 'dead', region: 'sa', port: await refusedPort() },
      { id: 'good', region: 'us', ...good.row },
    ],
    settings: { CONNECT_RETRIES: 0 },
  });
  assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  assert.equal(good.connections, 0);
});

/** What a client meets where no backend may serve it, and the counter that says so. */
async function expectRejected(proxy: ProxyProcess, reason: string): Promise<void> {
  assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  const metrics = await proxy.untilMetric('edge_rejected_total', 1, { reason });
  assert.equal(metrics.get('edge_session_end_total'), 0);
  assert.equal(metrics.get('edge_connections_current'), 0);
}

test('connect: without any backend the client gets RST, counted as no_backend', async () => {
  await using proxy = await startProxy({ backends: [] });
  await expectRejected(proxy, 'no_backend');
});

test('connect: unhealthy, deleted and weight 0 backends take no new client', async () => {
  await using backend = await startBackend(sayName('never'));
  await using proxy = await startProxy({
    backends: [
      { id: 'unhealthy', healthy: 0, ...backend.row },
      { id: 'deleted', deleted: 1, ...backend.row },
      { id: 'weightless', weight: 0, ...backend.row },
    ],
  });
  await expectRejected(proxy, 'no_backend');
  assert.equal(backend.connections, 0);
});

test('connect: a backend that never answers is left after the connect timeout for the next one', async () => {
  await using hole = await openBlackhole();
  await using good = await startBackend(sayName('good'));
  await using proxy = await startProxy({
    backends: [
      { id: 'hole', region: 'sa', port: hole.port },
      { id: 'good', region: 'us', ...good.row },
    ],
    settings: { CONNECT_TIMEOUT_MS: 300 },
  });
  assert.equal(await backendName(proxy.address), 'good');
  const metrics = await proxy.untilMetric('edge_session_end_total', 1, { reason: 'completed' });
  assert.equal(metrics.get('edge_retries_total'), 1);
  assert.equal(metrics.get('edge_backend_connect_failures_total', { backend: 'hole' }), 1);
});

test('connect: when no backend answers the client gets RST, counted as connect_timeout', async () => {
  await using hole = await openBlackhole();
  await using proxy = await startProxy({
    backends: [
      { id: 'hole-1', port: hole.port },
      { id: 'hole-2', port: hole.port },
    ],
    settings: { CONNECT_TIMEOUT_MS: 200 },
  });
  assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  await proxy.untilMetric('edge_session_end_total', 1, { reason: 'connect_timeout' });
  await proxy.untilMetric('edge_backend_connections_current', 0);
});

test('connect: the total timeout ends the attempts before the retries are used up', async () => {
  await using hole = await openBlackhole();
  await using proxy = await startProxy({
    backends: Array.from({ length: 8 }, (_, index) => ({ id: `hole-${index}`, port: hole.port })),
    settings: { CONNECT_TIMEOUT_MS: 300, CONNECT_TOTAL_TIMEOUT_MS: 500, CONNECT_RETRIES: 7 },
  });
  assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  const reason = { reason: 'connect_timeout' };
  const metrics = await proxy.untilMetric('edge_session_end_total', 1, reason);
  assert.equal(metrics.get('edge_retries_total'), 1);
});

test('connect: clients that leave while their backend is still being connected leave nothing behind', async () => {
  await using hole = await openBlackhole();
  await using proxy = await startProxy({
    backends: [{ id: 'hole', port: hole.port }],
    settings: { CONNECT_TIMEOUT_MS: 1000 },
  });
  const before = await proxy.settledDescriptors();
  const clients = await Promise.all(Array.from({ length: 60 }, () => openClient(proxy.address)));
  // Not "60 at once": on a busy machine the first attempt may be over before the last begins.
  await proxy.untilMetric('edge_connections_total', 60);
  clients.forEach((client, index) => {
    if (index % 2 === 0) client.resetAndDestroy();
    else client.destroy();
  });
  await proxy.untilMetric('edge_connections_current', 0);
  await proxy.untilMetric('edge_backend_connections_current', 0, { backend: 'hole' });
  await until('all sockets to be closed', () => proxy.descriptors().socket === before.socket);
});

test('connect: a client that is gone before its backend answers does not leave the backend connected', async () => {
  await using backend = await startBackend(hold);
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  for (let round = 0; round < 30; round++) {
    const client = await openClient(proxy.address);
    client.resetAndDestroy();
  }
  await proxy.untilMetric('edge_connections_total', 30);
  for (const socket of backend.all) socket.resume();
  await until('the backend to see the ends', () => {
    for (const socket of backend.sockets) socket.resume();
    return backend.sockets.size === 0;
  });
  await proxy.untilMetric('edge_connections_current', 0);
});
