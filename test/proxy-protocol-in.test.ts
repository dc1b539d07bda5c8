// PROXY headers from trusted proxies, through the real process: read in any pieces, believed from nobody else, and the
// client they name is the one that geography, bindings and limits go by.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  echoOnce,
  exchange,
  hashStream,
  openClient,
  type ReadResult,
  readBytes,
  readToEnd,
  sendBulk,
} from '../src/testing/clients.ts';
import {
  end,
  headerV1,
  headerV2,
  headerV2Raw,
  LOCAL_V2,
  openProxied,
  UNKNOWN_V1,
} from '../src/testing/proxy-headers.ts';
import {
  connectionsBalance,
  type ProxyOptions,
  type ProxyProcess,
  startProxy,
} from '../src/testing/proxy-process.ts';
import { echo, sayName, startBackend } from '../src/testing/test-backends.ts';

/** Where trusted proxies connect from; another address stands for anybody. */
const PROXY = { from: '127.1.0.1' };
const PROXY_2 = { from: '127.1.0.2' };
const STRANGER = { from: '127.2.0.1' };
const IN = {
  WORKERS: 2,
  PROXY_PROTOCOL_IN: 'any',
  TRUSTED_PROXIES: '127.1.0.0/16, ::1',
};

function startIn(options: ProxyOptions): Promise<ProxyProcess> {
  return startProxy({ ...options, settings: { ...IN, ...options.settings } });
}

/** What becomes of a connection that sends these bytes, and then FIN unless it is to stay open. */
async function fateOf(
  proxy: ProxyProcess,
  bytes: Uint8Array,
  options = PROXY,
  stays = false,
): Promise<ReadResult> {
  const socket = await openClient(proxy.address, options);
  const reading = readToEnd(socket);
  if (stays) socket.write(bytes);
  else socket.end(bytes);
  const result = await reading;
  socket.destroy();
  return result;
}

/** The name of the backend that a client named by this header gets. */
async function nameFor(proxy: ProxyProcess, header: Uint8Array, from = PROXY): Promise<string> {
  return (await fateOf(proxy, header, from)).bytes.toString();
}

const BRAZIL = '200.160.2.3';
const GERMANY = '193.99.144.80';
const GERMANY_6 = '2a02:2e0:3fe:1001:302::';

test('proxy in: the client is the one in the header, for geography and for its binding', async () => {
  await using sa = await startBackend(sayName('sa'));
  await using eu = await startBackend(sayName('eu'));
  await using us = await startBackend(sayName('us'));
  await using proxy = await startIn({
    backends: [
      { id: 'sa', ...sa.row, region: 'sa', country: 'BR' },
      { id: 'eu', ...eu.row, region: 'eu', country: 'DE' },
      { id: 'us', ...us.row, region: 'us', country: 'US' },
    ],
    settings: { REGION: 'us' },
  });
  assert.equal(await nameFor(proxy, headerV1(end(BRAZIL))), 'sa');
  assert.equal(await nameFor(proxy, headerV2(end(BRAZIL))), 'sa');
  assert.equal(await nameFor(proxy, headerV1(end(GERMANY))), 'eu');
  assert.equal(await nameFor(proxy, headerV2(end(GERMANY_6))), 'eu');
  assert.equal(await nameFor(proxy, headerV1(end(GERMANY_6))), 'eu');
  assert.equal(await nameFor(proxy, headerV1(end(`::ffff:${BRAZIL}`))), 'sa');
  // Nobody is named: the proxy itself is the client, and a loopback address has no country.
  for (const header of [LOCAL_V2, UNKNOWN_V1, headerV2Raw(0x21, 0, Buffer.alloc(0))]) {
    assert.equal(await nameFor(proxy, header), 'us');
  }
  // The binding is that of the client, whichever proxy it comes through.
  await proxy.reroute("UPDATE backends SET weight = 0 WHERE id = 'sa'");
  assert.equal(await nameFor(proxy, headerV2(end(BRAZIL, 99)), PROXY_2), 'sa');
  assert.notEqual(await nameFor(proxy, headerV2(end('200.160.2.4'))), 'sa');
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  const { accepted, accounted } = connectionsBalance(metrics);
  assert.equal(accepted, accounted);
});

test('proxy in: a client of IPv6 comes through a proxy of IPv6', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startIn({
    backends: [{ id: 'a', ...backend.row }],
    settings: { LISTEN_ADDR: '[::1]:0' },
  });
  const socket = await openProxied(proxy.address, headerV2(end(GERMANY_6)));
  const reading = readToEnd(socket);
  socket.end();
  assert.equal((await reading).bytes.toString(), 'a');
});

const SPLIT_HEADERS = [
  headerV1(end('1.2.3.4')),
  headerV1(end('2001:db8::1')),
  UNKNOWN_V1,
  headerV2(end('1.2.3.4')),
  headerV2(
    end('2001:db8::1'),
    [
      [0x02, 'example.org'],
      [0x04, ''],
      [0xe5, 'x'],
    ],
    true,
  ),
  LOCAL_V2,
];

