// The mesh through the real program: its commands, `run` that keeps it, and an independent WireGuard (wg-quick) at the other
// end, in a network namespace.

import assert from 'node:assert/strict';
import { chmodSync, readFileSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { hashStream, openClient, sendBulk } from '../../src/testing/clients.ts';
import { MeshScene, meshProblem } from '../../src/testing/mesh-scene.ts';
import { skipReason } from '../../src/testing/netns.ts';
import { changeRouting } from '../../src/testing/routing-file.ts';
import { DONE, failureOf } from '../../src/testing/successor.ts';
import { echo } from '../../src/testing/test-backends.ts';
import { until } from '../../src/testing/wait.ts';

const problem = meshProblem();
const skip = problem === '' ? false : skipReason(problem);
const BULK_BYTES = 24 * 2 ** 20;
/** A key of somebody who is never there. */
const KEY = 'xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=';

function addBackend(scene: MeshScene, port: number): void {
  const columns = 'id, app, region, wg_ip, port';
  changeRouting(
    scene.dbPath,
    `INSERT INTO backends(${columns}) VALUES ('b', 'web', 'sa', '${scene.otherAddress}', ${port})`,
  );
}

/** Sends through an echo, on a connection that stays, and compares. */
async function transfer(client: Socket, seed: number): Promise<void> {
  const received = hashStream(client, BULK_BYTES);
  const sent = await sendBulk(client, BULK_BYTES, seed);
  assert.deepEqual(await received, { bytes: BULK_BYTES, hash: sent, end: '' });
}

test('mesh: a backend joins by one command on each side, and its flows outlive changes and the device', {
  skip,
}, async () => {
  await using scene = new MeshScene();
  assert.match(scene.ok('mesh init'), /Made .*mesh\.key/);
  assert.equal(statSync(scene.keyPath).mode & 0o777, 0o600);
  const file = scene.ok('mesh peer add b1 --generate-key --generate-preshared-key');
  const proxy = await scene.start();
  scene.join(file);
  assert.equal(scene.ping(), '');
  assert.equal(scene.ping(scene.otherAddress6), '');
  await using backend = await scene.host.serve(echo, 0, scene.otherAddress);
  addBackend(scene, backend.port);
  await proxy.untilLog('Routing reloaded');

  const client = await openClient(proxy.address);
  const first = transfer(client, 1);
  await until('the flow to flow', () => backend.bytes > 2 ** 20);
  // Other peers, and another keepalive of this one, while it flows.
  const logs = proxy.logs.length;
  scene.ok(`mesh peer add nobody --public-key ${KEY} --allowed-ips 10.212.0.0/16,fd00:212::/64`);
  await proxy.untilLog('Mesh peers applied', logs);
  assert.match(scene.ip(`route show dev ${scene.name}`), /10\.212\.0\.0\/16/);
  changeRouting(scene.dbPath, "UPDATE peers SET keepalive = 7, mtu = 1300 WHERE id = 'b1'");
  await until('the route MTU', () =>
    scene
      .ip(`route show dev ${scene.name}`)
      .includes(`${scene.otherAddress} proto 213 scope link mtu 1300`),
  );
  scene.ok('mesh peer remove nobody');
  await until(
    'the route to go',
    () => !scene.ip(`route show dev ${scene.name}`).includes('10.212'),
  );

  await until('a handshake and bytes in the metrics', async () => {
    const metrics = await proxy.metrics();
    const of = (name: string): number => metrics.get(`edge_mesh_peer_${name}`, { peer: 'b1' });
    return of('latest_handshake_seconds') > 0 && of('receive_bytes_total') > 2 ** 20;
  });

  await first;
  // The device dies under the flow; where the other end was is known by now.
  const before = proxy.logs.length;
  const device = scene.devicePid();
  const second = transfer(client, 2);
  await until('it to flow again', () => backend.bytes > BULK_BYTES + 2 ** 20);
  if (device > 0) {
    process.kill(device, 'SIGKILL');
    await proxy.untilLog('The mesh device is back', before);
    await proxy.untilMetric('edge_mesh_device_restarts_total', 1);
  }
  await second;
  client.destroy();

  const metrics = await proxy.metrics();
  assert.equal(metrics.get('edge_mesh_reload_errors_total'), 0);
  const { mesh } = JSON.parse((await proxy.page('/api/mesh')).text);
  assert.deepEqual(
    mesh.peers.map(({ id }: { id: string }) => id),
    ['b1'],
  );
  assert.equal(mesh.restarts, device > 0 ? 1 : 0);

  assert.deepEqual(await proxy.stop(), DONE);
  assert.deepEqual(scene.remains(), []);
});

test('mesh: kill -9 of the proxy leaves the tunnels, the next run adopts them, a takeover hands them on', {
  skip,
}, async () => {
  await using scene = new MeshScene();
  scene.ok('mesh init');
  const file = scene.ok('mesh peer add b1 --generate-key');
  const killed = await scene.start();
  scene.join(file);
  assert.equal(scene.ping(), '');
  const device = scene.devicePid();
  killed.signal('SIGKILL');
  await until('the proxy to end', () => !isAlive(killed.pid));
  assert.equal(scene.ping(), '');

  const old = await scene.start();
  assert.equal(old.log('Mesh device adopted')?.interface, scene.name);
  const { host, port } = old.address;
  const next = await scene.start({ LISTEN_ADDR: `${host}:${port}` });
  assert.deepEqual(await old.exited, DONE);
  assert.equal(scene.ping(), '');
  assert.equal(scene.devicePid(), device);
  // The one that has it follows the table.
  scene.ok(`mesh peer add nobody --public-key ${KEY}`);
  await next.untilLog('Mesh peers applied');
  assert.deepEqual(await next.stop(), DONE);
  await killed.exited;
  assert.deepEqual(scene.remains(), []);
});

test('mesh: a helper that is killed leaves the tunnels, and the next one follows the table', {
  skip,
}, async () => {
  await using scene = new MeshScene();
  scene.ok('mesh init');
  const proxy = await scene.start();
  const device = scene.devicePid();
  const children = readFileSync(`/proc/${proxy.pid}/task/${proxy.pid}/children`, 'utf8');
  process.kill(Number(children.trim().split(' ')[0]), 'SIGKILL');
  await proxy.untilLog('The mesh helper has ended, the tunnels stay; starting it again');
  const logs = proxy.logs.length;
  scene.ok(`mesh peer add nobody --public-key ${KEY} --allowed-ips 10.212.0.0/16`);
  await proxy.untilLog('Mesh peers applied', logs);
  assert.match(scene.ip(`route show dev ${scene.name}`), /10\.212\.0\.0\/16/);
  assert.equal(scene.devicePid(), device);
  assert.deepEqual(await proxy.stop(), DONE);
  assert.deepEqual(scene.remains(), []);
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test('mesh: peers are followed after the privileges are given up', { skip }, async () => {
  await using scene = new MeshScene();
  scene.ok('mesh init');
  const file = scene.ok('mesh peer add b1 --generate-key');
  chmodSync(scene.directory, 0o755);
  chmodSync(scene.dbPath, 0o644);
  const proxy = await scene.start({ USER: 'nobody' });
  scene.join(file);
  assert.equal(scene.ping(), '');
  const logs = proxy.logs.length;
  scene.ok(`mesh peer add nobody --public-key ${KEY} --allowed-ips 10.212.0.0/16`);
  await proxy.untilLog('Mesh peers applied', logs);
  assert.match(scene.ip(`route show dev ${scene.name}`), /10\.212\.0\.0\/16/);
  assert.deepEqual(await proxy.stop(), DONE);
  assert.deepEqual(scene.remains(), []);
});

test('mesh: rows that cannot be are skipped and said, and the rest is applied', {
  skip,
}, async () => {
  await using scene = new MeshScene();
  scene.ok('mesh init');
  const file = scene.ok('mesh peer add b1 --generate-key');
  changeRouting(
    scene.dbPath,
    `INSERT INTO peers(id, public_key, endpoint) VALUES ('c', '${KEY}', 'x')`,
  );
  const proxy = await scene.start();
  scene.join(file);
  const skipped = await proxy.untilLog('A row of routing.db is skipped');
  assert.deepEqual(
    [skipped.table, skipped.id, skipped.column, skipped.value],
    ['peers', 'c', 'endpoint', '"x"'],
  );
  assert.equal(scene.ping(), '');
  // A prefix that something else has a route for: the others stay as they are, and it is counted.
  const taken = '10.211.7.0/24';
  scene.ip(`route add ${taken} dev lo`);
  try {
    scene.ok(`mesh peer add d --public-key ${KEY} --allowed-ips ${taken},10.210.0.0/16`);
    const { reason } = await proxy.untilLog('The mesh is not as it should be, trying again');
    assert.match(String(reason), /10\.211\.7\.0\/24.*File exists/);
    assert.match(scene.ip(`route show dev ${scene.name}`), /10\.210\.0\.0\/16/);
  } finally {
    scene.ip(`route del ${taken} dev lo`);
  }
  await until('the route', () => scene.ip(`route show dev ${scene.name}`).includes(taken));
  await proxy.stop();
});

test('mesh: without a key, with an open one, or without CAP_NET_ADMIN the start ends with the reason', {
  skip,
}, async () => {
  await using scene = new MeshScene();
  const refusal = (wrapper: readonly string[] = []) => failureOf(scene.open({}, wrapper));
  const missing = await refusal();
  assert.equal(missing.code, 1);
  assert.match(missing.said, /mesh\.key": no such file, make it with: edgeproxy mesh init/);
  scene.ok('mesh init');
  const bare = await refusal(['setpriv', '--bounding-set', '-net_admin']);
  assert.equal(bare.code, 1);
  assert.match(bare.said, /lacks CAP_NET_ADMIN; start it as root/);
  chmodSync(scene.keyPath, 0o640);
  const open = await refusal();
  assert.equal(open.code, 1);
  assert.match(open.said, /its mode is 0640, allowed: 0600/);
  assert.equal(scene.call('mesh init').status, 1);
  assert.deepEqual(scene.remains(), []);
});

test('mesh: up, status and down work without a proxy', { skip }, async () => {
  await using scene = new MeshScene();
  scene.ok('mesh init');
  const file = scene.ok('mesh peer add b1 --generate-key');
  assert.equal(scene.call('mesh status').status, 1);
  assert.match(scene.ok('mesh up'), /is up .*1 peers/);
  scene.join(file);
  assert.equal(scene.ping(), '');
  const status = scene.ok('mesh status --metrics-listen-addr off');
  assert.match(status, /^b1 +backend +- +\d+s .*:\d+$/m);
  const view = JSON.parse(scene.ok('mesh status --json --metrics-listen-addr off'));
  assert.equal(view.interface, scene.name);
  assert.equal(view.peers[0].allowed_ips[0], `${scene.otherAddress}/32`);
  scene.ok('mesh peer remove b1');
  scene.ok('mesh up');
  assert.doesNotMatch(scene.ip(`route show dev ${scene.name}`), /10\.213/);
  scene.ok('mesh down');
  assert.deepEqual(scene.remains(), []);
  assert.match(scene.ok('mesh down'), /is not there/);
});
