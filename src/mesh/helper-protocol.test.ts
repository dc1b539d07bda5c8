// The helper believes nothing: a message that is not what its type says changes nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planAddresses } from './addresses.ts';
import { checkedPeers } from './helper-protocol.ts';
import { generateKeyPair } from './key.ts';
import type { MeshPeer } from './peer.ts';

const { publicKey } = generateKeyPair();
const PEER: MeshPeer = {
  id: 'a',
  kind: 'pop',
  publicKey,
  endpoint: 'pop.example:1',
  allowedIps: planAddresses(publicKey).addresses,
  keepalive: 0,
  mtu: null,
  presharedKey: null,
};

test('checkedPeers() takes peers as they came through JSON', () => {
  assert.deepEqual(checkedPeers(JSON.parse(JSON.stringify([PEER]))), [PEER]);
});

test('checkedPeers() refuses text that would become a line of its own', () => {
  const [prefix] = PEER.allowedIps;
  const bad: readonly (readonly [string, unknown])[] = [
    ['publicKey', `${publicKey}\nlink del eth0`],
    ['presharedKey', 'x\nset=1'],
    ['endpoint', '192.0.2.1:1\nremove=true'],
    ['allowedIps', [{ ...prefix, length: '32\nlink del eth0' }]],
    ['allowedIps', [{ ...prefix, words: ['1', 2, 3, 4] }]],
    ['allowedIps', [{ ...prefix, words: [1, 2, 3] }]],
    ['allowedIps', null],
    ['keepalive', '0\nremove=true'],
    ['keepalive', -1],
    ['mtu', '1420 dev eth0'],
    ['mtu', 0.5],
    ['kind', 'x'],
    ['id', 7],
  ];
  for (const [field, value] of bad) {
    const peers = [{ ...PEER, [field]: value }] as unknown as MeshPeer[];
    assert.throws(() => checkedPeers(peers), TypeError, `${field} ${JSON.stringify(value)}`);
  }
  assert.throws(() => checkedPeers(null as never), TypeError);
  assert.throws(() => checkedPeers([null] as never), TypeError);
});
