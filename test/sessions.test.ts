// Many sessions: two thousand at once, and thousands of every kind one after the other; afterwards nothing is left.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { after, before, test } from 'node:test';
import {
  echoOnce,
  hashStream,
  openClient,
  openClients,
  readToEnd,
  sendBulk,
} from '../src/testing/clients.ts';
import { connectionsBalance, type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { openScene, type Scene } from '../src/testing/scene.ts';
import {
  echo,
  hold,
  openBlackhole,
  refusedPort,
  startBackend,
  trickle,
} from '../src/testing/test-backends.ts';
import { until, untilStill } from '../src/testing/wait.ts';

const MB = 2 ** 20;
const SESSIONS = 2000;
/** Sessions that together hold more buffers than there are, at one each. */
const UNREAD = 80;
const FILL_MS = 60_000;

/** 256 clients an address: far from any limit of ports. */
function address(index: number): string {
  return `127.7.${index >> 8}.${index & 255 || 1}`;
}

/** Accepted = rejected + ended + open, and nothing is held any more. */
async function expectNothingLeft(proxy: ProxyProcess): Promise<void> {
  await proxy.untilMetric('edge_backend_connections_current', 0);
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  const { accepted, accounted } = connectionsBalance(metrics);
  assert.equal(accepted, accounted);
  await proxy.untilMetric('edge_buffers_in_use', 0);
}

test('sessions: two thousand at once each get their own bytes back', async () => {
  await using scene = await openScene();
  await scene.begin(echo);
  const { proxy, backend } = scene;
  const clients = await openClients(proxy.address, SESSIONS, address);
  assert.equal(clients.length, SESSIONS);
  for (let round = 0; round < 3; round++) {
    await Promise.all(
      clients.map((client, index) => echoOnce(client, `${round}/${index};`.repeat(20))),
    );
  }
  assert.equal(backend.sockets.size, SESSIONS);
  // Idle sessions hold no buffer: the last are given back a moment after the clients have read.
  const metrics = await proxy.untilMetric('edge_buffers_in_use', 0);
  assert.equal(metrics.get('edge_connections_current'), SESSIONS);
  assert.equal(metrics.get('edge_backend_connections_current', { backend: 'a' }), SESSIONS);
  clients.forEach((client, index) => {
    if (index % 2 === 0) client.end();
    else client.resetAndDestroy();
    client.resume();
  });
  await expectNothingLeft(proxy);
  const ends = (await proxy.metrics()).nonZero('edge_session_end_total', 'reason');
  assert.deepEqual(ends, { completed: SESSIONS / 2, client_reset: SESSIONS / 2 });
});

test('sessions: with the smallest buffer pool hundreds of busy ones take turns, nothing is lost', async () => {
  await using scene = await openScene({ BUFFER_MEMORY_MB: 1, WORKERS: 1 });
  const { proxy, backend } = scene;
  await scene.begin(trickle);
  // The pool runs out for certain when enough clients stop reading: what the kernel takes no more stays in buffers.
  const unread = await openClients(proxy.address, UNREAD, address);
  for (const client of unread) client.pause();
  const waits = async (): Promise<number> => (await proxy.metrics()).get('edge_buffer_waits_total');
  await until('the pool to run out', waits, FILL_MS);
  backend.handler = echo;
  const clients = await openClients(proxy.address, 300, (index) => address(index + UNREAD));
  const exchanges = clients.map(async (client, index) => {
    const reading = hashStream(client, 200_000);
    const sent = await sendBulk(client, 200_000, index);
    assert.equal((await reading).hash, sent);
  });
  for (const client of unread) client.resume();
  await Promise.all(exchanges);
  for (const client of [...unread, ...clients]) client.resume().end();
  await expectNothingLeft(proxy);
});

let shared: Scene;
before(async () => {
  shared = await openScene();
});
after(() => shared[Symbol.asyncDispose]());

type Kind = (client: Socket, index: number) => Promise<unknown>;

/** Ways a session can go, for the client's part. */
const KINDS: Record<string, Kind> = {
  'close in order': async (client) => {
    client.end('hello');
    await readToEnd(client);
  },
  'are reset by the client': async (client, index) => {
    if (index % 2 === 0) await echoOnce(client, 'hello');
    client.resetAndDestroy();
  },
  'carry bulk': async (client, index) => {
    const reading = hashStream(client, MB);
    const sent = await sendBulk(client, MB, index);
    assert.equal((await reading).hash, sent);
    client.end();
    await readToEnd(client);
  },
  'are reset in the middle of bulk': async (client, index) => {
    client.pause();
    const sending = sendBulk(client, 8 * MB, index).catch(() => {});
    await echoStarted(client);
    client.resetAndDestroy();
    await sending;
  },
};

async function echoStarted(client: Socket): Promise<void> {
  await until('the first bytes back', () => client.readableLength > 0 || client.destroyed);
}

const COUNTS: Record<string, number> = {
  'close in order': 3000,
  'are reset by the client': 2000,
  'carry bulk': 40,
  'are reset in the middle of bulk': 40,
};

for (const [name, kind] of Object.entries(KINDS)) {
  test(`leaks: sessions that ${name} leave no descriptor, no buffer and no count behind`, async () => {
    const scene = await shared.begin(echo);
    const { proxy } = scene;
    const run = async (count: number): Promise<void> => {
      let next = 0;
      const lanes = Array.from({ length: 20 }, async () => {
        for (let index = next++; index < count; index = next++) {
          const client = await openClient(proxy.address, { from: address(index) });
          await kind(client, index);
          client.destroy();
        }
      });
      await Promise.all(lanes);
      await expectNothingLeft(proxy);
    };
    const count = COUNTS[name] as number;
    // The first run leaves what is kept on purpose: empty pipes for the next bulk flows.
    await run(Math.min(count, 100));
    const idle = await proxy.settledDescriptors();
    await run(count);
    const open = await proxy.settledDescriptors();
    assert.equal(open.socket, idle.socket);
    // At most 16 spare pipes, two ends each, per worker.
    assert.ok((open.pipe ?? 0) <= 64 + 16, `${open.pipe} pipe ends are open`);
    assert.deepEqual({ ...open, pipe: 0 }, { ...idle, pipe: 0 });
  });
}

test('leaks: sessions that end in the backend, or never reach one, leave nothing behind', async () => {
  await using hole = await openBlackhole();
  await using rude = await startBackend((socket) => socket.resetAndDestroy());
  await using proxy = await startProxy({
    backends: [
      { id: 'rude', app: 'rude', ...rude.row },
      { id: 'refused', app: 'refused', port: await refusedPort() },
      { id: 'hole', app: 'hole', port: hole.port },
    ],
    settings: {
      LISTEN_ADDR: ['rude', 'refused', 'hole', 'nobody'].map((app) => `${app}@127.0.0.1:0`).join(),
      CONNECT_TIMEOUT_MS: 200,
    },
  });
  const visit = async (listener: number, count: number): Promise<void> => {
    const at = proxy.addresses[listener];
    assert.ok(at);
    const clients = await openClients(at, count, address);
    await Promise.all(clients.map((client) => readToEnd(client)));
  };
  const visitAll = async (count: number): Promise<void> => {
    for (let listener = 0; listener < 4; listener++) await visit(listener, count);
    await expectNothingLeft(proxy);
  };
  await visitAll(5);
  const idle = await proxy.settledDescriptors();
  await visitAll(400);
  await proxy.untilDescriptors(idle);
  assert.equal((await proxy.metrics()).get('edge_connections_total'), 4 * 405);
});

test('sessions: stalled ones do not hold up the others', async () => {
  const scene = await shared.begin(hold);
  const { proxy, backend } = scene;
  const stalled = await openClients(proxy.address, 20, address);
  await until('the stalled sessions', () => backend.sockets.size === 20);
  for (const client of stalled) void sendBulk(client, 64 * MB, 1).catch(() => {});
  await untilStill('the senders to be held back', () =>
    stalled.reduce((sum, client) => sum + client.bytesWritten - client.writableLength, 0),
  );
  backend.handler = echo;
  const lively = await openClient(proxy.address, { from: '127.7.200.1' });
  for (let turn = 0; turn < 100; turn++) await echoOnce(lively, `turn ${turn}`);
  for (const client of stalled) client.resetAndDestroy();
  lively.destroy();
  await until('the backend to hear of the resets', () => {
    for (const socket of backend.sockets) socket.resume();
    return backend.sockets.size === 0;
  });
  await expectNothingLeft(proxy);
});
