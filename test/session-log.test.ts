// The session log of the real process: a line for each session with what happened in it, bounded floods, and an output
// that blocks.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  backendName,
  clientFate,
  echoOnce,
  exchange,
  openClient,
  readToEnd,
} from '../src/testing/clients.ts';
import { type LogLine, type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { echo, refusedPort, sayName, startBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

const ALL = { SESSION_LOG: 'all' };

/** Waits for so many lines of this event, and gives all of them. */
async function untilLines(
  proxy: ProxyProcess,
  event: string,
  count: number,
): Promise<readonly LogLine[]> {
  const found = (): LogLine[] => proxy.sessions.filter((line) => line.event === event);
  await until(`${count} lines ${event}`, () => found().length >= count);
  return found();
}

test('session log: off by default, nothing is written', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    readsOutput: true,
  });
  assert.equal(await backendName(proxy.address), 'a');
  await proxy.untilMetric('edge_session_end_total', 1, { reason: 'completed' });
  assert.equal((await proxy.metrics()).get('edge_log_lines_total'), 0);
  await proxy.stop();
  assert.deepEqual(proxy.sessions, []);
});

test('session log: a line says who, where, how much, how long, and why it ended', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'the backend', ...backend.row }],
    settings: { ...ALL, LISTEN_ADDR: '127.0.0.1:0,web@[::1]:0' },
    readsOutput: true,
  });
  const client = await openClient(proxy.address, { from: '127.4.5.6' });
  const port = client.localPort;
  await echoOnce(client, 'twelve bytes');
  client.end();
  await readToEnd(client);
  await exchange(proxy.addresses[1] ?? proxy.address, 'six');
  // Two workers: their lines come in any order.
  const lines = await untilLines(proxy, 'session_ended', 2);
  const line = lines.find(({ app }) => app === '*');
  const { time, connectMs, durationMs, session, ...fields } = line as LogLine;
  assert.deepEqual(fields, {
    level: 'info',
    message: 'Session ended',
    event: 'session_ended',
    reason: 'completed',
    client: '127.4.5.6',
    clientPort: port,
    app: '*',
    listener: `127.0.0.1:${proxy.address.port}`,
    backend: 'the backend',
    tier: 2,
    bytesUp: 12,
    bytesDown: 12,
    attempts: 1,
  });
  assert.match(String(session), /^[12]\.\d+\.\d+$/);
  assert.ok(Number(connectMs) >= 0 && Number(durationMs) >= Number(connectMs));
  assert.ok(Math.abs(Date.parse(String(time)) - Date.now()) < 60_000);
  const other = lines.find(({ app }) => app === 'web');
  assert.deepEqual([other?.client, other?.bytesUp], ['::1', 3]);
  await proxy.stop();
});

/** Lines by reason. */
function reasons(lines: readonly LogLine[], event: string): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of lines) {
    if (line.event === event) counts[String(line.reason)] = (counts[String(line.reason)] ?? 0) + 1;
  }
  return counts;
}

/** Sessions that complete, are reset, go idle, and rejections, 20 each. */
async function manyEnds(proxy: ProxyProcess): Promise<void> {
  const { address } = proxy;
  for (let round = 0; round < 20; round++) {
    await exchange(address, 'hello', { from: `127.4.0.${round + 1}` });
    const leaver = await openClient(address, { from: `127.4.1.${round + 1}` });
    await echoOnce(leaver, 'hello');
    leaver.resetAndDestroy();
    const first = await openClient(address, { from: `127.4.2.${round + 1}` });
    await echoOnce(first, 'hello');
    await clientFate(address, { from: `127.4.2.${round + 1}` });
    const silent = openClient(address, { from: `127.4.3.${round + 1}` });
    void silent.then((socket) => readToEnd(socket));
  }
}

