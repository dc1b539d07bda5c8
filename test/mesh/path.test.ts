// The paths of the mesh and the routing that follows them, through the real program, with wireguard-go at both ends: what
// happens to the datagrams of the tunnel is what happens on the Internet. Waits are for what the proxy says, never for a time.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { test } from 'node:test';
import {
  backendName,
  echoOnce,
  hashStream,
  openClient,
  sendBulk,
} from '../../src/testing/clients.ts';
import { skipReason } from '../../src/testing/netns.ts';
import { PathScene, pathProblem } from '../../src/testing/path-scene.ts';
import { type ProxyProcess, startProxy } from '../../src/testing/proxy-process.ts';
import { changeRouting } from '../../src/testing/routing-file.ts';
import {
  type ConnectionHandler,
  echo,
  sayName,
  startBackend,
  type TestBackend,
} from '../../src/testing/test-backends.ts';
import { until } from '../../src/testing/wait.ts';

const problem = pathProblem();
const skip = problem === '' ? false : skipReason(problem);
const STATE = 'edge_mesh_peer_state';
const BULK_BYTES = 4_000_000;

/** Clients from different addresses, so that no binding decides. */
function address(number: number): string {
  return `127.3.${number >> 8}.${number & 255}`;
}

async function namesOf(proxy: ProxyProcess, first: number): Promise<Set<string>> {
  const names = Array.from({ length: 8 }, (_, n) =>
    backendName(proxy.address, { from: address(first + n) }),
  );
  return new Set(await Promise.all(names));
}

/** `far` in the tunnel is the best choice of every client, `near` what is left without it. */
async function proxyBefore(
  scene: PathScene,
  far: TestBackend,
  near: TestBackend,
  settings: Readonly<Record<string, string | number>> = {},
): Promise<ProxyProcess> {
  changeRouting(
    scene.dbPath,
    `INSERT INTO backends(id, app, region, wg_ip, port) VALUES
     ('far', 'web', 'sa', '${scene.otherAddress}', ${far.port}),
     ('near', 'web', 'us', '127.0.0.1', ${near.port})`,
  );
  const proxy = await startProxy({
    directory: scene.directory,
    settings: { ...scene.settings, CONNECT_TIMEOUT_MS: 500, ...settings },
  });
  await until('the path to be probed', async () => {
    const metrics = await proxy.metrics();
    return metrics.get('edge_mesh_peer_rtt_seconds', { peer: 'far' }) > 0;
  });
  return proxy;
}

function inTunnel(scene: PathScene, handler: ConnectionHandler): Promise<TestBackend> {
  return scene.host.serve(handler, 0, scene.otherAddress);
}

function untilState(proxy: ProxyProcess, state: string): Promise<unknown> {
  return proxy.untilMetric(STATE, 1, { peer: 'far', state });
}

interface Shown {
  readonly choice: string;
  readonly candidates: readonly {
    readonly id: string;
    readonly tier: number;
    readonly excluded: string | null;
    readonly reason: string;
    readonly path: { readonly peer: string; readonly state: string } | null;
  }[];
}

async function explained(proxy: ProxyProcess): Promise<Shown> {
  return JSON.parse((await proxy.page('/api/explain?ip=127.9.9.9')).text) as Shown;
}

function candidate({ candidates }: Shown, id: string): Shown['candidates'][number] {
  const found = candidates.find((each) => each.id === id);
  assert.ok(found !== undefined, `${id} is no candidate`);
  return found;
}

