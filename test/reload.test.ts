// Changes of routing.db while running: new clients follow them, open sessions are not touched.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backendName, echoOnce, openClient } from '../src/testing/clients.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { writeRouting } from '../src/testing/routing-file.ts';
import { echo, sayName, startBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

/** Waits until a client at this address gets this backend: the workers have the new routing. */
async function untilRouted(proxy: ProxyProcess, from: string, name: string): Promise<void> {
  await until(`${from} to be routed to "${name}"`, async () => {
    return (await backendName(proxy.address, { from })) === name;
  });
}

test('reload: sessions talk on through a hundred reloads, each of which new clients follow', async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using talk = await startBackend(echo);
  await using proxy = await startProxy({ backends: [{ id: 'talk', ...talk.row }] });
  const clients = await Promise.all(Array.from({ length: 20 }, () => openClient(proxy.address)));
  // Connected is not yet accepted: a client that still waits in the queue would follow the first reload.
  await Promise.all(clients.map((client, index) => echoOnce(client, `client ${index} is served`)));
  let rounds = 0;
  let stop = false;
  const talking = clients.map(async (client, index) => {
    for (let turn = 0; !stop; turn++) {
      await echoOnce(client, `client ${index} turn ${turn}`);
      rounds++;
    }
  });
  for (let reload = 0; reload < 50; reload++) {
    // One commit takes one backend out and the other in; a client that meets neither would get RST.
    writeRouting(proxy.dbPath, [{ id: 'a', ...a.row }]);
    writeRouting(proxy.dbPath, [reload % 2 === 0 ? { id: 'b', ...b.row } : { id: 'a', ...a.row }]);
    await untilRouted(proxy, `127.6.0.${reload + 1}`, reload % 2 === 0 ? 'b' : 'a');
  }
  stop = true;
  await Promise.all(talking);
  assert.ok(rounds > 1000, `only ${rounds} exchanges happened meanwhile`);
  assert.equal(talk.sockets.size, 20, 'no session was touched');
  const metrics = await proxy.metrics();
  assert.deepEqual(metrics.nonZero('edge_rejected_total', 'reason'), {});
  assert.ok(metrics.get('edge_routing_version') > 50);
  for (const client of clients) client.destroy();
});

test('reload: a commit is followed although the safety-net poll is an hour away', async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...a.row }],
    settings: { DB_RELOAD_SECS: 3600 },
  });
  await untilRouted(proxy, '127.6.1.1', 'a');
  writeRouting(proxy.dbPath, [{ id: 'b', ...b.row }]);
  await untilRouted(proxy, '127.6.1.1', 'b');
});

test('reload: limits and counts of a backend go on through changes of its row', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  const held = await openClient(proxy.address, { from: '127.6.2.1' });
  await backend.next(0);
  await proxy.reroute("UPDATE backends SET hard_limit = 1, weight = 5, region = 'eu'");
  await until('the limit to hold', async () => {
    return (await backendName(proxy.address, { from: '127.6.2.2' })) === '';
  });
  held.destroy();
  await proxy.untilMetric('edge_backend_connections_current', 0, { backend: 'a' });
  assert.equal(await backendName(proxy.address, { from: '127.6.2.2' }), 'a');
});

test('reload: an id that goes and comes back keeps its count, a new id in its place starts at zero', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row, hardLimit: 1 }],
  });
  const held = await openClient(proxy.address, { from: '127.6.3.1' });
  await backend.next(0);
  await proxy.reroute([]);
  await until('the id to be gone', async () => {
    return (await backendName(proxy.address, { from: '127.6.3.2' })) === '';
  });
  await proxy.reroute([{ id: 'a', ...backend.row, hardLimit: 1 }]);
  assert.equal(await backendName(proxy.address, { from: '127.6.3.2' }), '', 'still full');
  await proxy.reroute([{ id: 'other', ...backend.row, hardLimit: 1 }]);
  await untilRouted(proxy, '127.6.3.2', 'a');
  held.destroy();
  await proxy.untilMetric('edge_connections_current', 0);
});
