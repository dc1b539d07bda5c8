// Health checks through the real process: which backends they take out and bring back, what they leave alone, how many
// connections they make. Intervals are short, and every test waits for what the proxy says, never for a time.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  backendName,
  clientFate,
  echoOnce,
  openClient,
  readBytes,
} from '../src/testing/clients.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { changeRouting } from '../src/testing/routing-file.ts';
import {
  type ConnectionHandler,
  openBlackhole,
  refusedPort,
  sayName,
  sink,
  startBackend,
} from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

const FAST = { HEALTH_CHECK_ENABLED: 'true', HEALTH_CHECK_INTERVAL_SECS: 0.1 };
const HTTP = {
  ...FAST,
  HEALTH_CHECK_TYPE: 'http',
  HEALTH_CHECK_TIMEOUT_SECS: 1,
  HEALTH_CHECK_PATH: '/up',
};
const DOWN = 'A backend is unhealthy';
const UP = 'A backend is healthy again';

/** Says `name`, then sends back what it gets. */
function nameAndEcho(name: string): ConnectionHandler {
  return (socket) => {
    socket.write(name);
    socket.pipe(socket);
  };
}

/** Answers each request with what `respond` does, given its first line. */
function http(respond: (socket: Socket, requestLine: string) => void): ConnectionHandler {
  return (socket) => {
    socket.once('data', (chunk) => respond(socket, chunk.toString().split('\r\n', 1)[0] as string));
  };
}

/** Sends a text byte by byte. */
async function inPieces(socket: Socket, text: string): Promise<void> {
  socket.setNoDelay();
  for (const byte of text) {
    if (socket.writable) socket.write(byte);
    await delay(1);
  }
}

const status = (line: string): ConnectionHandler =>
  http((socket) => socket.end(`HTTP/1.1 ${line}\r\nContent-Length: 2\r\n\r\nok`));

function healthOf(proxy: ProxyProcess, id: string, value: 0 | 1) {
  return proxy.untilMetric('edge_backend_healthy', value, { backend: id });
}

async function untilChecked(proxy: ProxyProcess, id: string, result: string, count: number) {
  await until(`${count} checks of ${id} with result ${result}`, async () => {
    const labels = { backend: id, result };
    return (await proxy.metrics()).get('edge_health_checks_total', labels) >= count;
  });
}

test('health: a dead backend gets no new session, keeps its open ones, and is used again once back', async () => {
  await using b = await startBackend(nameAndEcho('b'));
  await using a = await startBackend(nameAndEcho('a'));
  const { row } = a;
  await using proxy = await startProxy({
    // b is of another region: a client gets it only while a is not to be had.
    backends: [
      { id: 'a', ...row },
      { id: 'b', region: 'eu', ...b.row },
    ],
    // Without retries a client that is sent to a dead backend gets a reset.
    settings: { ...FAST, CONNECT_RETRIES: 0 },
  });
  await untilChecked(proxy, 'a', 'success', 1);
  const file = readFileSync(proxy.dbPath);
  const session = await openClient(proxy.address);
  assert.equal((await readBytes(session, 1)).toString(), 'a');

  // No longer listening; its connections stay.
  a.server.close();
  await healthOf(proxy, 'a', 0);
  assert.equal(await backendName(proxy.address), 'b', 'a bound client too');
  assert.equal(await backendName(proxy.address, { from: '127.8.0.1' }), 'b');
  await echoOnce(session, 'still there');

  await using again = await startBackend(nameAndEcho('a'), row.address, row.port);
  await healthOf(proxy, 'a', 1);
  assert.equal(await backendName(proxy.address, { from: '127.8.0.2' }), 'a');
  assert.ok(again.connections > 0);
  await echoOnce(session, 'to the end');
  session.destroy();

  const changes = proxy.logs.filter(({ message }) => message === DOWN || message === UP);
  assert.deepEqual(
    changes.map(({ level, backend, from, to, reason }) => [level, backend, from, to, reason]),
    [
      ['warn', 'a', 'healthy', 'unhealthy', 'connect refused'],
      ['info', 'a', 'unhealthy', 'healthy', 'connected'],
    ],
  );
  assert.deepEqual(readFileSync(proxy.dbPath), file, 'routing.db is not written to');
  const metrics = await proxy.metrics();
  assert.deepEqual(metrics.nonZero('edge_rejected_total', 'reason'), {});
  for (const name of ['edge_backend_healthy', 'edge_health_checks_total']) {
    assert.ok(metrics.documented.has(name), name);
  }
});