test('mesh path: a cut tunnel takes its backend out with reason path, blames it for nothing, and heals', {
  skip,
}, async () => {
  await using scene = await new PathScene().open();
  await using far = await inTunnel(scene, (socket, backend) => {
    sayName('far')(socket, backend);
  });
  await using near = await startBackend(sayName('near'));
  await using proxy = await proxyBefore(scene, far, near, {
    HEALTH_CHECK_ENABLED: 'true',
    HEALTH_CHECK_INTERVAL_SECS: 0.2,
    HEALTH_CHECK_TIMEOUT_SECS: 0.2,
    HEALTH_UNHEALTHY_THRESHOLD: 2,
    CIRCUIT_FAILURE_THRESHOLD: 2,
    CIRCUIT_TIMEOUT_SECS: 3600,
  });
  assert.deepEqual(await namesOf(proxy, 0), new Set(['far']));
  scene.spoil('drop');
  // Before anybody knows: checks and connects fail, and breaker and checks draw their conclusions.
  await namesOf(proxy, 20);
  await untilState(proxy, 'dead');
  // Bound clients as well.
  assert.deepEqual(await namesOf(proxy, 0), new Set(['near']));
  assert.deepEqual(await namesOf(proxy, 40), new Set(['near']));
  const shown = candidate(await explained(proxy), 'far');
  assert.equal(shown.excluded, 'path');
  assert.match(shown.reason, /^no path to it: no answer for \d+ s$/);
  assert.deepEqual([shown.path?.peer, shown.path?.state], ['far', 'dead']);
  const list = JSON.parse((await proxy.page('/api/backends')).text);
  const row = list.backends.find(({ id }: { id: string }) => id === 'far');
  assert.deepEqual([row.excluded, row.path.state, row.breaker.open], ['path', 'dead', false]);
  const during = await proxy.metrics();
  assert.equal(during.get('edge_backends_path_dead'), 1);
  assert.equal(during.get('edge_backend_ejected', { backend: 'far' }), 0);
  // More checks fail; they do not count.
  const checks = { backend: 'far', result: 'inconclusive' };
  const before = during.get('edge_health_checks_total', checks);
  await until('more checks to fail', async () => {
    return (await proxy.metrics()).get('edge_health_checks_total', checks) > before + 3;
  });
  assert.equal((await proxy.metrics()).get('edge_backend_healthy', { backend: 'far' }), 1);
  scene.host.heal();
  await untilState(proxy, 'ok');
  // The very first client after that.
  assert.equal(await backendName(proxy.address, { from: address(99) }), 'far');
  const events = proxy.logs.map(({ event }) => event).filter((event) => /^path_/.test(`${event}`));
  assert.deepEqual([events.at(-1), events.includes('path_dead')], ['path_ok', true]);
});

test('mesh path: a lossy tunnel moves its backend one tier back, and bound clients stay', {
  skip,
}, async () => {
  await using scene = await new PathScene().open();
  await using far = await inTunnel(scene, sayName('far'));
  await using near = await startBackend(sayName('near'));
  await using proxy = await proxyBefore(scene, far, near, {
    CONNECT_TIMEOUT_MS: 20_000,
    CONNECT_TOTAL_TIMEOUT_MS: 20_000,
  });
  assert.equal(candidate(await explained(proxy), 'far').tier, 2);
  assert.deepEqual(await namesOf(proxy, 0), new Set(['far']));
  // Both rules of a way do not meet in one datagram.
  scene.spoil('numgen random mod 100 < 15 drop');
  await untilState(proxy, 'degraded');
  await proxy.untilMetric('edge_backends_path_degraded', 1);
  await until('the tier', async () => candidate(await explained(proxy), 'far').tier === 3);
  const { reason, excluded } = candidate(await explained(proxy), 'far');
  assert.equal(excluded, null);
  assert.match(reason, /one tier back, its path is degraded: \d+ % of the probes are lost$/);
  assert.deepEqual(await namesOf(proxy, 100), new Set(['far', 'near']), 'they share');
  assert.equal(await backendName(proxy.address, { from: address(3) }), 'far', 'bound');
  scene.host.heal();
  await untilState(proxy, 'ok');
  await until('the tier', async () => candidate(await explained(proxy), 'far').tier === 2);
  assert.deepEqual(await namesOf(proxy, 200), new Set(['far']));
});

