// How sessions end: half-close in both orders, RST in both directions, truncated streams, silent and idle sessions.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { after, before, test } from 'node:test';
import {
  backendName,
  clientFate,
  echoOnce,
  hashStream,
  openClient,
  readBytes,
  readToEnd,
  sendBulk,
} from '../src/testing/clients.ts';
import { openScene, type Scene } from '../src/testing/scene.ts';
import { type ConnectionHandler, echo, hold } from '../src/testing/test-backends.ts';
import { until, untilStill } from '../src/testing/wait.ts';

const MB = 2 ** 20;
const FAMILIES = ['127.0.0.1', '::1'];
const scenes: Record<string, Scene> = {};

before(async () => {
  for (const host of FAMILIES) scenes[host] = await openScene({}, host);
});
after(async () => {
  for (const scene of Object.values(scenes)) await scene[Symbol.asyncDispose]();
});

/** The scene the tests share, with this behaviour of its backend. */
function begin(handler: ConnectionHandler, host = '127.0.0.1'): Promise<Scene> {
  return (scenes[host] as Scene).begin(handler);
}

/** Moves enough each way that both directions are spliced. */
async function makeBulk(from: Socket, to: Socket): Promise<void> {
  for (const [source, target] of [
    [from, to],
    [to, from],
  ] as const) {
    const reading = hashStream(target, 4 * MB);
    const hash = await sendBulk(source, 4 * MB, 3);
    assert.equal((await reading).hash, hash);
  }
}

for (const host of FAMILIES) {
  test(`half-close: the client ends first over ${host} and still gets a later answer`, async () => {
    const scene = await begin(hold, host);
    const { client, server } = await scene.openPair();
    const atServer = readToEnd(server);
    client.end('question');
    assert.deepEqual(await atServer, { bytes: Buffer.from('question'), end: 'fin' });
    const atClient = readToEnd(client);
    server.write('answer ');
    server.end('in two parts');
    assert.deepEqual(await atClient, { bytes: Buffer.from('answer in two parts'), end: 'fin' });
    await scene.ended('completed');
  });

  test(`half-close: the backend ends first over ${host} and still gets what comes later`, async () => {
    const scene = await begin(hold, host);
    const { client, server } = await scene.openPair();
    const atClient = readToEnd(client);
    server.end('goodbye');
    assert.deepEqual(await atClient, { bytes: Buffer.from('goodbye'), end: 'fin' });
    const atServer = readToEnd(server);
    client.write('but ');
    client.end('wait');
    assert.deepEqual(await atServer, { bytes: Buffer.from('but wait'), end: 'fin' });
    await scene.ended('completed');
  });
}

test('half-close: 20 MB still flow to the side that ended first, in both orders', async () => {
  const scene = await begin(hold);
  for (const clientFirst of [true, false]) {
    const { client, server } = await scene.openPair();
    const [first, second] = clientFirst ? [client, server] : [server, client];
    const atSecond = readToEnd(second);
    first.end('first');
    assert.equal((await atSecond).end, 'fin');
    const atFirst = hashStream(first);
    const hash = await sendBulk(second, 20 * MB, 5);
    second.end();
    assert.deepEqual(await atFirst, { bytes: 20 * MB, hash, end: 'fin' });
  }
  await scene.ended('completed', 2);
});

test('half-close: a FIN behind 20 MB that a slow reader takes arrives after the last byte', async () => {
  const scene = await begin(hold);
  const { client, server } = await scene.openPair();
  const sending = sendBulk(client, 20 * MB, 9).then((hash) => {
    client.end();
    return hash;
  });
  await untilStill('the client to be held back', () => client.bytesWritten - client.writableLength);
  const result = await hashStream(server, undefined, { restEvery: MB, restMs: 2 });
  assert.deepEqual(result, { bytes: 20 * MB, hash: await sending, end: 'fin' });
  server.end();
  assert.equal((await readToEnd(client)).end, 'fin');
  await scene.ended('completed');
});

for (const host of FAMILIES) {
  test(`reset: the client's RST over ${host} reaches the backend as ECONNRESET`, async () => {
    const scene = await begin(echo, host);
    const { client } = await scene.openPair();
    await echoOnce(client, 'hello');
    client.resetAndDestroy();
    await until('the RST at the backend', () => scene.backend.errors.length > 0);
    assert.deepEqual(scene.backend.errors, ['ECONNRESET']);
    await scene.ended('client_reset');
  });

  test(`reset: the backend's RST over ${host} reaches the client as ECONNRESET`, async () => {
    const scene = await begin(echo, host);
    const { client, server } = await scene.openPair();
    // Served first: an RST that the proxy hears of before the connection is a failed connect.
    await echoOnce(client, 'hello');
    const atClient = readToEnd(client);
    server.resetAndDestroy();
    assert.equal((await atClient).end, 'ECONNRESET');
    await scene.ended('backend_reset');
  });
}

