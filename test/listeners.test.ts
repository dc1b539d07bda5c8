// Listening: several addresses with their apps, IPv6, dual stack, busy ports.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { after, before, test } from 'node:test';
import { backendName, clientFate } from '../src/testing/clients.ts';
import { attempt, skipReason } from '../src/testing/netns.ts';
import {
  type HostPort,
  ProxyProcess,
  startProxy,
  TEST_ENGINE,
} from '../src/testing/proxy-process.ts';
import { hold, sayName, startBackend, type TestBackend } from '../src/testing/test-backends.ts';
import { within } from '../src/testing/wait.ts';

let web: TestBackend;
let mail: TestBackend;

before(async () => {
  web = await startBackend(sayName('web'));
  mail = await startBackend(sayName('mail'), '::1');
});
after(async () => {
  await web[Symbol.asyncDispose]();
  await mail[Symbol.asyncDispose]();
});

test('listeners: each address serves its app, an unknown app nobody, no app all of them', async () => {
  await using proxy = await startProxy({
    backends: [
      { id: 'w', app: 'web', ...web.row },
      { id: 'm', app: 'mail', ...mail.row },
    ],
    settings: {
      LISTEN_ADDR: 'web@127.0.0.1:0,mail@127.0.0.1:0,mail@[::1]:0,other@127.0.0.1:0,127.0.0.1:0',
    },
  });
  const [one, two, six, other, all] = proxy.addresses as HostPort[];
  for (let index = 1; index < 10; index++) {
    const from = `127.4.0.${index}`;
    assert.equal(await backendName(one as HostPort, { from }), 'web');
    assert.equal(await backendName(two as HostPort, { from }), 'mail');
    assert.equal(await backendName(other as HostPort, { from }), '');
  }
  assert.equal(await backendName(six as HostPort), 'mail');
  const names = new Set<string>();
  for (let index = 1; index < 10; index++) {
    names.add(await backendName(all as HostPort, { from: `127.4.1.${index}` }));
  }
  assert.deepEqual(names, new Set(['web', 'mail']));
});

test('listeners: an app that appears while running is served by its listener', async () => {
  await using proxy = await startProxy({
    backends: [{ id: 'w', app: 'web', ...web.row }],
    settings: { LISTEN_ADDR: 'later@127.0.0.1:0' },
  });
  assert.equal((await clientFate(proxy.address)).end, 'ECONNRESET');
  await proxy.reroute([{ id: 'm', app: 'later', ...mail.row }]);
  assert.equal(await backendName(proxy.address), 'mail');
});

test('listeners: [::] serves IPv6 and IPv4 clients, and reaches IPv4 and IPv6 backends for both', async () => {
  await using proxy = await startProxy({
    backends: [
      { id: 'w', app: 'web', ...web.row },
      { id: 'm', app: 'mail', ...mail.row },
    ],
    settings: { LISTEN_ADDR: 'web@[::]:0,mail@[::]:0' },
  });
  for (const [index, name] of ['web', 'mail'].entries()) {
    const { port } = proxy.addresses[index] as HostPort;
    assert.equal(await backendName({ host: '::1', port }), name);
    assert.equal(await backendName({ host: '127.0.0.1', port }), name);
  }
});

test('listeners: 0.0.0.0 and [::] on one port share it by family', async () => {
  const free = await startBackend(hold, '::');
  const { port } = free;
  await free[Symbol.asyncDispose]();
  await using proxy = await startProxy({
    backends: [
      { id: 'w', app: 'web', ...web.row },
      { id: 'm', app: 'mail', ...mail.row },
    ],
    settings: { LISTEN_ADDR: `web@0.0.0.0:${port},mail@[::]:${port}` },
  });
  assert.equal(await backendName({ host: '127.0.0.1', port }), 'web');
  assert.equal(await backendName({ host: '::1', port }), 'mail');
  assert.equal(proxy.exit, null);
});

test('listeners: a busy port is a clear message and exit code 1', async () => {
  await using busy = await startBackend(hold);
  await using proxy = new ProxyProcess({
    backends: [],
    settings: { LISTEN_ADDR: `127.0.0.1:${busy.port}` },
  });
  const exit = await within('the proxy to end', proxy.exited);
  assert.equal(exit.code, 1);
  const text = JSON.stringify(proxy.logs) + proxy.stderrText;
  assert.match(text, new RegExp(`Cannot listen on 127.0.0.1:${busy.port}: EADDRINUSE`));
  assert.match(text, /--listen-addr/);
});