test('session log: there is one line per session and per rejection, whatever became of it', async () => {
  await using backend = await startBackend(echo);
  const gone = await refusedPort();
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...backend.row },
      { id: 'gone', address: '127.0.0.1', port: gone, app: 'gone' },
    ],
    settings: {
      ...ALL,
      LISTEN_ADDR: 'web@127.0.0.1:0,gone@127.0.0.1:0,none@127.0.0.1:0',
      MAX_CONNECTIONS_PER_CLIENT: 1,
      IDLE_TIMEOUT_SECS: 0.6,
      SHUTDOWN_TIMEOUT_SECS: 0,
    },
    readsOutput: true,
  });
  await manyEnds(proxy);
  for (const listener of [1, 2]) {
    for (let round = 0; round < 5; round++) {
      await clientFate(proxy.addresses[listener] ?? proxy.address, {
        from: `127.4.4.${round + 1}`,
      });
    }
  }
  await proxy.untilMetric('edge_connections_current', 0);
  const open = await openClient(proxy.address, { from: '127.4.9.9' });
  await echoOnce(open, 'cut by the end');
  const fate = readToEnd(open);
  const metrics = await proxy.metrics();
  await proxy.stop();
  await fate;
  const ended = reasons(proxy.sessions, 'session_ended');
  const { idle_timeout, connect_failed } = ended;
  assert.ok(Number(idle_timeout) >= 20 && connect_failed === 5, JSON.stringify(ended));
  assert.deepEqual(ended, { ...metrics.nonZero('edge_session_end_total', 'reason'), shutdown: 1 });
  const rejected = reasons(proxy.sessions, 'connection_rejected');
  assert.deepEqual(rejected, metrics.nonZero('edge_rejected_total', 'reason'));
  assert.deepEqual(rejected, { client_sessions: 20, no_backend: 5 });
  const failed = proxy.sessions.filter(({ reason }) => reason === 'connect_failed');
  for (const { backend: tried, attempts, connectMs } of failed) {
    assert.deepEqual([tried, attempts, connectMs], ['gone', 1, undefined]);
  }
  const turnedAway = proxy.sessions.find(({ reason }) => reason === 'client_sessions');
  assert.match(String(turnedAway?.client), /^127\.4\.2\.\d+$/);
  assert.equal(turnedAway?.app, 'web');
  const sum = proxy.sessions.reduce((bytes, line) => bytes + Number(line.bytesUp ?? 0), 0);
  assert.equal(sum, 20 * 5 * 3 + 'cut by the end'.length);
});

test('session log: a sample has all that end badly, and of the others the share asked for', async () => {
  await using backend = await startBackend(echo);
  for (const [share, low, high] of [
    [0, 0, 0],
    [0.5, 50, 150],
  ] as const) {
    await using proxy = await startProxy({
      backends: [{ id: 'a', ...backend.row }],
      settings: { SESSION_LOG: 'sample', SESSION_LOG_SAMPLE: share },
      readsOutput: true,
    });
    for (let round = 0; round < 200; round++) await exchange(proxy.address, 'hello');
    for (let round = 0; round < 10; round++) {
      const leaver = await openClient(proxy.address);
      await echoOnce(leaver, 'hello');
      leaver.resetAndDestroy();
    }
    await proxy.untilMetric('edge_session_end_total', 10, { reason: 'client_reset' });
    await proxy.stop();
    const { completed = 0, client_reset } = reasons(proxy.sessions, 'session_ended');
    assert.equal(client_reset, 10);
    assert.ok(completed >= low && completed <= high, `${completed} of 200 at ${share}`);
  }
});

test('session log: a session that lasts has a line from time to time, with what it moved by then', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { ...ALL, SESSION_LOG_INTERVAL_SECS: 0.2 },
    readsOutput: true,
  });
  await exchange(proxy.address, 'a short one');
  const client = await openClient(proxy.address, { from: '127.4.5.7' });
  await echoOnce(client, 'first');
  await untilLines(proxy, 'session_lasting', 1);
  await echoOnce(client, 'second');
  await until('a line with more bytes', () =>
    proxy.sessions.some(({ event, bytesUp }) => event === 'session_lasting' && bytesUp === 11),
  );
  client.end();
  await readToEnd(client);
  await untilLines(proxy, 'session_ended', 2);
  const lasting = proxy.sessions.filter(({ event }) => event === 'session_lasting');
  const end = proxy.sessions.at(-1);
  for (const { session, client: address, reason, backend: id } of lasting) {
    assert.deepEqual([session, address, reason, id], [end?.session, '127.4.5.7', undefined, 'a']);
  }
  assert.equal(lasting[0]?.bytesUp, 5);
  await proxy.stop();
});

