import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatPrefix, type Prefix, parsePrefix } from '../../sys/prefix.ts';
import { MeshDataPlane } from '../../testing/mesh-data-plane.ts';
import { MeshNetwork, type MeshNode } from '../../testing/mesh-network.ts';
import { peerOfAddress } from './allowed-ips.ts';
import type { DeviceChange, PeerChange, PeerState } from './port.ts';

const SEC = 1000;
const prefix = (text: string): Prefix => parsePrefix(text) as Prefix;
const key = (byte: number): Uint8Array => new Uint8Array(32).fill(byte);

function opened(): { net: MeshNetwork; a: MeshNode; b: MeshNode } {
  const net = new MeshNetwork(3);
  const [a, b] = [net.add('a'), net.add('b')];
  net.join(a, b);
  net.say(a, 'one');
  net.run(SEC);
  return { net, a, b };
}

const configure = (node: MeshNode, change: DeviceChange): void =>
  node.plane.machine.configure(SEC, change);
const peers = (node: MeshNode): readonly PeerState[] => node.plane.machine.state().peers;

test('state() says what configure() was told', () => {
  const { a, b, net } = opened();
  const change: PeerChange = {
    publicKey: b.publicKey,
    presharedKey: key(7),
    endpoint: net.endpointOf(50),
    persistentKeepaliveSecs: 25,
    allowedIps: ['10.0.0.0/8', '2001:db8::/32', '10.0.0.0/8'].map(prefix),
  };
  configure(a, { peers: [change] });
  const [state] = peers(a);
  assert.ok(state);
  assert.deepEqual(state.presharedKey, key(7));
  assert.deepEqual(state.endpoint, change.endpoint);
  assert.equal(state.persistentKeepaliveSecs, 25);
  assert.deepEqual(state.allowedIps.map(formatPrefix).sort(), ['10.0.0.0/8', '2001:db8::/32']);
  const replace = { publicKey: b.publicKey, replaceAllowedIps: true };
  configure(a, { peers: [{ ...replace, allowedIps: [prefix('192.0.2.1')] }] });
  assert.deepEqual(peers(a)[0]?.allowedIps.map(formatPrefix), ['192.0.2.1']);
  assert.equal(peerOfAddress(a.plane.table, 0, 0, 0xffff, 0xc0000201 | 0), 0);
  assert.equal(peerOfAddress(a.plane.table, 0, 0, 0xffff, 0x0a000001), -1);
});

test('a peer that is removed loses keys, prefixes and row, and its packets are refused', () => {
  const { net, a, b } = opened();
  configure(a, { peers: [{ publicKey: b.publicKey, allowedIps: [prefix('10.0.0.0/8')] }] });
  configure(a, { peers: [{ publicKey: b.publicKey, remove: true }] });
  assert.deepEqual([peers(a), a.plane.peers()], [[], []]);
  assert.equal(peerOfAddress(a.plane.table, 0, 0, 0xffff, 0x0a000001), -1);
  assert.equal(a.plane.machine.nextDeadline(), Infinity);
  const heard = a.received.length;
  net.say(b, 'still there?');
  net.run(3 * SEC);
  assert.equal(a.received.length, heard);
  configure(a, { peers: [{ publicKey: key(4), updateOnly: true }] });
  assert.deepEqual(peers(a), []);
});

test('a row has no prefixes when it becomes another peer', () => {
  const { a } = opened();
  const { plane } = a;
  const owners: number[] = [];
  plane.addPeer = (peer) => {
    owners.push(peerOfAddress(plane.table, 0, 0, 0xffff, 0x0a000001));
    MeshDataPlane.prototype.addPeer.call(plane, peer);
  };
  const many = Array.from({ length: 7 }, (_, at) => ({ publicKey: key(at + 10) }));
  configure(a, { peers: [...many, { publicKey: key(16), allowedIps: [prefix('10.0.0.0/8')] }] });
  configure(a, { peers: [{ publicKey: key(16), remove: true }, { publicKey: key(20) }] });
  assert.equal(owners.length, 8);
  assert.ok(
    owners.every((peer) => peer === -1),
    `${owners}`,
  );
});

