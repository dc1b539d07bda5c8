// PROXY headers between edgeproxy and the HAProxy that is installed, both ways: another implementation reads what we write,
// and we read what it writes.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openClient, readBytes, readToEnd } from '../src/testing/clients.ts';
import { skipReason } from '../src/testing/netns.ts';
import { readHeader } from '../src/testing/proxy-headers.ts';
import { type HostPort, startProxy } from '../src/testing/proxy-process.ts';
import { refusedPort, startBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

const { status } = spawnSync('haproxy', ['-v']);
const skip = status === 0 ? false : skipReason('haproxy is not installed');

const DEFAULTS = `
global
  nbthread 1
defaults
  timeout connect 5s
  timeout client 30s
  timeout server 30s
`;

async function startHaproxy(sections: string, ports: readonly number[]): Promise<AsyncDisposable> {
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-haproxy-'));
  const file = join(directory, 'haproxy.cfg');
  writeFileSync(file, `${DEFAULTS}${sections}`);
  const child = spawn('haproxy', ['-db', '-f', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  for (const port of ports) {
    await until(`haproxy to listen: ${said}`, async () => {
      if (child.exitCode !== null) throw new Error(`haproxy ended: ${said}`);
      const socket = await openClient({ host: '127.0.0.1', port }).catch(() => null);
      socket?.destroy();
      return socket !== null;
    });
  }
  return {
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      rmSync(directory, { recursive: true });
    },
  };
}

/** Asks a web server; the last line of its answer. */
async function ask(at: HostPort, from: string): Promise<{ answer: string; port: number }> {
  const socket = await openClient(at, { from });
  const port = socket.localPort as number;
  const reading = readToEnd(socket);
  socket.write('GET / HTTP/1.0\r\n\r\n');
  const answer = (await reading).bytes.toString().split('\n').at(-1) ?? '';
  socket.destroy();
  return { answer, port };
}

for (const version of ['v1', 'v2']) {
  test(`haproxy behind us reads our ${version} headers`, { skip }, async () => {
    const port = await refusedPort();
    const answer = 'lf-string "%[src] %[src_port] %[dst] %[dst_port]"';
    await using haproxy = await startHaproxy(
      `
frontend all
  mode http
  bind 127.0.0.1:${port} accept-proxy
  http-request return status 200 content-type text/plain ${answer}
`,
      [port],
    );
    assert.ok(haproxy);
    await using proxy = await startProxy({
      backends: [{ id: 'haproxy', port }],
      settings: {
        PROXY_PROTOCOL_OUT: version,
        HEALTH_CHECK_ENABLED: 'true',
        HEALTH_CHECK_INTERVAL_SECS: 0.1,
        HEALTH_CHECK_TYPE: 'http',
        HEALTH_CHECK_PATH: '/',
      },
    });
    for (const from of ['127.7.0.1', '127.7.255.254', '127.0.0.1']) {
      const { answer: said, port: own } = await ask(proxy.address, from);
      assert.equal(said, `${from} ${own} 127.0.0.1 ${proxy.address.port}`);
    }
    // Its checks are answered only when their header is right, too.
    const labels = { backend: 'haproxy', result: 'success' };
    await until('checks', async () => {
      return (await proxy.metrics()).get('edge_health_checks_total', labels) >= 3;
    });
    const failed = { backend: 'haproxy', result: 'failure' };
    assert.equal((await proxy.metrics()).get('edge_health_checks_total', failed), 0);
  });
}

const SENDERS = [
  'send-proxy',
  'send-proxy-v2',
  'send-proxy-v2 proxy-v2-options crc32c,unique-id',
] as const;

for (const sender of SENDERS) {
  test(`haproxy in front of us with ${sender}: its client is ours`, { skip }, async () => {
    const told: string[] = [];
    await using backend = await startBackend((socket) => {
      socket.once('data', (chunk: Buffer) => {
        const header = readHeader(chunk);
        told.push(`${header?.client} to ${header?.server}`);
        socket.write(chunk.subarray(header?.bytes));
        socket.pipe(socket);
      });
    });
    await using proxy = await startProxy({
      backends: [{ id: 'a', ...backend.row }],
      settings: {
        PROXY_PROTOCOL_IN: 'any',
        TRUSTED_PROXIES: '127.1.0.1',
        PROXY_PROTOCOL_OUT: 'v1',
      },
    });
    const port = await refusedPort();
    const checks = 'check check-send-proxy inter 100ms';
    await using haproxy = await startHaproxy(
      `
listen front
  mode tcp
  bind 127.0.0.1:${port}
  source 127.1.0.1
  server us 127.0.0.1:${proxy.address.port} ${sender} ${checks}
`,
      [port],
    );
    assert.ok(haproxy);
    for (const from of ['127.8.0.1', '127.8.0.2']) {
      const socket = await openClient({ host: '127.0.0.1', port }, { from });
      const reading = readBytes(socket, 5);
      socket.write('hello');
      assert.equal((await reading).toString(), 'hello');
      const expected = `${from} ${socket.localPort} to 127.0.0.1 ${port}`;
      // Among HAProxy's own checks, and the look whether it listens.
      assert.ok(told.includes(expected), `${expected} is not in ${told}`);
      socket.destroy();
    }
    const metrics = await proxy.metrics();
    assert.equal(metrics.get('edge_rejected_total', { reason: 'proxy_header_invalid' }), 0);
  });
}
