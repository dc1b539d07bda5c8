// EDGEPROXY_USER: started as root, serving as somebody else, in every thread, and all that must still work then.

import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { backendName, echoOnce, openClient } from '../src/testing/clients.ts';
import { skipReason } from '../src/testing/netns.ts';
import {
  type ProxyOptions,
  ProxyProcess,
  startProxy,
  TEST_ENGINE,
} from '../src/testing/proxy-process.ts';
import { changeRouting } from '../src/testing/routing-file.ts';
import { DONE, failureOf } from '../src/testing/successor.ts';
import { echo, sayName, startBackend } from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

const skip = process.getuid?.() === 0 ? false : skipReason('switching users needs root');
const NOBODY = 65_534;
/** Its workers listen by themselves, when they are nobody already. */
const skipPortable =
  skip || (TEST_ENGINE === 'portable' && 'node:net cannot bind before the change');
/** Only root may bind there, and nobody else does. */
const PRIVILEGED = '127.83.7.19:443';
const ADMIN = '127.83.7.19:9090';

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'edgeproxy-nobody-'));
  chmodSync(directory, 0o755);
});
after(() => rmSync(directory, { recursive: true }));

function asNobody(settings: ProxyOptions['settings'] = {}): ProxyOptions {
  return {
    directory,
    wrapper: ['env', 'EDGEPROXY_FAULT_INJECTION=1'],
    settings: { USER: 'nobody', LISTEN_ADDR: PRIVILEGED, ...settings },
  };
}

/** What each thread of a process, of this name, says under these names in /proc, without repetitions. */
function threadStates(pid: number, names: readonly string[], ofName = /^/): string[] {
  const states = new Set<string>();
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8');
    if (!ofName.test(status)) continue;
    for (const line of status.split('\n')) {
      const [name = '', value = ''] = line.split(':');
      if (names.includes(name)) states.add(`${name} ${value.trim().replaceAll(/\s+/g, ' ')}`);
    }
  }
  return [...states].sort();
}

function assertNobody(pid: number): void {
  assert.deepEqual(threadStates(pid, ['Uid', 'Gid', 'Groups', 'CapEff', 'CapPrm']), [
    'CapEff 0000000000000000',
    'CapPrm 0000000000000000',
    `Gid ${NOBODY} ${NOBODY} ${NOBODY} ${NOBODY}`,
    `Groups ${NOBODY}`,
    `Uid ${NOBODY} ${NOBODY} ${NOBODY} ${NOBODY}`,
  ]);
  assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^NoNewPrivs:\t1$/m);
  // It holds for the threads that are started afterwards: those who talk to clients must be among them.
  const worker = /^Name:\tedgeproxy worke/;
  assert.deepEqual(threadStates(pid, ['NoNewPrivs'], worker), ['NoNewPrivs 1']);
}

test('user: binds a port of root, serves as nobody in all threads; reload, worker restart and takeover work', {
  skip: skipPortable,
}, async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using held = await startBackend(echo);
  const backends = [
    { id: 'a', app: 'a', ...a.row },
    { id: 'held', app: 'held', ...held.row },
  ];
  const settings = {
    LISTEN_ADDR: `a@${PRIVILEGED},held@127.0.0.1:0`,
    METRICS_LISTEN_ADDR: ADMIN,
    WORKERS: 3,
  };
  await using proxy = await startProxy({ ...asNobody(settings), backends });
  assertNobody(proxy.pid);
  const client = await openClient(proxy.addresses[1] as { host: string; port: number });
  await echoOnce(client, 'hello');
  assert.equal(await backendName(proxy.address), 'a');
  changeRouting(proxy.dbPath, `UPDATE backends SET id = 'b', port = ${b.row.port} WHERE id = 'a'`);
  proxy.signal('SIGHUP');
  await until('the new routing', async () => (await backendName(proxy.address)) === 'b');
  proxy.signal('SIGUSR2');
  await proxy.untilLog('A worker was replaced');
  for (let index = 1; index < 10; index++) {
    assert.equal(await backendName(proxy.address, { from: `127.83.8.${index}` }), 'b');
  }
  assertNobody(proxy.pid);
  // Root again, which becomes nobody again; more workers than before, so more sockets of a port of root's.
  await using next = await startProxy(asNobody({ ...settings, WORKERS: 5 }));
  assert.equal(next.log('Metrics cannot be served yet, trying again'), undefined);
  assert.equal((await next.page('/healthz')).status, 200);
  assert.equal(await backendName(next.address), 'b');
  assertNobody(next.pid);
  client.destroy();
  assert.deepEqual(await within('the end', proxy.exited), DONE);
  assert.deepEqual(await next.stop(), DONE);
});

test('user: a process that is that user already takes over from one that became it', {
  skip: skipPortable,
}, async () => {
  await using backend = await startBackend(sayName('a'));
  const backends = [{ id: 'a', ...backend.row }];
  await using old = await startProxy({ ...asNobody(), backends });
  await using next = await startProxy({
    ...asNobody(),
    wrapper: ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'],
  });
  assert.deepEqual(await within('the end', old.exited), DONE);
  assert.equal(await backendName(next.address), 'a');
});

test('user: numbers, and a group of its own choice', { skip }, async () => {
  await using proxy = await startProxy({
    ...asNobody({ USER: '54321:12345', LISTEN_ADDR: '127.0.0.1:0' }),
    backends: [],
  });
  assert.deepEqual(threadStates(proxy.pid, ['Uid', 'Gid', 'Groups']), [
    'Gid 12345 12345 12345 12345',
    'Groups 12345',
    'Uid 54321 54321 54321 54321',
  ]);
});

test('user: one that does not exist, or may not be become, stops the start with 2 and its name', {
  skip,
}, async () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ['nosuchuser', /EDGEPROXY_USER is "nosuchuser", allowed: a user.*there is no "nosuchuser"/],
    ['nobody:nosuchgroup', /there is no "nosuchgroup"/],
    ['54321', /allowed: 54321:GROUP/],
    ['a b', /EDGEPROXY_USER is "a b", allowed: NAME or NAME:GROUP/],
  ];
  for (const [USER, expected] of cases) {
    await using proxy = new ProxyProcess({ ...asNobody({ USER }), backends: [] });
    const { code, said } = await failureOf(proxy);
    assert.equal(code, 2, said);
    assert.match(said.replaceAll('\\', ''), expected);
  }
  await using proxy = new ProxyProcess({
    ...asNobody({ USER: 'daemon' }),
    backends: [],
    wrapper: ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'],
  });
  const { code, said } = await failureOf(proxy);
  assert.equal(code, 2);
  assert.match(said, /which only root may become: this process was started by user 65534/);
});

test('user: a database it may not read is a clear error at start, whoever starts', {
  skip,
}, async () => {
  await using backend = await startBackend(sayName('a'));
  const secret = mkdtempSync(join(tmpdir(), 'edgeproxy-secret-'));
  await using proxy = new ProxyProcess({
    ...asNobody({ LISTEN_ADDR: '127.0.0.1:0' }),
    directory: secret,
    backends: [{ id: 'a', ...backend.row }],
  });
  const { code, said } = await failureOf(proxy);
  rmSync(secret, { recursive: true });
  assert.equal(code, 1);
  assert.match(
    said,
    /Cannot read routing database .* as user .*nobody.* \(EDGEPROXY_USER\): EACCES/,
  );
});
