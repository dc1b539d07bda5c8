// /metrics of the real process. That every scrape is valid Prometheus text is seen to by each test that reads metrics: they
// all go through the strict parser of src/testing/exposition-parser.ts.

import assert from 'node:assert/strict';
import { get } from 'node:http';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import {
  backendName,
  clientFate,
  echoOnce,
  exchange,
  openClient,
  readToEnd,
} from '../src/testing/clients.ts';
import { Metrics } from '../src/testing/metrics-text.ts';
import { connectionsBalance, type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { echo, sayName, startBackend } from '../src/testing/test-backends.ts';

function scrape(proxy: ProxyProcess, encoding: string): Promise<{ body: Buffer; coding: string }> {
  return new Promise((resolve, reject) => {
    const headers = { 'accept-encoding': encoding };
    const request = get({ ...proxy.admin, path: '/metrics', agent: false, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const coding = response.headers['content-encoding'] ?? '';
        resolve({ body: Buffer.concat(chunks), coding });
      });
    });
    request.on('error', reject);
  });
}

/** The series that may only grow, by their whole name. */
function growing(metrics: Metrics): Map<string, number> {
  const found = new Map<string, number>();
  for (const { type, samples } of metrics.families) {
    if (type !== 'counter' && type !== 'histogram') continue;
    for (const { name, labels, value } of samples) found.set(name + JSON.stringify(labels), value);
  }
  return found;
}

function assertGrown(before: Metrics, after: Metrics): void {
  const now = growing(after);
  for (const [series, value] of growing(before)) {
    const later = now.get(series);
    assert.ok(later !== undefined && later >= value, `${series} was ${value} and is ${later}`);
  }
}

test('metrics: a session shows in the counters of its backend, tier, country, duration and bytes', async () => {
  await using a = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a "quoted" \\ é', ...a.row }],
    settings: { WORKERS: 1, MAX_CONNECTIONS: 50, CLIENT_TABLE_SIZE: 100 },
  });
  await exchange(proxy.address, 'twelve bytes');
  await exchange(proxy.address, 'eight by');
  const metrics = await proxy.untilMetric('edge_session_end_total', 2, { reason: 'completed' });
  const backend = 'a "quoted" \\ é';
  const value = (name: string, labels = {}): number => metrics.get(name, labels);
  assert.equal(value('edge_backend_connections_total', { backend }), 2);
  assert.equal(value('edge_backend_bytes_total', { backend, direction: 'up' }), 20);
  assert.equal(value('edge_backend_bytes_total', { backend, direction: 'down' }), 20);
  assert.equal(value('edge_bytes_total', { direction: 'up' }), 20);
  assert.deepEqual(metrics.nonZero('edge_tier_connections_total', 'tier'), { 2: 2 });
  assert.deepEqual(metrics.nonZero('edge_country_connections_total', 'country'), { none: 2 });
  assert.equal(value('edge_country_connections_current', { country: 'none' }), 0);
  assert.equal(value('edge_session_duration_seconds_count'), 2);
  assert.equal(value('edge_bound_sessions_total'), 1);
  assert.equal(value('edge_bindings_current'), 1);
  assert.equal(value('edge_connections_max'), 50);
  assert.equal(value('edge_client_rows_max'), 100);
  assert.equal(value('edge_workers_current'), 1);
  assert.equal(value('edge_backends_current'), 1);
  assert.equal(value('edge_build_info', { version: '0.1.0' }), 1);
  assert.ok(value('edge_uptime_seconds') > 0);
  assert.ok(value('process_cpu_seconds_total') > 0);
  assert.ok(value('edge_buffers_max') > 0);
});

test('metrics: a removed backend keeps its series while it has sessions, and its index starts anew', async () => {
  await using held = await startBackend(echo);
  await using next = await startBackend(sayName('next'));
  await using proxy = await startProxy({ backends: [{ id: 'held', ...held.row }] });
  const client = await openClient(proxy.address);
  await echoOnce(client, 'hello');
  const row = { id: 'next', ...next.row };
  await proxy.reroute([row]);
  const draining = await proxy.metrics();
  assert.equal(draining.get('edge_backend_connections_current', { backend: 'held' }), 1);
  assert.equal(draining.get('edge_backend_connections_total', { backend: 'held' }), 1);
  client.destroy();
  await proxy.untilMetric('edge_connections_current', 0);
  const shown = ({ samples }: Metrics): string[] => [
    ...new Set(samples.flatMap(({ labels }) => labels.backend ?? [])),
  ];
  assert.deepEqual(shown(await proxy.metrics()), ['next']);
  // It takes the index of `held`, and none of what was counted there.
  await proxy.reroute([row, { ...row, id: 'heir' }]);
  const fresh = await proxy.metrics();
  assert.deepEqual(shown(fresh), ['heir', 'next']);
  for (const { name, labels, value } of fresh.samples) {
    if (labels.backend === 'heir') assert.equal(value, 0, name);
  }
  for (let round = 0; round < 10; round++) {
    await backendName(proxy.address, { from: `127.0.9.${round + 1}` });
  }
  const last = await proxy.untilMetric('edge_connections_current', 0);
  const share = last.get('edge_backend_connections_total', { backend: 'heir' });
  assert.ok(share >= 3 && share <= 7, `${share} of 10`);
  assert.equal(last.get('edge_backend_latency_ms_count', { backend: 'heir' }), share);
});