test('proxy in: a header split at every byte is read, and what follows is the stream', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startIn({ backends: [{ id: 'a', ...backend.row }] });
  const cuts = SPLIT_HEADERS.flatMap((header) =>
    Array.from({ length: header.length + 1 }, (_, at) => ({ header, at })),
  );
  const talk = async ({ header, at }: (typeof cuts)[number], index: number): Promise<void> => {
    const text = `stream ${index}`;
    const socket = await openClient(proxy.address, PROXY);
    socket.write(header.subarray(0, at));
    await delay(20);
    const reading = readBytes(socket, text.length);
    // Half of them with the first bytes of the stream in the same segment.
    if (index % 2 === 0) {
      socket.write(Buffer.concat([header.subarray(at), Buffer.from(text)]));
    } else {
      socket.write(header.subarray(at));
      socket.write(text);
    }
    assert.equal((await reading).toString(), text, `header of ${header.length} split at ${at}`);
    await echoOnce(socket, 'more');
    socket.destroy();
  };
  await Promise.all(cuts.map(talk));
  const sent = cuts.reduce((sum, _, index) => sum + `stream ${index}`.length + 4, 0);
  assert.equal(backend.bytes, sent, 'no byte of a header reached the backend');
  await proxy.untilMetric('edge_bytes_total', sent, { direction: 'up' });
});

test('proxy in: headers that come byte by byte, and streams whose first piece is large', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startIn({ backends: [{ id: 'a', ...backend.row }] });
  const dribble = async (header: Buffer): Promise<void> => {
    const socket = await openClient(proxy.address, PROXY);
    for (const byte of header) {
      socket.write(Buffer.of(byte));
      await delay(1);
    }
    await echoOnce(socket, 'whole');
    socket.destroy();
  };
  const bulk = async (seed: number): Promise<void> => {
    const header = headerV2(end('1.2.3.4'), [[0xe5, 'x'.repeat(3500)]], true);
    const socket = await openClient(proxy.address, PROXY);
    // The kernel has the header and the first part of the stream in one piece.
    socket.cork();
    socket.write(header);
    const sending = sendBulk(socket, 3_000_000, seed);
    socket.uncork();
    const reading = hashStream(socket, 3_000_000);
    assert.equal((await reading).hash, await sending);
    socket.destroy();
  };
  await Promise.all([...SPLIT_HEADERS.map(dribble), ...[1, 2, 3, 4].map(bulk)]);
});

test('proxy in: FIN right behind the header or the stream is kept', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startIn({ backends: [{ id: 'a', ...backend.row }] });
  for (const text of ['', 'all I say']) {
    const bytes = Buffer.concat([headerV1(end('1.2.3.4')), Buffer.from(text)]);
    const { bytes: answer, end: how } = await fateOf(proxy, bytes);
    assert.deepEqual([answer.toString(), how], [text, 'fin']);
  }
  await proxy.untilMetric('edge_session_end_total', 2, { reason: 'completed' });
});

const MALFORMED: Readonly<Record<string, Uint8Array>> = {
  'no header': Buffer.from('GET / HTTP/1.1\r\n'),
  'lower case': Buffer.from('proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n'),
  'a line without end': Buffer.from(`PROXY UNKNOWN ${'x'.repeat(200)}`),
  'a bad address': Buffer.from('PROXY TCP4 1.2.3.456 5.6.7.8 1 2\r\n'),
  'a bad port': Buffer.from('PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n'),
  'a line feed alone': Buffer.from('PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n'),
  'a wrong signature': headerV2(end('1.2.3.4')).fill(0x51, 11, 12),
  'an unknown command': headerV2Raw(0x22, 0x11, Buffer.alloc(12)),
  'version 3': headerV2Raw(0x31, 0x11, Buffer.alloc(12)),
  'an unknown family': headerV2Raw(0x21, 0x41, Buffer.alloc(12)),
  'too short for its family': headerV2Raw(0x21, 0x21, Buffer.alloc(12)),
  'a TLV that does not fit': headerV2Raw(
    0x21,
    0x11,
    Buffer.from(`${'\0'.repeat(12)}\x02\x00\x05abc`),
  ),
  'a wrong checksum': headerV2(end('1.2.3.4'), [], true).fill(0, 31),
  'longer than any header': headerV2Raw(0x21, 0x11, Buffer.alloc(5000)),
};

test('proxy in: what is no header is answered with RST and reaches no backend', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startIn({ backends: [{ id: 'a', ...backend.row }] });
  for (const [what, bytes] of Object.entries(MALFORMED)) {
    const { bytes: answer, end: how } = await fateOf(proxy, bytes, PROXY, true);
    assert.deepEqual([answer.length, how], [0, 'ECONNRESET'], what);
  }
  const count = Object.keys(MALFORMED).length;
  await proxy.untilMetric('edge_rejected_total', count, { reason: 'proxy_header_invalid' });
  // Cut off by FIN; and one that only looks whether we are there.
  assert.equal((await fateOf(proxy, Buffer.from('PROXY TCP4 1.2'))).end, 'ECONNRESET');
  await proxy.untilMetric('edge_rejected_total', count + 1, { reason: 'proxy_header_invalid' });
  assert.equal((await fateOf(proxy, Buffer.alloc(0))).end, 'ECONNRESET');
  const metrics = await proxy.untilMetric('edge_rejected_total', 1, { reason: 'client_gone' });
  const { accepted, accounted } = connectionsBalance(metrics);
  assert.equal(accepted, accounted);
  assert.equal(metrics.get('edge_connections_current'), 0);
  assert.equal(backend.connections, 0);
});

