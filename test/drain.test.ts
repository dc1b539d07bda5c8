// Draining one backend through the real process and the real command: who is sent where, when sessions are ended and how
// fast, what survives a restart, and what the command says while it waits.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  backendName,
  clientFate,
  echoOnce,
  openClient,
  readToEnd,
} from '../src/testing/clients.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { changeRouting } from '../src/testing/routing-file.ts';
import {
  echo,
  openBlackhole,
  refusedPort,
  sayName,
  startBackend,
} from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

const EDGEPROXY = fileURLToPath(new URL('../bin/edgeproxy', import.meta.url));

/** A command that runs while the test goes on: its backends live in this process. */
class Command {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  readonly ended: Promise<number | null>;

  constructor(proxy: ProxyProcess, words: readonly string[], program = EDGEPROXY) {
    const { host, port } = proxy.admin ?? { host: '127.0.0.1', port: 1 };
    const env = {
      PATH: process.env.PATH,
      EDGEPROXY_DB_PATH: proxy.dbPath,
      EDGEPROXY_METRICS_LISTEN_ADDR: `${host}:${port}`,
    };
    this.child = spawn(program, words, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout?.on('data', (chunk) => {
      this.stdout += chunk;
    });
    this.child.stderr?.on('data', (chunk) => {
      this.stderr += chunk;
    });
    this.ended = new Promise((resolve) => this.child.once('close', resolve));
  }

  get lines(): string[] {
    return this.stdout.split('\n').filter((line) => line !== '');
  }

  /** The exit code. */
  end(): Promise<number | null> {
    return within(`the end of a command that said ${this.stdout} ${this.stderr}`, this.ended);
  }
}

/** Runs `backend …` to its end; fails unless it exits with 0. */
async function backend(proxy: ProxyProcess, ...words: string[]): Promise<string> {
  const command = new Command(proxy, ['backend', ...words]);
  assert.equal(await command.end(), 0, `${words.join(' ')}: ${command.stderr}`);
  return command.stdout;
}

/** A client with an open session. A worker may be a moment behind the metrics that say a backend may be used again. */
function openSession(proxy: ProxyProcess, from: string): Promise<Socket> {
  return until('a session', async () => {
    const client = await openClient(proxy.address, { from });
    try {
      await echoOnce(client, 'hello');
      return client;
    } catch {
      client.destroy();
      return null;
    }
  });
}

/** So many clients with open sessions, each from an address of its own. */
function openSessions(proxy: ProxyProcess, count: number, net = 8): Promise<Socket[]> {
  return Promise.all(
    Array.from({ length: count }, (_, index) =>
      openSession(proxy, `127.${net}.${index >> 8}.${index & 255 || 255}`),
    ),
  );
}

const open = (proxy: ProxyProcess, id: string, count: number) =>
  proxy.untilMetric('edge_backend_connections_current', count, { backend: id });
const draining = (proxy: ProxyProcess, id: string, value = 1) =>
  proxy.untilMetric('edge_backend_draining', value, { backend: id });
const drained = async (proxy: ProxyProcess): Promise<number> =>
  (await proxy.metrics()).get('edge_session_end_total', { reason: 'drained' });

test('drain: new and bound clients go elsewhere, open sessions go on, until the drain ends', async () => {
  await using near = await startBackend(echo);
  await using far = await startBackend(sayName('far'));
  await using proxy = await startProxy({
    backends: [
      { id: 'near', ...near.row, region: 'sa' },
      { id: 'far', ...far.row, region: 'eu' },
    ],
  });
  const [client] = await openSessions(proxy, 1);
  await backend(proxy, 'drain', 'near', '--no-wait');
  await draining(proxy, 'near');
  const bound = `127.8.0.255`;
  for (let round = 0; round < 5; round++) {
    assert.equal(await backendName(proxy.address, { from: bound }), 'far');
    assert.equal(await backendName(proxy.address, { from: `127.9.0.${round + 1}` }), 'far');
  }
  await echoOnce(client as Socket, 'still here');
  const listed = JSON.parse(await backend(proxy, 'list', '--json'));
  assert.deepEqual(
    listed.map((row: Record<string, unknown>) => [row.id, row.draining, row.drain_close_at]),
    [
      ['far', false, null],
      ['near', true, null],
    ],
  );
  assert.match(await backend(proxy, 'list'), /^near .* draining$/m);
  const explained = new Command(proxy, ['explain', '127.0.0.1', '--json']);
  assert.equal(await explained.end(), 0);
  const { choice, candidates } = JSON.parse(explained.stdout);
  assert.equal(choice, 'far');
  const near1 = candidates.find(({ id }: { id: string }) => id === 'near');
  assert.deepEqual([near1.excluded, near1.reason], ['draining', 'draining']);

  assert.match(await backend(proxy, 'undrain', 'near'), /is not draining; it is enabled/);
  await draining(proxy, 'near', 0);
  // Bound anew while it drained: the client stays where it is now.
  assert.equal(await backendName(proxy.address, { from: bound }), 'far');
  await echoOnce(client as Socket, 'still here');
  await Promise.all((await openSessions(proxy, 3, 10)).map((socket) => socket.destroy()));
  assert.equal(await drained(proxy), 0);
});

test('drain: at its time what is open is ended by RST on both sides, and nothing else', async () => {
  await using going = await startBackend(echo);
  await using staying = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [
      { id: 'going', ...going.row, region: 'sa' },
      { id: 'staying', ...staying.row, region: 'eu' },
    ],
    settings: { WORKERS: 3 },
  });
  const clients = await openSessions(proxy, 300);
  const ends = clients.map(readToEnd);
  changeRouting(proxy.dbPath, `UPDATE backends SET draining = 1 WHERE id = 'going'`);
  await draining(proxy, 'going');
  const others = await openSessions(proxy, 20, 9);
  assert.equal(staying.sockets.size, 20);
  const past = Date.now() / 1000 - 5;
  changeRouting(proxy.dbPath, `UPDATE backends SET drain_close_at = ${past} WHERE id = 'going'`);
  for (const end of ends) assert.equal((await end).end, 'ECONNRESET');
  await open(proxy, 'going', 0);
  assert.equal(await drained(proxy), 300);
  await until('the backend to see all of them end', () => going.errors.length === 300);
  assert.ok(going.errors.every((error) => error === 'ECONNRESET'));
  for (const client of others) await echoOnce(client, 'still here');
  await proxy.untilLog('A drain is over, its sessions are ended');
  await proxy.untilLog('A draining backend is empty');
});