/** The smallest MSS of the connections to an address. */
function backendMss(to: string): number {
  const { stdout } = spawnSync('ss', ['-tinH', 'dst', to], { encoding: 'utf8' });
  return Math.min(...[...stdout.matchAll(/\bmss:(\d+)/g)].map(([, mss]) => Number(mss)));
}

test('mesh path: a black hole of large packets is found, measured, and transfers go on', {
  skip,
}, async () => {
  await using scene = await new PathScene().open();
  await using far = await inTunnel(scene, echo);
  await using near = await startBackend(echo);
  // Sockets and the helper that changes routes are from before the privileges went.
  chmodSync(scene.directory, 0o755);
  await using proxy = await proxyBefore(scene, far, near, { USER: 'nobody' });
  const mtu = 'edge_mesh_peer_path_mtu_bytes';
  assert.equal((await proxy.metrics()).get(mtu, { peer: 'far' }), 1420);
  // 60 bytes of IPv4, UDP and WireGuard around each packet, each padded to 16: 1328 pass.
  scene.spoil('meta length > 1388 drop');
  const client = await openClient(proxy.address, { from: address(1) });
  await echoOnce(client, 'small ones pass');
  // It stalls now. Once the route knows, what we send has the new size; what comes back on this connection has the old one.
  client.write(Buffer.alloc(40_000));
  await until('the MTU to be found', async () => {
    const bytes = (await proxy.metrics()).get(mtu, { peer: 'far' });
    return bytes > 1280 && bytes <= 1328;
  });
  await until('the stalled transfer to go on', () => far.bytes > 40_000);
  client.destroy();
  const bytes = (await proxy.metrics()).get(mtu, { peer: 'far' });
  assert.ok(bytes >= 1324, `${bytes} bytes`);
  await until('the route', () => scene.route().includes(`mtu ${bytes}`));
  // New connections say so in their SYN: both ways.
  const next = await openClient(proxy.address, { from: address(2) });
  const reading = hashStream(next, BULK_BYTES);
  const sent = await sendBulk(next, BULK_BYTES, 7);
  await until('the MSS', () => backendMss(scene.otherAddress) <= bytes - 40);
  const received = await reading;
  assert.deepEqual([received.bytes, received.hash], [BULK_BYTES, sent]);
  const { mesh } = JSON.parse((await proxy.page('/api/mesh')).text);
  assert.deepEqual([mesh.peers[0].path_mtu, mesh.peers[0].state], [bytes, 'ok']);
  next.destroy();
});

test('mesh path: a peer that drops echo requests is judged by handshakes, not dead', {
  skip,
}, async () => {
  await using scene = await new PathScene().open();
  scene.dropEcho();
  await using far = await inTunnel(scene, sayName('far'));
  await using near = await startBackend(sayName('near'));
  changeRouting(
    scene.dbPath,
    `INSERT INTO backends(id, app, region, wg_ip, port) VALUES
     ('far', 'web', 'sa', '${scene.otherAddress}', ${far.port}),
     ('near', 'web', 'us', '127.0.0.1', ${near.port})`,
  );
  await using proxy = await startProxy({ directory: scene.directory, settings: scene.settings });
  const handshake = 'edge_mesh_peer_latest_handshake_seconds';
  await until(
    'a handshake',
    async () => (await proxy.metrics()).get(handshake, { peer: 'far' }) > 0,
  );
  // Far longer than a silent peer that had answered before would live.
  const received = 'edge_mesh_peer_receive_bytes_total';
  const sent = 'edge_mesh_peer_transmit_bytes_total';
  const start = (await proxy.metrics()).get(sent, { peer: 'far' });
  await until('thirty probes', async () => {
    return (await proxy.metrics()).get(sent, { peer: 'far' }) > start + 30 * 80;
  });
  const metrics = await proxy.metrics();
  assert.ok(metrics.get(received, { peer: 'far' }) > 0);
  assert.equal(metrics.get(STATE, { peer: 'far', state: 'ok' }), 1);
  assert.deepEqual(await namesOf(proxy, 0), new Set(['far']));
});