test('metrics: counters never go back, not when workers die', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    wrapper: ['env', 'EDGEPROXY_FAULT_INJECTION=1'],
    settings: { WORKERS: 2, MAX_CONNECTIONS_PER_CLIENT: 1 },
  });
  let before = await proxy.metrics();
  const held: Socket[] = [];
  for (let round = 1; round <= 3; round++) {
    const from = proxy.logs.length;
    for (let index = 0; index < 20; index++) {
      const client = await openClient(proxy.address, { from: `127.5.${round}.${index + 1}` });
      await echoOnce(client, 'hello');
      held.push(client);
    }
    await clientFate(proxy.address, { from: `127.5.${round}.1` });
    proxy.signal('SIGUSR2');
    await proxy.untilLog('A worker was replaced', from);
    const after = await proxy.metrics();
    assertGrown(before, after);
    assert.equal(after.get('edge_worker_deaths_total'), round);
    assert.equal(after.get('edge_workers_current'), 2);
    before = after;
  }
  for (const client of held) client.destroy();
  const last = await proxy.untilMetric('edge_connections_current', 0);
  assertGrown(before, last);
  const { accepted, accounted } = connectionsBalance(last);
  assert.equal(accepted, 63);
  assert.equal(accepted, accounted);
  assert.ok(last.get('edge_session_end_total', { reason: 'worker_lost' }) > 0);
});

test('metrics: no label ever holds the address of a client', async () => {
  await using backend = await startBackend((socket) => void socket.end('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row, hardLimit: 30 }],
    settings: { MAX_CONNECTIONS_PER_CLIENT: 2, RATE_LIMIT_ENABLED: 'true' },
  });
  const fates = Array.from({ length: 60 }, (_, index) =>
    clientFate(proxy.address, { from: `127.77.7.${(index % 40) + 1}` }),
  );
  await Promise.all(fates);
  const { body } = await scrape(proxy, 'identity');
  assert.ok(!/127\.77\.7|127\.0\.0\.1/.test(body.toString()), 'an address is in the page');
});

test('metrics: 10,000 backends make no more series than allowed; the rest are summed up', async () => {
  const last = 9999;
  await using backend = await startBackend(sayName('last'));
  const backends = Array.from({ length: last + 1 }, (_, index) => ({
    id: index === last ? 'last' : `b${index}`,
    ...(index === last ? backend.row : { address: '10.1.0.1', port: 1 + index, healthy: 0 }),
  }));
  await using proxy = await startProxy({ backends, settings: { METRICS_BACKENDS_MAX: 100 } });
  assert.equal(await backendName(proxy.address), 'last');
  await proxy.untilMetric('edge_session_end_total', 1, { reason: 'completed' });
  const plain = await scrape(proxy, 'identity');
  const metrics = new Metrics(plain.body.toString());
  const labels = { backend: 'other', summed: 'true' };
  assert.equal(metrics.get('edge_backend_connections_total', labels), 1);
  assert.equal(metrics.get('edge_backend_latency_ms_count', labels), 1);
  assert.equal(metrics.get('edge_backends_current'), 10_000);
  const series = new Set(metrics.samples.flatMap((sample) => sample.labels.backend ?? []));
  assert.equal(series.size, 101);
  assert.ok(plain.body.length < 400_000, `${plain.body.length} bytes`);

  const zipped = await scrape(proxy, 'br, gzip;q=0.8');
  assert.deepEqual([plain.coding, zipped.coding], ['', 'gzip']);
  assert.ok(zipped.body.length * 5 < plain.body.length, `${zipped.body.length} bytes`);
  const same = new Metrics(gunzipSync(zipped.body).toString());
  assert.equal(same.get('edge_backend_connections_total'), 1);
  assert.equal((await scrape(proxy, 'gzip;q=0')).coding, '');
});

test('metrics: a scraper that leaves in the middle, or never reads, harms nobody', async () => {
  await using backend = await startBackend(sayName('a'));
  const backends = Array.from({ length: 3000 }, (_, index) => ({
    id: `b${index}`,
    ...backend.row,
  }));
  await using proxy = await startProxy({ backends, settings: { METRICS_BACKENDS_MAX: 3000 } });
  const admin = proxy.admin;
  assert.ok(admin);
  const request = 'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n';
  const silent = await openClient(admin);
  silent.pause();
  silent.write(request);
  for (let round = 0; round < 10; round++) {
    const leaver = await openClient(admin);
    leaver.write(request);
    await new Promise((resolve) => leaver.once('data', resolve));
    leaver.resetAndDestroy();
  }
  const metrics = await proxy.metrics();
  assert.equal(metrics.get('edge_backends_current'), 3000);
  assert.deepEqual(
    proxy.logs.filter(({ level }) => level === 'error' || level === 'warn'),
    [],
  );
  silent.write(request);
  const reading = readToEnd(silent);
  assert.equal((await proxy.stop()).code, 0);
  await reading;
});