test('drain: a session that is still connecting is ended, too', async () => {
  await using hole = await openBlackhole();
  await using proxy = await startProxy({
    backends: [{ id: 'hole', address: '127.0.0.1', port: hole.port }],
    settings: { CONNECT_TIMEOUT_MS: 60_000, CONNECT_RETRIES: 2 },
  });
  const fates = Array.from({ length: 5 }, () => clientFate(proxy.address));
  await open(proxy, 'hole', 5);
  const now = Date.now() / 1000;
  changeRouting(proxy.dbPath, `UPDATE backends SET draining = 1, drain_close_at = ${now}`);
  for (const fate of fates) assert.equal((await fate).end, 'ECONNRESET');
  await open(proxy, 'hole', 0);
  assert.equal(await drained(proxy), 5);
});

test('drain: the pace holds over all workers', async () => {
  await using slow = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'slow', ...slow.row }],
    settings: { WORKERS: 4 },
  });
  await openSessions(proxy, 30);
  const now = Date.now() / 1000;
  const pace = `drain_close_at = ${now}, drain_close_rate = 20`;
  changeRouting(proxy.dbPath, `UPDATE backends SET draining = 1, ${pace}`);
  const seen = new Set<number>();
  await until('all sessions to end', async () => {
    const count = (await proxy.metrics()).get('edge_backend_connections_current');
    seen.add(count);
    return count === 0;
  });
  assert.ok(seen.size >= 6, `they ended in steps of ${[...seen].join(', ')}`);
  assert.equal(await drained(proxy), 30);
});

