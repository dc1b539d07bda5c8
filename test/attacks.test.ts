// What an attacker can do without breaking any rule of TCP: hold connections, read nothing, come from everywhere, come and
// go, begin and never finish. Each time others are served as before, and memory stays bounded.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  backendName,
  echoOnce,
  exchange,
  openClient,
  openClients,
} from '../src/testing/clients.ts';
import { FaultHost, faultNetProblem } from '../src/testing/fault-net.ts';
import { BACKEND_HOSTS, LoadRun } from '../src/testing/load-run.ts';
import { skipReason } from '../src/testing/netns.ts';
import {
  NOT_PORTABLE,
  type ProxyProcess,
  startProxy,
  TEST_ENGINE,
} from '../src/testing/proxy-process.ts';
import { echo, sayName, startBackend, trickle } from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

const MB = 2 ** 20;
const problem = faultNetProblem();

/** Memory that the process alone would give back by ending, in bytes (proc(5), smaps_rollup). */
function memoryOf(proxy: ProxyProcess): number {
  const text = readFileSync(`/proc/${proxy.pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1]) * 1024;
}

function address(number: number): string {
  return `127.4.${(number >> 8) & 255}.${number & 255}`;
}

test('attack: thousands of clients that open and say nothing cost next to nothing, and others are served', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { WORKERS: 1 },
  });
  await exchange(proxy.address, 'warm');
  const before = memoryOf(proxy);
  const silent = await openClients(proxy.address, 1500, (index) => address(index));
  await proxy.untilMetric('edge_connections_current', 1500);
  const grown = memoryOf(proxy) - before;
  // The portable engine has objects for each.
  const allowed = TEST_ENGINE === 'portable' ? 60 * MB : 16 * MB;
  assert.ok(grown < allowed, `1,500 silent sessions took ${grown} bytes`);
  assert.equal((await exchange(proxy.address, 'served', { from: '127.9.9.9' })).text, 'served');
  for (const client of silent) client.destroy();
  await proxy.untilMetric('edge_connections_current', 0);
});

test('attack: clients that read nothing cannot keep the buffers from others', {
  skip: NOT_PORTABLE,
}, async () => {
  await using firehose = await startBackend(trickle);
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [
      { id: 'firehose', app: 'firehose', ...firehose.row },
      { id: 'echo', app: 'echo', ...backend.row },
    ],
    settings: {
      WORKERS: 1,
      // 64 buffers.
      BUFFER_MEMORY_MB: 1,
      LISTEN_ADDR: 'firehose@127.0.0.1:0,echo@127.0.0.1:0',
    },
  });
  const [attacked, other] = proxy.addresses;
  const clients = await openClients(attacked!, 80, () => '127.4.0.1');
  for (const client of clients) client.pause();
  let full = 0;
  await until('the buffers to be used up, and to stay so', async () => {
    const inUse = (await proxy.metrics()).get('edge_buffers_in_use');
    full = inUse === 64 ? full + 1 : 0;
    return full > 20;
  });
  const served = await openClient(other!, { from: '127.9.9.9' });
  // Rounds of some seconds each: what one frees, clients that read nothing may take again.
  served.write('still served');
  const [answer] = await within('an answer', once(served, 'data'), 60_000);
  assert.equal(String(answer), 'still served');
  await echoOnce(served, 'and again');
  const metrics = await proxy.metrics();
  assert.ok(metrics.get('edge_buffers_in_use') <= 64);
  assert.ok(metrics.get('edge_session_end_total', { reason: 'buffers_exhausted' }) > 0);
  for (const client of clients) client.destroy();
  await proxy.untilMetric('edge_connections_current', 1);
  await echoOnce(served, 'and after');
  served.destroy();
});

test('attack: 100,000 client addresses fill a small client table and nothing else', {
  // The table is the same for all engines.
  skip: TEST_ENGINE !== 'auto' && 'once is enough',
}, async (t) => {
  const run = await LoadRun.start();
  t.after(() => run.close());
  await using proxy = await startProxy({
    backends: BACKEND_HOSTS.map((host) => ({
      id: host,
      address: host,
      port: run.backendPorts.echo,
    })),
    settings: { WORKERS: 1, CLIENT_TABLE_SIZE: 1000 },
  });
  const { port } = proxy.address;
  const load = (operations: number): Promise<unknown> =>
    run.load(
      { name: 'edgeproxy', pid: proxy.pid, ports: { echo: port, source: port, sink: port } },
      { mode: 'connect', connections: 64, operations, clients: 100_000 },
    );
  await load(1000);
  const before = memoryOf(proxy);
  await load(100_000);
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  assert.ok(metrics.get('edge_connections_total') >= 100_000);
  assert.equal(metrics.get('edge_rejected_total'), 0);
  assert.ok(metrics.get('edge_bindings_current') <= 1000);
  const grown = memoryOf(proxy) - before;
  assert.ok(grown < 16 * MB, `100,000 addresses took ${grown} bytes`);
});

test('attack: clients that come and go by RST leave nothing behind', async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  await exchange(proxy.address, 'warm');
  const open = await proxy.settledDescriptors();
  for (let round = 0; round < 20; round++) {
    const clients = await openClients(proxy.address, 200, (index) => address(index));
    for (const client of clients) client.resetAndDestroy();
  }
  await proxy.untilMetric('edge_connections_current', 0);
  await proxy.untilMetric('edge_backend_connections_current', 0);
  await proxy.untilDescriptors(open);
  assert.equal((await exchange(proxy.address, 'served')).text, 'served');
});

test('attack: a flood of half-open connections does not keep others out', {
  skip: problem === '' ? false : skipReason(problem),
}, async () => {
  using host = new FaultHost();
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { LISTEN_ADDR: '0.0.0.0:0' },
  });
  // SYNs arrive, the ACKs that would finish the handshake do not.
  host.dropAcks();
  const end = host.begin({ host: host.gateway, port: proxy.address.port }, 3000);
  for (let turn = 0; turn < 20; turn++) {
    assert.equal(await backendName(proxy.address, { from: address(turn) }), 'a');
  }
  // One that was finished after all would be a session, and be rejected or ended one day: none was.
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  assert.equal(metrics.get('edge_connections_total'), 20);
  end();
});