/** What a server does, and why that counts as failed; '' where it does not. */
const ANSWERS: Record<string, [handler: ConnectionHandler, reason: string]> = {
  ok: [status('200 OK'), ''],
  redirect: [status('302 Found'), ''],
  missing: [status('404 Not Found'), 'HTTP 404'],
  broken: [status('503 Service Unavailable'), 'HTTP 503'],
  slow: [http((socket) => void delay(50).then(() => socket.write('HTTP/1.0 200\r\n'))), ''],
  pieces: [http((socket) => void inPieces(socket, 'HTTP/1.1 200 OK\r\n')), ''],
  endless: [http((socket) => socket.write(`HTTP/1.1 200 OK\r\n\r\n${'x'.repeat(3e6)}`)), ''],
  garbage: [(socket) => socket.write('\x7f\0SSH-2.0'), 'the answer is not HTTP'],
  closing: [http((socket) => socket.end()), 'closed without an answer'],
  resetting: [http((socket) => socket.resetAndDestroy()), 'connection reset'],
  silent: [sink, 'timeout after 1 s waiting for the answer'],
};

test('health: HTTP checks go by the status, whatever else a server does', async () => {
  await using stack = new AsyncDisposableStack();
  const rows = await Promise.all(
    Object.entries(ANSWERS).map(async ([id, [handler]]) => {
      return { id, ...stack.use(await startBackend(handler)).row };
    }),
  );
  const broken = rows.find(({ id }) => id === 'broken')?.port as number;
  const silent = rows.find(({ id }) => id === 'silent')?.port as number;
  const paths = stack.use(
    await startBackend(
      http((socket, line) => {
        const found = line === 'GET /special?a=1 HTTP/1.1' || line === 'GET /up HTTP/1.1';
        socket.end(`HTTP/1.1 ${found ? 200 : 404} \r\n\r\n`);
      }),
    ),
  );
  const six = stack.use(await startBackend(status('204 No Content'), '::1'));
  const closed = await refusedPort();
  const hole = stack.use(await openBlackhole());
  await using proxy = await startProxy({
    backends: [
      ...rows,
      { id: 'expected', port: broken, checkExpect: '200,500-599' },
      { id: 'other-port', port: closed, checkPort: paths.port },
      { id: 'other-path', ...paths.row, checkPath: '/special?a=1' },
      { id: 'wrong-path', ...paths.row, checkPath: '/other' },
      { id: 'as-tcp', port: silent, checkType: 'tcp' },
      { id: 'unchecked', port: closed, checkType: 'none' },
      { id: 'refused', port: closed },
      { id: 'gone', port: hole.port },
      { id: 'six', ...six.row },
      { id: 'six-refused', address: '::1', port: closed },
      { id: 'wrong-columns', port: silent, checkType: 'tcp', checkExpect: 'all' },
    ],
    settings: HTTP,
  });
  const reasons: Record<string, string> = {
    ...Object.fromEntries(Object.entries(ANSWERS).map(([id, [, reason]]) => [id, reason])),
    expected: '',
    'other-port': '',
    'other-path': '',
    'wrong-path': 'HTTP 404',
    'as-tcp': '',
    refused: 'connect refused',
    gone: 'timeout after 1 s',
    six: '',
    'six-refused': 'connect refused',
    // A wrong column: the check of the settings.
    'wrong-columns': 'timeout after 1 s waiting for the answer',
  };
  for (const [id, reason] of Object.entries(reasons)) {
    await untilChecked(proxy, id, reason === '' ? 'success' : 'failure', 4);
    await healthOf(proxy, id, reason === '' ? 1 : 0);
    const said = proxy.logs.filter(({ message, backend }) => message === DOWN && backend === id);
    assert.deepEqual(
      said.map((line) => line.reason),
      reason === '' ? [] : [reason],
      id,
    );
  }
  const { samples } = await proxy.metrics();
  assert.ok(samples.every(({ labels }) => !labels.result || labels.backend !== 'unchecked'));
  const ignored = proxy.log('The check columns of a row of routing.db are ignored');
  assert.deepEqual(
    [ignored?.id, ignored?.column, ignored?.value],
    ['wrong-columns', 'check_expect', '"all"'],
  );
});

