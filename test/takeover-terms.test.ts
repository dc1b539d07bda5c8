// The terms of a takeover: who may, of what, what becomes of the rest, and what a service manager and signals do meanwhile.

import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { takeoverName } from '../src/control/takeover-protocol.ts';
import { closeDescriptor } from '../src/sys/socket.ts';
import {
  acceptUnix,
  connectUnix,
  listenUnix,
  openUnixSocket,
  sendPacket,
} from '../src/sys/unix-socket.ts';
import { backendName, echoOnce, openClient, readToEnd } from '../src/testing/clients.ts';
import { skipReason } from '../src/testing/netns.ts';
import {
  type HostPort,
  ProxyProcess,
  startProxy,
  TEST_ENGINE,
} from '../src/testing/proxy-process.ts';
import { NotifySocket } from '../src/testing/service-manager.ts';
import {
  addressText,
  DONE,
  failureOf,
  openSuccessor,
  startSuccessor,
} from '../src/testing/successor.ts';
import { echo, hold, refusedPort, sayName, startBackend } from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

const skip = TEST_ENGINE === 'portable' && 'node:net can neither pass on nor take over a listener';
const NOBODY = 65_534;

test('takeover: switched off on either side, an address in use is an error', { skip }, async () => {
  await using backend = await startBackend(sayName('a'));
  const backends = [{ id: 'a', ...backend.row }];
  const off = { TAKEOVER: 'false' };
  for (const [mine, theirs] of [
    [off, {}],
    [{}, off],
  ]) {
    await using old = await startProxy({ backends, settings: mine });
    await using next = openSuccessor(old, backends, theirs);
    const { code, said } = await failureOf(next);
    assert.equal(code, 1);
    assert.match(said, /EADDRINUSE, another process listens there; stop it/);
    assert.equal(await backendName(old.address), 'a');
    assert.equal(old.logs.length, 1, JSON.stringify(old.logs));
  }
});

test('takeover: by the portable engine is not possible, and it says so', { skip }, async () => {
  await using old = await startProxy({ backends: [] });
  await using next = openSuccessor(old, [], { ENGINE: 'portable' });
  const { code, said } = await failureOf(next);
  assert.equal(code, 1);
  assert.match(said, /EADDRINUSE.*the portable engine takes nothing over/);
});

test('takeover: by another user is refused; root may', {
  skip: skip || (process.getuid?.() === 0 ? false : skipReason('switching users needs root')),
}, async (context) => {
  await using backend = await startBackend(sayName('a'));
  const backends = [{ id: 'a', ...backend.row }];
  await using old = await startProxy({ backends });
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-nobody-'));
  chmodSync(directory, 0o755);
  context.after(() => rmSync(directory, { recursive: true }));
  const wrapper = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
  await using next = new ProxyProcess({
    backends,
    settings: { LISTEN_ADDR: addressText(old.address) },
    directory,
    wrapper,
  });
  const { code, said } = await failureOf(next);
  assert.equal(code, 1, said);
  assert.match(said, /EADDRINUSE.*it cannot be taken over: it belongs to another user/);
  assert.equal(old.log('A process of another user may not take over')?.uid, NOBODY);
  await using theirs = await startProxy({ directory, wrapper });
  await using rooted = await startSuccessor(theirs, backends);
  assert.equal(rooted.log('Took over')?.uid, NOBODY);
  assert.equal(await backendName(rooted.address), 'a');
  assert.deepEqual(await within('the end', theirs.exited), DONE);
});

test('takeover: of some addresses; the others are closed once their queue is served, new ones opened', {
  skip,
}, async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  const backends = [
    { id: 'a', app: 'a', ...a.row },
    { id: 'b', app: 'b', ...b.row },
  ];
  await using old = await startProxy({
    backends,
    settings: { LISTEN_ADDR: 'a@127.0.0.1:0,a@127.0.0.1:0,a@[::1]:0' },
  });
  const [kept, dropped, six] = old.addresses as [HostPort, HostPort, HostPort];
  const fresh = await refusedPort();
  // The app of an address is the new process' to say.
  const LISTEN_ADDR = `b@${addressText(six)},b@127.0.0.1:${fresh},a@${addressText(kept)}`;
  await using next = await startProxy({ backends, settings: { LISTEN_ADDR } });
  assert.deepEqual(
    next.addresses.map(({ port }) => port),
    [six.port, fresh, kept.port],
  );
  assert.deepEqual(await within('the end', old.exited), DONE);
  assert.equal(await backendName(six), 'b');
  assert.equal(await backendName({ host: '127.0.0.1', port: fresh }), 'b');
  assert.equal(await backendName(kept), 'a');
  await assert.rejects(openClient(dropped), { code: 'ECONNREFUSED' });
});

test('takeover: from two processes at once, one for each address', { skip }, async () => {
  await using backend = await startBackend(sayName('a'));
  const backends = [{ id: 'a', ...backend.row }];
  await using one = await startProxy({ backends });
  await using two = await startProxy({ backends });
  const LISTEN_ADDR = `${addressText(one.address)},${addressText(two.address)}`;
  await using next = await startProxy({ backends, settings: { LISTEN_ADDR } });
  for (const old of [one, two]) {
    assert.deepEqual(await within('the end', old.exited), DONE);
    assert.equal(await backendName(old.address), 'a');
  }
  assert.equal(next.exit, null);
});

