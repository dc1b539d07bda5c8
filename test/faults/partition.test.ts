// Backends and clients on hosts of their own whose network fails in real ways: packets that vanish, one way or both, a
// cable that is out, a firewall that rejects, a slow and a lossy path. Waits are for what the proxy says, never for a time.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import {
  backendName,
  echoOnce,
  hashStream,
  openClient,
  readToEnd,
  sendBulk,
} from '../../src/testing/clients.ts';
import { FaultHost, faultNetProblem } from '../../src/testing/fault-net.ts';
import { skipReason } from '../../src/testing/netns.ts';
import { NOT_PORTABLE, type ProxyProcess, startProxy } from '../../src/testing/proxy-process.ts';
import { echo, sayName, startBackend, type TestBackend } from '../../src/testing/test-backends.ts';
import { until } from '../../src/testing/wait.ts';

const problem = faultNetProblem();
const skip = problem === '' ? false : skipReason(problem);

const FAST_CHECKS = {
  HEALTH_CHECK_ENABLED: 'true',
  HEALTH_CHECK_INTERVAL_SECS: 0.2,
  HEALTH_CHECK_TIMEOUT_SECS: 0.3,
};

/** Clients from different addresses, so that no binding decides. */
function address(number: number): string {
  return `127.2.${number >> 8}.${number & 255}`;
}

/** Whether the proxy's connection to `address` has keepalive on: like TCP_USER_TIMEOUT, set once a session lasts. */
function hasKeepalive(address: string): boolean {
  const { stdout } = spawnSync('ss', ['-tnoH', 'dst', address], { encoding: 'utf8' });
  return stdout.includes('keepalive');
}

/** `far` is the best choice of every client, `near` what is left without it. */
function proxyBefore(
  far: TestBackend,
  near: TestBackend,
  settings: Readonly<Record<string, string | number>> = {},
): Promise<ProxyProcess> {
  return startProxy({
    backends: [
      { id: 'far', region: 'sa', ...far.row },
      { id: 'near', region: 'us', ...near.row },
    ],
    settings: { CONNECT_TIMEOUT_MS: 300, ...settings },
  });
}

for (const ways of ['both', 'to', 'from'] as const) {
  test(`partition (${ways}): new clients go elsewhere after one connect timeout at most`, {
    skip,
  }, async () => {
    using host = new FaultHost();
    await using far = await host.serve(sayName('far'));
    await using near = await startBackend(sayName('near'));
    await using proxy = await proxyBefore(far, near);
    assert.equal(await backendName(proxy.address, { from: address(0) }), 'far');
    host.cut(ways);
    const during = await Promise.all(
      Array.from({ length: 20 }, (_, n) => backendName(proxy.address, { from: address(n + 1) })),
    );
    assert.deepEqual(new Set(during), new Set(['near']));
    const metrics = await proxy.untilMetric('edge_connections_current', 0);
    assert.equal(metrics.get('edge_retries_total'), 20, 'each was tried at the lost one once');
    host.heal();
    await until('the healed backend to be used', async () => {
      return (await backendName(proxy.address, { from: address(99) })) === 'far';
    });
  });
}

test('partition: a backend that vanished is found by its checks, then costs no client anything, and comes back', {
  skip,
}, async () => {
  using host = new FaultHost();
  await using far = await host.serve(sayName('far'));
  await using near = await startBackend(sayName('near'));
  await using proxy = await proxyBefore(far, near, FAST_CHECKS);
  host.cut();
  await proxy.untilMetric('edge_backend_healthy', 0, { backend: 'far' });
  const before = (await proxy.metrics()).get('edge_retries_total');
  for (let n = 0; n < 10; n++) {
    assert.equal(await backendName(proxy.address, { from: address(n) }), 'near');
  }
  assert.equal((await proxy.metrics()).get('edge_retries_total'), before);
  host.heal();
  await proxy.untilMetric('edge_backend_healthy', 1, { backend: 'far' });
  assert.equal(await backendName(proxy.address, { from: address(50) }), 'far');
});

test('partition: repeated connect timeouts open the breaker, and trials close it after the path has healed', {
  skip,
}, async () => {
  using host = new FaultHost();
  await using far = await host.serve(sayName('far'));
  await using near = await startBackend(sayName('near'));
  await using proxy = await proxyBefore(far, near, {
    CIRCUIT_FAILURE_THRESHOLD: 3,
    CIRCUIT_SUCCESS_THRESHOLD: 1,
    CIRCUIT_TIMEOUT_SECS: 1,
  });
  host.cut();
  let clients = 0;
  await until('the breaker to open', async () => {
    assert.equal(await backendName(proxy.address, { from: address(clients++) }), 'near');
    return proxy.log('A backend is ejected after failures');
  });
  host.heal();
  await until('the breaker to close', async () => {
    await backendName(proxy.address, { from: address(clients++) });
    return proxy.log('A backend is taken back after successful trials');
  });
  assert.equal(await backendName(proxy.address, { from: address(clients++) }), 'far');
});