test('health: healthy = 0 in routing.db wins over checks that succeed', async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row, healthy: 0 },
      { id: 'b', region: 'eu', ...b.row },
    ],
    settings: FAST,
  });
  await untilChecked(proxy, 'a', 'success', 5);
  assert.equal(await backendName(proxy.address), 'b');
  await proxy.reroute("UPDATE backends SET healthy = 1 WHERE id = 'a'");
  await until('a to be used', async () => {
    return (await backendName(proxy.address, { from: '127.8.1.1' })) === 'a';
  });
});

test('health: a state survives a reload, and a changed address begins anew', async () => {
  await using a = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', port: await refusedPort() }],
    settings: { ...FAST, HEALTH_HEALTHY_THRESHOLD: 1000 },
  });
  await healthOf(proxy, 'a', 0);
  assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  const metrics = await proxy.metrics();
  assert.deepEqual(metrics.nonZero('edge_rejected_total', 'reason'), { no_backend: 1 });
  await proxy.reroute('UPDATE backends SET weight = 3');
  assert.equal((await proxy.metrics()).get('edge_backend_healthy', { backend: 'a' }), 0);
  // A thousand checks would have to succeed to bring the old address back.
  await proxy.reroute(`UPDATE backends SET port = ${a.port}`);
  await healthOf(proxy, 'a', 1);
  assert.equal(await backendName(proxy.address), 'a');
});

test('health: changed check columns are followed, without a new routing version', async () => {
  await using app = await startBackend(sayName('a'));
  await using page = await startBackend(status('200 OK'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...app.row, checkPath: '/up' }],
    settings: FAST,
  });
  await healthOf(proxy, 'a', 0);
  const version = (await proxy.metrics()).get('edge_routing_version');
  changeRouting(proxy.dbPath, `UPDATE backends SET check_port = ${page.port}`);
  await healthOf(proxy, 'a', 1);
  assert.equal((await proxy.metrics()).get('edge_routing_version'), version);
  changeRouting(proxy.dbPath, `UPDATE backends SET check_port = ${await refusedPort()}`);
  await healthOf(proxy, 'a', 0);
  changeRouting(proxy.dbPath, "UPDATE backends SET check_type = 'none'");
  await until('the gate to open', async () => (await backendName(proxy.address)) === 'a');
});

test('health: 10,000 backends are all checked in turn', async () => {
  await using backend = await startBackend(sink, '0.0.0.0');
  const seen = new Set<string>();
  backend.handler = (socket) => {
    seen.add(socket.localAddress ?? '');
    backend.all.length = 0;
    socket.resume();
  };
  const rows = Array.from({ length: 10_000 }, (_, at) => {
    return { id: `b${at}`, address: `127.9.${at >> 8}.${at & 255}`, port: backend.port };
  });
  await using proxy = await startProxy({
    backends: rows,
    settings: { HEALTH_CHECK_ENABLED: 'true', HEALTH_CHECK_INTERVAL_SECS: 2 },
  });
  let peak = 0;
  await until('every backend to be checked', () => {
    peak = Math.max(peak, proxy.descriptors().socket ?? 0);
    return seen.size === rows.length;
  });
  assert.ok(peak < 500, `${peak} sockets at once`);
  const metrics = await proxy.metrics();
  assert.equal(metrics.get('edge_health_checks_total', { result: 'failure' }), 0);
  assert.equal(metrics.get('edge_backend_healthy'), 10_000);
});

