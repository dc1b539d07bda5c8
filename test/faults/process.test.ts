// Faults of the proxy's own process and machine: killed outright, a log that cannot be written, a disk that is full, a clock
// that jumps. Descriptors that run out are in test/limits.test.ts, a worker's death in test/lifecycle.test.ts.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { backendName, echoOnce, openClient, readToEnd } from '../../src/testing/clients.ts';
import { attempt, skipReason } from '../../src/testing/netns.ts';
import { startProxy, TEST_ENGINE } from '../../src/testing/proxy-process.ts';
import { writeRouting } from '../../src/testing/routing-file.ts';
import { echo, refusedPort, sayName, startBackend } from '../../src/testing/test-backends.ts';
import { until, within } from '../../src/testing/wait.ts';

const BIN = fileURLToPath(new URL('../../bin/edgeproxy', import.meta.url));

test('kill -9 of the whole process: every client sees its connection end, and a restart on the same port serves at once', async () => {
  await using backend = await startBackend(echo);
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-kill-'));
  try {
    const options = { directory, backends: [{ id: 'a', ...backend.row }] };
    const first = await startProxy(options);
    const clients = await Promise.all(Array.from({ length: 50 }, () => openClient(first.address)));
    for (const client of clients) await echoOnce(client, 'before');
    const ends = clients.map((client) => readToEnd(client));
    assert.deepEqual(await first.stop('SIGKILL'), { code: null, signal: 'SIGKILL' });
    for (const end of await Promise.all(ends)) assert.match(end.end, /^(fin|ECONNRESET)$/);
    await until('the backend to see the ends', () => {
      for (const socket of backend.sockets) socket.resume();
      return backend.sockets.size === 0;
    });
    for (const client of clients) client.destroy();
    // Connections in TIME_WAIT or FIN_WAIT are there still.
    const settings = { LISTEN_ADDR: `127.0.0.1:${first.address.port}` };
    await using second = await startProxy({ directory, settings });
    const client = await openClient(second.address);
    await echoOnce(client, 'after');
    client.destroy();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

interface MutedProxy extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly exited: Promise<unknown>;
  status(path: string): Promise<number>;
}

/** A proxy whose standard error goes nowhere good; found through fixed ports, as it cannot say anything. */
async function startMuted(directory: string, redirect: string): Promise<MutedProxy> {
  const [port, adminPort] = [await refusedPort(), await refusedPort()];
  const child = spawn('sh', ['-c', `exec "$0" run ${redirect}`, BIN], {
    env: {
      PATH: process.env.PATH,
      EDGEPROXY_LISTEN_ADDR: `127.0.0.1:${port}`,
      EDGEPROXY_METRICS_LISTEN_ADDR: `127.0.0.1:${adminPort}`,
      EDGEPROXY_DB_PATH: join(directory, 'routing.db'),
      EDGEPROXY_ENGINE: TEST_ENGINE,
      EDGEPROXY_WORKERS: '1',
      EDGEPROXY_HEALTH_CHECK_ENABLED: 'false',
      EDGEPROXY_LOG: 'debug',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout?.destroy();
  child.stderr?.destroy();
  const status = (path: string): Promise<number> =>
    new Promise((resolve) => {
      const request = get({ host: '127.0.0.1', port: adminPort, path, agent: false }, (answer) => {
        answer.resume();
        resolve(answer.statusCode ?? 0);
      });
      request.on('error', () => resolve(0));
    });
  const exited = once(child, 'exit');
  await until('the proxy to be ready', async () => (await status('/readyz')) === 200);
  return {
    host: '127.0.0.1',
    port,
    exited,
    status,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

for (const [what, redirect] of [
  ['a full disk', '2>/dev/full >/dev/full'],
  ['a pipe nobody reads any more', ''],
] as const) {
  test(`a log on ${what} costs log lines, not connections`, async () => {
    await using backend = await startBackend(sayName('a'));
    const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-mute-'));
    const dbPath = join(directory, 'routing.db');
    writeRouting(dbPath, [{ id: 'a', ...backend.row }]);
    try {
      await using proxy = await startMuted(directory, redirect);
      for (let turn = 0; turn < 20; turn++) {
        assert.equal(await backendName(proxy), 'a');
        // Each change writes log lines.
        writeRouting(dbPath, [{ id: 'a', ...backend.row, weight: 1 + turn }]);
      }
      assert.equal(await proxy.status('/healthz'), 200);
      assert.equal(await backendName(proxy), 'a');
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
}

/** A file system of 256 KiB, or why there is none. */
function smallDisk(): { path: string; problem: string } {
  const path = mkdtempSync(join(tmpdir(), 'edgeproxy-disk-'));
  const problem = attempt('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', path]);
  return { path, problem };
}

function edgeproxy(...args: string[]): { status: number | null; stderr: string } {
  return spawnSync(BIN, args, { encoding: 'utf8', env: { PATH: process.env.PATH } });
}

test('a full disk under routing.db: changes fail with the reason, serving goes on, and changes work once there is room', async (t) => {
  const { path, problem } = smallDisk();
  if (problem !== '') {
    rmSync(path, { recursive: true });
    t.skip(skipReason(problem));
    return;
  }
  try {
    await using backend = await startBackend(sayName('a'));
    await using proxy = await startProxy({
      directory: path,
      backends: [{ id: 'a', ...backend.row }],
    });
    const filler = join(path, 'filler');
    spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=4k'], { stdio: 'ignore' });
    const refused = edgeproxy('backend', 'disable', 'a', '--db-path', proxy.dbPath);
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /routing\.db.*(disk|full)/);
    assert.equal(await backendName(proxy.address), 'a');
    rmSync(filler);
    assert.equal(edgeproxy('backend', 'disable', 'a', '--db-path', proxy.dbPath).status, 0);
    await until('the change to be served', async () => (await backendName(proxy.address)) === '');
    assert.equal(proxy.exit, null);
  } finally {
    assert.equal(attempt('umount', [path]), '');
    rmSync(path, { recursive: true });
  }
});

const FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1';
const noFaketime = existsSync(FAKETIME) ? '' : 'libfaketime is not installed';

test('the wall clock jumps by a day, forward and back: no session and no binding notices', {
  skip: noFaketime === '' ? false : skipReason(noFaketime),
}, async () => {
  await using backend = await startBackend(echo);
  await using other = await startBackend(echo);
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-clock-'));
  const clock = join(directory, 'clock');
  writeFileSync(clock, '+0');
  try {
    await using proxy = await startProxy({
      directory,
      backends: [
        { id: 'a', ...backend.row },
        { id: 'b', ...other.row },
      ],
      settings: {
        IDLE_TIMEOUT_SECS: 600,
        BINDING_GC_INTERVAL_SECS: 1,
      },
      wrapper: [
        'env',
        `LD_PRELOAD=${FAKETIME}`,
        `FAKETIME_TIMESTAMP_FILE=${clock}`,
        'FAKETIME_NO_CACHE=1',
        // The kernel's monotonic clock never jumps; only the wall clock is faked.
        'FAKETIME_DONT_FAKE_MONOTONIC=1',
      ],
    });
    const client = await openClient(proxy.address);
    await echoOnce(client, 'before');
    const lines = proxy.logs.length;
    for (const jump of ['+1d', '-1d', '+0']) {
      writeFileSync(clock, jump);
      const expected =
        Date.now() + (jump === '+1d' ? 86_400_000 : jump === '-1d' ? -86_400_000 : 0);
      // The log shows that the jump has reached the process.
      await until(`the clock to jump to ${jump}`, async () => {
        proxy.signal('SIGHUP');
        const said = proxy.logs.at(-1)?.time;
        return Math.abs(Date.parse(String(said)) - expected) < 3_600_000;
      });
      await echoOnce(client, `after ${jump}`);
      const again = await openClient(proxy.address);
      await echoOnce(again, 'again');
      again.destroy();
    }
    const metrics = await proxy.untilMetric('edge_connections_current', 1);
    assert.equal(metrics.get('edge_bindings_current'), 1);
    assert.ok(backend.connections === 0 || other.connections === 0, 'one client, one backend');
    assert.deepEqual(
      proxy.logs.slice(lines).filter(({ level }) => level !== 'info'),
      [],
    );
    client.destroy();
    await within('the end', proxy.stop());
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