test('reset: in the middle of a spliced flow it crosses in both directions', async () => {
  const scene = await begin(hold);
  for (const clientResets of [true, false]) {
    const { client, server } = await scene.openPair();
    await makeBulk(client, server);
    const [actor, other] = clientResets ? [client, server] : [server, client];
    const atOther = readToEnd(other);
    actor.resetAndDestroy();
    assert.equal((await atOther).end, 'ECONNRESET');
  }
  await scene.ended('client_reset');
  await scene.ended('backend_reset');
});

test('reset: a stream cut by RST never looks complete to its reader, bytes waiting or not', async () => {
  const scene = await begin(hold);
  for (const clientCuts of [true, false]) {
    const { client, server } = await scene.openPair();
    const [writer, reader] = clientCuts ? [client, server] : [server, client];
    reader.pause();
    const sending = sendBulk(writer, 100 * MB, 1).catch(() => 'cut');
    await untilStill(
      'the writer to be held back',
      () => writer.bytesWritten - writer.writableLength,
    );
    writer.resetAndDestroy();
    assert.equal(await sending, 'cut');
    const result = await readToEnd(reader);
    assert.equal(result.end, 'ECONNRESET');
    assert.ok(result.bytes.length < 100 * MB);
  }
});

test('reset: a client that resets while both directions are stalled is passed on, and its backend freed', async () => {
  // The echo cannot write, so it does not read either: only reading on behalf of the dead client frees it.
  const scene = await begin(echo);
  const { client } = await scene.openPair();
  client.pause();
  const sending = sendBulk(client, 64 * MB, 1).catch(() => {});
  await untilStill('the client to be held back', () => client.bytesWritten - client.writableLength);
  client.resetAndDestroy();
  await sending;
  await scene.ended('client_reset');
  await until('the RST at the backend', () => scene.backend.errors.length > 0);
  assert.deepEqual(scene.backend.errors, ['ECONNRESET']);
});

test('reset: after its own FIN, a client that resets is still reported to the backend', async () => {
  const scene = await begin(hold);
  const { client, server } = await scene.openPair();
  const atServer = readToEnd(server);
  client.end('request');
  assert.equal((await atServer).end, 'fin');
  const broken = new Promise((resolve) => server.once('error', resolve));
  client.resetAndDestroy();
  server.on('error', () => {});
  // A half-closed peer that is gone is noticed by what is sent to it.
  const writing = setInterval(() => server.write('are you there'), 5);
  await broken;
  clearInterval(writing);
  await scene.proxy.untilMetric('edge_connections_current', 0);
});

test('reset: a backend that answers and resets, leaving the request unread, is heard to the end', async () => {
  const answer = Buffer.alloc(60_000, 'answer ');
  const scene = await begin((socket) => {
    socket.pause();
    // Not a byte of the request is read: a plain close would make the kernel reset, too.
    socket.once('readable', () => socket.write(answer, () => socket.resetAndDestroy()));
  });
  for (let round = 0; round < 20; round++) {
    const client = await openClient(scene.proxy.address);
    const atClient = readToEnd(client);
    client.write(Buffer.alloc(100_000, 'request '));
    const { bytes, end } = await atClient;
    assert.equal(end, 'ECONNRESET', 'what was cut must not look complete');
    assert.equal(bytes.equals(answer), true, `${bytes.length} bytes of the answer arrived`);
    client.destroy();
  }
});

test('close: a backend that accepts and closes at once gives the client a clean end', async () => {
  const scene = await begin((socket) => socket.end());
  for (let round = 0; round < 50; round++) {
    const client = await openClient(scene.proxy.address);
    assert.deepEqual(await readToEnd(client), { bytes: Buffer.alloc(0), end: 'fin' });
    client.end();
  }
  await scene.ended('completed', 50);
});

