// Limits and shares: hard limits, soft limits and weights, turns among equals, the session maximum, and running out of
// descriptors.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import {
  backendName,
  clientFate,
  openClient,
  openClients,
  readToEnd,
} from '../src/testing/clients.ts';
import { connectionsBalance, NOT_PORTABLE, startProxy } from '../src/testing/proxy-process.ts';
import { startStrictBackend } from '../src/testing/strict-backend.ts';
import {
  echo,
  hold,
  sayName,
  startBackend,
  type TestBackend,
} from '../src/testing/test-backends.ts';
import { until, untilStill } from '../src/testing/wait.ts';

/** Clients from different addresses, so that no binding decides. */
function address(number: number): string {
  return `127.2.${number >> 8}.${number & 255}`;
}

/** Connects, and stays when the backend has said `in`; null when turned away. */
async function enter(at: { host: string; port: number }, from: string): Promise<Socket | null> {
  let socket: Socket;
  try {
    socket = await openClient(at, { from });
  } catch {
    return null;
  }
  const said = await new Promise<boolean>((resolve) => {
    socket.once('data', () => resolve(true));
    socket.once('close', () => resolve(false));
  });
  return said ? socket : null;
}

function greet(socket: Socket): void {
  socket.write('in');
  socket.resume();
  socket.on('end', () => socket.end());
}

test('hard limit: 300 clients at once over four workers never put one too many on a backend', async () => {
  await using backend = await startBackend(greet);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row, hardLimit: 7 }],
    settings: { WORKERS: 4 },
  });
  for (let round = 1; round <= 5; round++) {
    const clients = await Promise.all(
      Array.from({ length: 300 }, (_, index) => enter(proxy.address, address(index))),
    );
    const inside = clients.filter((client) => client !== null);
    assert.equal(inside.length, 7);
    assert.equal(backend.peak, 7);
    const metrics = await proxy.metrics();
    assert.equal(metrics.get('edge_backend_connections_current', { backend: 'a' }), 7);
    assert.equal(metrics.get('edge_rejected_total', { reason: 'hard_limit' }), round * 293);
    for (const client of inside) client.destroy();
    await proxy.untilMetric('edge_backend_connections_current', 0, { backend: 'a' });
    await until('the backend to be empty', () => backend.sockets.size === 0);
  }
});

test('hard limit: a backend never sees the next connection before the end of the last', async () => {
  await using backend = await startStrictBackend();
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row, hardLimit: 1 }],
    settings: { WORKERS: 4 },
  });
  let left = 2000;
  const visit = async (visitor: number): Promise<void> => {
    while (left > 0) {
      const client = await enter(proxy.address, address(visitor));
      if (client === null) continue;
      left--;
      client.resetAndDestroy();
    }
  };
  await Promise.all(Array.from({ length: 4 }, (_, visitor) => visit(visitor)));
  assert.ok(backend.accepted >= 2000);
  assert.equal(backend.peak, 1);
});

test('hard limit: clients that come and go all the time leave the count at zero', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row, hardLimit: 3 }],
    settings: { WORKERS: 4 },
  });
  const visit = async (visitor: number): Promise<void> => {
    for (let round = 0; round < 40; round++) {
      const fate = await clientFateThatLeaves(proxy.address, address(visitor));
      assert.ok(fate === 'a' || fate === '', `the client read "${fate}"`);
    }
  };
  await Promise.all(Array.from({ length: 25 }, (_, visitor) => visit(visitor)));
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  await proxy.untilMetric('edge_backend_connections_current', 0, { backend: 'a' });
  const { accepted, accounted } = connectionsBalance(metrics);
  assert.equal(accepted, 1000);
  assert.equal(accounted, 1000);
  assert.equal(await backendName(proxy.address), 'a');
});

/** What a client that closes right away reads. */
async function clientFateThatLeaves(
  at: { host: string; port: number },
  from: string,
): Promise<string> {
  try {
    const socket = await openClient(at, { from });
    const reading = readToEnd(socket);
    socket.end();
    const { bytes } = await reading;
    socket.destroy();
    return bytes.toString();
  } catch {
    return '';
  }
}

test('hard limit: a full backend passes new clients to a worse tier', async () => {
  await using near = await startBackend(greet);
  await using far = await startBackend(greet);
  await using proxy = await startProxy({
    backends: [
      { id: 'near', region: 'sa', ...near.row, hardLimit: 2 },
      { id: 'far', region: 'eu', ...far.row },
    ],
  });
  for (let index = 0; index < 5; index++) assert.ok(await enter(proxy.address, address(index)));
  assert.equal(near.sockets.size, 2);
  assert.equal(far.sockets.size, 3);
});

/** Opens `count` sessions one after the other, all held, and returns how many each backend has. */
async function fill(
  at: { host: string; port: number },
  backends: readonly TestBackend[],
  count: number,
): Promise<number[]> {
  for (let index = 0; index < count; index++) assert.ok(await enter(at, address(index)));
  return backends.map((backend) => backend.sockets.size);
}

