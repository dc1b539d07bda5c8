// Connections whose PROXY header is waited for, through the real process: they are bounded, survive a drain, end with a
// stop or with their worker, hold a buffer at most for a while; and nothing that is no header is ever believed.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { echoOnce, openClient, readBytes, readToEnd } from '../src/testing/clients.ts';
import { end, headerV1, headerV2, LOCAL_V2 } from '../src/testing/proxy-headers.ts';
import {
  connectionsBalance,
  NOT_PORTABLE,
  type ProxyProcess,
  startProxy,
} from '../src/testing/proxy-process.ts';
import { echo, startBackend, type TestBackend } from '../src/testing/test-backends.ts';

const PROXY = { from: '127.1.0.1' };
const HEADER = headerV2(end('200.160.2.3'), [[0x02, 'example.org']], true);

function startIn(
  backend: TestBackend,
  settings: Readonly<Record<string, string | number>> = {},
): Promise<ProxyProcess> {
  return startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: {
      WORKERS: 1,
      PROXY_PROTOCOL_IN: 'any',
      TRUSTED_PROXIES: '127.1.0.0/16',
      PROXY_HEADER_TIMEOUT_MS: 60_000,
      ...settings,
    },
  });
}

/** A connection that has sent half of its header. */
async function openWaiting(proxy: ProxyProcess, from = PROXY): Promise<Socket> {
  const socket = await openClient(proxy.address, from);
  socket.write(HEADER.subarray(0, 30));
  return socket;
}

async function finish(socket: Socket): Promise<void> {
  socket.write(HEADER.subarray(30));
  await echoOnce(socket, 'served');
  socket.destroy();
}

test('proxy header: who waits counts against the maximum', { skip: NOT_PORTABLE }, async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startIn(backend, { MAX_CONNECTIONS: 3 });
  const waiting = await Promise.all([openWaiting(proxy), openWaiting(proxy), openWaiting(proxy)]);
  await proxy.untilMetric('edge_connections_current', 3);
  // Waits in the queue, not in a slot.
  const late = await openWaiting(proxy);
  await delay(100);
  assert.equal((await proxy.metrics()).get('edge_connections_current'), 3);
  await Promise.all(waiting.map(finish));
  await finish(late);
  assert.equal(backend.connections, 4);
});

test('proxy header: a drain lets who waits become a session', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startIn(backend);
  const waiting = await openWaiting(proxy);
  await proxy.untilMetric('edge_connections_current', 1);
  proxy.signal('SIGTERM');
  await proxy.untilLog('Draining');
  await delay(100);
  await finish(waiting);
  assert.equal((await proxy.exited).code, 0);
  assert.equal(backend.connections, 1);
});

test('proxy header: the shutdown deadline ends who waits, by RST', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startIn(backend, { SHUTDOWN_TIMEOUT_SECS: 0.3 });
  const waiting = await openWaiting(proxy);
  const reading = readToEnd(waiting);
  await proxy.untilMetric('edge_connections_current', 1);
  proxy.signal('SIGTERM');
  assert.equal((await reading).end, 'ECONNRESET');
  assert.equal((await proxy.exited).code, 0);
  const stopped = proxy.log('Stopped');
  assert.equal(stopped?.sessionsCut, 1);
});

test('proxy header: who waits ends with its worker, and the next one reads headers', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startIn(backend, { FAULT_INJECTION: 1 });
  const waiting = await openWaiting(proxy);
  const reading = readToEnd(waiting);
  await proxy.untilMetric('edge_connections_current', 1);
  proxy.signal('SIGUSR2');
  const { end: how } = await reading;
  // What node:net holds is closed when its thread ends.
  if (!NOT_PORTABLE) assert.equal(how, 'ECONNRESET');
  await proxy.untilLog('A worker was replaced');
  await finish(await openWaiting(proxy));
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  assert.equal(metrics.get('edge_session_end_total', { reason: 'worker_lost' }), 1);
  const { accepted, accounted } = connectionsBalance(metrics);
  assert.equal(accepted, accounted);
});

test('proxy header: more who wait than there are buffers are served in turn, also with headers out', async () => {
  await using backend = await startBackend((socket) => {
    // The header that we get, and then the echo.
    let bytes = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      bytes = Buffer.concat([bytes, chunk]);
      const at = bytes.indexOf('\r\n');
      if (at < 0) return;
      socket.off('data', onData);
      socket.write(bytes.subarray(at + 2));
      socket.pipe(socket);
    };
    socket.on('data', onData);
  });
  // 64 buffers, each of which may hold a header or what follows one.
  await using proxy = await startIn(backend, {
    BUFFER_MEMORY_MB: 1,
    PROXY_PROTOCOL_OUT: 'v1',
    PROXY_HEADER_TIMEOUT_MS: 20_000,
  });
  const talk = async (index: number): Promise<void> => {
    const socket = await openClient(proxy.address, PROXY);
    const header = headerV1(end(`200.160.${index >> 7}.${index & 127}`));
    const text = `stream of ${index}`;
    const reading = readBytes(socket, text.length);
    socket.write(header.subarray(0, 20));
    await delay(30);
    socket.write(Buffer.concat([header.subarray(20), Buffer.from(text)]));
    assert.equal((await reading).toString(), text);
    socket.destroy();
  };
  await Promise.all(Array.from({ length: 300 }, (_, index) => talk(index)));
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  await proxy.untilMetric('edge_buffers_in_use', 0);
  assert.deepEqual(metrics.nonZero('edge_rejected_total', 'reason'), {});
});

/** Anything; and, more dangerous, almost a header. */
const noise = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 200 }),
  fc
    .tuple(
      fc.constantFrom(HEADER, headerV1(end('200.160.2.3')), headerV2(end('2001:db8::7')), LOCAL_V2),
      fc.nat(),
      fc.nat(254),
    )
    .map(([header, at, change]) => {
      const bytes = Uint8Array.from(header);
      bytes[at % bytes.length] = ((bytes[at % bytes.length] as number) + 1 + change) & 255;
      return bytes;
    }),
  fc.uint8Array({ maxLength: 60 }).map((rest) => Buffer.concat([HEADER.subarray(0, 12), rest])),
  fc.uint8Array({ maxLength: 60 }).map((rest) => Buffer.concat([Buffer.from('PROXY '), rest])),
);

test('proxy header: random bytes end in RST or a session, and never in a crash or a false client', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startIn(backend, { WORKERS: 2 });
  const samples = fc.sample(noise, { numRuns: 400, seed: 11 });
  const fates = await Promise.all(
    samples.map(async (bytes, index) => {
      await delay(index % 20);
      const socket = await openClient(proxy.address, PROXY);
      const reading = readToEnd(socket);
      socket.end(bytes);
      const fate = await reading;
      socket.destroy();
      return fate;
    }),
  );
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  const { accepted, accounted } = connectionsBalance(metrics);
  assert.equal(accepted, accounted);
  assert.equal(metrics.get('edge_connections_total'), samples.length);
  const rejected = fates.filter(({ end: how }) => how !== 'fin').length;
  assert.equal(metrics.get('edge_rejected_total', { reason: 'proxy_header_invalid' }), rejected);
  // A changed address or port still is a header; but no session has a byte of one.
  assert.ok(rejected > samples.length / 2, `${rejected} of ${samples.length} rejected`);
  for (const { bytes, end: how } of fates) {
    if (how !== 'fin') assert.equal(bytes.length, 0);
  }
  assert.ok(proxy.logs.every(({ level }) => level !== 'error'));
  await finish(await openWaiting(proxy));
});