test('takeover: a process of another version, or that says nothing sensible, is left alone', {
  skip,
}, async () => {
  await using busy = await startBackend(hold);
  const address = `127.0.0.1:${busy.port}`;
  const name = openUnixSocket('packets');
  assert.equal(listenUnix(name, takeoverName(address), 4), 0);
  const says = [
    ['{"protocol":"edgeproxy-takeover","version":2,"type":"offer"}', /it speaks version 2 of the/],
    ['{"protocol":"edgeproxy-takeover","version":1,"type":"offer"}', /it says something else/],
    ['nonsense', /it says something else/],
    ['', /it ended/],
  ] as const;
  for (const [words, said] of says) {
    await using next = new ProxyProcess({ backends: [], settings: { LISTEN_ADDR: address } });
    const socket = await until('the new process to ask', () => {
      const accepted = acceptUnix(name);
      return accepted >= 0 ? accepted : null;
    });
    if (words !== '') sendPacket(socket, words);
    closeDescriptor(socket);
    const result = await failureOf(next);
    assert.equal(result.code, 1);
    assert.match(result.said, said);
    assert.match(result.said, /EADDRINUSE/);
  }
  closeDescriptor(name);
});

test('takeover: where somebody else has the name of the offer it is made later, with a warning until then', {
  skip,
}, async () => {
  await using backend = await startBackend(sayName('a'));
  const backends = [{ id: 'a', ...backend.row }];
  const address = `127.0.0.1:${await refusedPort()}`;
  const squatter = openUnixSocket('packets');
  assert.equal(listenUnix(squatter, takeoverName(address), 1), 0);
  await using old = await startProxy({ backends, settings: { LISTEN_ADDR: address } });
  const warning = await old.untilLog('A listener cannot be offered to a new process');
  assert.match(String(warning.reason), /another process has the name @edgeproxy-takeover/);
  assert.equal(await backendName(old.address), 'a');
  closeDescriptor(squatter);
  const probe = openUnixSocket('packets');
  await until('the offer', () => connectUnix(probe, takeoverName(address)) === 0);
  closeDescriptor(probe);
  await using next = await startSuccessor(old, backends);
  assert.deepEqual(await within('the end', old.exited), DONE);
  assert.equal(await backendName(next.address), 'a');
});

test('takeover: signals to the old process: the first spares its sessions, the next ends them', {
  skip,
}, async () => {
  await using backend = await startBackend(echo);
  const backends = [{ id: 'a', ...backend.row }];
  await using old = await startProxy({ backends });
  const client = await openClient(old.address);
  await echoOnce(client, 'hello');
  await using next = await startSuccessor(old, backends);
  old.signal('SIGTERM');
  await old.untilLog('Draining after a takeover already, another signal ends at once');
  await echoOnce(client, 'still served');
  const fate = readToEnd(client);
  assert.deepEqual(await old.stop('SIGTERM'), DONE);
  assert.equal((await fate).end, 'ECONNRESET');
  assert.equal(old.log('Stopped')?.sessionsCut, 1);
  assert.deepEqual(await next.stop(), DONE);
});

test('takeover: the sessions of the old process end at its own deadline', { skip }, async () => {
  await using backend = await startBackend(echo);
  const backends = [{ id: 'a', ...backend.row }];
  await using old = await startProxy({ backends, settings: { SHUTDOWN_TIMEOUT_SECS: 0.3 } });
  const client = await openClient(old.address);
  await echoOnce(client, 'hello');
  const fate = readToEnd(client);
  await using next = await startSuccessor(old, backends);
  assert.deepEqual(await within('the end', old.exited), DONE);
  assert.equal((await fate).end, 'ECONNRESET');
  assert.equal(next.exit, null);
});

test('takeover: the admin address goes along, at once', { skip }, async () => {
  await using backend = await startBackend(echo);
  const backends = [{ id: 'a', ...backend.row }];
  const settings = { METRICS_LISTEN_ADDR: `127.0.0.1:${await refusedPort()}` };
  await using old = await startProxy({ backends, settings });
  const client = await openClient(old.address);
  await echoOnce(client, 'hello');
  await using next = await startSuccessor(old, backends, settings);
  assert.equal(next.log('Metrics cannot be served yet, trying again'), undefined);
  assert.deepEqual(next.admin, old.admin);
  assert.equal((await next.page('/readyz')).status, 200);
  assert.equal((await next.metrics()).get('edge_connections_current'), 0);
  client.end();
  assert.deepEqual(await within('the end', old.exited), DONE);
});

test('takeover: the service manager is told to follow the new process, by the old one, and heeds it', {
  skip,
}, async () => {
  await using backend = await startBackend(echo);
  const backends = [{ id: 'a', ...backend.row }];
  using manager = new NotifySocket();
  const wrapper = ['env', `NOTIFY_SOCKET=${manager.address}`];
  await using old = await startProxy({ backends, wrapper });
  await manager.message('READY=1');
  // Started by hand, without NOTIFY_SOCKET: it gets that from the old one.
  await using next = await startSuccessor(old, backends);
  await manager.message(`MAINPID=${next.pid}`);
  assert.deepEqual(await within('the end', old.exited), DONE);
  next.signal('SIGHUP');
  await manager.message('RELOADING=1');
  assert.deepEqual(await next.stop(), DONE);
  await manager.message('STOPPING=1');
  const heard = manager.messages.map((message) => message.split('\n')[0]);
  const expected = [
    'READY=1',
    `MAINPID=${next.pid}`,
    'READY=1',
    'RELOADING=1',
    'READY=1',
    'STOPPING=1',
  ];
  assert.deepEqual(heard, expected);
});
