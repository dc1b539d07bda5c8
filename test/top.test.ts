// `edgeproxy status` and `edgeproxy top` against a running proxy: what they say is what it does, in 80 columns, in a real
// terminal (script(1)), and across its restart.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { backendName, openClient } from '../src/testing/clients.ts';
import { skipReason } from '../src/testing/netns.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { changeRouting } from '../src/testing/routing-file.ts';
import { echo, refusedPort, sayName, startBackend } from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

const BIN = fileURLToPath(new URL('../bin/edgeproxy', import.meta.url));
const hasScript = spawnSync('script', ['--version']).error === undefined;

function flagsOf(proxy: ProxyProcess): string[] {
  const { host, port } = proxy.admin as { host: string; port: number };
  return ['--metrics-listen-addr', `${host}:${port}`];
}

function run(...words: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(BIN, words, { encoding: 'utf8', env: { PATH: process.env.PATH } });
}

interface Page {
  readonly status: { readonly sessions: { readonly current: number }; readonly state: string };
  readonly backends: readonly { readonly id: string; readonly active: number }[];
}

class Watcher implements Disposable {
  readonly child: ChildProcess;
  text = '';

  constructor(command: string, args: readonly string[]) {
    this.child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH, TERM: 'xterm' },
    });
    this.child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      this.text += chunk;
    });
  }

  /** What a full screen says last. */
  get screen(): string {
    return stripVTControlCharacters(this.text.slice(this.text.lastIndexOf('\x1b[H')));
  }

  [Symbol.dispose](): void {
    this.child.kill('SIGKILL');
  }
}

test('status: says what the proxy does, as text and as JSON, in 80 columns', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...backend.row },
      { id: `long-${'x'.repeat(60)}`, weight: 0, ...backend.row },
    ],
  });
  const clients = await Promise.all([1, 2, 3].map(() => openClient(proxy.address)));
  await proxy.untilMetric('edge_backend_connections_current', 3, { backend: 'a' });
  const text = run('status', ...flagsOf(proxy));
  assert.equal(text.status, 0, text.stderr);
  assert.match(text.stdout, /^sessions 3 of \d+ {3}connections /m);
  assert.match(text.stdout, /^a +BR +3 +100 +- .* ok$/m);
  assert.match(text.stdout, /^long-x+… .* weight 0$/m);
  for (const line of text.stdout.split('\n')) assert.ok(line.length <= 80, line);
  const page = JSON.parse(run('status', '--json', ...flagsOf(proxy)).stdout) as Page;
  assert.equal(page.status.sessions.current, 3);
  assert.equal(page.backends.find(({ id }) => id === 'a')?.active, 3);
  for (const client of clients) client.destroy();
});

test('explain --live: asks the running proxy, for load, health and binding', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
  });
  const client = await openClient(proxy.address);
  await proxy.untilMetric('edge_backend_connections_current', 1, { backend: 'a' });
  const { status, stdout, stderr } = run('explain', '127.0.0.1', '--live', ...flagsOf(proxy));
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^Country {2}none: it is a loopback address$/m);
  assert.match(stdout, /^Choice {3}a: the client is bound to it \(without: a\)$/m);
  assert.match(stdout, /^\* +a +sa\/BR .* chosen/m);
  assert.match(stdout, /^Load is that of this moment/m);
  const json = run('explain', '127.0.0.1', '--live', '--json', ...flagsOf(proxy));
  const said = JSON.parse(json.stdout) as { candidates: { active: number }[] };
  assert.equal(said.candidates[0]?.active, 1);
  client.destroy();
});

test('status and top: without a proxy they say where they asked, exit code 1', async () => {
  const port = await refusedPort();
  for (const command of [['status'], ['top'], ['explain', '127.0.0.1', '--live']]) {
    const { status, stderr } = run(...command, '--metrics-listen-addr', `127.0.0.1:${port}`);
    assert.equal(status, 1);
    assert.match(
      stderr,
      new RegExp(`Cannot ask the proxy at 127\\.0\\.0\\.1:${port}: ECONNREFUSED`),
    );
  }
  const off = run('status', '--metrics-listen-addr', 'off');
  assert.equal(off.status, 1);
  assert.match(off.stderr, /EDGEPROXY_METRICS_LISTEN_ADDR is off/);
});

test('top --json: a line per second with what happened since', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  using watcher = new Watcher(BIN, ['top', '--json', ...flagsOf(proxy)]);
  await until('a line', () => watcher.text.includes('\n'));
  assert.equal(await backendName(proxy.address), 'a');
  changeRouting(proxy.dbPath, `UPDATE backends SET weight = 2 WHERE id = 'a'`);
  await until('the event', () => watcher.text.includes('"routing_reloaded"'));
  const lines = watcher.text.trim().split('\n');
  for (const line of lines.slice(0, -1)) JSON.parse(line);
  watcher.child.kill('SIGINT');
  await within('the end', once(watcher.child, 'exit'));
});

test('top: draws a screen of 80 columns, waits for a proxy that restarts, and ends at q', {
  skip: hasScript ? false : skipReason('script(1) is not installed'),
}, async () => {
  await using backend = await startBackend(echo);
  const first = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  const port = first.admin?.port as number;
  const command = `stty cols 80 rows 24; exec ${BIN} top ${flagsOf(first).join(' ')}`;
  using watcher = new Watcher('script', ['-qfec', command, '/dev/null']);
  const client = await openClient(first.address);
  await until('the session to be shown', () => /^a +BR +1 /m.test(watcher.screen));
  const rows = watcher.screen.split('\r\n');
  assert.ok(rows.length <= 24, `${rows.length} rows`);
  for (const row of rows) assert.ok(row.length <= 80, row);
  client.destroy();
  await first[Symbol.asyncDispose]();
  await until('the loss to be shown', () => watcher.screen.includes('asking again'));
  await using second = await startProxy({
    backends: [{ id: 'b', ...backend.row }],
    settings: { METRICS_LISTEN_ADDR: `127.0.0.1:${port}` },
  });
  await until('the new proxy to be shown', () => /^b +BR +0 /m.test(watcher.screen));
  assert.equal(second.admin?.port, port);
  watcher.child.stdin?.write('q');
  const [code] = (await within('the end', once(watcher.child, 'exit'))) as [number];
  assert.equal(code, 0);
  assert.ok(watcher.text.includes('\x1b[?1049l'), 'the shell has its screen back');
});