test('listeners: a second proxy on the same port is refused, although workers share theirs', async () => {
  await using first = await startProxy({ backends: [{ id: 'w', ...web.row }] });
  const { port } = first.address;
  await using second = new ProxyProcess({
    backends: [{ id: 'm', ...mail.row }],
    settings: { LISTEN_ADDR: `127.0.0.1:${port}`, TAKEOVER: 'false' },
  });
  const exit = await within('the second proxy to end', second.exited);
  assert.equal(exit.code, 1);
  assert.match(JSON.stringify(second.logs) + second.stderrText, /EADDRINUSE/);
  for (let index = 1; index < 20; index++) {
    assert.equal(await backendName(first.address, { from: `127.4.2.${index}` }), 'web');
  }
});

test('listeners: an address this machine does not have is a clear message', async () => {
  await using proxy = new ProxyProcess({
    backends: [],
    settings: { LISTEN_ADDR: '192.0.2.1:8080' },
  });
  assert.equal((await within('the proxy to end', proxy.exited)).code, 1);
  const text = JSON.stringify(proxy.logs) + proxy.stderrText;
  assert.match(text, /192\.0\.2\.1:8080: EADDRNOTAVAIL, this machine has no such address/);
});

test('listeners: a burst waits in the longest queue that the kernel allows', async (t) => {
  const problem = attempt('ss', ['-V']);
  if (problem !== '') {
    t.skip(skipReason(problem));
    return;
  }
  const longest = readFileSync('/proc/sys/net/core/somaxconn', 'utf8').trim();
  await using proxy = await startProxy({ backends: [{ id: 'w', ...web.row }] });
  const filter = `sport = :${proxy.address.port}`;
  const { stdout } = spawnSync('ss', ['-ltnH', filter], { encoding: 'utf8' });
  // Of a listening socket Send-Q is the length of the queue (ss(8)); there is a socket per worker.
  const queues = stdout.trim().split('\n');
  assert.deepEqual(
    queues.map((line) => line.split(/ +/)[2]),
    [longest, longest],
  );
});

test('listeners: the proxy runs on without its metrics while their port is taken, and takes it later', async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address() as { port: number };
  await using proxy = await startProxy({
    backends: [{ id: 'w', ...web.row }],
    settings: { METRICS_LISTEN_ADDR: `127.0.0.1:${port}` },
  });
  assert.equal(await backendName(proxy.address), 'web');
  assert.ok(proxy.log('Metrics cannot be served yet, trying again'));
  await new Promise((resolve) => taken.close(resolve));
  await proxy.untilLog('Metrics are served now');
  assert.equal((await proxy.page('/healthz')).status, 200);
});

test('admin: every documented metric is there with HELP and TYPE, and pages answer', async () => {
  await using proxy = await startProxy({ backends: [{ id: 'w', ...web.row }] });
  assert.equal(await backendName(proxy.address), 'web');
  const metrics = await proxy.untilMetric('edge_session_end_total', 1);
  const names = [
    'edge_connections_total',
    'edge_connections_current',
    'edge_backend_latency_ms',
    'edge_backend_connections_current',
    'edge_backend_connections_total',
    'edge_bytes_total',
    'edge_rejected_total',
    'edge_session_end_total',
    'edge_retries_total',
    'edge_bindings_current',
    'edge_routing_version',
    'edge_routing_reload_errors_total',
    'edge_accept_errors_total',
    'edge_buffers_in_use',
    'edge_engine_info',
  ];
  for (const name of names) assert.ok(metrics.documented.has(name), `${name} is missing`);
  assert.equal(metrics.get('edge_backend_latency_ms_count', { backend: 'w' }), 1);
  assert.equal(metrics.get('edge_backend_latency_ms_bucket', { backend: 'w', le: '+Inf' }), 1);
  const engine = TEST_ENGINE === 'auto' ? 'uring' : TEST_ENGINE;
  assert.equal(metrics.get('edge_engine_info', { engine }), 1);
  for (const page of ['/healthz', '/readyz']) assert.equal((await proxy.page(page)).status, 200);
  assert.equal((await proxy.page('/nothing')).status, 404);
});