test('share: sessions spread by weight and by soft limit', async () => {
  await using a = await startBackend(greet);
  await using b = await startBackend(greet);
  await using c = await startBackend(greet);
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row },
      { id: 'b', ...b.row, weight: 2 },
      { id: 'c', ...c.row, softLimit: 300 },
    ],
  });
  // Shares 1 : 2 : 3; each may be off by the one session that is rounded.
  const counts = await fill(proxy.address, [a, b, c], 120);
  for (const [index, share] of [20, 40, 60].entries()) {
    assert.ok(Math.abs((counts[index] as number) - share) <= 1, `shares are ${counts}`);
  }
});

test('share: soft limit 0 counts as 1, it does not shut a backend out', async () => {
  await using a = await startBackend(greet);
  await using b = await startBackend(greet);
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row, softLimit: 0 },
      { id: 'b', ...b.row, softLimit: 9 },
    ],
  });
  assert.deepEqual(await fill(proxy.address, [a, b], 10), [1, 9]);
});

test('share: equals take turns', async () => {
  const names = ['a', 'b', 'c'];
  const backends = await Promise.all(names.map((name) => startBackend(sayName(name))));
  await using proxy = await startProxy({
    backends: backends.map((backend, index) => ({ id: names[index] as string, ...backend.row })),
    settings: { WORKERS: 1 },
  });
  const chosen: string[] = [];
  for (let index = 0; index < 12; index++) {
    chosen.push(await backendName(proxy.address, { from: address(index) }));
    await proxy.untilMetric('edge_connections_current', 0);
  }
  const [first, second, third] = chosen;
  assert.deepEqual(new Set([first, second, third]), new Set(names));
  assert.deepEqual(
    chosen,
    [0, 1, 2, 3].flatMap(() => [first, second, third]),
  );
  for (const backend of backends) await backend[Symbol.asyncDispose]();
});

test('maximum: above EDGEPROXY_MAX_CONNECTIONS clients wait in the queue, none is turned away', {
  skip: NOT_PORTABLE,
}, async () => {
  await using backend = await startBackend(greet);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { MAX_CONNECTIONS: 10, WORKERS: 2 },
  });
  const inside: Socket[] = [];
  for (let index = 0; index < 10; index++) {
    inside.push((await enter(proxy.address, address(index))) as Socket);
  }
  const waiting: Promise<Socket | null>[] = [];
  for (let index = 0; index < 8; index++) {
    waiting.push(enter(proxy.address, address(100 + index)));
    await untilStill('this client to be served or held', () => backend.sockets.size);
  }
  assert.equal(backend.sockets.size, 10);
  const burst = Array.from({ length: 40 }, (_, index) => {
    return enter(proxy.address, address(200 + index));
  });
  await untilStill('the burst to be held', () => backend.sockets.size);
  // Also what the kernel accepted in one batch before it was told to stop.
  assert.equal(backend.sockets.size, 10);
  for (const client of inside) client.destroy();
  const served = await Promise.all(
    [...waiting, ...burst].map(async (entering) => {
      const client = await entering;
      client?.destroy();
      return client !== null;
    }),
  );
  assert.equal(served.filter(Boolean).length, 48);
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  assert.deepEqual(metrics.nonZero('edge_rejected_total', 'reason'), {});
});

test('descriptors: running out is counted, ends nothing but the attempt, and passes', {
  skip: NOT_PORTABLE,
}, async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { MAX_CONNECTIONS: 1000, WORKERS: 2 },
    wrapper: ['prlimit', '--nofile=120:120', '--'],
  });
  const idle = await proxy.settledDescriptors();
  const clients = await openClients(proxy.address, 150, address);
  await untilStill('accepting to stall', () => backend.connections, 100);
  assert.equal(proxy.exit, null);
  for (const client of clients) client.destroy();
  await until('descriptors to be free again', () => proxy.descriptors().socket === idle.socket);
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  assert.ok(metrics.get('edge_accept_errors_total', { errno: 'EMFILE' }) > 0);
  // A place at the backend is given back a moment after its session has ended: when its connection is gone as well.
  await proxy.untilMetric('edge_backend_connections_current', 0);
  await proxy.untilDescriptors(idle);
  backend.handler = sayName('served again');
  // Another worker may still have the last of the crowd in its queue.
  await until('a client to be served', async () => {
    return (await backendName(proxy.address)) === 'served again';
  });
});

test('descriptors: sessions that were open before go on while none is to be had', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { MAX_CONNECTIONS: 1000, WORKERS: 1 },
    wrapper: ['prlimit', '--nofile=100:100', '--'],
  });
  const first = await openClient(proxy.address);
  await backend.next(0);
  const crowd = await openClients(proxy.address, 100, address);
  await untilStill('accepting to stall', () => backend.connections, 50);
  const reading = readToEnd(first);
  first.end('still here');
  const { bytes, end } = await reading;
  assert.deepEqual({ text: bytes.toString(), end }, { text: 'still here', end: 'fin' });
  const metrics = await proxy.metrics();
  const blamed = metrics.get('edge_session_end_total', { reason: 'connect_failed' });
  assert.equal(blamed, 0, 'the backend is not to blame');
  for (const client of crowd) client.destroy();
});

test('hold: a backend that never reads is no reason for a client to be turned away', async () => {
  await using backend = await startBackend(hold);
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  const fate = clientFate(proxy.address);
  const server = await backend.next(0);
  server.end('late');
  assert.deepEqual(await fate, { bytes: Buffer.from('late'), end: 'fin' });
});
