// Under a service manager: sockets passed at the start (sd_listen_fds(3)) and states reported to it (sd_notify(3)).

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseAddress } from '../src/sys/sockaddr.ts';
import { boundAddress, closeDescriptor, openListener } from '../src/sys/socket.ts';
import { backendName, echoOnce, openClient, openClients } from '../src/testing/clients.ts';
import { ProxyProcess, startProxy, TEST_ENGINE } from '../src/testing/proxy-process.ts';
import { NotifySocket, passingSockets } from '../src/testing/service-manager.ts';
import { failureOf } from '../src/testing/successor.ts';
import { echo, sayName, startBackend } from '../src/testing/test-backends.ts';
import { within } from '../src/testing/wait.ts';

const NEEDS_DESCRIPTORS =
  TEST_ENGINE === 'portable' && 'node:net cannot take a listening socket over';

/** A listening socket of the test, as a .socket unit has it. */
class UnitSocket implements Disposable {
  readonly descriptor: number;
  readonly port: number;

  constructor(host: string, v6Only = true) {
    const parsed = parseAddress(host);
    if (parsed === null) throw new Error(`${host} is not an address`);
    const options = { backlog: 512, fastOpenQueue: 0, reusePort: false, v6Only };
    this.descriptor = openListener({ ...parsed, port: 0 }, options);
    this.port = boundAddress(this.descriptor)?.port ?? 0;
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.descriptor);
  }
}

test('passed sockets: serve their addresses, with the app of the setting, and who connected before', {
  skip: NEEDS_DESCRIPTORS,
}, async () => {
  await using web = await startBackend(sayName('web'));
  await using mail = await startBackend(sayName('mail'));
  using four = new UnitSocket('127.0.0.1');
  using six = new UnitSocket('::1');
  const early = await openClient({ host: '127.0.0.1', port: four.port });
  const [at4, at6] = [`127.0.0.1:${four.port}`, `[::1]:${six.port}`];
  await using proxy = await startProxy({
    backends: [
      { id: 'w', app: 'web', ...web.row },
      { id: 'm', app: 'mail', ...mail.row },
    ],
    settings: { LISTEN_ADDR: `web@${at4},mail@${at6},mail@127.0.0.1:0`, WORKERS: 3 },
    descriptors: [four.descriptor, six.descriptor],
    wrapper: passingSockets(2, 'web:mail'),
  });
  const addresses = proxy.log('Listening')?.addresses as string[];
  assert.deepEqual(addresses.slice(0, 2), [`web@${at4}`, `mail@${at6}`]);
  assert.equal(
    ((await new Promise((resolve) => early.once('data', resolve))) as Buffer).toString(),
    'web',
  );
  early.destroy();
  for (let index = 1; index < 20; index++) {
    const from = `127.6.0.${index}`;
    assert.equal(await backendName({ host: '127.0.0.1', port: four.port }, { from }), 'web');
    assert.equal(await backendName({ host: '::1', port: six.port }), 'mail');
  }
  const own = proxy.addresses[2];
  assert.ok(own !== undefined);
  assert.equal(await backendName(own), 'mail');
  const environment = readFileSync(`/proc/${proxy.pid}/environ`, 'utf8');
  assert.match(environment, /LISTEN_FDS=2/);
  assert.equal((await proxy.stop()).code, 0);
  // Still bound by its owner: the next start finds who connects now.
  (await openClient({ host: '127.0.0.1', port: four.port })).destroy();
});

test('passed sockets: every worker accepts on the one socket there is', {
  skip: NEEDS_DESCRIPTORS,
}, async () => {
  await using backend = await startBackend(echo);
  using socket = new UnitSocket('127.0.0.1');
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { LISTEN_ADDR: `127.0.0.1:${socket.port}`, WORKERS: 2 },
    descriptors: [socket.descriptor],
    wrapper: ['env', 'EDGEPROXY_FAULT_INJECTION=1', ...passingSockets(1, 'edge')],
  });
  for (let round = 0; round < 3; round++) {
    const from = proxy.logs.length;
    const clients = [];
    // One after another: together they might all be there before the second worker wakes.
    for (let index = 0; index < 24; index++) {
      const client = await openClient(proxy.address, { from: `127.6.1.${index + 1}` });
      await echoOnce(client, 'hello');
      clients.push(client);
    }
    proxy.signal('SIGUSR2');
    const { sessionsLost } = await proxy.untilLog('A worker died and is replaced', from);
    assert.ok(Number(sessionsLost) >= 8 && Number(sessionsLost) <= 16, `${sessionsLost} of 24`);
    await proxy.untilLog('A worker was replaced', from);
    for (const client of clients) client.destroy();
    await proxy.untilMetric('edge_connections_current', 0);
  }
  const many = await openClients(proxy.address, 200, (index) => `127.6.2.${index + 1}`);
  await Promise.all(many.map((client) => echoOnce(client, 'at once')));
  for (const client of many) client.destroy();
});

