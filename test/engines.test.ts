// The same proxy on each engine, and the choice of one: by setting, and by what the kernel allows.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { ENOSYS, EPERM, errnoName } from '../src/sys/errno.ts';
import {
  echoOnce,
  exchange,
  hashStream,
  openClients,
  readToEnd,
  sendBulk,
} from '../src/testing/clients.ts';
import { skipReason } from '../src/testing/netns.ts';
import { connectionsBalance, ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { openScene, type Scene } from '../src/testing/scene.ts';
import { refusingUring, seccompProblem } from '../src/testing/seccomp.ts';
import { echo, hold, sayName, startBackend } from '../src/testing/test-backends.ts';
import { within } from '../src/testing/wait.ts';

const MB = 2 ** 20;

for (const engine of ['uring', 'epoll', 'portable']) {
  describe(`engine ${engine}`, () => {
    let scene: Scene;
    before(async () => {
      scene = await openScene({ ENGINE: engine, WORKERS: engine === 'portable' ? 1 : 2 });
    });
    after(() => scene[Symbol.asyncDispose]());

    test(`${engine}: is the one in use`, async () => {
      await scene.begin(echo);
      assert.equal((await scene.proxy.metrics()).get('edge_engine_info', { engine }), 1);
    });

    test(`${engine}: 20 MB each way arrive unchanged, with slow readers`, async () => {
      await scene.begin(hold);
      const { client, server } = await scene.openPair();
      const pace = { restEvery: MB, restMs: 2 };
      const [atServer, atClient] = [hashStream(server, undefined, pace), hashStream(client)];
      const send = async (socket: Socket, seed: number): Promise<string> => {
        const hash = await sendBulk(socket, 20 * MB, seed);
        socket.end();
        return hash;
      };
      const [up, down] = await Promise.all([send(client, 1), send(server, 2)]);
      assert.deepEqual(await atServer, { bytes: 20 * MB, hash: up, end: 'fin' });
      assert.deepEqual(await atClient, { bytes: 20 * MB, hash: down, end: 'fin' });
      await scene.ended('completed');
    });

    test(`${engine}: half-close is kept in both orders`, async () => {
      await scene.begin(hold);
      for (const clientFirst of [true, false]) {
        const { client, server } = await scene.openPair();
        const [first, second] = clientFirst ? [client, server] : [server, client];
        const atSecond = readToEnd(second);
        first.end('first');
        assert.deepEqual(await atSecond, { bytes: Buffer.from('first'), end: 'fin' });
        const atFirst = readToEnd(first);
        second.end('second');
        assert.deepEqual(await atFirst, { bytes: Buffer.from('second'), end: 'fin' });
      }
      await scene.ended('completed', 2);
    });

    test(`${engine}: RST crosses in both directions`, async () => {
      await scene.begin(hold);
      for (const [count, clientResets] of [true, false].entries()) {
        const { client, server } = await scene.openPair();
        // A backend that resets before the proxy has looked at its connect counts as one that refused.
        await scene.untilGrown('edge_backend_connections_total', count + 1, { backend: 'a' });
        const [actor, other] = clientResets ? [client, server] : [server, client];
        const atOther = readToEnd(other);
        actor.resetAndDestroy();
        assert.equal((await atOther).end, 'ECONNRESET');
      }
      await scene.ended('client_reset');
      await scene.ended('backend_reset');
    });

    test(`${engine}: 400 sessions at once are served and leave nothing behind`, async () => {
      await scene.begin(echo);
      const { proxy, backend } = scene;
      const idle = await proxy.settledDescriptors();
      const clients = await openClients(
        proxy.address,
        400,
        (index) => `127.8.0.${(index % 250) + 1}`,
      );
      await Promise.all(clients.map((client, index) => echoOnce(client, `hello from ${index}`)));
      assert.equal(backend.sockets.size, 400);
      for (const client of clients) client.destroy();
      const metrics = await proxy.untilMetric('edge_connections_current', 0);
      const { accepted, accounted } = connectionsBalance(metrics);
      assert.equal(accepted, accounted);
      await proxy.untilDescriptors(idle);
    });

    test(`${engine}: SIGTERM lets an open session finish`, async () => {
      await scene.begin(echo);
      const { client } = await scene.openPair();
      await echoOnce(client, 'before');
      scene.proxy.signal('SIGTERM');
      await scene.proxy.untilLog('Draining');
      await echoOnce(client, 'while draining');
      const reading = readToEnd(client);
      client.end('last');
      assert.deepEqual(await reading, { bytes: Buffer.from('last'), end: 'fin' });
      assert.equal((await within('the end', scene.proxy.exited)).code, 0);
    });
  });
}

const noSeccomp = seccompProblem();
const REFUSALS = [
  { errno: EPERM, saying: /io_uring is refused \(EPERM\) by a seccomp filter/ },
  { errno: ENOSYS, saying: /io_uring is missing \(ENOSYS\): a seccomp filter hides it/ },
];

for (const { errno, saying } of REFUSALS) {
  const skip = noSeccomp === '' ? false : skipReason(noSeccomp);
  test(`engine auto: under a seccomp filter that answers ${errnoName(errno)} the proxy runs on epoll and says why`, {
    skip,
  }, async () => {
    await using backend = await startBackend(sayName('a'));
    const backends = [{ id: 'a', ...backend.row }];
    const wrapper = refusingUring(errno);
    const settings = { WORKERS: 2, ENGINE: 'auto' };
    await using proxy = await startProxy({ backends, wrapper, settings });
    assert.deepEqual(await exchange(proxy.address, 'hello'), { text: 'a', end: 'fin' });
    assert.equal((await proxy.metrics()).get('edge_engine_info', { engine: 'epoll' }), 1);
    // Once, not once for each worker.
    assert.equal(proxy.logs.filter((line) => saying.test(JSON.stringify(line))).length, 1);

    await using strict = new ProxyProcess({ backends, wrapper, settings: { ENGINE: 'uring' } });
    assert.equal((await within('the end', strict.exited)).code, 1);
    assert.match(strict.stderrText + JSON.stringify(strict.logs), /Cannot start: io_uring is/);
  });
}

test('engine auto: without node:ffi the proxy runs on node:net and says why', async () => {
  await using backend = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { ENGINE: 'auto' },
    wrapper: ['env', 'NODE_OPTIONS=--no-experimental-ffi'],
  });
  assert.deepEqual(await exchange(proxy.address, 'hello'), { text: 'a', end: 'fin' });
  assert.equal((await proxy.metrics()).get('edge_engine_info', { engine: 'portable' }), 1);
  assert.match(JSON.stringify(proxy.logs), /node:ffi/);
});