test('replacePeers drops all peers and their sessions, the ones named come anew', () => {
  const { a, b } = opened();
  assert.ok(a.plane.keypairs(0) > 0);
  configure(a, { replacePeers: true, peers: [{ publicKey: b.publicKey }, { publicKey: key(4) }] });
  assert.deepEqual(
    peers(a).map(({ publicKey }) => publicKey),
    [b.publicKey, key(4)],
  );
  assert.deepEqual(
    a.plane.peers().map((peer) => a.plane.keypairs(peer)),
    [0, 0],
  );
  assert.equal(peers(a)[0]?.endpoint, null);
});

test('the same private and preshared key again change nothing', () => {
  const { a, b } = opened();
  const presharedKey = key(0);
  configure(a, { privateKey: a.privateKey, peers: [{ publicKey: b.publicKey, presharedKey }] });
  assert.equal(a.plane.keypairs(0), 1);
});

test('another private key ends all sessions, and handshakes go on with it', () => {
  const { net, a, b } = opened();
  const c = net.add('c');
  configure(a, { privateKey: c.privateKey });
  assert.equal(a.plane.keypairs(0), 0);
  net.introduce(b, { ...a, publicKey: c.publicKey });
  net.say(a, 'as somebody else', 0);
  net.run(10 * SEC);
  assert.equal(b.received.at(-1)?.text, 'as somebody else');
  configure(a, { privateKey: key(0) });
  assert.equal(a.plane.machine.state().privateKey, null);
  net.say(a, 'as nobody', 0);
  net.run(20 * SEC);
  assert.equal(b.received.at(-1)?.text, 'as somebody else');
});

test('a peer with our own key is not taken, and removed when our key becomes its', () => {
  const { net, a, b } = opened();
  configure(a, { peers: [{ publicKey: a.publicKey }] });
  assert.equal(peers(a).length, 1);
  const c = net.add('c');
  configure(a, { peers: [{ publicKey: c.publicKey }] });
  configure(a, { privateKey: c.privateKey });
  assert.deepEqual(
    peers(a).map(({ publicKey }) => publicKey),
    [b.publicKey],
  );
});

test('a packet that waits for an endpoint goes when there is one', () => {
  const net = new MeshNetwork(3);
  const [a, b] = [net.add('a'), net.add('b')];
  net.introduce(b, a);
  a.plane.machine.configure(0, { peers: [{ publicKey: b.publicKey }] });
  net.say(a, 'where to?');
  net.run(2 * SEC);
  assert.equal(net.log.length, 0);
  net.introduce(a, b);
  net.run(net.now + 100);
  assert.equal(b.received.at(-1)?.text, 'where to?');
});

test('a packet that waits for our own key goes when there is one', () => {
  const { net, a, b } = opened();
  a.plane.machine.configure(SEC, { privateKey: key(0) });
  net.say(a, 'who am I?');
  net.run(6 * SEC);
  assert.equal(b.received.at(-1)?.text, 'one');
  a.plane.machine.configure(net.now, { privateKey: a.privateKey });
  net.run(net.now + 100);
  assert.equal(b.received.at(-1)?.text, 'who am I?');
});

test('a change that cannot be made whole is refused, and nothing of it made', () => {
  const { a } = opened();
  const before = structuredClone(a.plane.machine.state());
  const many = Array.from({ length: 8 }, (_, at) => ({ publicKey: key(at + 10) }));
  const prefixes = Array.from({ length: 65 }, (_, at) => prefix(`10.0.0.${at}`));
  const wrong: readonly (readonly [DeviceChange, RegExp])[] = [
    [{ peers: many }, /there would be 9, at most 8/],
    [{ peers: [{ publicKey: key(9), allowedIps: prefixes }] }, /65 prefixes, at most 64/],
    [{ peers: [{ publicKey: key(9) }, { publicKey: key(9).subarray(1) }] }, /of 31 bytes/],
    [{ privateKey: new Uint8Array(33) }, /private key of 33 bytes: it has 32/],
    [{ peers: [{ publicKey: key(9), endpoint: key(9) }] }, /endpoint of 32 bytes: it has 18/],
    [{ peers: [{ publicKey: key(9), presharedKey: key(9).subarray(9) }] }, /preshared key/],
    [{ peers: [{ publicKey: key(9), persistentKeepaliveSecs: 65_536 }] }, /0 to 65535 seconds/],
  ];
  for (const [change, said] of wrong) assert.throws(() => configure(a, change), said);
  assert.deepEqual(a.plane.machine.state(), before);
  configure(a, { replacePeers: true, peers: many });
  assert.equal(peers(a).length, 8);
});