test('partition: a short cut loses no byte of an open session', { skip }, async () => {
  using host = new FaultHost();
  await using far = await host.serve(echo);
  await using near = await startBackend(echo);
  await using proxy = await proxyBefore(far, near);
  const client = await openClient(proxy.address);
  await echoOnce(client, 'before');
  const reading = hashStream(client, 8_000_000);
  const sending = sendBulk(client, 8_000_000, 7);
  await until('bytes to flow', () => far.bytes > 500_000);
  host.cut();
  const atCut = far.bytes;
  host.heal();
  const [sent, received] = await Promise.all([sending, reading]);
  assert.equal(received.hash, sent);
  assert.ok(atCut < 8_000_000, 'the cut came in the middle');
  client.destroy();
});

test('partition: with EDGEPROXY_USER_TIMEOUT_SECS a session to a lost backend is reset, not left hanging', {
  skip: skip || NOT_PORTABLE,
}, async () => {
  using host = new FaultHost();
  await using far = await host.serve(echo);
  await using near = await startBackend(echo);
  await using proxy = await proxyBefore(far, near, { USER_TIMEOUT_SECS: 1 });
  const client = await openClient(proxy.address);
  await echoOnce(client, 'before');
  await until('the options of a session that lasts', () => hasKeepalive(host.address));
  host.cut();
  const reading = readToEnd(client);
  client.write('into the void');
  assert.equal((await reading).end, 'ECONNRESET');
  await proxy.untilMetric('edge_session_end_total', 1, { reason: 'backend_lost' });
});

test('partition: a client that vanishes is noticed by keepalive, and its backend connection ends', {
  skip,
}, async () => {
  using host = new FaultHost();
  await using near = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'near', ...near.row }],
    settings: { LISTEN_ADDR: '0.0.0.0:0', CONNECT_TIMEOUT_MS: 300, KEEPALIVE_SECS: 1 },
  });
  const client: Socket = host.connect({ host: host.gateway, port: proxy.address.port });
  await echoOnce(client, 'before');
  host.cut();
  await proxy.untilMetric('edge_session_end_total', 1, { reason: 'client_lost' });
  await until('the backend to see it', () => near.sockets.size === 0);
  client.destroy();
});

test('partition: a rejecting firewall is a failed connect at once, not a timeout', {
  skip,
}, async () => {
  using host = new FaultHost();
  await using far = await host.serve(sayName('far'));
  await using near = await startBackend(sayName('near'));
  await using proxy = await proxyBefore(far, near, { CONNECT_TIMEOUT_MS: 60_000 });
  host.reject();
  assert.equal(await backendName(proxy.address), 'near');
  assert.equal((await proxy.metrics()).get('edge_retries_total'), 1);
  await proxy.reroute(`UPDATE backends SET deleted = 1 WHERE id = 'near'`);
  // A worker may be a moment behind.
  await until('the other one to be out', async () => (await backendName(proxy.address)) === '');
  await proxy.untilMetric('edge_session_end_total', 1, { reason: 'connect_failed' });
});

test('partition: a cable that is out is like a cut, and in again serves again', {
  skip,
}, async () => {
  using host = new FaultHost();
  await using far = await host.serve(sayName('far'));
  await using near = await startBackend(sayName('near'));
  await using proxy = await proxyBefore(far, near, FAST_CHECKS);
  host.plug(false);
  assert.equal(await backendName(proxy.address, { from: address(1) }), 'near');
  await proxy.untilMetric('edge_backend_healthy', 0, { backend: 'far' });
  host.plug(true);
  await proxy.untilMetric('edge_backend_healthy', 1, { backend: 'far' });
  assert.equal(await backendName(proxy.address, { from: address(2) }), 'far');
});

for (const [name, spoil] of [
  ['slow', (host: FaultHost) => host.slow('20mbit')],
  ['lossy', (host: FaultHost) => host.loose(3)],
] as const) {
  test(`path: over a ${name} path every byte arrives, both ways at once`, { skip }, async () => {
    using host = new FaultHost();
    await using far = await host.serve(echo);
    await using proxy = await startProxy({
      backends: [{ id: 'far', ...far.row }],
      // A SYN that is lost twice is late, not wrong.
      settings: { CONNECT_TIMEOUT_MS: 30_000, CONNECT_TOTAL_TIMEOUT_MS: 30_000 },
    });
    spoil(host);
    const results = await Promise.all(
      [1, 2, 3, 4].map(async (seed) => {
        const client = await openClient(proxy.address);
        const reading = hashStream(client);
        const sent = await sendBulk(client, 400_000, seed);
        client.end();
        const { hash, end } = await reading;
        return hash === sent && end;
      }),
    );
    assert.deepEqual(results, ['fin', 'fin', 'fin', 'fin']);
  });
}