for (const [version, other] of [
  ['v1', headerV2(end('1.2.3.4'))],
  ['v2', headerV1(end('1.2.3.4'))],
] as const) {
  test(`proxy in: ${version} takes no header of the other version`, async () => {
    await using backend = await startBackend(sayName('a'));
    await using proxy = await startIn({
      backends: [{ id: 'a', ...backend.row }],
      settings: { PROXY_PROTOCOL_IN: version },
    });
    assert.equal((await fateOf(proxy, other)).end, 'ECONNRESET');
    const own = version === 'v1' ? headerV1(end('1.2.3.4')) : headerV2(end('1.2.3.4'));
    assert.equal(await nameFor(proxy, own), 'a');
  });
}

/** Sends a byte now and then until the connection ends. */
async function trickle(socket: Socket): Promise<void> {
  for (const byte of `PROXY UNKNOWN ${'x'.repeat(90)}`) {
    if (!socket.writable) return;
    socket.write(byte);
    await delay(50);
  }
}

test('proxy in: who sends no whole header in time is answered with RST', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startIn({
    backends: [{ id: 'a', ...backend.row }],
    settings: { PROXY_HEADER_TIMEOUT_MS: 300 },
  });
  const silent = fateOf(proxy, Buffer.alloc(0), PROXY, true);
  const partial = fateOf(proxy, headerV2(end('1.2.3.4')).subarray(0, 20), PROXY, true);
  const socket = await openClient(proxy.address, PROXY);
  const slow = readToEnd(socket);
  void trickle(socket);
  for (const { bytes, end: how } of await Promise.all([silent, partial, slow])) {
    assert.deepEqual([bytes.length, how], [0, 'ECONNRESET']);
  }
  await proxy.untilMetric('edge_rejected_total', 3, { reason: 'proxy_header_timeout' });
  assert.equal(backend.connections, 0);
  // Neither is a session cut by the time that its header had, nor a connection by the time that nobody came.
  for (let round = 0; round < 4; round++) {
    const session = await openProxied(proxy.address, headerV1(end('1.2.3.4')), PROXY);
    await readBytes(session, 1);
    await delay(450);
    assert.equal((await proxy.metrics()).get('edge_connections_current'), 1);
    session.destroy();
    await proxy.untilMetric('edge_connections_current', 0);
    await delay(450);
  }
});

test('proxy in: a header from anybody else is not believed, but passed on', async () => {
  await using sa = await startBackend(echo);
  await using us = await startBackend(echo);
  await using proxy = await startIn({
    backends: [
      { id: 'sa', ...sa.row, region: 'sa', country: 'BR' },
      { id: 'us', ...us.row, region: 'us', country: 'US' },
    ],
    settings: { REGION: 'us' },
  });
  for (const header of [headerV1(end(BRAZIL)), headerV2(end(BRAZIL), [], true), LOCAL_V2]) {
    const text = `${header.toString('latin1')}and more`;
    const socket = await openClient(proxy.address, STRANGER);
    const reading = readBytes(socket, Buffer.byteLength(text, 'latin1'));
    socket.write(Buffer.from(text, 'latin1'));
    assert.equal((await reading).toString('latin1'), text);
    socket.destroy();
  }
  // And an ordinary client of the same address needs none.
  assert.equal((await exchange(proxy.address, 'plain', STRANGER)).text, 'plain');
  assert.equal(sa.connections, 0, 'nobody was taken for a client in Brazil');
  assert.equal(us.connections, 4);
});

test('proxy in: limits count the address in the header, over all proxies', async () => {
  await using backend = await startBackend((socket) => void socket.end('a'));
  await using proxy = await startIn({
    backends: [{ id: 'a', ...backend.row }],
    settings: {
      RATE_LIMIT_ENABLED: 'true',
      RATE_LIMIT_MAX_REQUESTS: 3,
      RATE_LIMIT_WINDOW_SECS: 3600,
      RATE_LIMIT_BURST: 1,
    },
  });
  const fates = await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      fateOf(proxy, headerV1(end('1.2.3.4', index)), index % 2 === 0 ? PROXY : PROXY_2),
    ),
  );
  assert.equal(fates.filter(({ end: how }) => how === 'ECONNRESET').length, 16);
  await proxy.untilMetric('edge_rejected_total', 16, { reason: 'rate_limited' });
  for (let client = 0; client < 20; client++) {
    assert.equal((await fateOf(proxy, headerV2(end(`1.2.4.${client}`)))).end, 'fin');
  }
  const { accepted, accounted } = connectionsBalance(await proxy.metrics());
  assert.equal(accepted, accounted);
});
