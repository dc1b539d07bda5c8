// The bytes themselves: whole, in order, both ways at once, small and bulk, with slow readers, on IPv4 and IPv6.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import {
  echoOnce,
  exchange,
  hashStream,
  openClient,
  type ReadPace,
  sendBulk,
} from '../src/testing/clients.ts';
import {
  connectionsBalance,
  NOT_PORTABLE,
  type ProxyProcess,
  startProxy,
} from '../src/testing/proxy-process.ts';
import { echo, hold, startBackend } from '../src/testing/test-backends.ts';
import { untilStill } from '../src/testing/wait.ts';

const MB = 2 ** 20;
const SLOW: ReadPace = { restEvery: MB, restMs: 2 };

for (const host of ['127.0.0.1', '::1']) {
  test(`relay: an exchange over ${host} comes back whole and ends with FIN`, async () => {
    await using backend = await startBackend(echo, host);
    const listen = host === '::1' ? '[::1]:0' : '127.0.0.1:0';
    await using proxy = await startProxy({
      backends: [{ id: 'a', ...backend.row }],
      settings: { LISTEN_ADDR: listen },
    });
    assert.deepEqual(await exchange(proxy.address, 'hello'), { text: 'hello', end: 'fin' });
    const metrics = await proxy.untilMetric('edge_session_end_total', 1, { reason: 'completed' });
    assert.equal(metrics.get('edge_bytes_total', { direction: 'up' }), 5);
    assert.equal(metrics.get('edge_bytes_total', { direction: 'down' }), 5);
    assert.equal(metrics.get('edge_backend_connections_total', { backend: 'a' }), 1);
    await proxy.untilMetric('edge_backend_connections_current', 0, { backend: 'a' });
    const { accepted, accounted } = connectionsBalance(metrics);
    assert.equal(accepted, accounted);
  });
}

/** `bytes` each way at the same time; both ends hash what they sent and what they got. */
async function bothWays(
  client: Socket,
  server: Socket,
  bytes: number,
  paces: { client: ReadPace | null; server: ReadPace | null },
): Promise<void> {
  const atServer = hashStream(server, undefined, paces.server);
  const atClient = hashStream(client, undefined, paces.client);
  const send = async (socket: Socket, seed: number): Promise<string> => {
    const hash = await sendBulk(socket, bytes, seed);
    socket.end();
    return hash;
  };
  const [up, down] = await Promise.all([send(client, 1), send(server, 2)]);
  assert.deepEqual(await atServer, { bytes, hash: up, end: 'fin' });
  assert.deepEqual(await atClient, { bytes, hash: down, end: 'fin' });
}

const CASES = [
  { name: 'fast readers', client: null, server: null, host: '127.0.0.1' },
  { name: 'a slow client', client: SLOW, server: null, host: '127.0.0.1' },
  { name: 'a slow backend', client: null, server: SLOW, host: '::1' },
  { name: 'slow readers on both sides', client: SLOW, server: SLOW, host: '::1' },
];

for (const { name, host, ...paces } of CASES) {
  test(`relay: 100 MB each way arrive unchanged over ${host} with ${name}`, async () => {
    await using backend = await startBackend(hold, host);
    const listen = host === '::1' ? '[::1]:0' : '127.0.0.1:0';
    await using proxy = await startProxy({
      backends: [{ id: 'a', ...backend.row }],
      settings: { LISTEN_ADDR: listen, WORKERS: 1 },
    });
    const client = await openClient(proxy.address);
    await bothWays(client, await backend.next(0), 100 * MB, paces);
    const metrics = await proxy.untilMetric('edge_session_end_total', 1, { reason: 'completed' });
    if (!NOT_PORTABLE) {
      assert.ok(metrics.get('edge_bulk_flows_total') >= 2, 'both directions were spliced');
    }
    assert.equal(metrics.get('edge_bytes_total', { direction: 'up' }), 100 * MB);
    assert.equal(metrics.get('edge_bytes_total', { direction: 'down' }), 100 * MB);
    assert.equal(metrics.get('edge_buffers_in_use'), 0);
  });
}

test('relay: a bulk phase moves to splice and an interactive phase after it comes back to buffers', {
  skip: NOT_PORTABLE,
}, async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  const client = await openClient(proxy.address);
  for (let round = 1; round <= 2; round++) {
    const reading = hashStream(client, 8 * MB);
    const hash = await sendBulk(client, 8 * MB, round);
    assert.equal((await reading).hash, hash);
    const bulkFlows = (await proxy.metrics()).get('edge_bulk_flows_total');
    assert.ok(bulkFlows >= round, 'the bulk phase was spliced');
    assert.ok(pipes(proxy) > 0);
    // Well above the number of small turns after which a flow counts as quiet.
    for (let turn = 0; turn < 200; turn++) await echoOnce(client, `turn ${turn} of ${round}`);
  }
  const metrics = await proxy.metrics();
  assert.ok(metrics.get('edge_bulk_flows_total') >= 2, 'each bulk phase was spliced anew');
  client.end();
  await proxy.untilMetric('edge_connections_current', 0);
});

test('relay: a client that stops reading holds few buffers while the other direction is spliced', {
  skip: NOT_PORTABLE,
}, async () => {
  await using backend = await startBackend(hold);
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  const client = await openClient(proxy.address);
  const server = await backend.next(0);
  const reading = hashStream(server, 8 * MB);
  const up = await sendBulk(client, 8 * MB, 1);
  assert.equal((await reading).hash, up);
  assert.ok((await proxy.metrics()).get('edge_bulk_flows_total') >= 1);
  const sending = sendBulk(server, 100 * MB, 2);
  await untilStill(
    'the backend to be held back',
    () => server.bytesWritten - server.writableLength,
  );
  assert.ok(server.writableLength > 0, 'the backend must wait for the client');
  const held = (await proxy.metrics()).get('edge_buffers_in_use');
  assert.ok(held <= 32, `${held} buffers are held for one direction`);
  const result = await hashStream(client, 100 * MB);
  assert.equal(result.hash, await sending);
  client.destroy();
});

/** Pipe ends that the proxy has open. */
function pipes(proxy: ProxyProcess): number {
  return proxy.descriptors().pipe ?? 0;
}
