// The passive breaker and the limits of one client address, through the real process.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backendName, clientFate, openClient } from '../src/testing/clients.ts';
import { startProxy } from '../src/testing/proxy-process.ts';
import { echo, refusedPort, sayName, startBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

test('breaker: a backend whose connects fail is ejected, tried again and taken back', async () => {
  await using good = await startBackend(sayName('good'));
  const port = await refusedPort();
  // A tier ahead, so every client would try it first.
  const bad = { id: 'bad', address: '127.0.0.1', port, region: 'sa', country: 'BR' };
  await using proxy = await startProxy({
    backends: [bad, { id: 'good', ...good.row, region: 'eu', country: 'DE' }],
    settings: {
      WORKERS: 2,
      CIRCUIT_FAILURE_THRESHOLD: 3,
      CIRCUIT_SUCCESS_THRESHOLD: 2,
      CIRCUIT_TIMEOUT_SECS: 0.5,
      BINDING_TTL_SECS: 0.05,
    },
  });
  for (let round = 0; round < 12; round++) {
    assert.equal(await backendName(proxy.address, { from: `127.0.3.${round + 1}` }), 'good');
  }
  const ejected = await proxy.metrics();
  assert.equal(ejected.get('edge_backend_ejected', { backend: 'bad' }), 1);
  const failures = ejected.get('edge_backend_connect_failures_total', { backend: 'bad' });
  assert.ok(failures >= 3 && failures < 12, `${failures} of 12 clients still tried it`);

  await using revived = await startBackend(sayName('bad'), '127.0.0.1', port);
  assert.ok(revived.row.port === port);
  let client = 0;
  await until('the backend to be taken back', async () => {
    client++;
    const localAddress = `127.0.4.${(client % 250) + 1}`;
    await backendName(proxy.address, { from: localAddress });
    return (await proxy.metrics()).get('edge_backend_ejected', { backend: 'bad' }) === 0;
  });
  assert.equal(await backendName(proxy.address, { from: '127.0.5.1' }), 'bad');
});

for (const failOpen of [true, false]) {
  const what = failOpen ? 'is used all the same' : 'is not used';
  test(`breaker: with fail-open ${failOpen} the last backend, ejected, ${what}`, async () => {
    const port = await refusedPort();
    await using proxy = await startProxy({
      backends: [{ id: 'only', address: '127.0.0.1', port, region: 'sa' }],
      settings: {
        WORKERS: 1,
        CIRCUIT_FAILURE_THRESHOLD: 2,
        CIRCUIT_TIMEOUT_SECS: 600,
        CIRCUIT_FAIL_OPEN: String(failOpen),
      },
    });
    for (let round = 0; round < 2; round++) {
      assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
    }
    await proxy.untilMetric('edge_backend_ejected', 1, { backend: 'only' });
    await using revived = await startBackend(sayName('only'), '127.0.0.1', port);
    assert.ok(revived.row.port === port);
    if (failOpen) {
      assert.equal(await backendName(proxy.address), 'only');
      await proxy.untilMetric('edge_fail_open_total', 1);
    } else {
      assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
      await proxy.untilMetric('edge_rejected_total', 1, { reason: 'no_backend' });
    }
  });
}

const RATE = {
  WORKERS: 2,
  RATE_LIMIT_ENABLED: 'true',
  RATE_LIMIT_MAX_REQUESTS: 5,
  RATE_LIMIT_WINDOW_SECS: 3600,
  RATE_LIMIT_BURST: 3,
};

test('rate limit: a client gets its window and burst, over all workers, and others are not touched', async () => {
  await using backend = await startBackend((socket) => void socket.end('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: RATE,
  });
  const fates = await Promise.all(
    Array.from({ length: 30 }, () => clientFate(proxy.address, { from: '127.0.6.1' })),
  );
  assert.equal(fates.filter(({ end }) => end === 'ECONNRESET').length, 22);
  await proxy.untilMetric('edge_rejected_total', 22, { reason: 'rate_limited' });
  assert.equal(backend.connections, 8);
  assert.equal((await clientFate(proxy.address, { from: '127.0.6.2' })).end, 'fin');
});

test('rate limit: a dry run turns nobody away, and counts', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { ...RATE, RATE_LIMIT_DRY_RUN: 'true' },
  });
  for (let round = 0; round < 12; round++) {
    assert.equal(await backendName(proxy.address, { from: '127.0.6.1' }), 'a');
  }
  await proxy.untilMetric('edge_limit_dry_run_total', 4);
  assert.deepEqual((await proxy.metrics()).nonZero('edge_rejected_total', 'reason'), {});
});

test('sessions per client: one over is turned away until one ends, over all workers', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { WORKERS: 2, MAX_CONNECTIONS_PER_CLIENT: 4 },
  });
  const localAddress = '127.0.7.1';
  const open = [];
  for (let index = 0; index < 4; index++) {
    open.push(await openClient(proxy.address, { from: localAddress }));
  }
  await proxy.untilMetric('edge_connections_current', 4);
  for (let round = 0; round < 6; round++) {
    assert.equal((await clientFate(proxy.address, { from: localAddress })).end, 'ECONNRESET');
  }
  await proxy.untilMetric('edge_rejected_total', 6, { reason: 'client_sessions' });
  open.pop()?.destroy();
  await proxy.untilMetric('edge_connections_current', 3);
  open.push(await openClient(proxy.address, { from: localAddress }));
  await proxy.untilMetric('edge_connections_current', 4);
  for (const client of open) client.destroy();
  await proxy.untilMetric('edge_connections_current', 0);
});
