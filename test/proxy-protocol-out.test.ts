// PROXY headers to backends, through the real process: first of all bytes, once for each connection, and right; judged by
// a reader of its own (src/testing/proxy-headers.ts).

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { hashStream, openClient, readBytes, readToEnd, sendBulk } from '../src/testing/clients.ts';
import {
  end,
  headerV1,
  headerV2,
  LOCAL_V2,
  openProxied,
  type ReadHeader,
  readHeader,
  UNKNOWN_V1,
} from '../src/testing/proxy-headers.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import type { BackendRow } from '../src/testing/routing-file.ts';
import {
  type ConnectionHandler,
  refusedPort,
  startBackend,
  type TestBackend,
} from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

const TLV_COUNTRY = 0xe0;
const TLV_POP = 0xe1;

/** What a backend was told first, and got after that. */
interface Told {
  readonly header: ReadHeader;
  readonly rest: Buffer;
}

/** Reads the header, then calls `then` with what came behind it. */
function behindHeader(told: Told[], then: (socket: Socket, rest: Buffer) => void) {
  const handler: ConnectionHandler = (socket) => {
    let bytes = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      bytes = Buffer.concat([bytes, chunk]);
      const header = readHeader(bytes);
      if (header === null) return;
      socket.off('data', onData);
      socket.pause();
      const rest = bytes.subarray(header.bytes);
      told.push({ header, rest });
      then(socket, rest);
    };
    socket.on('data', onData);
  };
  return handler;
}

/** Sends back all but the header. */
function echoBehind(told: Told[]): ConnectionHandler {
  return behindHeader(told, (socket, rest) => {
    if (rest.length > 0) socket.write(rest);
    socket.pipe(socket);
  });
}

function startOut(
  backend: TestBackend,
  settings: Readonly<Record<string, string | number>>,
): Promise<ProxyProcess> {
  return startProxy({ backends: [{ id: 'a', ...backend.row }], settings });
}

/** One exchange; the header that the backend was told for it, and the client's own address. */
async function exchangeTold(
  proxy: ProxyProcess,
  told: Told[],
  from?: string,
): Promise<{ header: ReadHeader; client: string }> {
  const before = told.length;
  const socket = await openClient(proxy.address, from === undefined ? {} : { from });
  const client = `${socket.localAddress} ${socket.localPort}`;
  const reading = readBytes(socket, 5);
  socket.write('hello');
  assert.equal((await reading).toString(), 'hello');
  socket.destroy();
  assert.equal(told.length, before + 1);
  return { header: (told[before] as Told).header, client };
}

for (const version of [1, 2]) {
  for (const host of ['127.0.0.1', '::1']) {
    test(`proxy out: v${version} tells who the client at ${host} is and where it connected`, async () => {
      const told: Told[] = [];
      await using backend = await startBackend(echoBehind(told), host);
      await using proxy = await startOut(backend, {
        PROXY_PROTOCOL_OUT: `v${version}`,
        LISTEN_ADDR: host === '::1' ? '[::1]:0' : `${host}:0`,
        REGION: 'sa',
      });
      const server = `${host} ${proxy.address.port}`;
      for (const from of host === '::1' ? [undefined, undefined] : ['127.0.0.9', '127.99.1.2']) {
        const { header, client } = await exchangeTold(proxy, told, from);
        assert.equal(header.version, version);
        assert.equal(header.command, 'PROXY');
        assert.deepEqual([header.client, header.server], [client, server]);
        if (version === 1) continue;
        assert.equal(header.checksumRight, true);
        assert.equal(header.tlvs.get(TLV_POP), 'sa');
        assert.equal(header.tlvs.has(TLV_COUNTRY), false, 'a loopback address has no country');
      }
      // Neither header is counted as bytes of a client.
      await proxy.untilMetric('edge_bytes_total', 10, { direction: 'up' });
    });
  }
}

test('proxy out: a backend that speaks first has the header before the client says a word', async () => {
  const told: Told[] = [];
  await using backend = await startBackend((socket, self) => {
    socket.write('220 ready\r\n');
    echoBehind(told)(socket, self);
  });
  await using proxy = await startOut(backend, { PROXY_PROTOCOL_OUT: 'v2' });
  const socket = await openClient(proxy.address);
  assert.equal((await readBytes(socket, 11)).toString(), '220 ready\r\n');
  await until('the header', () => told.length === 1);
  assert.equal(told[0]?.rest.length, 0);
  assert.equal(told[0]?.header.client, `127.0.0.1 ${socket.localPort}`);
  const reading = readBytes(socket, 4);
  socket.write('HELO');
  assert.equal((await reading).toString(), 'HELO');
  // A client that says nothing at all, and closes.
  const silent = await openClient(proxy.address);
  const silentEnd = readToEnd(silent);
  silent.end();
  assert.equal((await silentEnd).end, 'fin');
  assert.equal(told.length, 2);
  socket.destroy();
});

