// The life of the process: drain, deadline, second signal, reload by signal, and a worker that dies.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { raiseDescriptorLimit } from '../src/sys/rlimit.ts';
import { backendName, echoOnce, exchange, openClient, readToEnd } from '../src/testing/clients.ts';
import {
  connectionsBalance,
  NOT_PORTABLE,
  type ProxyOptions,
  type ProxyProcess,
  startProxy,
} from '../src/testing/proxy-process.ts';
import { changeRouting } from '../src/testing/routing-file.ts';
import { echo, hold, sayName, startBackend } from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

/** Whether a new connection is refused or reset before anything is said. */
async function isClosed(proxy: ProxyProcess): Promise<boolean> {
  try {
    return (await exchange(proxy.address, 'anyone')).text === '';
  } catch {
    return true;
  }
}

/** Whether nobody listens; a connection that still comes about is dropped. */
async function isRefused(proxy: ProxyProcess): Promise<boolean> {
  try {
    (await openClient(proxy.address)).destroy();
    return false;
  } catch {
    return true;
  }
}

test('drain: after SIGTERM open sessions finish, new ones are refused, then the process ends with 0', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  const clients = await Promise.all(Array.from({ length: 8 }, () => openClient(proxy.address)));
  for (const client of clients) await echoOnce(client, 'before');
  proxy.signal('SIGTERM');
  assert.equal((await proxy.untilLog('Draining')).open, 8);
  assert.equal((await proxy.page('/readyz')).status, 503);
  assert.equal((await proxy.page('/healthz')).status, 200);
  await until('new connections to be refused', () => isClosed(proxy));
  for (const client of clients) {
    await echoOnce(client, 'while draining');
    const reading = readToEnd(client);
    client.end('last words');
    assert.deepEqual(await reading, { bytes: Buffer.from('last words'), end: 'fin' });
  }
  assert.deepEqual(await within('the end', proxy.exited), { code: 0, signal: null });
  assert.equal(proxy.log('Stopped')?.sessionsCut, 0);
});

test('drain: a session that is still bulk at SIGTERM arrives whole', async () => {
  await using backend = await startBackend((socket) => {
    socket.end(Buffer.alloc(30_000_000, 'bulk'));
    socket.resume();
  });
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  const client = await openClient(proxy.address);
  await backend.next(0);
  proxy.signal('SIGTERM');
  await proxy.untilLog('Draining');
  client.end();
  const { bytes, end } = await readToEnd(client);
  assert.deepEqual({ bytes: bytes.length, end }, { bytes: 30_000_000, end: 'fin' });
  assert.equal((await within('the end', proxy.exited)).code, 0);
});

test('drain: without sessions the process ends at once, by SIGTERM and by SIGINT', async () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    await using proxy = await startProxy({ backends: [] });
    assert.deepEqual(await proxy.stop(signal), { code: 0, signal: null });
  }
});

test('drain: the deadline cuts what is open by RST and the log says how many', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { SHUTDOWN_TIMEOUT_SECS: 0.3 },
  });
  const clients = await Promise.all(Array.from({ length: 5 }, () => openClient(proxy.address)));
  for (const client of clients) await echoOnce(client, 'hello');
  const fates = clients.map((client) => readToEnd(client));
  assert.deepEqual(await proxy.stop(), { code: 0, signal: null });
  assert.equal(proxy.log('Stopped')?.sessionsCut, 5);
  for (const fate of fates) assert.equal((await fate).end, 'ECONNRESET');
  await until('the backend to see them cut', () => backend.sockets.size === 0);
  assert.deepEqual(backend.errors, Array(5).fill('ECONNRESET'));
});

test('drain: connections that wait in the accept queue are served, not reset', {
  skip: NOT_PORTABLE,
}, async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { MAX_CONNECTIONS: 2, WORKERS: 2 },
  });
  const held = await Promise.all([openClient(proxy.address), openClient(proxy.address)]);
  for (const client of held) await echoOnce(client, 'held');
  // At the maximum: the kernel completes these handshakes, and nobody accepts.
  const waiting = await Promise.all(Array.from({ length: 60 }, () => openClient(proxy.address)));
  const answers = waiting.map((client) => {
    const reading = readToEnd(client);
    client.end('I was there before');
    return reading;
  });
  proxy.signal('SIGTERM');
  await proxy.untilLog('Draining');
  await until('the listener to be closed', () => isRefused(proxy));
  for (const client of held) client.end();
  for (const answer of answers) {
    const { bytes, end } = await answer;
    assert.deepEqual([bytes.toString(), end], ['I was there before', 'fin']);
  }
  assert.deepEqual(await within('the proxy to end', proxy.exited), { code: 0, signal: null });
});