test('close: a backend that accepts and resets at once resets the client', async () => {
  const scene = await begin((socket) => socket.resetAndDestroy());
  const unanswered = async (): Promise<number> => {
    const metrics = await scene.proxy.metrics();
    const ended = (reason: string): number => metrics.get('edge_session_end_total', { reason });
    return ended('backend_reset') + ended('connect_failed');
  };
  const before = await unanswered();
  let resets = 0;
  for (let round = 0; round < 50; round++) {
    const { end } = await clientFate(scene.proxy.address);
    resets += end === 'ECONNRESET' ? 1 : 0;
  }
  assert.equal(resets, 50);
  // Readiness engines may hear of the RST before they heard of the connection: then the connect failed.
  await until('every session to be counted', async () => (await unanswered()) === before + 50);
});

test('close: many clients that leave in the middle of connecting or sending leave nothing behind', async () => {
  const scene = await begin(echo);
  const leave = async (round: number): Promise<void> => {
    const client = await openClient(scene.proxy.address);
    if (round % 3 !== 0) client.write('half a request');
    if (round % 2 === 0) client.resetAndDestroy();
    else client.destroy();
  };
  await Promise.all(Array.from({ length: 300 }, (_, round) => leave(round)));
  await scene.untilGrown('edge_connections_total', 300);
  await scene.proxy.untilMetric('edge_connections_current', 0);
  await scene.proxy.untilMetric('edge_backend_connections_current', 0, { backend: 'a' });
  await until('the backend to see all of them end', () => scene.backend.sockets.size === 0);
});

test('timeout: a session without bytes ends as idle, with RST on both sides', async () => {
  await using scene = await openScene({ IDLE_TIMEOUT_SECS: 0.4 });
  await scene.begin(echo);
  const { client } = await scene.openPair();
  await echoOnce(client, 'hello');
  assert.equal((await readToEnd(client)).end, 'ECONNRESET');
  await until('the RST at the backend', () => scene.backend.errors.length > 0);
  await scene.ended('idle_timeout');
});

test('timeout: a session that keeps talking outlives the idle timeout many times over', async () => {
  await using scene = await openScene({ IDLE_TIMEOUT_SECS: 0.5 });
  await scene.begin(echo);
  const { client } = await scene.openPair();
  const idle = await scene.openPair();
  // Other sessions that idle away are the clock: three of them in a row outlast the timeout three times.
  for (let count = 1; count <= 3; count++) {
    const gone = readToEnd(count === 1 ? idle.client : (await scene.openPair()).client);
    let over = false;
    void gone.then(() => {
      over = true;
    });
    await until('the idle session to end', async () => {
      await echoOnce(client, 'still here');
      return over;
    });
  }
  await scene.ended('idle_timeout', 3);
  client.destroy();
});

for (const clientReads of [true, false]) {
  const who = clientReads ? 'client' : 'backend';
  test(`timeout: a slow ${who} still gets the whole of a stream that had ended before`, async () => {
    await using scene = await openScene({ HALF_CLOSED_TIMEOUT_SECS: 0.3 });
    await scene.begin(hold);
    const { client, server } = await scene.openPair();
    const [reader, writer] = clientReads ? [client, server] : [server, client];
    reader.pause();
    const hash = await sendBulk(writer, MB / 2, 11);
    writer.end();
    const atWriter = readToEnd(writer);
    // All of it is with the proxy's kernel by now, and the session is over; only then does the reader begin.
    await scene.ended('half_closed_timeout');
    assert.equal((await atWriter).end, 'ECONNRESET', 'its own direction is cut');
    assert.deepEqual(await hashStream(reader), { bytes: MB / 2, hash, end: 'fin' });
  });
}

test('timeout: a half-closed session that stays silent ends, one that talks does not', async () => {
  await using scene = await openScene({ HALF_CLOSED_TIMEOUT_SECS: 0.4 });
  await scene.begin(hold);
  const talking = await scene.openPair();
  talking.client.end();
  await until('the FIN', () => talking.server.resume() && scene.backend.ends > 0);
  const silent = await scene.openPair();
  const atSilent = readToEnd(silent.client);
  silent.client.end();
  let over = false;
  void atSilent.then(() => {
    over = true;
  });
  await until('the silent session to end', async () => {
    const reading = readBytes(talking.client, 4);
    talking.server.write('more');
    await reading;
    return over;
  });
  assert.equal((await atSilent).end, 'ECONNRESET');
  await scene.ended('half_closed_timeout');
  const rest = readToEnd(talking.client);
  talking.server.end('done');
  assert.deepEqual(await rest, { bytes: Buffer.from('done'), end: 'fin' });
});

test('close: the proxy is in its right mind after all kinds of ends', async () => {
  const scene = await begin((socket) => socket.end('name'));
  assert.equal(await backendName(scene.proxy.address), 'name');
});