test('drain: it survives a restart of the proxy, and several proxies follow one database', async () => {
  await using near = await startBackend(echo);
  await using far = await startBackend(sayName('far'));
  await using first = await startProxy({
    backends: [
      { id: 'near', ...near.row, region: 'sa' },
      { id: 'far', ...far.row, region: 'eu' },
    ],
    settings: { SHUTDOWN_TIMEOUT_SECS: 0.1 },
  });
  const { directory } = first;
  await using second = await startProxy({ directory });
  const kept = [...(await openSessions(first, 3)), ...(await openSessions(second, 3))];
  await backend(first, 'drain', 'near', '--no-wait');
  for (const proxy of [first, second]) await draining(proxy, 'near');
  await first.stop();
  await using third = await startProxy({ directory });
  await draining(third, 'near');
  for (const proxy of [second, third]) assert.equal(await backendName(proxy.address), 'far');
  for (const client of kept.slice(3)) await echoOnce(client, 'still here');
  await backend(second, 'drain', 'near', '--timeout', '0', '--no-wait');
  await open(second, 'near', 0);
  assert.equal(await drained(second), 3);
  await backend(second, 'enable', 'near');
  for (const proxy of [second, third]) {
    await draining(proxy, 'near', 0);
    for (const client of await openSessions(proxy, 2, 11)) client.destroy();
  }
});

test('drain: fail-open takes an ejected backend, never a draining one', async () => {
  await using healthy = await startBackend(sayName('draining'));
  const port = await refusedPort();
  await using proxy = await startProxy({
    backends: [
      { id: 'dead', address: '127.0.0.1', port },
      { id: 'draining', ...healthy.row, draining: 1 },
    ],
    settings: {
      WORKERS: 1,
      CIRCUIT_FAILURE_THRESHOLD: 1,
      CIRCUIT_TIMEOUT_SECS: 600,
      CIRCUIT_FAIL_OPEN: 'true',
    },
  });
  for (let round = 0; round < 5; round++) {
    assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  }
  await proxy.untilMetric('edge_fail_open_total', 4);
  assert.equal(healthy.connections, 0);
});

test('drain: health checks go on', async () => {
  await using checked = await startBackend((socket) => void socket.resume());
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...checked.row, draining: 1 }],
    settings: {
      HEALTH_CHECK_ENABLED: 'true',
      HEALTH_CHECK_INTERVAL_SECS: 0.2,
      HEALTH_UNHEALTHY_THRESHOLD: 1,
    },
  });
  const labels = { backend: 'a', result: 'success' };
  await until('health checks', async () => {
    return (await proxy.metrics()).get('edge_health_checks_total', labels) >= 3;
  });
  await checked[Symbol.asyncDispose]();
  await proxy.untilMetric('edge_backend_healthy', 0, { backend: 'a' });
});

test('backend drain waits until the backend is empty, and says what is left', async () => {
  await using one = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'one', ...one.row }] });
  const clients = await openSessions(proxy, 3);
  const text = new Command(proxy, ['backend', 'drain', 'one']);
  await until('the first count', () => text.stdout.includes('3 sessions open\n'));
  clients[0]?.destroy();
  await until('the next count', () => text.stdout.includes('2 sessions open\n'));
  clients[1]?.destroy();
  clients[2]?.destroy();
  assert.equal(await text.end(), 0);
  assert.equal(text.lines[0], 'Backend "one" is draining; open sessions go on');
  assert.equal(text.lines.at(-1), 'Backend "one" is empty');
  assert.equal(text.stderr, '');

  await backend(proxy, 'enable', 'one');
  await draining(proxy, 'one', 0);
  await openSessions(proxy, 3, 9);
  const words = ['backend', 'drain', 'one', '--json', '--timeout', '0.1', '--rate', '50'];
  const json = new Command(proxy, words);
  assert.equal(await json.end(), 0, json.stderr);
  const events = json.lines.map((line) => JSON.parse(line));
  assert.equal(events[0].event, 'draining');
  assert.equal(events[0].close_rate, 50);
  assert.ok(Math.abs(events[0].close_at - Date.now() / 1000) < 600);
  assert.deepEqual(events.at(-1), { event: 'empty', backend: 'one', open: 0 });
  assert.equal(await drained(proxy), 3);
});