test('passed sockets: one that no setting wants, or that does not listen, stops the start', {
  skip: NEEDS_DESCRIPTORS,
}, async () => {
  using socket = new UnitSocket('127.0.0.1');
  using dual = new UnitSocket('::', false);
  const at = `127.0.0.1:${socket.port}`;
  await using unwanted = new ProxyProcess({
    backends: [],
    descriptors: [socket.descriptor],
    wrapper: passingSockets(1, 'edge.socket'),
  });
  const { code, said } = await failureOf(unwanted);
  assert.equal(code, 2);
  assert.match(
    said,
    new RegExp(`Socket 3 \\(edge.socket\\) of LISTEN_FDS is bound to ${at}, which`),
  );
  await using missing = new ProxyProcess({
    backends: [],
    settings: { LISTEN_ADDR: at },
    descriptors: [socket.descriptor, 1],
    wrapper: passingSockets(2, ''),
  });
  const second = await failureOf(missing);
  assert.equal(second.code, 2);
  assert.match(second.said, /Socket 4 of LISTEN_FDS is not a listening TCP socket/);
  await using misfit = new ProxyProcess({
    backends: [],
    settings: { LISTEN_ADDR: `[::]:${dual.port},0.0.0.0:${dual.port}` },
    descriptors: [dual.descriptor],
    wrapper: passingSockets(1, ''),
  });
  assert.match((await failureOf(misfit)).said, /takes IPv4 clients, too.*BindIPv6Only=ipv6-only/);
});

test('passed sockets: those of another process are left alone', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    wrapper: ['env', 'LISTEN_PID=1', 'LISTEN_FDS=1'],
  });
  assert.equal(await backendName(proxy.address), 'a');
});

test('passed sockets: the portable engine says that it cannot use them', async () => {
  using socket = new UnitSocket('127.0.0.1');
  await using proxy = new ProxyProcess({
    backends: [],
    settings: { ENGINE: 'portable', LISTEN_ADDR: `127.0.0.1:${socket.port}` },
    descriptors: [socket.descriptor],
    wrapper: passingSockets(1, ''),
  });
  const { code, said } = await failureOf(proxy);
  assert.equal(code, 2);
  assert.match(said, /LISTEN_FDS passes sockets, which engine portable cannot use/);
});

test('notifications: ready, reloading, ready, stopping, each with what the manager needs', async () => {
  await using backend = await startBackend(echo);
  using manager = new NotifySocket();
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { SHUTDOWN_TIMEOUT_SECS: 7 },
    wrapper: ['env', `NOTIFY_SOCKET=${manager.address}`],
  });
  const { host, port } = proxy.address;
  const ready = await manager.message('READY=1');
  assert.ok(ready.split('\n').includes(`STATUS=Serving ${host}:${port}`), ready);
  const client = await openClient(proxy.address);
  await echoOnce(client, 'hello');
  proxy.signal('SIGHUP');
  const reloading = await manager.message('RELOADING=1');
  assert.match(reloading, /^MONOTONIC_USEC=\d+$/m);
  await manager.message('READY=1', manager.messages.indexOf(reloading));
  proxy.signal('SIGTERM');
  const stopping = await manager.message('STOPPING=1');
  assert.match(stopping, /^STATUS=Draining 1 sessions for at most 7 s$/m);
  assert.match(stopping, /^EXTEND_TIMEOUT_USEC=12000000$/m);
  client.end();
  assert.equal((await within('the end', proxy.exited)).code, 0);
  assert.deepEqual(
    manager.messages.map((message) => message.split('\n')[0]),
    ['READY=1', 'RELOADING=1', 'READY=1', 'STOPPING=1'],
  );
});

test('notifications: a manager that is gone is one warning, nothing else', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    wrapper: ['env', 'NOTIFY_SOCKET=@edgeproxy-test-nobody'],
  });
  await proxy.untilLog('The service manager cannot be notified');
  assert.equal(await backendName(proxy.address), 'a');
  assert.equal((await proxy.stop()).code, 0);
  const warnings = proxy.logs.filter(({ message }) => /service manager/.test(message));
  assert.equal(warnings.length, 1);
});