test('proxy out: the row of a backend overrides the setting, and a change is followed', async () => {
  const versions: string[] = [];
  const handler: ConnectionHandler = (socket) => {
    socket.once('data', (chunk: Buffer) => {
      let said = 'none';
      try {
        said = `v${readHeader(chunk)?.version}`;
      } catch {
        said = chunk.toString();
      }
      versions.push(said);
      socket.end(said);
    });
  };
  await using backend = await startBackend(handler);
  const apps = ['off', 'v1', 'v2', 'as-set'];
  await using proxy = await startProxy({
    backends: apps.map((app) => ({
      id: app,
      app,
      ...backend.row,
      ...(app === 'as-set' ? {} : { proxyProtocol: app }),
    })),
    settings: {
      PROXY_PROTOCOL_OUT: 'v1',
      LISTEN_ADDR: apps.map((app) => `${app}@127.0.0.1:0`).join(),
    },
  });
  const ask = async (index: number): Promise<string> => {
    const at = proxy.addresses[index];
    assert.ok(at);
    const socket = await openClient(at);
    const reading = readToEnd(socket);
    socket.write('plain');
    const { bytes } = await reading;
    socket.destroy();
    return bytes.toString();
  };
  assert.deepEqual(await Promise.all([0, 1, 2, 3].map(ask)), ['plain', 'v1', 'v2', 'v1']);
  await proxy.reroute("UPDATE backends SET proxy_protocol = 'v2' WHERE id = 'as-set'");
  await until('the change', async () => (await ask(3)) === 'v2');
  await proxy.reroute("UPDATE backends SET proxy_protocol = 'v3' WHERE id = 'v1'");
  const skipped = await proxy.untilLog('A row of routing.db is skipped');
  assert.deepEqual([skipped.id, skipped.column, skipped.value], ['v1', 'proxy_protocol', '"v3"']);
});

test('proxy out: after a failed connect the next backend gets one header of its own kind', async () => {
  const told: Told[] = [];
  await using good = await startBackend(echoBehind(told));
  const bad = { address: '127.0.0.1', region: 'sa', country: 'BR', proxyProtocol: 'v1' };
  await using proxy = await startProxy({
    backends: [
      { id: 'bad-1', ...bad, port: await refusedPort() },
      { id: 'bad-2', ...bad, port: await refusedPort() },
      { id: 'good', ...good.row, region: 'eu', country: 'DE' },
    ],
    settings: { PROXY_PROTOCOL_OUT: 'v2' },
  });
  for (let round = 0; round < 3; round++) {
    const { header, client } = await exchangeTold(proxy, told, `127.0.9.${round + 1}`);
    assert.deepEqual([header.version, header.client], [2, client]);
  }
  assert.ok(told.every(({ rest }) => rest.length === 0 || rest.toString() === 'hello'));
  await proxy.untilMetric('edge_retries_total', 6);
});

test('proxy out: what a trusted proxy said is passed on, with the country of its client', async () => {
  const told: Told[] = [];
  await using backend = await startBackend(echoBehind(told));
  await using proxy = await startOut(backend, {
    PROXY_PROTOCOL_IN: 'any',
    TRUSTED_PROXIES: '127.0.0.1',
    PROXY_PROTOCOL_OUT: 'v2',
    REGION: 'eu',
  });
  const cases = [
    { header: headerV1(end('200.160.2.3', 999)), client: '200.160.2.3 999', country: 'BR' },
    { header: headerV2(end('193.99.144.80')), client: '193.99.144.80 4711', country: 'DE' },
    {
      header: headerV2(end('2a02:2e0:3fe:1001:302::'), [], true),
      client: '2a02:2e0:3fe:1001:302:: 4711',
      country: 'DE',
    },
  ];
  for (const [index, { header, client, country }] of cases.entries()) {
    const socket = await openProxied(proxy.address, Buffer.concat([header, Buffer.from('rest')]));
    assert.equal((await readBytes(socket, 4)).toString(), 'rest');
    const got = told[index]?.header;
    assert.equal(got?.client, client);
    assert.equal(got.server, client.includes(':') ? '2001:db8:80::1 443' : '192.0.2.80 443');
    assert.equal(got.tlvs.get(TLV_COUNTRY), country);
    assert.equal(got.tlvs.get(TLV_POP), 'eu');
    assert.equal(got.checksumRight, true);
    socket.destroy();
  }
  // Nobody was named: the proxy is the client.
  const socket = await openProxied(proxy.address, Buffer.concat([LOCAL_V2, Buffer.from('rest')]));
  assert.equal((await readBytes(socket, 4)).toString(), 'rest');
  assert.equal(told.at(-1)?.header.client, `127.0.0.1 ${socket.localPort}`);
  assert.equal(told.at(-1)?.header.server, `127.0.0.1 ${proxy.address.port}`);
  socket.destroy();
});

