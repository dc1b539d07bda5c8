import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { until } from '../../testing/wait.ts';
import { EventBus } from '../events.ts';
import { EventStreams } from './event-stream.ts';

/** Streams behind a server of their own, on a clock that the test moves. */
async function setUp() {
  let nowMs = 0;
  const bus = new EventBus(() => nowMs);
  const streams = new EventStreams(bus, () => ({ status: 'fine' }));
  const server = createServer((request, response) => {
    streams.open(request, response, { status: false, recent: 0 });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const sockets: Socket[] = [];
  /** A subscriber, once it has the head of its answer; it reads on only if told to. */
  const subscribe = async (header = ''): Promise<Socket> => {
    const socket = connect(port, '127.0.0.1');
    sockets.push(socket);
    socket.on('error', () => {});
    socket.write(`GET /api/events HTTP/1.1\r\nHost: localhost\r\n${header}\r\n`);
    await new Promise((resolve) => socket.once('readable', resolve));
    return socket;
  };
  const publish = (message: string): void => {
    nowMs += 1000;
    bus.publish('worker_died', 'error', message, {});
  };
  const connections = (): Promise<number> =>
    new Promise((resolve) => server.getConnections((_error, count) => resolve(count)));
  return {
    bus,
    subscribe,
    connections,
    publish,
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy();
      streams.close();
      server.close();
      server.closeAllConnections();
    },
  };
}

/** Reads on; gives the end of what came. */
function readAll(socket: Socket): () => string {
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    text = (text + chunk).slice(-300_000);
  });
  return () => text;
}

test('open() says how many events are gone for a client that comes back late', async () => {
  using streams = await setUp();
  for (let at = 1; at <= 1205; at++) streams.publish(`event ${at}`);
  const { runId } = streams.bus;
  const text = readAll(await streams.subscribe(`Last-Event-ID: ${runId}-200\r\n`));
  await until('the last event', () => text().includes('"event 1205"'));
  assert.match(text(), /event: gap\ndata: \{"missed":5\}\n\n/);
  assert.ok(text().includes('"event 206"'));
  assert.ok(!text().includes('"event 205"'));
});

test('a subscriber that does not read is cut off, and the others get every event', async () => {
  using streams = await setUp();
  await streams.subscribe();
  const text = readAll(await streams.subscribe());
  const filler = 'x'.repeat(200_000);
  // The kernel's buffers hold some megabytes before what is unread is counted.
  for (let count = 0; (await streams.connections()) === 2; count++) {
    assert.ok(count < 500, 'a hundred megabytes wait for it');
    streams.publish(`event ${count} ${filler}`);
    await until('the event', () => text().includes(`event ${count} `));
  }
  streams.publish('the last one');
  await until('the last event', () => text().includes('the last one'));
});
