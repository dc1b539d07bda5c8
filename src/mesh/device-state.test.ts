// What devices say, in both languages, and the changes they are told: differences alone, and no roaming undone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  changesOf,
  type DeviceState,
  hasChanges,
  parseDump,
  parseUapi,
  syncConf,
  uapiSet,
  type WantedPeer,
} from './device-state.ts';
import { generateKeyPair, generatePresharedKey } from './key.ts';

const own = generateKeyPair();
const [one, two] = [generateKeyPair().publicKey, generateKeyPair().publicKey] as const;
const psk = generatePresharedKey();
const hex = (key: string): string => Buffer.from(key, 'base64').toString('hex');

const STATE: DeviceState = {
  publicKey: own.publicKey,
  listenPort: 51_820,
  peers: [
    {
      publicKey: one,
      presharedKey: psk,
      endpoint: '192.0.2.7:4242',
      allowedIps: ['10.213.0.1/32', 'fd00::1/128'],
      latestHandshakeSecs: 1_700_000_000,
      receivedBytes: 1234,
      sentBytes: 567,
      keepalive: 25,
    },
    {
      publicKey: two,
      presharedKey: null,
      endpoint: null,
      allowedIps: [],
      latestHandshakeSecs: 0,
      receivedBytes: 0,
      sentBytes: 0,
      keepalive: 0,
    },
  ],
};

test('parseDump() reads wg show dump', () => {
  const text = [
    [own.privateKey, own.publicKey, 51820, 'off'],
    [one, psk, '192.0.2.7:4242', '10.213.0.1/32,fd00::1/128', 1700000000, 1234, 567, 25],
    [two, '(none)', '(none)', '(none)', 0, 0, 0, 'off'],
  ].map((cells) => cells.join('\t'));
  assert.deepEqual(parseDump(`${text.join('\n')}\n`), STATE);
  assert.deepEqual(parseDump('(none)\t(none)\t0\toff\n'), {
    publicKey: null,
    listenPort: 0,
    peers: [],
  });
});

test('parseUapi() reads the answer to get=1', () => {
  const lines = [
    `private_key=${hex(own.privateKey)}`,
    'listen_port=51820',
    `public_key=${hex(one)}`,
    `preshared_key=${hex(psk)}`,
    'protocol_version=1',
    'endpoint=192.0.2.7:4242',
    'last_handshake_time_sec=1700000000',
    'last_handshake_time_nsec=5',
    'tx_bytes=567',
    'rx_bytes=1234',
    'persistent_keepalive_interval=25',
    'allowed_ip=10.213.0.1/32',
    'allowed_ip=fd00::1/128',
    `public_key=${hex(two)}`,
    `preshared_key=${'00'.repeat(32)}`,
  ];
  assert.deepEqual(parseUapi(`${lines.join('\n')}\n`), STATE);
  assert.deepEqual(parseUapi('listen_port=1\n'), { publicKey: null, listenPort: 1, peers: [] });
});

function wantedPeers(): WantedPeer[] {
  return STATE.peers.map(({ publicKey, presharedKey, endpoint, allowedIps, keepalive }) => ({
    publicKey,
    presharedKey,
    endpoint,
    allowedIps: [...allowedIps].reverse(),
    keepalive,
  }));
}

function wanted(peers: readonly WantedPeer[]) {
  return { privateKey: own.privateKey, listenPort: 51_820, peers };
}

const applied = new Map(STATE.peers.map(({ publicKey, endpoint }) => [publicKey, endpoint]));

test('changesOf() finds nothing where nothing differs, the order of allowed IPs aside', () => {
  assert.ok(!hasChanges(changesOf(wanted(wantedPeers()), STATE, applied)));
  assert.ok(!hasChanges(changesOf(wanted(wantedPeers()), STATE, new Map())));
});

test('changesOf() leaves the endpoint of a peer that has roamed, until another one is wanted', () => {
  const before = new Map([[one, '198.51.100.1:1']]);
  const [peer, other] = wantedPeers() as [WantedPeer, WantedPeer];
  const same = changesOf(wanted([{ ...peer, endpoint: '198.51.100.1:1' }, other]), STATE, before);
  assert.ok(!hasChanges(same));
  const moved = changesOf(wanted([{ ...peer, endpoint: '198.51.100.2:1' }, other]), STATE, before);
  assert.deepEqual([...moved.moved], [one]);
  const fresh = changesOf(
    wanted([{ ...peer, endpoint: '198.51.100.1:1' }, other]),
    STATE,
    new Map(),
  );
  assert.deepEqual([...fresh.moved], [one]);
});

test('uapiSet() says what differs and no more', () => {
  const [peer] = wantedPeers() as [WantedPeer];
  const next = wanted([{ ...peer, keepalive: 7 }]);
  const text = uapiSet(next, changesOf(next, STATE, applied));
  assert.deepEqual(text.trimEnd().split('\n'), [
    'set=1',
    `public_key=${hex(two)}`,
    'remove=true',
    `public_key=${hex(one)}`,
    `preshared_key=${hex(psk)}`,
    'persistent_keepalive_interval=7',
  ]);
  assert.ok(text.endsWith('\n\n'));
  const fresh = wanted([peer]);
  const all = uapiSet(
    fresh,
    changesOf(fresh, { publicKey: null, listenPort: 0, peers: [] }, new Map()),
  );
  assert.match(all, /^set=1\nprivate_key=[0-9a-f]{64}\nlisten_port=51820\n/);
  assert.match(all, /endpoint=192\.0\.2\.7:4242\n.*\nreplace_allowed_ips=true\nallowed_ip=/);
});

test('syncConf() names every peer, and the endpoint of those that are to move', () => {
  const next = wanted(wantedPeers());
  const kept = syncConf(next, changesOf(next, STATE, applied));
  assert.equal(kept.match(/\[Peer\]/g)?.length, 2);
  assert.doesNotMatch(kept, /Endpoint/);
  // Else wg would take the old one for still wanted.
  assert.equal(kept.match(/^PresharedKey = /gm)?.length, 2);
  const fresh = syncConf(next, changesOf(next, { ...STATE, peers: [] }, applied));
  assert.match(fresh, /^Endpoint = 192\.0\.2\.7:4242$/m);
});