test('proxy out: bulk both ways behind the header, with many sessions at once', async () => {
  const told: Told[] = [];
  await using backend = await startBackend(echoBehind(told));
  await using proxy = await startOut(backend, { PROXY_PROTOCOL_OUT: 'v2', WORKERS: 1 });
  const small = async (index: number): Promise<void> => {
    const socket = await openClient(proxy.address, { from: `127.3.${index >> 7}.${index & 127}` });
    const text = `client ${index}`;
    const reading = readBytes(socket, text.length);
    socket.write(text);
    assert.equal((await reading).toString(), text);
    socket.destroy();
  };
  const large = async (seed: number): Promise<void> => {
    const socket = await openClient(proxy.address);
    const reading = hashStream(socket, 5_000_000);
    assert.equal(await sendBulk(socket, 5_000_000, seed), (await reading).hash);
    socket.destroy();
  };
  // More than there are buffers to write headers into.
  const all = Array.from({ length: 400 }, (_, index) => small(index));
  await Promise.all([...all, ...[1, 2, 3].map(large)]);
  assert.equal(told.length, 403);
  const clients = new Set(told.map(({ header }) => header.client));
  assert.equal(clients.size, 403);
});

test('proxy out: health checks send a header that names nobody, where clients are served', async () => {
  const seen = new Map<string, Buffer>();
  const note = (id: string): ConnectionHandler => {
    return (socket) => {
      let bytes = Buffer.alloc(0);
      socket.on('data', (chunk: Buffer) => {
        bytes = Buffer.concat([bytes, chunk]);
        seen.set(id, bytes);
        const isHttp = bytes.includes('\r\n\r\n') && bytes.includes('GET');
        if (isHttp) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
      });
      socket.on('close', () => void (seen.has(id) || seen.set(id, bytes)));
    };
  };
  const ids = ['v1', 'v2', 'off', 'http', 'elsewhere'];
  await using stack = new AsyncDisposableStack();
  const start = async (id: string): Promise<BackendRow> => {
    return { id, ...stack.use(await startBackend(note(id))).row };
  };
  const { port } = await start('elsewhere');
  await using proxy = await startProxy({
    backends: [
      { ...(await start('v1')), proxyProtocol: 'v1' },
      await start('v2'),
      { ...(await start('off')), proxyProtocol: 'off' },
      { ...(await start('http')), checkType: 'http', checkPath: '/up' },
      { ...(await start('served')), id: 'elsewhere', checkPort: port },
    ],
    settings: {
      PROXY_PROTOCOL_OUT: 'v2',
      HEALTH_CHECK_ENABLED: 'true',
      HEALTH_CHECK_INTERVAL_SECS: 0.1,
    },
  });
  await until('all checks', () => ids.every((id) => seen.has(id)));
  for (const id of ids) await proxy.untilMetric('edge_backend_healthy', 1, { backend: id });
  assert.deepEqual(seen.get('v1'), UNKNOWN_V1);
  assert.deepEqual(seen.get('v2'), LOCAL_V2);
  assert.equal(seen.get('off')?.length, 0);
  assert.equal(seen.get('elsewhere')?.length, 0);
  await until('a whole request', () => seen.get('http')?.includes('\r\n\r\n', LOCAL_V2.length));
  const request = seen.get('http') as Buffer;
  assert.deepEqual(request.subarray(0, LOCAL_V2.length), LOCAL_V2);
  assert.match(request.subarray(LOCAL_V2.length).toString(), /^GET \/up HTTP\/1\.1\r\n/);
  assert.equal(seen.has('served'), false);
});

test('proxy out: without the setting and the column nothing is sent', async () => {
  await using backend = await startBackend((socket) => {
    socket.once('data', (chunk: Buffer) => socket.end(chunk));
  });
  await using proxy = await startOut(backend, {});
  const socket = await openClient(proxy.address);
  const reading = readToEnd(socket);
  socket.write('first');
  assert.equal((await reading).bytes.toString(), 'first');
  socket.destroy();
});