test('health: dead backends by the thousand take only so many sockets, and stop nothing', async () => {
  await using hole = await openBlackhole();
  await using good = await startBackend(sayName('good'));
  const dead = Array.from({ length: 600 }, (_, at) => {
    return { id: `d${at}`, app: 'dead', port: hole.port };
  });
  await using proxy = await startProxy({
    backends: [{ id: 'good', ...good.row }, ...dead],
    settings: {
      ...FAST,
      LISTEN_ADDR: 'web@127.0.0.1:0',
      HEALTH_CHECK_TIMEOUT_SECS: 0.3,
      HEALTH_UNHEALTHY_THRESHOLD: 1,
    },
    // A sixteenth of this for checks: 64.
    wrapper: ['prlimit', '--nofile=1024', '--'],
  });
  const others = 40;
  let peak = 0;
  await until(
    'all dead backends to be gated',
    async () => {
      peak = Math.max(peak, proxy.descriptors().socket ?? 0);
      assert.equal(await backendName(proxy.address), 'good');
      return proxy.logs.filter(({ message }) => message === DOWN).length === dead.length;
    },
    60_000,
  );
  assert.ok(peak >= 64, `the bound was not reached: ${peak}`);
  assert.ok(peak <= 64 + others, `${peak} sockets at once`);
  const end = await proxy.stop();
  assert.deepEqual(end, { code: 0, signal: null });
});

test('health: checks leave no socket behind', async () => {
  await using ok = await startBackend(status('200 OK'));
  await using silent = await startBackend(sink);
  await using proxy = await startProxy({
    backends: [
      { id: 'ok', ...ok.row },
      { id: 'silent', ...silent.row },
      { id: 'refused', port: await refusedPort() },
    ],
    settings: { ...FAST, HEALTH_CHECK_TYPE: 'http', HEALTH_CHECK_TIMEOUT_SECS: 0.1 },
  });
  for (const id of ['silent', 'refused']) await untilChecked(proxy, id, 'failure', 10);
  await untilChecked(proxy, 'ok', 'success', 10);
  changeRouting(proxy.dbPath, "UPDATE backends SET check_type = 'none'");
  await until('all connections at the backends to end', () => {
    return ok.sockets.size + silent.sockets.size === 0;
  });
  const { errors } = ok;
  assert.ok(errors.length > 0 && errors.every((error) => error === 'ECONNRESET'), `${errors}`);
  const quiet = await proxy.settledDescriptors();
  changeRouting(proxy.dbPath, "UPDATE backends SET check_type = NULL WHERE id = 'ok'");
  await untilChecked(proxy, 'ok', 'success', 20);
  changeRouting(proxy.dbPath, "UPDATE backends SET check_type = 'none'");
  await proxy.untilDescriptors(quiet);
});

test('health: switched off, nothing is checked and nothing is gated', async () => {
  await using a = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row },
      { id: 'b', region: 'eu', port: await refusedPort() },
    ],
    settings: { ...FAST, HEALTH_CHECK_ENABLED: 'false' },
  });
  // Time in which six checks of each would have run.
  await delay(600);
  assert.equal(a.connections, 0);
  assert.equal(await backendName(proxy.address), 'a');
  const { samples } = await proxy.metrics();
  assert.deepEqual(
    samples.filter(({ name }) => name.startsWith('edge_backend_healthy')),
    [],
  );
  assert.equal(proxy.log(DOWN), undefined);
});