test('session log: a flood of rejections is a few lines and a sum', async () => {
  await using proxy = await startProxy({
    backends: [],
    settings: { ...ALL, WORKERS: 1 },
    readsOutput: true,
  });
  const count = 600;
  for (let round = 0; round < count / 30; round++) {
    await Promise.all(Array.from({ length: 30 }, () => clientFate(proxy.address)));
  }
  await proxy.untilMetric('edge_rejected_total', count, { reason: 'no_backend' });
  await proxy.stop();
  const single = reasons(proxy.sessions, 'connection_rejected').no_backend ?? 0;
  const sums = proxy.sessions.filter(({ event }) => event === 'connections_rejected');
  const summed = sums.reduce((sum, line) => sum + Number(line.count), 0);
  assert.equal(single + summed, count);
  assert.ok(single >= 20 && single < count / 2, `${single} lines`);
});

/** A proxy whose standard output is a pipe that nobody reads yet. */
async function throughPipe(
  backend: { address: string; port: number },
  run: (proxy: ProxyProcess, path: string) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
  const path = join(directory, 'pipe');
  assert.equal(spawnSync('mkfifo', [path]).status, 0);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    await using proxy = await startProxy({
      backends: [{ id: 'a', ...backend }],
      settings: { ...ALL, WORKERS: 1 },
      wrapper: ['sh', '-c', `exec "$@" > ${path}`, 'sh'],
    });
    await run(proxy, path);
  } finally {
    closeSync(reader);
    rmSync(directory, { recursive: true });
  }
}

test('session log: an output that blocks holds nobody up; lines are dropped and counted, and flow again', async () => {
  await using backend = await startBackend((socket) => void socket.end());
  await throughPipe(backend.row, async (proxy, path) => {
    // A pipe holds 64 KiB, and what waits for it is bounded by 1 MiB: 5,000 lines are more.
    let visits = 0;
    const visit = async (): Promise<void> => {
      for (let round = 0; round < 250; round++) await clientFate(proxy.address);
      visits += 250;
    };
    await until(
      'lines to be dropped',
      async () => {
        await Promise.all(Array.from({ length: 8 }, visit));
        const metrics = await proxy.metrics();
        return metrics.get('edge_log_dropped_total', { cause: 'output' }) > 0;
      },
      60_000,
    );
    const metrics = await proxy.untilMetric('edge_connections_current', 0);
    assert.equal(metrics.get('edge_session_end_total'), visits);
    await proxy.untilLog('Lines of the session log were dropped');
    // Somebody reads again.
    const cat = spawn('cat', [path], { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    cat.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    await proxy.untilMetric('edge_connections_current', 0);
    const lines = (): number => text.split('\n').length - 1;
    const written = (): Promise<number> =>
      proxy.metrics().then((now) => {
        const dropped = now.get('edge_log_dropped_total', { cause: 'output' });
        return now.get('edge_session_end_total') - dropped;
      });
    await until('the lines that were kept', async () => lines() === (await written()));
    await clientFate(proxy.address);
    await until('a new line', async () => lines() === (await written()));
    for (const line of text.split('\n').slice(0, -1)) JSON.parse(line);
    assert.equal((await proxy.stop()).code, 0);
    cat.kill();
  });
});

test('session log: a reader that never reads does not keep the program from ending', async () => {
  await using backend = await startBackend((socket) => void socket.end());
  await throughPipe(backend.row, async (proxy) => {
    for (let round = 0; round < 400; round++) await clientFate(proxy.address);
    assert.deepEqual(await proxy.stop(), { code: 0, signal: null });
  });
});
