// The file for the other end: what is in it for each way to join.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parsePrefix } from '../sys/prefix.ts';
import type { MeshPeer } from './peer.ts';
import { quickFile } from './quick-file.ts';

const prefixes = (...texts: string[]) =>
  texts.map((text) => {
    const prefix = parsePrefix(text);
    if (typeof prefix === 'string') throw new Error(prefix);
    return prefix;
  });

const PEER: MeshPeer = {
  id: 'b "1"',
  kind: 'backend',
  publicKey: 'PUBLIC',
  endpoint: null,
  allowedIps: prefixes('10.213.0.9', 'fd00::9', '192.168.7.0/24'),
  keepalive: 0,
  mtu: null,
  presharedKey: null,
};
const OWN = {
  publicKey: 'OWN',
  addresses: prefixes('10.213.0.1', 'fd00::1'),
  endpoint: 'pop.example:51820',
  mtu: 1420,
};

test('quickFile() of a peer that calls has our endpoint, a keepalive, and no port', () => {
  assert.equal(
    quickFile({ peer: PEER, privateKey: 'PRIVATE', own: OWN }),
    [
      '# Peer "b \\"1\\"" of an edgeproxy mesh',
      '[Interface]',
      'PrivateKey = PRIVATE',
      'Address = 10.213.0.9/32, fd00::9/128',
      'MTU = 1420',
      '',
      '[Peer]',
      'PublicKey = OWN',
      'Endpoint = pop.example:51820',
      'AllowedIPs = 10.213.0.1/32, fd00::1/128',
      'PersistentKeepalive = 25',
      '',
    ].join('\n'),
  );
});

test('quickFile() of a peer that is called has its port, its row and a place for its key', () => {
  const peer = { ...PEER, endpoint: '[2001:db8::9]:4500', mtu: 1380, presharedKey: 'PSK' };
  const text = quickFile({ peer, privateKey: null, own: { ...OWN, endpoint: null } });
  assert.match(text, /^# PrivateKey = the private key of PUBLIC$/m);
  assert.match(text, /^ListenPort = 4500\nMTU = 1380$/m);
  assert.match(text, /^PresharedKey = PSK$/m);
  assert.doesNotMatch(text, /Endpoint|Keepalive/);
});