test('backend drain leaves the drain in place when it is interrupted', async () => {
  await using one = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'one', ...one.row }] });
  const [client] = await openSessions(proxy, 1);
  const command = new Command(proxy, ['backend', 'drain', 'one']);
  await until('the count', () => command.stdout.includes('1 session open\n'));
  command.child.kill('SIGINT');
  assert.equal(await command.end(), 130);
  assert.match(command.stderr, /^Backend "one" stays draining with 1 session open; .*undrain/);
  await draining(proxy, 'one');
  await echoOnce(client as Socket, 'still here');
});

test('backend drain says why it cannot wait, and drains all the same', async () => {
  await using one = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'one', ...one.row }] });
  const nobody = `127.0.0.1:${await refusedPort()}`;
  for (const [address, reason] of [
    [nobody, new RegExp(`no proxy answers at ${nobody}: ECONNREFUSED`)],
    ['off', /EDGEPROXY_METRICS_LISTEN_ADDR is off/],
  ] as const) {
    const words = ['backend', 'drain', 'one', '--metrics-listen-addr', address];
    const command = new Command(proxy, words);
    assert.equal(await command.end(), 1);
    assert.match(command.stderr, /^Cannot wait for backend "one", which stays draining: /);
    assert.match(command.stderr, reason);
    await draining(proxy, 'one');
    await backend(proxy, 'undrain', 'one');
    await draining(proxy, 'one', 0);
  }
  const ended = new Command(proxy, ['backend', 'drain', 'one', '--json']);
  const [client] = await openSessions(proxy, 1);
  await until('the wait', () => ended.stdout.includes('"event":"open"'));
  await backend(proxy, 'undrain', 'one');
  assert.equal(await ended.end(), 1);
  assert.match(ended.stderr, /its drain was ended, or its row deleted, meanwhile/);
  assert.equal(JSON.parse(ended.lines.at(-1) as string).event, 'failed');
  client?.destroy();
});

test('backend drain answers wrong usage with exit code 2 and an unknown id with 1', async () => {
  await using proxy = await startProxy({ backends: [{ id: 'one', port: 1 }] });
  for (const [code, words, said] of [
    [2, 'one --timeout=-1', /--timeout is "-1", allowed: /],
    [2, 'one --timeout soon', /--timeout is "soon", allowed: /],
    [2, 'one --timeout 1e9', /--timeout is "1e9", allowed: /],
    [2, 'one --timeout 1 --rate 0', /--rate is "0", allowed: a number above 0/],
    [2, 'one --rate 5', /--rate is the pace after --timeout, which is missing/],
    [1, 'two', /^Unknown backend "two": /],
    [1, 'two --no-wait', /^Unknown backend "two": /],
  ] as const) {
    const command = new Command(proxy, ['backend', 'drain', ...words.split(' ')]);
    assert.equal(await command.end(), code, words);
    assert.match(command.stderr, said);
    assert.equal(command.stdout, '');
  }
  await draining(proxy, 'one', 0);
});

test('backend drain updates one line on a terminal', async (t: TestContext) => {
  if (spawnSync('script', ['--version']).error) {
    const problem = 'script(1) is not installed, it makes a terminal';
    assert.notEqual(process.env.EDGEPROXY_TEST_REQUIRE_ALL, '1', problem);
    t.skip(problem);
    return;
  }
  await using one = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'one', ...one.row }] });
  const clients = await openSessions(proxy, 2);
  const line = `${EDGEPROXY} backend drain one --timeout 600`;
  const command = new Command(proxy, ['-qec', line, '/dev/null'], 'script');
  const output = (): string => JSON.stringify(command.stdout).replaceAll('\\u001b[K', '<clear>');
  await until('the count', () => /\\r<clear>2 sessions open, \d+ s left/.test(output()));
  for (const client of clients) client.destroy();
  assert.equal(await command.end(), 0);
  assert.match(output(), /\\r<clear>Backend \\"one\\" is empty\\r\\n"$/);
});