test('drain: a second signal ends at once, whatever the deadline', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { SHUTDOWN_TIMEOUT_SECS: 3600 },
  });
  const client = await openClient(proxy.address);
  await echoOnce(client, 'hello');
  const fate = readToEnd(client);
  proxy.signal('SIGTERM');
  await proxy.untilLog('Draining');
  await echoOnce(client, 'still served').catch(() => {});
  assert.equal((await proxy.stop('SIGTERM')).code, 0);
  assert.equal((await fate).end, 'ECONNRESET');
  assert.equal(proxy.log('Stopped')?.sessionsCut, 1);
});

test('drain: sessions that only wait for their backend are cut at the deadline, too', async () => {
  await using backend = await startBackend(hold);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { SHUTDOWN_TIMEOUT_SECS: 0 },
  });
  const client = await openClient(proxy.address);
  client.end('half-closed');
  await backend.next(0);
  assert.equal((await proxy.stop()).code, 0);
  assert.equal(proxy.log('Stopped')?.sessionsCut, 1);
});

test('SIGHUP: reads routing.db again and touches no session', async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using held = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'held', ...held.row }],
    settings: { DB_RELOAD_SECS: 3600 },
  });
  const client = await openClient(proxy.address);
  await echoOnce(client, 'before');
  await proxy.reroute([{ id: 'a', ...a.row }]);
  for (let round = 0; round < 5; round++) {
    const from = proxy.logs.length;
    const [id, row] = round % 2 === 0 ? ['b', b.row] : ['a', a.row];
    changeRouting(proxy.dbPath, `UPDATE backends SET id = '${id}', port = ${row.port}`);
    proxy.signal('SIGHUP');
    await proxy.untilLog('Reloading on SIGHUP', from);
    await until('the new routing', async () => (await backendName(proxy.address)) === id);
    await echoOnce(client, `round ${round}`);
  }
  assert.equal(proxy.exit, null);
  client.destroy();
});

const CRASHABLE: Partial<ProxyOptions> = {
  wrapper: ['env', 'EDGEPROXY_FAULT_INJECTION=1'],
};

interface Load {
  readonly clients: Socket[];
  readonly fates: Promise<string>[];
}

/** Held sessions, spread over the workers by the kernel, and how each of them ends. */
async function openLoad(proxy: ProxyProcess, count: number): Promise<Load> {
  const clients = await Promise.all(
    Array.from({ length: count }, (_, index) =>
      openClient(proxy.address, { from: `127.5.0.${index + 1}` }),
    ),
  );
  for (const client of clients) await echoOnce(client, 'hello');
  const fates = clients.map(
    (client) =>
      new Promise<string>((resolve) => {
        client.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''));
        client.once('end', () => resolve('fin'));
      }),
  );
  return { clients, fates };
}

test('worker death: its sessions are reset, the others go on, it is replaced, nothing leaks', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    ...CRASHABLE,
    backends: [{ id: 'a', ...backend.row, hardLimit: 60 }],
    settings: { WORKERS: 2 },
  });
  const warm = await openLoad(proxy, 20);
  for (const client of warm.clients) client.destroy();
  await proxy.untilMetric('edge_connections_current', 0);
  const idle = await proxy.settledDescriptors();
  for (let round = 1; round <= 3; round++) {
    const from = proxy.logs.length;
    const { clients, fates } = await openLoad(proxy, 40);
    proxy.signal('SIGUSR2');
    const report = await proxy.untilLog('A worker died and is replaced', from);
    await proxy.untilLog('A worker was replaced', from);
    const lost = report.sessionsLost as number;
    assert.ok(lost > 0 && lost < 40, `${lost} sessions were lost`);
    const ended = new Set<Socket>();
    fates.forEach((fate, index) => void fate.then(() => ended.add(clients[index] as Socket)));
    await until('the lost sessions to be reset', () => ended.size === lost);
    for (const client of clients) if (!ended.has(client)) await echoOnce(client, 'alive');
    const metrics = await proxy.metrics();
    assert.equal(metrics.get('edge_connections_current'), 40 - lost);
    assert.equal(metrics.get('edge_backend_connections_current', { backend: 'a' }), 40 - lost);
    const { accepted, accounted } = connectionsBalance(metrics);
    assert.equal(accepted, accounted);
    // The replacement accepts: the kernel spreads new clients over both workers.
    const again = await openLoad(proxy, 20 + lost);
    for (const client of [...clients, ...again.clients]) client.destroy();
    await proxy.untilMetric('edge_connections_current', 0);
    await proxy.untilMetric('edge_backend_connections_current', 0, { backend: 'a' });
  }
  await proxy.untilDescriptors(idle);
  assert.deepEqual(await proxy.stop(), { code: 0, signal: null });
});

