// Gates and breakers of backends by the state of the peer they are behind, as peers and backends come and go. The device
// of the peer `stale` says of its last handshake that it is too old; nothing can be probed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../base/log.ts';
import { loadConfig } from '../config.ts';
import type { MeshPeer } from '../mesh/peer.ts';
import { createBackendState, GATE_PATH, openBackendState } from '../route/backend-state.ts';
import { isBreakerOpen, NO_TRIAL, noteFailure } from '../route/breaker.ts';
import { defaultRegionMap } from '../route/regions.ts';
import { parsePrefix } from '../sys/prefix.ts';
import { until } from '../testing/wait.ts';
import type { Mesh } from './mesh.ts';
import { PathRouting } from './path-routing.ts';
import { createPublisher } from './publish.ts';
import type { RawBackend } from './routing-rows.ts';

const POLICY = {
  failureThreshold: 1,
  successThreshold: 1,
  ejectionMs: 60_000,
  ejectionMsMax: 60_000,
  trialMs: 1000,
};

function peer(id: string, ...allowed: string[]): MeshPeer {
  const allowedIps = allowed.map((text) => {
    const prefix = parsePrefix(text);
    return typeof prefix === 'string' ? assert.fail(prefix) : prefix;
  });
  const rest = { endpoint: null, keepalive: 0, mtu: null, presharedKey: null };
  return { id, kind: 'backend', publicKey: '', allowedIps, ...rest };
}

function row(id: string, last: number): RawBackend {
  return {
    id,
    app: 'web',
    region: 'sa',
    country: null,
    family: 4,
    words: [0, 0, 0, 0x0a00_0000 + last],
    port: 80,
    healthy: true,
    weight: 1,
    softLimit: 100,
    hardLimit: 0,
    deleted: false,
    check: null,
    drain: null,
    proxyProtocol: null,
  };
}

function setUp() {
  const state = openBackendState(createBackendState());
  const events: string[] = [];
  const write = (line: string): void => void events.push(JSON.parse(line).event);
  const mesh = {
    peers: [peer('stale', '10.0.0.0/24'), peer('fresh', '10.0.0.128/25')],
    options: { interface: 'nobody0', mtu: 1420 },
    status: () => {
      const now = Math.floor(Date.now() / 1000);
      return [
        { id: 'stale', latestHandshakeSecs: now - 300, receivedBytes: 1 },
        { id: 'fresh', latestHandshakeSecs: now, receivedBytes: 1 },
      ];
    },
    setPathMtu: () => {},
  };
  const env = { EDGEPROXY_MESH_PROBE_INTERVAL_SECS: '0.1', EDGEPROXY_MESH_DEAD_SECS: '0.3' };
  const logger = createLogger({ json: true, write });
  const paths = new PathRouting(loadConfig({}, env), mesh as unknown as Mesh, state, logger);
  const publisher = createPublisher({
    regionMap: defaultRegionMap(),
    popRegion: 'sa',
    popCountry: null,
    backendState: state,
  });
  const health = null;
  paths.start({ publisher, health, publish: () => void publisher.republish() });
  const update = (...rows: RawBackend[]): void => {
    publisher.publish(rows, []);
    paths.update(rows);
  };
  const gates = (): number[] => [...state.gate.subarray(0, 3)];
  return { state, events, mesh, paths, update, gates };
}

test('PathRouting gates the backends of a dead peer, by the longest prefix, and follows rows and peers', async () => {
  const { state, events, mesh, paths, update, gates } = setUp();
  const [a, b, c] = [row('a', 1), row('b', 200), row('c', 0x0100_0000)];
  update(a, b, c);
  assert.deepEqual(gates(), [0, 0, 0]);
  // A connect fails before anybody knows why.
  noteFailure(state, POLICY, 0, NO_TRIAL, 1000);
  paths.noteBreaker(0, true);
  assert.ok(isBreakerOpen(state, 0));
  await until('the gate', () => state.gate[0] !== 0 && events.includes('path_dead'));
  assert.deepEqual(gates(), [GATE_PATH, 0, 0]);
  assert.equal(isBreakerOpen(state, 0), false, 'it was the path');
  assert.deepEqual([paths.backend('a')?.state, paths.backend('b')?.state], ['dead', 'ok']);
  assert.match(paths.backend('a')?.reason ?? '', /^the last handshake is 30\d s old$/);
  assert.equal(paths.backend('c'), null);
  assert.deepEqual(paths.counts, { degraded: 0, dead: 1 });
  // Whoever has the index next is not behind that peer.
  update(b, c);
  assert.deepEqual(gates(), [0, 0, 0]);
  update(a, b, c);
  assert.deepEqual(gates(), [GATE_PATH, 0, 0]);
  mesh.peers = [peer('fresh', '10.0.0.0/24')];
  update(a, b, c);
  assert.deepEqual(gates(), [0, 0, 0]);
  assert.equal(paths.backend('a')?.peer, 'fresh');
  paths.close();
  paths.close();
});
