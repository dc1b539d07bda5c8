// The configuration protocol: what is set is shown, what is wrong is refused by number, and garbage never passes as a change.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatEndpoint, formatGet, parseEndpoint, parseSet, UapiError } from './uapi.ts';

const KEY = 'ab'.repeat(32);

test('uapi: a whole configuration is read, and shown as it was set', () => {
  const change = parseSet([
    `private_key=${KEY}`,
    'listen_port=51820',
    'fwmark=4660',
    'replace_peers=true',
    `public_key=${'cd'.repeat(32)}`,
    'update_only=true',
    `preshared_key=${'ef'.repeat(32)}`,
    'endpoint=[2001:db8::1]:51820',
    'persistent_keepalive_interval=25',
    'replace_allowed_ips=true',
    'allowed_ip=10.1.2.3/8',
    'allowed_ip=fd00::/64',
    'protocol_version=1',
    `public_key=${'01'.repeat(32)}`,
    'remove=true',
  ]);
  assert.deepEqual([change.listenPort, change.mark, change.replacePeers], [51_820, 4660, true]);
  const [peer, gone] = change.peers;
  assert.equal(gone?.remove, true);
  assert.ok(peer?.updateOnly && peer.replaceAllowedIps);
  const lines = formatGet({
    privateKey: change.privateKey as Uint8Array,
    listenPort: 51_820,
    mark: 4660,
    traffic: () => ({ sent: 5, received: 2 ** 40 }),
    peers: [
      {
        peer: 0,
        publicKey: peer.publicKey,
        presharedKey: peer.presharedKey as Uint8Array,
        endpoint: peer.endpoint as Uint8Array,
        lastHandshakeUnixMs: 1500.25,
        persistentKeepaliveSecs: peer.persistentKeepaliveSecs as number,
        allowedIps: peer.allowedIps ?? [],
      },
    ],
  });
  assert.deepEqual(lines, [
    `private_key=${KEY}`,
    'listen_port=51820',
    'fwmark=4660',
    `public_key=${'cd'.repeat(32)}`,
    `preshared_key=${'ef'.repeat(32)}`,
    'protocol_version=1',
    'endpoint=[2001:db8::1]:51820',
    'last_handshake_time_sec=1',
    'last_handshake_time_nsec=500250000',
    'tx_bytes=5',
    'rx_bytes=1099511627776',
    'persistent_keepalive_interval=25',
    // Bits beyond the length are cleared, as wg(8) has it.
    'allowed_ip=10.0.0.0/8',
    'allowed_ip=fd00::/64',
  ]);
});

const WRONG: readonly (readonly [line: string, errno: number])[] = [
  ['private_key=ab', 22],
  ['listen_port=65536', 22],
  ['listen_port=-1', 22],
  ['fwmark=4294967296', 22],
  ['replace_peers=false', 22],
  ['colour=blue', 71],
  ['nothing', 71],
  ['=1', 71],
];
const WRONG_OF_PEER: readonly (readonly [line: string, errno: number])[] = [
  ['endpoint=1.2.3.4', 22],
  ['endpoint=1.2.3.4:0', 22],
  ['endpoint=2001:db8::1:5', 22],
  ['endpoint=host:5', 22],
  ['allowed_ip=1.2.3.4/33', 22],
  ['allowed_ip=fd00::/129', 22],
  ['allowed_ip=1.2.3.4/8/8', 22],
  ['allowed_ip=', 22],
  ['protocol_version=2', 71],
  ['listen_port=1', 71],
  ['persistent_keepalive_interval=65536', 22],
];

test('uapi: what is wrong is refused with its number', () => {
  const errnoOf = (lines: readonly string[]): number => {
    try {
      parseSet(lines);
      return 0;
    } catch (error) {
      return error instanceof UapiError ? error.errno : -1;
    }
  };
  for (const [line, errno] of WRONG) assert.equal(errnoOf([line]), errno, line);
  for (const [line, errno] of WRONG_OF_PEER) {
    assert.equal(errnoOf([`public_key=${KEY}`, line]), errno, line);
  }
});

test('uapi: endpoints are read back as they were written', () => {
  const endpoints = fc.tuple(fc.oneof(fc.ipV4(), fc.ipV6()), fc.integer({ min: 1, max: 65_535 }));
  const property = fc.property(endpoints, ([host, port]) => {
    const endpoint = parseEndpoint(host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`);
    assert.deepEqual(parseEndpoint(formatEndpoint(endpoint)), endpoint);
  });
  fc.assert(property, { numRuns: 300 });
});

test('uapi: any text is a change or a UapiError', () => {
  const names = fc.constantFrom(
    'public_key',
    'endpoint',
    'allowed_ip',
    'fwmark',
    'preshared_key',
    'x',
  );
  const values = fc.oneof(fc.string(), fc.constant(KEY), fc.ipV6(), fc.nat().map(String));
  const lines = fc.array(
    fc.oneof(
      fc.string(),
      fc.tuple(names, values).map((pair) => pair.join('=')),
    ),
  );
  const property = fc.property(lines, (text) => {
    try {
      for (const peer of parseSet(text).peers) assert.equal(peer.publicKey.length, 32);
    } catch (error) {
      assert.ok(error instanceof UapiError, String(error));
    }
  });
  fc.assert(property, { numRuns: 1000 });
});