test('worker death: one that keeps dying is replaced ever later, and a stop meanwhile is heeded', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    ...CRASHABLE,
    backends: [{ id: 'a', ...backend.row }],
    settings: { WORKERS: 1 },
  });
  const delays = [];
  for (let round = 0; round < 8; round++) {
    const from = proxy.logs.length;
    proxy.signal('SIGUSR2');
    delays.push((await proxy.untilLog('A worker died and is replaced', from)).restartInMs);
    if (round === 7) break;
    await proxy.untilLog('A worker was replaced', from);
    assert.equal(await backendName(proxy.address), 'a');
  }
  assert.deepEqual(delays, [0, 10, 20, 40, 80, 160, 320, 640]);
  // Nobody is there to drain, nor to say that all is drained.
  assert.deepEqual(await proxy.stop(), { code: 0, signal: null });
});

test('worker death: while its replacement cannot start the others go on, and it is tried again', {
  skip: NOT_PORTABLE,
}, async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    ...CRASHABLE,
    backends: [{ id: 'a', ...backend.row }],
    settings: { WORKERS: 2 },
  });
  const { clients, fates } = await openLoad(proxy, 30);
  const limit = (descriptors: string): void => {
    const result = spawnSync('prlimit', [`--pid=${proxy.pid}`, `--nofile=${descriptors}:`]);
    assert.equal(result.status, 0, String(result.stderr));
  };
  const { soft } = raiseDescriptorLimit();
  // Not even a ring can be opened.
  limit('3');
  proxy.signal('SIGUSR2');
  const { sessionsLost } = await proxy.untilLog('A worker died and is replaced');
  await proxy.untilLog('A worker cannot start');
  const ended = new Set<number>();
  fates.forEach((fate, index) => void fate.then(() => ended.add(index)));
  await until('the lost sessions to be reset', () => ended.size === sessionsLost);
  for (const [index, client] of clients.entries()) {
    if (!ended.has(index)) await echoOnce(client, 'alive');
  }
  limit(String(soft));
  await proxy.untilLog('A worker was replaced');
  for (const client of clients) client.destroy();
  const again = await openLoad(proxy, 30);
  for (const client of again.clients) client.destroy();
  assert.deepEqual(await proxy.stop(), { code: 0, signal: null });
});

test('worker death: with every kind of session under way nothing is left behind', async () => {
  await using backend = await startBackend((socket, self) => {
    if (self.connections % 3 === 0) socket.resetAndDestroy();
    else if (self.connections % 3 === 1) socket.end(Buffer.alloc(2_000_000, 'x'));
    else echo(socket, self);
  });
  await using proxy = await startProxy({
    ...CRASHABLE,
    backends: [{ id: 'a', ...backend.row }],
    settings: { WORKERS: 1 },
  });
  const idle = await proxy.settledDescriptors();
  for (let round = 0; round < 4; round++) {
    const from = proxy.logs.length;
    const visits = Array.from({ length: 60 }, async (_, index) => {
      const client = await openClient(proxy.address).catch(() => null);
      client?.write(Buffer.alloc(100_000, index));
      await (client ? readToEnd(client) : null);
      client?.destroy();
    });
    proxy.signal('SIGUSR2');
    await proxy.untilLog('A worker was replaced', from);
    // Echo sessions stay open on both sides until somebody ends them.
    const done = Promise.all(visits);
    let over = false;
    void done.then(() => {
      over = true;
    });
    await until('the visits to end', () => {
      for (const socket of backend.sockets) socket.end();
      return over;
    });
    await proxy.untilMetric('edge_connections_current', 0);
  }
  const metrics = await proxy.untilMetric('edge_backend_connections_current', 0);
  const { accepted, accounted } = connectionsBalance(metrics);
  assert.equal(accepted, accounted);
  // What may be more: a worker keeps up to 16 empty pipes, two ends each, for the next bulk flows.
  const open = await proxy.settledDescriptors();
  assert.deepEqual({ ...open, pipe: 0 }, { ...idle, pipe: 0 });
  assert.ok((open.pipe ?? 0) <= (idle.pipe ?? 0) + 32, `${open.pipe} pipe ends are open`);
});
